"""Quality control of ERI answers: which rule of configs/eri.yaml an answer breaks. Pure functions of texts.

Used by `data_prep.eri`; `RULES` lists the rules in the order in which they are applied.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

RULES = (
    "empty",
    "refusal",
    "too_short",
    "too_long",
    "other_language",
    "malformed",
    "prompt_copy",
    "contradiction",
    "near_duplicate",
)

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_CLUES = re.compile(
    r"\bcharacter\b[\s*_`\"]*[:\-–][\s*_`]*(.+?)[\s*_`#\-]*\bscene\b[\s*_`\"]*[:\-–][\s*_`]*(.+)", re.I | re.S
)

# Who is or shows what: a verb or noun that asserts a state, then degree words only, then the emotion.
_STATE = (
    r"(?:feel|feels|feeling|felt|is|are|was|were|am|be|been|being|'s|’s|'re|’re|'m|’m|seem|seems|seemed|look|looks|looked|"
    r"looking|appear|appears|appeared|sound|sounds|become|becomes|became|becoming|get|gets|getting|remain|remains|"
    r"show|shows|showing|express|expresses|expressing|convey|conveys|conveying|display|displays|displaying|radiates?|"
    r"reveals?|indicates?|indicating|suggests?|suggesting|experience|experiences|experiencing|reflects?|reflecting|"
    r"filled with|full of|out of|overcome with|emotion|emotions|mood|feelings?|expression|state|sense|label|"
    r"his|her|their|my|your|person's|person’s|speaker's|speaker’s|character's|character’s)"
)
_DEGREE = (
    r"(?:\w+ly|very|quite|so|too|rather|somewhat|more|most|a|an|the|bit|little|lot|of|and|or|both|also|just|still|now|"
    r"to be|be|as|is|mixed|deep|strong|intense|great|much|some|growing|obvious|evident|sense|feeling|feelings|emotion|"
    r"emotions|mix|mixture|state|signs|look|expression)"
)
_NEGATION = re.compile(
    r"\b(?:not|no|never|without|hardly|neither|nor|lacks?|lacking|absence of|rather than|instead of|no longer|"
    r"\w+n['’]t|free of|nothing)\b(?:\W+\w+){0,3}\W*$",
    re.I,
)
_THING = re.compile(r"\b(?:it|this|that|there|which|what|story|news|song|music|film|movie)\W*$", re.I)
_CIRCUMSTANCE = re.compile(
    r"\b(?:because|since|as|when|whenever|after|although|though|but|while|who|whose|whom|that|if|about|how)\b", re.I
)


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def parse_clues(text: str) -> dict[str, str] | None:
    """`{"character": …, "scene": …}` from the two labelled lines, plain, in markdown or as JSON; None if one lacks."""
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end:
        try:
            found = {str(key).lower(): value for key, value in json.loads(text[start : end + 1]).items()}
            pair = {key: found[key].strip() for key in ("character", "scene")}
            return pair if all(pair.values()) else None
        except (ValueError, KeyError, AttributeError, RecursionError):
            pass
    match = _CLUES.search(text)
    if match is None:
        return None
    character, scene = (" ".join(part.split()).strip(' *_`#"') for part in match.groups())
    return {"character": character, "scene": scene} if character and scene else None


def check(kind: str, text: str, finish: str, prompt: str, label: str, rules: dict) -> tuple[str, str] | None:
    """The first rule that an answer breaks, with one line of detail, or None when it keeps all of them.

    kind: `clues` or `reason`. finish: the server's finish_reason. prompt: everything the model was told, pictures
    aside. label: the clip's emotion. rules: `quality` of configs/eri.yaml. `near_duplicate` compares answers with one
    another and is found by `near_duplicates`.
    """
    found = words(text)
    if not any(character.isalnum() for character in text):
        return "empty", "no words"
    plain = text.replace("’", "'")
    for pattern in rules["refusal"]:
        if match := re.search(pattern, plain, re.I | re.S):
            return "refusal", _quote(match.group())
    fewest, most = rules["words"][kind]
    foreign = _foreign(text, found, rules["language"])
    if len(found) < fewest and not foreign:  # scripts without spaces have few "words"
        return "too_short", f"{len(found)} words, fewer than {fewest}"
    if len(found) > most or finish == "length":
        return "too_long", f"{len(found)} words, more than {most}" if len(found) > most else "cut off at max_tokens"
    if foreign:
        return "other_language", foreign
    if kind == "clues" and parse_clues(text) is None:
        return "malformed", "no line for character, or none for scene"
    share = _copied(found, words(prompt), rules["prompt_copy"]["words"])
    if share > rules["prompt_copy"]["most_share"]:
        return "prompt_copy", f"{share:.0%} of it stands in the prompt"
    if other := contradiction(text, label, rules["emotions"]):
        return "contradiction", f"says {_quote(other)}, the label is {label}"
    return None


def _foreign(text: str, found: list[str], rule: dict) -> str | None:
    letters = [character for character in text if character.isalpha()]
    foreign = sum(not unicodedata.name(character, "").startswith("LATIN") for character in letters)
    if foreign > rule["most_foreign_letters"] * len(letters):
        return f"{foreign} of {len(letters)} letters are not Latin"
    known = set(rule["function_words"])
    share = sum(word in known for word in found) / max(len(found), 1)
    if len(found) >= 8 and share < rule["least_function_words"]:
        return f"{share:.0%} common English words"
    return None


def _runs(found: Sequence[str], length: int) -> set[tuple[str, ...]]:
    """All runs of `length` words; a shorter text is one run."""
    return {tuple(found[start : start + length]) for start in range(max(len(found) - length + 1, 1))}


def _copied(answer: list[str], prompt: list[str], length: int) -> float:
    runs = _runs(answer, length)
    return len(runs & _runs(prompt, length)) / len(runs)


@functools.cache
def _assertion(emotion_words: tuple[str, ...], all_words: tuple[str, ...]) -> re.Pattern:
    between = rf"(?:[\s*\"]+(?:{_DEGREE}|{'|'.join(map(re.escape, all_words))})\b,?){{0,6}}"
    state = rf"(?:(?<![\w'’]){_STATE}|(?<=\w)['’](?:s|re|m))"
    return re.compile(rf"{state}\b[:=]?{between}[\s*\"]+({'|'.join(map(re.escape, emotion_words))})\b", re.I)


def contradiction(text: str, label: str, emotions: dict[str, Sequence[str]]) -> str | None:
    """The phrase that asserts another emotion than the label's, or None.

    Negated emotions ("not angry", "rather than sad") are no assertions. Once the label's own emotion is asserted,
    what follows because, when, who, but … in a sentence tells the circumstances ("sad because her father is angry").
    A label that no line of `emotions` holds contradicts nothing.
    """
    label = label.lower()
    own = next((name for name, names in emotions.items() if label == name or label in names), None)
    if own is None:
        return None
    every = tuple(word for names in emotions.values() for word in names)
    others = tuple(word for name, names in emotions.items() if name != own for word in names)
    own_pattern = _assertion(tuple(emotions[own]), every)
    own_said = False
    for sentence in re.split(r"(?<=[.!?;])\s+|\n+", text):
        own_at = next((m.start() for m in own_pattern.finditer(sentence) if not _negated(sentence, m)), None)
        own_said = own_said or own_at is not None
        for match in _assertion(others, every).finditer(sentence):
            if _negated(sentence, match) or _THING.search(sentence[: match.start()]):
                continue
            if own_said and _CIRCUMSTANCE.search(sentence[: match.start()]):
                continue
            return " ".join(match.group().split())
    return None


def _negated(sentence: str, match: re.Match) -> bool:
    return bool(_NEGATION.search(sentence[: match.start()]) or _NEGATION.search(sentence[: match.start(1)]))


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
