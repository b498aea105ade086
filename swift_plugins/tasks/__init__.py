"""The five tasks, each once: its labels, how a gold answer is written, how a response is read, what scores it.

Pure Python; imports neither torch nor swift. A task is one entry of `TASKS`; its wording is in configs/prompts.yaml.

    >>> TASKS["mer"].target("joy", "meld")
    'Joy.'
    >>> TASKS["mer"].strict("It is joy!", "meld"), TASKS["mer"].lenient("It is joy!", "meld")
    (None, 'joy')

A response has two readings. Strict: the exact form of the target, outer white space aside. Lenient: the label found in
the text, any case, any punctuation, as long as one label only is named. Whatever strict reads, lenient reads alike.
None means unparsed; an unparsed response is counted and never becomes a class.
"""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from swift_plugins import metrics
from swift_plugins.files import CONFIGS

FACS = CONFIGS / "facs.yaml"

MELD = ("Anger", "Sadness", "Surprise", "Disgust", "Joy", "Neutral", "Fear")
SENTIMENT = ("Positive", "Negative")

Pair = tuple[int, str, int]  # (index of the emotion utterance, its emotion, index of the cause utterance)


@dataclass(frozen=True)
class Task:
    """One task.

    key: the second part of a channel. name: for people. identifier: the tag in the prompt ("" where there is none).
    labels: per dataset, the labels as they are written in answers; empty where answers are not from a closed set.
    target(gold, dataset) -> str: the gold answer; ValueError for a gold that the dataset does not have.
    strict(response, dataset), lenient(response, dataset) -> prediction, of the same type as gold, or None = unparsed;
        a response that is not a string is unparsed.
    count(dataset, golds, predictions, keys) -> additive counts (see `swift_plugins.metrics`): `keys` says per row what
        the metric needs beside the answers: for msa whether the clip's sentiment is zero, for ecpe its conversation.
        Rows of one conversation must be counted together.
    finish(dataset, counts) -> {metric: fraction}, beside `per_class`; ecpe has one such dict per protocol.
    """

    key: str
    name: str
    identifier: str
    labels: dict[str, tuple[str, ...]]
    target: Callable[[object, str], str]
    strict: Callable[[object, str], object | None]
    lenient: Callable[[object, str], object | None]
    count: Callable[[str, Sequence, Sequence, Sequence], Counter]
    finish: Callable[[str, Counter], dict]

    def score(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> dict:
        """{metric: fraction} of these rows: `finish` of `count`."""
        return self.finish(dataset, self.count(dataset, golds, predictions, keys))


def split_channel(channel: str) -> tuple[str, str, str | None]:
    """`mosei.msa.zero` → ("mosei", "msa", "zero"), `meld.mer` → ("meld", "mer", None); ValueError for nonsense."""
    parts = channel.split(".") if isinstance(channel, str) else []
    if len(parts) not in (2, 3) or not all(re.fullmatch(r"[a-z0-9][a-z0-9_-]*", part) for part in parts):
        raise ValueError(f"{channel!r} is not a channel: expected <dataset>.<task> such as meld.mer")
    if parts[1] not in TASKS:
        raise ValueError(f"{channel!r} names no task: {parts[1]!r} is not one of {', '.join(TASKS)}")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else None


# One label of a closed set: msa, mer


def _labels(task: dict[str, tuple[str, ...]], dataset: str) -> tuple[str, ...]:
    try:
        return task[dataset]
    except KeyError:
        raise ValueError(f"no label set for dataset {dataset!r}: it is one of {', '.join(task)}") from None


def _label_target(task: dict, gold: object, dataset: str) -> str:
    for label in _labels(task, dataset):
        if label.lower() == gold:
            return f"{label}."
    raise ValueError(f"{gold!r} is not a label of {dataset}: {', '.join(_labels(task, dataset)).lower()}")


def _label_strict(task: dict, response: object, dataset: str) -> str | None:
    if not isinstance(response, str):
        return None
    answer = response.strip()
    return next((label.lower() for label in _labels(task, dataset) if answer == f"{label}."), None)


@functools.cache
def _label_pattern(labels: tuple[str, ...]) -> re.Pattern:
    # `_` counts as punctuation (markdown's _joy_), so \b would not do; ASCII, so that a label inside a sentence in
    # Chinese is found and "ſ" is not taken for "s"
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(labels)})(?![^\W_])", re.IGNORECASE | re.ASCII)


def _label_lenient(task: dict, response: object, dataset: str) -> str | None:
    if not isinstance(response, str):
        return None
    found = {match.lower() for match in _label_pattern(_labels(task, dataset)).findall(response)}
    return found.pop() if len(found) == 1 else None


def _one_label(labels: dict[str, tuple[str, ...]]) -> tuple:
    """labels, target, strict and lenient of a task whose answer is one label."""
    return (labels, *(functools.partial(f, labels) for f in (_label_target, _label_strict, _label_lenient)))


