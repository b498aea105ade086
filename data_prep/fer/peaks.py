"""The most expressive frame of a clip: equations 1 and 2 of the paper, over the faces of an OpenFace CSV."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.fer.au_table import BLINK, INTENSITIES, PRESENCES, Faces, OpenFaceError
from data_prep.fer.facs import Facs
from swift_plugins.files import InputError, atomic_open
from swift_plugins.frames import count_frames, read_frames

SIDE = 448  # pixels: one tile of InternVL2, so that a peak image costs the same few tokens whatever the clip's size
# OpenFace writes two decimals and other tools up to six: sums of millionths are exact, and so are ties.
MILLIONTHS = 1_000_000


@dataclass(frozen=True)
class Peak:
    """A peak frame. `frame`: its number in the CSV; `index`: counted from 0; `row`: its place in `Faces`.

    `score` is that of equation 1; `judged` (millionths) is what frames were compared by, see `hold`.
    """

    frame: int
    index: int
    face_id: int
    score: float
    row: int
    judged: int


def read_choice(words: Sequence[str]) -> str | tuple[str, ...]:
    """What `--aus` says: `no_blink`, `all` or a label, or a list of AUs (`AU01 AU06` or `AU01,AU06`)."""
    parts = tuple(part for word in words for part in word.split(",") if part)
    return parts[0] if len(parts) == 1 and parts[0] not in PRESENCES else parts


def named_aus(choice: str | Sequence[str]) -> tuple[str, ...] | None:
    """The AUs that the user names one by one, ordered by number; None for `no_blink`, `all` or a label.

    Raises `InputError` for a name that is no AU.
    """
    if isinstance(choice, str):
        return None
    if unknown := [au for au in choice if au not in PRESENCES]:
        raise InputError(f"--aus: {unknown[0]} is none of {', '.join(PRESENCES)}")
    return tuple(au for au in PRESENCES if au in choice)


def summed_aus(choice: str | Sequence[str], facs: Facs) -> tuple[str, ...]:
    """The AUs that equation 1 sums: `all` 17, `no_blink` (all but AU45), those of an emotion, or those of a list.

    A label without a set (neutral) sums as `no_blink`, AU28 has no intensity to sum. Raises `InputError` for an
    unknown label or AU, and where none has an intensity.
    """
    if choice == "all":
        return INTENSITIES
    members = named_aus(choice) or (None if choice == "no_blink" else facs.au_set(choice))
    if members is None:
        return tuple(au for au in INTENSITIES if au != BLINK)
    chosen = tuple(au for au in INTENSITIES if au in members)
    if not chosen:
        raise InputError(f"no AU of {choice if isinstance(choice, str) else ' '.join(choice)} has an intensity to sum")
    return chosen


def frame_scores(faces: Faces, aus: Collection[str]) -> np.ndarray:
    """Equation 1 for every row: the sum of the intensities of `aus`, int64 [n] in millionths.

    AUs that the file's tool does not know are left out. Raises `OpenFaceError` when OpenFace should have written one
    of the columns, for a sum without it would be another sum, and when the tool knows none.
    """
    known = [au for au in aus if f"{au}_r" not in faces.unknown]
    faces.require([f"{au}_r" for au in known or aus])
    chosen = [INTENSITIES.index(au) for au in known]
    return np.rint(faces.intensity[:, chosen] * MILLIONTHS).astype(np.int64).sum(1)


def find_peaks(faces: Faces, aus: Collection[str], hold: int = 1) -> list[Peak]:
    """Equation 1's best frame of every person, ordered by face number; ties go to the first frame.

    `hold` > 1 judges a frame by the lowest score among the `hold` consecutive frames of the same face around it, so
    that a one-frame spike of a tracker that jumped is passed over; the score reported stays that of equation 1.
    Raises `OpenFaceError` ("no_face") when there is nothing to choose from.
    """
    scores = frame_scores(faces, aus)
    if not len(scores):
        raise OpenFaceError("no_face", "no frame with a face (success 1 and confidence high enough)")
    judged = scores if hold == 1 else _held(scores, faces, hold)
    order = np.lexsort((faces.frame, -judged, faces.face_id))
    first = order[np.unique(faces.face_id[order], return_index=True)[1]]
    first = first[judged[first] >= 0]
    if not len(first):
        raise OpenFaceError("no_face", f"no face is seen for {hold} frames in a row")
    return [
        Peak(
            frame=int(faces.frame[row]),
            index=int(faces.index[row]),
            face_id=int(faces.face_id[row]),
            score=int(scores[row]) / MILLIONTHS,
            row=int(row),
            judged=int(judged[row]),
        )
        for row in first
    ]


def find_peak(faces: Faces, aus: Collection[str], hold: int = 1) -> Peak:
    """Equation 2: the best of all people's peaks; ties go to the first frame, then to the lower face number."""
    return min(find_peaks(faces, aus, hold), key=lambda peak: (-peak.judged, peak.frame, peak.face_id))


