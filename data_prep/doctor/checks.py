"""Dataset doctor: what in the raw data would silently change results, before anything is trained on it.

    python -m data_prep.doctor --meld DIR --ecf DIR --mosei DIR [--media --jobs N] [--report OUT]
    python -m data_prep.doctor --tokens MODEL --data AMT_DIR [--config configs/emoverse-4b]

The first form checks annotations (counts against the published tables, encoding, ids, duplicates, leakage between
splits and datasets) and, with --media, looks into every clip. It prints a table and writes OUT/doctor.json and
OUT/doctor.html. Exit status 1 when something breaks results, 0 with warnings only, 2 for input that is no dataset.
The second form is the length plan, see `data_prep.length_plan`.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data_prep.doctor import clips as clip_check
from data_prep.doctor import leakage
from data_prep.readers import READERS, SPLITS, meld
from data_prep.readers.sample import Fault, Sample
from swift_plugins.files import InputError, atomic_open, read_rows, write_json

CLIP_SUFFIXES = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v"}
# UTF-8 read as cp1252 and written again, or characters that were lost on the way.
MOJIBAKE = re.compile("[ÃÂ][\u0080-\u00bf]|â€|\ufffd")

# What breaks results, and what is worth knowing; in the order in which the page lists them.
ERRORS = {
    "unreadable": "annotations that the reader refuses",
    "count_mismatch": "counts differ from the published ones",
    "leak": "conversations that also stand in a split they are scored on",
    "shared_video": "videos with clips in several splits",
    "unjoined_id": "records whose id is no clip of the dataset",
    "unjoined_emotions": "emotion rows that join to no clip",
    "no_emotion": "clips without emotion scores",
    "missing_clip": "annotated clips that are not there",
    "broken_clip": "clips that cannot be decoded",
    "truncated_clip": "clips that are cut short or damaged",
    "black_clip": "black clips",
    "frozen_clip": "clips that show a still picture",
    "wrong_length": "clips of another length than annotated",
}
WARNINGS = {
    "known_bad_clip": "clips of the release that are known to be bad; the reader uses none of them",
    "split_absent": "splits whose annotations are not there",
    "no_split": "splits that the dataset does not have",
    "own_data": "splits of another size than the published ones: counts were not compared",
    "no_clips": "splits of which no clip is there",
    "silent_clip": "clips whose sound is silent",
    "no_sound": "clips without sound, or splits without any",
    "unannotated_file": "clips without an annotation",
    "mis_encoded_text": "texts in another encoding; repaired",
    "mojibake_text": "texts that were decoded wrongly before they were published",
    "media_tag_in_text": "texts with a media tag; disarmed",
    "empty_text": "blank texts",
    "no_transcripts": "splits without transcripts",
    "no_emotions": "datasets without emotion labels",
    "emotion_tie": "clips with several strongest emotions",
    "emotion_all_zero": "clips without any emotion",
    "start_below_zero": "segments that start below zero",
    "zero_duration": "utterances that end when they start",
    "missing_dialogue": "dialogues that are absent",
    "utterance_gap": "dialogues with gaps",
    "duplicate_pair": "cause pairs that are given twice",
    "duplicate_scene": "conversations that stand in their split twice",
    "duplicate_text": "texts of a clip that come again elsewhere",
    "overlap": "conversations that another dataset's training split holds as well",
}

MELD_EMOTIONS = ("neutral", "joy", "anger", "surprise", "sadness", "disgust", "fear")
MELD_SENTIMENTS = ("positive", "neutral", "negative")
# Measured on the published files. MELD: rows, emotions, sentiments. ECF 2.0: conversations and what they hold.
# MOSEI as MMSA cuts it: clips, signs of the sentiment, clips without an emotion, clips with a tie.
PUBLISHED = {
    "meld": (
        ["rows", *MELD_EMOTIONS, *(f"{name[:3]}." for name in MELD_SENTIMENTS)],
        {
            "train": (9989, 4710, 1743, 1109, 1205, 683, 271, 268, 2334, 4710, 2945),
            "dev": (1109, 470, 163, 153, 150, 111, 22, 40, 233, 470, 406),
            "test": (2610, 1256, 402, 345, 281, 208, 68, 50, 521, 1256, 833),
        },
    ),
    "ecf": (
        ["conversations", "utterances", "non-neutral", "with_cause", "pairs", "self_causes", "later_causes"],
        {"train": (1374, 13619, 7690, 7081, 9794, 4892, 380), "test": (341, 3101, 1821, 1746, 2462, 1217, 86)},
    ),
    "mosei": (
        ["clips", "negative", "zero", "positive", "all_zero", "ties"],
        {
            "train": (16326, 4738, 3540, 8048, 2392, 2053),
            "dev": (1871, 506, 433, 932, 302, 224),
            "test": (4659, 1350, 1025, 2284, 702, 555),
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: its kind (a key of ERRORS or WARNINGS), where it is, what it is, and the clip it can be seen in."""

    kind: str
    where: str
    detail: str
    clip: str | None = None

    @property
    def breaks(self) -> bool:
        return self.kind in ERRORS


