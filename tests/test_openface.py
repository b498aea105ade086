from __future__ import annotations

import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.openface_stand_in import FRAMES, install
from data_prep.fer.au_table import INTENSITIES, PRESENCES, OpenFaceError, read_faces
from data_prep.fer.openface import extract, find_program
from swift_plugins.files import InputError
from tests.conftest import ROOT

HEADER = [
    *("frame", "face_id", "timestamp", "confidence", "success"),
    *(f"{au}_r" for au in INTENSITIES),
    *(f"{au}_c" for au in PRESENCES),
]


def table(rows: list[dict], header: list[str] = HEADER, comma: str = ",") -> str:
    """A CSV with these values and a plain default for every other column."""
    usual = {"frame": 1, "face_id": 0, "confidence": 0.98, "success": 1, "face": 0}
    lines = [comma.join(header)]
    lines += [comma.join(str(row.get(name, usual.get(name, "0.00"))) for name in header) for row in rows]
    return "\n".join(lines) + "\n"


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "a.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("comma", [",", ", "])
def test_both_header_styles_read_alike(write, comma):
    rows = [{"frame": n, "AU12_r": f"{n / 10:.2f}", "AU28_c": 1} for n in (1, 2, 3)]
    faces = read_faces(write(table(rows, comma=comma)))
    assert faces.frame.tolist() == [1, 2, 3] and faces.index.tolist() == [0, 1, 2]
    assert faces.intensity[:, INTENSITIES.index("AU12")].tolist() == [0.1, 0.2, 0.3]
    assert faces.presence[:, PRESENCES.index("AU28")].tolist() == [1, 1, 1]
    assert not faces.missing and faces.box is None


def test_only_trusted_rows_are_kept(write):
    rows = [
        {"frame": 1, "success": 0, "AU12_r": 5},  # success 0 can hold AUs that are not 0
        {"frame": 2, "confidence": 0.02, "AU12_r": 5},  # success 1 comes with no confidence at all
        {"frame": 3, "confidence": 0.8},
        {"frame": 4, "AU12_r": "nan"},
        {"frame": 5, "AU12_r": "-nan"},
    ]
    faces = read_faces(write(table(rows)))
    assert faces.frame.tolist() == [3] and faces.rows == 5
    assert read_faces(write(table(rows)), confidence=0.0).frame.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("", "partial_csv", "is empty"),
        (table([]), "partial_csv", "no data row"),
        (table([{}, {}])[:-2], "partial_csv", "cut in its last line"),
        (table([{}])[:-1], "partial_csv", "cut in its last line"),  # nothing to compare the last cell with
        (table([{}, {}])[:-30], "partial_csv", "cut in its last line"),
        (table([{}, {"AU17_r": -0.4}]), "partial_csv", "negative"),
        (table([{}]) + "2,0,0.0\n", "bad_csv", "3: has 3 cells where 40 are expected"),
        (table([{}, {"AU01_r": "much"}]), "bad_csv", "3: AU01_r is 'much', not a number"),
        (table([{"frame": 1.5}]), "bad_csv", "frame is not a whole number"),
        ("a,b\n1,2\n", "bad_csv", "no AU columns"),
        (table([{}], header=["AU01_r", "AU12_r"]), "bad_csv", "no frame column"),
        ("\0\1\2\n\3\n", "bad_csv", "no AU columns"),
    ],
)
def test_what_is_not_a_whole_table_is_refused(write, text, kind, said):
    with pytest.raises(OpenFaceError, match=said) as caught:
        read_faces(write(text))
    assert caught.value.kind == kind
    assert str(caught.value).count("a.csv") == 1


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(OpenFaceError, match="cannot be read"):
        read_faces(tmp_path / "none.csv")


def test_a_missing_model_is_named(write):
    faces = read_faces(write(table([{}], header=[name for name in HEADER if name != "AU12_r"])))
    assert faces.missing == {"AU12_r"}
    faces.require(["AU06_r"])
    with pytest.raises(OpenFaceError, match="AU12_r") as caught:
        faces.require(["AU06_r", "AU12_r"])
    assert caught.value.kind == "missing_au_column"


