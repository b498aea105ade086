"""Leakage: which conversations of one dataset or split are also in another, found by content alone.

    python -m data_prep.doctor --meld DIR --ecf DIR          # the report
    python -m data_prep.build_amt --exclude-leaks meld:test,meld:dev …

ECF and MELD are cut from the same series, so ECF's training conversations hold nearly all of MELD's dev and test
dialogues. Equal texts find half of them: ECF expands contractions, re-tokenises, merges and splits turns, and cuts
scenes elsewhere. Here conversations that share rare word triples or whole lines are aligned line by line, in order,
by fuzzy similarity and speaker.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rapidfuzz import fuzz, process
from rapidfuzz.distance import Postfix, Prefix

from data_prep.readers.sample import Sample, conversation_id

CONTRACTIONS = [
    (re.compile(pattern), full)
    for pattern, full in (
        (r"[’‘`´]", "'"),
        (r"\bcan't\b", "can not"),
        (r"\bcannot\b", "can not"),
        (r"\bwon't\b", "will not"),
        (r"\bain't\b", "is not"),
        (r"n't\b", " not"),
        (r"'re\b", " are"),
        (r"'m\b", " am"),
        (r"'ll\b", " will"),
        (r"'ve\b", " have"),
        (r"'d\b", " would"),
        (r"\blet's\b", "let us"),
    )
]
CONTRACTED = re.compile("['’‘`´]|cannot")
# ECF writes "'s" as "is", and drops it where it is a possessive: neither form tells lines apart.
STOPWORDS = {"s", "is"}
WORD = re.compile(r"[^\W_]+")

CANDIDATES = 6  # conversations looked at per conversation, best first
COMMON = 12  # a triple or line that more conversations share points nowhere
SIMILAR = 60.0  # percent; below this two lines are not taken for the same
CLIPPED = 85.0  # percent, for a line that is the beginning or the end of another: MELD and ECF clip turns
OTHER_SPEAKER = 12.0  # percent off where the speakers differ
ALIKE = 75.0  # percent; an alignment is believed for the lines that are more alike than this
EVIDENCE = 20.0  # characters in common that an alignment needs; lines that many conversations hold count less
EVIDENCE_WHOLE = 10.0  # the same where it covers a whole conversation, spoken by the same people
EVIDENCE_LONE = 60.0  # the same where it is one line and not the whole conversation
DENSITY = 0.5  # part of the lines between the first and the last aligned one that have to be aligned


@dataclass(frozen=True, slots=True)
class Link:
    """Two samples that hold the same line: their ids, and the similarity of the texts in percent."""

    left: str
    right: str
    similarity: float


def words(text: str) -> tuple[str, ...]:
    """The lower-case words of a text, contractions written out, as both datasets would have them."""
    text = text.lower()
    if CONTRACTED.search(text):
        for pattern, full in CONTRACTIONS:
            text = pattern.sub(full, text)
    return tuple(word for word in WORD.findall(text) if word not in STOPWORDS)


class ConversationIndex:
    """The conversations of some samples, their normalised lines, and which of them hold a triple of words or a line.

    Conversations are told by the ids, lines are ordered by `Sample.index`.
    """

    def __init__(self, samples: Iterable[Sample]):
        self.ids: dict[str, list[str]] = defaultdict(list)
        self.speakers: dict[str, list[str]] = defaultdict(list)
        self.lines: dict[str, list[str]] = defaultdict(list)
        for sample in sorted(samples, key=lambda sample: -1 if sample.index is None else sample.index):
            key = conversation_id(sample.id)
            self.ids[key].append(sample.id)
            self.speakers[key].append(sample.speaker.casefold())
            self.lines[key].append(" ".join(words(sample.text)))
        self.where: dict[object, set[str]] = defaultdict(set)
        for key, lines in self.lines.items():
            for phrase in _phrases(lines):
                self.where[phrase].add(key)
        self.frequency = Counter(line for lines in self.lines.values() for line in set(lines))


def _phrases(lines: list[str]) -> set[object]:
    """What a conversation is found by: word triples, whole lines, and pairs of neighbouring short lines."""
    phrases: set[object] = set(lines)
    for line in lines:
        tokens = line.split()
        phrases.update(zip(tokens, tokens[1:], tokens[2:], strict=False))
    phrases.update(pairwise(lines))
    return phrases


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two indexes share: conversations of the left one that stand wholly or partly in the right one, and links.

    Each sample is in one link at most; where a scene stands twice in one index, both copies are in `conversations`.
    """

    conversations: set[str]
    links: list[Link]


def compare(left: ConversationIndex, right: ConversationIndex) -> Overlap:
    """Search the left index for what is in the right one; a conversation is never compared with itself."""
    found = list(_alignments(left, right))
    used_left: dict[str, set[int]] = defaultdict(set)
    used_right: dict[str, set[int]] = defaultdict(set)
    links = []
    # The best alignment takes its lines first; what is left of both conversations may be aligned elsewhere.
    for first in sorted(found, key=lambda item: (-item.evidence, item.a, item.b)):
        a, b = first.a, first.b
        best: _Alignment | None = first
        if used_left[a] or used_right[b]:
            best = _align(left, a, right, b, used_left[a], used_right[b])
        for i, j, similarity in best.pairs if best else ():
            used_left[a].add(i)
            used_right[b].add(j)
            links.append(Link(left.ids[a][i], right.ids[b][j], similarity))
    return Overlap({alignment.a for alignment in found}, links)


