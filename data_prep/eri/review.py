"""The manual curation of ERI data: a sheet for a person to fill in, and its decisions applied to the records.

    python -m data_prep.eri --out DIR --review DIR/review.csv

`data_prep.eri` writes the sheet; any CSV or JSON lines file with the keys id, decision and reason is read. Decisions:
accept, reject, edit (with the new text under reason), or nothing, which leaves it to quality control.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from swift_plugins.files import InputError, atomic_open, read_rows, validated

DECISIONS = ("", "accept", "reject", "edit")
SHEET = ("id", "decision", "reason", "label", "transcript")  # then the clues, the tone, the rule that was broken
SHEET_CLUES = ("character", "scene")  # where no record has any


class Rejected(BaseModel):
    """Which rule of which pass keeps a record aside; clues that broke one stand beside it as `answer`."""

    model_config = ConfigDict(strict=True, extra="allow")

    rule: str
    detail: str
    kind: str = Field(alias="pass")


class EriRecord(BaseModel):
    """The types of what is read from an eri.jsonl or rejected.jsonl; further keys are kept as they are."""

    model_config = ConfigDict(strict=True, extra="allow")

    id: str
    reason: str
    clues: dict[str, str] | None
    label: str
    tone: str | list[str] = ""
    review: str = ""
    model_reason: str = ""
    rejected: Rejected = Field(None)  # may be absent, never null
    overruled: Rejected = Field(None)


def read_review(file: str | Path) -> dict[str, tuple[str, str, int]]:
    """id → (decision, reason, row) from CSV (columns id, decision, reason; others ignored) or JSON lines.

    Raises `InputError` for a missing column,
    an unknown decision, an id that comes twice, an edit without a reason.
    """
    path = Path(file)
    if path.suffix.lower() in (".jsonl", ".gz"):
        rows: Iterable[tuple[int, dict]] = read_rows(path)
    elif path.suffix.lower() == ".csv":
        rows = _read_csv(path)
    else:
        raise InputError("a review is a .csv or a .jsonl file", path)
    review: dict[str, tuple[str, str, int]] = {}
    for number, row in rows:
        name, decision, reason = row.get("id"), row.get("decision") or "", row.get("reason") or ""
        if not isinstance(name, str) or not name:
            raise InputError("has no id", path, number)
        if not isinstance(decision, str) or (decision := decision.strip().lower()) not in DECISIONS:
            raise InputError(f"decision {row['decision']!r} is not accept, reject, edit or nothing", path, number)
        if name in review:
            raise InputError(f"{name} comes twice", path, number)
        if not isinstance(reason, str) or (decision == "edit" and not reason.strip()):
            raise InputError(f"{name}: an edit needs the new reason", path, number)
        review[name] = (decision, " ".join(reason.split()), number)
    return review


def _read_csv(path: Path) -> Iterable[tuple[int, dict]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(error.strerror.lower(), path) from None
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 (in a spreadsheet program, save as CSV UTF-8)", path) from None
    header = text.partition("\n")[0]
    # spreadsheet programs of many countries write semicolons
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if ";" in header else ",", strict=True)
    try:
        for column in ("id", "decision"):
            if column not in (reader.fieldnames or ()):
                raise InputError(f"has no column {column}", path, 1)
        for row in reader:
            if None in row or None in row.values():
                raise InputError("has more or fewer fields than the header", path, reader.line_num)
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"is not CSV: {error}", path, reader.line_num) from None


def check_decision(made: str, decision: str, reason: str) -> None:
    """`InputError` for an edit without the new reason, and for an accept where the models made none."""
    if decision == "edit" and not reason.strip():
        raise InputError("an edit needs the new reason")
    if decision == "accept" and not made:
        raise InputError("there is no reason to accept; edit it or reject it")


def apply_review(records: Iterable[dict], review: str | Path) -> list[dict]:
    """ERI records with a review file applied, in the same order; those still kept aside have the key `rejected`.

    records: as in eri.jsonl and rejected.jsonl; decisions of an earlier review are undone first, so applying a review
    twice changes nothing. An edited record keeps the model's text as `model_reason`. Raises `InputError` for an id
    that no record has, for an accept without a reason to accept, and for a changed reason without `edit`.
    """
    decisions = read_review(review)
    result = [as_made(record) for record in records]
    by_id = {record["id"]: record for record in result}
    for name, (decision, reason, number) in decisions.items():
        record = by_id.get(name)
        if record is None:
            raise InputError(f"no record has the id {name}", review, number)
        if decision in ("", "accept") and reason and reason != " ".join(record["reason"].split()):
            raise InputError(f"{name}: the reason was changed; write edit as its decision", review, number)
        try:
            check_decision(record["reason"], decision, reason)
        except InputError as error:
            raise InputError(f"{name}: {error.reason}", review, number) from None
        if not decision:
            continue
        record["review"] = decision
        if "rejected" in record and decision != "reject":
            record["overruled"] = record.pop("rejected")
        if decision == "edit":
            record["model_reason"], record["reason"] = record["reason"], reason
        elif decision == "reject":
            record.setdefault("rejected", {"pass": "review", "rule": "reviewer", "detail": "rejected by a person"})
    return result


def as_made(record: dict) -> dict:
    """The record before anybody reviewed it."""
    record = dict(record)
    record.pop("review", None)
    if "overruled" in record:
        record["rejected"] = record.pop("overruled")
    elif record.get("rejected", {}).get("pass") == "review":
        del record["rejected"]
    if "model_reason" in record:
        record["reason"] = record.pop("model_reason")
    return record


def read_records(files: Iterable[Path]) -> list[dict]:
    """The records of eri.jsonl and rejected.jsonl files.

    Raises `InputError` for a record that lacks id, reason, clues or label, for a value of another type, and for an id
    that comes twice.
    """
    records: dict[str, dict] = {}
    for path in files:
        for number, record in read_rows(path):
            validated(EriRecord, record, path, number)
            if record["id"] in records:
                raise InputError(f"duplicate id {record['id']}", path, number)
            records[record["id"]] = record
    return list(records.values())


def read_eri(files: Iterable[str | Path], review: str | Path | None = None) -> list[dict]:
    """The records of eri.jsonl files that training may use; with `review`, after it.

    A review may bring back what quality control kept aside, so a rejected.jsonl beside a file is read, too. Raises
    `InputError` as `read_records` and `apply_review` do.
    """
    paths = [Path(file) for file in files]
    aside = [path.with_name("rejected.jsonl") for path in paths] if review else []
    records = read_records([*paths, *(path for path in aside if path.exists())])
    return [r for r in (apply_review(records, review) if review else records) if "rejected" not in r]


def read_sheet(path: Path) -> dict[str, dict[str, str]]:
    """id → the sheet's `transcript` and `media`, "" in a sheet without these columns; raises as `read_review`."""
    return {row["id"]: {key: row.get(key) or "" for key in ("transcript", "media")} for _, row in _read_csv(path)}


