"""Datasets without code: what a file like configs/datasets/mine.yaml declares, and the registry of all of them.

    python -m data_prep.new_dataset --from labels.csv --out mine.yaml     # writes one; docs/own-data.md is a tutorial

The files in configs/datasets/ are known to every program; one that lies elsewhere is given to build_amt, doctor and fer
by `--data FILE`, and to everything else, ms-swift included, by AMT_EXTENSIONS=FILE. `data_prep.readers.declared` reads
what a file declares; its label sets are added to those of the tasks (`swift_plugins.tasks`).
"""

from __future__ import annotations

import contextlib
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Formatter
from typing import Literal

from pydantic import Field, field_validator, model_validator

from swift_plugins.files import CONFIGS, Config, InputError, read_config

FOLDER = CONFIGS / "datasets"
SPLITS = ("train", "dev", "test")
# What a column of the table can be; `clip` is the one that every dataset has.
ROLES = ("clip", "transcript", "emotion", "sentiment", "speaker", "dialogue", "turn", "causes", "split")
IN_PATTERN = {"clip", "speaker", "dialogue", "turn", "split"}
LABELLED = {"emotion": "mer", "sentiment": "msa"}  # role → the task whose labels its cells are


class Rule(Config):
    """How clips are split where the table does not say: whole speakers, dialogues or single clips, by a keyed hash."""

    by: Literal["speaker", "dialogue", "clip"]
    dev: float = Field(default=0.1, ge=0, lt=1)
    test: float = Field(default=0.2, ge=0, lt=1)
    seed: int = 42

    @model_validator(mode="after")
    def _check(self) -> Rule:
        if self.dev + self.test >= 1:
            raise ValueError("dev and test leave nothing to train on")
        return self


class Declared(Config):
    """One dataset, as its YAML file declares it; docs/own-data.md says what each key means."""

    name: str = ""
    root: str = "."
    reader: str | None = None  # a dataset of the project that is read instead of a table, under other label words
    source: str | dict[Literal["train", "dev", "test"], str] | None = None
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    encoding: str = "utf-8"
    columns: dict[Literal[ROLES], str] = {}  # type: ignore[valid-type]
    clips: str | None = None
    labels: dict[str, list[str]] = {}
    values: dict[Literal["emotion", "sentiment", "split"], dict[str | int, str | None]] = {}
    tasks: list[str] | None = None
    peak_frames: bool = False
    split: Rule | None = None
    emotion_aus: dict[str, str] = {}
    prompts: dict[str, str] = {}
    path: str = ""  # where it was read from

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if name and not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise ValueError(f"{name!r} is no name: lower-case letters, digits, - and _, as in channels (mine.mer)")
        return name

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: dict[str, list[str]]) -> dict[str, list[str]]:
        return {task: check_labels(words) for task, words in labels.items()}

    @field_validator("clips")
    @classmethod
    def _clips(cls, pattern: str | None) -> str | None:
        try:
            fields = {field for _, field, _, _ in Formatter().parse(pattern or "") if field is not None}
        except ValueError as error:
            raise ValueError(f"{error} (a pattern is like videos/{{clip}}.mp4)") from None
        if wrong := sorted(fields - IN_PATTERN):
            raise ValueError(f"no field {{{wrong[0]}}} here; there are {', '.join(sorted(IN_PATTERN))}")
        return pattern

    @model_validator(mode="after")
    def _fits_together(self) -> Declared:
        if (self.source is None) == (self.reader is None):
            raise ValueError("give source (a table or a folder of clips), or reader (meld, mosei, ecf), not both")
        if self.columns and (self.is_folder or self.reader):
            raise ValueError("columns are of a table, and there is none")
        if self.source and not self.is_folder and "clip" not in self.columns:
            raise ValueError("columns: clip is missing: which column names the clip?")
        if "causes" in self.columns and not self.labels.get("ecpe"):
            raise ValueError("labels.ecpe is missing: which of the emotions have causes?")
        for role, task in LABELLED.items():
            here = role in self.columns or (role == "emotion" and self.is_folder)
            if here and not self.labels.get(task):
                raise ValueError(f"labels.{task} is missing: the labels of {role}, as answers are to write them")
            known = {fold(label) for label in self.labels.get(task, ())}
            for value in self.values.get(role, {}).values():  # type: ignore[call-overload]
                if value is not None and fold(value) not in known:
                    raise ValueError(f"values.{role}: {value!r} is none of labels.{task}")
        for value in self.values.get("split", {}).values():
            if value is not None and value not in SPLITS:
                raise ValueError(f"values.split: {value!r} is not train, dev or test")
        if self.split and ("split" in self.columns or isinstance(self.source, dict)):
            raise ValueError("split: the table says the splits already (columns.split, or a source for each)")
        for role, needed in (("turn", "dialogue"), ("causes", "dialogue"), ("causes", "emotion")):
            if role in self.columns and needed not in self.columns:
                raise ValueError(f"columns: {role} needs {needed}")
        return self

    @property
    def is_folder(self) -> bool:
        """Whether the source is a folder of clips (its name ends with /), whose sub-folders are the labels."""
        return isinstance(self.source, str) and self.source.endswith("/")

    @property
    def home(self) -> Path:
        """The folder of the data where no other is given."""
        return Path(self.path).parent / self.root


def check_labels(words: list[str]) -> list[str]:
    """Labels as they will stand in answers; ValueError for one that an answer could not be told by."""
    if len(words) < 2:
        raise ValueError("a label set has two labels or more")
    seen: dict[str, str] = {}
    for word in words:
        if not word.strip() or word != word.strip() or not word.isprintable() or word[-1] in ".。" or "<" in word:
            raise ValueError(f"{word!r} cannot be a label: printable text without a full stop at its end")
        if fold(word) in seen:
            raise ValueError(f"{word!r} and {seen[fold(word)]!r} are one label, upper and lower case aside")
        seen[fold(word)] = word
    return [unicodedata.normalize("NFC", word) for word in words]


def fold(text: str) -> str:
    """A text without what does not tell labels apart: case, outer white space, the way accents are encoded."""
    return unicodedata.normalize("NFC", text).strip().lower()


DATASETS: dict[str, Declared] = {}
_WATCHERS: list[Callable[[Declared], None]] = []


def add(path: str | Path) -> Declared:
    """Read a dataset's file into the registry; the same file again changes nothing.

    Raises `InputError` for what is wrong in it, and for a name that another dataset has.
    """
    path = Path(path).resolve()
    if known := next((declared for declared in DATASETS.values() if declared.path == str(path)), None):
        return known
    declared = read_config(path, Declared)
    try:
        name = Declared._name(declared.name or path.stem)
    except ValueError as error:
        raise InputError(f"name: {error}", path) from None
    declared = declared.model_copy(update={"name": name, "path": str(path)})
    if name in DATASETS:
        raise InputError(f"name: {DATASETS[name].path} declares a dataset {name}, too", path)
    for watcher in _WATCHERS:
        watcher(declared)
    DATASETS[name] = declared
    return declared


def add_known(path: str | Path) -> None:
    """As `add`, while modules are imported: no command can catch an error yet, so it ends the program in one line."""
    with ended():
        add(path)


def watch(watcher: Callable[[Declared], None]) -> None:
    """Call `watcher` with every dataset that is declared, now and later; it raises `InputError` to refuse one."""
    with ended():
        for declared in DATASETS.values():
            watcher(declared)
    _WATCHERS.append(watcher)


@contextlib.contextmanager
def ended() -> Iterator[None]:
    """What is read while modules are imported: an `InputError` ends the program in its one line."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
