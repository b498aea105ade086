"""AMT builder: raw MELD, ECF 2.0 and CMU-MOSEI folders → instruction rows, one JSONL per dataset, task and split.

    python -m data_prep.build_amt --meld DIR --ecf DIR --mosei DIR --split train --out AMT_DIR

Any subset of the datasets. Writes AMT_DIR/<dataset>.<task>.<split>.jsonl and AMT_DIR/report.<split>.json: rows per
channel, everything that was dropped or changed with its reason, and the paper's Table 1 beside the totals.
FER and ERI rows come from <dataset dir>/fer.jsonl and eri.jsonl where they exist (`data_prep.fer`, `data_prep.eri`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, make_dataclass
from pathlib import Path

from data_prep import ecf_emotions, prompts
from data_prep.doctor import leakage
from data_prep.eri import review as eri_review
from data_prep.readers import READERS, SPLITS, media, tasks_of
from data_prep.readers.sample import Fault, Sample
from swift_plugins.files import InputError, is_text, read_json, read_rows, run_cli, write_json, write_rows
from swift_plugins.options import option, parse
from swift_plugins.tasks import TASKS, LeftOut, split_channel

TABLE_1_CLIPS = 32_940  # of the paper's Table 1: clips, not rows; its rows per task are in `TASKS`


@dataclass(frozen=True)
class Options:
    """What a user may choose; the folders of the datasets come first, see `main`."""

    split: str = option(choices=SPLITS, help="train, dev or test")
    out: Path = option(metavar="DIR", help="folder for rows and report")
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
    allow_loss: bool = option(False, help="let a test split lose clips")
    exclude_leaks: str = option(
        "",
        metavar="SPLITS",
        help="leave out training conversations that these hold too, e.g. meld:test,meld:dev (data_prep.doctor.leakage)",
    )
    ecf_mer: bool = option(False, help="write ECF's utterances as MER rows, too (ecf.mer)")
    ecf_emotions: Path | None = option(
        None,
        metavar="RESULT",
        help="result file of ecf.mer: ECPE prompts show its emotions instead of the gold (data_prep.ecf_emotions)",
    )
    msa: str = option(
        "label", choices=("label", "score"), help="MSA as positive / negative, or MOSEI's score as a number"
    )
    neutral: str = option("positive", choices=("positive", "drop"), help="neutral clips in MSA")
    mosei_ties: str = option("first", choices=("first", "drop"), help="equal strongest emotions")
    mosei_all_zero: str = option("neutral", choices=("neutral", "drop"), help="no emotion at all")
    prompts: Path | None = option(None, metavar="FILE", help="wording instead of configs/prompts.yaml")
    fer: tuple[Path, ...] = option((), action="append", metavar="FILE", help="default: DIR/fer.jsonl")
    eri: tuple[Path, ...] = option((), action="append", metavar="FILE", help="default: DIR/eri.jsonl")
    review: Path | None = option(None, metavar="FILE", help="accept, reject or edit per ERI id (CSV, JSONL)")
    media_root: Path | None = option(
        None, metavar="DIR", help="what media paths are relative to (default: the datasets' parent)"
    )

    @property
    def leak_splits(self) -> tuple[str, ...]:
        """The held-out splits that `--exclude-leaks` names."""
        return tuple(filter(None, self.exclude_leaks.split(",")))

    def of_reader(self, dataset: str) -> dict[str, str]:
        """The options of one dataset's reader."""
        options = {
            "meld": {"known_bad": self.known_bad or self.missing_media},
            "mosei": {"ties": self.mosei_ties, "all_zero": self.mosei_all_zero},
        }
        return options.get(dataset, {})


