"""Arithmetic of the metrics; knows no prompts and no label names.

Every metric is two steps: count what is additive over rows, then turn the counts into figures. The split is what makes
a bootstrap cheap: it resamples counts, not rows.

    >>> classification(confusion(["a", "b"], ["a", None]), ["a", "b"])["accuracy"]
    0.5

A prediction of None is an unparsed response: a miss for the gold class, never a prediction of any class. Results are
fractions. Nothing to average over gives 0.0, never a crash.
"""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from swift_plugins.progress import progress


def ratio(part: float, whole: float) -> float:
    """part / whole, and 0.0 where there is no whole."""
    return part / whole if whole else 0.0


def prf(hit: float, predicted: float, gold: float) -> dict[str, float]:
    """precision, recall and f1 from counts, with gold as support; a class never predicted has f1 0."""
    return {
        "precision": ratio(hit, predicted),
        "recall": ratio(hit, gold),
        "f1": ratio(2 * hit, predicted + gold),
        "support": gold,
    }


def weighted(table: Mapping[Hashable, Mapping[str, float]], total: float) -> dict[str, float]:
    """weighted_precision, weighted_recall, weighted_f1 of a table of `prf`, by gold support; `total` rows have gold."""
    return {
        f"weighted_{name}": ratio(sum(row[name] * row["support"] for row in table.values()), total)
        for name in ("precision", "recall", "f1")
    }


# One label of a closed set


def confusion(golds: Iterable[Hashable], predictions: Iterable[Hashable | None]) -> Counter:
    """Counts of (gold, prediction); prediction None = unparsed."""
    return Counter(zip(golds, predictions, strict=True))


def classification(counts: Counter, classes: Sequence[Hashable]) -> dict:
    """accuracy (= WAR), weighted_f1 (by gold support), uar (mean recall of the classes that have gold), per_class.

    scikit-learn's macro recall counts a class that is predicted and has no gold as 0; here it is left out.
    """
    gold, predicted = Counter(), Counter()
    for (row, column), count in counts.items():
        gold[row] += count
        predicted[column] += count
    table = {name: prf(counts[name, name], predicted[name], gold[name]) for name in classes}
    n = sum(gold.values())
    present = [row for row in table.values() if row["support"]]
    return {
        "accuracy": ratio(sum(counts[name, name] for name in classes), n),
        "weighted_f1": weighted(table, n)["weighted_f1"],
        "uar": ratio(sum(row["recall"] for row in present), len(present)),
        "per_class": table,
    }


# Probabilities of the answers

BINS = 15  # of equal width, as in Guo et al. 2017


def calibration_counts(confidences: Iterable[float], right: Iterable[bool], bins: int = BINS) -> Counter:
    """Additive statistics ("n" | "right" | "confidence", bin) of answers, each with the probability that it was given.

    A confidence is in bin m, from 0, where m / bins < confidence ≤ (m + 1) / bins, and 0 in the first.
    """
    counts: Counter = Counter()
    for confidence, hit in zip(confidences, right, strict=True):
        place = max(0, math.ceil(confidence * bins) - 1)
        counts["n", place] += 1
        counts["right", place] += hit
        counts["confidence", place] += confidence
    return counts


def calibration(counts: Counter, bins: int = BINS) -> dict:
    """n, accuracy, confidence (its mean), ece, and the same of each bin that has rows, with its bounds.

    ece: expected calibration error, |accuracy - confidence| of the bins weighted by their rows (Guo et al. 2017, "On
    Calibration of Modern Neural Networks", equation 5).
    """

    def figures(places: Sequence[int]) -> dict[str, float]:
        n, right, confidence = (sum(counts[kind, place] for place in places) for kind in ("n", "right", "confidence"))
        return {"n": n, "accuracy": ratio(right, n), "confidence": ratio(confidence, n)}

    places = [place for place in range(bins) if counts["n", place]]
    table = [{"above": place / bins, "up_to": (place + 1) / bins} | figures([place]) for place in places]
    whole = figures(places)
    gaps = sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in table)
    return whole | {"ece": ratio(gaps, whole["n"]), "bins": table}


