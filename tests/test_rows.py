"""Rows to look through: what is found, what is wrong about an answer, what belongs to a clip."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.rows import Shelf, amt_files, verdict
from swift_plugins.files import InputError, write_rows


@pytest.mark.parametrize(
    "channel, gold, response, wrong, why",
    [
        ("meld.mer", "Joy.", "Joy.", False, ""),
        ("meld.mer", "Joy.", "Anger.", True, "joy taken for anger"),
        ("meld.mer", "Joy.", "It is joy", True, "not in the form of an answer"),  # strict, as in the scores
        ("meld.mer", "Joy.", None, True, "not in the form of an answer"),
        ("meld.mer", "Glee.", "Joy.", None, "no gold answer to compare with"),
        ("meld.mer", None, "Joy.", None, "no gold answer to compare with"),
        ("mosei.msa", "1.4", "1.4", False, ""),  # the variant whose answers are scores
        ("mosei.msa", "1.4", "-0.6", True, "off by 2.00"),
        ("mosei.fer", "cheeks raised; a furrowed brow", "a furrowed brow; cheeks raised", False, ""),  # in any order
        ("mosei.fer", "cheeks raised; a furrowed brow", "cheeks raised", True, "1 AU wrong"),
        ("mosei.eri", "He is happy.", "She seems happy about it.", False, ""),  # names the same emotion
        ("mosei.eri", "He is happy.", "She is glad.", True, "names another emotion"),  # none of the labels
        ("mosei.eri", "He is happy.", "It is anger.", True, "names another emotion"),
        ("mosei.eri", "Because of the cake.", "Because of the rain.", None, ""),
        ("ecf.ecpe", "2_joy,1", "2_joy,2", True, "2 pairs wrong"),
        ("ecf.ecpe.missed", "2_joy,1", "2_joy,1", None, ""),  # the response is never read
        ("mafw.mlmer", "anger; fear", "fear; anger", False, ""),
        ("mafw.mlmer", "anger; fear", "fear; sadness", True, "2 labels wrong"),
        ("mafw.think", "<think>a</think><answer>fear</answer>", "<think>b</think><answer>fear</answer>", False, ""),
        (
            "mafw.think",
            "<think>a</think><answer>fear</answer>",
            "<think>a</think><answer>anger</answer>",
            True,
            "fear taken for anger",
        ),
        (
            "mafw.think.multi",
            "<think>a</think><answer>fear</answer>",
            "<think>a</think><answer>fear; anger</answer>",
            True,
            "1 label wrong",
        ),
        ("ov_merd.ov", "angry", "furious", False, ""),  # another word of the same emotion
        ("ov_merd.ov", "angry", "sad", True, "2 words wrong"),
        ("ov_merd.ov", "neutral", "sad", None, ""),  # no wheel knows neutral
        ("mafw.audio", "A low voice.", "A deep voice.", None, ""),  # other words are not wrong
        ("my.mer", "Joy.", "Joy.", None, ""),  # a dataset that nobody has told us of
    ],
)
def test_what_is_wrong_about_an_answer(channel, gold, response, wrong, why):
    assert verdict(channel, response, gold) == (wrong, why)


@pytest.fixture
def shelf(tmp_path):
    amt = tmp_path / "amt"
    clips = tmp_path / "raw" / "mosei" / "Raw" / "vid"
    clips.mkdir(parents=True)
    (clips / "1.mp4").touch()
    row = {
        "id": "mosei/test/vid/1",
        "images": ["mosei/peaks/test/vid/1.png"],
        "query": "<image>Oh, late AGAIN <emotion>",
    }
    write_rows(amt / "mosei.mer.test.jsonl", [row | {"channel": "mosei.mer", "response": "Anger."}])
    write_rows(amt / "mosei.fer.test.jsonl", [row | {"channel": "mosei.fer", "response": "brows lowered"}])
    result = row | {"channel": "mosei.mer", "response": "Happy.", "labels": "Anger."}
    write_rows(tmp_path / "result.jsonl", [result, result | {"id": "x", "response": "Anger.", "query": "Fine"}])
    peak = {"id": row["id"], "image": "peaks/test/vid/1.png", "frame": 3, "face_id": 0, "aus": ["AU04"]}
    write_rows(tmp_path / "raw" / "mosei" / "fer.jsonl", [peak | {"phrases": ["brows lowered"]}])
    fer = [tmp_path / "raw" / "mosei" / "fer.jsonl"]
    return Shelf(amt_files(amt), [tmp_path / "result.jsonl"], tmp_path / "raw", fer)


def test_rows_are_found_by_channel_words_and_fault(shelf):
    assert shelf.channels == {"mosei.fer": 1, "mosei.mer": 3}
    assert shelf.find() == [0, 1, 2, 3]
    assert shelf.find("mosei.mer") == [1, 2, 3]
    assert shelf.find(wrong=True) == [2]
    assert shelf.find(text="again LATE") == [0, 1, 2], "every word, in any order and case"
    assert shelf.find(text="anger happy") == [2], "answers and gold answers, too"
    assert shelf.find(text="vid/1.png fine") == [3]
    assert shelf.find(text="nowhere") == []


def test_a_page_holds_all_that_is_known_of_the_clip(shelf, tmp_path):
    page = shelf.page(2)
    assert (page["gold"], page["response"], page["wrong"], page["why"]) == (
        "Anger.",
        "Happy.",
        True,
        "anger taken for happy",
    )
    assert page["query"] == "Oh, late AGAIN <emotion>"
    assert page["others"] == [("mosei.fer", "brows lowered")]
    assert page["media"] == [tmp_path / "raw" / "mosei" / "Raw" / "vid" / "1.mp4"], (
        "the clip of a row with its peak frame"
    )
    assert page["peak"]["image"] == tmp_path / "raw" / "mosei" / "peaks" / "test" / "vid" / "1.png"
    assert page["peak"]["aus"] == {"AU04": None}, "without a table nothing is known of intensities"
    assert shelf.page(0)["response"] is None, "an AMT row is no answer"


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "result.jsonl:1: is not JSON"),
        ('{"channel": "meld.mer", "labels": "Joy."}', "result.jsonl:1: is not a result row"),
        ('{"channel": "meld.xyz", "labels": "Joy.", "response": "Joy."}', "result.jsonl:1: .*xyz"),
        ('{"labels": "Joy.", "response": "Joy."}', "result.jsonl:1: None is not a channel"),
    ],
)
def test_files_that_are_no_results(tmp_path, line, message):
    (tmp_path / "result.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        Shelf((), [tmp_path / "result.jsonl"])


def test_a_file_that_was_written_anew_is_told(tmp_path):
    file = tmp_path / "result.jsonl"
    write_rows(file, [{"channel": "meld.mer", "labels": "Joy.", "response": "Joy."}] * 2)
    shelf = Shelf((), [file])
    file.write_text('{"channel": "meld.msa", "labels": "Positive.", "response": "Positive."}\n')
    for number in range(2):
        with pytest.raises(InputError, match="start again"):
            shelf.page(number)


def test_a_folder_without_rows(tmp_path):
    with pytest.raises(InputError, match="holds no <channel>"):
        amt_files(Path(tmp_path))
