"""The readers of MELD, ECF and MOSEI: what they yield, and what they say about faulty input."""

import csv
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.readers import ecf, meld, mosei
from data_prep.readers.tables import transcript
from swift_plugins.files import InputError

MELD_HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
MELD_ROWS = (
    '1,"Well, that’s done.",Ann,joy,positive,0,0,1,1,"00:00:01,000","00:00:02,000"',
    '2,Is it…,Bob,neutral,neutral,0,1,1,1,"00:00:03,000","00:00:04,000"',
    '3,It is not!,Ann,anger,negative,1,0,1,1,"00:00:05,000","00:00:06,000"',
)
MOSEI_HEADER = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"
SIX = "happy,sad,anger,surprise,disgust,fear"


def meld_folder(root: Path, *rows: str, header: str = MELD_HEADER, split: str = "train", encoding="utf-8") -> Path:
    text = "\r\n".join((header, *rows)) + "\r\n"
    (root / f"{split}_sent_emo.csv").write_bytes(text.encode(encoding))
    return root


def read(reader, root, split="train", **options):
    faults = []
    return list(reader.read(root, split, faults, **options)), faults


def kinds(faults):
    return [fault.kind for fault in faults]


# MELD


def test_meld_yields_facts_and_dialogues(tmp_path):
    samples, faults = read(meld, meld_folder(tmp_path, *MELD_ROWS))
    assert [s.id for s in samples] == ["meld/train/dia0_utt0", "meld/train/dia0_utt1", "meld/train/dia1_utt0"]
    first = samples[0]
    assert (first.text, first.speaker, first.emotion, first.sentiment) == (
        "Well, that’s done.",
        "Ann",
        "joy",
        "positive",
    )
    assert first.video == "train_splits/dia0_utt0.mp4"
    assert [u.text for u in samples[1].conversation] == ["Well, that’s done.", "Is it…"]
    assert samples[1].index == 1
    assert faults == []


@pytest.mark.parametrize("split, folder", meld.CLIPS.items())
def test_meld_names_the_folder_of_each_split(tmp_path, split, folder):
    samples, _ = read(meld, meld_folder(tmp_path, *MELD_ROWS, split=split), split)
    assert samples[2].video == f"{folder}/dia1_utt0.mp4"


def test_meld_reads_both_published_encodings_and_a_byte_order_mark_alike(tmp_path):
    c1 = [row.replace("’", "\x92").replace("…", "\x85").replace("done", "done\xa0") for row in MELD_ROWS]
    plain = [row.replace("done", "done ") for row in MELD_ROWS]
    expected, none = read(meld, meld_folder(tmp_path, *plain, encoding="utf-8-sig"))
    samples, faults = read(meld, meld_folder(tmp_path, *c1))
    assert samples == expected and none == []
    assert kinds(faults) == ["mis_encoded_text", "mis_encoded_text"]


def test_meld_reads_bytes_that_are_not_utf8_as_cp1252_and_says_so(tmp_path):
    samples, faults = read(meld, meld_folder(tmp_path, *MELD_ROWS, encoding="cp1252"))
    assert samples[0].text == "Well, that’s done."
    assert kinds(faults) == ["mis_encoded_text", "mis_encoded_text"]


@pytest.mark.parametrize(
    "split, dialogue, utterance", [(split, *key) for split, keys in meld.KNOWN_BAD.items() for key in keys]
)
def test_meld_names_clips_that_are_known_to_be_bad(tmp_path, split, dialogue, utterance):
    row = f"1,Hey,Ann,joy,positive,{dialogue},{utterance},1,1,a,b"
    samples, faults = read(meld, meld_folder(tmp_path, row, split=split), split)
    assert samples[0].video is None
    sample_id = f"meld/{split}/dia{dialogue}_utt{utterance}"
    assert [f.where for f in faults if f.kind == "known_bad_clip"] == [sample_id] == [samples[0].id]
    kept, _ = read(meld, tmp_path, split, known_bad="keep")
    assert kept[0].video == meld.known_bad_clips(split)[sample_id]