@dataclass(frozen=True)
class Records:
    """The records of fer.jsonl or eri.jsonl files by clip id, each with the folder that its picture is relative to."""

    by_id: dict[str, tuple[dict, Path]]

    @classmethod
    def read(cls, paths: Iterable[Path], text: str) -> Records:
        """`InputError` for a record whose `id` or `text` key holds no text (`text` may be null), or a repeated id."""
        by_id: dict[str, tuple[dict, Path]] = {}
        for path in paths:
            for number, record in read_rows(path):
                if not isinstance(record.get("id"), str):
                    raise InputError("has no text under id", path, number)
                if text not in record or not isinstance(record[text], str | None):
                    raise InputError(f"has no text under {text}", path, number)
                if not is_text(record[text] or ""):
                    raise InputError(f"{text} holds half of a surrogate pair, which is no character", path, number)
                if not isinstance(record.get("image"), str | None):
                    raise InputError("image is not the path of a picture", path, number)
                if record["id"] in by_id:
                    raise InputError(f"duplicate id {record['id']}", path, number)
                by_id[record["id"]] = (record, path.parent)
        return cls(by_id)

    def image(self, sample: Sample) -> Path | None:
        """The peak frame of the clip; `InputError` when the record names one that is not there."""
        record, folder = self.by_id.get(sample.id, ({}, Path()))
        if not record.get("image"):
            return None
        path = folder / record["image"]
        if not path.is_file():
            raise InputError(f"the peak frame of {sample.id} is not there", path)
        return path


