"""Which rows `swift infer` answers together, and which command lines it refuses."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_plugins.answering import plan
from swift_plugins.runs import guessed
from tests.conftest import ROOT
from tests.warm_swift import swift

pytestmark = pytest.mark.swift


@given(st.lists(st.integers(1, 3000), max_size=300), st.integers(1, 40))
def test_every_row_once_and_no_batch_larger_than_the_longest_rows_would_be(tokens, size):
    batches = plan(tokens, size)
    assert sorted(number for batch in batches for number in batch) == list(range(len(tokens)))
    for batch in batches:
        longest = max(tokens[number] for number in batch)
        assert len(batch) * longest <= size * max(tokens)
        assert len(batch) >= min(size, len(batches[-1])), "never fewer rows than max_batch_size, but in the last"


@pytest.mark.parametrize(
    "tokens, size, expected",
    [
        ([], 4, []),
        ([5, 5, 5], 2, [[0, 1], [2]]),
        ([10, 100, 10, 10], 1, [[1], [0, 2, 3]]),  # ten short rows would fit beside each other
        ([100, 50, 50, 50], 2, [[0, 1], [2, 3]]),
    ],
)
def test_batches(tokens, size, expected):
    assert plan(tokens, size) == expected


def test_rows_of_a_task_stay_together():
    """A batch writes until its longest answer ends, and how long answers are is a matter of the task."""
    assert plan([9, 5, 9, 5], 4, ["mer", "eri", "eri", "mer"]) == [[2, 1], [0, 3]]


@pytest.mark.parametrize(
    "architecture, flags, told",
    [
        ("InternVLChatModel", [], True),
        ("InternVLChatModel", ["--model_type", "emoverse"], False),
        ("InternVLChatModel", ["--model_type=emoverse"], False),
        ("InternVLChatModel", ["--model_type"], False),  # ms-swift says what is wrong with that
        ("InternVLChatModel", ["--adapters", "ckpt"], False),  # whose arguments say the type
        ("InternVLForConditionalGeneration", [], False),
    ],
)
def test_an_internvl2_folder_without_its_type_is_refused(tmp_path, architecture, flags, told):
    """ms-swift would take it for a model of its own, and end in a traceback that speaks of torchvision."""
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    said = guessed(["/lib/swift/cli/infer.py", "--model", str(tmp_path), *flags])
    assert guessed(["/lib/swift/cli/infer.py", f"--model={tmp_path}", *flags]) == said
    assert guessed(["/lib/swift_plugins/run_stage.py", "--model", str(tmp_path)]) is None, "it reads the configuration"
    assert said == (f"{tmp_path} is an original InternVL2 checkpoint: say --model_type emoverse" if told else None)


def test_and_ends_the_command_before_anything_loads(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["InternVLChatModel"]}))
    plugin = ROOT / "swift_plugins" / "emoverse.py"
    log = swift("infer", "--model", tmp_path, "--external_plugins", plugin, cwd=tmp_path, status=2)
    assert log.splitlines()[-1] == f"error: {tmp_path} is an original InternVL2 checkpoint: say --model_type emoverse"
