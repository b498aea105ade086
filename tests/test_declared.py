"""Datasets declared in a file: every form of table, splits that share nobody, and one clear line for what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data_prep.readers.declared import DeclaredReader, Row, by_rule
from swift_plugins.declared import Declared
from swift_plugins.files import InputError, read_config, read_rows
from tests.conftest import ROOT, in_process
from tests.test_frames import write_clip

CONTENT = {
    "source": "labels.csv",
    "columns": {"clip": "clip", "transcript": "text", "emotion": "label", "split": "split"},
    "clips": "clips/{clip}.mp4",
    "labels": {"mer": ["Glad", "Glad tears", "不开心"]},
    "values": {"emotion": {"happy": "Glad", "other": None, 7: "不开心"}},
}
TABLE = """clip,text,label,split
a,Hello.,glad,train
b,Hi.,Glad tears,train
c,Hm.,不开心,val
d,Oh.,happy,test
e,,other,test
"""


def reader(folder: Path, table: str | bytes = TABLE, file: str = "labels.csv", **changes) -> DeclaredReader:
    """The reader of a dataset in `folder`; a change to None leaves the key out."""
    (folder / file).write_bytes(table.encode() if isinstance(table, str) else table)
    content = {key: value for key, value in (CONTENT | {"source": file} | changes).items() if value is not None}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    declared = read_config(folder / "mine.yaml", Declared)
    return DeclaredReader(declared.model_copy(update={"name": "mine", "path": str(folder / "mine.yaml")}))


def samples(one: DeclaredReader, *splits: str) -> list:
    return [sample for split in splits or ("train", "dev", "test") for sample in one.read(one.root, split, [])]


def test_a_table(tmp_path):
    found = samples(reader(tmp_path))
    assert [(s.id, s.emotion, s.text) for s in found] == [
        ("mine/train/a", "glad", "Hello."),
        ("mine/train/b", "glad tears", "Hi."),
        ("mine/dev/c", "不开心", "Hm."),
        ("mine/test/d", "glad", "Oh."),
        ("mine/test/e", None, ""),
    ]
    assert found[0].video == "clips/a.mp4" and found[0].sentiment is None


ROWS = [dict(zip(TABLE.split("\n")[0].split(","), line.split(","), strict=True)) for line in TABLE.split("\n")[1:-1]]


MOSI = """video_id,clip_id,text,label,annotation,mode
03bSnISJMiM,1,ANYHOW IT WAS REALLY GOOD,2.4,Positive,train
03bSnISJMiM,2,BUT NOT A WHOLE BUNCH,-1.0,Negative,test
03bSnISJMiM,10,IT IS A FILM,0.0,Neutral,test
"""


@pytest.mark.parametrize(
    ("flag", "answers"),
    [
        ((), {"03bSnISJMiM/2": ("mosi.msa", "Negative."), "03bSnISJMiM/10": ("mosi.msa.zero", "Positive.")}),
        (("--msa", "score"), {"03bSnISJMiM/2": ("mosi.msa", "-1"), "03bSnISJMiM/10": ("mosi.msa.zero", "0")}),
    ],
)
def test_mosi_is_read_as_mosei_is(tmp_path, flag, answers):
    """Both Acc2 and scores: what is zero has its part of the channel."""
    (tmp_path / "mosi").mkdir()
    (tmp_path / "mosi" / "label.csv").write_text(MOSI)
    command = ("-m", "data_prep.build_amt", "--data", "mosi", "--root", tmp_path / "mosi", "--out", tmp_path / "amt")
    done = in_process(*command, "--split", "test", "--missing-media", "text-only", *flag)
    assert done.returncode == 0, done.stderr
    rows = [row for _, row in read_rows(tmp_path / "amt" / "mosi.msa.test.jsonl")]
    assert {row["id"]: (row["channel"], row["response"]) for row in rows} == {
        f"mosi/test/{clip}": answer for clip, answer in answers.items()
    }
    assert [path.name for path in (tmp_path / "amt").glob("*.jsonl")] == ["mosi.msa.test.jsonl"]


@pytest.mark.parametrize(
    ("name", "table", "changes"),
    [
        ("labels.tsv", TABLE.replace(",", "\t"), {}),
        ("labels.csv", TABLE.replace(",", ";"), {"delimiter": ";"}),
        ("labels.csv", TABLE.encode("gb18030"), {"encoding": "gb18030"}),
        ("labels.csv", b"\xef\xbb\xbf" + TABLE.encode(), {}),  # Excel's UTF-8
        ("labels.json", json.dumps(ROWS, ensure_ascii=False), {}),
        ("labels.jsonl", "\n".join(json.dumps(row) for row in ROWS), {}),
    ],
)
def test_every_form_of_table_says_the_same(tmp_path, name, table, changes):
    (tmp_path / "csv").mkdir()
    assert samples(reader(tmp_path, table, name, **changes)) == samples(reader(tmp_path / "csv"))


def test_a_table_for_each_split_and_numbers_as_labels(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"clip": 1, "label": 7}\n{"clip": 2.0, "label": null}\n')
    columns = {"clip": "clip", "emotion": "label"}
    one = reader(tmp_path, "clip,label\n3,glad\n", source={"train": "a.jsonl", "test": "labels.csv"}, columns=columns)
    assert [(s.id, s.emotion) for s in samples(one)] == [
        ("mine/train/1", "不开心"),
        ("mine/train/2", None),
        ("mine/test/3", "glad"),
    ]


def test_a_folder_of_clips(tmp_path):
    for place in ("train/Glad/1.mp4", "test/不开心/1.mkv", "test/happy/2.MP4"):
        (tmp_path / "clips" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / place).touch()
    one = reader(tmp_path, source="clips/", columns=None, clips=None)
    assert [(s.id, s.emotion, s.video) for s in samples(one)] == [
        ("mine/train/train_Glad_1", "glad", "clips/train/Glad/1.mp4"),
        ("mine/test/test_happy_2", "glad", "clips/test/happy/2.MP4"),
        ("mine/test/test_不开心_1", "不开心", "clips/test/不开心/1.mkv"),
    ]
    assert one.TASKS == ("mer", "fer", "eri")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b,Hi.,Glad tears", "b,Hi.,angry", "labels.csv:3: emotion is 'angry', not one of Glad, Glad tears, 不开心; "),
        ("b,Hi.", "a,Hi.", "labels.csv:3: a is named twice (first in line 2)"),
        ("b,Hi.", ",Hi.", "labels.csv:3: names no clip"),
        ("b,Hi.", "../b,Hi.", "labels.csv:3: clip clips/../b.mp4 is not in the data's folder"),
        (",train\nc", ",fold9\nc", "labels.csv:3: split is 'fold9', not train, dev or test"),
        ("d,Oh.,happy,test", "a,Oh.,happy,test", "labels.csv:5: clips/a.mp4 is named twice (first in line 2)"),
        ("text,label", "texts,label", "labels.csv: has no column text (its columns: clip, texts, label, split)"),
        ("b,Hi.,Glad tears,train", "b,Hi.,Glad tears", "labels.csv:3: has 3 cells where 4 are expected"),
    ],
)
def test_a_faulty_table(tmp_path, old, new, message):
    assert old in TABLE
    with pytest.raises(InputError) as error:
        samples(reader(tmp_path, TABLE.replace(old, new, 1)))
    assert message in str(error.value)


def test_a_table_of_another_encoding_and_a_row_of_json_that_lacks_a_key(tmp_path):
    with pytest.raises(InputError, match="csv:4: is not UTF-8; `encoding` in "):
        samples(reader(tmp_path, TABLE.encode("gb18030")))
    with pytest.raises(InputError, match=r"labels.jsonl:2: has no label \(its keys: clip"):
        samples(
            reader(tmp_path, json.dumps(ROWS[0]) + "\n" + '{"clip": "b", "text": "", "split": "train"}', "labels.jsonl")
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"mer": ["Glad", "glad"]}}, "labels: 'glad' and 'Glad' are one label"),
        ({"labels": {"mer": ["Glad"]}}, "labels: a label set has two labels or more"),
        ({"labels": {"mer": ["Glad.", "Sad"]}}, "labels: 'Glad.' cannot be a label"),
        ({"labels": {}}, "labels.mer is missing"),
        ({"columns": {"transcript": "text"}}, "columns: clip is missing"),
        ({"columns": {"clip": "clip", "emotions": "label"}}, "columns.emotions"),
        ({"values": {"emotion": {"x": "Angry"}}}, "values.emotion: 'Angry' is none of labels.mer"),
        ({"clips": "{file}.mp4"}, "clips: no field {file} here; there are clip, dialogue"),
        ({"split": {"by": "speaker"}}, "split: the table says the splits already"),
        ({"name": "My data"}, "name: 'My data' is no name"),
        ({"reader": "meld"}, "give source"),
        ({"root_dir": "."}, "root_dir: unknown key"),
    ],
)
def test_a_faulty_declaration(tmp_path, change, message):
    with pytest.raises(InputError) as error:
        reader(tmp_path, **change)
    assert message in str(error.value) and "mine.yaml" in str(error.value)


# Splits


def rows(pairs: list[tuple[str, str]]) -> list[Row]:
    """Rows of (speaker, dialogue)."""
    return [
        Row(Path("t"), place, f"c{place}", None, "", None, speaker, dialogue, place, None, None, None)
        for place, (speaker, dialogue) in enumerate(pairs)
    ]


def rule(by: str) -> Declared:
    columns = {"clip": "c", "speaker": "s", "dialogue": "d"}
    return Declared(source="t.csv", columns=columns, split={"by": by})


@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from("012345678")), min_size=1, max_size=60))
def test_nobody_and_no_dialogue_is_in_two_splits(pairs):
    for by in ("speaker", "dialogue"):
        try:
            split = by_rule(rows(pairs), rule(by))
        except InputError as error:
            assert f"by {by} leaves no clip for" in str(error)
            continue
        for name in ("dialogue",) if by == "dialogue" else ("speaker", "dialogue"):
            places: dict[str, set[str]] = {}
            for row in split:
                places.setdefault(getattr(row, name), set()).add(row.split)
            assert all(len(found) == 1 for found in places.values()), (by, name)


def test_a_split_rule_is_near_its_shares_and_does_not_depend_on_the_order_of_rows():
    pairs = [(f"s{number // 4}", "") for number in range(400)]
    one = {row.clip: row.split for row in by_rule(rows(pairs), rule("speaker"))}
    counts = [list(one.values()).count(split) for split in ("train", "dev", "test")]
    assert counts == [280, 40, 80]
    assert {row.clip: row.split for row in by_rule(rows(pairs)[::-1], rule("speaker"))} == one


# As a user runs it


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory) -> Path:
    """Two columns of labels, dialogues with causes, no clips."""
    folder = tmp_path_factory.mktemp("dialogues")
    labels, signs = ("joy", "anger", "calm"), ("good", "so-so", "bad")
    lines = ["id,scene,line,who,words,emo,polarity,because"]
    for scene in range(10):
        for line in (1, 2, 3):
            name = labels[(scene + line) % 3]
            because = "" if name == "calm" else f"{line};1" if line > 1 else "1"
            lines.append(
                f"{scene}-{line},{scene},{line},p{scene % 4},Line {scene} {line}.,{name},{signs[line - 1]},{because}"
            )
    (folder / "talk.csv").write_text("\n".join(lines) + "\n")
    content = {
        "source": "talk.csv",
        "columns": dict(
            zip(
                ("clip", "dialogue", "turn", "speaker", "transcript", "emotion", "sentiment", "causes"),
                lines[0].split(","),
                strict=True,
            )
        ),
        "labels": {"mer": ["Joy", "Anger", "Calm"], "msa": ["Good", "So-so", "Bad"], "ecpe": ["joy", "anger"]},
        "prompts": {"mer": "{transcript} Wie geht es {speaker}? {labels}"},
    }
    (folder / "talk.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_dialogues_sentiments_of_other_labels_and_causes_are_built_and_scored(dialogues, project, tmp_path):
    known = {"AMT_EXTENSIONS": str(dialogues / "talk.yaml")}
    build = ("-m", "data_prep.build_amt", "--split", "test", "--missing-media", "text-only")
    done = project(*build, "--data", dialogues / "talk.yaml", "--out", tmp_path / "amt")
    assert done.returncode == 0, done.stderr
    again = project(*build, "--data", "talk", "--root", dialogues, "--out", tmp_path / "again", **known)
    assert again.returncode == 0, again.stderr
    files = {path.name: path.read_bytes() for path in (tmp_path / "amt").glob("talk.*")}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "again").glob("talk.*")}
    built = {
        key: [row for _, row in read_rows(tmp_path / "amt" / f"talk.{key}.test.jsonl")]
        for key in ("mer", "msa", "ecpe")
    }
    assert len(built["mer"]) == 6, "two whole dialogues"
    assert built["mer"][0]["query"].endswith("? Joy, Anger, Calm") and "Wie geht es p" in built["mer"][0]["query"]
    assert built["msa"][1]["response"] == "So-so." and "What is the sentiment" in built["msa"][1]["query"]
    assert {row["response"].split("_")[1][:3] for row in built["ecpe"]} <= {"joy", "ang"}

    result = tmp_path / "result.jsonl"
    answers = [row | {"labels": row["response"]} for part in built.values() for row in part]
    result.write_text("".join(json.dumps(row) + "\n" for row in answers))
    scored = project(ROOT / "compute_result.py", result, "--json", tmp_path / "scores.json", **known)
    assert scored.returncode == 0, scored.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["talk.mer"]["strict"]["accuracy"] == scores["talk.msa"]["strict"]["weighted_f1"] == 1
    assert set(scores["talk.msa"]["per_class"]["strict"]) == {"good", "so-so", "bad"}
    assert scores["talk.ecpe"]["strict"]["paper"]["f1"] == 1
    assert set(scores["talk.ecpe"]["per_class"]["strict"]["paper"]) == {"joy", "anger"}
    unknown = project(ROOT / "compute_result.py", result)
    assert unknown.returncode == 2 and "AMT_EXTENSIONS=FILE names the file" in unknown.stderr


def test_what_is_wrong_ends_in_one_line_and_writes_nothing(dialogues, project, tmp_path):
    build = ("-m", "data_prep.build_amt", "--split", "train", "--missing-media", "text-only", "--out", tmp_path / "amt")
    talk = yaml.safe_load((dialogues / "talk.yaml").read_text())
    cases = [
        (talk | {"labels": talk["labels"] | {"mer": ["Joy", "Anger"]}}, "talk.csv:3: emotion is 'calm', not one of"),
        (talk | {"name": "meld"}, "name: meld is a dataset of the project; give yours another"),
        (talk | {"labels": talk["labels"] | {"mre": ["a", "b"]}}, "mre is no task (one of msa, mer"),
        (talk | {"labels": talk["labels"] | {"think": ["joy", "anger"]}}, "the labels of think are those of mer"),
        (talk | {"labels": talk["labels"] | {"ecpe": ["joy", "Anger"]}}, "labels.ecpe: 'Anger' cannot be read back"),
        (talk | {"prompts": {"mer": "{nonsense}"}}, "prompts: "),
        (talk | {"source": "none.csv"}, "holds no none.csv"),
    ]
    for number, (content, message) in enumerate(cases):
        file = dialogues / f"bad{number}.yaml"
        file.write_text(yaml.safe_dump(content))
        ways = [(file, {}), (content.get("name", f"bad{number}"), {"AMT_EXTENSIONS": str(file)})]
        for name, known in ways if number < 2 else ways[:1]:
            done = project(*build, "--data", name, **known)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
            assert message in done.stderr or (known and "no such dataset" in done.stderr), done.stderr
            assert not (tmp_path / "amt").exists()
    done = project(*build, "--data", "nobody")
    assert done.returncode == 2 and "--data nobody: no such dataset" in done.stderr
    clips = dialogues / "csv"
    clips.mkdir(exist_ok=True)
    faces = ("-m", "data_prep.fer", "--dataset", dialogues / "talk.yaml", "--csv", clips, "--out", tmp_path / "fer")
    done = project(*faces)
    assert done.returncode == 2 and "emotion_aus: which Action Units belong to Calm?" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_doctor_says_which_split_lacks_a_label_and_what_can_be_done(project, tmp_path):
    table = TABLE.replace("b,Hi.,Glad tears,train", "b,Hi.,不开心,train").replace("Hm.,不开心,val", "Hm.,happy,val")
    reader(tmp_path, table + "f,Oh.,Glad tears,test\n")
    done = project("-m", "data_prep.doctor", "--data", tmp_path / "mine.yaml")
    assert done.returncode == 0, done.stderr
    told = re.search(r"warning +absent_label +3  (.*)\n +(.*)\n +(.*)\n", done.stdout)
    assert told[1].endswith("share them out otherwise, or leave the label out")
    assert told[2] == "mine/train: no clip is Glad tears (mer), which test has"
    assert told[3] == "mine/dev: no clip is 不开心 (mer), which train has"
    head, *lines = done.stdout.splitlines()[:4]
    ends = [len(line.partition("own data")[0].rstrip().encode("gb18030")) for line in (head, *lines)]
    assert len(set(ends)) == 1, "counts stand below their labels, which are twice as wide as letters"


def test_a_table_whose_labels_are_not_found_is_said_and_gives_no_rows(project, tmp_path):
    lines = [f"{number}.mp4,Line {number}.,{'glad' if number % 2 else 'sad'}" for number in range(20)]
    (tmp_path / "labels.csv").write_text("\n".join(["clip,text,feel_x", *lines]) + "\n")
    done = project("-m", "data_prep.new_dataset", "--from", tmp_path / "labels.csv", "--out", tmp_path / "own.yaml")
    assert done.returncode == 0 and done.stderr.startswith("no column of labels was found: name it")
    build = ("-m", "data_prep.build_amt", "--missing-media", "text-only", "--out", tmp_path / "amt")
    done = project(*build, "--data", tmp_path / "own.yaml", "--split", "train")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "no row comes of train" in done.stderr
    assert not list((tmp_path / "amt").glob("*"))


def test_rows_from_elsewhere_are_scored_by_a_file_of_labels(project, tmp_path):
    answers = [("Glad.", "Glad"), ("难过", "难过。"), ("Very glad", "I am glad"), ("难过", "不难过")]  # gold, response
    rows = [{"response": r, "labels": g, "channel": "faces", "query": f"{i}?"} for i, (g, r) in enumerate(answers)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = tmp_path / "labels.yaml"

    def score(text: str, *more: str):
        labels.write_text(text, encoding="utf-8")
        return project(ROOT / "compute_result.py", tmp_path / "r.jsonl", "--labels", labels, *more)

    done = score("mine.mer: [Glad, 难过]\n", "--json", str(tmp_path / "s.json"))
    assert done.returncode == 0, done.stderr
    block = json.loads((tmp_path / "s.json").read_text())["mine.mer"]
    assert (block["n"], block["unparsed"], block["unparsed_lenient"], block["lenient"]["accuracy"]) == (4, 3, 1, 0.75)
    paired = tmp_path / "paired.jsonl"
    paired.write_text("".join(json.dumps(row | {"id": f"mine/test/{i}"}) + "\n" for i, row in enumerate(rows)))
    command = (paired, "--labels", labels, "--against", paired)
    done = project(ROOT / "compute_result.py", *command)  # both name no channel of theirs
    assert done.returncode == 0 and "mine.mer: n 4, paired bootstrap" in done.stdout, done.stderr
    several = "mine.mer: [Glad, 难过]\nmine.msa: [Good, Bad]\n"
    assert "mine.mer: n 4" in score(several, "--task", "mine.mer").stdout
    for text, message in (
        (several, "'faces' is not a channel"),
        ("mine.mer: [Glad, Sad]\n", "r.jsonl:2: gold answer '难过' is not one of mine.mer"),
        ("mine.mer: [Glad]\n", "labels.yaml: mine.mer: a label set has two labels or more"),
        ("mine.eri: [Glad, Sad]\n", "mine.eri: answers of eri are no labels"),
        ("mer: [Glad, Sad]\n", "'mer' is not a channel"),
        ("- Glad\n", "labels.yaml: "),
        ("labels: {mer: [Glad, Sad]}\n", "give source"),
    ):
        done = score(text)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and message in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            "Video ID;Utterance;Speaker;Emotion;Sentiment\nx;Hi;A;Happy;pos\ny;Ho;B;sad;neg\nz;He;C;happy;pos\n",
            {
                "source": "labels.csv",
                "delimiter": ";",
                "columns": {
                    "clip": "Video ID",
                    "transcript": "Utterance",
                    "emotion": "Emotion",
                    "sentiment": "Sentiment",
                    "speaker": "Speaker",
                },
                "clips": "videos/{clip}.mp4",
                "labels": {"mer": ["Happy", "sad"], "msa": ["pos", "neg"]},
                "emotion_aus": {"Happy": "happy", "sad": "sad"},
                "split": {"by": "clip", "dev": 0.1, "test": 0.2},
            },
        ),
        (
            "视频,文本,情绪,split\nx.mp4,你好,开心,train\ny.mp4,你好吗,难过,val\n",
            {
                "source": "labels.csv",
                "encoding": "gb18030",
                "columns": {"clip": "视频", "transcript": "文本", "emotion": "情绪", "split": "split"},
                "clips": "videos/{clip}",
                "labels": {"mer": ["开心", "难过"]},
                "emotion_aus": {"开心": "happy", "难过": "sad"},
            },
        ),
    ],
    ids=["semicolons", "Chinese"],
)
def test_new_dataset_writes_what_it_guesses(tmp_path, project, table, told):
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "x.mp4", n=4)
    encoding = told.get("encoding", "utf-8")
    (tmp_path / "labels.csv").write_text(table, encoding=encoding)
    command = ("-m", "data_prep.new_dataset", "--from", tmp_path / "labels.csv", "--out", tmp_path / "own.yaml")
    done = project(*command, "--clips", tmp_path / "videos")
    written = yaml.safe_load((tmp_path / "own.yaml").read_text(encoding="utf-8"))
    assert written == {"root": "."} | told
    assert f"# 1 of {table.count(chr(10)) - 1} clips are there under this name." in done.stdout
    if "split" in told:  # three clips cannot fill three splits at these shares: it says so, in one line
        assert "# By speaker, no clip would be left for some split." in done.stdout
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "leaves no clip for" in done.stderr
    else:
        assert done.returncode == 0 and "train 1, dev 1, test 0" in done.stdout
    again = project(*command)
    assert again.returncode == 2 and "exists; --force writes over it" in again.stderr
