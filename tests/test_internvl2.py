"""Original InternVL2 checkpoints load as what they are, or are refused by name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, InternVLForConditionalGeneration
from transformers.core_model_loading import WeightConverter, rename_source_key

from benchmarks.internvl2_sizes import full_config, tiny_config
from swift_plugins.files import InputError
from swift_plugins.internvl2 import (
    build_config,
    load_internvl2,
    load_tokenizer,
    original_state_dict,
    save_internvl2_original,
    weights,
)
from tests.tiny_internvl2 import tiny_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("EMOVERSE_SHARED", ROOT.parent / "shared")) / "data" / "internvl2"
GOLDEN = {"phi3": SHARED / "tiny-internvl2-4b", "internlm2": SHARED / "tiny-internvl2-8b"}
KINDS = ["phi3", "internlm2"]
CASES = ["single", "right", "left", "train", "long"]
needs_golden = pytest.mark.skipif(not SHARED.is_dir(), reason=f"golden outputs of the original code not at {SHARED}")


@pytest.fixture(scope="module")
def golden():
    """Per kind: the loaded model and the outputs of the original code."""
    return {
        kind: (load_internvl2(folder).eval(), np.load(folder / "golden.npz"), np.load(folder / "golden_grads.npz"))
        for kind, folder in GOLDEN.items()
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return {kind: tiny_checkpoint(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


def pixels(outputs, case):
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (torch.tensor(outputs[f"{case}/pixel_u8"]).float() / 255 - mean) / std


def inputs(outputs, case):
    return {
        "input_ids": torch.tensor(outputs[f"{case}/input_ids"]),
        "attention_mask": torch.tensor(outputs[f"{case}/attention_mask"]),
        "pixel_values": pixels(outputs, case),
    }


def error(value, expected):
    largest = float((value - torch.tensor(expected)).abs().max())
    print(f"largest difference {largest:.1e}")  # pytest -rP shows it
    return largest


# ------------------------------------------------------------------------------- golden outputs of the original code


@needs_golden
@torch.no_grad
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_vit_projector_and_logits(golden, kind, case):
    model, outputs, _ = golden[kind]
    features = model.get_image_features(pixels(outputs, case))
    assert error(features.last_hidden_state, outputs[f"{case}/vit_last_hidden"]) <= 3e-5
    assert error(features.pooler_output, outputs[f"{case}/extract_feature"]) <= 3e-5
    batch = inputs(outputs, case)
    real = batch["attention_mask"].bool()  # what padding positions hold is nobody's business
    assert error(model(**batch).logits[real], outputs[f"{case}/logits"][real.numpy()]) <= 3e-5


@needs_golden
@torch.no_grad
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["img28", "img84", "img112", "img112x56"])
def test_other_picture_sizes(golden, kind, case):
    """Position embeddings are interpolated as the original does."""
    model, outputs, _ = golden[kind]
    hidden = model.model.vision_tower(pixels(outputs, case)).last_hidden_state
    assert error(hidden, outputs[f"{case}/vit_last_hidden"]) <= 3e-5
    if f"{case}/extract_feature" in outputs:  # the projector takes square pictures only, the original's too
        features = model.get_image_features(pixels(outputs, case)).pooler_output
        assert error(features, outputs[f"{case}/extract_feature"]) <= 3e-5


@needs_golden
@torch.no_grad
@pytest.mark.parametrize("kind", KINDS)
def test_every_vit_layer(golden, kind):
    model, outputs, _ = golden[kind]
    hidden = model.model.vision_tower(pixels(outputs, "single"), output_hidden_states=True).hidden_states
    assert error(torch.stack(hidden), outputs["single/vit_hidden_states"]) <= 3e-5


@needs_golden
@torch.no_grad
@pytest.mark.parametrize("kind", KINDS)
def test_a_long_sequence_leaves_no_trace(golden, kind):
    """After a sequence past the rope threshold, a short one gives what it gave before.

    The original InternLM2 keeps the grown rope for the rest of the process, so that answers depend on what was asked
    before (golden `single_after_long`, 1.16 away); transformers does not, and that is the behaviour wanted here.
    """
    model, outputs, _ = golden[kind]
    model(**inputs(outputs, "long"))
    assert error(model(**inputs(outputs, "single")).logits, outputs["single/logits"]) <= 3e-5


@needs_golden
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["single", "left", "cross"])
def test_greedy_answers(golden, kind, case):
    model, outputs, _ = golden[kind]
    batch = inputs(outputs, "single" if case == "cross" else case)  # `cross` answers past the rope threshold
    expected = outputs[f"{case}/generated"]
    answer = model.generate(**batch, max_new_tokens=expected.shape[1], do_sample=False)
    assert np.array_equal(answer[:, batch["input_ids"].shape[1] :].numpy(), expected)


@needs_golden
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients(kind):
    model = load_internvl2(GOLDEN[kind]).train()
    outputs, expected = np.load(GOLDEN[kind] / "golden.npz"), np.load(GOLDEN[kind] / "golden_grads.npz")
    loss = model(**inputs(outputs, "train"), labels=torch.tensor(outputs["train/labels"])).loss
    assert error(loss, outputs["train/loss"]) <= 1e-5
    loss.backward()
    gradients = InternVLForConditionalGeneration(model.config)
    gradients.load_state_dict({name: parameter.grad for name, parameter in model.named_parameters()})
    gradients = original_state_dict(gradients)
    compared = [key for key in expected.files if key.startswith("grad/")]
    assert any("mlp1" in key for key in compared) and any("ls1" in key for key in compared)
    assert any("qkv" in key for key in compared)
    away = {}
    for key in compared:
        reference = torch.tensor(expected[key])
        away[key] = float((gradients[key[5:]] - reference).norm() / reference.norm())
    norms = {key: float(gradients[key[5:]].double().norm()) for key in expected.files if key.startswith("norm/")}
    away |= {key: abs(norm / float(expected[key]) - 1) for key, norm in norms.items()}
    for kind_of in ("grad/", "norm/"):
        print(f"{kind_of} largest {max(value for key, value in away.items() if key.startswith(kind_of)):.1e}")
    assert norms and not {key: value for key, value in away.items() if not value <= 1e-5}


@needs_golden
@torch.no_grad
@pytest.mark.parametrize(
    "case, change",
    [("window16", {"sliding_window": 16}), ("norope_scaling", {"rope_scaling": None})],
)
def test_phi3_window_and_plain_rope(tmp_path, case, change):
    for file in GOLDEN["phi3"].glob("*.*"):
        shutil.copy(file, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["llm_config"] |= change
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    outputs = np.load(GOLDEN["phi3"] / "golden.npz")
    logits = load_internvl2(tmp_path).eval()(**inputs(outputs, "single")).logits
    assert error(logits, outputs[f"{case}/logits"]) <= 3e-5


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_keeps_float32_rope(tiny, kind):
    model = load_internvl2(tiny[kind], dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    exact = load_internvl2(tiny[kind]).model.language_model.rotary_emb.inv_freq
    rope = model.model.language_model.rotary_emb.inv_freq
    assert rope.dtype == torch.float32 and torch.equal(rope, exact)


@pytest.mark.parametrize("kind", KINDS)
def test_original_names_come_back_bit_for_bit(tiny, kind):
    for folder in [tiny[kind], *([GOLDEN[kind]] if SHARED.is_dir() else [])]:
        saved, stored = original_state_dict(load_internvl2(folder)), load_file(folder / "model.safetensors")
        assert saved.keys() == stored.keys()
        assert all(torch.equal(saved[name], stored[name]) for name in stored)


# ---------------------------------------------------------------------------------------------------- real size


def original_names(kind: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published checkpoints, written out independently of the mapping."""
    names = {
        "vision_model.embeddings.class_embedding": (1, 1, 1024),
        "vision_model.embeddings.position_embedding": (1, 1025, 1024),
        "vision_model.embeddings.patch_embedding.weight": (1024, 3, 14, 14),
        "vision_model.embeddings.patch_embedding.bias": (1024,),
    }
    for i in range(24):
        layer = f"vision_model.encoder.layers.{i}"
        names |= {f"{layer}.ls1": (1024,), f"{layer}.ls2": (1024,)}
        shapes = {"attn.qkv": (3072, 1024), "attn.proj": (1024, 1024), "mlp.fc1": (4096, 1024), "mlp.fc2": (1024, 4096)}
        for part, shape in (shapes | {"norm1": (1024,), "norm2": (1024,)}).items():
            names |= {f"{layer}.{part}.weight": shape, f"{layer}.{part}.bias": shape[:1]}
    hidden = 3072 if kind == "phi3" else 4096
    names |= {"mlp1.0.weight": (4096,), "mlp1.0.bias": (4096,), "mlp1.1.weight": (hidden, 4096)}
    names |= {"mlp1.1.bias": (hidden,), "mlp1.3.weight": (hidden, hidden), "mlp1.3.bias": (hidden,)}
    names["language_model.model.norm.weight"] = (hidden,)
    if kind == "phi3":
        names |= {f"language_model.{name}.weight": (32020, 3072) for name in ("model.embed_tokens", "lm_head")}
        shapes = {"self_attn.qkv_proj": (9216, 3072), "self_attn.o_proj": (3072, 3072)}
        shapes |= {"mlp.gate_up_proj": (16384, 3072), "mlp.down_proj": (3072, 8192)}
        shapes |= {"input_layernorm": (3072,), "post_attention_layernorm": (3072,)}
    else:
        names |= {f"language_model.{name}.weight": (92553, 4096) for name in ("model.tok_embeddings", "output")}
        shapes = {"attention.wqkv": (6144, 4096), "attention.wo": (4096, 4096)}
        shapes |= {"feed_forward.w1": (14336, 4096), "feed_forward.w3": (14336, 4096)}
        shapes |= {"feed_forward.w2": (4096, 14336), "attention_norm": (4096,), "ffn_norm": (4096,)}
    for i in range(32):
        names |= {f"language_model.model.layers.{i}.{part}.weight": shape for part, shape in shapes.items()}
    return names


