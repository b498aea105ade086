"""The manual curation of ERI data: the sheet, its decisions, and the builder that takes them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep import build_amt
from data_prep.eri import review as eri_review
from swift_plugins.files import InputError


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def record(name: str, reason: str = "a reason", **more: object) -> dict:
    clues = {"character": "c", "scene": "s"}
    return {"id": name, "reason": reason, "clues": clues, "label": "happy", **more}


REJECTED = {"rejected": {"pass": "reason", "rule": "contradiction", "detail": "…"}}


def write_review(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            sheet = csv.DictWriter(file, ["id", "decision", "reason"], delimiter=";" if "semi" in path.name else ",")
            sheet.writeheader()
            sheet.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["review.csv", "semicolons.csv", "review.jsonl"])
def test_accept_reject_edit(tmp_path, name):
    made = [record("a"), record("b"), record("c", "a third"), record("d", **REJECTED), record("e", "", **REJECTED)]
    decisions = [
        {"id": "a", "decision": "reject", "reason": ""},
        {"id": "b", "decision": "", "reason": "a reason"},
        {"id": "c", "decision": "Edit", "reason": "better, “said”\nanew; so"},
        {"id": "d", "decision": "accept", "reason": ""},
        {"id": "e", "decision": "edit", "reason": "written by hand"},
    ]
    review = write_review(tmp_path / name, decisions)
    after = {r["id"]: r for r in eri_review.apply_review(made, review)}
    assert [name for name, r in after.items() if "rejected" not in r] == ["b", "c", "d", "e"]
    assert after["c"]["reason"] == "better, “said” anew; so" and after["c"]["model_reason"] == "a third"
    assert after["a"]["rejected"]["rule"] == "reviewer" and after["d"]["overruled"]["rule"] == "contradiction"
    assert list(after.values()) == eri_review.apply_review(after.values(), review), "twice is once"
    undone = write_review(tmp_path / "blank.csv", [{"id": n, "decision": "", "reason": ""} for n in "abcde"])
    assert eri_review.apply_review(after.values(), undone) == made


@pytest.mark.parametrize(
    "row, words",
    [
        ({"id": "zz", "decision": "accept"}, "no record has the id zz"),
        ({"id": "a", "decision": "maybe"}, "'maybe' is not accept"),
        ({"id": "a", "decision": "edit", "reason": " "}, "an edit needs the new reason"),
        ({"id": "a", "decision": "", "reason": "changed text"}, "write edit as its decision"),
        ({"id": "a", "decision": "accept", "reason": "changed text"}, "write edit as its decision"),
        ({"id": "e", "decision": "accept", "reason": ""}, "no reason to accept"),
        ({"id": "", "decision": "accept"}, "has no id"),
        ({"id": "b", "decision": "accept"}, "b comes twice"),
    ],
)
@pytest.mark.parametrize("name", ["review.csv", "review.jsonl"])
def test_a_bad_review_is_named(tmp_path, name, row, words):
    review = write_review(tmp_path / name, [{"id": "b", "decision": "accept"}, row])
    with pytest.raises(InputError, match=words) as caught:
        eri_review.apply_review([record("a"), record("b"), record("e", "", **REJECTED)], review)
    assert caught.value.row == (3 if name == "review.csv" else 2)


@pytest.mark.parametrize(
    "row, words",
    [
        ({"id": "a", "decision": "accept", "reason": 7}, "an edit needs"),
        ({"id": "a", "decision": ["accept"]}, "is not accept"),
        ({"id": 5, "decision": "accept"}, "has no id"),
        ({"decision": "accept"}, "has no id"),
    ],
)
def test_a_review_line_of_other_types_is_named(tmp_path, row, words):
    with pytest.raises(InputError, match=words):
        eri_review.read_review(write_review(tmp_path / "review.jsonl", [row]))


@pytest.mark.parametrize(
    "content, words",
    [
        (b"id,reason\na,b\n", "has no column decision"),
        (b"", "has no column id"),
        (b"id,decision,reason\na,accept\n", "more or fewer fields"),
        (b"id,decision,reason\na,accept,b,c\n", "more or fewer fields"),
        (b'id,decision,reason\na,accept,"b\n', "is not CSV"),
        (b"id,decision\n\xff\xfe,accept\n", "is not UTF-8"),
    ],
)
def test_a_broken_review_sheet_is_named(tmp_path, content, words):
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(InputError, match=words):
        eri_review.read_review(tmp_path / "r.csv")
    with pytest.raises(InputError, match=r"\.csv or a \.jsonl"):
        eri_review.read_review(tmp_path / "r.xlsx")


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(str.strip)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reasons=st.lists(TEXTS, min_size=1, max_size=5), edited=TEXTS)
def test_the_sheet_that_is_written_is_read_back(tmp_path, reasons, edited):
    made = [record(f"id,{n};", " ".join(reason.split()) or "x") for n, reason in enumerate(reasons)]
    seen = {r["id"]: {"transcript": r["reason"], "media": "m.png"} for r in made}
    path = tmp_path / "review.csv"
    path.unlink(missing_ok=True)
    assert eri_review.write_sheet(path, made, seen) and not eri_review.write_sheet(path, made, seen)
    assert eri_review.apply_review(made, path) == made, "an untouched sheet changes nothing"
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0] |= {"decision": "edit", "reason": edited}
    with path.open("w", encoding="utf-8", newline="") as file:
        sheet = csv.DictWriter(file, rows[0])
        sheet.writeheader()
        sheet.writerows(rows)
    assert eri_review.apply_review(made, path)[0]["reason"] == " ".join(edited.split())


@pytest.mark.parametrize("key", ["id", "reason", "clues", "label", "rejected", "overruled", "review", "model_reason"])
@pytest.mark.parametrize("value", [None, 7, True, ["a"], {"pass": "x"}, "text"])
def test_a_record_of_other_types_is_named(tmp_path, key, value):
    """Only what the key may hold is read: a text, or clues that are not there."""
    fits = (value == "text" and key not in ("clues", "rejected", "overruled")) or (key, value) == ("clues", None)
    fits = fits or (key, value) == ("clues", {"pass": "x"})
    (tmp_path / "eri.jsonl").write_text(json.dumps(record("a") | {key: value}) + "\n", encoding="utf-8")
    if fits:
        assert eri_review.read_eri([tmp_path / "eri.jsonl"])
        return
    with pytest.raises(InputError, match=rf"eri\.jsonl:1: (has no )?{key}") as caught:
        eri_review.read_eri([tmp_path / "eri.jsonl"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["id", "reason", "clues", "label"])
def test_a_record_that_lacks_a_key_is_named(tmp_path, key):
    (tmp_path / "eri.jsonl").write_text(json.dumps({k: v for k, v in record("a").items() if k != key}) + "\n")
    with pytest.raises(InputError, match=rf"eri\.jsonl:1: {key}: missing key"):
        eri_review.read_eri([tmp_path / "eri.jsonl"])


@pytest.mark.slow
def test_the_builder_takes_a_review(world, tmp_path, monkeypatch):
    def build(out: str, *more: object) -> list[dict]:
        command = ["build_amt", "--mosei", world / "mosei", "--split", "train", "--out", tmp_path / out, *more]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        assert not build_amt.main()
        return records(tmp_path / out / "mosei.eri.train.jsonl")

    made = [record for record in records(world / "mosei" / "eri.jsonl") if record["id"].startswith("mosei/train/")]
    first, second = made[0]["id"], made[1]["id"]
    decisions = [
        {"id": first, "decision": "reject", "reason": ""},
        {"id": second, "decision": "edit", "reason": "A reason by hand."},
    ]
    after = build("after", "--review", write_review(tmp_path / "review.csv", decisions))
    by_hand = {second: {"response": "A reason by hand."}}
    assert after == [row | by_hand.get(row["id"], {}) for row in build("before") if row["id"] != first]
    wrong = write_review(tmp_path / "wrong.csv", [{"id": "mosei/train/none/0", "decision": "accept", "reason": ""}])
    with pytest.raises(InputError, match=r"wrong\.csv:2: no record has the id"):
        build("wrong", "--review", wrong)
    assert not (tmp_path / "wrong").exists()
