"""What configs/mmeverse.yaml says of the sets of MMEVerse: tables, columns, labels, splits, metrics and wordings.

`data_prep.readers.mmeverse` reads the tables, `data_prep.prompts` words their rows, `swift_plugins.tasks` adds the
labels.
"""

from __future__ import annotations

from string import Formatter
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from swift_plugins.declared import ended, fold
from swift_plugins.files import CONFIGS, Config, validated

PATH = CONFIGS / "mmeverse.yaml"
Split = Literal["train", "dev", "test"]
Role = Literal[
    "clip", "part", "split", "emotion", "emotions", "sentiment", "intent", "open_emotions", "text", "speaker"
]
Metric = Literal["hit_rate", "set_f", "accuracy", "multi-label", "sentiment"]
LABELS_OF = {"ov": "mer", "think": "mer", "think_three": "msa", "think_multi": "mlmer", "msa_three": "msa"}


class Set(Config):
    """One set. name: of its files and its media folder. columns: role → column of the table, or one for each split.

    splits: split → words of the split column. labels: task → labels in the order of the prompt. values: split (or
    `all`) → word of the table → label, null for rows that the split leaves out. digits: clip names that are numbers
    have so many, filled with zeros. clips: path of a clip relative to the folder of the tables. reasons: label task →
    column of the table with reasons. audio, image: columns of descriptions. published: split → clips.
    """

    name: str
    columns: dict[Role, str | dict[Split, str]]
    splits: dict[Split, list[str]]
    labels: dict[str, list[str]] = {}
    metric: dict[str, Metric]
    clips: str
    values: dict[Literal["all", "train", "dev", "test"], dict[str, str | None]] = {}
    digits: int = Field(default=0, ge=0, le=12)
    reasons: dict[str, str] = {}
    audio: list[str] = []
    image: list[str] = []
    published: dict[Split, int] = {}

    @model_validator(mode="after")
    def _check(self) -> Set:
        for role in ("clip", "split"):
            if role not in self.columns:
                raise ValueError(f"columns: {role} is missing")
        fields = {field for _, field, _, _ in Formatter().parse(self.clips) if field is not None}
        if wrong := sorted(fields - {"clip", "split"}):
            raise ValueError(f"clips: no field {{{wrong[0]}}} here; there are clip, split")
        return self

    def column_of(self, role: Role, split: str) -> str | None:
        """The column of a role in the rows of a split; None where there is none."""
        of = self.columns.get(role)
        return of if of is None or isinstance(of, str) else of.get(split)  # type: ignore[call-overload]

    def values_of(self, split: str) -> dict[str, str | None]:
        """Word of the table, folded → the label that it stands for in a split, in lower case."""
        found = {**self.values.get("all", {}), **self.values.get(split, {})}  # type: ignore[call-overload]
        return {fold(word): label and label.lower() for word, label in found.items()}

    def labels_of(self, key: str) -> list[str]:
        """The labels that a wording names; [] for tasks without."""
        return self.labels.get(LABELS_OF.get(key, key), [])


class Wordings(Config):
    """What rows are asked, see the file. Keys are those of wordings, `<set>.<key>` of one set."""

    lines: dict[str, str]
    words: dict[str, str]
    train: dict[str, list[str]]
    test: dict[str, str]
    asked: dict[str, list[str]] = {}

    @model_validator(mode="after")
    def _check(self) -> Wordings:
        parts = [*self.lines.values(), *self.test.values(), *(one for pool in self.train.values() for one in pool)]
        for template in parts:
            for _, field, spec, conversion in Formatter().parse(template):
                if field is not None and (field not in ("transcript", "speaker", "labels") or spec or conversion):
                    raise ValueError(f"no field {{{field}}} here; there are transcript, speaker, labels")
        return self

    def of(self, kind: Literal["lines", "train", "test"], name: str, key: str) -> Any:
        """The set's own entry, else that of all sets, else None."""
        found = getattr(self, kind)
        return found.get(f"{name}.{key}", found.get(key))


class MmeverseFile(Config):
    """configs/mmeverse.yaml."""

    sets: dict[str, Set]
    wordings: Wordings


# Every command reads this file at its start: by libyaml where it is there, a sixth of the time.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
with ended():
    FILE = validated(MmeverseFile, yaml.load(PATH.read_text(encoding="utf-8"), Loader=_LOADER), PATH)
SETS, WORDINGS = FILE.sets, FILE.wordings
