"""A small made-up world in the raw layouts of MELD, CMU-MOSEI (MMSA) and ECF: drawn faces, clips, words, causes, AUs.

    python -m data_prep.demo_data --out DIR [--seed N] [--size small|tiny]

writes DIR/meld, DIR/mosei and DIR/ecf, each with annotations, h264 clips and, under openface/, one AU table per clip
in OpenFace 2.2's format holding the true values; DIR/mosei/eri.jsonl with clues and reasons; and DIR/truth.jsonl with
the true apex frame of every face. The same seed gives the same bytes. Nobody's face or words are in it.

What there is to learn: the face moves the AUs of the emotion (configs/facs.yaml) with onset, apex and offset; the words
name it, or only say good or bad, or say nothing; the cause of an emotion in a dialogue is the line that first speaks of
the thing the target line speaks of. Words or face alone do not settle every clip.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import multiprocessing
import os
import random
import shutil
import string
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import yaml
from PIL import Image, ImageDraw

from swift_plugins.files import CONFIGS, InputError, run_cli, write_json, write_rows

FACS = CONFIGS / "facs.yaml"
SIDE, FPS = 112, 8  # picture side in pixels, frames per second

INTENSITIES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
PRESENCES = (*INTENSITIES[:-1], 28, 45)
COLUMNS = (
    ["frame", "face_id", "timestamp", "confidence", "success"]
    + [f"AU{n:02d}_r" for n in INTENSITIES]
    + [f"AU{n:02d}_c" for n in PRESENCES]
)

# clips (MOSEI), dialogues (MELD) and conversations (ECF) per split
SIZES = {
    "small": {
        "mosei": {"train": 640, "valid": 40, "test": 120},
        "meld": {"train": 80, "dev": 8, "test": 24},
        "ecf": {"train": 90, "test": 28},
    },
    "tiny": {
        "mosei": {"train": 24, "valid": 6, "test": 12},
        "meld": {"train": 5, "dev": 2, "test": 3},
        "ecf": {"train": 6, "test": 3},
    },
}

# Emotions have MELD's names; MOSEI's columns and configs/facs.yaml use their own.
EMOTIONS = ("neutral", "joy", "sadness", "anger", "surprise", "disgust", "fear")
FREQUENCY = (22, 18, 14, 14, 12, 10, 10)
MOSEI_NAME = {"joy": "happy", "sadness": "sad"}
POLARITY = {"neutral": 0, "joy": 1, "sadness": -1, "anger": -1, "disgust": -1, "fear": -1}  # surprise: either

THINGS = (
    "piano boiler garden ladder kitchen letter ticket camera engine basket window carpet bottle hammer mirror pillow "
    "wallet bridge parcel turtle rabbit parrot lizard violin trumpet sofa lamp stove fridge bucket candle blanket "
    "curtain helmet jacket sweater necklace teapot cheese pudding salad sandwich tractor scooter rocket kite canoe "
    "tent compass whistle puzzle statue fountain elevator balcony cellar attic chimney fence mailbox"
)
NOUNS = THINGS.split()
SPEAKERS = ("Ana", "Ben", "Cora", "Dan", "Eva", "Finn", "Gus", "Ida")

# What one can say of a thing, by emotion: none of these holds the name of a label.
PREDICATES = {
    "neutral": (
        "was on at nine",
        "comes in two parts",
        "is next to the station",
        "has about ten pieces",
        "belongs to the neighbours",
        "was made last year",
        "is the one from the list",
        "stands behind the door",
    ),
    "joy": (
        "was a delight from start to end",
        "made me smile all day",
        "is simply wonderful",
        "turned out better than we hoped",
        "had us all singing",
        "is the best present ever",
    ),
    "sadness": (
        "left me in tears",
        "broke my heart",
        "made me miss the old days",
        "is gone for good",
        "made the whole house lonely",
        "reminds me of grandmother",
    ),
    "anger": (
        "makes my blood boil",
        "was ruined by careless people",
        "is an insult to us all",
        "got me shouting",
        "was stolen by that liar",
        "has been broken on purpose",
    ),
    "surprise": (
        "came out of nowhere",
        "is nothing like we expected",
        "caught me off guard",
        "suddenly started to talk",
        "turned blue overnight",
        "was inside the box all along",
    ),
    "disgust": (
        "turned my stomach",
        "is filthy and foul",
        "smells like rotten fish",
        "was covered in slime",
        "is crawling with worms",
        "made me want to throw up",
    ),
    "fear": (
        "kept me awake with the lights on",
        "made my hands shake",
        "sent a chill down my back",
        "had me hiding under the bed",
        "could kill somebody",
        "started to move in the dark",
    ),
}
VERDICTS = {
    1: ("and I would take it again", "and it deserves five stars", "and that was good", "and I recommend it"),
    -1: ("and I want my money back", "and it deserves no stars", "and that was bad", "and I regret it"),
}
OPENERS = ("", "Well, ", "So, ", "You know, ", "Honestly, ", "I mean, ", "Look, ")
CHATTER = (
    "I will be back in a minute",
    "Who wants some tea",
    "It is almost seven",
    "We should leave soon",
    "Let me get my coat",
    "I have to make a call",
    "Pass me the salt",
)
# A reaction names the thing that another line has told of; a cry names nothing.
REACTIONS = {
    "joy": ("Hooray for the {}", "I could dance because of the {}", "What a treat, the {}"),
    "sadness": ("Oh no, the poor {}", "I still cry over the {}", "I will miss the {}"),
    "anger": ("I will never forgive you for the {}", "Do not talk to me about the {}", "How dare you, my {}"),
    "surprise": ("Wait, what about the {}", "No way, the {}", "Are you serious, the {}"),
    "disgust": ("Yuck, the {}", "Take the {} away from me", "I cannot eat after the {}"),
    "fear": ("Keep me far from the {}", "Please lock up the {}", "Help, the {}"),
}
# What a line of a conversation does, and how often in a hundred lines.
KINDS = {"react": 32, "tell": 28, "calm": 13, "chatter": 8, "both": 8, "two": 4, "ask": 4, "cry": 3}
CRIES = {
    "joy": "This is my lucky day",
    "sadness": "I just want to be alone",
    "anger": "That is enough, get out",
    "surprise": "I do not know what to say",
    "disgust": "I need some fresh air",
    "fear": "Do not leave me here",
}


def facs(path: Path = FACS) -> tuple[dict[str, list[int]], dict[int, str]]:
    """AU numbers per emotion and the first phrase per AU, of configs/facs.yaml."""
    table = yaml.safe_load(path.read_text(encoding="utf-8"))
    aliases, sets = table.get("aliases", {}), table["emotions"]
    numbers = {e: [int(au[2:]) for au in sets.get(aliases.get(e, e), ())] for e in EMOTIONS}
    return numbers, {int(au[2:]): entry["phrases"][0] for au, entry in table["aus"].items()}


# Faces


@dataclass(frozen=True)
class Look:
    """How a person looks, in units of half a face's width where it is a length."""

    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    iris: tuple[int, int, int]
    lips: tuple[int, int, int]
    long_hair: bool
    width: float
    brow: float


