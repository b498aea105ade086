"""From a clip to the model's pixels: ours, ours from the cache, decord, torchcodec, and every frame as ms-swift has it.

    python -m benchmarks.encoding [--runs N] [--seconds N …] [CLIP …]

Without clips they are drawn: 3, 5 and 10 s at 25 frames a second of 854x480 and of 1280x720, a key frame every 250
frames (sparse) or every 24 (dense), with motion. Ours is `EmoverseTemplate.encode` of a row with a clip, 8 frames as
tiles of 448 pixels; decord and torchcodec (each where it is installed) give the same template the same frames by index.
The stock path is what ms-swift's `internvl_hf` does: its `load_video_hf`, then transformers' processor on every frame.
That processor needs torchvision; without it, its steps are done here by the functions of torch that it calls, which
gives the same pixels in less time. All
use one thread of torch, and as many for decoding as they take by themselves. What is compared is processor time, of
which a data loader's workers have so much; times by the clock, which other work on the machine disturbs, are printed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from PIL import Image

from benchmarks.measure import alternate
from swift_plugins.files import CONFIGS, run_cli
from swift_plugins.frames import sample_frames, segment_centre_indices
from swift_plugins.options import option, parse

if TYPE_CHECKING:
    import torch

SIDE, FRAMES = 448, 8
SIZES = {"480p": (854, 480), "720p": (1280, 720)}
KEYS = {"sparse": 250, "dense": 24}
ALIKE = 4.0  # mean difference of two readers' pictures, of 255: their colours differ by rounding, other frames by more


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    clips: tuple[Path, ...] = option((), positional=True, nargs="*", metavar="CLIP", help="clips (default: drawn)")
    seconds: tuple[int, ...] = option((3, 5, 10), metavar="N", help="lengths of the drawn clips (3 5 10)")
    runs: int = option(7, metavar="N", help="measurements of each (7)")


def draw(path: Path, size: tuple[int, int], seconds: int, keys: int) -> Path:
    """A moving patch of noise over a gradient: content with motion, so that P- and B-frames cost something."""
    random, (width, height) = np.random.default_rng(0), size
    side = height // 3
    patch = random.integers(0, 255, (side, side, 3), np.uint8)
    ground = np.broadcast_to(np.linspace(0, 200, width, dtype=np.uint8)[None, :, None], (height, width, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": str(keys), "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(25 * seconds):
            picture = ground.copy()
            x, y = (
                int((room - side) / 2 * (1 + turn))
                for room, turn in ((width, np.sin(i / 20)), (height, np.cos(i / 17)))
            )
            picture[y : y + side, x : x + side] = patch
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def every_frame(path: Path, k: int) -> list[Image.Image]:
    """The pictures that `sample_frames` gives, from a decoder that turns every frame into one."""
    with av.open(str(path)) as container:
        pictures = [frame.to_image() for frame in container.decode(video=0)]
    return [pictures[i] for i in segment_centre_indices(len(pictures), k)]


def by_decord(path: Path, k: int) -> list[Image.Image]:
    """The same frames from decord."""
    import decord

    reader = decord.VideoReader(str(path))
    pictures = reader.get_batch(segment_centre_indices(len(reader), k)).asnumpy()
    return [Image.fromarray(picture) for picture in pictures]


def by_torchcodec(path: Path, k: int) -> list[Image.Image]:
    """The same frames from torchcodec, exact as it is by itself."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=0)
    frames = decoder.get_frames_at(segment_centre_indices(decoder.metadata.num_frames, k))
    return [Image.fromarray(picture) for picture in frames.data.numpy()]


