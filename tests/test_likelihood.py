"""`swift infer` and test.sh with labels ranked by likelihood, beside answers that are generated in the same run."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from swift.infer_engine import RequestConfig

import swift_plugins.emoverse  # noqa: F401
from app.engine import DEMO, LocalModel, Question
from swift_plugins import dataset, likelihood
from swift_plugins.answering import AnsweringEngine
from swift_plugins.files import read_rows
from swift_plugins.tasks import TASKS, task_of
from tests.conftest import ROOT, in_process
from tests.tiny_internvl2 import tiny_checkpoint
from tests.warm_swift import swift

pytestmark = pytest.mark.swift
PLUGIN = ROOT / "swift_plugins" / "emoverse.py"


@pytest.fixture(scope="module")
def amt(world, tmp_path_factory) -> Path:
    """Test rows of the smallest dataset: sentiment and emotion, reasons and causes, with clips."""
    out = tmp_path_factory.mktemp("likelihood") / "amt"
    sets = [word for name in ("meld", "mosei", "ecf") for word in (f"--{name}", world / name)]
    done = in_process("-m", "data_prep.build_amt", *sets, "--split", "test", "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def answers(amt: Path, name: str, *flags: object, status: int = 0, **settings: object) -> list[dict] | str:
    """The result rows of `swift infer` on the demo's model; what it said where it was to fail."""
    result = amt.parent / f"{name}.jsonl"
    flags = ("--model", DEMO, "--model_type", "emoverse", *flags, "--external_plugins", PLUGIN)
    config = ROOT / "configs" / "demo" / "infer.yaml"
    settings = {"AMT_DATA": amt, **settings}
    said = swift("infer", config, *flags, "--result_path", result, cwd=amt.parent, status=status, **settings)
    return said if status else [row for _, row in read_rows(result)]


def test_closed_sets_are_ranked_and_the_other_rows_generated_as_ever(amt):
    ranked, generated = (answers(amt, way, AMT_SCORE=way) for way in ("likelihood", "generate"))
    assert [row["id"] for row in ranked] == [row["id"] for row in generated], "in the order of the rows"
    assert [row for row in ranked if "probabilities" not in row] == [
        row for row in generated if row["channel"].split(".")[1] in ("eri", "ecpe")
    ]
    assert all("probabilities" not in row for row in generated) and all("choices" not in row for row in ranked)
    chosen = [row for row in ranked if "probabilities" in row]
    for row in chosen:
        task, name = task_of(row["channel"])
        assert list(row["probabilities"]) == task.classes(name)
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        best = max(row["probabilities"], key=row["probabilities"].__getitem__)
        assert task.strict(row["response"], name) == best and row["messages"][-1]["content"] == row["response"]

    channels = {row["channel"] for row in chosen}
    assert channels == {"meld.mer", "meld.msa", "meld.msa.zero", "mosei.mer", "mosei.msa", "mosei.msa.zero"}
    model = LocalModel(DEMO)
    for row in [next(row for row in chosen if row["channel"] == channel) for channel in sorted(channels)]:
        task, name = task_of(row["channel"])
        media = {key: tuple(map(Path, row[key] or ())) for key in ("images", "videos")}
        alone = model.likelihoods(
            Question(row["messages"][0]["content"], **media), [task.target(label, name) for label in task.classes(name)]
        )
        assert likelihood.shares(alone) == pytest.approx(list(row["probabilities"].values()), abs=1e-4)

    files = [amt.parent / f"{name}.jsonl" for name in ("likelihood", "generate")]
    done = in_process(ROOT / "compute_result.py", files[0], "--json", amt.parent / "scores.json", AMT_DATA=str(amt))
    assert done.returncode == 0, done.stderr
    blocks = json.loads((amt.parent / "scores.json").read_text())
    for name, block in blocks.items():
        closed = name.split(".")[1] in ("mer", "msa")
        assert ("calibration" in block) == ("answers:likelihood" in block["signatures"][0]) == closed
        assert not (closed and block["unparsed"])


