"""Figures of a channel: both readings side by side, baselines from the gold, intervals, and a signature for each.

Used by compute_result.py; the arithmetic is in metrics.py, the parsers are in tasks.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from swift_plugins import metrics
from swift_plugins.scoring.results import Channel

VERSION = "1.0"  # of the scorer: changes whenever a figure could change for the same file
READINGS = ("strict", "lenient")
PROTOCOLS = {"msa": ("acc2",), "mer": ("labels",), "fer": ("aus",), "eri": ("text",), "ecpe": ("paper", "semeval")}
# What stands for a channel where there is no room for all: the figures that papers print, the first one before all.
HEADLINES = {
    "msa": (("acc2_has0", "Acc2 negative / non-negative"), ("acc2_non0", "Acc2 negative / positive")),
    "mer": (("weighted_f1", "weighted F1"), ("accuracy", "accuracy")),
    "fer": (("f1", "AU F1"),),
    "eri": (("label_agreement", "label agreement"), ("rouge_l", "ROUGE-L")),
    "ecpe": (("paper f1", "F1, paper's protocol"), ("semeval f1", "F1, SemEval's protocol")),
}


def score_channel(channel: Channel, draws: int = 0, seed: int = 0) -> dict:
    """The JSON block of one channel.

    n, unparsed (strict reading), unparsed_lenient, strict, lenient: {metric: fraction}, per protocol for ecpe.
    Beside them: n_non0 (msa), baselines, per_class per reading, signatures, examples of unparsed responses, excluded
    rows by reason, and with `draws` the 95 % intervals per reading.
    """
    task = channel.task
    block = {
        "n": len(channel.golds),
        "unparsed": channel.strict.count(None),
        "unparsed_lenient": channel.lenient.count(None),
    }
    if task.key == "msa":
        block["n_non0"] = channel.keys.count(False)
    per_class = {}
    for reading in READINGS:
        if reading == "lenient" and channel.lenient == channel.strict:  # always so for eri, the slowest to score
            block[reading], per_class[reading] = block["strict"], per_class["strict"]
            continue
        block[reading], per_class[reading] = _figures(channel, getattr(channel, reading))
    block["baselines"] = {name: _figures(channel, predictions)[0] for name, predictions in baselines(channel).items()}
    if None in channel.targets and not channel.name.endswith(".predicted"):  # there, None is a missed target
        block["baseline_targets_unknown"] = channel.targets.count(None)
    if any(target and target[1] is None for target in channel.targets):
        # Where gold is empty and the row has no prompt, the target's emotion is unknown. Any emotion is equally wrong
        # there, but to which one a false positive belongs matters for figures weighted by emotion.
        for figures in block["baselines"].values():
            del figures["semeval"]["weighted_precision"], figures["semeval"]["weighted_f1"]
    if draws:
        block["intervals"] = {reading: intervals(channel, reading, draws, seed) for reading in READINGS}
        block["bootstrap"] = {"draws": draws, "seed": seed, "level": 0.95, "units": _units(channel)[1]}
    block["per_class"] = per_class
    block["signatures"] = [
        signature(channel.name, protocol, reading, block["n"], block[unparsed])
        for protocol in _protocols(channel)
        for reading, unparsed in zip(READINGS, ("unparsed", "unparsed_lenient"), strict=True)
    ]
    if channel.excluded:
        block["excluded"] = dict(channel.excluded)
    return block


def signature(channel: str, protocol: str, reading: str, n: int, unparsed: int) -> str:
    """One line that says what a figure is, to be quoted beside it."""
    return f"{channel}|protocol:{protocol}|reading:{reading}|n:{n}|unparsed:{unparsed}|version:{VERSION}"


def _protocols(channel: Channel) -> tuple[str, ...]:
    """Of ecpe with predicted emotions only semeval: the paper's protocol does not see what is predicted for nothing."""
    return ("semeval",) if channel.name.endswith(".predicted") else PROTOCOLS[channel.task.key]


