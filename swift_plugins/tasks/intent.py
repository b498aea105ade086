"""Intent recognition: what somebody wants to achieve by saying this, one label of a closed set, `questioning`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swift_plugins import metrics
from swift_plugins.tasks.task import Figures, Gold, LabelTask, LeftOut, in_lower_case


class Intent(LabelTask):
    """Answers are one label."""

    key = "intent"
    name = "intent recognition"
    identifier = "<intent>"
    labels: Mapping[str, tuple[str, ...]] = {}
    bare: set[str] = set()
    protocols = ("labels",)
    headlines = (("weighted_f1", "weighted F1"), ("accuracy", "accuracy"))
    of_all = False

    def golds(self, sample: Any, records: Mapping[str, dict], options: Any) -> Iterator[Gold | LeftOut]:
        if sample.intent is not None:
            yield Gold(sample.intent)

    def official(self, response: object, dataset: str) -> str | None:
        return in_lower_case(response, self.labels_of(dataset))

    def official_of(self, part: str) -> str:
        return "MMEVerse"

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        return metrics.confusion(golds, predictions)

    def finish(self, dataset: str, counts: Counter) -> Figures:
        return metrics.classification(counts, self.classes(dataset))


TASK = Intent()
