"""The FACS table of configs/facs.yaml: which AUs belong to an emotion, and how an AU is put into words.

facs = load_facs()                   # or load_facs("mine.yaml"), which replaces the table as a whole
facs.au_set("joy")                   # ["AU06", "AU12", "AU14"]
common_aus(["AU04", "AU12"], "joy", facs)   # ("AU12",): equation 3
"""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_prep.fer.au_table import BLINK, INTENSITIES, PRESENCES, Faces
from swift_plugins.declared import Declared
from swift_plugins.files import CONFIGS, Config, InputError, read_config

FACS = CONFIGS / "facs.yaml"
EXPRESSIVE = tuple(au for au in PRESENCES if au != BLINK)  # AU45 shows no expression


class Presence(Config):
    """When an AU counts as present: by column AUxx_`column`, from this intensity and tracking confidence on."""

    column: Literal["r", "c"]
    threshold: float
    confidence: float


class ActionUnit(Config):
    """An AU in words; a caption says one of its phrases."""

    name: str
    phrases: Annotated[list[str], Field(min_length=1)]


class Facs(Config):
    """One FACS table, as configs/facs.yaml holds it."""

    presence: Presence
    aus: dict[str, ActionUnit]
    emotions: dict[str, Annotated[list[str], Field(min_length=1)]]
    no_set: list[str] = []
    aliases: dict[str, str] = {}

    @model_validator(mode="after")
    def _names_fit(self) -> Facs:
        owner: dict[str, str] = {}
        for au, unit in self.aus.items():
            for phrase in unit.phrases:
                if not phrase.strip() or ";" in phrase:
                    raise ValueError(f"{au}: a phrase is a text without ';', not {phrase!r}")
                if phrase in owner:
                    raise ValueError(f"the phrase {phrase!r} stands for both {owner[phrase]} and {au}")
                owner[phrase] = au
        for name, aus in self.emotions.items():
            if unknown := [au for au in aus if au not in self.aus]:
                raise ValueError(f"emotion {name}: unknown AU {unknown[0]}")
        for alias, name in self.aliases.items():
            if name not in self.emotions and name not in self.no_set:
                raise ValueError(f"alias {alias} names the unknown emotion {name}")
        return self

    def au_set(self, label: str) -> list[str] | None:
        """The AUs of an emotion under any of its names; None for a label without a set (neutral).

        Raises `InputError` for a label that the table does not know.
        """
        label = self.aliases.get(label, label)
        if label in self.no_set:
            return None
        if label not in self.emotions:
            known = ", ".join([*self.emotions, *self.aliases, *self.no_set])
            raise InputError(f"no AU set for the label {label!r}; known: {known}")
        return self.emotions[label]


def common_aus(peak_aus: Iterable[str], label: str, facs: Facs) -> tuple[str, ...]:
    """Equation 3 of the paper: the AUs of the peak frame that belong to the label's emotion, ordered by number.

    A label without a set (neutral) keeps all AUs of the peak frame.
    """
    members = facs.au_set(label)
    return tuple(sorted(au for au in set(peak_aus) if members is None or au in members))


def describe(aus: Iterable[str], facs: Facs, seed: str) -> list[str]:
    """One phrase per AU, chosen by `seed` (same seed, same phrases, on any machine)."""
    choose = random.Random(seed).choice
    return [choose(facs.aus[au].phrases) for au in aus]


def deciding_columns(faces: Faces, facs: Facs, among: Collection[str] = EXPRESSIVE) -> dict[str, str]:
    """For each AU of `among` the column that tells whether it is present: "r" (intensity) or "c", ordered by number.

    It is the one that the FACS table says, or the only one that the tool has: AU28 has no intensity, whoever writes
    it. An AU for which the tool has neither is left out. Raises `OpenFaceError` ("missing_au_column") where OpenFace
    should have written a column that decides.
    """
    decides = {}
    for au in (au for au in PRESENCES if au in among and au in facs.aus):
        kinds = [kind for kind in (facs.presence.column, "c", "r") if kind == "c" or au in INTENSITIES]
        if known := [kind for kind in kinds if f"{au}_{kind}" not in faces.unknown]:
            decides[au] = known[0]
    faces.require([f"{au}_{kind}" for au, kind in decides.items()])
    return decides


def active_aus(faces: Faces, row: int, facs: Facs, among: Collection[str] = EXPRESSIVE) -> tuple[str, ...]:
    """The AUs of `among` present in one row, ordered by number: see `deciding_columns`.

    An intensity counts from the threshold on: the tool's own (configs/au_columns.yaml), else the FACS table's.
    """
    threshold = facs.presence.threshold if faces.tool.threshold is None else faces.tool.threshold

    def present(au: str, kind: str) -> bool:
        if kind == "r":
            return bool(faces.intensity[row, INTENSITIES.index(au)] >= threshold)
        return bool(faces.presence[row, PRESENCES.index(au)] == 1)

    return tuple(au for au, kind in deciding_columns(faces, facs, among).items() if present(au, kind))


def load_facs(path: str | os.PathLike = FACS, dataset: Declared | None = None) -> Facs:
    """Read and check a FACS table; raises `InputError` naming the key that is wrong.

    `dataset` adds the names that its own labels have in the table (`emotion_aus`). A label that the table knows under
    no name is an `InputError` that says how to give it one.
    """
    facs = read_config(path, Facs)
    if dataset is None:
        return facs
    known = [*facs.emotions, *facs.aliases, *facs.no_set]
    aliases = {}
    for label, name in dataset.emotion_aus.items():
        if name not in known:
            raise InputError(f"emotion_aus: {label}: {name} is none of {', '.join(known)}", dataset.path)
        aliases[label.lower()] = facs.aliases.get(name, name)
    facs = facs.model_copy(update={"aliases": facs.aliases | aliases})
    if strange := [label for label in dataset.labels.get("mer", ()) if label.lower() not in (*known, *aliases)]:
        raise InputError(
            f"emotion_aus: which Action Units belong to {', '.join(strange)}? Say for each which emotion of the FACS "
            f"table it is, as in emotion_aus: {{{strange[0]}: {known[0]}}}; there are {', '.join(known)} (neutral: "
            "whatever is active)",
            dataset.path,
        )
    return facs
