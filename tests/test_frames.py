"""Frames come by exact index from every container, and only those that were asked for become pictures."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from swift_plugins import frames
from swift_plugins.files import InputError
from swift_plugins.frames import count_frames, read_frames, sample_frames, segment_centre_indices

BITS, WIDTH, HEIGHT = 7, 112, 32


def write_clip(path, n=60, codec="libx264", variable=False, **options):
    """A clip whose frame i shows the bits of i as vertical bars."""
    steps = np.random.default_rng(0).integers(15, 90, n) if variable else np.full(n, 40)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={k: str(v) for k, v in options.items()})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(np.cumsum(steps)):
            picture = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
            for bit in range(BITS):
                picture[:, bit * 16 : bit * 16 + 14] = 220 if i >> bit & 1 else 30
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = int(time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(pictures):
    """The frame number that each picture shows."""
    values = [np.asarray(picture).mean(axis=(0, 2)) for picture in pictures]
    return [sum(1 << bit for bit in range(BITS) if row[bit * 16 + 3 : bit * 16 + 11].mean() > 125) for row in values]


@pytest.mark.parametrize(
    "n, k, expected",
    [
        (300, 8, [18, 55, 93, 130, 168, 205, 242, 280]),  # InternVL2's loader on a 12 s clip
        (9, 8, [0, 1, 2, 3, 4, 5, 6, 7]),  # segments of one frame
        (3, 8, [0, 0, 0, 1, 1, 1, 2, 2]),  # a short clip repeats frames
        (1, 8, [0] * 8),
        (100, 1, [49]),
    ],
)
def test_segment_centres(n, k, expected):
    assert segment_centre_indices(n, k) == expected


@given(n=st.integers(1, 5000), k=st.integers(1, 64))
def test_segment_centres_are_the_original_formula(n, k):
    segment = float(n - 1) / k
    assert segment_centre_indices(n, k) == [int(segment / 2 + np.round(segment * i)) for i in range(k)]
    assert all(0 <= i < n for i in segment_centre_indices(n, k))


@pytest.mark.parametrize("n, k", [(0, 8), (8, 0)])
def test_no_segments_of_nothing(n, k):
    with pytest.raises(ValueError, match="segments of"):
        segment_centre_indices(n, k)


CLIPS = {
    "one key frame": ("mp4", {"g": 600, "sc_threshold": 0}),
    "many key frames and B-frames": ("mp4", {"g": 12, "bf": 3}),
    "variable frame rate": ("mp4", {"g": 12, "bf": 3, "variable": True}),
    "no B-frames": ("mkv", {"g": 10, "bf": 0}),
    "open groups of pictures": ("mkv", {"x264opts": "open-gop=1:keyint=12", "variable": True}),
    "old codec": ("avi", {"codec": "mpeg4", "g": 12}),
    "webm": ("webm", {"codec": "libvpx", "g": 12, "variable": True}),
    "transport stream": ("ts", {"g": 12, "bf": 2}),  # no time on some packets: decoded from the start
    "flash": ("flv", {"g": 12, "variable": True}),
}


@pytest.mark.parametrize("suffix, options", CLIPS.values(), ids=CLIPS.keys())
def test_exact_frames(tmp_path, suffix, options):
    clip = write_clip(tmp_path / f"clip.{suffix}", **options)
    assert count_frames(clip) == 60
    assert numbers(sample_frames(clip, 8)) == segment_centre_indices(60, 8)
    assert numbers(read_frames(clip, [59, 0, 31, 30, 7, 7])) == [59, 0, 31, 30, 7, 7]  # any order, repeats
    assert read_frames(clip, []) == []


def test_only_wanted_frames_become_pictures(tmp_path, monkeypatch):
    """And with key frames in between, most of the clip is not even decoded."""
    clip = write_clip(tmp_path / "clip.mp4", n=120, g=6, bf=0)
    decoded, converted = [], []

    class Frame:
        def __init__(self, frame):
            self.frame, self.pts, self.side_data = frame, frame.pts, frame.side_data
            decoded.append(frame.pts)

        def to_image(self):
            converted.append(self.pts)
            return self.frame.to_image()

    class Container:
        def __init__(self, inner):
            self.inner, self.streams = inner, inner.streams

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.inner.close()

        def decode(self, *args, **kwargs):
            return map(Frame, self.inner.decode(*args, **kwargs))

    open_ = frames._open
    monkeypatch.setattr(frames, "_open", lambda source: Container(open_(source)))
    assert numbers(read_frames(clip, [5, 50, 115])) == [5, 50, 115]
    assert len(converted) == 3 and len(decoded) < 20


def test_same_from_path_bytes_and_file(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4")
    for source in (clip, str(clip), clip.read_bytes(), io.BytesIO(clip.read_bytes())):
        assert numbers(sample_frames(source, 4)) == segment_centre_indices(60, 4)


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "cannot be decoded as video"),  # no file
        (b"", "cannot be decoded as video"),
        (b"this is no video" * 100, "cannot be decoded as video"),
        ("cut", "cannot be decoded as video"),  # an mp4 without its index
        ("audio", "no video stream"),
    ],
)
def test_broken_clips_are_named(tmp_path, content, reason):
    clip = tmp_path / "clip.mp4"
    if content == "audio":
        with av.open(str(clip), "w") as container:
            stream = container.add_stream("aac", rate=16000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.rate = 16000
            container.mux(stream.encode(sound))
            container.mux(stream.encode())
    elif content == "cut":
        clip.write_bytes(write_clip(tmp_path / "whole.mp4").read_bytes()[:2000])
    elif content is not None:
        clip.write_bytes(content)
    with pytest.raises(InputError) as error:
        sample_frames(clip, 8)
    assert reason in str(error.value) and str(clip) in str(error.value)


def test_a_frame_past_the_end(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", n=10)
    with pytest.raises(InputError, match="no frame 10, only 10 can be decoded"):
        read_frames(clip, [3, 10])
    with pytest.raises(ValueError, match="negative"):
        read_frames(clip, [-1])


@pytest.mark.parametrize("degrees", [90, -90, 180])
@pytest.mark.parametrize("mirrored", [False, True])
def test_pictures_stand_upright(tmp_path, degrees, mirrored):
    """A phone stores the sensor's picture and how to turn it, a front camera how to mirror it: both are done."""
    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stored[:12, :40], stored[20:, 60:] = 250, 120
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5", "g": "4"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.set_display_rotation(degrees, hflip=mirrored)
        for _ in range(9):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, "rgb24")))
        container.mux(stream.encode())
    expected = Image.fromarray(stored).rotate(degrees, expand=True)
    if mirrored:
        expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for picture in [*read_frames(tmp_path / "a.mp4", [0, 7]), *sample_frames(tmp_path / "a.mp4", 2)]:
        assert picture.size == expected.size
        assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).mean() < 5
