"""Metrics: one table of tiny cases per metric, empty ones included, each with its reason."""

import math
import random

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, jaccard_score

from swift_plugins import metrics
from swift_plugins.tasks import TASKS

JOY, ANGER = (1, "joy", 1), (1, "anger", 1)
EMOTIONS = ("anger", "joy")


@pytest.mark.parametrize(
    ("golds", "predictions", "accuracy", "weighted_f1", "uar", "reason"),
    [
        ([], [], 0, 0, 0, "nothing to score"),
        (["a"], ["a"], 1, 1, 1, "one right answer; class b has no gold and is not averaged"),
        (["a"], [None], 0, 0, 0, "an unparsed answer is wrong"),
        (["a", "b"], ["a", None], 0.5, 0.5, 0.5, "unparsed costs b its recall, and a no precision"),
        (["a", "b"], ["a", "a"], 0.5, 1 / 3, 0.5, "b is never predicted: F1 0, not a crash"),
        (
            ["a", "a", "a", "b"],
            ["a", "a", "b", "b"],
            0.75,
            0.75 * 0.8 + 0.25 * 2 / 3,
            (2 / 3 + 1) / 2,
            "unequal support",
        ),
        (["a", "a"], ["c", "a"], 0.5, 2 / 3, 0.5, "a prediction outside the classes is only a miss"),
    ],
)
def test_classification(golds, predictions, accuracy, weighted_f1, uar, reason):
    result = metrics.classification(metrics.confusion(golds, predictions), ("a", "b"))
    figures = result["accuracy"], result["weighted_f1"], result["uar"]
    assert figures == pytest.approx((accuracy, weighted_f1, uar)), reason


def test_classification_agrees_with_scikit_learn():
    generator = random.Random(0)
    golds = generator.choices("abcd", weights=(8, 4, 2, 1), k=500)
    predictions = [gold if generator.random() < 0.6 else generator.choice("abcd") for gold in golds]
    result = metrics.classification(metrics.confusion(golds, predictions), "abcd")
    assert result["weighted_f1"] == pytest.approx(f1_score(golds, predictions, average="weighted"), abs=1e-12)
    assert result["uar"] == pytest.approx(balanced_accuracy_score(golds, predictions), abs=1e-12)


@pytest.mark.parametrize(
    ("rows", "has0", "non0", "reason"),
    [
        ([], 0, 0, "nothing to score"),
        ([("positive", "positive", False)], 1, 1, "one right answer"),
        ([("positive", "negative", True)], 0, 0, "only a zero clip: nothing left for Non0"),
        (
            [("positive", "positive", False), ("positive", "negative", True)],
            0.5,
            1,
            "a wrong zero clip costs Has0 only",
        ),
        ([("negative", None, False), ("positive", "positive", True)], 0.5, 0, "unparsed is wrong in both"),
    ],
)
def test_both_acc2(rows, has0, non0, reason):
    golds, predictions, zero = zip(*rows, strict=True) if rows else ((), (), ())
    result = metrics.sentiment(metrics.sentiment_counts(golds, predictions, zero), ("positive", "negative"))
    assert (result["acc2_has0"], result["acc2_non0"]) == (has0, non0), reason


@pytest.mark.parametrize(
    ("golds", "predictions", "expected", "reason"),
    [
        ([], [], {"acc7": 0, "mae": 0, "corr": 0, "acc2_has0": 0}, "nothing to score"),
        ([1.0], [1.0], {"acc7": 1, "mae": 0, "corr": 0}, "one point has no correlation"),
        ([1.0, -1.0], [3.0, -3.0], {"acc7": 0, "mae": 2, "corr": 1, "acc2_non0": 1}, "right signs, wrong strength"),
        ([0.0, 2.0], [0.4, -1.0], {"acc2_has0": 0.5, "acc2_non0": 0, "acc7": 0.5}, "zero counts for Has0 only"),
        ([2.0, 1.0], [None, 1.0], {"acc7": 0.5, "mae": 0, "acc2_has0": 0.5}, "unparsed: wrong, and without an error"),
        ([3.0], [9.0], {"acc7": 1, "mae": 6}, "acc7 clips to [-3, 3]"),
    ],
)
def test_sentiment_scores(golds, predictions, expected, reason):
    result = metrics.scores(metrics.score_counts(golds, predictions))
    assert {key: result[key] for key in expected} == pytest.approx(expected), reason


