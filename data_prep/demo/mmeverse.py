"""Synthetic annotation tables as MMEVerse has them, with clips that are drawn and voices that are heard in them.

`python -m data_prep.demo --out DIR --sound --mmeverse` writes DIR/mmeverse/: of seven sets of different kinds the
table, the table with reasons, the peak frames and the clips. Labels follow what the drawn person feels, descriptions
what the face and the voice really do, and a reason names both. The words are the same for
every set, MER2023's Chinese included.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data_prep.demo.faces import DrawnClip, Face, random_clip
from data_prep.demo.layouts import write_csv
from data_prep.demo.voices import MANNERS, heard_emotion
from data_prep.demo.words import emotion_and_polarity, sentence
from swift_plugins.files import write_json
from swift_plugins.mmeverse import SETS

SIZES = {"small": {"train": 140, "test": 70}, "sentences": {"train": 140, "test": 70}, "tiny": {"train": 14, "test": 8}}
SENTIMENTS = ("neutral", "positive", "negative")  # by polarity: 0, 1, -1
PERSONS = ("The man", "The woman", "The girl", "The boy")


@dataclass(frozen=True)
class Words:
    """A set's words for what is felt. MELD's emotion → the cell of each label column; emotions without one are left
    out. splits: ours → the word of its split column."""

    splits: Mapping[str, str]
    emotion: Mapping[str, str] | None = None
    emotions: Mapping[str, str] | None = None
    intent: Mapping[str, str] | None = None
    open_emotions: Mapping[str, str] | None = None


MAFW = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
ORDER = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
WORDS = {
    "mer2023": Words(
        {"train": "train", "test": "test1"},
        emotion={"anger": "angry", "joy": "happy", "neutral": "neutral", "sadness": "sad", "surprise": "surprise"}
        | {"fear": "worried"},
    ),
    "mafw": Words(
        {"train": "train", "test": "test"},
        emotion=dict(zip(ORDER, MAFW, strict=True)),
        emotions=dict(zip(ORDER, MAFW, strict=True))
        | {"disgust": "contempt,disgust", "fear": "anxiety,fear", "sadness": "disappointment,sadness"},
    ),
    "mc_eiu": Words(
        {"train": "train", "test": "test"},
        emotion={key: key for key in ORDER} | {"joy": "happy", "sadness": "sad"},
        intent={"joy": "encouraging", "sadness": "consoling", "surprise": "questioning", "neutral": "neutral"}
        | {"fear": "wishing", "anger": "suggesting", "disgust": "suggesting"},
    ),
    "bold": Words(
        {"train": "train", "test": "val"},
        emotions={
            "anger": "Anger;Annoyance",
            "disgust": "Aversion;Disapproval",
            "fear": "Disquietment;Fear",
            "joy": "Happiness;Pleasure",
            "neutral": "Peace",
            "sadness": "Sadness;Suffering",
            "surprise": "Surprise",
        },
    ),
    "cmu_mosi": Words({"train": "train", "test": "test"}),
    "e3": Words(
        {"train": "train", "test": "test"},
        emotion={"anger": "angry", "disgust": "disgusted", "joy": "happy", "sadness": "sad", "fear": "scared"}
        | {"surprise": "surprised"},
    ),
    "ov_merd": Words(
        {"test": "test"},
        open_emotions={
            "anger": "angry, dissatisfied",
            "fear": "nervous, worry",
            "joy": "happy, joyful",
            "neutral": "relaxed",
            "sadness": "sad",
            "surprise": "surprised, confused",
        },
    ),
}


def write(root: Path, seed: int, size: str, aus: dict, phrases: dict) -> list[DrawnClip]:
    """The tables of every set of `WORDS` under root/mmeverse; returns the clips to draw.

    aus, phrases: AU numbers per emotion and a phrase per AU, as `layouts.facs` gives them.
    """
    clips: list[DrawnClip] = []
    for name in WORDS:
        clips += _write_set(root / "mmeverse", name, seed, size, aus, phrases)
    return clips


def _write_set(folder: Path, name: str, seed: int, size: str, aus: dict, phrases: dict) -> list[DrawnClip]:
    described, words = SETS[name], WORDS[name]
    clips, rows, reasoned, peaks = [], [], [], {}
    number = 0
    for split, count in SIZES[size].items():
        if split not in words.splits:
            continue
        rng = random.Random(f"{seed}/mmeverse/{name}/{split}")
        made = 0
        while made < count:
            emotion, polarity = emotion_and_polarity(rng)
            cells = _cells(words, emotion)
            if cells is None:
                continue
            made, number = made + 1, number + 1
            stem = str(number) if name == "mafw" else f"{name}_{number:05}"
            path = described.clips.format(clip=stem.zfill(described.digits), split=split)
            people = rng.choices((1, 2), (85, 15))[0]
            clip = random_clip(rng, "mmeverse", path, f"{name}/{split}/{Path(path).stem}", emotion, people, aus)
            clips.append(clip)
            peaks[Path(path).stem] = {"peak_index": speaker(clip).apex}
            cells |= {"clip": stem, "split": words.splits[split], "text": sentence(rng, emotion, polarity)}
            cells |= {"sentiment": SENTIMENTS[polarity], "speaker": rng.choice(PERSONS)}
            row: dict[str, str] = {}
            for role, of in described.columns.items():
                row |= dict.fromkeys([of] if isinstance(of, str) else of.values(), cells[role])
            first, second = heard(clip)
            row |= dict(zip(described.audio, (first, second), strict=False))
            row |= dict.fromkeys(described.image, seen(clip, aus, phrases))
            rows.append(row)
            if split == "train":
                reasoned.append(row | _reasons(described.reasons, clip, cells, aus, phrases))
    for suffix, found in (("", rows), ("_AU_gpt", reasoned)):
        if found:
            write_csv(folder / f"{described.name}{suffix}.csv", list(found[0]), [list(row.values()) for row in found])
    write_json(folder / f"{described.name}_peak.json", peaks)
    return clips


def _cells(words: Words, emotion: str) -> dict[str, str] | None:
    """Role → the label's cell; None for an emotion that the set has no word for."""
    roles = {role: getattr(words, role) for role in ("emotion", "emotions", "intent", "open_emotions")}
    there = {role: labels for role, labels in roles.items() if labels is not None}
    if any(emotion not in labels for labels in there.values()):
        return None
    return {role: labels[emotion] for role, labels in there.items()}


