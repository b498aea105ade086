"""ERI, emotion reason inference: why somebody feels so, in free text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swift_plugins import metrics
from swift_plugins.tasks import mer
from swift_plugins.tasks.task import Figures, Gold, LeftOut, Task, label_in


def emotion_in(text: object, dataset: str) -> str | None:
    """The one emotion that a free text names, None when it names none or several."""
    return label_in(text, mer.TASK.labels.get(dataset, mer.MELD))


class Text(Task):
    """A task whose answers are free text; any but a blank one is read."""

    unit = "words"

    def target(self, gold: Any, dataset: str) -> str:
        if not isinstance(gold, str) or not gold.strip():
            raise ValueError("an empty reason cannot be a target")
        return gold.strip()

    def strict(self, response: object, dataset: str) -> str | None:
        return response.strip() or None if isinstance(response, str) else None

    lenient = strict

    def members(self, answer: Any) -> set:
        return set(re.findall(r"\w+", answer.lower()))

    def length(self, answer: Any) -> int:
        return len(answer.split())

    def wrongness(self, gold: Any, prediction: Any) -> float:
        """The share of words that the two do not have in common."""
        ours, theirs = self.members(gold), self.members(prediction)
        return 1 - metrics.ratio(len(ours & theirs), len(ours | theirs))

    def describe_wrongness(self, wrongness: float) -> str:
        return ""


class Eri(Text):
    """Answers are free text; the emotion that they name is compared, too."""

    key = "eri"
    name = "emotion reason inference"
    identifier = "<reason>"
    protocols = ("text",)
    headlines = (("label_agreement", "label agreement"), ("rouge_l", "ROUGE-L"))
    table_1 = 4_839
    judged = True

    def golds(self, sample: Any, records: Mapping[str, dict], options: Any) -> Iterator[Gold | LeftOut]:
        if reason := records.get("eri", {}).get("reason"):
            yield Gold(reason)

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        counts = metrics.text_counts(golds, predictions)
        for gold, prediction in zip(golds, predictions, strict=True):
            if named := emotion_in(gold, dataset):
                counts["named"] += 1
                counts["agree"] += named == emotion_in(prediction, dataset)
        return counts

    def finish(self, dataset: str, counts: Counter) -> Figures:
        """Label agreement is over the rows whose gold names one emotion."""
        return {"label_agreement": metrics.ratio(counts["agree"], counts["named"])} | metrics.text_overlap(counts)

    def reward(self, gold: Any, prediction: Any, dataset: str) -> float | None:
        """Whether the reason names the gold's emotion; None for a gold that names no single one."""
        emotion = emotion_in(gold, dataset)
        return None if emotion is None else float(emotion_in(prediction, dataset) == emotion)


TASK = Eri()
