"""CMU-MOSEI in the layout of MMSA: read `label.csv`, join the emotions, and the clips `Raw/<video_id>/<clip_id>.mp4`.

    python -m data_prep.build_amt --mosei DIR --split train --out OUT

`label.csv` has `video_id, clip_id, text, label, mode` (further columns are not read). It holds no emotions: they come
from one of two files beside it, or stay unknown where there is neither.

- `emotions.csv`: `video_id, clip_id, happy, sad, anger, surprise, disgust, fear`, joined by the two ids.
- `sdk_segments.csv`: the labels of CMU-MultimodalSDK, one segment a row: `video_id, start, end, sentiment, happy,
  sad, anger, surprise, disgust, fear`. The SDK numbers segments otherwise than MMSA numbers clips, so both are put in
  order (start and end time, clip id as a number) and joined where the sentiments agree. Where a video has more or
  fewer segments than clips, a clip whose segment is not certain gets no emotion. To write the file from
  `CMU_MOSEI_Labels.csd` with h5py:

      for video, node in h5py.File(csd)["All Labels/data"].items():
          for (start, end), values in zip(node["intervals"], node["features"]):
              writer.writerow([video, start, end, *values])  # sentiment, happy, sad, anger, surprise, disgust, fear

Without `label.csv` a folder may hold one CSV of ids, `sentiment`, the six emotions and `mode`: labels without
transcripts, which is enough for counts and for tasks that read the picture alone.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.readers.sample import Fault, Sample, SplitAbsent
from data_prep.readers.tables import identifier, number, read_table, transcript
from swift_plugins.files import InputError

EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
LABELS = {"sad": "sadness"}  # the paper's answers say Sadness; the column of the SDK says sad
MODES = {"train": "train", "dev": "valid", "test": "test"}
KEYS = ("video_id", "clip_id")
PEAK_FRAMES = True  # every MOSEI task of the paper looks at the peak frame
COUNTED = ("clips", "negative", "zero", "positive", "all_zero", "ties")
# As MMSA cuts it: clips, signs of the sentiment, clips without an emotion, clips with a tie for the largest.
PUBLISHED = {
    "train": dict(zip(COUNTED, (16326, 4738, 3540, 8048, 2392, 2053), strict=True)),
    "dev": dict(zip(COUNTED, (1871, 506, 433, 932, 302, 224), strict=True)),
    "test": dict(zip(COUNTED, (4659, 1350, 1025, 2284, 702, 555), strict=True)),
}
# Which of the published videos have a BLAKE2b hash that begins with 00 to 04, one in fifty of any videos: enough to
# tell a part of the release, however it was cut, from data whose videos are others.
MARKS = """
0004e0 0006ac 000a91 001493 00209a 0027b3 002a1e 003b75 003bdf 00485e 004fcb 006d9a 007601 007909 0085e3
00892a 009bd1 009c8b 00ac30 00b14e 00ca4d 00e9c2 00ea64 01268c 012fd9 015bc8 015fcc 017748 01781d 01cd3f
01eaa6 0208f5 0228d7 02319c 024a20 025351 025eb8 026f43 026f53 028089 028d27 02a32a 02bbac 02cc59 02d1ff
02ea7b 02ecf3 030c29 03359b 034d78 036c64 037d43 03a2f2 03baa8 03c556 03d663 03dea4 03e1fe 03ee92 03fc1f
040cdf 040dfd 041110 044a0c 04609c 0465d9 047acb 048a59 04a004 04b091 04c471 04d5f2 04e016 04fa20
"""

Key = tuple[str, str]  # video_id, clip_id
Scores = tuple[float, ...]  # in the order of EMOTIONS


def read(
    root: Path, split: str, faults: list[Fault], ties: str = "first", all_zero: str = "neutral"
) -> Iterator[Sample]:
    """Yield the clips of a split in file order; `dev` is what MMSA calls `valid`.

    `sentiment` is the sign of the score, `neutral` for 0.0. `emotion` is the largest of the six (no official rule
    exists): `ties="first"` takes the first in the order of the SDK, `"drop"` gives the clip no emotion;
    `all_zero="neutral"` calls a clip without any emotion neutral, `"drop"` gives it none. Such a clip still has its
    sentiment. Both are counted in `faults` either way. Raises `SplitAbsent` for a folder without labels, `InputError`
    for a missing column, a score out of range, and a repeated clip.
    """
    root = Path(root)
    if split not in MODES:
        raise InputError(f"MOSEI has no split {split!r} (train, dev or test)")
    if ties not in ("first", "drop") or all_zero not in ("neutral", "drop"):
        raise InputError(f"ties is first or drop, all_zero is neutral or drop; not {ties!r} and {all_zero!r}")
    path, has_text = _labels(root)
    clips = _index(path, has_text)
    emotions, ambiguous = _emotions(root, clips, faults) if has_text else ([], set())
    if not has_text:
        _report_below_zero(clips.below_zero, path, faults)
        faults.append(Fault("no_transcripts", f"mosei/{split}", f"{path.name} holds labels without transcripts"))
    # The file once more, line by line, and not its rows kept: memory holds the ids and the scores alone.
    for place, (line, row) in enumerate(read_table(path, (*KEYS, "mode"))):
        if row["mode"].strip() != MODES[split]:
            continue
        video, clip = _key(row, path, line)
        score = clips.scores[place]
        sample_id = f"mosei/{split}/{video}/{clip}"
        text = transcript(row["text"], sample_id, faults) if has_text else ""
        emotion = None
        if scores := (emotions[place] if emotions else None) if has_text else _scores(row, path, line):
            emotion = _emotion(scores, sample_id, faults, ties, all_zero)
        elif place in ambiguous:
            faults.append(Fault("ambiguous_segment", sample_id, "several segments may be its own; no emotion taken"))
        elif emotions:
            faults.append(Fault("no_emotion", sample_id, "no emotion scores join to it; its emotion is unknown"))
        yield Sample(
            id=sample_id,
            dataset="mosei",
            split=split,
            text=text,
            video=f"Raw/{video}/{clip}.mp4",
            emotion=emotion,
            sentiment="positive" if score > 0 else "negative" if score < 0 else "neutral",
            score=score,
        )


def count(samples: list[Sample], faults: list[Fault]) -> dict[str, int]:
    """The numbers that `PUBLISHED` has of a split; without emotions those of the sentiment alone."""
    signs = Counter(sample.sentiment for sample in samples)
    counts = {"clips": len(samples), "negative": signs["negative"], "zero": signs["neutral"]}
    counts["positive"] = signs["positive"]
    if any(sample.emotion for sample in samples):
        kinds = Counter(fault.kind for fault in faults)
        counts |= {"all_zero": kinds["emotion_all_zero"], "ties": kinds["emotion_tie"]}
    return counts


def own_data(splits: Mapping[str, list[Sample]]) -> dict[str, str]:
    """Split → why it is no part of the published MOSEI: its videos are others. All splits stand in one file."""
    videos = {sample.id.split("/")[2] for samples in splits.values() for sample in samples}
    hashes = {hashlib.blake2b(video.encode(), digest_size=4).hexdigest()[:6] for video in videos}
    marked = {value for value in hashes if value < "05"}
    published = marked and all(value in MARKS for value in marked)
    return {} if published else dict.fromkeys(splits, "its videos are not those of the published MOSEI")


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


@dataclass
class _Clips:
    """The clips of the file of labels: their place in it by `video/clip`, their sentiment scores, and how many segments
    start below zero."""

    places: dict[str, int] = field(default_factory=dict)
    scores: array = field(default_factory=lambda: array("d"))
    below_zero: int = 0


def _index(path: Path, has_text: bool) -> _Clips:
    """Read the file of labels; `InputError` for a repeated clip, an unknown mode, a score that is none."""
    score = "label" if has_text else "sentiment"
    clips = _Clips()
    for line, row in read_table(path, [*KEYS, score, "mode", *(["text"] if has_text else EMOTIONS)]):
        key = "/".join(_key(row, path, line))
        if key in clips.places:
            raise InputError(f"repeats clip {key}", path, line)
        if row["mode"].strip() not in MODES.values():
            raise InputError(f"mode is {row['mode']!r}, not one of train, valid, test", path, line)
        if not has_text:
            _scores(row, path, line)
        clips.places[key] = len(clips.places)
        clips.scores.append(number(row[score], score, path, line, -3, 3))
        clips.below_zero += row.get("start", "").strip().startswith("-")
    return clips


def _labels(root: Path) -> tuple[Path, bool]:
    """The file of labels, and whether it holds transcripts."""
    if (root / "label.csv").is_file():
        return root / "label.csv", True
    found = []
    for path in sorted(root.glob("*.csv")):
        header = set()
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file, contextlib.suppress(csv.Error):
            header = {name.strip() for name in next(csv.reader(file), [])}
        if header.issuperset((*KEYS, "sentiment", "mode", *EMOTIONS)):
            found.append(path)
    if len(found) != 1:
        several = f" but {len(found)} files of labels: {', '.join(path.name for path in found)}" if found else ""
        raise SplitAbsent(f"is not a MOSEI folder: it holds no label.csv{several}", root)
    return found[0], False


def _emotions(root: Path, clips: _Clips, faults: list[Fault]) -> tuple[list[Scores | None], set[int]]:
    """Six emotion scores per clip, from `emotions.csv` or `sdk_segments.csv`; the clips whose segment is uncertain.

    Both are empty where there is neither file.
    """
    path = root / "emotions.csv"
    if path.is_file():
        return _join_by_id(path, clips, faults), set()
    path = root / "sdk_segments.csv"
    if path.is_file():
        return _join_segments(path, clips, faults)
    faults.append(Fault("no_emotions", "mosei", "neither emotions.csv nor sdk_segments.csv is there: no emotions"))
    return [], set()


def _join_by_id(path: Path, clips: _Clips, faults: list[Fault]) -> list[Scores | None]:
    """The emotions of `emotions.csv` by the place of their clip."""
    emotions: list[Scores | None] = [None] * len(clips.places)
    same: dict[Scores, Scores] = {}  # a few values make a few hundred tuples, kept once each
    strangers: dict[str, int] = {}
    below_zero = 0
    for line, row in read_table(path, [*KEYS, *EMOTIONS]):
        below_zero += row.get("start", "").strip().startswith("-")
        key, scores = "/".join(_key(row, path, line)), _scores(row, path, line)
        place = clips.places.get(key)
        if key in strangers or (place is not None and emotions[place] is not None):
            raise InputError(f"repeats clip {key}", path, line)
        if place is None:
            strangers[key] = line
        else:
            emotions[place] = same.setdefault(scores, scores)
    _report_below_zero(below_zero, path, faults)
    if strangers:
        detail = f"{len(strangers)} rows join to no clip of label.csv, the first is {next(iter(strangers))}"
        faults.append(Fault("unjoined_emotions", "emotions.csv", detail))
    return emotions


def _join_segments(path: Path, clips: _Clips, faults: list[Fault]) -> tuple[list[Scores | None], set[int]]:
    """The emotions of clips that are joined with certainty, and the clips that several segments fit."""
    segments = _segments(path, faults)
    videos: dict[str, list[tuple[int, int]]] = {}  # video → (clip as a number, place) of its clips
    for key, place in clips.places.items():
        video, _, clip = key.rpartition("/")
        if not (clip.isascii() and clip.isdigit()):
            raise InputError(f"clip_id {clip!r} of {video} is not a number: cannot be joined to SDK segments", path)
        videos.setdefault(video, []).append((int(clip), place))
    emotions: list[Scores | None] = [None] * len(clips.places)
    ambiguous: set[int] = set()
    joined = 0
    for video, names in videos.items():
        names.sort()
        there = segments.get(video, [])
        fitting = _align([clips.scores[place] for _, place in names], [sentiment for sentiment, _ in there])
        for (_, place), fits in zip(names, fitting, strict=True):
            found = {None if fit is None else there[fit][1] for fit in fits}
            if len(found) > 1:
                ambiguous.add(place)
            elif (only := found.pop()) is not None:
                emotions[place] = only
                joined += 1
    surplus, total = sum(map(len, segments.values())) - joined, len(clips.places)
    if surplus or joined < total:
        detail = (
            f"{joined:,} of {total:,} clips joined for certain ({joined / total:.1%}), by "
            f"order of time and equal sentiment; several segments fit {len(ambiguous):,} clips, none fits "
            f"{total - joined - len(ambiguous):,}: no emotion taken; {surplus:,} segments left over"
        )
        faults.append(Fault("segment_join", path.name, detail))
    return emotions, ambiguous


def _segments(path: Path, faults: list[Fault]) -> dict[str, list[tuple[float, Scores]]]:
    """Video → sentiment and emotion scores of its segments, in order of time."""
    timed: dict[str, list[tuple[float, float, float, Scores]]] = {}
    below_zero = 0
    for line, row in read_table(path, ["video_id", "start", "end", "sentiment", *EMOTIONS]):
        video = identifier(row["video_id"], "video_id", path, line)
        start, end = (number(row[name], name, path, line, -1e6, 1e6) for name in ("start", "end"))
        below_zero += row["start"].strip().startswith("-")
        sentiment = number(row["sentiment"], "sentiment", path, line, -3, 3)
        timed.setdefault(video, []).append((start, end, sentiment, _scores(row, path, line)))
    _report_below_zero(below_zero, path, faults)
    return {video: [(sentiment, scores) for *_, sentiment, scores in sorted(rows)] for video, rows in timed.items()}


def _align(clips: list[float], segments: list[float]) -> list[set[int | None]]:
    """For each clip the places of the segments that it can have, None for no segment, by sentiment.

    Both lists are in order of time. All those alignments count that keep the order and join the most clips to segments
    of equal sentiment (a longest common subsequence): where they differ about a clip, nothing tells which is right.
    """
    equal = [[abs(clip - segment) < 1e-3 for segment in segments] for clip in clips]
    n, m = len(clips), len(segments)
    if n == m and all(equal[i][i] for i in range(n)):
        return [{i} for i in range(n)]
    before = [[0] * (m + 1) for _ in range(n + 1)]  # the most pairs among the first i clips and j segments
    after = [[0] * (m + 1) for _ in range(n + 1)]  # among those from i and j on
    for i in range(n):
        for j in range(m):
            before[i + 1][j + 1] = max(before[i][j + 1], before[i + 1][j], before[i][j] + equal[i][j])
    for i in reversed(range(n)):
        for j in reversed(range(m)):
            after[i][j] = max(after[i + 1][j], after[i][j + 1], after[i + 1][j + 1] + equal[i][j])
    fitting: list[set[int | None]] = []
    for i in range(n):
        places: set[int | None] = {
            j for j in range(m) if equal[i][j] and before[i][j] + 1 + after[i + 1][j + 1] == before[n][m]
        }
        if any(before[i][j] + after[i + 1][j] == before[n][m] for j in range(m + 1)):
            places.add(None)
        fitting.append(places)
    return fitting


def _report_below_zero(count: int, path: Path, faults: list[Fault]) -> None:
    if count:
        faults.append(Fault("start_below_zero", path.name, f"{count} segments start below zero; taken as zero"))


def _emotion(scores: Scores, sample_id: str, faults: list[Fault], ties: str, all_zero: str) -> str | None:
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


def _scores(row: dict[str, str], path: Path, line: int) -> Scores:
    return tuple(number(row[name], name, path, line, 0, 3) for name in EMOTIONS)


def _key(row: dict[str, str], path: Path, line: int) -> Key:
    return identifier(row["video_id"], "video_id", path, line), identifier(row["clip_id"], "clip_id", path, line)
