"""ECF 2.0 (SemEval-2024 Task 3, subtask 2): read `Subtask_2_{train,test}.json` and, where there are any, its clips.

    python -m data_prep.build_amt --ecf DIR --missing-media text-only --split train --out OUT

The owners publish no clips; whoever has them puts `dia<C>utt<U>.mp4` into `DIR/train/` and `DIR/test/`, or all of
them into `DIR/videos/`. The published data have no dev split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_prep.readers.sample import Fault, Sample, SplitAbsent, Utterance, conversation_id
from data_prep.readers.tables import seconds, transcript
from swift_plugins.files import InputError, read_json

EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
TASKS = ("ecpe",)  # build_amt --ecf-mer adds mer
PAIR = re.compile(r"([0-9]{1,6})_([a-z]+)")
COUNTED = ("conversations", "utterances", "non-neutral", "with_cause", "pairs", "self_causes", "later_causes")
PUBLISHED = {
    "train": dict(zip(COUNTED, (1374, 13619, 7690, 7081, 9794, 4892, 380), strict=True)),
    "test": dict(zip(COUNTED, (341, 3101, 1821, 1746, 2462, 1217, 86), strict=True)),
}
NUMBERS = {"train": range(1, 1375), "test": range(1375, 2040)}  # conversation_ID
CAST = {"Chandler", "Joey", "Monica", "Phoebe", "Rachel", "Ross"}


def read(root: Path, split: str, faults: list[Fault]) -> Iterator[Sample]:
    """Yield every utterance of a split in file order, with its whole conversation and its causes.

    Ids count from 1. `causes` keeps the annotation order; a repeated pair is reported and counted once. Raises
    `InputError` for a folder without the file, broken JSON, a missing key, an unknown emotion, repeated conversation
    or utterance ids, and a pair that names an utterance that is not there or another emotion than its own.
    """
    root = Path(root)
    if split not in ("train", "dev", "test"):
        raise InputError(f"ECF has no split {split!r} (train, dev or test)")
    path = root / f"Subtask_2_{split}.json"
    if split == "dev" and not path.is_file() and (root / "Subtask_2_train.json").is_file():
        faults.append(Fault("no_split", f"ecf/{split}", "ECF 2.0 publishes no dev split; nothing read"))
        return
    if not path.is_file():
        raise SplitAbsent(f"is not an ECF 2.0 folder: it holds no {path.name}", root)
    conversations = read_json(path)
    if not isinstance(conversations, list) or not conversations:
        raise InputError("is not a list of conversations", path)
    clips = next((name for name in (split, "videos") if (root / name).is_dir()), split)
    seen: set[int] = set()
    for number, conversation in enumerate(conversations, 1):
        identity = _whole(_get(conversation, "conversation_ID", path, f"entry {number}"), path, f"entry {number}")
        where = f"conversation {identity}"
        if identity in seen:
            raise InputError("this conversation_ID is given twice", path, where)
        seen.add(identity)
        lines, names = _utterances(conversation, identity, split, path, faults)
        causes = _causes(conversation, lines, identity, split, path, faults)
        for utterance in lines:
            yield Sample(
                id=f"ecf/{split}/dia{identity}utt{utterance.index}",
                dataset="ecf",
                split=split,
                text=utterance.text,
                speaker=utterance.speaker,
                video=f"{clips}/{names[utterance.index]}",
                emotion=utterance.emotion,
                conversation=lines,
                index=utterance.index,
                causes=tuple(causes.get(utterance.index, ())),
            )


def count(samples: list[Sample], faults: list[Fault]) -> dict[str, int]:
    """The numbers that `PUBLISHED` has of a split."""
    pairs = [(sample.index or 0, cause) for sample in samples for cause in sample.causes or ()]
    counts = (
        len({conversation_id(sample.id) for sample in samples}),
        len(samples),
        sum(sample.emotion != "neutral" for sample in samples),
        sum(bool(sample.causes) for sample in samples),
        len(pairs),
        sum(index == cause for index, cause in pairs),
        sum(index < cause for index, cause in pairs),
    )
    return dict(zip(COUNTED, counts, strict=True))


def own_data(splits: Mapping[str, list[Sample]]) -> dict[str, str]:
    """Split → why it is no part of the published ECF: other conversation_IDs, or nobody of the series' six friends."""
    reasons = {}
    for split, samples in splits.items():
        numbers = {int(conversation_id(sample.id).rpartition("dia")[2]) for sample in samples}
        if strangers := sorted(numbers.difference(NUMBERS.get(split, ()))):
            reasons[split] = f"conversation {strangers[0]} is none of the published"
        elif CAST.isdisjoint(sample.speaker for sample in samples):
            reasons[split] = "no speaker of ECF's series"
    return reasons


