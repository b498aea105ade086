"""Original InternVL2 checkpoints (Phi-3 or InternLM2 inside) in transformers' own InternVL classes, no remote code.

    model = load_internvl2("InternVL2-4B", dtype=torch.bfloat16)      # in Python
    swift sft --external_plugins swift_plugins/emoverse.py --model InternVL2-4B --model_type emoverse …

A loaded model is a plain `InternVLForConditionalGeneration`: `save_pretrained` and merged exports write the layout
that stock transformers loads, because a native `config.json` beside original weight names would load nowhere.
`save_internvl2_original` applies the same mapping backwards where the original layout is wanted.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from transformers import (
    AutoConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import (
    Chunk,
    ConversionOps,
    WeightConverter,
    WeightRenaming,
    revert_weight_conversion,
)

from swift_plugins.files import InputError, read_json, run_cli, write_json

IMAGE_TOKEN = "<IMG_CONTEXT>"
INDEX = "model.safetensors.index.json"


class Kind(NamedTuple):
    chat: str | None  # `template` in the original config.json
    template: str  # ours
    end: str  # the token that ends a turn


# By `llm_config.model_type`; InternVL3 and 3.5 in Hugging Face format need no mapping, only their chat format.
KINDS = {
    "phi3": Kind("phi3-chat", "emoverse_phi3", "<|end|>"),
    "internlm2": Kind("internlm2-chat", "emoverse_internlm2", "<|im_end|>"),
    "qwen": Kind(None, "emoverse_chatml", "<|im_end|>"),
}
# Native folders, our exports among them, name the language model by transformers' type.
NATIVE_KINDS = {"phi3": "phi3", "llama": "internlm2", "qwen2": "qwen", "qwen3": "qwen"}


# ---------------------------------------------------------------------------------------------------- weights


class SplitGroupedQKV(ConversionOps):
    """InternLM2's `wqkv`, (kv heads, queries per kv head + k + v, head size) rows, into q, k and v; and back."""

    def __init__(self, merge: bool = False):
        self.merge = merge

    @property
    def reverse_op(self) -> SplitGroupedQKV:
        return SplitGroupedQKV(not self.merge)

    @torch.no_grad
    def convert(self, input_dict, source_patterns, target_patterns, config, **kwargs):
        text = config.get_text_config()
        heads, groups = text.num_attention_heads, text.num_key_value_heads
        tensors = [t[0] if isinstance(t, list) else t for t in (input_dict[p] for p in source_patterns)]
        if self.merge:
            parts = [
                t.reshape(groups, -1, t.shape[0] // n, *t.shape[1:])
                for t, n in zip(tensors, (heads, groups, groups), strict=True)
            ]
            return {target_patterns[0]: torch.cat(parts, dim=1).flatten(0, 2).contiguous()}
        fused = tensors[0].unflatten(0, (groups, heads // groups + 2, -1))
        parts = (fused[:, :-2], fused[:, -2:-1], fused[:, -1:])
        return {name: part.flatten(0, 2).contiguous() for name, part in zip(target_patterns, parts, strict=True)}


def _mapping(kind: str) -> list[WeightRenaming | WeightConverter]:
    """Original → native names; reversible. Fresh objects at every call: a load consumes them."""
    rename, vit = WeightRenaming, "model.vision_tower"
    mapping = [
        rename(r"^vision_model\.embeddings\.class_embedding", f"{vit}.embeddings.cls_token"),
        rename(r"^vision_model\.embeddings\.position_embedding", f"{vit}.embeddings.position_embeddings"),
        rename(r"^vision_model\.embeddings\.patch_embedding\.", f"{vit}.embeddings.patch_embeddings.projection."),
        rename(r"^vision_model\.encoder\.layers\.", f"{vit}.encoder.layer."),
        rename(r"\.attn\.proj\.", ".attention.projection_layer."),
        rename(r"\.attn\.q_norm\.", ".attention.q_norm."),
        rename(r"\.attn\.k_norm\.", ".attention.k_norm."),
        rename(r"\.norm1\.", ".layernorm_before."),
        rename(r"\.norm2\.", ".layernorm_after."),
        rename(r"\.ls1", ".lambda_1"),
        rename(r"\.ls2", ".lambda_2"),
        WeightConverter(
            r"\.attn\.qkv\.",
            [".attention.q_proj.", ".attention.k_proj.", ".attention.v_proj."],
            operations=[Chunk(dim=0)],
        ),
        rename(r"^mlp1\.0\.", "model.multi_modal_projector.layer_norm."),
        rename(r"^mlp1\.1\.", "model.multi_modal_projector.linear_1."),
        rename(r"^mlp1\.3\.", "model.multi_modal_projector.linear_2."),
        rename(r"^language_model\.model\.", "model.language_model."),
    ]
    if kind == "phi3":  # its fused projections are transformers' own
        return [*mapping, rename(r"^language_model\.lm_head\.", "lm_head.")]
    return [
        *mapping,
        rename(r"^language_model\.output\.", "lm_head."),
        rename(r"\.tok_embeddings\.", ".embed_tokens."),
        rename(r"\.attention\.wo\.", ".self_attn.o_proj."),
        rename(r"\.feed_forward\.w1\.", ".mlp.gate_proj."),
        rename(r"\.feed_forward\.w3\.", ".mlp.up_proj."),
        rename(r"\.feed_forward\.w2\.", ".mlp.down_proj."),
        rename(r"\.attention_norm\.", ".input_layernorm."),
        rename(r"\.ffn_norm\.", ".post_attention_layernorm."),
        WeightConverter(
            r"\.attention\.wqkv\.",
            [".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."],
            operations=[SplitGroupedQKV()],
        ),
    ]


class _OriginalLayout(InternVLForConditionalGeneration):
    """Reads original names; what `from_pretrained` returns is a plain `InternVLForConditionalGeneration`.

    transformers looks a conversion up by class name first. A class of our own therefore leaves the mapping of native
    checkpoints (and peft's use of it) untouched, where registering under the stock name would replace it for the
    whole process.
    """

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        model = super().from_pretrained(*args, **kwargs)
        model.__class__ = InternVLForConditionalGeneration
        # Saving then falls back to the stock mapping: native names beside the native config.
        model.__dict__.pop("_weight_conversions", None)
        return model


class InternVL2WithPhi3(_OriginalLayout):
    pass


class InternVL2WithInternLM2(_OriginalLayout):
    pass


LAYOUTS = {"phi3": InternVL2WithPhi3, "internlm2": InternVL2WithInternLM2}
for _kind, _layout in LAYOUTS.items():
    register_checkpoint_conversion_mapping(_layout.__name__, _mapping(_kind), overwrite=True)


def original_state_dict(model: InternVLForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The weights of `model` (real or on the meta device) under their original names, fused as in the original."""
    previous = model.__dict__.get("_weight_conversions")
    model._weight_conversions = _mapping(NATIVE_KINDS[model.config.text_config.model_type])
    try:
        return revert_weight_conversion(model, model.state_dict())
    finally:
        model.__dict__.pop("_weight_conversions")
        if previous is not None:
            model._weight_conversions = previous


# ---------------------------------------------------------------------------------------------------- config


def checkpoint_kind(config: dict, file: str | Path = "config.json") -> str:
    """The key of `KINDS`, from the checkpoint's own config; `InputError` when it is neither, or contradicts itself.

    Both layouts are known: the original (`internvl_chat`) and the native one that exports write (`internvl`).
    """
    model_type = config.get("model_type")
    if model_type == "internvl":
        text = config.get("text_config") or {}
        if text.get("model_type") not in NATIVE_KINDS:
            raise InputError(
                f"language model {text.get('model_type')!r} is not one of {', '.join(NATIVE_KINDS)}: "
                "use the ms-swift model type of that backbone",
                file,
            )
        return NATIVE_KINDS[text["model_type"]]
    architectures = config.get("architectures") or []
    if model_type != "internvl_chat" or (architectures and "InternVLChatModel" not in architectures):
        found = ", ".join(architectures) or model_type or "no model_type"
        raise InputError(f"is not an InternVL2 checkpoint: architecture {found}, expected InternVLChatModel", file)
    llm = config.get("llm_config") or {}
    kind = llm.get("model_type")
    if kind not in LAYOUTS:
        name = ", ".join(llm.get("architectures") or []) or kind or "none"
        raise InputError(f"language model {name} is not supported, only Phi-3 and InternLM2", file)
    if config.get("template") not in (None, KINDS[kind].chat):
        raise InputError(
            f"template {config['template']!r} does not belong to language model {kind!r} ({KINDS[kind].chat!r})", file
        )
    version = config.get("ps_version", "v1")  # the original default
    if version != "v2":
        raise InputError(f"ps_version {version!r} is not supported, only 'v2' (another pixel order)", file)
    return kind


def build_config(config: dict, image_token_id: int, file: str | Path = "config.json") -> InternVLConfig:
    """The native config of an original `config.json`.

    Keys that are absent take the ORIGINAL code's defaults, which differ from the native ones. Raises `InputError`
    naming the key for what the native classes cannot represent.
    """
    kind = checkpoint_kind(config, file)
    vision = config.get("vision_config") or {}
    patch = vision.get("patch_size", 14)
    side = config.get("force_image_size") or vision.get("image_size", 224)
    ratio = config.get("downsample_ratio", 0.5)
    grid = side / patch * ratio
    if grid != int(grid):
        raise InputError(f"force_image_size {side} does not fit patch size {patch} and downsample_ratio {ratio}", file)
    vision_config = {
        "hidden_size": vision.get("hidden_size", 3200),
        "num_hidden_layers": vision.get("num_hidden_layers", 48),
        "num_attention_heads": vision.get("num_attention_heads", 25),
        "intermediate_size": vision.get("intermediate_size", 12800),
        "attention_bias": vision.get("qkv_bias", False),
        "use_qk_norm": vision.get("qk_normalization", True),
        "hidden_act": vision.get("hidden_act", "gelu"),
        "hidden_dropout_prob": vision.get("dropout", 0.0),
        "projection_dropout": vision.get("dropout", 0.0),
        "attention_dropout": vision.get("attention_dropout", 0.0),
        "initializer_range": vision.get("initializer_range", 0.02),
        "layer_scale_init_value": vision.get("initializer_factor", 0.1),
        "norm_type": vision.get("norm_type", "rms_norm"),
        "layer_norm_eps": vision.get("layer_norm_eps", 1e-6),
        "image_size": [vision.get("image_size", 224)] * 2,
        "patch_size": [patch] * 2,
        "num_channels": vision.get("num_channels", 3),
        "use_mask_token": False,
        "use_absolute_position_embeddings": True,
        "use_mean_pooling": True,  # False would add a final LayerNorm that the original does not have
    }
    native = InternVLConfig(
        vision_config=vision_config,
        text_config=(_phi3_config if kind == "phi3" else _llama_config)(config["llm_config"], file),
        image_token_id=image_token_id,
        image_seq_length=int(grid) ** 2,
        downsample_ratio=ratio,
        projector_hidden_act="gelu",
        vision_feature_layer=config.get("select_layer", -1),
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,  # the native default would overwrite the language model's head
    )
    native.architectures = ["InternVLForConditionalGeneration"]
    native.dtype = config.get("torch_dtype") or "bfloat16"
    return native


def _common_text(llm: dict, defaults: dict) -> dict:
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    keys += ("max_position_embeddings", "rms_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id")
    text = {key: llm.get(key, defaults[key]) for key in keys}
    text["num_key_value_heads"] = llm.get("num_key_value_heads") or text["num_attention_heads"]
    text["hidden_act"] = llm.get("hidden_act", "silu")
    text["initializer_range"] = llm.get("initializer_range", 0.02)
    text["tie_word_embeddings"] = False
    return text


def _phi3_config(llm: dict, file: str | Path) -> dict:
    defaults = {"vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32}
    defaults |= {"num_attention_heads": 32, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
    text = _common_text(llm, defaults | {"bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000})
    original = llm.get("original_max_position_embeddings", 4096)
    rope = {"rope_type": "default", "rope_theta": llm.get("rope_theta", 10000.0), "partial_rotary_factor": 1.0}
    scaling = llm.get("rope_scaling")
    if scaling:
        kind = scaling.get("type", scaling.get("rope_type"))
        if kind not in ("su", "longrope"):
            raise InputError(f"llm_config.rope_scaling type {kind!r} is not supported for Phi-3, only 'su'", file)
        rope |= {"rope_type": "longrope", "original_max_position_embeddings": original}
        rope |= {key: [float(x) for x in scaling[key]] for key in ("short_factor", "long_factor")}
        # Written out: without it the scale of attention would be guessed from another ratio.
        rope["factor"] = text["max_position_embeddings"] / original
    window = llm.get("sliding_window")
    return text | {
        "model_type": "phi3",
        "rope_parameters": rope,
        "original_max_position_embeddings": original,
        "sliding_window": None if window is None else window + 1,  # the native window counts the token itself
        "attention_dropout": llm.get("attention_dropout", 0.0),
        "resid_pdrop": llm.get("resid_pdrop", 0.0),
        "embd_pdrop": llm.get("embd_pdrop", 0.0),
    }


def _llama_config(llm: dict, file: str | Path) -> dict:
    defaults = {"vocab_size": 103168, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    defaults |= {"num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6}
    text = _common_text(llm, defaults | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    rope = {"rope_type": "default", "rope_theta": float(llm.get("rope_theta", 10000))}
    scaling = llm.get("rope_scaling")
    if scaling:
        kind = scaling.get("type", scaling.get("rope_type"))
        if kind not in ("dynamic", "linear"):
            raise InputError(f"llm_config.rope_scaling type {kind!r} is not supported for InternLM2", file)
        rope |= {"rope_type": kind, "factor": float(scaling["factor"])}
    return text | {
        "model_type": "llama",
        "rope_parameters": rope,
        "attention_bias": llm.get("bias", True),
        "mlp_bias": False,
    }


def read_config(model_dir: str | Path) -> dict:
    """`config.json` of a checkpoint folder; `InputError` when folder or file is missing or not a JSON object."""
    model_dir = Path(model_dir)
    if not model_dir.is_dir():
        raise InputError("no such model folder", model_dir)
    config = read_json(model_dir / "config.json")
    if not isinstance(config, dict):
        raise InputError("holds no JSON object", model_dir / "config.json")
    return config


def native_config(model_dir: str | Path, tokenizer: PreTrainedTokenizerFast | None = None) -> InternVLConfig:
    """The native config of a checkpoint folder, original or exported layout."""
    config = read_config(model_dir)
    checkpoint_kind(config, Path(model_dir) / "config.json")
    if config["model_type"] == "internvl":
        return InternVLConfig.from_pretrained(model_dir)
    token = (tokenizer or load_tokenizer(model_dir)).convert_tokens_to_ids(IMAGE_TOKEN)
    return build_config(config, token, Path(model_dir) / "config.json")


class InternVLChatConfig(PretrainedConfig):
    """Claims the model type `internvl_chat`, so that no `Auto…` call ever executes a checkpoint's own code.

    transformers prefers a class registered here over `auto_map`, even when its caller passes trust_remote_code=True
    (as ms-swift does to look at any checkpoint). Reading gives the native config.
    """

    model_type = "internvl_chat"

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        folder = kwargs.pop("name_or_path", None) or config_dict.get("_name_or_path")
        kwargs = {key: value for key, value in kwargs.items() if key == "return_unused_kwargs"}
        config = native_config(folder) if folder and Path(folder).is_dir() else build_config(config_dict, 0)
        return (config, {}) if kwargs.get("return_unused_kwargs") else config


AutoConfig.register("internvl_chat", InternVLChatConfig, exist_ok=True)


# ---------------------------------------------------------------------------------------------------- checkpoint


def _stored_shapes(model_dir: Path) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes from the safetensors headers, one file or sharded."""
    index = model_dir / INDEX
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise InputError("holds no weight_map", index)
        names = sorted(set(weight_map.values()))
        missing = [name for name in names if not (model_dir / name).is_file()]
        if missing:
            raise InputError(f"{len(missing)} of {len(names)} shards are missing: {_some(missing)}", index)
    else:
        names = ["model.safetensors"]
        if not (model_dir / names[0]).is_file():
            shards = sorted(path.name for path in model_dir.glob("*.safetensors"))
            found = f" (found {_some(shards)}, but no {INDEX})" if shards else ""
            raise InputError(f"has no model.safetensors and no {INDEX}{found}", model_dir)
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        try:
            with safe_open(model_dir / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a dict)
                    if key in shapes:
                        raise InputError(f"weight {key} is stored twice", model_dir / name)
                    shapes[key] = tuple(file.get_slice(key).get_shape())
        except (SafetensorError, OSError) as error:
            raise InputError(f"is not a whole safetensors file ({error})", model_dir / name) from None
    if index.is_file():
        absent = sorted(set(weight_map) - set(shapes))
        if absent:
            raise InputError(f"lists {len(absent)} weights that no shard holds: {_some(absent)}", index)
    return shapes


def _some(names: list[str], count: int = 4) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def check_weights(model_dir: str | Path, config: InternVLConfig) -> None:
    """Compare names and shapes on disk with the architecture, from headers alone; `InputError` names what is wrong.

    A key more or less is refused: a model that loads with a random layer answers plausibly and wrongly.
    """
    model_dir = Path(model_dir)
    stored = _stored_shapes(model_dir)
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    expected = {name: tuple(tensor.shape) for name, tensor in original_state_dict(model).items()}
    missing, extra = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    if missing:
        raise InputError(f"{len(missing)} weights are missing: {_some(missing)}", model_dir)
    if extra:
        raise InputError(f"{len(extra)} weights do not belong to this architecture: {_some(extra)}", model_dir)
    for name, shape in expected.items():
        if stored[name] != shape:
            raise InputError(f"weight {name} has shape {list(stored[name])}, config.json says {list(shape)}", model_dir)


def load_internvl2(model_dir: str | Path, dtype: torch.dtype = torch.float32) -> InternVLForConditionalGeneration:
    """Load an InternVL2 folder (original layout, or one that this project exported) into transformers' own classes.

    One or many safetensors shards; nothing of the folder is executed. Raises `InputError` for another architecture,
    another `ps_version`, missing shards, and missing, extra or misshapen weights.
    """
    model_dir = Path(model_dir)
    config = native_config(model_dir)
    raw = read_config(model_dir)
    if raw["model_type"] == "internvl":
        return InternVLForConditionalGeneration.from_pretrained(model_dir, config=config, dtype=dtype)
    check_weights(model_dir, config)
    return LAYOUTS[checkpoint_kind(raw)].from_pretrained(model_dir, config=config, dtype=dtype)


def save_internvl2_original(
    model: InternVLForConditionalGeneration,
    config: dict,
    tokenizer: PreTrainedTokenizerFast | None,
    out: str | Path,
    max_shard_size: str = "5GB",
) -> None:
    """Write `model` as an original InternVL2 folder: original weight names, the original `config` dict, tokenizer."""
    previous = model.__dict__.get("_weight_conversions")
    model._weight_conversions = _mapping(checkpoint_kind(config))
    try:
        model.save_pretrained(out, max_shard_size=max_shard_size)
    finally:
        model.__dict__.pop("_weight_conversions")
        if previous is not None:
            model._weight_conversions = previous
    if tokenizer is not None:
        tokenizer.save_pretrained(out)
    write_json(Path(out) / "config.json", config)
    write_json(Path(out) / "preprocessor_config.json", preprocessor_config(config.get("force_image_size") or 448))


def tile_side(config: InternVLConfig) -> int:
    """Pixels of a tile's side, from the tokens that one tile makes."""
    patch = config.vision_config.patch_size
    grid = math.isqrt(config.image_seq_length) / config.downsample_ratio
    return round(grid) * (patch[0] if isinstance(patch, list | tuple) else patch)


def preprocessor_config(side: int) -> dict:
    """What an image processor must do for tiles of `side` pixels: ImageNet statistics, bicubic, no cropping."""
    return {
        "image_processor_type": "GotOcr2ImageProcessor",
        "crop_to_patches": False,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }


# ---------------------------------------------------------------------------------------------------- tokenizer


def load_tokenizer(model_dir: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of an InternVL2 folder, without its remote class.

    `tokenizer.json` is taken as it is. From a SentencePiece `tokenizer.model` alone, Phi-3's is transformers' own
    `LlamaTokenizer`; InternLM2's is rebuilt, because it has neither Llama's space prefix nor its ids for the chat
    tokens. Raises `InputError` when there is no tokenizer or it has no `<IMG_CONTEXT>`.
    """
    model_dir = Path(model_dir)
    kind = checkpoint_kind(read_config(model_dir), model_dir / "config.json")
    settings = read_json(model_dir / "tokenizer_config.json") if (model_dir / "tokenizer_config.json").is_file() else {}
    try:
        if (model_dir / "tokenizer.json").is_file():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
        elif not (model_dir / "tokenizer.model").is_file():
            raise InputError("has neither tokenizer.json nor tokenizer.model", model_dir)
        elif kind == "phi3":
            from transformers import LlamaTokenizer

            tokenizer = LlamaTokenizer.from_pretrained(model_dir, trust_remote_code=False)
        else:
            tokenizer = _internlm2_tokenizer(model_dir, settings)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"has a tokenizer that cannot be read: {error}", model_dir) from None
    # A saved tokenizer must not point at remote code again.
    tokenizer.init_kwargs.pop("auto_map", None)
    if tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) in (None, tokenizer.unk_token_id):
        raise InputError(f"tokenizer has no {IMAGE_TOKEN}", model_dir)
    return tokenizer


def _internlm2_tokenizer(model_dir: Path, settings: dict) -> PreTrainedTokenizerFast:
    """Rebuild InternLM2's byte-fallback BPE from its SentencePiece file, ids and BOS as its own class gives them."""
    from transformers.convert_slow_tokenizer import import_protobuf

    proto = import_protobuf().ModelProto()
    proto.ParseFromString((model_dir / "tokenizer.model").read_bytes())
    if proto.trainer_spec.model_type != 2:
        raise InputError("is not a BPE SentencePiece model", model_dir / "tokenizer.model")
    pieces = [(piece.piece, piece.score, piece.type) for piece in proto.pieces]
    added = {int(i): token for i, token in settings.get("added_tokens_decoder", {}).items()}
    if not added and (model_dir / "added_tokens.json").is_file():
        added = {i: {"content": token} for token, i in read_json(model_dir / "added_tokens.json").items()}
    # The chat tokens take over ids of unused pieces.
    names = {i: piece for i, (piece, _, _) in enumerate(pieces)} | {i: token["content"] for i, token in added.items()}
    vocab = {names[i]: i for i in range(len(pieces))}
    normal = {piece: score for i, (piece, score, kind) in enumerate(pieces) if kind == 1 and i not in added}
    merges = []
    for piece in sorted(normal, key=lambda p: (-normal[p], vocab[p])):
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        splits = [pair for pair in splits if pair[0] in normal and pair[1] in normal]
        merges += sorted(splits, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    unknown = proto.trainer_spec.unk_piece
    core = Tokenizer(models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix = proto.normalizer_spec.add_dummy_prefix
    steps = [normalizers.Prepend("▁")] if prefix else []
    if proto.normalizer_spec.precompiled_charsmap:
        steps.insert(0, normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap))
    if proto.normalizer_spec.remove_extra_whitespaces:
        steps.insert(0, normalizers.Sequence([normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]))
    core.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    control = [AddedToken(piece, normalized=False, special=True) for piece, _, kind in pieces if kind in (2, 3)]
    core.add_tokens([token for token in control if token.content in vocab])
    flags = ("lstrip", "rstrip", "single_word")
    core.add_tokens(
        [
            AddedToken(
                added[i]["content"],
                special=added[i].get("special", True),
                normalized=added[i].get("normalized", False),
                **{flag: added[i].get(flag, False) for flag in flags},
            )
            for i in sorted(added)
        ]
    )
    for i, token in added.items():
        if core.token_to_id(token["content"]) != i:
            raise InputError(f"token {token['content']!r} does not fit id {i}", model_dir / "tokenizer_config.json")
    special = {"unk_token": unknown, "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    for key in special:
        value = settings.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        special[key] = value or special[key]
    if settings.get("add_bos_token", True):
        bos = special["bos_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, core.token_to_id(bos))]
        )
    keep = ("model_max_length", "chat_template", "padding_side")
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        clean_up_tokenization_spaces=False,
        **special,
        **{key: settings[key] for key in keep if settings.get(key) is not None},
    )


# ---------------------------------------------------------------------------------------------------- ms-swift


def _or_exit(function, *args):
    """Call `function`; end the process with one line and status 2 where ms-swift would print its own traceback."""
    try:
        return function(*args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


def register() -> None:
    """Register the ms-swift model type `emoverse`: an InternVL2 folder, loaded as above, tokenizer only."""
    from swift.model import ModelLoader, ModelMeta, register_model

    class EmoverseMeta(ModelMeta):
        def check_requires(self, model_info=None):
            # ms-swift calls this once the folder is known and before it looks at `template`.
            if model_info is not None:
                folder = Path(model_info.model_dir)
                self.template = KINDS[_or_exit(checkpoint_kind, read_config(folder), folder / "config.json")].template
            super().check_requires(model_info)

    class EmoverseLoader(ModelLoader):
        default_trust_remote_code = False

        def get_config(self, model_dir):
            return _or_exit(native_config, model_dir)

        def get_processor(self, model_dir, config):
            # The tokenizer only: transformers' InternVL processor needs torchvision, our template needs no processor.
            return _or_exit(load_tokenizer, model_dir)

        def get_model(self, model_dir, config, processor, model_kwargs):
            raw = read_config(model_dir)
            self.auto_model_cls = InternVLForConditionalGeneration
            if raw["model_type"] == "internvl_chat":
                if not self.return_dummy_model:
                    _or_exit(check_weights, model_dir, config)
                self.auto_model_cls = LAYOUTS[checkpoint_kind(raw)]
            model = super().get_model(model_dir, config, processor, model_kwargs)
            # Chat turns end with a token that not every original generation_config.json lists.
            end = processor.convert_tokens_to_ids(KINDS[checkpoint_kind(raw)].end)
            stops = model.generation_config.eos_token_id
            stops = [] if stops is None else [stops] if isinstance(stops, int) else list(stops)
            model.generation_config.eos_token_id = [*stops, *({end} - set(stops))]
            return model

    register_model(
        EmoverseMeta(
            "emoverse",
            [],
            EmoverseLoader,
            template=None,
            is_multimodal=True,
            model_arch="llava_hf",  # where the native InternVL keeps language model, projector and vision tower
        ),
        exist_ok=True,
    )


def main() -> None:
    """Complete an exported folder with the preprocessing of its tiles (shell/export.sh runs this)."""
    folder = Path(sys.argv[1])
    config = read_config(folder)
    if config.get("model_type") == "internvl":
        write_json(folder / "preprocessor_config.json", preprocessor_config(tile_side(native_config(folder))))


if __name__ == "__main__":
    run_cli(main)
