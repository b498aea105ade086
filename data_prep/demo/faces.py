"""Drawn faces whose features follow Action Units over time: random people, random clips, and their frames.

Everything follows from the random generator that is passed in; the same generator state gives the same pixels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

Color = tuple[int, int, int]

SIDE, FPS = 112, 8  # picture side in pixels, frames per second
LANDMARKS = 68  # of a face, as many as OpenFace finds
INTENSITIES = (
    1,
    2,
    4,
    5,
    6,
    7,
    9,
    10,
    12,
    14,
    15,
    17,
    20,
    23,
    25,
    26,
    45,
)  # Action Units with an intensity, OpenFace's
PRESENCES = (*INTENSITIES[:-1], 28, 45)


@dataclass(frozen=True)
class Look:
    """How a person looks, in units of half a face's width where it is a length."""

    skin: Color
    hair: Color
    iris: Color
    lips: Color
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

    def place(self, frame: int, side: int) -> tuple[float, float, float]:
        """Centre and half height in a picture of that side, in pixels; heads are never quite still."""
        size = self.size * side
        nod = math.sin((frame + self.blink) * 0.7) * 0.02 * size
        return self.x * side + nod, self.y * side + nod / 2, size


@dataclass(frozen=True)
class DrawnClip:
    """One clip to draw: `path` relative to the dataset's folder, `name` the id of its sample, faces in slot order.

    emotion: what the one who speaks feels.
    """

    dataset: str
    path: str
    name: str
    frames: int
    faces: tuple[Face, ...]
    background: Color
    emotion: str
    phantom: int | None = None  # slot of a false-positive tracker: OpenFace writes such rows with success 0


def random_look(rng: random.Random) -> Look:
    """A random person."""
    tone = rng.random()
    skin = tuple(int(a + (b - a) * tone + rng.uniform(-6, 6)) for a, b in ((246, 132), (214, 88), (186, 62)))
    hair = rng.choice(((40, 28, 20), (92, 58, 30), (188, 140, 66), (120, 120, 124), (150, 62, 30), (20, 20, 28)))
    iris = rng.choice(((60, 40, 24), (50, 96, 150), (64, 110, 70), (90, 90, 90)))
    lips = (min(255, skin[0] - 20), max(0, int(skin[1] * 0.55)), max(0, int(skin[2] * 0.6)))
    return Look(skin, hair, iris, lips, rng.random() < 0.5, rng.uniform(0.74, 0.86), rng.uniform(0.055, 0.08))


def _mix(a: Sequence[int], b: Sequence[int], share: float) -> Color:
    return tuple(int(x + (y - x) * share) for x, y in zip(a, b, strict=True))


@dataclass(frozen=True)
class _FacePen:
    """Draws on one face: lengths are parts of half its height, `s` pixels, around its centre (cx, cy)."""

    pen: ImageDraw.ImageDraw
    look: Look
    cx: float
    cy: float
    s: float
    aus: dict[int, float]  # AU number → intensity 0-5

    def au(self, number: int) -> float:
        """How far an Action Unit moved, 0-1."""
        return self.aus.get(number, 0) / 5

    @property
    def dark(self) -> Color:
        return _mix(self.look.skin, (60, 20, 10), 0.6)

    @property
    def line_width(self) -> int:
        return max(1, round(self.s * 0.035))

    def fold(self, share: float) -> Color:
        """The colour of a line in the skin that shows as much as the movement that makes it."""
        return _mix(self.look.skin, self.dark, share)

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.cx + x * self.s, self.cy + y * self.s

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Color) -> None:
        cx, cy, s = self.cx, self.cy, self.s
        self.pen.ellipse((cx + (x - rx) * s, cy + (y - ry) * s, cx + (x + rx) * s, cy + (y + ry) * s), fill=fill)

    def line(self, points: Sequence[tuple[float, float]], fill: Color, extra: int = 0) -> None:
        self.pen.line([self.at(x, y) for x, y in points], fill, self.line_width + extra)

    def polygon(self, points: Sequence[tuple[float, float]], fill: Color) -> None:
        self.pen.polygon([self.at(x, y) for x, y in points], fill=fill)


def draw_face(pen: ImageDraw.ImageDraw, look: Look, cx: float, cy: float, s: float, aus: dict[int, float]) -> None:
    """Draw one face into `pen`, centre (cx, cy) and half height `s` in pixels; every AU moves or marks its own part."""
    face = _FacePen(pen, look, cx, cy, s, aus)
    _draw_head(face)
    for side in (-1, 1):
        _draw_cheek(face, side)
        _draw_eye(face, side)
        _draw_brow(face, side)
    _draw_wrinkles(face)
    _draw_mouth(face)
    _draw_chin(face)


