"""What a row becomes: chat text as InternVL2 wrote it, tiles, frames, and the right format for the checkpoint."""

import base64
import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from swift.infer_engine import InferRequest, RequestConfig, TransformersEngine
from swift.model import get_model_processor
from swift.template import get_template
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, pipeline

import swift_plugins.emoverse  # noqa: F401
from swift_plugins.answering import AnsweringEngine
from swift_plugins.files import InputError
from swift_plugins.frames import sample_frames
from swift_plugins.internvl2 import KINDS, LAYOUTS, load_internvl2, load_tokenizer
from swift_plugins.media_cache import GB, MediaCache
from tests.conftest import in_process
from tests.test_frames import write_clip
from tests.tiny_backbones import tiny_backbone
from tests.tiny_internvl2 import tiny_checkpoint
from tests.warm_swift import swift

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "swift_plugins" / "emoverse.py"
SHARED = Path(os.environ.get("EMOVERSE_SHARED", ROOT.parent / "shared")) / "data" / "internvl2"
GOLDEN = {"phi3": SHARED / "tiny-internvl2-4b", "internlm2": SHARED / "tiny-internvl2-8b"}
SYSTEM = "You are an sentiment and emotion analysis expert."
CONTEXT = "<IMG_CONTEXT>"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return {kind: tiny_checkpoint(tmp_path_factory.mktemp(kind), kind) for kind in LAYOUTS}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A checkpoint of the published picture size."""
    return tiny_checkpoint(tmp_path_factory.mktemp("448"), "phi3", side=448)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4"))


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "peak.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)).save(path)
    return str(path)


def template_of(folder, mode="train", **options):
    processor = get_model_processor(str(folder), model_type="emoverse", torch_dtype=torch.float32, load_model=False)[1]
    template = get_template(processor, **options)
    template.set_mode(mode)
    return template


def row(query, response="Joy.", system=None, **media):
    messages = [{"role": "user", "content": query}, {"role": "assistant", "content": response}]
    return {"messages": ([{"role": "system", "content": system}] if system else []) + messages, **media}


def text(template, encoded):
    return template.tokenizer.decode(encoded["input_ids"])


def picture_text(tokens=4):
    return f"<img>{CONTEXT * tokens}</img>\n"


def video_text(frames=8, tokens=4):
    return "".join(f"Frame{i + 1}: {picture_text(tokens)}" for i in range(frames))


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"golden inputs of the original code not at {SHARED}")
@pytest.mark.parametrize("kind", LAYOUTS)
def test_ids_and_labels_are_the_original_ones(kind, picture):
    golden = np.load(GOLDEN[kind] / "golden.npz")
    template = template_of(GOLDEN[kind])
    tokenizer, real = template.tokenizer, golden["train/attention_mask"][0].astype(bool)
    answer = golden["train/labels"][0]
    response = tokenizer.decode(answer[answer >= 0][:-1])
    question = "<image>What emotion is shown in the image?"
    encoded = template.encode(row(question, response, "You are a helpful AI assistant.", images=[picture]))
    assert encoded["input_ids"] == golden["train/input_ids"][0][real].tolist()
    assert encoded["labels"] == answer[real].tolist()


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """Folders as shell/export.sh leaves them."""
    folders = {}
    for kind, source in checkpoint.items():
        folders[kind] = tmp_path_factory.mktemp("exported") / kind
        load_internvl2(source).save_pretrained(folders[kind])
        load_tokenizer(source).save_pretrained(folders[kind])
        done = in_process("-m", "swift_plugins.complete_export", folders[kind])
        assert done.returncode == 0, done.stderr
    return folders


@pytest.mark.parametrize("kind", LAYOUTS)
def test_exports_name_the_tokens_of_the_stock_processor(exported, kind):
    """Under the names that transformers' InternVL processor asks for, and none of them new to the model."""
    tokenizer, config = AutoTokenizer.from_pretrained(exported[kind]), AutoConfig.from_pretrained(exported[kind])
    assert (tokenizer.start_image_token, tokenizer.end_image_token) == ("<img>", "</img>")
    assert tokenizer.context_image_token == CONTEXT
    assert len(tokenizer) == len(load_tokenizer(exported[kind])) == config.text_config.vocab_size
    media = [{"type": "image"}, {"type": "video"}, {"type": "text", "text": "?"}]
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": media}], tokenize=False)
    assert f"{CONTEXT}\n{tokenizer.video_token}\n?" in prompt


