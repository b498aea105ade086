"""A tiny random Emotion-LLaMA in the layout of the published files: `eva_vit_g.pth`, a Llama folder, a trained state.

tiny_files(tmp_path / "files")                       # eva.pth, llama/, state.pth
base = tiny_base(tmp_path, variant=2)                # what the converter makes of them
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import torch

from data_prep.demo.emotion_llama import drawer, eva, llama, tokenizer
from swift_plugins.emotion_llama import EmotionLlamaConfig, checkpoints, convert
from swift_plugins.emotion_llama.register import PROJECTIONS

EVA, LLM, STREAM, AUDIO = 32, 48, 24, 40
SIZES = ["--heads", "4", "--image-size", "56", "--set", f"stream_width={STREAM}", f"audio_width={AUDIO}"]
SIZES += ["fusion_hidden=24", "fusion_width=12", "fusion_out=20"]


def tiny_files(folder: Path, variant: int = 1, seed: int = 0) -> Path:
    """Write the three files; projections of the trained state as the variant has them."""
    folder.mkdir(parents=True)
    draw = drawer(seed)
    torch.save(eva(draw, EVA), folder / "eva.pth")
    llama(folder / "llama", tokenizer(), seed, hidden_size=LLM)
    torch.save({"model": trained(variant, draw), "config": {"model": {"lora_alpha": 1}}}, folder / "state.pth")
    return folder


def trained(variant: int, draw) -> dict[str, torch.Tensor]:
    """The trained part under its original names, two tensors of the unused classifier with it."""
    config = EmotionLlamaConfig(
        vision_config={"hidden_size": EVA, "intermediate_size": 139, "num_attention_heads": 4, "image_size": 56},
        text_config={"hidden_size": LLM, "intermediate_size": 96, "num_attention_heads": 4, "vocab_size": 354},
        variant=variant,
        stream_width=STREAM,
        audio_width=AUDIO,
        fusion_hidden=24,
        fusion_width=12,
        fusion_out=20,
    )
    names = checkpoints.empty(config).state_dict()
    state = {name: draw(*value.shape) for name, value in names.items() if name.split(".")[0] in PROJECTIONS[variant]}
    for layer in range(2):
        for module in ("q_proj", "v_proj"):
            name = f"llama_model.base_model.model.model.layers.{layer}.self_attn.{module}"
            state |= {f"{name}.lora_A.weight": draw(4, LLM), f"{name}.lora_B.weight": draw(LLM, 4)}
    return state | {"attention.fc_att.weight": draw(7, 128), "attention.fc_att.bias": draw(7)}


def converted(*arguments: object) -> str:
    """Run the converter in this process; what it printed."""
    before, sys.argv = sys.argv, ["convert", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            convert.main()
    finally:
        sys.argv = before
    return said.getvalue()


def tiny_base(folder: Path, variant: int = 1, *more: object) -> Path:
    """The files in `folder`/files, and the base that the converter makes of them."""
    files = tiny_files(folder / "files", variant)
    base = folder / "base"
    flags = ["--variant", variant, "--out", base, *SIZES, *more]
    converted("base", "--eva", files / "eva.pth", "--llama", files / "llama", *flags)
    return base
