"""Quality control of ERI answers: which rule of configs/eri.yaml an answer breaks. Pure functions of texts.

Used by `data_prep.eri`; `RULES` lists the rules in the order in which they are applied. Answers come from outside, so
every reader here takes time in proportion to the length of the text: no pattern has a repetition within another one.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from data_prep.eri.config import Quality

RULES = ("empty", "refusal", "too_short", "too_long", "other_language", "malformed", "prompt_copy", "contradiction")
RULES += ("near_duplicate",)

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_LABELS = {part: re.compile(rf"\b{part}\b[\s*_`\"]*[:\-–]", re.I) for part in ("character", "scene")}


def _listed(text: str) -> frozenset[str]:
    """What stands between the commas."""
    return frozenset(" ".join(part.split()) for part in text.split(","))


# Who is or shows what: a verb or noun that asserts a state, then at most six degree words, then the emotion.
_STATE = _listed("""
    feel, feels, feeling, felt, is, are, was, were, am, be, been, being, 's, 're, 'm, seem, seems, seemed, look,
    looks, looked, looking, appear, appears, appeared, sound, sounds, become, becomes, became, becoming, get,
    gets, getting, remain, remains, show, shows, showing, express, expresses, expressing, convey, conveys,
    conveying, display, displays, displaying, radiate, radiates, reveal, reveals, indicate, indicates, indicating,
    suggest, suggests, suggesting, experience, experiences, experiencing, reflect, reflects, reflecting, filled
    with, full of, out of, overcome with, emotion, emotions, mood, feelings, expression, state, sense, label,
    person's, speaker's, character's, his, her, their, my, your
""")
_DEGREE = _listed("""
    very, quite, so, too, rather, somewhat, more, most, a, an, the, bit, little, lot, of, and, or, both, also,
    just, still, now, to be, be, as, is, mixed, deep, strong, intense, great, much, some, growing, obvious,
    evident, sense, feeling, feelings, emotion, emotions, mix, mixture, state, signs, look, expression
""")
_NEGATION = _listed("""
    not, no, never, without, hardly, neither, nor, lack, lacks, lacking, absence of, rather than, instead of, free
    of, nothing
""")
_THING = _listed("it, this, that, there, which, what, story, news, song, music, film, movie")
_CIRCUMSTANCE = _listed("""
    because, since, as, when, whenever, after, although, though, but, while, who, whose, whom, that, if, about,
    how
