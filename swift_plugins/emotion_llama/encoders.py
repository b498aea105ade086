"""The frozen encoders that Emotion-LLaMA reads features of, of transformers' own parts: sound, frames, faces.

encoder = load("hubert", Path("chinese-hubert-large"))
(feature,) = encoder.encode([encoder.read("clip.mp4").value])          # (1024,) float32

`read` decodes and needs no model: a copy of an encoder in another process has none. `encode` gives the same bytes for
the same batch on the same machine; a batch of one makes them depend on the clip alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional
from transformers import (
    Blip2VisionModel,
    HubertModel,
    VideoMAEImageProcessorPil,
    VideoMAEModel,
    ViTImageProcessorPil,
    ViTMAEModel,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.utils import logging

from swift_plugins.emotion_llama.config import BLOCK
from swift_plugins.files import InputError, read_json
from swift_plugins.frames import PICTURES, Source, count_frames, read_frames, read_picture
from swift_plugins.internvl2 import weight_files
from swift_plugins.sound import RATE, read_sound

PREPROCESSOR = "preprocessor_config.json"
UNTOLD = ("architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path")  # of a config: no number
FACES = 32  # pictures of a clip that the model sees at a time
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
GRID, VIDEO_FRAMES = 2, 16  # of a frame's tokens; frames whose 2 x 2 tokens are the 64 of a clip
RULES = ("whole", "window")  # which frames: over the whole clip, or one window of them, as the published code has it


class Reading(NamedTuple):
    """What was decoded of a clip, and what is to be said of it: `padded`, `cut` or nothing."""

    value: np.ndarray
    note: str = ""


class Encoder:
    """A frozen encoder with what goes before and after it.

    rule: what of a clip is read and how it becomes the feature, in words. shape: of a feature, float32.
    """

    name: ClassVar[str]
    hears: ClassVar[bool] = False  # the sound of a clip, or its frames
    model_type: ClassVar[str]
    model_class: ClassVar[type]
    part: ClassVar[str] = ""  # of the model that is used, by the start of its weights' names
    rule: str
    shape: tuple[int, ...]

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32):
        self.folder, self.dtype = Path(folder), dtype
        whole = _loaded(self.folder, self.model_class, self.model_type, self.part, dtype)
        self.config = whole.config
        self.model: nn.Module | None = whole.get_submodule(self.part.rstrip(".")) if self.part else whole
        self.prepare()
        self.digest = self._digest()

    def prepare(self) -> None:
        """Set `rule`, `shape` and what `read` needs."""
        raise NotImplementedError

    def read(self, path: Source) -> Reading:
        """What the model gets of a clip, a file or its bytes.

        Raises `NoSound`, and `InputError` for what cannot be decoded.
        """
        raise NotImplementedError

    def run(self, values: torch.Tensor) -> torch.Tensor:
        """Features of values of one shape, both with the batch first."""
        raise NotImplementedError

    @torch.inference_mode()
    def encode(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The feature of each value that `read` gave; those of one shape go through the model together."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for place, value in enumerate(batch):
            alike.setdefault(value.shape, []).append(place)
        features: dict[int, np.ndarray] = {}
        for places in alike.values():
            values = torch.from_numpy(np.stack([batch[place] for place in places])).to(self.device)
            features |= zip(places, self.run(values).float().cpu().numpy(), strict=True)
        return [features[place] for place in range(len(batch))]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> Encoder:
        """This encoder with its model on a device."""
        self.model.to(device)
        return self

    def settings(self) -> dict[str, Any]:
        """What beside the weights decides the output, and is not told by `rule`."""
        return {}

    def _digest(self) -> str:
        """A digest of the weights as they compute and of all settings, whatever files they came from."""
        config = {name: value for name, value in self.config.to_diff_dict().items() if name not in UNTOLD}
        told = [config, self.settings(), str(self.dtype)]
        digest = hashlib.blake2b(json.dumps(told, sort_keys=True, default=str).encode(), digest_size=16)
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(f"{name}{[*value.shape]}".encode())
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"model": None}


def _loaded(folder: Path, kind: type, model_type: str, part: str, dtype: torch.dtype):
    """The model of a folder of safetensors, every weight of its used part there; `InputError` for any other."""
    config = read_json(folder / "config.json")
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != model_type:
        raise InputError(f"is a model of type {found!r}, and {model_type} is needed", folder / "config.json")
    weight_files(folder)  # says what lacks
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # a table of unused weights; what matters is refused below
    logging.disable_progress_bar()
    try:
        model, told = kind.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise InputError(f"cannot be loaded: {str(error).strip().splitlines()[0]}", folder) from None
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
    # A mask's vector is for training; a random one changes nothing.
    missing = {name for name in told["missing_keys"] if name.startswith(part)} - {"masked_spec_embed"}
    if missing:
        reason = f"lacks {len(missing)} weights of {kind.__name__} ({min(missing)}, …): features would be random"
        raise InputError(reason, folder)
    return model.eval().requires_grad_(False)


def _preprocessor(kind: type, folder: Path, **default: Any):
    """The preprocessing of a folder; `kind` with `default` where it holds none."""
    if not (folder / PREPROCESSOR).is_file():
        return kind(**default)
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"cannot be read: {str(error).splitlines()[0]}", folder / PREPROCESSOR) from None


def _told(preprocessor) -> dict[str, Any]:
    """The settings of a preprocessor without the names of its classes."""
    settings = preprocessor.to_dict()
    return {name: value for name, value in settings.items() if not name.endswith(("_type", "_class"))}


# ---- sound ----


class Hubert(Encoder):
    """HuBERT's last hidden layer, mean over time: (width,). Nothing is padded to the length of another sound."""

    name, hears, model_type, model_class = "hubert", True, "hubert", HubertModel

    def prepare(self) -> None:
        self.extractor = _preprocessor(Wav2Vec2FeatureExtractor, self.folder)
        if self.extractor.sampling_rate != RATE:
            reason = f"asks for {self.extractor.sampling_rate} samples a second, not {RATE}"
            raise InputError(reason, self.folder / PREPROCESSOR)
        self.window = 1  # samples of one frame
        for kernel, stride in zip(self.config.conv_kernel[::-1], self.config.conv_stride[::-1], strict=True):
            self.window = (self.window - 1) * stride + kernel
        self.shape = (self.config.hidden_size,)
        self.rule = "16 kHz mono, the whole sound; last hidden layer, mean over time"

    def settings(self) -> dict[str, Any]:
        return _told(self.extractor)

    def read(self, path: Source) -> Reading:
        """(samples,) float32, normalised as the folder says. Less than a window gets zeros at its end: `padded`."""
        sound = read_sound(path)
        value = self.extractor(sound, sampling_rate=RATE, return_tensors="np")["input_values"][0].astype(np.float32)
        short = max(0, self.window - len(value))
        return Reading(np.pad(value, (0, short)), "padded" if short else "")

    def run(self, values: torch.Tensor) -> torch.Tensor:
        return self.model(values.to(self.dtype)).last_hidden_state.float().mean(1)


