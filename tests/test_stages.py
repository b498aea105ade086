"""Both stages, inference and scores, on the smallest synthetic dataset and the demo checkpoint."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.warm_swift import swift

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "configs" / "demo" / "checkpoint"
PLUGIN = ROOT / "swift_plugins" / "emoverse.py"

# The ratios of the paper at the size of the smallest dataset.
MIXTURES = {
    "stages": {
        "stage1": {
            "size": 20,
            "tasks": {
                task: {"weight": w, "sources": [f"mosei.{task}"]} for task, w in (("msa", 6), ("fer", 3), ("mer", 1))
            },
        },
        "stage2": {
            "size": 20,
            "after": ["stage1"],
            "tasks": {
                "mer": {"weight": 3, "sources": ["meld.mer"]},
                "eri": {"weight": 3, "sources": ["mosei.eri"]},
                "ecpe": {"weight": 3, "sources": ["ecf.ecpe"]},
                "msa": {"weight": 1, "sources": ["mosei.msa"]},
            },
        },
    }
}


def script(name: str, *flags: str, cwd: Path, **env: object) -> subprocess.CompletedProcess:
    """Run shell/NAME from `cwd`, which is not the project."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CONFIG": "demo"} | {k: str(v) for k, v in env.items()}
    for key in ("AMT_DATA", "AMT_MEDIA"):
        environment.pop(key, None)
    command = ["bash", str(ROOT / "shell" / name), *flags]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def amt(world, project, tmp_path_factory) -> Path:
    """AMT rows of the smallest dataset, FER from its Action Units; media relative to its folder."""
    work = tmp_path_factory.mktemp("stages")
    fer, out = work / "fer", work / "amt"
    done = project(
        *(
            "-m",
            "data_prep.fer",
            "--dataset",
            "mosei",
            "--root",
            world / "mosei",
            "--csv",
            world / "mosei" / "openface",
        ),
        *("--out", fer, "--split", "train", "test", "--jobs", "1"),
    )
    assert done.returncode == 0, done.stderr
    for split in ("train", "test"):
        done = project(
            *(
                "-m",
                "data_prep.build_amt",
                "--meld",
                world / "meld",
                "--mosei",
                world / "mosei",
                "--ecf",
                world / "ecf",
            ),
            *("--fer", fer / "fer.jsonl", "--split", split, "--out", out),
        )
        assert done.returncode == 0, done.stderr
    (work / "mixtures.yaml").write_text(yaml.safe_dump(MIXTURES, sort_keys=False))
    return out


@pytest.fixture(scope="module")
def run(amt) -> dict:
    """What the scripts take from the environment; the data folder is given relative to the working directory."""
    work = amt.parent
    return {"cwd": work, "MODEL": MODEL, "DATA": "amt", "OUTPUT": "out", "AMT_MIXTURES": work / "mixtures.yaml"}


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "logging.jsonl").read_text().splitlines()]


