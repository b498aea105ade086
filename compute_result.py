"""Score result files of `swift infer`: one table per channel, and the same figures as JSON.

python compute_result.py output/result.jsonl --json output/scores.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swift_plugins.files import run_cli, write_json
from swift_plugins.results import EXCLUSIONS, read_results
from swift_plugins.scores import READINGS, score_channel


def parser() -> argparse.ArgumentParser:
    """Command line of this script."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    result.add_argument("files", nargs="+", type=Path, metavar="FILE", help="result rows, JSON lines, also .gz")
    result.add_argument("--task", metavar="CHANNEL", help="channel of rows that name none, such as meld.mer")
    result.add_argument("--json", type=Path, metavar="OUT", help="write every figure as JSON (fractions)")
    result.add_argument(
        "--exclude",
        action="append",
        default=[],
        choices=EXCLUSIONS,
        help="leave such rows out and count them instead of refusing the file: "
        + "; ".join(f"{name}: {text}" for name, text in EXCLUSIONS.items()),
    )
    result.add_argument(
        "--rows", nargs="+", type=Path, default=[], metavar="FILE", help="AMT rows with ids, for results without clips"
    )
    result.add_argument("--bootstrap", type=int, default=0, metavar="N", help="95 %% intervals from N seeded draws")
    return result


def flatten(figures: dict, prefix: str = "") -> dict[str, float]:
    """{"paper": {"f1": 0.5}} → {"paper f1": 0.5}, one line of the table each."""
    result = {}
    for key, value in figures.items():
        result |= flatten(value, f"{prefix}{key} ") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


def table(block: dict) -> list[str]:
    """Lines of one channel's table, per cent."""
    columns = {reading: flatten(block[reading]) for reading in READINGS}
    columns |= {name: flatten(figures) for name, figures in block["baselines"].items()}
    metrics = list(columns["strict"])
    width = max(map(len, metrics)) + 2
    lines = ["  " + " " * width + "".join(f"{name:>17}" for name in columns)]
    for metric in metrics:
        cells = (f"{100 * column[metric]:17.2f}" if metric in column else " " * 17 for column in columns.values())
        lines.append(f"  {metric:<{width}}" + "".join(cells))
    return lines


def main() -> int:
    """Read, score, print, write."""
    args = parser().parse_args()
    channels = read_results(args.files, args.task, args.exclude, args.rows)
    blocks = {name: score_channel(channel, args.bootstrap) for name, channel in channels.items()}
    for name, block in blocks.items():
        print(f"{name}  n {block['n']}  unparsed {block['unparsed']} strict, {block['unparsed_lenient']} lenient")
        print("\n".join(table(block)))
        for signature in block["signatures"]:
            print(f"  {signature}")
        print()
    if args.json:
        write_json(args.json, blocks)
    return 0


if __name__ == "__main__":
    run_cli(main)