@dataclass(frozen=True)
class Face:
    """One person in a clip.

    x, y: centre of the face and size: half a face's height, in parts of the picture's side.
    apex: frame index from 0 with the strongest expression. rest, peak: AU number → intensity 0-5 away from and at the
    apex. onset, offset: frames from rest to apex and back. blink: frame index at which the eyes close.
    slot: the face_id that a tracker gives it.
    """

    look: Look
    x: float
    y: float
    size: float
    slot: int
    apex: int
    onset: int
    offset: int
    blink: int
    rest: dict[int, float]
    peak: dict[int, float]

    def intensities(self, frame: int) -> dict[int, float]:
        """AU number → intensity in a frame, rounded like OpenFace's output."""
        distance = (self.apex - frame) / self.onset if frame < self.apex else (frame - self.apex) / self.offset
        # a cosine ramp; the last term keeps the apex the only maximum
        share = (1 + math.cos(math.pi * min(distance, 1.0))) / 2
        values = {au: rest + (self.peak.get(au, rest) - rest) * share for au, rest in self.rest.items()}
        values[45] = max(0.0, 4.0 - 2.5 * abs(frame - self.blink))
        return {au: round(value, 2) for au, value in values.items()}


@dataclass(frozen=True)
class Clip:
    """One clip to draw: `path` relative to the dataset's folder, `name` the id of its sample, faces in slot order."""

    dataset: str
    path: str
    name: str
    frames: int
    faces: tuple[Face, ...]
    background: tuple[int, int, int]
    phantom: int | None = None  # slot of a false-positive tracker: OpenFace writes such rows with success 0


