"""FER data: run OpenFace over a dataset, find every clip's peak frame, and put its Action Units into words.

    python -m data_prep.fer --dataset mosei --root DIR --openface DIR --out OUT --split train dev test
    python -m data_prep.fer --dataset meld --root DIR --csv DIR --out OUT --resume     # CSV files that exist already
    … --backend ray          # on the Ray cluster that RAY_ADDRESS (or this machine) names, OUT on a shared disk
    … --resume --plot ID … --contact-sheet                              # pictures of a run, finished or not

OUT gets fer.jsonl (one record per clip with a face, in the order of the dataset), peaks/ (448x448 images of the peak
frames), openface/ (the CSV files, where OpenFace was called) and fer_report.json (what became of every other clip).
`build_amt` reads fer.jsonl from the dataset's folder or from --fer FILE.

A caption says how a face moved, not what a person feels: AU-to-emotion rules are weak evidence.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import random
import shlex
import shutil
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import joblib

from data_prep.fer.au_table import OpenFaceError
from data_prep.fer.clips import FerClip, find_clips
from data_prep.fer.facs import FACS, load_facs
from data_prep.fer.openface import find_program
from data_prep.fer.peaks import read_choice
from data_prep.fer.publish import plot_clips, publish, summarise, write_contact_sheets
from data_prep.fer.record import Done, FerRun, RecordSettings, make_record
from data_prep.jobs import workers
from data_prep.readers import READERS, SPLITS, own, published
from swift_plugins.declared import DATASETS
from swift_plugins.files import InputError, hold, read_json, validated, write_json
from swift_plugins.journal import Journal
from swift_plugins.options import option, parse
from swift_plugins.progress import progress

ONE_SPEAKER = ("mosei",)  # a MOSEI clip shows its one speaker; scenes of other datasets show several people
# Faults that say nothing about the clip: --resume tries it again. After any other it does so when a file has changed.
CURABLE = ("crash", "timeout", "models_missing", "missing_au_column")
FIRST = 8  # clips that are tried before all others: where one fault hits every one of them, the rest is left alone


@dataclass(frozen=True)
class FerOptions:
    """The command line of `python -m data_prep.fer`."""

    dataset: str = option(
        help="whose reader finds clips and labels; of your own (docs/own-data.md): its file or its name"
    )
    out: Path = option(help="output folder; on a shared disk with --backend ray")
    root: Path | None = option(None, help="folder of the dataset (annotations and clips); your own file may name it")
    openface: Path | None = option(None, metavar="DIR", help="folder of OpenFace's programs ($OPENFACE_DIR)")
    csv: Path | None = option(None, metavar="DIR", help="CSV files that exist already, named like the clips")
    split: tuple[str, ...] = option(("train",), choices=SPLITS, help="one or more (train)")
    jobs: int = option(-1, help="processes (all cores)")
    backend: str = option("loky", choices=("loky", "ray"), help="this machine, or an existing Ray cluster")
    resume: bool = option(False, help="go on with the run that OUT holds; finished clips are kept")
    people: str | None = option(
        None, choices=("one", "several"), help="FeatureExtraction or FaceLandmarkVidMulti (one for MOSEI, else several)"
    )
    aus: tuple[str, ...] = option(
        ("no_blink",),
        metavar="no_blink|all|label|AU",
        help="AUs summed per frame (no_blink); AU01 AU06 …: these alone",
    )
    hold: int = option(1, metavar="N", help="the peak must hold for N frames (1)")
    confidence: float | None = option(None, help="lowest tracking confidence of a frame (0.8, from the FACS table)")
    facs: Path = option(FACS, help="FACS table (configs/facs.yaml)")
    without_common: str = option(
        "leave-out",
        choices=("leave-out", "active"),
        help="a clip none of whose AUs belong to its emotion gets no caption, or one of all its active AUs",
    )
    seed: int = option(0, help="seed of the choice among an AU's phrases (0)")
    image: str = option("png", choices=("png", "jpg"), help="format of the peak images (png)")
    crop: bool = option(False, help="peak images of the person, not of the whole frame")
    openface_args: str = option("", metavar="STR", help='further arguments of the program, as in "-mloc FILE"')
    timeout: float = option(600.0, metavar="S", help="seconds that the program gets per clip (600)")
    plot: tuple[str, ...] = option((), metavar="ID", help="plot these clips into OUT/plots")
    contact_sheet: bool = option(False, help="pages of peak frames by emotion into OUT/contact_sheets")


def main(argv: list[str] | None = None) -> None:
    """Find the clips, make what is not done yet, publish the records and print the report."""
    options = _checked(parse(FerOptions, __doc__, "python -m data_prep.fer", argv))
    settings = _settings(options)
    program = None if options.csv else find_program(options.openface, settings.people == "several")
    run = FerRun(options.out, settings, program, options.timeout)
    where = options.dataset, options.root, options.csv
    clips, faults = find_clips(*where, options.split)
    everyone = [clip for part in clips.values() for clip in part]
    settings.summed(None)  # an AU that there is not, too
    for label in sorted({clip.label for clip in everyone if clip.label}):
        settings.summed(label)
        settings.facs.au_set(label)  # an unknown label is better known now than after an hour
    if unknown := set(options.plot) - {clip.id for clip in everyone}:
        raise InputError(f"--plot: no clip {min(unknown)!r} in {', '.join(options.split)}")
    with hold(run.out / ".fer" / "lock", run.out):
        source = options.csv or program
        _check_settings(run, options.dataset, options.root, source, options.resume)
        done = read_done(run.out)
        splits = [split for split in SPLITS if split in {*options.split, *(name.split("/")[1] for name in done)}]
        if len(splits) > len(options.split):  # fer.jsonl holds all that was ever done in this folder
            clips, faults = find_clips(*where, splits)
        todo = [clip for split in options.split for clip in clips[split] if not _is_done(done.get(clip.id), clip)]
        try:
            stopped = run_all(todo, _first(todo, done), run, options.jobs, options.backend)
        except BrokenProcessPool:
            reason = "a worker process was killed (out of memory?); --resume goes on, perhaps with fewer --jobs"
            raise InputError(reason) from None
        except OSError as error:
            raise InputError(f"cannot be written to ({error.strerror or error}); --resume goes on", run.out) from None
        report = publish(run, options.dataset, clips, read_done(run.out), faults)
        shutil.rmtree(run.scratch, ignore_errors=True)
        if options.plot:
            plot_clips(run, [clip for clip in everyone if clip.id in options.plot])
        if options.contact_sheet:
            write_contact_sheets(run.out)
    if stopped:
        reason = f"stopped: each of the first {FIRST} clips ended with {stopped['kind']}: {stopped['detail']}"
        raise InputError(reason, run.out / "fer_report.json")
    _refuse_nothing(report, run.out / "fer_report.json")
    summarise(report, run.out / "fer.jsonl")


def _checked(options: FerOptions) -> FerOptions:
    """The options with absolute paths (a Ray worker stands in another folder) and splits in order."""
    openface = options.openface
    if options.csv is None and openface is None:
        if not os.environ.get("OPENFACE_DIR"):
            raise InputError("one of --openface DIR, --csv DIR or OPENFACE_DIR is needed")
        openface = Path(os.environ["OPENFACE_DIR"])
    elif options.csv and openface:
        raise InputError("--openface makes CSV files and --csv reads them: give one of the two")
    choice = read_choice(options.aus)
    if isinstance(choice, str) and choice not in ("no_blink", "all", "label"):
        raise InputError(f"--aus is no_blink, all, label or a list of AUs, not {choice!r}")
    if options.hold < 1 or options.jobs == 0 or options.timeout <= 0:
        raise InputError("--hold, --jobs and --timeout are larger than 0 (--jobs -1: all cores)")
    dataset, root = _dataset(options)
    paths = {"root": root, "csv": options.csv, "openface": openface, "out": options.out}
    return replace(
        options,
        dataset=dataset,
        **{name: path and path.expanduser().absolute() for name, path in paths.items()},
        split=tuple(split for split in SPLITS if split in options.split),
    )


def _dataset(options: FerOptions) -> tuple[str, Path]:
    """Name and folder of the dataset; `InputError` for one that there is not."""
    if options.dataset not in published():
        if options.dataset not in READERS and not options.dataset.endswith((".yaml", ".yml")):
            names = ", ".join(READERS)
            raise InputError(f"--dataset {options.dataset}: no such dataset ({names}, or the YAML file of your own)")
        return next(iter(own([options.dataset], options.root).items()))
    if options.root is None:
        raise InputError(f"--root DIR says where {options.dataset} is")
    return options.dataset, options.root


def _settings(options: FerOptions) -> RecordSettings:
    declared = DATASETS.get(options.dataset)
    facs = load_facs(options.facs, declared)
    return RecordSettings(
        people=options.people or ("one" if options.dataset in ONE_SPEAKER else "several"),
        aus=read_choice(options.aus),
        hold=options.hold,
        confidence=facs.presence.confidence if options.confidence is None else options.confidence,
        crop=options.crop,
        without_common=options.without_common,
        seed=options.seed,
        image=options.image,
        openface_args=tuple(shlex.split(options.openface_args)),
        facs=facs,
    )


# ---- what is done already ----


def _check_settings(run: FerRun, dataset: str, root: Path, source: Path, resume: bool) -> None:
    """Refuse to mix two runs: an existing one is only gone on with when asked for, and with the same settings."""
    where = {"dataset": dataset, "root": str(root.resolve()), "source": str(source.resolve())}
    where["frames"] = "as in the CSV"  # runs of earlier versions counted from 0
    # Through JSON, so that tuples compare as they will be read back.
    facs = run.settings.facs.model_dump()
    settings = json.loads(json.dumps(where | asdict(replace(run.settings, facs=None)) | {"facs": facs}))
    path = run.out / ".fer" / "settings.json"
    if not path.is_file():
        if (run.out / "fer.jsonl").exists():
            raise InputError("holds a fer.jsonl of another origin; give another --out", run.out)
    elif not resume:
        raise InputError("holds a run already: go on with it by --resume, or give another --out", run.out)
    else:
        before = read_json(path)
        if not isinstance(before, dict):
            raise InputError("are not the settings of a run", path)
        differing = [key for key in settings if before.get(key) != settings[key]]
        if differing and any("record" in entry for entry in read_done(run.out).values()):
            raise InputError(f"holds a run with other settings ({', '.join(differing)}); give another --out", run.out)
        if differing:  # nothing of that run is of use: a wrong -mloc, mostly
            shutil.rmtree(run.out / ".fer" / "done", ignore_errors=True)
    write_json(path, settings)


def read_done(out: Path) -> dict[str, dict]:
    """What is done, by clip id: {"record": …} or the latest {"fault": …}. A record without its image is not done."""

    def rank(entry: dict) -> float:
        if "record" in entry:
            return math.inf if (out / entry["record"]["image"]).is_file() else -math.inf
        return entry.get("time", 0)

    entries = []
    for path, number, line in Journal(out / ".fer" / "done", shared=True).records():
        validated(Done, line, path, number)
        entries.append((rank(line), line))
    entries.sort(key=lambda ranked: ranked[0])  # the last of the highest rank stays
    return {line["id"]: line for ranked, line in entries if ranked >= 0}


def _is_done(entry: dict | None, clip: FerClip) -> bool:
    """Whether a clip need not be tried (again): it has a record, or a fault of its files, which are still the same."""
    if entry is None or "record" in entry:
        return entry is not None
    return entry["fault"]["kind"] not in CURABLE and entry.get("files") == _state(clip)


def _state(clip: FerClip) -> list[list[int]]:
    """Size and time of change of the clip's video and CSV, as far as they are there."""
    found = (path.stat() for path in (clip.video, clip.csv) if path and path.exists())
    return [[status.st_size, status.st_mtime_ns] for status in found]