@pytest.mark.parametrize("kind, llm_billion", [("phi3", 3.82), ("internlm2", 7.74)])
def test_full_size_on_meta(kind, llm_billion):
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(build_config(full_config(kind), 0))
    parameters = {name: parameter.numel() for name, parameter in model.named_parameters()}
    vit = sum(n for name, n in parameters.items() if "vision_tower" in name)
    projector = sum(n for name, n in parameters.items() if "multi_modal_projector" in name)
    assert vit == 304_012_288
    assert (sum(parameters.values()) - vit - projector) / 1e9 == pytest.approx(llm_billion, abs=0.005)
    # native → original
    names = original_names(kind)
    assert {name: tuple(tensor.shape) for name, tensor in original_state_dict(model).items()} == names
    # original → native: every name lands on weights of the model, and every weight is hit exactly once
    mapping = weights._mapping(kind)
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    renamings = [entry for entry in mapping if not isinstance(entry, WeightConverter)]
    state, hit = model.state_dict(), []
    for name in names:
        first, pattern = rename_source_key(name, renamings, converters, "model", state)
        targets = next((entry.target_patterns for entry in converters if pattern in entry.source_patterns), [""])
        hit += [first.replace(targets[0], target) for target in targets] if pattern else [first]
    assert sorted(hit) == sorted(state)


