"""The sound track of a clip or an audio file, decoded with PyAV.

sound = read_sound("clip.mp4")                       # (samples,) float32 at 16 kHz, mono
"""

from __future__ import annotations

import io
import os

import av
import numpy as np

from swift_plugins.files import InputError
from swift_plugins.frames import Source

RATE = 16_000  # samples a second: what speech encoders hear
SOUNDS = (".wav", ".mp3", ".flac", ".m4a", ".ogg", ".opus", ".aac")  # suffixes of files that are sound alone


class NoSound(InputError):
    """A file that can be read and has no sound track."""


def read_sound(source: Source, seconds: float | None = None) -> np.ndarray:
    """(samples,) float32 in -1..1: the mean channel of the first sound track at `RATE`, the first `seconds` of it.

    Raises `NoSound` for a file without a sound track or with an empty one, `InputError` for what cannot be decoded.
    """
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else "sound"
    most = None if seconds is None else round(seconds * RATE)
    parts, count = [], 0
    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else source, metadata_errors="replace") as file:
            if not file.streams.audio:
                raise NoSound("has no sound track", name)
            resampler = av.AudioResampler(format="fltp", rate=RATE)  # its own downmix makes equal channels louder
            for frame in file.decode(audio=0):
                frame.pts = None  # gaps of the times are no silence to the resampler, which would refuse them
                for part in resampler.resample(frame):
                    parts.append(part.to_ndarray().mean(0))
                    count += len(parts[-1])
                if most is not None and count >= most:
                    break
            else:
                parts += [part.to_ndarray().mean(0) for part in resampler.resample(None)]
    except (OSError, ValueError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"its sound cannot be decoded: {reason}", name) from None
    sound = np.concatenate(parts)[:most] if parts else np.empty(0, np.float32)
    if not len(sound):
        raise NoSound("has an empty sound track", name)
    return np.ascontiguousarray(np.clip(sound, -1, 1), dtype=np.float32)


def has_sound(path: str | os.PathLike) -> bool:
    """Whether a file has a sound track; nothing is decoded. Raises `InputError` for what cannot be opened."""
    try:
        with av.open(os.fspath(path), metadata_errors="replace") as file:
            return bool(file.streams.audio)
    except (OSError, ValueError, av.FFmpegError) as error:
        raise InputError(f"cannot be opened: {getattr(error, 'strerror', None) or error}", path) from None
