"""SIGKILL at random points of the commands that take long: run again, they end with the bytes of a run left alone.

`EMOVERSE_KILLS=20` kills each of them twenty times. Training: tests/test_training.py; OpenFace: tests/test_fer.py.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model_server import ModelServer

ROOT = Path(__file__).resolve().parents[1]
KILLS = int(os.environ.get("EMOVERSE_KILLS", 1))
# What is told by no other run: times, names of processes.
OWN = {"journal.jsonl", "lock", "report.json"}


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that a run leaves, hidden files too, but for `OWN` and the journals of single processes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in OWN)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if ".fer/done" not in str(path)}


def start(command: list, out: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command), "--out", str(out)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def killed_and_run_again(command: list, folder: Path, again: tuple = ()) -> tuple[dict, dict]:
    """(what a run left alone leaves, what one does that follows on `KILLS` that were killed).

    While it is killed, a file has its name only when it is whole.
    """
    started = time.monotonic()
    process = start(command, folder / "whole")
    assert process.wait(300) == 0, process.stderr.read()[-2000:]
    seconds, expected, moments = time.monotonic() - started, contents(folder / "whole"), random.Random(5)
    for _ in range(KILLS):
        process = start([*command, *again], folder / "out")
        try:
            process.wait(moments.uniform(0.2, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        there = contents(folder / "out") if (folder / "out").is_dir() else {}
        half = [name for name, data in there.items() if "/." not in f"/{name}" and data != expected.get(name)]
        assert not half or (again and set(half) <= {"fer.jsonl", "eri.jsonl", "rejected.jsonl", "review.csv"})
    last = start([*command, *again], folder / "out")
    assert last.wait(300) == 0, last.stderr.read()[-2000:]
    return expected, contents(folder / "out")


@pytest.fixture(scope="module")
def rows(world, project, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("rows")
    sources = ("--mosei", world / "mosei", "--split", "train", "--missing-media", "text-only")
    assert project("-m", "data_prep.build_amt", *sources, "--out", out).returncode == 0
    return out / "mosei.mer.train.jsonl"


@pytest.mark.slow
def test_the_builder(world, tmp_path):
    sources = [part for name in ("meld", "mosei", "ecf") for part in (f"--{name}", world / name)]
    expected, found = killed_and_run_again(["data_prep.build_amt", *sources, "--split", "train"], tmp_path)
    assert found == expected and "report.train.json" in found


@pytest.mark.slow
def test_faces(world, tmp_path):
    mosei = world / "mosei"
    command = ["data_prep.fer", "--dataset", "mosei", "--root", mosei, "--csv", mosei / "openface", "--jobs", "1"]
    expected, found = killed_and_run_again([*command, "--split", "test"], tmp_path, ("--resume",))
    assert found == expected and "fer.jsonl" in found


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(delay=0.05) as running:
        yield running


@pytest.mark.slow
def test_reasons(world, rows, server, tmp_path):
    command = ["data_prep.eri", "--rows", rows, "--media-root", world / "mosei", "--concurrency", "2"]
    command += [
        "--clue-url",
        server.url,
        "--clue-model",
        "seer",
        "--reason-url",
        server.url,
        "--reason-model",
        "thinker",
    ]
    expected, found = killed_and_run_again(command, tmp_path, ("--resume",))
    assert found == expected and "eri.jsonl" in found
    keys = [json.loads(line)["key"] for line in (tmp_path / "out" / "journal.jsonl").read_text().splitlines()]
    assert len(set(keys)) == len(keys)


@pytest.mark.slow
def test_the_demo_data(tmp_path):
    """Its folder appears when everything is in it: there is nothing to go on with, and nothing in the way."""
    command = ["data_prep.demo", "--size", "tiny"]
    whole = start(command, tmp_path / "whole")
    started = time.monotonic()
    assert whole.wait(120) == 0
    seconds = time.monotonic() - started
    for moment in random.Random(6).choices([0.3, 0.5, 0.7, 0.9], k=KILLS):
        process = start(command, tmp_path / "out")
        time.sleep(moment * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if (tmp_path / "out").exists():  # it was done
            assert contents(tmp_path / "out") == contents(tmp_path / "whole")
            (tmp_path / "out").rename(tmp_path / f"done.{time.monotonic()}")
    last = start(command, tmp_path / "out")
    assert last.wait(120) == 0, last.stderr.read()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