def _count_msa(dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
    return metrics.sentiment_counts(golds, predictions, keys)


def _finish_msa(dataset: str, counts: Counter) -> dict:
    return metrics.sentiment(counts, [label.lower() for label in MSA[dataset]])


def _count_mer(dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
    return metrics.confusion(golds, predictions)


def _finish_mer(dataset: str, counts: Counter) -> dict:
    return metrics.classification(counts, [label.lower() for label in MER[dataset]])


# Sentiment as a number, for results that hold scores


def _score_target(gold: object, dataset: str) -> str:
    return f"{gold:.6f}"


def _score_strict(response: object, dataset: str) -> float | None:
    exact = isinstance(response, str) and re.fullmatch(r"\s*([+-]?[0-9]{1,3}(?:\.[0-9]{1,20})?)\s*", response)
    return float(exact[1]) if exact else None


def _score_lenient(response: object, dataset: str) -> float | None:
    if not isinstance(response, str):
        return None
    found = set(re.findall(r"(?<![\w.])[+-]?[0-9]{1,3}(?:\.[0-9]{1,20})?(?![\w]|\.[0-9])", response))
    return float(found.pop()) if len(found) == 1 else None


def _count_score(dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
    return metrics.score_counts(golds, predictions)


def _finish_score(dataset: str, counts: Counter) -> dict:
    return metrics.scores(counts)


# AU phrases: fer


def phrase_to_au() -> dict[str, str]:
    """Phrase or FACS name → AU ("cheeks raised", "cheek raiser" → "AU06"), from configs/facs.yaml.

    AMT_FACS names another file of that format: the one that `data_prep.fer --facs` wrote the captions with.
    """
    return _read_phrases(os.environ.get("AMT_FACS") or str(FACS))


@functools.cache
def _read_phrases(path: str) -> dict[str, str]:
    table = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return {phrase: au for au, entry in table["aus"].items() for phrase in (entry["name"], *entry["phrases"])}


@functools.cache
def _folded_phrases(path: str) -> dict[str, str]:
    return {phrase.lower(): phrase for phrase in _read_phrases(path)}


def _fer_target(gold: object, dataset: str) -> str:
    phrases = tuple(gold)
    for phrase in phrases:
        if not phrase or phrase != phrase.strip() or ";" in phrase:
            raise ValueError(f"{phrase!r} cannot be one of several phrases joined by '; '")
    return "; ".join(phrases)


def _fer_strict(response: object, dataset: str) -> tuple[str, ...] | None:
    if not isinstance(response, str):
        return None
    pieces, known = tuple(response.strip().split("; ")) if response.strip() else (), phrase_to_au()
    return pieces if all(piece in known for piece in pieces) else None


_SEPARATOR = re.compile(r"[;,；，、\n\r\x0b\x0c\x85\u2028\u2029]")


def _fer_lenient(response: object, dataset: str) -> tuple[str, ...] | None:
    """Known phrases between `;`, `,` or line ends; unknown pieces are skipped."""
    if not isinstance(response, str):
        return None
    if (exact := _fer_strict(response, dataset)) is not None:
        return exact
    pieces = (" ".join(piece.split()).strip(" .!-*\"'").lower() for piece in _SEPARATOR.split(response))
    known = _folded_phrases(os.environ.get("AMT_FACS") or str(FACS))
    return tuple(known[piece] for piece in pieces if piece in known) or None


def _count_fer(dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
    return metrics.set_counts(map(aus_of, golds), map(aus_of, predictions))


def _finish_fer(dataset: str, counts: Counter) -> dict:
    result = metrics.set_scores(counts, sorted({au for _, au in counts}))
    return {key: value for key, value in result.items() if not key.startswith("weighted")}


def aus_of(phrases: Sequence[str] | None) -> set[str]:
    """The AUs that phrases stand for; none where the response was unparsed."""
    return {phrase_to_au()[phrase] for phrase in phrases or ()}


# Free text: eri


def _text_target(gold: object, dataset: str) -> str:
    if not isinstance(gold, str) or not gold.strip():
        raise ValueError("an empty reason cannot be a target")
    return gold.strip()


def _text(response: object, dataset: str) -> str | None:
    return response.strip() or None if isinstance(response, str) else None


def emotion_in(text: str | None, dataset: str) -> str | None:
    """The one emotion that a free text names, None when it names none or several."""
    labels = MER.get(dataset, MELD)
    return _label_lenient({dataset: labels}, text, dataset)


def _count_eri(dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
    counts = metrics.text_counts(golds, predictions)
    for gold, prediction in zip(golds, predictions, strict=True):
        if named := emotion_in(gold, dataset):
            counts["named"] += 1
            counts["agree"] += named == emotion_in(prediction, dataset)
    return counts


def _finish_eri(dataset: str, counts: Counter) -> dict:
    """Label agreement is over the rows whose gold names one emotion."""
    return {"label_agreement": metrics.ratio(counts["agree"], counts["named"])} | metrics.text_overlap(counts)


# Pairs: ecpe

ECPE = {"ecf": ("anger", "disgust", "fear", "joy", "sadness", "surprise")}
# Six digits are more than any conversation has; longer runs of digits are noise, and int() refuses very long ones.
_NUMBER = "(0|[1-9][0-9]{0,5})"
_PAIR = re.compile(rf"{_NUMBER}_({'|'.join(ECPE['ecf'])}),{_NUMBER}", re.ASCII)
# (?ai:…): without ASCII, ignoring case also takes "ſ" for "s"
_PAIR_LENIENT = re.compile(
    rf"(?<![0-9])([0-9]{{1,6}})\s*_\s*((?ai:{'|'.join(ECPE['ecf'])}))[\s\"'“”‘’,，]+([0-9]{{1,6}})(?![0-9])"
)


def _ecpe_target(gold: object, dataset: str) -> str:
    for index, emotion, cause in gold:
        if emotion not in _labels(ECPE, dataset) or not (0 <= index < 10**6 and 0 <= cause < 10**6):
            raise ValueError(f"{(index, emotion, cause)!r} is not an emotion-cause pair of {dataset}")
    return ";".join(f"{index}_{emotion},{cause}" for index, emotion, cause in gold)


def _ecpe_strict(response: object, dataset: str) -> tuple[Pair, ...] | None:
    if not isinstance(response, str):
        return None
    answer = response.strip()
    matches = [_PAIR.fullmatch(piece) for piece in answer.split(";")] if answer else []
    if None in matches:
        return None
    return tuple((int(index), emotion, int(cause)) for index, emotion, cause in (match.groups() for match in matches))


def _ecpe_lenient(response: object, dataset: str) -> tuple[Pair, ...] | None:
    """Every pair found in the text, whatever stands between them."""
    if not isinstance(response, str):
        return None
    if (exact := _ecpe_strict(response, dataset)) is not None:
        return exact
    found = _PAIR_LENIENT.findall(response)
    return tuple((int(index), emotion.lower(), int(cause)) for index, emotion, cause in found) or None


def _count_ecpe(dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
    counts = Counter()
    for key, count in metrics.paper_pair_counts(golds, predictions).items():
        counts["paper", *key] = count
    for key, count in metrics.semeval_pair_counts(golds, predictions, keys).items():
        counts["semeval", *key] = count
    return counts


def _finish_ecpe(dataset: str, counts: Counter) -> dict:
    result = {}
    for protocol in ("paper", "semeval"):
        own = Counter({key[1:]: count for key, count in counts.items() if key[0] == protocol})
        result[protocol] = metrics.set_scores(own, _labels(ECPE, dataset))
    return result


MSA = dict.fromkeys(("mosei", "meld", "mosi", "ecf"), SENTIMENT)
MER = {
    "meld": MELD,
    "mosei": tuple("Happy" if label == "Joy" else label for label in MELD),
    "ecf": MELD,
    "dfew": ("Happy", "Sad", "Neutral", "Anger", "Surprise", "Disgust", "Fear"),  # label 1-7 of its lists
    "mer2023": ("Neutral", "Anger", "Happy", "Sad", "Worried", "Surprise"),
}

TASKS: dict[str, Task] = {
    "msa": Task(
        "msa", "multimodal sentiment analysis", "<sentiment>", *_one_label(MSA), count=_count_msa, finish=_finish_msa
    ),
    "mer": Task(
        "mer", "multimodal emotion recognition", "<emotion>", *_one_label(MER), count=_count_mer, finish=_finish_mer
    ),
    "fer": Task(
        "fer",
        "facial expression recognition",
        "<face>",
        labels={},
        target=_fer_target,
        strict=_fer_strict,
        lenient=_fer_lenient,
        count=_count_fer,
        finish=_finish_fer,
    ),
    "eri": Task(
        "eri",
        "emotion reason inference",
        "<reason>",
        labels={},
        target=_text_target,
        strict=_text,
        lenient=_text,
        count=_count_eri,
        finish=_finish_eri,
    ),
    "ecpe": Task(
        "ecpe",
        "emotion-cause pair extraction",
        "",
        labels=ECPE,
        target=_ecpe_target,
        strict=_ecpe_strict,
        lenient=_ecpe_lenient,
        count=_count_ecpe,
        finish=_finish_ecpe,
    ),
}

# How an msa channel is read when its gold answers are scores ("1.4"): acc-7, MAE and correlation beside both Acc2.
SENTIMENT_SCORE = Task(
    "msa",
    "multimodal sentiment analysis, scores",
    "<sentiment>",
    labels={},
    target=_score_target,
    strict=_score_strict,
    lenient=_score_lenient,
    count=_count_score,
    finish=_finish_score,
)
