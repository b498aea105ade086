"""Reviews of ERI reasons by several people: what is written, what they agree on, what the builder reads."""

from __future__ import annotations

import pytest

from app.reviews import Reviews
from data_prep.eri.review import read_eri, read_review, write_sheet
from swift_plugins.files import InputError, write_rows
from tests.test_eri_review import REJECTED, record, records, write_review


@pytest.fixture
def folder(tmp_path):
    """Four accepted records, one kept aside, one kept aside without a reason."""
    write_rows(tmp_path / "eri.jsonl", [record(name, f"reason {name}") for name in "abcd"])
    write_rows(tmp_path / "rejected.jsonl", [record("e", "reason e", **REJECTED), record("f", "", **REJECTED)])
    return tmp_path


def decide(folder, text):
    """`anna a accept; bo b edit new words` …"""
    reviews = Reviews(folder)
    for line in text.split("; "):
        reviewer, name, decision, *words = line.split(" ")
        reviews.decide(reviewer, name, decision, " ".join(words))
    return reviews


def read(path):
    return {name: (decision, reason) for name, (decision, reason, _) in read_review(path).items()}


@pytest.mark.parametrize(
    "said, agreed, disputed, why",
    [
        ("anna a accept", {"a": ("accept", "")}, [], "one reviewer decides alone"),
        ("anna a accept; bo a accept", {"a": ("accept", "")}, [], "two of the same mind"),
        ("anna a accept; bo a reject", {}, ["a"], "one against one is left to quality control"),
        ("anna a accept; bo a reject; cem a reject", {"a": ("reject", "")}, [], "two of three"),
        ("anna a accept; bo a reject; cem a edit x", {}, ["a"], "each another"),
        ("anna a edit one; bo a edit two", {}, ["a"], "edits with other words are other decisions"),
        ("anna a edit my  words; bo a edit my words", {"a": ("edit", "my words")}, [], "the same words"),
        ("anna a edit reason a", {"a": ("accept", "")}, [], "an edit that changes nothing is an accept"),
        ("anna a reject; anna a accept", {"a": ("accept", "")}, [], "a mind can be changed"),
        ("anna a reject; bo b accept", {"a": ("reject", ""), "b": ("accept", "")}, [], "each their own clips"),
        ("Anna a reject; anna a accept", {"a": ("accept", "")}, [], "a name in any case is one person"),
        ("anna e accept; anna f edit by hand", {"e": ("accept", ""), "f": ("edit", "by hand")}, [], "kept aside"),
        ("zoë a accept", {"a": ("accept", "")}, [], "a name with an accent"),
    ],
)
def test_what_several_reviewers_decide_together(folder, said, agreed, disputed, why):
    reviews = decide(folder, said)
    assert read(folder / "review.agreed.csv") == reviews.agreed() == agreed, why
    assert reviews.disputed() == Reviews(folder).disputed() == disputed, why


def test_the_builder_reads_a_reviewers_file_and_what_was_agreed(folder):
    decide(folder, "anna a reject; anna b edit better words; anna e accept; bo a accept; bo b edit better words")
    kept = {r["id"]: r["reason"] for r in read_eri([folder / "eri.jsonl"], folder / "review.anna.csv")}
    assert kept == {"b": "better words", "c": "reason c", "d": "reason d", "e": "reason e"}
    kept = {r["id"]: r["reason"] for r in read_eri([folder / "eri.jsonl"], folder / "review.agreed.csv")}
    assert kept == {"a": "reason a", "b": "better words", "c": "reason c", "d": "reason d", "e": "reason e"}


def test_a_decision_is_taken_back(folder):
    reviews = decide(folder, "anna a reject; anna b accept")
    reviews.decide("anna", "a", "")
    assert Reviews(folder).of("anna") == {"b": ("accept", "")} == read(folder / "review.agreed.csv")
    assert Reviews(folder).queue("anna", "open") == ["a", "c", "d", "e", "f"]


def test_a_sheet_that_was_filled_in_is_one_more_reviewer_and_is_never_written(folder):
    made = records(folder / "eri.jsonl")
    write_sheet(folder / "review.csv", made, {r["id"]: {"transcript": "said", "media": "x.mp4"} for r in made})
    reviews = Reviews(folder)
    assert reviews.all() == {} and reviews.seen["a"] == {"transcript": "said", "media": "x.mp4"}
    write_review(folder / "review.csv", [{"id": "a", "decision": "reject", "reason": ""}])
    before = (folder / "review.csv").read_bytes()
    reviews = decide(folder, "anna a accept; anna b accept")
    assert reviews.disputed() == ["a"] and set(reviews.all()) == {"sheet", "anna"}
    assert (folder / "review.csv").read_bytes() == before


def test_what_a_spreadsheet_changes_meanwhile_is_kept(folder):
    reviews = decide(folder, "anna a accept")
    write_review(folder / "review.anna.csv", [{"id": "b", "decision": "reject", "reason": ""}])
    reviews.decide("anna", "c", "accept")
    assert read(folder / "review.anna.csv") == {"b": ("reject", ""), "c": ("accept", "")}


def test_agreement(folder):
    """po = 3/4; pe = 3/4·1/2 + 1/4·1/2 = 1/2 → kappa = 1/2."""
    said = (
        "anna a accept; anna b accept; anna c accept; anna d reject; bo a accept; bo b accept; bo c reject; bo d reject"
    )
    (row,) = decide(folder, said + "; anna e accept").agreement()
    assert row == {"pair": ("anna", "bo"), "clips": 4, "same": 3, "kappa": pytest.approx(0.5)}
    rows = decide(folder, "cem a accept").agreement()
    assert [(row["pair"], row["clips"], row["kappa"]) for row in rows[1:]] == [
        (("anna", "cem"), 1, None),
        (("bo", "cem"), 1, None),
    ], "kappa says nothing where everything was decided alike"


@pytest.mark.parametrize(
    "reviewer, name, decision, reason, message",
    [
        ("anna", "f", "accept", "", "there is no reason to accept"),
        ("anna", "a", "edit", "  \n", "an edit needs the new reason"),
        ("../anna", "a", "accept", "", "a reviewer's name has"),
        ("agreed", "a", "accept", "", "a reviewer's name has"),
        ("sheet", "a", "accept", "", "a reviewer's name has"),
        ("", "a", "accept", "", "a reviewer's name has"),
        ("a" * 41, "a", "accept", "", "a reviewer's name has"),
    ],
)
def test_what_cannot_be_decided_is_said_and_nothing_is_written(folder, reviewer, name, decision, reason, message):
    before = sorted(folder.iterdir())
    with pytest.raises(InputError, match=message):
        Reviews(folder).decide(reviewer, name, decision, reason)
    assert sorted(folder.iterdir()) == before


def test_files_that_do_not_belong_together(folder, tmp_path):
    write_review(folder / "review.bo.csv", [{"id": "zz", "decision": "reject", "reason": ""}])
    with pytest.raises(InputError, match=r"review.bo.csv:2: no record has the id zz"):
        Reviews(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no eri\.jsonl"):
        Reviews(tmp_path / "empty")