def _first(todo: list[FerClip], done: dict[str, dict]) -> list[FerClip]:
    """Clips that tell whether the set-up works: with a file, from all over the dataset (neighbours share faults).

    Once there are records, only clips that were never tried can tell: the others have failed before.
    """
    if any("record" in entry for entry in done.values()):
        todo = [clip for clip in todo if clip.id not in done]
    shuffled = random.Random(0).sample(todo, len(todo))
    return list(itertools.islice((clip for clip in shuffled if _state(clip)), FIRST))


def _refuse_nothing(report: dict, path: Path) -> None:
    """`InputError` where one fault is why there is no record; faces may really be in none of the clips."""
    counts = report["splits"].values()
    kinds = {kind for count in counts for kind in count["clips_without_record"]}
    if len(kinds) == 1 and kinds != {"no_face"} and not any(count["records"] for count in counts):
        raise InputError(f"no record: every clip ended with {kinds.pop()}: {report['clips'][0]['detail']}", path)


# ---- the parallel run ----


@functools.cache
def _journal(out: Path) -> Journal:
    """This process's own part of the run's journal."""
    return Journal(out / ".fer" / "done", shared=True)


def work_on(clip: FerClip, run: FerRun) -> None:
    """Make one clip's record and put it, or the fault, into this process's journal.

    A line is written when everything it speaks of lies on the disk, so a killed run repeats only what has no line.
    """
    try:
        entry = {"record": make_record(clip, run)}
    except OpenFaceError as error:
        at = f" (line {error.row})" if error.row is not None else ""
        fault = {"kind": error.kind, "id": clip.id, "detail": error.reason + at}
        entry = {"fault": fault, "files": _state(clip), "time": time.time()}
    _journal(run.out).append({"id": clip.id, **entry})


def run_all(clips: list[FerClip], first: list[FerClip], run: FerRun, jobs: int, backend: str) -> dict | None:
    """Work on all clips through joblib, `first` before the others, on this machine's cores or on a Ray cluster.

    Returns None, or the fault that hit every one of `first`; the others are not tried then.
    """
    if not clips:
        return None
    task = joblib.delayed(work_on)
    with progress(total=len(clips), unit="clip", desc="faces") as bar, workers(jobs, backend, bar) as parallel:
        parallel(task(clip, run) for clip in first)
        if len(first) == FIRST:
            done = read_done(run.out)
            faults = [done.get(clip.id, {}).get("fault", {"kind": "no_face"}) for clip in first]
            if len({fault["kind"] for fault in faults}) == 1 and faults[0]["kind"] != "no_face":
                return faults[0]
        tried = {clip.id for clip in first}
        parallel(task(clip, run) for clip in clips if clip.id not in tried)
    return None
