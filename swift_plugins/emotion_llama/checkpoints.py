"""Published checkpoint files: reading them without running anything in them, and what their keys are here.

A `.pth` file is read with `weights_only` and mapped into memory. Every key is known, in the list of what is ignored,
or refused; every shape is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import Blip2VisionConfig

from swift_plugins.emotion_llama.config import EmotionLlamaConfig
from swift_plugins.files import InputError

# Parts of the trained state that the model does not use: the classifier of the original, tables that are computed.
UNUSED = re.compile(r"attention\.(feats_prep|attention_mlp|fc_att|fc_out)\.|(.*\.)?rotary_emb\.inv_freq$")
LORA = re.compile(r"llama_model\.base_model\.model\.(model\.layers\.\d+\.self_attn\.[qv]_proj\.lora_[AB]\.weight)")
HEAD_SIZE = 88  # of EVA-CLIP-g's 16 heads
BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """(tensors by name, the settings kept beside them or {}) of a `.pth` or safetensors file.

    Raises `InputError` for a file that is neither, or that holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise InputError("no such file", path)
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, {}  # noqa: SIM118 (it is no mapping)
        except (SafetensorError, OSError) as error:
            raise InputError(f"is not a whole safetensors file ({error})", path) from None
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the form of PyTorch before 1.6 cannot be mapped
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"holds something else than tensors, or is no PyTorch file: {reason[0]}", path) from None
    settings = content.get("config") if isinstance(content, dict) else None
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not content:
        raise InputError("holds no state dict", path)
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(f"{name!r} is not a tensor but {type(value).__name__}", path)
    return content, settings if isinstance(settings, dict) else {}


def vision_config(tensors: Mapping[str, torch.Tensor], path: Path, side: int, heads: int | None) -> Blip2VisionConfig:
    """The whole encoder in an EVA file, for pictures of `side` pixels. heads: as the file does not say (width / 88)."""
    try:
        width, _, patch, _ = tensors["patch_embed.proj.weight"].shape
        inner = tensors["blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError):
        raise InputError("is not an EVA-CLIP-g file: patch_embed.proj or blocks.0 is missing", path) from None
    blocks = {int(name.split(".")[1]) for name in tensors if re.match(r"blocks\.\d+\.", name)}
    heads = heads or width // HEAD_SIZE
    if not heads or width % heads:
        raise InputError(f"{heads} heads do not share a width of {width}", path)
    if side % patch:
        raise InputError(f"pictures of {side} pixels do not divide into patches of {patch}")
    return Blip2VisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=len(blocks),
        num_attention_heads=heads,
        image_size=side,
        patch_size=patch,
        initializer_range=0.02,
    )


