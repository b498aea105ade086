"""Emotion-LLaMA of transformers' own parts, its projections under the names that the published checkpoints use."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Blip2VisionModel, GenerationMixin, LlamaForCausalLM, PreTrainedModel

from swift_plugins.emotion_llama.config import BLOCK, MERGED, EmotionLlamaConfig

NORM_EPS = 1e-5  # of the norm after the vision tower; its others have 1e-6


class EmotionLlama(PreTrainedModel, GenerationMixin):
    """Media become vectors as wide as Llama's (`media`), the template lays them among the text's."""

    config_class = EmotionLlamaConfig
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_attention_backend = True
    _no_split_modules = ["LlamaDecoderLayer", "Blip2EncoderLayer"]

    def __init__(self, config: EmotionLlamaConfig):
        super().__init__(config)
        self.vision_tower = Blip2VisionModel(config.vision_config)
        self.vision_tower.post_layernorm.eps = NORM_EPS
        self.language_model = LlamaForCausalLM(config.text_config)
        seen, width = config.vision_config.hidden_size, config.text_config.hidden_size
        self.llama_proj = nn.Linear(seen * MERGED, width)
        if config.variant == 1:
            self.feats_llama_proj1 = nn.Linear(config.stream_width, width)
            self.feats_llama_proj2 = nn.Linear(config.stream_width, width)
            self.feats_llama_proj3 = nn.Linear(config.stream_width, width)
            self.cls_tk_llama_proj = nn.Linear(seen, width)
        else:
            self.llama_proj_video = nn.Linear(seen, width)
            self.llama_proj_audio = nn.Linear(config.audio_width, width)
            if config.fusion != "none":
                self.llama_proj_fusion = nn.Linear(config.fusion_out, width)
                self.conv_pro_module = Fusion(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def look(self, pixels: torch.Tensor) -> torch.Tensor:
        """(rows, 1 + patches, width) of (rows, 3, side, side): the CLS vector first, then the patches row by row."""
        return self.vision_tower(pixel_values=pixels.to(self.vision_tower.dtype)).last_hidden_state

    def media(self, pixels: torch.Tensor, streams: list[torch.Tensor]) -> torch.Tensor:
        """(rows, tokens, width of Llama), in the order of their places.

        pixels: (rows, 3, side, side). streams: prepared features in the order of `STREAMS`, (rows, width) each in
        variant 1, (rows, 64, width) in variant 2; zeros where a row has none.
        """
        seen = self.look(pixels).to(self.llama_proj.weight.dtype)
        first, patches = seen[:, 0], seen[:, 1:]
        image = self.llama_proj(patches.reshape(len(patches), -1, patches.shape[2] * MERGED))
        if self.config.variant == 1:
            projections = (self.feats_llama_proj1, self.feats_llama_proj2, self.feats_llama_proj3)
            vectors = [project(stream) for project, stream in zip(projections, streams, strict=True)]
            return torch.cat([image, torch.stack([*vectors, self.cls_tk_llama_proj(first)], 1)], 1)
        video, audio = streams
        parts = [image, self.llama_proj_video(video), self.llama_proj_audio(audio)]
        if self.config.fusion != "none":
            fused = self.conv_pro_module(audio, first[:, None].expand(-1, BLOCK, -1), video)
            parts.insert(0, self.llama_proj_fusion(fused))
        return torch.cat(parts, 1)

    def forward(self, input_ids=None, inputs_embeds=None, **kwargs):
        """As Llama's: media are in `inputs_embeds` already."""
        return self.language_model(input_ids=input_ids, inputs_embeds=inputs_embeds, **kwargs)


class Fusion(nn.Module):
    """Conv-Attention pre-fusion: a weighted sum of the three streams and a residual convolution over them, 64 tokens.

    The weights per token have no softmax. `attention` and `convolution` leave out the other half.
    """

    def __init__(self, config: EmotionLlamaConfig):
        super().__init__()
        seen, hidden, width = config.vision_config.hidden_size, config.fusion_hidden, config.fusion_width
        self.kind = config.fusion
        self.feats_prep = nn.ModuleList([_layers(size, hidden, width) for size in (config.audio_width, seen, seen)])
        if self.kind != "convolution":
            self.attention_mlp = _layers(3 * width, hidden, width)
            self.fc_att = nn.Linear(width, 3)
        if self.kind != "attention":
            self.conv_entry = nn.Conv1d(3 * width, width, 1)
            self.conv_module = _Convolutions(width)
        self.fc_final = nn.Linear(width, config.fusion_out)

    def forward(self, audio: torch.Tensor, image: torch.Tensor, video: torch.Tensor) -> torch.Tensor:
        """(rows, 64, fusion_out) of (rows, 64, …) each."""
        parts = [prepare(part) for prepare, part in zip(self.feats_prep, (audio, image, video), strict=True)]
        together, fused = torch.cat(parts, -1), 0
        if self.kind != "convolution":
            weights = self.fc_att(self.attention_mlp(together))
            fused = fused + (torch.stack(parts, -1) @ weights[..., None])[..., 0]
        if self.kind != "attention":
            fused = fused + self.conv_module(self.conv_entry(together.transpose(1, 2))).transpose(1, 2)
        return self.fc_final(fused)


def _layers(size: int, hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, width), nn.ReLU(), nn.Dropout(0.1)
    )


class _Convolutions(nn.Module):
    def __init__(self, width: int, blocks: int = 4):
        super().__init__()
        self.conv_blocks = nn.ModuleList([_Convolution(width) for _ in range(blocks)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.conv_blocks:
            x = x + block(x)
        return x


class _Convolution(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv1d(width, width, 3, padding=1), nn.SiLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv_block(x)
