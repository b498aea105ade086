"""MERR: its files into rows, its records into the project's and back, other clips into its records."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import merr as command
from data_prep import prompts
from data_prep.fer.facs import load_facs
from data_prep.readers import READERS, merr
from data_prep.readers.sample import Sample
from swift_plugins.declared import DATASETS
from swift_plugins.files import CONFIGS, InputError
from swift_plugins.tasks import TASKS
from tests.conftest import in_process
from tests.test_frames import write_clip

WORDING = CONFIGS / "emotion-llama" / "prompts.yaml"
FACS = load_facs()
ASKED = "Please determine which emotion label in the video represents: "
ANGRY = {
    "peak_index": "20",
    "peak_AU_list": ["AU04", "AU25"],
    "AU_list": ["AU04"],
    "visual_prior_list": ["Brow lowerer"],
    "audio_prior_list": "The voice is low.",
    "pseu_emotion": "angry",
    "text": "I told you.",
    "smp_reason_caption": "The person frowns\n        and speaks in a low voice: anger.",
}
NEUTRAL = {
    "peak_index": "0",
    "peak_AU_list": [],
    "AU_list": [],
    "visual_prior_list": [],
    "audio_prior_list": "",
    "pseu_emotion": "neutral",
    "text": "Yes",
    "smp_reason_caption": "Nothing moves.",
}
COARSE = {key: value for key, value in ANGRY.items() if key not in ("text", "smp_reason_caption")} | {
    "caption": "This person in the video is a man. Saying: I told you."
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Both files, a list of each kind, transcripts, and clips of both suffixes."""
    root = tmp_path / "merr"
    root.mkdir()
    (root / merr.FINE).write_text(json.dumps({"sample_1": ANGRY, "samplenew_2": NEUTRAL}, indent=4))
    (root / merr.COARSE).write_text(json.dumps({"sample_1": COARSE, "sample_3": COARSE}))
    (root / "relative_train_NCEV.txt").write_text("sample_1 125 angry -10\nsample_4 50 worried -0.5\n")
    (root / "transcription_en_all.csv").write_text("name,sentence\nsample_1,other\nsample_3,Oh my.\nsample_4,No!\n")
    clip = write_clip(root / "sample_1.mp4", n=4)
    for name in ("sample_3.avi", "sample_4.mp4", "samplenew_2.mp4"):
        shutil.copy(clip, root / name)
    return root


def build(folder: Path, *more: object):
    out = folder.parent / "amt"
    return in_process("-m", "data_prep.build_amt", "--split", "train", "--out", out, "--jobs", 1, *more)


