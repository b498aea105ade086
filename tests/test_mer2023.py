"""MER2023-SEMI's list of test clips, from the list to the figures that Emotion-LLaMA publishes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep.readers import mer2023
from data_prep.readers.sample import SplitAbsent
from swift_plugins.files import CONFIGS, InputError
from swift_plugins.tasks import TASKS
from tests.conftest import ROOT, in_process

LIST = "relative_test3_NCEV.txt"
LABELS = TASKS["mer"].labels["mer2023"]


def folder(root: Path, *lines: str, name: str = LIST) -> Path:
    root.mkdir(exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def test_the_list(tmp_path):
    root = folder(tmp_path, "samplenew_00006611 125 sad -10", "sample_00000001 30 happy 1.5")
    (root / "transcription_en_all.csv").write_text("name,sentence\nsample_00000001,Well done.\n", encoding="utf-8")
    faults: list = []
    first, second = mer2023.read(root, "test", faults)
    assert (first.id, first.emotion, first.text) == ("mer2023/test/samplenew_00006611", "sad", "")
    assert (second.text, second.video) == ("Well done.", "sample_00000001.mp4")
    assert [fault.kind for fault in faults] == ["empty_text"], "a clip without a sentence is told of"


@pytest.mark.parametrize(
    ("lines", "message", "reason"),
    [
        (
            ["a 1 fear -10"],
            f"{LIST}:1: a: 'fear' is not one of happy, sad, neutral,",
            "of MERR",
        ),
        (["a 1 joy -10"], f"{LIST}:1: a: 'joy' is not one of", "no label at all"),
        (["a 1 sad -10", "a 1 sad -10"], f"{LIST}:2: a comes twice", "a clip twice"),
        (["a sad"], f"{LIST}:1: is not `name frames emotion valence`", "too few fields"),
    ],
)
def test_faulty_lists(tmp_path, lines, message, reason):
    with pytest.raises(InputError) as error:
        list(mer2023.read(folder(tmp_path, *lines), "test", []))
    assert message in str(error.value), reason


def test_which_list(tmp_path):
    folder(tmp_path, "a 1 sad -10", name="relative_train_NCEV.txt")
    for split in ("train", "dev", "test"):
        with pytest.raises(SplitAbsent, match="it holds no"):
            list(mer2023.read(tmp_path, split, []))
    for number in (1, 3):
        folder(tmp_path, "a 1 sad -10", name=f"relative_test{number}_NCEV.txt")
    with pytest.raises(InputError, match="which one is to be scored"):
        list(mer2023.read(tmp_path, "test", []))


def test_from_the_list_to_the_published_figures(tmp_path):
    """Rows in Emotion-LLaMA's words, an answer each, both readings and the paper's figures."""
    root = folder(tmp_path / "mer", *(f"c{number} 9 {label} -10" for number, label in enumerate(LABELS)))
    words = CONFIGS / "emotion-llama" / "prompts.yaml"
    options = ("--mer2023", root, "--split", "test", "--missing-media", "text-only", "--prompts", words)
    done = in_process("-m", "data_prep.build_amt", *options, "--out", tmp_path / "amt")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "amt/mer2023.mer.test.jsonl").read_text().splitlines()]
    assert [row["response"] for row in rows] == list(LABELS)
    assert "represents: happy, sad, neutral, angry, worried, surprise. " in rows[0]["query"]
    answers = {"happy": "happy", "sad": "he is sad", "neutral": "unclear", "angry": "fear", "worried": "worried"}
    result = [row | {"labels": row["response"], "response": answers.get(row["response"], "happy")} for row in rows]
    (tmp_path / "result.jsonl").write_text("".join(json.dumps(row) + "\n" for row in result), encoding="utf-8")
    command = (ROOT / "compute_result.py", tmp_path / "result.jsonl", "--json", tmp_path / "scores.json")
    done = in_process(*command, "--rows", tmp_path / "amt/mer2023.mer.test.jsonl", "--compare", "emotion-llama")
    assert done.returncode == 0, done.stderr
    assert "all 6 rows of" in done.stdout and "90.36" in done.stdout
    block = json.loads((tmp_path / "scores.json").read_text())["mer2023.mer"]
    accuracies = [block[reading]["accuracy"] for reading in ("strict", "lenient", "official")]
    assert accuracies == pytest.approx([2 / 6, 3 / 6, 4 / 6]), "the last word; then neutral for what is no label"
    assert block["stand_in"] == {"label": "neutral", "n": 2, "right": 1}
