from __future__ import annotations

import csv
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from data_prep.fer.au_table import AU_COLUMNS, INTENSITIES, PRESENCES, AuColumns, Faces, OpenFaceError, read_faces
from data_prep.fer.facs import active_aus, common_aus, deciding_columns, load_facs
from data_prep.fer.peaks import SIDE, find_peak, find_peaks, peak_image, read_choice, summed_aus, write_image
from data_prep.fer.pictures import plot_clip
from swift_plugins.files import InputError, read_config

FACS = load_facs()
LIBREFACE, PYFEAT = (read_config(AU_COLUMNS, AuColumns).tools[name] for name in ("libreface", "py-feat"))
NO_BLINK = summed_aus("no_blink", FACS)


def faces_of(rows: list[tuple[int, int, dict[str, float]]], missing: tuple[str, ...] = ()) -> Faces:
    """`Faces` with these (frame, face, intensities) rows; presence where the intensity is 1 or more."""
    intensity = np.array([[aus.get(au, 0.0) for au in INTENSITIES] for _, _, aus in rows]).reshape(len(rows), 17)
    presence = np.array([[float(aus.get(au, 0) >= 1) for au in PRESENCES] for _, _, aus in rows]).reshape(len(rows), 18)
    frame = np.array([frame for frame, _, _ in rows], dtype=np.int64)
    face = np.array([face for _, face, _ in rows], dtype=np.int64)
    return Faces(frame, frame - 1, face, intensity, presence, frozenset(missing), None, len(rows))


def scored(*scores: float, face: int = 0, first: int = 1) -> list[tuple[int, int, dict[str, float]]]:
    return [(first + n, face, {"AU12": score}) for n, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("rows", "hold", "frame", "face"),
    [
        (scored(1, 3, 2), 1, 2, 0),
        (scored(1, 3, 3, 3), 1, 2, 0),  # a tie goes to the first frame
        (scored(1, 2, face=0) + scored(1, 3, face=1), 1, 2, 1),  # the most expressive person
        (scored(1, 3, face=1) + scored(3, 1, face=2), 1, 1, 2),  # a tie of two people too
        (scored(3, face=2) + scored(3, face=1), 1, 1, 1),  # in one frame: the lower number
        ([(1, 0, {"AU01": 0.1, "AU02": 0.2}), (2, 0, {"AU04": 0.3})], 1, 1, 0),  # 0.1 + 0.2 is 0.3 here
        ([(1, 0, {"AU45": 5.0}), (2, 0, {"AU12": 0.5})], 1, 2, 0),  # a blink is no expression
        (scored(1, 1, 9, 1, 1, 2, 3, 2), 1, 3, 0),
        (scored(1, 1, 9, 1, 1, 2, 3, 2), 3, 7, 0),  # a spike of one frame does not hold for three
        (scored(1, 5) + scored(9, first=9) + scored(2, 2, 2, face=1), 3, 2, 1),  # nor across a gap or another face
        (scored(2, 3, 4, 4, 3), 2, 3, 0),
    ],
)
def test_peak(rows, hold, frame, face):
    peak = find_peak(faces_of(rows), NO_BLINK, hold)
    assert (peak.frame, peak.face_id, peak.index) == (frame, face, frame - 1)
    mine = next(aus for at, who, aus in rows if (at, who) == (frame, face))
    assert peak.score == round(sum(value for au, value in mine.items() if au != "AU45"), 6)


def test_every_person_has_a_peak():
    rows = scored(1, 3, 2, face=0) + scored(4, 1, face=2) + scored(0, 0, 7, 0, face=3)
    peaks = find_peaks(faces_of(rows), NO_BLINK)
    assert [(peak.face_id, peak.frame, peak.score) for peak in peaks] == [(0, 2, 3), (2, 1, 4), (3, 3, 7)]


def test_nothing_to_choose_from_is_no_face():
    for rows, hold in (([], 1), (scored(1, 2), 3)):
        with pytest.raises(OpenFaceError) as caught:
            find_peak(faces_of(rows), NO_BLINK, hold)
        assert caught.value.kind == "no_face"


