"""What a prompt says about each clip: facts from AMT rows, captions and peak frames from fer.jsonl, pictures."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep.eri.config import EriConfig
from data_prep.fer.facs import load_facs
from data_prep.records import Records
from swift_plugins.files import InputError, read_rows
from swift_plugins.frames import PICTURES, count_frames, read_frames, read_picture, segment_centre_indices
from swift_plugins.sound import RATE, read_sound
from swift_plugins.tasks import TASKS, split_channel

# The tasks whose rows hold labels, and what a prompt calls these.
LABELLED = {"mer": "emotion", "mlmer": "emotion", "ov": "emotion", "msa": "sentiment", "intent": "intent"}


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """What a prompt says about one clip.

    labels: what is known of it, `{"emotion": ("happy",)}`, by the words of `LABELLED`; aus: the Action Units of its
    peak frame in words. picture: file of its peak frame, or of the clip itself, None where the row names none; size:
    its bytes, None where it does not exist; media: how the picture is named in files that others read. sound: file of
    the row's sound, or its clip, whose sound track counts; None where the row names neither.
    """

    id: str
    labels: Mapping[str, tuple[str, ...]]
    transcript: str
    expression: str
    aus: str
    picture: Path | None
    size: int | None
    media: str
    sound: Path | None

    @property
    def label(self) -> str:
        """All labels: `happy`, or `anger, disgust, negative`."""
        return ", ".join(dict.fromkeys(label for labels in self.labels.values() for label in labels))

    @property
    def said(self) -> dict[str, str]:
        """The fields of a prompt's texts that are of the clip alone."""
        labels = "; ".join(f"{kind}: {', '.join(labels)}" for kind, labels in self.labels.items())
        told = {"transcript": self.transcript, "label": self.label, "labels": labels}
        return told | {"expression": self.expression, "aus": self.aus}


def read_clips(
    rows: Iterable[Path], media_root: Path, fer: Path | None, config: EriConfig, tasks: Collection[str] = ("mer",)
) -> list[ClipFacts]:
    """Clips from AMT rows of `tasks`, in their order; `InputError` names the file and row that is wrong.

    A clip may have a row of each task: the first says everything but the further labels. The picture is the peak frame
    that `fer` has for the clip, else the row's first image, else its clip.
    """
    records = Records.read([fer] if fer else [], "caption").by_id
    aus = _action_units(fer) if fer else {}
    clips: dict[str, ClipFacts] = {}
    seen: set[tuple[str, str]] = set()
    for file in rows:
        for number, row in read_rows(file):
            name, task, labels, transcript, media, sound = _read_row(row, file, number, tasks)
            if (name, task) in seen:
                raise InputError(f"duplicate id {name}", file, number)
            seen.add((name, task))
            if name in clips:
                known, kind = clips[name].labels, LABELLED[task]
                both = tuple(dict.fromkeys((*known.get(kind, ()), *labels)))
                clips[name] = replace(clips[name], labels={**known, kind: both})
                continue
            caption, peak, folder = records.get(name, (None, None, Path()))
            picture = folder / peak if peak else Path(media_root, media) if media else None
            size = picture.stat().st_size if picture and picture.is_file() else None
            clips[name] = ClipFacts(
                id=name,
                labels={LABELLED[task]: labels},
                transcript=" ".join(transcript.split()),
                expression=caption or config.no_expression,
                aus=aus.get(name) or config.no_expression,
                picture=picture,
                size=size,
                media=Path(peak).name if peak else media,
                sound=Path(media_root, sound) if sound else None,
            )
    if not clips:
        raise InputError("holds no rows", next(iter(rows)))
    if not any(clip.transcript for clip in clips.values()):
        raise InputError("no row has a transcript", next(iter(rows)))
    if all(clip.size is None for clip in clips.values()):
        raise InputError("holds none of the pictures and clips that the rows name", media_root)
    return list(clips.values())


def _action_units(fer: Path) -> dict[str, str]:
    """All Action Units of each peak frame in words, whatever the label: `AU12 (lip corners pulled up)`."""
    phrases = {au: unit.phrases[0] for au, unit in load_facs().aus.items()}
    found = {}
    for number, record in read_rows(fer):
        aus = record.get("peak_aus", [])
        if not isinstance(aus, list) or not all(isinstance(au, str) for au in aus):
            raise InputError("peak_aus is not a list of Action Units", fer, number)
        found[record["id"]] = ", ".join(f"{au} ({phrases[au]})" if au in phrases else au for au in aus)
    return found


def _read_row(
    row: dict, file: Path, number: int, tasks: Collection[str]
) -> tuple[str, str, tuple[str, ...], str, str, str]:
    """(id, task, labels, transcript, media or "", sound or "") of one row."""
    name, channel, response = (_text(row, key, file, number) for key in ("id", "channel", "response"))
    try:
        dataset, task, part = split_channel(channel)
    except ValueError as error:
        raise InputError(str(error), file, number) from None
    if task not in tasks:
        kinds = "emotion label" if list(tasks) == ["mer"] else "label"
        known = " or ".join(f"<dataset>.{key}" for key in tasks if key in TASKS)
        raise InputError(f"channel {channel} holds no {kinds}: give {known} rows", file, number)
    labels = _labels(TASKS[task].of_part(part).strict(response, dataset), response)
    if not labels:
        kind = LABELLED[task]
        raise InputError(
            f"response {response!r} is not {'a' if kind[0] == 's' else 'an'} {kind} of {dataset}", file, number
        )
    facts = row.get("facts")
    if not isinstance(facts, dict) or not isinstance(facts.get("transcript"), str):
        raise InputError("has no facts.transcript: build the rows again with data_prep.build_amt", file, number)
    media = row.get("images") or row.get("videos") or [""]
    sound = row.get("audios") or row.get("videos") or [""]
    if not all(isinstance(paths, list) and isinstance(paths[0], str) for paths in (media, sound)):
        raise InputError("images, videos and audios must be lists of paths", file, number)
    return name, task, labels, _text(facts, "transcript", file, number), media[0], sound[0]


def _labels(answer: Any, response: str) -> tuple[str, ...]:
    """The labels of an answer as its task reads it, in the order of the text; none of a score."""
    if isinstance(answer, str):
        return (answer,)
    if not isinstance(answer, Collection):
        return ()
    return tuple(sorted(dict.fromkeys(answer), key=response.lower().find))


def _text(row: dict, key: str, file: Path, number: int) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise InputError(f"has no {key}" if value is None else f"{key} must be a text", file, number)
    return value


def wav(path: Path, seconds: float) -> str:
    """Base64 of a WAV file (16 bits, one channel, 16 kHz): the sound of a clip or audio file, at most `seconds` of it.

    Raises `InputError` for a file without sound, or whose sound cannot be decoded.
    """
    samples = np.round(read_sound(path, seconds) * 32_767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(samples.itemsize)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def pictures(path: Path, frames: int, longest_side: int, jpeg_quality: int) -> list[str]:
    """JPEG data URLs: one of a picture file, at most `frames` of a clip, from the centres of equal parts.

    Raises `InputError` when nothing can be decoded.
    """
    if path.suffix.lower() in PICTURES:
        images = [read_picture(path)]
    else:
        indices = segment_centre_indices(count_frames(path), frames)
        images = read_frames(path, list(dict.fromkeys(indices)))
    urls = []
    for image in images:
        image.thumbnail((longest_side, longest_side), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=jpeg_quality)
        urls.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"))
    return urls
