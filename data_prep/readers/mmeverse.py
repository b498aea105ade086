"""MMEVerse: read the annotation tables of its sets, each as configs/mmeverse.yaml describes it.

    python -m data_prep.build_amt --mmeverse DIR --split train --out AMT [--mmeverse-sets mafw,bold]

Layout of DIR: `<NAME>.csv` of every set that is there, `<NAME>_AU_gpt.csv` with the reasons of its training clips,
`<NAME>_peak.json` with their peak frames ({stem: {"peak_index": int}}), and the clips where the file's `clips` says.
Only one of the two tables need be there; where both are, the rows are those of `<NAME>.csv`.
"""

from __future__ import annotations

import functools
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.readers.media import SUFFIXES
from data_prep.readers.sample import Fault, Sample, SplitAbsent
from data_prep.readers.tables import read_table, transcript
from swift_plugins.declared import fold
from swift_plugins.files import InputError, read_json
from swift_plugins.mmeverse import SETS, Set

MOST_REASON = 200  # words of a reason; the original cuts answers there
ANYBODY = "The person"  # where E3 names nobody
OPEN = ("hit_rate", "set_f")  # metrics of answers in open words
LABEL_COLUMNS = {"mer": "emotion", "mlmer": "emotions", "msa": "sentiment", "intent": "intent", "ov": "open_emotions"}
ROLE_TASKS = {role: task for task, role in LABEL_COLUMNS.items()}


