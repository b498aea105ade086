"""Qwen2.5-Omni hears what rows list under `audios`; the models without hearing read the same rows as before."""

import json
import os
import shutil
import subprocess
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from swift.model import get_model_processor, get_processor
from swift.template import get_template

import swift_plugins.emoverse  # noqa: F401
from data_prep.demo.layouts import encode
from data_prep.demo.voices import voice
from swift_plugins.dataset import parts, to_dataset
from swift_plugins.files import InputError
from swift_plugins.frames import sample_frames
from swift_plugins.length_plan import SETTINGS, Meter
from swift_plugins.sound import read_sound
from tests.conftest import ROOT, free_port
from tests.test_frames import write_clip
from tests.test_sound import write_sound
from tests.test_template import PLUGIN, SYSTEM, row, text
from tests.tiny_amt import ROWS, tiny_amt
from tests.tiny_backbones import tiny_backbone
from tests.tiny_internvl2 import tiny_checkpoint
from tests.warm_swift import swift

pytestmark = pytest.mark.swift
PICTURE = f"<|vision_bos|>{'<|IMAGE|>' * 256}<|vision_eos|>"
VIDEO = "".join(f"Frame{i + 1}: {PICTURE}\n" for i in range(2))


def sounding(tokens):
    return f"<|audio_bos|>{'<|AUDIO|>' * tokens}<|audio_eos|>"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A clip with a sound track of two seconds (2.05 as AAC), one without, a sound file of one second, one of 20 ms."""
    folder = tmp_path_factory.mktemp("files")
    silent = write_clip(folder / "silent.mp4", n=20)
    (folder / "clip.mp4").write_bytes(encode(sample_frames(silent, 8), voice("a", "joy", 2.0)))
    write_sound(folder / "tone.wav", 440)
    write_sound(folder / "short.wav", np.zeros(320))
    (folder / "broken.wav").write_text("no sound")
    return {path.stem: str(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_backbone(tmp_path_factory.mktemp("omni"), "qwen2.5-omni")


@pytest.fixture
def omni(folder, monkeypatch):
    """The template, with the model at hand."""
    monkeypatch.setenv("VIDEO_SEGMENTS", "2")
    torch.manual_seed(0)
    model, processor = get_model_processor(str(folder), model_type="emoverse_qwen2_5_omni", torch_dtype=torch.float32)
    template = get_template(processor, default_system=SYSTEM, max_length=8192)
    template.set_mode("train")
    template.model = model.eval()
    return template


def user(template, encoded):
    """What the user's turn became."""
    said = text(template, encoded)
    start = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
    end = "<|im_end|>\n<|im_start|>assistant\nJoy."
    assert said.startswith(start) and end in said
    return said.removeprefix(start).partition(end)[0]


@pytest.mark.parametrize(
    ("query", "media", "expected"),
    [
        ("Why?", {"videos": ["clip"], "audios": ["clip"]}, VIDEO + sounding(51) + "Why?"),  # 25 tokens a second
        ("Why?", {"videos": ["silent"], "audios": ["silent"]}, VIDEO + "Why?"),  # the same as without
        ("Why?", {"audios": ["short"]}, "Why?"),  # less than a token
        ("Why?", {"audios": ["tone"]}, sounding(25) + "Why?"),
        ("<audio>a<video>b<audio>", {"videos": ["clip"], "audios": ["tone", "clip"]}, None),
        ("<audio>a<audio>b", {"audios": ["silent", "tone"]}, "a" + sounding(25) + "b"),
    ],
)
def test_what_a_row_becomes(omni, files, query, media, expected):
    if expected is None:
        expected = sounding(25) + "a" + VIDEO + "b" + sounding(51)
    encoded = omni.encode(row(query, **{key: [files[name] for name in names] for key, names in media.items()}))
    assert user(omni, encoded) == expected
    heard = expected.count("<|audio_bos|>")
    assert ("input_features" in encoded) == bool(heard)
    if heard:
        assert encoded["input_features"].shape[:2] == (heard, 32)
        assert encoded["feature_attention_mask"].sum() // 4 == expected.count("<|AUDIO|>")  # 100 frames a second


