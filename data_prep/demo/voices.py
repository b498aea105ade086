"""What people sound like in the synthetic datasets: no words, a voice of tones that follows the emotion.

Pitch, pace, melody, loudness and roughness tell the emotions apart. Those of joy, sadness, anger and fear go the way
that reviews of vocal expression report (Juslin and Laukka 2003), the others' are made up. Everything follows from the
id of the clip and its emotion; the same ones give the same samples.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from swift_plugins.sound import RATE

HIDDEN = 0.1  # share of the clips whose voice is calm whatever is felt


@dataclass(frozen=True)
class Manner:
    """How a feeling speaks.

    pitch: times that of the calm voice. pace: tones a second. melody: semitones from start to end of a tone.
    level: amplitude, 0-1. overtones: how loud each is relative to the one below it, 0-1. tremor: of the pitch,
    in semitones, at 9 Hz.
    """

    pitch: float
    pace: float
    melody: float
    level: float
    overtones: float
    tremor: float = 0.0


MANNERS = {
    "neutral": Manner(1.0, 3.0, 0.0, 0.3, 0.4),
    "joy": Manner(1.6, 4.5, 5.0, 0.5, 0.5),
    "sadness": Manner(0.75, 1.5, -3.0, 0.15, 0.2),
    "anger": Manner(1.3, 6.0, -2.0, 0.8, 0.85),
    "surprise": Manner(1.5, 2.0, 12.0, 0.5, 0.4),
    "disgust": Manner(0.85, 2.2, -7.0, 0.4, 0.8),
    "fear": Manner(2.0, 7.5, 1.0, 0.25, 0.3, 1.5),
}
OVERTONES = 8


def heard_emotion(clip: str, emotion: str) -> str:
    """Whose manner the voice of a clip has: that of what is felt, or the calm one where that is hidden."""
    return "neutral" if random.Random(f"{clip}/voice").random() < HIDDEN else emotion


def voice(clip: str, emotion: str, seconds: float) -> np.ndarray:
    """(samples,) int16 at 16 kHz: `seconds` of what is heard in the clip of that id."""
    rng = random.Random(f"{clip}/voice")
    rng.random()  # it decides `heard_emotion`
    manner = MANNERS[heard_emotion(clip, emotion)]
    calm = rng.uniform(130, 190)  # Hz: everybody's own
    sound = np.zeros(round(seconds * RATE))
    start = round(rng.uniform(0, 0.1) * RATE)
    while start < len(sound):
        length = round(RATE / manner.pace * rng.uniform(0.85, 1.15))
        hertz = calm * manner.pitch * 2 ** (rng.uniform(-1, 1) / 12)
        tone = _tone(manner, hertz, round(length * 0.8))[: len(sound) - start]
        sound[start : start + len(tone)] = tone
        start += length
    return np.round(sound * 32767).astype(np.int16)


def _tone(manner: Manner, hertz: float, samples: int) -> np.ndarray:
    """One tone, swelling and fading, its loudest sample `manner.level`."""
    at = np.arange(samples) / RATE
    semitones = manner.melody * (np.arange(samples) / samples - 0.5) + manner.tremor * np.sin(2 * np.pi * 9 * at)
    phase = 2 * np.pi * np.cumsum(hertz * 2 ** (semitones / 12)) / RATE
    tone = sum(manner.overtones**number * np.sin((number + 1) * phase) for number in range(OVERTONES))
    tone *= np.sin(np.pi * np.arange(samples) / samples) ** 0.5
    return tone * manner.level / np.abs(tone).max()
