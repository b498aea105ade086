"""Multi-label emotion recognition: every label of a closed set that applies, `anger; disgust`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swift_plugins import metrics
from swift_plugins.tasks.task import Figures, Gold, LabelTask, LeftOut, set_f1, without_reasoning

_SEPARATOR = re.compile(r"[;,；，、\n]|\band\b")


class Mlmer(LabelTask):
    """Answers are tuples of labels, in lower case, in the order of the set."""

    key = "mlmer"
    name = "multi-label emotion recognition"
    identifier = "<emotions>"
    labels: Mapping[str, tuple[str, ...]] = {}
    protocols = ("multi-label",)
    headlines = (("micro_f1", "micro-F1"), ("jaccard", "Jaccard"))
    unit = "labels"
    member_name = "label"
    of_all = False

    def golds(self, sample: Any, records: Mapping[str, dict], options: Any) -> Iterator[Gold | LeftOut]:
        if sample.emotions is not None:
            yield Gold(sample.emotions) if sample.emotions else LeftOut("no emotion label")

    def target(self, gold: Any, dataset: str) -> str:
        known = self.classes(dataset)
        for label in gold:
            if label not in known:
                raise ValueError(f"{label!r} is not a label of {dataset}: {', '.join(known)}")
        if not gold:
            raise ValueError("no label cannot be a target")
        return "; ".join(label for label in self.labels_of(dataset) if label.lower() in gold)

    def choices(self, dataset: str) -> list[str]:
        """None: any set of labels is an answer."""
        return []

    def strict(self, response: object, dataset: str) -> Any:
        """Labels as the set writes them between `;` or `,`, with a space or without, as owners do; none twice."""
        if not isinstance(response, str):
            return None
        labels, pieces = self.labels_of(dataset), re.split("[;,] ?", response.strip())
        if len(set(pieces)) < len(pieces) or not set(pieces) <= set(labels):
            return None
        return tuple(label.lower() for label in labels if label in pieces)

    def lenient(self, response: object, dataset: str) -> Any:
        """The labels that stand by themselves between commas, semicolons, line ends or `and`; others are skipped."""
        if not isinstance(response, str):
            return None
        pieces = {piece.strip(" .!*\"'[]-_").lower() for piece in _SEPARATOR.split(without_reasoning(response))}
        return tuple(label for label in self.classes(dataset) if label in pieces) or None

    def official(self, response: object, dataset: str) -> Any:
        """MMEVerse's script: whatever stands between `;` and `,`, in lower case."""
        pieces = re.split("[;,]", response) if isinstance(response, str) else []
        return tuple(sorted({word for piece in pieces if (word := piece.strip().lower())}))

    def official_of(self, part: str) -> str:
        return "MMEVerse"

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        return metrics.several_counts(golds, predictions)

    def finish(self, dataset: str, counts: Counter) -> Figures:
        figures = metrics.several(counts, self.classes(dataset))
        del figures["invented_per_answer"]  # the readings know no others
        return figures

    def score_official(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Figures:
        """Over the classes that the gold has; labels that were made up cost nothing, and are counted."""
        return metrics.several(self.count(dataset, golds, predictions, keys))

    def remarks(self, block: Figures) -> list[str]:
        """How many labels were made up."""
        number = round(block["official"]["invented_per_answer"] * block["n"])
        return [f"official: {number:,} labels of answers are none of the gold's, and cost nothing in F1 and mAP"]

    def members(self, answer: Any) -> set:
        return set(answer)

    def reward(self, gold: Any, prediction: Any, dataset: str) -> float | None:
        """F1 of the labels."""
        return 0.0 if prediction is None else set_f1(gold, prediction)

    def baselines(self, golds: Sequence, keys: Sequence) -> dict[str, list]:
        everything = tuple(sorted({label for gold in golds for label in gold}))
        return super().baselines(golds, keys) | {"all labels": [everything] * len(golds)}


TASK = Mlmer()