class Whisper(Encoder):
    """The last hidden state of Whisper's encoder over its window, pooled to 64 tokens: (1, 64, width)."""

    name, hears, model_type, model_class, part = "whisper", True, "whisper", WhisperModel, "encoder."

    def prepare(self) -> None:
        self.extractor = _preprocessor(WhisperFeatureExtractor, self.folder, feature_size=self.config.num_mel_bins)
        given = self.extractor.feature_size, self.extractor.nb_max_frames, self.extractor.sampling_rate
        wanted = self.config.num_mel_bins, self.config.max_source_positions * 2, RATE
        if given != wanted:
            reason = (
                f"gives {given[0]} x {given[1]} of {given[2]} Hz, the model takes {wanted[0]} x {wanted[1]} of {RATE}"
            )
            raise InputError(reason, self.folder / PREPROCESSOR)
        self.seconds = self.extractor.n_samples / RATE
        self.shape = (1, BLOCK, self.config.d_model)
        self.rule = f"16 kHz mono, the first {self.seconds:g} s; last hidden state of the encoder, pooled to {BLOCK}"

    def settings(self) -> dict[str, Any]:
        return {name: value for name, value in _told(self.extractor).items() if name != "mel_filters"}

    def read(self, path: Source) -> Reading:
        """(mel bins, frames) float32; a longer sound ends where the window does: `cut`."""
        sound = read_sound(path, self.seconds + 0.1)
        value = self.extractor(sound, sampling_rate=RATE, return_tensors="np")["input_features"][0]
        return Reading(value.astype(np.float32), "cut" if len(sound) > self.extractor.n_samples else "")

    def run(self, values: torch.Tensor) -> torch.Tensor:
        return pool_sound(self.model(values.to(self.dtype)).last_hidden_state.float())[:, None]