def durations(root: Path, split: str) -> dict[str, float]:
    """Seconds of each clip by sample id, where the file gives `video_source`: episode, start, end."""
    lengths = {}
    conversations = read_json(Path(root) / f"Subtask_2_{split}.json")
    for conversation in conversations if isinstance(conversations, list) else ():
        for entry in conversation["conversation"]:
            source = entry.get("video_source")
            start, end = map(seconds, source[1:3]) if isinstance(source, list) and len(source) > 2 else (None, None)
            if start is not None and end is not None and end > start:
                lengths[f"ecf/{split}/dia{conversation['conversation_ID']}utt{entry['utterance_ID']}"] = end - start
    return lengths


def _utterances(
    conversation: dict, identity: int, split: str, path: Path, faults: list[Fault]
) -> tuple[tuple[Utterance, ...], dict[int, str]]:
    """The lines in order of their indices, and index → file name of the clip."""
    entries = _get(conversation, "conversation", path, f"conversation {identity}")
    if not isinstance(entries, list) or not entries:
        raise InputError("has no utterances", path, f"conversation {identity}")
    lines: list[Utterance] = []
    names: dict[int, str] = {}
    for position, entry in enumerate(entries, 1):
        where = f"conversation {identity} utterance {position}"
        index = _whole(_get(entry, "utterance_ID", path, where), path, where)
        text, speaker, emotion = (_text(entry, key, path, where) for key in ("text", "speaker", "emotion"))
        name = _text({"video_name": f"dia{identity}utt{index}.mp4"} | entry, "video_name", path, where)
        if index in names:
            raise InputError(f"utterance_ID {index} is given twice", path, where)
        if emotion not in EMOTIONS:
            raise InputError(f"emotion is {emotion!r}, not one of {', '.join(EMOTIONS)}", path, where)
        if not re.fullmatch(r"[\w-][\w.-]*", name):
            raise InputError(f"video_name {name!r} is not the name of a file", path, where)
        names[index] = name
        sample_id = f"ecf/{split}/dia{identity}utt{index}"
        lines.append(
            Utterance(index, transcript(speaker, sample_id, faults), transcript(text, sample_id, faults), emotion)
        )
    if gaps := sorted(set(range(1, max(names))) - set(names)):
        missing = ", ".join(map(str, gaps))
        faults.append(Fault("utterance_gap", f"ecf/{split}/dia{identity}", f"utterance {missing} is not there"))
    return tuple(sorted(lines, key=lambda line: line.index)), names


def _causes(
    conversation: dict, lines: tuple[Utterance, ...], identity: int, split: str, path: Path, faults: list[Fault]
) -> dict[int, list[int]]:
    where = f"conversation {identity}"
    pairs = _get(conversation, "emotion-cause_pairs", path, where)
    emotions = {utterance.index: utterance.emotion for utterance in lines}
    causes: dict[int, list[int]] = {}
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        parts = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
        match = PAIR.fullmatch(str(parts[0]))
        cause = str(parts[1])
        if not match or not (cause.isascii() and cause.isdigit()):
            raise InputError(f'{pair!r} is not a pair like ["3_surprise", "1"]', path, where)
        target, emotion, cause_index = int(match[1]), match[2], int(cause)
        if target not in emotions or cause_index not in emotions:
            raise InputError(f"{pair!r} names an utterance that is not there", path, where)
        if emotions[target] != emotion:
            raise InputError(f"{pair!r} disagrees with the utterance's emotion {emotions[target]}", path, where)
        if cause_index in causes.setdefault(target, []):
            sample_id = f"ecf/{split}/dia{identity}utt{target}"
            faults.append(Fault("duplicate_pair", sample_id, f"the pair {pair!r} is given twice; counted once"))
        else:
            causes[target].append(cause_index)
    return causes


def _get(record: object, key: str, path: Path, where: str) -> object:
    if not isinstance(record, dict) or key not in record:
        raise InputError(f"has no {key}", path, where)
    return record[key]


def _text(record: dict, key: str, path: Path, where: str) -> str:
    value = _get(record, key, path, where)
    if not isinstance(value, str):
        raise InputError("text, speaker, emotion and video_name are to be strings", path, where)
    return value


def _whole(value: object, path: Path, where: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or len(text) > 6:
        raise InputError(f"{value!r} is not a whole number", path, where)
    return int(text)
