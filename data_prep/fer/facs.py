"""The FACS table of configs/facs.yaml: which AUs belong to an emotion, and how an AU is put into words.

facs = load_facs()                   # or load_facs("mine.yaml"), which replaces the table as a whole
facs.au_set("joy")                   # ("AU06", "AU12", "AU14")
common_aus(["AU04", "AU12"], "joy", facs)   # ("AU12",): equation 3
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from data_prep.fer.au_table import BLINK, INTENSITIES, PRESENCES, Faces
from swift_plugins.files import CONFIGS, InputError, read_yaml

FACS = CONFIGS / "facs.yaml"


@dataclass(frozen=True)
class Facs:
    """One FACS table. `presence` says when an AU counts as present: column "r" or "c", threshold, confidence."""

    column: str
    threshold: float
    confidence: float
    names: dict[str, str]
    phrases: dict[str, tuple[str, ...]]
    emotions: dict[str, tuple[str, ...]]
    aliases: dict[str, str]
    no_set: frozenset[str]

    def au_set(self, label: str) -> tuple[str, ...] | None:
        """The AUs of an emotion under any of its names; None for a label without a set (neutral).

        Raises `InputError` for a label that the table does not know.
        """
        label = self.aliases.get(label, label)
        if label in self.no_set:
            return None
        if label not in self.emotions:
            known = ", ".join([*self.emotions, *self.aliases, *sorted(self.no_set)])
            raise InputError(f"no AU set for the label {label!r}; known: {known}")
        return self.emotions[label]


def common_aus(peak_aus: Iterable[str], label: str, facs: Facs) -> tuple[str, ...]:
    """Equation 3 of the paper: the AUs of the peak frame that belong to the label's emotion, ordered by number.

    A label without a set (neutral) keeps all AUs of the peak frame.
    """
    members = facs.au_set(label)
    return tuple(sorted(au for au in set(peak_aus) if members is None or au in members))


def active_aus(faces: Faces, row: int, facs: Facs, blink: bool = False) -> tuple[str, ...]:
    """The AUs present in one row, ordered by number: by intensity or presence as the FACS table says.

    AU28 has no intensity, so its presence counts either way. AU45 is left out unless `blink`: it shows no expression.
    Raises `OpenFaceError` ("missing_au_column") where a column that decides is not in the file.
    """
    wanted = [au for au in PRESENCES if au in facs.phrases and (blink or au != BLINK)]
    decides = {au: facs.column if au in INTENSITIES else "c" for au in wanted}
    if not faces.missing.issuperset(f"{au}_c" for au in PRESENCES):
        faces.require([f"{au}_{column}" for au, column in decides.items()])
    else:  # a tool that writes intensities alone: AU28 stays unknown, the rest must be there
        faces.require([f"{au}_{column}" for au, column in decides.items() if au in INTENSITIES])

    def present(au: str) -> bool:
        if decides[au] == "r":
            return bool(faces.intensity[row, INTENSITIES.index(au)] >= facs.threshold)
        return bool(faces.presence[row, PRESENCES.index(au)] == 1)

    return tuple(au for au in wanted if present(au))


def load_facs(path: str | os.PathLike = FACS) -> Facs:
    """Read and check a FACS table; raises `InputError` naming what is wrong."""
    table = read_yaml(path)
    try:
        presence = table["presence"]
        facs = Facs(
            column=presence["column"],
            threshold=float(presence["threshold"]),
            confidence=float(presence["confidence"]),
            names={au: entry["name"] for au, entry in table["aus"].items()},
            phrases={au: tuple(entry["phrases"]) for au, entry in table["aus"].items()},
            emotions={name: tuple(aus) for name, aus in table["emotions"].items()},
            aliases=dict(table.get("aliases") or {}),
            no_set=frozenset(table.get("no_set") or ()),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"is not a FACS table ({type(error).__name__}: {error})", path) from None
    _check(facs, path)
    return facs


def _check(facs: Facs, path: str | os.PathLike) -> None:
    if facs.column not in ("r", "c"):
        raise InputError(f"presence.column is r or c, not {facs.column!r}", path)
    owner: dict[str, str] = {}
    for au, phrases in facs.phrases.items():
        if not phrases:
            raise InputError(f"{au} has no phrase", path)
        for phrase in phrases:
            if not isinstance(phrase, str) or not phrase.strip() or ";" in phrase:
                raise InputError(f"{au}: a phrase is a text without ';', not {phrase!r}", path)
            if phrase in owner:
                raise InputError(f"the phrase {phrase!r} stands for both {owner[phrase]} and {au}", path)
            owner[phrase] = au
    for name, aus in facs.emotions.items():
        unknown = [au for au in aus if au not in facs.phrases]
        if unknown or not aus:
            raise InputError(f"emotion {name}: {f'unknown AU {unknown[0]}' if unknown else 'no AUs'}", path)
    for alias, name in facs.aliases.items():
        if name not in facs.emotions and name not in facs.no_set:
            raise InputError(f"alias {alias} names the unknown emotion {name}", path)
