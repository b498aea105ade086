"""Prepared features of clips on disk, one `.npy` a clip and encoder, and the one way in which they are read.

    python -m data_prep.features --encoder hubert --model DIR --rows amt --out features      # writes them
    feature = read_stream(Path("features"), "hubert", "raw/clip7.mp4")                       # (1024,), or None

A clip's file is `<folder>/<encoder>/<key>.npy`. Its key is the end of its path without the suffix: `parts` of it, as
the folder's manifest says; 1 is the name alone, 2 its folder as well, where clips of several folders have the same
names. Nobody needs to know where the clips lay when they were prepared.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from swift_plugins.files import InputError, read_json, validated
from swift_plugins.frames import Source
from swift_plugins.sound import NoSound

if TYPE_CHECKING:
    from swift_plugins.emotion_llama.encoders import Encoder

SOUND = ("hubert", "whisper")  # streams of what is heard; the others are of what is seen
MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """What the features of a folder are: whose, of which weights (digest), of what of a clip (rule), how large.

    model: where the weights were. computed_in: the precision of the model; features are float32. parts: of a key.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    encoder: str
    model: str
    digest: str
    rule: str
    shape: list[int]
    dtype: str
    computed_in: str
    parts: int


def clip_of(stream: str, videos: Sequence[str] | None, audios: Sequence[str] | None) -> str | None:
    """The file of a row that a stream is of: its first clip; its first sound before that, for what is heard."""
    kinds = (audios, videos) if stream in SOUND else (videos,)
    return next((files[0] for files in kinds if files), None)


def stream_key(clip: str | os.PathLike, parts: int) -> str:
    """The key of a clip: the last `parts` of its path, without the suffix."""
    path = Path(os.path.splitext(os.path.normpath(clip))[0])
    return "/".join([part for part in path.parts if part != path.anchor][-parts:])


def read_manifest(folder: Path, stream: str) -> Manifest | None:
    """What the features of a stream are; None where the folder has none of it. Raises `InputError` for another's."""
    path = Path(folder) / stream / MANIFEST
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        if path.parent.is_dir() and any(path.parent.rglob("*.npy")):
            reason = f"holds features without a {MANIFEST} (python -m data_prep.features --encoder … writes it)"
            raise InputError(reason, path.parent) from None
        return None
    return _manifest(path, changed)


@functools.lru_cache
def _manifest(path: Path, changed: int) -> Manifest:
    manifest = validated(Manifest, read_json(path), path)
    if manifest.encoder != path.parent.name:
        raise InputError(f"is of features of {manifest.encoder}, in the folder of {path.parent.name}", path)
    return manifest


def read_stream(
    folder: Path, stream: str, clip: str | os.PathLike, shape: tuple[int, ...] | None = None
) -> np.ndarray | None:
    """The feature of a clip, float32, or None where there is none. shape: as the model takes it, (64, width) for a
    stored (1, 64, width).

    Raises `InputError`, naming the file, for one of another encoder, shape or type, with NaN or infinity, or that is
    no whole array; objects (pickles) are not read.
    """
    manifest = read_manifest(folder, stream)
    if manifest is None:
        return None
    path = Path(folder) / stream / f"{stream_key(clip, manifest.parts)}.npy"
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)  # of a header that lies, nothing is allocated
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise InputError(f"is no array of numbers ({str(error).splitlines()[0]})", path) from None
    if not isinstance(stored, np.ndarray) or [*stored.shape] != manifest.shape or stored.dtype != manifest.dtype:
        found = f"{[*stored.shape]} of {stored.dtype}" if isinstance(stored, np.ndarray) else "an archive"
        raise InputError(f"is {found}, not {manifest.shape} of {manifest.dtype} as {MANIFEST} says", path)
    return _checked(np.array(stored, np.float32), shape, path)


def compute_stream(encoder: Encoder, clip: Source, shape: tuple[int, ...] | None = None) -> np.ndarray | None:
    """The feature of a clip that was not prepared, as `read_stream` would give it; None for a clip without sound.

    Raises `InputError` for what cannot be decoded.
    """
    try:
        reading = encoder.read(clip)
    except NoSound:
        return None
    name = clip if isinstance(clip, str | os.PathLike) else "clip"  # or what a server was sent
    return _checked(encoder.encode([reading.value])[0], shape, name)


def _checked(feature: np.ndarray, shape: tuple[int, ...] | None, path: str | os.PathLike) -> np.ndarray:
    if not np.isfinite(feature).all():
        raise InputError("holds numbers that are not finite" if str(path).endswith(".npy") else "gives NaN", path)
    if shape is None:
        return feature
    if feature.shape not in (shape, (1, *shape)):
        raise InputError(f"is {[*feature.shape]} where the model takes {[*shape]}", path)
    return feature.reshape(shape)


@functools.cache
def serving_encoder(root: Path, stream: str, features: Path | None = None) -> Encoder | None:
    """The encoder in `root`/`stream` (AMT_ENCODERS=root), loaded once, where there is an accelerator on that.

    None where there is no such folder, and for faces, which nobody cuts out when serving. `features`: what was
    prepared with other weights or other frames is not mixed with what this one gives, but refused (`InputError`).
    """
    import torch

    from swift_plugins.emotion_llama.encoders import load

    if stream == "face" or not (root / stream).is_dir():
        return None
    manifest = read_manifest(features, stream) if features else None
    dtype = getattr(torch, manifest.computed_in, torch.float32) if manifest else torch.float32
    window = manifest is not None and "window" in manifest.rule
    encoder = load(stream, root / stream, dtype, "window" if window else "whole")
    if manifest and (manifest.digest, manifest.rule) != (encoder.digest, encoder.rule):
        raise InputError(f"is another encoder than that of {features} ({manifest.model})", root / stream)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return encoder.to(device or "cpu")
