"""Tiny random encoders in transformers' layout: `tiny_encoder("hubert", folder)` saves one and returns the folder."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    Blip2VisionConfig,
    Blip2VisionModel,
    VideoMAEConfig,
    VideoMAEModel,
    ViTMAEConfig,
    ViTMAEModel,
)

from data_prep.demo.emotion_llama import hubert, whisper

WIDTH, SIDE = 32, 32
COMMON = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
PICTURE = {"image_size": SIDE, "patch_size": 8, "initializer_range": 0.2}


def tiny_encoder(name: str, folder: Path, seed: int = 0) -> Path:
    """A model of that encoder from a seed, and its preprocessing where the published ones have it."""
    torch.manual_seed(seed)
    if name == "hubert":
        hubert(folder, seed, WIDTH)
        return folder
    if name == "whisper":
        whisper(folder, seed, WIDTH)
        return folder
    if name == "videomae":
        decoder = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}
        model = VideoMAEModel(VideoMAEConfig(**COMMON, **PICTURE, **decoder))
    elif name == "eva_video":
        model = Blip2VisionModel(Blip2VisionConfig(**COMMON, **PICTURE))
        torch.nn.init.normal_(model.embeddings.position_embedding, std=0.2)
    else:
        decoder = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}
        model = ViTMAEModel(ViTMAEConfig(**COMMON, **PICTURE, **decoder))
    model.save_pretrained(folder)
    return folder
