"""Run a frozen encoder of Emotion-LLaMA once over every clip that rows name, and keep its features, a file a clip.

    python -m data_prep.features --encoder hubert --model chinese-hubert-large --rows amt --out features
    … --encoder whisper|videomae|eva_video --model DIR …           # sound of 30 s; 16 frames; EVA-CLIP-g over 16 frames
    … --encoder face --model DIR --faces OPENFACE …                # any ViT-MAE over OPENFACE/<clip>/*.bmp, .png, .jpg
    … --backend ray          # decoding on the Ray cluster that RAY_ADDRESS (or this machine) names

Rows are folders of AMT rows or files of them. OUT/<encoder>/<clip>.npy is float32, manifest.json beside it says what of
which weights it is, report.json which clips have none and why. The template reads them (AMT_FEATURES=OUT) and takes
zeros where a clip has none.

The same command goes on after a kill, to the same bytes: a file is there whole or not at all. With one clip at a time
(--batch 1, what a CPU gets by itself) a feature depends on its clip alone. With more, clips are grouped in the order of
the rows, whichever are done already, and a group is encoded together again. A clip without sound is counted and has no
file, one that cannot be decoded is named, and the status is then 1.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
import numpy as np

from data_prep.features.tower import DTYPES, chosen_device, on_device
from data_prep.jobs import workers
from data_prep.readers import SPLITS
from swift_plugins import TRAINING, need
from swift_plugins.build_report import media_root
from swift_plugins.files import InputError, described, read_rows, write_json
from swift_plugins.journal import Journal
from swift_plugins.options import option, parse
from swift_plugins.progress import progress
from swift_plugins.rows import check_row

if TYPE_CHECKING:
    from swift_plugins.emotion_llama.encoders import Encoder

NAMES = ("hubert", "videomae", "whisper", "eva_video", "face")
JOURNAL = "clips.jsonl"  # of which clip each file is
ON_GPU = 8  # clips at a time
HEADER = 4096  # bytes of a file beside its numbers, rounded up by the file system


@dataclass(frozen=True)
class Options:
    """The command line of `python -m data_prep.features --encoder …`."""

    encoder: str = option(choices=NAMES, help="which; it also names the folder below OUT")
    model: Path = option(metavar="DIR", help="its folder in transformers' layout, safetensors")
    rows: tuple[Path, ...] = option(metavar="PATH", help="folders of AMT rows, or files of rows")
    out: Path = option(metavar="DIR", help="where the features go; AMT_FEATURES then names it")
    faces: Path | None = option(None, metavar="DIR", help="face: DIR/<clip>/ or DIR/<clip>_aligned/ holds its pictures")
    frame_rule: str = option(
        "whole",
        choices=("whole", "window"),
        help="eva_video: 16 frames over the whole clip, or the published code's random window of half a second (whole)",
    )
    parts: int = option(1, metavar="N", help="parts of a clip's path that name its file: 1, its name; 2, folder/name …")
    batch: int | None = option(None, metavar="N", help=f"clips that the encoder gets at a time ({ON_GPU}; on a CPU 1)")
    jobs: int = option(-1, metavar="N", help="processes that decode (all cores; 0: this one)")
    backend: str = option("loky", choices=("loky", "ray"), help="this machine, or an existing Ray cluster")
    dtype: str = option("float32", choices=DTYPES, help="what the encoder computes in (float32)")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1 …")


class Row(NamedTuple):
    """The media of a row, whole paths."""

    videos: list[str]
    audios: list[str]


@dataclass(frozen=True)
class Clip:
    """A clip of the rows, the key of its feature, and what is read: the clip itself, or a folder of its face."""

    key: str
    path: str
    source: Path


@dataclass(frozen=True)
class Lost:
    """Why a clip has no feature: `no_sound`, `no_faces` or `failed`."""

    kind: str
    reason: str


def main(argv: list[str] | None = None) -> int:
    """Read the rows, encode what is not there, report; 1 where a clip could not be read."""
    options = parse(Options, __doc__, "python -m data_prep.features", argv)
    if options.parts < 1 or options.jobs < -1 or (options.batch is not None and options.batch < 1):
        raise InputError("--parts and --batch are 1 or more, --jobs is -1 or more")
    if (options.encoder == "face") != (options.faces is not None):
        raise InputError("--faces DIR belongs to --encoder face, which needs it")
    # A worker of a cluster stands in another folder.
    options = replace(options, out=options.out.absolute(), faces=options.faces and options.faces.absolute())
    need(*TRAINING[:2])
    rows = read_media(options.rows)
    clips = named_clips(rows, options.encoder, options.parts, options.faces)
    encoder = _encoder(options)
    folder = options.out / options.encoder
    with Journal(folder / JOURNAL, resume=True) as journal:
        _begin(folder, encoder, options.parts)
        lost = prepare(clips, encoder, journal, options)
        report = _report(rows, clips, lost, journal, options)
    write_json(folder / "report.json", report)
    _summarise(report, options)
    return int(bool(report["failed"]))


# ---- what is to be encoded ----


def read_media(paths: Sequence[Path]) -> list[Row]:
    """The media of all rows; `InputError` for a path without rows and for media that are no lists of texts."""
    files: list[tuple[Path, Path]] = []
    for path in paths:
        found = (
            [file for split in SPLITS for file in sorted(path.glob(f"*.*.{split}.jsonl"))] if path.is_dir() else [path]
        )
        if not found:
            raise InputError("holds no rows (<dataset>.<task>.<split>.jsonl)", path)
        files += [(file, media_root(path if path.is_dir() else path.parent)) for file in found]
    rows = []
    for file, root in files:
        for number, row in read_rows(file):
            check_row(row, file, number)
            media = []
            for key in ("videos", "audios"):
                names = row.get(key) or []
                if not isinstance(names, list) or not all(isinstance(name, str) and "\0" not in name for name in names):
                    raise InputError(f"{key} is not a list of paths", file, number)
                media.append([os.path.abspath(root / name) for name in names])
            rows.append(Row(*media))
    return rows


def named_clips(rows: Sequence[Row], stream: str, parts: int, faces: Path | None = None) -> list[Clip]:
    """The distinct clips of rows that a stream is of, in their order; `InputError` for two of the same key."""
    from swift_plugins.emotion_llama.streams import clip_of, stream_key

    found: dict[str, Clip] = {}
    for row in rows:
        if (path := clip_of(stream, row.videos, row.audios)) is not None:
            key = stream_key(path, parts)
            clip = Clip(key, path, _faces(faces, key) if faces else Path(path))
            if (other := found.setdefault(clip.key, clip)).path != path:
                raise _same_key(other.path, path, clip.key)
    if not found:
        raise InputError(f"none of {len(rows):,} rows names a file that {stream} could read")
    return [*found.values()]


def _faces(folder: Path, key: str) -> Path:
    """Where the pictures of a clip's face are, or would be; OpenFace adds `_aligned` to a clip's name."""
    places = [folder / key, folder / f"{key}_aligned"]
    return next((place for place in places if place.is_dir()), places[0])


def _same_key(one: str, other: str, key: str) -> InputError:
    ends = zip(Path(one).with_suffix("").parts[::-1], Path(other).with_suffix("").parts[::-1], strict=False)
    alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))
    told = (
        f"--parts {alike + 1} tells them apart"
        if os.path.splitext(one)[0] != os.path.splitext(other)[0]
        else ("they differ in the suffix alone: give each an --out of its own")
    )
    return InputError(f"and {other} would both be {key}.npy: {told}", one)


def _encoder(options: Options) -> Encoder:
    import torch
    from transformers.utils import logging

    from swift_plugins.emotion_llama import encoders

    logging.set_verbosity_error()
    device = chosen_device(options.device)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
    encoder = encoders.load(options.encoder, options.model, getattr(torch, options.dtype), options.frame_rule)
    on_device(encoder.model, device)
    return encoder


def _begin(folder: Path, encoder: Encoder, parts: int) -> None:
    """Note what the folder is for. Raises `InputError` where it is for something else already."""
    from swift_plugins.emotion_llama.streams import MANIFEST, Manifest, read_manifest

    manifest = Manifest(
        encoder=encoder.name,
        model=str(encoder.folder.resolve()),
        digest=encoder.digest,
        rule=encoder.rule,
        shape=[*encoder.shape],
        dtype="float32",
        computed_in=str(encoder.dtype).removeprefix("torch."),
        parts=parts,
    )
    made = read_manifest(folder.parent, encoder.name)
    if made is None:
        write_json(folder / MANIFEST, manifest.model_dump())
        return
    for name in ("computed_in", "rule", "shape", "parts", "digest"):
        if getattr(made, name) != getattr(manifest, name):
            what = "other weights" if name == "digest" else f"{name} {getattr(made, name)!r}"
            raise InputError(f"holds features of another kind ({what}, of {made.model}): give another --out", folder)


# ---- the run ----


def prepare(clips: Sequence[Clip], encoder: Encoder, journal: Journal, options: Options) -> dict[str, Lost]:
    """Encode every clip that has no feature; what has none at the end, by key."""
    folder = options.out / options.encoder
    done = _noted(journal)
    # Their states before they are read: one that is replaced meanwhile is read again by the next run.
    missing = {clip.key: _state(clip) for clip in clips if not _is_done(clip, done.get(clip.key), folder)}
    groups = [
        group for group in _batched(clips, group_size(options, encoder)) if any(clip.key in missing for clip in group)
    ]
    needed = len(missing) * (math.prod(encoder.shape) * 4 + HEADER)
    if needed > (free := shutil.disk_usage(folder).free):
        raise InputError(f"the disk is too small: {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} free", folder)
    part = folder / ".part.npy"  # one writer: no search for what others left, among thousands of files each time
    lost: dict[str, Lost] = {}
    with progress(total=len(missing), unit="clip", desc=options.encoder) as bar:
        try:
            for group, readings in decoded(groups, encoder, options):
                for clip, made in zip(group, encoded(group, readings, encoder), strict=True):
                    if clip.key not in missing:
                        continue
                    path = folder / f"{clip.key}.npy"
                    if isinstance(made, Lost):
                        lost[clip.key] = made
                        path.unlink(missing_ok=True)  # of another clip that had this name
                        if made.kind == "failed":
                            bar.write(f"error: {made.reason}", file=sys.stderr)
                    else:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        np.save(part, made.value, allow_pickle=False)
                        os.replace(part, path)
                        journal.append({"key": clip.key, "clip": clip.path, **missing[clip.key], "note": made.note})
                    bar.update()
        except BrokenProcessPool:
            reason = "a process that decodes was killed (out of memory?); the same command goes on, with fewer --jobs"
            raise InputError(reason) from None
        except OSError as error:
            raise InputError(f"{described(error)}; the same command goes on where this one ends", folder) from None
        finally:
            part.unlink(missing_ok=True)
    return lost


def group_size(options: Options, encoder: Encoder) -> int:
    """How many clips the encoder gets at a time."""
    return options.batch or (1 if encoder.device.type == "cpu" else ON_GPU)


def decoded(
    groups: Sequence[Sequence[Clip]], encoder: Encoder, options: Options
) -> Iterator[tuple[Sequence[Clip], list[Any]]]:
    """Each group with what was read of its clips, in order; others are read while the caller works on one."""
    if not groups or (not options.jobs and options.backend == "loky"):
        for group in groups:
            yield group, [read_clip(encoder, clip) for clip in group]
        return
    jobs = options.jobs or -1
    if options.backend == "loky":
        cores = len(os.sched_getaffinity(0))
        jobs = min(sum(map(len, groups)), cores if jobs < 0 else jobs)
    task = joblib.delayed(read_clip)
    with workers(jobs, options.backend) as parallel, ThreadPoolExecutor(1) as ahead:
        at_once = max(1, 2 * _count(jobs) // max(map(len, groups)))
        waiting: list[tuple[Sequence[Sequence[Clip]], Future]] = []
        for chunk in [*_batched(groups, at_once), ()]:
            if chunk:
                tasks = [task(encoder, clip) for group in chunk for clip in group]
                waiting.append((chunk, ahead.submit(parallel, tasks)))
            if len(waiting) > 1 or not chunk:
                before, reading = waiting.pop(0)
                results = iter(reading.result())
                for group in before:
                    yield group, [*itertools.islice(results, len(group))]


def _count(jobs: int) -> int:
    """How many processes `jobs` are; -1 is all of a cluster here."""
    if jobs > 0:
        return jobs
    import ray

    return int(ray.cluster_resources()["CPU"])


def _batched(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def read_clip(encoder: Encoder, clip: Clip) -> Any:
    """What the encoder reads of a clip, a `Reading`, or a `Lost`."""
    from swift_plugins.sound import NoSound

    if encoder.name == "face" and not clip.source.is_dir():
        return Lost("no_faces", f"{clip.source}: no such folder of pictures")
    try:
        return encoder.read(clip.source)
    except NoSound as error:
        return Lost("no_sound", str(error))
    except InputError as error:
        return Lost("failed", str(error))
    except OSError as error:
        return Lost("failed", described(error))


def encoded(clips: Sequence[Clip], readings: Sequence[Any], encoder: Encoder) -> list[Any]:
    """The readings with features in their place; what is lost stays, and a feature that is not finite is lost."""
    import torch

    whole = [reading for reading in readings if not isinstance(reading, Lost)]
    try:
        features = iter(encoder.encode([reading.value for reading in whole]) if whole else ())
    except torch.OutOfMemoryError:
        raise InputError("the device has too little memory: a smaller --batch, or --dtype bfloat16") from None
    made = []
    for clip, reading in zip(clips, readings, strict=True):
        if not isinstance(reading, Lost):
            feature = np.ascontiguousarray(next(features), dtype=np.float32)
            finite = np.isfinite(feature).all()
            reason = f"{clip.source}: its feature is not finite in {str(encoder.dtype).removeprefix('torch.')}"
            reading = reading._replace(value=feature) if finite else Lost("failed", reason)
        made.append(reading)
    return made


def _noted(journal: Journal) -> dict[str, dict]:
    """What each file is of, by key."""
    lines = (line for _, _, line in journal.records())
    return {line["key"]: line for line in lines if isinstance(line.get("key"), str)}


def _state(clip: Clip) -> dict[str, int]:
    try:
        status = os.stat(clip.source)
    except OSError:
        return {}
    return {"bytes": status.st_size, "modified": status.st_mtime_ns}


def _is_done(clip: Clip, noted: dict | None, folder: Path) -> bool:
    """Whether the file of a clip's key is its own; `InputError` where it is another clip's that is still there."""
    if noted is None or not (folder / f"{clip.key}.npy").is_file():
        return False
    state = _state(clip)
    if noted.get("clip") == clip.path:
        return not state or all(noted.get(name) == value for name, value in state.items())
    before = str(noted.get("clip"))
    if os.path.exists(before) and not (state and os.path.samefile(before, clip.path)):
        raise _same_key(before, clip.path, clip.key)
    return noted.get("bytes") == state.get("bytes")  # moved: a copy keeps no times


# ---- the report ----


def _report(
    rows: Sequence[Row], clips: Sequence[Clip], lost: dict[str, Lost], journal: Journal, options: Options
) -> dict[str, Any]:
    from swift_plugins.emotion_llama.streams import clip_of, read_manifest, stream_key

    noted = _noted(journal)
    notes = Counter(noted.get(clip.key, {}).get("note") for clip in clips if clip.key not in lost)
    streams = {}
    for name in NAMES:
        if manifest := read_manifest(options.out, name):
            have: dict[str | None, bool] = {None: False}
            for row in rows:
                if (path := clip_of(name, row.videos, row.audios)) not in have:
                    have[path] = (options.out / name / f"{stream_key(path, manifest.parts)}.npy").is_file()
            streams[name] = sum(have[clip_of(name, row.videos, row.audios)] for row in rows)
    by_kind = {
        kind: {clip.path: lost[clip.key].reason for clip in clips if clip.key in lost and lost[clip.key].kind == kind}
        for kind in ("failed", "no_sound", "no_faces")
    }
    return {
        "rows": len(rows),
        "rows_with": streams,
        "clips": len(clips),
        "padded_to_a_window": notes["padded"],
        "cut_at_the_window": notes["cut"],
        **by_kind,
    }


def _summarise(report: dict[str, Any], options: Options) -> None:
    lost = {kind: report[kind] for kind in ("failed", "no_sound", "no_faces")}
    have = report["clips"] - sum(map(len, lost.values()))
    print(f"{have:,} of {report['clips']:,} clips have features of {options.encoder}: AMT_FEATURES={options.out}")
    said = {"no_sound": "without sound", "no_faces": "without pictures of faces", "failed": "that cannot be read"}
    for kind, words in said.items():
        if paths := [*lost[kind]]:
            print(f"{len(paths):,} {words} (zeros in training): {', '.join(paths[:3])}{', …' if paths[3:] else ''}")
    if report["padded_to_a_window"]:
        print(f"{report['padded_to_a_window']:,} shorter than one window of the encoder, zeros at their end")
    if report["cut_at_the_window"]:
        print(f"{report['cut_at_the_window']:,} longer than the encoder's window, which heard their beginning")
    streams = ", ".join(f"{name} {count:,}" for name, count in report["rows_with"].items())
    print(f"of {report['rows']:,} rows have features: {streams}")