@dataclass
class Examination:
    """Everything that was found. `counts`: (dataset, split) → name → (here, published or None)."""

    findings: list[Finding] = field(default_factory=list)
    counts: dict[tuple[str, str], list[tuple[str, int, int | None]]] = field(default_factory=dict)
    leaks: list[dict] = field(default_factory=list)
    clips: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return int(any(finding.breaks for finding in self.findings))

    def add(self, kind: str, where: str, detail: str, clip: str | None = None) -> None:
        self.findings.append(Finding(kind, where, detail, clip))

    def by_kind(self) -> dict[str, list[Finding]]:
        """Findings by kind, those that break results first."""
        groups: dict[str, list[Finding]] = defaultdict(list)
        for finding in self.findings:
            groups[finding.kind].append(finding)
        return {kind: groups[kind] for kind in (*ERRORS, *WARNINGS) if kind in groups}

    def as_json(self) -> dict:
        return {
            "status": self.status,
            "finding_counts": {kind: len(found) for kind, found in self.by_kind().items()},
            "counts": {
                f"{dataset}:{split}": {name: {"here": here, "published": there} for name, here, there in counts}
                for (dataset, split), counts in self.counts.items()
            },
            "leaks": self.leaks,
            "clips": self.clips,
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
            "findings": [
                asdict(finding) | {"breaks_results": finding.breaks}
                for found in self.by_kind().values()
                for finding in found
            ],
        }


def examine(folders: dict[str, Path], media: bool = False, jobs: int = 1) -> Examination:
    """Check the datasets in `folders` (meld, ecf, mosei → folder); `InputError` for a folder that holds no dataset."""
    result = Examination()
    started = time.monotonic()
    samples: dict[tuple[str, str], list[Sample]] = {}
    for dataset, folder in folders.items():
        samples |= _read(dataset, folder, result)
    for (dataset, split), group in samples.items():
        _count(dataset, split, group, result)
        _check_texts(group, result)
    for dataset, folder in folders.items():
        _check_records(
            folder, dataset, [s for key, group in samples.items() if key[0] == dataset for s in group], result
        )
    _check_mosei_splits(samples, result)
    result.seconds["annotations"] = time.monotonic() - started
    started = time.monotonic()
    _check_leaks(samples, result)
    result.seconds["leakage"] = time.monotonic() - started
    if media:
        started = time.monotonic()
        for dataset, folder in folders.items():
            groups = {split: group for (name, split), group in samples.items() if name == dataset}
            _check_clips(dataset, folder, groups, jobs, result)
        result.seconds["clips"] = time.monotonic() - started
    return result


