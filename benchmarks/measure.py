"""Side-by-side measurements: ours and theirs in turn, medians, one entry a name in benchmarks/results.json.

python -m benchmarks.measure        # writes their table into benchmarks/RESULTS.md
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from swift_plugins.files import atomic_open, read_json, run_cli, write_json

RESULTS = Path(__file__).parent / "results.json"
PAGE = RESULTS.with_name("RESULTS.md")
BEGIN, END = "<!-- of results.json -->\n", "<!-- end -->\n"


def alternate(
    name: str, unit: str, ours: Callable[[], float], theirs: Callable[[], float], runs: int = 5, more: bool = True
) -> float:
    """Measure `ours` and `theirs` in turn, `runs` times each, and keep the medians under `name`; the ratio, over 1
    where ours is better. more: whether more of the unit is better (rows/s), else less (seconds).
    """
    pairs = []
    for number in range(runs):
        pairs.append((ours(), theirs()) if number % 2 == 0 else (theirs(), ours())[::-1])
        print(f"{name} {number + 1}/{runs}: ours {pairs[-1][0]:.4g}, theirs {pairs[-1][1]:.4g} {unit}", flush=True)
    return keep(name, unit, pairs, more)


def keep(name: str, unit: str, pairs: Sequence[tuple[float, float]], more: bool = True) -> float:
    """Keep the medians of (ours, theirs) under `name`; the ratio, over 1 where ours is better."""
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = a / b if more else b / a
    kept = read_json(RESULTS) if RESULTS.is_file() else {}
    entry = {"ratio": round(ratio, 2), "ours": float(f"{a:.4g}"), "theirs": float(f"{b:.4g}"), "runs": len(pairs)}
    write_json(RESULTS, dict(sorted({**kept, name: entry | {"unit": unit}}.items())))
    print(f"{name}: {ratio:.2f} (ours {a:.4g}, theirs {b:.4g} {unit}; medians of {len(pairs)})", flush=True)
    return ratio


def table(results: dict) -> str:
    """Markdown of the entries, one line each."""
    lines = ["| name | ratio | ours | theirs | unit | runs |", "|---|---|---|---|---|---|"]
    for name, entry in results.items():
        cells = (f"`{name}`", f"{entry['ratio']:.2f}", entry["ours"], entry["theirs"], entry["unit"], entry["runs"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the table into the page, between its two marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    with atomic_open(PAGE) as page:
        page.write(f"{before}{BEGIN}{table(read_json(RESULTS))}{END}{after}")
    return 0


if __name__ == "__main__":
    run_cli(main)
