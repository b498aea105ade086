"""What the demo learned, in ten lines: each task after stage 1, after stage 2, and without a model.

python -m data_prep.demo.summary OUTPUT             # the folder of shell/demo.sh: stage{1,2}.test.scores.json
python -m data_prep.demo.summary OUTPUT --leaks     # the leaks that the doctor found there
python -m data_prep.demo.summary OUTPUT --hearing   # the folder of shell/emotion_llama_demo.sh: with sound and without
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swift_plugins.files import InputError, read_json, run_cli
from swift_plugins.options import option, parse
from swift_plugins.scoring.scores import flatten

# channel, figure (first: as the scorer calls it), what it means
SHOWN = (
    ("mosei.msa", "acc2_has0", "accuracy", "sentiment of one sentence: negative or not"),
    ("meld.mer", "accuracy", "accuracy", "emotion of a line in a dialogue, of seven"),
    ("mosei.mer", "accuracy", "accuracy", "emotion of one sentence: trained in stage 1 alone"),
    ("mosei.fer", "f1", "F1", "movements of the face, named one by one"),
    ("mosei.eri", "rouge_l", "ROUGE-L", "why somebody feels so, in a sentence"),
    ("ecf.ecpe", "paper f1", "F1", "which lines of a dialogue cause the emotion"),
)


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    output: Path = option(positional=True, metavar="OUTPUT", help="where shell/demo.sh wrote")
    leaks: bool = option(False, help="the doctor's leaks instead of the scores")
    hearing: bool = option(False, help="the emotions that Emotion-LLaMA names with sound and without")


def table(first: dict, second: dict) -> list[str]:
    """The lines, in per cent, strict reading; `first` and `second` are scorer's blocks by channel."""
    said = [f"{'':<11}{'':<9}{'stage 1':>8}{'stage 2':>9}{'no model':>10}"]
    for channel, figure, name, meaning in SHOWN:
        if channel not in first or channel not in second:
            raise InputError(f"holds no scores of {channel}")
        values = [100 * flatten(blocks[channel]["strict"])[figure] for blocks in (first, second)]
        known = [flatten(one)[figure] for one in second[channel]["baselines"].values()]
        best = f"{100 * max(known):10.1f}" if known else f"{'':>10}"
        said.append(f"{channel:<11}{name:<9}{values[0]:8.1f}{values[1]:9.1f}{best}  {meaning}")
    return said


HEARD = "mer2023.mer"


def hearing(output: Path) -> list[str]:
    """The lines of accuracy with sound, without, and what the sound brings, in per cent and points."""
    values: dict[str, list[float]] = {}
    for kind in ("sound", "silence"):
        for number in (1, 2):
            path = output / kind / f"stage{number}.test.scores.json"
            found = read_json(path)
            if not isinstance(found, dict) or HEARD not in found:
                raise InputError(f"holds no scores of {HEARD}", path)
            block = found[HEARD]
            values.setdefault(kind, []).append(100 * flatten(block["strict"])["accuracy"])
            known = 100 * max(flatten(one)["accuracy"] for one in block["baselines"].values())
    values = {"with sound": values["sound"], "without": values["silence"]}
    values["difference"] = [one - other for one, other in zip(*values.values(), strict=True)]
    said = [f"{'':<12}{'stage 1':>8}{'stage 2':>9}{'majority':>10}"]
    for name, (first, second) in values.items():
        said.append(f"{name:<12}{first:8.1f}{second:9.1f}" + (f"{known:10.1f}" if name != "difference" else ""))
    return said


def main() -> int:
    """Print the table."""
    options = parse(Options, __doc__, prog="python -m data_prep.demo.summary")
    output = options.output
    if options.leaks:
        found = read_json(output / "doctor" / "doctor.json")
        for finding in found["findings"] if isinstance(found, dict) else ():
            if finding["kind"] == "leak":
                print(f"   found: {finding['where']}: {finding['detail']}")
        return 0
    if options.hearing:
        print("\n".join(hearing(output)))
        return 0
    blocks = [read_json(output / f"stage{number}.test.scores.json") for number in (1, 2)]
    for number, found in enumerate(blocks, 1):
        if not isinstance(found, dict):
            raise InputError("is not a JSON object", output / f"stage{number}.test.scores.json")
    print("\n".join(table(*blocks)))
    return 0


if __name__ == "__main__":
    run_cli(main)
