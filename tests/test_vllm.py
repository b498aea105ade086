"""What vLLM is handed, against what transformers sees; vLLM itself needs a GPU and is not run.

`widened` does what vLLM 0.33 does with a prompt and its pictures (its models/interns1.py and multimodal/processing/).
"""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from swift.infer_engine import InferEngine, InferRequest
from transformers import AutoImageProcessor, AutoTokenizer

import swift_plugins.emoverse  # noqa: F401
from swift_plugins.answering import refused_by_vllm
from swift_plugins.files import InputError
from swift_plugins.internvl2 import KINDS, load_internvl2, load_tokenizer
from tests.conftest import ROOT, in_process
from tests.test_frames import write_clip
from tests.test_template import template_of
from tests.tiny_amt import tiny_amt
from tests.tiny_internvl2 import sentencepiece_checkpoint, tiny_checkpoint
from tests.warm_swift import swift

pytestmark = pytest.mark.swift
PLUGIN = ROOT / "swift_plugins" / "emoverse.py"
FOLDERS = {  # a tokenizer that knows bytes, and those that InternVL2-4B and 8B come with
    "phi3": (tiny_checkpoint, "phi3"),
    "phi3 pieces": (sentencepiece_checkpoint, "phi3"),
    "internlm2 pieces": (sentencepiece_checkpoint, "internlm2"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folders as shell/export.sh leaves them."""
    folders = {}
    for name, (write, kind) in FOLDERS.items():
        folder = tmp_path_factory.mktemp("vllm")
        source = write(folder / "source", kind)
        load_internvl2(source).save_pretrained(folder / "merged")
        load_tokenizer(source).save_pretrained(folder / "merged")
        done = in_process("-m", "swift_plugins.complete_export", folder / "merged")
        assert done.returncode == 0, done.stderr
        folders[name] = folder / "merged"
    return folders


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A picture, which is resized, and a clip."""
    folder = tmp_path_factory.mktemp("files")
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 4), np.uint8)
    Image.fromarray(pixels).save(folder / "face.png")
    return str(folder / "face.png"), str(write_clip(folder / "clip.mp4"))


def widened(folder, ids: list[int], pictures: list[Image.Image]) -> tuple[list[int], torch.Tensor | None]:
    """A prompt with the tokens of its pictures, and their pixels: each image token, in turn, becomes the ids of a text
    with as many image tokens as the folder's image processor makes tiles; other image tokens stay."""
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    length = json.loads((folder / "processor_config.json").read_text())["image_seq_length"]
    token, given, tiles, found = tokenizer.context_image_token, iter(pictures), [], []
    for one in ids:
        image = next(given, None) if one == tokenizer.context_image_token_id else None
        if image is None:
            found.append(one)
            continue
        tiles.append(processor(image, crop_to_patches=True, return_tensors="pt")["pixel_values"])
        between = token * (length * len(tiles[-1]))
        text = f"{tokenizer.start_image_token}{between}{tokenizer.end_image_token}"
        found += tokenizer.encode(text, add_special_tokens=False)
    assert next(given, None) is None, "a picture without a place"
    return found, torch.cat(tiles) if tiles else None


@pytest.mark.parametrize("chat", ["whole", "pieces"])
@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize(
    "query, pictures, clips",
    [
        ("Joy is shown. Then?", 0, 0),
        ("<image>What is shown?", 1, 0),
        ("<video>What is shown?", 0, 1),
        ("<image>\nWhat <image>is shown?\n<video>\n Be brief <video>", 2, 2),
    ],
    ids=["text", "image", "video", "all"],
)
def test_vllm_sees_the_ids_and_pixels_that_transformers_sees(
    exported, files, monkeypatch, name, query, pictures, clips, chat
):
    monkeypatch.setenv("CHAT_TOKENS", chat)
    picture, clip = files
    media = {"images": [picture] * pictures, "videos": [clip] * clips}
    answered = [{"role": "user", "content": "Be brief"}, {"role": "assistant", "content": "Joy"}]
    messages = [*answered, {"role": "user", "content": query}]
    plain, handed = (
        template_of(exported[name], mode).encode(InferRequest(messages, **media)) for mode in ("transformers", "vllm")
    )
    assert "pixel_values" not in handed and not handed.get("videos")
    assert len(handed.get("images", ())) == pictures + 8 * clips
    assert all(image.size == (56, 56) and image.mode == "RGB" for image in handed.get("images", ()))
    ids, pixels = widened(exported[name], handed["input_ids"], handed.get("images", []))
    assert ids == plain["input_ids"]
    if pixels is None:
        assert plain.get("pixel_values") is None
    else:
        assert torch.allclose(pixels, plain["pixel_values"], rtol=0, atol=1e-6)


def test_a_picture_that_vllm_could_not_write_is_refused(files, monkeypatch, tmp_path):
    """Pieces of a Phi-3 text start with `▁`, also between a picture's tokens where those are no special ones."""
    monkeypatch.setenv("CHAT_TOKENS", "pieces")
    folder = sentencepiece_checkpoint(tmp_path / "model", additional_special_tokens=None)
    with pytest.raises(InputError, match="leave CHAT_TOKENS at whole"):
        template_of(folder, "vllm").encode(InferRequest([{"role": "user", "content": "<image>?"}], images=[files[0]]))


