"""Emotion-LLaMA: the published layout loads, computes what the original code computes, and goes back."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from swift.model import get_model_processor
from swift.template import get_template
from transformers import Blip2VisionModel, GenerationConfig

import swift_plugins.emoverse  # noqa: F401  registers the model type
from data_prep.demo.layouts import encode
from data_prep.demo.voices import voice
from swift_plugins.emotion_llama import EmotionLlamaConfig, checkpoints
from swift_plugins.emotion_llama.config import BLOCK, STREAMS
from swift_plugins.emotion_llama.model import Fusion
from swift_plugins.emotion_llama.register import PROJECTIONS
from swift_plugins.files import InputError, write_rows
from swift_plugins.frames import sample_frames
from tests.conftest import ROOT, in_process
from tests.test_frames import write_clip
from tests.test_template import PLUGIN
from tests.tiny_emotion_llama import SIZES, converted, tiny_base, tiny_files
from tests.tiny_encoders import tiny_encoder
from tests.warm_swift import swift

pytestmark = pytest.mark.swift

SHARED = Path(os.environ.get("EMOVERSE_SHARED", ROOT.parent / "shared")) / "data" / "emotion_llama"
needs_golden = pytest.mark.skipif(not SHARED.is_dir(), reason=f"golden outputs of the original code not at {SHARED}")
NEAR = 1e-5
# (variant, published layout) → ids, the most likely next token, its logit, the norm of all logits
FROZEN = {
    (1, False): (119, 30, 3.597798, 26.892636),
    (1, True): (132, 283, 3.257675, 26.957096),
    (2, False): (282, 19, 4.209484, 27.100515),
    (2, True): (284, 213, 3.634602, 26.563435),
}


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """variant → (model with the trained adapter, tensors, texts), all of the original code's tiny checkpoint."""
    if not SHARED.is_dir():
        pytest.skip(f"golden outputs of the original code not at {SHARED}")
    found = {}
    for variant, name in ((1, "emotion_llama"), (2, "emotion_llama_v2")):
        folder = tmp_path_factory.mktemp(name)
        parts = ["--eva", SHARED / "eva_vit_g.safetensors", "--llama", SHARED / "emotion_llama" / "llama"]
        converted("base", *parts, "--variant", variant, "--out", folder / "base", *SIZES)
        state = SHARED / name / "checkpoint.safetensors"
        given = ["--checkpoint", state, "--base", folder / "base", "--alpha", "1"]
        said = converted("adapter", *given, "--out", folder / "adapter")
        assert ("4 of the unused classifier ignored" in said) == (variant == 1)
        model, processor = get_model_processor(
            str(folder / "base"), model_type="emotion_llama", torch_dtype=torch.float32, device_map="cpu"
        )
        model = PeftModel.from_pretrained(model, folder / "adapter").eval()
        texts = json.loads((SHARED / name / "golden.json").read_text())
        found[variant] = (model, processor, load_file(SHARED / name / "golden.safetensors"), texts)
    return found


def encoded(processor, query, answer, monkeypatch, original=False, train=True, **media):
    """A row as the template encodes it; its media are opened and then replaced."""
    monkeypatch.setenv("ORIGINAL_INFERENCE", str(original).lower())
    template = get_template(processor, max_length=4096)
    template.set_mode("train" if train else "transformers")
    messages = [{"role": "user", "content": query}] + ([{"role": "assistant", "content": answer}] if answer else [])
    with template.lengths_only():
        row = template.encode({"messages": messages, **media})
    return template, row


def query_of(instruction):
    """A row's query of an original instruction: what stands after the places of the media, trimmed."""
    return instruction.rpartition("Here></feature>" if "<feature>" in instruction else "Here></Vid>")[2].strip()


def embedded(template, model, row, pixels, streams):
    """`inputs_embeds` of one encoded row with given media."""
    batch = {"input_ids": torch.tensor([row["input_ids"]]), "pixel_values": pixels[None]}
    batch |= {name: stream[None] for name, stream in zip(STREAMS[template.config.variant], streams, strict=True)}
    with torch.no_grad():
        return template._post_encode(model, batch)["inputs_embeds"]


def far(one, other):
    return (one - other).abs().max().item()