@pytest.mark.parametrize(
    "known_bad, clips, words",
    [
        ("keep", [None, "output_repeated_splits_test/dia38_utt4.mp4"], "used all the same"),  # all 2,610 clips
        ("text-only", [None, None], "treated as having none"),
        ("drop", [None], "sample dropped"),
    ],
)
def test_meld_treats_known_bad_clips_as_told(tmp_path, known_bad, clips, words):
    rows = [f"1,Hey,Ann,joy,positive,38,{utterance},1,1,a,b" for utterance in (3, 4)]
    samples, faults = read(meld, meld_folder(tmp_path, *rows, split="test"), "test", known_bad=known_bad)
    assert [s.video for s in samples[1:]] == clips[1:] and len(samples[0].conversation) == 2
    assert words in next(f.detail for f in faults if f.kind == "known_bad_clip")


def test_meld_says_why_it_refuses_a_known_bad_clip_and_what_can_be_done(tmp_path):
    meld_folder(tmp_path, "1,Hey,Ann,joy,positive,38,4,1,1,a,b", split="test")
    words = r"dia38_utt4: the published clip is cut at the wrong place \(305 s\); --known-bad keep .* text-only .* drop"
    with pytest.raises(InputError, match=words):
        read(meld, tmp_path, "test", known_bad="error")
    with pytest.raises(InputError, match="one of keep, text-only, drop, error, not 'ignore'"):
        read(meld, tmp_path, "test", known_bad="ignore")


def test_meld_dyadic_is_told_from_meld(tmp_path):
    header = MELD_HEADER.replace(",Season", ",Old_Dialogue_ID,Old_Utterance_ID,Season")
    row = MELD_ROWS[2].replace(",1,0,", ",0,0,1,0,", 1)
    meld_folder(tmp_path, row, header=header)
    with pytest.raises(InputError, match="is MELD Dyadic"):
        read(meld, tmp_path)
    (tmp_path / "train_sent_emo.csv").rename(tmp_path / "train_sent_emo_dya.csv")
    with pytest.raises(InputError, match=r"_dya\.csv: is MELD Dyadic"):
        read(meld, tmp_path)


def test_meld_reports_gaps_and_zero_durations(tmp_path):
    rows = ("1,a,A,joy,positive,0,0,1,1,x,y", "2,b,B,joy,positive,0,2,1,1,x,y", "3,c,A,joy,positive,2,0,1,1,x,x")
    samples, faults = read(meld, meld_folder(tmp_path, *rows))
    assert len(samples) == 3 and samples[2].video
    assert kinds(faults) == ["zero_duration", "missing_dialogue", "utterance_gap"]
    assert "dia1" in faults[1].where and "utterance 1" in faults[2].detail


@pytest.mark.parametrize(
    "rows, reason, row",
    [
        ((MELD_ROWS[0].replace("joy", "glee"),), "Emotion is 'glee'", 2),
        ((MELD_ROWS[0].replace("positive", "good"),), "Sentiment is 'good'", 2),
        ((MELD_ROWS[0], MELD_ROWS[0]), "repeats dialogue 0 utterance 0", 3),
        ((MELD_ROWS[0].replace(",0,0,", ",zero,0,"),), "Dialogue_ID is 'zero'", 2),
        ((MELD_ROWS[0] + ",more",), "has 12 cells", 2),
        (('1,"no end,Ann,joy',), "is not CSV", 2),
        ((), "holds no rows", None),
    ],
)
def test_meld_names_file_row_and_reason_of_bad_input(tmp_path, rows, reason, row):
    with pytest.raises(InputError) as error:
        read(meld, meld_folder(tmp_path, *rows))
    assert reason in str(error.value) and "train_sent_emo.csv" in str(error.value)
    assert error.value.row == row or (row and error.value.row >= row)


