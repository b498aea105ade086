"""What people say in the synthetic datasets: sentences with or without a feeling, and dialogues with causes.

Everything follows from the random generator that is passed in. None of the words is the name of a label.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

# Emotions have MELD's names.
EMOTIONS = ("neutral", "joy", "sadness", "anger", "surprise", "disgust", "fear")
FREQUENCY = (22, 18, 14, 14, 12, 10, 10)
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


def sentence(rng: random.Random, emotion: str, polarity: int, clear: bool | None = None) -> str:
    """What somebody says. Six in ten times the words show the emotion, else at most whether it was good or bad."""
    if clear is None:
        clear = rng.random() < 0.6
    parts = [f"{rng.choice(OPENERS)}the {rng.choice(NOUNS)} {rng.choice(PREDICATES[emotion if clear else 'neutral'])}"]
    # the verdict alone gives the sign of a surprise or of a calm opinion
    if polarity and (emotion in ("neutral", "surprise") or rng.random() < 0.5):
        parts.append(rng.choice(VERDICTS[polarity]))
    text = " ".join(parts) + rng.choice("..!" if emotion != "neutral" else "...")
    return text[0].upper() + text[1:]


def emotion_and_polarity(rng: random.Random) -> tuple[str, int]:
    """A random emotion and the sign of the sentiment that goes with it."""
    emotion = rng.choices(EMOTIONS, FREQUENCY)[0]
    if emotion == "neutral":
        return emotion, rng.choice((0, 0, 1, -1))
    return emotion, POLARITY.get(emotion) or rng.choice((1, -1))


@dataclass
class Line:
    """One line of a made dialogue; causes are indices from 1, polarity is the sign of the sentiment."""

    speaker: str
    text: str
    emotion: str
    causes: list[int] = field(default_factory=list)
    polarity: int = 0


def dialogue(rng: random.Random) -> list[Line]:
    """3 to 7 lines of three people, each with its own feeling."""
    cast, lines = rng.sample(SPEAKERS, 3), []
    for _ in range(rng.randint(3, 7)):
        emotion, polarity = emotion_and_polarity(rng)
        if emotion == "neutral":
            polarity = 0
        text = sentence(rng, emotion, polarity)
        if emotion == "neutral" and rng.random() < 0.3:
            text = rng.choice(CHATTER) + "."
        lines.append(Line(rng.choice(cast), text, emotion, polarity=polarity))
    return lines


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
