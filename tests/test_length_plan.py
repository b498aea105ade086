"""The length plan counts what training would count, and training scripts refuse rows that would be lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data_prep.doctor.__main__ import main
from swift_plugins.files import InputError
from swift_plugins.length_plan import Meter, read_settings, steps
from tests.conftest import ROOT
from tests.test_frames import write_clip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A picture, a clip, and rows of three kinds, one of them long."""
    root = tmp_path_factory.mktemp("lengths")
    write_clip(root / "clip.mp4")
    Image.new("RGB", (60, 40), "gray").save(root / "peak.png")
    media = {"mosei.msa": {"images": ["peak.png"]}, "meld.mer": {"videos": ["clip.mp4"]}, "ecf.ecpe": {}}
    data = root / "amt"
    data.mkdir()
    for channel, files in media.items():
        with (data / f"{channel}.train.jsonl").open("w", encoding="utf-8") as file:
            for number in range(6):
                row = {
                    "id": f"{channel.split('.')[0]}/train/{number}",
                    "channel": channel,
                    "query": "How do they feel? " * (1 + number * number),
                    "response": "Positive." if number % 2 else "Negative, because the words say so.",
                    **files,
                }
                file.write(json.dumps(row) + "\n")
    (data / "report.train.json").write_text('{"media_root": ".."}', encoding="utf-8")
    config = root / "config"
    config.mkdir()
    for stage in ("stage1", "stage2"):
        text = "model_type: emoverse\nmax_length: 4096\nper_device_train_batch_size: 2\nnum_train_epochs: 2\n"
        (config / f"{stage}.yaml").write_text(text, encoding="utf-8")
    tasks = {"stage1": "msa: {weight: 1, sources: [mosei.msa]}", "stage2": "mer: {weight: 1, sources: [meld.mer]}"}
    stages = "".join(f"  {name}:\n    tasks:\n      {task}\n" for name, task in tasks.items())
    (config / "mixtures.yaml").write_text(f"seed: 1\nstages:\n{stages}", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tests.tiny_internvl2 import tiny_checkpoint

    folder = tmp_path_factory.mktemp("model")
    tiny_checkpoint(folder, "phi3")
    return folder


def doctor(made, model, *arguments):
    """`python -m data_prep.doctor --tokens MODEL …` on the rows of `made`; what it returns."""
    folders = ("--tokens", model, "--data", made / "amt", "--config", made / "config")
    return main(list(map(str, (*folders, *arguments))))


@pytest.mark.swift
def test_lengths_equal_those_of_the_real_template_with_real_pictures(made, model):
    import torch
    from swift.model import get_processor
    from swift.template import get_template

    settings = read_settings(made / "config", "stage1", [])
    meter = Meter(model, settings)
    template = get_template(get_processor(str(model), model_type="emoverse", torch_dtype=torch.float32))
    template.set_mode("train")
    token = template.config.image_token_id
    for path in sorted((made / "amt").glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        measured = meter.measure(rows, made)
        for row, total, visual in zip(rows, measured.total, measured.visual, strict=True):
            messages = [{"role": "user", "content": row["query"]}, {"role": "assistant", "content": row["response"]}]
            files = {key: [str(made / name) for name in row.get(key, ())] for key in ("images", "videos")}
            ids = template.encode({"messages": messages, **files})["input_ids"]
            assert (len(ids), ids.count(token)) == (total, visual)
        tiles = {"mosei.msa": 1, "meld.mer": 8, "ecf.ecpe": 0}[path.name.removesuffix(".train.jsonl")]
        assert set(measured.visual) == {tiles * template.config.image_seq_length}


@pytest.mark.parametrize(
    "samples, settings, processes, expected",
    [
        (15000, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}, 1, 3750),
        (15000, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}, 2, 1876),
        (1036, {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}, 1, 260),
        (3, {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4}, 1, 2),  # never less than one an epoch
        (0, {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4}, 1, 0),
        (99, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "max_steps": 20}, 1, 20),
    ],
)
def test_steps(samples, settings, processes, expected):
    assert steps(samples, {"num_train_epochs": 2.0, "max_steps": -1, **settings}, processes) == expected