def test_meld_refuses_a_column_that_is_there_twice(tmp_path):
    rows = [row.replace(",joy", ",joy,anger").replace(",neutral,", ",neutral,neutral,", 1) for row in MELD_ROWS[:2]]
    meld_folder(tmp_path, *rows, header=MELD_HEADER.replace("Emotion", "Emotion, Emotion"))
    with pytest.raises(InputError, match="has the column 'Emotion' twice"):
        read(meld, tmp_path)


def test_meld_refuses_a_missing_column_a_wrong_folder_and_a_wrong_split(tmp_path):
    meld_folder(tmp_path, *MELD_ROWS, header=MELD_HEADER.replace("Emotion", "Feeling"))
    with pytest.raises(InputError, match="has no column Emotion"):
        read(meld, tmp_path)
    (tmp_path / "train_sent_emo.csv").write_bytes(b"\xff\xfeno text\x00, at all")
    with pytest.raises(InputError, match="has no column Utterance") as error:
        read(meld, tmp_path)
    assert str(error.value).encode("utf-8") and len(str(error.value)) < 400
    with pytest.raises(InputError, match="is not a MELD folder"):
        read(meld, tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no split"):
        read(meld, tmp_path, "valid")


# Transcripts


@pytest.mark.parametrize(
    "text, safe, kind",
    [
        ("an <image> here", "an < image > here", "media_tag_in_text"),
        ("<VIDEO><audio>", "< VIDEO >< audio >", "media_tag_in_text"),
        ("<imagery> < b >", "<imagery> < b >", None),  # no media tag, so as published
        ("a  b ,c", "a  b ,c", None),  # no other cleaning
        ("x\x97y", "x—y", "mis_encoded_text"),
        ("x\x81y", "x\x81y", None),  # cp1252 has nothing there either
        (" ", " ", "empty_text"),
        ("nul\0 here, an <ima\0ge>", "nul here, an < image >", "nul_in_text media_tag_in_text"),
        ("It\u00e2\u20ac\u2122s", "It\u00e2\u20ac\u2122s", "mojibake_text"),  # UTF-8 read as cp1252
        ("caf\u00c3\u00a9", "caf\u00c3\u00a9", "mojibake_text"),
        ("\u00c3\u2030mile", "\u00c3\u2030mile", "mojibake_text"),
        ("don\u00d5t", "don\u00d5t", "mojibake_text"),  # Mac Roman read as cp1252
        ("\u00d2Hi.\u00d3", "\u00d2Hi.\u00d3", "mojibake_text"),
        (
            "it\u201a\u00c4\u00f4s caf\u221a\u00a9",
            "it\u201a\u00c4\u00f4s caf\u221a\u00a9",
            "mojibake_text",
        ),  # UTF-8 as Mac Roman
        (
            "VOIL\u00c0\u2026 \u00c9\u2026 PAD\u00d5ES",
            "VOIL\u00c0\u2026 \u00c9\u2026 PAD\u00d5ES",
            None,
        ),  # French, Portuguese
    ],
)
def test_transcript(text, safe, kind):
    faults = []
    assert transcript(text, "here", faults) == safe
    assert kinds(faults) == (kind.split() if kind else [])


def test_bytes_that_are_not_utf8_are_read_as_mac_roman_where_its_apostrophe_tells(tmp_path):
    samples, faults = read(meld, meld_folder(tmp_path, *MELD_ROWS, encoding="mac_roman"))
    assert samples[0].text == "Well, that’s done."
    assert "read as Mac Roman" in faults[0].detail and kinds(faults) == ["mis_encoded_text", "mis_encoded_text"]


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.sampled_from("<>/imagevdo \u00a0\x92’")))
def test_transcript_leaves_no_media_tag_and_is_stable(text):
    safe = transcript(text, "here", [])
    assert not any(tag in safe for tag in ("<image>", "<video>", "<audio>"))
    assert transcript(safe, "here", []) == safe


# ECF