@pytest.mark.swift
def test_both_stages_inference_and_scores(run):
    work = run["cwd"]
    flags = ["--model", MODEL, "--dataset", "amt:stage1", "--output_dir", "out/stage1", "--external_plugins", PLUGIN]
    flags += ["--num_train_epochs", "1", "--logging_steps", "1"]  # test_training.py runs shell/first_stage.sh
    settings = {"AMT_DATA": "amt", "AMT_MIXTURES": run["AMT_MIXTURES"]}
    swift("sft", ROOT / "configs" / "demo" / "stage1.yaml", *flags, cwd=work, **settings)
    losses = {key for entry in log(work / "out" / "stage1") for key in entry if key.startswith("loss_")}
    assert {"loss_mosei.msa", "loss_mosei.fer"} <= losses

    second = script("second_stage.sh", "--num_train_epochs", "1", "--logging_steps", "1", **run)
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    assert second.stdout.index("mosei.eri") < second.stdout.index("loss_mosei.eri"), "the plan comes first"
    losses = {key for entry in log(work / "out" / "stage2") for key in entry if key.startswith("loss_")}
    assert {"loss_meld.mer", "loss_mosei.eri", "loss_ecf.ecpe", "loss_mosei.msa"} <= losses
    for stage in ("stage1", "stage2"):
        (weights,) = (work / "out" / stage).glob("checkpoint-*/adapter_model.safetensors")
        assert weights.stat().st_size > 10_000

    tested = script("test.sh", "--max_new_tokens", "4", **run, NPROC_PER_NODE=2)
    assert "one process answers all rows" in tested.stderr  # two on a CPU would answer half of them
    assert tested.returncode == 0, tested.stdout[-3000:] + tested.stderr[-3000:]
    rows = [json.loads(line) for line in (work / "out" / "stage2.test.jsonl").read_text().splitlines()]
    expected = [line for path in sorted((work / "amt").glob("*.test.jsonl")) for line in path.read_text().splitlines()]
    assert len(rows) == len(expected), "every test row of every channel, once"
    assert sorted((r["id"], r["channel"]) for r in rows) == sorted(
        (row["id"], row["channel"]) for row in map(json.loads, expected)
    )
    assert sorted(r["channel"] for r in rows) == sorted(json.loads(line)["channel"] for line in expected)
    assert sorted(r["labels"] for r in rows) == sorted(json.loads(line)["response"] for line in expected)
    scores = json.loads((work / "out" / "stage2.test.scores.json").read_text())
    assert {"meld.mer", "meld.msa", "mosei.msa", "mosei.mer", "mosei.fer", "mosei.eri", "ecf.ecpe"} <= scores.keys()
    assert "ecf.ecpe: n 13" in tested.stdout

    (work / "out" / "cut.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:-3]))
    scorer = [sys.executable, ROOT / "compute_result.py", work / "out" / "cut.jsonl", "--require-all"]
    cut = subprocess.run(scorer, env=os.environ | {"AMT_DATA": str(work / "amt")}, capture_output=True, text=True)
    assert cut.returncode == 2 and "INCOMPLETE" in cut.stderr

    flags = ["--score", "likelihood", "--val_dataset", "amt:mosei.msa.test"]
    ranked = script("test.sh", *flags, **run, RESULT="out/ranked.jsonl")
    assert ranked.returncode == 0, ranked.stdout[-3000:] + ranked.stderr[-3000:]
    assert "mosei.msa: n 12 " in ranked.stdout and "unparsed 0 strict" in ranked.stdout
    assert "labels ranked by likelihood, n 12: ECE (15 bins) " in ranked.stdout

    again = script("test.sh", **run)
    assert again.returncode == 2 and "would append" in again.stderr
    again = script("second_stage.sh", **run)
    assert again.returncode == 2 and "holds checkpoints already" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("second_stage.sh", {"OUTPUT": "empty"}, "empty/stage1 holds no checkpoint; run shell/first_stage.sh first"),
        ("test.sh", {"OUTPUT": "empty"}, "holds no checkpoint; train first"),
        ("first_stage.sh", {"MODEL": "nowhere", "OUTPUT": "empty"}, "MODEL=nowhere: holds no config.json"),
        ("first_stage.sh", {"DATA": "nowhere", "OUTPUT": "empty"}, "DATA=nowhere: no such folder"),
        ("first_stage.sh", {"CONFIG": "nowhere"}, "CONFIG=nowhere is neither"),
        ("first_stage.sh", {"SIZE": "1000", "OUTPUT": "empty"}, "stage1 is too scarce: msa wants 600 rows and has 24"),
        ("first_stage.sh", {"MIXTURE": "stage9", "OUTPUT": "empty"}, "has no stage stage9; there are stage1, stage2"),
    ],
)
def test_refusals_before_any_work(run, name, change, message):
    done = script(name, **(run | change))
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (run["cwd"] / "empty").exists()


@pytest.mark.swift
def test_amt_inside_swift_refuses_in_one_line(run):
    """Whoever calls swift without our scripts gets the plan's own message, not a traceback."""
    stage1 = ROOT / "configs" / "demo" / "stage1.yaml"
    arguments = [stage1, "--model", MODEL, "--dataset", "amt:meld.mer#9999", "--output_dir", "never"]
    log = swift("sft", *arguments, "--external_plugins", PLUGIN, cwd=run["cwd"], status=2, AMT_DATA="amt")
    assert re.search("amt:meld.mer#9999: there are only [0-9]+ rows", log) and "Traceback" not in log