def pool_sound(states: torch.Tensor) -> torch.Tensor:
    """(rows, 64, width) of (rows, tokens, width): means of neighbours; fewer than 64 tokens get zeros at their end."""
    if states.shape[1] < BLOCK:
        states = functional.pad(states, (0, 0, 0, BLOCK - states.shape[1]))
    return functional.adaptive_avg_pool1d(states.transpose(1, 2), BLOCK).transpose(1, 2)


# ---- frames ----


class VideoMAE(Encoder):
    """VideoMAE over 16 frames, mean of its tokens: (width,). Not of faces cut out, as the authors' was."""

    name, model_type, model_class = "videomae", "videomae", VideoMAEModel

    def prepare(self) -> None:
        side, frames = self.config.image_size, self.config.num_frames
        size = {"shortest_edge": side}
        crop = {"height": side, "width": side}
        self.processor = _preprocessor(VideoMAEImageProcessorPil, self.folder, size=size, crop_size=crop)
        self.frames = frames
        self.shape = (self.config.hidden_size,)
        self.rule = f"{frames} frames, the centres of {frames} equal parts of the clip; mean of all tokens"
        _check_side(_squares(self.processor, [Image.new("RGB", (64, 48))]), side, self.folder)

    def settings(self) -> dict[str, Any]:
        return _told(self.processor)

    def read(self, path: Source) -> Reading:
        """(frames, 3, side, side) uint8."""
        count = count_frames(path)
        wanted = [int((place + 0.5) * count / self.frames) for place in range(self.frames)]
        return Reading(_squares(self.processor, read_frames(path, wanted)))

    def run(self, values: torch.Tensor) -> torch.Tensor:
        pixels = _normalised(values, self.processor).to(self.dtype)
        return self.model(pixels).last_hidden_state.float().mean(1)


class EvaVideo(Encoder):
    """EVA-CLIP-g with all its blocks and its norm over 16 frames, 2 x 2 tokens each: (1, 64, width).

    Tokens in order of time, then row, then column.
    """

    name, model_type, model_class = "eva_video", "blip_2_vision_model", Blip2VisionModel

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32, frame_rule: str = "whole"):
        self.frame_rule = frame_rule
        super().__init__(folder, dtype)

    def prepare(self) -> None:
        places = {
            "whole": f"floor(linspace(0, n - 1, {VIDEO_FRAMES}))",
            "window": f"a window of {VIDEO_FRAMES} at random (numpy, seed 42 for every clip)",
        }
        self.shape = (1, VIDEO_FRAMES * GRID**2, self.config.hidden_size)
        self.rule = f"{VIDEO_FRAMES} frames, {places[self.frame_rule]}; without CLS, pooled to {GRID} x {GRID} each"

    def read(self, path: Source) -> Reading:
        """(16, side, side, 3) uint8, squashed to the square."""
        side, count = self.config.image_size, count_frames(path)
        if not count:
            raise InputError(
                "has no frame that can be decoded", path if isinstance(path, str | os.PathLike) else "video"
            )
        pictures = read_frames(path, frame_places(count, self.frame_rule))
        return Reading(np.stack([picture.resize((side, side), Image.Resampling.BILINEAR) for picture in pictures]))

    def run(self, values: torch.Tensor) -> torch.Tensor:
        mean, deviation = (torch.tensor(part, device=values.device) for part in (MEAN, DEVIATION))
        pixels = ((values.float() / 255 - mean) / deviation).flatten(0, 1).permute(0, 3, 1, 2)
        seen = self.model(pixels.to(self.dtype)).last_hidden_state.float()
        return pool_frames(seen).reshape(len(values), 1, -1, seen.shape[-1])


