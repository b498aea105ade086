"""Qwen2.5-VL, Qwen3-VL and Qwen2.5-Omni as EmoVerse backbones: ms-swift loads the model, the pictures are InternVL2's.

    --model_type emoverse_qwen2_5_vl      --model_type emoverse_qwen3_vl      --model_type emoverse_qwen2_5_omni

A picture is one 448-pixel square, a video its 8 segment-centre frames (VIDEO_SEGMENTS), each a picture: runs on
different backbones differ in the backbone only. ms-swift's own preprocessing of these models takes other sizes and
frames, and needs `qwen_vl_utils` and transformers' video processors, which import torchvision.
(InternVL3 and 3.5 in Hugging Face format are read by the model type `emoverse`.)

Qwen2.5-Omni hears what a row lists under `audios`, mostly the clip's own sound track: 25 tokens a second of the first
AUDIO_SECONDS (default 30). Sound is decoded by `swift_plugins.sound`, where ms-swift would need librosa or soundfile
and `qwen_omni_utils`. A file without sound, or with less than one token of it, is as if the row did not list it. The
part of the model that speaks is not loaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from swift.model import MODEL_MAPPING, ModelLoader, ModelMeta, register_model
from swift.template import TEMPLATE_MAPPING, register_template
from swift.utils import get_env_args, is_deepspeed_enabled, is_dist
from torch.nn.functional import pad
from transformers import AutoTokenizer, WhisperFeatureExtractor
from transformers import Qwen2_5OmniForConditionalGeneration as SpeakingOmni
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from swift_plugins.frames import sample_frames
from swift_plugins.sound import NoSound, read_sound
from swift_plugins.template import ChannelOfEveryRow, Deaf, video_source

SIDE = 448
SECONDS = 30  # of a sound that are heard
TOKENS_A_SECOND = 25
SOUND = ("input_features", "feature_attention_mask")  # keys of a batch


class _Pictures(ChannelOfEveryRow):
    """Turns videos into numbered pictures before ms-swift's own template for the model sees them."""

    tags = "<image>|<video>"  # that are replaced
    seen = "<|vision_start|><|image_pad|><|vision_end|>"  # what stands for a picture

    def init_env_args(self):
        super().init_env_args()
        thinker = getattr(self.config, "thinker_config", self.config)
        self.image_token_id = thinker.image_token_id  # ms-swift has the published checkpoints' written in
        self.video_segments = get_env_args("video_segments", int, get_env_args("num_segments", int, 8))

    def _preprocess_inputs(self, inputs):
        super()._preprocess_inputs(inputs)
        media = {"<image>": iter(inputs.images), "<video>": iter(inputs.videos), "<audio>": iter(inputs.audios)}
        pictures, sounds = [], []

        def place(tag):
            item = next(media[tag[0]], None)
            if item is None:
                raise ValueError(f"more {tag[0]} tags than there are files")
            if tag[0] == "<image>":
                pictures.append(item)
                return tag[0]
            if tag[0] == "<audio>":
                sound = self._heard(item)
                sounds.extend(sound)
                return tag[0] * len(sound)
            frames = sample_frames(video_source(item), self.video_segments)
            pictures.extend(frames)
            return "".join(f"Frame{i + 1}: <image>\n" for i in range(len(frames)))

        for message in inputs.messages:
            if isinstance(message["content"], str):
                message["content"] = re.sub(self.tags, place, message["content"])
        inputs.images, inputs.videos, inputs.audios = pictures, [], sounds

    def replace_tag(self, media_type, index, inputs):
        if media_type != "image":
            raise ValueError(f"{media_type} is not supported")
        picture = inputs.images[index].convert("RGB")
        inputs.images[index] = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        return [self.seen]

    def _data_collator(self, batch, *, padding_to=None):
        # Streamed rows have the keys of their neighbours, as None; ms-swift gives text-only rows what a key lacks.
        batch = [{key: value for key, value in row.items() if value is not None} for row in batch]
        return super()._data_collator(batch, padding_to=padding_to)

    def prepare_generate_kwargs(self, generate_kwargs, *, model=None):
        generate_kwargs.pop("channel", None)  # a row's name for its loss; these models pass on whatever they get
        return super().prepare_generate_kwargs(generate_kwargs, model=model)


