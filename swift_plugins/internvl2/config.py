"""Which InternVL2 a folder holds, and the native config of its original `config.json`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

from huggingface_hub.errors import StrictDataclassError
from transformers import InternVLConfig

from swift_plugins.files import InputError, read_json

IMAGE_TOKEN = "<IMG_CONTEXT>"


class Kind(NamedTuple):
    """The chat format that goes with a language model of InternVL2."""

    chat: str | None  # `template` in the original config.json
    template: str  # ours
    end: str  # the token that ends a turn


# By `llm_config.model_type`; InternVL3 and 3.5 in Hugging Face format need no mapping, only their chat format.
KINDS = {
    "phi3": Kind("phi3-chat", "emoverse_phi3", "<|end|>"),
    "internlm2": Kind("internlm2-chat", "emoverse_internlm2", "<|im_end|>"),
    "qwen": Kind(None, "emoverse_chatml", "<|im_end|>"),
}
# What the chat format of a kind puts before a turn of a role, and after it.
TURNS = {
    "phi3": ("<|{role}|>\n", "<|end|>"),
    "internlm2": ("<|im_start|>{role}\n", "<|im_end|>"),
    "qwen": ("<|im_start|>{role}\n", "<|im_end|>\n"),
}


# What Python and transformers say of a value that they cannot compute with.
WRONG = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, RuntimeError)
WRONG += (StrictDataclassError,)
MOST_LAYERS = 1000  # a number without end would be built without end


@contextlib.contextmanager
def said_of(file: str | Path) -> Iterator[None]:
    """`InputError` naming `file` for a value in it that is of no use, in the words of whoever could not use it."""
    try:
        yield
    except WRONG as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        raise InputError(f"holds a value of no use ({type(error).__name__}: {reason})", file) from None


def chat_template(kind: str, start: str = "") -> str:
    """The Jinja chat template of a kind, as our training writes its turns; media as transformers wants them.

    `start` is what the tokenizer itself puts before a conversation; transformers adds nothing to a rendered one.
    """
    opening, end = (part.replace("\n", "\\n") for part in TURNS[kind])
    before, after = opening.split("{role}")
    if kind == "internlm2":
        start = "{{ bos_token }}"
    # The tokens are those of `processor_tokens`, which transformers hands to the template.
    part = (
        "{% if part['type'] == 'text' %}{{ part['text'] }}"
        "{% elif part['type'] == 'image' %}{{ context_image_token + '\\n' }}"
        "{% elif part['type'] == 'video' %}{{ video_token + '\\n' }}{% endif %}"
    )
    return (
        f"{start}{{% for message in messages %}}{{{{ '{before}' + message['role'] + '{after}' }}}}"
        "{% if message['content'] is string %}{{ message['content'] }}"
        f"{{% else %}}{{% for part in message['content'] %}}{part}{{% endfor %}}{{% endif %}}{{{{ '{end}' }}}}"
        f"{{% endfor %}}{{% if add_generation_prompt %}}{{{{ '{before}assistant{after}' }}}}{{% endif %}}"
    )


# Native folders, our exports among them, name the language model by transformers' type.
NATIVE_KINDS = {"phi3": "phi3", "llama": "internlm2", "qwen2": "qwen", "qwen3": "qwen"}


def checkpoint_kind(config: dict, file: str | Path = "config.json") -> str:
    """The key of `KINDS`, from the checkpoint's own config; `InputError` when it is neither, or contradicts itself.

    Both layouts are known: the original (`internvl_chat`) and the native one that exports write (`internvl`).
    """
    with said_of(file):
        return _checkpoint_kind(config, file)


def _checkpoint_kind(config: dict, file: str | Path) -> str:
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
    if kind not in KINDS or KINDS[kind].chat is None:
        name = ", ".join(llm.get("architectures") or []) or kind or "none"
        raise InputError(f"language model {name} is not supported, only Phi-3 and InternLM2", file)
    if config.get("template") not in (None, KINDS[kind].chat):
        raise InputError(
            f"template {config['template']!r} does not belong to language model {kind!r} ({KINDS[kind].chat!r})", file
        )
    norm = (config.get("vision_config") or {}).get("norm_type", "rms_norm")
    if norm not in ("layer_norm", "rms_norm"):
        raise InputError(f"vision_config.norm_type {norm!r} is not supported, only layer_norm and rms_norm", file)
    if config.get("pad2square"):
        raise InputError("pad2square is not supported: pictures would be padded, ours are scaled to the square", file)
    version = config.get("ps_version", "v1")  # the original default
    if version != "v2":
        raise InputError(f"ps_version {version!r} is not supported, only 'v2' (another pixel order)", file)
    return kind


def build_config(config: dict, image_token_id: int, file: str | Path = "config.json") -> InternVLConfig:
    """The native config of an original `config.json`.

    Keys that are absent take the ORIGINAL code's defaults, which differ from the native ones. Raises `InputError`
    naming the key for what the native classes cannot represent.
    """
    with said_of(file):
        return _build_config(config, image_token_id, file)


def _build_config(config: dict, image_token_id: int, file: str | Path) -> InternVLConfig:
    kind = checkpoint_kind(config, file)
    vision = config.get("vision_config") or {}
    patch = vision.get("patch_size", 14)
    side = config.get("force_image_size") or vision.get("image_size", 224)
    ratio = config.get("downsample_ratio", 0.5)
    grid = side / patch * ratio
    if grid != int(grid):
        raise InputError(f"force_image_size {side} does not fit patch size {patch} and downsample_ratio {ratio}", file)
    for part in (vision, config["llm_config"]):
        if part.get("num_hidden_layers", 0) > MOST_LAYERS:
            raise InputError(f"num_hidden_layers is {part['num_hidden_layers']}, more than {MOST_LAYERS}", file)
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


def tile_side(config: InternVLConfig) -> int:
    """Pixels of a tile's side, from the tokens that one tile makes."""
    patch = config.vision_config.patch_size
    grid = math.isqrt(config.image_seq_length) / config.downsample_ratio
    return round(grid) * (patch[0] if isinstance(patch, list | tuple) else patch)


def processor_tokens(vocab: Container[str]) -> dict[str, str]:
    """The tokens that transformers' InternVL processor asks its tokenizer for, as entries of tokenizer_config.json.

    The placeholder of a video never reaches the model, but a token that the vocabulary lacks would get an id beyond
    the embeddings.
    """
    video = next((token for token in ("<video>", "<|video_pad|>", "<unk>") if token in vocab), IMAGE_TOKEN)
    images = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": IMAGE_TOKEN}
    return images | {"video_token": video}


def preprocessor_config(side: int) -> dict:
    """What an image processor must do for tiles of `side` pixels: ImageNet statistics, bicubic, one tile a picture."""
    return {
        "image_processor_type": "GotOcr2ImageProcessor",
        "crop_to_patches": False,
        "max_patches": 1,  # transformers' InternVL processor crops whatever the line above says
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


def video_preprocessor_config(side: int, frames: int = 8) -> dict:
    """The same for a video: the middle frame of each of its `frames` segments, each as a picture.

    transformers rounds another way than InternVL2 (`frames.segment_centre_indices`): of a whole video it takes frames
    beside those; given `frames` pictures, it takes them as they are.
    """
    pixels = {key: value for key, value in preprocessor_config(side).items() if not key.endswith(("_type", "_patches"))}
    sampling = {"do_sample_frames": True, "num_frames": frames, "initial_shift": True}
    return {"video_processor_type": "InternVLVideoProcessor"} | sampling | pixels
