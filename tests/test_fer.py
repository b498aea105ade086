from __future__ import annotations

import collections
import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from benchmarks.openface_stand_in import FRAMES, ROWS, install
from data_prep import peak_frame
from data_prep.fer.au_table import INTENSITIES, PRESENCES, OpenFaceError
from data_prep.fer.clips import FerClip, find_clips
from data_prep.fer.facs import load_facs
from data_prep.fer.record import FerRun, RecordSettings, make_record
from tests.conftest import ROOT, in_process

FACS = load_facs()
EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """As many frames as the stand-in program sees; frame n is grey 20 n."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * n, np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def mosei(tmp_path, video):
    """Make a MOSEI folder: {(video id, clip id): emotion or None for all zero}, all clips the same film."""

    def make(clips: dict[tuple[str, str], str | None], mode: str = "train", name: str = "mosei") -> Path:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        with (root / "label.csv").open("a") as labels, (root / "emotions.csv").open("a") as emotions:
            if not labels.tell():
                csv.writer(labels).writerow(["video_id", "clip_id", "text", "label", "mode"])
                csv.writer(emotions).writerow(["video_id", "clip_id", *EMOTIONS])
            for (video_id, clip_id), emotion in clips.items():
                csv.writer(labels).writerow([video_id, clip_id, "words", "1.0", mode])
                csv.writer(emotions).writerow([video_id, clip_id, *(2.0 * (name == emotion) for name in EMOTIONS)])
                path = root / "Raw" / video_id / f"{clip_id}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(video, path)
        return root

    return make


def command(root: Path, out: Path, *options: object, dataset: str = "mosei") -> list[str]:
    return ["-m", "data_prep.fer", "--dataset", dataset, "--root", str(root), "--out", str(out), *map(str, options)]


def records_of(out: Path) -> dict[str, dict]:
    rows = [json.loads(line) for line in (out / "fer.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def report_of(out: Path) -> dict:
    return json.loads((out / "fer_report.json").read_text())


def kinds_of(out: Path) -> dict[str, str]:
    return {entry["id"]: entry["kind"] for entry in report_of(out)["clips"]}


def contents(out: Path) -> dict[str, bytes]:
    """Every file that a user sees, by name."""
    files = (path for path in out.rglob("*") if path.is_file() and ".fer" not in path.parts)
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_every_row_of_the_failure_table_is_in_the_report(mosei, project, tmp_path):
    """One clip for each way to fail, and good ones around: every failure named, no caption made from one."""
    clips = {(row, "0"): "happy" for row in ROWS}
    root = mosei(clips | {("Zoé (1), b", "0"): "happy", ("good", "1"): "happy", ("gone", "0"): "happy"})
    (root / "Raw" / "gone" / "0.mp4").unlink()
    expected = {
        "noface": "no_face", "notvideo": "not_a_video", "noframes": "crash", "nolandmarks": "models_missing",
        "nomodels": "models_missing", "onemodel": "missing_au_column", "noout": "crash", "hang": "timeout",
        "killed": "crash", "unfinished": "partial_csv", "empty": "partial_csv", "headeronly": "partial_csv",
        "status3": "crash", "nolibrary": "crash", "gone": "missing_clip",
    }  # fmt: skip
    programs = install(tmp_path / "programs")
    for people in ("one", "several"):
        out = tmp_path / people
        done = project(*command(root, out, "--openface", programs, "--timeout", 1, "--people", people, "--jobs", 2))
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        kinds = {clip_id.split("/")[2]: kind for clip_id, kind in kinds_of(out).items()}
        if people == "several":
            expected |= {"noframes": "no_frames", "unfinished": "partial_csv"}
        assert kinds == expected
        assert set(records_of(out)) == {"mosei/train/Zoé (1), b/0", "mosei/train/good/1"}
        published = {path.parent.name for path in (out / "openface").rglob("*.csv")}
        assert published == {"Zoé (1), b", "good"} | ({"noface"} if people == "one" else set())
        counts = report_of(out)["splits"]["train"]
        assert counts["records"] == 2 and sum(counts["clips_without_record"].values()) == len(expected)
        assert "2 records (2 with a caption) of 17 clips" in done.stdout and "models_missing" in done.stdout
    record = records_of(out)["mosei/train/good/1"]
    assert record["emotion"] == "happy" and record["aus"] == ["AU06", "AU12"]
    assert all(phrase in FACS.aus[au].phrases for phrase, au in zip(record["phrases"], record["aus"], strict=True))
    assert record["caption"] == "; ".join(record["phrases"])
    with Image.open(out / record["image"]) as image:
        assert (
            image.size == (448, 448) and abs(image.convert("RGB").getpixel((9, 9))[0] - 20 * (record["frame"] - 1)) <= 3
        )


def repair(programs: Path, row: str) -> None:
    """From now on clips of this row have a face."""
    for program in programs.iterdir():
        program.write_text(program.read_text().replace(f"{row!r}, ", "").replace(f", {row!r}]", "]"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("nolandmarks", "models_missing: FeatureExtraction found no landmark model (see -mloc)"),
        (
            "nolibrary",
            "crash: FeatureExtraction ended with status 127: error while loading shared libraries: libopencv",
        ),
    ],
)
def test_a_fault_of_every_clip_stops_the_run(mosei, project, tmp_path, row, said):
    """After the first few, with the program's own words; cured, the same folder goes on, whatever arguments it took."""
    root = mosei({(row, str(n)): "happy" for n in range(12)})
    programs = install(tmp_path / "programs")
    run = command(root, tmp_path / "out", "--openface", programs, "--jobs", 1)
    done = project(*run)
    assert done.returncode == 2 and f"each of the first 8 clips ended with {said}" in done.stderr
    assert "Traceback" not in done.stderr and len(kinds_of(tmp_path / "out")) == 8  # the rest was not tried
    repair(programs, row)
    done = project(*run, "--resume", "--openface-args", "-mloc there")
    assert done.returncode == 0 and len(records_of(tmp_path / "out")) == 12, done.stderr