def draw_look(rng: random.Random) -> Look:
    """A random person."""
    tone = rng.random()
    skin = tuple(int(a + (b - a) * tone + rng.uniform(-6, 6)) for a, b in ((246, 132), (214, 88), (186, 62)))
    hair = rng.choice(((40, 28, 20), (92, 58, 30), (188, 140, 66), (120, 120, 124), (150, 62, 30), (20, 20, 28)))
    iris = rng.choice(((60, 40, 24), (50, 96, 150), (64, 110, 70), (90, 90, 90)))
    lips = (min(255, skin[0] - 20), max(0, int(skin[1] * 0.55)), max(0, int(skin[2] * 0.6)))
    return Look(skin, hair, iris, lips, rng.random() < 0.5, rng.uniform(0.74, 0.86), rng.uniform(0.055, 0.08))


def _mix(a: Sequence[int], b: Sequence[int], share: float) -> tuple[int, int, int]:
    return tuple(int(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def draw_face(pen: ImageDraw.ImageDraw, look: Look, cx: float, cy: float, s: float, aus: dict[int, float]) -> None:
    """Draw one face into `pen`, centre (cx, cy) and half height `s` in pixels; every AU moves or marks its own part."""
    a = {au: value / 5 for au, value in aus.items()}
    get = a.get
    skin, w = look.skin, look.width
    dark, line = _mix(skin, (60, 20, 10), 0.6), max(1, round(s * 0.035))

    def at(x: float, y: float) -> tuple[float, float]:
        return cx + x * s, cy + y * s

    def oval(x: float, y: float, rx: float, ry: float, fill) -> None:
        pen.ellipse((cx + (x - rx) * s, cy + (y - ry) * s, cx + (x + rx) * s, cy + (y + ry) * s), fill=fill)

    jaw = 0.16 * get(26, 0)
    if look.long_hair:
        oval(0, -0.05, w + 0.16, 1.1, look.hair)
    oval(0, -0.22, w + 0.07, 0.92, look.hair)
    oval(0, jaw / 2, w, 0.98 + jaw / 2, skin)
    pen.chord((*at(-w, -1.02), *at(w, -0.3)), 185, 355, fill=look.hair)

    brow_width = max(1, round(s * look.brow))
    for side in (-1, 1):
        # AU06: raised, reddened cheeks and creases beside the eyes
        if (lift := get(6, 0)) > 0.02:
            oval(side * 0.46, 0.2 - 0.1 * lift, 0.2, 0.13, _mix(skin, (236, 70, 60), 0.75 * lift))
            for dy in (-0.07, 0.0, 0.07):
                end = 0.62 + 0.12 * lift
                pen.line((*at(side * 0.6, -0.17 + dy * 0.5), *at(side * end, -0.17 + dy)), _mix(skin, dark, lift), line)
        # eyes: AU05 opens, AU07 narrows from below, AU45 closes
        top = (0.1 + 0.14 * get(5, 0) - 0.02 * get(4, 0)) * (1 - get(45, 0))
        low = (0.09 - 0.075 * get(7, 0) - 0.02 * lift) * (1 - get(45, 0))
        x, y = side * 0.34, -0.2
        if top + low > 0.03:
            points = [at(x - 0.18, y), at(x - 0.09, y - top), at(x + 0.09, y - top), at(x + 0.18, y)]
            points += [at(x + 0.09, y + low), at(x - 0.09, y + low)]
            pen.polygon(points, fill=(250, 250, 248))
            reach = min(0.075, (top + low) / 2)
            oval(x, y - (top - low) / 2, 0.075, reach, look.iris)
            oval(x, y - (top - low) / 2, 0.035, min(0.035, reach), (10, 10, 10))
            pen.line(points[:4], dark, line)
        else:
            pen.line((*at(x - 0.18, y), *at(x + 0.18, y)), dark, line + 1)
        if (tight := get(7, 0)) > 0.02:
            pen.line((*at(x - 0.15, y + 0.13), *at(x + 0.15, y + 0.13)), _mix(skin, dark, tight), line + 1)
        # brows: AU01 lifts the inner end, AU02 the outer, AU04 lowers and draws together
        inner = -0.44 - 0.2 * get(1, 0) + 0.15 * get(4, 0)
        outer = -0.42 - 0.22 * get(2, 0) + 0.05 * get(4, 0)
        near, middle = 0.17 - 0.09 * get(4, 0), (inner + outer) / 2 - 0.06
        pen.line([at(side * near, inner), at(side * 0.36, middle), at(side * 0.58, outer)], look.hair, brow_width)
        # AU10: folds from the nose to the mouth
        if (upper := get(10, 0)) > 0.02:
            fold = _mix(skin, dark, upper)
            pen.line([at(side * 0.15, 0.16), at(side * 0.27, 0.28), at(side * 0.36, 0.46)], fold, line + 1)
    if (knit := get(4, 0)) > 0.02:
        for x in (-0.045, 0.045):
            pen.line((*at(x, -0.5), *at(x, -0.34)), _mix(skin, dark, knit), line)
    for x, share in ((-0.42, get(2, 0)), (0.0, get(1, 0)), (0.42, get(2, 0))):
        if share > 0.02:
            pen.line((*at(x - 0.13, -0.6), *at(x + 0.13, -0.6)), _mix(skin, dark, share), line)

    # nose; AU09 wrinkles its bridge
    pen.line([at(0.02, -0.12), at(-0.07, 0.16), at(0.06, 0.18)], dark, line)
    if (wrinkle := get(9, 0)) > 0.02:
        for dy in (-0.14, -0.06, 0.02):
            pen.line([at(-0.1, dy - 0.03), at(0, dy + 0.02), at(0.1, dy - 0.03)], _mix(skin, dark, wrinkle), line + 1)

    # mouth: AU12 and AU15 move the corners, AU20 widens, AU23 narrows and thins, AU25 and AU26 open, AU28 hides lips
    half = 0.27 + 0.14 * get(20, 0) - 0.09 * get(23, 0) + 0.05 * get(12, 0)
    corner = 0.5 - 0.17 * get(12, 0) + 0.15 * get(15, 0)
    middle = 0.5 + 0.04 * get(12, 0) - 0.03 * get(15, 0) - 0.05 * get(17, 0)
    opening = 0.07 * get(25, 0) + jaw * 1.2
    thick = 0.075 * (1 - 0.75 * get(23, 0)) * (1 - get(28, 0))
    top, low = middle - thick - 0.09 * get(10, 0), middle + opening + thick
    lips = look.lips if get(23, 0) < 0.02 else _mix(look.lips, (120, 10, 30), get(23, 0))
    if thick > 0.02:
        outline = [at(-half, corner), at(-half / 2, top), at(half / 2, top), at(half, corner)]
        outline += [at(half / 2, low), at(-half / 2, low)]
        pen.polygon(outline, fill=lips)
    if opening > 0.02:
        upper = middle - 0.05 * get(10, 0)
        inside = [at(-half * 0.8, corner), at(-half / 2, upper), at(half / 2, upper), at(half * 0.8, corner)]
        inside += [at(half / 2, middle + opening), at(-half / 2, middle + opening)]
        pen.polygon(inside, fill=(70, 12, 20))
    else:
        pen.line([at(-half, corner), at(-half / 2, middle), at(half / 2, middle), at(half, corner)], dark, line)
    for side in (-1, 1):
        if (dimple := get(14, 0)) > 0.02:
            oval(side * (half + 0.11), corner, 0.05, 0.075, _mix(skin, dark, dimple))
        if (stretch := get(20, 0)) > 0.02:
            x = side * (half + 0.05)
            pen.line((*at(x, corner - 0.09), *at(x, corner + 0.09)), _mix(skin, dark, stretch), line)
        if (pulled := get(15, 0)) > 0.02:
            x = side * half
            pen.line((*at(x, corner), *at(x + side * 0.06, corner + 0.14)), _mix(skin, dark, pulled), line + 1)
    # AU17: a bunched chin
    if (chin := get(17, 0)) > 0.02:
        mark = _mix(skin, dark, chin)
        pen.arc((*at(-0.17, 0.72 + jaw), *at(0.17, 0.96 + jaw)), 190, 350, fill=mark, width=line + 1)
        for x in (-0.07, 0.0, 0.07):
            oval(x, 0.86 + jaw, 0.025, 0.025, mark)


def draw_frame(clip: Clip, frame: int, side: int = SIDE) -> Image.Image:
    """One frame of a clip as an RGB picture of `side` x `side` pixels."""
    image = Image.new("RGB", (2 * side, 2 * side), clip.background)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 1.7 * side, 2 * side, 2 * side), fill=_mix(clip.background, (0, 0, 0), 0.25))
    for face in sorted(clip.faces, key=lambda face: face.size):
        size = face.size * 2 * side
        nod = math.sin((frame + face.blink) * 0.7) * 0.02 * size  # heads are never quite still
        cx, cy = face.x * 2 * side + nod, face.y * 2 * side + nod / 2
        shirt = _mix(face.look.hair, (90, 120, 180), 0.5)
        pen.ellipse((cx - 1.2 * size, cy + 0.95 * size, cx + 1.2 * size, cy + 3 * size), fill=shirt)
        draw_face(pen, face.look, cx, cy, size, face.intensities(frame))
    return image.reduce(2)


