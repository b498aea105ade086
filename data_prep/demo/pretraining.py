"""What the demo's base model is pretrained on: questions about drawn faces, made-up words and dialogues.

    tasks = PretrainingTasks(random.Random("some seed"))
    tasks.read_parts()      # Example("Which parts of the face move?", "brows knitted, jaw dropped", [picture])

Everything comes from the random generator and from pretraining.yaml, and nothing from configs/ or the AMT tasks, so
that neither a new wording nor a new task changes the checkpoint. No question is worded as an AMT prompt is.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from data_prep.demo.faces import PRESENCES, DrawnClip, Face, draw_frame, random_clip
from data_prep.demo.words import EMOTIONS, NOUNS, PREDICATES, Line, conversation, emotion_and_polarity, sentence
from swift_plugins.files import read_yaml

WORDING = read_yaml(Path(__file__).with_name("pretraining.yaml"))
FRAMES = 8  # frames that the model sees of a clip
AUS = tuple(au for au in PRESENCES if au != 45)
# Moods in words that no task's label set has.
MOODS = {
    "neutral": "calm",
    "joy": "glad",
    "sadness": "gloomy",
    "anger": "furious",
    "surprise": "amazed",
    "disgust": "sickened",
    "fear": "scared",
}
# What is told of a thing, as against a reaction to it.
TOLD = tuple(predicate for predicates in PREDICATES.values() for predicate in predicates)
LOOKUP_KINDS = {"share": 30, "hear": 15, "where": 15, "told": 15, "what": 8, "who": 3, "feel": 6, "repeat": 8}


@dataclass
class Example:
    """A question, its answer, and the pictures it is about; `video`: they are the frames of one clip."""

    question: str
    answer: str
    pictures: list[Image.Image] = field(default_factory=list)
    video: bool = False


class PretrainingTasks:
    """Makes examples; each method is a task, and everything it makes follows from the random generator."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.aus: dict[str, list[int]] = WORDING["emotions"]
        self.phrases: dict[int, list[str]] = WORDING["phrases"]
        self.labels = sorted({*WORDING["labels"], *(label.lower() for label in WORDING["labels"])})
        spoken = [*TOLD, "The face shows calm stays and the words are So emotion is"]
        self.words = sorted({word for text in (*WORDING["prompts"], *spoken, *NOUNS) for word in text.split()})

    def batch(self, mix: Mix, size: int) -> list[Example]:
        """`size` examples of the tasks of `mix`, as often as their weights say."""
        tasks = self.rng.choices([task for task, _ in mix], [weight for _, weight in mix], k=size)
        return [task(self) for task in tasks]

    # Pictures

    def _clip(self, emotion: str, aus: dict[str, list[int]]) -> DrawnClip:
        people = self.rng.choices((1, 2, 3), (70, 20, 10))[0]
        return random_clip(self.rng, "pretraining", "", "", emotion, people, aus)

    def _any_clip(self) -> DrawnClip:
        """In four of ten clips any mix of movements, not only those of an emotion."""
        rng = self.rng
        emotion = rng.choice(EMOTIONS)
        people = rng.choices((1, 2, 3), (70, 20, 10))[0]
        aus = {emotion: rng.sample(AUS, rng.randint(0, 5))} if rng.random() < 0.4 else self.aus
        return random_clip(rng, "pretraining", "", "", emotion, people, aus)

    def picture(self) -> tuple[Image.Image, dict[int, float]]:
        """A frame, mostly the apex, and the intensities of its leading face."""
        clip = self._any_clip()
        face = _leading(clip)
        frame = face.apex if self.rng.random() < 0.7 else self.rng.randrange(clip.frames)
        return draw_frame(clip, frame), face.intensities(frame)

    def _parts(self, values: dict[int, float]) -> str:
        return ", ".join(self.rng.choice(self.phrases[au]) for au in _active(values)) or "nothing moves"

    def look(self) -> Example:
        """The mood that a face shows, of a clip whose face shows one."""
        emotion = self.rng.choice(EMOTIONS)
        clip = self._clip(emotion, self.aus)
        face = _leading(clip)
        if not any(face.peak[au] >= 1 for au in self.aus[emotion]):
            emotion = "neutral"
        if self.rng.random() < 0.2:
            return Example("How does the face look?", MOODS[emotion], _frames(clip), True)
        return Example("How does the face look?", MOODS[emotion], [draw_frame(clip, face.apex)])

    def read_units(self) -> Example:
        """The active Action Units of a picture, by number."""
        picture, values = self.picture()
        return Example("Which action units are active?", _units(values), [picture])

    def read_parts(self) -> Example:
        """The active Action Units of a picture, in words."""
        picture, values = self.picture()
        return Example("Which parts of the face move?", self._parts(values), [picture])

    def read_clip(self) -> Example:
        """The same of a clip's apex, or which of its frames is the apex."""
        clip = self._any_clip()
        face = _leading(clip)
        frames = _frames(clip)
        numbers = _frame_numbers(clip)
        best = min(range(FRAMES), key=lambda i: abs(numbers[i] - face.apex))
        if self.rng.random() < 0.3:
            return Example("In which frame is the face strongest?", str(best + 1), frames, True)
        values = face.intensities(face.apex)
        if self.rng.random() < 0.5:
            return Example("Which parts of the face move?", self._parts(values), frames, True)
        return Example("Which action units are active?", _units(values), frames, True)

    def picture_and_words(self) -> Example:
        """Two questions about unlike things, so that words do not drown the picture, nor the picture the words."""
        picture, values = self.picture()
        mood, text = self._spoken()
        if self.rng.random() < 0.5:
            return Example(f"{text}\nRepeat the words.", text, [picture])
        if self.rng.random() < 0.5:
            return Example(f"{text}\nHow do the words sound?", mood, [picture])
        return Example(f"{text}\nWhich parts of the face move?", self._parts(values), [picture])

    # Words

    def _spoken(self) -> tuple[str, str]:
        emotion, polarity = emotion_and_polarity(self.rng)
        return MOODS[emotion], sentence(self.rng, emotion, polarity, clear=True)

    def mood(self) -> Example:
        """The mood that words show."""
        mood, text = self._spoken()
        return Example(f"{text}\nHow do the words sound?", mood)

    def verdict(self) -> Example:
        """Whether a speaker liked a thing."""
        polarity = self.rng.choice((1, -1))
        text = sentence(self.rng, "neutral", polarity, clear=True)
        return Example(f"{text}\nDid they like it?", "yes" if polarity > 0 else "no")

    def dictionary(self) -> Example:
        """The number of an Action Unit for its words, or the other way round."""
        au = self.rng.choice(list(self.phrases))
        phrase = self.rng.choice(self.phrases[au])
        if self.rng.random() < 0.5:
            return Example(f"{phrase}: which action unit?", f"AU{au:02d}")
        return Example(f"What does AU{au:02d} mean?", phrase)

    def repeat(self) -> Example:
        """A sentence, said again."""
        text = self._spoken()[1]
        return Example(f"{text}\nRepeat the words.", text)

    def copy(self) -> Example:
        """Any words in any order, so that no word that a task may ask for is one the model has never said."""
        rng = self.rng
        words = []
        for _ in range(rng.randint(2, 9)):
            kind = rng.random()
            if kind < 0.35:
                words.append(rng.choice(self.labels) + rng.choice((".", "", ";")))
            elif kind < 0.5:
                emotion = rng.choice(EMOTIONS)
                words.append(f"{rng.randint(1, 9)}_{emotion},{rng.randint(1, 9)}" + rng.choice((";", "", ".")))
            elif kind < 0.65:
                words.append(rng.choice(rng.choice(list(self.phrases.values()))) + rng.choice((";", ",", "")))
            else:
                words.append(rng.choice(self.words))
        text = " ".join(words)
        return Example(f"Repeat: {text}", text)

    # What the AMT tasks ask for, in other words

    def ask(self, video: bool = False) -> Example:
        """A question about a speaker's feeling, verdict or face."""
        rng = self.rng
        emotion, polarity = emotion_and_polarity(rng)
        text = sentence(rng, emotion, polarity)
        clip = self._clip(emotion, self.aus)
        face = _leading(clip)
        pictures = _frames(clip) if video else [draw_frame(clip, face.apex)]
        kind = rng.random()
        if kind < 0.4:
            question, answer = self._feeling(text, emotion)
        elif kind < 0.7:
            questions = (
                "Is the person for or against it? Say Positive or Negative.",
                "Good or bad: Positive, Negative?",
            )
            question = f"{text}\n{rng.choice(questions)}"
            answer = "Negative." if polarity < 0 else "Positive."
        elif kind < 0.92:
            units = _active(face.intensities(face.apex))
            units = [au for au in units if emotion == "neutral" or au in self.aus[emotion]]
            answer = "; ".join(rng.choice(self.phrases[au]) for au in units)
            if not answer:
                return self.ask(video)
            question = rng.choice(
                (
                    "List the movements in this face, with semicolons between.",
                    "Put the expression of the face into words; part by part.",
                )
            )
        else:
            question, answer = f"{text}\nRepeat the words.", text
        return Example(question, answer, pictures, video)

    def ask_clip(self) -> Example:
        """The same of a clip."""
        return self.ask(video=True)

    def _feeling(self, text: str, emotion: str) -> tuple[str, str]:
        labels = list(WORDING[self.rng.choice(("meld", "mosei"))])
        self.rng.shuffle(labels)
        word = {"joy": "Joy" if "Joy" in labels else "Happy"}.get(emotion, emotion.capitalize())
        choice = ", ".join(labels)
        questions = (f"Name the feeling in a word, out of {choice}.", f"What does the person feel? One of {choice}.")
        return f"{text}\n{self.rng.choice(questions)}", f"{word}."

    def cause(self) -> Example:
        """What brought about the feeling of a line."""
        rng = self.rng
        lines = conversation(rng, recent=rng.choice((0.0, 0.85)))
        moved = [i for i, line in enumerate(lines, 1) if line.emotion != "neutral"]
        if not moved:
            return self.cause()
        number = rng.choice(moved)
        line, text = lines[number - 1], _written(lines)
        talk, pair = "\n".join(text), f"{number}_{line.emotion}"
        questions = (
            f"Line:\n{text[number - 1]}\n\nWhat brought this about? Write pairs like {pair},line with semicolons.",
            f"What made {line.speaker} feel like that in line {number}? Write {pair},line for each.",
        )
        answer = ";".join(f"{pair},{cause}" for cause in line.causes)
        return Example(f"{talk}\n\n{rng.choice(questions)}", answer)

    # Language without the tasks: no label is an answer, and nothing is asked that a task asks

    def goes_on(self) -> Example:
        """What one may say after a sentence: another one of the same kind."""
        rng = self.rng
        emotion, polarity = emotion_and_polarity(rng)
        texts = [sentence(rng, emotion, polarity, clear=True) for _ in range(2)]
        return Example(f"{texts[0]}\nGo on.", texts[1])

    def place(self) -> Example:
        """Where a word stands in a list: labels are words that one has read."""
        rng = self.rng
        words = rng.sample(self.labels, rng.randint(3, 7))
        number = rng.randrange(len(words))
        return Example(f"{', '.join(words)}: where is {words[number]}?", str(number + 1))

    def copy_words(self) -> Example:
        """Any words in any order, pairs of numbers among them, without labels."""
        rng = self.rng
        words, plain = [], [word for word in self.words if word.strip(".,:").lower() not in self.labels]
        for _ in range(rng.randint(2, 9)):
            kind = rng.random()
            if kind < 0.2:
                words.append(f"{rng.randint(1, 9)},{rng.randint(1, 9)}" + rng.choice((";", "", ".")))
            elif kind < 0.45:
                words.append(rng.choice(rng.choice(list(self.phrases.values()))) + rng.choice((";", ",", "")))
            else:
                words.append(rng.choice(plain) + rng.choice(("", "", ".")))
        text = " ".join(words)
        return Example(f"Repeat: {text}", text)

    def picture_beside_words(self) -> Example:
        """A picture and a sentence: the units of the one, or the words of the other."""
        picture, values = self.picture()
        text = self._spoken()[1]
        if self.rng.random() < 0.4:
            return Example(f"{text}\nRepeat the words.", text, [picture])
        return Example(f"{text}\nWhich action units are active?", _units(values), [picture])

    def clip_units(self) -> Example:
        """The Action Units of a clip's apex, or which of its frames is the apex."""
        clip = self._any_clip()
        face, frames, numbers = _leading(clip), _frames(clip), _frame_numbers(clip)
        best = min(range(FRAMES), key=lambda i: abs(numbers[i] - face.apex))
        if self.rng.random() < 0.3:
            return Example("In which frame is the face strongest?", str(best + 1), frames, True)
        return Example("Which action units are active?", _units(face.intensities(face.apex)), frames, True)

    def look_up(self) -> Example:
        """As `lookup`, without its answers that hold a label."""
        return self.lookup({kind: weight for kind, weight in LOOKUP_KINDS.items() if kind not in ("feel", "repeat")})

    # Dialogues

    def lookup(self, kinds: dict[str, int] = LOOKUP_KINDS) -> Example:
        """One question about a numbered conversation."""
        rng = self.rng
        lines = conversation(rng)
        text = _written(lines)
        things, told = _things(lines)
        number = rng.randrange(len(lines))
        kind = rng.choices(list(kinds), kinds.values())[0]
        if kind in ("share", "hear"):
            asked = "Which other lines share a thing with {}?"
            if kind == "hear":
                asked = "Where do we hear of its things: {}?"
            if rng.random() < 0.3:
                question = asked.format(f"line {number + 1}")
            else:
                question = f"Line:\n{text[number]}\n\n{asked.format('it')}"
            where = things if kind == "share" else told
            found = [i for i, nouns in enumerate(where) if set(nouns) & set(things[number])]
            answer = ",".join(str(i + 1) for i in found if kind == "hear" or i != number) or "none"
        elif kind in ("where", "told"):
            noun = rng.choice([noun for nouns in things for noun in nouns] or NOUNS)
            question = f"{'Which lines speak of the' if kind == 'where' else 'Which line tells of the'} {noun}?"
            where = things if kind == "where" else told
            answer = ",".join(str(i + 1) for i, nouns in enumerate(where) if noun in nouns) or "none"
        else:
            line = lines[number]
            question, answer = {
                "what": (f"What does line {number + 1} speak of?", ", ".join(things[number]) or "nothing"),
                "who": (f"Who says line {number + 1}?", line.speaker),
                "feel": (f"What is noted for line {number + 1}?", f"{number + 1}_{line.emotion}"),
                "repeat": (f"Repeat line {number + 1}.", text[number]),
            }[kind]
        return Example("\n".join(text) + f"\n\n{question}", answer)