def _draw_head(face: _FacePen) -> None:
    w, jaw = face.look.width, 0.16 * face.au(26)
    if face.look.long_hair:
        face.oval(0, -0.05, w + 0.16, 1.1, face.look.hair)
    face.oval(0, -0.22, w + 0.07, 0.92, face.look.hair)
    face.oval(0, jaw / 2, w, 0.98 + jaw / 2, face.look.skin)
    face.pen.chord((*face.at(-w, -1.02), *face.at(w, -0.3)), 185, 355, fill=face.look.hair)


def _draw_cheek(face: _FacePen, side: int) -> None:
    """AU06: raised, reddened cheeks and creases beside the eyes."""
    lift = face.au(6)
    if lift <= 0.02:
        return
    face.oval(side * 0.46, 0.2 - 0.1 * lift, 0.2, 0.13, _mix(face.look.skin, (236, 70, 60), 0.75 * lift))
    for dy in (-0.07, 0.0, 0.07):
        crease = [(side * 0.6, -0.17 + dy * 0.5), (side * (0.62 + 0.12 * lift), -0.17 + dy)]
        face.line(crease, face.fold(lift))


def _draw_eye(face: _FacePen, side: int) -> None:
    """AU05 opens the eye, AU07 and AU06 narrow it from below, AU45 closes it."""
    top = (0.1 + 0.14 * face.au(5) - 0.02 * face.au(4)) * (1 - face.au(45))
    low = (0.09 - 0.075 * face.au(7) - 0.02 * face.au(6)) * (1 - face.au(45))
    x, y = side * 0.34, -0.2
    if top + low > 0.03:
        points = [(x - 0.18, y), (x - 0.09, y - top), (x + 0.09, y - top), (x + 0.18, y)]
        points += [(x + 0.09, y + low), (x - 0.09, y + low)]
        face.polygon(points, (250, 250, 248))
        reach = min(0.075, (top + low) / 2)
        face.oval(x, y - (top - low) / 2, 0.075, reach, face.look.iris)
        face.oval(x, y - (top - low) / 2, 0.035, min(0.035, reach), (10, 10, 10))
        face.line(points[:4], face.dark)
    else:
        face.line([(x - 0.18, y), (x + 0.18, y)], face.dark, 1)
    if (tight := face.au(7)) > 0.02:
        face.line([(x - 0.15, y + 0.13), (x + 0.15, y + 0.13)], face.fold(tight), 1)


def _draw_brow(face: _FacePen, side: int) -> None:
    """AU01 lifts the inner end, AU02 the outer, AU04 lowers and draws together; AU10: folds from nose to mouth."""
    inner = -0.44 - 0.2 * face.au(1) + 0.15 * face.au(4)
    outer = -0.42 - 0.22 * face.au(2) + 0.05 * face.au(4)
    near, middle = 0.17 - 0.09 * face.au(4), (inner + outer) / 2 - 0.06
    brow = [face.at(side * near, inner), face.at(side * 0.36, middle), face.at(side * 0.58, outer)]
    face.pen.line(brow, face.look.hair, max(1, round(face.s * face.look.brow)))
    if (upper := face.au(10)) > 0.02:
        face.line([(side * 0.15, 0.16), (side * 0.27, 0.28), (side * 0.36, 0.46)], face.fold(upper), 1)


def _draw_wrinkles(face: _FacePen) -> None:
    """AU04 between the brows, AU01 and AU02 on the forehead, the nose, and AU09 on its bridge."""
    if (knit := face.au(4)) > 0.02:
        for x in (-0.045, 0.045):
            face.line([(x, -0.5), (x, -0.34)], face.fold(knit))
    for x, share in ((-0.42, face.au(2)), (0.0, face.au(1)), (0.42, face.au(2))):
        if share > 0.02:
            face.line([(x - 0.13, -0.6), (x + 0.13, -0.6)], face.fold(share))
    face.line([(0.02, -0.12), (-0.07, 0.16), (0.06, 0.18)], face.dark)
    if (wrinkle := face.au(9)) > 0.02:
        for dy in (-0.14, -0.06, 0.02):
            face.line([(-0.1, dy - 0.03), (0, dy + 0.02), (0.1, dy - 0.03)], face.fold(wrinkle), 1)