class Encoder:
    """Ways from a clip to (frames, 3, 448, 448) pixels in bfloat16."""

    def __init__(self, scratch: Path):
        import torch
        from swift.model import get_processor
        from swift.template import get_template

        import swift_plugins.emoverse  # noqa: F401  registers the template
        from swift_plugins import template as ours

        torch.set_num_threads(1)
        self.module = ours
        model = scratch / "model"
        shutil.copytree(CONFIGS / "demo" / "checkpoint", model, ignore=shutil.ignore_patterns("*.safetensors"))
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        config |= {"force_image_size": SIDE, "vision_config": config["vision_config"] | {"image_size": SIDE}}
        (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
        processor = get_processor(str(model), model_type="emoverse", download_model=False, torch_dtype=torch.bfloat16)
        self.template = get_template(processor)
        self.template.set_mode("train")
        self.cache = ours.media_cache.MediaCache(scratch / "cache", 10**10)

    def encode(self, clip: Path, reader: Callable = sample_frames, cache: bool = False) -> torch.Tensor:
        """The template's own path, its frames from `reader`, or from the cache."""
        self.template.media_cache = self.cache if cache else None
        self.module.sample_frames = reader
        try:
            row = {"messages": [{"role": "user", "content": "<video>"}, {"role": "assistant", "content": "Joy."}]}
            return self.template.encode(row | {"videos": [str(clip)]})["pixel_values"]
        finally:
            self.module.sample_frames = sample_frames

    def stock(self, clip: Path) -> torch.Tensor:
        """Every frame, as `InternvlhfTemplate._encode` has it."""
        import torch
        from swift.template.vision_utils import load_video_hf

        from swift_plugins.internvl2 import preprocessor_config

        (video,), _ = load_video_hf([str(clip)])
        settings = preprocessor_config(SIDE)
        if importlib.util.find_spec("torchvision"):
            from transformers import InternVLVideoProcessor

            names = ("size", "image_mean", "image_std")
            processor = InternVLVideoProcessor(**{name: settings[name] for name in names})
            return processor(videos=[video], return_tensors="pt")["pixel_values_videos"][0].to(torch.bfloat16)
        frames = torch.from_numpy(video).permute(0, 3, 1, 2)
        frames = torch.nn.functional.interpolate(frames, (SIDE, SIDE), mode="bicubic", antialias=True)
        mean, deviation = (255 * torch.tensor(settings[name])[:, None, None] for name in ("image_mean", "image_std"))
        return frames.float().sub_(mean).div_(deviation).to(torch.bfloat16)


class Clock:
    """Seconds of processor time of a call, all threads of it; seconds by the clock are kept beside."""

    def __init__(self):
        self.wall: list[float] = []

    def __call__(self, call: Callable[[], object]) -> float:
        start, before = time.perf_counter(), time.process_time()
        call()
        taken = time.process_time() - before
        self.wall.append(time.perf_counter() - start)
        return taken


def check(encoder: Encoder, clip: Path, readers: dict[str, Callable]) -> None:
    """End the program where two ways do not show the same pictures."""
    frames = sample_frames(clip, FRAMES)
    if not all(map(np.array_equal, frames, every_frame(clip, FRAMES))):
        sys.exit(f"error: {clip}: the frames by index are not those of a decoder that keeps every frame")
    fresh = encoder.encode(clip)
    encoder.encode(clip, cache=True)
    if not fresh.equal(encoder.encode(clip, cache=True)):
        sys.exit(f"error: {clip}: the cache gives other pixels")
    for name, reader in readers.items():
        far = [np.abs(np.subtract(a, b, dtype=float)).mean() for a, b in zip(frames, reader(clip, FRAMES), strict=True)]
        if max(far) > ALIKE:
            sys.exit(f"error: {clip}: {name} gives other frames ({max(far):.1f} of 255 apart)")


def main() -> int:
    """Measure and write benchmarks/results.json."""
    options = parse(Options, __doc__, "python -m benchmarks.encoding")
    os.environ.setdefault("LOG_LEVEL", "ERROR")
    readers = {"decord": by_decord, "torchcodec": by_torchcodec}
    for name in list(readers):
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            print(f"{name}: not measured ({str(error).strip().splitlines()[0]})")
            del readers[name]
    stock = "its processor" if importlib.util.find_spec("torchvision") else "the processor's steps, without torchvision"
    print(f"stock: {stock}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        clips = {path.name: path for path in options.clips} or {
            f"{size}_{seconds}s_{keys}": draw(
                scratch / f"{size} {seconds} {keys}.mp4", SIZES[size], seconds, KEYS[keys]
            )
            for size in SIZES
            for seconds in options.seconds
            for keys in KEYS
        }
        encoder = Encoder(scratch)
        pairs, lines = [("ours", other) for other in (*readers, "stock")] + [("cached", "stock")], []
        for name, clip in clips.items():
            check(encoder, clip, readers)
            ways = {"ours": lambda clip=clip: encoder.encode(clip)}
            ways["cached"] = lambda clip=clip: encoder.encode(clip, cache=True)
            for other, reader in readers.items():
                ways[other] = lambda clip=clip, reader=reader: encoder.encode(clip, reader)
            ways["stock"] = lambda clip=clip: encoder.stock(clip)
            cells = []
            for pair in pairs:
                clocks = [Clock(), Clock()]
                calls = [
                    lambda call=ways[way], clock=clock: clock(call) for way, clock in zip(pair, clocks, strict=True)
                ]
                key = f"encode_{name}_{'cached_' if pair[0] == 'cached' else ''}vs_{pair[1]}"
                ratio = alternate(key, "s of processor time", *calls, options.runs, more=False)
                walls = [statistics.median(clock.wall) for clock in clocks]
                cells.append(f"{ratio:.2f} ({walls[1] / walls[0]:.2f})")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        head = " | ".join(f"{ours} vs {theirs}" for ours, theirs in pairs)
        print(f"\n| by processor time (by the clock) | {head} |\n" + "|---" * (len(pairs) + 1) + "|", *lines, sep="\n")
    return 0


if __name__ == "__main__":
    run_cli(main)