def conversation(**changes):
    lines = [("Hi .", "Ann", "neutral"), ("Oh my !", "Bob", "surprise"), ("Ha .", "Ann", "joy")]
    entry = {
        "conversation_ID": 1,
        "conversation": [
            {"utterance_ID": i, "text": t, "speaker": s, "emotion": e, "video_name": f"dia1utt{i}.mp4"}
            for i, (t, s, e) in enumerate(lines, 1)
        ],
        "emotion-cause_pairs": [["3_joy", "2"], ["3_joy", "1"], ["2_surprise", "1"]],
    }
    return entry | changes


def ecf_folder(root: Path, *conversations, split="train") -> Path:
    (root / f"Subtask_2_{split}.json").write_text(json.dumps(conversations), encoding="utf-8")
    return root


def test_ecf_yields_conversations_and_causes_in_annotation_order(tmp_path):
    samples, faults = read(ecf, ecf_folder(tmp_path, conversation()))
    assert [s.id for s in samples] == [f"ecf/train/dia1utt{i}" for i in (1, 2, 3)]
    assert [s.causes for s in samples] == [(), (1,), (2, 1)]
    assert [s.index for s in samples] == [1, 2, 3]
    assert samples[2].conversation[0].text == "Hi ." and samples[2].video == "train/dia1utt3.mp4"
    assert faults == []


def test_ecf_counts_a_repeated_pair_once_and_finds_clips_kept_together(tmp_path):
    (tmp_path / "videos").mkdir()
    pairs = [["3_joy", "2"], ["3_joy", "2"]]
    samples, faults = read(ecf, ecf_folder(tmp_path, conversation(**{"emotion-cause_pairs": pairs})))
    assert samples[2].causes == (2,) and kinds(faults) == ["duplicate_pair"]
    assert samples[2].video == "videos/dia1utt3.mp4"


def test_ecf_says_that_there_is_no_dev_split(tmp_path):
    samples, faults = read(ecf, ecf_folder(tmp_path, conversation()), "dev")
    assert samples == [] and kinds(faults) == ["no_split"]


@pytest.mark.parametrize(
    "conversations, reason",
    [
        ([conversation(), conversation()], "given twice"),
        ([{"conversation_ID": 1}], "has no conversation"),
        ([conversation(**{"emotion-cause_pairs": [["4_joy", "1"]]})], "not there"),
        ([conversation(**{"emotion-cause_pairs": [["3_fear", "1"]]})], "disagrees"),
        ([conversation(**{"emotion-cause_pairs": [["joy", "1"]]})], "is not a pair"),
        ([conversation(**{"emotion-cause_pairs": "3_joy"})], "is not a pair"),
        ([conversation(conversation_ID="one")], "not a whole number"),
        ([conversation(conversation=[{"utterance_ID": 1, "text": "x", "speaker": "A", "emotion": "glee"}])], "'glee'"),
        ([conversation(conversation=[{"utterance_ID": 1, "text": 5, "speaker": "A", "emotion": "joy"}])], "strings"),
        (
            [
                conversation(
                    conversation=[
                        {"utterance_ID": 1, "text": "x", "speaker": "A", "emotion": "joy", "video_name": "../../x.mp4"}
                    ]
                )
            ],
            "not the name of a file",
        ),
        ([], "not a list of conversations"),
    ],
)
def test_ecf_names_file_and_reason_of_bad_input(tmp_path, conversations, reason):
    with pytest.raises(InputError, match=reason) as error:
        read(ecf, ecf_folder(tmp_path, *conversations))
    assert "Subtask_2_train.json" in str(error.value)


@pytest.mark.parametrize("key", ["text", "speaker"])
def test_ecf_refuses_half_of_a_surrogate_pair(tmp_path, key):
    entry = conversation()
    entry["conversation"][1][key] = "\ud800"
    with pytest.raises(InputError, match="holds half of a surrogate pair"):
        read(ecf, ecf_folder(tmp_path, entry))


