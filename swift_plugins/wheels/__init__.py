"""Emotion wheels: an emotion in any words → the innermost emotion that it belongs to, on each of five wheels.

The tables are those of MERTools (MER2025, Apache-2.0, see README.md here), and so are the rules: a word is looked up
among the inflected forms, its base words among the synonyms, and of the wheel's words that these name, in alphabetical
order, the first that the wheel has says the emotion. What is in no table maps to nothing; so does neutral.

    >>> levels("furious"), levels("table")
    (('mad', 'angry', 'mad', 'anger', 'mad'), (None, None, None, None, None))
"""

from __future__ import annotations

import csv
import functools
from collections import defaultdict
from pathlib import Path

FOLDER = Path(__file__).parent
WHEELS = 5


def known(word: str) -> bool:
    """Whether a word, in lower case, is in the tables."""
    return word in _tables()[0]


@functools.lru_cache(maxsize=1 << 16)
def levels(word: str) -> tuple[str | None, ...]:
    """The innermost emotion (level 1) of a word on each wheel, None where it has none."""
    forms, synonyms, wheels = _tables()
    words = sorted(
        {wheel_word for base in forms.get(word.strip().lower(), ()) for wheel_word in synonyms.get(base, ())}
    )
    return tuple(next((wheel[one] for one in words if one in wheel), None) for wheel in wheels)


@functools.cache
def _tables() -> tuple[dict[str, list[str]], dict[str, list[str]], list[dict[str, str]]]:
    """Form → base words, base word → words of wheels, and of each wheel: word → level 1."""
    forms = {row["form"]: row["words"].split("|") for row in _rows("forms")}
    synonyms = {row["word"]: row["wheel_words"].split("|") for row in _rows("synonyms")}
    wheels: dict[int, dict[str, str]] = defaultdict(dict)
    for row in _rows("wheels"):  # a word that comes twice counts where it comes last
        wheels[int(row["wheel"])] |= dict.fromkeys((row["level1"], row["level2"], row["level3"]), row["level1"])
    return forms, synonyms, [wheels[number] for number in range(1, WHEELS + 1)]


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
