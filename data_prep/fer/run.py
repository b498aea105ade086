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

import argparse
import collections
import contextlib
import fcntl
import functools
import json
import os
import random
import shlex
import shutil
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
from PIL import Image
from tqdm import tqdm

from data_prep.fer.au_table import OpenFaceError, read_faces
from data_prep.fer.facs import FACS, Facs, active_aus, common_aus, load_facs
from data_prep.fer.openface import extract, find_program
from data_prep.fer.peaks import find_peak, peak_image, summed_aus, write_image
from data_prep.readers import READERS, SPLITS
from data_prep.readers.sample import Fault, Sample
from swift_plugins.files import ROOT, InputError, read_rows, write_json, write_rows

# MELD's scenes show several people; a MOSEI clip shows its one speaker.
PEOPLE = {"meld": "several", "mosei": "one"}


@dataclass(frozen=True)
class Clip:
    """One clip to work on: `video` and `csv` are paths (None: there is none), `label` the dataset's emotion."""

    id: str
    video: Path | None
    csv: Path | None
    label: str | None
    csv_name: str  # where OpenFace's CSV is published, relative to the output folder's openface/
    no_csv: str = ""  # why `csv` is None


@dataclass(frozen=True)
class Settings:
    """All that decides the content of a record; a run is resumed with the same settings only."""

    people: str
    aus: str
    hold: int
    confidence: float
    crop: bool
    without_common: str
    seed: int
    image: str
    openface_args: tuple[str, ...]
    facs: Facs


def describe(aus: Iterable[str], facs: Facs, seed: str) -> list[str]:
    """One phrase per AU, drawn by `seed` (same seed, same phrases, on any machine)."""
    draw = random.Random(seed)
    return [draw.choice(facs.aus[au].phrases) for au in aus]


def make_record(clip: Clip, out: Path, settings: Settings, program: Path | None, timeout: float) -> dict:
    """The record of one clip; writes its CSV (with `program`) and its peak image under `out`.

    The caption is None, with the reason under "why", where no AU is left to describe. Raises `OpenFaceError`.
    """
    if clip.video is None:
        raise OpenFaceError("no_clip", "the dataset has no usable clip for it")
    if not clip.video.is_file():
        raise OpenFaceError("missing_clip", "the clip is missing")
    if program is None:
        if clip.csv is None:
            raise OpenFaceError("no_csv", clip.no_csv)
        faces = read_faces(clip.csv, settings.confidence, settings.crop)
    else:
        faces = extract(
            clip.video,
            out / "openface" / clip.csv_name,
            program,
            out / ".fer" / "scratch",
            flags=settings.openface_args,
            timeout=timeout,
            confidence=settings.confidence,
            boxes=settings.crop,
        )
    facs = settings.facs
    choice = settings.aus if settings.aus != "label" else clip.label or "no_blink"
    peak = find_peak(faces, summed_aus(choice, facs), settings.hold)
    active = active_aus(faces, peak.row, facs, blink=settings.aus == "all")
    aus, why = (), "no_label"
    if clip.label is not None:
        aus, why = common_aus(active, clip.label, facs), "no_active_aus" if not active else "no_common_aus"
    if not aus and settings.without_common == "active":
        aus = active
    if settings.crop and faces.box is None:
        raise OpenFaceError("no_landmarks", "the CSV has no landmarks (x_0 … y_67) to crop by")
    image = f"peaks/{clip.id.partition('/')[2]}.{settings.image}"
    try:
        picture = peak_image(clip.video, peak.index, faces.box[peak.row] if settings.crop else None)
    except InputError as error:
        raise OpenFaceError("no_peak_image", f"frame {peak.index}: the clip {error.reason}") from None
    # By way of the scratch folder: what a kill leaves of it is not found among the images.
    unfinished = out / ".fer" / "scratch" / f"{uuid.uuid4().hex}.{settings.image}"
    write_image(unfinished, picture)
    (out / image).parent.mkdir(parents=True, exist_ok=True)
    os.replace(unfinished, out / image)
    phrases = describe(aus, facs, f"{settings.seed}:{clip.id}")
    record = {
        "id": clip.id,
        "emotion": clip.label,
        "aus": list(aus),
        "phrases": phrases,
        "caption": "; ".join(phrases) or None,
        "image": image,
        "frame": peak.index,
        "face_id": peak.face_id,
        "score": peak.score,
    }
    return record if aus else record | {"why": why}