""")
_AFTER_STATE, _AFTER_DEGREE = re.compile(r'[:=]?[\s*"]+'), re.compile(r',?[\s*"]+')


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def parse_clues(text: str) -> dict[str, str] | None:
    """`{"character": …, "scene": …}` from the two labelled lines, plain, in markdown or as JSON; None if one lacks."""
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end:
        try:
            found = {str(key).lower(): value for key, value in json.loads(text[start : end + 1]).items()}
            pair = {key: found[key].strip() for key in _LABELS}
            return pair if all(pair.values()) else None
        except (ValueError, KeyError, AttributeError, RecursionError):
            pass
    first = _LABELS["character"].search(text)
    second = first and _LABELS["scene"].search(text, first.end())
    if not second:
        return None
    between, after = text[first.end() : second.start()], text[second.end() :]
    character = " ".join(between.split()).rstrip(" *_`#-").strip(' *_`#"')  # without the mark-up of the second label
    scene = " ".join(after.split()).strip(' *_`#"')
    return {"character": character, "scene": scene} if character and scene else None


def check(
    kind: str, text: str, finish: str, prompt: str, labels: Mapping[str, Collection[str]], rules: Quality
) -> tuple[str, str] | None:
    """The first rule that an answer breaks, with one line of detail, or None when it keeps all of them.

    kind: the pass or agent, a key of `rules.words`. finish: the server's finish_reason. prompt: everything the model
    was told, pictures and sound aside. labels: those that it was told, `{"emotion": ("happy",)}`. rules: `quality` of
    configs/eri.yaml. `near_duplicate` compares answers with one another and is found by `near_duplicates`.
    """
    if len(text) > rules.most_characters:  # before all else: what follows need not read novels
        return "too_long", f"{len(text)} characters, more than {rules.most_characters}"
    if not any(character.isalnum() for character in text):
        return "empty", "no words"
    plain = text.replace("’", "'")
    for pattern in rules.refusal:
        if match := re.search(pattern, plain, re.I | re.S):
            return "refusal", _quote(match.group())
    found = words(text)
    fewest, most = rules.words[kind]
    foreign = _foreign(text, found, rules)
    if len(found) < fewest and not foreign:  # scripts without spaces have few "words"
        return "too_short", f"{len(found)} words, fewer than {fewest}"
    if len(found) > most or finish == "length":
        return "too_long", f"{len(found)} words, more than {most}" if len(found) > most else "cut off at max_tokens"
    if foreign:
        return "other_language", foreign
    if kind == "clues" and parse_clues(text) is None:
        return "malformed", "no line for character, or none for scene"
    share = _copied(found, words(prompt), rules.prompt_copy.words)
    if share > rules.prompt_copy.most_share:
        return "prompt_copy", f"{share:.0%} of it stands in the prompt"
    for name, emotions in (("emotion", rules.emotions), ("sentiment", rules.sentiments)):
        if other := contradiction(text, labels.get(name, ()), emotions):
            return "contradiction", f"says {_quote(other)}, the label is {', '.join(labels[name])}"
    return None


def _foreign(text: str, found: list[str], rules: Quality) -> str | None:
    """Why the text is not in English, or None."""
    letters = [character for character in text if character.isalpha()]
    foreign = sum(not unicodedata.name(character, "").startswith("LATIN") for character in letters)
    if foreign > rules.language.most_foreign_letters * len(letters):
        return f"{foreign} of {len(letters)} letters are not Latin"
    known = set(rules.language.function_words)
    share = sum(word in known for word in found) / max(len(found), 1)
    if len(found) >= 8 and share < rules.language.least_function_words:
        return f"{share:.0%} common English words"
    return None


def _runs(found: Sequence[str], length: int) -> set[tuple[str, ...]]:
    """All runs of `length` words; a shorter text is one run."""
    return {tuple(found[start : start + length]) for start in range(max(len(found) - length + 1, 1))}


def _copied(answer: list[str], prompt: list[str], length: int) -> float:
    runs = _runs(answer, length)
    return len(runs & _runs(prompt, length)) / len(runs)


def contradiction(text: str, labels: Collection[str], emotions: Mapping[str, Sequence[str]]) -> str | None:
    """The phrase that asserts another emotion than those of the labels, or None.

    Negated emotions ("not angry", "rather than sad") are no assertions. Once a label's own emotion is asserted,
    what follows because, when, who, but … in a sentence tells the circumstances ("sad because her father is angry").
    Labels that no line of `emotions` holds contradict nothing.
    """
    known = {label.lower() for label in labels}
    own = {name for name, names in emotions.items() if name in known or known & set(names)}
    if not own:
        return None
    named = {name: frozenset(map(str.lower, names)) for name, names in emotions.items()}
    every = frozenset().union(*named.values())
    ours = frozenset().union(*(named[name] for name in own))
    others = frozenset().union(*(names for name, names in named.items() if name not in own)) - ours
    own_said = False
    for part in re.split(r"(?<=[.!?;])\s+|\n+", text):
        sentence = _Sentence(part, every)
        own_said = own_said or any(not sentence.negates(*found) for found in sentence.asserted(ours))
        told = next((place for place, word in enumerate(sentence.words) if word in _CIRCUMSTANCE), len(part))
        for state, emotion in sentence.asserted(others):
            of_a_thing = state > 0 and sentence.words[state - 1] in _THING
            if not (sentence.negates(state, emotion) or of_a_thing or (own_said and told < state)):
                return sentence.phrase(state, emotion)
    return None


class _Sentence:
    """The words of a sentence; those of `_STATE`, `_DEGREE` … and emotions with a blank in them are one word."""

    def __init__(self, text: str, emotions: frozenset[str]):
        self.text, self.emotions = text, emotions
        self.found = list(_tokens(emotions).finditer(text))
        self.words = [match.group().lower().replace("’", "'") for match in self.found]

    def asserted(self, targets: frozenset[str]) -> Iterator[tuple[int, int]]:
        """(place of the state, place of the emotion) in `words` of every "is very happy" with an emotion of targets."""
        free = 0
        for state, word in enumerate(self.words):
            start = self.found[state].start()
            if state < free or word not in _STATE or self.text[start - 1 : start] in ("'", "’"):
                continue
            last, gap = None, _AFTER_STATE
            for place in range(state + 1, min(state + 8, len(self.words))):
                word = self.words[place]
                if not gap.fullmatch(self.text, self.found[place - 1].end(), self.found[place].start()):
                    break
                last = place if word in targets else last
                if word not in self.emotions and word not in _DEGREE and not re.fullmatch(r"\w+ly", word):
                    break
                gap = _AFTER_DEGREE
            if last is not None:
                free = last + 1
                yield state, last

    def negates(self, *places: int) -> bool:
        """Whether a negation stands before one of these words, with at most three words between."""
        before = (word for place in places for word in self.words[max(place - 4, 0) : place])
        return any(word in _NEGATION or word.endswith("n't") for word in before)

    def phrase(self, first: int, last: int) -> str:
        """The text from one word to another, on one line."""
        return " ".join(self.text[self.found[first].start() : self.found[last].end()].split())


@functools.cache
def _tokens(emotions: frozenset[str]) -> re.Pattern:
    phrases = [word for word in (*_STATE, *_DEGREE, *_NEGATION, *emotions) if not re.fullmatch(r"'?\w+", word)]
    together = "|".join(map(re.escape, sorted(phrases, key=len, reverse=True))).replace("'", "['’]")
    return re.compile(rf"\b(?:{together})\b|\w+n['’]t\b|['’](?:s|re|m)\b|\w+", re.I)


def near_duplicates(texts: Iterable[tuple[str, str]], length: int, most_similar: float) -> dict[str, str]:
    """Ids whose text is too similar to an earlier one that stays: {id: id of the earlier one}.

    Similarity is Jaccard over runs of `length` words; a pair is a duplicate above `most_similar`. Exact, without
    comparing all pairs: two sets that similar share one of the rarest (1 - most_similar) part of either's runs.
    """
    runs = {name: _runs(words(text), length) for name, text in texts}
    rarity = Counter(run for found in runs.values() for run in found)
    kept: dict[tuple[str, ...], list[str]] = {}
    duplicates = {}
    for name, found in runs.items():
        ordered = sorted(found, key=lambda run: (rarity[run], run))
        prefix = ordered[: len(ordered) - int(most_similar * len(ordered)) + 1]
        candidates = dict.fromkeys(other for run in prefix for other in kept.get(run, ()))
        for other in candidates:
            shared = len(found & runs[other])
            if shared > most_similar * (len(found) + len(runs[other]) - shared):
                duplicates[name] = other
                break
        else:
            for run in prefix:
                kept.setdefault(run, []).append(name)
    return duplicates


def _quote(text: str) -> str:
    return '"' + " ".join(text.split())[:80] + '"'
