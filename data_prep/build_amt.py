"""AMT builder: raw MELD, ECF 2.0 and CMU-MOSEI folders → instruction rows, one JSONL per dataset, task and split.

    python -m data_prep.build_amt --meld DIR --ecf DIR --mosei DIR --split train --out AMT_DIR

Any subset of the three datasets. Writes AMT_DIR/<dataset>.<task>.<split>.jsonl and AMT_DIR/report.<split>.json: rows
per channel, everything that was dropped or changed with its reason, and the paper's Table 1 beside the totals.
FER and ERI rows come from <dataset dir>/fer.jsonl and eri.jsonl where they exist (`data_prep.fer`, `data_prep.eri`).
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data_prep import ecf_emotions, prompts
from data_prep.doctor import leakage
from data_prep.eri import review as eri_review
from data_prep.readers import READERS, media
from data_prep.readers.sample import Fault, Sample
from swift_plugins.files import InputError, read_json, read_rows, run_cli, write_json, write_rows
from swift_plugins.tasks import TASKS, split_channel

# Table 1 of the paper. ECPE counts the ECF train targets with a cause; the total counts clips, not rows.
TABLE_1 = {"msa": 25_859, "mer": 25_859, "fer": 15_870, "eri": 4_839, "ecpe": 7_081}
TABLE_1_CLIPS = 32_940


@dataclass(frozen=True)
class Options:
    """What a user may choose.

    missing_media, probe, jobs: see `data_prep.media.resolve`. neutral: MSA is binary, so a clip without sentiment is
    `positive` (non-negative) or `drop`ped; the MOSEI test and dev clips stay, under the channel `mosei.msa.zero`.
    allow_loss: whether a test split may lose clips. exclude_leaks: the `<dataset>:<split>`s whose conversations do
    not belong into training. ecf_mer: ECF's utterances as MER rows, too. ecf_emotions: a result file of these, whose
    emotions ECPE prompts show (see `data_prep.ecf_emotions`). mosei: options of `data_prep.mosei.read`.
    """

    missing_media: str = "error"
    probe: bool = True
    jobs: int = 1
    neutral: str = "positive"
    allow_loss: bool = False
    exclude_leaks: tuple[str, ...] = ()
    ecf_mer: bool = False
    ecf_emotions: str | None = None
    mosei: dict = field(default_factory=dict)


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
                if record["id"] in by_id:
                    raise InputError(f"duplicate id {record['id']}", path, number)
                by_id[record["id"]] = (record, path.parent)
        return cls(by_id)

    def text(self, sample: Sample, key: str) -> str | None:
        return self.by_id[sample.id][0][key] if sample.id in self.by_id else None

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

    def __init__(self, split: str, out: Path, media_root: Path, wording: prompts.Prompts, options: Options):
        self.split, self.out, self.media_root = split, out, media_root
        self.wording, self.options = wording, options
        self.files: dict[str, list[dict]] = {}  # <dataset>.<task> → rows
        self.faults: list[Fault] = []
        self.left_out: dict[str, Counter] = {}  # channel → reason → count
        self.clips: dict[str, dict[str, int]] = {}
        self.ecf_gold: dict[str, str] = {}  # of ecf_emotions: sample id → gold emotion, as samples hold predicted ones
        self.held_out: list[Sample] = []  # of exclude_leaks: what no training conversation may hold

    def add(self, dataset: str, root: Path, fer: Records, eri: Records) -> None:
        """Read one dataset's split and make its rows.

        Raises `InputError` for whatever the reader refuses, for a clip that the policy does not allow to be missing,
        and for a test split that would lose clips.
        """
        read_options = self.options.mosei if dataset == "mosei" else {}
        samples = list(READERS[dataset].read(root, self.split, self.faults, **read_options))
        read = len(samples)
        samples = self._without_leaks(samples)
        if dataset == "ecf" and self.options.ecf_emotions:
            self.ecf_gold = {sample.id: sample.emotion for sample in samples}
            predicted = ecf_emotions.read_emotions(Path(self.options.ecf_emotions), samples, self.wording, self.faults)
            samples = ecf_emotions.relabel(samples, predicted)
        # Every MOSEI task uses the peak frame: a clip that has one needs no video, and is not lost for a broken one.
        framed = {s.id: image for s in samples if dataset == "mosei" and (image := fer.image(s))}
        options = self.options
        usable = media.resolve(
            [s for s in samples if s.id not in framed],
            root,
            options.missing_media,
            self.faults,
            probe=options.probe,
            jobs=options.jobs,
        )
        usable = {s.id: s for s in usable}

        for task in TASKS:
            self.files.setdefault(f"{dataset}.{task}", [])
        kept = 0
        for sample in samples:
            if sample.id in framed:
                files = {"images": [self._relative(framed[sample.id])]}
            elif sample.id in usable:
                video = usable[sample.id].video
                files = {"videos": [self._relative(root / video)]} if video else {}
            else:
                continue
            kept += 1
            for channel, task, gold in self._golds(sample, eri):
                self._add_row(channel, task, gold, sample, files)
            self._add_fer(sample, fer, files)
        self.clips[dataset] = {"read": read, "excluded_leaks": read - len(samples), "kept": kept}
        lost = len(samples) - kept
        if lost and self.split == "test" and not options.allow_loss:
            raise InputError(
                f"{lost} of {len(samples)} test clips would be dropped, and scores on the rest do not compare: "
                "use --missing-media text-only, or --allow-loss to drop them",
                root,
            )
        for kind, records in (("fer", fer), ("eri", eri)):
            ours = {clip for clip in records.by_id if clip.startswith(f"{dataset}/{self.split}/")}
            for clip in sorted(ours - {s.id for s in samples}):
                self.faults.append(Fault(f"{kind}_without_clip", clip, f"{kind}.jsonl has it, the dataset does not"))

    def _without_leaks(self, samples: list[Sample]) -> list[Sample]:
        """The samples whose conversations stand in none of the held-out splits; the others are named in the report."""
        if not self.held_out or not any(sample.conversation for sample in samples):
            return samples
        leaked = leakage.linked_conversations(samples, self.held_out)
        kept = [sample for sample in samples if leakage.conversation_id(sample.id) not in leaked]
        splits = ", ".join(self.options.exclude_leaks)
        for conversation in sorted(leaked):
            self.faults.append(Fault("leak_excluded", conversation, f"stands in {splits} as well; left out"))
        return kept

    def _golds(self, sample: Sample, eri: Records) -> Iterator[tuple[str, str, object]]:
        """(channel, task, gold) for every row of a sample but FER's."""
        dataset = sample.dataset
        if dataset == "ecf":
            if self.options.ecf_mer:
                yield "ecf.mer", "mer", self.ecf_gold.get(sample.id, sample.emotion)
            if self.options.ecf_emotions:
                gold = tuple((sample.index, self.ecf_gold[sample.id], cause) for cause in sample.causes)
                if sample.emotion not in ("neutral", ecf_emotions.UNKNOWN):
                    yield "ecf.ecpe.predicted", "ecpe", gold
                elif gold:
                    yield "ecf.ecpe.missed", "ecpe", gold
                else:
                    self._leave_out("ecf.ecpe", "predicted neutral, and without a cause in the gold")
            elif sample.emotion == "neutral":
                self._leave_out("ecf.ecpe", "neutral utterances are context, never targets")
            elif self.split == "train" and not sample.causes:
                self._leave_out("ecf.ecpe", "a training target without an annotated cause")
            else:
                yield "ecf.ecpe", "ecpe", tuple((sample.index, sample.emotion, cause) for cause in sample.causes)
            return
        if sample.sentiment == "neutral" and dataset == "mosei" and self.split != "train":
            yield "mosei.msa.zero", "msa", "positive"
        elif sample.sentiment != "neutral" or self.options.neutral == "positive":
            yield f"{dataset}.msa", "msa", "positive" if sample.sentiment == "neutral" else sample.sentiment
        else:
            self._leave_out(f"{dataset}.msa", "neutral sentiment (--neutral drop)")
        if sample.emotion is not None:
            yield f"{dataset}.mer", "mer", sample.emotion
        else:
            self._leave_out(f"{dataset}.mer", "no emotion label")
        if reason := eri.text(sample, "reason"):
            yield f"{dataset}.eri", "eri", reason

    def _add_fer(self, sample: Sample, fer: Records, files: dict) -> None:
        """A FER row shows one face: the peak frame, or the clip where the record has no picture."""
        caption, image = fer.text(sample, "caption"), fer.image(sample)
        channel = f"{sample.dataset}.fer"
        if image is not None:
            files = {"images": [self._relative(image)]}
        if sample.id in fer.by_id and not caption:
            self._leave_out(channel, "no caption: no Action Unit to describe (see fer_report.json)")
        elif caption and not files:
            self._leave_out(channel, "neither a peak frame nor a clip to look at")
        elif caption:
            self._add_row(channel, "fer", tuple(caption.split("; ")), sample, files)

    def _add_row(self, channel: str, task: str, gold: object, sample: Sample, files: dict) -> None:
        query = self.wording.query(sample, task)
        try:
            response = TASKS[task].target(gold, sample.dataset)
        except ValueError as error:
            raise InputError(f"{sample.id}: {error}") from None
        row = {"id": sample.id, "channel": channel, "query": query, "response": response, **files}
        self.files[f"{sample.dataset}.{task}"].append(row)

    def _leave_out(self, channel: str, reason: str) -> None:
        self.left_out.setdefault(channel, Counter())[reason] += 1

    def _relative(self, path: Path) -> str:
        return Path(os.path.relpath(path, self.media_root)).as_posix()

    def report(self) -> dict:
        channels = Counter(row["channel"] for rows in self.files.values() for row in rows)
        tasks = Counter()
        for channel, count in channels.items():
            tasks[split_channel(channel)[1]] += count
        return {
            "split": self.split,
            "media_root": Path(os.path.relpath(self.media_root, self.out)).as_posix(),
            "options": asdict(self.options) | {"prompts": _digest(self.wording)},
            "clips": self.clips,
            "rows": dict(sorted(channels.items())),
            "tasks": {task: {"rows": tasks[task], "table_1": TABLE_1[task]} for task in TASKS},
            "total_clips": {
                "rows": len({row["id"] for rows in self.files.values() for row in rows}),
                "table_1": TABLE_1_CLIPS,
            },
            "left_out": {channel: dict(reasons) for channel, reasons in sorted(self.left_out.items())},
            "fault_counts": dict(sorted(Counter(fault.kind for fault in self.faults).items())),
            "faults": [asdict(fault) for fault in self.faults],
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


def _digest(wording: prompts.Prompts) -> str:
    """Names the wording in the report: two builds with the same digest ask the same questions."""
    return hashlib.sha256(repr(sorted(asdict(wording).items())).encode()).hexdigest()[:12]


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
    lines += [f"{task:<16}{c['rows']:>8,}{c['table_1']:>10,}" for task, c in report["tasks"].items()]
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="data_prep.build_amt", description="Raw datasets to AMT rows.")
    for dataset in READERS:
        parser.add_argument(f"--{dataset}", type=Path, metavar="DIR", help=f"folder of {dataset.upper()}")
    parser.add_argument("--split", required=True, choices=("train", "dev", "test"))
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--missing-media",
        default="error",
        choices=media.POLICIES,
        help="a clip that is absent or broken: leave it out, keep its text, or stop (default)",
    )
    parser.add_argument("--no-probe", action="store_true", help="only look whether a clip exists, do not decode it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="threads that probe clips")
    parser.add_argument("--allow-loss", action="store_true", help="let a test split lose clips")
    parser.add_argument(
        "--exclude-leaks",
        default="",
        metavar="SPLITS",
        help="leave out training conversations that these hold too, e.g. meld:test,meld:dev (see data_prep.leakage)",
    )
    parser.add_argument("--ecf-mer", action="store_true", help="write ECF's utterances as MER rows, too (ecf.mer)")
    parser.add_argument(
        "--ecf-emotions",
        type=Path,
        metavar="RESULT",
        help="result file of ecf.mer: ECPE prompts show its emotions instead of the gold (see data_prep.ecf_emotions)",
    )
    parser.add_argument("--neutral", default="positive", choices=("positive", "drop"), help="neutral clips in MSA")
    parser.add_argument("--mosei-ties", default="first", choices=("first", "drop"), help="equal strongest emotions")
    parser.add_argument("--mosei-all-zero", default="neutral", choices=("neutral", "drop"), help="no emotion at all")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="wording instead of configs/prompts.yaml")
    parser.add_argument("--fer", type=Path, action="append", metavar="FILE", help="default: DIR/fer.jsonl")
    parser.add_argument("--eri", type=Path, action="append", metavar="FILE", help="default: DIR/eri.jsonl")
    parser.add_argument("--review", type=Path, metavar="FILE", help="accept, reject or edit per ERI id (CSV, JSONL)")
    parser.add_argument(
        "--media-root",
        type=Path,
        metavar="DIR",
        help="what media paths are relative to (default: the datasets' parent)",
    )
    args = parser.parse_args()

    folders = {dataset: getattr(args, dataset) for dataset in READERS if getattr(args, dataset) is not None}
    if not folders:
        raise InputError("give at least one of --meld, --ecf, --mosei")
    for folder in folders.values():
        if not folder.is_dir():
            raise InputError("no such folder", folder)
    if args.jobs < 1:
        raise InputError(f"--jobs {args.jobs} is not a positive number")
    if args.media_root and not args.media_root.is_dir():
        raise InputError("no such folder", args.media_root)
    media_root = args.media_root or Path(os.path.commonpath([folder.resolve() for folder in folders.values()]))
    check_media_root(args.out, media_root)
    if args.ecf_emotions and (args.ecf is None or args.split == "train"):
        raise InputError("--ecf-emotions is for the test or dev split of --ecf")

    options = Options(
        missing_media=args.missing_media,
        probe=not args.no_probe,
        jobs=args.jobs,
        neutral=args.neutral,
        allow_loss=args.allow_loss,
        ecf_mer=args.ecf_mer,
        ecf_emotions=str(args.ecf_emotions) if args.ecf_emotions else None,
        exclude_leaks=tuple(filter(None, args.exclude_leaks.split(","))),
        mosei={"ties": args.mosei_ties, "all_zero": args.mosei_all_zero},
    )
    builder = Builder(args.split, args.out, media_root, prompts.load(args.prompts), options)
    builder.held_out = held_out(options.exclude_leaks, args.split, folders)
    beside = {name: [f for d in folders.values() if (f := d / f"{name}.jsonl").is_file()] for name in ("fer", "eri")}
    fer = Records.read(args.fer or beside["fer"], "caption")
    if args.review:
        reviewed = eri_review.read_eri(args.eri or beside["eri"], args.review)
        eri = Records({record["id"]: (record, Path()) for record in reviewed})
    else:
        eri = Records.read(args.eri or beside["eri"], "reason")
    for dataset, folder in folders.items():
        builder.add(dataset, folder, fer, eri)
    print(table(builder.write()))
    return 0


if __name__ == "__main__":
    run_cli(main)
