"""Qwen2.5-VL and Qwen3-VL as EmoVerse backbones: ms-swift loads the model, the pictures are those of InternVL2.

    --model_type emoverse_qwen2_5_vl      --model_type emoverse_qwen3_vl

A picture is one 448-pixel square, a video its 8 segment-centre frames (VIDEO_SEGMENTS), each a picture: runs on
different backbones differ in the backbone only. ms-swift's own preprocessing of these models takes other sizes and
frames, and needs `qwen_vl_utils` and transformers' video processors, which import torchvision.
(InternVL3 and 3.5 in Hugging Face format are read by the model type `emoverse`.)
"""

from __future__ import annotations

import re
from dataclasses import replace

from PIL import Image
from swift.model import MODEL_MAPPING, ModelMeta, register_model
from swift.template import TEMPLATE_MAPPING, register_template
from swift.utils import get_env_args, is_dist
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from swift_plugins.frames import sample_frames
from swift_plugins.template import ChannelOfEveryRow, video_source

SIDE = 448


class _Pictures(ChannelOfEveryRow):
    """Turns videos into numbered pictures before ms-swift's own template for the model sees them."""

    def init_env_args(self):
        super().init_env_args()
        self.image_token_id = self.config.image_token_id  # ms-swift has the published checkpoints' written in
        self.video_segments = get_env_args("video_segments", int, get_env_args("num_segments", int, 8))

    def _preprocess_inputs(self, inputs):
        super()._preprocess_inputs(inputs)
        media = {"<image>": iter(inputs.images), "<video>": iter(inputs.videos)}
        pictures = []

        def place(tag):
            item = next(media[tag[0]], None)
            if item is None:
                raise ValueError(f"more {tag[0]} tags than there are files")
            if tag[0] == "<image>":
                pictures.append(item)
                return tag[0]
            frames = sample_frames(video_source(item), self.video_segments)
            pictures.extend(frames)
            return "".join(f"Frame{i + 1}: <image>\n" for i in range(len(frames)))

        for message in inputs.messages:
            if isinstance(message["content"], str):
                message["content"] = re.sub("<image>|<video>", place, message["content"])
        inputs.images, inputs.videos = pictures, []

    def replace_tag(self, media_type, index, inputs):
        if media_type != "image":
            raise ValueError(f"{media_type} is not supported")
        picture = inputs.images[index].convert("RGB")
        inputs.images[index] = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        return ["<|vision_start|><|image_pad|><|vision_end|>"]

    def _data_collator(self, batch, *, padding_to=None):
        # Streamed rows have the keys of their neighbours, as None; ms-swift gives text-only rows what a key lacks.
        batch = [{key: value for key, value in row.items() if value is not None} for row in batch]
        return super()._data_collator(batch, padding_to=padding_to)

    def prepare_generate_kwargs(self, generate_kwargs, *, model=None):
        generate_kwargs.pop("channel", None)  # a row's name for its loss; these models pass on whatever they get
        return super().prepare_generate_kwargs(generate_kwargs, model=model)


class Qwen25VLTemplate(_Pictures, TEMPLATE_MAPPING["qwen2_5_vl"].template_cls):
    """ms-swift's template of Qwen2.5-VL, given the pictures of this project."""


class Qwen3VLTemplate(_Pictures, TEMPLATE_MAPPING["qwen3_vl"].template_cls):
    """ms-swift's template of Qwen3-VL, given the pictures of this project."""

    def _post_encode(self, model, inputs):
        if not (self.is_training and is_dist() and inputs.get("pixel_values") is None):
            return super()._post_encode(model, inputs)
        # Text-only rows on this rank: the others wait for the projector's gradients all the same.
        model = self.get_base_model(model)
        embeds = model.get_input_embeddings()(inputs["input_ids"])
        dummy = self.processor.image_processor(images=[Image.new("RGB", (64, 64))], return_tensors="pt")
        pixels = dummy["pixel_values"].to(embeds.device, embeds.dtype)
        seen = model.model.visual(pixels, grid_thw=dummy["image_grid_thw"].to(embeds.device))
        nothing = sum(part.mean() for part in [seen.pooler_output, *seen.deepstack_features]) * 0.0
        return {**inputs, "inputs_embeds": embeds + nothing}


class _TokenizerOnly:
    """A loader whose processor is the tokenizer, with the image processor at hand where ms-swift looks for it."""

    default_trust_remote_code = False

    def get_processor(self, model_dir, config):
        tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
        tokenizer.image_processor = Qwen2VLImageProcessorPil.from_pretrained(model_dir)
        return tokenizer


class Qwen25VLLoader(_TokenizerOnly, MODEL_MAPPING["qwen2_5_vl"].loader):
    """ms-swift's loader of Qwen2.5-VL, with the tokenizer as its processor."""


class Qwen3VLLoader(_TokenizerOnly, MODEL_MAPPING["qwen3_vl"].loader):
    """ms-swift's loader of Qwen3-VL, with the tokenizer as its processor."""


def register() -> None:
    """Register the model types and templates `emoverse_qwen2_5_vl` and `emoverse_qwen3_vl`."""
    for stock, arch, loader, template in (
        ("qwen2_5_vl", "qwen2_vl", Qwen25VLLoader, Qwen25VLTemplate),
        ("qwen3_vl", "qwen3_vl", Qwen3VLLoader, Qwen3VLTemplate),
    ):
        name = f"emoverse_{stock}"
        saved = ["preprocessor_config.json", "video_preprocessor_config.json", "chat_template.json"]
        register_model(
            ModelMeta(
                name, [], loader, template=name, model_arch=arch, is_multimodal=True, additional_saved_files=saved
            ),
            exist_ok=True,
        )
        register_template(replace(TEMPLATE_MAPPING[stock], template_type=name, template_cls=template), exist_ok=True)
