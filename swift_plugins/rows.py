"""The types of what a row holds, AMT rows and the result rows that ms-swift makes of them: checked where they are read.

By hand and not by pydantic: rows are read by the million, and this takes a microsecond of each.
"""

from __future__ import annotations

import os
from typing import Any

from swift_plugins.files import InputError

MEDIA = ("images", "videos", "audios")  # keys of a row that list files

# What may be absent or null, and is of this type otherwise; facts of other names belong to extensions.
TYPES: dict[str, type] = {
    "id": str,
    "channel": str,
    "query": str,
    "system": str,
    "images": list,
    "videos": list,
    "audios": list,
    "messages": list,
    "facts": dict,
    "probabilities": dict,
}
FACTS: dict[str, type] = {"dialogue": str, "emotion": str, "transcript": str, "index": int, "previous": int}
NAMES = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


def check_row(row: dict[str, Any], path: str | os.PathLike, number: int) -> None:
    """`InputError` for a value of another type."""
    _check(row, TYPES, "", path, number)
    if facts := row.get("facts"):
        _check(facts, FACTS, "facts.", path, number)


def _check(values: dict, types: dict[str, type], where: str, path: str | os.PathLike, number: int) -> None:
    for key, kind in types.items():
        value = values.get(key)
        if value is not None and type(value) is not kind:
            raise InputError(f"{where}{key} is not {NAMES[kind]}, but {value!r:.60}", path, number)
