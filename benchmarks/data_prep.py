"""Speed of the FER path: CSV reading, peak frame pictures, and two processes against one.

    python -m benchmarks.data_prep [--ffmpeg PROGRAM] [--openface-csv DIR]

Ratios are of times measured in turn in the same run. It works on what it makes in a temporary folder, and on OpenFace's
CSV files of DIR.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pandas as pd

from benchmarks.openface_stand_in import install
from data_prep.fer.au_table import INTENSITIES, PRESENCES, OpenFaceError, read_faces
from data_prep.fer.peaks import peak_image, write_image

ROOT = Path(__file__).resolve().parents[1]
ROWS = 200


def seconds(*calls: Callable[[], object], rounds: int) -> list[float]:
    """Best time of each call; they take turns, so that a busy moment of the machine hits all of them."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(rounds):
        for taken, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return [min(taken) for taken in times]


def write_table(path: Path, others: int) -> None:
    """A table in OpenFace's format with `others` further columns (gaze, landmarks, …) before the AUs."""
    draw = np.random.default_rng(0)
    aus = [f"{au}_r" for au in INTENSITIES] + [f"{au}_c" for au in PRESENCES]
    header = ["frame", "face_id", "timestamp", "confidence", "success", *(f"x_{n}" for n in range(others)), *aus]
    with path.open("w") as file:
        file.write(",".join(header) + "\n")
        for n in range(ROWS):
            places = ",".join(f"{value:.1f}" for value in draw.uniform(0, 640, others))
            values = ",".join(f"{value:.2f}" for value in draw.uniform(0, 5, len(aus)))
            file.write(f"{n + 1},0,{n / 30:.3f},0.98,1,{places}{',' if others else ''}{values}\n")


def pandas_columns(path: Path) -> pd.DataFrame:
    """What `read_faces` reads, by pandas: these columns alone, under either header style."""
    wanted = {"frame", "face_id", "confidence", "success", *(f"{au}_r" for au in INTENSITIES)}
    wanted |= {f"{au}_c" for au in PRESENCES}
    return pd.read_csv(path, usecols=lambda name: name.strip() in wanted, skipinitialspace=True)


def csv_reading(folder: Path, real: Path) -> None:
    """All of `read_faces`, with its checks, beside pandas with `usecols` alone: median of 5 rounds of 15 in turn."""
    small, large = folder / "40 columns.csv", folder / "714 columns.csv"
    write_table(small, 0)
    write_table(large, 714 - 40)
    for path in (small, large, *sorted(real.glob("f[em]22_*.csv"))):
        try:
            faces = read_faces(path)
        except OpenFaceError:
            continue
        taken: dict[Callable, list[float]] = {read_faces: [], pandas_columns: []}
        for _ in range(5):
            for read, times in taken.items():
                start = time.perf_counter()
                for _ in range(15):
                    read(path)
                times.append((time.perf_counter() - start) / 15)
        ours, theirs = (statistics.median(times) for times in taken.values())
        print(
            f"{path.name}, {faces.rows} rows: {ours * 1e3:.2f} ms ({1 / ours:.0f} files/s), "
            f"pandas with usecols {theirs * 1e3:.2f} ms, {theirs / ours:.2f} times"
        )


def write_clip(path: Path) -> None:
    """10 s of 720p at 30 frames/s, a smooth picture drifting under some noise, encoded as clips usually are."""
    noise = np.random.default_rng(0).integers(0, 24, (720, 1280, 3), dtype=np.uint8)
    ramp = np.linspace(0, 200, 1280, dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for n in range(300):
            picture = np.roll(ramp, 7 * n)[None, :, None] + np.roll(noise, n, axis=0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), "rgb24")))
        container.mux(stream.encode(None))


def peak_pictures(folder: Path, ffmpeg: str | None) -> None:
    if ffmpeg is None:
        print("peak frame of a 10 s 720p clip: not measured, no ffmpeg program (--ffmpeg PROGRAM)")
        return
    clip = folder / "clip.mp4"
    write_clip(clip)
    ratios = []
    for index in (30, 120, 200, 249, 251, 290):

        def program(index: int = index) -> None:
            select = f"select=eq(n\\,{index}),scale=448:448:flags=bicubic"
            command = [ffmpeg, "-v", "error", "-y", "-i", clip, "-vf", select, "-frames:v", "1", folder / "theirs.png"]
            subprocess.run(command, check=True)

        def ours(index: int = index) -> None:
            write_image(folder / "ours.png", peak_image(clip, index))

        mine, theirs = seconds(ours, program, rounds=7)
        ratios.append(mine / theirs)
        print(f"  frame {index}: {mine * 1e3:.0f} ms, ffmpeg {theirs * 1e3:.0f} ms, ratio {mine / theirs:.2f}")
    print(f"peak frame of a 10 s 720p clip: {max(ratios):.2f} times ffmpeg's time at worst (wanted: 1.2)")


def workers(folder: Path) -> None:
    """The whole command on 48 clips whose stand-in program computes for half a second each."""
    clips, root = 48, folder / "mosei"
    film = folder / "film.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(12):
            container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    (root / "Raw" / "v").mkdir(parents=True)
    lines = [f"v,{n},words,1.0,train" for n in range(clips)]
    (root / "label.csv").write_text("\n".join(["video_id,clip_id,text,label,mode", *lines]) + "\n")
    for n in range(clips):
        os.link(film, root / "Raw" / "v" / f"{n}.mp4")
    programs = install(folder / "programs")
    taken, worked = {1: [], 2: []}, {1: [], 2: []}
    for turn in range(2):
        for jobs, times in taken.items():
            command = [sys.executable, "-m", "data_prep.fer", "--dataset", "mosei", "--root", root, "--jobs", str(jobs)]
            command += ["--openface", programs, "--out", folder / f"out{turn}{jobs}"]
            start, before = time.perf_counter(), sum(os.times()[2:4])
            environment = os.environ | {"STAND_IN_WORK": "0.5", "PYTHONPATH": str(ROOT)}
            subprocess.run(command, env=environment, check=True, capture_output=True)
            times.append(time.perf_counter() - start)
            worked[jobs].append(sum(os.times()[2:4]) - before)
    one, two = (min(times) for times in taken.values())
    cpu = " and ".join(f"{min(times):.1f}" for times in worked.values())
    print(
        f"{clips} clips of 0.5 s computing: one process {one:.1f} s, two {two:.1f} s: "
        f"{one / two:.2f} times (wanted: 1.8); {cpu} s of processor time"
    )


def two_cores() -> float:
    """What two processes can gain at all on this machine now: plain computing loops, alone and side by side."""
    loop = "import time\nend = time.process_time() + 4\nwhile time.process_time() < end: pass"

    def run(count: int) -> float:
        start = time.perf_counter()
        for process in [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(count)]:
            process.wait()
        return time.perf_counter() - start

    return 2 * run(1) / run(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ffmpeg", default=shutil.which("ffmpeg"), help="the ffmpeg program to compare with")
    shared = Path(os.environ.get("EMOVERSE_SHARED", ROOT.parent / "shared"))
    parser.add_argument("--openface-csv", type=Path, default=shared / "data" / "openface", metavar="DIR")
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        csv_reading(Path(name), args.openface_csv)
        peak_pictures(Path(name), args.ffmpeg)
        workers(Path(name))
    print(f"two plain loops side by side, the most that two processes could gain here and now: {two_cores():.2f} times")


if __name__ == "__main__":
    main()
