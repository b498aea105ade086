"""AMT builder: raw MELD, ECF 2.0 and CMU-MOSEI folders → instruction rows, one JSONL per dataset, task and split.

    python -m data_prep.build_amt --meld DIR --ecf DIR --mosei DIR --split train --out AMT_DIR

    python -m data_prep.build_amt --mmeverse DIR --split train --out AMT_DIR [--mmeverse-sets mafw,bold]

Any subset of the datasets; the second form reads the tables of MMEVerse that DIR holds. Writes
AMT_DIR/<dataset>.<task>.<split>.jsonl and AMT_DIR/report.<split>.json: rows per channel, everything that was dropped or
changed with its reason, and the paper's Table 1 beside the totals. With --audio a row lists the sound track of its
clip, where there is one, as `audios`; models that do not hear leave it.
Rows of MMEVerse always do, and list a frame of the clip as well, which is cut once to DIR/frames/; rows of its `audio`
and `image` tasks list nothing but the sound, or the frame.
FER and ERI rows come from <dataset dir>/fer.jsonl and eri.jsonl where they exist (`data_prep.fer`, `data_prep.eri`).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, make_dataclass, replace
from pathlib import Path
from typing import IO, Any

from data_prep import ecf_emotions, prompts
from data_prep.doctor import leakage
from data_prep.eri import review as eri_review
from data_prep.readers import READERS, SPLITS, dfew, media, mmeverse, own, published, tasks_of
from data_prep.readers.mmeverse import MmeverseReader
from data_prep.readers.sample import Fault, Sample, SplitAbsent, conversation_id
from data_prep.records import Records
from swift_plugins.build_report import read_report
from swift_plugins.declared import DATASETS
from swift_plugins.files import AtomicFiles, InputError, run_cli
from swift_plugins.options import option, parse
from swift_plugins.progress import progress
from swift_plugins.tasks import TASKS, LeftOut, split_channel

TABLE_1_DATASETS = {"meld", "ecf", "mosei"}
TABLE_1_CLIPS = 32_940  # of the paper's Table 1: clips, not rows; its rows per task are in `TASKS`


@dataclass(frozen=True)
class Options:
    """What a user may choose; the folders of the datasets come first, see `main`."""

    split: str = option(choices=SPLITS, help="train, dev or test")
    out: Path = option(metavar="DIR", help="folder for rows and report")
    data: tuple[str, ...] = option(
        (), action="append", metavar="FILE", help="a dataset of your own (docs/own-data.md): its YAML file, or its name"
    )
    root: Path | None = option(None, metavar="DIR", help="folder of the data of --data, where its file does not say")
    mmeverse: Path | None = option(None, metavar="DIR", help="folder of the annotation tables of MMEVerse")
    mmeverse_sets: str = option("", metavar="SETS", help="of these sets only: mafw,bold (default: all that are there)")
    missing_media: str = option(
        "error",
        choices=media.POLICIES,
        help="a clip that is absent or broken: leave it out, keep its text, or stop (default)",
    )
    known_bad: str | None = option(
        None,
        choices=("keep", "text-only", "drop", "error"),
        help="MELD's clips that are known to be bad: use them all the same (the official protocol), keep their words,"
        " leave them out, or stop (default: as --missing-media)",
    )
    no_probe: bool = option(False, help="only look whether a clip exists, do not decode it")
    jobs: int = option(os.cpu_count() or 1, metavar="N", help="threads that probe clips")
    audio: bool = option(False, help="list a clip's own sound track in its rows, for models that hear (audios)")
    allow_loss: bool = option(False, help="let a test split lose clips")
    exclude_leaks: str = option(
        "",
        metavar="SPLITS",
        help="leave out training conversations that these hold too: meld:test,ecf:test, or all",
    )
    ecf_mer: bool = option(False, help="write ECF's utterances as MER rows, too (ecf.mer)")
    ecf_emotions: Path | None = option(
        None,
        metavar="RESULT",
        help="result file of ecf.mer: ECPE prompts show its emotions instead of the gold (data_prep.ecf_emotions)",
    )
    msa: str = option(
        "label",
        choices=("label", "three", "score"),
        help="MSA as positive / negative, with neutral as a third class, or as MOSEI's score",
    )
    neutral: str = option("positive", choices=("positive", "drop"), help="neutral clips in MSA")
    mosei_ties: str = option("first", choices=("first", "drop"), help="equal strongest emotions")
    mosei_all_zero: str = option("neutral", choices=("neutral", "drop"), help="no emotion at all")
    dfew_set: str = option("1", choices=dfew.SETS, help="DFEW's set (of its 5-fold cross-validation)")
    prompts: Path | None = option(None, metavar="FILE", help="wording instead of configs/prompts.yaml")
    fer: tuple[Path, ...] = option((), action="append", metavar="FILE", help="default: DIR/fer.jsonl")
    eri: tuple[Path, ...] = option((), action="append", metavar="FILE", help="default: DIR/eri.jsonl")
    review: Path | None = option(None, metavar="FILE", help="accept, reject or edit per ERI id (CSV, JSONL)")
    media_root: Path | None = option(
        None, metavar="DIR", help="what media paths are relative to (default: the datasets' parent)"
    )

    def of_reader(self, dataset: str) -> dict[str, str]:
        """The options of one dataset's reader."""
        options = {
            "meld": {"known_bad": self.known_bad or self.missing_media},
            "mosei": {"ties": self.mosei_ties, "all_zero": self.mosei_all_zero},
            "dfew": {"number": self.dfew_set},
        }
        own = DATASETS.get(dataset)
        return options.get(own.reader or "" if own else dataset, {})