class Qwen25VLTemplate(Deaf, _Pictures, TEMPLATE_MAPPING["qwen2_5_vl"].template_cls):
    """ms-swift's template of Qwen2.5-VL, given the pictures of this project."""


class Qwen3VLTemplate(Deaf, _Pictures, TEMPLATE_MAPPING["qwen3_vl"].template_cls):
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


_OMNI = TEMPLATE_MAPPING["qwen2_5_omni"].template_cls


class Qwen25OmniTemplate(_Pictures, _OMNI):
    """ms-swift's template of Qwen2.5-Omni, given the pictures and sounds of this project."""

    tags = "<image>|<video>|<audio>"
    seen = "<|vision_bos|><|IMAGE|><|vision_eos|>"

    def init_env_args(self):
        super().init_env_args()
        self.audio_seconds = get_env_args("audio_seconds", float, SECONDS)
        if not self.audio_seconds > 0:
            raise ValueError(f"AUDIO_SECONDS must be more than 0, not {self.audio_seconds}")
        self.sound_tokens = round(self.audio_seconds * TOKENS_A_SECOND) + 2  # of a sound, the most

    def _heard(self, source) -> list[np.ndarray]:
        """The sound of a file, [] where it has none that becomes a token. Raises `InputError`."""
        try:
            sound = read_sound(video_source(source, "sound"), self.audio_seconds)
        except NoSound:
            return []
        return [sound] if self._tokens(sound) > 0 else []

    def _frames_of(self, sound: np.ndarray) -> int:
        """Frames of the spectrogram, 100 a second."""
        return -(-len(sound) // self.processor.feature_extractor.hop_length)

    def _tokens(self, sound: np.ndarray) -> int:
        return self._get_feat_extract_output_lengths(self._frames_of(sound))

    def sound_length(self, source: str | os.PathLike) -> int:
        """Tokens that the sound of a file adds to a row. Raises `InputError`."""
        return sum(self._tokens(sound) + 2 for sound in self._heard(source))

    def replace_tag(self, media_type, index, inputs):
        if media_type == "audio":
            return ["<|audio_bos|><|AUDIO|><|audio_eos|>"]
        return super().replace_tag(media_type, index, inputs)

    def spectrogram(self, sound: np.ndarray) -> torch.Tensor:
        """(1, mel bands, frames) of one sound.

        As many zeros follow the sound as the window of its last frame reaches over: the numbers are those of the
        model's own processor, which fills up 300 seconds and masks them.
        """
        extract, frames = self.processor.feature_extractor, self._frames_of(sound)
        size = frames * extract.hop_length + extract.n_fft
        found = extract(sound, sampling_rate=extract.sampling_rate, max_length=size, return_tensors="pt")
        return found["input_features"][..., :frames]

    def _encode(self, inputs):
        encoded = super(_OMNI, self)._encode(inputs)  # text and pictures; _OMNI's own asks for a whole processor
        if inputs.audios:
            token = self.config.thinker_config.audio_token_id
            places = [place for place, found in enumerate(encoded["input_ids"]) if found == token]
            counts = [self._tokens(sound) for sound in inputs.audios]
            encoded["input_ids"], encoded["labels"], encoded["loss_scale"] = self._extend_tokens(
                encoded["input_ids"],
                encoded["labels"],
                encoded.get("loss_scale"),
                places,
                lambda i: [token] * counts[i],
            )
            features = [self.spectrogram(sound) for sound in inputs.audios]
            encoded |= _side_by_side(features, [torch.ones(1, part.shape[-1], dtype=torch.long) for part in features])
        return encoded

    def _data_collator_mm_data(self, batch):
        heard = [row for row in batch if row.get("input_features") is not None]
        padded = _side_by_side(*([row[key] for row in heard] for key in SOUND)) if heard else {}
        silent = [{key: value for key, value in row.items() if key not in SOUND} for row in batch]
        return super()._data_collator_mm_data(silent) | padded

    def _post_encode(self, model, inputs):
        found = super()._post_encode(model, inputs)
        theirs = is_deepspeed_enabled() and not is_deepspeed_zero3_enabled()
        if self.is_training and is_dist() and not theirs and inputs.get("input_features") is None:
            # No sound on this rank: the others wait for the projector's gradients all the same, and with ZeRO-3 for the
            # tower's weights. With ZeRO-2 ms-swift sees to it.
            tower = model.thinker.audio_tower
            bands, frames = tower.config.num_mel_bins, 8
            silence = found["inputs_embeds"].new_zeros((1, bands, frames), dtype=tower.dtype)
            mask = torch.ones((1, frames), dtype=torch.long, device=silence.device)
            heard = model.thinker.get_audio_features(silence, mask).last_hidden_state
            found["inputs_embeds"] = found["inputs_embeds"] + heard.mean() * 0.0
        return found


def _side_by_side(features: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Sounds of several lengths as one batch: (sounds, mel bands, frames), and (sounds, frames) of ones and zeros."""
    longest = max(part.shape[-1] for part in features)
    parts = ([pad(part, (0, longest - part.shape[-1])) for part in group] for group in (features, masks))
    return dict(zip(SOUND, map(torch.cat, parts), strict=True))


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


class Qwen2_5OmniForConditionalGeneration(SpeakingOmni):  # a merged model's config has its name
    """Qwen2.5-Omni that listens, looks and writes: its voices, a file of pickled tensors, are not opened."""

    _keys_to_ignore_on_load_unexpected = (r"^talker\.", r"^token2wav\.")

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        return super(SpeakingOmni, cls).from_pretrained(*args, **kwargs)


class Qwen25OmniLoader(_TokenizerOnly, MODEL_MAPPING["qwen2_5_omni"].loader):
    """ms-swift's loader of Qwen2.5-Omni without `qwen_omni_utils`, its processor as for the others."""

    def get_config(self, model_dir):
        config = ModelLoader.get_config(self, model_dir)
        config.enable_audio_output = False
        return config

    def get_processor(self, model_dir, config):
        tokenizer = super().get_processor(model_dir, config)
        tokenizer.feature_extractor = WhisperFeatureExtractor.from_pretrained(model_dir)
        return tokenizer

    def get_model(self, *args, **kwargs):
        self.auto_model_cls = self.auto_model_cls or Qwen2_5OmniForConditionalGeneration
        return super().get_model(*args, **kwargs)


def register() -> None:
    """Register the model types and templates `emoverse_qwen2_5_vl`, `emoverse_qwen3_vl`, `emoverse_qwen2_5_omni`."""
    saved = ["preprocessor_config.json", "video_preprocessor_config.json", "chat_template.json"]
    for stock, arch, loader, template, more in (
        ("qwen2_5_vl", "qwen2_vl", Qwen25VLLoader, Qwen25VLTemplate, []),
        ("qwen3_vl", "qwen3_vl", Qwen3VLLoader, Qwen3VLTemplate, []),
        ("qwen2_5_omni", "qwen2_5_omni", Qwen25OmniLoader, Qwen25OmniTemplate, ["spk_dict.pt"]),
    ):
        name = f"emoverse_{stock}"
        register_model(
            ModelMeta(
                name,
                [],
                loader,
                template=name,
                model_arch=arch,
                is_multimodal=True,
                additional_saved_files=[*saved, *more],
            ),
            exist_ok=True,
        )
        register_template(replace(TEMPLATE_MAPPING[stock], template_type=name, template_cls=template), exist_ok=True)
