"""The doctor finds every planted fault, flags no healthy clip, and its page and exit status tell the same story."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from data_prep.demo.layouts import generate
from data_prep.doctor import checks as doctor
from data_prep.doctor import clips as clip_check

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("EMOVERSE_SHARED", ROOT.parent / "shared")) / "data"
real = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no published annotations at {SHARED}")

FPS = 8


def draw(path, seconds=2.0, picture="moving", sound=None, faststart=False):
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
    command = [sys.executable, "-m", "data_prep.doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


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
    clip = clip_check.inspect(draw(tmp_path / "a.mp4", **options), annotated)
    assert [kind for kind, _ in clip.faults] == kinds
    assert clip.seconds == pytest.approx(options.get("seconds", 2.0), abs=0.01)
    assert clip.frames == round(options.get("seconds", 2.0) * FPS) and clip.sound is None


def test_inspect_counts_the_frames_that_a_cut_file_lost(tmp_path):
    whole = draw(tmp_path / "a.mp4", seconds=6, faststart=True).read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    clip = clip_check.inspect(tmp_path / "a.mp4")
    assert clip.faults[0][0] == "truncated_clip" and "of the 48 frames" in clip.faults[0][1]


def test_inspect_finds_damage_inside_a_file(tmp_path):
    content = bytearray(draw(tmp_path / "a.mp4", seconds=6).read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    (tmp_path / "a.mp4").write_bytes(content)
    assert {kind for kind, _ in clip_check.inspect(tmp_path / "a.mp4").faults} & {"broken_clip", "truncated_clip"}


@pytest.mark.parametrize("sound, loudest", [("tone", 0.01), ("silent", 0.0)])
def test_inspect_hears(tmp_path, sound, loudest):
    heard = clip_check.inspect(draw(tmp_path / "a.mp4", sound=sound)).sound
    assert heard >= loudest and (heard < clip_check.SILENT) == (sound == "silent")


@pytest.mark.parametrize("content", [b"", b"no clip", b"\0" * 4096])
def test_inspect_and_thumbnails_never_raise(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    assert [kind for kind, _ in clip_check.inspect(tmp_path / "a.mp4").faults] == ["broken_clip"]
    assert clip_check.thumbnails(tmp_path / "a.mp4") == []
    assert [kind for kind, _ in clip_check.inspect(tmp_path / "b.mp4").faults] == ["missing_clip"]


def test_thumbnails_are_three_small_pictures(tmp_path):
    pictures = clip_check.thumbnails(draw(tmp_path / "a.mp4"))
    assert len(pictures) == 3 and all(picture.startswith(b"\xff\xd8") for picture in pictures)


# A whole world with one fault of each kind


def rewrite(path, change):
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])
    change(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def plant(world):
    """Put the faults in; return the (kind, where) of each and the kinds that only clips can have."""
    planted = set()
    meld, mosei, ecf = world / "meld", world / "mosei", world / "ecf"

    # Clips of MELD train, by the number of their row.
    clips = sorted(meld.glob("train_splits/*.mp4"))
    where = [f"meld/train/{path.stem}" for path in clips]
    lengths = doctor.meld.durations(meld, "train")
    clips[0].unlink()
    clips[1].write_bytes(b"")
    clips[2].write_bytes(clips[2].read_bytes()[:500])
    draw(clips[3], lengths[where[3]], "black")
    draw(clips[4], lengths[where[4]], "still")
    draw(clips[5], lengths[where[5]] + 8)
    cut = draw(clips[6], lengths[where[6]], faststart=True).read_bytes()
    clips[6].write_bytes(cut[: len(cut) * 3 // 4])
    kinds = ("missing", "broken", "broken", "black", "frozen")
    planted |= {(f"{kind}_clip", name) for kind, name in zip(kinds, where, strict=False)}
    planted |= {("wrong_length", where[5]), ("truncated_clip", where[6])}
    draw(meld / "train_splits" / "final_videos_1.mp4")
    planted.add(("unannotated_file", "train_splits/final_videos_1.mp4"))
    # All of MELD dev with sound, but one silent and one without.
    clips = sorted(meld.glob("dev_splits_complete/*.mp4"))
    lengths = doctor.meld.durations(meld, "dev")
    for number, path in enumerate(clips):
        sound = {0: None, 1: "silent"}.get(number, "tone")
        draw(path, lengths[f"meld/dev/{path.stem}"], sound=sound)
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

    rewrite(meld / "test_sent_emo.csv", spoil)

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
def worlds(tmp_path_factory):
    """Findings of the demo world before and after the faults are planted, and what was planted."""
    world = tmp_path_factory.mktemp("doctor") / "world"
    generate(world, seed=5, size="tiny")
    folders = [option for name in ("meld", "ecf", "mosei") for option in (f"--{name}", world / name)]

    def look(out):
        run = examine(*folders, "--media", "--jobs", 2, "--report", out)
        report = json.loads((out / "doctor.json").read_text(encoding="utf-8"))
        return run, report, {(finding["kind"], finding["where"]) for finding in report["findings"]}

    before = look(world / "before")
    planted = plant(world)
    return before, look(world / "after"), planted, world


def test_every_planted_fault_is_found(worlds):
    _, (_, _, found), planted, _ = worlds
    assert planted - found == set()


def test_no_healthy_clip_is_flagged(worlds):
    (_, _, before), (_, _, after), planted, _ = worlds
    of_clips = {kind for kind in doctor.ERRORS if kind.endswith("_clip") or kind == "wrong_length"}
    of_clips |= {"silent_clip", "unannotated_file", "known_bad_clip"}
    assert {finding for finding in before if finding[0] in of_clips} == set()
    # The clips of ECF test are all gone, which is one finding and not one for each.
    assert {finding for finding in after if finding[0] in of_clips} == {f for f in planted if f[0] in of_clips}
    assert {f for f in after - before if f[0] == "no_sound"} == {f for f in planted if f[0] == "no_sound"}


def test_status_and_table_tell_what_breaks_results(worlds):
    _, (run, report, _), _, _ = worlds
    assert run.returncode == report["status"] == 1 and run.stderr == ""
    for kind in ("frozen_clip", "leak", "shared_video", "unjoined_id"):
        assert re.search(rf"BREAKS RESULTS +{kind}", run.stdout)
    assert re.search(r"warning +media_tag_in_text", run.stdout)
    leak = next(leak for leak in report["leaks"] if leak["training"] == "ecf:train" and leak["held_out"] == "ecf:test")
    assert {"ecf/train/dia901", "ecf/train/dia902"} <= set(leak["conversations"])


def test_the_page_shows_suspect_clips_and_loads_nothing(worlds):
    _, _, _, world = worlds
    page = (world / "after" / "doctor.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") >= 9
    assert "frozen_clip" in page and "no picture" in page
    assert "<script" not in page and not re.search(r"(src|href)=\"(?!data:)", page)


def test_texts_of_the_data_are_escaped_on_the_page():
    from data_prep.doctor.page import page

    result = doctor.Examination()
    result.add("unreadable", "meld/<b>", "label is '<img src=x>'")
    assert "<img src=x>" not in page(result) and "&lt;img src=x&gt;" in page(result)


# Input that is no dataset, and datasets in parts


def test_warnings_alone_leave_the_status_at_zero(tmp_path):
    text = "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\nHi.,Ann,joy,positive,0,0\n"
    (tmp_path / "dev_sent_emo.csv").write_text(text)
    run = examine("--meld", tmp_path)
    assert run.returncode == 0 and "split_absent" in run.stdout


def test_annotations_that_the_reader_refuses_are_a_finding_and_the_rest_is_examined(tmp_path):
    text = "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\nHi.,Ann,joy,positive,0,0\n"
    (tmp_path / "dev_sent_emo.csv").write_text(text)
    (tmp_path / "test_sent_emo.csv").write_text(text.replace("joy", "glee"))
    run = examine("--meld", tmp_path)
    assert run.returncode == 1
    assert re.search(r"unreadable +1", run.stdout) and "Emotion is 'glee'" in run.stdout


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ((), "give at least one of"),
        (("--meld", "nowhere"), "no such folder"),
        (("--meld", ROOT / "configs"), "is not a MELD folder"),
        (("--ecf", ROOT / "configs"), "is not an ECF 2.0 folder"),
        (("--mosei", ROOT / "configs"), "is not a MOSEI folder"),
    ],
)
def test_a_folder_without_the_dataset_is_one_line_and_status_two(arguments, reason):
    run = examine(*arguments)
    assert run.returncode == 2 and reason in run.stderr and run.stderr.count("\n") == 1 and run.stdout == ""


# The published annotations


@real
def test_the_published_annotations_have_the_published_counts_and_the_known_faults(tmp_path):
    run = examine(
        "--meld", SHARED / "meld", "--ecf", SHARED / "ecf2", "--mosei", SHARED / "mosei", "--report", tmp_path
    )
    assert run.returncode == 1, run.stderr
    report = json.loads((tmp_path / "doctor.json").read_text(encoding="utf-8"))
    counts = report["finding_counts"]
    assert "count_mismatch" not in counts and run.stdout.count("as published") == 6
    assert counts["known_bad_clip"] == 3 and counts["missing_dialogue"] == 1 and counts["utterance_gap"] == 74
    assert counts["emotion_tie"] == 2053 + 224 + 555 and counts["emotion_all_zero"] == 2392 + 302 + 702
    assert [leak["held_out"] for leak in report["leaks"]] == ["meld:train", "meld:dev"]
    assert len(report["leaks"][1]["conversations"]) == 112 and report["leaks"][1]["utterances"] >= 0.97 * 1078


@real
def test_a_release_that_lost_a_row_is_told_from_a_dataset_of_ones_own(tmp_path):
    rows = (SHARED / "meld" / "dev_sent_emo.csv").read_bytes().splitlines(keepends=True)
    (tmp_path / "dev_sent_emo.csv").write_bytes(b"".join(rows[:-1]))
    run = examine("--meld", tmp_path)
    assert run.returncode == 1
    assert "1,108 rows where 1,109 are published" in run.stdout and "own data" not in run.stdout


@real
def test_the_encoding_faults_of_the_archived_tables_are_found():
    run = examine("--meld", SHARED / "meld_raw_tar")
    assert run.returncode == 0 and "mis_encoded_text" in run.stdout and run.stdout.count("as published") == 2