@pytest.mark.slow
def test_resume_tries_again_what_may_have_been_cured(mosei, project, tmp_path):
    """Crashes and missing models always, anything else when its file is another; the rest is not run again."""
    rows = ("hang", "status3", "onemodel", "noface", "notvideo", "good", "gone")
    root = mosei({(row, "0"): "happy" for row in rows})
    programs, out = install(tmp_path / "programs"), tmp_path / "out"
    (root / "Raw" / "gone" / "0.mp4").rename(tmp_path / "gone.mp4")
    run = command(root, out, "--openface", programs, "--jobs", 1, "--timeout", 0.5)
    assert project(*run).returncode == 0
    kinds = {"hang": "timeout", "status3": "crash", "onemodel": "missing_au_column", "noface": "no_face",
             "notvideo": "not_a_video", "gone": "missing_clip"}  # fmt: skip
    assert {name.split("/")[2]: kind for name, kind in kinds_of(out).items()} == kinds
    for row in ("hang", "status3", "onemodel", "notvideo"):
        repair(programs, row)
    (tmp_path / "gone.mp4").rename(root / "Raw" / "gone" / "0.mp4")
    calls = tmp_path / "calls"
    assert project(*run, "--resume", STAND_IN_CALLS=str(calls)).returncode == 0
    assert {name.split("/")[2] for name in kinds_of(out)} == {"noface", "notvideo"}
    assert sorted(Path(call).parent.name for call in calls.read_text().split("\n")[:-1]) == [
        "gone", "hang", "onemodel", "status3",
    ]  # fmt: skip
    os.utime(root / "Raw" / "notvideo" / "0.mp4", (1, 1))  # all clips are one file under several names
    assert project(*run, "--resume").returncode == 0
    assert {name.split("/")[2] for name in kinds_of(out)} == {"noface"}


TABLE = ["frame", "face_id", "confidence", "success"]