@pytest.mark.parametrize(
    ("golds", "predictions", "f1", "reason"),
    [
        ([], [], 0, "nothing to score"),
        ([set()], [set()], 0, "no AU anywhere: no F1 to speak of"),
        ([{"AU06", "AU12"}], [{"AU06"}], 2 / 3, "half found, nothing invented"),
        ([{"AU06"}], [{"AU12"}], 0, "all invented"),
        ([{"AU06"}, {"AU12"}], [{"AU06"}, set()], 2 / 3, "an unparsed answer names no AU"),
    ],
)
def test_au_f1(golds, predictions, f1, reason):
    assert metrics.set_scores(metrics.set_counts(golds, predictions), ("AU06", "AU12"))["f1"] == pytest.approx(f1), (
        reason
    )


@pytest.mark.parametrize(
    ("rows", "paper", "semeval", "reason"),
    [
        ([], 0, 0, "nothing to score"),
        ([((JOY,), (JOY,), 1)], 1, 1, "one right pair"),
        ([((JOY,), (), 1)], 0, 0, "nothing predicted: precision 0 without a division by zero"),
        ([((JOY,), None, 1)], 0, 0, "unparsed"),
        ([((JOY,), (ANGER,), 1)], 0, 0, "the right cause under the wrong emotion"),
        ([((), (JOY,), 1)], 0, 0, "no gold at all"),
        ([((JOY,), (JOY,), 1), ((), (ANGER,), 1)], 1, 2 / 3, "a prediction for a target without a cause: semeval only"),
        ([((JOY,), (JOY, JOY), 1)], 2 * 2 / 3, 1, "a duplicate counts twice in the paper's script, which passes 1"),
        ([((JOY, ANGER), (JOY,), 1)], 2 / 3, 2 / 3, "half of the pairs"),
        (
            [((JOY,), (), 1), ((ANGER,), (JOY,), 1)],
            0,
            2 / 3,
            "semeval pools a conversation: found in another row's answer",
        ),
        ([((JOY,), (), 1), ((ANGER,), (JOY,), 2)], 0, 0, "but not across conversations"),
    ],
)
def test_pairs(rows, paper, semeval, reason):
    golds, predictions, conversations = zip(*rows, strict=True) if rows else ((), (), ())
    by_paper = metrics.set_scores(metrics.paper_pair_counts(golds, predictions), EMOTIONS)
    by_semeval = metrics.set_scores(metrics.semeval_pair_counts(golds, predictions, conversations), EMOTIONS)
    assert by_paper["f1"] == pytest.approx(paper), reason
    assert by_semeval["f1"] == pytest.approx(semeval), reason


def test_weighted_pairs_use_gold_support():
    golds = [((1, "joy", 1), (1, "joy", 2), (1, "joy", 3)), ((2, "anger", 1),)]
    predictions = [((1, "joy", 1), (1, "joy", 2), (1, "joy", 3)), ()]
    result = metrics.set_scores(metrics.paper_pair_counts(golds, predictions), EMOTIONS)
    assert (result["f1"], result["weighted_f1"]) == pytest.approx((2 * 3 / 7, 0.75))
    assert result["per_class"]["anger"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}


@pytest.mark.parametrize(
    ("confidences", "right", "ece", "bins", "reason"),
    [
        ([], [], 0, [], "nothing to score"),
        ([1.0], [True], 0, [14], "sure and right; 1 is in the last bin"),
        ([1.0], [False], 1, [14], "sure and wrong"),
        ([0.5, 0.5], [True, False], 0, [7], "one in two at one half"),
        ([0.6, 0.6], [True, True], 0.4, [8], "too modest is as bad; an upper bound belongs to its bin"),
        ([0.9, 0.92], [True, False], 0.41, [13], "a bin takes the mean of its confidences"),
        ([0.9, 0.94], [True, False], (0.1 + 0.94) / 2, [13, 14], "but two bins do not make up for each other"),
        ([0.2, 0.8, 0.8, 0.8], [False, True, True, True], 0.2, [2, 11], "bins are weighted by their rows"),
        ([0.0, 0.01], [False, False], 0.005, [0], "0 is in the first bin"),
    ],
)
def test_calibration(confidences, right, ece, bins, reason):
    result = metrics.calibration(metrics.calibration_counts(confidences, right))
    assert result["ece"] == pytest.approx(ece), reason
    assert [round(row["above"] * metrics.BINS) for row in result["bins"]] == bins, reason
    assert result["n"] == len(right) == sum(row["n"] for row in result["bins"])
    assert result["accuracy"] * len(right) == pytest.approx(sum(right))
    assert result["confidence"] * len(right) == pytest.approx(sum(confidences))