@needs_golden
def test_vision_and_media_tokens_are_the_original_s(golden):
    model, _, wanted, _ = golden[1]
    core = model.get_base_model()
    with torch.no_grad():
        assert far(core.look(wanted["image"]), wanted["ln_out"]) < NEAR
        streams = [*wanted["features"].unbind(1)]
        assert far(core.media(wanted["image"], streams), wanted["media_embeds"]) < NEAR
    model, _, wanted, _ = golden[2]
    core = model.get_base_model()
    with torch.no_grad():
        video, audio = wanted["video_features"].squeeze(1), wanted["audio_features"].squeeze(1)
        cls = wanted["image_cls"].reshape(len(video), 1, -1)
        assert far(core.look(wanted["image"])[:, :1], cls) < NEAR
        fused = core.conv_pro_module(audio, cls.expand(-1, BLOCK, -1), video)
        assert far(fused, wanted["fusion_out"]) < 1e-6 * wanted["fusion_out"].abs().max()
        assert far(core.media(wanted["image"], [video, audio]), wanted["media_embeds"]) < NEAR


@needs_golden
def test_the_fusion_at_full_size_is_the_original_s():
    """Its weights are a formula, so that the reference needs to hold the output alone."""
    folder = SHARED / "emotion_llama_v2"
    texts = json.loads((folder / "golden.json").read_text())

    def waves(number, shape, factor):
        k = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        return (torch.sin(k * (0.7 + 0.01 * number) + number) * factor).reshape(shape).float()

    fusion = Fusion(EmotionLlamaConfig(variant=2)).eval()
    assert sum(weight.numel() for weight in fusion.parameters()) == 2_838_275
    shapes = {name: weight.shape for name, weight in fusion.named_parameters()}
    order = texts["fullsize_order"]
    fusion.load_state_dict({name: waves(number, shapes[name], 0.05) for number, name in enumerate(order)})
    inputs = [waves(100 + number, (1, BLOCK, width), 1) for number, width in enumerate((1280, 1408, 1408))]
    with torch.no_grad():
        found = fusion(*inputs)
    wanted = load_file(folder / "golden.safetensors")["fullsize_fusion_out"]
    assert far(found, wanted) < 1e-6 * wanted.abs().max()


@needs_golden
@pytest.mark.parametrize("variant, row", [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)])
def test_ids_labels_embeddings_and_loss_of_a_training_row(golden, monkeypatch, variant, row):
    model, processor, wanted, texts = golden[variant]
    query, answer = query_of(texts["instructions"][row]), texts["answers"][row]
    media = {"videos": ["clip.mp4"]}
    template, got = encoded(processor, query, answer, monkeypatch, **media)
    assert encoded(processor, f" {query} ", answer, monkeypatch, **media)[1]["input_ids"] == got["input_ids"]
    assert got["labels"] == wanted[f"row{row}_labels"].flatten().tolist()
    if variant == 1:
        streams = wanted["features"][row].unbind(0)
    else:
        streams = wanted["video_features"][row, 0], wanted["audio_features"][row, 0]
    embeds = embedded(template, model, got, wanted["image"][row], streams)
    assert far(embeds[0], wanted[f"row{row}_inputs_embeds"].reshape(embeds[0].shape)) < NEAR
    with torch.no_grad():
        loss = model(inputs_embeds=embeds, labels=torch.tensor([got["labels"]])).loss
    assert abs(loss.item() - wanted[f"row{row}_loss"].item()) < NEAR


@needs_golden
@pytest.mark.parametrize("variant, row", [(1, 0), (1, 1), (2, 0)])
def test_greedy_answers_in_the_published_layout(golden, monkeypatch, variant, row):
    """ORIGINAL_INFERENCE: a second <s>, and in variant 1 all media at the first place."""
    model, processor, wanted, texts = golden[variant]
    query = query_of(texts["instructions"][row])
    template, got = encoded(processor, query, None, monkeypatch, original=True, train=False, videos=["clip.mp4"])
    if variant == 1:
        streams = wanted["features"][row].unbind(0)
    else:
        streams = wanted["video_features"][row, 0], wanted["audio_features"][row, 0]
    embeds = embedded(template, model, got, wanted["image"][row], streams)
    expected = wanted["infer_inputs_embeds"]
    expected = expected[row if expected.dim() == 3 else slice(None)]
    expected = expected.reshape(-1, expected.shape[-1])[-embeds.shape[1] :]  # padded on the left
    assert far(embeds[0], expected) < NEAR
    tokens = wanted["infer_tokens"].reshape(-1, wanted["infer_tokens"].shape[-1])[row].tolist()
    greedy = GenerationConfig(do_sample=False, max_new_tokens=len(tokens), pad_token_id=0)
    with torch.no_grad():
        ids = model.generate(
            inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]), generation_config=greedy
        )[0].tolist()
    assert ids == tokens[: len(ids)]
    assert (
        encoded(processor, query, None, monkeypatch, train=False, videos=["clip.mp4"])[1]["input_ids"]
        != got["input_ids"]
    )