def write_csv(path: Path, *rows: dict[str, float], timestamps: bool = False) -> None:
    """A table with these intensities, frames from 1, presence from intensity 1 on; with timestamps it is OpenFace's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [*TABLE, *["timestamp"] * timestamps, *(f"{au}_r" for au in INTENSITIES), *(f"{au}_c" for au in PRESENCES)]
        )
        for n, row in enumerate(rows, 1):
            strength = [row.get(au, 0.0) for au in INTENSITIES]
            writer.writerow(
                [n, 0, 0.98, 1, *[n / 8] * timestamps, *strength, *(float(row.get(au, 0) >= 1) for au in PRESENCES)]
            )


@pytest.mark.parametrize(
    ("options", "emotion", "peak", "aus", "kind"),
    [
        ([], "happy", {"AU06": 2, "AU04": 3}, ["AU06"], None),
        ([], "happy", {"AU04": 3}, [], "no_common_aus"),  # a record with the image, without a caption
        (["--without-common", "active"], "happy", {"AU04": 3, "AU45": 5}, ["AU04"], None),
        ([], None, {"AU04": 3, "AU12": 0.9, "AU45": 5}, ["AU04", "AU12"], None),  # neutral: whatever is active
        ([], None, {"AU04": 0.7}, [], "no_active_aus"),
        (["--aus", "all"], None, {"AU45": 5}, ["AU45"], None),
        ([], "anger", {"AU04": 0.8, "AU12": 5, "AU23": 0.79}, ["AU04"], None),  # the threshold, inclusive
    ],
)
def test_captions(mosei, tmp_path, options, emotion, peak, aus, kind):
    root = mosei({("v", "1"): emotion})
    write_csv(tmp_path / "csv" / "Raw" / "v" / "1.csv", {}, peak, {})
    done = in_process(*command(root, tmp_path / "out", "--csv", tmp_path / "csv", "--jobs", 1, *options))
    assert done.returncode == 0, done.stderr
    record = records_of(tmp_path / "out")["mosei/train/v/1"]
    assert record["aus"] == aus and record["frame"] == 2 and set(record) == {
        "id", "emotion", "aus", "phrases", "caption", "image", "frame", "index", "peak_aus", "face_id", "score",
    }  # fmt: skip
    present = {au for au, value in peak.items() if value >= 0.8 and (au != "AU45" or "all" in options)}
    assert record["index"] == 1 and record["peak_aus"] == sorted(present), "whatever the emotion"
    assert (record["caption"] is None) == (kind is not None) and record["caption"] != ""
    assert kinds_of(tmp_path / "out") == ({} if kind is None else {"mosei/train/v/1": kind})
    assert (tmp_path / "out" / record["image"]).is_file()


def test_frames_are_numbered_alike_everywhere(mosei, tmp_path, capsys):
    """In the CSV, by peak_frame, in fer.jsonl, and so on contact sheets."""
    root, table = mosei({("v", "1"): "happy"}), tmp_path / "csv" / "Raw" / "v" / "1.csv"
    write_csv(table, {}, {}, {"AU12": 3}, {})
    done = in_process(*command(root, tmp_path / "out", "--csv", tmp_path / "csv", "--jobs", 1))
    assert done.returncode == 0, done.stderr
    peak_frame.main([str(table)])
    numbers = (
        json.loads(capsys.readouterr().out)["peak_frame"],
        records_of(tmp_path / "out")["mosei/train/v/1"]["frame"],
    )
    assert numbers == (3, 3)


@pytest.mark.slow
def test_aus_without_data_are_named(mosei, tmp_path):
    """A model of OpenFace that was not loaded is a fault, unless --aus names those there are; LibreFace has fewer."""
    root = mosei({("v", "1"): "happy"})
    files = [tmp_path / name / "Raw" / "v" / "1.csv" for name in ("lacking", "libreface")]
    for file in files:
        write_csv(file, {}, {"AU06": 2, "AU12": 3}, {"AU06": 1})
    files[0].write_text(files[0].read_text().replace("AU12_r", "AU11_r"))
    files[1].write_text("frame_idx,au_12,au_14,au_12_intensity\n0,0,0,0.5\n1,1,1,2.5\n2,0,0,1.5\n")

    def run(out: str, tables: str, *options: str) -> subprocess.CompletedProcess:
        return in_process(*command(root, tmp_path / out, "--csv", tmp_path / tables, "--jobs", 1, *options))

    done = run("a", "lacking")
    assert done.returncode == 2 and "missing_au_column: column AU12_r missing" in done.stderr
    for out, tables, options, aus, known in (
        ("b", "lacking", ["--aus", "AU06", "AU14"], ["AU06"], {"AU06", "AU14"}),
        ("c", "libreface", [], ["AU12", "AU14"], {"AU12", "AU14"}),
    ):
        done = run(out, tables, *options)
        assert done.returncode == 0, done.stderr
        record = records_of(tmp_path / out)["mosei/train/v/1"]
        assert record["aus"] == aus and record["frame"] == (2 if tables == "lacking" else 1)
        lacking = report_of(tmp_path / out)["records_without_data_on"]
        assert set(lacking) == {au for members in FACS.emotions.values() for au in members} - known
        assert f"no data on {', '.join(lacking)}" in done.stdout


@pytest.mark.slow
def test_options_of_the_peak(mosei, tmp_path):
    """The label's own AUs, a peak that holds, presence by column, another seed and image format."""
    root = mosei({("v", str(n)): "happy" for n in range(6)})
    facs = tmp_path / "facs.yaml"
    facs.write_text((ROOT / "configs" / "facs.yaml").read_text().replace("column: r", "column: c"))
    rows = [{"AU12": 1}, {"AU04": 5}, {"AU12": 2, "AU14": 0.9}, {"AU12": 2}, {"AU12": 2}]
    for n in range(6):
        write_csv(tmp_path / "csv" / f"train/v/{n}.csv", *rows)

    def run(name: str, *options: object, status: int = 0) -> dict[str, dict]:
        done = in_process(*command(root, tmp_path / name, "--csv", tmp_path / "csv", "--jobs", 1, *options))
        assert done.returncode == status, done.stderr
        return records_of(tmp_path / name)

    plain = run("plain")
    assert {record["frame"] for record in plain.values()} == {2}
    label = run("label", "--aus", "label", "--image", "jpg")
    assert {(record["frame"], record["score"]) for record in label.values()} == {(3, 2.9)}
    assert {tuple(record["aus"]) for record in label.values()} == {("AU12", "AU14")}
    assert all((tmp_path / "label" / record["image"]).suffix == ".jpg" for record in label.values())
    assert {record["frame"] for record in run("hold", "--hold", 3).values()} == {3}
    presence = run("presence", "--aus", "label", "--facs", facs)
    assert {tuple(record["aus"]) for record in presence.values()} == {("AU12",)}
    captions = [{record["caption"] for record in run(f"s{n}", "--aus", "label", "--seed", n).values()} for n in (0, 1)]
    assert len(captions[0]) > 1 and captions[0] != captions[1]  # several phrases per AU, by seed
    assert {record["caption"] for record in label.values()} == captions[0]
    assert run("s2", "--aus", "label", "--crop", status=2) == {}
    assert set(kinds_of(tmp_path / "s2").values()) == {"no_landmarks"}


