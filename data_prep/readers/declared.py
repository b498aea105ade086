"""A dataset without code: reads what a file like configs/datasets/mine.yaml declares (`swift_plugins.declared`).

    python -m data_prep.build_amt --data configs/datasets/mine.yaml --split train --out OUT

The source is a table (CSV, TSV, JSON, JSON lines), one for all splits or one for each, a folder of clips whose
sub-folders are the labels, or another dataset of this project under other label words.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from data_prep.readers.media import SUFFIXES
from data_prep.readers.sample import Fault, Sample, SplitAbsent, Utterance
from data_prep.readers.tables import read_records, transcript
from swift_plugins.declared import LABELLED, SPLITS, Declared, fold
from swift_plugins.files import InputError

# What owners call the splits; values.split of the file names others.
SPLIT_NAMES = {"train": "train", "training": "train", "dev": "dev", "val": "dev", "valid": "dev", "test": "test"}
SPLIT_NAMES |= {"validation": "dev", "development": "dev", "testing": "test"}


@dataclass(frozen=True)
class Row:
    """One line of the table. clip: its cell as it stands; video: path of the clip relative to the root, or None."""

    file: Path
    line: int
    clip: str
    video: str | None
    split: str
    text: str | None  # None: the table has no transcripts
    speaker: str
    dialogue: str
    turn: int | None
    emotion: str | None
    sentiment: str | None
    causes: tuple[int, ...] | None


class DeclaredReader:
    """The reader of one declared dataset: has what a reader module has (`data_prep.readers`)."""

    def __init__(self, declared: Declared, readers: Mapping[str, Any] = MappingProxyType({})):
        self.declared = declared
        self.readers = readers  # among which the one is whose samples get other label words
        self.root = declared.home  # where the data are unless a command says otherwise
        self.PEAK_FRAMES = declared.peak_frames

    @property
    def TASKS(self) -> tuple[str, ...]:
        """The tasks that rows are built for: those that the file lists, else those that its columns can fill."""
        given, columns = self.declared.tasks, self.declared.columns
        if given is not None:
            return tuple(given)
        mer = "emotion" in columns or self.declared.is_folder or "mer" in self.declared.labels
        found = {"msa": "msa" in self.declared.labels, "mer": mer, "fer": True, "eri": mer, "ecpe": "causes" in columns}
        return tuple(task for task, there in found.items() if there)

    def read(self, root: Path, split: str, faults: list[Fault], **options: Any) -> Iterator[Sample]:
        """Yield the clips of a split in the order of the table.

        A label is written as the file's `labels` write it, in lower case. Ids are `<name>/<split>/<clip>`, and
        `<name>/<split>/<dialogue>_utt<turn>` where there are dialogues. Raises `SplitAbsent` for a folder without the
        table, `InputError` for a missing column, an unknown label or split, a clip that is named twice, a path that
        leads out of the folder, a cause that is no line of its dialogue, and a split rule that leaves a split empty.
        `options` are those of the reader whose dataset this is under other words.
        """
        if split not in SPLITS:
            raise InputError(f"{self.declared.name} has no split {split!r} (train, dev or test)")
        if self.declared.reader:
            yield from self._renamed(Path(root), split, faults, options)
            return
        rows = self._rows(Path(root))
        _refuse_twice(rows)
        if not any(row.split for row in rows):
            rows = by_rule(rows, self.declared)
        faults += _shared_speakers(rows, self.declared.name)
        rows = [row for row in rows if row.split == split]
        if not rows:
            detail = f"no clip is of this split; nothing read (values.split or split of {self.declared.path} makes one)"
            faults.append(Fault("no_split", f"{self.declared.name}/{split}", detail))
        yield from self._samples(rows, split, faults)

    def count(self, samples: list[Sample], faults: list[Fault]) -> dict[str, int]:
        """Clips, and clips per label."""
        counts = {"clips": len(samples)}
        for role, task in LABELLED.items():
            found = Counter(getattr(sample, role) for sample in samples)
            counts |= {label: found[label.lower()] for label in self.declared.labels.get(task, ())}
        return counts

    def _samples(self, rows: list[Row], split: str, faults: list[Fault]) -> Iterator[Sample]:
        ids = {id(row): f"{self.declared.name}/{split}/{_name(row)}" for row in rows}
        texts = {id(row): "" if row.text is None else transcript(row.text, ids[id(row)], faults) for row in rows}
        dialogues: dict[str, list[Utterance]] = defaultdict(list)
        for row in rows:
            if row.dialogue and row.turn is not None:
                line = Utterance(row.turn, row.speaker, texts[id(row)], row.emotion or "")
                dialogues[row.dialogue].append(line)
        lines = {name: tuple(sorted(part, key=lambda line: line.index)) for name, part in dialogues.items()}
        for row in rows:
            conversation = lines.get(row.dialogue, ())
            there = {line.index for line in conversation}
            if unknown := [cause for cause in row.causes or () if cause not in there]:
                raise InputError(f"cause {unknown[0]} is no line of dialogue {row.dialogue}", row.file, row.line)
            yield Sample(
                id=ids[id(row)],
                dataset=self.declared.name,
                split=split,
                text=texts[id(row)],
                speaker=row.speaker,
                video=row.video,
                emotion=row.emotion,
                sentiment=row.sentiment,
                conversation=conversation,
                index=row.turn if conversation else None,
                causes=row.causes,
            )

    # The table

    def _rows(self, root: Path) -> list[Row]:
        declared = self.declared
        if declared.is_folder:
            return self._folder(root)
        sources = declared.source if isinstance(declared.source, dict) else {"": str(declared.source)}
        rows: list[Row] = []
        turns: Counter = Counter()
        for split, name in sources.items():
            path = root / name
            if path.is_dir():
                raise InputError("source is a folder of clips: write it with a / at its end", declared.path)
            if not path.is_file():
                raise SplitAbsent(f"holds no {name}, which {declared.path} names as the table", root)
            table = read_records(path, declared.columns.values(), declared.delimiter, declared.encoding)
            for line, record in table:
                cells = {role: record[column] for role, column in declared.columns.items()}
                rows.append(self._row(cells, split, turns, root, path, line))
        return rows

    def _row(self, cells: dict[str, Any], split: str, turns: Counter, root: Path, path: Path, line: int) -> Row:
        if any("\udc80" <= char <= "\udcff" for value in cells.values() if isinstance(value, str) for char in value):
            reason = f"is not UTF-8; `encoding` in {self.declared.path} says what it is (gb18030, cp1252, …)"
            raise InputError(reason, path, line)
        words = {role: _cell(value) for role, value in cells.items() if role not in ("transcript", "causes")}
        split = split or self._split(words, path, line)
        dialogue, turn = words.get("dialogue", ""), None
        if dialogue:
            turns[split, dialogue] += 1
            turn = _whole(words["turn"], "turn", path, line) if "turn" in words else turns[split, dialogue]
        text = None if "transcript" not in cells else "" if cells["transcript"] is None else str(cells["transcript"])
        return Row(
            file=path,
            line=line,
            clip=words["clip"],
            video=self._video(words | {"split": split}, root, path, line),
            split=split,
            text=text,
            speaker=words.get("speaker", ""),
            dialogue=dialogue,
            turn=turn,
            emotion=self._label("emotion", words.get("emotion", ""), path, line),
            sentiment=self._label("sentiment", words.get("sentiment", ""), path, line),
            causes=_causes(cells["causes"], path, line) if "causes" in cells else None,
        )

    def _label(self, role: str, cell: str, path: Path, line: int) -> str | None:
        """A cell as the labels write it, in lower case; None where it is empty or stands for no label."""
        if not cell:
            return None
        values: dict = self.declared.values.get(role, {})  # type: ignore[call-overload]
        named = {fold(str(value)): label for value, label in values.items()}
        labels = {fold(label): label for label in self.declared.labels[LABELLED[role]]}
        if fold(cell) in named:
            label = named[fold(cell)]
            return None if label is None else labels[fold(label)].lower()
        if fold(cell) not in labels:
            known = ", ".join(self.declared.labels[LABELLED[role]])
            raise InputError(
                f"{role} is {cell[:60]!r}, not one of {known}; {self.declared.path} names it under labels."
                f"{LABELLED[role]}, or under values.{role} as one of them (null: no label)",
                path,
                line,
            )
        return labels[fold(cell)].lower()

    def _split(self, words: dict[str, str], path: Path, line: int) -> str:
        if "split" not in words:
            return ""
        values = {fold(str(value)): split for value, split in self.declared.values.get("split", {}).items()}
        found = (SPLIT_NAMES | values).get(fold(words["split"]))
        if found is None and fold(words["split"]) not in values:
            raise InputError(
                f"split is {words['split']!r}, not train, dev or test; values.split of {self.declared.path} says which",
                path,
                line,
            )
        return found or "none"

    def _video(self, words: dict[str, str], root: Path, path: Path, line: int) -> str | None:
        """The clip's path relative to the root; `InputError` for one outside of it."""
        if not words["clip"]:
            raise InputError("names no clip", path, line)
        if not all(words[field].isprintable() for field in words):
            raise InputError("holds a line break or another control character in a name", path, line)
        if self.declared.clips is None:
            return None
        name = self.declared.clips.format_map(defaultdict(str, words)).replace("\\", "/")
        if PurePosixPath(name).is_absolute() and Path(name).is_relative_to(root.resolve()):
            name = Path(name).relative_to(root.resolve()).as_posix()
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(
                f"clip {name} is not in the data's folder {root} (root of the file, or --root)", path, line
            )
        return name

    def _folder(self, root: Path) -> list[Row]:
        """A row for every clip of `<source>/<label>/`."""
        top = root / str(self.declared.source)
        if not top.is_dir():
            raise SplitAbsent("no such folder of clips", top)
        clips = [path for path in sorted(top.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
        if not clips:
            raise InputError("holds no clip", top)
        rows = []
        for path in clips:
            parts = path.relative_to(top).parts
            if len(parts) < 2:
                raise InputError("lies in no sub-folder, whose name would be its label", path)
            split = SPLIT_NAMES.get(fold(parts[0])) if len(parts) > 2 else None
            emotion = self._label("emotion", parts[1 if split else 0], path, 1)
            video = path.relative_to(root).as_posix()
            clip = path.relative_to(top).as_posix()
            rows.append(Row(path, 1, clip, video, split or "", None, "", "", None, emotion, None, None))
        return rows

    def _original(self) -> Any:
        """The reader whose samples get other label words; None where there is a table."""
        if self.declared.reader is None:
            return None
        known = {name: reader for name, reader in self.readers.items() if not isinstance(reader, DeclaredReader)}
        if self.declared.reader not in known:
            raise InputError(f"reader: {self.declared.reader} is not one of {', '.join(known)}", self.declared.path)
        return known[self.declared.reader]

    def known_bad_clips(self, split: str) -> dict[str, str]:
        """Sample id → path of a clip that is bad in the release of the dataset that is read."""
        found: dict[str, str] = getattr(self._original(), "known_bad_clips", lambda split: {})(split)
        return {f"{self.declared.name}/{clip.partition('/')[2]}": path for clip, path in found.items()}

    def _renamed(self, root: Path, split: str, faults: list[Fault], options: dict) -> Iterator[Sample]:
        """The samples of another reader, under this name and these label words."""
        reader, name = self._original(), self.declared.name
        where = Path(self.declared.path)
        for sample in reader.read(root, split, faults, **options):
            emotion, sentiment = (
                self._label(role, value, where, 1) if value and LABELLED[role] in self.declared.labels else value
                for role, value in (("emotion", sample.emotion), ("sentiment", sample.sentiment))
            )
            own_id = f"{name}/{sample.id.partition('/')[2]}"
            yield replace(sample, id=own_id, dataset=name, emotion=emotion, sentiment=sentiment)


def _cell(value: object) -> str:
    """A cell's text; what is no text in JSON (an id that is a number) is written as one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else unicodedata.normalize("NFC", str(value)).strip()


def _whole(value: str, column: str, path: Path, line: int) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > 6:
        raise InputError(f"{column} is {value!r}, not a whole number", path, line)
    return int(value)


def _causes(value: object, path: Path, line: int) -> tuple[int, ...] | None:
    """`1;3`, `1, 3` or [1, 3] → (1, 3); an empty cell: annotated, and without a cause; null: not annotated."""
    if value is None:
        return None
    parts = value if isinstance(value, list) else re.split(r"[;,\s]+", str(value).strip("[] "))
    return tuple(dict.fromkeys(_whole(_cell(part), "causes", path, line) for part in parts if _cell(part)))


def _name(row: Row) -> str:
    """The part of an id that names the clip: no folders, no suffix of a clip."""
    if row.dialogue and row.turn is not None:
        return f"{row.dialogue.replace('/', '_')}_utt{row.turn}"
    path = PurePosixPath(row.clip.replace("\\", "/"))
    path = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    return "_".join(part for part in path.parts if part not in ("/", ".."))


def _refuse_twice(rows: Iterable[Row]) -> None:
    """`InputError` for a clip, or a line of a dialogue, that comes twice, in whichever split."""
    seen: dict[tuple[str, str], Row] = {}
    for row in rows:
        video = None if row.dialogue else row.video  # several lines of a dialogue may be seen in one clip
        for key in [(row.split, _name(row))] + ([("", video)] if video else []):
            if first := seen.get(key):
                before = f"line {first.line}" if first.file == row.file else f"{first.file}:{first.line}"
                raise InputError(f"{key[1]} is named twice (first in {before})", row.file, row.line)
            seen[key] = row


def _shared_speakers(rows: Iterable[Row], name: str) -> list[Fault]:
    """Speakers who are heard in training and elsewhere."""
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row.speaker].add(row.split)
    return [
        Fault("shared_speaker", f"{name}/{speaker}", f"has clips in {' and '.join(sorted(found))}")
        for speaker, found in sorted(splits.items())
        if speaker and "train" in found and len(found) > 1
    ]


# Splits


def by_rule(rows: list[Row], declared: Declared) -> list[Row]:
    """The rows with their splits: groups of rows in the order of a keyed hash go to test, then to dev, until those have
    their share of the clips; the others train. A group never stands in two splits.

    Where clips have dialogues, a group keeps whole dialogues together, and with `by: speaker` whole speakers as well.
    """
    by = declared.split.by if declared.split else _default(declared)
    rule = declared.split
    dev, test, seed = (rule.dev, rule.test, rule.seed) if rule else (0.1, 0.2, 42)
    if by != "clip" and by not in declared.columns:
        raise InputError(f"split: by {by} needs columns.{by}", declared.path)
    if by == "clip" and "dialogue" in declared.columns:
        raise InputError("split: by clip would cut dialogues in two: take dialogue or speaker", declared.path)
    groups = _groups(rows, by)
    names = {group: min(_name(row) for row in part) for group, part in groups.items()}
    order = sorted(groups, key=lambda group: hashlib.blake2b(f"{seed}\x1f{names[group]}".encode()).digest())
    wanted = {"test": test * len(rows), "dev": dev * len(rows)}
    counts = dict.fromkeys(wanted, 0.0)
    chosen = {}
    for group in order:
        size = len(groups[group])
        # A group goes where it brings a split nearer to its share.
        chosen[group] = next((s for s in wanted if wanted[s] and counts[s] + size / 2 <= wanted[s]), "train")
        counts[chosen[group]] = counts.get(chosen[group], 0) + size
    for split in ("train", *(name for name in wanted if wanted[name])):
        if split not in chosen.values():
            raise InputError(
                f"split: by {by} leaves no clip for {split}: {len(rows):,} clips are {len(groups):,} groups, the "
                f"largest of {max(map(len, groups.values())):,}; split by something else, or in a column",
                declared.path,
            )
    places = {id(row): chosen[group] for group, part in groups.items() for row in part}
    return [replace(row, split=places[id(row)]) for row in rows]


def _default(declared: Declared) -> str:
    return next((by for by in ("dialogue", "speaker") if by in declared.columns), "clip")


def _groups(rows: list[Row], by: str) -> dict[int, list[Row]]:
    """Rows that belong together: connected by a dialogue or, with `by` speaker, by a speaker (union-find)."""
    parents = list(range(len(rows)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = place = parents[parents[place]]
        return place

    first: dict[tuple[str, str], int] = {}
    for place, row in enumerate(rows):
        keys = [("dialogue", row.dialogue)] + ([("speaker", row.speaker)] if by == "speaker" else [])
        for key in (key for key in keys if key[1]):
            parents[root(place)] = root(first.setdefault(key, place))
    groups: dict[int, list[Row]] = defaultdict(list)
    for place, row in enumerate(rows):
        groups[root(place)].append(row)
    return groups