def rows(folder: Path, channel: str) -> dict[str, dict]:
    lines = (folder.parent / "amt" / f"{channel}.train.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


# Rows


def test_rows_of_emotion_reason_and_face(folder):
    done = build(folder, "--merr", folder, "--merr-coarse", folder, "--prompts", WORDING)
    assert done.returncode == 0, done.stderr
    assert "Table 1" not in done.stdout, "the paper trained on no MERR"
    mer = rows(folder, "merr.mer")
    assert mer["merr/train/sample_1"] == {
        "id": "merr/train/sample_1",
        "channel": "merr.mer",
        "query": f" The person in video says: I told you..  [emotion] {ASKED}"
        "happy, sad, neutral, angry, worried, surprise, fear, contempt, doubt. ",
        "response": "angry",
        "videos": ["sample_1.mp4"],
        "facts": {"transcript": "I told you."},
    }
    assert set(mer) == {"merr/train/sample_1", "merr/train/samplenew_2"}
    reason = rows(folder, "merr.eri")["merr/train/sample_1"]
    assert reason["query"].startswith(" The person in video says: I told you..  [reason_v2] ")
    assert reason["response"] == "The person frowns and speaks in a low voice: anger.", "one space for white space"
    (face,) = rows(folder, "merr.fer").values()
    assert TASKS["fer"].members(TASKS["fer"].strict(face["response"], "merr")) == {"AU04"}, "not MERR's own phrase"
    coarse = rows(folder, "merr_coarse.mer")
    assert [row["response"] for row in coarse.values()] == ["angry", "angry", "worried"], "the list's own clip, too"
    assert coarse["merr_coarse/train/sample_3"]["videos"] == ["sample_3.avi"]
    reasons = rows(folder, "merr_coarse.eri")
    assert reasons["merr_coarse/train/sample_3"]["response"] == COARSE["caption"]
    assert reasons["merr_coarse/train/sample_3"]["query"].startswith(" The person in video says: Oh my..  [reason] ")
    assert set(reasons) == {"merr_coarse/train/sample_1", "merr_coarse/train/sample_3"}


def test_clips_in_a_folder_of_their_own_and_the_usual_wording(folder):
    (folder / "video").mkdir()
    for clip in (*folder.glob("*.mp4"), *folder.glob("*.avi")):
        clip.rename(folder / "video" / clip.name)
    done = build(folder, "--merr", folder)
    assert done.returncode == 0, done.stderr
    row = rows(folder, "merr.mer")["merr/train/sample_1"]
    assert row["videos"] == ["video/sample_1.mp4"] and row["query"].startswith("I told you.\n<emotion> Which emotion")


def test_the_answer_is_the_label_alone():
    mer = TASKS["mer"]
    assert mer.labels["merr"] == mer.labels["merr_coarse"] == merr.LABELS
    assert mer.target("angry", "merr") == "angry" == mer.strict(" angry ", "merr")
    assert mer.strict("angry.", "merr") is None and mer.lenient("The emotion is Angry.", "merr") == "angry"


def test_the_query_is_the_authors_byte_for_byte(shared):
    golden = json.loads((shared / "emotion_llama" / "emotion_llama" / "golden.json").read_text())
    media = "<video><VideoHere></video> <feature><FeatureHere></feature>"
    wording = prompts.load(WORDING)
    sample = Sample("merr/train/a", "merr", "train", "I never knew that you could do this.")
    assert media + wording.query(sample, "mer") == golden["instructions"][0]
    asked = {
        media + wording.query(Sample(f"merr_coarse/train/{n}", "merr_coarse", "train", "Oh my."), "eri")
        for n in range(200)
    }
    assert len(asked) == 5 and golden["instructions"][1] in asked


def test_each_row_draws_one_of_five_instructions_alike_likely():
    wording = prompts.load(WORDING)
    samples = [Sample(f"merr/train/sample_{n:08}", "merr", "train", "Hm") for n in range(5000)]
    drawn = [wording.query(sample, "eri") for sample in samples]
    assert drawn == [wording.query(sample, "eri") for sample in samples], "by the id alone"
    counts = Counter(drawn)
    assert len(counts) == 5 and all(900 < count < 1100 for count in counts.values())
    assert all(text.startswith(" The person in video says: Hm.  [reason_v2] ") for text in counts)
    assert all(text[-2:] in (". ", "? ") for text in counts)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"mer": ["{transcript}", 7]}, "tasks.mer: Input should be a valid string, or a list of several"),
        ({"mer": []}, "tasks.mer: Input should be a valid string, or a list of several"),
        ({"mer": ["{transcript}", "{nonsense}"]}, "tasks.mer: no field {nonsense} here"),
    ],
)
def test_several_wordings_are_checked_like_one(tmp_path, tasks, message):
    path = tmp_path / "prompts.yaml"
    path.write_text(json.dumps({"tasks": tasks}))
    with pytest.raises(InputError) as error:
        prompts.load(path)
    assert message in str(error.value)


# What is read leniently, and what is refused


MIRRORED = """{
// the first clip
"sample_1": {"pseu_emotion": "sad", "text": "Oh", "smp_reason_caption": "She looks down
    and sighs. // no comment"},
    // "sample_0": {},
"sample_2": {"pseu_emotion": "happy", "text": "Ah"}
}
"""