@pytest.mark.parametrize("kind", KINDS)
def test_448_pixels_make_256_tokens(kind):
    assert build_config(tiny_config(kind, side=448), 0).image_seq_length == 256


# ---------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("kind", KINDS)
def test_sharded_files_load_alike(tiny, tmp_path, kind):
    model = load_internvl2(tiny[kind])
    config = json.loads((tiny[kind] / "config.json").read_text())
    save_internvl2_original(model, config, load_tokenizer(tiny[kind]), tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    again = load_internvl2(tmp_path).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    assert json.loads((tmp_path / "config.json").read_text()) == config


@torch.no_grad
def test_saved_folder_is_for_stock_transformers(tiny, tmp_path):
    """`save_pretrained` writes native names and config: no line of this project is needed to load it."""
    folders = {kind: tmp_path / kind for kind in KINDS}
    for kind, folder in folders.items():
        load_internvl2(tiny[kind]).save_pretrained(folder)
        load_tokenizer(tiny[kind]).save_pretrained(folder)
        assert "auto_map" not in (folder / "config.json").read_text() + (folder / "tokenizer_config.json").read_text()
    script = (
        "import sys, torch; from safetensors.torch import save_file\n"
        "from transformers import AutoModelForImageTextToText, AutoTokenizer\n"
        "for folder in sys.argv[1:]:\n"
        "    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()\n"
        "    ids = AutoTokenizer.from_pretrained(folder)('A text', return_tensors='pt').input_ids\n"
        "    logits = model(input_ids=ids).logits.detach().contiguous()\n"
        "    save_file({'logits': logits}, folder + '/logits.safetensors')\n"
        "assert not any('swift' in name for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, *folders.values()], check=True, cwd=tmp_path)
    for kind, folder in folders.items():
        ids = load_tokenizer(tiny[kind])("A text", return_tensors="pt").input_ids
        stock = load_file(folder / "logits.safetensors")["logits"]
        (folder / "logits.safetensors").unlink()
        assert torch.equal(load_internvl2(tiny[kind]).eval()(input_ids=ids).logits, stock)
        # and this project reads its own exports
        assert torch.equal(load_internvl2(folder).eval()(input_ids=ids).logits, stock)


def test_native_checkpoints_keep_their_own_mapping(tiny, tmp_path):
    """Loading an original checkpoint changes nothing for other InternVL models of the process."""
    model = load_internvl2(tiny["phi3"])
    model.save_pretrained(tmp_path)
    load_internvl2(tiny["internlm2"])
    again, report = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_no_code_of_a_checkpoint_runs(tiny, tmp_path, kind):
    """Even when asked with trust_remote_code=True, as ms-swift asks about every model folder."""
    folder = shutil.copytree(tiny[kind], tmp_path / "model")
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import PretrainedConfig, PreTrainedTokenizerFast\n"
    for name in ("configuration_internvl_chat", "modeling_internvl_chat", "tokenization_internlm2"):
        body = "InternVLChatConfig = InternVLChatModel = PretrainedConfig\nInternLM2Tokenizer = PreTrainedTokenizerFast"
        (folder / f"{name}.py").write_text(trap + body)
    settings_file = folder / "tokenizer_config.json"
    config = json.loads(settings_file.read_text())
    config["auto_map"] = {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]}
    settings_file.write_text(json.dumps(config))
    assert AutoConfig.from_pretrained(folder, trust_remote_code=True).text_config.model_type != "internvl_chat"
    load_internvl2(folder)
    tokenizer = load_tokenizer(folder)
    assert not (tmp_path / "ran").exists()
    tokenizer.save_pretrained(tmp_path / "saved")
    assert "auto_map" not in (tmp_path / "saved" / "tokenizer_config.json").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_deepspeed_zero3_loads_alike(tiny, kind, monkeypatch):
    """ZeRO-3 takes another way through transformers; its conversion step gives the same weights, and the check before
    it, of names and shapes, is not its business."""
    from transformers.integrations.deepspeed import _apply_weight_conversions_to_state_dict

    model = load_internvl2(tiny[kind])
    stored = load_file(tiny[kind] / "model.safetensors")
    converted = _apply_weight_conversions_to_state_dict(model, stored, weights._mapping(kind))
    assert converted.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, converted[name]) for name, tensor in model.state_dict().items())
    monkeypatch.setattr("transformers.modeling_utils.is_deepspeed_zero3_enabled", lambda: True)
    weights.check_weights(tiny[kind], model.config)