@pytest.fixture(scope="module", params=[1, 2])
def tiny(request, tmp_path_factory):
    """(variant, folder with files/, base and the adapter of the files' trained state)."""
    folder = tmp_path_factory.mktemp(f"tiny{request.param}")
    base = tiny_base(folder, request.param)
    converted("adapter", "--checkpoint", folder / "files/state.pth", "--base", base, "--out", folder / "adapter")
    return request.param, folder


def test_a_state_goes_there_and_back_and_is_loaded_as_it_is(tiny):
    variant, folder = tiny
    converted("pth", "--adapter", folder / "adapter", "--out", folder / "back.pth")
    state, back = (torch.load(folder / name, weights_only=True) for name in ("files/state.pth", "back.pth"))
    kept = {name: value for name, value in state["model"].items() if not name.startswith("attention.")}
    assert back["model"].keys() == kept.keys() and all((back["model"][name] == kept[name]).all() for name in kept)
    assert back["config"]["model"] == {"lora_r": 4, "lora_alpha": 1}
    model, _ = get_model_processor(str(folder / "base"), model_type="emotion_llama", torch_dtype=torch.float32)
    layer = "language_model.model.layers.1.self_attn.q_proj"
    before = model.get_submodule(layer).weight.clone()
    merged = PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload()
    a, b = (kept[f"llama_model.base_model.model.{layer[15:]}.lora_{x}.weight"] for x in "AB")
    assert torch.allclose(merged.get_submodule(layer).weight, before + b @ a / 4, atol=1e-6), "alpha 1, rank 4"
    name = "cls_tk_llama_proj" if variant == 1 else "conv_pro_module.conv_entry"
    assert (merged.get_submodule(name).weight == kept[f"{name}.weight"]).all()


def test_a_minigpt_state_leaves_the_base_s_projections(tmp_path):
    base = tiny_base(tmp_path)
    state = torch.load(tmp_path / "files/state.pth", weights_only=True)["model"]
    torch.save({name: value for name, value in state.items() if name.startswith("llama_")}, tmp_path / "mini.pth")
    said = converted("adapter", "--checkpoint", tmp_path / "mini.pth", "--base", base, "--out", tmp_path / "start")
    assert "8 of projections that the file lacks are the base's" in said and "alpha 16" in said
    adapter, own = load_file(tmp_path / "start/adapter_model.safetensors"), load_file(base / "model.safetensors")
    name = "feats_llama_proj2.weight"
    assert (adapter[f"base_model.model.{name}"] == own[name]).all()


def test_the_base_holds_the_tower_without_its_last_block_and_the_positions_of_its_pictures(tiny):
    _, folder = tiny
    eva = torch.load(folder / "files/eva.pth", weights_only=True)
    own = load_file(folder / "base/model.safetensors")
    assert {int(name.split(".")[3]) for name in own if name.startswith("vision_tower.encoder.layers")} == {0, 1}
    assert own["vision_tower.embeddings.position_embedding"].shape == (1, 17, 32)
    assert (own["vision_tower.embeddings.position_embedding"][:, 0] == eva["pos_embed"][:, 0]).all()
    assert (own["vision_tower.post_layernorm.weight"] == 1).all()
    bias = own["vision_tower.encoder.layers.0.self_attn.qkv.bias"]
    assert (bias[:32] == eva["blocks.0.attn.q_bias"]).all() and (bias[32:64] == 0).all()


def test_the_encoder_of_videos_is_whole(tiny):
    _, folder = tiny
    eva = torch.load(folder / "files/eva.pth", weights_only=True)
    converted("video", "--eva", folder / "files/eva.pth", "--heads", "4", "--out", folder / "video")
    model = Blip2VisionModel.from_pretrained(folder / "video")
    assert model.config.num_hidden_layers == 3 and model.config.image_size == 28
    assert (model.post_layernorm.weight == eva["norm.weight"]).all()


