"""Weights of original InternVL2 checkpoints: the mapping to transformers' names and back, loading, saving, checks.

A loaded model is a plain `InternVLForConditionalGeneration`: `save_pretrained` and merged exports write the layout
that stock transformers loads, because a native `config.json` beside original weight names would load nowhere.
`save_internvl2_original` applies the same mapping backwards where the original layout is wanted.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
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
from transformers.modeling_utils import set_zero3_state

from swift_plugins.files import InputError, read_json, write_json
from swift_plugins.internvl2.config import (
    IMAGE_TOKEN,
    NATIVE_KINDS,
    build_config,
    checkpoint_kind,
    preprocessor_config,
    read_config,
    said_of,
)
from swift_plugins.internvl2.tokenizer import load_tokenizer

INDEX = "model.safetensors.index.json"


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
    """InternVL2-4B and other checkpoints with Phi-3 inside."""


class InternVL2WithInternLM2(_OriginalLayout):
    """InternVL2-8B and other checkpoints with InternLM2 inside."""


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


def native_config(model_dir: str | Path, tokenizer: PreTrainedTokenizerFast | None = None) -> InternVLConfig:
    """The native config of a checkpoint folder, original or exported layout."""
    config = read_config(model_dir)
    checkpoint_kind(config, Path(model_dir) / "config.json")
    if config["model_type"] == "internvl":
        with said_of(Path(model_dir) / "config.json"):
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


def weight_files(model_dir: Path) -> list[Path]:
    """The safetensors files of a model folder: one, or the shards of its index. Raises `InputError` where one lacks."""
    index = model_dir / INDEX
    if index.is_file():
        names = sorted(set(_weight_map(index).values()))
        missing = [name for name in names if not (model_dir / name).is_file()]
        if missing:
            raise InputError(f"{len(missing)} of {len(names)} shards are missing: {_some(missing)}", index)
        return [model_dir / name for name in names]
    if not (model_dir / "model.safetensors").is_file():
        shards = sorted(path.name for path in model_dir.glob("*.safetensors"))
        found = f" (found {_some(shards)}, but no {INDEX})" if shards else ""
        if pickles := sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in model_dir.glob(pattern)):
            found = f" (found {_some(pickles)}: pickles, which are not read; save them as safetensors)"
        raise InputError(f"has no model.safetensors and no {INDEX}{found}", model_dir)
    return [model_dir / "model.safetensors"]


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError("holds no weight_map of weights to files", index)
    return weight_map


def _stored_shapes(model_dir: Path) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes from the safetensors headers, one file or sharded."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(model_dir):
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a dict)
                    if key in shapes:
                        raise InputError(f"weight {key} is stored twice", path)
                    shapes[key] = tuple(file.get_slice(key).get_shape())
        except (SafetensorError, OSError) as error:
            raise InputError(f"is not a whole safetensors file ({error})", path) from None
    index = model_dir / INDEX
    if index.is_file():
        absent = sorted(set(_weight_map(index)) - set(shapes))
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
    # ZeRO-3 divides the weights of every language model that is built, and there are none here.
    with said_of(model_dir / "config.json"), torch.device("meta"), set_zero3_state():
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