class FaultLog(list):
    """Counts faults by kind and keeps the first `KEPT` of each; all of them go to `file`."""

    KEPT = 100

    def __init__(self, file: IO[str]):
        super().__init__()
        self.file, self.counts = file, Counter()

    def append(self, fault: Fault) -> None:
        self.counts[fault.kind] += 1
        self.file.write(json.dumps(asdict(fault), ensure_ascii=False) + "\n")
        if self.counts[fault.kind] <= self.KEPT:
            super().append(fault)

    @property
    def whole(self) -> bool:
        """Whether every fault is kept."""
        return len(self) == self.counts.total()


class Builder:
    """The rows of one split: `add` datasets, then `report`. Rows are written as they are made, none is kept."""

    def __init__(
        self,
        options: Options,
        media_root: Path,
        wording: prompts.Prompts,
        records: Mapping[str, Records],
        files: AtomicFiles,
        readers: Mapping[str, Any] = READERS,
    ):
        self.options, self.media_root, self.wording, self.files = options, media_root, wording, files
        self.readers = readers
        self.in_three = replace(options, msa="three")
        self.split, self.out = options.split, options.out
        self.records = records  # of fer and eri
        self.faults = FaultLog(files.open(self.out / f"faults.{self.split}.jsonl"))
        self.channels: Counter = Counter()
        self.left_out: dict[str, Counter] = {}  # channel → reason → count
        self.clips: dict[str, dict[str, int]] = {}
        self.total_clips = 0  # that became a row
        self.sound = dict.fromkeys(("rows", "clips", "clips_without"), 0)
        self.held_out: list[str] = []  # of exclude_leaks: splits that no training conversation may hold
        self.others: dict[str, list[Sample]] = {}  # dev and test splits by name
        self.dialogues: dict[str, list[str]] = {}
        self.overlap: dict[str, dict[str, dict[str, int]]] = {}

    def add(self, dataset: str, root: Path) -> None:
        """Read one dataset's split and make its rows.

        Raises `InputError` for whatever the reader refuses, for a clip that the policy does not allow to be missing,
        and for a test split that would lose clips.
        """
        reader, options = self.readers[dataset], self.options.of_reader(dataset)
        of_tables = isinstance(reader, MmeverseReader)
        known_bad = set(reader.known_bad_clips(self.split)) if hasattr(reader, "known_bad_clips") else set()
        leaked = self._leaks(dataset, reader.read(root, self.split, [], **options)) if self.others else set()
        samples: Iterable[Sample] = reader.read(root, self.split, self.faults, **options)
        if dataset == "ecf" and self.options.ecf_emotions:
            samples = ecf_emotions.relabel(list(samples), self.options.ecf_emotions, self.faults)
        tasks = reader.tasks(self.split) if of_tables else tasks_of(dataset)
        tasks += ("mer",) if dataset == "ecf" and self.options.ecf_mer else ()
        if of_tables:
            self.records["eri"].add(reader.records(root, self.split, self.faults).get("eri", {}), root)
        for task in tasks:
            self.files.open(self._path(f"{dataset}.{task}"))
        counts: Counter = Counter()
        without_clip = {
            (kind, clip)
            for kind, records in self.records.items()
            for clip in records.by_id
            if clip.startswith(f"{dataset}/{self.split}/")
        }
        samples = self._counted(dataset, samples, leaked, known_bad, without_clip, counts)
        with progress(
            self._media(dataset, root, samples, known_bad), desc=f"{dataset} {self.split}", unit="clip"
        ) as bar:
            for sample, files in bar:
                counts["kept"] += 1
                made = [self._add_rows(sample, task, seen_by(task, files) if of_tables else files) for task in tasks]
                self.total_clips += sum(made) > 0
        self.clips[dataset] = {key: counts[key] for key in ("read", "excluded_leaks", "kept")}
        dropped = self.faults.counts["known_bad_clip"] - counts["known_bad"]  # left out by the reader itself
        lost = counts["read"] - counts["excluded_leaks"] - counts["kept"] + dropped
        if lost and self.split == "test" and not self.options.allow_loss:
            raise InputError(
                f"{lost} of {counts['read'] + dropped} test clips would be dropped, and scores on the rest do not "
                "compare: use --missing-media text-only, or --allow-loss to drop them",
                root,
            )
        for kind, clip in sorted(without_clip):
            self.faults.append(Fault(f"{kind}_without_clip", clip, f"{kind}.jsonl has it, the dataset does not"))

    def _counted(
        self,
        dataset: str,
        samples: Iterable[Sample],
        leaked: set[str],
        known_bad: set[str],
        without_clip: set[tuple[str, str]],
        counts: Counter,
    ) -> Iterator[Sample]:
        """The samples that are no leak; what was read is counted, and the dialogues are noted."""
        dialogues = self.dialogues.setdefault(dataset, [])
        for sample in samples:
            counts["read"] += 1
            counts["known_bad"] += sample.id in known_bad
            without_clip -= {(kind, sample.id) for kind in self.records}
            if sample.dialogue and (not dialogues or dialogues[-1] != sample.dialogue):
                dialogues.append(sample.dialogue)
            if sample.dialogue in leaked:
                counts["excluded_leaks"] += 1
            else:
                yield sample
        self.dialogues[dataset] = list(dict.fromkeys(dialogues))
        if not dialogues:
            del self.dialogues[dataset]

    def _leaks(self, dataset: str, samples: Iterable[Sample]) -> set[str]:
        """The conversations that stand in a split that is to be held out; counts what the others hold of all splits."""
        linked: dict[str, dict[str, set[str]]] = {name: {} for name in self.others}  # split → conversation → utterances
        indices = {name: leakage.ConversationIndex(held) for name, held in self.others.items()}
        for part in _conversations(samples, LEAK_BATCH):
            ours = leakage.ConversationIndex(part)
            for name, index in indices.items():
                for link in leakage.compare(ours, index).links:
                    linked[name].setdefault(conversation_id(link.left), set()).add(link.right)
        leaked = {conversation for name in self.held_out for conversation in linked[name]}
        for conversation in sorted(leaked):
            self.faults.append(
                Fault("leak_excluded", conversation, f"stands in {', '.join(self.held_out)} as well; left out")
            )
        self.overlap[dataset] = {}
        for name, held in self.others.items():
            kept = [found for conversation, found in linked[name].items() if conversation not in leaked]
            self.overlap[dataset][name] = {"utterances": len(set().union(*kept)), "of": len(held)}
        return leaked

    def _media(
        self, dataset: str, root: Path, samples: Iterable[Sample], known_bad: set[str]
    ) -> Iterator[tuple[Sample, dict[str, list[str]]]]:
        """Samples with the media of their rows, {} for text alone; those that are dropped are left out.

        Every MOSEI task uses the peak frame: a clip that has one needs no video, and is not lost for a broken one.
        With --audio its sound track, if it has one, stands beside the peak frame, as beside a video.
        Known-bad clips are as the reader was told to give them: without a clip they are text, with one it is used.
        """
        reader = self.readers[dataset]
        framed, of_tables = getattr(reader, "PEAK_FRAMES", False), isinstance(reader, MmeverseReader)
        images: dict[str, Path] = {}  # of the samples that are under way

        def needs_no_clip(sample: Sample) -> bool:
            if framed and (image := self.records["fer"].image(sample)):
                images[sample.id] = image
                return True
            return sample.id in known_bad and sample.video is None

        usable = media.resolve(
            samples,
            root,
            self.options.missing_media,
            self.faults,
            probe=not self.options.no_probe,
            jobs=self.options.jobs,
            any_length=known_bad,
            needs_no_clip=needs_no_clip,
        )
        silent = ((sample, False) for sample in usable)
        listen = self.options.audio or of_tables
        heard = media.sounding(usable, root, self.faults, self.options.jobs) if listen else silent
        if of_tables:
            heard = self._framed(reader, root, heard, images)
        for sample, sounds in heard:
            clip = [self._relative(root / sample.video)] if sample.video else []
            image = images.pop(sample.id, None)
            files = {"images": [self._relative(image)]} if image else {"videos": clip} if clip else {}
            if of_tables and image:
                files["videos"] = clip
            if clip:
                self.sound["clips" if sounds else "clips_without"] += 1
            yield sample, files | ({"audios": clip} if sounds else {})

    def _framed(
        self,
        reader: MmeverseReader,
        root: Path,
        heard: Iterable[tuple[Sample, bool]],
        images: dict[str, Path],
    ) -> Iterator[tuple[Sample, bool]]:
        """What is given, with a picture of each clip in `images`: that of fer.jsonl, else a frame that is cut."""
        peaks = reader.peaks(root)

        def picture(found: tuple[Sample, bool]) -> Path | str | None:
            sample, _ = found
            if not sample.video or (image := self.records["fer"].image(sample)):
                return image if sample.video else None
            try:
                return media.cut_frame(root, sample, peaks.get(Path(sample.video).stem))
            except InputError as error:
                return str(error)

        for (sample, sounds), image in media.looked_at(heard, picture, self.options.jobs):
            if isinstance(image, Path):
                images[sample.id] = image
            elif image:
                self.faults.append(Fault("no_frame", sample.id, f"{image}; rows without a picture"))
            yield sample, sounds

    def _add_rows(self, sample: Sample, key: str, files: Mapping[str, list[str]]) -> int:
        """Write the rows of one sample for one task; returns how many."""
        task, count = TASKS[key], 0
        records = {kind: record for kind, found in self.records.items() if (record := found.of(sample)) is not None}
        if task.face_only:  # nothing of a face is to be heard
            image = self.records["fer"].image(sample)
            files = {"images": [self._relative(image)]} if image else {k: v for k, v in files.items() if k != "audios"}
        for gold in task.golds(sample, records, self._options_of(sample)):
            channel = f"{sample.dataset}.{key}"
            if isinstance(gold, LeftOut):
                self._leave_out(channel, gold.reason)
                continue
            if task.face_only and not files:
                self._leave_out(channel, "neither a peak frame nor a clip to look at")
                continue
            if key in ALONE and not files:
                self._leave_out(channel, f"its clip has no {ALONE[key][1]}")
                continue
            try:
                response = task.of_part(gold.part).target(gold.answer, sample.dataset)
            except ValueError as error:
                raise InputError(f"{sample.id}: {error}") from None
            row = {"id": sample.id, "channel": f"{channel}.{gold.part}" if gold.part else channel}
            row |= {"query": self.wording.query(sample, key, gold.wording, gold.part), "response": response, **files}
            if facts := task.facts(sample):
                row["facts"] = facts
            self.files.open(self._path(channel)).write(json.dumps(row, ensure_ascii=False) + "\n")
            self.channels[row["channel"]] += 1
            self.sound["rows"] += "audios" in row
            count += 1
        return count

    def _options_of(self, sample: Sample) -> Options:
        """MMEVerse has sentiment in three classes, whatever --msa says of other data."""
        return self.in_three if isinstance(self.readers[sample.dataset], MmeverseReader) else self.options

    def _leave_out(self, channel: str, reason: str) -> None:
        self.left_out.setdefault(channel, Counter())[reason] += 1

    def _path(self, name: str) -> Path:
        return self.out / f"{name}.{self.split}.jsonl"

    def _relative(self, path: Path) -> str:
        return Path(os.path.relpath(path, self.media_root)).as_posix()

    def report(self) -> dict:
        """report.<split>.json, see the module's docstring."""
        tasks: Counter = Counter()
        for channel, count in self.channels.items():
            tasks[split_channel(channel)[1]] += count
        tables = {name: reader for name in self.clips if isinstance(reader := self.readers[name], MmeverseReader)}
        more: dict = {"sound": self.sound} if self.options.audio or tables else {}
        if tables:
            sizes = {name: reader.PUBLISHED.get(self.split, {}).get("clips") for name, reader in tables.items()}
            more["mmeverse"] = {name: {"read": self.clips[name]["read"], "published": n} for name, n in sizes.items()}
        if not self.faults.whole:
            more["all_faults"] = f"faults.{self.split}.jsonl"
        return {
            "split": self.split,
            "media_root": Path(os.path.relpath(self.media_root, self.out)).as_posix(),
            "options": self._options(),
            "clips": self.clips,
            "rows": dict(sorted(self.channels.items())),
            "tasks": {key: {"rows": tasks[key], "table_1": task.table_1} for key, task in TASKS.items()},
            "total_clips": {"rows": self.total_clips, "table_1": TABLE_1_CLIPS},
            "dialogues": self.dialogues,
            "overlap": self.overlap,
            "left_out": {channel: dict(reasons) for channel, reasons in sorted(self.left_out.items())},
            "fault_counts": dict(sorted(self.faults.counts.items())),
            "faults": [asdict(fault) for fault in self.faults],
        } | more

    def _options(self) -> dict:
        """What decided the rows, in the report's own names."""
        chosen = self.options
        return {
            "missing_media": chosen.missing_media,
            "known_bad": chosen.known_bad or chosen.missing_media,
            "probe": not chosen.no_probe,
            "jobs": chosen.jobs,
            "neutral": chosen.neutral,
            "allow_loss": chosen.allow_loss,
            "exclude_leaks": self.held_out,
            "ecf_mer": chosen.ecf_mer,
            "ecf_emotions": str(chosen.ecf_emotions) if chosen.ecf_emotions else None,
            "mosei": chosen.of_reader("mosei"),
            "dfew": chosen.of_reader("dfew"),
            "msa": chosen.msa,
            "prompts": self.wording.digest,
            "system": self.wording.system,
        }

    def finish(self) -> dict:
        """Let every file appear, and return the report; of an earlier build, a file that now has no rows goes."""
        report = self.report()
        json.dump(report, self.files.open(self.out / f"report.{self.split}.json"), ensure_ascii=False, indent=2)
        self.files.open(self.out / f"report.{self.split}.json").write("\n")
        self.files.commit(drop=[self.faults.file] if self.faults.whole else [])
        return report


