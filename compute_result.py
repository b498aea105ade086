"""Score result files of `swift infer`: one table per channel, and the same figures as JSON.

    python compute_result.py output/result.jsonl --json output/scores.json
    python compute_result.py result.jsonl --labels labels.yaml     # of any rows: the file says mine.mer: [Glad, Sad]
    python compute_result.py stage2.jsonl --before stage1.jsonl --compare emoverse-4b --report output/report

Tables are in per cent, JSON holds fractions. Every figure is there strict (the exact form of the answer), lenient (the
label found in the text) and, where the authors published a scorer, official (as that counts). An unparsed answer is
counted, and is wrong; it never becomes a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import swift_plugins  # noqa: F401  says what is not installed

# isort: split
from pydantic import BaseModel, ConfigDict, RootModel

from swift_plugins.files import CONFIGS, InputError, read_config, run_cli, write_json
from swift_plugins.options import option, parse
from swift_plugins.scoring import scores
from swift_plugins.scoring.coverage import AmtFolders, submission, training_note
from swift_plugins.scoring.results import EXCLUSIONS, Channel, read_results

PUBLISHED = CONFIGS / "published.yaml"


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    files: tuple[Path, ...] = option(positional=True, metavar="FILE", help="result rows, JSON lines, also .gz")
    task: str | None = option(None, metavar="CHANNEL", help="channel of rows that name none, such as meld.mer")
    labels: Path | None = option(
        None,
        metavar="FILE",
        help="labels of rows that were not built here: {channel: [labels]}, or a dataset's YAML file",
    )
    json: Path | None = option(None, metavar="OUT", help="write every figure as JSON")
    report: Path | None = option(None, metavar="DIR", help="write DIR/index.html, self-contained, and its pictures")
    bootstrap: int = option(0, metavar="N", help="95 %% intervals from N seeded draws (1000 is usual)")
    compare: str | None = option(
        None, metavar="NAME", help="put published figures beside, such as emoverse-4b (configs/published.yaml)"
    )
    against: tuple[Path, ...] = option(
        (), metavar="FILE", help="results of another system on the same rows: paired bootstrap, McNemar's test"
    )
    before: tuple[Path, ...] = option((), metavar="FILE", help="results to compare with: what changed")
    exclude: tuple[str, ...] = option(
        (),
        action="append",
        choices=list(EXCLUSIONS),
        metavar="REASON",
        help="leave such rows out and count them, instead of refusing the file. "
        + "; ".join(f"{name}: {text}" for name, text in EXCLUSIONS.items()),
    )
    require_all: bool = option(False, help="refuse results that do not hold every row of every channel of their split")
    partial: bool = option(False, help="let --compare stand beside a set of rows that is known to be incomplete")
    rows: tuple[Path, ...] = option((), metavar="FILE", help="AMT rows that results without ids are the answers to")
    built: Path | None = option(
        None, metavar="FILE", help="report.train.json of build_amt: what the training rows hold of the test rows"
    )
    semeval_submission: Path | None = option(
        None, metavar="FILE", help="write ecf.ecpe answers (strict) in SemEval's format"
    )
    judge: str | None = option(
        None, metavar="URL", help="OpenAI-compatible server that judges *.eri answers (configs/judge.yaml)"
    )
    judge_model: str | None = option(None, metavar="M", help="its model")


def table(block: dict) -> list[str]:
    """Lines of one channel's table."""
    columns = scores.columns(block)
    lines = [["", *columns]]
    lines += [[metric, *(column.get(metric, "") for column in columns.values())] for metric in columns["strict"]]
    first, *widths = (max(map(len, column)) for column in zip(*lines, strict=True))
    return [
        f"  {line[0]:<{first}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(line[1:], widths, strict=True))
        for line in lines
    ]


