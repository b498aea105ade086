"""Emotion-LLaMA's figures: MER2023-SEMI as published beside ours, DFEW's UAR and WAR, EMER's two marks by a judge."""

from __future__ import annotations

import random

import pytest
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support, recall_score

from swift_plugins import metrics
from swift_plugins.files import CONFIGS, InputError
from swift_plugins.scoring.judge import first_number, load, read_score
from swift_plugins.tasks import TASKS
from tests.model_server import Asked, ModelServer

SIX = TASKS["mer"].labels["mer2023"]
SEVEN = TASKS["mer"].labels["dfew"]


# The arithmetic


@pytest.mark.parametrize(
    ("golds", "predictions", "precision", "recall", "f1", "reason"),
    [
        ([], [], 0, 0, 0, "nothing to score"),
        (["a", "b"], ["a", "b"], 1, 1, 1, "all right"),
        (["a", "b"], ["b", "a"], 0, 0, 0, "all wrong"),
        (["a", "a", "b", "b"], ["a", "b", "a", "b"], 0.5, 0.5, 0.5, "a tie between the classes"),
        (["a", "a", "a", "b"], ["a", "a", "b", "b"], 0.75 + 0.25 * 0.5, 0.75, 0.75 * 0.8 + 0.25 * 2 / 3, "by support"),
        (["a", "a"], ["a", "b"], 1, 0.5, 2 / 3, "b has no gold: its precision of 0 weighs nothing"),
        (["a", "b"], ["a", "a"], 0.25, 0.5, 1 / 3, "b is never predicted: precision 0, not a crash"),
        (["a", "b"], [None, "b"], 0.5, 0.5, 0.5, "unparsed: a is missed and nothing is predicted"),
    ],
)
def test_weighted_figures(golds, predictions, precision, recall, f1, reason):
    table = metrics.classification(metrics.confusion(golds, predictions), ("a", "b"))["per_class"]
    figures = metrics.weighted(table, len(golds))
    expected = {"weighted_precision": precision, "weighted_recall": recall, "weighted_f1": f1}
    assert figures == pytest.approx(expected), reason


@pytest.mark.parametrize("seed", range(5))
def test_weighted_figures_and_uar_are_scikit_learn_s(seed, score):
    draw = random.Random(seed)
    golds = draw.choices(SIX, weights=(9, 6, 5, 3, 2, 1), k=200)
    answers = [gold if draw.random() < 0.6 else draw.choice(SIX) for gold in golds]
    block, _ = score("mer2023.mer", zip(answers, golds, strict=True))
    precision, recall, f1, _ = precision_recall_fscore_support(golds, answers, average="weighted", zero_division=0)
    expected = {"weighted_precision": precision, "weighted_recall": recall, "weighted_f1": f1, "accuracy": recall}
    assert block["strict"] == block["official"] == pytest.approx(expected)
    golds = [gold if gold in SEVEN else "fear" for gold in golds]
    answers = [answer if answer in SEVEN else "disgust" for answer in answers]
    block, _ = score("dfew.mer", zip(answers, golds, strict=True))
    figures = block["strict"]["uar"], block["strict"]["war"]
    there = recall_score(golds, answers, labels=sorted(set(golds)), average="macro")
    assert figures == pytest.approx((there, sum(map(str.__eq__, golds, answers)) / len(golds)))
    if set(answers) <= set(golds):  # which it warns of, and leaves out as we do
        assert figures[0] == pytest.approx(balanced_accuracy_score(golds, answers))


# MER2023-SEMI


@pytest.mark.parametrize(
    ("response", "strict", "lenient", "official", "reason"),
    [
        ("happy", "happy", "happy", "happy", "the label alone, as the model is trained to write it"),
        (" happy\n", "happy", "happy", "happy", "outer white space, which the script's decoding strips too"),
        ("the person is happy", None, "happy", "happy", "the last word"),
        ("happy the person is", None, "happy", None, "a label that is not last: the script makes it neutral"),
        ("happy.", None, "happy", None, "a full stop makes another word"),
        ("Happy", None, "happy", None, "the script knows lower case only"),
        ("sad but happy", None, None, "happy", "two labels: no answer for us, the last one for the script"),
        ("not happy", None, None, "happy", "a denied label, which the script counts"),
        ("happy\nsad", None, None, None, "the script splits at spaces alone"),
        ("fear", None, None, None, "one of the nine labels of training, none of these six"),
        ("joyful", None, None, None, "a synonym"),
        ("", None, None, None, "empty"),
        (None, None, None, None, "no text"),
    ],
)
def test_mer2023_readings(response, strict, lenient, official, reason):
    task = TASKS["mer"].variant("happy", "mer2023")
    found = (task.strict(response, "mer2023"), task.lenient(response, "mer2023"), task.official(response, "mer2023"))
    assert found == (strict, lenient, official), reason


