"""Arithmetic of the metrics; knows no prompts and no label names.

Every function takes rows of gold and prediction, where None is an unparsed response: a miss for the gold class that
is never a prediction of any class. All results are fractions. Nothing to average over gives 0.0, never a crash.

    >>> classification(["a", "b"], ["a", None], ["a", "b"])["accuracy"]
    0.5
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence


def ratio(part: float, whole: float) -> float:
    """part / whole, and 0.0 where there is no whole."""
    return part / whole if whole else 0.0


def f1(precision: float, recall: float) -> float:
    """Harmonic mean, 0.0 where both are 0."""
    return ratio(2 * precision * recall, precision + recall)


def confusion(golds: Sequence[Hashable], predictions: Sequence[Hashable | None]) -> Counter:
    """Counts of (gold, prediction); prediction None = unparsed."""
    return Counter(zip(golds, predictions, strict=True))


def per_class(counts: Counter, classes: Iterable[Hashable]) -> dict[Hashable, dict[str, float]]:
    """precision, recall, f1 and support (gold count) of each class, from `confusion`."""
    gold, predicted = Counter(), Counter()
    for (row, column), count in counts.items():
        gold[row] += count
        predicted[column] += count
    table = {}
    for name in classes:
        hit = counts[name, name]
        precision, recall = ratio(hit, predicted[name]), ratio(hit, gold[name])
        table[name] = {"precision": precision, "recall": recall, "f1": f1(precision, recall), "support": gold[name]}
    return table


def classification(golds: Sequence, predictions: Sequence, classes: Sequence) -> dict:
    """accuracy (= WAR), weighted_f1 (by gold support), uar (mean recall of the classes that have gold), per_class."""
    return classification_from(confusion(golds, predictions), classes)


def classification_from(counts: Counter, classes: Sequence) -> dict:
    """`classification` from a `confusion`."""
    table = per_class(counts, classes)
    n = sum(counts.values())
    present = [row for row in table.values() if row["support"]]
    return {
        "accuracy": ratio(sum(counts[name, name] for name in classes), n),
        "weighted_f1": ratio(sum(row["f1"] * row["support"] for row in present), n),
        "uar": ratio(sum(row["recall"] for row in present), len(present)),
        "per_class": table,
    }


def binary_sentiment(golds: Sequence, predictions: Sequence, zero: Sequence[bool]) -> dict:
    """Both Acc2 of the field and their weighted F1: Has0 over all rows, Non0 over the rows whose sentiment is not 0.

    Has0 = negative / non-negative, zero counted as non-negative; Non0 = negative / positive (MMSA's names).
    """
    classes = sorted(set(golds))
    nonzero = [index for index, is_zero in enumerate(zero) if not is_zero]
    has0 = classification(golds, predictions, classes)
    non0 = classification([golds[i] for i in nonzero], [predictions[i] for i in nonzero], classes)
    return {
        "acc2_has0": has0["accuracy"],
        "f1_has0": has0["weighted_f1"],
        "acc2_non0": non0["accuracy"],
        "f1_non0": non0["weighted_f1"],
        "n_non0": len(nonzero),
        "per_class": has0["per_class"],
    }


def set_overlap(golds: Sequence[set], predictions: Sequence[set]) -> dict:
    """Micro precision, recall and F1 over the members of one set per row, and per_member figures."""
    hit, gold_total, predicted = Counter(), Counter(), Counter()
    for gold, prediction in zip(golds, predictions, strict=True):
        hit.update(gold & prediction)
        gold_total.update(gold)
        predicted.update(prediction)
    table = {}
    for name in sorted(gold_total | predicted):
        precision, recall = ratio(hit[name], predicted[name]), ratio(hit[name], gold_total[name])
        table[name] = {
            "precision": precision,
            "recall": recall,
            "f1": f1(precision, recall),
            "support": gold_total[name],
        }
    precision, recall = ratio(hit.total(), predicted.total()), ratio(hit.total(), gold_total.total())
    return {"precision": precision, "recall": recall, "f1": f1(precision, recall), "per_class": table}


def _pair_scores(hit: Counter, predicted: Counter, gold: Counter, emotions: Sequence[str]) -> dict:
    """Micro and gold-weighted precision, recall, F1 from counts per emotion; weights = gold support."""
    table = {}
    for emotion in emotions:
        precision, recall = ratio(hit[emotion], predicted[emotion]), ratio(hit[emotion], gold[emotion])
        table[emotion] = {
            "precision": precision,
            "recall": recall,
            "f1": f1(precision, recall),
            "support": gold[emotion],
        }
    precision, recall = ratio(hit.total(), predicted.total()), ratio(hit.total(), gold.total())
    result = {"precision": precision, "recall": recall, "f1": f1(precision, recall)}
    for name in ("precision", "recall", "f1"):
        weighted = sum(row[name] * row["support"] for row in table.values())
        result[f"weighted_{name}"] = ratio(weighted, sum(row["support"] for row in table.values()))
    return result | {"per_class": table}


def pairs_paper(golds: Sequence[Sequence], predictions: Sequence[Sequence | None], emotions: Sequence[str]) -> dict:
    """Emotion-cause pairs as EmoVerse's script counts them: row by row, rows with an empty gold left out.

    A pair predicted twice counts twice, as prediction and, when right, as hit, so that the figures can exceed 1.
    Source: scoring.md of the issue, "paper protocol".
    """
    hit, predicted, total = Counter(), Counter(), Counter()
    for gold, prediction in zip(golds, predictions, strict=True):
        if not gold:
            continue
        total.update(emotion for _, emotion, _ in gold)
        members = set(gold)
        for pair in prediction or ():
            predicted[pair[1]] += 1
            hit[pair[1]] += pair in members
    return _pair_scores(hit, predicted, total, emotions)


def pairs_semeval(
    golds: Sequence[Sequence],
    predictions: Sequence[Sequence | None],
    conversations: Sequence[Hashable],
    emotions: Sequence[str],
) -> dict:
    """Emotion-cause pairs as SemEval-2024 Task 3 subtask 2 counts them.

    Per conversation, the set of predicted pairs against the set of gold pairs, over every row: a prediction for a
    target without a cause is a false positive, duplicates count once.
    """
    gold_sets, predicted_sets = defaultdict(set), defaultdict(set)
    for gold, prediction, conversation in zip(golds, predictions, conversations, strict=True):
        gold_sets[conversation].update(gold)
        predicted_sets[conversation].update(prediction or ())
    hit, predicted, total = Counter(), Counter(), Counter()
    for conversation, gold in gold_sets.items():
        prediction = predicted_sets[conversation]
        total.update(emotion for _, emotion, _ in gold)
        predicted.update(emotion for _, emotion, _ in prediction)
        hit.update(emotion for _, emotion, _ in gold & prediction)
    return _pair_scores(hit, predicted, total, emotions)


def text_overlap(golds: Sequence[str], predictions: Sequence[str | None]) -> dict:
    """Corpus BLEU and mean ROUGE-L F1 of free text, both 0-1; an unparsed response is an empty text.

    Computed by sacrebleu (default signature, 13a tokens) and rouge-score (no stemming).
    """
    if not golds:
        return {"bleu": 0.0, "rouge_l": 0.0}
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    texts = [prediction or "" for prediction in predictions]
    scorer = RougeScorer(["rougeL"])
    rouge = sum(scorer.score(gold, text)["rougeL"].fmeasure for gold, text in zip(golds, texts, strict=True))
    return {"bleu": sacrebleu.corpus_bleu(texts, [list(golds)]).score / 100, "rouge_l": rouge / len(golds)}