# Sentiment


def sentiment_counts(golds: Iterable, predictions: Iterable, zero: Iterable[bool]) -> Counter:
    """Counts of (zero, gold, prediction)."""
    return Counter(zip(map(bool, zero), golds, predictions, strict=True))


def sentiment(counts: Counter, classes: Sequence[Hashable]) -> dict:
    """Both Acc2 of the field, each with its weighted F1: Has0 over all rows, Non0 where the sentiment is not 0.

    Has0 = negative / non-negative, zero counted as non-negative; Non0 = negative / positive (MMSA's names).
    """
    has0, non0 = Counter(), Counter()
    for (zero, gold, prediction), count in counts.items():
        has0[gold, prediction] += count
        if not zero:
            non0[gold, prediction] += count
    all_rows, nonzero = classification(has0, classes), classification(non0, classes)
    return {
        "acc2_has0": all_rows["accuracy"],
        "f1_has0": all_rows["weighted_f1"],
        "acc2_non0": nonzero["accuracy"],
        "f1_non0": nonzero["weighted_f1"],
        "per_class": all_rows["per_class"],
    }


def score_counts(golds: Iterable[float], predictions: Iterable[float | None]) -> Counter:
    """Additive statistics of sentiment scores in [-3, 3]: sums for MAE and correlation, hits, (zero, sign, sign)."""
    counts = Counter()
    for gold, prediction in zip(golds, predictions, strict=True):
        counts["n"] += 1
        # MMSA: Has0 compares >= 0, Non0 compares > 0 on the rows whose gold is not 0
        counts["has0", gold >= 0, None if prediction is None else prediction >= 0] += 1
        if gold:
            counts["non0", gold > 0, None if prediction is None else prediction > 0] += 1
        if prediction is None:
            continue
        counts["acc7"] += round(max(-3, min(3, gold))) == round(max(-3, min(3, prediction)))
        for name, value in {
            "parsed": 1,
            "error": abs(gold - prediction),
            "x": gold,
            "y": prediction,
            "xx": gold * gold,
            "yy": prediction * prediction,
            "xy": gold * prediction,
        }.items():
            counts[name] += value
    return counts


def scores(counts: Counter) -> dict:
    """The figures of `sentiment` from signs, acc7 over all rows, mae and corr (Pearson) over the parsed ones."""
    result = {}
    for name in ("has0", "non0"):
        cells = Counter({key[1:]: count for key, count in counts.items() if key[0] == name})
        figures = classification(cells, (False, True))
        result |= {f"acc2_{name}": figures["accuracy"], f"f1_{name}": figures["weighted_f1"]}
    n = counts["parsed"]
    spread = (n * counts["xx"] - counts["x"] ** 2) * (n * counts["yy"] - counts["y"] ** 2)
    covariance = n * counts["xy"] - counts["x"] * counts["y"]
    return result | {
        "acc7": ratio(counts["acc7"], counts["n"]),
        "mae": ratio(counts["error"], n),
        "corr": ratio(covariance, math.sqrt(max(spread, 0.0))),
    }


# Sets of members per row, and emotion-cause pairs


def set_counts(golds: Iterable[set], predictions: Iterable[set]) -> Counter:
    """Counts of ("hit" | "predicted" | "gold", member) over rows of sets."""
    counts = Counter()
    for gold, prediction in zip(golds, predictions, strict=True):
        for kind, members in (("hit", gold & prediction), ("predicted", prediction), ("gold", gold)):
            for member in members:
                counts[kind, member] += 1
    return counts