def _leading(clip: DrawnClip) -> Face:
    """The face that moves most."""
    return max(clip.faces, key=lambda face: sum(face.peak.values()))


def _frame_numbers(clip: DrawnClip) -> list[int]:
    return [int(clip.frames / FRAMES * (i + 0.5)) for i in range(FRAMES)]


def _frames(clip: DrawnClip) -> list[Image.Image]:
    return [draw_frame(clip, number) for number in _frame_numbers(clip)]


def _active(values: dict[int, float]) -> list[int]:
    return sorted(au for au in AUS if values[au] >= 1)


def _units(values: dict[int, float]) -> str:
    return " ".join(f"AU{au:02d}" for au in _active(values)) or "none"


def _written(lines: list[Line]) -> list[str]:
    """The lines of a conversation as the model reads them."""
    form: str = WORDING["line"]
    return [form.format(index=i, emotion=x.emotion, speaker=x.speaker, text=x.text) for i, x in enumerate(lines, 1)]


def _things(lines: list[Line]) -> tuple[list[list[str]], list[list[str]]]:
    """Per line the things that it speaks of, and those among them of which it tells something."""
    things = []
    for line in lines:
        words = set(line.text.lower().translate(str.maketrans("", "", ".,!")).split())
        things.append([noun for noun in NOUNS if noun in words])
    told = [
        [noun for noun in nouns if any(f"{noun} {predicate}" in line.text for predicate in TOLD)]
        for nouns, line in zip(things, lines, strict=True)
    ]
    return things, told