@pytest.mark.parametrize("name", FOLDERS)
def test_answers_end_with_the_turn(exported, name):
    """ms-swift tells vLLM the stop words of the template."""
    template, end = template_of(exported[name], "vllm"), KINDS[FOLDERS[name][1]].end
    ends = InferEngine._get_stop_token_ids(
        SimpleNamespace(tokenizer=template.tokenizer), template.template_meta.stop_words
    )
    assert template.tokenizer.convert_tokens_to_ids(end) in ends


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder with a package of that name, so that only the other reasons are left."""
    (tmp_path / "site" / "vllm").mkdir(parents=True)
    (tmp_path / "site" / "vllm" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    importlib.invalidate_caches()
    return tmp_path / "site"


def test_without_vllm_the_command_ends_in_one_line(exported, tmp_path):
    flags = ["--model", exported["phi3"], "--model_type", "emoverse", "--infer_backend", "vllm"]
    log = swift("infer", *flags, "--external_plugins", PLUGIN, cwd=tmp_path, status=2)
    told = "error: --infer_backend vllm needs the package vllm and a GPU: pip install vllm, or leave the flag out"
    assert log.splitlines()[-1] == told and "Traceback" not in log


def test_an_exported_folder_is_taken(exported, installed):
    assert all(refused_by_vllm(["--model", str(folder)]) is None for folder in exported.values())
    assert refused_by_vllm(["--model=no/such/folder"]) is None, "ms-swift says what is wrong with it"


@pytest.mark.parametrize(
    ("file", "change", "settings", "message"),
    [
        (
            "config.json",
            {"model_type": "internvl_chat"},
            {},
            "is in the original layout; it takes what bash shell/e",
        ),
        ("config.json", {"model_type": "emotion_llama"}, {}, "vLLM knows no Emotion-LLaMA"),
        ("config.json", {"vision_feature_layer": -2}, {}, "takes another layer of the vision tower than its last"),
        ("tokenizer_config.json", {"auto_map": {}}, {}, "tokenizer_config.json names code (auto_map)"),
        ("preprocessor_config.json", None, {}, "lacks its processor: python -m swift_plugins.complete_export "),
        ("config.json", {}, {"MAX_NUM": "6"}, "MAX_NUM and VIDEO_MAX_NUM are to be 1"),
        ("config.json", {}, {"VIDEO_MAX_NUM": "2"}, "MAX_NUM and VIDEO_MAX_NUM are to be 1"),
    ],
)
def test_what_vllm_cannot_serve(exported, installed, tmp_path, monkeypatch, file, change, settings, message):
    for one in exported["phi3"].glob("*config.json"):
        (tmp_path / one.name).write_text(one.read_text())
    if change is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(json.dumps(json.loads((tmp_path / file).read_text()) | change))
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    said = refused_by_vllm(["swift", f"--model={tmp_path}"])
    assert said and said.startswith("--infer_backend vllm: ") and message in said and "\n" not in said


def test_an_adapter_is_to_be_merged(installed):
    said = refused_by_vllm(["--adapters", "out/stage2/checkpoint-9", "--model", "base"])
    assert said and said.startswith("--infer_backend vllm takes no adapter: bash shell/export.sh merges it")


def script(name, folder, **settings):
    command = ["bash", str(ROOT / "shell" / name), "--max_new_tokens", "2"]
    environment = os.environ | {"CONFIG": "demo", "OUTPUT": "out", "OMP_NUM_THREADS": "1"} | settings
    environment["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_scripts_answer_from_a_merged_folder_and_hand_on_the_backend(exported, tmp_path):
    data = tiny_amt(tmp_path / "amt")
    settings = {"DATA": str(data), "AMT_MEDIA": str(data), "MERGED": str(exported["phi3"])}
    done = script("test.sh", tmp_path, **settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "out" / "stage1.test.scores.json").is_file()
    for name in ("test.sh", "serve.sh"):
        done = script(name, tmp_path, **settings, BACKEND="vllm", RESULT="none.jsonl")
        assert done.returncode == 2 and "error: --infer_backend vllm needs the package vllm" in done.stderr
        assert "Traceback" not in done.stderr and not (tmp_path / "none.jsonl").exists()


@pytest.mark.parametrize("name", ["test.sh", "serve.sh"])
def test_a_backend_that_the_scripts_do_not_know(tmp_path, name):
    done = script(name, tmp_path, BACKEND="tgi", DATA=str(tmp_path))
    assert done.returncode == 2 and done.stderr == "error: BACKEND=tgi is neither transformers nor vllm\n"


def test_the_command_of_the_docs_counts_equal_answers(tmp_path):
    text = (ROOT / "docs" / "models.md").read_text("utf-8")
    (command,) = re.findall(r"^python -c .*$", text, re.M)
    _, *arguments, first, second = shlex.split(command)
    for file, answers in ((first, ["Joy.", "Anger."]), (second, ["Joy.", "Fear."])):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("".join(json.dumps({"response": answer}) + "\n" for answer in answers))
    done = subprocess.run(
        [sys.executable, *arguments, first, second], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 of 2 answers are equal\n"
