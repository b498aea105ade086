"""A held-out part of ECF: whole conversations, the same for a seed, and one clear line for what cannot be split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.hold_out import chosen
from data_prep.readers import ecf
from tests.conftest import in_process, process
from tests.test_fuzz import conversation


def folder(root: Path, count: int = 20) -> Path:
    """ECF's training split of `count` conversations; every fifth is long."""
    conversations = [conversation(number) for number in range(1, count + 1)]
    for one in conversations[::5]:
        more = {"text": "Go on.", "speaker": "Cy", "emotion": "neutral"}
        one["conversation"] += [more | {"utterance_ID": n} for n in range(3, 12)]
    root.mkdir()
    (root / "Subtask_2_train.json").write_text(json.dumps(conversations))
    return root


def hold_out(*options: object, run=in_process):
    return run("-m", "data_prep.hold_out", *options)


def conversations(root: Path, split: str) -> list[dict]:
    return json.loads((root / f"Subtask_2_{split}.json").read_text("utf-8"))


def test_conversations_stay_whole_and_in_order(tmp_path):
    """As a process: the two files together are the one that was there, and the reader takes both."""
    done = hold_out("--ecf", folder(tmp_path / "ecf"), "--out", tmp_path / "out", run=process)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert told == "train 18 conversations 72 utterances dev 2 conversations 4 utterances"
    train, dev = conversations(tmp_path / "out", "train"), conversations(tmp_path / "out", "dev")
    assert sorted(train + dev, key=lambda one: one["conversation_ID"]) == conversations(tmp_path / "ecf", "train")
    assert [one["conversation_ID"] for one in train] == sorted(one["conversation_ID"] for one in train)
    assert {sample.split for sample in ecf.read(tmp_path / "out", "dev", [])} == {"dev"}
    assert len(list(ecf.read(tmp_path / "out", "train", []))) == 72


def test_long_conversations_are_left_out_of_both(tmp_path):
    done = hold_out("--ecf", folder(tmp_path / "ecf"), "--out", tmp_path / "out", "--utterances", 8, "--part", 0.25)
    assert done.returncode == 0, done.stderr
    train, dev = conversations(tmp_path / "out", "train"), conversations(tmp_path / "out", "dev")
    assert (len(train), len(dev)) == (12, 4)
    assert all(one["conversation_ID"] % 5 != 1 for one in train + dev)


@given(st.sets(st.integers(1, 2000), min_size=3, max_size=40), st.integers(0, 5), st.floats(0.01, 0.5))
def test_a_smaller_part_is_inside_a_larger_one(identities, seed, part):
    held = chosen(sorted(identities), part, seed)
    assert 1 <= len(held) < len(identities)
    assert held <= chosen(sorted(identities), min(0.6, part + 0.1), seed)
    assert held == chosen(sorted(identities, reverse=True), part, seed), "the order of the file plays no part"


def test_another_seed_holds_others_out():
    assert len({frozenset(chosen(list(range(1, 200)), 0.1, seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--part", "0"), "--part 0 of 20 conversations leaves nothing on one side"),
        (("--part", "0.99"), "--part 0.99 of 20 conversations leaves nothing on one side"),
        (("--utterances", "1"), "--part 0.1 of 0 conversations leaves nothing on one side"),
        (("--out", "{there}"), "exists already"),
        (("--ecf", "{there}"), "is not an ECF 2.0 folder"),
        (("--ecf", "{split}"), "there is a dev split already"),
    ],
)
def test_what_cannot_be_split_is_refused(tmp_path, options, reason):
    root = folder(tmp_path / "ecf")
    (tmp_path / "there").mkdir()
    (folder(tmp_path / "split") / "Subtask_2_dev.json").write_text("[]")
    options = [option.format(there=tmp_path / "there", split=tmp_path / "split") for option in options]
    done = hold_out("--ecf", root, "--out", tmp_path / "out", *options)
    assert done.returncode == 2 and reason in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