@pytest.mark.parametrize(
    "given, told", [(["--score", "guess"], "guess"), (["--score=none"], "none"), (["--score"], "")]
)
def test_a_way_that_the_script_does_not_know(amt, given, told):
    """tests/test_stages.py runs the script with one that it knows."""
    environment = os.environ | {"CONFIG": "demo", "DATA": str(amt), "OUTPUT": "out"}
    command = ["bash", str(ROOT / "shell" / "test.sh"), "--max_new_tokens", "4", *given]
    done = subprocess.run(command, cwd=amt.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == f"error: --score {told} is neither generate nor likelihood\n"


@pytest.mark.parametrize(
    "way, flags, message",
    [
        ("guess", (), "AMT_SCORE=guess is neither generate nor likelihood"),
        ("likelihood", ("--infer_backend", "vllm"), "--infer_backend vllm: answers are ranked by likelihood with"),
        ("likelihood", ("--stream", "true"), "--stream true: answers that are ranked by likelihood are not written"),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_one_line(amt, way, flags, message):
    log = answers(amt, "refused", *flags, status=2, AMT_SCORE=way)
    assert log.splitlines()[-1].startswith(f"error: {message}") and "Traceback" not in log


@pytest.mark.parametrize("size", [-1, 1, 2, 8])  # all, one answer at a time, rows of two labels alone, several rows
def test_probabilities_do_not_depend_on_the_batch(tmp_path_factory, size):
    folder = tiny_checkpoint(tmp_path_factory.mktemp("answers") / "model", "phi3")
    engine = AnsweringEngine(str(folder), model_type="emoverse", torch_dtype=torch.float32, max_batch_size=size)
    labels = {"meld.mer": TASKS["mer"].classes("meld"), "mosei.msa": ["positive", "negative"], "mosei.eri": None}
    rows = [
        {"messages": [{"role": "user", "content": f"How {'very ' * i}?"}], "channel": name, "choices": labels[name]}
        for i in range(3)
        for name in labels
    ]
    found = engine.infer(rows, RequestConfig(max_tokens=2, temperature=0), use_tqdm=False)
    assert [row["probabilities"].keys() if "probabilities" in row else None for row in rows] == [
        None if labels[row["channel"]] is None else dict.fromkeys(labels[row["channel"]]).keys() for row in rows
    ]
    assert all(answer.usage.completion_tokens == 2 * (i % 3 == 2) for i, answer in enumerate(found))
    engine.template.set_mode("train")
    for row in rows:
        if labels[row["channel"]]:
            task, name = task_of(row["channel"])
            targets = [task.target(label, name) for label in labels[row["channel"]]]
            alone = likelihood.log_likelihoods(
                engine.model, engine.template, likelihood.prepare(engine.template, [row], targets)
            )
            assert likelihood.shares(alone[0]) == pytest.approx(list(row["probabilities"].values()), abs=1e-4)


@pytest.mark.parametrize(
    "channel, response, expected",
    [
        ("mosei.msa", "Positive.", ["positive", "negative"]),
        ("mosei.msa.zero", "Positive.", ["positive", "negative"]),
        ("mosei.msa", "1.4", None),  # build_amt --msa score asks for a number
        ("meld.msa.three", "Neutral.", ["positive", "neutral", "negative"]),
        ("dfew.mer", "happy", ["happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"]),
        ("mosei.fer", "cheek raiser", None),
        ("ecf.ecpe", "1_joy,1", None),
    ],
)
def test_which_rows_choose_from_a_set(channel, response, expected):
    assert dataset.choices({"channel": channel, "response": response}) == expected


def test_several_labels_are_no_choice_and_every_choice_is_a_target():
    for task in TASKS.values():
        for name in task.labels:
            choices = task.choices(name)
            assert [task.strict(task.target(label, name), name) for label in choices] == choices
    assert TASKS["mlmer"].labels and not any(TASKS["mlmer"].choices(name) for name in TASKS["mlmer"].labels)
    assert TASKS["intent"].choices(next(iter(TASKS["intent"].labels)))
