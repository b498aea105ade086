"""One clip of a user's own, looked at as the pipeline looks at a dataset's: frames, peak frame, Action Units."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
from PIL import Image

from data_prep.fer.au_table import BLINK, INTENSITIES, read_faces
from data_prep.fer.facs import active_aus, load_facs
from data_prep.fer.openface import extract, find_program
from data_prep.fer.peaks import check_length, find_peak, peak_image, summed_aus, write_image
from data_prep.readers.media import SUFFIXES, probe
from data_prep.readers.tables import transcript as cleaned
from swift_plugins.files import InputError
from swift_plugins.frames import PICTURES, count_frames, jpeg, read_picture, sample_frames

LONGEST = 120  # seconds; the model sees 8 frames of a clip, whatever its length
LONGEST_TEXT = 5_000  # characters; the longest transcript of the datasets has 1,300


@dataclass(frozen=True)
class Clip:
    """What is asked about: a video or a picture, and what is said in it."""

    path: Path
    text: str
    csv: Path | None = None  # Action Units, as OpenFace or a tool of configs/au_columns.yaml wrote them

    @property
    def is_picture(self) -> bool:
        return self.path.suffix.lower() in PICTURES


@dataclass(frozen=True)
class Look:
    """What was seen before a model was asked.

    frames, seconds: of the video; 1 and None for a picture. pictures: the frames that the model is shown. peak: the
    picture of equation 2's frame (448x448), None without Action Units; frame: its number as in the CSV; aus: its
    intensities, `AU12` → 0 to 5; active: the phrases of the AUs that are present.
    """

    frames: int
    seconds: float | None
    pictures: list[Image.Image]
    peak: Path | None = None
    frame: int | None = None
    aus: dict[str, float] | None = None
    active: tuple[str, ...] = ()

    def as_json(self) -> dict | None:
        """What a record says of the peak frame."""
        return None if self.peak is None else {"frame": self.frame, "aus": self.aus, "phrases": [*self.active]}

    def shown(self) -> list[tuple[str, bytes]]:
        """Names and JPEGs, 224 pixels high, of what the model is shown."""
        named = [(f"frame {number}", picture) for number, picture in enumerate(self.pictures, 1)]
        if self.peak is not None:
            named.insert(0, ("peak", Image.open(self.peak).convert("RGB")))
        return [(name, jpeg(picture, 224)) for name, picture in named]


def find_clips(paths: Sequence[Path]) -> Iterator[Path]:
    """Files as they are, and of folders every video and picture, in order of name; each once."""
    seen = set()
    for path in paths:
        if not path.exists():
            raise InputError("no such file or folder", path)
        inside = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in (*SUFFIXES, *PICTURES))
        found = [file for file in inside if file.is_file()] if path.is_dir() else [path]
        if not found:
            raise InputError("holds neither a video nor a picture", path)
        for file in found:
            if (place := file.resolve()) not in seen:
                seen.add(place)
                yield file


def transcript(text: str, where: str) -> str:
    """A transcript as the readers clean it: media tags disarmed, repaired; `InputError` for one that is too long."""
    if len(text) > LONGEST_TEXT:
        raise InputError(f"the transcript has {len(text):,} characters; a clip's has at most {LONGEST_TEXT:,}", where)
    return cleaned(text, where, [])


def transcript_file(path: Path) -> str:
    """The transcript that a text file holds."""
    try:
        with path.open("rb") as file:
            content = file.read(8 * LONGEST_TEXT + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from None
    if len(content) > 8 * LONGEST_TEXT:
        raise InputError(
            f"has {path.stat().st_size:,} bytes; a clip's transcript has {LONGEST_TEXT:,} characters", path
        )
    try:
        return transcript(content.decode("utf-8").strip(), str(path))
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text", path) from None


def look(clip: Clip, scratch: Path, openface: Path | None = None, frames: int = 8) -> Look:
    """Open a clip; with its CSV or the OpenFace programs find its peak frame, whose picture goes into `scratch`.

    Raises `InputError`, in words for the user, for whatever cannot be shown to a model, and `OpenFaceError` where
    Action Units were asked for and there are none.
    """
    if clip.is_picture:
        return Look(1, None, [read_picture(clip.path)])
    why = probe(clip.path, any_length=True)
    if why is not None:
        raise InputError(f"{why}; expected a video or a picture", clip.path)
    seconds = _seconds(clip.path)
    if seconds > LONGEST:
        long = f"lasts {seconds:,.0f} s" if seconds < math.inf else "is longer than a clip may be"
        raise InputError(f"{long}; cut the utterance out of it (at most {LONGEST} s)", clip.path)
    seen = Look(count_frames(clip.path), round(seconds, 3), sample_frames(clip.path, frames))
    if clip.csv is None and openface is None:
        return seen
    if clip.csv is not None:
        faces = read_faces(clip.csv)
        check_length(faces, clip.path, several=len(set(faces.face_id)) > 1)
    else:
        faces = extract(clip.path, scratch / "openface.csv", find_program(openface), scratch)
    facs = load_facs()
    peak = find_peak(faces, summed_aus("no_blink", facs))
    path = scratch / "peak.png"
    write_image(path, peak_image(clip.path, peak.index))
    row = faces.intensity[peak.row]
    aus = {au: round(float(row[place]), 2) for place, au in enumerate(INTENSITIES) if au != BLINK}
    active = tuple(facs.aus[au].phrases[0] for au in active_aus(faces, peak.row, facs))
    return replace(seen, peak=path, frame=peak.frame, aus=aus, active=active)


def _seconds(path: Path) -> float:
    """How long a video lasts; where its container does not say (what a browser has recorded), by its packets, which
    are read up to `LONGEST` only: infinite beyond."""
    with av.open(os.fspath(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        if container.duration:
            return container.duration / av.time_base
        last = 0.0
        for packet in container.demux(stream):
            if packet.pts is not None:
                last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if last > LONGEST:
                return math.inf
        return last