@pytest.mark.parametrize(
    ("golds", "predictions", "expected", "reason"),
    [
        ([], [], {"micro_f1": 0, "samples_f1": 0, "jaccard": 0, "map": 0}, "nothing to score"),
        (["a"], ["a"], {"micro_f1": 1, "samples_f1": 1, "jaccard": 1, "map": 1}, "one right label"),
        (["ab"], ["ab"], {"micro_f1": 1, "samples_f1": 1, "jaccard": 1, "map": 1}, "two right labels"),
        (["ab"], ["ba"], {"micro_f1": 1, "jaccard": 1}, "in any order"),
        (["ab"], ["aa"], {"micro_f1": 2 / 3, "jaccard": 1 / 2}, "a label twice counts once"),
        (["a"], [None], {"micro_f1": 0, "samples_f1": 0, "jaccard": 0}, "an unparsed answer names nothing"),
        (["a", "b"], ["a", None], {"micro_f1": 2 / 3, "samples_f1": 0.5, "map": 0.75}, "unparsed: b at chance in map"),
        (["a"], ["b"], {"micro_f1": 0, "invented_per_answer": 1, "jaccard": 0}, "b is no class of this gold"),
        (["a", "b"], ["ac", "b"], {"micro_f1": 1, "jaccard": 1, "invented_per_answer": 0.5}, "c costs nothing"),
        (["a", "b"], ["ab", "b"], {"micro_f1": 4 / 5, "samples_f1": 5 / 6, "jaccard": 0.75}, "b too many, a class"),
        (["a", "b"], ["ab", "ab"], {"micro_f1": 2 / 3, "jaccard": 0.5, "map": 0.5}, "all labels everywhere"),
    ],
)
def test_several_labels(golds, predictions, expected, reason):
    result = metrics.several(metrics.several_counts(golds, predictions))
    assert {key: result[key] for key in expected} == pytest.approx(expected, abs=1e-5), reason


def test_several_labels_of_classes_that_are_known():
    """A class without gold is no class of map, and a wrong answer of it costs micro-F1."""
    counts = metrics.several_counts(["a"], ["ab"])
    ours, theirs = metrics.several(counts, "abc"), metrics.several(counts)
    assert (ours["micro_f1"], theirs["micro_f1"]) == pytest.approx((2 / 3, 1))
    assert ours["map"] == theirs["map"] == 1 and ours["per_class"]["c"]["support"] == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sets(st.sampled_from("abcd"), min_size=1), st.sets(st.sampled_from("abcd"))), min_size=1))
