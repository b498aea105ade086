"""Score result files of `swift infer`: one table per channel, and the same figures as JSON.

    python compute_result.py output/result.jsonl --json output/scores.json
    python compute_result.py stage2.jsonl --before stage1.jsonl --compare emoverse-4b --report output/report

Tables are in per cent, JSON holds fractions. Every figure exists twice: strict (the exact form of the answer) and
lenient (the label found in the text). An unparsed answer is counted, and is wrong; it never becomes a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import RootModel

from swift_plugins.files import CONFIGS, InputError, read_config, read_json, run_cli, write_json
from swift_plugins.options import option, parse
from swift_plugins.scoring import scores
from swift_plugins.scoring.results import EXCLUSIONS, Channel, read_results

PUBLISHED = CONFIGS / "published.yaml"

# ECF and MELD are cut from the same series; the share is that of ECF 2.0 train as released.
OVERLAP = (
    "ECF train holds 2,535 of the 2,610 MELD test utterances: after training on ECF as released, MELD figures are"
    " contaminated. Trained on: {}"
)


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    files: tuple[Path, ...] = option(positional=True, metavar="FILE", help="result rows, JSON lines, also .gz")
    task: str | None = option(None, metavar="CHANNEL", help="channel of rows that name none, such as meld.mer")
    json: Path | None = option(None, metavar="OUT", help="write every figure as JSON")
    report: Path | None = option(None, metavar="DIR", help="write DIR/index.html, self-contained, and its pictures")
    bootstrap: int = option(0, metavar="N", help="95 %% intervals from N seeded draws (1000 is usual)")
    compare: str | None = option(
        None, metavar="NAME", help="put published figures beside, such as emoverse-4b (configs/published.yaml)"
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
    rows: tuple[Path, ...] = option((), metavar="FILE", help="AMT rows that results without ids are the answers to")
    built: Path | None = option(
        None, metavar="FILE", help="report.train.json of build_amt: says if MELD was kept out of ECF"
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
    excluded = "".join(f", {count:,} {reason} left out" for reason, count in block.get("excluded", {}).items())
    lines = [
        f"{channel.name}: {n}, unparsed {block['unparsed']:,} strict, {block['unparsed_lenient']:,} lenient{excluded}"
    ]
    lines += table(block)
    for part, classes in parts_of(block["per_class"]["strict"]).items():
        figures = ", ".join(f"{label} {100 * row['f1']:.1f} ({row['support']})" for label, row in classes.items())
        if figures:
            lines.append(f"  F1 per class, strict{part}: {figures}")
    for example in block.get("examples", [])[:3]:
        lines.append(f"  unparsed: {example['file']}:{example['line']}: {example['response']!r}")
    if "judge" in block:
        mine = block["judge"]
        figures = ", ".join(f"{key} {mine[key]:.2f}" for key in mine if f"{key}_not_judged" in mine and mine[key])
        lines.append(f"  judged by {mine['judge']} (prompts {mine['prompts']}), scale {mine['scale']}: {figures}")
    if "baselines_absent" in block:
        lines.append(f"  no baselines: {block['baselines_absent']}")
    if "training" in block:
        lines.append("  " + block["training"])
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
        for metric, (earlier, now) in metrics.items():
            figures = f"{scores.percent(metric, earlier):>8} → {scores.percent(metric, now):>6}"
            scale = 1 if metric in ("mae", "corr") else 100
            print(f"  {name:<12} {metric:<28}{figures}  {scale * (now - earlier):+7.2f}")
    for name in sorted(before.keys() ^ blocks.keys()):
        print(f"  {name:<12} only {'before' if name in before else 'now'}")
    print()


class Published(RootModel[dict[str, dict[str, dict[str, float | dict[str, float]]]]]):
    """configs/published.yaml: name → channel → figure → per cent, or protocol → figure → per cent."""


def published(name: str) -> dict:
    """Figures of one published model as fractions; InputError lists the names that exist."""
    table = read_config(PUBLISHED, Published).root
    if name not in table:
        raise InputError(f"no published figures for {name!r}; there are {', '.join(table)}", PUBLISHED)

    def fractions(figures: dict) -> dict:
        return {key: fractions(value) if isinstance(value, dict) else value / 100 for key, value in figures.items()}

    return fractions(table[name])


def training_note(built: Path | None) -> str:
    """Which ECF rows the model was trained on, as far as known; `InputError` for a report of anything but that."""
    if built is None:
        return OVERLAP.format("unknown (say it with --built report.train.json)")
    report = read_json(built)
    if not isinstance(report, dict) or report.get("split") != "train" or "clips" not in report:
        raise InputError("is not the report.train.json that build_amt wrote", built)
    options, clips = report.get("options", {}), report["clips"]
    if "ecf" not in clips:
        return OVERLAP.format(f"without ECF ({built})")
    excluded = options.get("exclude_leaks")
    which = f"without what {', '.join(excluded)} hold, too" if excluded else "as released"
    return OVERLAP.format(f"ECF {which} ({built})")


def submission(channel: Channel, files: list[Path]) -> list[dict]:
    """Strict answers in the format of SemEval-2024 Task 3 subtask 2: one entry per conversation.

    Conversations without a non-neutral utterance have no row, so they are not in it. Raises InputError when a row does
    not say which conversation it is from (no clip, and no --rows).
    """
    conversations: dict[int, set] = {}
    for target, prediction, (file, line) in zip(channel.keys, channel.strict, channel.places, strict=True):
        number = (target.dialogue or "").rpartition("dia")[2]
        if not number.isdigit():
            reason = "does not say which conversation it is from: give the AMT rows it was made of with --rows"
            raise InputError(reason, files[file], line)
        conversations.setdefault(int(number), set()).update(prediction or ())
    return [
        {
            "conversation_ID": number,
            "emotion-cause_pairs": [[f"{index}_{emotion}", str(cause)] for index, emotion, cause in sorted(pairs)],
        }
        for number, pairs in sorted(conversations.items())
    ]


def score_all(args: Options) -> tuple[dict[str, Channel], dict[str, dict], dict[str, dict]]:
    """Channels, their blocks with everything that stands beside the figures, and the blocks of `--before`."""
    figures = published(args.compare) if args.compare else {}
    channels = read_results(args.files, args.task, args.exclude, args.rows)
    blocks = {name: scores.score_channel(channel, args.bootstrap) for name, channel in channels.items()}
    before = {}
    if args.before:
        earlier = read_results(args.before, args.task, args.exclude, args.rows)
        before = {name: scores.score_channel(channel) for name, channel in earlier.items()}
    for name, block in blocks.items():
        channel = channels[name]
        block["examples"] = [
            {"file": str(args.files[file]), "line": line, "response": response}
            for (file, line), response in channel.unparsed
        ]
        if name in figures:
            block["published"] = {"name": args.compare, "figures": figures[name]}
        if name in before:
            block["before"] = {key: before[name][key] for key in ("n", "unparsed", *scores.READINGS)}
        if channel.dataset == "meld":
            block["training"] = training_note(args.built)
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
    channels, blocks, before = score_all(args)
    for name, block in blocks.items():
        print("\n".join(describe(channels[name], block)), end="\n\n")
    if before:
        print_changes(blocks, before)
    if args.semeval_submission:
        pairs = [channel for channel in channels.values() if "semeval" in channel.task.protocols]
        if len(pairs) != 1:
            raise InputError("--semeval-submission needs results of exactly one ecpe channel")
        write_json(args.semeval_submission, submission(pairs[0], list(args.files)))
    if args.report:
        from swift_plugins.scoring.report import write_report

        write_report(args.report, channels, blocks, args.files)
    if args.json:
        write_json(args.json, blocks)
    return 0


if __name__ == "__main__":
    run_cli(main)