def _draw_mouth(face: _FacePen) -> None:
    """AU12 and AU15 move the corners, AU20 widens, AU23 narrows and thins, AU25 and AU26 open, AU28 hides the lips."""
    au = face.au
    half = 0.27 + 0.14 * au(20) - 0.09 * au(23) + 0.05 * au(12)
    corner = 0.5 - 0.17 * au(12) + 0.15 * au(15)
    middle = 0.5 + 0.04 * au(12) - 0.03 * au(15) - 0.05 * au(17)
    opening = 0.07 * au(25) + 0.16 * au(26) * 1.2
    thick = 0.075 * (1 - 0.75 * au(23)) * (1 - au(28))
    top, low = middle - thick - 0.09 * au(10), middle + opening + thick
    lips = face.look.lips if au(23) < 0.02 else _mix(face.look.lips, (120, 10, 30), au(23))
    if thick > 0.02:
        outline = [(-half, corner), (-half / 2, top), (half / 2, top), (half, corner)]
        face.polygon([*outline, (half / 2, low), (-half / 2, low)], lips)
    if opening > 0.02:
        upper = middle - 0.05 * au(10)
        inside = [(-half * 0.8, corner), (-half / 2, upper), (half / 2, upper), (half * 0.8, corner)]
        face.polygon([*inside, (half / 2, middle + opening), (-half / 2, middle + opening)], (70, 12, 20))
    else:
        face.line([(-half, corner), (-half / 2, middle), (half / 2, middle), (half, corner)], face.dark)
    for side in (-1, 1):
        if (dimple := au(14)) > 0.02:
            face.oval(side * (half + 0.11), corner, 0.05, 0.075, face.fold(dimple))
        if (stretch := au(20)) > 0.02:
            x = side * (half + 0.05)
            face.line([(x, corner - 0.09), (x, corner + 0.09)], face.fold(stretch))
        if (pulled := au(15)) > 0.02:
            x = side * half
            face.line([(x, corner), (x + side * 0.06, corner + 0.14)], face.fold(pulled), 1)


def _draw_chin(face: _FacePen) -> None:
    """AU17: a bunched chin."""
    jaw, chin = 0.16 * face.au(26), face.au(17)
    if chin > 0.02:
        box = (*face.at(-0.17, 0.72 + jaw), *face.at(0.17, 0.96 + jaw))
        face.pen.arc(box, 190, 350, fill=face.fold(chin), width=face.line_width + 1)
        for x in (-0.07, 0.0, 0.07):
            face.oval(x, 0.86 + jaw, 0.025, 0.025, face.fold(chin))


def draw_frame(clip: DrawnClip, frame: int, side: int = SIDE) -> Image.Image:
    """One frame of a clip as an RGB picture of `side` x `side` pixels."""
    image = Image.new("RGB", (2 * side, 2 * side), clip.background)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 1.7 * side, 2 * side, 2 * side), fill=_mix(clip.background, (0, 0, 0), 0.25))
    for face in sorted(clip.faces, key=lambda face: face.size):
        cx, cy, size = face.place(frame, 2 * side)
        shirt = _mix(face.look.hair, (90, 120, 180), 0.5)
        pen.ellipse((cx - 1.2 * size, cy + 0.95 * size, cx + 1.2 * size, cy + 3 * size), fill=shirt)
        draw_face(pen, face.look, cx, cy, size, face.intensities(frame))
    return image.reduce(2)


def outline(face: Face, frame: int) -> list[float]:
    """Every x, then every y, of a face's landmarks in pixels: points around it, from the eyebrows to the chin."""
    cx, cy, size = face.place(frame, SIDE)
    angles = [2 * math.pi * point / LANDMARKS for point in range(LANDMARKS)]
    xs = [cx + face.look.width * size * math.cos(angle) for angle in angles]
    return xs + [cy + (0.25 + 0.75 * math.sin(angle)) * size for angle in angles]


def random_face(
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
    return Face(
        random_look(rng), *place, slot, apex, rng.randint(4, 6), rng.randint(4, 6), blink, rest, {**rest, **peak}
    )


def random_clip(
    rng: random.Random, dataset: str, path: str, name: str, emotion: str, people: int, aus: dict[str, list[int]]
) -> DrawnClip:
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
        face = random_face(rng, frames, targets, strength, place, slots[number])
        if number != speaker:  # bystanders barely move: the strongest expression is the speaker's
            face = replace(face, peak={**face.rest, rng.choice((12, 25, 17, 1)): rng.choice((0.4, 0.5, 0.6))})
        faces.append(face)
    faces.sort(key=lambda face: face.slot)
    background = tuple(rng.randrange(120, 216) for _ in range(3))
    phantom = people if people > 1 and rng.random() < 0.15 else None
    return DrawnClip(dataset, path, name, frames, tuple(faces), background, emotion, phantom)