def test_tables_of_other_tools(write):
    bare = ["", "frame", "FaceScore", "AU06", "AU12", "input"]  # py-feat: no face numbers, frames from 0, probabilities
    rows = [{"": n, "frame": n // 2, "FaceScore": 0.99, "AU06": 0.5, "input": '"a, b.mp4"'} for n in range(4)]
    faces = read_faces(write(table(rows, header=bare)))
    assert faces.index.tolist() == [0, 0, 1, 1] and faces.face_id.tolist() == [0, 1, 0, 1]
    assert faces.intensity[:, INTENSITIES.index("AU06")].tolist() == [0.5] * 4
    assert "AU45_r" in faces.unknown and "AU06_r" not in faces.missing and faces.tool.maximum == 1
    libre = [
        "frame_idx",
        "frame_time_in_ms",
        "pitch",
        "facial_expression",
        "au_1",
        "au_7",
        "au_1_intensity",
        "au_5_intensity",
    ]
    rows = [
        {"frame_idx": n, "facial_expression": "Happiness", "au_7": n % 2, "au_5_intensity": n / 8} for n in range(3)
    ]
    faces = read_faces(write(table(rows, header=libre)))
    assert faces.frame.tolist() == faces.index.tolist() == [0, 1, 2] and faces.face_id.tolist() == [0, 0, 0]
    assert faces.intensity[:, INTENSITIES.index("AU05")].tolist() == [0, 0.125, 0.25]
    assert faces.presence[:, PRESENCES.index("AU07")].tolist() == [0, 1, 0]
    assert {"AU07_r", "AU05_c", "AU28_c"} < faces.unknown and not {"AU01_r", "AU01_c", "AU05_r"} & faces.unknown
    named = ["frame", "AU06_r", "AU12_r"]  # OpenFace's names without success and confidence: every row counts
    faces = read_faces(write(table([{"frame": 1}, {"frame": 2}], header=named)))
    assert faces.frame.tolist() == [1, 2]
    image = ["face", "confidence", "AU06_r"]  # FaceLandmarkImg: several faces of one image
    faces = read_faces(write(table([{"face": 0}, {"face": 1}], header=image)))
    assert faces.face_id.tolist() == [0, 1] and faces.frame.tolist() == [1, 1]


def test_landmarks_give_the_box_of_a_face(write):
    corners = [f"{axis}_{n}" for axis in "xy" for n in range(68)]
    row = {name: 10 + int(name[2:]) + (100 if name[0] == "y" else 0) for name in corners}
    path = write(table([row], header=[*HEADER[:5], *corners, *HEADER[5:]]))
    assert read_faces(path, boxes=True).box.tolist() == [[10, 110, 77, 177]]
    assert read_faces(path).box is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 500), st.booleans(), st.integers(0, 100)), min_size=1, max_size=12),
    st.integers(0, 10_000),
)
def test_every_cut_is_noticed(tmp_path_factory, rows, cut):
    """A file cut anywhere but at the end of a row is partial; one cut there, line end or not, is a shorter file."""
    path = tmp_path_factory.getbasetemp() / "cut.csv"
    text = table([{"frame": n, "AU12_r": v / 100, "success": int(s), "confidence": c / 100}
                  for n, (v, s, c) in enumerate(rows, 1)])  # fmt: skip
    whole = text[: cut % len(text)]
    path.write_text(whole)
    ended = whole if whole.endswith("\n") else whole + "\n" * (whole.count("\n") > 1)
    if ended.endswith("\n") and ended.count("\n") > 1 and text.startswith(ended):
        faces = read_faces(path)
        kept = [v / 100 for v, s, c in rows[: ended.count("\n") - 1] if s and c >= 80]
        assert faces.intensity[:, INTENSITIES.index("AU12")].tolist() == kept
    else:
        with pytest.raises(OpenFaceError) as caught:
            read_faces(path)
        assert caught.value.kind == "partial_csv"


