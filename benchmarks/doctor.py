"""How fast the doctor is: annotations, leakage search, and clips of 480 lines and 3 seconds, one job beside two.

    python benchmarks/doctor.py [--annotations FOLDER] [--clips N]

FOLDER holds meld/, ecf2/ and mosei/ as published. Clips are generated in a temporary folder: moving noise, h264 at 25
frames a second with one key frame, AAC sound. Rates per core are by CPU time, so that other work on the machine does
not count; wall time is printed beside them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import av
import joblib
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from data_prep import jobs  # noqa: E402
from data_prep.doctor import clips as clip_check  # noqa: E402
from data_prep.readers import media  # noqa: E402

SECONDS, FPS, WIDTH, HEIGHT = 3, 25, 854, 480


def generate(path: Path, seed: int) -> None:
    """A clip that is hard to compress, with a tone."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 255, (HEIGHT // 8 + 20, WIDTH // 8 + 60, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=44100)
        for i in range(SECONDS * FPS):
            grain = rng.integers(0, 12, (HEIGHT, WIDTH, 1), dtype=np.uint8)
            picture = scene[i : i + HEIGHT, 3 * i : 3 * i + WIDTH] // 2 + grain
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        tone = (0.1 * np.sin(np.arange(44100 * SECONDS) / 16)).astype(np.float32)
        for place in range(0, len(tone) - 1024, 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, place : place + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, place
            container.mux(audio.encode(frame))
        container.mux(audio.encode())


def timed(work) -> tuple[float, float]:
    """Wall and CPU seconds of a call, the latter of this process alone."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def in_threads(look, paths: list[Path], count: int) -> tuple[float, float]:
    """As build_amt looks at clips."""
    with ThreadPoolExecutor(count) as pool:
        return timed(lambda: list(pool.map(look, paths)))


def in_processes(look, paths: list[Path], count: int) -> tuple[float, float]:
    """As the doctor does. The processes are started, and have imported what they need, before the clock is."""
    with jobs.workers(count, "loky") as pool:
        pool(joblib.delayed(look)(path) for path in paths[:count] * 2)
        return timed(lambda: pool(joblib.delayed(look)(path) for path in paths))


def clips(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{seed}.mp4" for seed in range(min(count, 12))]
        for seed, path in enumerate(paths):
            generate(path, seed)
        paths = (paths * (count // len(paths) + 1))[:count]
        clip_check.inspect(paths[0])
        for name, run in (
            ("first frame only (build_amt)", partial(in_threads, media.probe)),
            ("the doctor's look", partial(in_processes, clip_check.inspect)),
        ):
            base = None
            for number in (1, 2):
                wall, cpu = run(paths, number)
                base = base or wall
                print(
                    f"{name}, jobs {number}: {count / wall:6.1f} clips/s by the clock ({base / wall:.2f} x one job)"
                    + (f", {count / cpu:6.1f} clips/s per core by CPU time" if cpu > wall / 2 else "")
                )


def annotations(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "data_prep.doctor", "--report", out]
        for option, name in (("--meld", "meld"), ("--ecf", "ecf2"), ("--mosei", "mosei")):
            command += [option, str(folder / name)]
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = json.loads((Path(out) / "doctor.json").read_text())["seconds"]
    print(
        f"annotations: {wall:.1f} s by the clock, {used.ru_utime + used.ru_stime:.1f} s CPU, "
        f"{used.ru_maxrss / 1024:.0f} MB; of it leakage search {seconds['leakage']:.1f} s by the clock"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--annotations", type=Path, help="folder with meld, ecf2 and mosei")
    parser.add_argument("--clips", type=int, default=48)
    args = parser.parse_args()
    if args.annotations:
        annotations(args.annotations)
    clips(args.clips)


if __name__ == "__main__":
    main()