def test_no_more_than_the_first_seconds_are_heard(omni, files):
    omni.audio_seconds = 0.5
    assert user(omni, omni.encode(row("Why?", audios=[files["clip"]]))) == sounding(12) + "Why?"


def test_a_sound_that_is_none_is_named(omni, files):
    with pytest.raises(ValueError, match="more <audio> tags than there are files"):
        omni.encode(row("Why<audio>?<audio>", audios=[files["tone"]]))
    with pytest.raises(InputError, match="sound cannot be read"):
        omni.encode(row("Why?", audios=["/no/such.wav"]))
    with pytest.raises(InputError, match=r"broken\.wav: its sound cannot be decoded"):
        omni.encode(row("Why?", audios=[files["broken"]]))


@pytest.mark.parametrize("samples", [16_000, 16_001, 15_999, 4_321])
def test_the_spectrogram_is_that_of_the_models_own_processor(omni, samples):
    """Which fills every sound up to 300 seconds; of any length of the sound."""
    sound = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    extract = omni.processor.feature_extractor
    stock = extract(sound, sampling_rate=16_000, return_attention_mask=True, return_tensors="pt")
    kept = stock["input_features"][..., stock["attention_mask"][0].bool()]
    assert stock["input_features"].shape[-1] == 30_000
    torch.testing.assert_close(omni.spectrogram(sound), kept, atol=1e-6, rtol=0)


def logits(template, rows):
    """Of the answer's tokens of each row, all rows in one batch, as training computes them."""
    encoded = [template.encode(one) for one in rows]
    batch = template.data_collator(encoded)
    labels = batch.pop("labels")
    with torch.inference_mode():
        embedded = template._post_encode(template.model, batch)
        given = {key: batch[key] for key in ("attention_mask", "position_ids")}
        given["position_ids"] = given["position_ids"][-3:]
        found = template.model(**given, **embedded).logits
    return [part[:-1][label[1:] != -100] for part, label in zip(found, labels, strict=True)]


def test_sound_changes_the_answer_and_so_does_its_absence(omni, files):
    """Another sound, no sound, silence: four different distributions; the same sound again is the same."""
    video = {"videos": [files["silent"]]}
    sounds = [[files["clip"]], [files["tone"]], [], [files["clip"]]]
    one, other, none, again = (logits(omni, [row("Why?", **video, audios=sound)])[0] for sound in sounds)
    assert torch.equal(one, again)
    for a, b in ((one, other), (one, none), (other, none)):
        assert (a - b).abs().max() > 1e-3


def test_rows_with_sound_and_without_share_a_batch(omni, files):
    """Text alone, a clip without sound, two sounds of different lengths: each as if it were alone."""
    rows = [
        row("A longer question about nothing in particular?"),
        row("Why?", videos=[files["clip"]], audios=[files["clip"]]),
        row("Why?", videos=[files["silent"]]),
        row("And why?", audios=[files["tone"], files["clip"]]),
        row("Why not?", audios=[files["tone"]]),
    ]
    together = logits(omni, rows)
    for one, shared in zip(rows, together, strict=True):
        torch.testing.assert_close(logits(omni, [one])[0], shared, atol=1e-5, rtol=0)


def test_training_and_inference_read_a_row_alike(omni, files):
    """The positions that training computes here are those that the model itself finds for a prompt."""
    asked = row("Why?", videos=[files["clip"]], audios=[files["tone"], files["clip"]])
    trained = logits(omni, [asked])[0]
    omni.set_mode("transformers")
    encoded = omni.encode(row("Why?", None, videos=asked["videos"], audios=asked["audios"]))
    batch = omni.data_collator([encoded])
    batch.pop("labels", None)
    with torch.inference_mode():
        found = omni.model(**batch).logits[0, -1]
    torch.testing.assert_close(found, trained[0], atol=1e-5, rtol=0)