@pytest.mark.parametrize(
    "variant, fusion, trained",
    [
        (1, "none", 23_072_768 + 3 * 4_198_400 + 5_771_264),  # llama_proj, three streams, CLS
        (2, "conv-attention", 23_072_768 + 5_771_264 + 5_246_976 + 1_052_672 + 2_838_275),
        (2, "attention", 23_072_768 + 5_771_264 + 5_246_976 + 1_052_672 + 2_591_875),  # without the convolutions
        (2, "convolution", 23_072_768 + 5_771_264 + 5_246_976 + 1_052_672 + 2_575_104),  # without the three weights
        (2, "none", 23_072_768 + 5_771_264 + 5_246_976),
    ],
)
def test_parameters_at_full_size(variant, fusion, trained):
    """Those of the papers: LoRA adds 33,554,432; the tower has 985,894,528 before it looks at 448 pixels."""
    llama = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "vocab_size": 32000}
    sizes = {"image_size": 224}
    model = checkpoints.empty(
        EmotionLlamaConfig(vision_config=sizes, text_config=llama, variant=variant, fusion=fusion)
    )
    tower = sum(weight.numel() for weight in model.vision_tower.parameters())
    assert tower == 985_894_528 + (39 + 2) * 1408, "with 39 biases of keys, which are zero, and the norm after it"
    parts = [getattr(model, name, None) for name in PROJECTIONS[variant]]
    assert sum(weight.numel() for part in parts if part is not None for weight in part.parameters()) == trained


@pytest.mark.parametrize("original", [False, True])
def test_the_tiny_checkpoint_computes_what_it_did(tiny, monkeypatch, original):
    """For a checkout without the golden outputs: what this code gave when it equalled them."""
    variant, folder = tiny
    model, processor = get_model_processor(str(folder / "base"), model_type="emotion_llama", torch_dtype=torch.float32)
    model = PeftModel.from_pretrained(model, folder / "adapter").eval()
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randn(3, 56, 56, generator=generator)
    streams = [torch.randn(model.config.stream_shape(name), generator=generator) for name in STREAMS[variant]]
    query = "The person in video says: Oh no..  [emotion] Which one?"
    template, row = encoded(processor, query, None, monkeypatch, original, train=False, videos=["clip.mp4"])
    embeds = embedded(template, model, row, pixels, streams)
    with torch.no_grad():
        logits = model(inputs_embeds=embeds).logits[0, -1]
    length, place, value, norm = FROZEN[variant, original]
    assert len(row["input_ids"]) == length and logits.argmax().item() == place
    assert abs(logits.max().item() - value) < 1e-4 and abs(logits.norm().item() - norm) < 1e-3


class Unsafe:
    def __reduce__(self):
        return print, ("this must not run",)