def work_on(clip: Clip, out: Path, settings: Settings, program: Path | None, timeout: float) -> None:
    """Make one clip's record and put it, or the fault, into this process's journal.

    A line is written when everything it speaks of lies on the disk, so a killed run repeats only what has no line.
    """
    try:
        entry = {"record": make_record(clip, out, settings, program, timeout)}
    except OpenFaceError as error:
        at = f" (line {error.row})" if error.row is not None else ""
        entry = {"fault": {"kind": error.kind, "id": clip.id, "detail": error.reason + at}}
    with _journal(out).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": clip.id, **entry}, ensure_ascii=False) + "\n")


@functools.cache
def _journal(out: Path) -> Path:
    """This process's own file under OUT/.fer/done: processes of any machine never share one, nor reuse one."""
    folder = out / ".fer" / "done"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}.jsonl"


def _is_done(entry: dict | None) -> bool:
    """Whether a clip need not be tried again; a missing model is nothing about the clip."""
    return entry is not None and entry.get("fault", {}).get("kind") != "models_missing"


def read_journals(out: Path) -> dict[str, dict]:
    """What is done, by clip id: {"record": …} or {"fault": …}. A line that was cut by a kill is not there."""
    done: dict[str, dict] = {}
    for path in sorted((out / ".fer" / "done").glob("*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if "record" in entry and not (out / entry["record"]["image"]).is_file():
                    continue
                if "record" in entry or not _is_done(done.get(entry["id"])):
                    done[entry["id"]] = entry
    return done


class _WithBar(joblib.Parallel):
    """joblib.Parallel that moves a progress bar; joblib calls `print_progress` whenever a batch is done."""

    def __init__(self, bar: tqdm, **options):
        super().__init__(**options)
        self.bar, self.shown = bar, 0

    def print_progress(self) -> None:
        self.bar.update(self.n_completed_tasks - self.shown)
        self.shown = self.n_completed_tasks


def run_all(
    clips: list[Clip], out: Path, settings: Settings, program: Path | None, timeout: float, jobs: int, backend: str
) -> None:
    """Work on all clips through joblib, on this machine's cores or on a Ray cluster."""
    if not clips:
        return
    context = _ray() if backend == "ray" else contextlib.nullcontext()
    options = {} if backend == "ray" else {"initializer": _end_with_parent, "initargs": (os.getpid(),)}
    task = joblib.delayed(work_on)
    interval = 0.2 if sys.stderr.isatty() else 10.0  # seconds between two states of the bar; a log needs few

    def tasks() -> Iterator:
        for place, clip in enumerate(clips):
            # A missing model fails every clip: the first few tell, and the rest need not be tried.
            if place == 8 * max(jobs, 1) and not any(map(_is_done, read_journals(out).values())):
                return
            yield task(clip, out, settings, program, timeout)

    with (
        context,
        tqdm(total=len(clips), unit="clip", desc="faces", smoothing=0.05, mininterval=interval) as bar,
        _WithBar(bar, n_jobs=jobs, backend=backend, **options) as parallel,
    ):
        parallel(tasks())


def _end_with_parent(parent: int) -> None:
    """Let this worker end soon after a killed run; it would wait for work, with its memory, for minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _ray() -> Iterator[None]:
    """Connect to the Ray cluster and register it with joblib; `InputError` where there is none."""
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise InputError("--backend ray needs the package ray (pip install ray)") from None
    root = os.fspath(ROOT)
    address = os.environ.get("RAY_ADDRESS") or "auto"
    try:
        if address != "auto":  # Ray itself tries for a quarter of an hour where nobody answers
            host, _, port = address.rpartition("/")[2].rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(
            address=address,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}},
            log_to_driver=False,
            logging_level="error",
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray cluster to use (ray start --head, or RAY_ADDRESS): {error}") from None
    register_ray()
    try:
        yield
    finally:
        ray.shutdown()


def find_csvs(
    root: Path, folder: Path, samples: Iterable[Sample], everything: Iterable[Sample]
) -> dict[str, Path | str]:
    """For each sample id the user's CSV under `folder`, or the reason why there is none.

    Tried in this order: the clip's path (`train_splits/dia0_utt0.csv`), the id without the dataset
    (`train/dia0_utt0.csv`), and the clip's bare name where `everything`, all splits, has it only once.
    """
    names = collections.Counter(Path(sample.id).name for sample in everything)
    found: dict[str, Path | str] = {}
    for sample in samples:
        bare = Path(sample.id).name
        tried = [f"{sample.id.partition('/')[2]}.csv"]
        if sample.video is not None:
            tried.insert(0, os.fspath(Path(sample.video).with_suffix(".csv")))
        if names[bare] == 1:
            tried.append(f"{bare}.csv")
        path = next((folder / name for name in tried if (folder / name).is_file()), None)
        found[sample.id] = path or f"no CSV for it (looked for {', '.join(tried)})"
    return found


def make_clips(args: argparse.Namespace, splits: Iterable[str]) -> tuple[dict[str, list[Clip]], list[Fault]]:
    """The clips of each split in the order of the dataset, and the reader's faults."""
    read, faults = READERS[args.dataset].read, []
    samples = {split: list(read(args.root, split, faults)) for split in splits}
    csvs: dict[str, Path | str] = {}
    if args.csv is not None:
        if not args.csv.is_dir():
            raise InputError("no such folder", args.csv)
        everything = [sample for part in samples.values() for sample in part]
        for split in SPLITS:
            if split not in samples:
                with contextlib.suppress(InputError):  # a split that is not there has no clips of the same name
                    everything += read(args.root, split, [])
        for part in samples.values():
            csvs |= find_csvs(args.root, args.csv, part, everything)
        if csvs and not any(isinstance(path, Path) for path in csvs.values()):
            raise InputError(
                f"holds a CSV of none of the {len(csvs)} clips; the first: {next(iter(csvs.values()))}", args.csv
            )
    clips = {}
    for split, part in samples.items():
        clips[split] = []
        for sample in part:
            csv = csvs.get(sample.id)
            name = Path(sample.video) if sample.video else Path(sample.id.partition("/")[2])
            clips[split].append(
                Clip(
                    id=sample.id,
                    video=args.root / sample.video if sample.video else None,
                    csv=csv if isinstance(csv, Path) else None,
                    label=sample.emotion,
                    csv_name=os.fspath(name.with_suffix(".csv")),
                    no_csv=csv if isinstance(csv, str) else "",
                )
            )
    return clips, faults


def publish(
    out: Path, clips: dict[str, list[Clip]], done: dict[str, dict], faults: list[Fault], args, settings
) -> dict:
    """Write fer.jsonl and fer_report.json from what is done, in the order of the dataset; returns the report.

    Neither holds a time, a path or a number of processes: both are the same bytes however the run went.
    """
    records, failed, counts, emotions = [], [], {}, collections.Counter()
    for split, part in clips.items():
        without, broken = collections.Counter(), collections.Counter()
        kept = 0
        for clip in part:
            entry = done.get(clip.id, {})
            if fault := entry.get("fault"):
                failed.append(fault)
                broken[fault["kind"]] += 1
            elif record := entry.get("record"):
                kept += 1
                if why := record.pop("why", None):
                    without[why] += 1
                    failed.append({"kind": why, "id": clip.id, "detail": "peak image kept, no caption"})
                else:
                    emotions[record["emotion"]] += 1
                records.append(record)
        counts[split] = {
            "clips": len(part),
            "records": kept,
            "captions": kept - without.total(),
            "records_without_caption": dict(sorted(without.items())),
            "clips_without_record": dict(sorted(broken.items())),
        }
    report = {
        "dataset": args.dataset,
        "source": "openface" if args.csv is None else "csv",
        "settings": {key: value for key, value in asdict(settings).items() if key != "facs"},
        "presence": {"column": settings.facs.presence.column, "threshold": settings.facs.presence.threshold},
        "splits": counts,
        "captions_per_emotion": dict(sorted(emotions.items(), key=str)),
        "reader_faults": dict(sorted(collections.Counter(fault.kind for fault in faults).items())),
        "clips": failed,
    }
    write_json(out / ".fer" / "fer_report.json", report)
    write_rows(out / ".fer" / "fer.jsonl", records)
    for name in ("fer_report.json", "fer.jsonl"):
        os.replace(out / ".fer" / name, out / name)
    return report


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold OUT/.fer/lock; the system lets go of it when this process ends, however it ends."""
    try:
        (out / ".fer").mkdir(parents=True, exist_ok=True)
        lock = (out / ".fer" / "lock").open("w")
    except OSError as error:
        raise InputError(f"cannot be written to ({error.strerror})", out) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError("another run is writing to this folder", out) from None
        yield


def _check_settings(out: Path, settings: dict, resume: bool) -> None:
    """Refuse to mix two runs: an existing one is only gone on with when asked for, and with the same settings."""
    path = out / ".fer" / "settings.json"
    if not path.is_file():
        if (out / "fer.jsonl").exists():
            raise InputError("holds a fer.jsonl of another origin; give another --out", out)
    elif not resume:
        raise InputError("holds a run already: go on with it by --resume, or give another --out", out)
    else:
        with path.open(encoding="utf-8") as file:
            before = json.load(file)
        differing = [key for key in settings if before.get(key) != settings[key]]
        if differing and any("record" in entry for entry in read_journals(out).values()):
            raise InputError(f"holds a run with other settings ({', '.join(differing)}); give another --out", out)
        if differing:  # nothing of that run is of use: a wrong -mloc, mostly
            shutil.rmtree(out / ".fer" / "done", ignore_errors=True)
    write_json(path, settings)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.fer",
        description=__doc__.split("\n")[0],
        epilog="A caption says how a face moved; that it shows an emotion is weak evidence.",
    )
    add = parser.add_argument
    add("--dataset", required=True, choices=sorted(PEOPLE))
    add("--root", required=True, type=Path, help="folder of the dataset (annotations and clips)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--openface", type=Path, metavar="DIR", help="folder of OpenFace's programs ($OPENFACE_DIR)")
    source.add_argument("--csv", type=Path, metavar="DIR", help="CSV files that exist already, named like the clips")
    add("--out", required=True, type=Path, help="output folder; on a shared disk with --backend ray")
    add("--split", nargs="+", choices=SPLITS, default=["train"], help="one or more (train)")
    add("--jobs", type=int, default=-1, help="processes (all cores)")
    add("--backend", choices=("loky", "ray"), default="loky", help="this machine, or an existing Ray cluster")
    add("--resume", action="store_true", help="go on with the run that OUT holds; finished clips are kept")
    add("--people", choices=("one", "several"), help="FeatureExtraction or FaceLandmarkVidMulti (several for MELD)")
    add("--aus", choices=("no_blink", "all", "label"), default="no_blink", help="AUs summed per frame (no_blink)")
    add("--with-blink", dest="aus", action="store_const", const="all", help="equation 1 to the letter: --aus all")
    add("--hold", type=int, default=1, metavar="N", help="the peak must hold for N frames (1)")
    add("--confidence", type=float, help="lowest tracking confidence of a frame (0.8, from the FACS table)")
    add("--facs", type=Path, default=FACS, help="FACS table (configs/facs.yaml)")
    add(
        "--without-common",
        choices=("leave-out", "active"),
        default="leave-out",
        help="a clip none of whose AUs belong to its emotion gets no caption, or one of all its active AUs",
    )
    add("--seed", type=int, default=0, help="seed of the draw among an AU's phrases (0)")
    add("--image", choices=("png", "jpg"), default="png", help="format of the peak images (png)")
    add("--crop", action="store_true", help="peak images of the person, not of the whole frame")
    add("--openface-args", default="", metavar="STR", help='further arguments of the program, as in "-mloc FILE"')
    add("--timeout", type=float, default=600.0, metavar="S", help="seconds that the program gets per clip (600)")
    add("--plot", nargs="+", default=[], metavar="ID", help="draw these clips into OUT/plots")
    add("--contact-sheet", action="store_true", help="draw pages of peak frames by emotion into OUT/contact_sheets")
    args = parser.parse_args(argv)
    if args.csv is None and args.openface is None:
        if not os.environ.get("OPENFACE_DIR"):
            parser.error("one of --openface DIR, --csv DIR or OPENFACE_DIR is needed")
        args.openface = Path(os.environ["OPENFACE_DIR"])
    if args.hold < 1 or args.jobs == 0 or args.timeout <= 0:
        parser.error("--hold, --jobs and --timeout are larger than 0 (--jobs -1: all cores)")
    for name in ("root", "csv", "openface", "out"):  # a Ray worker stands in another folder
        if getattr(args, name) is not None:
            setattr(args, name, getattr(args, name).expanduser().absolute())
    args.split = [split for split in SPLITS if split in args.split]
    return args


def main(argv: list[str] | None = None) -> int | None:
    args = _arguments(argv)
    facs = load_facs(args.facs)
    settings = Settings(
        people=args.people or PEOPLE[args.dataset],
        aus=args.aus,
        hold=args.hold,
        confidence=facs.presence.confidence if args.confidence is None else args.confidence,
        crop=args.crop,
        without_common=args.without_common,
        seed=args.seed,
        image=args.image,
        openface_args=tuple(shlex.split(args.openface_args)),
        facs=facs,
    )
    program = None if args.csv is not None else find_program(args.openface, settings.people == "several")
    clips, faults = make_clips(args, args.split)
    for label in sorted({clip.label for part in clips.values() for clip in part if clip.label}):
        summed_aus(label if args.aus == "label" else "no_blink", facs)
        facs.au_set(label)  # an unknown label is better known now than after an hour
    known = {clip.id for part in clips.values() for clip in part}
    if unknown := [clip_id for clip_id in args.plot if clip_id not in known]:
        raise InputError(f"--plot: no clip {unknown[0]!r} in {', '.join(args.split)}")
    with _locked(args.out):
        source = args.csv if program is None else program
        where = {"dataset": args.dataset, "root": str(args.root.resolve()), "source": str(source.resolve())}
        # Through JSON, so that tuples and sets compare as they will be read back.
        plain = json.loads(json.dumps(where | asdict(settings), default=sorted))
        _check_settings(args.out, plain, args.resume)
        done = read_journals(args.out)
        splits = set(args.split) | {clip_id.split("/")[1] for clip_id in done}
        if splits > set(args.split):  # fer.jsonl holds all that was ever done in this folder
            clips, faults = make_clips(args, [split for split in SPLITS if split in splits])
        todo = [clip for split in args.split for clip in clips[split] if not _is_done(done.get(clip.id))]
        try:
            run_all(todo, args.out, settings, program, args.timeout, args.jobs, args.backend)
        except BrokenProcessPool:
            reason = "a worker process was killed (out of memory?); --resume goes on, perhaps with fewer --jobs"
            raise InputError(reason) from None
        except OSError as error:
            raise InputError(f"cannot be written to ({error.strerror or error}); --resume goes on", args.out) from None
        report = publish(args.out, clips, read_journals(args.out), faults, args, settings)
        shutil.rmtree(args.out / ".fer" / "scratch", ignore_errors=True)
        draw(args, clips, settings)
    return _summary(report, args.out)


def draw(args: argparse.Namespace, clips: dict[str, list[Clip]], settings: Settings) -> None:
    """The pictures asked for by --plot and --contact-sheet."""
    if not (args.plot or args.contact_sheet):
        return
    from data_prep.fer.pictures import contact_sheets, plot_clip  # matplotlib starts slowly

    records = {row["id"]: row for _, row in read_rows(args.out / "fer.jsonl")}
    for clip in (clip for part in clips.values() for clip in part if clip.id in args.plot):
        if clip.id not in records:
            tqdm.write(f"no plot of {clip.id}: it has no record, see fer_report.json")
            continue
        faces = read_faces(clip.csv or args.out / "openface" / clip.csv_name, settings.confidence)
        choice = settings.aus if settings.aus != "label" else clip.label or "no_blink"
        aus = summed_aus(choice, settings.facs)
        path = args.out / "plots" / f"{clip.id.replace('/', '_')}.png"
        plot_clip(
            path,
            faces,
            find_peak(faces, aus, settings.hold),
            aus,
            settings.facs,
            title=clip.id,
            image=Image.open(args.out / records[clip.id]["image"]),
            label=clip.label,
            caption=records[clip.id]["caption"],
        )
        print(path)
    if args.contact_sheet:
        for path in contact_sheets(args.out / "contact_sheets", records.values(), args.out):
            print(path)


def _summary(report: dict, out: Path) -> int | None:
    """Tell what came out; `InputError` where a missing model is why nothing did."""
    total, causes = collections.Counter(), collections.Counter()
    for counts in report["splits"].values():
        total.update({key: counts[key] for key in ("clips", "records", "captions")})
        causes.update(counts["clips_without_record"])
    if total["clips"] and not total["records"] and set(causes) == {"models_missing"}:
        detail = next(fault["detail"] for fault in report["clips"] if fault["kind"] == "models_missing")
        raise InputError(f"no record: {detail}", out / "fer_report.json")
    count = f"{total['records']} records ({total['captions']} with a caption) of {total['clips']} clips"
    print(f"{count}: {out / 'fer.jsonl'}")
    if causes:
        print(
            f"no record for {', '.join(f'{count} {kind}' for kind, count in causes.most_common())}: see fer_report.json"
        )
    return None