def write_sheet(path: Path, records: Iterable[dict], seen: dict[str, dict], untouched: str = "") -> str:
    """Write the sheet, decisions empty, and return its digest; "" when one is there that somebody may be filling in.

    seen: per id the `transcript` and `media` that help to decide. untouched: the digest that an earlier call returned;
    a sheet that still has it holds nobody's work and is written anew.
    """
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != untouched:
        return ""
    text, records = io.StringIO(newline=""), list(records)
    heard = any("tone" in record for record in records)
    clues = list(dict.fromkeys(part for record in records for part in record["clues"] or ())) or list(SHEET_CLUES)
    columns = [*SHEET, *clues, *(["tone"] if heard else []), "rejected", "media"]
    sheet = csv.DictWriter(text, columns, lineterminator="\r\n")
    sheet.writeheader()
    for record in records:
        made = as_made(record)
        rejected = "{pass}.{rule}: {detail}".format_map(made["rejected"]) if "rejected" in made else ""
        row = {"id": made["id"], "decision": "", "reason": made["reason"], "label": made["label"]}
        row |= dict.fromkeys(clues, "") | (made["clues"] or {})
        row |= {"tone": made.get("tone", "")} if heard else {}
        sheet.writerow(row | {"rejected": rejected} | seen[made["id"]])
    with atomic_open(path) as file:
        # spreadsheet programs take a file without the mark for the local 8-bit encoding
        file.write("\ufeff" + text.getvalue())
    return hashlib.sha256(path.read_bytes()).hexdigest()
