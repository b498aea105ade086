"""AMT rows and result files to look through, clip by clip: found by channel, by their words, by whether they are wrong.

    shelf = Shelf(amt_files("amt"), ["result.jsonl"], media_root="raw", fer=["raw/mosei/fer.jsonl"])
    shelf.find("meld.mer", wrong=True, text="late")       # numbers of rows
    shelf.page(17)                                        # all that is known of one row and of its clip

Rows stay on the disk; in memory is what they are found by, some hundred bytes a row.
"""

from __future__ import annotations

import os
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from data_prep.fer.au_table import BLINK, INTENSITIES, OpenFaceError, read_faces
from data_prep.readers.media import SUFFIXES
from swift_plugins.files import InputError, read_rows, read_rows_at, validated
from swift_plugins.rows import check_row
from swift_plugins.scoring.results import media_of, printable, query_of, scored_as
from swift_plugins.tasks import Task, task_of

LONGEST = 4_000  # characters of a row that are searched


def amt_files(folder: Path) -> list[Path]:
    """The row files of an AMT folder, in order of name; `InputError` where there are none."""
    files = sorted(folder.glob("*.*.*.jsonl"))  # not faults.<split>.jsonl
    if not files:
        raise InputError("holds no <channel>.<split>.jsonl of data_prep.build_amt", folder)
    return files


class PeakRecord(BaseModel):
    """What the page shows of a record of fer.jsonl."""

    model_config = ConfigDict(strict=True)

    id: str
    image: str | None = None
    frame: int | None = None
    face_id: int = 0
    phrases: list[str] = []
    aus: list[str] = []