def make_face(
    rng: random.Random,
    frames: int,
    targets: Sequence[int],
    strength: float,
    place: tuple[float, float, float],
    slot: int,
) -> Face:
    """A face whose expression reaches for the AUs `targets`; strength 0 leaves it at rest with small movements only."""
    peak = {}
    if strength:
        shown = [au for au in targets if rng.random() < 0.8] or [rng.choice(list(targets))] if targets else []
        peak = {au: round(rng.uniform(2.0, 4.2) * strength, 2) for au in shown}
    others = [au for au in (*INTENSITIES[:-1], 28) if au not in targets]
    if rng.random() < 0.35:  # a movement that does not belong to the emotion
        peak[rng.choice(others)] = round(rng.uniform(1.6, 3.4), 2)
    if not peak:  # even a calm face has a most active moment
        peak[rng.choice((12, 14, 17, 25))] = round(rng.uniform(0.4, 0.7), 2)
    rest = {au: round(rng.uniform(0.0, 0.25), 2) if rng.random() < 0.4 else 0.0 for au in (*INTENSITIES[:-1], 28)}
    rest[28] = 0.0
    apex = rng.randrange(4, frames - 4)
    blink = rng.choice([frame for frame in range(frames) if abs(frame - apex) >= 4])
    return Face(draw_look(rng), *place, slot, apex, rng.randint(4, 6), rng.randint(4, 6), blink, rest, {**rest, **peak})


