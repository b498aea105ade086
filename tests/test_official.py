"""The official reading against the counting that the published scripts do, written down once more from its description.

ECPE: rows with an empty gold are skipped, every `;` piece of an answer is a prediction, a piece is right when the gold
has the same text, the emotion of a piece is what stands between the first `_` and the next `_` or `,`. MER, MSA: an
answer that is not exactly a label is Neutral, Negative.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.readers import ecf, meld
from swift_plugins.scoring.results import group_rows
from swift_plugins.scoring.scores import score_channel
from swift_plugins.tasks import TASKS

EMOTIONS = ("anger", "disgust", "fear", "joy", "sadness", "surprise")


def expected_ecpe(rows: list[tuple[str, str]]) -> dict[str, float]:
    """precision, recall, f1 and weighted_f1 of (gold, answer) texts, 0 where there is nothing to divide."""
    right = predicted = wanted = 0
    table = {emotion: [0, 0, 0] for emotion in EMOTIONS}  # right, predicted, wanted
    for gold, answer in rows:
        if gold == "":
            continue
        golds, answers = gold.split(";"), answer.split(";")
        wanted += len(golds)
        predicted += len(answers)
        for piece in golds:
            table[piece.split(",")[0].split("_")[1]][2] += 1
        for piece in answers:
            emotion = [*piece.split(",")[0].split("_"), ""][1]
            right += piece in golds
            if emotion in table:
                table[emotion][0] += piece in golds
                table[emotion][1] += 1

    def f1(hit: int, tried: int, all_: int) -> float:
        return 2 * hit / (tried + all_) if tried + all_ else 0.0

    support = sum(row[2] for row in table.values())
    return {
        "precision": right / predicted if predicted else 0.0,
        "recall": right / wanted if wanted else 0.0,
        "f1": f1(right, predicted, wanted),
        "weighted_f1": sum(f1(*row) * row[2] for row in table.values()) / support if support else 0.0,
    }


def official(channel: str, rows: list[tuple[str, str]]) -> dict:
    result = [
        {"channel": channel, "labels": gold, "response": answer, "id": str(number)}
        for number, (gold, answer) in enumerate(rows)
    ]
    return score_channel(group_rows(result)[channel])["official"]


@pytest.mark.parametrize(
    ("rows", "figure", "value", "reason"),
    [
        ([("2_joy,1", "2_joy,1"), ("3_joy,2", "3_joy,none")], "f1", 0.5, "an unreadable answer is a prediction"),
        ([("5_joy,2", "5_joy,2;5_neutral,5")], "f1", 2 / 3, "a stray pair costs precision, not the whole answer"),
        ([("5_joy,2", "")], "precision", 0.0, "an empty answer is one prediction"),
        ([("5_joy,2", "5_joy,2;5_joy,2")], "precision", 1.0, "a pair twice is two right predictions"),
        ([("5_joy,2", "5_joy, 2")], "f1", 0.0, "a space makes another text"),
        ([("", "5_joy,2"), ("5_joy,2", "5_joy,2")], "f1", 1.0, "targets without a cause are skipped"),
    ],
)
def test_ecpe_piece_by_piece(rows, figure, value, reason):
    assert official("ecf.ecpe", rows)["paper"][figure] == pytest.approx(value, abs=1e-9), reason


pair = st.builds("{}_{},{}".format, st.integers(0, 6), st.sampled_from(EMOTIONS), st.integers(0, 6))
gold_text = st.lists(pair, max_size=4, unique=True).map(";".join)
piece = st.one_of(
    pair, pair, st.sampled_from(["", "none", "5_neutral,5", "3_joy", "_", "joy", "3_joy,none", " 3_joy,2"])
)
answer = st.one_of(st.lists(piece, max_size=5).map(";".join), st.text(max_size=12))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(gold_text, answer), min_size=1, max_size=12))
def test_ecpe_on_any_mixture(rows):
    figures = official("ecf.ecpe", rows)["paper"]
    for name, value in expected_ecpe(rows).items():
        assert figures[name] == pytest.approx(value, abs=1e-6), name


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(TASKS["mer"].labels["meld"]), st.text(max_size=8)), min_size=1, max_size=12))
def test_mer_unparsed_is_neutral(rows):
    rows = [(f"{gold}.", gold + "." if len(noise) % 2 else noise) for gold, noise in rows]
    labels = {f"{label}." for label in TASKS["mer"].labels["meld"]}
    right = sum((answer if answer in labels else "Neutral.") == gold for gold, answer in rows)
    assert official("meld.mer", rows)["accuracy"] == pytest.approx(right / len(rows))


def test_msa_unparsed_is_negative():
    rows = [("Negative.", "who knows"), ("Positive.", "positive"), ("Positive.", "Positive.")]
    assert official("mosei.msa", rows)["acc2_has0"] == pytest.approx(2 / 3)


def spoil(text: str, draw: random.Random) -> str:
    """An answer with one of the faults that models make, in three of ten."""
    if draw.random() > 0.3:
        return text
    return draw.choice([text + ";5_neutral,5", text.replace("_", " "), "", text + ".", "none", text.upper()])


def test_real_ecf_and_meld(shared):
    """30 % malformed answers on the published annotations: equal to the counting above."""
    draw = random.Random(7)
    targets = [s for s in ecf.read(shared / "ecf2", "train", []) if s.emotion in EMOTIONS]
    golds = [TASKS["ecpe"].target([(s.index, s.emotion, cause) for cause in s.causes or ()], "ecf") for s in targets]
    rows = [(gold, spoil(gold, draw)) for gold in golds]
    figures, wanted = official("ecf.ecpe", rows)["paper"], expected_ecpe(rows)
    assert {name: figures[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)
    emotions = [f"{s.emotion.capitalize()}." for s in meld.read(shared / "meld", "dev", [])]
    answers = [spoil(emotion, draw) for emotion in emotions]
    right = sum((a if a in emotions else "Neutral.") == g for g, a in zip(emotions, answers, strict=True))
    assert official("meld.mer", list(zip(emotions, answers, strict=True)))["accuracy"] == right / len(emotions)