class Shelf:
    """Rows by number, in the order of their files."""

    def __init__(
        self,
        rows: Iterable[Path] = (),
        results: Iterable[Path] = (),
        media_root: Path | None = None,
        fer: Iterable[Path] = (),
    ):
        """Read `rows` (AMT), `results` (of `swift infer`) and `fer` (records of data_prep.fer) once.

        media_root: the folder that paths of clips are relative to. Raises `InputError` for files that are not such.
        """
        self.files: list[Path] = [*rows, *results]
        self._first_result = len([*rows])
        self.media_root = media_root
        self.channels: dict[str, int] = {}
        self.has_results = self._first_result < len(self.files)
        self._file, self._offset, self._line = array("l"), array("q"), array("l")
        self._channel: list[str] = []
        self._text: list[str] = []
        self._wrong = bytearray()
        self._clips: dict[str, list[int]] = defaultdict(list)
        for number, path in enumerate(self.files):
            offsets = array("q")
            for line, row in read_rows(path, offsets):
                check_row(row, path, line)
                self._add(number, line, row, self._is_result(number))
            self._offset.extend(offsets)
        self._videos: dict[str, dict[str, Path]] = {}
        self.fer: dict[str, tuple[Path, PeakRecord]] = {}
        for path in fer:
            for line, read in read_rows(path):
                record = validated(PeakRecord, read, path, line)
                self.fer[record.id] = path, record

    def _is_result(self, file: int) -> bool:
        return file >= self._first_result

    def __len__(self) -> int:
        return len(self._channel)

    def _add(self, file: int, line: int, row: dict, is_result: bool) -> None:
        answer = row.get("response")
        if is_result and ("response" not in row or not ({"labels", "label", "messages", "query"} & set(row))):
            raise InputError("is not a result row: it has no `response`", self.files[file], line)
        channel = row.get("channel")
        try:
            task_of(channel)
        except ValueError as error:
            raise InputError(str(error), self.files[file], line) from None
        name = row["id"] if isinstance(row.get("id"), str) else ""
        gold = row.get("labels", row.get("label")) if is_result else ""
        words = " ".join([name, query_of(row), str(answer or ""), str(gold or ""), *media_of(row)])
        if name:
            self._clips[name].append(len(self))
        self.channels[channel] = self.channels.get(channel, 0) + 1
        self._file.append(file)
        self._line.append(line)
        self._channel.append(channel)
        self._text.append(printable(words[:LONGEST].casefold()))
        self._wrong.append(is_result and verdict(channel, answer, gold)[0] is True)

    def find(self, channel: str | None = None, wrong: bool = False, text: str = "") -> list[int]:
        """The rows of a channel (None: of all), wrong ones only, that hold every word of `text` in any case."""
        words = text.casefold().split()
        found: Iterable[int] = range(len(self))
        if channel:
            found = (number for number in found if self._channel[number] == channel)
        if wrong:
            found = (number for number in found if self._wrong[number])
        return [number for number in found if all(word in self._text[number] for word in words)]

    def row(self, number: int) -> dict:
        """The row as it stands in its file; `InputError` where the file has changed meanwhile."""
        path = self.files[self._file[number]]
        try:
            row = next(iter(read_rows_at(path, [self._offset[number]])))
        except (OSError, ValueError) as error:
            raise InputError(f"changed while it was read ({type(error).__name__}); start again", path) from None
        if not isinstance(row, dict) or row.get("channel") != self._channel[number]:
            raise InputError("was written anew while it was read; start again", path)
        return row

    def media(self, row: dict) -> list[Path]:
        """Where a row's pictures and clips are, whether or not they exist."""
        names = [name for name in media_of(row) if len(name) < 1000]  # a longer one is a picture itself
        return [Path(os.path.abspath(os.path.join(self.media_root or "", name))) for name in names]

    def clip(self, name: str) -> dict[str, Any]:
        """What all rows and records tell of the clip with this id: `media`, `answers` per channel, `peak`, `text`."""
        media: dict[Path, None] = {}
        answers, text = [], ""
        for number in self._clips.get(name, ()):
            row = self.row(number)
            media |= dict.fromkeys(self.media(row))
            facts = row.get("facts")
            text = text or (facts.get("transcript") if isinstance(facts, dict) else "") or ""
            gold = row.get("labels", row.get("label", row.get("response")))
            if (answer := (self._channel[number], str(gold))) not in answers:
                answers.append(answer)
        if media and not any(path.suffix.lower() in SUFFIXES for path in media) and (video := self._video(name)):
            media = {video: None} | media
        peak = self._peak(name, [*media])
        media.pop(peak["image"] if peak else None, None)
        return {"media": [*media], "answers": answers, "text": text, "peak": peak}

    def page(self, number: int) -> dict[str, Any]:
        """What the browser shows of a row: its own words, its answer and verdict, and what is known of its clip."""
        row, channel = self.row(number), self._channel[number]
        name = row["id"] if isinstance(row.get("id"), str) else ""
        is_result = self._is_result(self._file[number])
        gold = row.get("labels", row.get("label")) if is_result else row.get("response")
        wrong, why = verdict(channel, row.get("response"), gold) if is_result else (None, "")
        clip = self.clip(name) if name else {"media": self.media(row), "answers": [], "peak": None}
        return {
            "id": name,
            "channel": channel,
            "file": self.files[self._file[number]].name,
            "line": self._line[number],
            "query": query_of(row).strip()[:3000],
            "gold": "" if gold is None else str(gold),
            "response": str(row.get("response")) if is_result else None,
            "wrong": wrong,
            "why": why,
            "media": clip["media"],
            "others": [answer for answer in clip["answers"] if answer[0] != channel],
            "peak": clip["peak"],
        }

    def _video(self, name: str) -> Path | None:
        """The clip of a row that names its peak frame only: `<dataset>/<split>/a/b` is a/b.mp4 below the dataset."""
        dataset, *rest = name.split("/")
        if len(rest) != 3 or self.media_root is None:
            return None
        if dataset not in self._videos:
            files = (self.media_root / dataset).rglob("*")
            clips = (path for path in files if path.suffix.lower() in SUFFIXES)
            self._videos[dataset] = {f"{path.parent.name}/{path.stem}": path for path in clips}
        return self._videos[dataset].get("/".join(rest[1:]))

    def _peak(self, name: str, media: list[Path]) -> dict[str, Any] | None:
        """The clip's record of data_prep.fer: picture, frame, phrases, and intensities where its table is there."""
        if name not in self.fer:
            return None
        path, record = self.fer[name]
        peak: dict[str, Any] = {"image": path.parent / record.image if record.image else None, "frame": record.frame}
        peak |= {"phrases": record.phrases, "aus": dict.fromkeys(record.aus)}
        for table in _tables(path.parent / "openface", media):
            try:
                faces = read_faces(table)
            except OpenFaceError:
                continue
            rows = np.flatnonzero((faces.frame == record.frame) & (faces.face_id == record.face_id))
            if len(rows):
                values = dict(zip(INTENSITIES, faces.intensity[rows[0]], strict=True))
                peak["aus"] = {au: round(float(value), 2) for au, value in values.items() if au != BLINK}
                break
        return peak


def _tables(folder: Path, media: Iterable[Path]) -> Iterator[Path]:
    """Action Unit tables of some clips: named like them, in the same folders below `folder`."""
    for clip in media:
        for start in range(1, len(clip.parts)):
            table = folder.joinpath(*clip.parts[start:]).with_suffix(".csv")
            if table.is_file():
                yield table
                break


def verdict(channel: str, response: object, gold: object) -> tuple[bool | None, str]:
    """(whether an answer is wrong by the strict reading, in words how); None where nothing can be said."""
    try:
        scored, mark = scored_as(channel)
        task, dataset = task_of(scored)
    except (ValueError, InputError):
        return None, ""
    task = task.variant(gold, dataset)
    wanted = task.strict(gold, dataset)
    if wanted is None or not task.counts_answer(mark):
        return None, "no gold answer to compare with" if wanted is None else ""
    given = task.strict(response, dataset)
    if given is None:
        return True, "not in the form of an answer"
    reward = task.reward(wanted, given, dataset)
    if reward is None or reward >= 1:
        return (None if reward is None else False), ""
    return True, _how(task, wanted, given)


def _how(task: Task, gold: object, given: object) -> str:
    if task.unit:
        return task.describe_wrongness(task.wrongness(gold, given)) or "names another emotion"
    if isinstance(gold, float) and isinstance(given, float):
        return f"off by {abs(gold - given):.2f}"
    return f"{gold} taken for {given}"
