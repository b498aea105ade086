"""Clips: whether a file can be used, what happens to a sample whose clip cannot, and which of them have sound.

python -m data_prep.build_amt … --missing-media drop|text-only|error
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import av

from data_prep.readers.sample import Fault, Sample
from swift_plugins.files import InputError, atomic_open
from swift_plugins.frames import count_frames, read_frames, too_large
from swift_plugins.sound import has_sound

Thing = TypeVar("Thing")
Found = TypeVar("Found")
POLICIES = ("drop", "text-only", "error")
SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".m4v", ".webm", ".mpg", ".flv", ".wmv")
# The longest annotated clip of MOSEI lasts 110 s; MELD's clips of minutes are cut at the wrong place.
MAX_SECONDS = 120


class ClipFinder:
    """Finds the clips of a dataset's folder that were converted since: readers name the file as it was published.

    `ClipFinder(root).find("Raw/a/1.mp4")` is that path where the file is there, else `Raw/a/1.mkv`, `.avi`, `.MP4` …,
    the first of `SUFFIXES` with the same stem in the same folder, else the path as given. Folders are listed once.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        self._names: dict[Path, dict[str, str]] = {}

    def find(self, video: str) -> str:
        """The path of the clip relative to the root, with the suffix that it has there."""
        path = self.root / video
        if path.is_file():
            return video
        if path.parent not in self._names:
            self._names[path.parent] = self._by_stem(path.parent)
        name = self._names[path.parent].get(path.stem)
        return os.fspath(Path(video).with_name(name)) if name else video

    @staticmethod
    def _by_stem(folder: Path) -> dict[str, str]:
        """The best suffix's file name for each stem."""
        clips = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
        clips.sort(key=lambda path: SUFFIXES.index(path.suffix.lower()), reverse=True)
        return {path.stem: path.name for path in clips}


def probe(path: str | os.PathLike, any_length: bool = False) -> str | None:
    """Why the clip at `path` cannot be used, or None when it opens and its first frame decodes.

    A clip of more than `MAX_SECONDS` is refused unless `any_length`.
    """
    try:
        if os.path.getsize(path) == 0:
            return "is empty"
        with av.open(os.fspath(path), metadata_errors="replace") as container:
            if not container.streams.video:
                return "holds no video stream"
            if reason := too_large(container.streams.video[0]):
                return reason
            seconds = (container.duration or 0) / av.time_base
            if not any_length and seconds > MAX_SECONDS:
                return f"lasts {seconds:.0f} s, longer than any annotated clip ({MAX_SECONDS} s)"
            if next(container.decode(video=0), None) is None:
                return "holds no frame"
    except FileNotFoundError:
        return "is missing"
    except (av.FFmpegError, OSError, ValueError) as error:
        return f"cannot be decoded ({type(error).__name__})"
    return None


_probe = probe  # `resolve` has an option of that name


def resolve(
    samples: Iterable[Sample],
    root: str | os.PathLike,
    policy: str,
    faults: list[Fault],
    probe: bool = True,
    jobs: int | None = None,
    any_length: Collection[str] = (),
    needs_no_clip: Callable[[Sample], object] = lambda sample: False,
) -> Iterator[Sample]:
    """Yield the samples, in order, with what `policy` says about those whose clip cannot be used.

    `root` is the folder that `Sample.video` is relative to. `drop` leaves such a sample out, `text-only` keeps it
    with `video` None, `error` raises `InputError` for the first one; each is appended to `faults`. A sample that
    its reader gave no clip counts as well. Without `probe` only the existence of the file is looked at. A clip that is
    there with another suffix is found, and the sample names it. any_length: ids of samples whose clip may be longer
    than any annotated one. needs_no_clip: samples that are yielded as they are.
    """
    if policy not in POLICIES:
        raise InputError(f"the policy for missing media is one of {', '.join(POLICIES)}, not {policy!r}")
    root = Path(root)
    if policy != "text-only" and not root.is_dir():
        raise InputError("no such folder", root)

    finder = ClipFinder(root)
    samples = (replace(s, video=finder.find(s.video)) if s.video else s for s in samples)

    def reason(sample: Sample) -> str | None:
        if needs_no_clip(sample):
            return None
        if sample.video is None:
            return "there is none"
        if probe:
            return _probe(root / sample.video, sample.id in any_length)
        return None if (root / sample.video).is_file() else "is missing"

    for sample, why in looked_at(samples, reason, jobs):
        if why is None:
            yield sample
            continue
        clip = f"clip {sample.video} {why}" if sample.video else "no clip"
        if policy == "error":
            raise InputError(f"{sample.id}: {clip}", root)
        kind = "no_clip" if not sample.video else "missing_clip" if why == "is missing" else "broken_clip"
        done = "sample dropped" if policy == "drop" else "kept as text only"
        faults.append(Fault(kind, sample.id, f"{clip}; {done}"))
        if policy == "text-only":
            yield replace(sample, video=None)


def sounding(
    samples: Iterable[Sample], root: str | os.PathLike, faults: list[Fault], jobs: int | None = None
) -> Iterator[tuple[Sample, bool]]:
    """Each sample with whether its clip, relative to `root`, has a sound track.

    A clip that is not there or cannot be opened has none, which is appended to `faults`: `resolve` let it pass, since
    its rows show a picture in its place or since it was told not to look.
    """

    def heard(sample: Sample) -> bool | str:
        try:
            return has_sound(Path(root) / sample.video) if sample.video else False
        except InputError as error:
            return error.reason

    for sample, found in looked_at(samples, heard, jobs):
        if isinstance(found, str):
            faults.append(Fault("sound_unknown", sample.id, f"clip {sample.video} {found}; rows without sound"))
        yield sample, found is True


def cut_frame(root: str | os.PathLike, sample: Sample, peak: int | None = None) -> Path:
    """The picture of a clip under root/frames/: its frame `peak`, from 0, else the middle one; cut where it is not yet.

    The file's name holds the frame's number, so that another peak is another file. Raises `InputError` for a clip that
    cannot be decoded and a peak that it does not have.
    """
    assert sample.video
    clip = Path(sample.video)
    path = Path(root) / "frames" / clip.parent / f"{clip.stem}.{'middle' if peak is None else peak}.jpg"
    if not path.is_file():
        source = Path(root) / clip
        picture = read_frames(source, [count_frames(source) // 2 if peak is None else peak])[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_open(path, "wb") as file:
            picture.save(file, "JPEG", quality=95)
    return path


def looked_at(
    things: Iterable[Thing], look: Callable[[Thing], Found], jobs: int | None
) -> Iterator[tuple[Thing, Found]]:
    """Things, in order, with what threads find in each."""
    things = iter(things)
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:  # FFmpeg decodes outside the interpreter lock
        while batch := list(islice(things, 256)):
            yield from zip(batch, pool.map(look, batch), strict=True)