# Tasks with their weights, by the name that the log prints.
Mix = tuple[tuple[Callable[[PretrainingTasks], Example], int], ...]
MIXES: dict[str, Mix] = {
    "lookups": ((PretrainingTasks.lookup, 100),),
    "words": (
        (PretrainingTasks.repeat, 30),
        (PretrainingTasks.mood, 30),
        (PretrainingTasks.verdict, 20),
        (PretrainingTasks.dictionary, 20),
    ),
    "pictures": (
        (PretrainingTasks.read_units, 25),
        (PretrainingTasks.read_parts, 30),
        (PretrainingTasks.look, 15),
        (PretrainingTasks.picture_and_words, 25),
        (PretrainingTasks.mood, 5),
    ),
    "copies": ((PretrainingTasks.copy, 100),),
    "clips": ((PretrainingTasks.read_clip, 100),),
    "asked": ((PretrainingTasks.ask, 100),),
    "asked clips": ((PretrainingTasks.ask_clip, 100),),
    "causes": ((PretrainingTasks.cause, 100),),
}
# The same for a base that knows pictures and language, and none of the tasks: neither labels nor their like as answers.
UNTAUGHT: dict[str, Mix] = {
    "lookups": ((PretrainingTasks.look_up, 100),),
    "words": (
        (PretrainingTasks.repeat, 25),
        (PretrainingTasks.goes_on, 40),
        (PretrainingTasks.place, 20),
        (PretrainingTasks.dictionary, 15),
    ),
    "pictures": ((PretrainingTasks.read_units, 55), (PretrainingTasks.picture_beside_words, 45)),
    "copies": ((PretrainingTasks.copy_words, 100),),
    "clips": ((PretrainingTasks.clip_units, 100),),
}