def make_clip(
    rng: random.Random, dataset: str, path: str, name: str, emotion: str, people: int, aus: dict[str, list[int]]
) -> Clip:
    """A clip in which one person shows `emotion` and `people` - 1 others look on."""
    frames = rng.choice((14, 16, 18))
    size = {1: 0.37, 2: 0.25, 3: 0.18}[people] * rng.uniform(0.94, 1.06)
    xs = {1: (0.5,), 2: (0.27, 0.73), 3: (0.19, 0.5, 0.81)}[people]
    slots = rng.sample(range(people), people)
    speaker = rng.randrange(people)
    faces = []
    for number, x in enumerate(xs):
        strength = (0.0 if emotion == "neutral" or rng.random() < 0.06 else 1.0) if number == speaker else 0.0
        place = (x + rng.uniform(-0.02, 0.02), 0.47 + rng.uniform(-0.03, 0.03), size)
        targets = aus[emotion] if number == speaker else ()
        face = make_face(rng, frames, targets, strength, place, slots[number])
        if number != speaker:  # bystanders barely move: the strongest expression is the speaker's
            face = replace(face, peak={**face.rest, rng.choice((12, 25, 17, 1)): rng.choice((0.4, 0.5, 0.6))})
        faces.append(face)
    faces.sort(key=lambda face: face.slot)
    background = tuple(rng.randrange(120, 216) for _ in range(3))
    phantom = people if people > 1 and rng.random() < 0.15 else None
    return Clip(dataset, path, name, frames, tuple(faces), background, phantom)


# Files of one clip


def encode(frames: Sequence[Image.Image]) -> bytes:
    """An mp4 with one h264 stream, single-threaded so that the bytes do not depend on the machine's cores."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "20", "g": "8"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, FPS)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def openface_rows(clip: Clip) -> Iterator[list[str]]:
    """The data rows of the clip's AU table: one per frame and face, as FeatureExtraction or FaceLandmarkVidMulti."""
    for frame in range(clip.frames):
        head = f"{frame / FPS:.3f}"
        for face in clip.faces:
            values = face.intensities(frame)
            yield (
                [str(frame + 1), str(face.slot), head, "0.98", "1"]
                + [f"{values[au]:.2f}" for au in INTENSITIES]
                + [f"{float(values[au] >= 1):.2f}" for au in PRESENCES]
            )
        if clip.phantom is not None and frame < clip.frames // 2:
            yield [str(frame + 1), str(clip.phantom), head, "0.02", "0"] + ["1.50"] * 17 + ["1.00"] * 18


