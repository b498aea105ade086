"""Which rows `swift infer` answers together, and which command lines it refuses."""

import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from swift.infer_engine import RequestConfig

import swift_plugins.emoverse  # noqa: F401
from swift_plugins.answering import AnsweringEngine, limits, plan
from swift_plugins.files import InputError
from swift_plugins.runs import guessed
from tests.conftest import ROOT
from tests.tiny_internvl2 import tiny_checkpoint
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


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """Of a random model, which never ends an answer by itself."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("answers") / "model", "phi3")
    return AnsweringEngine(str(folder), model_type="emoverse", torch_dtype=torch.float32)


@pytest.mark.parametrize("size", [1, 2, 8])  # one at a time, more rows than a batch, fewer
def test_an_answer_has_at_most_the_tokens_of_its_task(writer, monkeypatch, size):
    monkeypatch.setenv("AMT_MAX_NEW_TOKENS", "mer=3, msa=20")
    engine = AnsweringEngine(writer.model, template=writer.template, max_batch_size=size)
    channels = ["meld.mer", "meld.msa", "mosei.eri", "ecf.mer", None]
    rows = [
        {"messages": [{"role": "user", "content": f"How {i}?"}], "channel": name} for i, name in enumerate(channels)
    ]

    def answers(rows, most):
        found = engine.infer(rows, RequestConfig(max_tokens=most, temperature=0), use_tqdm=False)
        return [(one.usage.completion_tokens, one.choices[0].message.content) for one in found]

    limited = answers(rows, 6)
    assert [count for count, _ in limited] == [3, 6, 6, 3, 6], "what the command line says is the most of all"
    assert answers(rows[:1], 6) == limited[:1]
    assert [count for count, _ in answers(rows[:1], 2)] == [2]
    monkeypatch.delenv("AMT_MAX_NEW_TOKENS")
    engine = AnsweringEngine(writer.model, template=writer.template, max_batch_size=size)
    whole = answers(rows, 6)
    assert [count for count, _ in whole] == [6] * 5
    assert all(one[1].startswith(cut[1].rstrip("\ufffd")) for one, cut in zip(whole, limited, strict=True))


def test_what_all_rows_begin_with_runs_once(writer, tmp_path):
    """The system turn, of rows of any length and with a picture among them; they are answered as each alone."""
    Image.new("RGB", (40, 40), "teal").save(tmp_path / "one.png")
    asked = ["How?", "How do you feel about the kite, the lizard and the pretzel?", "<image>How?", "No"]
    turns = [[{"role": "system", "content": "You are kind."}, {"role": "user", "content": words}] for words in asked]
    rows = [{"messages": messages} for messages in turns]
    rows[2]["images"] = [str(tmp_path / "one.png")]
    engine, run = AnsweringEngine(writer.model, template=writer.template, max_batch_size=8), []

    def note(module, args, kwargs):
        run.append(tuple(kwargs["inputs_embeds"].shape[:2]))

    def answers(rows):
        run.clear()
        found = engine.infer(rows, RequestConfig(max_tokens=6, temperature=0), use_tqdm=False)
        return [(one.choices[0].message.content, one.usage.prompt_tokens) for one in found]

    hook = writer.model.model.language_model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        together = answers(copy.deepcopy(rows))
        (_, shared), (_, rest) = run[:2]
        assert run[:3] == [(1, shared), (4, rest), (4, 1)], (
            "the start once, then the rest of four prompts, then answers"
        )
        system = writer.template.tokenizer("<|system|>\nYou are kind.<|end|>").input_ids
        assert shared >= len(system) and shared + rest == max(length for _, length in together)
        alone = [answers([copy.deepcopy(row)]) for row in rows]
        assert run[0][0] == 1 and run[0][1] > shared, "a row by itself has nothing to share"
    finally:
        hook.remove()
    assert together == [one for (one,) in alone]


@pytest.mark.parametrize(
    "said, message",
    [
        ("mood=8", "'mood' is not one of msa, mer, fer, eri, ecpe"),
        ("8", "'8' is not one of"),
        ("mer", "mer is not mer=N, once, with N of 1 or more"),
        ("mer=0", "mer=0 is not mer=N"),
        ("mer=-1", "mer=-1 is not mer=N"),
        ("mer=2.5", "mer=2.5 is not mer=N"),
        ("mer=8,mer=9", "mer=9 is not mer=N, once"),
    ],
)
def test_limits_that_are_none(monkeypatch, said, message):
    monkeypatch.setenv("AMT_MAX_NEW_TOKENS", said)
    with pytest.raises(InputError, match=f"AMT_MAX_NEW_TOKENS: {message}"):
        limits()


def test_end_the_command_before_a_model_loads(tmp_path):
    plugin = ROOT / "swift_plugins" / "emoverse.py"
    flags = ["--model", tmp_path, "--model_type", "emoverse", "--external_plugins", plugin]
    log = swift("infer", *flags, cwd=tmp_path, status=2, AMT_MAX_NEW_TOKENS="mer=many")
    assert log.splitlines()[-1] == "error: AMT_MAX_NEW_TOKENS: mer=many is not mer=N, once, with N of 1 or more"


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
