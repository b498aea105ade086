"""Frames come by exact index from every container, and only those that were asked for become pictures."""

import io
import json
import struct
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
    with av.open(str(clip)) as container:  # to the last bit, whatever frames were not decoded
        every = [frame.to_image() for frame in container.decode(video=0)]
    for index, picture in zip(segment_centre_indices(60, 8), sample_frames(clip, 8), strict=True):
        assert np.array_equal(picture, every[index])


def test_only_wanted_frames_become_pictures(tmp_path, monkeypatch):
    """And with key frames in between, most of the clip is not even decoded."""
    clip = write_clip(tmp_path / "clip.mp4", n=120, g=6, bf=0)
    decoded, converted = [], []

    class Packet:
        def __init__(self, packet):
            self.packet = packet

        def __getattr__(self, name):
            return getattr(self.packet, name)

        def decode(self):
            decoded.append(self.packet.pts)
            return self.packet.decode()

    class Container:
        def __init__(self, inner):
            self.inner, self.streams = inner, inner.streams

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.inner.close()

        def demux(self, *args, **kwargs):
            return map(Packet, self.inner.demux(*args, **kwargs))

    open_ = frames._open
    upright = frames._upright
    monkeypatch.setattr(frames, "_open", lambda source: Container(open_(source)))
    monkeypatch.setattr(frames, "_upright", lambda frame: converted.append(frame.pts) or upright(frame))
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


# Clips that are not what they say

LOOK = """
import json, sys, time
from pathlib import Path
from data_prep.doctor.clips import inspect, thumbnails
from data_prep.eri.clips import pictures
from swift_plugins.files import InputError
from data_prep.readers.media import probe
from swift_plugins.frames import sample_frames

LOOKS = {
    "probe": probe,
    "inspect": lambda path: "; ".join(detail for kind, detail in inspect(path).faults if kind.startswith("b")) or None,
    "thumbnails": lambda path: None if thumbnails(path) else "no picture",
    "frames": lambda path: sample_frames(path, 8) and None,
    "pictures": lambda path: pictures(path, 4, 448, 85) and None,
}
for path in map(Path, sys.argv[1:]):
    for name, look in LOOKS.items():
        started = time.monotonic()
        try:
            reason = look(path)
        except InputError as error:
            reason = str(error)
        print(json.dumps([path.name, name, time.monotonic() - started, reason]))
# Not getrusage: its maximum begins with that of the process that started this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps(["", "", int(peak.split()[1]) / 1024, None]))
"""


def odd_clips(folder):
    """Name → whether frames can be had of it."""
    whole = write_clip(folder / "whole.mkv", codec="ffv1").read_bytes()
    (folder / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    mp4 = write_clip(folder / "whole.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(mp4[: len(mp4) // 2])
    hours = bytearray(mp4)
    struct.pack_into(">I", hours, hours.find(b"mvhd") + 20, 36_000_000)  # thousandths of a second
    struct.pack_into(">I", hours, hours.find(b"mdhd") + 20, 36_000_000)
    (folder / "hours.mp4").write_bytes(hours)
    claims = bytearray(mp4)
    struct.pack_into(">HH", claims, claims.find(b"avc1") + 28, 16_384, 16_384)
    (folder / "claims.mp4").write_bytes(claims)
    write_clip(folder / "one.mp4", n=1)
    (folder / "no time stamps.h264").write_bytes(bare_h264())
    with av.open(str(folder / "none.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    for name, size, pixels in (("odd.mkv", (47, 63), "yuv444p"), ("alpha.mkv", (48, 64), "bgra")):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            (stream.height, stream.width), stream.pix_fmt = size, pixels
            for _ in range(9):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((*size, 3), np.uint8), "rgb24")))
            container.mux(stream.encode())
    jpegs = []
    for size in ((64, 48), (6000, 6000)):
        jpegs.append(io.BytesIO())
        Image.new("RGB", size).save(jpegs[-1], "JPEG")
    with av.open(str(folder / "grows.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for i in range(8):
            packet = av.Packet(jpegs[i > 0].getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, Fraction(1, 25)
            container.mux(packet)
    Image.new("L", (16_384, 16_384)).save(folder / "bomb.png")
    Image.new("P", (13_000, 13_000)).save(folder / "bomb.mp4", "PNG")
    readable = {"whole.mkv", "cut.mkv", "whole.mp4", "hours.mp4", "claims.mp4", "one.mp4", "no time stamps.h264"}
    readable |= {"odd.mkv", "alpha.mkv"}
    return {path.name: path.name in readable for path in sorted(folder.iterdir())}


def bare_h264():
    with av.open(target := io.BytesIO(), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(12):
            picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return target.getvalue()


@pytest.mark.slow
def test_odd_clips_cost_little_or_are_refused_by_name(tmp_path, project):
    """Whoever looks at them (builder, doctor, template, ERI), in one process: its memory is that of the worst."""
    clips = odd_clips(tmp_path)
    done = project("-c", LOOK, *(tmp_path / name for name in clips))
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-2000:]
    *looks, (_, _, megabytes, _) = map(json.loads, done.stdout.splitlines())
    assert megabytes < 500
    reasons = {(clip, look): reason for clip, look, _, reason in looks}
    assert len(reasons) == 5 * len(clips) and max(seconds for _, _, seconds, _ in looks) < 5
    for clip, readable in clips.items():
        assert (reasons[clip, "frames"] is None) == readable, (clip, reasons[clip, "frames"])
        assert readable or clip in reasons[clip, "frames"]
    assert "13000 x 13000 pixels large" in reasons["bomb.mp4", "probe"]
    assert "exceeds limit of 64000000 pixels" in reasons["bomb.png", "pictures"]
