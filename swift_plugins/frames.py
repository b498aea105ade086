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
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import groupby
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
Times = tuple[list[int], list[int]]


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
        with _open(source) as container:
            times = _times(container)
        return len(times[0]) if times else sum(1 for _ in _decode(source))


def read_frames(source: Source, indices: Sequence[int]) -> list[Image.Image]:
    """RGB pictures of the frames at `indices` (any order, repeats allowed), from a path, bytes or a binary file.

    Decodes what the wanted frames need, from the last key frame before them, and falls back to decoding from the start
    where the container's times are missing or ambiguous. Raises `InputError` for what is no video or has no such
    frame, `ValueError` for a negative index.
    """
    if any(i < 0 for i in indices):
        raise ValueError(f"negative frame index in {list(indices)}")
    with _errors(source), _open(source) as container:
        return _read(source, container, indices, _times(container))


def sample_frames(source: Source, k: int) -> list[Image.Image]:
    """The `k` segment-centre frames of a video as RGB pictures."""
    with _errors(source), _open(source) as container:
        times = _times(container)
        n = len(times[0]) if times else sum(1 for _ in _decode(source))
        if n == 0:
            raise InputError("has no frame that can be decoded", _name(source))
        return _read(source, container, segment_centre_indices(n, k), times)


def _read(source: Source, container, indices: Sequence[int], times: Times | None) -> list[Image.Image]:
    wanted = sorted(set(indices))
    pictures = _by_time(container, wanted, *times) if times and wanted and wanted[-1] < len(times[0]) else None
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
    plane = frame.reformat(format="rgb24").planes[0]
    lines = abs(plane.line_size), 1 if plane.line_size > 0 else -1  # as `to_image` has it, without its copies
    image = Image.frombuffer("RGB", (frame.width, frame.height), plane, "raw", "RGB", *lines)
    if "DISPLAYMATRIX" not in frame.side_data:
        return image
    a, b, _, c, d = struct.unpack_from("<5i", frame.side_data["DISPLAYMATRIX"])  # (x, y) goes to (ax + cy, bx + dy)
    if a * d < b * c:
        image, a, b = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), -a, -b
    quarters = round(math.degrees(math.atan2(-b, a)) / 90) % 4  # counter-clockwise; y points down
    turns = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    return image.transpose(turns[quarters]) if quarters else image


def _times(container) -> Times | None:
    """Times of all frames and of the key frames, in display order; None where they do not identify a frame."""
    times, keys = [], []
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


def _by_time(container, wanted: list[int], times: list[int], keys: list[int]) -> dict[int, Image.Image] | None:
    """Pictures by index, from the last key frame before each; None as soon as the decoder does not give a frame that
    the times promise."""
    pictures: dict[int, Image.Image] = {}
    if not keys or keys[0] > times[wanted[0]]:
        return None
    for key, run in groupby(wanted, lambda index: keys[bisect_right(keys, times[index]) - 1]):
        indices = {times[index]: index for index in run}
        try:
            container.seek(key, stream=container.streams.video[0])
            for place, frame in enumerate(_decode_for(container, {key, *indices})):
                if place == 0 and key == times[0] != frame.pts:
                    return None
                if frame.pts in indices:
                    pictures[indices.pop(frame.pts)] = _upright(frame)
        except av.FFmpegError:  # decoding from the start tells what is wrong
            return None
        if indices:
            return None
    return pictures


def _decode_for(container, wanted: set[int]) -> Iterator[av.VideoFrame]:
    """Frames from where the container stands to the last of these times, without frames that are neither wanted nor
    needed by another (half of an ordinary clip)."""
    stream, left = container.streams.video[0], set(wanted)
    for packet in container.demux(stream):
        if packet.size == 0:
            break
        stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        yield from packet.decode()
        left.discard(packet.pts)
        if not left:
            break
    yield from stream.decode(None)  # what the decoder holds back for their order
