"""Side-by-side measurements: ours and theirs in turn, medians, one line a name in benchmarks/results.json."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from swift_plugins.files import read_json, write_json

RESULTS = Path(__file__).parent / "results.json"


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
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = a / b if more else b / a
    kept = read_json(RESULTS) if RESULTS.is_file() else {}
    entry = {"ratio": round(ratio, 2), "ours": float(f"{a:.4g}"), "theirs": float(f"{b:.4g}"), "runs": runs}
    write_json(RESULTS, dict(sorted({**kept, name: entry | {"unit": unit}}.items())))
    print(f"{name}: {ratio:.2f} (ours {a:.4g}, theirs {b:.4g} {unit}; medians of {runs})", flush=True)
    return ratio
