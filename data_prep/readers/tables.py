"""Annotation tables as their owners publish them: CSV rows with line numbers, and transcripts made safe to use.

Used by the readers of MELD, ECF and MOSEI; not run by itself.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from data_prep.readers.sample import Fault
from swift_plugins.files import InputError, is_text, read_json, read_rows

# U+0080-U+009F are control characters that no transcript holds; cp1252 has its quotes, dashes and dots there.
CP1252 = {code: bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(0x80, 0xA0)}
NO_BREAK_SPACE = "\u00a0"
MEDIA_TAG = re.compile(r"<\s*(image|video|audio)\s*>", re.IGNORECASE)
# Texts that were decoded wrongly before they were published. UTF-8 read as cp1252 (letters that end words before a dot
# or a quote are left out: É… is French), UTF-8 and cp1252 read as Mac Roman or the reverse, characters lost on the way.
MOJIBAKE = re.compile(
    "[ÃÂ][\u0080-\u00bf€‚ƒ„†‡ˆ‰Š‹ŒŽ•˜™š›œžŸ]|â€|ï»¿|ðŸ|\ufffd"
    "|‚Ä[^ ]|√[©®°†¢£§•¶ß™´¨≠]|(?<=[a-z])Õ(?=[a-z])|Ò(?=[A-Za-z])[^Ó]*Ó"
)
MAC_ROMAN = re.compile(rb"[A-Za-z]\xd5[a-z]|\xd2[A-Za-z][^\xd3]*\xd3")  # an apostrophe, quotes: letters in cp1252


def read_table(
    path: Path, columns: Collection[str], delimiter: str = ",", encoding: str = "utf-8"
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number of the row's end, row) of a CSV file with a header; every cell is text, ids included.

    Not pandas: it drops the line numbers that a fault is told by, fills up short rows and guesses types of ids. Bytes
    that are not UTF-8 come back as lone surrogates, for `transcript` to repair where the cell is a text; a faulty cell
    in a column that nobody reads does no harm. Another encoding than UTF-8 is taken at its word. Raises `InputError`
    for a missing file or column, a column that is there twice, a row with too few or too many cells, an unclosed quote,
    and a table without rows.
    """
    # newline="" and not splitlines(): U+0085 stands for an ellipsis in MELD and must not end a line.
    utf8 = encoding == "utf-8"
    try:
        file = path.open(
            encoding="utf-8-sig" if utf8 else encoding, errors="surrogateescape" if utf8 else "strict", newline=""
        )
    except LookupError:
        raise InputError(f"there is no encoding {encoding!r}", path) from None
    except FileNotFoundError:
        raise InputError("no such file", path) from None
    except (IsADirectoryError, NotADirectoryError):
        raise InputError("is not a file", path) from None
    count = 0
    with file:
        rows = csv.reader(file, strict=True, delimiter=delimiter)
        try:
            header = [name.strip() for name in next(rows, [])]
            missing = [column for column in columns if column not in header]
            if missing:
                names = ", ".join(header).encode("utf-8", "backslashreplace").decode()  # what is no text is still shown
                raise InputError(f"has no column {', '.join(missing)} (its columns: {names[:200] or 'none'})", path)
            if twice := [name for name, count in Counter(header).items() if name and count > 1]:
                raise InputError(f"has the column {twice[0]!r} twice: which one is meant?", path, 1)
            for cells in rows:
                if not any(cells):
                    continue
                if len(cells) != len(header):
                    raise InputError(f"has {len(cells)} cells where {len(header)} are expected", path, rows.line_num)
                count += 1
                yield rows.line_num, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise InputError(f"is not CSV: {error}", path, rows.line_num) from None
        except UnicodeDecodeError as error:
            raise InputError(f"is not {encoding} ({error.reason})", path, rows.line_num + 1) from None
    if not count:
        raise InputError("holds no rows", path)


def read_records(
    path: Path, columns: Collection[str], delimiter: str | None = None, encoding: str = "utf-8"
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line, row) of a table by its suffix: `.json` (a list of objects; the number of one stands for the line),
    `.jsonl`, `.tsv`, else CSV. Cells of JSON keep their types. Raises as `read_table`.
    """
    if path.suffix not in (".json", ".jsonl"):
        yield from read_table(path, columns, delimiter or ("\t" if path.suffix == ".tsv" else ","), encoding)
        return
    rows: Iterable[tuple[int, Any]] = read_rows(path)
    if path.suffix == ".json":
        value = read_json(path)
        rows = enumerate(value if isinstance(value, list) else [value], 1)
    empty = True
    for line, row in rows:
        if not isinstance(row, dict):
            raise InputError("is not an object with the columns as its keys", path, line)
        if missing := [column for column in columns if column not in row]:
            raise InputError(f"has no {', '.join(missing)} (its keys: {', '.join(row)[:200] or 'none'})", path, line)
        if wrong := [column for column in columns if isinstance(row[column], str) and not is_text(row[column])]:
            raise InputError(f"{wrong[0]} holds half of a surrogate pair, which is no character", path, line)
        empty = False
        yield line, row
    if empty:
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


def seconds(time: object) -> float | None:
    """`00:20:57,256` or `00:20:57.256` in seconds; None for what is no time."""
    match = re.fullmatch(r"(\d{1,4}):(\d{1,2}):(\d{1,2}(?:[,.]\d{1,9})?)", str(time).strip())
    return float(int(match[1]) * 3600 + int(match[2]) * 60) + float(match[3].replace(",", ".")) if match else None


def transcript(text: str, where: str, faults: list[Fault]) -> str:
    """The transcript with encoding faults repaired and media tags disarmed; otherwise as published.

    C1 control characters are read as cp1252 and no-break spaces become spaces, which makes the two published
    encodings of MELD agree. Bytes that are not UTF-8 are read as cp1252, or as Mac Roman where its apostrophes tell.
    NUL characters go. A literal `<image>`, `<video>` or `<audio>` would be counted as a picture by ms-swift: it becomes
    `< image >`. Repairs, blank texts, and texts that were garbled before they were published are appended to `faults`.
    """

    def fault(kind: str, detail: str) -> None:
        faults.append(Fault(kind, where, f"the transcript {detail}"))

    if any("\udc80" <= char <= "\udcff" for char in text):
        raw = text.encode("utf-8", "surrogateescape")
        codec, name = ("mac_roman", "Mac Roman") if MAC_ROMAN.search(raw) else ("cp1252", "cp1252")
        text = raw.decode(codec, "replace")
        fault("mis_encoded_text", f"is not UTF-8; read as {name}")
    if "\0" in text:
        text = text.replace("\0", "")
        fault("nul_in_text", "holds NUL characters; left out")
    repaired = text.translate(CP1252)
    if repaired != text:
        fault("mis_encoded_text", "holds C1 control characters; read as cp1252")
    if found := MOJIBAKE.search(repaired):
        fault("mojibake_text", f"holds {found[0][:20]!r}")
    repaired = repaired.replace(NO_BREAK_SPACE, " ")
    safe = MEDIA_TAG.sub(r"< \1 >", repaired)
    if safe != repaired:
        fault("media_tag_in_text", "holds a media tag; written as `< image >`")
    if not safe.strip():
        fault("empty_text", "is blank; kept")
    return safe
