"""Features a second: the loop of `data_prep.features --encoder` against a bare loop over the same batches.

    python -m benchmarks.encoders [--encoder NAME …] [--clips N] [--runs N] [--size tiny|base|large] [--device cuda]

Models are random: base has the sizes of the published base models (768 wide, 12 layers), large those of the ones that
Emotion-LLaMA uses (HuBERT, VideoMAE and ViT-MAE large, Whisper large-v3, EVA-CLIP-g), tiny is for a look whether this
runs. Clips are drawn: 3 s of 25 frames a second, 640 x 360, sound of 16 kHz. Ours reads the clips in other processes
(--jobs), encodes, checks and writes; theirs has what was read in memory and encodes it, the same batches by the same
encoder on the same device. Processes that decode are started before the clock is: a run of hours starts them once.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.measure import alternate
from data_prep.features import encoders as command
from data_prep.features.tower import DTYPES, chosen_device
from swift_plugins.files import InputError, run_cli
from swift_plugins.journal import Journal
from swift_plugins.options import option, parse

SECONDS, FPS, SIZE, FACES = 3, 25, (640, 360), 8
# (width, layers, heads, inner) of each encoder
SIZES = {
    "tiny": dict.fromkeys(command.NAMES, (64, 2, 4, 128)),
    "base": dict.fromkeys(command.NAMES, (768, 12, 12, 3072)),
    "large": dict.fromkeys(command.NAMES, (1024, 24, 16, 4096))
    | {"whisper": (1280, 32, 20, 5120), "eva_video": (1408, 40, 16, 6144)},
}


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    encoder: tuple[str, ...] = option(command.NAMES, choices=command.NAMES, help="one or more (all)")
    clips: int = option(48, metavar="N", help="clips (48)")
    runs: int = option(5, metavar="N", help="measurements of each (5)")
    size: str = option("base", choices=(*SIZES,), help="of the models (base)")
    batch: int | None = option(None, metavar="N", help="as of the command")
    jobs: int = option(-1, metavar="N", help="as of the command")
    device: str = option("auto", help="as of the command")
    dtype: str = option("float32", choices=DTYPES, help="as of the command")


def draw(folder: Path, count: int) -> list[Path]:
    """Clips with sound and pictures of faces, each another."""
    width, height = SIZE
    for place in range(count):
        random = np.random.default_rng(place)
        patch = random.integers(0, 255, (120, 120, 3), np.uint8)
        with av.open(str(folder / f"c{place}.mp4"), "w") as file:
            film = file.add_stream("libx264", rate=FPS)
            film.width, film.height, film.pix_fmt = width, height, "yuv420p"
            track = file.add_stream("aac", rate=16_000, layout="mono")
            for number in range(SECONDS * FPS):
                picture = np.full((height, width, 3), 90, np.uint8)
                picture[100:220, 4 * number : 4 * number + 120] = patch
                file.mux(film.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            tone = np.sin(np.arange(SECONDS * 16_000) * random.uniform(0.02, 0.2)) * 0.3
            sound = av.AudioFrame.from_ndarray(tone.astype(np.float32)[None], format="fltp", layout="mono")
            sound.rate = 16_000
            for packet in (*film.encode(None), *track.encode(sound), *track.encode(None)):
                file.mux(packet)
        faces = folder / "faces" / f"c{place}"
        faces.mkdir(parents=True)
        for number in range(FACES):
            Image.fromarray(random.integers(0, 255, (112, 112, 3), np.uint8)).save(faces / f"{number:03}.bmp")
    return [folder / f"c{place}.mp4" for place in range(count)]


def build(name: str, size: str, folder: Path) -> Path:
    """A random model of that encoder; whoever reads 4 KB or 4 GB of it gets features that are not zero."""
    import transformers as hf

    hf.utils.logging.disable_progress_bar()
    width, layers, heads, inner = SIZES[size][name]
    common = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    common |= {"intermediate_size": inner, "initializer_range": 0.02}
    if name == "hubert":
        stable = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
        model = hf.HubertModel(hf.HubertConfig(**common, **stable))
    elif name == "whisper":
        sizes = {"d_model": width, "encoder_layers": layers, "encoder_attention_heads": heads, "encoder_ffn_dim": inner}
        # The decoder is not used.
        sizes |= {"decoder_layers": 1, "decoder_attention_heads": heads, "decoder_ffn_dim": 64}
        model = hf.WhisperModel(hf.WhisperConfig(**sizes, num_mel_bins=128 if size == "large" else 80))
    elif name == "videomae":
        model = hf.VideoMAEModel(hf.VideoMAEConfig(**common))
    elif name == "eva_video":
        model = hf.Blip2VisionModel(hf.Blip2VisionConfig(**common, image_size=224, patch_size=14))
    else:
        model = hf.ViTMAEModel(hf.ViTMAEConfig(**common))
    model.save_pretrained(folder)
    return folder


def measure(name: str, options: Options, scratch: Path, clips: list[Path]) -> float:
    """The ratio of one encoder."""
    import torch

    from swift_plugins.emotion_llama.encoders import load

    faces = scratch / "faces" if name == "face" else None
    rows = [command.Row([str(clip)], []) for clip in clips]
    named = command.named_clips(rows, name, 1, faces)
    out = scratch / "out"
    given = {
        "encoder": name,
        "model": build(name, options.size, scratch / name),
        "rows": (),
        "out": out,
        "faces": faces,
    }
    given |= {key: getattr(options, key) for key in ("batch", "jobs", "device", "dtype")}
    settings = command.Options(**given)
    encoder = load(name, settings.model, getattr(torch, options.dtype)).to(chosen_device(options.device))
    shutil.rmtree(settings.model)
    readings = [encoder.read(clip.source).value for clip in named]
    size = command.group_size(settings, encoder)
    cuda = encoder.device.type == "cuda"

    def ours() -> float:
        shutil.rmtree(out, ignore_errors=True)
        with Journal(out / name / command.JOURNAL) as journal:
            start = time.perf_counter()
            if command.prepare(named, encoder, journal, settings):
                raise InputError("a clip was lost")
            return len(named) / (time.perf_counter() - start)

    def theirs() -> float:
        start = time.perf_counter()
        for first in range(0, len(readings), size):
            encoder.encode(readings[first : first + size])
        if cuda:
            torch.cuda.synchronize()
        return len(named) / (time.perf_counter() - start)

    ours(), theirs()
    label = f"encoder_{name}_{options.size}{'_cuda' if cuda else ''}"
    return alternate(label, "features/s", ours, theirs, options.runs)


def main() -> int:
    """Measure and write benchmarks/results.json; 1 where a ratio is below 0.9."""
    options = parse(Options, __doc__, "python -m benchmarks.encoders")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        clips = draw(scratch, options.clips)
        ratios = {name: measure(name, options, scratch, clips) for name in options.encoder}
    if low := {name: ratio for name, ratio in ratios.items() if ratio < 0.9}:
        print(f"below 0.9: {', '.join(f'{name} {ratio:.2f}' for name, ratio in low.items())}", file=sys.stderr)
    return int(bool(low))


if __name__ == "__main__":
    run_cli(main)