@pytest.mark.parametrize(
    ("pairs", "strict", "official", "turned", "right", "reason"),
    [
        ([("happy", "happy"), ("sad", "sad")], 1, 1, 0, 0, "all right"),
        ([("happy", "sad"), ("sad", "happy")], 0, 0, 0, 0, "all wrong"),
        ([("fear", "neutral"), ("none", "neutral")], 0, 1, 2, 2, "answers that say nothing are right as neutral"),
        ([("fear", "happy"), ("happy", "happy")], 0.5, 0.5, 1, 0, "and wrong as neutral elsewhere"),
        ([("I feel sad", "sad"), ("sad", "sad")], 0.5, 1, 0, 0, "the last word is read by the script alone"),
    ],
)
def test_mer2023_shows_both(score, pairs, strict, official, turned, right, reason):
    block, said = score("mer2023.mer", pairs)
    assert (block["strict"]["accuracy"], block["official"]["accuracy"]) == (strict, official), reason
    assert block["stand_in"] == {"label": "neutral", "n": turned, "right": right}, reason
    assert f"{turned} answers whose last word is no label count as neutral, {right} of them as right" in said
    assert f"mer2023.mer|protocol:mer2023|reading:strict|n:2|unparsed:{block['unparsed']}|" in said
    assert "mer2023.mer|protocol:mer2023|reading:official(Emotion-LLaMA)|n:2|unparsed:0|" in said


def test_one_figure_by_hand(score):
    """Gold 2 neutral, 1 happy, 1 sad; answers neutral, "?", happy, happy."""
    pairs = [("neutral", "neutral"), ("?", "neutral"), ("happy", "happy"), ("happy", "sad")]
    block, _ = score("mer2023.mer", pairs)
    ours, published = block["strict"], block["official"]
    assert ours["weighted_precision"] == pytest.approx((2 * 1 + 1 * 0.5 + 0) / 4)
    assert ours["weighted_recall"] == ours["accuracy"] == pytest.approx((2 * 0.5 + 1 + 0) / 4)
    assert ours["weighted_f1"] == pytest.approx((2 * 2 / 3 + 2 / 3 + 0) / 4)
    assert published["weighted_f1"] == pytest.approx((2 * 1 + 2 / 3 + 0) / 4)
    assert published["accuracy"] == 0.75


def test_other_datasets_say_what_their_script_made_up(score):
    block, said = score("meld.mer", [("Joy.", "Joy."), ("hm", "Neutral.")])
    assert block["stand_in"] == {"label": "neutral", "n": 1, "right": 1}
    assert "whose last word" not in said


# DFEW


@pytest.mark.parametrize(
    ("pairs", "uar", "war", "absent", "reason"),
    [
        ([(label, label) for label in SEVEN], 1, 1, "", "all right, every class there"),
        ([("sad", label) for label in SEVEN], 1 / 7, 1 / 7, "", "one answer for all: chance"),
        ([("sad", "happy"), ("happy", "sad")], 0, 0, "neutral or angry or surprise or disgust or fear", "all wrong"),
        ([("happy", "happy")] * 3 + [("happy", "fear")], 0.5, 0.75, "disgust", "the rare class weighs as much"),
        ([("happy", "happy"), ("disgust", "sad")], 0.5, 0.5, "disgust", "answered without gold: it costs its row only"),
        ([("happy", "happy"), ("hm", "sad")], 0.5, 0.5, "disgust", "unparsed is wrong, and becomes no class"),
    ],
)
def test_dfew(score, pairs, uar, war, absent, reason):
    block, said = score("dfew.mer", pairs)
    assert (block["strict"]["uar"], block["strict"]["war"]) == pytest.approx((uar, war)), reason
    assert ("no gold answer is" in said) == bool(absent) and absent in said
    assert "official" not in block, "no script for it was published"
    assert f"dfew.mer|protocol:dfew|reading:strict|n:{len(pairs)}|" in said