def paper_pair_counts(
    golds: Iterable[Sequence],
    predictions: Iterable[Sequence | None],
    class_of: Callable[[Any], Hashable] = itemgetter(1),
) -> Counter:
    """Emotion-cause pairs as EmoVerse's script counts them: row by row, rows with an empty gold left out.

    A pair predicted twice counts twice, as a prediction and, when right, as a hit: the figures can exceed 1.
    `class_of` tells a pair's emotion.
    """
    counts: Counter = Counter()
    for gold, prediction in zip(golds, predictions, strict=True):
        if not gold:
            continue
        members = set(gold)
        for pair in gold:
            counts["gold", class_of(pair)] += 1
        for pair in prediction or ():
            counts["predicted", class_of(pair)] += 1
            counts["hit", class_of(pair)] += pair in members
    return counts


def semeval_pair_counts(
    golds: Iterable[Sequence], predictions: Iterable[Sequence | None], conversations: Iterable[Hashable]
) -> Counter:
    """Emotion-cause pairs as SemEval-2024 Task 3 subtask 2 counts them.

    Per conversation, the set of predicted pairs against the set of gold pairs, over every row: a prediction for a
    target without a cause is a false positive, duplicates count once.
    """
    gold_sets, predicted_sets = defaultdict(set), defaultdict(set)
    for gold, prediction, conversation in zip(golds, predictions, conversations, strict=True):
        gold_sets[conversation].update(gold)
        predicted_sets[conversation].update(prediction or ())
    counts = Counter()
    for conversation, gold in gold_sets.items():
        prediction = predicted_sets[conversation]
        for kind, pairs in (("hit", gold & prediction), ("predicted", prediction), ("gold", gold)):
            for _, emotion, _ in pairs:
                counts[kind, emotion] += 1
    return counts


def set_scores(counts: Counter, members: Iterable[Hashable]) -> dict:
    """Micro precision, recall, f1; the same weighted by gold support (weighted_*); per_class.

    Micro figures are over everything counted, also what is not one of `members`.
    """
    table = {
        member: prf(counts["hit", member], counts["predicted", member], counts["gold", member]) for member in members
    }
    total = sum(row["support"] for row in table.values())
    totals = Counter()
    for (kind, _), count in counts.items():
        totals[kind] += count
    result = prf(totals["hit"], totals["predicted"], totals["gold"])
    del result["support"]
    return result | weighted(table, total) | {"per_class": table}


# Several labels per row, and words on emotion wheels (MERTools, MMEVerse)


def several_counts(golds: Iterable[Iterable], predictions: Iterable[Iterable | None]) -> Counter:
    """Counts of (labels of the gold, labels of the prediction), each a sorted tuple; () where it was unparsed."""
    return Counter(
        (tuple(sorted(set(gold))), tuple(sorted(set(prediction or ()))))
        for gold, prediction in zip(golds, predictions, strict=True)
    )


def several(counts: Counter, classes: Iterable[Hashable] | None = None) -> dict:
    """micro_f1, samples_f1, jaccard, map over `classes` (None: those that the gold has), and per_class.

    invented_per_answer: labels outside the classes, of which only jaccard knows. jaccard = mean |∩| / (|∪| + 1e-6) and
    map = mean average precision of yes and no, both as MMEVerse's scorer has them.
    """
    known = set(classes if classes is not None else (label for (gold, _), n in counts.items() if n for label in gold))
    hit, predicted, support = Counter(), Counter(), Counter()
    n, samples, jaccard, invented = 0.0, 0.0, 0.0, 0.0
    for (gold, prediction), count in counts.items():
        ours, theirs = set(gold) & known, set(prediction) & known
        n += count
        samples += count * ratio(2 * len(ours & theirs), len(ours) + len(theirs))
        jaccard += count * len(ours & theirs) / (len(ours | theirs) + 1e-6)
        invented += count * len(set(prediction) - known)
        for counter, labels in ((hit, ours & theirs), (predicted, theirs), (support, ours)):
            for label in labels:
                counter[label] += count
    table = {label: prf(hit[label], predicted[label], support[label]) for label in sorted(known, key=str)}
    precisions = [  # of the ranking that says yes and no: the recall of yes at its precision, the rest at that of all
        row["recall"] * row["precision"] + (1 - row["recall"]) * ratio(row["support"], n)
        for row in table.values()
        if row["support"]
    ]
    return {
        "micro_f1": prf(hit.total(), predicted.total(), support.total())["f1"],
        "samples_f1": ratio(samples, n),
        "jaccard": ratio(jaccard, n),
        "map": ratio(sum(precisions), len(precisions)),
        "invented_per_answer": ratio(invented, n),
        "per_class": table,
    }


