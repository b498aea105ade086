"""`swift eval --eval_dataset amt`: the requests are the rows of `swift infer`, the figures those of the scorer."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from swift.template import Template
from swift.template.template_inputs import TemplateInputs

from swift_plugins.dataset import parts
from swift_plugins.scoring.scores import flatten
from tests.conftest import ROOT, free_port, in_process
from tests.tiny_amt import ROWS, tiny_amt
from tests.warm_swift import swift

DEMO = ROOT / "configs" / "demo"
EVALSCOPE = importlib.util.find_spec("evalscope")


def prompt(inputs: dict) -> tuple:
    """Text and media as a template of ms-swift gets them."""
    read = TemplateInputs.from_dict(inputs).chosen
    Template._add_default_tags(read)
    return read.messages[0]["content"], read.images, read.videos


@pytest.mark.swift
@pytest.mark.parametrize(
    ("query", "media"),
    [
        ("Why?", {}),
        ("Why?", {"images": ["a.png", "b.png"]}),
        ("Why?", {"images": ["a.png"], "videos": ["a.mp4", "b.mp4"]}),
        ("First <video> then <video>: image or video?", {"videos": ["a.mp4", "b.mp4"]}),
        ("Then <image> this", {"images": ["a.png", "b.png"], "videos": None}),
        ("<image>image<image>", {"images": ["a.png"]}),
    ],
)
def test_a_request_is_the_prompt_of_its_row(query, media):
    given = {key: value for key, value in media.items() if value}
    row = prompt({"messages": [{"role": "user", "content": query}], **given})
    content = [{"type": kind, kind: value} for kind, value in parts({"query": query, **media})]
    assert prompt({"messages": [{"role": "user", "content": content}]}) == row


@pytest.mark.swift
@pytest.mark.skipif(not EVALSCOPE, reason="evalscope is not installed (docs/swift-eval.md)")
def test_answers_and_figures_are_those_of_infer(tmp_path):
    data = tiny_amt(tmp_path / "amt")
    model = ["--model", DEMO / "checkpoint", "--model_type", "emoverse"]
    model += ["--external_plugins", ROOT / "swift_plugins" / "emoverse.py"]
    world = {"AMT_DATA": data, "AMT_MEDIA": data, "HOME": tmp_path, "OMP_NUM_THREADS": "1"}
    result = tmp_path / "result.jsonl"
    swift("infer", DEMO / "infer.yaml", *model, "--result_path", result, cwd=tmp_path, **world)
    command = [sys.executable, "-m", "swift.cli.main", "eval", DEMO / "infer.yaml", *model, "--eval_dataset", "amt"]
    command += ["--host", "127.0.0.1", "--port", free_port(), "--eval_generation_config", '{"max_tokens": 64}']
    environment = os.environ | {key: str(value) for key, value in world.items()}
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    (report,) = tmp_path.glob("eval_output/native/*/reports/*/amt.json")
    answers = report.with_suffix(".jsonl")
    ours, theirs = (
        {(row["channel"], row["id"]): row["response"] for row in map(json.loads, path.open())}
        for path in (result, answers)
    )
    assert ours == theirs and len(ours) == 2 * len(ROWS) and len(set(ours.values())) > 3
    scored = in_process(ROOT / "compute_result.py", answers, "--json", tmp_path / "scores.json")
    assert scored.returncode == 0, scored.stderr
    figures = {metric["name"]: metric["score"] for metric in json.loads(report.read_text())["metrics"]}
    for name, block in json.loads((tmp_path / "scores.json").read_text()).items():
        for metric, value in flatten(block["strict"]).items():
            assert value is None or figures[f"{name}_{metric.replace(' ', '_')}"] == pytest.approx(value, abs=1e-4)
