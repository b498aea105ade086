"""Two systems on the same rows: how far apart they are, and whether that could be chance.

    python compute_result.py ours.jsonl --against theirs.jsonl

Paired bootstrap (Koehn 2004, as sacrebleu counts its p-value): both systems are scored on the same resampled rows, by
dialogue where every row names one. For answers of one label also McNemar's exact test on the rows that one system alone
gets right.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from scipy.stats import binomtest

from swift_plugins import metrics
from swift_plugins.files import InputError
from swift_plugins.scoring.results import Channel
from swift_plugins.scoring.scores import finish, flatten, scale, units_of
from swift_plugins.tasks import LabelTask

OURS, THEIRS = "ours", "theirs"


def compare(ours: Channel, theirs: Channel, draws: int, seed: int = 0) -> dict[str, Any]:
    """Both systems' figures, their difference, its 95 % interval and p-value per figure, and McNemar's test.

    Raises `InputError` where the rows are not the same, or cannot be told to be.
    """
    order = _partners(ours, theirs)
    columns = {OURS: ours.strict, THEIRS: [theirs.strict[row] for row in order]}

    def counts(rows: list[int]) -> Counter:
        """The counts of both systems on some rows, told apart by their keys."""
        both: Counter = Counter()
        for system, predictions in columns.items():
            part = [[column[row] for row in rows] for column in (ours.golds, predictions, ours.keys)]
            both.update({(system, key): value for key, value in ours.task.count(ours.dataset, *part).items()})
        return both

    def figures(both: Counter) -> dict[str, dict]:
        """{metric: fraction} of each system."""
        parts: dict[str, Counter] = {system: Counter() for system in columns}
        for (system, key), value in both.items():
            parts[system][key] = value
        return {system: flatten(finish(ours, part)) for system, part in parts.items()}

    def difference(both: Counter) -> dict[str, float]:
        mine, other = figures(both).values()
        return {name: mine[name] - other[name] for name in mine if "per_class" not in name and mine[name] is not None}

    together, kind = units_of(ours)
    units = [counts(rows) for rows in together]
    whole: Counter = Counter()
    for unit in units:
        whole.update(unit)
    shown, observed = figures(whole), difference(whole)
    samples = metrics.resample(units, difference, draws, seed)
    result: dict[str, Any] = {"n": len(ours.golds), "draws": draws, "seed": seed, "units": kind}
    result["figures"] = {
        name: {
            OURS: shown[OURS][name],
            THEIRS: shown[THEIRS][name],
            "difference": observed[name],
            "interval": [float(end) for end in np.percentile(samples[name,], [2.5, 97.5])],
            "p": p_value(np.array(samples[name,]), observed[name]),
        }
        for name in observed
    }
    if isinstance(ours.task, LabelTask):
        result["mcnemar"] = _mcnemar(ours.golds, *columns.values())
    return result


def _partners(ours: Channel, theirs: Channel) -> list[int]:
    """For each of our rows the number of theirs with the same id."""
    places = {identity: row for row, identity in enumerate(theirs.ids) if identity}
    if not all(ours.ids) or len(places) < len(theirs.ids):
        raise InputError(f"{ours.name}: rows without ids cannot be paired; --rows joins them to AMT rows")
    missing, surplus = len(set(ours.ids) - places.keys()), len(places.keys() - set(ours.ids))
    if missing or surplus:
        raise InputError(f"{ours.name}: --against holds other rows: {missing:,} missing, {surplus:,} surplus")
    order = [places[identity] for identity in ours.ids]
    for row, other in enumerate(order):
        if ours.golds[row] != theirs.golds[other]:
            raise InputError(f"{ours.name}: {ours.ids[row]} has another gold answer in --against")
    return order


def p_value(differences: np.ndarray, observed: float) -> float:
    """Two-sided: how often a resampled difference is as far from their mean as the observed one is from 0."""
    far = np.abs(differences - differences.mean()) >= abs(observed)
    return float((far.sum() + 1) / (len(differences) + 1))


def _mcnemar(golds: list, ours: list, theirs: list) -> dict[str, Any]:
    """Rows that one system alone gets right, and the exact two-sided p-value that they are a fair coin's."""
    right = Counter((mine == gold, other == gold) for gold, mine, other in zip(golds, ours, theirs, strict=True))
    only_ours, only_theirs = right[True, False], right[False, True]
    unequal = only_ours + only_theirs
    p = float(binomtest(only_ours, unequal).pvalue) if unequal else 1.0
    return {"only_ours": only_ours, "only_theirs": only_theirs, "p": p}


def lines(name: str, found: dict[str, Any]) -> list[str]:
    """What is printed about one channel."""
    said = [f"{name}: n {found['n']:,}, paired bootstrap of {found['draws']:,} draws by {found['units']}"]
    said.append(f"  {'':<28}{'ours':>8}{'theirs':>8}{'change':>8}  95 %                p")
    for metric, figure in found["figures"].items():
        mine, other, change, *ends = (
            scale(metric) * value for value in (figure[OURS], figure[THEIRS], figure["difference"], *figure["interval"])
        )
        interval = f"{ends[0]:+.2f} – {ends[1]:+.2f}"
        said.append(f"  {metric:<28}{mine:8.2f}{other:8.2f}{change:+8.2f}  {interval:<18}  {figure['p']:.3f}")
    if "mcnemar" in found:
        test = found["mcnemar"]
        said.append(
            f"  right in ours alone {test['only_ours']:,}, in theirs alone {test['only_theirs']:,}: "
            f"McNemar's exact p {test['p']:.3g}"
        )
    return said
