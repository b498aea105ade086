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
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from swift_plugins import metrics

FACS = Path(__file__).resolve().parents[1] / "configs" / "facs.yaml"

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
    score(dataset, golds, predictions, keys) -> {metric: fraction}: `keys` says per row what the metric needs beside
        the answers: for msa whether the clip's sentiment is zero, for ecpe its conversation; unused by the others.
    """

    key: str
    name: str
    identifier: str
    labels: dict[str, tuple[str, ...]]
    target: Callable[[object, str], str]
    strict: Callable[[object, str], object | None]
    lenient: Callable[[object, str], object | None]
    score: Callable[[str, Sequence, Sequence, Sequence], dict]


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
    # `_` counts as punctuation (markdown's _joy_), so \b would not do
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(labels)})(?![^\W_])", re.IGNORECASE | re.ASCII)


def _label_lenient(task: dict, response: object, dataset: str) -> str | None:
    if not isinstance(response, str):
        return None
    found = {match.lower() for match in _label_pattern(_labels(task, dataset)).findall(response)}
    return found.pop() if len(found) == 1 else None


def _one_label(labels: dict[str, tuple[str, ...]]) -> dict:
    """The three functions of a task whose answer is one label."""
    return {
        "labels": labels,
        "target": functools.partial(_label_target, labels),
        "strict": functools.partial(_label_strict, labels),
        "lenient": functools.partial(_label_lenient, labels),
    }


def _score_msa(dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> dict:
    return metrics.binary_sentiment(golds, predictions, keys)


def _score_mer(dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> dict:
    return metrics.classification(golds, predictions, [label.lower() for label in MER[dataset]])


# AU phrases: fer


@functools.cache
def phrase_to_au(facs: Path = FACS) -> dict[str, str]:
    """Phrase in lower case → AU ("lifted cheeks" → "AU06"), from configs/facs.yaml."""
    table = yaml.safe_load(facs.read_text(encoding="utf-8"))
    return {phrase.lower(): au for au, entry in table["aus"].items() for phrase in entry["phrases"]}


def _fer_target(gold: object, dataset: str) -> str:
    phrases = tuple(gold)
    for phrase in phrases:
        if not phrase or phrase != phrase.strip() or ";" in phrase:
            raise ValueError(f"{phrase!r} cannot be one of several phrases joined by '; '")
    return "; ".join(phrases)


def _fer_strict(response: object, dataset: str) -> tuple[str, ...] | None:
    if not isinstance(response, str):
        return None
    pieces = tuple(response.strip().split("; ")) if response.strip() else ()
    return pieces if all(piece in phrase_to_au() for piece in pieces) else None


def _fer_lenient(response: object, dataset: str) -> tuple[str, ...] | None:
    """Known phrases wherever `;`, `,` or a line end separates them; unknown pieces are skipped."""
    if not isinstance(response, str):
        return None
    if (exact := _fer_strict(response, dataset)) is not None:
        return exact
    pieces = (" ".join(piece.split()).strip(" .!-*\"'").lower() for piece in re.split(r"[;,\n]", response))
    return tuple(piece for piece in pieces if piece in phrase_to_au()) or None


def _score_fer(dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> dict:
    table = phrase_to_au()

    def aus(phrases: Sequence[str] | None) -> set[str]:
        return {table[phrase] for phrase in phrases or ()}

    return metrics.set_overlap([aus(gold) for gold in golds], [aus(prediction) for prediction in predictions])


# Free text: eri


def _text_target(gold: object, dataset: str) -> str:
    if not isinstance(gold, str) or not gold.strip():
        raise ValueError("an empty reason cannot be a target")
    return gold.strip()


def _text(response: object, dataset: str) -> str | None:
    return response.strip() or None if isinstance(response, str) else None


def _score_eri(dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> dict:
    """Agreement of the one emotion that gold and response name, over the rows whose gold names one."""
    labels = MER.get(dataset, MELD)
    named = [_label_lenient({dataset: labels}, gold, dataset) for gold in golds]
    pairs = [
        (gold, prediction and _label_lenient({dataset: labels}, prediction, dataset))
        for gold, prediction in zip(named, predictions, strict=True)
        if gold
    ]
    agreement = metrics.ratio(sum(gold == prediction for gold, prediction in pairs), len(pairs))
    return {"label_agreement": agreement, "label_n": len(pairs)} | metrics.text_overlap(golds, predictions)


# Pairs: ecpe

ECPE = {"ecf": ("anger", "disgust", "fear", "joy", "sadness", "surprise")}
# Six digits are more than any conversation has; longer runs of digits are noise, and int() refuses very long ones.
_NUMBER = "(0|[1-9][0-9]{0,5})"
_PAIR = re.compile(rf"{_NUMBER}_({'|'.join(ECPE['ecf'])}),{_NUMBER}", re.ASCII)
_PAIR_LENIENT = re.compile(
    rf"(?<![0-9])([0-9]{{1,6}})\s*_\s*({'|'.join(ECPE['ecf'])})[\s\"',]+([0-9]{{1,6}})(?![0-9])", re.IGNORECASE
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


def _score_ecpe(dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> dict:
    return {
        "paper": metrics.pairs_paper(golds, predictions, _labels(ECPE, dataset)),
        "semeval": metrics.pairs_semeval(golds, predictions, keys, _labels(ECPE, dataset)),
    }


MSA = dict.fromkeys(("mosei", "meld", "mosi", "ecf"), SENTIMENT)
MER = {
    "meld": MELD,
    "mosei": tuple("Happy" if label == "Joy" else label for label in MELD),
    "ecf": MELD,
    "dfew": ("Happy", "Sad", "Neutral", "Anger", "Surprise", "Disgust", "Fear"),  # label 1-7 of its lists
    "mer2023": ("Neutral", "Anger", "Happy", "Sad", "Worried", "Surprise"),
}

TASKS: dict[str, Task] = {
    task.key: task
    for task in (
        Task("msa", "multimodal sentiment analysis", "<sentiment>", score=_score_msa, **_one_label(MSA)),
        Task("mer", "multimodal emotion recognition", "<emotion>", score=_score_mer, **_one_label(MER)),
        Task("fer", "facial expression recognition", "<face>", {}, _fer_target, _fer_strict, _fer_lenient, _score_fer),
        Task("eri", "emotion reason inference", "<reason>", {}, _text_target, _text, _text, _score_eri),
        Task("ecpe", "emotion-cause pair extraction", "", ECPE, _ecpe_target, _ecpe_strict, _ecpe_lenient, _score_ecpe),
    )
}