def test_real_files(shared):
    folder = shared / "openface"
    for name in ("fe22_single_sample338.csv", "fm22_multi_face.csv"):
        plain = read_faces(folder / name)
        spaced = folder / name.replace("fe22", "fe202").replace("fm22", "fm202").replace(".csv", "_commaspace.csv")
        assert read_faces(spaced).missing == plain.missing == frozenset()
    few = read_faces(folder / "fe22_single_face.csv")
    many = read_faces(folder / "fe22_single_face_ALLcolumns.csv", boxes=True)
    assert np.array_equal(few.intensity, many.intensity) and np.array_equal(few.presence, many.presence)
    assert many.box.shape == (72, 4) and (many.box[:, 2] > many.box[:, 0]).all()
    assert read_faces(folder / "fe22_AU12_r_missing.csv").missing == {"AU12_r"}
    assert len(read_faces(folder / "fe22_no_face.csv").frame) == 0
    assert len(read_faces(folder / "fm22_sample338_falsepos.csv").frame) == 114
    with pytest.raises(OpenFaceError) as caught:
        read_faces(folder / "fe22_KILLED_partial_unpostprocessed.csv")
    assert caught.value.kind == "partial_csv"


# ---- the programs ----


@pytest.fixture(scope="module")
def cut_clip(tmp_path_factory) -> Path:
    """A clip that opens and of which no frame is left."""
    path = tmp_path_factory.mktemp("cut") / "cut.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 8])
    return path


def test_a_cut_clip_is_not_one_without_a_face(tmp_path, cut_clip):
    """FaceLandmarkVidMulti says the same of both: no CSV, status 0."""
    program = find_program(install(tmp_path / "programs"), several=True)
    clip = shutil.copy(cut_clip, tmp_path / "noface.mp4")
    with pytest.raises(OpenFaceError, match="wrote no CSV: the clip") as caught:
        extract(clip, tmp_path / "a.csv", program, tmp_path / "scratch")
    assert caught.value.kind == "no_frames"