def broken(folder, kind):
    """A trained state with one fault."""
    state = torch.load(folder / "files/state.pth", weights_only=True)["model"]
    layer = "llama_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    if kind == "foreign":
        state["language_projection.weight"] = torch.zeros(2, 2)
    elif kind == "shape":
        state["llama_proj.weight"] = torch.zeros(48, 64)
    elif kind == "lora shape":
        state[layer] = torch.zeros(4, 32)
    elif kind == "half":
        del state[layer]
    elif kind == "object":
        state["llama_proj.bias"] = Unsafe()
    elif kind == "number":
        state["llama_proj.bias"] = 7
    elif kind == "empty":
        state = {}
    elif kind == "k_proj":
        state[layer.replace("q_proj", "k_proj")] = state[layer]
    return {"model": state}


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("foreign", "language_projection.weight: no key of this model"),
        ("shape", r"llama_proj.weight is \[48, 64\], and the model's \[48, 128\]"),
        ("lora shape", r"lora_A.weight is \[4, 32\], and its layer \[48, 48\]"),
        ("half", "its LoRA is not on q_proj and v_proj of all 2 layers"),
        ("object", "holds something else than tensors"),
        ("number", "'llama_proj.bias' is not a tensor but int"),
        ("empty", "holds no state dict"),
        ("k_proj", "k_proj.lora_A.weight: no key of this model"),
    ],
)
def test_a_state_that_is_none_is_refused_and_nothing_is_written(tmp_path, capfd, kind, reason):
    base = tiny_base(tmp_path)
    torch.save(broken(tmp_path, kind), tmp_path / "bad.pth")
    there = {*tmp_path.iterdir()}
    with pytest.raises(InputError, match=reason) as error:
        converted("adapter", "--checkpoint", tmp_path / "bad.pth", "--base", base, "--out", tmp_path / "out")
    assert str(tmp_path / "bad.pth") in str(error.value) and {*tmp_path.iterdir()} == there
    assert "must not run" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["base", "--eva", "files/eva.pth"], "base needs --llama"),
        (["base", "--eva", "files/state.pth", "--llama", "files/llama"], "is not an EVA-CLIP-g file"),
        (["base", "--eva", "files/eva.pth", "--llama", "files"], "config.json"),
        (["base", "--eva", "files/llama/tokenizer.json", "--llama", "files/llama"], "or is no PyTorch file"),
        (["base", "--eva", "missing.pth", "--llama", "files/llama"], "missing.pth: no such file"),
        (
            ["base", "--eva", "files/eva.pth", "--llama", "files/llama", "--set", "stream_width=x"],
            "--set stream_width=x",
        ),
        (["base", "--eva", "files/eva.pth", "--llama", "files/llama", "--heads", "5"], "5 heads do not share"),
        (
            ["base", "--eva", "files/eva.pth", "--llama", "files/llama", "--heads", "4", "--image-size", "60"],
            "do not divide into",
        ),
        (["pth", "--adapter", "files"], "adapter_model.safetensors: no such file"),
        (["adapter", "--checkpoint", "files/state.pth", "--base", "files"], "is not a folder that `base` made"),
    ],
)
def test_what_the_converter_refuses(tmp_path, monkeypatch, flags, reason):
    tiny_files(tmp_path / "files")
    monkeypatch.chdir(tmp_path)
    there = {*tmp_path.iterdir()}
    size = [] if "--heads" in flags else SIZES[:2]
    with pytest.raises(InputError, match=re.escape(reason)):
        converted(*flags, "--out", "out", *size)
    assert {*tmp_path.iterdir()} == there


def amt(folder):
    """Rows of both stages and a test split, with clips, a picture and text alone."""
    folder.mkdir()
    for i in range(2):
        write_clip(folder / f"clip{i}.mp4", n=12)
    Image.new("RGB", (64, 64), "teal").save(folder / "face.png")

    def rows(channel, split, answers, count):
        for i in range(count):
            media = ({"videos": [f"clip{i % 2}.mp4"]}, {"images": ["face.png"]}, {})[i % 3]
            query = f" The person in video says: line {i}.  [emotion] Which one? "
            row = {"id": f"merr/{split}/{i}", "channel": channel, "query": query, "response": answers[i % len(answers)]}
            yield row | media

    for channel, split, answers, count in (
        ("merr_coarse.mer", "train", ("happy", "sad"), 12),
        ("merr_coarse.eri", "train", ("He frowns.", "She smiles."), 12),
        ("merr.eri", "train", ("He frowns, so he is angry.", "She smiles."), 8),
        ("merr.mer", "test", ("happy", "sad", "angry"), 6),
    ):
        write_rows(folder / f"{channel}.{split}.jsonl", rows(channel, split, answers, count))
    return folder