def speaker(clip: DrawnClip) -> Face:
    """Who moves most."""
    return max(clip.faces, key=lambda face: sum(face.peak.values()))


def heard(clip: DrawnClip) -> tuple[str, str]:
    """What two listeners say of the clip's voice: its pitch, pace, loudness and roughness."""
    manner = MANNERS[heard_emotion(clip.name, clip.emotion)]
    pitch = "high" if manner.pitch > 1.2 else "low" if manner.pitch < 0.9 else "of middle height"
    pace = "fast" if manner.pace > 4 else "slow" if manner.pace < 2.5 else "at an even pace"
    loud = "loud" if manner.level > 0.4 else "quiet" if manner.level < 0.28 else "of ordinary loudness"
    more = ["rough"] if manner.overtones > 0.7 else []
    more += ["trembling"] if manner.tremor else []
    more += ["rising"] if manner.melody > 3 else ["falling"] if manner.melody < -1 else []
    said = ", ".join([pitch, pace, loud, *more])
    return f"The voice is {said}.", f"One person speaks. The tone is {said}."


def seen(clip: DrawnClip, aus: dict, phrases: dict) -> str:
    """What the frame of the peak shows: the movements of the face that make the expression."""
    face = speaker(clip)
    moves = [phrases[au] for au in aus[clip.emotion] if face.peak.get(au, 0) >= 1]
    return f"The face shows {' and '.join(moves)}." if moves else "The face stays calm."


def _reasons(columns: Mapping[str, str], clip: DrawnClip, cells: Mapping, aus: dict, phrases: dict) -> dict[str, str]:
    """Column → reason, of each label task."""
    roles = {"mer": "emotion", "mlmer": "emotions", "msa": "sentiment", "intent": "intent"}
    voice = heard(clip)[0].removesuffix(".").replace("The", "the", 1)
    face = seen(clip, aus, phrases).removesuffix(".")
    words = cells["text"].rstrip(".!? ")
    kinds = {"msa": "sentiment", "intent": "intent"}
    return {
        column: f"{face}, {voice}, and the words are: {words}. "
        f"So the {kinds.get(task, 'emotion')} is {' and '.join(cells[roles[task]].replace(';', ',').split(','))}."
        for task, column in columns.items()
    }