def test_several_labels_agree_with_scikit_learn(rows):
    golds, predictions = zip(({"a", "b"}, {"a"}), *rows, strict=True)  # of one class scikit-learn knows no samples
    classes = sorted(set().union(*golds))
    ours, theirs = (np.array([[label in row for label in classes] for row in side]) for side in (golds, predictions))
    result = metrics.several(metrics.several_counts(golds, predictions))
    expected = {
        "micro_f1": f1_score(ours, theirs, average="micro", zero_division=0),
        "samples_f1": f1_score(ours, theirs, average="samples", zero_division=0),
        "map": average_precision_score(ours, theirs.astype(float), average="macro"),
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    jaccard = jaccard_score(ours, theirs, average="samples", zero_division=0)
    assert result["jaccard"] == pytest.approx(jaccard, abs=1e-5), "which adds 1e-6 to the union"


def two_wheels(word: str) -> tuple[str | None, ...]:
    """The first wheel knows a and b, the second a, b and c, of which b and c are one emotion."""
    return ({"a": "A", "b": "B"}.get(word), {"a": "A", "b": "B", "c": "B"}.get(word))


@pytest.mark.parametrize(
    ("golds", "predictions", "expected", "reason"),
    [
        ([], [], {"hit_rate": 0, "mscore": 0, "f": 0, "labels_per_answer": 0}, "nothing to score"),
        (["a"], ["a"], {"hit_rate": 1, "mscore": 1, "precision": 1, "recall": 1, "f": 1}, "right on both wheels"),
        (["a"], [None], {"hit_rate": 0, "mscore": 0, "precision": 0, "f": 0, "labels_per_answer": 0}, "unparsed"),
        (["a"], ["x"], {"hit_rate": 0, "precision": 0, "labels_per_answer": 1}, "a word that no wheel knows"),
        (["x"], ["a"], {"hit_rate": 0, "gold_unmapped": 1}, "a gold that none knows is in no figure"),
        (["a", "x"], ["a", "a"], {"hit_rate": 1, "gold_unmapped": 0.5}, "and costs the others nothing"),
        (["c", "a"], ["b", "a"], {"hit_rate": 1, "gold_unmapped": 0.25}, "c is of one wheel, where it is as b"),
        (["a", "b"], ["ab", "ab"], {"hit_rate": 1, "mscore": 0.5, "precision": 0.5, "f": 2 / 3}, "both words always"),
        (["a"], ["ab"], {"hit_rate": 1, "mscore": 1, "precision": 0.5}, "B is no candidate: no gold is of it"),
        (
            ["a", "ab"],
            ["ab", "ab"],
            {"hit_rate": 1.5, "mscore": 1.5},
            "nor by a gold of several words: mscore can pass 1",
        ),
        (["ab"], ["a"], {"hit_rate": 1, "mscore": 0, "recall": 0.5, "f": 2 / 3}, "no gold of one word: no candidates"),
        (["b"], ["bc"], {"hit_rate": 1, "precision": 1, "labels_per_answer": 2}, "two words of one emotion"),
    ],
)
def test_wheels(golds, predictions, expected, reason):
    result = metrics.wheel_scores(metrics.wheel_counts(golds, predictions, two_wheels))
    assert {key: result[key] for key in expected} == pytest.approx(expected), reason


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.text("abcx", min_size=1, max_size=3), st.text("abcx", max_size=4)), min_size=1))
def test_wheels_agree_with_the_formulas(rows):
    """D2 row by row: sets of emotions, the mean over the rows whose gold is mapped, then over the wheels."""
    expected: dict[str, list[float]] = {name: [] for name in ("hit_rate", "mscore", "precision", "recall", "f")}
    for wheel in range(2):
        sides = [tuple({two_wheels(word)[wheel] for word in side} - {None} for side in row) for row in rows]
        known = [pair for pair in sides if pair[0]] or [(set("-"), set())]
        candidates = set().union(*(pair[0] for pair, row in zip(sides, rows, strict=True) if len(row[0]) == 1))
        both = [len(gold & found) for gold, found in known]
        precision = np.mean([n / max(len(found), 1) for n, (_, found) in zip(both, known, strict=True)])
        recall = np.mean([n / len(gold) for n, (gold, _) in zip(both, known, strict=True)])
        expected["hit_rate"].append(np.mean(both))
        allowed = [max(len(found & candidates), 1) if found & candidates else np.inf for _, found in known]
        expected["mscore"].append(np.mean([n / size for n, size in zip(both, allowed, strict=True)]))
        expected["precision"].append(precision)
        expected["recall"].append(recall)
        expected["f"].append(2 * precision * recall / (precision + recall) if precision + recall else 0)
    result = metrics.wheel_scores(metrics.wheel_counts(*zip(*rows, strict=True), two_wheels))
    means = {name: np.mean(values) for name, values in expected.items()}
    assert {name: result[name] for name in means} == pytest.approx(means, abs=1e-9)


