"""Training as users run it: killed and resumed, on two processes, and refused in one line when something is wrong."""

import json
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from swift_plugins.files import hold
from swift_plugins.mixture import draw, read_mixtures
from tests.conftest import free_port
from tests.tiny_amt import tiny_amt
from tests.tiny_internvl2 import tiny_checkpoint
from tests.warm_swift import Run, swift

ROOT = Path(__file__).resolve().parents[1]
RECORDER = ROOT / "tests" / "record_rows.py"
# Small batches and a save every few steps; the rest is configs/demo.
FLAGS = ["--per_device_train_batch_size", "4", "--logging_steps", "1", "--save_strategy", "steps", "--save_steps", "4"]
FLAGS += ["--num_train_epochs", "1", "--external_plugins", RECORDER]

TWO_EPOCHS = ["--num_train_epochs", "2"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Environment of the scripts: a tiny checkpoint and tiny data."""
    folder = tmp_path_factory.mktemp("training")
    data = tiny_amt(folder / "amt")
    settings = {"CONFIG": "demo", "MODEL": tiny_checkpoint(folder / "model", "phi3"), "DATA": data, "AMT_MEDIA": data}
    settings |= {"AMT_MIXTURES": data / "mixtures.yaml", "OMP_NUM_THREADS": "1", "HOME": folder}
    return {key: str(value) for key, value in settings.items()}


def start(script, world, output, *flags, **settings):
    environment = os.environ | world | {"OUTPUT": str(output), "RECORD": str(output) + ".rows"} | settings
    return subprocess.Popen(
        ["bash", ROOT / "shell" / script, *flags],
        env=environment,
        cwd=world["HOME"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(script, world, output, *flags, status=0, **settings):
    process = start(script, world, output, *flags, **settings)
    log = process.communicate(timeout=300)[0]
    assert process.returncode == status, log[-3000:]
    return log


def sft(world, output, *flags, config=ROOT / "configs" / "demo", **settings):
    """What first_stage.sh has `swift sft` do, without the plan before it: (arguments, environment) of a run."""
    told = ["--model", world["MODEL"], "--dataset", "amt:stage1", "--output_dir", output / "stage1"]
    environment = world | {"AMT_DATA": world["DATA"], "PYTHONPATH": str(ROOT), "RECORD": f"{output}.rows"} | settings
    return ("sft", config / "stage1.yaml", *told, *FLAGS, *flags), {"cwd": Path(world["HOME"])} | environment


def losses(stage: Path) -> dict[int, float]:
    """Loss by step, as written to the log of a stage."""
    rows = [json.loads(line) for line in (stage / "logging.jsonl").read_text().splitlines()]
    return {int(row["global_step/max_steps"].split("/")[0]): float(row["loss"]) for row in rows if "loss" in row}


def drawn(world, stage):
    return draw(read_mixtures(world["AMT_MIXTURES"]), stage, world["DATA"]).rows


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """Stage 1 without interruption, for two epochs."""
    output = tmp_path_factory.mktemp("whole") / "out"
    arguments, environment = sft(world, output, *TWO_EPOCHS)
    swift(*arguments, **environment)
    return output


@pytest.mark.swift
def test_killed_and_resumed(world, whole, tmp_path):
    """After SIGKILL within an epoch, RESUME=1 sees the same rows in the same order and, dropout and the next epoch
    included, ends with the same losses and weights, bit by bit."""
    output = tmp_path / "out"
    arguments, environment = sft(world, output, *TWO_EPOCHS, SLOW="0.15")
    killed, deadline = Run(*arguments, **environment), time.monotonic() + 200
    while not (output / "stage1" / "checkpoint-4" / "trainer_state.json").is_file():
        assert killed.running() and time.monotonic() < deadline, killed.ended(0)
        time.sleep(0.05)
    time.sleep(0.5)  # past the save, in the middle of the next steps
    killed.kill()
    assert not (output / "stage1" / "checkpoint-20").exists()
    refused = run("first_stage.sh", world, output, status=2)
    assert "holds checkpoints already; RESUME=1 goes on from the last" in refused

    before = len(Path(f"{output}.rows").read_text().splitlines())
    process = start("first_stage.sh", world, output, *FLAGS, *TWO_EPOCHS, RESUME="1")
    while not (line := process.stdout.readline()).startswith("channel "):  # the rows are measured, the folder is held
        assert line, "it ended"
    refused = run("test.sh", world, output, status=2)
    assert refused == f"error: OUTPUT={output}: another run is writing there\n"
    log = process.communicate(timeout=300)[0]
    assert process.returncode == 0, log[-3000:]
    expected, resumed = losses(whole / "stage1"), losses(output / "stage1")
    assert set(resumed) == set(expected) == set(range(1, 21))
    assert resumed == expected
    weights = [load_file(folder / "stage1/checkpoint-20/adapter_model.safetensors") for folder in (whole, output)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    rows = Path(f"{output}.rows").read_text().splitlines()[before:]
    assert rows == Path(f"{whole}.rows").read_text().splitlines()[16:], "rows 17 to 80, in the same order"


@pytest.mark.swift
def test_a_second_run_is_refused_whoever_starts_it(world, tmp_path):
    """Another process, here this one, writes to a training's folder, and to an inference's file."""
    plugin = ("--external_plugins", ROOT / "swift_plugins" / "emoverse.py")
    plugin += ("--model", world["MODEL"], "--model_type", "emoverse")
    environment = world | {"AMT_DATA": world["DATA"]}
    for command, config, flag, output, lock in (
        ("sft", "stage1.yaml", "--output_dir", "out", "out/.lock"),
        ("infer", "infer.yaml", "--result_path", "r.jsonl", ".r.jsonl.lock"),
    ):
        arguments = command, ROOT / "configs" / "demo" / config, *plugin, flag, output
        with hold(tmp_path / lock):
            log = swift(*arguments, cwd=tmp_path, status=2, **environment)
        assert log.splitlines()[-1] == f"error: {tmp_path / output}: another run is writing there"
        assert "Traceback" not in log
    assert {path.name for path in tmp_path.rglob("*")} == {"out", ".lock", ".r.jsonl.lock"}


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 330 kB: room for one checkpoint."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=330k", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.swift
def test_a_full_and_a_read_only_disk(world, whole, small_disk):
    """One line, and what was saved before is whole: with more room, RESUME=1 ends as if nothing had happened."""
    output = small_disk / "out"
    arguments, environment = sft(world, output, *TWO_EPOCHS, "--report_to", "none")
    log = swift(*arguments, status=2, **environment)
    assert log.splitlines()[-1].startswith(f"error: {output}/stage1: a file could not be written: full disk?")
    assert "Traceback" not in log
    assert [path.parent.name for path in output.glob("stage1/checkpoint-*/trainer_state.json")] == ["checkpoint-4"]
    subprocess.run(["mount", "-o", "remount,size=9m", small_disk], check=True)
    state = (output / "stage1/checkpoint-4/trainer_state.json").read_text()
    (output / "stage1/checkpoint-8").mkdir(exist_ok=True)
    (output / "stage1/checkpoint-8/trainer_state.json").write_text(state[:-2])  # where the disk was full a little later
    last = last_checkpoint(output / "stage1")
    assert last == str(output / "stage1/checkpoint-4")
    swift(*arguments, "--resume_from_checkpoint", last, **environment)
    expected, resumed = (load_file(to / "stage1/checkpoint-20/adapter_model.safetensors") for to in (whole, output))
    assert all(torch.allclose(tensor, resumed[name], rtol=0, atol=1e-5) for name, tensor in expected.items())
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert run("test.sh", world, output, status=2) == f"error: OUTPUT={output} cannot be written to\n"


def last_checkpoint(stage: Path) -> str:
    """What RESUME=1 goes on from."""
    line = f"source {ROOT / 'shell' / 'env.sh'}; last_checkpoint '{stage}'"
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    """Six steps of stage 1 in one process, two passes of two rows each: (folder of the settings, flags, output)."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(ROOT / "configs" / "demo", folder / "config", ignore=shutil.ignore_patterns("checkpoint"))
    path = folder / "config" / "stage1.yaml"
    path.write_text(re.sub("(gradient_accumulation_steps): 1", r"\1: 2", path.read_text()))
    flags = ["--lora_dropout", "0", "--max_steps", "6", "--per_device_train_batch_size", "2"]
    arguments, environment = sft(world, folder / "out", *flags, config=folder / "config")
    swift(*arguments, **environment)
    return folder / "config", flags, folder / "out"


def answers(world, checkpoint: Path, result: Path) -> list[str]:
    """What an adapter answers to four test rows."""
    asked = ("--val_dataset", "amt:test#4", "--max_new_tokens", "8", "--result_path", result)
    asked += ("--adapters", checkpoint, "--external_plugins", ROOT / "swift_plugins" / "emoverse.py")
    environment = {"cwd": result.parent, "AMT_DATA": world["DATA"]} | world
    swift("infer", ROOT / "configs" / "demo" / "infer.yaml", *asked, **environment)
    return [json.loads(line)["response"] for line in result.read_text(encoding="utf-8").splitlines()]


NO_DEEPSPEED = pytest.mark.skipif(not find_spec("deepspeed"), reason="deepspeed is not installed: ZeRO is not tested")


@pytest.mark.swift
@pytest.mark.parametrize(
    "zero", [None, pytest.param("zero2", marks=NO_DEEPSPEED), pytest.param("zero3", marks=NO_DEEPSPEED)]
)
def test_two_processes_train_one_model(world, alone, tmp_path, zero):
    """Over gloo, against one process with the same settings: as many steps, every row of the draw once, equal weights
    on both ranks, and the losses and weights of one process; float32 sums are in another order, so to 1e-5. Text-only
    rows come alone, and their rank keeps up: with ZeRO-3 both gather the tower's weights, or neither."""
    config, flags, one = alone
    settings = {"NPROC_PER_NODE": "2", "MASTER_PORT": str(free_port()), "CONFIG": str(config)}
    if zero:
        flags = [*flags, "--deepspeed", zero, "--external_plugins", ROOT / "tests" / "deepspeed_on_cpu.py"]
    run("first_stage.sh", world, tmp_path / "two", *FLAGS, *flags, **settings)
    rows = [json.loads(line) for line in (tmp_path / "two.rows").read_text().splitlines()]
    assert Counter(row["rank"] for row in rows)["1"] >= 12
    wanted = {row["query"] for row in drawn(world, "stage1")}
    queries = Counter(row["query"].replace("<image>", "").replace("<video>", "") for row in rows)
    assert set(queries) <= wanted and max(queries.values()) == 1
    ends = [json.loads(line) for line in (tmp_path / "two.rows.weights").read_text().splitlines()]
    assert sorted(end["rank"] for end in ends) == ["0", "1"] and ends[0]["weights"] == ends[1]["weights"]
    assert losses(tmp_path / "two/stage1") == pytest.approx(losses(one / "stage1"), rel=0, abs=1e-5)
    ended = [output / "stage1" / "checkpoint-6" for output in (one, tmp_path / "two")]
    assert (ended[1] / "global_step6").is_dir() == bool(zero), "DeepSpeed's part of a checkpoint"
    first, second = (load_file(checkpoint / "adapter_model.safetensors") for checkpoint in ended)
    assert first.keys() == second.keys()
    assert max((first[key] - second[key]).abs().max().item() for key in first) < 1e-5
    if zero:
        said = [answers(world, checkpoint, tmp_path / f"{i}.jsonl") for i, checkpoint in enumerate(ended)]
        assert len(said[0]) == 4 and said[0] == said[1]


@pytest.mark.parametrize("script", ["export.sh", "serve.sh"])
def test_the_last_whole_checkpoint_of_the_last_stage_is_taken(world, tmp_path, script):
    output = tmp_path / "out"
    for name in ("stage1/checkpoint-30", "stage2/checkpoint-9", "stage2/checkpoint-10"):
        (output / name).mkdir(parents=True)
        (output / name / "trainer_state.json").write_text("{\n}")
    (output / "stage2" / "checkpoint-11").mkdir()
    (output / "stage2" / "checkpoint-11" / "trainer_state.json").write_text("{\n")  # the kill of a save
    log = run(script, world, output, status=2)
    assert log == f"error: CHECKPOINT={output}/stage2/checkpoint-10: holds no adapter\n"


def test_a_merged_folder_is_not_written_over(world, tmp_path):
    checkpoint = tmp_path / "out" / "stage1" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{\n}")
    (checkpoint / "adapter_config.json").write_text("{}")
    (tmp_path / "out" / "merged").mkdir()
    assert "merged exists; move it away" in run("export.sh", world, tmp_path / "out", status=2)


@pytest.mark.parametrize(
    "script, settings, message",
    [
        ("second_stage.sh", {}, "stage1 holds no checkpoint; run shell/first_stage.sh first"),
        ("first_stage.sh", {"MODEL": "/no/such"}, "MODEL=/no/such: holds no config.json"),
        ("first_stage.sh", {"DEEPSPEED": "zero9"}, "DEEPSPEED=zero9 is not zero2, zero3 or a file"),
        ("first_stage.sh", {"DEEPSPEED": "zero2", "CUDA_VISIBLE_DEVICES": ""}, "DEEPSPEED=zero2 is for GPUs"),
        ("export.sh", {}, "holds no checkpoint; train first"),
        ("export.sh", {"CHECKPOINT": "/no/such"}, "CHECKPOINT=/no/such: holds no adapter"),
        ("serve.sh", {}, "holds no checkpoint; train first"),
        ("serve.sh", {"MERGED": "/no/such"}, "MERGED=/no/such: holds no config.json"),
    ],
)
def test_refused_in_one_line(world, tmp_path, script, settings, message):
    log = run(script, world, tmp_path / "out", status=2, **settings)
    assert message in log and "Traceback" not in log and len(log.splitlines()) == 1