class Builder:
    """The rows of one split: `add` datasets, then `write`."""

    def __init__(self, options: Options, media_root: Path, wording: prompts.Prompts, fer: Records, eri: Records):
        self.options, self.media_root, self.wording = options, media_root, wording
        self.split, self.out = options.split, options.out
        self.records = {"fer": fer, "eri": eri}
        self.files: dict[str, list[dict]] = {}  # <dataset>.<task> → rows
        self.faults: list[Fault] = []
        self.left_out: dict[str, Counter] = {}  # channel → reason → count
        self.clips: dict[str, dict[str, int]] = {}
        self.held_out: list[Sample] = []  # of exclude_leaks: what no training conversation may hold

    def add(self, dataset: str, root: Path) -> None:
        """Read one dataset's split and make its rows.

        Raises `InputError` for whatever the reader refuses, for a clip that the policy does not allow to be missing,
        and for a test split that would lose clips.
        """
        reader = READERS[dataset]
        samples = list(reader.read(root, self.split, self.faults, **self.options.of_reader(dataset)))
        known_bad = set(reader.known_bad_clips(self.split)) if hasattr(reader, "known_bad_clips") else set()
        found = {fault.where for fault in self.faults if fault.kind == "known_bad_clip"}
        dropped = len(found - {sample.id for sample in samples})
        read = len(samples)
        samples = self._without_leaks(samples)
        if dataset == "ecf" and self.options.ecf_emotions:
            samples = ecf_emotions.relabel(samples, self.options.ecf_emotions, self.faults)
        tasks = tasks_of(dataset) + (("mer",) if dataset == "ecf" and self.options.ecf_mer else ())
        for task in tasks:
            self.files.setdefault(f"{dataset}.{task}", [])
        files = self._media(dataset, root, samples, known_bad)
        for sample in samples:
            if sample.id in files:
                for task in tasks:
                    self._add_rows(sample, task, files[sample.id])
        self.clips[dataset] = {"read": read, "excluded_leaks": read - len(samples), "kept": len(files)}
        lost = len(samples) - len(files) + dropped
        if lost and self.split == "test" and not self.options.allow_loss:
            raise InputError(
                f"{lost} of {read + dropped} test clips would be dropped, and scores on the rest do not compare: "
                "use --missing-media text-only, or --allow-loss to drop them",
                root,
            )
        known = {sample.id for sample in samples}
        for kind, records in self.records.items():
            ours = {clip for clip in records.by_id if clip.startswith(f"{dataset}/{self.split}/")}
            for clip in sorted(ours - known):
                self.faults.append(Fault(f"{kind}_without_clip", clip, f"{kind}.jsonl has it, the dataset does not"))

    def _without_leaks(self, samples: list[Sample]) -> list[Sample]:
        """The samples whose conversations stand in none of the held-out splits; the others are named in the report."""
        if not self.held_out or not any(sample.conversation for sample in samples):
            return samples
        leaked = leakage.linked_conversations(samples, self.held_out)
        kept = [sample for sample in samples if sample.dialogue not in leaked]
        splits = ", ".join(self.options.leak_splits)
        for conversation in sorted(leaked):
            self.faults.append(Fault("leak_excluded", conversation, f"stands in {splits} as well; left out"))
        return kept

    def _media(
        self, dataset: str, root: Path, samples: list[Sample], known_bad: set[str]
    ) -> dict[str, dict[str, list[str]]]:
        """Sample id → `images` or `videos` of its rows, {} for text alone; samples that are dropped are not in it.

        Every MOSEI task uses the peak frame: a clip that has one needs no video, and is not lost for a broken one.
        Known-bad clips are as the reader was told to give them: without a clip they are text, with one it is used.
        """
        framed = {}
        if getattr(READERS[dataset], "PEAK_FRAMES", False):
            framed = {s.id: image for s in samples if (image := self.records["fer"].image(s))}
        usable = media.resolve(
            [s for s in samples if s.id not in framed and not (s.id in known_bad and s.video is None)],
            root,
            self.options.missing_media,
            self.faults,
            probe=not self.options.no_probe,
            jobs=self.options.jobs,
            any_length=known_bad,
        )
        files: dict[str, dict[str, list[str]]] = {
            clip: {"images": [self._relative(image)]} for clip, image in framed.items()
        }
        files |= {sample.id: {} for sample in samples if sample.id in known_bad and sample.video is None}
        for sample in usable:
            files[sample.id] = {"videos": [self._relative(root / sample.video)]} if sample.video else {}
        return files

    def _add_rows(self, sample: Sample, key: str, files: Mapping[str, list[str]]) -> None:
        """The rows of one sample for one task."""
        task = TASKS[key]
        records = {kind: found.by_id[sample.id][0] for kind, found in self.records.items() if sample.id in found.by_id}
        if task.face_only and (image := self.records["fer"].image(sample)):
            files = {"images": [self._relative(image)]}
        for gold in task.golds(sample, records, self.options):
            channel = f"{sample.dataset}.{key}"
            if isinstance(gold, LeftOut):
                self._leave_out(channel, gold.reason)
                continue
            if task.face_only and not files:
                self._leave_out(channel, "neither a peak frame nor a clip to look at")
                continue
            try:
                response = task.target(gold.answer, sample.dataset)
            except ValueError as error:
                raise InputError(f"{sample.id}: {error}") from None
            row = {"id": sample.id, "channel": f"{channel}.{gold.part}" if gold.part else channel}
            row |= {"query": self.wording.query(sample, key, gold.wording), "response": response, **files}
            if facts := task.facts(sample):
                row["facts"] = facts
            self.files[channel].append(row)

    def _leave_out(self, channel: str, reason: str) -> None:
        self.left_out.setdefault(channel, Counter())[reason] += 1

    def _relative(self, path: Path) -> str:
        return Path(os.path.relpath(path, self.media_root)).as_posix()

    def report(self) -> dict:
        """report.<split>.json, see the module's docstring."""
        channels = Counter(row["channel"] for rows in self.files.values() for row in rows)
        tasks: Counter = Counter()
        for channel, count in channels.items():
            tasks[split_channel(channel)[1]] += count
        return {
            "split": self.split,
            "media_root": Path(os.path.relpath(self.media_root, self.out)).as_posix(),
            "options": self._options(),
            "clips": self.clips,
            "rows": dict(sorted(channels.items())),
            "tasks": {key: {"rows": tasks[key], "table_1": task.table_1} for key, task in TASKS.items()},
            "total_clips": {
                "rows": len({row["id"] for rows in self.files.values() for row in rows}),
                "table_1": TABLE_1_CLIPS,
            },
            "left_out": {channel: dict(reasons) for channel, reasons in sorted(self.left_out.items())},
            "fault_counts": dict(sorted(Counter(fault.kind for fault in self.faults).items())),
            "faults": [asdict(fault) for fault in self.faults],
        }

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
            "exclude_leaks": chosen.leak_splits,
            "ecf_mer": chosen.ecf_mer,
            "ecf_emotions": str(chosen.ecf_emotions) if chosen.ecf_emotions else None,
            "mosei": chosen.of_reader("mosei"),
            "msa": chosen.msa,
            "prompts": self.wording.digest,
        }

    def write(self) -> dict:
        """Write the row files and the report; a file of an earlier build that now has no rows is removed."""
        report = self.report()
        for name, rows in self.files.items():
            path = self.out / f"{name}.{self.split}.jsonl"
            if rows:
                write_rows(path, rows)
            else:
                path.unlink(missing_ok=True)
        write_json(self.out / f"report.{self.split}.json", report)
        return report


