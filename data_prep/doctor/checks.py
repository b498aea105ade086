"""The doctor's checks: counts against the published ones, ids, repeated texts, conversations and clips.

Not run by itself (`python -m data_prep.doctor`). What is peculiar to a dataset is in its reader. A reader needs
no more than `read`; what else it has is used: `count` and `PUBLISHED`, `own_data`, `durations`, `known_bad_clips`
(`data_prep/readers/meld.py` has all of them).
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import joblib

from data_prep.doctor import leakage
from data_prep.doctor.clips import SILENT, ClipFacts, inspect
from data_prep.doctor.findings import Examination
from data_prep.jobs import Workers, workers
from data_prep.readers import READERS, SPLITS, tasks_of
from data_prep.readers.media import SUFFIXES, ClipFinder
from data_prep.readers.sample import Fault, Sample, SplitAbsent
from swift_plugins.declared import LABELLED
from swift_plugins.files import InputError, read_rows
from swift_plugins.progress import progress

TELLING = 6  # words; a shorter text is repeated by chance
EXAMPLES = 12  # lines of a leak that are shown side by side


def examine(folders: Mapping[str, Path], media: bool = False, jobs: int = 1, backend: str = "loky") -> Examination:
    """Check the datasets in `folders` (key of READERS → folder); `InputError` for a folder that holds no dataset.

    media: look into the clips, with `jobs` processes of the backend (`data_prep.jobs`).
    """
    result = Examination()
    started = time.monotonic()
    samples: dict[tuple[str, str], list[Sample]] = {}
    for dataset, folder in folders.items():
        splits = _read(dataset, folder, result)
        _count(dataset, splits, result)
        groups = {split: group for split, (group, _) in splits.items() if group}
        _check_labels(dataset, groups, result)
        _check_records(dataset, folder, groups, result)
        _check_videos(dataset, groups, result)
        samples |= {(dataset, split): group for split, group in groups.items()}
    result.seconds["annotations"] = time.monotonic() - started
    started = time.monotonic()
    _check_leaks(samples, result)
    result.seconds["leakage"] = time.monotonic() - started
    if media:
        started = time.monotonic()
        try:
            with workers(jobs, backend) as parallel:
                for dataset, folder in folders.items():
                    groups = {split: group for (name, split), group in samples.items() if name == dataset}
                    _check_clips(dataset, folder, groups, parallel, result)
        except BrokenProcessPool:
            raise InputError("a process that looks into clips was killed (out of memory?): fewer --jobs") from None
        result.seconds["clips"] = time.monotonic() - started
    return result


def _part(dataset: str, name: str, default: Any) -> Any:
    """What a reader may have, or not."""
    return getattr(READERS[dataset], name, default)


def _known_bad_clips(dataset: str, split: str) -> dict[str, str]:
    return _part(dataset, "known_bad_clips", lambda split: {})(split)


def _read(dataset: str, folder: Path, result: Examination) -> dict[str, tuple[list[Sample], list[Fault]]]:
    """The splits whose annotations are there and can be read; their faults become findings."""
    if not folder.is_dir():
        raise InputError("no such folder", folder)
    splits: dict[str, tuple[list[Sample], list[Fault]]] = {}
    seen = set()
    absent = []
    for split in SPLITS:
        faults: list[Fault] = []
        try:
            splits[split] = list(READERS[dataset].read(folder, split, faults)), faults
        except SplitAbsent as error:
            absent.append(error)
            result.add("split_absent", f"{dataset}/{split}", "its annotations are not there")
        except InputError as error:
            result.add("unreadable", f"{dataset}/{split}", str(error))
        bad = _known_bad_clips(dataset, split)
        for fault in faults:
            if fault not in seen:  # MOSEI's one file is read once for each split
                seen.add(fault)
                known = fault.kind == "known_bad_clip" and fault.where in bad
                result.add(fault.kind, fault.where, fault.detail, str(folder / bad[fault.where]) if known else None)
    if len(absent) == len(SPLITS):
        raise absent[-1]
    return splits


def _count(dataset: str, splits: Mapping[str, tuple[list[Sample], list[Fault]]], result: Examination) -> None:
    """Compare with the published counts, unless the reader says why a split is no part of the published dataset."""
    published = _part(dataset, "PUBLISHED", {})
    own = _part(dataset, "own_data", lambda splits: {})({split: group for split, (group, _) in splits.items()})
    for split, (samples, faults) in splits.items():
        reason = own.get(split) or ("" if split in published else "none are published")
        if reason and not samples:  # a dataset without this split
            continue
        counts = _part(dataset, "count", _count_labels)(samples, faults)
        where = f"{dataset}/{split}"
        if reason:
            name, number = next(iter(counts.items()))
            result.add("own_data", where, f"{number:,} {name}: not compared with published counts ({reason})")
        expected = {} if reason else published[split]
        result.counts[dataset, split] = {name: (here, expected.get(name)) for name, here in counts.items()}
        for name, (here, there) in result.counts[dataset, split].items():
            if there is not None and here != there:
                result.add("count_mismatch", where, f"{here:,} {name} where {there:,} are published")


def _count_labels(samples: list[Sample], faults: list[Fault]) -> dict[str, int]:
    """Clips and emotions: what is counted where a reader does not say."""
    return {"clips": len(samples), **Counter(sorted(sample.emotion for sample in samples if sample.emotion))}


def _check_labels(dataset: str, groups: Mapping[str, list[Sample]], result: Examination) -> None:
    """Labels of a declared dataset that training has and another split lacks: its scores do not tell of them. And those
    that training lacks and another split has: they are never learned."""
    declared = _part(dataset, "declared", None)
    for role, task in LABELLED.items() if declared else ():
        labels = declared.labels.get(task, ()) if task in tasks_of(dataset) else ()
        words = {split: {getattr(sample, role) for sample in group} for split, group in groups.items()}
        there = {split: [label for label in labels if label.lower() in found] for split, found in words.items()}
        for split, found in there.items():
            absent = {other: {*there[other]} - {*found} for other in there if "train" in (split, other)}
            if others := [other for other, lacking in absent.items() if lacking]:
                lacking = [label for label in labels if label in set().union(*absent.values())]
                detail = f"no clip is {' or '.join(lacking)} ({task}), which {' or '.join(others)} has"
                result.add("absent_label", f"{dataset}/{split}", detail)


def _check_records(dataset: str, folder: Path, groups: Mapping[str, list[Sample]], result: Examination) -> None:
    """Ids of fer.jsonl and eri.jsonl that belong to no sample of a split that was read."""
    ids = {sample.id for group in groups.values() for sample in group}
    for name in ("fer.jsonl", "eri.jsonl"):
        if not (folder / name).is_file():
            continue
        try:
            for line, record in read_rows(folder / name):
                clip = str(record.get("id"))
                if clip not in ids and (clip.split("/")[0] != dataset or f"{clip}/".split("/")[1] in groups):
                    result.add("unjoined_id", f"{folder / name}:{line}", f"{clip} is no clip of {dataset}")
        except InputError as error:
            result.add("unreadable", str(folder / name), str(error))


def _check_videos(dataset: str, groups: Mapping[str, list[Sample]], result: Examination) -> None:
    """One video in two splits shares speaker and scene; a repeated text is at least the same words.

    Not for dialogues: short lines are repeated there, and `_check_leaks` compares the whole of them.
    """
    videos: dict[str, set[str]] = defaultdict(set)
    texts: dict[str, list[Sample]] = defaultdict(list)
    for split, group in groups.items():
        for sample in group:
            if sample.conversation:
                continue
            if len(parts := sample.id.split("/")) > 3:
                videos[parts[2]].add(split)
            words = leakage.words(sample.text)
            if len(words) >= TELLING:
                texts[" ".join(words)].append(sample)
    for video, splits in sorted(videos.items()):
        if len(splits) > 1:
            result.add("shared_video", f"{dataset}/{video}", f"has clips in {' and '.join(sorted(splits))}")
    for copies in texts.values():
        for copy in copies[1:]:
            result.add("duplicate_text", copy.id, f"has the text of {copies[0].id}")


def _check_leaks(samples: Mapping[tuple[str, str], list[Sample]], result: Examination) -> None:
    """Dialogues that stand twice in a split, or in training data and elsewhere."""
    indexes = {
        key: leakage.ConversationIndex(group)
        for key, group in samples.items()
        if any(sample.conversation for sample in group)
    }
    compared = set()
    for left, index in progress(indexes.items(), desc="leaks", unit="split"):
        links = leakage.compare(index, index).links
        pairs = {tuple(sorted((leakage.conversation_id(a.left), leakage.conversation_id(a.right)))) for a in links}
        for one, other in sorted(pairs):
            result.add("duplicate_scene", one, f"stands in {other} too")
        for right in indexes if left[1] == "train" else ():
            if right != left and (right[1] != "train" or right in compared):  # two training splits: one way only
                _compare_conversations(left, right, indexes, samples, result)
        compared.add(left)


def _compare_conversations(
    left: tuple[str, str],
    right: tuple[str, str],
    indexes: Mapping[tuple[str, str], leakage.ConversationIndex],
    samples: Mapping[tuple[str, str], list[Sample]],
    result: Examination,
) -> None:
    """What of the training split `left` is also in `right`, as a finding and an entry of the leaks."""
    overlap = leakage.compare(indexes[left], indexes[right])
    if not overlap.conversations:
        return
    conversations, utterances = len(indexes[left].lines), sum(map(len, indexes[right].lines.values()))
    detail = (
        f"{len(overlap.conversations):,} of {conversations:,} conversations stand in "
        f"{right[0]}:{right[1]} ({len(overlap.links):,} of its {utterances:,} utterances)"
    )
    if right[1] != "train":
        detail += f"; build_amt --exclude-leaks {right[0]}:{right[1]} leaves them out"
    result.add("overlap" if right[1] == "train" else "leak", f"{left[0]}/{left[1]}", detail)
    result.leaks.append(
        {
            "training": ":".join(left),
            "held_out": ":".join(right),
            "conversations": sorted(overlap.conversations),
            "training_conversations": conversations,
            "utterances": len(overlap.links),
            "held_out_utterances": utterances,
            "links": [[link.left, link.right, round(link.similarity)] for link in overlap.links],
            "examples": _side_by_side(overlap.links, samples[left], samples[right]),
        }
    )


def _side_by_side(links: Sequence[leakage.Link], left: Sequence[Sample], right: Sequence[Sample]) -> list[dict]:
    """The first lines that stand in both, as both have them."""
    shown = sorted(links, key=lambda link: (leakage.conversation_id(link.left), link.left))[:EXAMPLES]
    wanted = {link.left for link in shown} | {link.right for link in shown}
    said = {sample.id: f"{sample.speaker}: {sample.text}" for sample in (*left, *right) if sample.id in wanted}
    return [{"left": link.left, "right": link.right, "lines": [said[link.left], said[link.right]]} for link in shown]


def _check_clips(
    dataset: str, root: Path, groups: Mapping[str, list[Sample]], parallel: Workers, result: Examination
) -> None:
    """Inspect every annotated clip, and find clips without annotations."""
    annotated: set[str] = set()
    find = ClipFinder(root).find
    for split, samples in groups.items():
        clips = {sample.id: find(sample.video) for sample in samples if sample.video}
        annotated |= {*clips.values(), *map(find, _known_bad_clips(dataset, split).values())}
        if not any((root / video).is_file() for video in clips.values()):
            detail = f"none of {len(clips):,} clips is there" if clips else "its annotations name no clip"
            result.add("no_clips", f"{dataset}/{split}", detail)
            continue
        lengths = _part(dataset, "durations", lambda root, split: {})(root, split)
        look, here = joblib.delayed(inspect), root.absolute()  # a process of a cluster starts in another folder
        with progress(total=len(clips), desc=f"clips of {dataset} {split}", unit="clip") as parallel.bar:
            facts = parallel(look(here / video, lengths.get(clip)) for clip, video in clips.items())
        result.clips[f"{dataset}:{split}"] = len(facts)
        _report_clips(f"{dataset}/{split}", root, clips, facts, result)
    folders = {root if len(parts := Path(video).parts) == 1 else root / parts[0] for video in annotated}
    known = {root / video for video in annotated}
    for folder in sorted(folders):
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.suffix.lower() in SUFFIXES and path not in known and path.is_file():
                result.add("unannotated_file", str(path.relative_to(root)), "no annotation names it", str(path))


def _report_clips(
    split: str, root: Path, clips: Mapping[str, str], facts: list[ClipFacts], result: Examination
) -> None:
    """The faults of a split's clips; silence is one only where others of the split can be heard."""
    with_sound = any(clip.sound is not None for clip in facts if clip.frames)
    if not with_sound and any(clip.frames for clip in facts):
        result.add("no_sound", split, "no clip has sound")
    for (sample_id, video), clip in zip(clips.items(), facts, strict=True):
        path = str(root / video)
        for kind, detail in clip.faults:
            result.add(kind, sample_id, f"{video} {detail}", path if kind != "missing_clip" else None)
        if clip.frames and clip.sound is None and with_sound:
            result.add("no_sound", sample_id, f"{video} has no sound", path)
        elif clip.sound is not None and clip.sound < SILENT:
            result.add("silent_clip", sample_id, f"the sound of {video} is silent", path)
