"""Whether a result file holds the rows that it should, and what the training rows hold of them: from AMT folders.

An AMT folder is what `build_amt` writes: `<dataset>.<task>.<split>.jsonl` and `report.<split>.json`. Which folders to
look into follows from the files that a user names (`--built`, `--rows`), else from AMT_DATA.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swift_plugins.build_report import read_report
from swift_plugins.files import InputError, read_rows
from swift_plugins.scoring.results import Channel, scored_as

SHOWN = 3  # ids that are named of those that are missing or too many


@dataclass(frozen=True)
class Coverage:
    """The rows of one channel against those that were built. missing, surplus: ids; file: where the built rows are."""

    file: Path
    expected: int
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether every built row is answered, and nothing else."""
        return not self.missing and not self.surplus

    def as_json(self) -> dict[str, Any]:
        """Counts, and the first ids of each kind."""
        return {
            "file": str(self.file),
            "expected": self.expected,
            "missing": len(self.missing),
            "surplus": len(self.surplus),
            "first_missing": self.missing[:SHOWN],
            "first_surplus": self.surplus[:SHOWN],
        }

    def __str__(self) -> str:
        if self.whole:
            return f"all {self.expected:,} rows of {self.file}"
        parts = [
            f"{len(ids):,} {words} ({', '.join(ids[:SHOWN])}{', …' if len(ids) > SHOWN else ''})"
            for ids, words in ((self.missing, f"of {self.expected:,} rows are missing"), (self.surplus, "are no rows"))
            if ids
        ]
        return f"INCOMPLETE against {self.file}: {'; '.join(parts)}"


class AmtFolders:
    """The AMT folders beside the files that were named, in their order."""

    def __init__(self, files: Iterable[Path]):
        folders = [file.parent for file in files] + ([Path(data)] if (data := os.environ.get("AMT_DATA")) else [])
        self.folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]

    def coverage(self, channel: Channel) -> Coverage | None:
        """The channel's ids against those of the row file of its split; None without ids or without such a file."""
        splits = {name.split("/")[1] for name in channel.ids if name.count("/") >= 2}
        if len(splits) != 1 or "" in channel.ids:
            return None
        name = f"{channel.dataset}.{channel.task.key}.{splits.pop()}.jsonl"
        path = next((folder / name for folder in self.folders if (folder / name).is_file()), None)
        if path is None:
            return None
        built = [row["id"] for _, row in read_rows(path) if scored_as(row.get("channel", ""))[0] == channel.name]
        here, wanted = set(channel.ids), set(built)
        missing = [name for name in built if name not in here]
        return Coverage(path, len(built), missing, sorted(here - wanted))

    def absent(self, channels: Iterable[Channel]) -> list[str]:
        """The row files of the channels' splits of which no row is answered."""
        channels = list(channels)
        splits = {name.split("/")[1] for channel in channels for name in channel.ids[:1] if name.count("/") >= 2}
        there = {f"{channel.dataset}.{channel.task.key}" for channel in channels}
        files = {path.name for folder in self.folders for split in splits for path in folder.glob(f"*.*.{split}.jsonl")}
        return sorted(file for file in files if file.rsplit(".", 2)[0] not in there)

    def dialogues(self, dataset: str, split: str) -> list[str] | None:
        """The ids of every dialogue of a split, in the owners' order, from its report; None where there is none."""
        for folder in self.folders:
            path = folder / f"report.{split}.json"
            if path.is_file() and (found := read_report(path).dialogues.get(dataset)):
                return found
        return None


def training_note(channel: Channel, built: Path | None) -> str:
    """How much of what a channel is scored on stands in the training rows, as their report counted it."""
    splits = {name.split("/")[1] for name in channel.ids if name.count("/") >= 2} or {"test"}
    held_out = f"{channel.dataset}:{sorted(splits)[0]}"
    if built is None:
        return f"whether the training rows hold {held_out} is not known (--built report.train.json tells)"
    report = read_report(built)
    if report.split != "train" or report.clips is None:
        raise InputError("is not the report.train.json that build_amt wrote", built)
    counts = {dataset: of[held_out] for dataset, of in (report.overlap or {}).items() if held_out in of}
    if not counts:
        return f"whether the training rows hold {held_out} is not known ({built} does not say)"
    found = [
        f"{dataset} rows hold {count.utterances:,} of its {count.of:,} utterances"
        for dataset, count in counts.items()
        if count.utterances
    ]
    if not found:
        return f"no utterance of {held_out} stands in the training rows ({built})"
    return f"CONTAMINATED by training on {held_out}: {', '.join(found)} ({built})"


def submission(channel: Channel, files: Sequence[Path], folders: AmtFolders) -> list[dict]:
    """Strict answers in the format of SemEval-2024 Task 3 subtask 2: every conversation of the split, in its order.

    Raises InputError when a row does not say which conversation it is from, and where no report lists them all: the
    owners' evaluate.py refuses a file without the conversations that have no target.
    """
    pairs: dict[str, set] = {}
    for target, prediction, (file, line) in zip(channel.keys, channel.strict, channel.places, strict=True):
        if not (target.dialogue or "").rpartition("dia")[2].isdigit():
            reason = "does not say which conversation it is from: give the AMT rows it was made of with --rows"
            raise InputError(reason, files[file], line)
        pairs.setdefault(target.dialogue.rpartition("/")[2], set()).update(prediction or ())
    splits = {name.split("/")[1] for name in channel.ids if name.count("/") >= 2} or {"test"}
    dialogues = folders.dialogues(channel.dataset, sorted(splits)[0])
    if dialogues is None:
        raise InputError(
            "--semeval-submission needs every conversation of the split: give its AMT folder (--rows or --built with a "
            f"file in it, or AMT_DATA), with a report.{sorted(splits)[0]}.json of this version"
        )
    known = {dialogue.rpartition("/")[2] for dialogue in dialogues}
    if unknown := sorted(set(pairs) - known):
        raise InputError(f"{unknown[0]} is no conversation of the split whose report was given")
    return [
        {
            "conversation_ID": int(dialogue.rpartition("dia")[2]),
            "emotion-cause_pairs": [
                [f"{index}_{emotion}", str(cause)]
                for index, emotion, cause in sorted(pairs.get(dialogue.rpartition("/")[2], ()))
            ],
        }
        for dialogue in dialogues
    ]