def write_clip(root: Path, clip: Clip) -> None:
    """Write the clip and its AU table under root/<dataset>."""
    path = root / clip.dataset / clip.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode([draw_frame(clip, frame) for frame in range(clip.frames)]))
    table = (root / clip.dataset / "openface" / clip.path).with_suffix(".csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(row) for row in (COLUMNS, *openface_rows(clip))]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")


# Words


def sentence(rng: random.Random, emotion: str, polarity: int, clear: bool | None = None) -> str:
    """What somebody says. Six in ten times the words show the emotion, else at most whether it was good or bad."""
    if clear is None:
        clear = rng.random() < 0.6
    parts = [f"{rng.choice(OPENERS)}the {rng.choice(NOUNS)} {rng.choice(PREDICATES[emotion if clear else 'neutral'])}"]
    # the verdict alone tells the sign of a surprise or of a calm opinion
    if polarity and (emotion in ("neutral", "surprise") or rng.random() < 0.5):
        parts.append(rng.choice(VERDICTS[polarity]))
    text = " ".join(parts) + rng.choice("..!" if emotion != "neutral" else "...")
    return text[0].upper() + text[1:]


def emotion_and_polarity(rng: random.Random) -> tuple[str, int]:
    """Draw an emotion and the sign of the sentiment that goes with it."""
    emotion = rng.choices(EMOTIONS, FREQUENCY)[0]
    if emotion == "neutral":
        return emotion, rng.choice((0, 0, 1, -1))
    return emotion, POLARITY.get(emotion) or rng.choice((1, -1))


@dataclass
class Line:
    """One line of a made conversation; causes are indices from 1."""

    speaker: str
    text: str
    emotion: str
    causes: list[int] = field(default_factory=list)


def conversation(rng: random.Random, recent: float = 0.0) -> list[Line]:
    """4 to 7 lines. The line that tells of a thing is the cause of every emotion whose line speaks of that thing.

    recent: share of the reactions that are to the thing told last; the others are to any.
    """
    nouns = rng.sample(NOUNS, 12)
    cast = rng.sample(SPEAKERS, rng.choice((2, 3)))
    told: dict[str, int] = {}  # thing → index of the line that told of it
    lines: list[Line] = []
    promised: str | None = None  # a thing that a line asked about before anybody told of it
    count = rng.randint(4, 7)
    for index in range(1, count + 1):
        speaker = rng.choice([name for name in cast if not lines or name != lines[-1].speaker])
        emotion = rng.choices(EMOTIONS[1:], FREQUENCY[1:])[0]

        def tell(mood: str, thing: str | None = None, index: int = index) -> str:
            thing = thing or nouns.pop()
            told[thing] = index
            return f"{rng.choice(('the', 'my', 'our'))} {thing} {rng.choice(PREDICATES[mood])}"

        weights = dict(KINDS)
        if recent:  # people react at once
            weights["react"] *= 3 if index - 1 in told.values() else 0.2
        kind = rng.choices(list(weights), weights.values())[0]
        if promised:
            kind, thing, promised = "calm", promised, None
            lines.append(Line(speaker, tell("neutral", thing), "neutral"))
        elif kind == "calm" or (kind == "react" and not told):
            lines.append(Line(speaker, tell("neutral"), "neutral"))
        elif kind == "chatter":
            lines.append(Line(speaker, rng.choice(CHATTER), "neutral"))
        elif kind == "react":
            thing = list(told)[-1] if recent and rng.random() < recent else rng.choice(list(told))
            lines.append(Line(speaker, rng.choice(REACTIONS[emotion]).format(thing), emotion, [told[thing]]))
        elif kind == "both" and told:
            thing = rng.choice(list(told))
            first = rng.choice(REACTIONS[emotion]).format(thing)
            lines.append(Line(speaker, f"{first}, and now {tell(emotion)}", emotion, [told[thing], index]))
        elif kind == "two" and len(set(told.values())) > 1:
            one, two = rng.sample(sorted(told), 2)
            while told[one] == told[two]:
                one, two = rng.sample(sorted(told), 2)
            text = rng.choice(REACTIONS[emotion]).format(f"{one} and the {two}")
            lines.append(Line(speaker, text, emotion, sorted((told[one], told[two]))))
        elif kind == "ask" and index < count:
            promised = nouns.pop()
            lines.append(Line(speaker, rng.choice(REACTIONS[emotion]).format(promised), emotion, [index + 1]))
        elif kind == "cry":
            lines.append(Line(speaker, CRIES[emotion], emotion))
        else:
            lines.append(Line(speaker, tell(emotion), emotion, [index]))
    for line in lines:
        line.text = line.text[0].upper() + line.text[1:] + rng.choice("..!" if line.emotion != "neutral" else "...")
    return lines