def describe(channel: Channel, block: dict) -> list[str]:
    """Everything printed about one channel."""
    sizes = ", ".join(f"{size:,} {words}" for size, words in channel.task.sizes(channel.keys).values())
    n = f"n {block['n']:,}" + (f" ({sizes})" if sizes else "")
    if block.get("published", {}).get("n"):
        there = block["published"]["n"]
        n += f", published n {there:,}" + ("" if there == block["n"] else ": NOT the same rows")
    excluded = "".join(f", {count:,} {reason} left out" for reason, count in block.get("excluded", {}).items())
    lines = [
        f"{channel.name}: {n}, unparsed {block['unparsed']:,} strict, {block['unparsed_lenient']:,} lenient{excluded}"
    ]
    lines += table(block)
    lines += [f"  {line}" for line in (*block.get("remarks", ()), *scores.calibration_lines(block))]
    for part, classes in parts_of(block["per_class"]["strict"]).items():
        figures = ", ".join(f"{label} {100 * row['f1']:.1f} ({row['support']})" for label, row in classes.items())
        if figures:
            lines.append(f"  F1 per class, strict{part}: {figures}")
    for example in block.get("examples", [])[:3]:
        lines.append(f"  unparsed: {example['file']}:{example['line']}: {example['response']!r}")
    if "judge" in block:
        lines += [f"  {line}" for line in scores.judge_lines(block)]
    if "baselines_absent" in block:
        lines.append(f"  no baselines: {block['baselines_absent']}")
    if "rows" in block:
        lines.append(f"  {block['rows']['text']}")
    if "training" in block:
        lines.append("  " + block["training"])
    lines += [f"  {line}" for line in scores.published_lines(block.get("published", {}))]
    return lines + [f"  {signature}" for signature in block["signatures"]]


def parts_of(per_class: dict) -> dict[str, dict]:
    """{"": classes}, or one entry per protocol."""
    nested = per_class and all("support" not in value for value in per_class.values())
    return {f", {protocol}": classes for protocol, classes in per_class.items()} if nested else {"": per_class}


def changes(blocks: dict, before: dict) -> dict:
    """{channel: {metric: [before, now]}} of the strict reading, for the channels that both have."""
    return {
        name: {
            metric: [earlier, scores.flatten(blocks[name]["strict"])[metric]]
            for metric, earlier in scores.flatten(before[name]["strict"]).items()
            if metric in scores.flatten(blocks[name]["strict"])
        }
        for name in blocks
        if name in before
    }


def print_changes(blocks: dict, before: dict) -> None:
    """The forgetting report: what each channel gained or lost since `before`."""
    print("change since --before (strict, points)")
    for name, metrics in changes(blocks, before).items():
        if before[name]["n"] != blocks[name]["n"]:
            print(f"  {name}: n was {before[name]['n']:,} and is {blocks[name]['n']:,}: not the same rows")
        ways = ["generated" if "calibration" not in block else "ranked" for block in (before[name], blocks[name])]
        if ways[0] != ways[1]:
            print(f"  {name}: answers were {ways[0]} and are {ways[1]}: not only the model differs")
        for metric, (earlier, now) in metrics.items():
            figures = f"{scores.percent(metric, earlier):>8} → {scores.percent(metric, now):>6}"
            print(f"  {name:<12} {metric:<28}{figures}  {scores.scale(metric) * (now - earlier):+7.2f}")
    for name in sorted(before.keys() ^ blocks.keys()):
        print(f"  {name:<12} only {'before' if name in before else 'now'}")
    print()


def print_against(args: Options, task: str | None, channels: dict[str, Channel], blocks: dict[str, dict]) -> None:
    """Each channel beside that of another system: `block["against"]`, and its lines."""
    from swift_plugins.scoring import paired

    others = read_results(args.against, task, args.exclude, args.rows)
    if not channels.keys() & others.keys():
        raise InputError(f"holds none of {', '.join(channels)}", args.against[0])
    for name in sorted(channels.keys() & others.keys()):
        blocks[name]["against"] = paired.compare(channels[name], others[name], args.bootstrap or 1000)
        print("\n".join(paired.lines(name, blocks[name]["against"])), end="\n\n")
    for name in sorted(channels.keys() ^ others.keys()):
        print(f"{name}: only in {'ours' if name in channels else 'theirs'}\n")


class OtherSystem(BaseModel):
    """Figures of another system as printed there, by name; second_hand: its figures are quoted, not measured, there."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, float]
    second_hand: bool = False


class PublishedChannel(BaseModel):
    """Figures of one channel in per cent, by name or by protocol and name. n: the size of the test set; source: where
    they are printed; judge: marks (1-10) by a judge; others: systems that stand in the same table there."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, float | dict[str, float]]
    n: int = 0
    source: str = ""
    judge: dict[str, float] = {}
    others: dict[str, OtherSystem] = {}


