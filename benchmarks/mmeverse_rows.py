"""Time and memory of building the training rows of one table of MMEVerse, five to a clip.

    python -m benchmarks.mmeverse_rows --out output/mmeverse_rows [--rows 130000] [--cut]

Every clip is a hard link to one drawn clip with sound, every frame is there already: what is measured is reading the
tables, looking for clips, sound and frames, and writing rows. With --cut a second build of 1,000 clips cuts the frames.
"""

from __future__ import annotations

import csv
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scale import WORDS, measure
from data_prep.demo.faces import draw_frame, random_clip
from data_prep.demo.layouts import encode, facs
from data_prep.demo.voices import voice
from swift_plugins.files import run_cli
from swift_plugins.mmeverse import SETS
from swift_plugins.options import option, parse

LABELLED = SETS["caer"]
PER_CLIP = 5  # label, audio, image, reason, think


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    out: Path = option(metavar="DIR", help="folder for the data and the rows")
    rows: int = option(130_000, metavar="N", help="how many rows (130,000)")
    cut: bool = option(False, help="a build that cuts the frames of 1,000 clips, too")


def generate(folder: Path, clips: int, frames: bool) -> None:
    """CAER.csv and CAER_AU_gpt.csv of so many clips, the clips and, if wanted, their middle frames."""
    rng = random.Random(clips)
    drawn = random_clip(rng, "mmeverse", "a.mp4", "a", "joy", 1, facs()[0])
    pictures = [draw_frame(drawn, number) for number in range(drawn.frames)]
    for place in ("CAER", "frames/CAER"):
        (folder / place).mkdir(parents=True)
    (folder / "clip.mp4").write_bytes(encode(pictures, voice("a", "joy", drawn.frames / 5)))
    pictures[len(pictures) // 2].save(folder / "frame.jpg")
    described = [*LABELLED.audio, *LABELLED.image]
    header = ["video_id", "mode", "emotion_label", "text_whisper", *described]
    with (folder / "CAER.csv").open("w", newline="") as one, (folder / "CAER_AU_gpt.csv").open("w", newline="") as two:
        tables = csv.writer(one), csv.writer(two)
        tables[0].writerow(header)
        tables[1].writerow([*header, LABELLED.reasons["mer"]])
        for number in range(clips):
            name = f"clip{number:06}"
            os.link(folder / "clip.mp4", folder / f"CAER/{name}.mp4")
            if frames:
                os.link(folder / "frame.jpg", folder / f"frames/CAER/{name}.middle.jpg")
            texts = [" ".join(rng.choices(WORDS, k=length)) for length in (15, 50, 50, 50, 80)]
            row = [name, "train", rng.choice(LABELLED.labels["mer"]), *texts[:4]]
            tables[0].writerow(row)
            tables[1].writerow([*row, texts[4]])


def main() -> int:
    """Measure and print."""
    options = parse(Options, __doc__, prog="python -m benchmarks.mmeverse_rows")
    for clips, frames in [(options.rows // PER_CLIP, True)] + ([(1_000, False)] if options.cut else []):
        folder = options.out.resolve() / ("rows" if frames else "cut")
        shutil.rmtree(folder, ignore_errors=True)
        generate(folder / "mmeverse", clips, frames)
        build = ("-m", "data_prep.build_amt", "--mmeverse", "mmeverse", "--split", "train", "--out", "amt")
        for more in ((), ("--no-probe",)) if frames else ((),):
            seconds, mb = measure(folder, *build, *more)
            done = "frames there" if frames else "frames cut"
            print(
                f"{clips:,} clips, {clips * PER_CLIP:,} rows, {done} {' '.join(more)}: {seconds} s {mb} MB", flush=True
            )
    return 0


if __name__ == "__main__":
    run_cli(main)