def wheel_counts(
    golds: Iterable[Sequence],
    predictions: Iterable[Sequence | None],
    levels: Callable[[Any], Sequence[Hashable | None]],
    alone: Callable[[Sequence], bool] = lambda gold: len(gold) == 1,
) -> Counter:
    """Counts of (wheel, emotions of the gold, those of the prediction, `alone` of the gold), and ("words",) of answers.

    Emotions are sorted tuples. levels: a word → its emotion on each wheel, or None. alone: whether a gold is one word.
    """
    counts: Counter = Counter()

    @functools.cache  # the same few answers come again and again
    def emotions(words: tuple) -> list[tuple]:
        """Of each wheel."""
        found = [levels(word) for word in words]
        return [tuple(sorted({word[wheel] for word in found} - {None})) for wheel in range(len(levels("")))]

    for gold, prediction in zip(golds, predictions, strict=True):
        counts["words",] += len(prediction or ())
        for wheel, sides in enumerate(zip(emotions(tuple(gold)), emotions(tuple(prediction or ())), strict=True)):
            counts[wheel, *sides, alone(gold)] += 1
    return counts


def wheel_scores(counts: Counter) -> dict:
    """hit_rate, mscore, precision, recall, f, each the mean over wheels, of the rows whose gold a wheel knows.

    mscore divides by the emotions of the answer that are some row's whole gold answer: MERTools looks golds up unsplit,
    so that those of several words count for none. labels_per_answer: words of an answer; gold_unmapped: share of the
    rows whose gold maps to nothing.
    """
    wheels: dict[Any, Counter] = defaultdict(Counter)
    for key, count in counts.items():
        if len(key) == 4:
            wheels[key[0]][key[1:]] += count
    sums: Counter = Counter()
    for cells in wheels.values():
        candidates = {emotion for (gold, _, alone), count in cells.items() if count and alone for emotion in gold}
        found: Counter = Counter()
        for (gold, prediction, _), count in cells.items():
            if not gold:
                found["unmapped"] += count
                continue
            both = len(set(gold) & set(prediction))
            found["n"] += count
            found["hit"] += count * both
            found["mscore"] += count * ratio(both, len(candidates & set(prediction)))
            found["precision"] += count * ratio(both, len(prediction))
            found["recall"] += count * both / len(gold)
        precision, recall = (ratio(found[name], found["n"]) for name in ("precision", "recall"))
        sums["hit_rate"] += ratio(found["hit"], found["n"])
        sums["mscore"] += ratio(found["mscore"], found["n"])
        sums["precision"] += precision
        sums["recall"] += recall
        sums["f"] += ratio(2 * precision * recall, precision + recall)
        sums["gold_unmapped"] += ratio(found["unmapped"], cells.total())
    figures = ("hit_rate", "mscore", "precision", "recall", "f", "gold_unmapped")
    rows = ratio(sum(cells.total() for cells in wheels.values()), len(wheels))
    return {name: ratio(sums[name], len(wheels)) for name in figures} | {
        "labels_per_answer": ratio(counts["words",], rows)
    }


# Free text