def _read(dataset: str, folder: Path, result: Examination) -> dict[tuple[str, str], list[Sample]]:
    if not folder.is_dir():
        raise InputError("no such folder", folder)
    groups: dict[tuple[str, str], list[Sample]] = {}
    seen = set()
    refused = None
    for split in SPLITS:
        faults: list[Fault] = []
        try:
            groups[dataset, split] = list(READERS[dataset].read(folder, split, faults))
        except InputError as error:
            if re.match("is not an? .* folder", error.reason):  # this split's annotations are not in the folder
                refused = error
                result.add("split_absent", f"{dataset}/{split}", "its annotations are not there")
            else:
                result.add("unreadable", f"{dataset}/{split}", str(error))
        for fault in faults:
            if fault not in seen:  # MOSEI's one file is read once for each split
                seen.add(fault)
                clip = None
                if fault.kind == "known_bad_clip":
                    clip = str(folder / meld.CLIPS[split] / f"{fault.where.rpartition('/')[2]}.mp4")
                result.add(fault.kind, fault.where, fault.detail, clip)
    if not groups and refused and not any(finding.kind == "unreadable" for finding in result.findings):
        raise refused
    return {key: group for key, group in groups.items() if group}


def _count(dataset: str, split: str, samples: list[Sample], result: Examination) -> None:
    if dataset == "meld":
        emotions, sentiments = (Counter(getattr(s, name) for s in samples) for name in ("emotion", "sentiment"))
        values = [emotions[name] for name in MELD_EMOTIONS] + [sentiments[name] for name in MELD_SENTIMENTS]
        values = [len(samples), *values]
    elif dataset == "ecf":
        pairs = [(sample.index, cause) for sample in samples for cause in sample.causes]
        values = [
            len({leakage.conversation_id(sample.id) for sample in samples}),
            len(samples),
            sum(sample.emotion != "neutral" for sample in samples),
            sum(bool(sample.causes) for sample in samples),
            len(pairs),
            sum(index == cause for index, cause in pairs),
            sum(index < cause for index, cause in pairs),
        ]
    else:
        signs = Counter(sample.sentiment for sample in samples)
        ours = f"mosei/{split}/"
        kinds = Counter(finding.kind for finding in result.findings if finding.where.startswith(ours))
        values = [len(samples), *(signs[name] for name in ("negative", "neutral", "positive"))]
        if any(sample.emotion for sample in samples):
            values += [kinds["emotion_all_zero"], kinds["emotion_tie"]]
    names, published = PUBLISHED[dataset]
    expected = published.get(split)
    where = f"{dataset}/{split}"
    if expected is None or abs(values[0] - expected[0]) > 0.1 * expected[0]:
        result.add("own_data", where, f"{values[0]:,} {names[0]}: not compared with the published counts")
        expected = [None] * len(names)
    result.counts[dataset, split] = list(zip(names, values, expected, strict=False))
    for name, here, there in result.counts[dataset, split]:
        if there is not None and here != there:
            result.add("count_mismatch", where, f"{here:,} {name} where {there:,} are published")


def _check_texts(samples: list[Sample], result: Examination) -> None:
    for sample in samples:
        if found := MOJIBAKE.search(sample.text):
            result.add("mojibake_text", sample.id, f"the transcript holds {found[0]!r}")


def _check_records(folder: Path, dataset: str, samples: list[Sample], result: Examination) -> None:
    """Ids of fer.jsonl and eri.jsonl that belong to no sample of a split that was read."""
    ids = {sample.id for sample in samples}
    splits = {sample.split for sample in samples}
    for name in ("fer.jsonl", "eri.jsonl"):
        if not (folder / name).is_file():
            continue
        try:
            for line, record in read_rows(folder / name):
                clip = str(record.get("id"))
                if clip not in ids and (clip.split("/")[:1] != [dataset] or clip.split("/")[1:2][0] in splits):
                    result.add("unjoined_id", f"{folder / name}:{line}", f"{clip} is no clip of {dataset}")
        except InputError as error:
            result.add("unreadable", str(folder / name), str(error))


def _check_mosei_splits(samples: dict[tuple[str, str], list[Sample]], result: Examination) -> None:
    """One video in two splits shares speaker and scene; a text that comes again is the same words at least."""
    groups = {split: group for (dataset, split), group in samples.items() if dataset == "mosei"}
    videos: dict[str, set[str]] = defaultdict(set)
    texts: dict[str, list[Sample]] = defaultdict(list)
    for split, group in groups.items():
        for sample in group:
            videos[sample.id.split("/")[2]].add(split)
            words = leakage.words(sample.text)
            if len(words) >= 6:
                texts[" ".join(words)].append(sample)
    for video, splits in sorted(videos.items()):
        if len(splits) > 1:
            result.add("shared_video", f"mosei/{video}", f"has clips in {' and '.join(sorted(splits))}")
    for copies in texts.values():
        for copy in copies[1:]:
            result.add("duplicate_text", copy.id, f"has the text of {copies[0].id}")