def vision_tensors(
    tensors: Mapping[str, torch.Tensor], config: Blip2VisionConfig, path: Path
) -> dict[str, torch.Tensor]:
    """An EVA file's tensors under the names of Blip2VisionModel; blocks after the last of `config` are left out.

    Without the last block the file's final norm is left out, too: weight one, bias zero stand for it, as the original
    never trains its own. Raises `InputError` for an unknown or missing key and a wrong shape.
    """
    found: dict[str, torch.Tensor] = {}
    total = 1 + max(int(name.split(".")[1]) for name in tensors if re.match(r"blocks\.\d+\.", name))
    whole = config.num_hidden_layers == total
    rest = set(tensors)

    def take(name: str) -> torch.Tensor:
        rest.discard(name)
        try:
            return tensors[name]
        except KeyError:
            raise InputError(f"{name} is missing", path) from None

    found["embeddings.class_embedding"] = take("cls_token")
    found["embeddings.position_embedding"] = resized(take("pos_embed"), config.image_size // config.patch_size)
    for kind in ("weight", "bias"):
        found[f"embeddings.patch_embedding.{kind}"] = take(f"patch_embed.proj.{kind}")
    for block in range(config.num_hidden_layers):
        old, new = f"blocks.{block}", f"encoder.layers.{block}"
        query, value = take(f"{old}.attn.q_bias"), take(f"{old}.attn.v_bias")
        found[f"{new}.self_attn.qkv.bias"] = torch.cat([query, torch.zeros_like(value), value])
        found[f"{new}.self_attn.qkv.weight"] = take(f"{old}.attn.qkv.weight")
        for part, renamed in BLOCK.items():
            for kind in ("weight", "bias"):
                found[f"{new}.{renamed}.{kind}"] = take(f"{old}.{part}.{kind}")
    for kind, stand_in in (("weight", torch.ones), ("bias", torch.zeros)):
        dtype = found["embeddings.class_embedding"].dtype
        found[f"post_layernorm.{kind}"] = take(f"norm.{kind}") if whole else stand_in(config.hidden_size, dtype=dtype)
    later = re.compile(r"(norm|head|fc_norm)\.(weight|bias)$|blocks\.(\d+)\.")
    unknown = [name for name in rest if not later.match(name) or _block(name) in range(config.num_hidden_layers)]
    if unknown:
        raise InputError(f"{_some(unknown)}: no key of EVA-CLIP-g", path)
    return found


def _block(name: str) -> int | None:
    return int(name.split(".")[1]) if name.startswith("blocks.") else None


def resized(table: torch.Tensor, grid: int) -> torch.Tensor:
    """Positions (1, 1 + n², width) for a grid × grid picture: bicubic in float32, the CLS row as it is."""
    first, rest = table[:, :1], table[:, 1:]
    side = round(rest.shape[1] ** 0.5)
    if side == grid:
        return table
    square = rest.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    square = nn.functional.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([first, square.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)], 1)


def adapter_tensors(
    tensors: Mapping[str, torch.Tensor], projections: Iterable[str], path: Path
) -> tuple[dict[str, torch.Tensor], int]:
    """(a checkpoint's trained tensors under the names of a PEFT adapter, how many were ignored by name).

    projections: the modules of the model that are trained in full. Raises `InputError` for any other key.
    """
    found, ignored, unknown = {}, 0, []
    for name, value in tensors.items():
        if lora := LORA.fullmatch(name):
            found[f"base_model.model.language_model.{lora[1]}"] = value
        elif name.split(".")[0] in projections:
            found[f"base_model.model.{name}"] = value
        elif UNUSED.match(name):
            ignored += 1
        else:
            unknown.append(name)
    if unknown:
        raise InputError(f"{_some(unknown)}: no key of this model", path)
    if not found:
        raise InputError("holds none of this model's tensors", path)
    return found, ignored


def original_tensors(adapter: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """The way back of `adapter_tensors`; `InputError` for a key that the original has no name for."""
    found, unknown = {}, []
    for name, value in adapter.items():
        bare = name.removeprefix("base_model.model.")
        lora = f"llama_model.base_model.model.{bare.removeprefix('language_model.')}"
        if bare.startswith("language_model.") and LORA.fullmatch(lora):
            found[lora] = value
        elif not bare.startswith(("language_model.", "vision_tower.")):
            found[bare] = value
        else:
            unknown.append(name)
    if unknown:
        raise InputError(f"{_some(unknown)}: the original trains no such part", path)
    return found


def check_shapes(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], path: Path) -> None:
    """`InputError` for the first tensor that the model has no place for, or another shape for."""
    for name, value in tensors.items():
        if name not in wanted:
            raise InputError(f"{name}: the model has no such part", path)
        if value.shape != wanted[name].shape:
            raise InputError(f"{name} is {[*value.shape]}, and the model's {[*wanted[name].shape]}", path)


def empty(config: EmotionLlamaConfig) -> nn.Module:
    """The model without memory for its weights: names and shapes."""
    from swift_plugins.emotion_llama.model import EmotionLlama

    with torch.device("meta"):
        return EmotionLlama(config)


def _some(names: Iterable[str], count: int = 3) -> str:
    names = sorted(names)
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