# Datasets: each writes its annotations and returns its clips


def _people(rng: random.Random) -> int:
    return rng.choices((1, 2, 3), (78, 15, 7))[0]


def _stamp(seconds: float) -> str:
    millis = round(seconds * 1000)
    return f"{millis // 3600000:02d}:{millis // 60000 % 60:02d}:{millis // 1000 % 60:02d},{millis % 1000:03d}"


def _table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]], newline: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator=newline).writerows([header, *rows])


def make_mosei(root: Path, seed: int, counts: dict[str, int], aus: dict, phrases: dict) -> list[Clip]:
    """label.csv (MMSA), emotions.csv (intervals and the six emotions) and eri.jsonl."""
    labels, emotions, reasons, clips = [], [], [], []
    columns = ("happy", "sad", "anger", "surprise", "disgust", "fear")
    for mode, count in counts.items():
        rng = random.Random(f"{seed}/mosei/{mode}")
        made = 0
        while made < count:
            letters = string.digits if rng.random() < 0.1 else string.ascii_letters + string.digits + "_"
            video = "".join(rng.choices(letters, k=11))
            start, clip_id = rng.uniform(0, 4), rng.randrange(0, 3)
            for _ in range(min(rng.randint(2, 6), count - made)):
                made += 1
                emotion, polarity = emotion_and_polarity(rng)
                text = sentence(rng, emotion, polarity)
                strong = emotion not in ("neutral", "surprise")
                score = polarity * rng.randint(2 if strong else 1, 9 if strong else 5) / 3
                clip = make_clip(
                    rng,
                    "mosei",
                    f"Raw/{video}/{clip_id}.mp4",
                    f"mosei/{'dev' if mode == 'valid' else mode}/{video}/{clip_id}",
                    emotion,
                    _people(rng),
                    aus,
                )
                clips.append(clip)
                end = start + clip.frames / FPS
                annotation = "Positive" if score > 0 else "Negative" if score < 0 else "Neutral"
                labels.append([video, clip_id, text, round(score, 4), "", "", "", annotation, mode])
                name = MOSEI_NAME.get(emotion, emotion)
                values = dict.fromkeys(columns, 0.0)
                if name in values:
                    values[name] = rng.choice((1.0, 1.3333334, 1.6666666, 2.0, 2.6666667))
                    if rng.random() < 0.3:
                        values[rng.choice([column for column in columns if column != name])] = 0.33333334
                interval = [round(start, 3), round(end, 3), round(score, 7)]
                emotions.append([video, clip_id, *interval, *values.values(), mode])
                if emotion != "neutral":
                    speaker = max(clip.faces, key=lambda face: sum(face.peak.values()))
                    seen = [phrases[au] for au in aus[emotion] if speaker.peak.get(au, 0) >= 1]
                    reasons.append(_reason(clip, text, name, seen))
                start, clip_id = end + rng.uniform(0.2, 1), clip_id + rng.choice((1, 1, 2))
    folder = root / "mosei"
    header = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"
    _table(folder / "label.csv", header.split(","), labels)
    header = ["video_id", "clip_id", "start", "end", "sentiment", *columns, "mode"]
    _table(folder / "emotions.csv", header, emotions)
    write_rows(folder / "eri.jsonl", reasons)
    return clips


def _reason(clip: Clip, text: str, label: str, seen: Sequence[str]) -> dict:
    """An eri.jsonl record: clues, and the reason that somebody looking at the clip would give."""
    face = f"the face shows {' and '.join(seen)}" if seen else "the face stays calm"
    people = ("one person", "two people", "three people")[len(clip.faces) - 1]
    return {
        "id": clip.name,
        "reason": f"{face[0].upper()}{face[1:]}, and the words are: {text.rstrip('.!')}. So the emotion is {label}.",
        "clues": {"character": face, "scene": f"{people} in front of a plain wall"},
        "label": label,
    }