def _edit(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        parent, _, child = key.rpartition("__")
        (config[parent] if parent else config)[child] = value
    (folder / "config.json").write_text(json.dumps(config))


def _weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _shards(folder: Path, change) -> None:
    model, config = load_internvl2(folder), json.loads((folder / "config.json").read_text())
    save_internvl2_original(model, config, None, folder, max_shard_size="60KB")
    (folder / "model.safetensors").unlink()
    change(folder)


REFUSALS = {
    "no folder": (shutil.rmtree, "no such model folder"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: no such file"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
    "another architecture": (lambda f: _edit(f, architectures=["LlavaForX"]), "architecture LlavaForX"),
    "another model type": (lambda f: _edit(f, model_type="qwen2_vl", architectures=["Qwen2VL"]), "Qwen2VL"),
    "another language model": (
        lambda f: _edit(f, llm_config__model_type="qwen2", llm_config__architectures=["Qwen2ForCausalLM"]),
        "Qwen2ForCausalLM is not supported",
    ),
    "a template of another model": (lambda f: _edit(f, template="Hermes-2"), "'Hermes-2' does not belong"),
    "ps_version v1": (lambda f: _edit(f, ps_version="v1"), "ps_version 'v1'"),
    "a size that does not fit": (lambda f: _edit(f, force_image_size=60), "force_image_size 60"),
    "rope of another kind": (
        lambda f: _edit(f, llm_config__rope_scaling={"type": "yarn", "factor": 2}),
        "rope_scaling type 'yarn'",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
    "a cut file": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000]),
        "is not a whole safetensors file",
    ),
    "pickled weights": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "found pytorch_model.bin: pickles, which are not read",
    ),
    "another norm": (lambda f: _edit(f, vision_config__norm_type="batch_norm"), "norm_type 'batch_norm' is not"),
    "padded pictures": (lambda f: _edit(f, pad2square=True), "pad2square is not supported"),
    "a missing weight": (lambda f: _weights(f, lambda t: t.pop("mlp1.3.bias")), "weights are missing: mlp1.3.bias"),
    "an extra weight": (
        lambda f: _weights(f, lambda t: t.update({"qllama.x": torch.zeros(1)})),
        "do not belong to this architecture: qllama.x",
    ),
    "a weight of another shape": (
        lambda f: _weights(f, lambda t: t.update({"mlp1.3.bias": torch.zeros(5)})),
        "mlp1.3.bias has shape [5]",
    ),
    "a missing shard": (
        lambda f: _shards(f, lambda f: sorted(f.glob("model-*"))[1].unlink()),
        "shards are missing: model-00002-of-",
    ),
    "shards without index": (
        lambda f: _shards(f, lambda f: (f / weights.INDEX).unlink()),
        "but no model.safetensors.index.json",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "neither tokenizer.json nor tokenizer.model"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage, message", REFUSALS.values(), ids=REFUSALS.keys())
def test_refused_by_name(tiny, tmp_path, kind, damage, message):
    folder = shutil.copytree(tiny[kind], tmp_path / "model")
    damage(folder)
    with pytest.raises(InputError) as refusal:
        load_internvl2(folder)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


# ---------------------------------------------------------------------------------------------------- tokenizers


TEXT = (
    "Oh my God, he's lost it. He's totally lost it! But then who? The waitress I went out with last month?\n"
    "You are a sentiment and emotion analysis expert. What emotion is shown?  Two  spaces, numbers 1234567890.\n"
)


@pytest.fixture(scope="module", params=[True, False], ids=["space prefix", "no prefix"])
def sentencepiece_folder(request, tmp_path_factory):
    """An InternLM2 folder with a SentencePiece model only: chat tokens take the ids of unused pieces, as published."""
    import sentencepiece

    folder = tiny_checkpoint(tmp_path_factory.mktemp("spm"), "internlm2")
    (folder / "tokenizer.json").unlink()
    corpus = folder / "corpus.txt"
    corpus.write_text(TEXT * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=request.param,
        remove_extra_whitespaces=False,
        user_defined_symbols=["[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_146]"],
        minloglevel=2,
    )
    spm = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    unused = [spm.piece_to_id(f"[UNUSED_TOKEN_{n}]") for n in (145, 146)]
    added = dict(zip(unused, ["<|im_end|>", "<|im_start|>"], strict=True))
    added |= {400: "<img>", 401: "</img>", 402: "<IMG_CONTEXT>"}
    settings_ = {"tokenizer_class": "InternLM2Tokenizer", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    settings_["auto_map"] = {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]}
    settings_["added_tokens_decoder"] = {str(i): {"content": token, "special": True} for i, token in added.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings_))
    return folder, spm, added


