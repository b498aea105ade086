"""Annotation tables as their owners publish them: CSV rows with line numbers, and transcripts made safe to use.

Used by the readers of MELD and MOSEI; not run by itself.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from data_prep.readers.sample import Fault
from swift_plugins.files import InputError

# U+0080-U+009F are control characters that no transcript holds; cp1252 has its quotes, dashes and dots there.
CP1252 = {code: bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(0x80, 0xA0)}
NO_BREAK_SPACE = "\u00a0"
MEDIA_TAG = re.compile(r"<\s*(image|video|audio)\s*>", re.IGNORECASE)


def read_table(path: Path, columns: Collection[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number of the row's end, row) of a CSV file with a header; every cell is text, ids included.

    Bytes that are not UTF-8 come back as lone surrogates, for `transcript` to repair where the cell is a text; a
    faulty cell in a column that nobody reads does no harm. Raises `InputError` for a missing file or column, a row
    with too few or too many cells, an unclosed quote, and a table without rows.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError("no such file", path) from None
    except (IsADirectoryError, NotADirectoryError):
        raise InputError("is not a file", path) from None
    # newline="" and not splitlines(): U+0085 stands for an ellipsis in MELD and must not end a line.
    text = io.StringIO(content.decode("utf-8-sig", "surrogateescape"), newline="")
    rows = csv.reader(text, strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        missing = [column for column in columns if column not in header]
        if missing:
            names = ", ".join(header).encode("utf-8", "backslashreplace").decode()  # what is no text is still shown
            raise InputError(f"has no column {', '.join(missing)} (its columns: {names[:200] or 'none'})", path)
        count = 0
        for cells in rows:
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise InputError(f"has {len(cells)} cells where {len(header)} are expected", path, rows.line_num)
            count += 1
            yield rows.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"is not CSV: {error}", path, rows.line_num) from None
    if not count:
        raise InputError("holds no rows", path)


def identifier(value: str, column: str, path: Path, row: int) -> str:
    """An id that will become part of a file path: not blank, no separators, no `..`, valid text."""
    name = value.strip()
    if not name or name in {".", ".."} or not name.isprintable() or any(char in name for char in "/\\"):
        raise InputError(f"{column} {value!r} cannot name a clip", path, row)
    return name


def number(value: str, column: str, path: Path, row: int, low: float, high: float) -> float:
    """A finite number in [low, high]; anything else is an `InputError`."""
    try:
        result = float(value)
    except ValueError:
        result = float("nan")
    if not low <= result <= high:
        raise InputError(f"{column} is {value!r}, not a number from {low:g} to {high:g}", path, row)
    return result


def transcript(text: str, where: str, faults: list[Fault]) -> str:
    """The transcript with encoding faults repaired and media tags disarmed; otherwise as published.

    C1 control characters are read as cp1252 and no-break spaces become spaces, which makes the two published
    encodings of MELD agree. A literal `<image>`, `<video>` or `<audio>` would be counted as a picture by ms-swift:
    it becomes `< image >`. Repairs and blank texts are appended to `faults`.
    """
    if any("\udc80" <= char <= "\udcff" for char in text):
        text = text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
        faults.append(Fault("mis_encoded_text", where, "the transcript is not UTF-8; read as cp1252"))
    repaired = text.translate(CP1252)
    if repaired != text:
        faults.append(Fault("mis_encoded_text", where, "the transcript holds C1 control characters; read as cp1252"))
    repaired = repaired.replace(NO_BREAK_SPACE, " ")
    safe = MEDIA_TAG.sub(r"< \1 >", repaired)
    if safe != repaired:
        faults.append(Fault("media_tag_in_text", where, "the transcript holds a media tag; written as `< image >`"))
    if not safe.strip():
        faults.append(Fault("empty_text", where, "the transcript is blank; kept"))
    return safe
