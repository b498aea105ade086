"""Features of Emotion-LLaMA's frozen encoders: what they compute, what a killed run leaves, how they are read."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import HubertModel, ViTMAEModel

from swift_plugins.emotion_llama import convert, encoders, streams
from swift_plugins.emotion_llama.encoders import frame_places, load, pool_frames, pool_sound
from swift_plugins.files import InputError
from tests.conftest import in_process
from tests.test_frames import numbers, write_clip
from tests.test_sound import write_sound
from tests.tiny_encoders import SIDE, WIDTH, tiny_encoder

ROOT = Path(__file__).resolve().parents[1]
NAMES = tuple(encoders.ENCODERS)
pytestmark = pytest.mark.slow


def command(name, model, rows, out, *flags, status=0, **env):
    what = ["--encoder", name, "--model", model, "--rows", rows, "--out", out, "--device", "cpu"]
    done = in_process("-m", "data_prep.features", *what, *flags, **env)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def contents(folder):
    """Everything below a folder but the journal, whose order a kill may change."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "clips.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write_rows(path, *rows):
    path.write_text("".join(json.dumps({"id": str(place), **row}) + "\n" for place, row in enumerate(rows)))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return {name: tiny_encoder(name, folder / name) for name in NAMES}


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Clips 0 to 3 (mute) with sounds of their own, two of them of one length, and pictures of the faces of two."""
    folder = tmp_path_factory.mktemp("media")
    lengths = (16_000, 16_000, 9_000, 50_000)
    rows = []
    for place, length in enumerate(lengths):
        tone = np.sin(np.arange(length) * 0.05 * (place + 1)) * 0.4
        write_sound(folder / f"s{place}.wav", tone)
        write_clip(folder / f"c{place}.mp4", 20 + 7 * place)
        rows.append({"videos": [f"c{place}.mp4"], "audios": [f"s{place}.wav"]})
    for clip, aligned in (("c0", ""), ("c1", "_aligned")):
        (folder / "faces" / f"{clip}{aligned}").mkdir(parents=True)
        for place in range(3):
            noise = np.random.default_rng(place).integers(0, 255, (40, 40, 3), np.uint8)
            Image.fromarray(noise).save(folder / "faces" / f"{clip}{aligned}" / f"frame_{place}.bmp")
    write_rows(folder / "rows.jsonl", *rows, rows[0])
    return folder


# ---- what is computed ----


def test_the_video_path_is_the_original_codes(shared, tmp_path, monkeypatch):
    golden = load_file(shared / "emotion_llama" / "emotion_llama_v2" / "golden.safetensors")
    told = json.loads((shared / "emotion_llama" / "emotion_llama_v2" / "golden.json").read_text())
    flags = ["--eva", shared / "emotion_llama" / "eva_vit_g.safetensors", "--heads", 4, "--out", tmp_path / "eva"]
    monkeypatch.setattr(sys, "argv", ["convert", "video", *map(str, flags)])
    convert.main()
    encoder = load("eva_video", tmp_path / "eva")
    assert encoder.shape == (1, 64, 32) and encoder.config.image_size == 28
    with torch.inference_mode():
        seen = encoder.model(golden["video_frames"]).last_hidden_state
    torch.testing.assert_close(seen, golden["video_forward"], atol=1e-5, rtol=0)
    torch.testing.assert_close(pool_frames(seen).reshape(1, 64, -1), golden["video_pooled"], atol=1e-5, rtol=0)
    wide = golden["pool_video_in"][0].flatten(1, 2)
    pooled = pool_frames(torch.cat([wide[:, :1], wide], 1)).reshape(1, 64, -1)
    torch.testing.assert_close(pooled, golden["pool_video_out"], atol=1e-5, rtol=0)
    for name in ("audio", "short"):
        pooled = pool_sound(golden[f"pool_{name}_in"])
        torch.testing.assert_close(pooled, golden[f"pool_{name}_out"], atol=1e-5, rtol=0)
    for count, places in told["frame_indices_seed42"].items():
        assert frame_places(int(count), "window") == places


def test_frames_are_of_the_whole_clip(models, media):
    assert frame_places(5) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4]
    assert frame_places(300)[0] == 0 and frame_places(300)[-1] == 299 and frame_places(300, "window")[-1] == 117
    encoder = load("eva_video", models["eva_video"])
    encoder.config.image_size = 160  # large enough to read the numbers that the frames show
    shown = encoder.read(media / "c3.mp4").value
    bars = [Image.fromarray(frame).resize((128, 64)) for frame in shown]
    assert len(set(numbers(bars))) == 16


def test_encoders_are_the_models_of_transformers(models, media):
    """Each against the model called by hand on what was read."""
    hubert, heard = load("hubert", models["hubert"]), HubertModel.from_pretrained(models["hubert"]).eval()
    value = hubert.read(media / "s0.wav").value
    assert abs(value.mean()) < 1e-4 and abs(value.std() - 1) < 1e-3, "normalised as the folder says"
    with torch.inference_mode():
        expected = heard(torch.from_numpy(value)[None]).last_hidden_state.mean(1)[0].numpy()
    np.testing.assert_allclose(hubert.encode([value])[0], expected, atol=1e-6)
    # A picture more or another order of them: the mean alone.
    face = load("face", models["face"])
    pictures = face.read(media / "faces" / "c0").value
    (feature,), (turned,) = face.encode([pictures]), face.encode([pictures[::-1]])
    np.testing.assert_allclose(feature, turned, atol=1e-5)
    model = ViTMAEModel.from_pretrained(models["face"], mask_ratio=0.0).eval()
    pixels = (torch.from_numpy(pictures).float() / 255 - torch.tensor(face.processor.image_mean)[:, None, None]) / (
        torch.tensor(face.processor.image_std)[:, None, None]
    )
    with torch.inference_mode():
        expected = model(pixels).last_hidden_state[:, 1:].mean((0, 1)).numpy()  # shuffled at random: the same mean
    np.testing.assert_allclose(feature, expected, atol=1e-5)


def test_a_batch_of_several_is_each_alone(models, media):
    """Sounds of one length go together, others by themselves: no padding is heard."""
    for name, files in (
        ("hubert", "s{}.wav"),
        ("whisper", "s{}.wav"),
        ("videomae", "c{}.mp4"),
        ("eva_video", "c{}.mp4"),
    ):
        encoder = load(name, models[name])
        values = [encoder.read(media / files.format(place)).value for place in (0, 2, 1)]
        together = encoder.encode(values)
        assert all(feature.shape == encoder.shape for feature in together)
        for feature, value in zip(together, values, strict=True):
            np.testing.assert_allclose(feature, encoder.encode([value])[0], atol=2e-6)
        assert not np.allclose(together[0], together[2], atol=1e-3), "clips are told apart"


def test_short_and_long_sounds(models, tmp_path, media):
    hubert, whisper = load("hubert", models["hubert"]), load("whisper", models["whisper"])
    assert hubert.window == 400
    short = write_sound(tmp_path / "short.wav", np.full(300, 0.1))
    assert hubert.read(short).value.shape == (400,) and hubert.read(short).note == "padded"
    assert np.isfinite(hubert.encode([hubert.read(short).value])[0]).all()
    assert whisper.read(media / "s3.wav").note == "cut" and whisper.read(media / "s0.wav").note == ""
    said = command(
        "hubert", models["hubert"], write_rows(tmp_path / "r.jsonl", {"audios": ["short.wav"]}), tmp_path / "o"
    )
    assert "1 shorter than one window of the encoder, zeros at their end" in said.stdout


def test_digests_are_of_what_is_computed(models, tmp_path):
    """Weights, settings and precision; not how they are stored."""
    digest = load("hubert", models["hubert"]).digest
    HubertModel.from_pretrained(models["hubert"]).save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    shutil.copy(models["hubert"] / "preprocessor_config.json", tmp_path / "shards")
    assert load("hubert", tmp_path / "shards").digest == digest
    assert load("hubert", models["hubert"], torch.float16).digest != digest
    assert load("hubert", tiny_encoder("hubert", tmp_path / "other", 1)).digest != digest
    told = json.loads((tmp_path / "shards" / "preprocessor_config.json").read_text()) | {"do_normalize": False}
    (tmp_path / "shards" / "preprocessor_config.json").write_text(json.dumps(told))
    assert load("hubert", tmp_path / "shards").digest != digest


# ---- the command ----


@pytest.mark.parametrize("name", NAMES)
def test_features_of_rows(models, media, tmp_path, name):
    """Every clip once, as a model would compute it; a second run makes nothing."""
    flags = ["--faces", media / "faces"] if name == "face" else []
    done = command(name, models[name], media / "rows.jsonl", tmp_path, "--jobs", 0, *flags)
    have = 2 if name == "face" else 4
    assert f"{have} of 4 clips have features of {name}: AMT_FEATURES={tmp_path}" in done.stdout
    assert f"of 5 rows have features: {name} {3 if name == 'face' else 5}" in done.stdout
    manifest = streams.read_manifest(tmp_path, name)
    encoder = load(name, models[name])
    assert (manifest.digest, manifest.rule, tuple(manifest.shape)) == (encoder.digest, encoder.rule, encoder.shape)
    clip = media / ("s1.wav" if encoder.hears else "c1.mp4")
    feature = streams.read_stream(tmp_path, name, clip)
    assert feature.dtype == np.float32 and feature.shape == encoder.shape and feature.std() > 1e-3
    source = media / "faces" / "c1_aligned" if name == "face" else clip
    assert (feature == streams.compute_stream(encoder, source)).all(), "what is computed when serving is the same"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    command(name, models[name], media / "rows.jsonl", tmp_path, "--jobs", 0, *flags)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == before and len(before) == have
    if name == "face":
        report = json.loads((tmp_path / "face" / "report.json").read_text())
        assert [*report["no_faces"]] == [str(media / "c2.mp4"), str(media / "c3.mp4")]


def test_processes_give_the_same_bytes(models, media, tmp_path):
    for name, jobs in (("alone", 0), ("two", 2)):
        command("eva_video", models["eva_video"], media / "rows.jsonl", tmp_path / name, "--jobs", jobs)
    assert contents(tmp_path / "alone") == contents(tmp_path / "two")


def test_killed_and_run_again(models, tmp_path):
    """SIGKILL in the middle: nothing is half there, and the same command ends with the bytes of a run in one piece."""
    rows = []
    for place in range(24):
        length = 8_000 + 1_000 * (place // 2)  # pairs of one length, groups of three: one of a group may be alone
        write_sound(tmp_path / f"s{place}.wav", np.random.default_rng(place).normal(0, 0.2, length).clip(-1, 1))
        rows.append({"audios": [f"s{place}.wav"]})
    file = write_rows(tmp_path / "rows.jsonl", *rows)
    flags = ["--model", models["hubert"], "--rows", file, "--batch", 3, "--jobs", 1, "--device", "cpu"]
    run = [sys.executable, "-m", "data_prep.features", "--encoder", "hubert", *map(str, flags), "--out"]
    out = tmp_path / "killed" / "hubert"
    with subprocess.Popen([*run, tmp_path / "killed"], env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        while len([*out.glob("s*.npy")]) < 4 and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    there = [*out.glob("s*.npy")]
    assert 0 < len(there) < 24, "the kill was in the middle"
    assert all(np.load(path).shape == (WIDTH,) for path in there)
    for name in ("killed", "whole"):
        command("hubert", models["hubert"], file, tmp_path / name, "--batch", 3, "--jobs", 0)
    left = contents(tmp_path / "killed")
    assert left == contents(tmp_path / "whole") and len(left) == 26 and ".part.npy" not in left


def test_ray_cluster_gives_the_same_files(models, media, tmp_path):
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    flags = [
        "--encoder",
        "eva_video",
        "--model",
        models["eva_video"],
        "--rows",
        media / "rows.jsonl",
        "--device",
        "cpu",
    ]
    run = [sys.executable, "-m", "data_prep.features", *map(str, flags), "--backend", "ray", "--out", tmp_path / "ray"]
    node = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=node)
    try:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": cluster.address}
        done = subprocess.run(run, env=environment, capture_output=True, text=True, cwd=Path.home())
    finally:
        cluster.shutdown()
    assert done.returncode == 0, done.stderr
    command("eva_video", models["eva_video"], media / "rows.jsonl", tmp_path / "here", "--jobs", 0)
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")


def test_clips_without_sound_and_broken_ones(models, media, tmp_path):
    """The one is counted and is zeros, the other is named and the status is 1; the rest is there."""
    (tmp_path / "broken.wav").write_text("no sound at all")
    clips = [{"videos": [str(media / "c0.mp4")]}, {"audios": ["broken.wav"]}, {"audios": [str(media / "s0.wav")]}]
    rows = write_rows(tmp_path / "rows.jsonl", *clips, {"audios": ["missing.wav"]}, {"images": ["x.png"]})
    done = command("hubert", models["hubert"], rows, tmp_path / "out", "--jobs", 0, status=1)
    assert "1 of 4 clips have features of hubert" in done.stdout
    assert f"1 without sound (zeros in training): {media / 'c0.mp4'}\n" in done.stdout
    assert "of 5 rows have features: hubert 1\n" in done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split(":")[1].strip() for line in errors] == [
        str(tmp_path / name) for name in ("broken.wav", "missing.wav")
    ]
    assert [path.name for path in (tmp_path / "out").rglob("*.npy")] == ["s0.npy"]
    assert streams.read_stream(tmp_path / "out", "hubert", media / "c0.mp4") is None
    assert streams.compute_stream(load("hubert", models["hubert"]), media / "c0.mp4") is None
    assert streams.read_stream(tmp_path / "out", "whisper", media / "c0.mp4") is None
    shutil.copy(media / "s1.wav", tmp_path / "broken.wav")  # repaired: the same command takes what was missing
    shutil.copy(media / "s2.wav", tmp_path / "missing.wav")
    assert "3 of 4 clips" in command("hubert", models["hubert"], rows, tmp_path / "out", "--jobs", 0).stdout


def test_clips_of_the_same_name(models, media, tmp_path):
    """Refused with both names, in one run or in two; told apart by more of their paths."""
    for place, folder in enumerate(("train", "dev")):
        (tmp_path / folder).mkdir()
        shutil.copy(media / f"s{2 * place}.wav", tmp_path / folder / "a.wav")
    one, other = tmp_path / "train" / "a.wav", tmp_path / "dev" / "a.wav"
    both = write_rows(tmp_path / "both.jsonl", {"audios": [str(one)]}, {"audios": [str(other)]})
    said = command("hubert", models["hubert"], both, tmp_path / "out", "--jobs", 0, status=2).stderr
    assert said == f"error: {one}: and {other} would both be a.npy: --parts 2 tells them apart\n"
    assert not (tmp_path / "out").exists()
    command("hubert", models["hubert"], both, tmp_path / "two", "--jobs", 0, "--parts", 2)
    heard = [
        streams.read_stream(tmp_path / "two", "hubert", path) for path in (one, other, tmp_path / "test" / "a.wav")
    ]
    assert not np.allclose(heard[0], heard[1]) and heard[2] is None
    for path, status in ((one, 0), (other, 2)):
        rows = write_rows(tmp_path / "rows.jsonl", {"audios": [str(path)]})
        said = command("hubert", models["hubert"], rows, tmp_path / "out", "--jobs", 0, status=status).stderr
    assert said == f"error: {one}: and {other} would both be a.npy: --parts 2 tells them apart\n"
    one.rename(tmp_path / "dev" / "b.wav")  # the clip that had the name is gone: it is the other's now
    command("hubert", models["hubert"], rows, tmp_path / "out", "--jobs", 0)
    assert (streams.read_stream(tmp_path / "out", "hubert", other) == heard[1]).all()


def test_a_replaced_clip_is_read_again(models, media, tmp_path):
    shutil.copy(media / "s0.wav", tmp_path / "a.wav")
    rows = write_rows(tmp_path / "rows.jsonl", {"audios": ["a.wav"]})
    command("hubert", models["hubert"], rows, tmp_path / "out", "--jobs", 0)
    before = streams.read_stream(tmp_path / "out", "hubert", "a.wav")
    shutil.copy(media / "s1.wav", tmp_path / "a.wav")
    command("hubert", models["hubert"], rows, tmp_path / "out", "--jobs", 0)
    assert not np.allclose(streams.read_stream(tmp_path / "out", "hubert", "a.wav"), before)


def test_the_sound_track_of_a_clip_counts(models, media, tmp_path):
    """A row without a sound of its own is heard by its clip."""
    write_sound(tmp_path / "clip.mkv", np.sin(np.arange(16_000) * 0.05) * 0.4)
    rows = write_rows(tmp_path / "rows.jsonl", {"videos": ["clip.mkv"]})
    command("hubert", models["hubert"], rows, tmp_path / "out", "--jobs", 0)
    heard = streams.compute_stream(load("hubert", models["hubert"]), media / "s0.wav")
    np.testing.assert_allclose(streams.read_stream(tmp_path / "out", "hubert", "clip.mp4"), heard, atol=1e-5)


def test_rows_of_a_folder_and_its_media_root(models, media, tmp_path):
    (tmp_path / "report.train.json").write_text(json.dumps({"media_root": os.path.relpath(media, tmp_path)}))
    write_rows(tmp_path / "a.mer.train.jsonl", {"videos": ["c0.mp4"]})
    write_rows(tmp_path / "a.mer.test.jsonl", {"videos": ["c1.mp4"]})
    assert "2 of 2 clips" in command("videomae", models["videomae"], tmp_path, tmp_path / "out", "--jobs", 0).stdout


# ---- what is refused ----


def test_a_folder_of_others_is_refused(models, media, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", {"audios": [str(media / "s0.wav")]})
    command("hubert", models["hubert"], rows, tmp_path / "out", "--jobs", 0)
    before = contents(tmp_path / "out")
    other = tiny_encoder("hubert", tmp_path / "other", seed=1)
    for model, flags, said in (
        (other, [], "(other weights, of "),
        (models["hubert"], ["--dtype", "bfloat16"], "(computed_in 'float32', of "),
        (models["hubert"], ["--parts", "2"], "(parts 1, of "),
    ):
        refused = command("hubert", model, rows, tmp_path / "out", *flags, status=2).stderr
        assert "holds features of another kind " + said in refused and refused.count("\n") == 1
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    "name, model, flags, said",
    [
        ("hubert", "whisper", [], "config.json: is a model of type 'whisper', and hubert is needed"),
        ("hubert", "hubert", ["--faces", "."], "--faces DIR belongs to --encoder face"),
        ("face", "face", [], "--faces DIR belongs to --encoder face"),
        ("hubert", "hubert", ["--device", "nowhere"], "--device nowhere: no such device"),
        ("hubert", "hubert", ["--batch", "0"], "--parts and --batch are 1 or more"),
        ("hubert", "hubert", ["--backend", "ray"], "no Ray cluster to use"),
        ("hubert", "none", [], "config.json: no such file"),
    ],
)
def test_bad_options(models, media, tmp_path, name, model, flags, said):
    model = models.get(model, tmp_path / "none")
    done = command(name, model, media / "rows.jsonl", tmp_path / "out", *flags, status=2, RAY_ADDRESS="127.0.0.1:1")
    assert said in done.stderr and done.stderr.count("\n") == 1 and not [*tmp_path.rglob("*.npy")]


@pytest.mark.parametrize(
    "file, text, status, said",
    [
        ("rows.jsonl", '{"audios": "s0.wav"}', 2, "rows.jsonl:1: audios is not a list"),
        ("rows.jsonl", '{"audios": [7]}', 2, "rows.jsonl:1: audios is not a list of paths"),
        ("rows.jsonl", "[]", 2, "rows.jsonl:1: holds a list where a JSON object is expected"),
        ("rows.jsonl", "", 2, "none of 0 rows names a file that hubert could read"),
        ("rows.jsonl", '{"audios": ["/"]}', 1, "its sound cannot be decoded"),
        ("rows.jsonl", '{"audios": ["a\\u0000b.wav"]}', 2, "rows.jsonl:1: audios is not a list of paths"),
        ("rows.jsonl", '{"audios": ["missing.wav"]}', 1, "missing.wav: its sound cannot be decoded"),
        ("out/hubert/manifest.json", '{"encoder": 7}', 2, "manifest.json: encoder: Input should be a valid string"),
        ("out/hubert/manifest.json", "x", 2, "manifest.json:1: is not JSON"),
        ("out/hubert/clips.jsonl", '{"key": []}\n', 0, ""),  # a line that says nothing: made again
        ("out/hubert/clips.jsonl", "x\n", 2, "clips.jsonl:1: is not a line of a journal"),
    ],
)
def test_bad_files_are_named(models, media, tmp_path, file, text, status, said):
    rows = write_rows(tmp_path / "rows.jsonl", {"audios": [str(media / "s0.wav")]})
    command("hubert", models["hubert"], rows, tmp_path / "out", "--jobs", 0)
    before = contents(tmp_path / "out")
    (tmp_path / file).write_text(text)
    done = command("hubert", models["hubert"], rows, tmp_path / "out", "--jobs", 0, status=status)
    assert said in done.stderr and done.stderr.count("\n") <= 1
    left = {name: data for name, data in contents(tmp_path / "out").items() if name.endswith(".npy")}
    assert left == {name: data for name, data in before.items() if name.endswith(".npy")}


def test_a_model_that_lacks_weights_is_refused(models, tmp_path):
    """Transformers would fill them at random."""
    from safetensors.torch import save_file

    shutil.copytree(models["eva_video"], tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["encoder.layers.1.mlp.fc1.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights of Blip2VisionModel \(encoder.layers.1.mlp.fc1.weight"):
        load("eva_video", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickles, which are not read"):
        load("eva_video", tmp_path / "model")


def test_pictures_of_another_size_are_refused(models, tmp_path):
    folder = shutil.copytree(models["videomae"], tmp_path / "videomae")
    size = {"crop_size": {"height": SIDE * 2, "width": SIDE * 2}, "size": {"shortest_edge": SIDE * 2}}
    (folder / "preprocessor_config.json").write_text(json.dumps(size))
    with pytest.raises(InputError, match="makes pictures of"):
        load("videomae", folder)


def write_npy(path, array, **options):
    np.save(path, array, **options)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda path: write_npy(path, np.full(WIDTH, np.nan, np.float32)), "holds numbers that are not finite"),
        (lambda path: write_npy(path, np.zeros((1, 7), np.float32)), r"is \[1, 7\] of float32, not \[32\] of float32"),
        (lambda path: write_npy(path, np.zeros(WIDTH)), r"is \[32\] of float64, not \[32\] of float32"),
        (lambda path: write_npy(path, np.array([{}] * WIDTH), allow_pickle=True), "is no array of numbers"),
        (lambda path: path.write_bytes(path.read_bytes()[:150]), "is no array of numbers"),
        (lambda path: path.write_bytes(b""), "is no array of numbers"),
        (lambda path: np.savez(path.open("wb"), x=np.zeros(WIDTH)), "is an archive"),
        (lambda path: path.with_name("manifest.json").unlink(), "holds features without a manifest.json"),
        (lambda path: path.with_name("manifest.json").write_text("{}"), "manifest.json: encoder: missing key"),
    ],
)
def test_bad_features_are_named(models, media, tmp_path, spoil, said):
    rows = write_rows(tmp_path / "rows.jsonl", {"audios": [str(media / "s0.wav")]})
    command("hubert", models["hubert"], rows, tmp_path, "--jobs", 0)
    spoil(tmp_path / "hubert" / "s0.npy")
    with pytest.raises(InputError, match=said) as refused:
        streams.read_stream(tmp_path, "hubert", media / "s0.wav")
    assert str(refused.value).startswith(f"{tmp_path / 'hubert'}") and "\n" not in str(refused.value)


def test_features_of_another_encoder_or_width_are_refused(models, media, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", {"audios": [str(media / "s0.wav")]})
    command("whisper", models["whisper"], rows, tmp_path, "--jobs", 0)
    stored = streams.read_stream(tmp_path, "whisper", "s0.wav")
    assert (streams.read_stream(tmp_path, "whisper", "s0.wav", (64, WIDTH)) == stored[0]).all()
    with pytest.raises(InputError, match=re.escape("is [1, 64, 32] where the model takes [64, 40]")):
        streams.read_stream(tmp_path, "whisper", "s0.wav", (64, 40))
    (tmp_path / "whisper").rename(tmp_path / "hubert")
    with pytest.raises(InputError, match="is of features of whisper, in the folder of hubert"):
        streams.read_stream(tmp_path, "hubert", "s0.wav")


def test_encoders_of_serving(models, media, tmp_path):
    """A folder with the encoders; other weights than those of what was prepared are not mixed with it."""
    root = models["hubert"].parent
    assert streams.serving_encoder(root, "hubert") is streams.serving_encoder(root, "hubert")
    assert streams.serving_encoder(tmp_path, "hubert") is None and streams.serving_encoder(root, "face") is None
    command(
        "eva_video", models["eva_video"], media / "rows.jsonl", tmp_path / "out", "--jobs", 0, "--frame-rule", "window"
    )
    encoder = streams.serving_encoder(root, "eva_video", tmp_path / "out")
    prepared = streams.read_stream(tmp_path / "out", "eva_video", media / "c3.mp4")
    for clip in (media / "c3.mp4", (media / "c3.mp4").read_bytes()):
        np.testing.assert_allclose(streams.compute_stream(encoder, clip), prepared, atol=1e-5)
    tiny_encoder("eva_video", tmp_path / "others" / "eva_video", seed=1)
    with pytest.raises(InputError, match="is another encoder than that of"):
        streams.serving_encoder(tmp_path / "others", "eva_video", tmp_path / "out")