def test_lengths_are_measured_with_their_sounds(folder, files, omni, monkeypatch):
    settings = {name: default for name, (_, default) in SETTINGS.items()}
    meter = Meter(folder, settings | {"model_type": "emoverse_qwen2_5_omni", "system": SYSTEM})
    rows = [
        {"query": "Why?", "response": "Joy.", "videos": [files["clip"]], "audios": [files["clip"]]},
        {"query": "<audio> Why?", "response": "Joy.", "audios": [files["tone"]]},
        {"query": "Why?", "response": "Joy.", "videos": [files["silent"]], "audios": [files["silent"]]},
    ]
    whole = [omni.encode(row(one["query"], **{k: v for k, v in one.items() if k.endswith("s")})) for one in rows]
    assert meter.measure(rows, ROOT).total.tolist() == [len(one["input_ids"]) for one in whole]


def test_what_speaks_is_not_loaded(folder, tmp_path):
    """A published folder holds it; its voices, a .pt file, are not asked for, and what is saved says so."""
    copy = shutil.copytree(folder, tmp_path / "published")
    weights = load_file(copy / "model.safetensors")
    save_file(weights | {"talker.x": torch.zeros(1), "token2wav.y": torch.zeros(1)}, copy / "model.safetensors")
    config = json.loads((copy / "config.json").read_text()) | {"enable_audio_output": True}
    (copy / "config.json").write_text(json.dumps(config))
    given = {"model_type": "emoverse_qwen2_5_omni", "torch_dtype": torch.float32}
    model, _ = get_model_processor(str(copy), **given)
    assert {name: value.tolist() for name, value in model.state_dict().items()} == {
        name: value.tolist() for name, value in weights.items()
    }
    model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["architectures"] == ["Qwen2_5OmniForConditionalGeneration"] and not saved["enable_audio_output"]


@pytest.mark.parametrize("name", ["phi3", "qwen2.5-vl", "qwen3-vl"])
def test_models_without_hearing_leave_the_sounds(tmp_path, files, monkeypatch, name):
    """No tag, no error, whatever the file is: the row is as if it listed none."""
    monkeypatch.setenv("VIDEO_SEGMENTS", "2")
    qwen = name != "phi3"
    folder = tiny_backbone(tmp_path, name) if qwen else tiny_checkpoint(tmp_path, name)
    model_type = f"emoverse_{name.replace('.', '_').replace('-', '_')}" if qwen else "emoverse"
    template = get_template(get_processor(str(folder), model_type=model_type, torch_dtype=torch.float32))
    template.set_mode("train")
    plain = template.encode(row("Why?", videos=[files["clip"]]))
    for query, sounds in (("Why?", ["clip"]), ("<audio>Why?", ["clip"]), ("Why<audio>?<audio>", ["tone", "broken"])):
        heard = template.encode(row(query, videos=[files["clip"]], audios=[files[sound] for sound in sounds]))
        assert heard["input_ids"] == plain["input_ids"] and heard.keys() == plain.keys()
    assert "<audio>" in text(template, template.encode(row("Say <audio>")))
    meter = Meter(folder, {name: default for name, (_, default) in SETTINGS.items()} | {"model_type": model_type})
    one = {"query": "<audio>Why?", "response": "Joy.", "videos": [files["clip"]]}
    assert meter.measure([one | {"audios": [files["broken"]]}], ROOT).total == len(plain["input_ids"])


def test_rows_of_ms_swift_list_sounds_where_there_are_some(tmp_path, files):
    common = {"id": "a", "channel": "meld.mer", "query": "Why?", "response": "Joy."}
    silent, heard = common | {"videos": [files["silent"]]}, common | {"audios": [files["clip"]]}
    assert "audios" not in to_dataset([silent], ROOT, solution=False).column_names
    dataset = to_dataset([silent, heard], ROOT, solution=True)
    assert dataset["audios"][:] == [None, [files["clip"]]] and dataset["solution"][:] == ["Joy.", "Joy."]
    with pytest.raises(InputError, match=r"a needs .*none.wav, which is not there"):
        to_dataset([common | {"audios": ["none.wav"]}], ROOT, solution=False)
    both = {"query": "Why<audio>?", "videos": ["v"], "images": ["i"], "audios": ["a", "b"]}
    expected = [("video", "v"), ("audio", "a"), ("image", "i"), ("text", "Why"), ("audio", "b"), ("text", "?")]
    assert parts(both) == expected


