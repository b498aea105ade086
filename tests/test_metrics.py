"""Metrics: one table of tiny cases per metric, empty ones included, each with its reason."""

import math
import random

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import balanced_accuracy_score, f1_score

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
