"""MELD: read `{train,dev,test}_sent_emo.csv` and the clips beside them.

    python -m data_prep.build_amt --meld DIR --split train --out OUT

Layout of DIR: the CSV files (either published encoding), `train_splits/`, `dev_splits_complete/` and
`output_repeated_splits_test/` with `dia<D>_utt<U>.mp4`. Clips are optional, see `data_prep.readers.media`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_prep.readers.sample import Fault, Sample, SplitAbsent, Utterance
from data_prep.readers.tables import read_table, seconds, transcript
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
POLICIES = {
    "keep": "used all the same",
    "text-only": "treated as having none",
    "drop": "sample dropped",
    "error": "refused",
}
COUNTED = ("rows", "neutral", "joy", "anger", "surprise", "sadness", "disgust", "fear", "pos.", "neu.", "neg.")
PUBLISHED = {
    split: dict(zip(COUNTED, counts, strict=True))
    for split, counts in {
        "train": (9989, 4710, 1743, 1109, 1205, 683, 271, 268, 2334, 4710, 2945),
        "dev": (1109, 470, 163, 153, 150, 111, 22, 40, 233, 470, 406),
        "test": (2610, 1256, 402, 345, 281, 208, 68, 50, 521, 1256, 833),
    }.items()
}
LAST_DIALOGUE = {"train": 1038, "dev": 113, "test": 279}
CAST = {"Chandler", "Joey", "Monica", "Phoebe", "Rachel", "Ross"}


def read(root: Path, split: str, faults: list[Fault], known_bad: str = "text-only") -> Iterator[Sample]:
    """Yield the utterances of a split in file order, each with its whole dialogue.

    `split` is train, dev or test. `known_bad` says what becomes of clips whose release is known to be bad: `keep` uses
    them (the official protocol of 2,610 test clips), `text-only` leaves `video` None, `drop` leaves the sample out,
    `error` refuses the split. Appended to `faults`: such clips, gaps in dialogue and utterance ids, zero durations,
    repaired texts. Raises `SplitAbsent` for a folder without the split's table, `InputError` for MELD Dyadic, a missing
    column, an unknown label, an id that is not a whole number, and a repeated (dialogue, utterance).
    """
    if split not in CLIPS:
        raise InputError(f"MELD has no split {split!r} (train, dev or test)")
    if known_bad not in POLICIES:
        raise InputError(f"known bad clips: one of {', '.join(POLICIES)}, not {known_bad!r}")
    utterances = _utterances(_table(root, split), split, faults)
    conversations = _conversations(utterances)
    _report_gaps(conversations, split, faults)
    for (dialogue, index), (utterance, sentiment) in utterances.items():
        sample_id = f"meld/{split}/{clip(dialogue, index)}"
        video: str | None = f"{CLIPS[split]}/{clip(dialogue, index)}.mp4"
        if reason := KNOWN_BAD[split].get((dialogue, index)):
            if known_bad == "error":
                raise InputError(
                    f"{sample_id}: the published clip {reason}; --known-bad keep uses it all the same (the official "
                    "protocol), text-only keeps the words alone, drop leaves the utterance out",
                    root,
                )
            faults.append(Fault("known_bad_clip", sample_id, f"the published clip {reason}; {POLICIES[known_bad]}"))
            if known_bad == "drop":
                continue
            video = video if known_bad == "keep" else None
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


def count(samples: list[Sample], faults: list[Fault]) -> dict[str, int]:
    """The numbers that `PUBLISHED` has of a split."""
    emotions, sentiments = (Counter(getattr(s, name) for s in samples) for name in ("emotion", "sentiment"))
    signs = {"pos.": "positive", "neu.": "neutral", "neg.": "negative"}
    counts = {name: sentiments[signs[name]] if name in signs else emotions[name] for name in COUNTED}
    return counts | {"rows": len(samples)}


def own_data(splits: Mapping[str, list[Sample]]) -> dict[str, str]:
    """Split → why it is no part of the published MELD: dialogue numbers beyond it, or nobody of its six friends."""
    reasons = {}
    for split, samples in splits.items():
        last = max((int(sample.id.rpartition("dia")[2].partition("_")[0]) for sample in samples), default=0)
        if last > LAST_DIALOGUE[split]:
            reasons[split] = f"dialogue {last} is beyond the published {LAST_DIALOGUE[split]}"
        elif CAST.isdisjoint(sample.speaker for sample in samples):
            reasons[split] = "no speaker of MELD's series"
    return reasons


def known_bad_clips(split: str) -> dict[str, str]:
    """Sample id → path of a clip that is annotated, and bad in the release."""
    return {f"meld/{split}/{clip(*key)}": f"{CLIPS[split]}/{clip(*key)}.mp4" for key in KNOWN_BAD[split]}


def durations(root: Path, split: str) -> dict[str, float]:
    """Seconds from StartTime to EndTime by sample id, as far as the times can be read and are not zero."""
    lengths = {}
    path = _table(root, split)
    for line, row in read_table(path, COLUMNS):
        start, end = (seconds(row.get(column, "")) for column in ("StartTime", "EndTime"))
        if start is not None and end is not None and end > start:
            key = clip(_whole(row, "Dialogue_ID", path, line), _whole(row, "Utterance_ID", path, line))
            lengths[f"meld/{split}/{key}"] = end - start
    return lengths


def clip(dialogue: int, utterance: int) -> str:
    """The published name of a clip, without its ending."""
    return f"dia{dialogue}_utt{utterance}"


def _table(root: Path, split: str) -> Path:
    path = Path(root) / f"{split}_sent_emo.csv"
    dyadic = path.with_name(f"{split}_sent_emo_dya.csv")
    if not path.is_file() and dyadic.is_file():
        _refuse_dyadic(dyadic)
    if not path.is_file():
        raise SplitAbsent(f"is not a MELD folder: it holds no {path.name}", root)
    return path


def _refuse_dyadic(path: Path) -> None:
    raise InputError(
        "is MELD Dyadic: pieces of MELD's dialogues under numbers of their own, while clips and published figures are "
        "those of MELD; take MELD's table, without _dya and without columns Old_*",
        path,
    )


def _utterances(path: Path, split: str, faults: list[Fault]) -> dict[tuple[int, int], tuple[Utterance, str]]:
    """(dialogue, utterance) → the line and its sentiment, in file order."""
    utterances: dict[tuple[int, int], tuple[Utterance, str]] = {}
    for line, row in read_table(path, COLUMNS):
        if "Old_Dialogue_ID" in row:
            _refuse_dyadic(path)
        key = (_whole(row, "Dialogue_ID", path, line), _whole(row, "Utterance_ID", path, line))
        where = f"meld/{split}/{clip(*key)}"
        if key in utterances:
            raise InputError(f"repeats dialogue {key[0]} utterance {key[1]}", path, line)
        emotion = _label(row, "Emotion", EMOTIONS, path, line)
        sentiment = _label(row, "Sentiment", SENTIMENTS, path, line)
        text = transcript(row["Utterance"], where, faults)
        speaker = transcript(row["Speaker"], where, faults)
        utterances[key] = Utterance(key[1], speaker, text, emotion), sentiment
        if "StartTime" in row and row["StartTime"] == row.get("EndTime"):
            faults.append(Fault("zero_duration", where, f"StartTime equals EndTime ({row['StartTime']}); kept"))
    return utterances


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