def _figures(channel: Channel, predictions: list) -> tuple[dict, dict]:
    """(figures, per_class) of some predictions for a channel's rows."""
    figures = channel.task.score(channel.dataset, channel.golds, predictions, channel.keys)
    if channel.task.key == "ecpe":
        figures = {protocol: figures[protocol] for protocol in _protocols(channel)}
    return _split(figures)


def _split(figures: dict) -> tuple[dict, dict]:
    """(figures, per_class), per_class taken out of every protocol."""
    if "per_class" in figures:
        return {key: value for key, value in figures.items() if key != "per_class"}, figures["per_class"]
    parts = {key: _split(value) for key, value in figures.items() if isinstance(value, dict)}
    plain = {key: parts[key][0] if key in parts else value for key, value in figures.items()}
    return plain, {key: part[1] for key, part in parts.items()}


def baselines(channel: Channel) -> dict[str, list]:
    """Predictions that need no model, computed from the gold answers: {name: one per row}."""
    if channel.task.key == "ecpe":
        own, both = [], []
        for target in channel.targets:
            index, emotion, previous = target or (None, None, None)
            own.append(() if target is None else ((index, emotion, index),))
            both.append(own[-1] + (((index, emotion, previous),) if previous is not None else ()))
        return {"self-cause": own, "self + previous": both}
    if channel.task.key == "eri":
        return {}
    n = len(channel.golds)
    if isinstance(channel.golds[0], float):
        return {"mean score": [sum(channel.golds) / n] * n}
    majority = max(sorted(Counter(channel.golds).items()), key=lambda item: item[1])[0]
    result = {"majority": [majority] * n}
    if channel.task.key == "msa":
        result["always positive"] = ["positive"] * n
    return result


def _units(channel: Channel) -> tuple[list[list[int]], str]:
    """Row numbers that are resampled together, and what such a unit is."""
    if any(unit is None for unit in channel.units):
        return [[index] for index in range(len(channel.golds))], "rows"
    groups = defaultdict(list)
    for index, unit in enumerate(channel.units):
        groups[unit].append(index)
    return list(groups.values()), "dialogues"


def intervals(channel: Channel, reading: str, draws: int, seed: int) -> dict:
    """{metric: [low, high]} of a 95 % percentile bootstrap, by dialogue where every row names one."""
    task, dataset, predictions = channel.task, channel.dataset, getattr(channel, reading)

    def pick(values: list, rows: list[int]) -> list:
        return [values[row] for row in rows]

    units = [
        task.count(dataset, pick(channel.golds, rows), pick(predictions, rows), pick(channel.keys, rows))
        for rows in _units(channel)[0]
    ]

    def finish(counts: Counter) -> dict:
        figures = task.finish(dataset, counts)
        return {key: figures[key] for key in _protocols(channel)} if task.key == "ecpe" else figures

    return metrics.bootstrap(units, finish, draws, seed)


# How figures are shown


def flatten(figures: dict, prefix: str = "") -> dict[str, object]:
    """{"paper": {"f1": 0.5}} → {"paper f1": 0.5}: one line of a table each."""
    result = {}
    for key, value in figures.items():
        result |= flatten(value, f"{prefix}{key} ") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


def percent(metric: str, value: float | None) -> str:
    """A fraction in per cent; MAE and correlation are no fractions and stay as they are."""
    if value is None:
        return ""
    return f"{value:.4f}" if metric in ("mae", "corr") else f"{100 * value:.2f}"


def columns(block: dict) -> dict[str, dict[str, str]]:
    """Columns of a channel's table: {name: {metric: text}}, strict first."""
    strict = flatten(block["strict"])
    result = {"strict": {metric: percent(metric, value) for metric, value in strict.items()}}
    if "intervals" in block:
        ranges = flatten(block["intervals"]["strict"])
        result["95 % (strict)"] = {m: " – ".join(percent(m, end) for end in ends) for m, ends in ranges.items()}
    others = {"lenient": block["lenient"], **block["baselines"]}
    if "published" in block:
        others[block["published"]["name"]] = block["published"]["figures"]
    for name, figures in others.items():
        result[name] = {metric: percent(metric, value) for metric, value in flatten(figures).items()}
    return result
