"""DFEW: read the single-labelled clips of one of its five sets.

    python -m data_prep.build_amt --dfew DIR --dfew-set 1 --split test --out OUT

Layout of DIR: `EmoLabel_DataSplit/{train,test}(single-labeled)/set_<1-5>.csv`, in older copies
`label/single_{train,test}set_<1-5>.csv`, with the columns `video_name,label`; clips `1.mp4` or `00001.mp4` in
`Clip/original/` or folders in it, in `Clip/clip_224x224_avi/`, or in `video/`. Labels 1 to 7 are happy, sad, neutral,
angry, surprise, disgust, fear, as the release's README says. The sets are those of its 5-fold cross-validation: test
clips of one are training clips of the others. There is no dev split and there are no transcripts: `text` is blank.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.readers.media import SUFFIXES
from data_prep.readers.sample import Fault, Sample, SplitAbsent
from data_prep.readers.tables import read_table
from swift_plugins.files import InputError

EMOTIONS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")  # label 1 to 7
SETS = ("1", "2", "3", "4", "5")
TASKS = ("mer",)
COLUMNS = ("video_name", "label")
FOLDERS = ("Clip/original", "Clip/clip_224x224_avi", "video")
LISTS = (
    "EmoLabel_DataSplit/{split}(single-labeled)/set_{number}.csv",
    "EmoLabel_DataSplit/{split}(single_labeled)/set_{number}.csv",
    "label/single_{split}set_{number}.csv",
)
PUBLISHED = {"train": {"clips": 9356}, "test": {"clips": 2341}}  # of set 1, after clips without a face went


def read(root: Path, split: str, faults: list[Fault], number: str = "1") -> Iterator[Sample]:
    """Yield the clips of a split of set `number` in file order.

    Raises `SplitAbsent` for a folder without the split's list, `InputError` for a missing column, a name that is no
    number, a label that is not 1 to 7, and a clip that is listed twice.
    """
    root = Path(root)
    if split not in ("train", "dev", "test"):
        raise InputError(f"DFEW has no split {split!r} (train, dev or test)")
    if number not in SETS:
        raise InputError(f"DFEW has no set {number!r} (one of {', '.join(SETS)})")
    if split == "dev" and any(_list(root, other, number).is_file() for other in ("train", "test")):
        faults.append(Fault("no_split", f"dfew/{split}", "DFEW publishes no dev split; nothing read"))
        return
    path = _list(root, split, number)
    if not path.is_file():
        raise SplitAbsent(f"is not a DFEW folder: it holds no {path.relative_to(root)}", root)
    clips = _clips(root)
    seen: set[int] = set()
    for line, row in read_table(path, COLUMNS):
        clip = _whole(row, "video_name", path, line)
        label = _whole(row, "label", path, line)
        if not 1 <= label <= len(EMOTIONS):
            raise InputError(
                f"label is {row['label']!r}, not one of 1 to {len(EMOTIONS)} ({', '.join(EMOTIONS)})", path, line
            )
        if clip in seen:
            raise InputError(f"lists clip {clip} a second time", path, line)
        seen.add(clip)
        yield Sample(
            id=f"dfew/{split}/{clip:05}",
            dataset="dfew",
            split=split,
            text="",
            video=clips.get(clip, f"{FOLDERS[0]}/{clip}.mp4"),
            emotion=EMOTIONS[label - 1],
        )


def count(samples: list[Sample], faults: list[Fault]) -> dict[str, int]:
    """The numbers that `PUBLISHED` has of a split."""
    return {"clips": len(samples)}


def _list(root: Path, split: str, number: str) -> Path:
    """The list of a split and set, in the first layout that is there."""
    paths = [root / pattern.format(split=split, number=number) for pattern in LISTS]
    return next((path for path in paths if path.is_file()), paths[0])


def _clips(root: Path) -> dict[int, str]:
    """Number of a clip → its path relative to the root, from the first of `FOLDERS` that holds clips."""
    for folder in FOLDERS:
        found = {
            int(path.stem): path.relative_to(root).as_posix()
            for path in sorted((root / folder).rglob("*"))
            if path.suffix.lower() in SUFFIXES and path.stem.isascii() and path.stem.isdigit()
        }
        if found:
            return found
    return {}


def _whole(row: dict[str, str], column: str, path: Path, line: int) -> int:
    value = row[column].strip()
    if not (value.isascii() and value.isdigit()) or len(value) > 6:
        raise InputError(f"{column} is {row[column]!r}, not a whole number", path, line)
    return int(value)