class MmeverseReader:
    """The reader of one set: has what a reader module has (`data_prep.readers`)."""

    def __init__(self, name: str, described: Set):
        self.name, self.set = name, described

    @property
    def PUBLISHED(self) -> dict[str, dict[str, int]]:
        """What is published of the sizes of the splits."""
        return {split: {"clips": size} for split, size in (self.set.published or {}).items()}

    def tasks(self, split: str) -> tuple[str, ...]:
        """Training: the label tasks, both descriptions, reason and think; else what the set is scored by."""
        labelled = tuple(task for task in LABEL_COLUMNS if task != "ov" and task in self._label_tasks())
        if split == "train":
            return (*labelled, "audio", "image", "fer", "eri", "think")
        scored = self._scored_open()
        return tuple(task for task in labelled if task != scored) + (("ov",) if scored else ())

    def is_there(self, root: Path) -> bool:
        """Whether the folder holds a table of the set."""
        return any(path.is_file() for path in self._tables(root))

    def read(self, root: Path, split: str, faults: list[Fault], **options: Any) -> Iterator[Sample]:
        """Yield the clips of a split in the order of the table.

        Labels come in lower case. Raises `SplitAbsent` for a folder without a table of the set, `InputError` for a
        missing column, a blank or unknown label, and a clip that is listed twice, in whichever split.
        """
        path = self._table(Path(root))
        columns = self._columns(split)
        seen: dict[str, int] = {}
        elsewhere: Counter = Counter()
        empty = True
        for line, row in read_table(path, dict.fromkeys(columns.values())):
            where = self._split(row[columns["split"]])
            if where is None:
                elsewhere[row[columns["split"]].strip()] += 1
                continue
            name = self._clip(row, where, path, line)
            if name in seen:
                raise InputError(f"{name} is listed twice (first in line {seen[name]})", path, line)
            seen[name] = line
            if where == split:
                empty = False
                if sample := self._sample(row, name, split, columns, path, line, faults):
                    yield sample
        for value, count in elsewhere.items():
            faults.append(Fault("no_split", f"{path.name}", f"{count:,} rows of {value!r:.40} belong to no split here"))
        if empty:
            faults.append(Fault("no_split", f"{self.name}/{split}", "no clip is of this split; nothing read"))

    def records(self, root: Path, split: str, faults: list[Fault] | None = None) -> dict[str, dict[str, dict]]:
        """{"eri": {id: {"reason": text, "reasons": {task: text}}}} of the training clips of `<NAME>_AU_gpt.csv`.

        A reason of more than 200 words is cut there, which `faults` say.
        """
        path = self._tables(Path(root))[1]
        if split != "train" or not self.set.reasons or not path.is_file():
            return {}
        columns = self._columns(split, labels=False)
        wanted = {**columns, **{f"reason.{task}": column for task, column in self.set.reasons.items()}}
        made: dict[str, dict] = {}
        for line, row in read_table(path, dict.fromkeys(wanted.values())):
            if self._split(row[columns["split"]]) != "train":
                continue
            clip = self._id(split, self._clip(row, split, path, line))
            if clip in made:
                raise InputError(f"{clip.rpartition('/')[2]} is listed twice", path, line)
            reasons = {}
            for task, column in self.set.reasons.items():
                words = transcript(row[column], clip, []).split()
                if len(words) > MOST_REASON and faults is not None:
                    faults.append(Fault("reason_cut", clip, f"{column} has {len(words)} words; cut at {MOST_REASON}"))
                if words:
                    reasons[task] = " ".join(words[:MOST_REASON])
            made[clip] = {"reason": next(iter(reasons.values()), None), "reasons": reasons}
        return {"eri": made}

    def peaks(self, root: Path) -> dict[str, int]:
        """Stem of a clip → its peak frame, from 0; {} where there is no `<NAME>_peak.json`."""
        path = Path(root) / f"{self.set.name}_peak.json"
        if not path.is_file():
            return {}
        value = read_json(path)
        if not isinstance(value, dict):
            raise InputError("is no object, stem of a clip → peak_index", path)
        found = {}
        for stem, record in value.items():
            index = record.get("peak_index") if isinstance(record, dict) else None
            if isinstance(index, str) and re.fullmatch("[0-9]{1,9}", index):
                index = int(index)
            if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < 10**9:
                raise InputError(f"{stem!r:.60}: peak_index is {index!r:.40}, not the number of a frame", path)
            found[stem] = index
        return found

    def count(self, samples: list[Sample], faults: list[Fault]) -> dict[str, int]:
        """Clips, and clips per label."""
        counts = {"clips": len(samples)}
        for task in self._label_tasks():
            found: Counter = Counter()
            for sample in samples:
                gold = getattr(sample, LABEL_COLUMNS[task]) or ()
                found.update([gold] if isinstance(gold, str) else gold)
            counts |= {label: found[label.lower()] for label in self.set.labels.get(task, ())}
        return counts

    # The table

    def _tables(self, root: Path) -> tuple[Path, Path]:
        return Path(root) / f"{self.set.name}.csv", Path(root) / f"{self.set.name}_AU_gpt.csv"

    def _table(self, root: Path) -> Path:
        there = [path for path in self._tables(root) if path.is_file()]
        if not there:
            raise SplitAbsent(f"holds no {self.set.name}.csv, the table of {self.name}", root)
        return there[0]

    def _label_tasks(self) -> list[str]:
        return [ROLE_TASKS[role] for role in self.set.columns if role in ROLE_TASKS]

    def _scored_open(self) -> str:
        """The label task whose test rows are asked for in open words: "" where there is none."""
        return next((task for task, metric in self.set.metric.items() if metric in OPEN), "")

    def _columns(self, split: str, labels: bool = True) -> dict[str, str]:
        """Role → column, as far as they are the same for all rows of the split."""
        found = {role: self.set.column_of(role, split) for role in self.set.columns}
        roles = tuple(found) if labels else ("clip", "part", "split")
        return {role: column for role, column in found.items() if column and role in roles}

    def _split(self, cell: str) -> str | None:
        """The split that a cell stands for, None for one that is read in no split."""
        return next((split for split, values in self.set.splits.items() if fold(cell) in map(fold, values)), None)

    @functools.cached_property
    def _id_columns(self) -> dict[str, list[str]]:
        """Split → the columns that make up the name of a clip."""
        columns = {split: self._columns(split) for split in self.set.splits}
        return {split: [of[role] for role in ("clip", "part") if role in of] for split, of in columns.items()}

    def _id(self, split: str, name: str) -> str:
        return f"{self.name}/{split}/{name.replace('/', '_')}"

    def _clip(self, row: Mapping[str, str], split: str, path: Path, line: int) -> str:
        """The name of the clip as its file has it, without suffix."""
        cells = [row.get(column, "").strip() for column in self._id_columns[split]]
        value = "_".join(cells)
        place = PurePosixPath(value)
        if not all(cells) or not value.isprintable() or "\\" in value or place.is_absolute() or ".." in place.parts:
            raise InputError(f"{' and '.join(self._id_columns[split])} {value!r:.80} cannot name a clip", path, line)
        name = str(place.with_suffix("") if place.suffix.lower() in SUFFIXES else place)
        return name.zfill(self.set.digits) if name.isdecimal() else name

    def _sample(
        self, row: Mapping[str, str], name: str, split: str, columns: Mapping[str, str], path: Path, line: int, faults
    ) -> Sample | None:
        clip = self._id(split, name)
        found: dict[str, Any] = {}
        for task in self._label_tasks():
            role = LABEL_COLUMNS[task]
            label = self._gold(task, row[columns[role]], split, columns[role], path, line)
            if label is None:
                said = row[columns[role]].strip()
                faults.append(Fault("not_scored", clip, f"{said!r} is no label of {split}; left out"))
                return None
            found[role] = label
        scored = self._scored_open()
        if split != "train" and scored and scored != "ov":
            found["open_emotions"] = tuple(found.pop(LABEL_COLUMNS[scored]).split(", "))
        return Sample(
            id=clip,
            dataset=self.name,
            split=split,
            text=transcript(row[columns["text"]], clip, faults) if "text" in columns else "",
            speaker=(transcript(row[columns["speaker"]], clip, []).strip() or ANYBODY) if "speaker" in columns else "",
            video=self.set.clips.format(clip=name, split=split),
            descriptions=self._descriptions(row, clip) if split == "train" else None,
            **found,
        )

    def _gold(self, task: str, cell: str, split: str, column: str, path: Path, line: int) -> Any:
        """The label, or the labels, of a cell in lower case; None for one that the split leaves out."""
        if not cell.strip(" ;,"):
            raise InputError(f"{column} is blank", path, line)
        if task == "ov":
            words = (fold(part.strip("'\" ")) for part in re.split(r"[,;]", cell.strip("[] ")))
            return tuple(dict.fromkeys(filter(None, words)))
        parts = re.split("[;,]", cell) if task == "mlmer" else [cell]
        labels = [self._label(task, part, split, column, path, line) for part in parts if part.strip()]
        if None in labels or not labels:
            return None
        return tuple(dict.fromkeys(labels)) if task == "mlmer" else labels[0]

    def _label(self, task: str, cell: str, split: str, column: str, path: Path, line: int) -> str | None:
        labels = self.set.labels[task]
        values = self.set.values_of(split)
        if fold(cell) in values:
            return values[fold(cell)]
        known = {fold(label): label.lower() for label in labels}
        if task == "msa" and re.fullmatch(r"\s*[+-]?[0-9]{1,2}(\.[0-9]{1,20})?\s*", cell):  # a score has its sign
            return "neutral" if float(cell) == 0 else "positive" if float(cell) > 0 else "negative"
        if fold(cell) not in known:
            raise InputError(f"{column} is {cell.strip()[:60]!r}, not one of {', '.join(labels)}", path, line)
        return known[fold(cell)]

    def _descriptions(self, row: Mapping[str, str], clip: str) -> dict[str, str]:
        """Of what is heard and what is seen: of several columns one is drawn by the id."""
        found = {}
        for kind, columns in (("audio", self.set.audio), ("image", self.set.image)):
            if there := [column for column in columns if column in row]:
                column = random.Random(f"{clip}/{kind}").choice(there)
                found[kind] = " ".join(transcript(row[column], clip, []).split())
        return found


READERS = {name: MmeverseReader(name, described) for name, described in SETS.items()}


def there(root: Path, wanted: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """(the sets whose tables the folder holds, those of which it holds none), of all or of those that are wanted.

    Raises `InputError` for a name of no set, and where no table is there.
    """
    for name in wanted:
        if name not in READERS:
            raise InputError(f"--mmeverse-sets: {name} is none of its sets ({', '.join(READERS)})")
    names = [name for name in READERS if not wanted or name in wanted]
    found = [name for name in names if READERS[name].is_there(root)]
    if not found:
        raise InputError(f"holds no table of {', '.join(f'{READERS[name].set.name}.csv' for name in names)}", root)
    return found, [name for name in names if name not in found]
