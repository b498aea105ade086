"""The AMT builder on the synthetic dataset and on the published annotations: rows, reports, policies, bad input."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from data_prep.demo.layouts import encode
from data_prep.demo.voices import voice
from data_prep.readers import ecf, meld
from swift_plugins.frames import sample_frames
from swift_plugins.tasks import TASKS
from tests.conftest import in_process


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def build(tmp_path):
    """Build into tmp_path/amt; returns the process, with `.rows(name)` and `.report` of what it wrote."""

    def run(*args: object, split: str = "train", out: Path | None = None):
        out = out or tmp_path / "amt"
        done = in_process("-m", "data_prep.build_amt", "--split", split, "--out", out, *args)
        done.rows = lambda name: rows(out / f"{name}.{split}.jsonl")
        report = out / f"report.{split}.json"
        done.report = json.loads(report.read_text()) if report.is_file() else None
        return done

    return run


@pytest.fixture
def own(world, tmp_path) -> Path:
    """A copy of the synthetic dataset that a test may break."""
    return Path(shutil.copytree(world, tmp_path / "raw"))


def test_all_three_datasets(world, build, tmp_path):
    done = build("--meld", world / "meld", "--mosei", world / "mosei", "--ecf", world / "ecf")
    assert done.returncode == 0, done.stderr
    for name in ("meld.mer", "meld.msa", "mosei.mer", "mosei.msa", "mosei.eri", "ecf.ecpe"):
        for row in done.rows(name):
            assert [key for key in row if key != "facts"] == ["id", "channel", "query", "response", "videos"]
            assert row["channel"] == name and row["id"].startswith(f"{name.split('.')[0]}/train/")
            assert (world / row["videos"][0]).is_file(), "relative to the parent of the three folders"
            assert not Path(row["videos"][0]).is_absolute()
        assert len({row["id"] for row in done.rows(name)}) == len(done.rows(name)) == done.report["rows"][name]
    assert done.report["tasks"]["ecpe"]["table_1"] == 7081
    assert (tmp_path / "amt" / done.report["media_root"]).resolve() == world.resolve()
    # training targets all have a cause, and every response reads back as what it was written from
    for row in done.rows("ecf.ecpe"):
        assert TASKS["ecpe"].strict(row["response"], "ecf")
        assert row["facts"]["dialogue"] + f"utt{row['facts']['index']}" == row["id"]
        assert row["facts"].get("previous") == (row["facts"]["index"] - 1 or None)
        assert row["response"].startswith(f"{row['facts']['index']}_{row['facts']['emotion']},")
    for row in done.rows("meld.mer"):
        assert row["facts"]["transcript"] in row["query"]
        assert f"{TASKS['mer'].strict(row['response'], 'meld').capitalize()}." == row["response"]


def test_one_dataset_has_paths_relative_to_its_own_folder(world, build):
    done = build("--meld", world / "meld")
    assert done.rows("meld.mer")[0]["videos"][0].startswith("train_splits/dia")


@pytest.mark.parametrize(
    ("options", "videos"),
    [
        (("--known-bad", "keep"), ["output_repeated_splits_test/dia38_utt4.mp4"]),  # the official protocol
        (("--known-bad", "text-only"), None),
        (("--missing-media", "text-only"), None),
        (("--known-bad", "drop", "--allow-loss"), "dropped"),
    ],
)
def test_known_bad_clips_are_treated_as_told(world, build, tmp_path, options, videos):
    done = build("--meld", known_bad(world, tmp_path), *options, split="test")
    assert done.returncode == 0, done.stderr
    rows_of_it = [row for row in done.rows("meld.mer") if row["id"] == "meld/test/dia38_utt4"]
    assert [row.get("videos") for row in rows_of_it] == ([] if videos == "dropped" else [videos])
    assert done.report["fault_counts"]["known_bad_clip"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [((), "--known-bad keep uses it all the same"), (("--known-bad", "drop"), "1 of 2 test clips would be dropped")],
)
def test_a_test_split_with_a_known_bad_clip_is_refused_with_the_reason(world, build, tmp_path, options, words):
    done = build("--meld", known_bad(world, tmp_path), *options, split="test")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and words in done.stderr
    assert not (tmp_path / "amt").exists()


def known_bad(world: Path, tmp_path: Path) -> Path:
    """A MELD test split of two utterances, one of them known to be bad in the release; both clips are there."""
    folder = tmp_path / "meld"
    clips = folder / "output_repeated_splits_test"
    clips.mkdir(parents=True)
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
    lines = [f"{i},Oh.,Joey,joy,positive,{38 + i},{4 - 4 * i},1,1,00:00:00,00:00:01" for i in (0, 1)]
    (folder / "test_sent_emo.csv").write_text("\n".join([header, *lines]) + "\n")
    clip = next((world / "meld").rglob("*.mp4"))
    for name in ("dia38_utt4", "dia39_utt0"):
        shutil.copy(clip, clips / f"{name}.mp4")
    return folder


def test_builds_are_the_same_byte_for_byte(world, build, tmp_path):
    for name in ("one", "two"):
        build("--meld", world / "meld", "--ecf", world / "ecf", out=tmp_path / name)
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_zero_sentiment_of_the_test_split_has_its_own_channel(world, build):
    done = build("--mosei", world / "mosei", split="test")
    channels = Counter(row["channel"] for row in done.rows("mosei.msa"))
    assert channels["mosei.msa"] and channels["mosei.msa.zero"]
    assert {row["response"] for row in done.rows("mosei.msa") if row["channel"].endswith("zero")} == {"Positive."}


def test_neutral_clips_are_left_out_by_option(world, build, tmp_path):
    kept = build("--meld", world / "meld", out=tmp_path / "kept")
    left = build("--meld", world / "meld", "--neutral", "drop", out=tmp_path / "left")
    dropped = len(kept.rows("meld.msa")) - len(left.rows("meld.msa"))
    assert dropped > 0 and left.report["left_out"]["meld.msa"] == {"neutral sentiment (--neutral drop)": dropped}
    assert len(left.rows("meld.mer")) == len(kept.rows("meld.mer")), "MER keeps them"


def test_test_targets_without_a_cause_stay(own, build):
    path = own / "ecf" / "Subtask_2_test.json"
    talks = json.loads(path.read_text())
    talks[0]["emotion-cause_pairs"] = []
    path.write_text(json.dumps(talks))
    done = build("--ecf", own / "ecf", split="test")
    first = [u for u in talks[0]["conversation"] if u["emotion"] != "neutral"]
    empty = [row for row in done.rows("ecf.ecpe") if row["response"] == ""]
    assert done.returncode == 0 and len(empty) >= len(first) > 0


def test_fer_and_eri_records_become_rows(own, build):
    clip = rows(own / "mosei" / "eri.jsonl")[0]["id"]
    other = rows(own / "mosei" / "eri.jsonl")[1]["id"]
    (own / "mosei" / "peaks").mkdir()
    (own / "mosei" / "peaks" / "a.png").write_bytes(b"png")
    (own / "mosei" / "fer.jsonl").write_text(
        json.dumps({"id": clip, "caption": "lips parted; brows raised", "image": "peaks/a.png"})
        + "\n"
        + json.dumps({"id": other, "caption": None, "image": "peaks/a.png"})
        + "\n"
        + json.dumps({"id": "mosei/train/unknown/1", "caption": "x", "image": "peaks/a.png"})
        + "\n"
    )
    done = build("--mosei", own / "mosei")
    assert done.returncode == 0, done.stderr
    (row,) = done.rows("mosei.fer")
    assert (row["id"], row["response"], row["images"]) == (clip, "lips parted; brows raised", ["peaks/a.png"])
    # every MOSEI task looks at the peak frame, also where equation 3 gave no caption
    for name in ("mosei.msa", "mosei.mer", "mosei.eri"):
        media = {r["id"]: r.get("images", r.get("videos")) for r in done.rows(name)}
        assert media.get(clip, ["peaks/a.png"]) == media.get(other, ["peaks/a.png"]) == ["peaks/a.png"]
    assert done.report["fault_counts"]["fer_without_clip"] == 1
    assert sum(done.report["left_out"]["mosei.fer"].values()) == 1


def give_sound(clip: Path) -> None:
    """Put a clip with a sound track in the place of one without."""
    clip.write_bytes(encode(sample_frames(clip, 8), voice("a", "joy", 1.0)))


def test_rows_list_the_sound_track_of_their_clip(own, build, tmp_path):
    """By --audio only, and where there is one; nothing else changes."""
    give_sound(own / "meld" / "train_splits" / "dia0_utt1.mp4")
    plain = build("--meld", own / "meld", out=tmp_path / "plain")
    done = build("--meld", own / "meld", "--audio", "--jobs", 2)
    assert done.returncode == 0, done.stderr
    for name in ("meld.mer", "meld.msa"):
        before, after = plain.rows(name), done.rows(name)
        heard = [row for row in after if "audios" in row]
        assert [row.pop("audios") for row in heard] == [["train_splits/dia0_utt1.mp4"]] and after == before
        assert heard[0]["videos"] == ["train_splits/dia0_utt1.mp4"] and not any("audios" in row for row in before)
    clips = done.report["clips"]["meld"]["kept"]
    assert done.report["sound"] == {"rows": 2, "clips": 1, "clips_without": clips - 1}
    assert f"sound: 2 rows, 1 clips; {clips - 1} clips have none" in done.stdout
    assert "sound" not in plain.report and "sound:" not in plain.stdout


def test_sound_beside_a_peak_frame(own, build):
    """What people say is heard, what their face does is not; a clip that is gone has no sound, which is noted."""
    ids = [record["id"] for record in rows(own / "mosei" / "eri.jsonl")[:2]]
    clips = [own / "mosei" / "Raw" / f"{clip.split('/', 2)[2]}.mp4" for clip in ids]
    give_sound(clips[0])
    clips[1].unlink()
    (own / "mosei" / "a.png").write_bytes(b"png")
    records = [{"id": clip, "caption": "lips parted", "image": "a.png"} for clip in ids]
    (own / "mosei" / "fer.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    done = build("--mosei", own / "mosei", "--audio")
    assert done.returncode == 0, done.stderr
    sounds = {name: [row.get("audios") for row in done.rows(f"mosei.{name}")] for name in ("fer", "msa", "mer", "eri")}
    expected = [clips[0].relative_to(own / "mosei").as_posix()]
    assert sounds["fer"] == [None, None]
    assert all([files for files in sounds[name] if files] == [expected] for name in ("msa", "mer", "eri"))
    (fault,) = (fault for fault in done.report["faults"] if fault["kind"] == "sound_unknown")
    assert fault["where"] == ids[1]
    assert fault["detail"].endswith("cannot be opened: No such file or directory; rows without sound")


def test_a_face_without_a_peak_frame_is_shown_without_its_sound(own, build):
    clip = rows(own / "mosei" / "eri.jsonl")[0]["id"]
    give_sound(own / "mosei" / "Raw" / f"{clip.split('/', 2)[2]}.mp4")
    (own / "mosei" / "fer.jsonl").write_text(json.dumps({"id": clip, "caption": "lips parted"}) + "\n")
    (row,) = build("--mosei", own / "mosei", "--audio").rows("mosei.fer")
    assert row["videos"] and "audios" not in row


@pytest.mark.slow
def test_missing_media_policies(own, build, tmp_path):
    clip = own / "meld" / "train_splits" / "dia0_utt0.mp4"
    clip.write_bytes(clip.read_bytes()[:200])
    total = len(build("--meld", own / "meld", "--no-probe", out=tmp_path / "blind").rows("meld.mer"))

    done = build("--meld", own / "meld", out=tmp_path / "error")
    assert done.returncode == 2 and "dia0_utt0" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "error").exists(), "nothing half-written"

    done = build("--meld", own / "meld", "--missing-media", "drop", out=tmp_path / "drop")
    assert len(done.rows("meld.mer")) == total - 1 and done.report["fault_counts"] == {"broken_clip": 1}

    done = build("--meld", own / "meld", "--missing-media", "text-only", out=tmp_path / "text")
    (row,) = [row for row in done.rows("meld.mer") if row["id"] == "meld/train/dia0_utt0"]
    assert "videos" not in row and len(done.rows("meld.mer")) == total


def test_a_test_split_does_not_lose_rows_unless_told(own, build, tmp_path):
    next((own / "meld" / "output_repeated_splits_test").glob("*.mp4")).unlink()
    args = ("--meld", own / "meld", "--missing-media", "drop")
    done = build(*args, split="test", out=tmp_path / "a")
    assert done.returncode == 2 and re.search("1 of [0-9]+ test clips would be dropped", done.stderr)
    assert not (tmp_path / "a").exists()
    assert build(*args, "--allow-loss", split="test", out=tmp_path / "b").returncode == 0


def test_media_tags_in_a_transcript_are_no_media(own, build):
    path = own / "meld" / "train_sent_emo.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[0, "Utterance"] = "look <image> and <video> here"
    table.to_csv(path, index=False)
    done = build("--meld", own / "meld")
    assert done.returncode == 0, done.stderr
    assert not any(tag in row["query"] for row in done.rows("meld.mer") for tag in ("<image>", "<video>", "<audio>"))


def test_a_split_with_another_media_root_is_refused(world, build):
    assert build("--meld", world / "meld").returncode == 0
    done = build("--meld", world / "meld", "--ecf", world / "ecf", split="test")
    assert done.returncode == 2 and "media root" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "give at least one of --meld, --ecf, --mosei"),
        (("--meld", "nowhere"), "nowhere: no such folder"),
        (("--meld", "{world}/ecf"), "is not a MELD folder"),
        (("--mosei", "{world}/meld"), "is not a MOSEI folder"),
        (("--meld", "{world}/meld", "--fer", "none.jsonl"), "none.jsonl: no such file"),
        (("--meld", "{world}/meld", "--prompts", "{world}/meld/train_sent_emo.csv"), "train_sent_emo.csv"),
    ],
)
def test_bad_arguments(world, build, tmp_path, args, message):
    done = build(*(arg.format(world=world) for arg in args))
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "amt").exists()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"caption": "x"}', "has no text under id"),
        ('{"id": "mosei/train/a/1"}', "has no text under caption"),
        ('{"id": "a", "caption": "x"}\n{"id": "a", "caption": "x"}', "duplicate id a"),
        ("{", "is not JSON"),
    ],
)
def test_faulty_fer_records(world, build, tmp_path, record, message):
    (tmp_path / "fer.jsonl").write_text(record + "\n")
    done = build("--mosei", world / "mosei", "--fer", tmp_path / "fer.jsonl")
    assert done.returncode == 2 and "fer.jsonl:" in done.stderr and message in done.stderr


@pytest.mark.slow
def test_published_annotations(shared, build):
    done = build("--meld", shared / "meld", "--ecf", shared / "ecf2", "--missing-media", "text-only")
    assert done.returncode == 0, done.stderr
    assert done.report["rows"] == {"ecf.ecpe": 7081, "meld.mer": 9989, "meld.msa": 9989}
    emotions = Counter(row["response"] for row in done.rows("meld.mer"))
    assert emotions["Neutral."] == 4710 and emotions["Fear."] == 268
    assert sum(len(TASKS["ecpe"].strict(row["response"], "ecf")) for row in done.rows("ecf.ecpe")) == 9794


def test_both_published_encodings_of_meld_give_the_same_text(shared):
    for split in ("train", "dev"):
        plain, raw = ({s.id: s.text for s in meld.read(shared / name, split, [])} for name in ("meld", "meld_raw_tar"))
        differ = {clip for clip in plain if plain[clip] != raw[clip]}
        assert plain.keys() == raw.keys() and differ <= {"meld/train/dia556_utt6"}


def test_published_ecf_counts(shared):
    samples = list(ecf.read(shared / "ecf2", "train", []))
    assert len(samples) == 13619
    assert sum(s.emotion != "neutral" for s in samples) == 7690
    assert sum(s.index in s.causes for s in samples) == 4892
