"""Frames of a video by exact index, with PyAV; only the frames that are asked for become pictures.

    images = read_frames("clip.mp4", segment_centre_indices(count_frames("clip.mp4"), 8))
    images = sample_frames("clip.mp4", 8)                             # the same in one call

Index i is the i-th frame in display order, whatever its time: variable frame rates and B-frames change nothing.
Pictures stand upright: a phone's clip is stored as the sensor lies and says how to turn it.
"""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import av
from PIL import Image

from swift_plugins.files import InputError

MOST_PIXELS = 4096 * 2304  # of a frame: 4K; eight of them as pictures take 230 MB
# Pillow refuses a picture of twice as many, in ms-swift, too: 64 million, 200 MB.
Image.MAX_IMAGE_PIXELS = 32_000_000

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")  # suffixes of files that are one picture
Source = str | os.PathLike | bytes | BinaryIO


def read_picture(path: str | os.PathLike) -> Image.Image:
    """A picture file as RGB; `InputError` for what is none, is broken or has too many pixels."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Image.DecompressionBombError as error:
        raise InputError(f"has too many pixels to look at ({error})", path) from None
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"is no picture that can be read ({type(error).__name__})", path) from None


def jpeg(picture: Image.Image, height: int) -> bytes:
    """A JPEG of a picture, `height` pixels high, for a page."""
    file = io.BytesIO()
    width = max(1, round(picture.width * height / picture.height))
    picture.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=86)
    return file.getvalue()


def segment_centre_indices(n: int, k: int) -> list[int]:
    """Indices of the centres of `k` equal segments of `n` frames, as InternVL2's own video loader places them.

    Its formula: segments of (n - 1) / k frames, start rounded to a whole frame (halves to even), plus half a segment.
    A video of fewer than `k` frames repeats frames. Raises `ValueError` for n < 1 or k < 1.
    """
    if n < 1 or k < 1:
        raise ValueError(f"{k} segments of {n} frames")
    segment = (n - 1) / k
    return [int(segment / 2 + round(segment * i)) for i in range(k)]


def count_frames(source: Source) -> int:
    """Number of frames that decoding gives; counts packets without decoding where the container tells their times."""
    with _errors(source):
        times = _times(source)
        return len(times[0]) if times else sum(1 for _ in _decode(source))


def read_frames(source: Source, indices: Sequence[int]) -> list[Image.Image]:
    """RGB pictures of the frames at `indices` (any order, repeats allowed), from a path, bytes or a binary file.

    Seeks to the last key frame before the next wanted frame wherever that skips decoding, and falls back to decoding
    from the start where the container's times are missing or ambiguous. Raises `InputError` for what is no video or
    has no such frame, `ValueError` for a negative index.
    """
    if any(i < 0 for i in indices):
        raise ValueError(f"negative frame index in {list(indices)}")
    with _errors(source):
        return _read(source, indices, _times(source))


def sample_frames(source: Source, k: int) -> list[Image.Image]:
    """The `k` segment-centre frames of a video as RGB pictures."""
    with _errors(source):
        times = _times(source)
        n = len(times[0]) if times else sum(1 for _ in _decode(source))
        if n == 0:
            raise InputError("has no frame that can be decoded", _name(source))
        return _read(source, segment_centre_indices(n, k), times)


def _read(source: Source, indices: Sequence[int], times: tuple[list[int], list[int]] | None) -> list[Image.Image]:
    wanted = sorted(set(indices))
    pictures = _by_time(source, wanted, *times) if times and wanted and wanted[-1] < len(times[0]) else None
    if pictures is None:
        pictures, count = {}, 0
        for count, frame in enumerate(_decode(source), 1):
            if count - 1 in wanted:
                pictures[count - 1] = _upright(frame)
                if len(pictures) == len(wanted):
                    break
        if len(pictures) < len(wanted):
            raise InputError(f"has no frame {wanted[-1]}, only {count} can be decoded", _name(source))
    return [pictures[i] for i in indices]


class _errors:
    """Turn PyAV's errors into `InputError`."""

    def __init__(self, source: Source):
        self.source = source

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, OSError | ValueError | av.FFmpegError):
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"cannot be decoded as video: {reason}", _name(self.source)) from None


def _name(source: Source) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else "video"


def _open(source: Source):
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    elif isinstance(source, os.PathLike | str):
        source = str(Path(source))
    else:
        source.seek(0)
    container = av.open(source)
    if not container.streams.video:
        container.close()
        raise ValueError("no video stream")
    stream = container.streams.video[0]
    if reason := too_large(stream):
        container.close()
        raise ValueError(reason)
    if stream.width * stream.height >= 640 * 360:  # smaller frames decode faster than threads start
        stream.thread_type = "AUTO"
    return container


def too_large(stream: av.VideoStream) -> str | None:
    """Why no frame of the stream may be decoded: it has too many pixels. Frames that turn larger later on fail."""
    if stream.width * stream.height > MOST_PIXELS:
        return f"is {stream.width} x {stream.height} pixels large, more than {MOST_PIXELS:,}"
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    return None


def _decode(source: Source):
    with _open(source) as container:
        yield from container.decode(video=0)


def _upright(frame: av.VideoFrame) -> Image.Image:
    """The frame as its display matrix says to show it: turned by quarters, mirrored where a front camera says so."""
    image = frame.to_image()
    if "DISPLAYMATRIX" not in frame.side_data:
        return image
    a, b, _, c, d = struct.unpack_from("<5i", frame.side_data["DISPLAYMATRIX"])  # (x, y) goes to (ax + cy, bx + dy)
    if a * d < b * c:
        image, a, b = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), -a, -b
    quarters = round(math.degrees(math.atan2(-b, a)) / 90) % 4  # counter-clockwise; y points down
    turns = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    return image.transpose(turns[quarters]) if quarters else image


def _times(source: Source) -> tuple[list[int], list[int]] | None:
    """Times of all frames and of the key frames, in display order; None where they do not identify a frame."""
    times, keys = [], []
    with _open(source) as container:
        for packet in container.demux(video=0):
            if packet.size == 0 or packet.is_discard:  # the flush packet; what an edit list cuts away
                continue
            if packet.pts is None or packet.is_corrupt:
                return None
            times.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
    if len(set(times)) < len(times):
        return None
    return sorted(times), sorted(keys)


def _by_time(source: Source, wanted: list[int], times: list[int], keys: list[int]) -> dict[int, Image.Image] | None:
    """Pictures by index, seeking; None as soon as the decoder gives anything but the frame that the times promise."""
    pictures: dict[int, Image.Image] = {}
    with _open(source) as container:
        stream = container.streams.video[0]
        frames, position, started = container.decode(stream), None, False
        for index in wanted:
            target = times[index]
            key = max((k for k in keys if k <= target), default=None)
            if key is not None and key > (times[0] if position is None else position):
                container.seek(key, stream=stream)
                frames, started = container.decode(stream), True
            for frame in frames:
                if frame.pts is None or frame.pts > target or (not started and frame.pts != times[0]):
                    return None
                started = True
                position = frame.pts
                if position == target:
                    pictures[index] = _upright(frame)
                    break
            else:
                return None
    return pictures