def test_uar_over_all_seven_is_said(score):
    _, said = score("dfew.mer", [("happy", "happy"), ("sad", "sad")])
    assert "UAR is the mean of 2 recalls; with 0 for a class without gold it would be 28.57 (strict)" in said


def test_dfew_has_its_headlines_intervals_and_page(score, tmp_path):
    pairs = [(label, label) for label in SEVEN] * 5
    block, _ = score("dfew.mer", pairs, "--bootstrap", 20, "--report", tmp_path / "report")
    assert block["intervals"]["strict"] == {"uar": [1, 1], "war": [1, 1], "weighted_f1": [1, 1]}
    assert block["baselines"]["majority"]["uar"] == pytest.approx(1 / 7)
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "<span>UAR</span>" in page and "<span>WAR</span>" in page


# Published figures


def test_published_figures_stand_beside(score, tmp_path):
    block, said = score("mer2023.mer", [("happy", "happy")], "--compare", "emotion-llama", "--report", tmp_path / "r")
    assert block["published"]["figures"]["weighted_f1"] == pytest.approx(0.9036)
    assert "published n 834: NOT the same rows" in said
    for line in (
        "published: arXiv 2406.11161",
        "Emotion-LLaMA, AV: weighted_f1 89.05",
        "Emotion-LLaMA, AVT: weighted_f1 90.36",
        "VAT, AV (second hand): weighted_f1 89.11",
    ):
        assert line in said and line in (tmp_path / "r" / "index.html").read_text(encoding="utf-8")
    _, said = score("dfew.mer", [("happy", "happy")], "--compare", "emotion-llama")
    assert "45.59" in said and "59.37" in said and "published n 2,341" in said
    _, said = score("emer.eri", [("She smiles.", "She is glad.")], "--compare", "emotion-llama")
    assert "emotion-llama: clue_overlap 7.83, label_overlap 6.25" in said
    assert "Valley (second hand): clue_overlap 7.24, label_overlap 5.77" in said


# EMER


@pytest.mark.parametrize(
    ("reply", "mark", "first", "reason"),
    [
        ("7", 7, 7, "the number alone"),
        ("Score: 7/10", 7, 7, "the form that is asked for"),
        ("I would give it 7, for both smile.", None, 7, "a number in a sentence: EMER's reading only"),
        ("On a scale from 1 to 10 this is a 7.", None, 1, "the first number is not the mark: why we do not count so"),
        ("7.5", None, 7.5, "no whole number"),
        ("85", None, None, "out of the scale"),
        ("0", None, None, "below the scale"),
        ("-3", None, None, "below the scale"),
        ("seven", None, None, "no number"),
        ("", None, None, "empty"),
        ("<think>1 or 2?</think>Score: 8", 8, 8, "what was thought is no mark"),
    ],
)
def test_marks(reply, mark, first, reason):
    assert (read_score(reply), first_number(reply)) == (mark, first), reason


class JudgeOf:
    """A judge: lists the words of `EMOTIONS` in a text; marks by how many clues, or emotions, two texts share."""

    EMOTIONS = ("happy", "sad", "worried")

    def __init__(self, clue="Score: 8", overlap=None, listed=None):
        self.clue, self.overlap, self.listed = clue, overlap, listed

    def __call__(self, ask: Asked) -> str:
        if "Text:\n" in ask.text:
            text = ask.text.partition("Text:\n")[2]
            found = [word for word in self.EMOTIONS if word in text]
            return self.listed if self.listed is not None else ", ".join(found) or "none"
        if "two lists" in ask.text:
            gold, response = (ask.text.partition(f"{who}: ")[2].splitlines()[0] for who in ("Reference", "Candidate"))
            return self.overlap or ("Score: 10" if gold == response else "Score: 2")
        return self.clue


PAIRS = [
    ("She looks happy, for she smiles.", "Happy or so: happy, with raised cheeks."),
    ("He is sad.", "He is worried about his keys."),
    ("", "She is sad."),
]


