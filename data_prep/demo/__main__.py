"""Generate a synthetic dataset: MELD, CMU-MOSEI and ECF as they are downloaded, with drawn faces and made-up words.

    python -m data_prep.demo --out DIR [--seed N] [--size small|ablation|sentences|tiny] [--leak] [--sound]

writes DIR/meld, DIR/mosei and DIR/ecf, each with annotations, h264 clips and, under openface/, one Action Unit table
per clip in OpenFace 2.2's format holding the true values; DIR/mosei/eri.jsonl with clues and reasons; and
DIR/truth.jsonl with the true apex frame of every face. The same seed gives the same bytes. Nobody's face or words are
in it.

What there is to learn: the face moves the Action Units of the emotion (configs/facs.yaml) with onset, apex and offset;
the words name it, or only say good or bad, or say nothing; the cause of an emotion in a dialogue is the line that first
speaks of the thing the target line speaks of. Words or face alone do not settle every clip. With --sound nine in ten
voices show the emotion, too, by pitch, pace and loudness of wordless tones; without it the clips are silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_prep.demo import mmeverse
from data_prep.demo.layouts import SIZES, generate
from swift_plugins.files import InputError, run_cli
from swift_plugins.options import option, parse


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    out: Path = option(help="a new folder")
    seed: int = option(0, help="another seed gives other people, words and dialogues (0)", metavar="N")
    size: str = option(
        "small",
        choices=sorted(SIZES),
        help="small: what the demo trains on; ablation: more, larger test splits, ECF with a dev split; "
        "sentences: hardly a dialogue; tiny: for tests (small)",
    )
    leak: bool = option(False, help="plant a dialogue of MELD's test split in ECF's training split, for the doctor")
    sound: bool = option(False, help="clips with a sound track: tones whose pitch and pace follow the emotion")
    mmeverse: bool = option(False, help="tables of seven sets as MMEVerse has them, instead of the three datasets")


def main() -> int:
    """Generate the dataset and print its number of clips."""
    options = parse(Options, __doc__, prog="python -m data_prep.demo")
    if options.mmeverse and options.leak:
        raise InputError("--leak is of MELD and ECF, which --mmeverse does not write")
    write = mmeverse.write if options.mmeverse else None
    clips = generate(options.out, options.seed, options.size, options.leak, options.sound, write)
    print(f"{clips:,} clips in {options.out}")
    return 0


if __name__ == "__main__":
    run_cli(main)