ONE, SEVERAL = "FeatureExtraction", "FaceLandmarkVidMulti"
ENDINGS = [
    (ONE, "noface", None, None, 1),  # a CSV with all rows success 0
    (SEVERAL, "noface", "no_face", "found no face", 1),
    (ONE, "notvideo", "not_a_video", "cannot open", 1),
    (SEVERAL, "notvideo", "not_a_video", "cannot open", 1),
    (ONE, "noframes", "crash", "SIGSEGV", 2),
    (SEVERAL, "noframes", "no_frames", "no frame", 1),
    (ONE, "nolandmarks", "models_missing", "landmark", 1),
    (SEVERAL, "nomodels", "models_missing", "Action Unit", 1),
    (ONE, "onemodel", "missing_au_column", "AU12_r", 1),
    (ONE, "noout", "crash", "SIGABRT: Could not create output directory", 2),
    (ONE, "nolibrary", "crash", "status 127: error while loading shared libraries: libopencv_core.so.4.1", 2),
    (ONE, "hang", "timeout", "stopped after 1 s", 2),
    (ONE, "killed", "crash", "SIGKILL", 2),
    (ONE, "unfinished", "partial_csv", "negative", 2),
    (ONE, "empty", "partial_csv", "empty", 2),
    (ONE, "headeronly", "partial_csv", "no data row", 2),
    (SEVERAL, "status3", "crash", "status 3", 2),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row", "kind", "said", "tries"), ENDINGS, ids=lambda value: str(value))
def test_every_ending_is_named(tmp_path, monkeypatch, name, row, kind, said, tries):
    """The failure table: one retry where it can help, no CSV published unless all is well, nothing left behind."""
    program = find_program(install(tmp_path / "programs"), name == SEVERAL)
    clip, csv, scratch = tmp_path / f"{row}.mp4", tmp_path / "out" / "a.csv", tmp_path / "scratch"
    clip.touch()
    monkeypatch.setenv("STAND_IN_CALLS", str(tmp_path / "calls"))
    if kind is None:
        assert len(extract(clip, csv, program, scratch).frame) == 0
    else:
        with pytest.raises(OpenFaceError, match=said) as caught:
            extract(clip, csv, program, scratch, timeout=1 if row == "hang" else 60)
        assert caught.value.kind == kind
        assert "/" not in caught.value.reason  # a report is the same wherever the run's folders were
    assert csv.is_file() == (kind is None)
    assert os.listdir(scratch) == []
    assert len((tmp_path / "calls").read_text().splitlines()) == tries


@pytest.mark.parametrize("several", [False, True])
def test_a_clip_with_an_awkward_path(tmp_path, several):
    clip = tmp_path / "Zoé (1), take 2; $HOME" / "été 'a'.b.mp4"
    clip.parent.mkdir()
    clip.touch()
    program = find_program(install(tmp_path / "my programs"), several)
    csv = tmp_path / "out put" / "é.csv"
    faces = extract(clip, csv, program, tmp_path / "scratch", flags=["-mloc", "a b.txt"])
    assert len(faces.frame) == FRAMES * (2 if several else 1)
    assert np.array_equal(read_faces(csv).intensity, faces.intensity)


def test_a_missing_clip_is_no_video(tmp_path):
    program = find_program(install(tmp_path / "programs"))
    with pytest.raises(OpenFaceError) as caught:
        extract(tmp_path / "none.mp4", tmp_path / "a.csv", program, tmp_path / "scratch")
    assert caught.value.kind == "not_a_video"


def test_programs_are_found_or_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such folder"):
        find_program(tmp_path / "none")
    with pytest.raises(InputError, match="holds no FeatureExtraction"):
        find_program(tmp_path)
    install(tmp_path / "build" / "bin")
    assert find_program(tmp_path) == tmp_path / "build" / "bin" / ONE
    monkeypatch.chdir(tmp_path)
    assert find_program("build/bin", several=True).is_absolute()
    assert find_program("build/bin/" + SEVERAL) == tmp_path / "build" / "bin" / ONE  # either program names the folder
    with pytest.raises(InputError, match="is neither FeatureExtraction nor"):
        find_program(__file__)
    links = tmp_path / "links"  # models lie beside the program, not beside the link
    links.mkdir()
    (links / ONE).symlink_to(tmp_path / "build" / "bin" / ONE)
    assert find_program(links) == find_program(links / ONE) == tmp_path / "build" / "bin" / ONE
    (tmp_path / "wrapper.sh").write_text("#!/bin/sh\n")
    (tmp_path / "wrapper.sh").chmod(0o755)
    (links / SEVERAL).symlink_to(tmp_path / "wrapper.sh")  # one wrapper knows by its name which program is meant
    assert find_program(links, several=True) == links / SEVERAL
    (tmp_path / "build" / "bin" / ONE).chmod(0o644)
    if os.getuid():
        with pytest.raises(InputError, match="not executable"):
            find_program(tmp_path)
    (tmp_path / "build" / "bin" / SEVERAL).write_text("not a program\n")
    (tmp_path / "a.mp4").touch()
    with pytest.raises(InputError, match="cannot be started"):
        extract(tmp_path / "a.mp4", tmp_path / "a.csv", tmp_path / "build" / "bin" / SEVERAL, tmp_path / "scratch")


def test_docker_wrapper(tmp_path, monkeypatch):
    """It serves both programs; `docker` is a stand-in that starts them with what stands after the image's name."""
    programs, links, clip = install(tmp_path / "programs"), tmp_path / "links", tmp_path / "a, b é" / "a.mp4"
    for folder in (links, clip.parent, tmp_path / "bin"):
        folder.mkdir()
    clip.touch()
    docker = tmp_path / "bin" / "docker"
    docker.write_text(f"""#!/bin/bash
printf '%s\\n' "$@" > {tmp_path}/said
while [ "$1" != test/image ]; do shift; done
exec {programs}/"${{@:2}}"
""")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("OPENFACE_IMAGE", "test/image")
    for name, people in ((ONE, 1), (SEVERAL, 2)):
        (links / name).symlink_to(ROOT / "shell" / "openface_docker.sh")
        program = find_program(links, several=people > 1)
        faces = extract(clip, tmp_path / f"{name}.csv", program, tmp_path / "scratch")
        assert len(faces.frame) == FRAMES * people
        said = (tmp_path / "said").read_text().split("\n")
        assert f'type=bind,"source={clip.parent}","target={clip.parent}",readonly' in said and "none" in said
