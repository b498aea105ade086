"""Rewards and the eval metric: tables of small cases, then real ms-swift processes on the demo checkpoint."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_plugins.rewards import REWARDS, channel_metrics, register
from swift_plugins.tasks import TASKS


@pytest.mark.parametrize(
    ("channel", "solution", "completion", "answer", "form", "pairs", "aus", "reason"),
    [
        ("meld.mer", "Joy.", "Joy.", 1, 1, None, None, "right, in the exact form"),
        ("meld.mer", "Joy.", "joy", 1, 0, None, None, "right, in another form"),
        ("meld.mer", "Joy.", "Anger.", 0, 1, None, None, "wrong, in the exact form"),
        ("meld.mer", "Joy.", "Joy or anger", 0, 0, None, None, "no single label"),
        ("mosei.msa.zero", "Positive.", "Positive.", 1, 1, None, None, "a clip of zero sentiment"),
        ("mosei.fer", "cheeks raised; nose wrinkled", "cheeks raised", 0, 1, None, 2 / 3, "one AU of two"),
        ("mosei.fer", "cheeks raised", "cheeks pushed up under the eyes", 1, 1, None, 1, "another phrase, the same AU"),
        ("mosei.fer", "cheeks raised", "a face", 0, 0, None, 0, "no known phrase"),
        ("mosei.eri", "She is happy.", "He looks happy.", 1, 1, None, None, "the emotion named"),
        ("mosei.eri", "She is happy.", "", 0, 0, None, None, "no text"),
        ("mosei.eri", "She won.", "He won.", None, 1, None, None, "gold names no emotion: nothing to reward"),
        ("ecf.ecpe", "2_joy,1;2_joy,2", "2_joy,2;2_joy,1", 1, 1, 1, None, "the order does not matter"),
        ("ecf.ecpe", "2_joy,1;2_joy,2", "2_joy,2", 0, 1, 2 / 3, None, "one pair of two"),
        ("ecf.ecpe", "2_joy,1", "2_joy,1;2_joy,1", 1, 1, 1, None, "a pair repeated earns nothing"),
        ("ecf.ecpe", "", "", 1, 1, 1, None, "no cause, none predicted"),
        ("ecf.ecpe", "", "2_joy,1", 0, 1, 0, None, "no cause, one predicted"),
        ("ecf.ecpe", "2_joy,1", "because", 0, 0, 0, None, "unparsed"),
    ],
)
def test_rewards(channel, solution, completion, answer, form, pairs, aus, reason):
    expected = {"amt_answer": answer, "amt_format": form, "amt_pairs": pairs, "amt_aus": aus}
    for name, value in expected.items():
        assert REWARDS[name](completion, channel, solution) == (None if value is None else pytest.approx(value)), reason


@given(st.text(), st.sampled_from(["meld.mer", "mosei.msa", "mosei.fer", "mosei.eri", "ecf.ecpe"]))
def test_rewards_of_any_text_are_within_bounds(text, channel):
    gold = {"mer": "joy", "msa": "positive", "fer": ("cheeks raised",), "eri": "happy", "ecpe": ((1, "joy", 1),)}
    dataset, task = channel.split(".")
    solution = TASKS[task].target(gold[task], dataset)
    for reward in REWARDS.values():
        value = reward(text, channel, solution)
        assert value is None or 0 <= value <= 1


def test_ms_swift_finds_them_by_name():
    from swift.metrics import eval_metrics_map
    from swift.rewards import orms

    register()
    assert "amt" in eval_metrics_map
    reward = orms["amt_pairs"]()
    assert type(reward).__name__ == "amt_pairs"  # the name of the curve
    kwargs = {"channel": ["ecf.ecpe", "meld.mer"], "solution": ["1_joy,1", "Joy."], "prompt_id": ["a", "b"]}
    assert reward(["1_joy,1", "Joy."], **kwargs) == [1.0, None]


def test_channel_metrics_are_those_of_compute_result():
    rows = [
        {"response": "Joy.", "labels": "Joy.", "channel": "meld.mer", "messages": []},
        {"response": "joy", "labels": "Joy.", "channel": "meld.mer", "messages": []},
        {"response": "1_joy,1", "labels": "1_joy,1", "channel": "ecf.ecpe", "videos": ["dia1utt1.mp4"]},
        {"response": "Joy.", "labels": "no label", "channel": "meld.mer", "messages": []},
    ]
    figures = channel_metrics(rows)
    assert figures["meld.mer_accuracy"] == figures["meld.mer_unparsed"] == 0.5
    assert figures["ecf.ecpe_paper_f1"] == figures["ecf.ecpe_semeval_f1"] == 1
    assert all(math.isfinite(value) for value in figures.values())
    json.dumps(figures)