def test_a_sum_without_one_of_its_columns_is_refused():
    faces = faces_of(scored(1), missing=("AU12_r",))
    with pytest.raises(OpenFaceError, match="AU12_r"):
        find_peak(faces, NO_BLINK)
    assert find_peak(faces, summed_aus("sad", FACS)).score == 0


ROW = st.tuples(st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))  # frame, face, intensity


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=30, unique_by=lambda row: row[:2]))
def test_peak_is_the_first_maximum(rows):
    faces = faces_of([(frame, face, {"AU06": value / 4}) for frame, face, value in rows])
    peak = find_peak(faces, NO_BLINK)
    best = max(value for _, _, value in rows)
    assert (peak.frame, peak.face_id) == min((frame, face) for frame, face, value in rows if value == best)


def test_summed_aus():
    assert summed_aus("all", FACS) == INTENSITIES
    assert summed_aus("joy", FACS) == summed_aus("happy", FACS) == ("AU06", "AU12", "AU14")
    assert summed_aus("worried", FACS) == ("AU20",)  # AU28 has no intensity
    assert summed_aus("neutral", FACS) == NO_BLINK
    assert summed_aus(read_choice(["AU12,AU28", "AU06"]), FACS) == ("AU06", "AU12")
    for choice, said in (("bliss", "no AU set for the label 'bliss'"), (("AU99",), "--aus: AU99 is none of AU01"),
                         (("AU28",), "no AU of AU28 has an intensity")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            summed_aus(choice, FACS)


def test_expected_peaks(shared, project):
    """All reference files and AU sums: frame, person and score as measured; the command line says the same."""
    folder = shared / "openface"
    with (folder / "expected_peaks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 27
    for row in rows:
        aus = summed_aus({"all17": "all"}.get(row["aus_summed"], row["aus_summed"]), FACS)
        faces = read_faces(folder / row["file"], confidence=0.8)
        if row["peak_frame"]:
            peak = find_peak(faces, aus)
            found = str(peak.frame), str(peak.face_id), peak.score
            assert found == (row["peak_frame"], row["face_id"], float(row["score"])), row
        else:
            with pytest.raises(OpenFaceError):
                find_peak(faces, aus)
    done = project("-m", "data_prep.peak_frame", folder / "fe22_full_842f.csv", "--aus", "all")
    assert json.loads(done.stdout) == {"peak_frame": 290, "face_id": 0, "score": 7.93}
    done = project("-m", "data_prep.peak_frame", folder / "fe22_no_face.csv")
    assert done.returncode == 0 and json.loads(done.stdout)["peak_frame"] is None
    done = project("-m", "data_prep.peak_frame", folder / "fe22_AU12_r_missing.csv", "--aus", "joy")
    assert done.returncode == 2 and "AU12_r" in done.stderr and "Traceback" not in done.stderr
    assert json.loads(done.stdout)["peak_frame"] is None and "AU12_r" in json.loads(done.stdout)["reason"]


def test_merr_captions(shared):
    """Equation 3 on published clips: the AUs kept from emotion and peak AUs, at the documented rates."""
    exact, clips = {}, {}
    with (shared / "merr" / "au_lists.csv").open() as file:
        for row in csv.DictReader(file):
            emotion = row["emotion"]
            kept = common_aus(row["peak_aus"].split(), emotion, FACS)
            clips[emotion] = clips.get(emotion, 0) + 1
            exact[emotion] = exact.get(emotion, 0) + (set(kept) == set(row["common_aus"].split()))
    found = {emotion: (exact[emotion], clips[emotion]) for emotion in ("happy", "angry", "worried", "fear", "surprise")}
    assert found == {"happy": (475, 475), "angry": (866, 874), "worried": (301, 310), "fear": (81, 86),
                     "surprise": (196, 213)}  # fmt: skip


def test_drawn_apex_is_recovered(world):
    """In the synthetic dataset the apex of every face is known: within 2 frames for 95 % of clips, and of people."""
    hits: dict[str, list[bool]] = {"clip": [], "person": []}
    for line in (world / "truth.jsonl").read_text().splitlines():
        truth = json.loads(line)
        dataset, _, clip = truth["video"].partition("/")
        faces = read_faces((world / dataset / "openface" / clip).with_suffix(".csv"))
        apex = {face["face_id"]: face["apex"] for face in truth["faces"]}
        peak = find_peak(faces, NO_BLINK)
        hits["clip"].append(abs(peak.index - apex[peak.face_id]) <= 2)
        people = {peak.face_id: peak.index for peak in find_peaks(faces, NO_BLINK)}
        hits["person"] += [face in people and abs(people[face] - frame) <= 2 for face, frame in apex.items()]
    print({who: f"{sum(found)} of {len(found)}" for who, found in hits.items()})  # pytest -rP shows it
    assert len(hits["person"]) > len(hits["clip"]) > 100
    assert {who: sum(found) / len(found) >= 0.95 for who, found in hits.items()} == {"clip": True, "person": True}


def test_active_aus():
    faces = faces_of([(1, 0, {"AU06": 0.8, "AU12": 0.79, "AU45": 3, "AU28": 1})])
    assert active_aus(faces, 0, FACS) == ("AU06", "AU28")
    assert active_aus(faces, 0, FACS, PRESENCES) == ("AU06", "AU28", "AU45")
    with pytest.raises(OpenFaceError, match="AU28_c"):  # a model that was not loaded, not an AU that is absent
        active_aus(faces_of([(1, 0, {})], missing=("AU28_c",)), 0, FACS)
    libreface, pyfeat = (replace(faces, missing=frozenset(missing), tool=tool) for missing, tool in (
        ({f"AU{n:02}_r" for n in (7, 10, 14, 23, 45)} | {f"AU{n:02}_c" for n in (5, 9, 20, 25, 26, 28, 45)}, LIBREFACE),
        ({f"{au}_c" for au in PRESENCES} | {"AU45_r"}, PYFEAT),
    ))  # fmt: skip
    assert active_aus(libreface, 0, FACS) == () and active_aus(pyfeat, 0, FACS) == ("AU06", "AU12")  # own thresholds
    assert deciding_columns(libreface, FACS)["AU07"] == "c" and "AU28" not in deciding_columns(libreface, FACS)
    assert find_peak(pyfeat, INTENSITIES).score == 1.59  # without AU45, which it does not know
    intensities_only = faces_of([(1, 0, {"AU12": 2})], missing=tuple(f"{au}_c" for au in PRESENCES))
    assert active_aus(intensities_only, 0, FACS) == ("AU12",)


# ---- pictures ----


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """200x100 pixels, frame n is grey 20 n but for a bright block, shown for 1, 2, 3, 1 … ninetieths of a second."""
    path = tmp_path_factory.mktemp("clip") / "variable rate é.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "10", "g": "5", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 200, 100, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 9000)
        ticks = 0
        for n in range(12):
            pixels = np.full((100, 200, 3), 20 * n, np.uint8)
            pixels[40:60, 150:170] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = ticks, Fraction(1, 9000)
            ticks += 100 * (1 + n % 3)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_peak_image_is_that_very_frame(clip, tmp_path):
    for n in (0, 4, 5, 7, 11):
        image = peak_image(clip, n)
        assert image.size == (SIDE, SIDE) and image.mode == "RGB"
        assert abs(image.getpixel((20, 20))[0] - 20 * n) <= 3
    with pytest.raises(InputError, match="has no frame 12"):
        peak_image(clip, 12)
    for name in ("a.png", "a.jpg"):
        write_image(tmp_path / name, image)
        with Image.open(tmp_path / name) as read:
            assert read.size == (SIDE, SIDE)
            across, down = read.info["dpi"]
            assert across / down == pytest.approx(100 / 200, rel=0.02)  # the true proportions are not lost


def test_peak_image_says_where_the_person_is(clip):
    assert peak_image(clip, 2, np.array([150.0, 40, 170, 60])).info["face"] == [0.75, 0.4, 0.85, 0.6]
    assert peak_image(clip, 2).info["face"] is None, "a table without landmarks does not tell"


def test_peak_image_of_a_person(clip):
    image = peak_image(clip, 2, np.array([150.0, 40, 170, 60]), crop=True)
    assert image.size == (SIDE, SIDE)
    bright = np.asarray(image.convert("L")) > 150
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    assert 0.4 < len(rows) / SIDE < 0.8 and abs(columns.mean() - SIDE / 2) < 20
    assert rows.mean() > SIDE / 2  # the head reaches above the landmarks
    assert peak_image(clip, 2, np.array([180.0, 0, 220, 40]), crop=True).size == (SIDE, SIDE)  # a face at the border
    with pytest.raises(OpenFaceError, match="outside the upright picture of 200x100") as caught:
        peak_image(clip, 2, np.array([40.0, 150, 60, 170]), crop=True)  # of the clip on its side: a crop would be black
    assert caught.value.kind == "other_clip"


@pytest.mark.slow
def test_command_writes_the_picture_and_the_plot(clip, world, project, tmp_path):
    table = sorted((world / "meld" / "openface" / "train_splits").glob("*.csv"))[0]
    video = world / "meld" / "train_splits" / f"{table.stem}.mp4"
    done = project("-m", "data_prep.peak_frame", table, "--video", video, "--image", tmp_path / "p.png",
                   "--aus", "surprise", "--plot", tmp_path / "plot.png")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"peak_frame", "face_id", "score"}
    expected = peak_image(video, found["peak_frame"] - 1)
    with Image.open(tmp_path / "p.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(expected))
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.width > 1000 and plot.height > 600


def test_a_plot_shows_the_blink_where_it_is_summed(tmp_path, monkeypatch):
    """Everywhere in a plot or nowhere: rows, bars and what is called present."""
    said = []
    for kind, name in ((Axes, "set_yticks"), (Figure, "supxlabel")):
        monkeypatch.setattr(kind, name, wrapped(getattr(kind, name), said))
    faces = faces_of([(1, 0, {"AU12": 2, "AU45": 4}), (2, 0, {})])
    for choice in ("no_blink", "all"):
        said.clear()
        aus = summed_aus(choice, FACS)
        plot_clip(tmp_path / "plot.png", faces, find_peak(faces, aus), aus, FACS, title="a")
        assert ["AU45" in text for text in said] == [choice == "all"] * 2


def wrapped(method, said: list[str]):
    def record(self, *args, **options):
        said.append(str(args))
        return method(self, *args, **options)

    return record


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--aus", "bliss"], "no AU set for the label 'bliss'"),
        (["--hold", "0"], "--hold is 1 or more"),
        (["--image", "a.png"], "--image needs --video"),
        (["--facs", "none.yaml"], "none.yaml: no such file or directory"),
    ],
)
def test_bad_options(project, tmp_path, options, said):
    table = tmp_path / "a.csv"
    table.write_text("frame,AU12_r\n1,2.00\n")
    done = project("-m", "data_prep.peak_frame", table, *options, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_a_wrong_facs_table_is_refused(tmp_path):
    source = Path(load_facs.__globals__["FACS"]).read_text()
    for change, said in (
        (("column: r", "column: x"), "presence.column: Input should be 'r' or 'c'"),
        (("chin pushed up,", "nose wrinkled,"), "stands for both"),
        (("chin pushed up,", '"chin; up",'), "without ';'"),
        (("doubt: [AU25]", "doubt: [AU99]"), "unknown AU AU99"),
        (("joy: happy", "joy: glad"), "unknown emotion glad"),
        (("threshold: 0.8", "threshold: much"), "presence.threshold: Input should be a valid number"),
        (("confidence: 0.8", "confidnce: 0.8"), "presence.confid.*: (missing|unknown) key"),
        (("presence:", "presence: ["), "is not YAML"),
    ):
        assert change[0] in source
        path = tmp_path / "facs.yaml"
        path.write_text(source.replace(*change))
        with pytest.raises(InputError, match=said):
            load_facs(path)
