"""Figures of a channel: its readings side by side, baselines from the gold, intervals, and a signature for each.

Used by compute_result.py; the arithmetic is in metrics.py, what belongs to a task in tasks/.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from swift_plugins import metrics
from swift_plugins.scoring.results import Channel

VERSION = "2.0"  # of the scorer: changes whenever a figure could change for the same file
READINGS = ("strict", "lenient")
CALIBRATION = {"ece": f"ECE ({metrics.BINS} bins)", "confidence": "mean top probability", "accuracy": "accuracy"}


def score_channel(channel: Channel, draws: int = 0, seed: int = 0) -> dict:
    """The JSON block of one channel.

    n, unparsed (strict reading), unparsed_lenient, strict, lenient: {metric: fraction}, or one such dict per protocol;
    official, likewise, where the authors published a scorer (official_script); stand_in: where that scorer counts a
    label of its own choice for answers that are none, the label, their number n, and how many are right by it.
    calibration, where labels were ranked by likelihood: `metrics.calibration` of those rows.
    Beside them: the task's own sizes, baselines (or baselines_absent, the reason), per_class per reading, signatures,
    remarks of the task, examples of unparsed responses, excluded rows by reason, and with `draws` the 95 % intervals
    per reading.
    """
    block: dict[str, Any] = {
        "n": len(channel.golds),
        "unparsed": channel.strict.count(None),
        "unparsed_lenient": channel.lenient.count(None),
    }
    block |= {key: size for key, (size, _) in channel.task.sizes(channel.keys).items()}
    per_class: dict[str, dict] = {}
    for reading in READINGS:
        if reading == "lenient" and channel.lenient == channel.strict:  # always so for eri, the slowest to score
            block[reading], per_class[reading] = block["strict"], per_class["strict"]
            continue
        block[reading], per_class[reading] = _figures(channel, getattr(channel, reading))
    if script := channel.task.official_of(channel.part):
        figures = channel.task.score_official(channel.dataset, channel.golds, channel.official, channel.keys)
        block["official"], per_class["official"] = _split(figures)
        block["official_script"] = script
        if label := channel.task.stand_in:
            turned = [gold for gold, answer in zip(channel.golds, channel.official, strict=True) if answer is None]
            block["stand_in"] = {"label": label, "n": len(turned), "right": turned.count(label)}
    answers = zip(channel.confidences, channel.golds, channel.strict, strict=True)
    ranked = [(confidence, gold == answer) for confidence, gold, answer in answers if confidence is not None]
    if ranked:
        confidences, right = zip(*ranked, strict=True)
        block["calibration"] = metrics.calibration(metrics.calibration_counts(confidences, right))
    try:
        predictions = channel.task.baselines(channel.golds, channel.keys)
    except ValueError as error:
        predictions, block["baselines_absent"] = {}, str(error)
    block["baselines"] = {name: _figures(channel, predicted)[0] for name, predicted in predictions.items()}
    if draws:
        block["intervals"] = {reading: intervals(channel, reading, draws, seed) for reading in READINGS}
        block["bootstrap"] = {"draws": draws, "seed": seed, "level": 0.95, "units": units_of(channel)[1]}
    block["per_class"] = per_class
    block["signatures"] = [
        signature(channel.name, protocol, reading, block["n"], block[unparsed], len(ranked))
        for protocol in _protocols(channel)
        for reading, unparsed in zip(READINGS, ("unparsed", "unparsed_lenient"), strict=True)
    ]
    if "official" in block:
        name = f"official({script})"
        block["signatures"] += [
            signature(channel.name, protocol, name, block["n"], 0, len(ranked))
            for protocol in _protocols(channel)
            if len(channel.task.protocols) == 1 or protocol in block["official"]
        ]
    if remarks := channel.task.remarks(block):
        block["remarks"] = remarks
    if channel.excluded:
        block["excluded"] = dict(channel.excluded)
    return block


def signature(channel: str, protocol: str, reading: str, n: int, unparsed: int, ranked: int = 0) -> str:
    """One line that says what a figure is, to be quoted beside it; ranked: how many answers are the likeliest label."""
    answers = f"|answers:likelihood{'' if ranked == n else f'({ranked} of {n})'}" if ranked else ""
    return f"{channel}|protocol:{protocol}|reading:{reading}|n:{n}|unparsed:{unparsed}{answers}|version:{VERSION}"


def _protocols(channel: Channel) -> tuple[str, ...]:
    return channel.task.protocols_of(channel.part)


def _figures(channel: Channel, predictions: list) -> tuple[dict, dict]:
    """(figures, per_class) of some predictions for a channel's rows."""
    counts = channel.task.count(channel.dataset, channel.golds, predictions, channel.keys)
    return _split(finish(channel, counts))


def finish(channel: Channel, counts: Counter) -> dict:
    """The task's figures, of the protocols that apply to this channel."""
    figures = channel.task.finish(channel.dataset, counts)
    left_out = set(channel.task.protocols) - set(_protocols(channel))
    return {key: value for key, value in figures.items() if key not in left_out}


