"""The chat template `emotion_llama`: media at the places that Emotion-LLaMA's text keeps for them.

    [INST] <video>‹256›</video> <feature>‹4›</feature> The person in video says: ….  [emotion] …  [/INST]     variant 1
    [INST] <Vid>‹448›</Vid> The person in video says: ….  [emotion] …  [/INST]                                variant 2

A row has one block of media, whatever it lists: the picture is its image (the peak frame, where rows were built with
it), else a frame of its clip; what it lacks is zeros. Prepared features are found by the clip. From the environment:

    AMT_FEATURES         folder of prepared features (python -m data_prep.features --encoder …); without it, zeros
    AMT_ENCODERS         a folder with one for each encoder (hubert, videomae, whisper, eva_video): inference computes
                         with them what was not prepared
    FRAME                which frame of a clip is its picture: first or middle; default first, as the released code of
                         variant 1 reads it, and middle in variant 2
    ORIGINAL_INFERENCE   true: prompts as the published inference code writes them, with a second <s>, all media of
                         variant 1 at the first place and the text <FeatureHere> at the second; default false, as in
                         training
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from swift.template import Template, TemplateMeta, register_template
from swift.utils import get_env_args, is_deepspeed_enabled, is_dist

from swift_plugins import packing
from swift_plugins.emotion_llama import streams
from swift_plugins.emotion_llama.config import STREAMS, EmotionLlamaConfig
from swift_plugins.features import media_file
from swift_plugins.frames import count_frames, read_frames
from swift_plugins.template import ChannelOfEveryRow, video_source

MEDIA = -200  # stands for one vector of media in the ids; Llama-2's vocabulary has no id to spare
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FRAMES = ("first", "middle")


class EmotionLlamaTemplate(ChannelOfEveryRow, Template):
    """Writes the block of media, reads what it holds, and lays it among the text's vectors."""

    skip_prompt = False  # generation starts from embeddings and returns new tokens only
    support_padding_free = True
    exact = True
    media_token = MEDIA

    def init_env_args(self):
        super().init_env_args()
        config: EmotionLlamaConfig = self.config
        self.original_inference = get_env_args("original_inference", bool, False)
        self.frame = get_env_args("frame", str, FRAMES[config.variant - 1])
        if self.frame not in FRAMES:
            raise ValueError(f"FRAME must be {' or '.join(FRAMES)}, not {self.frame}")
        self.prepared, self.encoders = (_folder(name) for name in ("AMT_FEATURES", "AMT_ENCODERS"))

    @contextmanager
    def lengths_only(self):
        """Encode rows without opening their media: a block is as long whatever it holds."""
        self.counting = True
        try:
            yield
        finally:
            self.counting = False

    def _preprocess_inputs(self, inputs):
        if self.counting:
            inputs.images = [Image.new("RGB", (1, 1)) for _ in inputs.images]
        super()._preprocess_inputs(inputs)
        for message in inputs.messages:
            if message["role"] == "user" and isinstance(message["content"], str):
                message["content"] = spaced(message["content"])

    def replace_tag(self, media_type, index, inputs):
        if index or media_type != self._first(inputs):
            return []
        as_published = self.original_inference and not self.is_training
        counts = [[MEDIA] * count for count in self.config.slots]
        if self.config.variant == 2:
            return ["<Vid>", *counts, "</Vid> " if as_published else "</Vid>"]
        image, vectors = counts
        if as_published:
            return ["<video>", image + vectors, "</video> <feature><FeatureHere></feature>"]
        return ["<video>", image, "</video> <feature>", vectors, "</feature>"]

    @staticmethod
    def _first(inputs) -> str | None:
        """The kind of media whose tag becomes the block."""
        return next((kind for kind in ("video", "image", "audio") if getattr(inputs, f"{kind}s")), None)

    def _encode(self, inputs):
        encoded = super()._encode(inputs)
        if self.original_inference and not self.is_training:
            encoded["input_ids"] = [self.tokenizer.bos_token_id, *encoded["input_ids"]]
        if MEDIA in encoded["input_ids"] and not self.counting:
            encoded["pixel_values"] = self._pixels(inputs)[None]
            for name in STREAMS[self.config.variant]:
                encoded[name] = torch.from_numpy(self._stream(name, inputs))[None].to(self.model_info.torch_dtype)
        return encoded

    def _pixels(self, inputs) -> torch.Tensor:
        """(3, side, side) of the row's picture, squashed to the square; zeros where it has none."""
        side = self.config.vision_config.image_size
        if inputs.images:
            picture = inputs.images[0]
        elif inputs.videos:
            source = video_source(inputs.videos[0])
            place = 0 if self.frame == "first" else count_frames(source) // 2
            picture = read_frames(source, [place])[0]
        else:
            return torch.zeros(3, side, side, dtype=self.model_info.torch_dtype)
        square = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        return ((pixels - mean) / deviation).to(self.model_info.torch_dtype)

    def _stream(self, name: str, inputs) -> np.ndarray:
        """A prepared feature of the row's clip or sound, zeros where there is none."""
        shape, feature = self.config.stream_shape(name), None
        clip = streams.clip_of(
            name, *([media_file(file) for file in files] for files in (inputs.videos, inputs.audios))
        )
        if clip and self.prepared:
            feature = streams.read_stream(self.prepared, name, clip, shape)
        if feature is None and clip and self.encoders and not self.is_training:
            encoder = streams.serving_encoder(self.encoders, name, self.prepared)
            feature = encoder and streams.compute_stream(encoder, clip, shape)
        return np.zeros(shape, np.float32) if feature is None else feature

    def _data_collator_mm_data(self, batch):
        collated = super()._data_collator_mm_data(batch)
        for name in STREAMS[self.config.variant]:
            if parts := [row[name] for row in batch if row.get(name) is not None]:
                collated[name] = torch.cat(parts)
        return collated

    def _post_encode(self, model, inputs):
        model = self.get_base_model(model)
        places = inputs["input_ids"] == MEDIA
        embeds = model.get_input_embeddings()(inputs["input_ids"].clamp(min=0))
        pixels, names = inputs.get("pixel_values"), STREAMS[self.config.variant]
        prepared = [inputs[name] for name in names] if pixels is not None else None
        if pixels is None and self.is_training and (is_dist() or is_deepspeed_enabled()):
            # Text-only rows on this rank: the others wait for the projections' gradients all the same.
            side = self.config.vision_config.image_size
            pixels = embeds.new_zeros(1, 3, side, side)
            prepared = [embeds.new_zeros(1, *self.config.stream_shape(name)) for name in names]
            embeds = embeds + model.media(pixels, prepared).mean().to(embeds.dtype) * 0.0
        elif pixels is not None:
            device = embeds.device
            media = model.media(pixels.to(device), [stream.to(device) for stream in prepared]).to(embeds.dtype)
            embeds = embeds.masked_scatter(places[..., None].expand_as(embeds), media)
        return {"inputs_embeds": embeds} | packing.packed_mask(self, model, inputs)


def _folder(name: str) -> Path | None:
    """The folder that an environment variable names; `ValueError` where there is none of that name."""
    path = Path(os.environ[name]) if os.environ.get(name) else None
    if path and not path.is_dir():
        raise ValueError(f"{name}={path}: no such folder")
    return path


def spaced(query: str) -> str:
    """A query with white space between the media before it and the end of the turn behind it, as the original has."""
    tags, rest = re.match(r"((?:<video>|<image>|<audio>)*)(.*)", query, re.DOTALL).groups()
    before = " " if tags and not rest[:1].isspace() else ""
    return f"{tags}{before}{rest}" + ("" if rest[-1:].isspace() else " ")


def register() -> None:
    """Register the template."""
    register_template(
        TemplateMeta(
            "emotion_llama",
            prefix=[["bos_token_id"]],
            prompt=["[INST] {{QUERY}} [/INST]"],
            chat_sep=[["eos_token_id"]],
            suffix=[["eos_token_id"]],
            template_cls=EmotionLlamaTemplate,
        ),
        exist_ok=True,
    )