@pytest.mark.slow
def test_csv_files_are_found_by_path_id_or_bare_name(world, tmp_path):
    """dia0_utt0 is a clip of every split of MELD: its bare name says nothing, nor may it be guessed."""
    source = world / "meld" / "openface"
    tables = {path.relative_to(source): path for path in source.rglob("*.csv")}
    folders = {"train_splits": "train", "dev_splits_complete": "dev", "output_repeated_splits_test": "test"}
    counts = collections.Counter(path.name for path in tables)
    for path, file in tables.items():
        (tmp_path / "id" / folders[path.parts[0]]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "bare").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "id" / folders[path.parts[0]] / path.name)
        shutil.copy(file, tmp_path / "bare" / path.name)
    found = {}
    for name, folder in {"path": source, "id": tmp_path / "id", "bare": tmp_path / "bare"}.items():
        run = command(world / "meld", tmp_path / name / "out", "--csv", folder, "--split", "train", dataset="meld")
        done = in_process(*run, "--jobs", 1)
        assert done.returncode == 0, done.stderr
        found[name] = records_of(tmp_path / name / "out")
    assert found["path"] == found["id"] and len(found["id"]) > 10
    unique = {key: record for key, record in found["id"].items() if counts[f"{key.split('/')[-1]}.csv"] == 1}
    assert found["bare"] == unique and 0 < len(unique) < len(found["id"])
    assert set(kinds_of(tmp_path / "bare" / "out").values()) >= {"no_csv"}
    done = in_process(*command(world / "meld", tmp_path / "o", "--csv", tmp_path / "id" / "dev", dataset="meld"))
    assert done.returncode == 2 and "holds a CSV of none of the" in done.stderr and not (tmp_path / "o").exists()


