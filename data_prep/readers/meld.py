"""MELD: read `{train,dev,test}_sent_emo.csv` and the clips beside them.

    python -m data_prep.build_amt --meld DIR --split train --out OUT

Layout of DIR: the CSV files (either published encoding), `train_splits/`, `dev_splits_complete/` and
`output_repeated_splits_test/` with `dia<D>_utt<U>.mp4`. Clips are optional, see `data_prep.media`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.readers.sample import Fault, Sample, Utterance
from data_prep.readers.tables import read_table, transcript
from swift_plugins.files import InputError

EMOTIONS = ("anger", "sadness", "surprise", "disgust", "joy", "neutral", "fear")
SENTIMENTS = ("positive", "negative", "neutral")
CLIPS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")
# Faults of the published clips, seen by those who looked; no probe finds a clip that is cut at the wrong place.
KNOWN_BAD = {
    "train": {(125, 3): "is corrupt", (309, 0): "is cut at the wrong place"},
    "dev": {(110, 7): "is missing from the release"},
    "test": {(38, 4): "is cut at the wrong place (305 s)", (220, 0): "is cut at the wrong place (235 s)"},
}


def read(root: Path, split: str, faults: list[Fault]) -> Iterator[Sample]:
    """Yield the utterances of a split in file order, each with its whole dialogue.

    `split` is train, dev or test. Appended to `faults`: known bad clips (their `video` is None), gaps in dialogue
    and utterance ids, zero durations, repaired texts. Raises `InputError` for a folder that is not MELD's, a missing
    column, an unknown label, an id that is not a whole number, and a repeated (dialogue, utterance).
    """
    path = Path(root) / f"{split}_sent_emo.csv"
    if split not in CLIPS:
        raise InputError(f"MELD has no split {split!r} (train, dev or test)")
    if not path.is_file():
        raise InputError(f"is not a MELD folder: it holds no {path.name}", root)
    keys: list[tuple[int, int]] = []
    utterances: dict[tuple[int, int], tuple[Utterance, str]] = {}
    for line, row in read_table(path, COLUMNS):
        key = (_whole(row, "Dialogue_ID", path, line), _whole(row, "Utterance_ID", path, line))
        where = f"meld/{split}/{clip(*key)}"
        if key in utterances:
            raise InputError(f"repeats dialogue {key[0]} utterance {key[1]}", path, line)
        emotion = _label(row, "Emotion", EMOTIONS, path, line)
        sentiment = _label(row, "Sentiment", SENTIMENTS, path, line)
        text = transcript(row["Utterance"], where, faults)
        speaker = transcript(row["Speaker"], where, faults)
        utterances[key] = Utterance(key[1], speaker, text, emotion), sentiment
        keys.append(key)
        if "StartTime" in row and row["StartTime"] == row.get("EndTime"):
            faults.append(Fault("zero_duration", where, f"StartTime equals EndTime ({row['StartTime']}); kept"))
    conversations = _conversations(utterances)
    _report_gaps(conversations, split, faults)
    for dialogue, index in keys:
        utterance, sentiment = utterances[dialogue, index]
        sample_id = f"meld/{split}/{clip(dialogue, index)}"
        video: str | None = f"{CLIPS[split]}/{clip(dialogue, index)}.mp4"
        if reason := KNOWN_BAD[split].get((dialogue, index)):
            faults.append(Fault("known_bad_clip", sample_id, f"the published clip {reason}; treated as having none"))
            video = None
        yield Sample(
            id=sample_id,
            dataset="meld",
            split=split,
            text=utterance.text,
            speaker=utterance.speaker,
            video=video,
            emotion=utterance.emotion,
            sentiment=sentiment,
            conversation=conversations[dialogue],
            index=index,
        )


def durations(root: Path, split: str) -> dict[str, float]:
    """Seconds from StartTime to EndTime by sample id, as far as the times can be read and are not zero."""
    seconds = {}
    path = Path(root) / f"{split}_sent_emo.csv"
    for line, row in read_table(path, COLUMNS):
        start, end = (_seconds(row.get(column, "")) for column in ("StartTime", "EndTime"))
        if start is not None and end is not None and end > start:
            key = clip(_whole(row, "Dialogue_ID", path, line), _whole(row, "Utterance_ID", path, line))
            seconds[f"meld/{split}/{key}"] = end - start
    return seconds


def _seconds(time: str) -> float | None:
    """`00:20:57,256` in seconds."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+)[,.](\d{1,3})", time.strip())
    return match and int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3]) + int(match[4].ljust(3, "0")) / 1000


def clip(dialogue: int, utterance: int) -> str:
    """The published name of a clip, without its ending."""
    return f"dia{dialogue}_utt{utterance}"


def _conversations(utterances: dict) -> dict[int, tuple[Utterance, ...]]:
    dialogues: dict[int, list[Utterance]] = {}
    for (dialogue, _), (utterance, _) in sorted(utterances.items()):
        dialogues.setdefault(dialogue, []).append(utterance)
    return {dialogue: tuple(lines) for dialogue, lines in dialogues.items()}


def _report_gaps(conversations: dict[int, tuple[Utterance, ...]], split: str, faults: list[Fault]) -> None:
    for dialogue in sorted(set(range(max(conversations))) - set(conversations)):
        faults.append(Fault("missing_dialogue", f"meld/{split}/dia{dialogue}", "no utterance of it is annotated"))
    for dialogue, lines in conversations.items():
        indices = {utterance.index for utterance in lines}
        if gaps := sorted(set(range(max(indices))) - indices):
            missing = ", ".join(map(str, gaps))
            faults.append(Fault("utterance_gap", f"meld/{split}/dia{dialogue}", f"utterance {missing} is not there"))


def _whole(row: dict[str, str], column: str, path: Path, line: int) -> int:
    value = row[column].strip()
    if not (value.isascii() and value.isdigit()) or len(value) > 6:
        raise InputError(f"{column} is {row[column]!r}, not a whole number", path, line)
    return int(value)


def _label(row: dict[str, str], column: str, known: tuple[str, ...], path: Path, line: int) -> str:
    value = row[column].strip()
    if value not in known:
        raise InputError(f"{column} is {row[column]!r}, not one of {', '.join(known)}", path, line)
    return value