def test_the_mirrored_file_is_read_and_said_so(folder):
    (folder / merr.FINE).write_text(MIRRORED)
    faults = []
    samples = list(merr.READER.read(folder, "train", faults))
    assert [(s.id, s.emotion, s.text) for s in samples] == [
        ("merr/train/sample_1", "sad", "Oh"),
        ("merr/train/sample_2", "happy", "Ah"),
    ]
    (fault,) = [fault for fault in faults if fault.kind == "lenient_json"]
    assert fault.where == merr.FINE and "2 lines of comments" in fault.detail
    made = merr.READER.records(folder, "train")
    assert made["eri"]["merr/train/sample_1"]["reason"] == "She looks down and sighs. // no comment"
    done = in_process("-m", "data_prep.merr", "--import", "--root", folder, "--out", folder.parent / "own")
    assert done.returncode == 0 and "2 lines of comments" in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"sample_1": ANGRY | {"pseu_emotion": "joy"}}, ":sample_1: pseu_emotion: 'joy' is not one of happy, sad"),
        ({"sample_1": ANGRY | {"pseu_emotion": "Angry"}}, ":sample_1: pseu_emotion: 'Angry' is not one of"),
        ({"sample_1": {"AU_list": [], "visual_prior_list": []}}, ":sample_1: pseu_emotion: missing key"),
        ({"sample_1": ANGRY | {"AU_list": "AU04"}}, ":sample_1: AU_list: Input should be a valid list, not 'AU04'"),
        ({"sample_1": ANGRY | {"AU_list": ["AU99"]}}, ":sample_1: AU_list: 'AU99' is no Action Unit"),
        ({"sample_1": ANGRY | {"visual_prior_list": []}}, ":sample_1: AU_list and visual_prior_list are not of"),
        ({"sample_1": ANGRY | {"peak_index": 20}}, ":sample_1: peak_index: Input should be a valid string, not 20"),
        ({"sample_1": ANGRY | {"peak_index": "-1"}}, ":sample_1: peak_index: String should match"),
        ({"sample_1": ANGRY | {"audio_prior_list": ["low"]}}, ":sample_1: audio_prior_list: Input should be a valid"),
        ({"sample_1": ANGRY | {"smp_reason_caption": " "}}, ":sample_1: smp_reason_caption: String should match"),
        ({"sample_1": ANGRY | {"AU_list": None}}, ":sample_1: AU_list is null"),
        ({"sample_1": ANGRY | {"text": "half \ud83d"}}, ":sample_1: holds half of a surrogate pair"),
        ({"sample_1": ["AU04"]}, ":sample_1: is a list where a record (an object) is expected"),
        ({"../up": ANGRY}, ":../up: the name '../up' cannot name a clip"),
        ({" a": ANGRY}, ": a: the name begins or ends with white space"),
        ([ANGRY], ": holds a list where an object, clip name → record, is expected"),
        ({}, ": holds no record"),
        ('{"a": {}, "a": {}}', ": names 'a' twice"),
        ('{"a": {"pseu_emotion": "sad", "pseu_emotion": "sad"}}', ": names 'pseu_emotion' twice"),
        ('{\n// a comment\n"a": }', ":3: is not JSON: Expecting value"),
        ("", ":1: is not JSON: Expecting value"),
        ("[" * 100_000, ": is not JSON (nested too deeply)"),
    ],
)
def test_a_bad_record_is_one_line_and_nothing_is_written(folder, content, words):
    (folder / merr.FINE).write_text(content if isinstance(content, str) else json.dumps(content))
    done = build(folder, "--merr", folder)
    assert done.returncode == 2 and f"{merr.FINE}{words}" in done.stderr and done.stderr.count("\n") == 1
    assert not (folder.parent / "amt").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sample_9 12 joy -10", ":2: sample_9: 'joy' is not one of happy"),
        ("sample_9 twelve sad -10", ":2: is not `name frames emotion valence`"),
        ("sample_9 12", ":2: is not `name frames emotion valence`"),
        ("sample_9 12 sad none", ":2: sample_9: the valence 'none' is no number"),
        ("sample_1 12 sad -10", ":2: sample_1 comes twice (first in line 1)"),
        ("../up 12 sad -10", ":2: the name '../up' cannot name a clip"),
    ],
)
def test_a_bad_label_list_is_named(folder, line, words):
    (folder / "relative_train_NCEV.txt").write_text(f"sample_1 125 angry -10\n{line}\n")
    done = build(folder, "--merr", folder)
    assert done.returncode == 2 and f"relative_train_NCEV.txt{words}" in done.stderr and done.stderr.count("\n") == 1


