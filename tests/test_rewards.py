"""Rewards and the eval metric: tables of small cases, then real ms-swift processes on the demo checkpoint."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_plugins.files import InputError
from swift_plugins.rewards import REWARDS, AmtMetrics, channel_metrics, register
from swift_plugins.tasks import TASKS
from tests.tiny_amt import tiny_amt
from tests.warm_swift import swift

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "configs" / "demo" / "checkpoint"


OF_MMEVERSE = ("mafw.mlmer", "mc_eiu.intent", "ov_merd.ov", "mafw.think")


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
        ("mafw.mlmer", "anger; fear", "Fear", 2 / 3, 0, None, None, "one label of two"),
        ("mafw.mlmer", "anger; fear", "fear; anger", 1, 1, None, None, "in any order"),
        ("mc_eiu.intent", "wishing", "Wishing.", 1, 0, None, None, "the label"),
        ("ov_merd.ov", "angry", "furious, enraged", 1, 1, None, None, "other words of the same emotion"),
        ("ov_merd.ov", "angry", "furious, sad", 2 / 3, 1, None, None, "one of the two emotions"),
        ("ov_merd.ov", "angry", "No idea.", 0, 0, None, None, "unparsed"),
        ("ov_merd.ov", "neutral", "calm", None, 1, None, None, "no wheel knows neutral: nothing to reward"),
        ("mafw.think", "<think>a</think><answer>fear</answer>", "fear", 1, 0, None, None, "without a thought"),
        ("mafw.think", "<think>a</think><answer>fear</answer>", "<think>fear", 0, 0, None, None, "cut off"),
        (
            "bold.think.multi",
            "<think>a</think><answer>Fear; Pain</answer>",
            "<think>b</think><answer>Fear</answer>",
            2 / 3,
            1,
            None,
            None,
            "one label of two",
        ),
        ("mafw.audio", "A low voice.", "A deep voice.", None, 1, None, None, "other words are not wrong"),
    ],
)
def test_rewards(channel, solution, completion, answer, form, pairs, aus, reason):
    expected = {"amt_answer": answer, "amt_format": form, "amt_pairs": pairs, "amt_aus": aus}
    for name, value in expected.items():
        assert REWARDS[name](completion, channel, solution) == (None if value is None else pytest.approx(value)), reason


@settings(deadline=None)
@given(st.text(), st.sampled_from(["meld.mer", "mosei.msa", "mosei.fer", "mosei.eri", "ecf.ecpe", *OF_MMEVERSE]))
def test_rewards_of_any_text_are_within_bounds(text, channel):
    gold = {"mer": "joy", "msa": "positive", "fer": ("cheeks raised",), "eri": "happy", "ecpe": ((1, "joy", 1),)}
    gold |= {"mlmer": ("anger", "fear"), "intent": "wishing", "ov": ("tired", "sad"), "think": ("why", "anger")}
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
    assert figures["amt"] == pytest.approx((1 + figures["meld.mer_weighted_f1"]) / 2)
    assert all(math.isfinite(value) for value in figures.values())
    json.dumps(figures)


def logged(command, *arguments, data, out):
    """Run ms-swift on the demo checkpoint; returns the log lines that it wrote as JSON."""
    options = ["--model", CHECKPOINT, "--output_dir", out, "--external_plugins", ROOT / "swift_plugins" / "emoverse.py"]
    swift(command, *arguments, *options, cwd=out.parent, AMT_DATA=data, AMT_MEDIA=data)
    return [json.loads(text) for text in (out / "logging.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def amt(tmp_path_factory):
    return tiny_amt(tmp_path_factory.mktemp("rewards") / "amt")


@pytest.mark.swift
def test_two_grpo_steps(amt, tmp_path):
    datasets = ["--dataset", "amt:mosei.msa#4", "amt:meld.mer#4", "amt:mosei.fer#4", "amt:ecf.ecpe#4"]
    datasets += ["--per_device_train_batch_size", "8"]
    log = logged("rlhf", ROOT / "configs" / "demo" / "grpo.yaml", *datasets, data=amt, out=tmp_path / "out")
    steps = [entry for entry in log if "reward" in entry]
    assert len(steps) == 2
    for entry in steps:  # amt_pairs and amt_aus are absent from a step in which no row is theirs
        means = [entry[f"rewards/{name}/mean"] for name in REWARDS if f"rewards/{name}/mean" in entry]
        assert len(means) >= 2 and all(0 <= mean <= 1 for mean in means)


@pytest.mark.swift
def test_eval_metric_of_generated_answers(amt, tmp_path):
    """Beside rows of another dataset, which name no channel: no figures of theirs, and a loss of their own."""
    own = tmp_path / "own.jsonl"
    chat = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]
    own.write_text(json.dumps({"messages": chat}) + "\n")
    options = ["--dataset", "amt:mosei.msa#7", own, "--val_dataset", "amt:test", own]
    options += ["--max_steps", "1", "--eval_strategy", "steps"]
    options += ["--eval_steps", "1", "--save_strategy", "no", "--report_to", "none", "--eval_metric", "amt"]
    options += ["--per_device_eval_batch_size", "4", "--predict_with_generate", "true", "--max_new_tokens", "4"]
    log = logged("sft", ROOT / "configs" / "demo" / "stage1.yaml", *options, data=amt, out=tmp_path / "out")
    figures = next(entry for entry in log if "eval_amt" in entry)
    for name in ("eval_meld.mer_accuracy", "eval_mosei.msa_acc2_has0", "eval_ecf.ecpe_paper_f1", "eval_mosei.fer_f1"):
        assert 0 <= figures[name] <= 1
    assert 0 <= figures["eval_meld.mer_unparsed"] <= 1
    assert log[-1]["best_metric"] == figures["eval_amt"]
    assert {name for entry in log for name in entry if name.startswith("loss_")} == {"loss_mosei.msa", "loss_other"}


@pytest.mark.slow
@pytest.mark.swift
def test_rows_end_to_end_have_the_figures_of_padded_ones(amt, tmp_path):
    options = ["--dataset", "amt:mosei.msa#4", "--val_dataset", "amt:test", "--max_steps", "1", "--learning_rate", "0"]
    options += ["--eval_strategy", "steps", "--eval_steps", "1", "--save_strategy", "no", "--report_to", "none"]
    options += ["--eval_metric", "amt", "--per_device_eval_batch_size", "3"]
    found = []
    for name, more in (("free", []), ("padded", ["--padding_free", "false", "--attn_impl", "sdpa"])):
        settings = ROOT / "configs" / "demo" / "stage1.yaml"
        log = logged("sft", settings, *options, *more, data=amt, out=tmp_path / name)
        entry = next(entry for entry in log if "eval_amt" in entry)
        found.append({key: value for key, value in entry.items() if "." in key and "loss" not in key})
    assert found[0] == pytest.approx(found[1]) and any(0 < value < 1 for value in found[0].values())


def test_eval_metric_of_teacher_forced_answers():
    """Labels are shifted by one against the predictions, and padded with -100 as ms-swift pads them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    golds, answers = ["Joy.", "Fear.", "Joy."], ["Joy.", "Fear.", "Anger."]
    labels, predictions = np.full((3, 12), -100), np.zeros((3, 12), dtype=int)
    for row, (gold, answer) in enumerate(zip(golds, answers, strict=True)):
        gold, answer = (tokenizer.encode(text, add_special_tokens=False) for text in (gold, answer))
        tokens = (answer + gold[len(answer) :])[: len(gold)]
        labels[row, 5 : 5 + len(gold)] = gold
        predictions[row, 4 : 4 + len(gold)] = tokens
    trainer = SimpleNamespace(
        template=SimpleNamespace(tokenizer=tokenizer, padding_free=False, packing=False),
        eval_dataset=[{"channel": "meld.mer", "messages": [{"role": "user", "content": str(i)}]} for i in range(3)],
    )
    args = SimpleNamespace(predict_with_generate=False, eval_strategy="steps", metric_for_best_model="loss")
    metric = AmtMetrics(args, trainer)
    figures = metric.compute_metrics(SimpleNamespace(predictions=predictions, label_ids=labels))
    assert figures["meld.mer_accuracy"] == pytest.approx(2 / 3)
    trainer.eval_dataset.pop()
    assert metric.compute_metrics(SimpleNamespace(predictions=predictions, label_ids=labels)) == {}
    with pytest.raises(InputError, match="needs --val_dataset amt:dev"):
        AmtMetrics(SimpleNamespace(eval_strategy="no"), trainer)