@pytest.mark.swift
def test_settings_come_from_the_configuration_and_flags_override_them():
    demo = read_settings(ROOT / "configs" / "demo", "stage1", [])
    assert demo["max_length"] == 1024 and demo["per_device_train_batch_size"] == 8
    flags = ["--max_length", "512", "--learning_rate", "1e-4", "--num_train_epochs", "0.5"]
    told = read_settings(ROOT / "configs" / "demo", "stage1", flags)
    assert read_settings(ROOT / "configs" / "demo", "stage1", ["--max_length=512"])["max_length"] == 512
    assert (told["max_length"], told["num_train_epochs"], told["gradient_accumulation_steps"]) == (512, 0.5, 1)
    with pytest.raises(InputError, match="--max_length: invalid int value: 'long'"):
        read_settings(ROOT / "configs" / "demo", "stage1", ["--max_length", "long"])


@pytest.mark.swift
def test_the_plan_names_every_channel_and_both_stages(made, model, tmp_path, capsys):
    assert doctor(made, model, "--report", tmp_path) == 0
    output = capsys.readouterr().out
    report = json.loads((tmp_path / "lengths.json").read_text(encoding="utf-8"))
    assert set(report["channels"]) == {"ecf.ecpe.train", "meld.mer.train", "mosei.msa.train"}
    assert report["stages"]["stage1"]["samples"] == report["stages"]["stage2"]["samples"] == 6
    assert report["stages"]["stage1"]["steps"] == 6  # 3 batches of 2, twice
    assert all(name in output for name in (*report["channels"], "stage1: 6 samples", "stage2: 6 samples"))
    assert report["channels"]["meld.mer.train"]["max"] > report["channels"]["ecf.ecpe.train"]["max"]


@pytest.mark.swift
def test_rows_over_max_length_are_counted_and_give_status_one(made, model, capsys):
    assert doctor(made, model, "--stage", "stage2", "--", "--max_length", "400") == 1
    over = int(capsys.readouterr().out.split(" rows over max_length 400")[0].rsplit(" ", 1)[-1])
    assert 1 <= over < 6


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """How often a row was measured, with a cache."""
    monkeypatch.setenv("AMT_CACHE", str(tmp_path / "cache"))
    one, count = Meter._one, []
    monkeypatch.setattr(Meter, "_one", lambda self, row, root: count.append(row["id"]) or one(self, row, root))
    return count


def kept(tmp_path):
    return [*(tmp_path / "cache" / "lengths").iterdir()]


@pytest.mark.swift
def test_a_row_is_measured_once(made, model, tmp_path, monkeypatch, measured, capsys):
    """A second plan measures nothing and says the same, but for rows that have changed."""
    assert doctor(made, model, "--report", tmp_path / "first") == 0
    first = capsys.readouterr().out
    assert len(measured) == 18 and len(kept(tmp_path)) == 1
    assert doctor(made, model, "--report", tmp_path / "second") == 0
    assert capsys.readouterr().out == first and len(measured) == 18
    reports = [(tmp_path / name / "lengths.json").read_text() for name in ("first", "second")]
    monkeypatch.delenv("AMT_CACHE")
    assert doctor(made, model, "--report", tmp_path / "third") == 0
    assert reports == [(tmp_path / "third" / "lengths.json").read_text()] * 2

    monkeypatch.setenv("AMT_CACHE", str(tmp_path / "cache"))
    row = {"id": "a", "query": "How do they feel? ", "response": "Negative, because the words say so."}
    meter = Meter(model, read_settings(made / "config", "stage1", []))
    del measured[:]
    lengths = meter.measure([row, row | {"videos": ["clip.mp4"]}, row | {"response": "Positive!"}], made)
    assert len(measured) == 1, "the first two stand in ecf.ecpe and meld.mer"
    assert lengths.visual.tolist() == [0, lengths.visual[1], 0] and lengths.visual[1] > 0
    assert [json.loads(path.read_text().split("\n")[1]) for path in kept(tmp_path)] == [
        json.loads(json.dumps(meter.known.rows))
    ]


def again(folder, monkeypatch):
    """A mixtures file whose stage draws sixty times from six rows."""
    stage = "{size: 60, replacement: true, tasks: {msa: {sources: {mosei.msa: 1}}}}"
    (folder / "mixtures.yaml").write_text(f"stages: {{again: {stage}}}", encoding="utf-8")
    monkeypatch.setenv("AMT_MIXTURES", str(folder / "mixtures.yaml"))