def test_lists_that_say_otherwise_are_faults(folder):
    (folder / "relative_train_NCEV.txt").write_text("sample_1 125 sad -10\n")
    (folder / "relative_test3_NCEV.txt").write_text("samplenew_2 12 neutral -10\nsample_7 12 sad -10\n")
    faults = []
    samples = list(merr.READER.read(folder, "train", faults))
    assert {(fault.kind, fault.where) for fault in faults} == {
        ("label_differs", "merr/train/sample_1"),
        ("in_test_list", "merr/train/samplenew_2"),
    }
    assert samples[0].emotion == "angry", "the record's own"
    assert "merr_coarse/train/sample_7" not in {s.id for s in merr.COARSE_READER.read(folder, "train", [])}


def test_a_folder_of_something_else(tmp_path, world):
    for dataset, split, words in (
        ("merr", "train", "is not a MERR folder"),
        ("merr_coarse", "train", "is not a MERR folder"),
        ("merr", "test", "MERR has no test split"),
    ):
        with pytest.raises(InputError, match=words):
            list(READERS[dataset].read(world / "meld", split, []))


def test_the_doctor_counts_labels_and_tells_own_data(folder):
    done = in_process("-m", "data_prep.doctor", "--merr", folder, "--report", folder.parent / "doctor")
    found = json.loads((folder.parent / "doctor" / "doctor.json").read_text())
    assert "4,487" in done.stdout or "4487" in json.dumps(found), "compared with the published counts"


# Both directions


def there_and_back(name: str, content: dict, own_text: str) -> dict:
    """A record of MERR through fer.jsonl and eri.jsonl."""
    known = merr.MerrRecord.model_validate(content)
    fer = json.loads(json.dumps(merr.fer_record(name, known, FACS)))
    eri = json.loads(json.dumps(merr.eri_record(name, known, own_text)))
    return command.record(eri["label"], fer, command.kept_texts(eri, own_text))


def plain(content: dict) -> dict:
    """As `content`, but for the white space that may change."""
    key = "smp_reason_caption"
    return content | ({key: " ".join(content[key].split())} if key in content else {})


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
FULL = TEXT.filter(str.strip)
AUS = st.lists(st.sampled_from(sorted(FACS.aus)), max_size=6)


@st.composite
def merr_records(draw, own_text: str) -> dict:
    aus = draw(AUS)
    phrase = st.one_of(TEXT, *(st.sampled_from(FACS.aus[au].phrases) for au in aus))
    optional = {
        "peak_index": st.integers(0, 999_999_999).map(str),
        "peak_AU_list": AUS,
        "audio_prior_list": TEXT,
        "caption": FULL,
        "text": TEXT,
        "smp_reason_caption": FULL,
    }
    made = draw(st.fixed_dictionaries({"pseu_emotion": st.sampled_from(merr.LABELS)}, optional=optional))
    if draw(st.booleans()):
        made |= {"AU_list": aus, "visual_prior_list": [draw(phrase) for _ in aus]}
    return made


@pytest.mark.parametrize("own_text", ["smp_reason_caption", "caption"])
@given(data=st.data())
def test_merr_to_the_project_and_back_is_the_same(own_text, data):
    content = data.draw(merr_records(own_text))
    assert there_and_back("merr/train/a", content, own_text) == plain(content)