def _check_leaks(samples: dict[tuple[str, str], list[Sample]], result: Examination) -> None:
    sides = {key: leakage.Side(group) for key, group in samples.items() if key[0] in ("meld", "ecf")}
    for left in sides:
        twice = leakage.compare(sides[left], sides[left])
        for one, other in sorted({tuple(sorted(pair)) for pair in _conversations(twice)}):
            result.add("duplicate_scene", one, f"stands in {other} too")
        for right in sides:
            if left == right or left[1] != "train" or (left[0] == right[0] and right[1] == "train"):
                continue
            if right[1] == "train" and left[0] == "meld":
                continue  # ECF train against MELD train tells the same
            overlap = leakage.compare(sides[left], sides[right])
            if not overlap.conversations:
                continue
            kind = "overlap" if right[1] == "train" else "leak"
            detail = (
                f"{len(overlap.conversations):,} of {len(sides[left].lines):,} conversations stand in "
                f"{right[0]}:{right[1]} ({len(overlap.links):,} of its {len(samples[right]):,} utterances)"
            )
            if kind == "leak":
                detail += f"; build_amt --exclude-leaks {right[0]}:{right[1]} leaves them out"
            result.add(kind, f"{left[0]}/{left[1]}", detail)
            result.leaks.append(
                {
                    "training": ":".join(left),
                    "held_out": ":".join(right),
                    "conversations": sorted(overlap.conversations),
                    "training_conversations": len(sides[left].lines),
                    "utterances": len(overlap.links),
                    "held_out_utterances": len(samples[right]),
                    "links": [[link.left, link.right, round(link.similarity)] for link in overlap.links],
                }
            )


def _conversations(overlap: leakage.Overlap) -> Iterator[tuple[str, str]]:
    for link in overlap.links:
        yield leakage.conversation_id(link.left), leakage.conversation_id(link.right)


def _check_clips(dataset: str, root: Path, groups: dict[str, list[Sample]], jobs: int, result: Examination) -> None:
    annotated: set[Path] = set()
    for split, samples in groups.items():
        annotated |= {root / sample.video for sample in samples if sample.video}
        if dataset == "meld":  # a known bad clip is annotated, whether it is used or not
            annotated |= {root / meld.CLIPS[split] / f"{meld.clip(*key)}.mp4" for key in meld.KNOWN_BAD[split]}
        used = [sample for sample in samples if sample.video]
        if not any((root / sample.video).is_file() for sample in used):
            result.add("no_clips", f"{dataset}/{split}", f"none of {len(used):,} clips is there")
            continue
        lengths = READERS[dataset].durations(root, split)
        with ThreadPoolExecutor(jobs) as pool:  # FFmpeg works outside the interpreter lock
            paths = [root / sample.video for sample in used]
            clips = list(pool.map(clip_check.inspect, paths, [lengths.get(sample.id) for sample in used]))
        result.clips[f"{dataset}:{split}"] = len(clips)
        heard = [clip for clip in clips if clip.frames]
        with_sound = sum(clip.sound is not None for clip in heard)
        if heard and not with_sound:
            result.add("no_sound", f"{dataset}/{split}", "no clip has sound")
        for sample, clip in zip(used, clips, strict=True):
            path = str(root / sample.video)
            for kind, detail in clip.faults:
                result.add(kind, sample.id, f"{sample.video} {detail}", path if kind != "missing_clip" else None)
            if clip.frames and clip.sound is None and with_sound:
                result.add("no_sound", sample.id, f"{sample.video} has no sound", path)
            elif clip.sound is not None and clip.sound < clip_check.SILENT:
                result.add("silent_clip", sample.id, f"the sound of {sample.video} is silent", path)
    for folder in sorted({path.parent.parent if dataset == "mosei" else path.parent for path in annotated}):
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.suffix.lower() in CLIP_SUFFIXES and path not in annotated and path.is_file():
                result.add("unannotated_file", str(path.relative_to(root)), "no annotation names it", str(path))