@pytest.mark.parametrize(
    ("judge", "clue", "label", "reasons", "reason"),
    [
        (JudgeOf(), (8, 8, 1), ((10, 2, 1),) * 2, ({}, {}), "equal lists 10, other lists 2, an empty answer 1"),
        (
            JudgeOf(clue="about 8 of 10"),
            (None, 8, 1),
            ((10, 2, 1),) * 2,
            ({"no mark": 2}, {}),
            "a sentence is no mark for us, and the first number for EMER",
        ),
        (JudgeOf(overlap="none"), (8, 8, 1), ((1,), (1,)), ({}, {"no mark": 2}), "no number at all: counted"),
        (JudgeOf(listed=" "), (8, 8, 1), ((1,), (1,)), ({}, {"no list of emotions": 2}), "no list: not asked, counted"),
    ],
)
def test_emer_marks_and_what_is_lost(score, judge, clue, label, reasons, reason):
    with ModelServer(answer=judge, models=("judge-1",)) as server:
        block, said = score("emer.eri", PAIRS, "--judge", server.url, "--judge-model", "judge-1")
        asked = len(server.asks)
        again, _ = score("emer.eri", PAIRS, "--judge", server.url, "--judge-model", "judge-1")
        assert len(server.asks) == asked, "the second run asks nothing"
    found = block["judge"]
    assert again["judge"] == found
    strict = [clue[0]] * 2 + [1] if clue[0] else [1]
    assert found["clue_overlap"] == pytest.approx(sum(strict) / len(strict)), reason
    assert found["clue_overlap_first_number"] == pytest.approx((2 * clue[1] + 1) / 3), reason
    for name, marks in zip(("label_overlap", "label_overlap_first_number"), label, strict=True):
        assert found[name] == pytest.approx(sum(marks) / len(marks)), reason
    for name, lost in zip(("clue_overlap", "label_overlap"), reasons, strict=True):
        assert found[f"{name}_reasons"] == lost and found[f"{name}_not_judged"] == sum(lost.values()), reason
        for why, count in lost.items():
            assert f"{sum(lost.values())} not judged ({count} {why})" in said
    assert found["empty"] == 1 and "1 empty answers count as 1" in said
    assert "gpt-3.5-turbo-16k-0613, is no longer served" in said


def test_a_judge_that_refuses_a_question_is_counted(score):
    """One pair of the two gets no answer: the other's mark stands, and nothing is made up for it."""
    with ModelServer(
        fault=lambda ask: "400" if "keys" in ask.text and "Candidate:" in ask.text else None,
        answer=JudgeOf(),
        models=("judge-1",),
    ) as server:
        block, said = score("emer.eri", PAIRS[:2], "--judge", server.url, "--judge-model", "judge-1")
    assert block["judge"]["clue_overlap"] == 8 and block["judge"]["clue_overlap_reasons"] == {"no answer": 1}
    assert "clue_overlap 8.00, 1 not judged (1 no answer)" in said


def test_a_list_that_is_cut_off_is_none(score):
    with ModelServer(
        fault=lambda ask: "length" if "Text:\n" in ask.text else None, answer=JudgeOf(), models=("judge-1",)
    ) as server:
        block, _ = score("emer.eri", PAIRS[:1], "--judge", server.url, "--judge-model", "judge-1")
    assert block["judge"]["label_overlap"] is None
    assert block["judge"]["label_overlap_reasons"] == {"no list of emotions": 1}


def test_published_marks_stand_beside_and_name_their_judge(score, tmp_path):
    with ModelServer(answer=JudgeOf(), models=("judge-1",)) as server:
        options = ("--judge", server.url, "--judge-model", "judge-1", "--compare", "emotion-llama")
        _, said = score("emer.eri", PAIRS[:2], *options, "--report", tmp_path / "report")
    line = "clue_overlap 8.00, 0 not judged; by the first number of a reply 8.00, 0 without; published 7.83"
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert line in said and line in page and "is no longer served" in page
    assert "published n 100: NOT the same rows" in said


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    {text}", "    {gold}", "prompts: emotions: no field {gold} here; there are text"),
        ("  label_overlap:", "  labels:", "prompts.label_overlap: missing key"),
        ("{gold}", "{gold", "prompts: "),
    ],
)
def test_a_wording_that_cannot_be_asked(tmp_path, old, new, message):
    text = (CONFIGS / "judge.yaml").read_text(encoding="utf-8")
    (tmp_path / "judge.yaml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load(tmp_path / "judge.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)
