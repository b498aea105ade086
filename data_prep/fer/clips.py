"""The clips that FER works on: a dataset's samples, each with its video and, where there are some, its CSV file."""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data_prep.readers import READERS, SPLITS
from data_prep.readers.media import ClipFinder
from data_prep.readers.sample import Fault, Sample
from swift_plugins.files import InputError


@dataclass(frozen=True)
class FerClip:
    """One clip to work on: `video` and `csv` are paths (None: there is none), `label` the dataset's emotion."""

    id: str
    video: Path | None
    csv: Path | None
    label: str | None
    csv_name: str  # where OpenFace's CSV is published, relative to the output folder's openface/
    no_csv: str = ""  # why `csv` is None


def find_clips(
    dataset: str, root: Path, csv: Path | None, splits: Iterable[str]
) -> tuple[dict[str, list[FerClip]], list[Fault]]:
    """The clips of each split in the order of the dataset, and the reader's faults.

    `csv` is the folder of CSV files, or None where OpenFace is called. Raises `InputError` for a folder that is not
    there or holds a CSV of none of the clips.
    """
    read, faults = READERS[dataset].read, []
    samples = {split: list(read(root, split, faults)) for split in splits}
    csvs: dict[str, Path | str] = {}
    if csv is not None:
        if not csv.is_dir():
            raise InputError("no such folder", csv)
        everything = [sample for part in samples.values() for sample in part]
        for split in SPLITS:
            if split not in samples:
                with contextlib.suppress(InputError):  # a split that is not there has no clips of the same name
                    everything += read(root, split, [])
        for part in samples.values():
            csvs |= find_csvs(csv, part, everything)
        if csvs and not any(isinstance(path, Path) for path in csvs.values()):
            reason = f"holds a CSV of none of the {len(csvs)} clips; the first: {next(iter(csvs.values()))}"
            raise InputError(reason, csv)
    finder = ClipFinder(root)
    return {
        split: [_clip(sample, finder, csvs.get(sample.id)) for sample in part] for split, part in samples.items()
    }, faults


def find_csvs(folder: Path, samples: Iterable[Sample], everything: Iterable[Sample]) -> dict[str, Path | str]:
    """For each sample id the user's CSV under `folder`, or the reason why there is none.

    Tried in this order: the clip's path (`train_splits/dia0_utt0.csv`), the id without the dataset
    (`train/dia0_utt0.csv`), and the clip's bare name where `everything`, all splits, has it only once.
    """
    names = collections.Counter(Path(sample.id).name for sample in everything)
    found: dict[str, Path | str] = {}
    for sample in samples:
        bare = Path(sample.id).name
        tried = [f"{sample.id.partition('/')[2]}.csv"]
        if sample.video is not None:
            tried.insert(0, os.fspath(Path(sample.video).with_suffix(".csv")))
        if names[bare] == 1:
            tried.append(f"{bare}.csv")
        path = next((folder / name for name in tried if (folder / name).is_file()), None)
        found[sample.id] = path or f"no CSV for it (looked for {', '.join(tried)})"
    return found


def _clip(sample: Sample, finder: ClipFinder, csv: Path | str | None) -> FerClip:
    name = Path(sample.video) if sample.video else Path(sample.id.partition("/")[2])
    return FerClip(
        id=sample.id,
        video=finder.root / finder.find(sample.video) if sample.video else None,
        csv=csv if isinstance(csv, Path) else None,
        label=sample.emotion,
        csv_name=os.fspath(name.with_suffix(".csv")),
        no_csv=csv if isinstance(csv, str) else "",
    )
