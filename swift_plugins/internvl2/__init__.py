"""Original InternVL2 checkpoints (Phi-3 or InternLM2 inside) in transformers' own InternVL classes, no remote code.

model = load_internvl2("InternVL2-4B", dtype=torch.bfloat16)      # in Python
swift sft --external_plugins swift_plugins/emoverse.py --model InternVL2-4B --model_type emoverse …
"""

from swift_plugins.internvl2.config import (
    IMAGE_TOKEN,
    KINDS,
    NATIVE_KINDS,
    build_config,
    checkpoint_kind,
    preprocessor_config,
    read_config,
    tile_side,
)
from swift_plugins.internvl2.tokenizer import load_tokenizer, slow_text
from swift_plugins.internvl2.weights import (
    LAYOUTS,
    SplitGroupedQKV,
    check_weights,
    load_internvl2,
    native_config,
    original_state_dict,
    save_internvl2_original,
    weight_files,
)

__all__ = [
    "IMAGE_TOKEN",
    "KINDS",
    "LAYOUTS",
    "NATIVE_KINDS",
    "SplitGroupedQKV",
    "build_config",
    "check_weights",
    "checkpoint_kind",
    "load_internvl2",
    "load_tokenizer",
    "native_config",
    "original_state_dict",
    "preprocessor_config",
    "read_config",
    "save_internvl2_original",
    "slow_text",
    "tile_side",
    "weight_files",
]