def text_counts(golds: Iterable[str], predictions: Iterable[str | None]) -> Counter:
    """Additive statistics of BLEU (sacrebleu, 13a tokens) and ROUGE-L F (rouge-score's tokens, no stemming).

    An unparsed response is an empty text. The slowest of all counts: about 0.1 ms per row.
    """
    from rapidfuzz.distance import LCSseq  # the longest common subsequence, three times as fast as rouge-score's
    from rouge_score.tokenize import tokenize
    from sacrebleu.metrics import BLEU

    counts, scorer = Counter(), BLEU(effective_order=True)
    for gold, prediction in zip(golds, predictions, strict=True):
        text = prediction or ""
        bleu = scorer.sentence_score(text, [gold])
        words = tokenize(gold, None), tokenize(text, None)
        counts["n"] += 1
        counts["rouge_l"] += ratio(2 * LCSseq.similarity(*words), len(words[0]) + len(words[1]))
        counts["sys_len"] += bleu.sys_len
        counts["ref_len"] += bleu.ref_len
        for order, (correct, total) in enumerate(zip(bleu.counts, bleu.totals, strict=True)):
            counts["correct", order] += correct
            counts["total", order] += total
    return counts


def text_overlap(counts: Counter) -> dict:
    """Corpus bleu and mean rouge_l, both 0-1."""
    from sacrebleu.metrics import BLEU

    bleu = BLEU.compute_bleu(
        correct=[int(counts["correct", order]) for order in range(4)],
        total=[int(counts["total", order]) for order in range(4)],
        sys_len=int(counts["sys_len"]),
        ref_len=int(counts["ref_len"]),
    )
    return {"bleu": bleu.score / 100, "rouge_l": ratio(counts["rouge_l"], counts["n"])}


# Intervals


def resample(
    units: Sequence[Counter], finish: Callable[[Counter], dict], draws: int, seed: int = 0
) -> dict[tuple, list[float]]:
    """`finish` of `units` drawn with replacement, as often as `draws` says: path of the figure → its values.

    A unit is the counts of what must be drawn together: one row, or one dialogue. `finish` may return nested
    dictionaries; anything under "per_class" is left out. Seeded: the same units give the same values.
    """
    import numpy as np

    # Equal units are one category of a multinomial: rows of two labels are a handful of categories, not thousands.
    kinds = Counter(frozenset(unit.items()) for unit in units)
    ordered = sorted(kinds, key=lambda kind: sorted(map(repr, kind)))
    keys = sorted({key for kind in kinds for key, _ in kind}, key=repr)
    column = {key: index for index, key in enumerate(keys)}
    matrix = np.zeros((len(ordered), len(keys)))
    for row, kind in enumerate(ordered):
        for key, value in kind:
            matrix[row, column[key]] = value
    chances = np.array([kinds[kind] for kind in ordered], dtype=float)
    chances /= chances.sum()

    generator = np.random.default_rng(seed)
    samples = defaultdict(list)
    for start in progress(
        range(0, draws, 100), desc="bootstrap", unit="00 draws"
    ):  # 100 at a time bounds the memory of (draws, units)
        weights = generator.multinomial(len(units), chances, size=min(100, draws - start))
        for drawn in weights @ matrix:
            for name, value in _leaves(finish(Counter(dict(zip(keys, drawn.tolist(), strict=True))))):
                samples[name].append(value)
    return samples


def bootstrap(
    units: Sequence[Counter], finish: Callable[[Counter], dict], draws: int, seed: int = 0, level: float = 0.95
) -> dict:
    """Percentile intervals of `finish` under resampling of `units`: {metric: [low, high]}, nested as `finish` is."""
    import numpy as np

    tail = 100 * (1 - level) / 2
    result: dict = {}
    for name, values in resample(units, finish, draws, seed).items():
        inner = result
        for part in name[:-1]:
            inner = inner.setdefault(part, {})
        inner[name[-1]] = [float(value) for value in np.percentile(values, [tail, 100 - tail])]
    return result


def _leaves(tree: dict, path: tuple = ()) -> Iterable[tuple[tuple, float]]:
    for key, value in tree.items():
        if key == "per_class":
            continue
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value