@given(
    aus=AUS,
    peak_aus=AUS,
    index=st.integers(0, 10**6),
    label=st.sampled_from(merr.LABELS),
    tone=TEXT,
    text=TEXT,
    reason=FULL,
    data=st.data(),
)
def test_the_project_to_merr_and_back_is_the_same(aus, peak_aus, index, label, tone, text, reason, data):
    """What MERR has keys for: see docs/merr.md for what it has none for."""
    phrases = [data.draw(st.sampled_from(FACS.aus[au].phrases)) for au in aus]
    reason = " ".join(reason.split())
    fer = {"aus": aus, "phrases": phrases, "caption": "; ".join(phrases) or None}
    fer |= {"index": index, "frame": index + 1, "peak_aus": peak_aus}
    texts = {"audio_prior_list": tone, "text": text, "smp_reason_caption": reason}
    known = merr.MerrRecord.model_validate(command.record(label, fer, texts))
    back = merr.fer_record("merr/train/a", known, FACS)
    assert {key: back[key] for key in fer} == fer and back["emotion"] == label and "visual_prior_list" not in back
    eri = merr.eri_record("merr/train/a", known, "smp_reason_caption")
    assert (eri["reason"], eri["tone"], eri["text"], eri["label"]) == (reason, tone, text, label)


def test_the_files_there_and_back(folder, project):
    """By way of the reader, and of fer.jsonl and eri.jsonl as files."""
    fine, coarse = (json.loads((folder / name).read_text()) for name in (merr.FINE, merr.COARSE))
    fine = {name: plain(content) for name, content in fine.items()}
    out = folder.parent / "back"
    done = project("-m", "data_prep.merr", "--export", "--dataset", "merr", "--root", folder, "--out", out)
    assert done.returncode == 0 and f"2 records: {out / merr.FINE}" in done.stdout, done.stderr
    assert json.loads((out / merr.FINE).read_text()) == fine and not (out / merr.COARSE).exists()

    own = folder.parent / "own"
    assert in_process("-m", "data_prep.merr", "--import", "--root", folder, "--out", own).returncode == 0
    files = ("--fer", own / "fer.jsonl", "--eri", own / "eri.jsonl")
    (folder / "relative_train_NCEV.txt").unlink()
    for dataset, name, content in (("merr", merr.FINE, fine), ("merr_coarse", merr.COARSE, coarse)):
        done = in_process(
            "-m", "data_prep.merr", "--export", "--dataset", dataset, "--root", folder, "--out", out, *files
        )
        assert done.returncode == 0, done.stderr
        assert json.loads((out / name).read_text()) == content
    done = in_process("-m", "data_prep.build_amt", "--merr", folder, "--split", "train", "--out", own / "amt", *files)
    assert done.returncode == 0, done.stderr


