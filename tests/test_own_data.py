"""docs/own-data.md, followed word for word on 50 generated clips with five labels in Chinese: no source file edited."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from app.engine import trained_on
from benchmarks.openface_stand_in import install
from data_prep.demo.faces import draw_frame, random_clip
from data_prep.demo.layouts import encode, facs
from swift_plugins.files import read_rows
from tests.conftest import ROOT

TUTORIAL = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```bash\n(.*?)^```$", TUTORIAL, re.M | re.S)
LABELS = {"开心": "joy", "难过": "sadness", "生气": "anger", "惊讶": "surprise", "平静": "neutral"}
PARTS = ("app", "ask.py", "compute_result.py", "configs", "data_prep", "shell", "swift_plugins")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the project with the tutorial's data in raw/mine: 50 clips, ten speakers."""
    folder = tmp_path_factory.mktemp("own") / "project"
    for part in PARTS:
        source, skip = ROOT / part, shutil.ignore_patterns("__pycache__")
        (shutil.copytree if source.is_dir() else shutil.copy)(
            source, *([folder / part] if source.is_dir() else [folder]), **({"ignore": skip} if source.is_dir() else {})
        )
    rng, (aus, _) = random.Random(0), facs()
    clips = folder / "raw" / "mine" / "clips"
    clips.mkdir(parents=True)
    with (clips.parent / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "text", "emotion", "speaker"])
        for number in range(50):
            word, emotion = list(LABELS.items())[number % 5]
            clip = random_clip(rng, "mine", f"c{number:02}.mp4", f"c{number:02}", emotion, 1, aus)
            (clips / clip.path).write_bytes(encode([draw_frame(clip, frame) for frame in range(12)]))
            writer.writerow([clip.name, f"第{number}句话", word, f"speaker{number // 5}"])
    return folder


@pytest.fixture(scope="module")
def bash(checkout):
    """Run some of the tutorial's commands in the copy; training is cut to a few steps."""
    openface = install(checkout.parent / "openface")

    def run(*blocks: str, status: int = 0, **env: str) -> str:
        script = "\n".join(blocks).replace("/opt/OpenFace/build/bin", str(openface))
        script = script.replace("first_stage.sh", "first_stage.sh --max_steps 3")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)} | env
        done = subprocess.run(
            ["bash", "-euc", script], cwd=checkout, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return run


def test_the_tutorial_has_the_steps_that_are_run():
    assert [next(iter(re.findall(r"(?:data_prep\.)?(\w+)(?:\.sh|\.py)?", block.split()[2]))) for block in COMMANDS]
    assert len(COMMANDS) == 6


@pytest.mark.swift
def test_the_tutorial_from_a_table_to_scores(checkout, bash):
    declare, rows, faces, train, score, labels = COMMANDS
    before = {path: path.read_bytes() for path in (checkout / "swift_plugins").rglob("*.py")}
    printed = bash(declare)
    assert "50 of 50 clips are there" in printed
    told = yaml.safe_load(re.search(r"^```yaml\n(.*?)^```$", TUTORIAL, re.M | re.S)[1])
    written = yaml.safe_load((checkout / "configs" / "datasets" / "mine.yaml").read_text(encoding="utf-8"))
    assert written == told, "what the tutorial shows is what the command writes"

    assert "own data" in bash(rows)
    assert "50 records" in bash(faces)
    amt = checkout / "output" / "mine" / "amt"
    built = {
        split: [row for _, row in read_rows(amt / f"mine.mer.{split}.jsonl")] for split in ("train", "dev", "test")
    }
    assert {split: len(part) for split, part in built.items()} == {"train": 35, "dev": 5, "test": 10}
    assert {row["response"] for part in built.values() for row in part} == {f"{label}." for label in LABELS}
    assert sum(1 for _ in read_rows(amt / "mine.fer.train.jsonl")) > 10

    # The same rows with a system turn of one's own, which training and inference are to see.
    (checkout / "own.yaml").write_text("system: 你是情绪专家。\n", encoding="utf-8")
    bash("\n".join(rows.splitlines()[1:]).replace("--out", "--prompts own.yaml --out"))
    assert all("专家" not in path.read_text(encoding="utf-8") for path in amt.glob("*.*.*.jsonl"))

    printed = bash("exec 2>&1", train, VERBOSE="1")
    for part in printed.split("default_system: ")[1:]:  # of training and of inference, from the checkpoint's arguments
        assert part.startswith("'你是情绪专家。'")
    (arguments,) = (checkout / "output" / "mine" / "stage1").glob("checkpoint-*/args.json")
    assert json.loads(arguments.read_text(encoding="utf-8"))["system"] == "你是情绪专家。"
    assert trained_on(arguments.parent) == ["mine"], "what ask.py takes its words from"
    answered = [row for _, row in read_rows(checkout / "output" / "mine" / "stage1.test.jsonl")]
    assert {(row["messages"][0]["role"], row["messages"][0]["content"]) for row in answered} == {
        ("system", "你是情绪专家。")
    }
    assert printed.count("default_system: ") >= 2
    assert "mine.mer: n 10" in printed and "mine.fer: n" in printed
    scores = json.loads((checkout / "output" / "mine" / "stage1.test.scores.json").read_text(encoding="utf-8"))
    assert set(scores["mine.mer"]["per_class"]["strict"]) == set(LABELS)
    assert "official" not in scores["mine.mer"], "no published script knows these labels"
    assert "95 % (strict)" in bash(score.splitlines()[0])
    asked = bash(score.splitlines()[1])
    assert all(f"{label} " in asked for label in LABELS) and "mine.mer" in asked

    # Rows of somebody else: no channel, no id, no full stop.
    answers = [("开心", "开心"), ("难过", "我觉得是难过。"), ("生气", "他不生气"), ("平静", "惊讶")]
    lines = [
        {"response": r, "labels": g, "messages": [{"role": "user", "content": f"{i}?"}]}
        for i, (g, r) in enumerate(answers)
    ]
    result = checkout / "output" / "mine" / "result.jsonl"
    result.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    printed = bash(labels)
    assert "mine.mer: n 4, unparsed 2 strict, 1 lenient" in printed
    assert before == {path: path.read_bytes() for path in (checkout / "swift_plugins").rglob("*.py")}