def steps(tmp_path, folder, *more, **processes):
    """Two steps by first_stage.sh on rows with and without sound: (the rows' environment, losses, stage folder)."""
    data = tmp_path / "amt"
    if not data.is_dir():
        tiny_amt(data, sound=True)
    world = {"AMT_DATA": data, "AMT_MEDIA": data, "AMT_MIXTURES": data / "mixtures.yaml", "VIDEO_SEGMENTS": 2}
    flags = ["--torch_dtype", "float32", "--bf16", "false", "--max_steps", "2", "--save_steps", "2"]
    flags += ["--dataloader_num_workers", "2", "--report_to", "none", "--learning_rate", "0.01", "--logging_steps", "1"]
    flags += ["--per_device_train_batch_size", "3", *more]
    out = tmp_path / f"out{processes.get('NPROC_PER_NODE', 1)}"
    settings = {"CONFIG": "qwen2.5-omni", "MODEL": folder, "DATA": data, "OUTPUT": out, "OMP_NUM_THREADS": 1}
    environment = os.environ | {key: str(value) for key, value in (world | settings | processes).items()}
    command = ["bash", ROOT / "shell" / "first_stage.sh", *flags]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    log = [json.loads(line) for line in (out / "stage1" / "logging.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 2 and np.isfinite(losses).all()
    return world, losses, out / "stage1"


@pytest.mark.skipif(not find_spec("deepspeed"), reason="deepspeed is not installed: ZeRO is not tested")
def test_rows_without_sound_keep_up_with_zero3(tmp_path, folder):
    """One row a pass on each of two processes: who has no sound gathers the audio tower's weights with who has. Losses
    are those of one process to 1e-4, of 5.7: float32 sums are in another order, and the learning rate is high."""
    rows = ["--per_device_train_batch_size", "1", "--lora_dropout", "0", "--gradient_accumulation_steps"]
    _, alone, _ = steps(tmp_path, folder, *rows, "4")
    zero = ["--deepspeed", "zero3", "--external_plugins", ROOT / "tests" / "deepspeed_on_cpu.py"]
    settings = {"NPROC_PER_NODE": 2, "MASTER_PORT": free_port(), "RECORD": tmp_path / "rows"}
    _, shared, stage = steps(tmp_path, folder, *rows, "2", *zero, **settings)
    assert shared == pytest.approx(alone, rel=0, abs=1e-4) and (stage / "checkpoint-2" / "global_step2").is_dir()


def test_two_steps_and_answers_from_rows_with_sound(tmp_path, folder):
    """first_stage.sh, `swift infer`: the result rows list what was heard, and rows without sound are answered too."""
    world, _, stage = steps(tmp_path, folder, "--gradient_accumulation_steps", "2")
    data, config = world["AMT_DATA"], ROOT / "configs" / "qwen2.5-omni"
    trained = load_file(stage / "checkpoint-2" / "adapter_model.safetensors")
    ear = "thinker.audio_tower.proj.weight"
    assert not torch.equal(trained[f"base_model.model.{ear}"], load_file(folder / "model.safetensors")[ear])

    flags = ["--adapters", stage / "checkpoint-2", "--external_plugins", PLUGIN, "--torch_dtype", "float32"]
    flags += ["--max_new_tokens", "4", "--result_path", tmp_path / "result.jsonl"]
    swift("infer", config / "infer.yaml", *flags, cwd=tmp_path, **world)
    rows = [json.loads(line) for line in (tmp_path / "result.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * len(ROWS) and all(isinstance(one["response"], str) for one in rows)
    heard = [one for one in rows if one["audios"]]
    assert heard and all(path.startswith(str(data)) for one in heard for path in one["audios"])
    assert any(one["audios"] is None for one in rows)
    assert len(read_sound(heard[0]["audios"][0])) > 0
