"""How much the exact frame reader saves: 8 segment-centre frames against every frame turned into a picture.

python benchmarks/frames.py [CLIP …]      # without clips: a drawn 12 s clip of 640x360, 300 frames
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from swift_plugins.frames import sample_frames, segment_centre_indices


def draw(path: Path, keys: int) -> Path:
    """Moving noise patches over a gradient: content with motion, so that P- and B-frames cost something."""
    random = np.random.default_rng(0)
    patch = random.integers(0, 255, (120, 120, 3), np.uint8)
    ground = np.broadcast_to(np.linspace(0, 200, 640, dtype=np.uint8)[None, :, None], (360, 640, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": str(keys), "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for i in range(300):
            picture = ground.copy()
            x, y = int(260 + 250 * np.sin(i / 20)), int(120 + 110 * np.cos(i / 17))
            picture[y : y + 120, x : x + 120] = patch
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def every_frame(path: Path) -> list:
    with av.open(str(path)) as container:
        pictures = [frame.to_image() for frame in container.decode(video=0)]
    return [pictures[i] for i in segment_centre_indices(len(pictures), 8)]


def seconds(function, path: Path) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function(path)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clips = [Path(name) for name in sys.argv[1:]] or [
            draw(Path(folder) / f"key-frame-every-{keys}.mp4", keys) for keys in (250, 24)
        ]
        for clip in clips:
            ours, all_ = seconds(lambda path: sample_frames(path, 8), clip), seconds(every_frame, clip)
            same = all(np.array_equal(a, b) for a, b in zip(sample_frames(clip, 8), every_frame(clip), strict=True))
            print(f"{clip.name}: {ours * 1000:.0f} ms against {all_ * 1000:.0f} ms, ratio {all_ / ours:.1f}", end="")
            print(", same pictures" if same else ", PICTURES DIFFER")


if __name__ == "__main__":
    main()
