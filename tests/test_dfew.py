"""DFEW's label lists: both published layouts, clips by their numbers, and one line about every fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep.readers import dfew
from swift_plugins.files import InputError
from swift_plugins.tasks import TASKS
from tests.conftest import in_process
from tests.test_doctor import write_clip

TEST = "EmoLabel_DataSplit/test(single-labeled)/set_1.csv"


def folder(root: Path, *rows: str, path: str = TEST, header: str = "video_name,label") -> Path:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return root


def read(root: Path, split: str = "test", **options) -> list:
    return list(dfew.read(root, split, [], **options))


def test_labels_are_those_of_the_release(tmp_path):
    samples = read(folder(tmp_path, *(f"{number},{number}" for number in range(1, 8))))
    assert [sample.emotion for sample in samples] == ["happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"]
    assert [sample.id for sample in samples][:2] == ["dfew/test/00001", "dfew/test/00002"]
    assert {sample.emotion for sample in samples} == set(TASKS["mer"].labels["dfew"])
    assert all(sample.text == "" and sample.dialogue is None for sample in samples)


@pytest.mark.parametrize(
    ("path", "split", "number"),
    [
        (TEST, "test", "1"),
        ("EmoLabel_DataSplit/train(single-labeled)/set_3.csv", "train", "3"),
        ("EmoLabel_DataSplit/train(single_labeled)/set_3.csv", "train", "3"),
        ("label/single_testset_5.csv", "test", "5"),
    ],
)
def test_layouts_and_sets(tmp_path, path, split, number):
    samples = read(folder(tmp_path, "00017,4", path=path), split, number=number)
    assert [(sample.id, sample.emotion) for sample in samples] == [(f"dfew/{split}/00017", "angry")]


@pytest.mark.parametrize(
    ("clip", "found"),
    [
        ("Clip/original/17.mp4", True),
        ("Clip/original/part_1/00017.mp4", True),
        ("Clip/clip_224x224_avi/00017.avi", True),
        ("video/17.mp4", True),
        ("elsewhere/17.mp4", False),
    ],
)
def test_clips_by_their_numbers(tmp_path, clip, found):
    (tmp_path / clip).parent.mkdir(parents=True)
    (tmp_path / clip).touch()
    (sample,) = read(folder(tmp_path, "17,1"))
    assert sample.video == (clip if found else "Clip/original/17.mp4")


@pytest.mark.parametrize(
    ("rows", "message", "reason"),
    [
        (["1,8"], "set_1.csv:2: label is '8', not one of 1 to 7 (happy,", "no such label"),
        (["1,0"], "set_1.csv:2: label is '0'", "0 is a clip without a single label"),
        (["1,1", "x,1"], "set_1.csv:3: video_name is 'x', not a whole number", "a name that is none"),
        (["../1,1"], "set_1.csv:2: video_name is '../1'", "a path"),
        (["1,happy"], "set_1.csv:2: label is 'happy', not a whole number", "a word"),
        (["1,1", "00001,2"], "set_1.csv:3: lists clip 1 a second time", "the same clip, filled with zeros"),
        (["1"], "set_1.csv:2: has 1 cells where 2 are expected", "a cut-off row"),
        ([], "set_1.csv: holds no rows", "a header alone"),
    ],
)
def test_faulty_lists(tmp_path, rows, message, reason):
    with pytest.raises(InputError) as error:
        read(folder(tmp_path, *rows))
    assert message in str(error.value), reason


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match="is not a DFEW folder: it holds no EmoLabel_DataSplit"):
        read(tmp_path)
    with pytest.raises(InputError, match="has no set '6'"):
        read(folder(tmp_path, "1,1"), number="6")
    with pytest.raises(InputError, match="has no column label"):
        read(folder(tmp_path, "1,1", header="video_name,emotion"))
    faults: list = []
    assert list(dfew.read(tmp_path, "dev", faults)) == [] and faults[0].kind == "no_split"


def test_from_the_list_to_the_figures(tmp_path):
    """Rows by build_amt, an answer each, and the figures; a clip that is not there is named first."""
    root = folder(tmp_path / "dfew", *(f"{number},{number}" for number in range(1, 8)))
    build = ("-m", "data_prep.build_amt", "--dfew", root, "--split", "test", "--out", tmp_path / "amt")
    done = in_process(*build)
    assert done.returncode == 2 and "clip Clip/original/1.mp4 is missing" in done.stderr
    for number in range(1, 8):
        write_clip(root / f"Clip/original/{number}.mp4", seconds=0.5)
    done = in_process(*build)
    assert done.returncode == 0, done.stderr
    assert "Table 1" not in done.stdout, "EmoVerse's paper has no rows of it"
    rows = [json.loads(line) for line in (tmp_path / "amt/dfew.mer.test.jsonl").read_text().splitlines()]
    assert [row["response"] for row in rows] == list(TASKS["mer"].labels["dfew"])
    assert "happy, sad, neutral, angry, surprise, disgust, fear" in rows[0]["query"], "the order of the release"
    assert rows[0]["query"].startswith("<emotion>") and rows[0]["videos"] == ["Clip/original/1.mp4"]
    result = [row | {"labels": row["response"], "response": "sad"} for row in rows]
    (tmp_path / "result.jsonl").write_text("".join(json.dumps(row) + "\n" for row in result))
    done = in_process("-m", "compute_result", tmp_path / "result.jsonl", "--rows", tmp_path / "amt/dfew.mer.test.jsonl")
    assert done.returncode == 0, done.stderr
    assert "all 7 rows of" in done.stdout and "14.29" in done.stdout


def test_the_doctor_counts_a_set(tmp_path):
    root = folder(tmp_path, "1,1", "2,2")
    done = in_process("-m", "data_prep.doctor", "--dfew", root)
    assert "2 clips where 2,341 are published" in done.stdout, done.stderr