@pytest.mark.swift
def test_a_row_that_comes_again_is_measured_once(made, model, tmp_path, monkeypatch, measured, capsys):
    monkeypatch.delenv("AMT_CACHE")
    again(tmp_path, monkeypatch)
    assert doctor(made, model, "--stage", "again", "--settings", "stage1") == 0
    assert sorted(measured) == [f"mosei/train/{number}" for number in range(6)]
    output = capsys.readouterr().out
    assert "again: 60 samples" in output and "60 steps" in output  # 30 batches of 2, twice


@pytest.mark.swift
@pytest.mark.parametrize("change", ["tokenizer", "system", "segments", "pieces", "broken", "cut", "another number"])
def test_what_decides_lengths_has_them_measured_anew(made, model, tmp_path, monkeypatch, measured, change):
    rows = [json.loads(line) for line in (made / "amt" / "meld.mer.train.jsonl").read_text().splitlines()]
    settings = read_settings(made / "config", "stage1", [])
    expected = Meter(model, settings).measure(rows, made).total.tolist()
    del measured[:]
    if change == "tokenizer":
        model = shutil.copytree(model, tmp_path / "model")
        path = model / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"note": "another"}))
    elif change == "system":
        settings["system"] = "You look at faces. " * 3
    elif change in ("segments", "pieces"):
        monkeypatch.setenv(*{"segments": ("VIDEO_SEGMENTS", "2"), "pieces": ("CHAT_TOKENS", "pieces")}[change])
    else:
        (file,) = kept(tmp_path)
        text = file.read_text()
        body = {"broken": "{", "cut": text[: len(text) // 2], "another number": text.replace("[", "[9", 1)}[change]
        file.write_text(body)
    lengths = Meter(model, settings).measure(rows, made).total.tolist()
    assert len(measured) == len(rows)
    assert (lengths == expected) == (change not in ("system", "segments", "pieces")) or change == "pieces"
    assert len(kept(tmp_path)) == (1 if change in ("broken", "cut", "another number") else 2)
    Meter(model, settings).measure(rows, made)
    assert len(measured) == len(rows), "and kept"


@pytest.mark.swift
def test_lengths_that_hang_on_the_size_of_pictures_are_not_kept(made, model, tmp_path, monkeypatch, measured):
    monkeypatch.setenv("MAX_NUM", "4")
    assert Meter(model, read_settings(made / "config", "stage1", [])).known is None
    monkeypatch.delenv("MAX_NUM")
    (tmp_path / "cache").write_text("a file")  # nor where nothing can be written, and nobody is told
    assert doctor(made, model) == 0 and len(measured) == 18


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("--tokens", ROOT / "configs"), "is not a model folder"),
        (("--config", "nothing-like-it"), "is neither a folder of configs/"),
        (("--data", "nowhere"), "no such folder of AMT rows"),
        (("--stage", "stage9"), "has no stage stage9"),
        (("--stage", "stage1", "--size", "99"), "stage1 is too scarce"),
        (("--settings", "stage7"), "stage7.yaml: no such file"),
    ],
)
def test_bad_input_is_refused(made, arguments, reason):
    with pytest.raises(InputError, match=reason):
        doctor(made, ROOT / "configs" / "demo" / "checkpoint", *arguments)


@pytest.mark.swift
@pytest.mark.parametrize("script, stage", [("first_stage.sh", "stage1"), ("second_stage.sh", "stage2")])
def test_training_scripts_refuse_before_they_start(made, model, tmp_path, script, stage):
    checkpoint = tmp_path / "out" / "stage1" / "v" / "checkpoint-1"
    for folder in (checkpoint, checkpoint.parents[1] / "checkpoint-1") if stage == "stage2" else ():
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_text("{\n}\n", encoding="utf-8")
    environment = {"MODEL": model, "DATA": made / "amt", "CONFIG": made / "config"}
    environment = {key: str(value) for key, value in (environment | {"OUTPUT": tmp_path / "out"}).items()}
    run = subprocess.run(
        ["bash", str(ROOT / "shell" / script), "--max_length", "100"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert run.returncode == 2 and "longer than max_length" in run.stderr
    assert "rows over max_length 100" in run.stdout and not list((tmp_path / "out").glob(f"{stage}/*.log*"))