@pytest.mark.skipif(not importlib.util.find_spec("torchvision"), reason="transformers' own processors need torchvision")
@pytest.mark.parametrize("kind", LAYOUTS)
def test_stock_processor_and_pipeline_on_an_export(exported, kind, picture, clip):
    """The same ids, the same answer; pixels within two grey levels, because torchvision resizes them, not PIL."""
    folder, query = exported[kind], {"type": "text", "text": "What is felt?"}
    processor, template = AutoProcessor.from_pretrained(folder), template_of(folder, "transformers")
    frames = np.stack([np.asarray(frame.convert("RGB")) for frame in sample_frames(clip, 8)])
    media = {"video": (clip, {"videos": [frames]}), "image": (picture, {"images": [Image.open(picture)]})}
    for name, (path, given) in media.items():
        request = InferRequest([{"role": "user", "content": f"<{name}>{query['text']}"}], **{f"{name}s": [path]})
        system = {"role": "system", "content": [{"type": "text", "text": SYSTEM}]}
        chat = [system, {"role": "user", "content": [{"type": name, "path": path}, query]}]
        prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
        stock = processor(text=prompt, return_tensors="pt", **given)
        ours = template.encode(request)
        assert stock["input_ids"][0].tolist() == ours["input_ids"], name
        assert torch.allclose(stock["pixel_values"], ours["pixel_values"], rtol=0, atol=0.036), name

    options = {"max_new_tokens": 8, "do_sample": False}  # the last request is that of a picture
    answers = pipeline("image-text-to-text", model=str(folder), dtype=torch.float32)
    (said,) = answers(text=chat, return_full_text=False, **options)
    ids = torch.tensor([ours["input_ids"]])
    expected = answers.model.generate(input_ids=ids, pixel_values=ours["pixel_values"], **options)[0, ids.shape[1] :]
    assert said["generated_text"] == processor.tokenizer.decode(expected, skip_special_tokens=True)