def test_the_published_records_there_and_back(shared, tmp_path):
    """The 4,487 clips whose Action Units are known: label, AUs of the peak frame and kept AUs, each way as files."""
    with (shared / "merr" / "au_lists.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    content = {}
    for number, row in enumerate(table):
        aus = row["common_aus"].split()
        content[row["clip"]] = {
            "peak_index": str(number % 300),
            "peak_AU_list": row["peak_aus"].split(),
            "AU_list": aus,
            "visual_prior_list": [f"{FACS.aus[au].name.capitalize()}, seen" for au in aus],
            "audio_prior_list": f"tone {number}",
            "pseu_emotion": row["emotion"],
            "text": f"sentence {number}",
            "smp_reason_caption": f"reason {number}",
        }
    (tmp_path / merr.FINE).write_text(json.dumps(content))
    for options in (["--import"], ["--export", "--dataset", "merr"]):
        done = in_process("-m", "data_prep.merr", *options, "--root", tmp_path, "--out", tmp_path / "out")
        assert done.returncode == 0 and "4,487 records" in done.stdout, done.stderr
    assert json.loads((tmp_path / "out" / merr.FINE).read_text()) == content

    done = build(tmp_path, "--merr", tmp_path, "--missing-media", "text-only", "--prompts", WORDING)
    assert done.returncode == 0, done.stderr
    assert Counter(row["response"] for row in rows(tmp_path, "merr.mer").values()) == merr.FINE_LABELS
    assert len(rows(tmp_path, "merr.eri")) == 4487
    faces = command._read_fer(tmp_path / "out" / "fer.jsonl")
    for row in table:
        face = faces[f"merr/train/{row['clip']}"]
        assert face["peak_aus"] == row["peak_aus"].split()
        assert TASKS["fer"].strict(face["caption"], "merr") == tuple(face["phrases"]), "the project's FER form"
        assert [au for phrase in face["phrases"] for au in TASKS["fer"].members((phrase,))] == row["common_aus"].split()

    # And back: as the project's own records, whose phrases are its own, into MERR and from it.
    named = {clip: record | {"visual_prior_list": None} for clip, record in content.items()}
    for clip, record in named.items():
        record["visual_prior_list"] = faces[f"merr/train/{clip}"]["phrases"]
    own = tmp_path / "own"
    own.mkdir()
    (own / merr.FINE).write_text(json.dumps(named))
    made = merr.READER.records(own, "train")["fer"]
    assert len(made) == 4487 and not any("visual_prior_list" in record for record in made.values())
    keys = ("aus", "phrases", "caption", "index", "frame", "peak_aus", "emotion")
    assert all(record[key] == faces[clip][key] for clip, record in made.items() for key in keys)


# Clips of other datasets


@pytest.fixture
def mine(tmp_path) -> Iterator[Path]:
    """A dataset of one's own with fer.jsonl and eri.jsonl, as `data_prep.fer` and `data_prep.eri` write them."""
    root = tmp_path / "mine"
    root.mkdir()
    (root / "mine.yaml").write_text(
        "name: mine\nsource: labels.csv\nclips: '{clip}.mp4'\n"
        "columns: {clip: clip, transcript: text, emotion: emotion, split: split}\n"
        "labels: {mer: [Angry, Joy, Disgust]}\n"
    )
    table = ["clip,text,emotion,split", 'a,"Well, no.",angry,train', "b,Hi,joy,train", "c,Ugh,disgust,train"]
    (root / "labels.csv").write_text("\n".join([*table, "d,Out,angry,train", ""]))
    fer = {"emotion": "angry", "aus": ["AU04"], "phrases": ["a furrowed brow"], "caption": "a furrowed brow"}
    fer |= {"image": "peaks/a.png", "frame": 8, "index": 7, "peak_aus": ["AU04", "AU12"], "face_id": 0, "score": 2.5}
    none = {"aus": [], "phrases": [], "caption": None}
    faces = [fer | {"id": "mine/train/a"}, fer | none | {"id": "mine/train/b"}, fer | {"id": "mine/train/c"}]
    (root / "fer.jsonl").write_text("".join(json.dumps(face) + "\n" for face in faces))
    eri = {"id": "mine/train/a", "reason": "He frowns, for he was cheated.", "label": "angry", "tone": "A low growl."}
    eri |= {"clues": {"character": "A man who leans forward.", "scene": "A bright kitchen."}}
    (root / "eri.jsonl").write_text(json.dumps(eri) + "\n")
    yield root
    for registry in (DATASETS, READERS, TASKS["mer"].labels):  # the command ran in this process
        registry.pop("mine", None)


def export_mine(mine: Path, *labels: str, clips: bool = False):
    options = [*(["--labels", *labels] if labels else []), *(["--clips"] if clips else [])]
    dataset = ["--dataset", mine / "mine.yaml", "--out", mine / "out"]
    return in_process("-m", "data_prep.merr", "--export", *dataset, *options)


def test_clips_of_ones_own_become_records_of_merr(mine):
    done = export_mine(mine, "joy=happy", "disgust=")
    assert done.returncode == 0, done.stderr
    angry = {
        "peak_index": "7",
        "peak_AU_list": ["AU04", "AU12"],
        "AU_list": ["AU04"],
        "visual_prior_list": ["a furrowed brow"],
        "audio_prior_list": "A low growl.",
        "pseu_emotion": "angry",
    }
    coarse, fine = (json.loads((mine / "out" / name).read_text()) for name in (merr.COARSE, merr.FINE))
    assert fine == {"a": angry | {"text": "Well, no.", "smp_reason_caption": "He frowns, for he was cheated."}}
    assert list(fine["a"]) == list(ANGRY), "keys in the order of MERR"
    assert coarse["a"] == angry | {
        "caption": "This person in the video is A man who leans forward. A bright kitchen. The person's expression and "
        "actions include a furrowed brow, and the person's tone is A low growl. Saying: Well, no."
    }
    assert coarse["b"]["pseu_emotion"] == "happy" and list(coarse) == ["a", "b"]
    assert "include not described, and the person's tone is not described. Saying: Hi" in coarse["b"]["caption"]
    for count in ("1, the label disgust", "1, no record in fer.jsonl", "1, no reason in eri.jsonl"):
        assert f"left out: {count}" in done.stdout
    assert not (mine / "out" / "video").exists()
    # and the reader takes it
    samples = list(merr.COARSE_READER.read(mine / "out", "train", []))
    assert [(s.id, s.text) for s in samples] == [("merr_coarse/train/a", "Well, no."), ("merr_coarse/train/b", "Hi")]


def test_clips_are_linked_and_listed(mine):
    """A whole folder of MERR: every channel is built from it."""
    clip = write_clip(mine / "a.mp4", n=5)
    shutil.copy(clip, mine / "b.avi")
    for _ in range(2):
        done = export_mine(mine, "joy=happy", "disgust=", clips=True)
        assert done.returncode == 0, done.stderr
    assert (mine / "out" / "relative_train_NCEV.txt").read_text() == "a 5 angry -10\nb 5 happy -10\n"
    built = build(mine / "out", "--merr", mine / "out", "--merr-coarse", mine / "out", "--media-root", mine)
    assert built.returncode == 0, built.stderr
    assert rows(mine / "out", "merr_coarse.mer")["merr_coarse/train/b"]["videos"] == ["out/video/b.avi"]
    assert rows(mine / "out", "merr.fer")["merr/train/a"]["response"] == "a furrowed brow"
    (mine / "out" / "video" / "a.mp4").unlink()
    (mine / "out" / "video" / "a.mp4").write_text("mine")
    done = export_mine(mine, "joy=happy", "disgust=", clips=True)
    assert done.returncode == 2 and "a.mp4: is a file where a link" in done.stderr


@pytest.mark.parametrize(
    ("labels", "change", "words"),
    [
        ([], None, "mine/train/b: the label 'joy' is not one of MERR's happy, sad"),
        (["joy"], None, "--labels joy: expected OWN=MERR"),
        (["joy=glad"], None, "--labels joy=glad: expected OWN=MERR"),
        (["joy=happy", "disgust="], ("fer.jsonl", '"peak_aus": ["AU04", "AU12"], ', ""), "has no peak_aus"),
        (
            ["joy=happy", "disgust="],
            ("fer.jsonl", '"aus": ["AU04"]', '"aus": "AU04"'),
            "fer.jsonl:1: aus: Input",
        ),
        (["joy=happy", "disgust="], ("fer.jsonl", '"aus": ["AU04"]', '"aus": []'), "fer.jsonl:1: aus and phrases are"),
        (["joy=happy", "disgust="], ("fer.jsonl", "mine/train/b", "mine/train/a"), "fer.jsonl:2: duplicate id"),
        (["joy=happy", "disgust="], ("eri.jsonl", '"A low growl."', "7"), "eri.jsonl:1: tone"),
        (["angry=", "joy=", "disgust="], None, "no record of MERR comes of mine train: the label angry 2"),
    ],
)
def test_what_cannot_be_exported_is_one_line(mine, labels, change, words):
    if change:
        name, old, new = change
        text = (mine / name).read_text()
        assert old in text
        (mine / name).write_text(text.replace(old, new))
    done = export_mine(mine, *labels)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert not (mine / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give --export or --import"),
        (["--export", "--import"], "give --export or --import"),
        (["--export"], "--export needs --dataset NAME"),
        (["--export", "--dataset", "merr"], "--root DIR says where merr is"),
        (["--export", "--dataset", "nothing"], "--dataset nothing: no such dataset (meld, ecf, mosei, merr"),
        (["--export", "--dataset", "merr", "--root", "nowhere"], "nowhere: no such folder"),
        (["--import"], "--import needs --root DIR"),
        (["--import", "--root", "nowhere"], "nowhere: no such folder"),
        (["--import", "--root", "{world}"], "is not a MERR folder"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, world, arguments, words):
    given = [argument.format(world=world) for argument in arguments]
    done = in_process("-m", "data_prep.merr", "--out", tmp_path / "out", *given)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
