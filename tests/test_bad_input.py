"""Mistakes that users make, through the commands they type: one line on stderr, status 2, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import in_process
from tests.warm_swift import swift

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "configs" / "demo" / "checkpoint"
MELD, MOSEI, ECF = "meld/train_sent_emo.csv", "mosei/label.csv", "ecf/Subtask_2_train.json"

Breaker = Callable[[Path], object]


def refused(done: subprocess.CompletedProcess, words: str) -> None:
    assert done.returncode == 2, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr


def text(name: str, old: str, new: str) -> Breaker:
    """Replace the first `old` in a file of the dataset."""

    def change(folder: Path) -> None:
        before = (folder / name).read_text(encoding="utf-8")
        assert old in before
        (folder / name).write_text(before.replace(old, new, 1), encoding="utf-8")

    return change


def content(name: str, data: bytes) -> Breaker:
    return lambda folder: (folder / name).write_bytes(data)


def last_line_again(name: str) -> Breaker:
    return lambda folder: (folder / name).open("a").write((folder / name).read_text().splitlines()[-1] + "\n")


def conversation(change: Callable[[dict], object]) -> Breaker:
    """Change the first conversation of ECF."""

    def rewrite(folder: Path) -> None:
        conversations = json.loads((folder / ECF).read_text())
        change(conversations[0])
        (folder / ECF).write_text(json.dumps(conversations))

    return rewrite


# The AMT builder


@pytest.fixture
def annotations(world, tmp_path) -> Path:
    """A copy of the synthetic annotations, to be broken; the clips stay behind (--missing-media text-only)."""
    for name in ("meld", "mosei", "ecf"):
        (tmp_path / name).mkdir()
        for path in (world / name).glob("*.*"):
            if path.is_file():
                shutil.copy(path, tmp_path / name)
    return tmp_path


def build(folder: Path, *more: object) -> subprocess.CompletedProcess:
    sources = () if "--split" in more else ("--meld", "meld", "--mosei", "mosei", "--ecf", "ecf", "--split", "train")
    done = in_process(
        "-m", "data_prep.build_amt", *sources, "--missing-media", "text-only", "--out", "amt", *more, cwd=folder
    )
    if done.returncode:
        assert not (folder / "amt").exists(), "something was written"
    return done


@pytest.mark.parametrize(
    ("breaker", "words"),
    [
        (content(MELD, b""), "train_sent_emo.csv"),
        (content(MELD, bytes(range(256)) * 16), "train_sent_emo.csv"),
        (text(MELD, "Emotion", "Feeling"), "has no column Emotion"),
        (text(MELD, "neutral", "bored"), "'bored'"),
        (last_line_again(MELD), "repeats"),
        (lambda folder: ((folder / MELD).unlink(), (folder / MELD).mkdir()), "train_sent_emo.csv"),
        (text(MOSEI, "text", "words"), "has no column text"),
        (text(MOSEI, ",train", ",trian"), "label.csv:2: mode is 'trian'"),
        (last_line_again(MOSEI), "repeats clip"),
        (content(ECF, b'[{"conversation_ID": 1'), "is not JSON"),
        (content(ECF, b"[" * 100_000), "nested too deeply"),
        (content(ECF, b"{}"), "is not a list of conversations"),
        (conversation(lambda c: c["conversation"][0].update(emotion="bored")), "emotion is 'bored'"),
        (conversation(lambda c: c["conversation"].append(c["conversation"][0])), "is given twice"),
        (conversation(lambda c: c["emotion-cause_pairs"].append(["99_joy", "1"])), "is not there"),
        (conversation(lambda c: c["conversation"][0].pop("text")), "has no text"),
        (content("mosei/eri.jsonl", b'{"id": "a"}\n'), "eri.jsonl:1: has no text under reason"),
        (content("mosei/eri.jsonl", b'{"id": "a", "rea'), "eri.jsonl:1: is not JSON"),
        (content("mosei/fer.jsonl", b'{"id": "a", "caption": 5}\n'), "fer.jsonl:1: has no text under caption"),
    ],
)
def test_broken_annotations(annotations, breaker, words):
    breaker(annotations)
    refused(build(annotations), words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--meld", "mosei", "--split", "train"), "train_sent_emo.csv"),
        (("--mosei", "ecf", "--split", "train"), "label.csv"),
        (("--ecf", "nowhere", "--split", "train"), "nowhere: no such folder"),
        (("--split", "train"), "give at least one of"),
        (("--prompts", "nowhere.yaml"), "nowhere.yaml: no such file"),
        (("--prompts", "meld"), "meld: is a directory"),
        (("--eri", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--review", "nowhere.csv"), "nowhere.csv: no such file"),
        (("--media-root", "nowhere"), "nowhere: no such folder"),
        (("--jobs", "0"), "--jobs 0 is not a positive number"),
        (("--exclude-leaks", "meld:train"), "meld:train is no held-out split of dialogues here"),
    ],
)
def test_wrong_options_of_the_builder(annotations, options, words):
    refused(build(annotations, *options), words)


def test_an_output_folder_that_is_a_file(project, annotations):
    (annotations / "amt").write_text("mine")
    sources = ("--mosei", "mosei", "--split", "train", "--missing-media", "text-only")
    refused(project("-m", "data_prep.build_amt", *sources, "--out", "amt", cwd=annotations), "amt: File exists")
    assert (annotations / "amt").read_text() == "mine"


# Mixtures


@pytest.fixture
def amt(tmp_path) -> Path:
    """Twelve rows for each of two channels, and a mixtures file of two stages over them."""
    (tmp_path / "amt").mkdir()
    for channel in ("mosei.msa", "mosei.mer"):
        rows = [{"id": f"c{n}", "channel": channel, "query": "q", "response": "r"} for n in range(12)]
        (tmp_path / "amt" / f"{channel}.train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = {task: {"weight": 1, "sources": [f"mosei.{task}"]} for task in ("msa", "mer")}
    stages = {"stage1": {"size": 8, "tasks": tasks}, "stage2": {"size": 8, "after": ["stage1"], "tasks": tasks}}
    (tmp_path / "mixtures.yaml").write_text(json.dumps({"stages": stages}))  # JSON is YAML, without its references
    return tmp_path


def stage(**change: object) -> Breaker:
    """Change stage1 of the mixtures file."""

    def rewrite(folder: Path) -> None:
        mixtures = yaml.safe_load((folder / "mixtures.yaml").read_text())
        mixtures["stages"]["stage1"].update(change)
        (folder / "mixtures.yaml").write_text(json.dumps(mixtures))

    return rewrite


def msa(**change: object) -> Breaker:
    return stage(tasks={"msa": {"weight": 1, "sources": ["mosei.msa"]} | change})


ROWS = "amt/mosei.msa.train.jsonl"


PLAN = ("-m", "swift_plugins.mixture", "--stage", "stage1", "--mixtures", "mixtures.yaml", "--data", "amt")


@pytest.mark.parametrize(
    ("breaker", "words"),
    [
        (lambda folder: (folder / ROWS).unlink(), "msa wants 4 rows and has 0 (mosei.msa); build its rows first"),
        (stage(size=100), "the largest size that keeps the ratio is 24"),
        (content(ROWS, b""), "msa wants 4 rows and has 0"),
        (content(ROWS, b'{"id": "c0", "chan'), "mosei.msa.train.jsonl:1: is not JSON"),
        (content(ROWS, b"[1]\n"), "holds a list"),
        (content(ROWS, b"\xff\n"), "is not UTF-8"),
        (last_line_again(ROWS), "mosei.msa.train.jsonl:13: duplicate id c11"),
        (text(ROWS, "mosei.msa", "meld.msa"), "channel meld.msa in a file of mosei.msa"),
        (text(ROWS, '"mosei.msa"', '"mosei.msa.x y"'), "is not a channel"),
        (text(ROWS, '"c0"', '"c\\ud800"'), "half of a surrogate pair"),
        (text(ROWS, '"query"', '"question"'), "has no text under query"),
        (msa(weight=0), "msa.weight: Input should be greater than 0, not 0"),
        (msa(sources="mosei.msa"), "msa.sources: Input should be a valid list"),
        (msa(sources=["mosei.mer"]), "mosei.mer is not a channel <dataset>.msa"),
        (msa(oversample="maybe"), "msa.oversample: Input should be a valid boolean, not 'maybe'"),
        (stage(size="many"), "size: 'many' is neither a positive number, nor scarcest, nor a list of stages"),
        (stage(after=["stage2"]), "after names stage2, which is no earlier stage"),
        (stage(after=5), "after: Input should be a valid list, not 5"),
        (content("mixtures.yaml", b"stages: [1"), "is not YAML"),
        (content("mixtures.yaml", b""), "Input should be a valid dictionary"),
    ],
)
def test_broken_mixtures(amt, breaker, words):
    breaker(amt)
    refused(in_process(*PLAN, cwd=amt), words)


def test_a_circle_of_three_stages(project, amt):
    mixtures = yaml.safe_load((amt / "mixtures.yaml").read_text())
    mixtures["stages"]["stage3"] = mixtures["stages"]["stage1"] | {"after": ["stage2"]}
    mixtures["stages"]["stage1"]["after"] = ["stage3"]
    (amt / "mixtures.yaml").write_text(json.dumps(mixtures))
    refused(project(*PLAN, cwd=amt), "after names stage3, which is no earlier stage")


# The scripts


@pytest.mark.parametrize(
    ("script", "change", "words"),
    [
        ("first_stage.sh", {"DATA": None}, "set DATA to the folder"),
        ("first_stage.sh", {"MODEL": None}, "set MODEL to the folder"),
        ("first_stage.sh", {"CONFIG": "amt"}, "CONFIG=amt holds no stage1.yaml"),
        ("first_stage.sh", {"OUTPUT": "mixtures.yaml"}, "OUTPUT=mixtures.yaml is a file, not a folder"),
        ("first_stage.sh", {"AMT_MIXTURES": "nowhere.yaml"}, "nowhere.yaml: no such file"),
        ("first_stage.sh", {"SIZE": "0"}, "--size 0 is not a positive number"),
        ("second_stage.sh", {}, "out/stage1 holds no checkpoint; run shell/first_stage.sh first"),
        ("test.sh", {}, "out/stage1 holds no checkpoint; train first"),
        ("export.sh", {}, "out holds no checkpoint; train first"),
        ("serve.sh", {}, "out holds no checkpoint; train first"),
    ],
)
def test_scripts_refuse_before_any_work(amt, script, change, words):
    settings = {"CONFIG": "demo", "MODEL": str(MODEL), "DATA": "amt", "OUTPUT": "out", "AMT_MIXTURES": "mixtures.yaml"}
    settings |= change
    environment = {key: value for key, value in os.environ.items() if key not in ("AMT_DATA", *settings)}
    environment |= {key: value for key, value in settings.items() if value is not None}
    done = subprocess.run(["bash", ROOT / "shell" / script], cwd=amt, env=environment, capture_output=True, text=True)
    refused(done, words)
    assert not (amt / "out").exists()


# Everything else that takes a file


@pytest.mark.parametrize(
    ("command", "data", "words"),
    [
        (("-m", "data_prep.peak_frame", "FILE"), None, "FILE"),
        (("-m", "data_prep.peak_frame", "FILE"), b"AU01_r\rAU02_r\n1\n", "is not CSV"),
        (("-m", "data_prep.fer", "--dataset", "mosei", "--root", "FILE", "--csv", ".", "--out", "out"), None, "FILE"),
        (("-m", "data_prep.doctor", "--meld", "FILE"), None, "FILE"),
        (
            (
                "-m",
                "data_prep.doctor",
            ),
            None,
            "give at least one of",
        ),
        ((str(ROOT / "compute_result.py"), "FILE"), None, "no such file"),
        ((str(ROOT / "compute_result.py"), "FILE"), b"", "FILE"),
        ((str(ROOT / "compute_result.py"), "FILE"), b'{"channel": "x", "response": "", "labels": ""}\n', "FILE:1"),
        (("-m", "data_prep.eri", "--out", "out"), None, "give --rows to make reasons, or --review alone"),
        (("-m", "data_prep.eri", "--out", "out", "--rows", "FILE"), None, "--rows needs --media-root"),
        (("-m", "data_prep.eri", "--out", "out", "--review", "FILE"), b"", "no such file"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, command, data, words):
    if data is not None:
        (tmp_path / "FILE").write_bytes(data)
    refused(in_process(*command, cwd=tmp_path), words)
    assert not (tmp_path / "out").exists()


def test_a_reader_that_hangs_up_is_no_error(annotations):
    command = (
        f"'{os.sys.executable}' -m data_prep.build_amt --mosei mosei --split train --missing-media text-only --out amt"
    )
    done = subprocess.run(
        ["bash", "-c", f"{command} | true"],
        cwd=annotations,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""


def test_a_pipe_is_written_to_and_stays_a_pipe(project, amt):
    """So does a device: a file in the place of /dev/null would break the machine."""
    os.mkfifo(amt / "pipe")
    with subprocess.Popen(["cat", amt / "pipe"], stdout=subprocess.PIPE) as reader:
        done = project(*PLAN, "--json", "pipe", cwd=amt)
        assert done.returncode == 0, done.stderr
        assert (amt / "pipe").is_fifo(), reader.kill()
        assert json.loads(reader.communicate(timeout=30)[0])["size"] == 8


@pytest.mark.swift
def test_a_clip_that_breaks_in_the_middle_of_a_run(amt):
    """It was healthy when the rows were built: ms-swift meets it while it prepares a batch."""
    (amt / "clip.mp4").write_bytes(bytes(400))
    row = {"id": "c", "channel": "mosei.msa", "query": "q", "response": "Positive.", "videos": ["clip.mp4"]}
    (amt / ROWS).write_text(json.dumps(row) + "\n")
    plugin, settings = ROOT / "swift_plugins" / "emoverse.py", ROOT / "configs" / "demo" / "infer.yaml"
    model = ("--model", MODEL, "--model_type", "emoverse", "--external_plugins", plugin)
    rows = ("--val_dataset", "amt:mosei.msa", "--result_path", "result.jsonl")
    log = swift("infer", settings, *model, *rows, cwd=amt, status=2, AMT_DATA="amt", AMT_MEDIA=amt)
    assert log.splitlines()[-1].startswith(f"error: {amt}/clip.mp4: cannot be decoded as video")
    assert "Traceback" not in log