def _split(figures: dict) -> tuple[dict, dict]:
    """(figures, per_class), per_class taken out of every protocol."""
    if "per_class" in figures:
        return {key: value for key, value in figures.items() if key != "per_class"}, figures["per_class"]
    parts = {key: _split(value) for key, value in figures.items() if isinstance(value, dict)}
    plain = {key: parts[key][0] if key in parts else value for key, value in figures.items()}
    return plain, {key: part[1] for key, part in parts.items()}


def units_of(channel: Channel) -> tuple[list[list[int]], str]:
    """Row numbers that are resampled together, and what such a unit is."""
    if any(unit is None for unit in channel.units):
        return [[index] for index in range(len(channel.golds))], "rows"
    groups = defaultdict(list)
    for index, unit in enumerate(channel.units):
        groups[unit].append(index)
    return list(groups.values()), "dialogues"


def intervals(channel: Channel, reading: str, draws: int, seed: int) -> dict:
    """{metric: [low, high]} of a 95 % percentile bootstrap, by dialogue where every row names one."""
    columns = (channel.golds, getattr(channel, reading), channel.keys)
    units = [
        channel.task.count(channel.dataset, *([column[row] for row in rows] for column in columns))
        for rows in units_of(channel)[0]
    ]
    return metrics.bootstrap(units, lambda counts: finish(channel, counts), draws, seed)


# How figures are shown


def flatten(figures: dict, prefix: str = "") -> dict[str, Any]:
    """{"paper": {"f1": 0.5}} → {"paper f1": 0.5}: one line of a table each."""
    result: dict[str, Any] = {}
    for key, value in figures.items():
        result |= flatten(value, f"{prefix}{key} ") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


NO_FRACTIONS = ("mae", "corr", "labels_per_answer", "invented_per_answer")


def scale(metric: str) -> int:
    """What figures are shown times: 100 makes a fraction per cent; MAE, correlation and means are no fractions."""
    return 1 if metric.rpartition(" ")[2] in NO_FRACTIONS else 100


def percent(metric: str, value: float | None) -> str:
    """A fraction in per cent; MAE and correlation are no fractions and stay as they are."""
    if value is None:
        return ""
    return f"{value:.4f}" if scale(metric) == 1 else f"{100 * value:.2f}"


def columns(block: dict) -> dict[str, dict[str, str]]:
    """Columns of a channel's table: {name: {metric: text}}, strict first."""
    strict = flatten(block["strict"])
    result = {"strict": {metric: percent(metric, value) for metric, value in strict.items()}}
    if "intervals" in block:
        ranges = flatten(block["intervals"]["strict"])
        result["95 % (strict)"] = {m: " – ".join(percent(m, end) for end in ends) for m, ends in ranges.items()}
    others = {"lenient": block["lenient"]}
    if "official" in block:
        others["official"] = block["official"]
    if block.get("published", {}).get("figures"):  # beside the reading that counts as its authors counted
        others[block["published"]["name"]] = block["published"]["figures"]
    others |= block["baselines"]
    for name, figures in others.items():
        result[name] = {metric: percent(metric, value) for metric, value in flatten(figures).items()}
    return result


def judge_lines(block: dict) -> list[str]:
    """What is said of the marks of `judge.judge`, published ones beside them."""
    found, published = block["judge"], block.get("published", {}).get("judge", {})

    def mark(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    lines = [f"judged by {found['judge']} (prompts {found['prompts']}), scale {found['scale']}, n {found['n']:,}"]
    for name in (key for key in found if f"{key}_not_judged" in found):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in found[f"{name}_reasons"].items())
        line = f"{name} {mark(found[name])}, {found[f'{name}_not_judged']:,} not judged"
        line += f" ({reasons})" if reasons else ""
        line += f"; by the first number of a reply {mark(found[f'{name}_first_number'])}"
        line += f", {found[f'{name}_without_number']:,} without"
        line += f"; published {published[name]:.2f}, by another judge" if name in published else ""
        lines.append(line)
    if found["empty"]:
        lines.append(f"{found['empty']:,} empty answers count as 1, the lowest mark")
    return [*lines, found["note"]]


def calibration_lines(block: dict) -> list[str]:
    """What is said of probabilities, where labels were ranked."""
    if not (found := block.get("calibration")):
        return []
    shown = ", ".join(f"{words} {100 * found[key]:.2f}" for key, words in CALIBRATION.items())
    return [f"labels ranked by likelihood, n {found['n']:,}: {shown}"]


def published_lines(published: dict) -> list[str]:
    """What is said of published figures that are no column: where they stand, marks of a judge, other systems."""
    systems = {published["name"]: published["judge"]} if published.get("judge") else {}
    lines = [f"published: {published['source']}"] if published.get("source") else []
    for name, system in (systems | published.get("others", {})).items():
        shown = ", ".join(f"{key} {value:.2f}" for key, value in system.items() if key != "second_hand")
        lines.append(f"  {name}{' (second hand)' if system.get('second_hand') else ''}: {shown}")
    return lines
