"""One clip → its FER record: the peak frame's picture, its Action Units, and a caption that says them in words."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_prep.fer.au_table import PRESENCES, Faces, OpenFaceError, read_faces
from data_prep.fer.clips import FerClip
from data_prep.fer.facs import EXPRESSIVE, Facs, active_aus, common_aus, deciding_columns, describe
from data_prep.fer.openface import extract
from data_prep.fer.peaks import Peak, check_length, find_peak, named_aus, peak_image, summed_aus, write_image
from swift_plugins.files import InputError


class FerRecord(BaseModel):
    """The types of a record; `why` there is no caption and what AUs are `unknown` stay out of fer.jsonl."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: str
    emotion: str | None
    aus: list[str]
    phrases: list[str]
    caption: str | None
    image: str
    frame: int
    index: int = Field(None)  # of this and peak_aus, journals of earlier versions know nothing
    peak_aus: list[str] = Field(None)
    face_id: int
    score: float
    face: list[float] = Field([], min_length=4, max_length=4)
    why: str = ""
    unknown: list[str] = []


class FerFault(BaseModel):
    """Why a clip has no record."""

    model_config = ConfigDict(strict=True, extra="forbid")

    kind: str
    id: str
    detail: str


class Done(BaseModel):
    """A line of the run's journal: the clip's record, or its fault with the state of its files and the time."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: str = Field(pattern="^[^/]+/[^/]+/.")  # dataset, split, clip
    record: FerRecord = Field(None)  # may be absent, never null
    fault: FerFault = Field(None)
    files: list[list[int]] = []
    time: float = 0.0

    @model_validator(mode="after")
    def _one_of_both(self) -> Done:
        if (self.record is None) == (self.fault is None):
            raise ValueError("is neither a record nor a fault")
        return self


@dataclass(frozen=True)
class RecordSettings:
    """All that decides the content of a record; a run is resumed with the same settings only."""

    people: str
    aus: str | tuple[str, ...]
    hold: int
    confidence: float
    crop: bool
    without_common: str
    seed: int
    image: str
    openface_args: tuple[str, ...]
    facs: Facs

    def summed(self, label: str | None) -> tuple[str, ...]:
        """The AUs that equation 1 sums for a clip of this label."""
        return summed_aus(self.aus if self.aus != "label" else label or "no_blink", self.facs)

    @property
    def described(self) -> tuple[str, ...]:
        """The AUs that a caption may name."""
        return named_aus(self.aus) or (PRESENCES if self.aus == "all" else EXPRESSIVE)


@dataclass(frozen=True)
class FerRun:
    """What all clips of a run share. `program` is OpenFace's, called for at most `timeout` seconds a clip, or None."""

    out: Path
    settings: RecordSettings
    program: Path | None
    timeout: float

    @property
    def scratch(self) -> Path:
        """Where unfinished files lie, on the same disk as the finished ones."""
        return self.out / ".fer" / "scratch"


def make_record(clip: FerClip, run: FerRun) -> dict:
    """The record of one clip; writes its CSV (with a program) and its peak image under `run.out`.

    `frame` is numbered as in the CSV (OpenFace counts from 1), like everything that a user is shown; `index` counts the
    same from 0. `peak_aus` are all AUs of the peak frame, `aus` those that the caption tells of. The caption is
    None, with the reason under "why", where no AU is left to describe. "unknown" names AUs of emotions that no column
    tells of; "face" is where the person's landmarks lie, in parts of the picture's sides. Raises `OpenFaceError`.
    """
    settings, facs = run.settings, run.settings.facs
    faces = _faces(clip, run)
    peak = find_peak(faces, settings.summed(clip.label), settings.hold)
    active = active_aus(faces, peak.row, facs, settings.described)
    aus, why = (), "no_label"
    if clip.label is not None:
        aus, why = common_aus(active, clip.label, facs), "no_active_aus" if not active else "no_common_aus"
    if not aus and settings.without_common == "active":
        aus = active
    image = f"peaks/{clip.id.partition('/')[2]}.{settings.image}"
    picture = _picture(clip.video, faces, peak, run)
    _publish_picture(picture, run.scratch, run.out / image)
    phrases = describe(aus, facs, f"{settings.seed}:{clip.id}")
    record = {
        "id": clip.id,
        "emotion": clip.label,
        "aus": list(aus),
        "phrases": phrases,
        "caption": "; ".join(phrases) or None,
        "image": image,
        "frame": peak.frame,
        "index": peak.index,
        "peak_aus": list(active),
        "face_id": peak.face_id,
        "score": peak.score,
    }
    if picture.info["face"]:
        record["face"] = picture.info["face"]
    known = deciding_columns(faces, facs, settings.described)
    unknown = sorted({au for members in facs.emotions.values() for au in members} - set(known))
    return record | ({} if aus else {"why": why}) | ({"unknown": unknown} if unknown else {})


def _faces(clip: FerClip, run: FerRun) -> Faces:
    """The clip's faces, from its CSV or from OpenFace."""
    settings = run.settings
    if clip.video is None:
        raise OpenFaceError("no_clip", "the dataset has no usable clip for it")
    if not clip.video.is_file():
        raise OpenFaceError("missing_clip", "the clip is missing")
    if run.program is not None:
        return extract(
            clip.video,
            run.out / "openface" / clip.csv_name,
            run.program,
            run.scratch,
            flags=settings.openface_args,
            timeout=run.timeout,
            confidence=settings.confidence,
            boxes=settings.crop or settings.people == "several",  # whom a picture of several shows
            aus=named_aus(settings.aus) or PRESENCES,
        )
    if clip.csv is None:
        raise OpenFaceError("no_csv", clip.no_csv)
    return read_faces(clip.csv, settings.confidence, boxes=True)


def _picture(video: Path, faces: Faces, peak: Peak, run: FerRun) -> Image.Image:
    crop = run.settings.crop
    if crop and faces.box is None:
        raise OpenFaceError("no_landmarks", "the CSV has no landmarks (x_0 … y_67) to crop by")
    try:
        if run.program is None:
            check_length(faces, video, several=run.settings.people == "several")
        return peak_image(video, peak.index, None if faces.box is None else faces.box[peak.row], crop=crop)
    except OpenFaceError:
        raise
    except InputError as error:
        raise OpenFaceError("no_peak_image", f"frame {peak.frame}: the clip {error.reason}") from None


def _publish_picture(picture: Image.Image, scratch: Path, path: Path) -> None:
    """By way of the scratch folder: what a kill leaves of it is not found among the images."""
    unfinished = scratch / f"{uuid.uuid4().hex}{path.suffix}"
    write_image(unfinished, picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(unfinished, path)