def test_what_csv_files_can_have_wrong_is_reported(mosei, tmp_path):
    names = ("cut", "unpostprocessed", "noaus", "late", "noclip", "good", "nocsv")
    root = mosei({(name, "1"): "happy" for name in names})
    for name in names[:-1]:
        write_csv(tmp_path / "csv" / "Raw" / name / "1.csv", {"AU12": 3})
    files = {name: tmp_path / "csv" / "Raw" / name / "1.csv" for name in names}
    files["cut"].write_bytes(files["cut"].read_bytes()[:-9])
    files["unpostprocessed"].write_text(files["unpostprocessed"].read_text().replace("3,", "-3,"))
    files["noaus"].write_text("frame,gaze\n1,2\n")
    write_csv(files["late"], *[{}] * FRAMES, {"AU12": 3})  # a frame that the clip does not have
    (root / "Raw" / "noclip" / "1.mp4").unlink()
    (root / "Raw" / "noclip" / "1.mp4").write_text("no video")
    done = in_process(*command(root, tmp_path / "out", "--csv", tmp_path / "csv", "--jobs", 1))
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert {clip_id.split("/")[2]: kind for clip_id, kind in kinds_of(tmp_path / "out").items()} == {
        "cut": "partial_csv", "unpostprocessed": "partial_csv", "noaus": "bad_csv", "late": "no_peak_image",
        "noclip": "no_peak_image", "nocsv": "no_csv",
    }  # fmt: skip
    assert list(records_of(tmp_path / "out")) == ["mosei/train/good/1"]


@pytest.mark.parametrize(
    ("people", "rows", "kind"),
    [
        ("one", FRAMES, None),
        ("one", FRAMES - 3, None),  # decoders drop what is cut off at the end
        ("one", FRAMES + 3, None),
        ("one", FRAMES - 4, "other_clip"),
        ("one", FRAMES + 4, "other_clip"),
        ("several", FRAMES - 4, None),  # no row where there is no face
        ("several", FRAMES + 4, "other_clip"),
    ],
)
def test_a_csv_of_another_clip_is_refused(mosei, tmp_path, people, rows, kind):
    """Frames beyond the clip's end, or fewer rows than frames where FeatureExtraction wrote a row for each."""
    (video,) = mosei({("v", "1"): "happy"}).rglob("*.mp4")
    write_csv(tmp_path / "a.csv", *[{"AU12": float(n == 1)} for n in range(rows)], timestamps=True)
    clip = FerClip("mosei/train/v/1", video, tmp_path / "a.csv", "happy", "a.csv")
    settings = RecordSettings(people, "no_blink", 1, 0.8, False, "leave-out", 0, "png", (), FACS)
    run = FerRun(tmp_path / "out", settings, None, 1)
    if kind is None:
        assert make_record(clip, run)["aus"] == ["AU12"]
        return
    with pytest.raises(OpenFaceError, match=f"the CSV (has {rows} rows|goes to frame {rows}), the clip") as caught:
        make_record(clip, run)
    assert caught.value.kind == kind and not list((tmp_path / "out").rglob("*.png"))


def test_converted_clips_have_faces_too(mosei, tmp_path):
    root = mosei({("v", str(n)): "happy" for n in range(3)})
    write_csv(tmp_path / "csv" / "Raw" / "v" / "0.csv", {"AU12": 3})
    for n, suffix in enumerate((".MP4", ".mkv", ".avi")):
        (root / "Raw" / "v" / f"{n}.mp4").rename(root / "Raw" / "v" / f"{n}{suffix}")
    clips, _ = find_clips("mosei", root, tmp_path / "csv", ["train"])
    assert [clip.video.name for clip in clips["train"]] == ["0.MP4", "1.mkv", "2.avi"]
    assert [clip.csv and clip.csv.name for clip in clips["train"]] == ["0.csv", None, None]
    assert [clip.csv_name for clip in clips["train"]] == [f"Raw/v/{n}.csv" for n in range(3)]