@pytest.mark.parametrize("variant, stream", [(1, "hubert"), (2, "whisper")])
def test_a_row_hears_what_was_prepared_and_when_serving_what_was_not(tmp_path, monkeypatch, variant, stream):
    """The feature of the row's clip, zeros for a silent one and for another stream; a broken file ends the row."""
    base = tiny_base(tmp_path, variant, "--set", "stream_width=32", "audio_width=32")
    clip, silent = tmp_path / "clip.mp4", write_clip(tmp_path / "silent.mp4", n=12)
    clip.write_bytes(encode(sample_frames(silent, 8), voice("a", "joy", 1.0)))
    encoder = tiny_encoder(stream, tmp_path / "encoders" / stream)
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, [{"id": "1", "channel": "merr.mer", "query": "", "response": "", "videos": [str(clip)]}])
    out = tmp_path / "features"
    command = ["-m", "data_prep.features", "--encoder", stream, "--model", encoder, "--rows", rows, "--out", out]
    done = in_process(*command, "--jobs", "1")
    assert done.returncode == 0, done.stderr
    _, processor = get_model_processor(
        str(base), model_type="emotion_llama", torch_dtype=torch.float32, load_model=False
    )

    def heard(path, mode="train", **environment):
        for name in ("AMT_FEATURES", "AMT_ENCODERS"):
            monkeypatch.setenv(name, str(environment.get(name, "")))
        template = get_template(processor, max_length=4096)
        template.set_mode(mode)
        messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
        row = template.encode({"messages": messages[: 2 if mode == "train" else 1], "videos": [str(path)]})
        return {name: row[name][0] for name in STREAMS[variant]}

    prepared = heard(clip, AMT_FEATURES=out)
    (file,) = (out / stream).rglob("*.npy")
    assert (prepared[stream] == torch.from_numpy(np.load(file)).reshape(prepared[stream].shape)).all()
    assert all((value == 0).all() for name, value in prepared.items() if name != stream)
    assert (heard(silent, AMT_FEATURES=out)[stream] == 0).all() and (heard(clip)[stream] == 0).all()
    served = heard(clip, "transformers", AMT_ENCODERS=tmp_path / "encoders")[stream]
    assert torch.allclose(served, prepared[stream], atol=1e-5)
    assert (heard(clip, AMT_ENCODERS=tmp_path / "encoders")[stream] == 0).all(), "training computes none"
    np.save(file, np.full_like(np.load(file), np.nan))
    with pytest.raises(InputError, match=f"{file}: holds numbers that are not finite"):
        heard(clip, AMT_FEATURES=out)


def test_both_stages_train_from_the_converted_state_and_go_back(tmp_path):
    """As the scripts and configs have it, in float32: what stage 2 saves has the original's names and answers rows."""
    base = tiny_base(tmp_path)
    data = amt(tmp_path / "amt")
    converted("adapter", "--checkpoint", tmp_path / "files/state.pth", "--base", base, "--out", tmp_path / "start")
    world = {"AMT_DATA": data, "AMT_MEDIA": data}
    small = ["--torch_dtype", "float32", "--bf16", "false", "--max_steps", "2", "--save_steps", "2"]
    small += ["--learning_rate", "0.01", "--warmup_steps", "0", "--lr_scheduler_type", "constant"]
    small += ["--report_to", "none", "--dataloader_num_workers", "0", "--external_plugins", PLUGIN]
    before = tmp_path / "start"
    for stage, mixture in (("stage1", "el_coarse"), ("stage2", "el_fine")):
        config, out = ROOT / "configs" / "emotion-llama" / f"{stage}.yaml", tmp_path / stage
        given = ["--model", base, "--dataset", f"amt:{mixture}", "--adapters", before, "--output_dir", out]
        swift("sft", config, *given, *small, cwd=tmp_path, **world)
        after = out / "checkpoint-2"
        old, new = (load_file(folder / "adapter_model.safetensors") for folder in (before, after))
        assert old.keys() == new.keys()
        frozen = [name for name in new if (old[name] == new[name]).all()]
        assert frozen == [], "LoRA and every projection are trained"
        before = after
    flags = ["--adapters", before, "--result_path", tmp_path / "answers.jsonl", "--max_new_tokens", "4"]
    flags += ["--torch_dtype", "float32", "--external_plugins", PLUGIN]
    swift("infer", ROOT / "configs/emotion-llama/infer.yaml", *flags, cwd=tmp_path, **world)
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 6 and {row["channel"] for row in answers} == {"merr.mer"}
    told = ["--adapters", tmp_path / "start", "--merge_lora", "true", "--output_dir", tmp_path / "merged"]
    swift("export", *told, "--external_plugins", PLUGIN, cwd=tmp_path)  # it knows its base and what that is
    merged, own = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "base"))
    start = load_file(tmp_path / "start/adapter_model.safetensors")
    assert merged.keys() == own.keys()
    assert (merged["llama_proj.weight"] == start["base_model.model.llama_proj.weight"]).all()
    converted("pth", "--adapter", before, "--out", tmp_path / "ours.pth")
    state = torch.load(tmp_path / "ours.pth", weights_only=True)["model"]
    converted("adapter", "--checkpoint", tmp_path / "ours.pth", "--base", base, "--out", tmp_path / "again")
    again = load_file(tmp_path / "again/adapter_model.safetensors")
    assert len(state) == len(new) and all((again[name] == new[name]).all() for name in new)
