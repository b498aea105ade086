"""What a prompt says about each clip: facts from AMT rows, captions and peak frames from fer.jsonl, pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from data_prep.eri.config import EriConfig
from swift_plugins.files import InputError, read_rows
from swift_plugins.frames import count_frames, read_frames, segment_centre_indices
from swift_plugins.tasks import TASKS, split_channel

UNDECODABLE = (InputError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """What a prompt says about one clip.

    picture: file of its peak frame, or of the clip itself, None where the row names none; size: its bytes, None where
    it does not exist; media: how the picture is named in files that others read.
    """

    id: str
    label: str
    transcript: str
    expression: str
    picture: Path | None
    size: int | None
    media: str


def read_clips(rows: Iterable[Path], media_root: Path, fer: Path | None, config: EriConfig) -> list[ClipFacts]:
    """Clips from `<dataset>.mer` AMT rows, in their order; `InputError` names the file and row that is wrong.

    The picture is the peak frame that `fer` has for the clip, else the row's first image, else its clip.
    """
    captions, peaks = _read_fer(fer) if fer else ({}, {})
    clips: dict[str, ClipFacts] = {}
    for file in rows:
        for number, row in read_rows(file):
            name, label, transcript, media = _read_row(row, file, number)
            if name in clips:
                raise InputError(f"duplicate id {name}", file, number)
            picture = peaks.get(name) or (Path(media_root, media) if media else None)
            expression = captions.get(name) or config.no_expression
            shown = peaks[name].name if name in peaks else media
            size = picture.stat().st_size if picture and picture.is_file() else None
            clips[name] = ClipFacts(name, label, " ".join(transcript.split()), expression, picture, size, shown)
    if not clips:
        raise InputError("holds no rows", next(iter(rows)))
    if not any(clip.transcript for clip in clips.values()):
        raise InputError("no row has a transcript", next(iter(rows)))
    if all(clip.size is None for clip in clips.values()):
        raise InputError("holds none of the pictures and clips that the rows name", media_root)
    return list(clips.values())


def _read_row(row: dict, file: Path, number: int) -> tuple[str, str, str, str]:
    """(id, label, transcript, media or "") of one row."""
    name, channel, response = (_text(row, key, file, number) for key in ("id", "channel", "response"))
    try:
        dataset, task, _ = split_channel(channel)
    except ValueError as error:
        raise InputError(str(error), file, number) from None
    if task != "mer":
        raise InputError(f"channel {channel} holds no emotion label: give <dataset>.mer rows", file, number)
    label = TASKS["mer"].strict(response, dataset)
    if label is None:
        raise InputError(f"response {response!r} is not an emotion of {dataset}", file, number)
    facts = row.get("facts")
    if not isinstance(facts, dict) or not isinstance(facts.get("transcript"), str):
        raise InputError("has no facts.transcript: build the rows again with data_prep.build_amt", file, number)
    media = row.get("images") or row.get("videos") or [""]
    if not isinstance(media, list) or not isinstance(media[0], str):
        raise InputError("images and videos must be lists of paths", file, number)
    return name, label, _text(facts, "transcript", file, number), media[0]


def _read_fer(file: Path) -> tuple[dict[str, str | None], dict[str, Path]]:
    """Captions and peak frames by clip id; a caption is null where no Action Unit could be described."""
    captions, peaks = {}, {}
    for number, record in read_rows(file):
        name = _text(record, "id", file, number)
        if "caption" not in record:
            raise InputError("has no caption", file, number)
        captions[name] = None if record["caption"] is None else _text(record, "caption", file, number)
        if record.get("image") is not None:
            peaks[name] = file.parent / _text(record, "image", file, number)
    return captions, peaks


def _text(row: dict, key: str, file: Path, number: int) -> str:
    """A text that can be written again: JSON can hold half characters, UTF-8 cannot."""
    value = row.get(key)
    if not isinstance(value, str):
        raise InputError(f"has no {key}" if value is None else f"{key} must be a text", file, number)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{key} holds half a character", file, number) from None
    return value


def pictures(path: Path, frames: int, longest_side: int, jpeg_quality: int) -> list[str]:
    """JPEG data URLs: one of a picture file, at most `frames` of a clip, from the centres of equal parts.

    Raises one of `UNDECODABLE` when nothing can be decoded.
    """
    if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp"):
        images = [Image.open(path)]
    else:
        indices = segment_centre_indices(count_frames(path), frames)
        images = read_frames(path, list(dict.fromkeys(indices)))
    urls = []
    for image in images:
        image.thumbnail((longest_side, longest_side), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=jpeg_quality)
        urls.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"))
    return urls