CHAT = {
    "phi3": "<|system|>\n{system}<|end|><|user|>\n{query}<|end|><|assistant|>\n{response}<|end|>",
    "internlm2": "<s><|im_start|>system\n{system}<|im_end|><|im_start|>user\n{query}<|im_end|>"
    "<|im_start|>assistant\n{response}<|im_end|>",
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_mix_of_media(checkpoint, kind, picture, clip):
    template = template_of(checkpoint[kind])
    assert template.template_meta.template_type == KINDS[kind].template
    image, video = picture_text(), video_text()
    cases = [  # query, media, what the query becomes, pictures
        ("Just text.", {}, "Just text.", 0),
        ("<image>Face?", {"images": [picture]}, f"{image}Face?", 1),
        ("Face?", {"images": [picture]}, f"{image}Face?", 1),  # a missing tag goes to the front
        ("<video>Clip?", {"videos": [clip]}, f"{video}Clip?", 8),
        ("One <video> two <video>?", {"videos": [clip, clip]}, f"One {video} two {video}?", 16),
        ("<image>a<image>b", {"images": [picture] * 2}, f"{image}a{image}b", 2),
        ("<video>a<image>b", {"videos": [clip], "images": [picture]}, f"{video}a{image}b", 9),
        ("<image>a<video>b", {"videos": [clip], "images": [picture]}, f"{image}a{video}b", 9),
    ]
    for query, media, expected, pictures in cases:
        encoded = template.encode(row(query, **media))
        assert text(template, encoded) == CHAT[kind].format(system=SYSTEM, query=expected, response="Joy."), query
        trained = [token for token in encoded["labels"] if token != -100]
        assert template.tokenizer.decode(trained) == "Joy." + KINDS[kind].end
        pixels = encoded.get("pixel_values")
        assert (0 if pixels is None else len(pixels)) == pictures


@pytest.mark.parametrize("kind", LAYOUTS)
def test_several_turns_and_another_system(checkpoint, kind):
    template = template_of(checkpoint[kind], default_system="Be brief.")
    messages = [*row("a", "b")["messages"], *row("c", "d")["messages"]]
    first = CHAT[kind].format(system="Be brief.", query="a", response="b")
    second = CHAT[kind].format(system="", query="c", response="d").split(KINDS[kind].end, 1)[1]
    assert text(template, template.encode({"messages": messages})) == first + second


def test_internvl3_in_hugging_face_format(tmp_path, picture):
    """ChatML with its line breaks, the same system turn, a 448-pixel tile."""
    template = template_of(tiny_backbone(tmp_path, "internvl3.5-hf"))
    encoded = template.encode(row("<image>?", images=[picture]))
    turns = [f"system\n{SYSTEM}", f"user\n{picture_text(256)}?", "assistant\nJoy."]
    assert text(template, encoded) == "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns)
    assert encoded["pixel_values"].shape == (1, 3, 448, 448)


@pytest.mark.parametrize("name, tokens", [("qwen2.5-vl", 256), ("qwen3-vl", 196)])
def test_other_backbones_see_the_same_pictures(tmp_path, picture, clip, name, tokens):
    """Frames of a clip are numbered pictures of 448 pixels there too; several clips and pictures keep their order."""
    model_type = "emoverse_" + name.replace("-", "_").replace(".", "_")
    folder = str(tiny_backbone(tmp_path, name))
    processor = get_model_processor(folder, model_type=model_type, torch_dtype=torch.float32, load_model=False)[1]
    template = get_template(processor, default_system=SYSTEM, max_length=8192)
    template.set_mode("train")
    encoded = template.encode(row("<video>a<image>b<video>c", videos=[clip] * 2, images=[picture]))
    seen = f"<|vision_start|>{'<|image_pad|>' * tokens}<|vision_end|>"
    video = "".join(f"Frame{i + 1}: {seen}\n" for i in range(8))
    turns = [f"system\n{SYSTEM}", f"user\n{video}a{seen}b{video}c", "assistant\nJoy."]
    assert text(template, encoded) == "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns)
    grid = 448 // (14 if name == "qwen2.5-vl" else 16)
    assert encoded["image_grid_thw"].tolist() == [[1, grid, grid]] * 17


def test_published_size(large, picture, clip):
    """One 448-pixel tile of 256 tokens a picture, 2,048 tokens a clip; pixels as InternVL2's transform gives them."""
    template = template_of(large)
    encoded = template.encode(row("<image>?", images=[picture]))
    assert encoded["input_ids"].count(template.config.image_token_id) == 256
    pixels = np.asarray(Image.open(picture).convert("RGB").resize((448, 448), Image.Resampling.BICUBIC))
    pixels = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert encoded["pixel_values"].shape == (1, 3, 448, 448)
    assert np.abs(encoded["pixel_values"][0].permute(1, 2, 0).numpy() - pixels).max() < 1e-5
    encoded = template.encode(row("<video>?", videos=[clip]))
    assert encoded["input_ids"].count(template.config.image_token_id) == 2048
    first = np.asarray(sample_frames(clip, 8)[0].resize((448, 448), Image.Resampling.BICUBIC))
    first = (first / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.abs(encoded["pixel_values"][0].permute(1, 2, 0).numpy() - first).max() < 1e-5


@pytest.mark.parametrize(
    "settings, image_tiles, frames, frame_tiles",
    [
        ({"VIDEO_SEGMENTS": "4"}, 1, 4, 1),
        ({"NUM_SEGMENTS": "3"}, 1, 3, 1),
        ({"MAX_NUM": "6"}, 7, 8, 1),  # 90 x 60 is cut into 3 x 2 tiles and a thumbnail
        ({"VIDEO_MAX_NUM": "4", "VIDEO_SEGMENTS": "2"}, 1, 2, 4),  # 112 x 32: 3 x 1 and a thumbnail
    ],
)
def test_frames_and_tiles_from_the_environment(
    checkpoint, picture, clip, monkeypatch, settings, image_tiles, frames, frame_tiles
):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    template = template_of(checkpoint["phi3"], max_length=4096)
    encoded = template.encode(row("<image><video>", images=[picture], videos=[clip]))
    expected = picture_text(4 * image_tiles) + video_text(frames, 4 * frame_tiles)
    assert text(template, encoded) == CHAT["phi3"].format(system=SYSTEM, query=expected, response="Joy.")
    assert len(encoded["pixel_values"]) == image_tiles + frames * frame_tiles


@pytest.mark.parametrize("size", [(60, 90), (448, 448), (1280, 720), (1, 300)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_one_tile_is_what_the_image_processor_makes(large, size, mode):
    template = template_of(large)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 4), np.uint8)).convert(mode)
    settings = {"do_rescale": False, "do_normalize": False, "return_tensors": "pt"}
    expected = template.image_processor(image, **settings)["pixel_values"]
    assert expected.shape == (1, 3, 448, 448) and template._tiles(image).equal(expected)


def test_no_frames_is_no_setting(checkpoint, monkeypatch):
    monkeypatch.setenv("VIDEO_SEGMENTS", "0")
    with pytest.raises(ValueError, match="VIDEO_SEGMENTS must be 1 or more"):
        template_of(checkpoint["phi3"])


def test_video_as_path_bytes_or_url(checkpoint, clip):
    """Rows name a file; `swift deploy` hands over what the client sent."""
    template = template_of(checkpoint["phi3"])
    content = Path(clip).read_bytes()
    encoded = base64.b64encode(content).decode()
    forms = [clip, content, {"bytes": content, "path": None}, {"bytes": None, "path": clip}]
    forms += [f"data:video/mp4;base64,{encoded}", encoded]
    reference = template.encode(row("<video>", videos=[clip]))
    for form in forms:
        assert torch.equal(template.encode(row("<video>", videos=[form]))["pixel_values"], reference["pixel_values"])


@pytest.mark.parametrize("video", ["no/such/clip.mp4", "data:video/mp4;base64,AAAA", b"no video"])
def test_a_broken_video_is_named(checkpoint, video):
    with pytest.raises(InputError, match="video"):
        template_of(checkpoint["phi3"]).encode(row("<video>", videos=[video]))


@pytest.mark.parametrize("kind, other", [("phi3", "emoverse_internlm2"), ("internlm2", "emoverse_phi3")])
def test_the_other_template_is_refused(checkpoint, kind, other):
    with pytest.raises(ValueError, match=f"its language model speaks '{KINDS[kind].template}'"):
        template_of(checkpoint[kind], template_type=other)


def test_another_engine_gets_the_pictures_themselves(checkpoint, clip, tmp_path):
    """A cache holds tiles for the model in this process; vLLM looks at the frames."""
    for mode, sizes in (("train", {(1, 1)}), ("vllm", {image.size for image in sample_frames(clip, 8)})):
        template = template_of(checkpoint["phi3"], mode=mode)
        template.media_cache = MediaCache(tmp_path, GB)
        assert {frame.size for frame in template._frames(clip)} == sizes


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_batch_answers_like_single_requests(checkpoint, kind, picture, clip):
    """Left padding, rows with and without pictures side by side; and plain `generate` gives the same answer."""
    engine = TransformersEngine(
        str(checkpoint[kind]), model_type="emoverse", torch_dtype=torch.float32, max_batch_size=4
    )
    requests = [
        InferRequest(
            messages=row("<video>What is said in this long question, and why?")["messages"][:1], videos=[clip]
        ),
        InferRequest(messages=row("Hm?")["messages"][:1]),
        InferRequest(messages=row("<image>Face?")["messages"][:1], images=[picture]),
        InferRequest(messages=row("<video>a<video>b")["messages"][:1], videos=[clip, clip]),
    ]
    greedy = RequestConfig(max_tokens=8, temperature=0)
    together = [response.choices[0].message.content for response in engine.infer(requests, greedy)]
    several = AnsweringEngine(engine.model, template=engine.template, max_batch_size=2)
    assert [response.choices[0].message.content for response in several.infer(requests, greedy)] == together
    alone = [engine.infer([request], greedy)[0].choices[0].message.content for request in requests]
    assert together == alone and len(set(together)) > 1

    model, tokenizer = load_internvl2(checkpoint[kind]).eval(), load_tokenizer(checkpoint[kind])
    template = template_of(checkpoint[kind], mode="transformers")
    encoded = template.encode(requests[2])
    ids = model.generate(
        input_ids=torch.tensor([encoded["input_ids"]]),
        pixel_values=encoded["pixel_values"],
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=tokenizer.convert_tokens_to_ids(KINDS[kind].end),
    )[0, len(encoded["input_ids"]) :]
    assert tokenizer.decode(ids).removesuffix(KINDS[kind].end) == alone[2]


@pytest.mark.swift
def test_a_wrong_checkpoint_ends_in_one_line(checkpoint, tmp_path):
    """Status 2 and what is wrong with it, when ms-swift itself imports the plugin."""
    wrong = shutil.copytree(checkpoint["phi3"], tmp_path / "model")
    config = json.loads((wrong / "config.json").read_text())
    (wrong / "config.json").write_text(json.dumps(config | {"ps_version": "v1"}))
    arguments = ["--model", wrong, "--model_type", "emoverse", "--external_plugins", PLUGIN]
    log = swift("infer", *arguments, cwd=tmp_path, status=2)
    assert f"error: {wrong / 'config.json'}: ps_version 'v1' is not supported" in log.splitlines()[-1]
    assert "Traceback" not in log
