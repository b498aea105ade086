"""The doctor finds every planted fault, flags no healthy clip, and its page and exit status agree."""

import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import av
import numpy as np
import pytest

from data_prep.demo.layouts import generate
from data_prep.doctor import clips as clip_check
from data_prep.doctor.__main__ import main
from data_prep.doctor.findings import ERRORS, Examination
from data_prep.readers import READERS, meld
from data_prep.readers.sample import Fault, Sample, SplitAbsent
from swift_plugins.files import InputError
from tests.conftest import ROOT

FPS = 8


def write_clip(path, seconds=2.0, picture="moving", sound=None, faststart=False):
    """A clip of 64 x 48: `picture` moving, still or black; `sound` None, tone or silent."""
    options = {"movflags": "faststart"} if faststart else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4", options=options) as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=16000) if sound else None
        noise = np.random.default_rng(0).integers(60, 200, (48, 128, 3), dtype=np.uint8)
        for number in range(round(seconds * FPS)):
            shift = {"moving": 2 * number, "still": 0, "black": 0}[picture] % 64
            pixels = noise[:, shift : shift + 64] * (picture != "black")
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(video.encode())
        if audio:
            wave = np.sin(np.arange(round(seconds * 16000)) / 6).astype(np.float32) * (0.3 if sound == "tone" else 0)
            for place in range(0, len(wave) - 1024, 1024):
                frame = av.AudioFrame.from_ndarray(wave[None, place : place + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16000, place
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def examine(*arguments):
    """Exit status and output of `python -m data_prep.doctor ARGUMENTS`."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        status = main(list(map(str, arguments)))
    return status, output.getvalue()


# One clip


@pytest.mark.parametrize(
    "options, annotated, kinds",
    [
        ({}, 2.0, []),
        ({"seconds": 1 / FPS}, None, []),  # a single frame is neither frozen nor black
        ({"picture": "black"}, 2.0, ["black_clip"]),
        ({"picture": "still"}, 2.0, ["frozen_clip"]),
        ({"seconds": 6.0}, 2.0, ["wrong_length"]),
        ({"seconds": 2.375}, 2.0, []),  # cut at key frames, annotated in subtitles' time: half a second is no fault
    ],
)
def test_inspect(tmp_path, options, annotated, kinds):
    clip = clip_check.inspect(write_clip(tmp_path / "a.mp4", **options), annotated)
    assert [kind for kind, _ in clip.faults] == kinds
    assert clip.seconds == pytest.approx(options.get("seconds", 2.0), abs=0.01)
    assert clip.frames == round(options.get("seconds", 2.0) * FPS) and clip.sound is None


def test_inspect_counts_the_frames_that_a_cut_file_lost(tmp_path):
    whole = write_clip(tmp_path / "a.mp4", seconds=6, faststart=True).read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    clip = clip_check.inspect(tmp_path / "a.mp4")
    assert clip.faults[0][0] == "truncated_clip" and "of the 48 frames" in clip.faults[0][1]


def test_inspect_finds_damage_inside_a_file(tmp_path):
    content = bytearray(write_clip(tmp_path / "a.mp4", seconds=6).read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    (tmp_path / "a.mp4").write_bytes(content)
    assert {kind for kind, _ in clip_check.inspect(tmp_path / "a.mp4").faults} & {"broken_clip", "truncated_clip"}


@pytest.mark.parametrize("sound, loudest", [("tone", 0.01), ("silent", 0.0)])
def test_inspect_hears(tmp_path, sound, loudest):
    heard = clip_check.inspect(write_clip(tmp_path / "a.mp4", sound=sound)).sound
    assert heard >= loudest and (heard < clip_check.SILENT) == (sound == "silent")


@pytest.mark.parametrize("content", [b"", b"no clip", b"\0" * 4096])
def test_inspect_and_thumbnails_never_raise(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    assert [kind for kind, _ in clip_check.inspect(tmp_path / "a.mp4").faults] == ["broken_clip"]
    assert clip_check.thumbnails(tmp_path / "a.mp4") == []
    assert [kind for kind, _ in clip_check.inspect(tmp_path / "b.mp4").faults] == ["missing_clip"]


def test_thumbnails_are_three_small_pictures(tmp_path):
    pictures = clip_check.thumbnails(write_clip(tmp_path / "a.mp4"))
    assert len(pictures) == 3 and all(picture.startswith(b"\xff\xd8") for picture in pictures)


# A whole dataset with one fault of each kind


def rewrite(path, change):
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])
    change(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def plant(raw):
    """Put the faults in; return the (kind, where) of each and the kinds that only clips can have."""
    planted = set()
    meld_folder, mosei, ecf = (raw / name for name in ("meld", "mosei", "ecf"))

    # Clips of MELD train, by the number of their row.
    clips = sorted(meld_folder.glob("train_splits/*.mp4"))
    where = [f"meld/train/{path.stem}" for path in clips]
    lengths = meld.durations(meld_folder, "train")
    clips[0].unlink()
    clips[1].write_bytes(b"")
    clips[2].write_bytes(clips[2].read_bytes()[:500])
    write_clip(clips[3], lengths[where[3]], "black")
    write_clip(clips[4], lengths[where[4]], "still")
    write_clip(clips[5], lengths[where[5]] + 8)
    cut = write_clip(clips[6], lengths[where[6]], faststart=True).read_bytes()
    clips[6].write_bytes(cut[: len(cut) * 3 // 4])
    clips[7].rename(clips[7].with_suffix(".MP4"))  # nothing wrong with that
    kinds = ("missing", "broken", "broken", "black", "frozen")
    planted |= {(f"{kind}_clip", name) for kind, name in zip(kinds, where, strict=False)}
    planted |= {("wrong_length", where[5]), ("truncated_clip", where[6])}
    write_clip(meld_folder / "train_splits" / "final_videos_1.mp4")
    planted.add(("unannotated_file", "train_splits/final_videos_1.mp4"))
    # All of MELD dev with sound, but one silent and one without.
    clips = sorted(meld_folder.glob("dev_splits_complete/*.mp4"))
    lengths = meld.durations(meld_folder, "dev")
    for number, path in enumerate(clips):
        sound = {0: None, 1: "silent"}.get(number, "tone")
        write_clip(path, lengths[f"meld/dev/{path.stem}"], sound=sound)
    planted |= {("no_sound", f"meld/dev/{clips[0].stem}"), ("silent_clip", f"meld/dev/{clips[1].stem}")}
    for path in (ecf / "test").iterdir():
        path.unlink()
    planted.add(("no_clips", "ecf/test"))

    # Texts and ids of MELD test.
    def spoil(rows):
        keys = [f"meld/test/dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}" for row in rows]
        rows[0]["Utterance"] += " It\x92s"
        rows[1]["Utterance"] += " <video>"
        rows[2]["Utterance"] = " "
        rows[3]["Utterance"] += " itâ€™s"
        rows[4]["EndTime"] = rows[4]["StartTime"]
        kinds = ("mis_encoded_text", "media_tag_in_text", "empty_text", "mojibake_text", "zero_duration")
        planted.update(zip(kinds, keys, strict=False))
        last = int(rows[-1]["Dialogue_ID"])
        rows.append({**rows[-1], "Utterance": "Bye now.", "Utterance_ID": "99"})
        rows.append({**rows[-1], "Dialogue_ID": str(last + 2), "Utterance_ID": "0"})
        planted.update({("utterance_gap", f"meld/test/dia{last}"), ("missing_dialogue", f"meld/test/dia{last + 1}")})
        rows.append({**rows[-1], "Dialogue_ID": "220"})
        planted.add(("known_bad_clip", "meld/test/dia220_utt0"))
        for row in rows[-3:]:
            name = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
            if name != "dia220_utt0":
                planted.add(("missing_clip", f"meld/test/{name}"))

    rewrite(meld_folder / "test_sent_emo.csv", spoil)

    # MOSEI: ids that do not join, a video in two splits, a text that comes twice, a tie, a start below zero.
    def respoil(rows):
        train = [row for row in rows if row["mode"] == "train"]
        test = [row for row in rows if row["mode"] == "test"]
        shared = test[0]["video_id"]
        first = [row for row in test if row["video_id"] == shared]
        first[-1]["mode"] = "train"
        planted.add(("shared_video", f"mosei/{shared}"))
        train[1]["text"] = train[0]["text"] = "These are the very same words in two places"
        planted.add(("duplicate_text", f"mosei/train/{train[1]['video_id']}/{train[1]['clip_id']}"))

    rewrite(mosei / "label.csv", respoil)

    def unjoin(rows):
        train = [row for row in rows if row["mode"] == "train"]
        end = float(train[3]["end"]) - float(train[3]["start"])
        train[3].update(dict.fromkeys(("happy", "sad"), "2.5"), start="-0.2", end=str(end))
        planted.add(("emotion_tie", f"mosei/train/{train[3]['video_id']}/{train[3]['clip_id']}"))
        planted.add(("no_emotion", f"mosei/train/{train[4]['video_id']}/{train[4]['clip_id']}"))
        train[4]["video_id"] = "nobody"
        planted.update({("unjoined_emotions", "emotions.csv"), ("start_below_zero", "emotions.csv")})

    rewrite(mosei / "emotions.csv", unjoin)
    reasons = (mosei / "eri.jsonl").read_text(encoding="utf-8").splitlines()
    reasons.append(json.dumps({"id": "mosei/train/nobody/1", "reason": "Because.", "clues": {}, "label": "sad"}))
    (mosei / "eri.jsonl").write_text("\n".join(reasons) + "\n", encoding="utf-8")
    planted.add(("unjoined_id", f"{mosei / 'eri.jsonl'}:{len(reasons)}"))

    # ECF train holds a conversation of ECF test, rewritten, and one of its own twice; a pair is given twice.
    scene = [
        ("Ann", "Where did you put the blue umbrella?"),
        ("Bob", "I haven't seen it since Tuesday."),
        ("Ann", "You're sure it isn't in the car?"),
    ]
    document = json.loads((ecf / "Subtask_2_train.json").read_text(encoding="utf-8"))
    held_out = json.loads((ecf / "Subtask_2_test.json").read_text(encoding="utf-8"))

    def entry(number, lines):
        utterances = [
            {"utterance_ID": i, "text": text, "speaker": speaker, "emotion": "joy"}
            for i, (speaker, text) in enumerate(lines, 1)
        ]
        pairs = [["2_joy", "1"], ["2_joy", "1"]]
        return {"conversation_ID": number, "conversation": utterances, "emotion-cause_pairs": pairs}

    held_out.append(entry(900, scene))
    expanded = [
        (speaker, text.replace("'re", " are").replace("n't", " not").replace("?", " ?")) for speaker, text in scene
    ]
    document += [entry(901, expanded), entry(902, expanded)]
    for name, content in (("train", document), ("test", held_out)):
        (ecf / f"Subtask_2_{name}.json").write_text(json.dumps(content), encoding="utf-8")
    planted |= {("leak", "ecf/train"), ("duplicate_scene", "ecf/train/dia901")}
    planted |= {("duplicate_pair", f"ecf/{name}utt2") for name in ("train/dia901", "train/dia902", "test/dia900")}
    for number in (901, 902):
        for index in (1, 2, 3):
            planted.add(("missing_clip", f"ecf/train/dia{number}utt{index}"))
    return planted


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """What is found in a synthetic dataset before and after the faults are planted, and what was planted."""
    raw = tmp_path_factory.mktemp("doctor") / "raw"
    generate(raw, seed=5, size="tiny")
    folders = [option for name in ("meld", "ecf", "mosei") for option in (f"--{name}", raw / name)]

    def look(out):
        status, output = examine(*folders, "--media", "--jobs", 2, "--report", out)
        report = json.loads((out / "doctor.json").read_text(encoding="utf-8"))
        found = {(finding["kind"], finding["where"]) for finding in report["findings"]}
        page = (out / "doctor.html").read_text(encoding="utf-8")
        return SimpleNamespace(status=status, output=output, report=report, found=found, page=page)

    before = look(raw / "before")
    planted = plant(raw)
    return SimpleNamespace(before=before, after=look(raw / "after"), planted=planted)


@pytest.mark.slow
def test_every_planted_fault_is_found(examined):
    assert examined.planted - examined.after.found == set()


@pytest.mark.slow
def test_no_healthy_clip_is_flagged(examined):
    of_clips = {kind for kind in ERRORS if kind.endswith("_clip") or kind == "wrong_length"}
    of_clips |= {"silent_clip", "unannotated_file", "known_bad_clip"}
    before, after, planted = examined.before.found, examined.after.found, examined.planted
    assert {finding for finding in before if finding[0] in of_clips} == set()
    # The clips of ECF test are all gone, which is one finding and not one for each.
    assert {finding for finding in after if finding[0] in of_clips} == {f for f in planted if f[0] in of_clips}
    assert {f for f in after - before if f[0] == "no_sound"} == {f for f in planted if f[0] == "no_sound"}


@pytest.mark.slow
def test_status_and_table_tell_what_breaks_results(examined):
    after = examined.after
    assert after.status == after.report["status"] == 1
    for kind in ("frozen_clip", "leak", "shared_video", "unjoined_id"):
        assert re.search(rf"BREAKS RESULTS +{kind}", after.output)
    assert re.search(r"warning +media_tag_in_text", after.output)
    ours = [leak for leak in after.report["leaks"] if (leak["training"], leak["held_out"]) == ("ecf:train", "ecf:test")]
    assert {"ecf/train/dia901", "ecf/train/dia902"} <= set(ours[0]["conversations"])


@pytest.mark.slow
def test_the_page_shows_suspect_clips_and_loads_nothing(examined):
    page = examined.after.page
    assert page.count("data:image/jpeg;base64,") >= 9
    assert "frozen_clip" in page and "no picture" in page
    assert "<script" not in page and not re.search(r"(src|href)=\"(?!data:)", page)


def test_texts_of_the_data_are_escaped_on_the_page():
    from data_prep.doctor.page import page

    result = Examination()
    result.add("unreadable", "meld/<b>", "label is '<img src=x>'")
    assert "<img src=x>" not in page(result) and "&lt;img src=x&gt;" in page(result)


# Input that is no dataset, and datasets in parts

MELD = "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\nHi.,Ann,joy,positive,0,0\n"


def test_warnings_alone_leave_the_status_at_zero(tmp_path):
    (tmp_path / "dev_sent_emo.csv").write_text(MELD)
    status, output = examine("--meld", tmp_path)
    assert status == 0 and "split_absent" in output


def test_annotations_that_the_reader_refuses_are_a_finding_and_the_rest_is_examined(tmp_path):
    (tmp_path / "dev_sent_emo.csv").write_text(MELD)
    (tmp_path / "test_sent_emo.csv").write_text(MELD.replace("joy", "glee"))
    status, output = examine("--meld", tmp_path)
    assert status == 1
    assert re.search(r"unreadable +1", output) and "Emotion is 'glee'" in output


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("--meld", "nowhere"), "no such folder"),
        (("--meld", ROOT / "configs"), "is not a MELD folder"),
        (("--ecf", ROOT / "configs"), "is not an ECF 2.0 folder"),
        (("--mosei", ROOT / "configs"), "is not a MOSEI folder"),
        (("--meld", ROOT / "configs", "--jobs", "0"), "--jobs is 1 or more"),
        (("--meld", ROOT / "configs", "--jobs", "-2"), "--jobs is 1 or more"),
    ],
)
def test_a_folder_without_the_dataset_is_refused(arguments, reason):
    with pytest.raises(InputError, match=reason):
        examine(*arguments)


@pytest.mark.slow
def test_a_ray_cluster_finds_the_same(tmp_path):
    """As one process here, of a folder that is not that of the cluster."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    generate(tmp_path / "raw", seed=5, size="tiny")
    plant(tmp_path / "raw")
    command = [sys.executable, "-m", "data_prep.doctor", "--meld", "raw/meld", "--media", "--report"]
    node = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": cluster.address}
        run = [*command, "ray", "--backend", "ray"]
        done = subprocess.run(run, env=environment, capture_output=True, text=True, cwd=tmp_path)
    finally:
        cluster.shutdown()
    assert done.returncode == 1, done.stderr
    here = subprocess.run([*command, "here", "--jobs", "1"], env=environment, capture_output=True, cwd=tmp_path)
    assert here.returncode == 1, here.stderr
    found = [json.loads((tmp_path / name / "doctor.json").read_text(encoding="utf-8")) for name in ("ray", "here")]
    assert all(report.pop("seconds")["clips"] > 0 and len(report["clips"]) > 2 for report in found)
    assert found[0] == found[1] and {"broken_clip", "black_clip"} <= {one["kind"] for one in found[0]["findings"]}


# A part of a published dataset, or own data


@pytest.mark.parametrize(
    "change, broken, words",
    [
        ({}, False, "no speaker of MELD's series"),
        ({"Ann": "Ross"}, True, "1 rows where 1,109 are published"),  # cut off at a row's end
        ({"Ann": "Ross", ",0,0": ",114,0"}, False, "dialogue 114 is beyond the published 113"),
    ],
)
def test_a_cut_meld_table_is_told_from_own_data(tmp_path, change, broken, words):
    text = MELD
    for old, new in change.items():
        text = text.replace(old, new)
    (tmp_path / "dev_sent_emo.csv").write_text(text)
    status, output = examine("--meld", tmp_path)
    assert status == int(broken) and words in output and ("own_data" in output) != broken


@pytest.mark.parametrize(
    "number, speaker, broken, words",
    [
        (1, "Ann", False, "no speaker of ECF's series"),
        (1374, "Joey", True, "1 conversations where 1,374 are published"),
        (1375, "Joey", False, "conversation 1375 is none of the published"),
    ],
)
def test_a_cut_ecf_file_is_told_from_own_data(tmp_path, number, speaker, broken, words):
    lines = [{"utterance_ID": 1, "text": "Hi .", "speaker": speaker, "emotion": "joy"}]
    conversation = {"conversation_ID": number, "conversation": lines, "emotion-cause_pairs": [["1_joy", "1"]]}
    (tmp_path / "Subtask_2_train.json").write_text(json.dumps([conversation]))
    status, output = examine("--ecf", tmp_path)
    assert status == int(broken) and words in output and ("own_data" in output) != broken


@pytest.mark.slow
@pytest.mark.parametrize("kept", [20_000, 2_000])
def test_a_cut_mosei_table_is_told_from_own_data(shared, tmp_path, kept):
    table = shared / "mosei" / "mosei_mmsa_ids_labels_emotions.csv"
    header, *rows = table.read_text(encoding="utf-8").splitlines()
    rows.sort(key=lambda row: row.split(",")[-3])  # test, train, valid: of the last no row is left
    (tmp_path / "ids.csv").write_text("\n".join([header, *rows[:kept]]) + "\n", encoding="utf-8")
    status, output = examine("--mosei", tmp_path)
    assert status == 1 and "own_data" not in output and "0 clips where 1,871 are published" in output
    own = [f"own{row}" for row in rows[:kept]]
    (tmp_path / "ids.csv").write_text("\n".join([header, *own]) + "\n", encoding="utf-8")
    status, output = examine("--mosei", tmp_path)
    assert "own_data" in output and "count_mismatch" not in output


def test_a_dataset_of_a_plug_in_is_examined(tmp_path, monkeypatch):
    """A reader of nothing but `read`, and its line in READERS."""

    def read(root, split, faults):
        if split == "dev":
            raise SplitAbsent("is not a folder of talks: it holds no dev", root)
        faults.append(Fault("hum", f"talks/{split}", "there is a hum"))
        for number, emotion in enumerate(("glad", "gloomy", "glad")):
            text = f"These words are said for the {number % 2} time"
            yield Sample(
                f"talks/{split}/v1/{number}", "talks", split, text, video=f"{split}{number}.mp4", emotion=emotion
            )

    monkeypatch.setitem(READERS, "talks", SimpleNamespace(read=read))
    for split in ("train", "test"):
        for number in (0, 1):
            write_clip(tmp_path / f"{split}{number}.mp4")
    write_clip(tmp_path / "other.mp4")
    status, output = examine("--talks", tmp_path, "--media", "--report", tmp_path)
    assert status == 1
    report = json.loads((tmp_path / "doctor.json").read_text(encoding="utf-8"))
    assert report["counts"]["talks:train"] == {
        name: {"here": count, "published": None} for name, count in (("clips", 3), ("glad", 2), ("gloomy", 1))
    }
    assert report["finding_counts"] == {
        "shared_video": 1, "missing_clip": 2, "split_absent": 1, "own_data": 2, "no_sound": 2, "unannotated_file": 1,
        "duplicate_text": 4, "hum": 2,
    }  # fmt: skip
    assert "there is a hum" in output and "TALKS" in (tmp_path / "doctor.html").read_text(encoding="utf-8")

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match="no Ray cluster to use"):
        examine("--talks", tmp_path, "--media", "--backend", "ray")


# The published annotations


@pytest.mark.slow
def test_the_published_annotations_have_the_published_counts_and_the_known_faults(shared, tmp_path):
    folders = ("--meld", shared / "meld", "--ecf", shared / "ecf2", "--mosei", shared / "mosei")
    status, output = examine(*folders, "--report", tmp_path)
    assert status == 1
    report = json.loads((tmp_path / "doctor.json").read_text(encoding="utf-8"))
    counts = report["finding_counts"]
    assert "count_mismatch" not in counts and output.count("as published") == 6
    assert counts["known_bad_clip"] == 3 and counts["missing_dialogue"] == 1 and counts["utterance_gap"] == 74
    assert counts["emotion_tie"] == 2053 + 224 + 555 and counts["emotion_all_zero"] == 2392 + 302 + 702
    assert [leak["held_out"] for leak in report["leaks"]] == ["meld:train", "meld:dev"]
    assert len(report["leaks"][1]["conversations"]) == 112 and report["leaks"][1]["utterances"] >= 0.97 * 1078


@pytest.mark.parametrize("kept", [1108, 300])
def test_a_release_that_lost_rows_is_no_own_data(shared, tmp_path, kept):
    rows = (shared / "meld" / "dev_sent_emo.csv").read_bytes().splitlines(keepends=True)
    (tmp_path / "dev_sent_emo.csv").write_bytes(b"".join(rows[: kept + 1]))
    status, output = examine("--meld", tmp_path)
    assert status == 1
    assert f"{kept:,} rows where 1,109 are published" in output and "own data" not in output


def test_the_encoding_faults_of_the_archived_tables_are_found(shared):
    status, output = examine("--meld", shared / "meld_raw_tar")
    assert status == 0 and "mis_encoded_text" in output and output.count("as published") == 2
