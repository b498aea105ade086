"""Sound tracks: what a speech encoder hears of a clip."""

import av
import numpy as np
import pytest

from swift_plugins.files import InputError
from swift_plugins.sound import RATE, NoSound, has_sound, read_sound
from tests.test_frames import write_clip


def write_sound(path, tone, rate=16_000, layout="mono", codec="pcm_s16le"):
    """A file of one tone (Hz) or of given samples; planes alike."""
    samples = np.sin(2 * np.pi * tone * np.arange(rate) / rate) * 0.5 if np.isscalar(tone) else np.asarray(tone)
    planes = np.tile((samples * 32767).astype(np.int16), (2 if layout == "stereo" else 1, 1))
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(planes.T.reshape(1, -1).copy(), format="s16", layout=layout)
        frame.rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    return path


@pytest.mark.parametrize("rate, layout", [(16_000, "mono"), (44_100, "stereo"), (8_000, "mono")])
def test_a_tone_is_heard_at_16_khz_in_one_channel(tmp_path, rate, layout):
    sound = read_sound(write_sound(tmp_path / "tone.wav", 440, rate, layout))
    assert sound.dtype == np.float32 and sound.ndim == 1 and abs(len(sound) - RATE) < 400
    spectrum = np.abs(np.fft.rfft(sound[:8000]))
    assert abs(spectrum.argmax() * RATE / 8000 - 440) < 3 and 0.4 < np.abs(sound[2000:6000]).max() < 0.6


def test_the_same_from_bytes_and_cut(tmp_path):
    path = write_sound(tmp_path / "tone.wav", 200)
    assert (read_sound(path.read_bytes()) == read_sound(path)).all()
    assert (read_sound(path, 0.25) == read_sound(path)[:4000]).all()


def test_no_sound_and_no_file(tmp_path):
    clip, text = write_clip(tmp_path / "mute.mp4"), tmp_path / "text.wav"
    text.write_text("no sound at all")
    assert not has_sound(clip)
    with pytest.raises(NoSound, match="has no sound track"):
        read_sound(clip)
    for path in (text, tmp_path / "missing.wav"):
        with pytest.raises(InputError, match=str(path)):
            read_sound(path)
        with pytest.raises(InputError, match=str(path)):
            has_sound(path)
