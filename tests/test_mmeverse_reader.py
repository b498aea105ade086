"""MMEVerse's tables: what is peculiar to a set, what every row shows and is asked, and one line about every fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep import prompts
from data_prep.readers import mmeverse
from data_prep.readers.mmeverse import READERS
from data_prep.readers.sample import SplitAbsent
from swift_plugins.files import InputError
from swift_plugins.frames import count_frames, read_picture
from swift_plugins.mmeverse import SETS
from swift_plugins.tasks import TASKS, split_channel
from tests.conftest import in_process

# set → (header, rows): two rows for training, two to be scored, in the words of the owners' tables
TABLES = {
    "mer2023": (
        "video_id,MER2023_mode,emotion_label,english,chinese",
        ["a,train,angry,Go away,走开", "b,train,worried,Oh,哦", "c,test1,happy,Yes,好", "d,test2,sad,No,不"],
    ),
    "mer2024": ("video_id,MER2024_mode,emotion_label,chinese", ["a,test_semi,neutral,好", "b,test_semi,surprise,啊"]),
    "iemocap": (
        "video_id,session,official_label,text",
        ["a,1,Excited,Yes", "b,4,Frustration,No", "c,5,Excited,Wow", "d,5,Frustration,Hm", "e,5,Neutral,So"],
    ),
    "meld": (
        "video_id,mode,Emotion,Sentiment,text",
        ["dia0_utt0,train,joy,positive,Hi", "dia1_utt0,dev,fear,negative,Oh", "dia2_utt0,test,sad,negative,No"],
    ),
    "ov_merd": ("video_id,mode,openset,sentence", ['a,test,"angry, Worried",Hm', 'b,test,"[happy, Happy]",Yes']),
    "cmu_mosi": ("video_id,mode,sentiment_label,text", ["a_1,train,positive,Good", "a_2,test,Neutral,It is"]),
    "mosei": (
        "video_id,clip_id,mode,sentiment_label,text",
        ["a_1,,train,positive,Good", "b,3,test,negative,Bad", "b,4,test,neutral,So"],
    ),
    "sims": ("video_id,mode,val_label,english", ["a,test,Positive,Good", "b,test,Negative,Bad"]),
    "ch_sims_v2_s": ("video_id,mode,annotation,text", ["a,train,Neutral,嗯", "b,test,Negative,不"]),
    "caer": ("video_id,mode,emotion_label,text_whisper", ["a,train,happy,Ha", "b,test,sad,No"]),
    "mc_eiu": (
        "video_id,mode,emotion,intent,Subtitle",
        ["a,train,happy,agreeing,Yes", "b,test,sad,wishing,If only"],
    ),
    "dfew": ("video_id,mode,label,sentence", ["1,train,angry,Go", "2,test,fear,Help"]),
    "e3": (
        "video_id,mode,emotion,conversation,person",
        ["a,train,shy,Well,The girl in red", "b,test,scared,No,"],
    ),
    "mafw": (
        "video_id,mode,single_label,multi_label,text_whisper",
        ['7,train,anger,"anger,contempt",Go', "00012.mp4,test,fear,fear;anxiety,Oh"],
    ),
    "bold": ("video_id,mode,Emotion_label,text_whisper", ["a,train,Anger;Pain,Go", "b,val,Doubt/Confusion; Fear,Eh"]),
}


def write(root: Path, name: str, rows: list[str] | None = None, header: str = "", suffix: str = "") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"{SETS[name].name}{suffix}.csv"
    lines = [header or TABLES[name][0], *(TABLES[name][1] if rows is None else rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(root: Path, name: str, split: str = "train", faults: list | None = None) -> list:
    return list(READERS[name].read(root, split, [] if faults is None else faults))


def golds(sample) -> dict:
    roles = ("emotion", "emotions", "sentiment", "intent", "open_emotions")
    return {role: gold for role in roles if (gold := getattr(sample, role)) is not None}


@pytest.mark.parametrize(
    ("name", "split", "expected", "reason"),
    [
        ("mer2023", "train", [("a", {"emotion": "angry"}), ("b", {"emotion": "worried"})], "one of six labels"),
        ("mer2023", "test", [("c", {"open_emotions": ("happy",)})], "hit rate; test2 is another benchmark"),
        (
            "mer2024",
            "test",
            [("a", {"open_emotions": ("neutral",)}), ("b", {"open_emotions": ("surprise",)})],
            "test only",
        ),
        ("mer2024", "train", [], "test only"),
        ("iemocap", "train", [("a", {"emotion": "excited"}), ("b", {"emotion": "frustration"})], "sessions 1 to 4"),
        (
            "iemocap",
            "test",
            [("c", {"open_emotions": ("happiness",)}), ("e", {"open_emotions": ("neutral",)})],
            "excited is happiness, and what is not scored is left out",
        ),
        ("meld", "train", [("dia0_utt0", {"emotion": "joy", "sentiment": "positive"})], "MELD's own words"),
        ("meld", "test", [("dia2_utt0", {"open_emotions": ("sadness",), "sentiment": "negative"})], "both are scored"),
        ("ov_merd", "test", [("a", {"open_emotions": ("angry", "worried")}), ("b", {"open_emotions": ("happy",)})], ""),
        ("mosei", "train", [("a_1", {"sentiment": "positive"})], "ids as they stand"),
        ("mosei", "test", [("b_3", {"sentiment": "negative"}), ("b_4", {"sentiment": "neutral"})], "two columns"),
        ("mc_eiu", "train", [("a", {"emotion": "happy", "intent": "agreeing"})], "two label tasks"),
        ("mafw", "train", [("00007", {"emotion": "anger", "emotions": ("anger", "contempt")})], "five digits"),
        ("mafw", "test", [("00012", {"emotion": "fear", "emotions": ("fear", "anxiety")})], "split at ; and ,"),
        ("bold", "test", [("b", {"emotions": ("doubt/confusion", "fear")})], "scored on val"),
    ],
)
def test_what_is_peculiar_to_a_set(tmp_path, name, split, expected, reason):
    write(tmp_path, name)
    ids = [(f"{name}/{split}/{clip}", gold) for clip, gold in expected]
    assert [(sample.id, golds(sample)) for sample in read(tmp_path, name, split)] == ids, reason


def test_every_set_reads_its_own_table(tmp_path):
    for name in TABLES:
        write(tmp_path, name)
        for split in ("train", "dev", "test"):
            for sample in read(tmp_path, name, split):
                assert sample.dataset == name and sample.video.startswith(f"{SETS[name].name}/")
    assert mmeverse.there(tmp_path) == (list(SETS), []) and set(TABLES) == set(SETS)


def test_a_score_is_its_sign(tmp_path):
    write(tmp_path, "sims", ["a,test,-0.4,x", "b,test,0.0,x", "c,test,1,x"])
    assert [s.sentiment for s in read(tmp_path, "sims", "test")] == ["negative", "neutral", "positive"]
    write(tmp_path, "sims", ["a,test,nan,x"])
    with pytest.raises(InputError, match=r"SIMS.csv:2: val_label is 'nan', not one of Neutral"):
        read(tmp_path, "sims", "test")


def test_texts_by_split_and_person(tmp_path):
    write(tmp_path, "mer2023")
    assert [sample.text for sample in read(tmp_path, "mer2023") + read(tmp_path, "mer2023", "test")] == [
        *("Go away", "Oh"),
        "好",
    ]
    write(tmp_path, "e3")
    assert [read(tmp_path, "e3", split)[0].speaker for split in ("train", "test")] == ["The girl in red", "The person"]


def test_rows_of_no_split_are_counted(tmp_path):
    faults: list = []
    write(tmp_path, "mer2023")
    read(tmp_path, "mer2023", "test", faults)
    assert [fault.detail for fault in faults] == ["1 rows of 'test2' belong to no split here"]
    write(tmp_path, "iemocap")
    faults.clear()
    read(tmp_path, "iemocap", "test", faults)
    assert [(fault.kind, fault.where) for fault in faults] == [("not_scored", "iemocap/test/d")]


@pytest.mark.parametrize(
    ("name", "rows", "message", "reason"),
    [
        ("caer", ["a,train,happy,x", "a,train,sad,x"], "CAER.csv:3: a is listed twice (first in line 2)", "twice"),
        ("caer", ["a,test,happy,x", "a,train,sad,x"], "CAER.csv:3: a is listed twice (first in line 2)", "a leak"),
        ("mafw", ["1,train,fear,fear,x", "00001,train,fear,fear,x"], "MAFW.csv:3: 00001 is listed twice", "one clip"),
        ("caer", ["a,train,glad,x"], "CAER.csv:2: emotion_label is 'glad', not one of anger, disgust", "no label"),
        ("caer", ["a,train,,x"], "CAER.csv:2: emotion_label is blank", "no label at all"),
        ("bold", ["a,train,Anger;Glee,x"], "BOLD.csv:2: Emotion_label is 'Glee', not one of Affection,", "one of two"),
        ("bold", ["a,train,;,x"], "BOLD.csv:2: Emotion_label is blank", "separators alone"),
        ("caer", ["../a,train,sad,x"], "CAER.csv:2: video_id '../a' cannot name a clip", "out of the folder"),
        ("caer", [",train,sad,x"], "CAER.csv:2: video_id '' cannot name a clip", "no clip"),
        ("mosei", ["a,,test,positive,x"], "CMU-MOSEI.csv:2: video_id and clip_id 'a_' cannot name", "half an id"),
        ("caer", ["a,train,sad"], "CAER.csv:2: has 3 cells where 4 are expected", "a cut-off row"),
        ("caer", [], "CAER.csv: holds no rows", "a header alone"),
    ],
)
def test_bad_rows_are_named(tmp_path, name, rows, message, reason):
    write(tmp_path, name, rows)
    with pytest.raises(InputError) as error:
        read(tmp_path, name, "test" if name == "mosei" else "train")
    assert message in str(error.value), reason


def test_missing_columns_and_tables(tmp_path):
    write(tmp_path, "mc_eiu", ["a,train,happy,x"], "video_id,mode,emotion,Subtitle")
    with pytest.raises(InputError, match=r"MC-EIU.csv: has no column intent"):
        read(tmp_path, "mc_eiu")
    with pytest.raises(SplitAbsent, match=r"holds no CAER.csv"):
        read(tmp_path, "caer")
    with pytest.raises(InputError, match=r"mafw2 is none of its sets \(mer2023"):
        mmeverse.there(tmp_path, ["mafw2"])
    with pytest.raises(InputError, match=r"holds no table of CAER.csv, BOLD.csv"):
        mmeverse.there(tmp_path, ["bold", "caer"])
    assert mmeverse.there(tmp_path, ["mc_eiu", "caer"]) == (["mc_eiu"], ["caer"])


def test_reasons_of_the_second_stage(tmp_path):
    header = "video_id,mode,single_label,multi_label,text_whisper,gpt-4o-mini_Single,gpt-4o-mini_Multi"
    rows = [f"1,train,fear,fear,x,Because.,{'why ' * 230}", "2,train,fear,fear,x,,", "3,test,fear,fear,x,Because.,No."]
    write(tmp_path, "mafw", rows, header, "_AU_gpt")
    faults: list = []
    made = READERS["mafw"].records(tmp_path, "train", faults)["eri"]
    assert made["mafw/train/00001"] == {
        "reason": "Because.",
        "reasons": {"mer": "Because.", "mlmer": " ".join(["why"] * 200)},
    }
    assert made["mafw/train/00002"] == {"reason": None, "reasons": {}} and len(made) == 2
    assert [(f.kind, f.detail) for f in faults] == [("reason_cut", "gpt-4o-mini_Multi has 230 words; cut at 200")]
    assert READERS["mafw"].records(tmp_path, "test") == {}
    assert [sample.id for sample in read(tmp_path, "mafw")] == ["mafw/train/00001", "mafw/train/00002"]  # no MAFW.csv


def test_one_of_two_descriptions_by_the_id(tmp_path):
    header = "video_id,mode,emotion_label,text_whisper,response_AudioReasoner,response_Qwen2Audio,response_Qwen25vl_72B"
    write(tmp_path, "caer", [f"{n},train,sad,x,one,two,three" for n in range(40)], header)
    samples = read(tmp_path, "caer")
    drawn = [sample.descriptions["audio"] for sample in samples]
    assert {*drawn} == {"one", "two"} and 10 < drawn.count("one") < 30
    assert {sample.descriptions["image"] for sample in samples} == {"three"}
    assert [sample.descriptions for sample in read(tmp_path, "caer")] == [sample.descriptions for sample in samples]


@pytest.mark.parametrize(
    ("peaks", "message"),
    [
        ([], "CAER_peak.json: is no object"),
        ({"a": 3}, "CAER_peak.json: 'a': peak_index is None"),
        ({"a": {"peak_index": -1}}, "peak_index is -1, not the number of a frame"),
        ({"a": {"peak_index": "x"}}, "peak_index is 'x'"),
    ],
)
def test_bad_peaks_are_named(tmp_path, peaks, message):
    (tmp_path / "CAER_peak.json").write_text(json.dumps(peaks))
    with pytest.raises(InputError) as error:
        READERS["caer"].peaks(tmp_path)
    assert message in str(error.value)


# Wordings


def worded(tmp_path: Path, name: str, split: str, task: str, wording: str = "", part: str = "") -> str:
    write(tmp_path, name)
    sample = read(tmp_path, name, split)[0]
    return prompts.load(None, [], [name]).query(sample, task, wording, part)


HELPFUL = " [emotion] You are a helpful assistant specialized in multimodal emotion recognition. Given the input video "
HELPFUL += (
    "and audio, your task is to identify the emotion expressed by the person or people in the video. Your output "
)
ONE = "must be only one emotion label strictly chosen from the following list: "
SEVERAL = "must be one or more emotion labels strictly chosen from the following list: "
LAST = ". Please ensure that all predicted labels come only from this list. "


# Frozen: as the authors word their evaluation.
@pytest.mark.parametrize(
    ("name", "task", "wording", "query"),
    [
        ("caer", "mer", "", f"No. {HELPFUL}{ONE}anger, disgust, fear, happy, neutral, sad, surprise{LAST}"),
        ("mer2023", "ov", "", f"好. {HELPFUL}{ONE}angry, happy, neutral, sad, surprise, worried{LAST}"),
        ("iemocap", "ov", "", f"Wow. {HELPFUL}{ONE}Anger, Sadness, Happiness{LAST}"),
        ("meld", "ov", "", f"No. {HELPFUL}{ONE}anger, disgust, fear, joy, neutral, sad, surprise{LAST}"),
        ("mafw", "mlmer", "", f"Oh. {HELPFUL}{SEVERAL}{', '.join(SETS['mafw'].labels['mlmer'])}{LAST}"),
    ],
)
def test_evaluation_is_worded_as_published(tmp_path, name, task, wording, query):
    assert worded(tmp_path, name, "test", task, wording) == f" The person in video says: {query}"


def test_sentiment_and_intent_are_worded_alike(tmp_path):
    three = worded(tmp_path, "cmu_mosi", "test", "msa", "msa_three", "three")
    assert three.startswith(" The person in video says: It is.  [sentiment] You are a helpful assistant specialized in")
    assert "from the following list: Neutral, Negative, Positive. Please" in three
    two = worded(tmp_path, "sims", "test", "msa", "msa_three", "three")
    assert "only one sentiment label strictly chosen from the following list: Positive, Negative. Please" in two
    intent = worded(tmp_path, "mc_eiu", "test", "intent")
    assert " [intent] " in intent and "from the following list: acknowledging, agreeing, consoling," in intent


def test_training_draws_from_a_pool(tmp_path):
    header = TABLES["mer2023"][0]
    write(tmp_path, "mer2023", [f"{n},train,sad,Oh no,x" for n in range(200)], header)
    wording = prompts.load(None, [], ["mer2023"])
    queries = [wording.query(sample, "mer") for sample in read(tmp_path, "mer2023")]
    pool = set(queries)
    first = (
        "Please determine which emotion label in the video represents: happy, sad, neutral, angry, worried, surprise"
    )
    assert f" The person in video says: Oh no.  [emotion] {first}. " in pool  # as Emotion-LLaMA's
    assert len(pool) == 7 and max(map(queries.count, pool)) < 60
    assert queries == [wording.query(sample, "mer") for sample in read(tmp_path, "mer2023")]
    assert all("You are a helpful" not in query for query in pool)


def test_queries_are_the_originals_to_the_byte(tmp_path, shared):
    golden = json.loads((shared / "emotion_llama/emotion_llama_v2/golden.json").read_text())["instructions"][0]
    said = "I never knew that you could do this."
    write(tmp_path, "mer2023", [f"{n},train,sad,{said},x" for n in range(60)], TABLES["mer2023"][0])
    wording = prompts.load(None, [], ["mer2023"])
    assert golden.partition("</Vid>")[2] in {wording.query(sample, "mer") for sample in read(tmp_path, "mer2023")}


def test_reasons_have_no_full_stop_and_e3_its_person(tmp_path):
    assert worded(tmp_path, "caer", "train", "eri").startswith(" The person in video says: Ha  [reason] ")
    assert worded(tmp_path, "caer", "train", "mer").startswith(" The person in video says: Ha.  [emotion] ")
    assert worded(tmp_path, "e3", "train", "mer").startswith(" The girl in red in video says: Well.  [emotion] ")
    assert worded(tmp_path, "e3", "test", "mer").startswith(
        f" The person in video says: No. {HELPFUL}{ONE}angry, disgu"
    )
    assert worded(tmp_path, "e3", "train", "eri").startswith(" The girl in red in video says: Well  [reason] ")


def test_own_words_replace_them(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("tasks: {caer.mer: 'What is it? {transcript}'}")
    write(tmp_path, "caer")
    wording = prompts.load(own, [], ["caer"])
    assert [wording.query(read(tmp_path, "caer", split)[0], "mer") for split in ("train", "test")] == [
        "What is it? Ha",
        "What is it? No",
    ]
    assert prompts.load().digest == prompts.load(None, None, []).digest


# The synthetic tables, through the commands


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """The smallest synthetic tables with clips, built for training and test beside them under `amt`."""
    folder = tmp_path_factory.mktemp("mmeverse")
    made = in_process("-m", "data_prep.demo", "--out", folder / "raw", "--size", "tiny", "--sound", "--mmeverse")
    assert made.returncode == 0, made.stderr
    for split in ("train", "test"):
        done = build(folder, "--split", split)
        assert done.returncode == 0, done.stderr
        (folder / f"{split}.txt").write_text(done.stdout)
    return folder


def build(folder: Path, *arguments: object):
    command = ("-m", "data_prep.build_amt", "--mmeverse", folder / "raw/mmeverse", "--out", folder / "amt")
    return in_process(*command, *arguments)


def rows_of(folder: Path, split: str) -> list[dict]:
    files = sorted((folder / "amt").glob(f"*.*.{split}.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


SETS_MADE = ("mer2023", "ov_merd", "cmu_mosi", "mc_eiu", "e3", "mafw", "bold")


def test_counts_and_absent_sets_are_printed(tables):
    train, test = ((tables / f"{split}.txt").read_text() for split in ("train", "test"))
    assert "mmeverse: no table of mer2024, iemocap, meld, mosei, sims, ch_sims_v2_s, caer, dfew; left out" in train
    assert "mafw: 14, unknown: not published" in train and "ov_merd: no train split" in train
    assert "mer2023: 8, 411 published" in test and "bold: 8, unknown: not published" in test


def test_channels_of_training_and_test(tables):
    channels = {split: {row["channel"] for row in rows_of(tables, split)} for split in ("train", "test")}
    assert channels["test"] == {
        *("mer2023.ov", "ov_merd.ov", "cmu_mosi.msa.three", "mc_eiu.mer", "mc_eiu.intent", "e3.mer"),
        *("mafw.mer", "mafw.mlmer", "bold.mlmer"),
    }
    assert channels["train"] == {
        *(f"{name}.{task}" for name in SETS_MADE if name != "ov_merd" for task in ("audio", "image", "eri")),
        *(f"{name}.think" for name in ("mer2023", "mc_eiu", "e3", "mafw")),
        *("mafw.think.multi", "bold.think.multi", "cmu_mosi.think.three"),
        *("mer2023.mer", "cmu_mosi.msa.three", "mc_eiu.mer", "mc_eiu.intent", "e3.mer"),
        *("mafw.mer", "mafw.mlmer", "bold.mlmer"),
    }


def test_rows_show_the_media_of_their_task_alone(tables):
    expected = {"audio": {"audios"}, "image": {"images"}}
    for row in rows_of(tables, "train") + rows_of(tables, "test"):
        shown = {kind for kind in ("videos", "audios", "images") if row.get(kind)}
        assert shown == expected.get(split_channel(row["channel"])[1], {"videos", "audios", "images"}), row


def test_frames_are_those_of_the_peak_file(tables):
    raw = tables / "raw/mmeverse"
    peaks = json.loads((raw / "MAFW_peak.json").read_text())
    root = json.loads((tables / "amt/report.train.json").read_text())["media_root"]
    images = {row["images"][0] for row in rows_of(tables, "train") if row["channel"] == "mafw.image"}
    assert len(images) == 14
    for image in images:
        stem, index, _ = Path(image).name.split(".")
        assert int(index) == peaks[stem]["peak_index"]
        assert min(read_picture(tables / "amt" / root / image).size) > 60


def test_frames_are_cut_once_and_fall_back_to_the_middle(tables, tmp_path):
    raw = tables / "raw/mmeverse"
    frame = next((raw / "frames/MAFW").iterdir())
    before = frame.stat().st_mtime_ns
    peaks = (raw / "MAFW_peak.json").read_text()
    (raw / "MAFW_peak.json").unlink()
    try:
        out = tmp_path / "amt"
        command = ("-m", "data_prep.build_amt", "--mmeverse", raw, "--mmeverse-sets", "mafw,bold", "--split", "test")
        done = in_process(*command, "--out", out)
    finally:
        (raw / "MAFW_peak.json").write_text(peaks)
    assert done.returncode == 0, done.stderr
    assert frame.stat().st_mtime_ns == before
    found = [json.loads(line) for line in (out / "mafw.mer.test.jsonl").read_text().splitlines()]
    assert all(row["images"][0].endswith(".middle.jpg") for row in found) and len(found) == 8
    assert count_frames(next((raw / "MAFW").iterdir())) >= 14
    assert {path.name.split(".")[0] for path in out.glob("*.test.jsonl")} == {"mafw", "bold", "faults"} - {"faults"}


def test_every_gold_can_be_read_back(tables):
    for row in rows_of(tables, "train") + rows_of(tables, "test"):
        dataset, key, part = split_channel(row["channel"])
        task = TASKS[key].of_part(part)
        assert task.strict(row["response"], dataset) is not None, row
        if "mlmer" in row["channel"]:
            assert row["response"].split("; ") and not row["response"].endswith(".")


def test_what_does_not_go_together_is_one_line(tables, tmp_path):
    folder = tables / "raw/mmeverse"
    (tmp_path / "mer2023").mkdir()
    (tmp_path / "mer2023/test_NCEV.txt").write_text("sample_1 12 sad -10\n")
    cases = {
        f"mer2023 is given by its own folder ({tmp_path / 'mer2023'}) and by its table in {folder} both": (
            *("--mer2023", tmp_path / "mer2023"),
        ),
        "--mmeverse-sets: nope is none of its sets": ("--mmeverse-sets", "nope"),
        "holds no table of CAER.csv": ("--mmeverse-sets", "caer"),
    }
    for message, more in cases.items():
        done = build(tables, "--split", "test", *more)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    command = ("-m", "data_prep.build_amt", "--mmeverse-sets", "bold", "--split", "test", "--out", tmp_path / "out")
    assert "--mmeverse-sets names sets of --mmeverse DIR" in in_process(*command).stderr
    assert "no such folder" in in_process(*command, "--mmeverse", tmp_path / "none").stderr


def test_descriptions_that_are_empty_or_long_make_no_row(tables, tmp_path):
    header = "video_id,mode,emotion_label,text_whisper,response_AudioReasoner,response_Qwen25vl_72B"
    clips = sorted((tables / "raw/mmeverse/BOLD").iterdir())[:3]
    (tmp_path / "CAER").mkdir()
    for name, clip in zip("abc", clips, strict=True):
        (tmp_path / f"CAER/{name}.mp4").write_bytes(clip.read_bytes())
    long = "word " * 121
    write(
        tmp_path, "caer", [f"a,train,sad,x,,{long}", f"b,train,sad,x,{long[5:]},Seen.", "c,train,sad,x,Heard.,"], header
    )
    done = in_process(
        "-m", "data_prep.build_amt", "--mmeverse", tmp_path, "--split", "train", "--out", tmp_path / "amt"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "amt/report.train.json").read_text())
    assert report["rows"] == {"caer.audio": 2, "caer.image": 1, "caer.mer": 3}
    assert {name: sum(found.values()) for name, found in report["left_out"].items() if name != "caer.think"} == {
        "caer.audio": 1,
        "caer.image": 2,
    }