@pytest.mark.slow
def test_splits_gather_in_one_file(world, tmp_path):
    """One run over three splits, or one after the other in any order, give the same files."""
    root = world / "mosei"
    options = ["--csv", root / "openface", "--jobs", 1]
    done = in_process(*command(root, tmp_path / "once", *options, "--split", "test", "train", "dev"))
    assert done.returncode == 0, done.stderr
    for split in ("test", "dev", "train"):
        done = in_process(*command(root, tmp_path / "parts", *options, "--split", split, "--resume"))
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "parts") == contents(tmp_path / "once")
    splits = [clip_id.split("/")[1] for clip_id in records_of(tmp_path / "once")]
    assert splits == sorted(splits, key=["train", "dev", "test"].index) and len(set(splits)) == 3


@pytest.mark.slow
def test_a_run_is_not_mixed_with_another(world, tmp_path):
    root, out = world / "mosei", tmp_path / "out"
    run = command(root, out, "--csv", root / "openface", "--split", "dev", "--jobs", 1)
    assert in_process(*run).returncode == 0
    before = contents(out)
    for options, said in (([], "--resume"), (["--resume", "--seed", "5"], "other settings (seed)")):
        done = in_process(*run, *options)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert contents(out) == before
    done = in_process(*run, "--resume", "--contact-sheet", "--plot", next(iter(records_of(out))))
    assert done.returncode == 0, done.stderr
    pictures = [path for path in contents(out) if path not in before]
    emotions = {record["emotion"] for record in records_of(out).values()}
    assert {Path(path).stem for path in pictures if "contact_sheets" in path} == emotions
    assert len(pictures) == len(emotions) + 1
    framed = [record for record in records_of(out).values() if record.get("face")]
    assert framed and all(0 <= part <= 1 for record in framed for part in record["face"])
    for path in pictures:
        with Image.open(out / path) as picture:
            red = (np.asarray(picture.convert("RGB")) == (0xD1, 0x49, 0x5B)).all(-1)
            upright = np.lib.stride_tricks.sliding_window_view(red, 20, axis=0).all(-1)  # letters are lower
            assert "contact_sheets" not in path or upright.any(), "the person whose peak it is has a frame"
            assert picture.width > 600 and len(picture.convert("RGB").getcolors(1 << 24)) > 20
    (out / next(path for path in before if path.startswith("peaks"))).unlink()  # a lost image is made again
    assert in_process(*run, "--resume").returncode == 0
    assert {path: data for path, data in contents(out).items() if path in before} == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "OPENFACE_DIR is needed"),
        (["--openface", "none"], "no such folder"),
        (["--openface", "."], "holds no FeatureExtraction"),
        (["--csv", "none"], "no such folder"),
        (["--csv", ".", "--plot", "mosei/train/x/1"], "no clip 'mosei/train/x/1'"),
        (["--csv", ".", "--jobs", "0"], "larger than 0"),
        (["--csv", ".", "--backend", "ray"], "no Ray cluster"),
    ],
)
def test_bad_options(mosei, tmp_path, options, said):
    root = mosei({("v", "1"): "happy"})
    write_csv(tmp_path / "Raw" / "v" / "1.csv", {"AU12": 3})
    environment = {"OPENFACE_DIR": "", "RAY_ADDRESS": "127.0.0.1:1"}
    done = in_process(*command(root, tmp_path / "out", *options), cwd=tmp_path, **environment)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "fer.jsonl").exists()


@pytest.mark.slow
def test_records_become_rows_of_stage1(world, project, tmp_path):
    """fer.jsonl in the dataset's folder is all it takes: FER rows with peak images, and the stage-1 plan has them."""
    root = shutil.copytree(world / "mosei", tmp_path / "mosei")
    done = project(*command(root, root, "--csv", root / "openface", "--jobs", 1))
    assert done.returncode == 0, done.stderr
    done = project("-m", "data_prep.build_amt", "--mosei", root, "--split", "train", "--out", tmp_path / "amt")
    assert done.returncode == 0, done.stderr
    captions = {key: record["caption"] for key, record in records_of(root).items() if record["caption"]}
    rows = [json.loads(line) for line in (tmp_path / "amt" / "mosei.fer.train.jsonl").read_text().splitlines()]
    assert {row["id"]: row["response"] for row in rows} == captions
    plan = project("-m", "swift_plugins.mixture", "--stage", "stage1", "--data", tmp_path / "amt")
    (line,) = (line.split() for line in plan.stdout.splitlines() if line.startswith("fer"))
    assert line[:4] == ["fer", "3", "mosei.fer", str(len(captions))]