@pytest.mark.parametrize(
    ("golds", "predictions", "bleu", "rouge_l", "reason"),
    [
        ([], [], 0, 0, "nothing to score"),
        (["he smiles at her now"], ["he smiles at her now"], 1, 1, "the same text"),
        (["he smiles at her now"], [None], 0, 0, "an unparsed answer is an empty text"),
        (["he smiles at her now"], ["quite another thing"], 0, 0, "no word in common"),
    ],
)
def test_text_overlap(golds, predictions, bleu, rouge_l, reason):
    result = metrics.text_overlap(metrics.text_counts(golds, predictions))
    assert (result["bleu"], result["rouge_l"]) == pytest.approx((bleu, rouge_l)), reason


def test_bleu_is_sacrebleu_s_and_rouge_is_rouge_score_s():
    golds = ["he smiles at her because he won the race", "her voice is low and she looks away from him"]
    texts = ["he smiles because he won the big race today", "she looks away and her voice is low"]
    result = metrics.text_overlap(metrics.text_counts(golds, texts))
    assert result["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, [golds]).score / 100)
    scorer = RougeScorer(["rougeL"])
    rouge = [scorer.score(gold, text)["rougeL"].fmeasure for gold, text in zip(golds, texts, strict=True)]
    assert result["rouge_l"] == pytest.approx(sum(rouge) / 2)


def test_bootstrap_is_seeded_and_covers_the_known_width():
    units = [metrics.confusion(["a"], ["a" if index % 4 else "b"]) for index in range(400)]

    def finish(counts):
        return metrics.classification(counts, ("a", "b"))

    low, high = metrics.bootstrap(units, finish, 1000)["accuracy"]
    assert metrics.bootstrap(list(reversed(units)), finish, 1000)["accuracy"] == [low, high]
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)  # the normal approximation of a proportion
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.01)


def test_bootstrap_by_dialogue_is_wider_than_by_row():
    task = TASKS["mer"]
    dialogues = [task.count("meld", ["joy"] * 10, ["joy" if d % 2 else "anger"] * 10, [False] * 10) for d in range(40)]
    rows = [task.count("meld", ["joy"], ["joy" if d % 2 else "anger"], [False]) for d in range(40) for _ in range(10)]

    def width(units):
        low, high = metrics.bootstrap(units, lambda counts: task.finish("meld", counts), 500)["accuracy"]
        return high - low

    assert width(dialogues) > 2 * width(rows)


SIX = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
some_pairs = st.lists(st.tuples(st.integers(1, 3), st.sampled_from(SIX), st.integers(1, 3)), max_size=4)


@settings(max_examples=200)
@given(st.lists(st.tuples(some_pairs, some_pairs, st.integers(0, 2)), min_size=1, max_size=6))
def test_semeval_agrees_with_a_confusion_matrix(rows):
    """Another way to the same figures: a matrix over (none, six emotions), with 1e-8 against divisions by zero."""
    gold = {(c, pair) for pairs, _, c in rows for pair in pairs}
    predicted = {(c, pair) for _, pairs, c in rows for pair in pairs}
    matrix = np.zeros((7, 7))
    for _, (_, emotion, _) in gold & predicted:
        matrix[SIX.index(emotion) + 1, SIX.index(emotion) + 1] += 1
    for _, (_, emotion, _) in gold - predicted:
        matrix[SIX.index(emotion) + 1, 0] += 1
    for _, (_, emotion, _) in predicted - gold:
        matrix[0, SIX.index(emotion) + 1] += 1
    precision = np.diag(matrix) / (matrix.sum(0) + 1e-8)
    recall = np.diag(matrix) / (matrix.sum(1) + 1e-8)
    f1 = 2 * precision * recall / (precision + recall + 1e-8)
    weights = matrix.sum(1)[1:] / (matrix.sum(1)[1:].sum() + 1e-8)
    hits = np.diag(matrix)[1:].sum()
    micro = hits / (matrix[:, 1:].sum() + 1e-8), hits / (matrix[1:].sum() + 1e-8)

    golds, predictions, conversations = zip(*rows, strict=True)
    result = metrics.set_scores(metrics.semeval_pair_counts(golds, predictions, conversations), SIX)
    expected = {
        "precision": micro[0],
        "recall": micro[1],
        "f1": 2 * micro[0] * micro[1] / (micro[0] + micro[1] + 1e-8),
        "weighted_precision": (precision[1:] * weights).sum(),
        "weighted_recall": (recall[1:] * weights).sum(),
        "weighted_f1": (f1[1:] * weights).sum(),
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-6)