def check_media_root(out: Path, media_root: Path) -> None:
    """All splits in one folder share one media root; `InputError` names the report that has another."""
    for path in sorted(out.glob("report.*.json")):
        other = read_json(path).get("media_root")
        if other is not None and os.path.realpath(out / other) != os.path.realpath(media_root):
            raise InputError(
                f"was built with media root {other}, this build has {os.path.relpath(media_root, out)}; "
                "give the same --media-root or another --out",
                path,
            )


def held_out(splits: Iterable[str], split: str, folders: dict[str, Path]) -> list[Sample]:
    """The samples of splits named like `meld:test`.

    `InputError` for another name, for a dataset whose folder is not given, and when anything but train is built: a
    held-out split that loses conversations would not compare.
    """
    samples = []
    for name in splits:
        dataset, _, other = name.partition(":")
        if dataset not in ("meld", "ecf") or other not in ("dev", "test"):
            raise InputError(
                f"--exclude-leaks takes meld:test, meld:dev, ecf:test or several with commas, not {name!r}"
            )
        if split != "train":
            raise InputError("--exclude-leaks is for --split train: the others are what is kept apart")
        if dataset not in folders:
            raise InputError(f"--exclude-leaks {name} needs --{dataset} DIR")
        samples += READERS[dataset].read(folders[dataset], other, [])
    return samples


def table(report: dict) -> str:
    """The report's counts for the screen."""
    lines = [f"{'channel':<16}{'rows':>8}"]
    lines += [f"{channel:<16}{count:>8,}" for channel, count in report["rows"].items()]
    lines.append(f"\n{'task':<16}{'rows':>8}{'Table 1':>10}")
    lines += [f"{task:<16}{c['rows']:>8,}{_count(c['table_1']):>10}" for task, c in report["tasks"].items()]
    total = report["total_clips"]
    lines.append(f"{'clips':<16}{total['rows']:>8,}{total['table_1']:>10,}")
    if splits := report["options"]["exclude_leaks"]:
        counts = ", ".join(f"{dataset} {c['excluded_leaks']:,}" for dataset, c in report["clips"].items())
        lines.append(f"clips left out for leaking {', '.join(splits)}: {counts}")
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
    fields = [(name, folder, option(None, metavar="DIR", help=f"folder of {name.upper()}")) for name in READERS]
    both = parse(make_dataclass("BuildOptions", fields, bases=(Options,), frozen=True), __doc__, "data_prep.build_amt")
    folders = {dataset: folder for dataset in READERS if (folder := getattr(both, dataset)) is not None}
    return both, folders


def check(options: Options, folders: Mapping[str, Path]) -> Path:
    """The media root; `InputError` for options that do not go together and folders that are not there."""
    if not folders:
        raise InputError(f"give at least one of {', '.join(f'--{dataset}' for dataset in READERS)}")
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
    media_root = check(options, folders)
    wording = prompts.load(options.prompts)
    beside = {name: [f for d in folders.values() if (f := d / f"{name}.jsonl").is_file()] for name in ("fer", "eri")}
    excluded = held_out(options.leak_splits, options.split, folders)
    fer = Records.read(options.fer or beside["fer"], "caption")
    if options.review:
        reviewed = eri_review.read_eri(options.eri or beside["eri"], options.review)
        eri = Records({record["id"]: (record, Path()) for record in reviewed})
    else:
        eri = Records.read(options.eri or beside["eri"], "reason")
    builder = Builder(options, media_root, wording, fer, eri)
    builder.held_out = excluded
    for dataset, folder in folders.items():
        builder.add(dataset, folder)
    print(table(builder.write()))
    return 0


if __name__ == "__main__":
    run_cli(main)
