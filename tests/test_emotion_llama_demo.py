"""The pieces of shell/emotion_llama_demo.sh that no other test runs: its tiny files, its table."""

from __future__ import annotations

import json
import sys

import pytest

from data_prep.demo import emotion_llama, summary
from swift_plugins.files import InputError
from tests.tiny_emotion_llama import converted

pytestmark = pytest.mark.slow
ROWS = [
    (
        "merr_coarse.mer",
        " The person in video says: Oh no, the poor kite!.  [emotion] Which label: happy, sad? ",
        "sad",
    ),
    (
        "merr_coarse.eri",
        " The person in video says: Hm.  [reason] Why? ",
        "The face shows a smile. So the emotion is happy.",
    ),
]


def rows(folder):
    folder.mkdir()
    for channel, query, answer in ROWS:
        row = {"id": "merr_coarse/train/a", "channel": channel, "query": query, "response": answer}
        (folder / f"{channel}.train.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["demo", *map(str, arguments)])
    return emotion_llama.main()


def test_words_of_the_rows_are_tokens_and_nothing_is_lost():
    words = emotion_llama.tokenizer([text for _, *texts in ROWS * 5 for text in texts])
    letters = emotion_llama.tokenizer()
    assert words.tokenize("happy") == ["▁happy"] and len(letters.tokenize("happy")) == 6
    for text in ("Oh no, the poor  kite!", "never seen: Übermut ☂", "[INST] <video>"):
        assert words.decode(words(text)["input_ids"], skip_special_tokens=True) == text
        assert letters.decode(letters(text)["input_ids"], skip_special_tokens=True) == text


def test_the_files_become_a_base_and_are_the_same_again(tmp_path, monkeypatch):
    from safetensors.torch import load_file

    made = rows(tmp_path / "amt")
    for name in ("one", "other"):
        run(monkeypatch, "--rows", made, "--out", tmp_path / name)
    for part in ("llama", "hubert"):
        one, other = (load_file(tmp_path / name / part / "model.safetensors") for name in ("one", "other"))
        assert all((one[key] == other[key]).all() for key in one | other)
    files = tmp_path / "one"
    flags = ["--heads", 4, "--image-size", 56, "--set", "stream_width=64", "--out", tmp_path / "base"]
    converted("base", "--eva", files / "eva.pth", "--llama", files / "llama", *flags)
    assert json.loads((tmp_path / "base" / "config.json").read_text())["stream_width"] == 64
    with pytest.raises(InputError, match="is there already"):
        run(monkeypatch, "--rows", made, "--out", files)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no training rows"):
        run(monkeypatch, "--rows", tmp_path / "empty", "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_table_of_hearing(tmp_path):
    """What the sound brings stands below, in points."""
    for kind, accuracies in {"sound": (0.75, 0.5), "silence": (0.25, 0.25)}.items():
        for number, accuracy in enumerate(accuracies, 1):
            scores = {"strict": {"accuracy": accuracy}, "baselines": {"majority": {"accuracy": 0.3}}}
            path = tmp_path / kind / f"stage{number}.test.scores.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"mer2023.mer": scores}))
    lines = [line.split() for line in summary.hearing(tmp_path)]
    assert lines[1:] == [
        ["with", "sound", "75.0", "50.0", "30.0"],
        ["without", "25.0", "25.0", "30.0"],
        ["difference", "50.0", "25.0"],
    ]
    (tmp_path / "silence" / "stage2.test.scores.json").write_text("{}")
    with pytest.raises(InputError, match="holds no scores"):
        summary.hearing(tmp_path)