def test_ecf_refuses_a_number_of_thousands_of_digits(tmp_path):
    (tmp_path / "Subtask_2_train.json").write_text(f'[{{"conversation_ID": {"9" * 5000}}}]', encoding="utf-8")
    with pytest.raises(InputError, match=r"Subtask_2_train.json: is not JSON \(number too long\)"):
        read(ecf, tmp_path)


def test_ecf_refuses_broken_json_and_a_wrong_folder(tmp_path):
    (tmp_path / "Subtask_2_train.json").write_text("[{", encoding="utf-8")
    with pytest.raises(InputError, match="is not JSON"):
        read(ecf, tmp_path)
    with pytest.raises(InputError, match="is not an ECF 2"):
        read(ecf, tmp_path, "test")


# MOSEI

LABELS = (
    "00123,1,Good film,1.5,,,,Positive,train",
    "00123,2,So so,0.0,,,,Neutral,train",
    "-a_b,10,Bad film,-2.0,,,,,valid",
)


def mosei_folder(root: Path, *rows: str, header=MOSEI_HEADER, emotions=(), encoding="utf-8") -> Path:
    (root / "label.csv").write_bytes(("\n".join((header, *rows)) + "\n").encode(encoding))
    if emotions:
        text = "\n".join((f"video_id,clip_id,{SIX}", *emotions)) + "\n"
        (root / "emotions.csv").write_text(text, encoding="utf-8")
    return root


def test_mosei_keeps_ids_as_text_and_takes_the_sign_of_the_score(tmp_path):
    samples, faults = read(mosei, mosei_folder(tmp_path, *LABELS))
    assert [s.id for s in samples] == ["mosei/train/00123/1", "mosei/train/00123/2"]
    assert samples[0].video == "Raw/00123/1.mp4"
    assert [(s.sentiment, s.score) for s in samples] == [("positive", 1.5), ("neutral", 0.0)]
    assert [s.emotion for s in samples] == [None, None] and kinds(faults) == ["no_emotions"]
    assert read(mosei, tmp_path, "dev")[0][0].sentiment == "negative"


def test_mosei_joins_emotions_and_settles_ties_and_zeros_as_told(tmp_path):
    emotions = ("00123,1,0,1,1,0,0,0", "00123,2,0,0,0,0,0,0")
    mosei_folder(tmp_path, *LABELS, emotions=emotions)
    samples, faults = read(mosei, tmp_path)
    assert [s.emotion for s in samples] == ["sadness", "neutral"]
    assert kinds(faults) == ["emotion_tie", "emotion_all_zero"]
    assert [s.emotion for s in read(mosei, tmp_path, ties="drop")[0]] == [None, "neutral"]
    samples, faults = read(mosei, tmp_path, all_zero="drop")
    assert [s.emotion for s in samples] == ["sadness", None] and kinds(faults) == ["emotion_tie", "emotion_all_zero"]
    samples, faults = read(mosei, tmp_path, "dev")
    assert samples[0].emotion is None and kinds(faults) == ["no_emotion"]
    with pytest.raises(InputError, match="ties is"):
        read(mosei, tmp_path, ties="last")


