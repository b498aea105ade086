"""What is wrong with a clip: broken, cut short, black, frozen, of another length than annotated, without sound.

    python -m data_prep.doctor --meld DIR --media --jobs 4 --report OUT

Every packet is read but only what leads to the first, the middle and the last frame is decoded.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import av
import numpy as np
from PIL import Image

from swift_plugins.frames import too_large

# Luma of a black picture is 16 in limited range; encoded black stays below this.
BLACK = 32
# Two pictures at 64 pixels' width whose luma nowhere differs by more are the same but for the encoder's noise.
SAME = 3
SILENT = 10 ** (-60 / 20)  # full scale is 1


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """What the inspection of a file found: seconds of its video, frames, whether it has sound, and its faults by kind.

    `sound` is None without an audio stream, else the largest sample on a scale where 1 is full. `faults` holds
    (kind, detail); a clip with the kind `broken_clip` was not inspected further.
    """

    seconds: float = 0.0
    frames: int = 0
    sound: float | None = None
    faults: tuple[tuple[str, str], ...] = field(default=())


def inspect(path: str | os.PathLike, annotated: float | None = None) -> ClipFacts:
    """Inspect one clip; `annotated` is its length in seconds by the annotation, where there is one. Never raises."""
    try:
        if os.path.getsize(path) == 0:
            return ClipFacts(faults=(("broken_clip", "is empty"),))
        with av.open(os.fspath(path), metadata_errors="replace") as container:
            if not container.streams.video:
                return ClipFacts(faults=(("broken_clip", "holds no video stream"),))
            if reason := too_large(container.streams.video[0]):
                return ClipFacts(faults=(("broken_clip", reason),))
            return _inspect(container, annotated)
    except FileNotFoundError:
        return ClipFacts(faults=(("missing_clip", "is missing"),))
    except (av.FFmpegError, OSError, ValueError) as error:
        return ClipFacts(faults=(("broken_clip", f"cannot be decoded ({type(error).__name__})"),))


def thumbnails(path: str | os.PathLike, width: int = 160) -> list[bytes]:
    """JPEGs of the first, middle and last frame, as far as they decode."""
    pictures = []
    try:
        with av.open(os.fspath(path), metadata_errors="replace") as container:
            if not container.streams.video or too_large(container.streams.video[0]):
                return []
            packets, _ = _demux(container)
            for frame in _first_middle_last(container, packets):
                height = max(1, round(width * frame.height / frame.width))
                picture = Image.fromarray(frame.to_ndarray(format="rgb24")).resize((width, height))
                target = io.BytesIO()
                picture.save(target, "JPEG", quality=70)
                pictures.append(target.getvalue())
    except (av.FFmpegError, OSError, ValueError, IndexError):
        pass  # what could be decoded is shown
    return pictures


def _inspect(container: av.container.InputContainer, annotated: float | None) -> ClipFacts:
    stream = container.streams.video[0]
    promised = stream.frames
    packets, sound = _demux(container)
    if not packets:
        return ClipFacts(faults=(("broken_clip", "holds no frame"),))
    faults = []
    times = [packet.pts for packet in packets if packet.pts is not None]
    length = max(times) - min(times) + (packets[-1].duration or 0) if times else 0
    seconds = float(length * stream.time_base)
    if promised > len(packets) or any(packet.is_corrupt for packet in packets):
        faults.append(("truncated_clip", f"holds {len(packets)} of the {promised} frames that its header promises"))
    try:
        frames = list(_first_middle_last(container, packets))
    except (av.FFmpegError, IndexError) as error:
        faults = faults or [("broken_clip", f"cannot be decoded ({type(error).__name__})")]
        return ClipFacts(seconds, len(packets), sound, tuple(faults))
    if any(frame.is_corrupt for frame in frames):
        faults.append(("truncated_clip", "decodes with damaged pictures"))
    small = [_gray(frame) for frame in frames]
    if all((picture < BLACK).mean() > 0.98 for picture in small):
        faults.append(("black_clip", "is black at its beginning, middle and end"))
    elif len(packets) > 2 and _alike(small) and _frozen(container, small[0]):
        faults.append(("frozen_clip", f"shows one picture for {seconds:.1f} s"))
    if annotated is not None and abs(seconds - annotated) > max(1.0, 0.5 * annotated):
        faults.append(("wrong_length", f"lasts {seconds:.1f} s where {annotated:.1f} s are annotated"))
    return ClipFacts(seconds, len(packets), sound, tuple(dict(reversed(faults)).items()))


def _demux(container: av.container.InputContainer) -> tuple[list[av.Packet], float | None]:
    """All video packets in coding order, undecoded, and the loudest sample of the first audio stream."""
    video = container.streams.video[0]
    audio = container.streams.audio[0] if container.streams.audio else None
    packets: list[av.Packet] = []
    loudest = None if audio is None else 0.0
    for packet in container.demux([stream for stream in (video, audio) if stream is not None]):
        if packet.stream is video:
            if packet.size:
                packets.append(packet)
        elif loudest is not None and loudest < 0.01:  # loud enough to be heard: no need to decode the rest
            loudest = max(loudest, _loudest(packet))
    return packets, loudest


def _loudest(packet: av.Packet) -> float:
    try:
        frames = [frame.to_ndarray() for frame in packet.decode()]
    except av.FFmpegError:
        return 0.0
    peaks = [
        float(np.abs(frame.astype(np.float32)).max()) / (np.iinfo(frame.dtype).max if frame.dtype.kind == "i" else 1)
        for frame in frames
        if frame.size
    ]
    return max(peaks, default=0.0)


def _first_middle_last(container: av.container.InputContainer, packets: list[av.Packet]) -> Iterator[av.VideoFrame]:
    """The first, middle and last frame; decoding starts at the key frame before each, unless it is there already."""
    context = container.streams.video[0].codec_context
    context.thread_count = 1  # clips are looked at side by side
    context.skip_frame = "NONREF"
    place = 0
    frame = None
    for target in sorted({0, len(packets) // 2, len(packets) - 1}):
        last = target == len(packets) - 1
        start = max((i for i in range(target + 1) if packets[i].is_keyframe), default=0)
        if start > place:
            context.flush_buffers()
            place = start
        found = None
        while found is None and place < len(packets):
            for frame in context.decode(packets[place]):
                if place >= target and not last:
                    found = frame
            place += 1
        if last:
            found = frame = (context.decode(None) or [frame])[-1]
        if found is not None:
            yield found
    if frame is None:
        raise IndexError("no frame decodes")


def _gray(frame: av.VideoFrame) -> np.ndarray:
    height = max(2, round(64 * frame.height / frame.width / 2) * 2)
    return frame.reformat(width=64, height=height, format="gray").to_ndarray()


def _alike(pictures: list[np.ndarray]) -> bool:
    first = pictures[0].astype(np.int16)
    return all(other.shape == first.shape and np.abs(other - first).max() <= SAME for other in pictures[1:])


def _frozen(container: av.container.InputContainer, first: np.ndarray) -> bool:
    """Whether every frame is the first one; looked at only when three already are."""
    container.seek(0)
    context = container.streams.video[0].codec_context
    context.skip_frame = "DEFAULT"
    return all(_alike([first, _gray(frame)]) for frame in container.decode(video=0))
