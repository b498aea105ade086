"""What a task is: the attributes and methods that one file of this folder fills in, and the parts that tasks share.

A response has two readings. Strict: the exact form of the target, outer white space aside. Lenient: the answer found in
the text, outside `<think>…</think>`. Whatever strict reads, lenient reads alike. None means unparsed; an unparsed
response is counted and never becomes a class. Where the authors of a task published a scorer there is a third,
official: as that script counts, its faults included, to compare with figures that were made with it.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from swift_plugins import metrics

Figures = dict[str, Any]


@dataclass(frozen=True)
class Gold:
    """A row to be built: its gold answer, the third part of its channel (`zero` of `mosei.msa.zero`), if any, and the
    key of its wording in configs/prompts.yaml where that is not the task's own (one of `Task.wordings`)."""

    answer: object
    part: str = ""
    wording: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A row that is not built, with the reason that the report counts."""

    reason: str


class Task:
    """One task: what is asked, how answers are written and read, what scores them.

    key: the second part of a channel. name: for people. identifier: the tag in the prompt ("" where there is none).
    fields: what its prompts may hold beside the fields of every task. wordings: keys of prompts beside its own.
    labels: per dataset, the labels as they are written in answers; empty where answers are not from a closed set.
    protocols: the ways of counting, each with a signature. headlines: (figure, words) to stand for a channel where
    there is no room for all, the first before all. table_1: rows that the paper counts. parts: third part of a channel
    → (part under which it is scored, mark of its rows). unit: what an answer of several parts is made of, "" for one
    label; member_name: what the figures per class are of. face_only: its picture is the peak frame whatever else the
    row's other tasks look at. judged: an LLM judge can mark its answers. has_distances: answers point to other
    lines, see `distances`. of_all: built of every dataset that has gold answers for it, and asked of clips of one's
    own; otherwise only where a reader names it.
    """

    key: str
    name: str
    identifier: str = ""
    fields: frozenset[str] = frozenset()
    wordings: tuple[str, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    protocols: tuple[str, ...]
    headlines: tuple[tuple[str, str], ...]
    table_1: int | None = None
    parts: Mapping[str, tuple[str, str]] = MappingProxyType({})
    unit: str = ""
    member_name: str = "class"
    face_only: bool = False
    judged: bool = False
    has_distances: bool = False
    of_all: bool = True
    gold_hint: str = ""  # what to look at when a gold answer cannot be read
    stand_in: str = ""  # the label that the authors' script counts where an answer is none

    # Building rows

    def golds(self, sample: Any, records: Mapping[str, dict], options: Any) -> Iterator[Gold | LeftOut]:
        """The rows of one sample (see `data_prep.readers.sample`): none, one, or the reason why there is none.

        records: the clip's record of `fer` and of `eri`, where there is one. options: those of the builder.
        """
        raise NotImplementedError

    def facts(self, sample: Any) -> dict[str, Any]:
        """What scorer and baselines need to know of a row; it travels in the row, from builder to result."""
        return {"dialogue": sample.dialogue} if sample.dialogue else {}

    def wording_of(self, dataset: str) -> str:
        """The key of its wording in configs/prompts.yaml: its own, but for sentiments of other labels."""
        return self.key

    # Writing and reading answers

    def add_labels(self, dataset: str, labels: tuple[str, ...]) -> None:
        """Take the labels of a dataset of one's own; ValueError for what cannot be read back from an answer."""
        if not isinstance(self.labels, dict):
            raise ValueError(f"answers of {self.key} are not from a set of labels")
        self.labels[dataset] = labels

    def target(self, gold: Any, dataset: str) -> str:
        """The gold answer as a row holds it; ValueError for a gold that the dataset does not have."""
        raise NotImplementedError

    def choices(self, dataset: str) -> list[str]:
        """The golds of which every answer is one, where they are a closed set that can be ranked; [] elsewhere."""
        return []

    def shown(self, answer: Any, dataset: str) -> str:
        """A prediction, or the gold as scoring knows it, in the words of an answer."""
        return self.target(answer, dataset)

    def strict(self, response: object, dataset: str) -> Any:
        """The prediction, of the same type as gold, or None; a response that is not a string is unparsed."""
        raise NotImplementedError

    def lenient(self, response: object, dataset: str) -> Any:
        """As `strict`, reading more."""
        raise NotImplementedError

    def official(self, response: object, dataset: str) -> Any:
        """The prediction as the authors' own script reads it, None where it puts `stand_in` in the answer's place; only
        where `official_of` names a script."""
        raise NotImplementedError

    def official_of(self, part: str) -> str:
        """Whose script the official reading follows, in a channel with this third part; "" where there is none."""
        return ""

    def of_part(self, part: str) -> Task:
        """The task that reads channels with this third part: itself, but for sentiment in three classes."""
        return self

    def variant(self, gold: object, dataset: str) -> Task:
        """The task that reads a channel whose first gold answer is this one.

        Itself, but for numeric sentiment, and for label sets that no published script or figure knows.
        """
        return self

    # Figures

    def row_key(self, facts: Mapping[str, Any], mark: str, gold: Any) -> Any:
        """What `count` and `baselines` need of a row beside its answers; hashable and small."""
        return mark

    def counts_answer(self, mark: str) -> bool:
        """Whether the response of a row with this mark is read at all."""
        return True

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        """Additive counts (see `swift_plugins.metrics`); rows of one dialogue must be counted together."""
        raise NotImplementedError

    def finish(self, dataset: str, counts: Counter) -> Figures:
        """{figure: fraction} beside `per_class`, or one such dict per protocol."""
        raise NotImplementedError

    def score(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Figures:
        """`finish` of `count`."""
        return self.finish(dataset, self.count(dataset, golds, predictions, keys))

    def score_official(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Figures:
        """The figures of official predictions, `stand_in` for those that are None."""
        predictions = [self.stand_in if prediction is None else prediction for prediction in predictions]
        return self.score(dataset, golds, predictions, keys)

    def remarks(self, block: Figures) -> list[str]:
        """Sentences to stand under a channel's figures (`scores.score_channel`): what one needs to compare them."""
        return []

    def protocols_of(self, part: str) -> tuple[str, ...]:
        """The protocols under which a channel with this third part can be scored."""
        return self.protocols

    def sizes(self, keys: Sequence) -> dict[str, tuple[int, str]]:
        """Sizes beside n: {JSON key: (rows, words)}."""
        return {}

    def baselines(self, golds: Sequence, keys: Sequence) -> dict[str, list]:
        """Predictions that need no model: {name: one per row}. ValueError says what is not known for them."""
        return {}

    # Comparing one answer

    def members(self, answer: Any) -> set:
        """The parts of an answer that are compared one by one."""
        return {answer}

    def length(self, answer: Any) -> int:
        """How many `unit`s an answer has."""
        return len(answer)

    def distances(self, answer: Any) -> list[int]:
        """Where causes stand relative to their target: 0 is the target itself, negative is earlier."""
        return []

    def wrongness(self, gold: Any, prediction: Any) -> float:
        """How wrong an answer of several parts is: parts missed plus parts invented."""
        return len(self.members(gold) ^ self.members(prediction))

    def describe_wrongness(self, wrongness: float) -> str:
        """`wrongness` in words, "" where the number says nothing."""
        return f"{wrongness:.0f} {self.member_name}{'s' if wrongness > 1 else ''} wrong"

    def reward(self, gold: Any, prediction: Any, dataset: str) -> float | None:
        """1 for a right answer, 0 for a wrong or unparsed one, None where nothing can be said."""
        return float(prediction is not None and self.members(prediction) == self.members(gold))

    # The reward of ms-swift's GRPO for answers of several parts, "" where there is none: F1 of `members`.
    part_reward: str = ""


class LabelTask(Task):
    """A task whose answer is one label of a closed set: `Surprise.`

    plain: datasets whose rows were not built here, and may write a label without the full stop. bare: datasets whose
    answers are the label alone, `happy`.
    """

    plain: set[str] = set()
    bare: set[str] = set()

    def facts(self, sample: Any) -> dict[str, Any]:
        """The transcript, too: `data_prep.eri` makes reasons from these rows."""
        return super().facts(sample) | {"transcript": sample.text}

    def target(self, gold: Any, dataset: str) -> str:
        for label in self.labels_of(dataset):
            if label.lower() == gold:
                return label if dataset in self.bare else f"{label}."
        raise ValueError(f"{gold!r} is not a label of {dataset}: {', '.join(self.labels_of(dataset)).lower()}")

    def choices(self, dataset: str) -> list[str]:
        return self.classes(dataset) if dataset in self.labels else []

    def strict(self, response: object, dataset: str) -> str | None:
        if not isinstance(response, str):
            return None
        answer = response.strip()
        exact = ("{}",) if dataset in self.bare else ("{}.", "{}") if dataset in self.plain else ("{}.",)
        labels = self.labels_of(dataset)
        return next((label.lower() for label in labels if answer in [form.format(label) for form in exact]), None)

    def lenient(self, response: object, dataset: str) -> str | None:
        return label_in(response, self.labels_of(dataset))

    def labels_of(self, dataset: str) -> tuple[str, ...]:
        """The dataset's labels; ValueError where it has none."""
        try:
            return self.labels[dataset]
        except KeyError:
            raise ValueError(f"no label set for dataset {dataset!r}: it is one of {', '.join(self.labels)}") from None

    def classes(self, dataset: str) -> list[str]:
        """The labels as predictions name them."""
        return [label.lower() for label in self.labels_of(dataset)]

    def baselines(self, golds: Sequence, keys: Sequence) -> dict[str, list]:
        return {"majority": [majority(golds)] * len(golds)}


def in_lower_case(response: object, words: Sequence[str]) -> str | None:
    """MMEVerse's script: the whole answer in lower case, None where it is none of the words as they are written.

    Labels with capitals are no such answer, and never right.
    """
    answer = response.strip().lower() if isinstance(response, str) else ""
    return answer if answer in words else None


def majority(golds: Sequence) -> Any:
    """The commonest gold answer, the first in order among equals."""
    return max(sorted(Counter(golds).items()), key=lambda item: item[1])[0]


def label_in(text: object, labels: tuple[str, ...]) -> str | None:
    """The one label that a text names, any case, any punctuation; None when it names none or several, or denies one."""
    if not isinstance(text, str):
        return None
    text = without_reasoning(text)
    found = set()
    for match in _pattern(labels).finditer(text):
        if _NEGATION.search(text, max(0, match.start() - 24), match.start()):
            return None
        found.add(labels[int((match.lastgroup or "")[1:])].lower())
    return found.pop() if len(found) == 1 else None


# "not positive", "isn't really positive", "non-negative", "neither joy", "不太开心": what stands right before a label
# denies it.
_NEGATION = re.compile(
    r"(?:(?:\b(?:not|no|never|neither|nor|without|non|cannot)|n['’]t)"
    r"(?:[\s*_\"-]+(?:a|an|the|very|really|so|at all))?"
    r"|[不没沒非无無未](?:是|有|会|太|很|怎么|那么|算|够|再|感到|觉得|感觉|显得){0,3})[\s*_\"“「-]*\Z",
    re.IGNORECASE,
)
_REASONING = ("think", "thinking", "reasoning")


def without_reasoning(text: str) -> str:
    """What an answer says after it has thought: what stands behind the last `</think>`."""
    for tag in _REASONING:
        if f"</{tag}>" in text:
            text = text.rpartition(f"</{tag}>")[2]
    return text


# Scripts that put no space between words: a label of theirs, or beside one of theirs, needs no boundary.
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"


@functools.cache
def _pattern(labels: tuple[str, ...]) -> re.Pattern:
    """Any of the labels, the longest where one begins like another; the group's name is the label's number."""
    # `_` counts as punctuation (markdown's _joy_), so \b would not do. A label of ASCII letters ignores ASCII case
    # only: "ſ" is not taken for "s".
    letter = rf"[^\W_{_UNSPACED}]"
    spaced = re.compile(letter)
    parts = []
    for number, label in sorted(enumerate(labels), key=lambda item: -len(item[1])):
        before = rf"(?<!{letter})" if spaced.match(label[0]) else ""
        after = rf"(?!{letter})" if spaced.match(label[-1]) else ""
        parts.append(rf"(?P<_{number}>{before}(?{'ai' if label.isascii() else 'i'}:{re.escape(label)}){after})")
    return re.compile("|".join(parts))


def set_f1(gold: Iterable, prediction: Iterable) -> float:
    """F1 of two sets; 1 when both are empty."""
    gold, prediction = set(gold), set(prediction)
    if not gold and not prediction:
        return 1.0
    return metrics.prf(len(gold & prediction), len(prediction), len(gold))["f1"]
