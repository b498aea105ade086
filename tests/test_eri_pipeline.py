"""ERI data from a model that ms-swift serves, and both stages trained on rows that the pipeline made."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.model_server import ModelServer
from tests.warm_swift import Run, swift

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "configs" / "demo" / "checkpoint"
PLUGIN = ROOT / "swift_plugins" / "emoverse.py"


@pytest.fixture(scope="module")
def rows(world, project, tmp_path_factory) -> Path:
    """mosei.mer rows of the synthetic dataset's clips, and the same with MELD and ECF for the stages."""
    out = tmp_path_factory.mktemp("rows")
    sources = ("--mosei", world / "mosei", "--meld", world / "meld", "--ecf", world / "ecf")
    done = project("-m", "data_prep.build_amt", *sources, "--split", "train", "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def deployed(tmp_path_factory) -> Iterator[str]:
    """`swift deploy` of the demo checkpoint; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = {
        "model": MODEL,
        "model_type": "emoverse",
        "torch_dtype": "float32",
        "external_plugins": PLUGIN,
        "infer_backend": "transformers",
        "max_new_tokens": 32,
        "served_model_name": "demo",
        "host": "127.0.0.1",
        "port": port,
    }
    given = (str(part) for key, value in flags.items() for part in (f"--{key}", value))
    server = Run("deploy", *given, cwd=tmp_path_factory.mktemp("deploy"))
    try:
        for _ in range(240):
            time.sleep(0.5)
            assert server.running(), server.ended()[1][-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                continue
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make(project, rows: Path, media: Path, out: Path, clue: tuple, reason: tuple, *more: object):
    return project(
        *("-m", "data_prep.eri", "--rows", rows / "mosei.mer.train.jsonl", "--media-root", media, "--out", out),
        *("--clue-url", clue[0], "--clue-model", clue[1], "--reason-url", reason[0], "--reason-model", reason[1]),
        *("--concurrency", "4", *more),
    )


@pytest.mark.swift
def test_clues_from_a_served_model(project, world, rows, deployed, tmp_path):
    """Real server, real client, real clips. The demo model was never taught to describe: its answers break rules."""
    done = make(project, rows, world, tmp_path / "out", (deployed, "demo"), (deployed, "demo"))
    assert done.returncode == 0, done.stderr
    journal = records(tmp_path / "out" / "journal.jsonl")
    clips = {row["id"] for row in records(rows / "mosei.mer.train.jsonl")}
    assert {line["about"]["id"] for line in journal if line["server"] == "clue"} == clips
    assert all(line["tokens"][0] > 100 for line in journal), "prompt and pictures were counted by the server"
    made, aside = (records(tmp_path / "out" / name) for name in ("eri.jsonl", "rejected.jsonl"))
    assert {record["id"] for record in made + aside} == clips and len(made) + len(aside) == len(clips)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["servers"]["clue"]["failures"] == {}
    assert sum(report["rejected_by_rule"].values()) == len(aside)
    again = make(project, rows, world, tmp_path / "out", (deployed, "demo"), (deployed, "demo"), "--resume")
    assert again.returncode == 0 and records(tmp_path / "out" / "journal.jsonl") == journal, "nothing is asked twice"


@pytest.mark.swift
def test_reasons_from_a_served_model(project, world, rows, deployed, tmp_path):
    """Clues from a scripted server, reasons from the served one, under rules that the demo model can keep."""
    config = yaml.safe_load((ROOT / "configs" / "eri.yaml").read_text(encoding="utf-8"))
    config["quality"]["words"]["reason"] = [1, 200]
    config["quality"]["language"]["least_function_words"] = 0.0
    config["quality"]["near_duplicate"]["most_similar"] = 1.0
    (tmp_path / "eri.yaml").write_text(yaml.safe_dump(config))
    with ModelServer() as seer:
        clue, reason = (seer.url, "seer"), (deployed, "demo")
        done = make(project, rows, world, tmp_path / "out", clue, reason, "--config", tmp_path / "eri.yaml")
    assert done.returncode == 0, done.stderr
    made, aside = (records(tmp_path / "out" / name) for name in ("eri.jsonl", "rejected.jsonl"))
    assert made, "no reason was accepted"
    assert all(record["rejected"]["pass"] == "reason" for record in aside)
    texts = {
        line["about"]["id"]: " ".join(line["text"].split())
        for line in records(tmp_path / "out" / "journal.jsonl")
        if line["server"] == "reason"
    }
    assert all(record["reason"] == texts[record["id"]] for record in made), "the last answer is the accepted one"


@pytest.mark.swift
def test_rows_of_the_pipeline_are_trained_on(project, world, rows, tmp_path):
    """A scripted model writes the reasons; the builder, the mixture and the training take them."""
    with ModelServer() as server:
        done = make(project, rows, world, tmp_path / "made", (server.url, "seer"), (server.url, "thinker"))
    assert done.returncode == 0, done.stderr
    made = {record["id"]: record["reason"] for record in records(tmp_path / "made" / "eri.jsonl")}
    fer = tmp_path / "fer"
    done = project(
        *("-m", "data_prep.fer", "--dataset", "mosei", "--root", world / "mosei", "--split", "train", "--jobs", "1"),
        *("--csv", world / "mosei" / "openface", "--out", fer),
    )
    assert done.returncode == 0, done.stderr
    done = project(
        *("-m", "data_prep.build_amt", "--split", "train", "--out", tmp_path / "amt"),
        *("--mosei", world / "mosei", "--meld", world / "meld", "--ecf", world / "ecf"),
        *("--fer", fer / "fer.jsonl", "--eri", tmp_path / "made" / "eri.jsonl"),
    )
    assert done.returncode == 0, done.stderr
    eri = {row["id"]: row["response"] for row in records(tmp_path / "amt" / "mosei.eri.train.jsonl")}
    assert eri == made

    def part(weight: int, source: str) -> dict:
        return {"weight": weight, "sources": [source]}

    tasks = {"mer": part(3, "meld.mer"), "eri": part(3, "mosei.eri"), "ecpe": part(3, "ecf.ecpe")}
    stages = {"stage1": {"size": 20, "tasks": tasks | {"msa": part(1, "mosei.msa")}}}
    (tmp_path / "mixtures.yaml").write_text(yaml.safe_dump({"stages": stages}))
    flags = ["--model", MODEL, "--dataset", "amt:stage1", "--output_dir", "out", "--external_plugins", PLUGIN]
    flags += ["--num_train_epochs", "1", "--logging_steps", "1"]
    settings = {"AMT_DATA": tmp_path / "amt", "AMT_MIXTURES": tmp_path / "mixtures.yaml"}
    swift("sft", ROOT / "configs" / "demo" / "stage1.yaml", *flags, cwd=tmp_path, **settings)
    assert list((tmp_path / "out").glob("checkpoint-*/adapter_model.safetensors"))
    log = records(tmp_path / "out" / "logging.jsonl")
    assert any("loss_mosei.eri" in entry for entry in log), "the made reasons were trained on"