def _held(scores: np.ndarray, faces: Faces, hold: int) -> np.ndarray:
    """Lowest score in the window of `hold` consecutive frames around each row; -1 where the face is not there."""
    order = np.lexsort((faces.frame, faces.face_id))
    face, frame, ordered = faces.face_id[order], faces.frame[order], scores[order]
    held = np.full(len(scores), -1, dtype=np.int64)
    starts = np.arange(len(scores) - hold + 1)
    ends = starts + hold - 1
    whole = starts[(face[starts] == face[ends]) & (frame[ends] - frame[starts] == hold - 1)] if len(starts) else starts
    if len(whole):
        lowest = np.lib.stride_tricks.sliding_window_view(ordered, hold)[whole].min(1)
        held[order[whole + (hold - 1) // 2]] = lowest
    return held


def check_length(faces: Faces, video: str | os.PathLike, several: bool = False) -> None:
    """Raise `OpenFaceError` ("other_clip") where the CSV's frames cannot be those of the clip.

    A frame beyond the clip's end is never right. FeatureExtraction writes a row for every frame, so its rows are as
    many as the clip's frames; `several` says that FaceLandmarkVidMulti wrote the file, which has no row for a frame
    without a face. 3 frames, or 2 % of a long clip, may differ: decoders drop frames that are cut off at the end.
    A sequence of images made from the clip (timestamps all 0) counts alike, or its indices would be of other frames.
    Raises `InputError` where the clip's frames cannot be counted.
    """
    frames = count_frames(video)
    tolerance = max(3, frames // 50)
    if faces.last >= frames + tolerance:
        raise OpenFaceError("other_clip", f"the CSV goes to frame {faces.last + 1}, the clip has {frames}")
    if faces.every_frame and not several and faces.rows < frames - tolerance:
        reason = f"the CSV has {faces.rows} rows, the clip {frames} frames (--people several: by FaceLandmarkVidMulti)"
        raise OpenFaceError("other_clip", reason)


def peak_image(
    video: str | os.PathLike, index: int, box: np.ndarray | None = None, *, crop: bool = False
) -> Image.Image:
    """Frame number `index` (from 0, over the decoded frames) as an RGB image of 448x448 pixels.

    The whole frame is scaled to the square as InternVL2 does with a single tile; with `crop`, a square around one
    person's head: that of `box` (left, top, right, bottom of the landmarks, pixels of the upright picture). Frames are
    counted, never addressed by time, so a variable frame rate changes nothing. `info["dpi"]` keeps the true
    proportions: it says how much the scaling squeezed each side; `info["face"]` is the box of a whole frame in parts
    of its sides. Raises `InputError` where the clip has no such frame, and `OpenFaceError` ("other_clip") for a box
    outside the picture that is to be cropped.
    """
    image = read_frames(video, [index])[0]
    face = None
    if box is not None and not crop:
        face = [round(float(part), 3) for part in box / np.tile(image.size, 2)]
    if box is not None and crop:
        left, top, right, bottom = (float(value) for value in box)
        # Landmarks end at the eyebrows: the head needs about half a face more, most of it above.
        half = 0.8 * max(right - left, bottom - top)
        x, y = (left + right) / 2, (top + bottom) / 2 - 0.1 * (bottom - top)
        if not (0 <= x <= image.width and 0 <= (top + bottom) / 2 <= image.height):
            reason = f"the landmarks lie outside the upright picture of {image.width}x{image.height} pixels"
            raise OpenFaceError("other_clip", f"{reason}: of another clip, or of this one lying on its side")
        image = image.crop(tuple(round(value) for value in (x - half, y - half, x + half, y + half)))
    squeeze = SIDE / image.width, SIDE / image.height
    image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    image.info["dpi"] = tuple(72 * side / max(squeeze) for side in squeeze)
    image.info["face"] = face
    return image


def write_image(path: str | os.PathLike, image: Image.Image) -> None:
    """Write a PNG or JPEG, by the suffix of `path`, atomically."""
    dpi = image.info.get("dpi", (72, 72))
    with atomic_open(path, "wb") as file:
        if Path(path).suffix.lower() == ".png":
            image.save(file, "PNG", compress_level=1, dpi=dpi)
        else:
            image.save(file, "JPEG", quality=95, dpi=tuple(round(side) for side in dpi))
