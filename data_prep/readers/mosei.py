"""CMU-MOSEI in the layout of MMSA: read `label.csv`, join the emotions, and the clips `Raw/<video_id>/<clip_id>.mp4`.

    python -m data_prep.build_amt --mosei DIR --split train --out OUT

`label.csv` has `video_id, clip_id, text, label, mode` (further columns are not read). It holds no emotions: they come
from one of two files beside it, or stay unknown where there is neither.

- `emotions.csv`: `video_id, clip_id, happy, sad, anger, surprise, disgust, fear`, joined by the two ids.
- `sdk_segments.csv`: the labels of CMU-MultimodalSDK, one segment a row: `video_id, start, end, sentiment, happy,
  sad, anger, surprise, disgust, fear`. The SDK numbers segments otherwise than MMSA numbers clips, so both are put in
  order (start and end time, clip id as a number) and joined where the sentiments agree. To write it from
  `CMU_MOSEI_Labels.csd` with h5py:

      for video, node in h5py.File(csd)["All Labels/data"].items():
          for (start, end), values in zip(node["intervals"], node["features"]):
              writer.writerow([video, start, end, *values])  # sentiment, happy, sad, anger, surprise, disgust, fear

Without `label.csv` a folder may hold one CSV of ids, `sentiment`, the six emotions and `mode`: labels without
transcripts, which is enough for counts and for tasks that read the picture alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_prep.readers.sample import Fault, Sample
from data_prep.readers.tables import identifier, number, read_table, transcript
from swift_plugins.files import InputError

EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
LABELS = {"sad": "sadness"}  # the paper's answers say Sadness; the column of the SDK says sad
MODES = {"train": "train", "dev": "valid", "test": "test"}
KEYS = ("video_id", "clip_id")
PEAK_FRAMES = True  # every MOSEI task of the paper looks at the peak frame


def read(
    root: Path, split: str, faults: list[Fault], ties: str = "first", all_zero: str = "neutral"
) -> Iterator[Sample]:
    """Yield the clips of a split in file order; `dev` is what MMSA calls `valid`.

    `sentiment` is the sign of the score, `neutral` for 0.0. `emotion` is the largest of the six (no official rule
    exists): `ties="first"` takes the first in the order of the SDK, `"drop"` gives the clip no emotion;
    `all_zero="neutral"` calls a clip without any emotion neutral, `"drop"` gives it none. Such a clip still has its
    sentiment. Both are counted in `faults` either way. Raises
    `InputError` for a folder without labels, a missing column, a score out of range, and a repeated clip.
    """
    root = Path(root)
    if split not in MODES:
        raise InputError(f"MOSEI has no split {split!r} (train, dev or test)")
    if ties not in ("first", "drop") or all_zero not in ("neutral", "drop"):
        raise InputError(f"ties is first or drop, all_zero is neutral or drop; not {ties!r} and {all_zero!r}")
    path, has_text = _labels(root)
    columns = {"score": "label", "text": "text"} if has_text else {"score": "sentiment", "text": None}
    rows: dict[tuple[str, str], tuple[int, dict[str, str], float]] = {}
    for line, row in read_table(path, [*KEYS, columns["score"], "mode", *(["text"] if has_text else EMOTIONS)]):
        key = _key(row, path, line)
        if key in rows:
            raise InputError(f"repeats clip {key[0]}/{key[1]}", path, line)
        if row["mode"].strip() not in MODES.values():
            raise InputError(f"mode is {row['mode']!r}, not one of train, valid, test", path, line)
        rows[key] = line, row, number(row[columns["score"]], columns["score"], path, line, -3, 3)
    if has_text:
        emotions = _emotions(root, {key: score for key, (_, _, score) in rows.items()}, faults)
        if strangers := [f"{video}/{clip}" for video, clip in emotions if (video, clip) not in rows]:
            detail = f"{len(strangers)} rows join to no clip of label.csv, the first is {strangers[0]}"
            faults.append(Fault("unjoined_emotions", "emotions.csv", detail))
    else:
        emotions = {key: _scores(row, path, line) for key, (line, row, _) in rows.items()}
        _report_below_zero((row.get("start", "") for _, row, _ in rows.values()), path, faults)
        faults.append(Fault("no_transcripts", f"mosei/{split}", f"{path.name} holds labels without transcripts"))
    for key, (_, row, score) in rows.items():
        if row["mode"].strip() != MODES[split]:
            continue
        sample_id = f"mosei/{split}/{key[0]}/{key[1]}"
        text = transcript(row["text"], sample_id, faults) if has_text else ""
        emotion = None
        if key in emotions:
            emotion = _emotion(emotions[key], sample_id, faults, ties, all_zero)
        elif emotions:
            faults.append(Fault("no_emotion", sample_id, "no emotion scores join to it; its emotion is unknown"))
        yield Sample(
            id=sample_id,
            dataset="mosei",
            split=split,
            text=text,
            video=f"Raw/{key[0]}/{key[1]}.mp4",
            emotion=emotion,
            sentiment="positive" if score > 0 else "negative" if score < 0 else "neutral",
            score=score,
        )


def durations(root: Path, split: str) -> dict[str, float]:
    """Seconds of each clip by sample id, where `emotions.csv` or the file of labels gives `start` and `end`."""
    root = Path(root)
    labels, has_text = _labels(root)
    modes = {_key(row, labels, line): row["mode"].strip() for line, row in read_table(labels, (*KEYS, "mode"))}
    times = root / "emotions.csv" if has_text else labels
    seconds = {}
    for line, row in read_table(times, KEYS) if times.is_file() else ():
        key = _key(row, times, line)
        if modes.get(key) == MODES[split] and row.get("start") and row.get("end"):
            start, end = (number(row[column], column, times, line, -1e6, 1e6) for column in ("start", "end"))
            seconds[f"mosei/{split}/{key[0]}/{key[1]}"] = end - max(start, 0.0)
    return seconds


def _labels(root: Path) -> tuple[Path, bool]:
    """The file of labels, and whether it holds transcripts."""
    if (root / "label.csv").is_file():
        return root / "label.csv", True
    found = []
    for path in sorted(root.glob("*.csv")):
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            header = {name.strip() for name in next(csv.reader(file), [])}
        if header.issuperset((*KEYS, "sentiment", "mode", *EMOTIONS)):
            found.append(path)
    if len(found) != 1:
        several = f" but {len(found)} files of labels: {', '.join(path.name for path in found)}" if found else ""
        raise InputError(f"is not a MOSEI folder: it holds no label.csv{several}", root)
    return found[0], False


def _emotions(
    root: Path, scores: dict[tuple[str, str], float], faults: list[Fault]
) -> dict[tuple[str, str], tuple[float, ...]]:
    """Six emotion scores per clip, from `emotions.csv` or `sdk_segments.csv`; empty where there is neither."""
    path = root / "emotions.csv"
    if path.is_file():
        emotions: dict[tuple[str, str], tuple[float, ...]] = {}
        starts = []
        for line, row in read_table(path, [*KEYS, *EMOTIONS]):
            starts.append(row.get("start", ""))
            key = _key(row, path, line)
            if key in emotions:
                raise InputError(f"repeats clip {key[0]}/{key[1]}", path, line)
            emotions[key] = _scores(row, path, line)
        _report_below_zero(starts, path, faults)
        return emotions
    path = root / "sdk_segments.csv"
    if path.is_file():
        return _join_segments(path, scores, faults)
    faults.append(Fault("no_emotions", "mosei", "neither emotions.csv nor sdk_segments.csv is there: no emotions"))
    return {}


def _join_segments(
    path: Path, scores: dict[tuple[str, str], float], faults: list[Fault]
) -> dict[tuple[str, str], tuple[float, ...]]:
    segments: dict[str, list[tuple[float, float, float, tuple[float, ...]]]] = {}
    starts = []
    for line, row in read_table(path, ["video_id", "start", "end", "sentiment", *EMOTIONS]):
        video = identifier(row["video_id"], "video_id", path, line)
        start = number(row["start"], "start", path, line, -1e6, 1e6)
        starts.append(row["start"])
        end = number(row["end"], "end", path, line, -1e6, 1e6)
        sentiment = number(row["sentiment"], "sentiment", path, line, -3, 3)
        segments.setdefault(video, []).append((start, end, sentiment, _scores(row, path, line)))
    _report_below_zero(starts, path, faults)
    clips: dict[str, list[str]] = {}
    for video, clip in scores:
        if not (clip.isascii() and clip.isdigit()):
            raise InputError(f"clip_id {clip!r} of {video} is not a number: cannot be joined to SDK segments", path)
        clips.setdefault(video, []).append(clip)
    emotions: dict[tuple[str, str], tuple[float, ...]] = {}
    for video, names in clips.items():
        waiting = sorted(segments.get(video, ()))
        spare = len(waiting) - len(names)
        for clip in sorted(names, key=int):
            # Both lists are in order of time. Only a surplus segment is stepped over, known by its sentiment.
            window = waiting[: max(spare, 0) + 1]
            step = next((i for i, segment in enumerate(window) if abs(segment[2] - scores[video, clip]) < 1e-3), None)
            if step is not None:
                emotions[video, clip] = waiting[step][3]
                waiting, spare = waiting[step + 1 :], spare - step
            elif spare < 0:
                spare += 1  # this clip has no segment; the waiting one may be the next clip's
            else:
                waiting = waiting[1:]
    return emotions


def _report_below_zero(starts: Iterable[str], path: Path, faults: list[Fault]) -> None:
    if count := sum(start.strip().startswith("-") for start in starts):
        faults.append(Fault("start_below_zero", path.name, f"{count} segments start below zero; taken as zero"))


def _emotion(scores: tuple[float, ...], sample_id: str, faults: list[Fault], ties: str, all_zero: str) -> str | None:
    top = max(scores)
    if top == 0:
        done = "taken as neutral" if all_zero == "neutral" else "no emotion taken"
        faults.append(Fault("emotion_all_zero", sample_id, f"no emotion is above zero; {done}"))
        return "neutral" if all_zero == "neutral" else None
    largest = [LABELS.get(name, name) for name, score in zip(EMOTIONS, scores, strict=True) if score == top]
    if len(largest) > 1:
        done = f"{largest[0]} taken" if ties == "first" else "no emotion taken"
        faults.append(Fault("emotion_tie", sample_id, f"{' = '.join(largest)}; {done}"))
        return largest[0] if ties == "first" else None
    return largest[0]


def _scores(row: dict[str, str], path: Path, line: int) -> tuple[float, ...]:
    return tuple(number(row[name], name, path, line, 0, 3) for name in EMOTIONS)


def _key(row: dict[str, str], path: Path, line: int) -> tuple[str, str]:
    return identifier(row["video_id"], "video_id", path, line), identifier(row["clip_id"], "clip_id", path, line)