def test_mosei_joins_sdk_segments_in_order_of_time(tmp_path):
    rows = [f"v,{clip},t,{score},,,,,train" for clip, score in ((10, 1.0), (9, -1.0), (2, 0.5))]
    rows += ["w,1,t,1.0,,,,,train", "w,2,t,2.0,,,,,train", "u,1,t,3.0,,,,,train"]
    mosei_folder(tmp_path, *rows)
    segments = (
        "v,20.5,30,1.0,0,0,0,0,0,3",  # the last of v is clip 10, though "10" < "2" as text
        "v,9.25,30,-1.0,0,1,0,0,0,0",
        "v,-0.5,30,0.5,1,0,0,0,0,0",  # the SDK has starts below zero
        "w,1,1.5,1.0,0,0,1,0,0,0",
        "w,2,2.5,-3.0,0,0,0,0,0,1",  # left out by MMSA
        "w,3,3.5,2.0,0,0,0,1,0,0",
        "u,1,1.5,-3.0,0,0,1,0,0,0",  # another sentiment than the clip's: not the same clip
    )
    text = "\n".join((f"video_id,start,end,sentiment,{SIX}", *segments)) + "\n"
    (tmp_path / "sdk_segments.csv").write_text(text, encoding="utf-8")
    samples, faults = read(mosei, tmp_path)
    assert {s.id[12:]: s.emotion for s in samples} == {
        "v/10": "fear", "v/9": "sadness", "v/2": "happy", "w/1": "anger", "w/2": "surprise", "u/1": None,
    }  # fmt: skip
    assert kinds(faults) == ["start_below_zero", "segment_join", "no_emotion"]
    assert "5 of 6 clips joined for certain (83.3%)" in faults[1].detail and "2 segments left over" in faults[1].detail


@pytest.mark.parametrize(
    "clips, segments, fitting",
    [
        ([1, 2], [1, 2], [{0}, {1}]),
        ([1, 1], [1, 1], [{0}, {1}]),  # as many of each: order alone is enough
        ([1, 2], [1, 3, 2], [{0}, {2}]),  # one more, and no other place for it
        ([1, 2], [1, 1, 2], [{0, 1}, {2}]),  # either may be the one too many
        ([1, 1, 2], [1, 2], [{0, None}, {0, None}, {1}]),  # either may be without
        ([1, 2, 3], [1, 3], [{0}, {None}, {1}]),
        ([1, 2], [2, 1], [{1, None}, {0, None}]),  # not in order: nothing is known
        ([1], [], [{None}]),
    ],
)
def test_mosei_joins_a_clip_only_where_all_best_alignments_agree(clips, segments, fitting):
    assert mosei._align(clips, segments) == fitting


def test_mosei_gives_no_emotion_where_two_segments_fit(tmp_path):
    mosei_folder(tmp_path, "v,1,t,1.0,,,,,train", "v,2,t,2.0,,,,,train")
    text = f"video_id,start,end,sentiment,{SIX}\nv,0,1,1.0,3,0,0,0,0,0\nv,1,2,1.0,0,3,0,0,0,0\nv,2,3,2.0,0,0,3,0,0,0\n"
    (tmp_path / "sdk_segments.csv").write_text(text, encoding="utf-8")
    samples, faults = read(mosei, tmp_path)
    assert [s.emotion for s in samples] == [None, "anger"]
    assert kinds(faults) == ["segment_join", "ambiguous_segment"] and faults[1].where == "mosei/train/v/1"
    (tmp_path / "sdk_segments.csv").write_text(text.replace("1.0,0,3,0", "1.0,3,0,0"), encoding="utf-8")
    assert [s.emotion for s in read(mosei, tmp_path)[0]] == ["happy", "anger"]  # they say the same


def test_mosei_reads_labels_without_transcripts_and_says_so(tmp_path):
    text = f"video_id,clip_id,start,end,sentiment,{SIX},mode\nv,1,0,1,-1.0,0,0,3,0,0,0,test\n"
    (tmp_path / "ids.csv").write_text(text, encoding="utf-8")
    samples, faults = read(mosei, tmp_path, "test")
    assert (samples[0].text, samples[0].emotion, samples[0].sentiment) == ("", "anger", "negative")
    assert kinds(faults) == ["no_transcripts"]


def test_mosei_ignores_a_mis_encoded_annotation_but_reports_a_mis_encoded_text(tmp_path):
    rows = ("v,1,caf\xe9,1.0,,,,Pos\xefitive,train",)
    samples, faults = read(mosei, mosei_folder(tmp_path, *rows, encoding="latin-1"))
    assert samples[0].text == "café" and kinds(faults) == ["no_emotions", "mis_encoded_text"]