# ---- interruptions, several runs, several machines ----


def start(arguments: list[str], **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_killed_and_resumed(mosei, project, tmp_path):
    """SIGKILL at random moments of a run: nothing is lost, and only clips in flight are repeated."""
    failing = [(row, str(n)) for row in ("noface", "notvideo") for n in range(4)]
    root = mosei(dict.fromkeys([*((f"v{n % 9}", str(n)) for n in range(72)), *failing], "happy"))
    programs = install(tmp_path / "programs")
    whole = command(root, tmp_path / "whole", "--openface", programs, "--jobs", 2)
    assert project(*whole).returncode == 0
    expected = contents(tmp_path / "whole")
    assert len(expected) > 140

    calls, chance, kills = tmp_path / "calls", random.Random(4), 3
    run = command(root, tmp_path / "out", "--openface", programs, "--jobs", 2, "--resume")
    for _ in range(kills):
        process, deadline = start(run, STAND_IN_CALLS=str(calls)), time.monotonic() + 60
        while not (tmp_path / "out" / ".fer").is_dir() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.1, 1.4))
        process.kill()
        process.wait()
    done = project(*run, STAND_IN_CALLS=str(calls))
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == expected
    times = collections.Counter(calls.read_text().splitlines())
    assert len(times) == 80 and times.total() <= 80 + kills * 4  # two processes, a clip or two each


@pytest.mark.slow
@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGTERM, 2), (signal.SIGKILL, 2), (signal.SIGKILL, 1)])
def test_openface_ends_with_the_run(mosei, tmp_path, number, jobs):
    root, pids = mosei({("hang", str(n)): "happy" for n in range(jobs)}), tmp_path / "pids"
    run = command(root, tmp_path / "out", "--openface", install(tmp_path / "programs"), "--jobs", jobs)
    process = start(run, STAND_IN_PIDS=str(pids))

    def running() -> list[str]:
        started = pids.read_text().split() if pids.is_file() else []
        return [pid for pid in started if Path("/proc", pid).exists()]

    def wait(condition) -> bool:
        deadline = time.monotonic() + 20
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)
        return condition()

    assert wait(lambda: len(running()) == jobs)
    process.send_signal(number)
    assert process.wait(20) == -number
    assert wait(lambda: not running())


@pytest.mark.slow
def test_two_runs_on_one_folder(mosei, project, tmp_path):
    root = mosei({("v", str(n)): "happy" for n in range(8)})
    run = command(root, tmp_path / "out", "--openface", install(tmp_path / "programs"), "--jobs", 1, "--resume")
    first = start(run, STAND_IN_WORK="0.5")
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / ".fer" / "done").is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    second = project(*run)
    assert first.poll() is None
    assert second.returncode == 2 and "another run is writing there" in second.stderr
    assert "Traceback" not in second.stderr
    assert first.wait(60) == 0 and len(records_of(tmp_path / "out")) == 8


@pytest.mark.slow
def test_ray_cluster_gives_the_same_files(world, project, tmp_path):
    """Two nodes with a core each against two processes here: the same bytes."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    root = world / "mosei"
    options = ["--csv", root / "openface", "--split", "train", "dev", "test"]
    done = project(*command(root, tmp_path / "loky", *options, "--jobs", 2))
    assert done.returncode == 0, done.stderr
    node = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        cluster.add_node(**node)
        done = project(*command(root, tmp_path / "ray", *options, "--backend", "ray"), RAY_ADDRESS=cluster.address)
    finally:
        cluster.shutdown()
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "ray") == contents(tmp_path / "loky")
    assert len(list((tmp_path / "ray" / ".fer" / "done").iterdir())) == 2  # both nodes worked