def test_sentencepiece_chat_tokens_and_bos(sentencepiece_folder):
    folder, spm, added = sentencepiece_folder
    tokenizer = load_tokenizer(folder)
    assert {tokenizer.convert_tokens_to_ids(token): token for token in added.values()} == added
    ids = tokenizer("<|im_start|>user\n<img><IMG_CONTEXT></img>Hi<|im_end|>").input_ids
    start = {token: i for i, token in added.items()}
    expected = [1, start["<|im_start|>"], *spm.encode("user\n"), 400, 402, 401, *spm.encode("Hi"), start["<|im_end|>"]]
    assert ids == expected  # the slow class encodes every stretch between chat tokens by itself


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(max_size=30), st.text(alphabet="he's lost it. 12\nü😀", max_size=40)))
def test_sentencepiece_ids(sentencepiece_folder, text):
    folder, spm, _ = sentencepiece_folder
    if "<" in text or "[" in text or "\x00" in text or "▁" in text:
        return  # spelled-out special tokens; NUL and the escape sign itself are changed by SentencePiece
    tokenizer = _cached(folder)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert ids == spm.encode(text)
    assert tokenizer.decode(ids) == spm.decode(ids)


_tokenizers = {}


def _cached(folder):
    if folder not in _tokenizers:
        _tokenizers[folder] = load_tokenizer(folder)
    return _tokenizers[folder]


def test_rebuilt_tokenizer_saves_for_stock_transformers(sentencepiece_folder, tmp_path):
    tokenizer = load_tokenizer(sentencepiece_folder[0])
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False)
    assert again(TEXT).input_ids == tokenizer(TEXT).input_ids