def table(result: Examination) -> str:
    """The findings for a terminal."""
    lines = []
    for dataset, (names, _) in PUBLISHED.items():
        splits = {split: counts for (name, split), counts in result.counts.items() if name == dataset}
        if not splits:
            continue
        lines.append("  ".join([f"{dataset:<8}", *(f"{name:>9}" for name in names)]))
        for split, counts in splits.items():
            cells = [f"{f'{here:,}':>{max(9, len(name))}}" for name, here, _ in counts]
            lines.append("  ".join([f"{split:<8}", *cells, verdict(counts)]))
        lines.append("")
    for kind, found in result.by_kind().items():
        mark = "BREAKS RESULTS" if kind in ERRORS else "warning"
        title = (ERRORS | WARNINGS)[kind]
        lines.append(f"{mark:<15} {kind:<18} {len(found):>6,}  {title}")
        few = found if kind in ("leak", "overlap", "count_mismatch") else found[:2]
        lines += [f"{'':<15} {finding.where}: {finding.detail}" for finding in few]
        if len(found) > len(few):
            lines.append(f"{'':<15} … and {len(found) - len(few):,} more")
    lines += ["", summary(result)]
    lines.append(", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items()))
    return "\n".join(lines)


def summary(result: Examination) -> str:
    """How many findings break results and how many are warnings."""
    errors = sum(finding.breaks for finding in result.findings)
    return f"findings that break results: {errors:,}; warnings: {len(result.findings) - errors:,}"


def verdict(counts: list[tuple[str, int, int | None]]) -> str:
    """Whether a split's counts are the published ones, and which of those are not met."""
    if all(there is None for _, _, there in counts):
        return "own data"
    wrong = [f"{name} {there:,}" for name, here, there in counts if there is not None and here != there]
    return f"published: {', '.join(wrong)}" if wrong else "as published"


def write_report(result: Examination, out: Path) -> None:
    """doctor.json and doctor.html in the folder `out`."""
    from data_prep.doctor.page import page

    write_json(out / "doctor.json", result.as_json())
    with atomic_open(out / "doctor.html") as file:
        file.write(page(result))


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="data_prep.doctor", description="Check raw datasets, or plan lengths.")
    for dataset in READERS:
        options.add_argument(f"--{dataset}", type=Path, metavar="DIR", help=f"folder of {dataset.upper()}")
    options.add_argument("--media", action="store_true", help="look into every clip")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="threads that look into clips")
    options.add_argument("--report", type=Path, metavar="DIR", help="write doctor.json and doctor.html there")
    lengths = options.add_argument_group("length plan (data_prep.length_plan)")
    lengths.add_argument("--tokens", type=Path, metavar="MODEL", help="folder of the base model")
    lengths.add_argument("--data", metavar="DIR", help="folder of AMT rows (default: AMT_DATA)")
    lengths.add_argument("--config", default="emoverse-4b", help="a folder of configs/, or your own")
    lengths.add_argument("--stage", help="plan the draw of this stage of the mixtures file only")
    lengths.add_argument("--settings", metavar="NAME", help="CONFIG/NAME.yaml instead of the stage's own")
    lengths.add_argument("--size", type=int, help="number of rows instead of the configured size")
    lengths.add_argument("flags", nargs="*", help="after --: flags of swift sft that override the configuration")
    return options


def main(arguments: Iterable[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.tokens:
        from data_prep.doctor.length_plan import plan

        return plan(args)
    folders = {dataset: getattr(args, dataset) for dataset in READERS if getattr(args, dataset) is not None}
    if not folders:
        raise InputError("give at least one of --meld, --ecf, --mosei, or --tokens MODEL --data DIR")
    if args.jobs < 1:
        raise InputError("--jobs is 1 or more")
    result = examine(folders, args.media, args.jobs)
    print(table(result))
    if args.report:
        write_report(result, args.report)
        print(f"written: {args.report / 'doctor.html'}, {args.report / 'doctor.json'}")
    return result.status