def linked_conversations(samples: Iterable[Sample], others: Iterable[Sample]) -> set[str]:
    """The conversations of `samples`, as `conversation_id` writes them, that stand wholly or partly in `others`."""
    return {alignment.a for alignment in _alignments(ConversationIndex(samples), ConversationIndex(others))}


@dataclass(frozen=True, slots=True)
class _Alignment:
    """Lines (i, j, similarity) of conversations a and b that go together, and the evidence in characters."""

    evidence: float
    a: str
    b: str
    pairs: list[tuple[int, int, float]]


def _alignments(left: ConversationIndex, right: ConversationIndex) -> Iterator[_Alignment]:
    for a, lines in left.lines.items():
        for b in _candidates(lines, left, right):
            if a != b and (alignment := _align(left, a, right, b)):
                yield alignment


def _candidates(lines: list[str], left: ConversationIndex, right: ConversationIndex) -> list[str]:
    votes: Counter[str] = Counter()
    for phrase in _phrases(lines):
        places = right.where.get(phrase, ())
        if 0 < len(places) <= COMMON and len(left.where.get(phrase, ())) <= COMMON:
            for place in places:
                votes[place] += 27_720 // len(places)  # divisible by 1 to 12: whole numbers, whatever the order
    return sorted(votes, key=lambda place: (-votes[place], place))[:CANDIDATES]


def _align(
    left: ConversationIndex,
    a: str,
    right: ConversationIndex,
    b: str,
    used_left: Collection[int] = (),
    used_right: Collection[int] = (),
) -> _Alignment | None:
    """The best in-order alignment of two conversations, leaving out used lines; None where too little speaks for it."""
    lines_a, lines_b = left.lines[a], right.lines[b]
    ratio = _matrix(lines_a, lines_b, fuzz.ratio)
    length = np.minimum.outer([len(x) for x in lines_a], [len(x) for x in lines_b])
    shared_length = np.clip((ratio - ALIKE) / (100 - ALIKE), 0, 1) * length
    if shared_length.max(axis=1).sum() < EVIDENCE_WHOLE:
        return None
    clipped = np.maximum(_matrix(lines_a, lines_b, Prefix.similarity), _matrix(lines_a, lines_b, Postfix.similarity))
    score = np.where((clipped == length) & (length > 0), np.maximum(ratio, CLIPPED), ratio)
    same = np.array([[x == y for y in right.speakers[b]] for x in left.speakers[a]])
    score -= OTHER_SPEAKER * ~same
    gain = np.where(score >= SIMILAR, score / 100 * (1 + length), 0.0)
    gain[list(used_left), :] = 0
    gain[:, list(used_right)] = 0
    gains = gain.tolist()
    best = [[0.0] * (len(lines_b) + 1) for _ in range(len(lines_a) + 1)]
    for i, row in enumerate(gains):
        above, here = best[i], best[i + 1]
        for j, value in enumerate(row):
            here[j + 1] = max(above[j + 1], here[j], above[j] + value)
    pairs = []
    i, j = len(lines_a), len(lines_b)
    while i and j:
        if gains[i - 1][j - 1] and best[i][j] == best[i - 1][j - 1] + gains[i - 1][j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif best[i][j] == best[i - 1][j]:
            i -= 1
        else:
            j -= 1
    pairs.reverse()
    evidence = sum(
        shared_length[i, j] / max(1, left.frequency[lines_a[i]], right.frequency[lines_b[j]]) for i, j in pairs
    )
    span = max(pairs[-1][0] - pairs[0][0], pairs[-1][1] - pairs[0][1]) + 1 if pairs else 1
    if len(pairs) < DENSITY * span:  # a scene that is cut elsewhere matches line upon line; chance matches lie apart
        return None
    whole = len(pairs) == min(len(lines_a), len(lines_b)) and all(same[i, j] for i, j in pairs)
    if evidence < (EVIDENCE_WHOLE if whole else EVIDENCE_LONE if len(pairs) == 1 else EVIDENCE):
        return None
    pairs = _fill(pairs, same, used_left, used_right)
    return _Alignment(evidence, a, b, [(i, j, float(ratio[i, j])) for i, j in pairs])


def _matrix(lines_a: list[str], lines_b: list[str], scorer) -> np.ndarray:
    return process.cdist(lines_a, lines_b, scorer=scorer, dtype=np.float32)


def _fill(
    pairs: list[tuple[int, int]], same: np.ndarray, used_left: Collection[int], used_right: Collection[int]
) -> list[tuple[int, int]]:
    """Add the lines between two aligned ones when both conversations have the same speakers there, line by line."""
    filled = []
    ends = [(-1, -1), *pairs, same.shape]
    for (i, j), (next_i, next_j) in pairwise(ends):
        if i >= 0 and j >= 0:
            filled.append((i, j))
        between = list(zip(range(i + 1, next_i), range(j + 1, next_j), strict=False))
        if next_i - i == next_j - j and all(
            same[x, y] and x not in used_left and y not in used_right for x, y in between
        ):
            filled += between
    return filled
