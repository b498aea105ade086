"""How time and memory grow with the rows: build, plan, draw and score of 10^3 to 10^6 clips, each a process of its own.

    python -m benchmarks.scale --out output/scale [--largest 6]
    python -m benchmarks.scale --out output/scale --curriculum 130000

The clips have labels and words, no pictures: MOSEI's layout, three tenths of them in the test split that is scored.
Writes scale.json and scale.png, and prints a line per size: seconds and largest resident memory (MB) of each step.
With --curriculum: plan and draw of el2_perception alone, over so many rows in its channels, which get equal parts.
"""

from __future__ import annotations

import csv
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from swift_plugins import mixture
from swift_plugins.files import ROOT, read_rows, run_cli, write_json, write_rows
from swift_plugins.options import option, parse

MIXTURES = """
stages:
  stage1:
    size: scarcest
    tasks:
      msa: {weight: 6, sources: [mosei.msa]}
      mer: {weight: 1, sources: [mosei.mer]}
"""
DRAW = """
from swift_plugins.mixture import draw, read_mixtures
assert len(draw(read_mixtures(), "stage1", "amt", 15000).rows) == 15000
"""
CURRICULUM = """
from swift_plugins.mixture import draw, read_mixtures
assert len(draw(read_mixtures(), "el2_perception", "amt").rows) == 200_000
"""
EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
WORDS = ("well", "really", "good", "bad", "people", "talk", "about", "movies", "that", "they", "have", "seen", "twice")


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    out: Path = option(metavar="DIR", help="folder for the data and the results")
    largest: int = option(6, metavar="E", help="the largest size is 10^E clips (6)")
    curriculum: int | None = option(None, metavar="ROWS", help="plan and draw el2_perception over so many rows instead")


def generate(folder: Path, clips: int) -> None:
    """label.csv and emotions.csv of so many clips."""
    draw = random.Random(clips)
    folder.mkdir(parents=True)
    with (folder / "label.csv").open("w", newline="") as one, (folder / "emotions.csv").open("w", newline="") as two:
        labels, emotions = csv.writer(one), csv.writer(two)
        labels.writerow(("video_id", "clip_id", "text", "label", "annotation", "mode"))
        emotions.writerow(("video_id", "clip_id", *EMOTIONS))
        for number in range(clips):
            key = f"v{number // 7:06}", number % 7
            text = " ".join(draw.choices(WORDS, k=20))
            labels.writerow((*key, text, draw.choice((-1.0, 0.0, 1.4)), "", "test" if number % 10 < 3 else "train"))
            emotions.writerow((*key, *draw.choices((0, 0, 1, 2), k=6)))


def answer(folder: Path) -> int:
    """A result file of the test rows, three of four right; the number of rows."""

    def rows():
        for name in ("mosei.mer", "mosei.msa"):
            for number, (_, row) in enumerate(read_rows(folder / "amt" / f"{name}.test.jsonl")):
                response = "no idea" if number % 4 == 0 else row["response"]
                kept = {key: row[key] for key in ("id", "channel", "facts") if key in row}
                messages = [{"role": "user", "content": row["query"]}, {"role": "assistant", "content": response}]
                yield kept | {"labels": row["response"], "response": response, "messages": messages}

    return write_rows(folder / "result.jsonl", rows())


def measure(folder: Path, *arguments: object) -> tuple[float, float]:
    """(seconds, MB) of one process."""
    command = [sys.executable, *map(str, arguments)]
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")
    return round(time.perf_counter() - started, 2), round(usage.ru_maxrss / 1024)


def run(folder: Path, clips: int) -> dict:
    """Every step for one size."""
    shutil.rmtree(folder, ignore_errors=True)
    generate(folder / "mosei", clips)
    (folder / "mixtures.yaml").write_text(MIXTURES)
    os.environ["AMT_MIXTURES"] = str(folder / "mixtures.yaml")
    build = ("-m", "data_prep.build_amt", "--mosei", "mosei", "--out", "amt", "--missing-media", "text-only", "--split")
    steps = {"build train": measure(folder, *build, "train"), "build test": measure(folder, *build, "test")}
    steps["plan"] = measure(folder, "-m", "swift_plugins.mixture", "--stage", "stage1", "--data", "amt")
    if clips >= 100_000:
        steps["draw 15,000"] = measure(folder, "-c", DRAW)
    rows = answer(folder)
    score = (ROOT / "compute_result.py", "result.jsonl", "--rows", "amt/mosei.mer.test.jsonl", "--json", "scores.json")
    steps["score"] = measure(folder, *score)
    return {"clips": clips, "scored": rows, "steps": {name: {"s": s, "mb": mb} for name, (s, mb) in steps.items()}}


def run_curriculum(folder: Path, rows: int) -> dict[str, tuple[float, float]]:
    """Plan and draw of el2_perception; rows have texts of 60 words."""
    shutil.rmtree(folder, ignore_errors=True)
    draw = random.Random(rows)
    lots = mixture.read_mixtures(mixture.DEFAULT).stages["el2_perception"].lots
    for lot, count in zip(lots, mixture.apportion(rows, [1] * len(lots)), strict=True):
        row = {"channel": lot.name, "response": "neutral", "videos": ["clips/some.mp4"]}
        ids = (f"{lot.name.split('.')[0]}/train/clip{number:06}" for number in range(count))
        texts = ({"id": clip, "query": " ".join(draw.choices(WORDS, k=60)), **row} for clip in ids)
        write_rows(folder / "amt" / f"{lot.name}.train.jsonl", texts)
    os.environ["AMT_MIXTURES"] = str(mixture.DEFAULT)
    plan = measure(folder, "-m", "swift_plugins.mixture", "--stage", "el2_perception", "--data", "amt")
    return {"plan": plan, "draw 200,000": measure(folder, "-c", CURRICULUM)}


def plot(results: list[dict], path: Path) -> None:
    """Time and memory of each step over the clips, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, key, unit in zip(figure.subplots(1, 2), ("s", "mb"), ("seconds", "MB, largest resident"), strict=True):
        for name in dict.fromkeys(name for result in results for name in result["steps"]):
            points = [(r["clips"], r["steps"][name][key]) for r in results if name in r["steps"]]
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel="clips", ylabel=unit)
        axes.grid(alpha=0.3)
    axes.axhline(500, color="grey", linestyle="--", linewidth=1)
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> int:
    """Measure, print, write."""
    options = parse(Options, __doc__, prog="python -m benchmarks.scale")
    if options.curriculum:
        steps = run_curriculum(options.out.resolve() / "curriculum", options.curriculum).items()
        print(f"{options.curriculum:,} rows: " + ", ".join(f"{name} {s} s {mb} MB" for name, (s, mb) in steps))
        return 0
    results = []
    for exponent in range(3, options.largest + 1):
        results.append(run(options.out.resolve() / f"1e{exponent}", 10**exponent))
        steps = results[-1]["steps"].items()
        print(f"10^{exponent}: " + ", ".join(f"{name} {v['s']} s {v['mb']} MB" for name, v in steps), flush=True)
    write_json(options.out / "scale.json", results)
    plot(results, options.out / "scale.png")
    return 0


if __name__ == "__main__":
    run_cli(main)
