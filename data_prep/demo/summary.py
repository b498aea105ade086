"""What the demo learned, in ten lines: each task after stage 1, after stage 2, and without a model.

python -m data_prep.demo.summary OUTPUT             # the folder of shell/demo.sh: stage{1,2}.test.scores.json
python -m data_prep.demo.summary OUTPUT --leaks     # the leaks that the doctor found there
python -m data_prep.demo.summary OUTPUT --hearing   # the folder of shell/emotion_llama_demo.sh: with sound and without
python -m data_prep.demo.summary OUTPUT --curriculum   # of emotion_llama_v2_demo.sh: stages, with fusion and without
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swift_plugins.files import InputError, read_json, run_cli
from swift_plugins.options import option, parse
from swift_plugins.scoring.scores import flatten
from swift_plugins.tasks import task_of

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
    curriculum: bool = option(False, help="the benchmarks of Emotion-LLaMAv2 by stage, with fusion and without")


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


FUSIONS = {"conv-attention": "fusion", "none": "no fusion"}


def curriculum(output: Path) -> list[str]:
    """A line a benchmark: stage 1 and stage 2, with fusion and without, mean ± deviation over seeds; then their means.

    The figure is the task's first, as the published script counts it where hit rates and sets are concerned.
    """
    found: dict[tuple[str, int], list[dict]] = {}
    for kind in FUSIONS:
        for number in (1, 2):
            paths = sorted(output.glob(f"{kind}/*/stage{number}.test.scores.json"))
            found[kind, number] = [scores for path in paths if isinstance(scores := read_json(path), dict)]
            if not paths or len(found[kind, number]) < len(paths):
                raise InputError(f"holds no scores of stage {number}", output / kind)
    columns = [f"{FUSIONS[kind]} {number}" for kind, number in found]
    said = [f"{'':<20}{'':<13}" + "".join(f"{column:>14}" for column in columns) + f"{'majority':>10}"]
    sums: dict[tuple[str, int], list[list[float]]] = {column: [] for column in found}
    for channel in next(iter(found.values()))[0]:
        reading, figure = figure_of(channel)
        line = f"{channel:<20}{figure.replace('_', ' '):<13}"
        for column, scores in found.items():
            values = [100 * flatten(block[channel][reading])[figure] for block in scores]
            sums[column].append(values)
            line += f"{spread(values):>14}"
        known = found["none", 1][0][channel]["baselines"].get("majority")
        said.append(line + (f"{100 * flatten(known)[figure]:10.1f}" if known else ""))
    means = [[statistics.mean(seed) for seed in zip(*values, strict=True)] for values in sums.values()]
    return [*said, f"{'mean':<33}" + "".join(f"{spread(values):>14}" for values in means)]


def figure_of(channel: str) -> tuple[str, str]:
    """(reading, figure) that stands for a channel."""
    task, dataset = task_of(channel)
    if task.key == "ov":
        return "official", "f" if dataset == "ov_merd" else "hit_rate"
    return "strict", task.headlines[0][0]


def spread(values: Sequence[float]) -> str:
    """`41.2 ± 1.3`; the number alone where there is one."""
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


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
    if options.hearing or options.curriculum:
        print("\n".join((hearing if options.hearing else curriculum)(output)))
        return 0
    blocks = [read_json(output / f"stage{number}.test.scores.json") for number in (1, 2)]
    for number, found in enumerate(blocks, 1):
        if not isinstance(found, dict):
            raise InputError("is not a JSON object", output / f"stage{number}.test.scores.json")
    print("\n".join(table(*blocks)))
    return 0


if __name__ == "__main__":
    run_cli(main)
