"""Clips: which can be used, and what each policy does with the others."""

import av
import numpy as np
import pytest

from data_prep.readers.media import ClipFinder, probe, resolve
from data_prep.readers.sample import Sample
from swift_plugins.files import InputError


def draw(path, seconds=0.5, fps=10, audio_only=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if audio_only:
            stream = container.add_stream("aac", rate=16000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            frames = [frame]
        else:
            stream = container.add_stream("libx264", rate=fps)
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            picture = np.full((32, 32, 3), 90, np.uint8)
            frames = (av.VideoFrame.from_ndarray(picture, format="rgb24") for _ in range(round(seconds * fps)))
        for frame in frames:
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def faulty(kind, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no clip at all")
    elif kind == "truncated":
        path.write_bytes(draw(path).read_bytes()[:300])
    elif kind == "audio only":
        draw(path, audio_only=True)
    elif kind == "over-long":
        draw(path, seconds=125, fps=1)
    elif kind == "folder":
        path.mkdir()
    return path


def test_probe_passes_a_healthy_clip(tmp_path):
    assert probe(draw(tmp_path / "a.mp4")) is None


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("missing", "is missing"),
        ("empty", "is empty"),
        ("text", "cannot be decoded"),
        ("truncated", "cannot be decoded"),
        ("audio only", "no video stream"),
        ("over-long", "longer than"),
        ("folder", "cannot be decoded"),
    ],
)
def test_probe_says_why_a_clip_cannot_be_used(tmp_path, kind, reason):
    assert reason in probe(faulty(kind, tmp_path / "a.mp4"))


def samples(root):
    draw(root / "c" / "good.mp4")
    faulty("truncated", root / "c" / "bad.mp4")
    clips = ("c/good.mp4", "c/bad.mp4", "c/lost.mp4", None)
    return [Sample(f"meld/train/{i}", "meld", "train", "hi", video=clip) for i, clip in enumerate(clips)]


def test_drop_leaves_out_and_text_only_keeps_and_both_report_by_name(tmp_path):
    given, faults = samples(tmp_path), []
    assert list(resolve(given, tmp_path, "drop", faults, jobs=2)) == given[:1]
    assert [(f.kind, f.where) for f in faults] == [
        ("broken_clip", "meld/train/1"),
        ("missing_clip", "meld/train/2"),
        ("no_clip", "meld/train/3"),
    ]
    faults.clear()
    kept = list(resolve(given, tmp_path, "text-only", faults))
    assert [s.id for s in kept] == [s.id for s in given]
    assert [s.video for s in kept] == ["c/good.mp4", None, None, None] and len(faults) == 3


def test_error_stops_at_the_first_and_names_it(tmp_path):
    with pytest.raises(InputError, match=r"meld/train/1: clip c/bad\.mp4 cannot be decoded"):
        list(resolve(samples(tmp_path), tmp_path, "error", []))


def test_without_probing_only_the_file_is_looked_for(tmp_path):
    kept = list(resolve(samples(tmp_path), tmp_path, "drop", [], probe=False))
    assert [s.video for s in kept] == ["c/good.mp4", "c/bad.mp4"]


def test_an_unknown_policy_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="one of drop, text-only, error"):
        list(resolve([], tmp_path, "skip", []))
    with pytest.raises(InputError, match="no such folder"):
        list(resolve([], tmp_path / "none", "drop", []))


def test_converted_clips_are_found_by_their_stem(tmp_path):
    """The file as published comes first, then .MP4, .mkv, .avi; no other kind, no sub-folder."""
    for name in ("a.MP4", "b.avi", "b.mkv", "b.txt", "c.mp4", "c.mkv", "d.txt", "deep/e.mp4", "f 1.2.avi"):
        (tmp_path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / name).touch()
    found = {stem: ClipFinder(tmp_path).find(f"c/{stem}.mp4") for stem in ("a", "b", "c", "d", "e", "f 1.2", "f")}
    assert found == {"a": "c/a.MP4", "b": "c/b.mkv", "c": "c/c.mp4", "d": "c/d.mp4", "e": "c/e.mp4",
                     "f 1.2": "c/f 1.2.avi", "f": "c/f.mp4"}  # fmt: skip
    draw(tmp_path / "c" / "real.mkv")
    (kept,) = resolve([Sample("meld/train/1", "meld", "train", "hi", video="c/real.mp4")], tmp_path, "error", [])
    assert kept.video == "c/real.mkv"