def make_meld(root: Path, seed: int, counts: dict[str, int], aus: dict, phrases: dict) -> list[Clip]:
    """{train,dev,test}_sent_emo.csv, CRLF like the published ones."""
    clips = []
    folders = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
    for split, count in counts.items():
        rng = random.Random(f"{seed}/meld/{split}")
        rows = []
        for dialogue in range(count):
            clock = rng.uniform(30, 1200)
            cast = rng.sample(SPEAKERS, 3)
            for utterance in range(rng.randint(3, 7)):
                emotion, polarity = emotion_and_polarity(rng)
                if emotion == "neutral":
                    polarity = 0
                text = sentence(rng, emotion, polarity)
                if emotion == "neutral" and rng.random() < 0.3:
                    text = rng.choice(CHATTER) + "."
                stem = f"dia{dialogue}_utt{utterance}"
                path, name = f"{folders[split]}/{stem}.mp4", f"meld/{split}/{stem}"
                clip = make_clip(rng, "meld", path, name, emotion, _people(rng), aus)
                clips.append(clip)
                sentiment = ("neutral", "positive", "negative")[polarity]
                end = clock + clip.frames / FPS
                row = [len(rows) + 1, text, rng.choice(cast), emotion, sentiment, dialogue, utterance]
                rows.append([*row, 1, 1 + dialogue % 9, _stamp(clock), _stamp(end)])
                clock = end + 0.2
        _table(root / "meld" / f"{split}_sent_emo.csv", header.split(","), rows, newline="\r\n")
    return clips


def make_ecf(root: Path, seed: int, counts: dict[str, int], aus: dict, phrases: dict) -> list[Clip]:
    """Subtask_2_{train,test}.json; conversation ids go on counting from train to test, as in ECF 2.0."""
    clips, number = [], 0
    for split, count in counts.items():
        rng = random.Random(f"{seed}/ecf/{split}")
        document = []
        for _ in range(count):
            number += 1
            lines = conversation(rng, recent=0.8)
            utterances, pairs = [], []
            for index, line in enumerate(lines, 1):
                video = f"dia{number}utt{index}.mp4"
                utterances.append(
                    {
                        "utterance_ID": index,
                        "text": line.text,
                        "speaker": line.speaker,
                        "emotion": line.emotion,
                        "video_name": video,
                    }
                )
                pairs += [[f"{index}_{line.emotion}", str(cause)] for cause in line.causes]
                name = f"ecf/{split}/dia{number}utt{index}"
                clips.append(make_clip(rng, "ecf", f"{split}/{video}", name, line.emotion, _people(rng), aus))
            document.append({"conversation_ID": number, "conversation": utterances, "emotion-cause_pairs": pairs})
        write_json(root / "ecf" / f"Subtask_2_{split}.json", document)
    return clips


# Everything


def _truth(clip: Clip) -> dict:
    return {
        "id": clip.name,
        "video": f"{clip.dataset}/{clip.path}",
        "frames": clip.frames,
        "fps": FPS,
        "faces": [
            {
                "face_id": face.slot,
                "apex": face.apex,
                "aus": {f"AU{au:02d}": value for au, value in face.peak.items() if value >= 1},
            }
            for face in clip.faces
        ],
    }


def make(out: Path, seed: int = 0, size: str = "small") -> int:
    """Write the world into the new folder `out`, all or nothing; return the number of clips.

    Raises InputError when `out` exists and is not an empty folder, or cannot be made.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("exists already; name a new folder or remove this one first", out)
    aus, phrases = facs()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        root = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise InputError(f"cannot write there: {error.strerror}", out) from None
    try:
        clips: list[Clip] = []
        for dataset, maker in (("mosei", make_mosei), ("meld", make_meld), ("ecf", make_ecf)):
            clips += maker(root, seed, SIZES[size][dataset], aus, phrases)
        write_rows(root / "truth.jsonl", map(_truth, clips))
        with multiprocessing.get_context("spawn").Pool(min(os.cpu_count() or 1, 8)) as pool:
            pool.starmap(write_clip, [(root, clip) for clip in clips], chunksize=64)
        root.chmod(0o755)
        os.replace(root, out)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    return len(clips)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the demo world.", prog="data_prep.demo")
    parser.add_argument("--out", required=True, type=Path, help="a new folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    args = parser.parse_args()
    print(f"{make(args.out, args.seed, args.size):,} clips in {args.out}")
    return 0


if __name__ == "__main__":
    run_cli(main)