def frame_places(count: int, rule: str = "whole") -> list[int]:
    """The 16 frames of `count`: over the whole clip, or of a window of 16 that the seed 42 places (published code)."""
    if rule == "whole" or count <= VIDEO_FRAMES:
        return np.floor(np.linspace(0, count - 1, VIDEO_FRAMES)).astype(int).tolist()
    end = np.random.RandomState(42).randint(VIDEO_FRAMES, count)
    return np.floor(np.linspace(end - VIDEO_FRAMES, end, VIDEO_FRAMES)).clip(max=end - 1).astype(int).tolist()


def pool_frames(states: torch.Tensor) -> torch.Tensor:
    """(frames, 4, width) of (frames, 1 + tokens, width): without CLS, means of the quarters, row by row."""
    side = round((states.shape[1] - 1) ** 0.5)
    grid = states[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return functional.adaptive_avg_pool2d(grid, GRID).flatten(2).transpose(1, 2)


class Face(Encoder):
    """A ViT-MAE without masking over the pictures of a face: mean of its patches, then of the pictures: (width,)."""

    name, model_type, model_class = "face", "vit_mae", ViTMAEModel

    def prepare(self) -> None:
        self.config.mask_ratio = 0.0
        side = self.config.image_size
        self.processor = _preprocessor(ViTImageProcessorPil, self.folder, size={"height": side, "width": side})
        self.shape = (self.config.hidden_size,)
        self.rule = "every picture of the clip's folder; mean of the patches without CLS, then of the pictures"
        _check_side(_squares(self.processor, [Image.new("RGB", (64, 48))]), side, self.folder)

    def settings(self) -> dict[str, Any]:
        return _told(self.processor)

    def read(self, path: str | os.PathLike) -> Reading:
        """(pictures, 3, side, side) uint8 of a folder's pictures in order of their names, or of one picture."""
        path = Path(path)
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES) if path.is_dir() else [path]
        if not files:
            raise InputError("holds no pictures of faces", path)
        return Reading(_squares(self.processor, [read_picture(file) for file in files]))

    def encode(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As of every encoder; a clip's pictures are a batch of their own."""
        return [super(Face, self).encode([value])[0] for value in batch]

    def run(self, values: torch.Tensor) -> torch.Tensor:
        (pictures,) = values
        means = []
        for part in pictures.split(FACES):
            pixels = _normalised(part, self.processor).to(self.dtype)
            # Nothing is masked, and noise in order leaves the patches in order: the model shuffles by it.
            patches = (self.config.image_size // self.config.patch_size) ** 2
            noise = torch.arange(patches, device=part.device).expand(len(part), -1)
            means.append(self.model(pixels, noise=noise).last_hidden_state[:, 1:].float().mean(1))
        return torch.cat(means).mean(0, keepdim=True)


def _squares(processor, pictures: Sequence[Image.Image]) -> np.ndarray:
    """(pictures, 3, side, side) uint8, resized and cropped as the processor does it."""
    videos = isinstance(processor, VideoMAEImageProcessorPil)
    given = [[*pictures]] if videos else [*pictures]
    made = processor(given, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    return np.asarray(made[0] if videos else made)


def _normalised(values: torch.Tensor, processor) -> torch.Tensor:
    """float32 pixels of uint8 ones, (…, 3, side, side), on their device."""
    pixels = values.float()
    if processor.do_rescale:
        pixels = pixels * processor.rescale_factor
    if processor.do_normalize:
        mean, deviation = (
            torch.tensor(part, device=values.device)[:, None, None]
            for part in (processor.image_mean, processor.image_std)
        )
        pixels = (pixels - mean) / deviation
    return pixels


def _check_side(made: np.ndarray, side: int, folder: Path) -> None:
    if made.shape[-2:] != (side, side):
        raise InputError(f"makes pictures of {made.shape[-2:]} and the model takes {side}", folder / PREPROCESSOR)


ENCODERS: dict[str, type[Encoder]] = {kind.name: kind for kind in (Hubert, VideoMAE, Whisper, EvaVideo, Face)}


def load(name: str, folder: Path, dtype: torch.dtype = torch.float32, frame_rule: str = "whole") -> Encoder:
    """The encoder of that name with the model of a folder, on the CPU. Raises `InputError` for another's folder."""
    if name == "eva_video":
        return EvaVideo(folder, dtype, frame_rule)
    return ENCODERS[name](folder, dtype)