@pytest.mark.parametrize(
    "rows, header, reason",
    [
        (LABELS, MOSEI_HEADER.replace("text", "words"), "has no column text"),
        ((LABELS[0], LABELS[0]), MOSEI_HEADER, "repeats clip 00123/1"),
        ((LABELS[0].replace("1.5", "7"),), MOSEI_HEADER, "label is '7'"),
        ((LABELS[0].replace("1.5", "nan"),), MOSEI_HEADER, "label is 'nan'"),
        ((LABELS[0].replace("train", "trial"),), MOSEI_HEADER, "mode is 'trial'"),
        (("../x,1,t,1,,,,,train",), MOSEI_HEADER, "cannot name a clip"),
        ((",1,t,1,,,,,train",), MOSEI_HEADER, "cannot name a clip"),
    ],
)
def test_mosei_names_file_and_reason_of_bad_input(tmp_path, rows, header, reason):
    with pytest.raises(InputError, match=reason) as error:
        read(mosei, mosei_folder(tmp_path, *rows, header=header))
    assert "label.csv" in str(error.value)


def test_mosei_refuses_a_wrong_folder(tmp_path):
    with pytest.raises(InputError, match="is not a MOSEI folder"):
        read(mosei, tmp_path)


# The published annotations


@pytest.mark.parametrize("split, rows", [("train", 9989), ("dev", 1109)])
def test_real_meld_has_the_same_text_in_both_encodings(shared, split, rows):
    repository, none = read(meld, shared / "meld", split)
    tar, faults = read(meld, shared / "meld_raw_tar", split)
    assert len(repository) == len(tar) == rows
    differing = [a.id for a, b in zip(repository, tar, strict=True) if (a.id, a.text) != (b.id, b.text)]
    assert differing == (["meld/train/dia556_utt6"] if split == "train" else [])
    assert "mis_encoded_text" in kinds(faults) and "mis_encoded_text" not in kinds(none)
    assert kinds(none).count("utterance_gap") == {"train": 72, "dev": 2}[split]
    assert kinds(none).count("missing_dialogue") == {"train": 1, "dev": 0}[split]


def test_real_ecf_has_the_published_counts(shared):
    samples, _ = read(ecf, shared / "ecf2")
    assert len(samples) == 13619
    assert len({s.conversation for s in samples}) <= 1374
    assert sum(s.emotion != "neutral" for s in samples) == 7690
    assert sum(bool(s.causes) for s in samples) == 7081
    assert sum(len(s.causes) for s in samples) == 9794


@pytest.mark.slow
def test_real_mosei_joins_by_ids_and_by_order_of_time_alike(shared, tmp_path):
    source = shared / "mosei" / "mosei_mmsa_ids_labels_emotions.csv"
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # MMSA's file and the SDK's, each in an order of its own, with transcripts of our own making.
    random.Random(1).shuffle(rows)
    with (tmp_path / "label.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(MOSEI_HEADER.split(","))
        writer.writerows(
            [r["video_id"], r["clip_id"], "words", r["sentiment"], "", "", "", "", r["mode"]] for r in rows
        )
    random.Random(2).shuffle(rows)
    with (tmp_path / "sdk_segments.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        names = ["video_id", "start", "end", "sentiment", *mosei.EMOTIONS]
        writer.writerow(names)
        writer.writerows([r[name] for name in names] for r in rows)
    for split, count, zero, none, ties in (
        ("train", 16326, 3540, 2392, 2053), ("dev", 1871, 433, 302, 224), ("test", 4659, 1025, 702, 555),
    ):  # fmt: skip
        joined, faults = read(mosei, tmp_path, split)
        labels_only, _ = read(mosei, shared / "mosei", split)
        assert len(joined) == count == len({s.id for s in joined})
        assert sum(s.sentiment == "neutral" for s in joined) == zero
        assert (kinds(faults).count("emotion_all_zero"), kinds(faults).count("emotion_tie")) == (none, ties)
        assert {s.id: s.emotion for s in joined} == {s.id: s.emotion for s in labels_only}