# task whose rows show one kind of media alone → that kind, and what a clip without it lacks
ALONE = {"audio": ("audios", "sound"), "image": ("images", "frame")}


def seen_by(task: str, files: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
    """Of the media of a row of MMEVerse those that the task may see: one kind for a description, else all."""
    kind, _ = ALONE.get(task, ("", ""))
    return {key: found for key, found in files.items() if key == kind} if kind else files


LEAK_BATCH = 50_000  # utterances whose conversations are compared at a time; every published dataset is one batch


def _conversations(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Batches of at least `size` samples that cut no conversation in two."""
    batch: list[Sample] = []
    for sample in samples:
        if len(batch) >= size and sample.dialogue != batch[-1].dialogue:
            yield batch
            batch = []
        if sample.dialogue:
            batch.append(sample)
    if batch:
        yield batch


def check_media_root(out: Path, media_root: Path) -> None:
    """All splits in one folder share one media root; `InputError` names the report that has another."""
    for path in sorted(out.glob("report.*.json")):
        other = read_report(path).media_root
        if other is not None and os.path.realpath(out / other) != os.path.realpath(media_root):
            raise InputError(
                f"was built with media root {other}, this build has {os.path.relpath(media_root, out)}; "
                "give the same --media-root or another --out",
                path,
            )


def other_splits(split: str, folders: Mapping[str, Path]) -> dict[str, list[Sample]]:
    """`meld:test` → samples, for the dev and test splits of dialogues that are there; {} unless train is built."""
    found = {}
    for dataset, folder in folders.items() if split == "train" else ():
        for other in SPLITS[1:]:
            try:
                samples = list(READERS[dataset].read(folder, other, []))
            except SplitAbsent:
                continue
            if any(sample.dialogue for sample in samples):
                found[f"{dataset}:{other}"] = samples
    return found


def held_out(wanted: str, split: str, others: Mapping[str, list[Sample]]) -> list[str]:
    """Those of the other splits that `--exclude-leaks` names; `InputError` for a name of none of them.

    Only training rows are chosen so: a held-out split that loses conversations would not compare.
    """
    if wanted and split != "train":
        raise InputError("--exclude-leaks is for --split train: the others are what is kept apart")
    names = list(others) if wanted == "all" else list(filter(None, wanted.split(",")))
    for name in names:
        if name not in others:
            there = f"there are {', '.join(others)}" if others else "none of the folders given holds one"
            raise InputError(f"--exclude-leaks: {name} is no held-out split of dialogues here; {there}")
    return names


def table(report: dict) -> str:
    """The report's counts for the screen."""
    lines = [f"{'channel':<16}{'rows':>8}"]
    lines += [f"{channel:<16}{count:>8,}" for channel, count in report["rows"].items()]
    paper = TABLE_1_DATASETS & report["clips"].keys()  # whose table has nothing to say of other data
    counts = {**report["tasks"], "clips": report["total_clips"]}
    lines.append(f"\n{'task':<16}{'rows':>8}" + (f"{'Table 1':>10}" if paper else ""))
    lines += [
        f"{task:<16}{c['rows']:>8,}" + (f"{_count(c['table_1']):>10}" if paper else "") for task, c in counts.items()
    ]
    if splits := report["options"]["exclude_leaks"]:
        counts = ", ".join(f"{dataset} {c['excluded_leaks']:,}" for dataset, c in report["clips"].items())
        lines.append(f"clips left out for leaking {', '.join(splits)}: {counts}")
    if sound := report.get("sound"):
        lines.append(
            f"sound: {sound['rows']:,} rows, {sound['clips']:,} clips; {sound['clips_without']:,} clips have none"
        )
    for name, sizes in report.get("mmeverse", {}).items():
        read, known = sizes["read"], sizes["published"]
        if not read and known is None:
            lines.append(f"{name}: no {report['split']} split")
            continue
        other = "unknown: not published" if known is None else f"{known:,} published"
        lines.append(f"{name}: {read:,}, {'as published' if read == known else other}")
    for channel, reasons in report["left_out"].items():
        lines += [f"left out of {channel}: {count:,} ({reason})" for reason, count in reasons.items()]
    if report["fault_counts"]:
        lines.append("faults: " + ", ".join(f"{kind} {count:,}" for kind, count in report["fault_counts"].items()))
    return "\n".join(lines)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def options_and_folders() -> tuple[Options, dict[str, Path]]:
    """The command line: `Options`, and the folder of each dataset that was given."""
    folder = Path | None
    fields = [(name, folder, option(None, metavar="DIR", help=f"folder of {name.upper()}")) for name in published()]
    both = parse(make_dataclass("BuildOptions", fields, bases=(Options,), frozen=True), __doc__, "data_prep.build_amt")
    folders = {dataset: folder for dataset in published() if (folder := getattr(both, dataset)) is not None}
    return both, folders | own(both.data, both.root)


def with_tables(options: Options, folders: dict[str, Path]) -> tuple[dict[str, Path], dict[str, Any]]:
    """(folder of each dataset, those of MMEVerse's tables included; reader of each).

    `InputError` for a dataset that is given by its own folder and by the tables both. Sets without a table are named.
    """
    if options.mmeverse is None:
        if options.mmeverse_sets:
            raise InputError("--mmeverse-sets names sets of --mmeverse DIR")
        return folders, READERS
    if not options.mmeverse.is_dir():
        raise InputError("no such folder", options.mmeverse)
    found, absent = mmeverse.there(options.mmeverse, [n for n in options.mmeverse_sets.split(",") if n])
    for name in found:
        if name in folders:
            rest = ",".join(other for other in found if other not in folders)
            raise InputError(
                f"{name} is given by its own folder ({folders[name]}) and by its table in {options.mmeverse} both: "
                f"leave one out (--mmeverse-sets {rest or '…'})"
            )
    if absent:
        print(f"mmeverse: no table of {', '.join(absent)}; left out")
    return folders | dict.fromkeys(found, options.mmeverse), READERS | {name: mmeverse.READERS[name] for name in found}


def check(options: Options, folders: Mapping[str, Path]) -> Path:
    """The media root; `InputError` for options that do not go together and folders that are not there."""
    if not folders:
        given = ", ".join(f"--{dataset}" for dataset in published())
        raise InputError(f"give at least one of {given}, --data FILE, --mmeverse DIR")
    for folder in (*folders.values(), *filter(None, [options.media_root])):
        if not folder.is_dir():
            raise InputError("no such folder", folder)
    if options.jobs < 1:
        raise InputError(f"--jobs {options.jobs} is not a positive number")
    media_root = options.media_root or Path(os.path.commonpath([folder.resolve() for folder in folders.values()]))
    check_media_root(options.out, media_root)
    if options.ecf_emotions and ("ecf" not in folders or options.split == "train"):
        raise InputError("--ecf-emotions is for the test or dev split of --ecf")
    return media_root


def main() -> int:
    """Read, build, write, print."""
    options, folders = options_and_folders()
    folders, readers = with_tables(options, folders)
    media_root = check(options, folders)
    tables = [name for name in folders if isinstance(readers[name], MmeverseReader)]
    wording = prompts.load(options.prompts, folders, tables)
    homes = dict.fromkeys(folders.values())
    beside = {name: [f for d in homes if (f := d / f"{name}.jsonl").is_file()] for name in ("fer", "eri")}
    raw = {name: folder for name, folder in folders.items() if name not in tables}  # tables hold no dialogues
    others = other_splits(options.split, raw)
    excluded = held_out(options.exclude_leaks, options.split, others)
    fer = Records.read(options.fer or beside["fer"], "caption")
    if options.review:
        reviewed = eri_review.read_eri(options.eri or beside["eri"], options.review)
        eri = Records("reason", {record["id"]: (record["reason"], None, Path()) for record in reviewed})
    else:
        eri = Records.read(options.eri or beside["eri"], "reason")
    records = {"fer": fer, "eri": eri}
    for dataset, folder in raw.items():
        if read_records := getattr(READERS[dataset], "records", None):
            for kind, made in read_records(folder, options.split).items():
                records[kind].add(made, folder)
    with AtomicFiles() as files:
        builder = Builder(options, media_root, wording, records, files, readers)
        builder.held_out, builder.others = excluded, others
        for dataset, folder in folders.items():
            builder.add(dataset, folder)
        if not builder.channels:
            raise InputError(f"no row comes of {options.split}: no clip has what a task asks for", options.out)
        report = builder.finish()
    print(table(report))
    return 0


if __name__ == "__main__":
    run_cli(main)