class Published(RootModel[dict[str, dict[str, PublishedChannel]]]):
    """configs/published.yaml: name → channel → its figures."""


def published(name: str) -> dict[str, dict]:
    """What was published of one model, figures as fractions; InputError lists the names that exist."""
    table = read_config(PUBLISHED, Published).root
    if name not in table:
        raise InputError(f"no published figures for {name!r}; there are {', '.join(table)}", PUBLISHED)

    def fractions(figures: dict) -> dict:
        return {key: fractions(value) if isinstance(value, dict) else value / 100 for key, value in figures.items()}

    return {
        channel: entry.model_dump(include={"n", "source", "judge", "others"})
        | {"name": name, "figures": fractions(entry.model_extra or {})}
        for channel, entry in table[name].items()
    }


def folders_of(args: Options) -> AmtFolders:
    """The AMT folders beside the files that were named."""
    return AmtFolders([*args.rows, *([args.built] if args.built else [])])


def task_of_rows(args: Options) -> str | None:
    """The channel of rows that name none: `--task`, else the only one of `--labels`, whose labels are known now."""
    if not args.labels:
        return args.task
    from swift_plugins.scoring.labels import use_labels

    own = use_labels(args.labels)
    return args.task or (own[0] if len(own) == 1 else None)


def score_all(args: Options, task: str | None) -> tuple[dict[str, Channel], dict[str, dict], dict[str, dict]]:
    """Channels, their blocks with everything that stands beside the figures, and the blocks of `--before`."""
    figures = published(args.compare) if args.compare else {}
    folders = folders_of(args)
    channels = read_results(args.files, task, args.exclude, args.rows)
    blocks = {name: scores.score_channel(channel, args.bootstrap) for name, channel in channels.items()}
    before = {}
    if args.before:
        earlier = read_results(args.before, task, args.exclude, args.rows)
        before = {name: scores.score_channel(channel) for name, channel in earlier.items()}
    if args.require_all and (absent := folders.absent(channels.values())):
        raise InputError(f"holds no row of {', '.join(absent)}", args.files[0])
    for name, block in blocks.items():
        channel = channels[name]
        block["examples"] = [
            {"file": str(args.files[file]), "line": line, "response": response}
            for (file, line), response in channel.unparsed
        ]
        coverage = folders.coverage(channel)
        if args.require_all and (coverage is None or not coverage.whole):
            raise InputError(
                f"{name}: {coverage or 'which rows there should be is not known (--rows, --built, AMT_DATA)'}"
            )
        if coverage:
            block["rows"] = coverage.as_json() | {"text": str(coverage)}
        if name in figures:
            if coverage and not coverage.whole and not args.partial:
                raise InputError(f"{name}: {coverage}; --partial compares all the same")
            block["published"] = figures[name]
        if name in before:
            block["before"] = {key: before[name][key] for key in ("n", "unparsed", *scores.READINGS)}
        if any(channel.units):
            block["training"] = training_note(channel, args.built)
        if args.judge and args.judge_model and channel.task.judged:
            from swift_plugins.scoring.judge import judge

            journal = args.files[0].with_name(args.files[0].name + ".judge.jsonl")
            block["judge"] = judge(channel, args.judge, args.judge_model, journal)
    return channels, blocks, before


def main() -> int:
    """Read, score, print, write."""
    args = parse(Options, __doc__, prog="compute_result.py")
    if bool(args.judge) != bool(args.judge_model):
        raise InputError("--judge and --judge-model go together")
    if args.bootstrap < 0:
        raise InputError("--bootstrap needs a number of draws")
    task = task_of_rows(args)
    channels, blocks, before = score_all(args, task)
    for name, block in blocks.items():
        print("\n".join(describe(channels[name], block)), end="\n\n")
    if before:
        print_changes(blocks, before)
    if args.against:
        print_against(args, task, channels, blocks)
    if args.semeval_submission:
        pairs = [channel for channel in channels.values() if "semeval" in channel.task.protocols]
        if len(pairs) != 1:
            raise InputError("--semeval-submission needs results of exactly one ecpe channel")
        write_json(args.semeval_submission, submission(pairs[0], args.files, folders_of(args)))
    if args.report:
        from swift_plugins.scoring.report import write_report

        write_report(args.report, channels, blocks, args.files)
    if args.json:
        write_json(args.json, blocks)
    return 0


if __name__ == "__main__":
    run_cli(main)
