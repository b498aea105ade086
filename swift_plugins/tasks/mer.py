"""MER, multimodal emotion recognition: one label of the dataset's own set, `Surprise.`"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swift_plugins import metrics
from swift_plugins.tasks.task import Figures, Gold, LabelTask, LeftOut, Task, in_lower_case

# The labels of MERR, in the order in which Emotion-LLaMA's prompt lists them; the first six are those of MER2023.
MERR = ("happy", "sad", "neutral", "angry", "worried", "surprise", "fear", "contempt", "doubt")
MELD = ("Anger", "Sadness", "Surprise", "Disgust", "Joy", "Neutral", "Fear")


class Mer(LabelTask):
    """Answers are one label of the dataset's own set."""

    key = "mer"
    name = "multimodal emotion recognition"
    identifier = "<emotion>"
    labels = {
        "meld": MELD,
        "mosei": tuple("Happy" if label == "Joy" else label for label in MELD),
        "ecf": MELD,
        "dfew": ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"),  # label 1-7 of its lists
        "mer2023": MERR[:6],
        "merr": MERR,
        "merr_coarse": MERR,
    }
    bare = {"dfew", "mer2023", "merr", "merr_coarse"}
    stand_in = "neutral"
    protocols = ("labels",)
    headlines = (("weighted_f1", "weighted F1"), ("accuracy", "accuracy"))
    table_1 = 25_859

    def golds(self, sample: Any, records: Mapping[str, dict], options: Any) -> Iterator[Gold | LeftOut]:
        emotion = sample.gold_emotion or sample.emotion
        yield LeftOut("no emotion label") if emotion is None else Gold(emotion)

    def official(self, response: object, dataset: str) -> str | None:
        """EmoVerse's script: whatever is not exactly one of the labels is neutral."""
        return next((label.lower() for label in self.labels_of(dataset) if response == f"{label}."), None)

    def official_of(self, part: str) -> str:
        return "EmoVerse"

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        return metrics.confusion(golds, predictions)

    def finish(self, dataset: str, counts: Counter) -> Figures:
        return metrics.classification(counts, self.classes(dataset))

    def variant(self, gold: object, dataset: str) -> Task:
        return VARIANTS.get(dataset, self if dataset in PUBLISHED else OWN)


class Mer2023(Mer):
    """MER2023-SEMI as Emotion-LLaMA is scored on it: accuracy, weighted precision, recall and F1 over six labels."""

    name = "multimodal emotion recognition, MER2023-SEMI"
    protocols = ("mer2023",)

    def official(self, response: object, dataset: str) -> str | None:
        """Emotion-LLaMA's eval_emotion.py (e3396fb): the last word between spaces, in lower case only, else neutral."""
        last = response.strip().split(" ")[-1] if isinstance(response, str) else None
        return last if last in self.labels_of(dataset) else None

    def official_of(self, part: str) -> str:
        return "Emotion-LLaMA"

    def finish(self, dataset: str, counts: Counter) -> Figures:
        figures = super().finish(dataset, counts)
        table = figures["per_class"]
        return {"accuracy": figures["accuracy"], **metrics.weighted(table, counts.total()), "per_class": table}

    def remarks(self, block: Figures) -> list[str]:
        """How many answers the published script turns into neutral."""
        label, n, right = block["stand_in"].values()
        return [
            f"official: {n:,} answers whose last word is no label count as {label}, {right:,} of them as right by that "
            "(a fault of the published script; strict and lenient never do so)"
        ]


class OfMmeverse(Mer):
    """A set of MMEVerse: accuracy and weighted F1."""

    name = "multimodal emotion recognition, MMEVerse"
    stand_in = ""

    def official(self, response: object, dataset: str) -> str | None:
        return in_lower_case(response, self.labels_of(dataset))

    def official_of(self, part: str) -> str:
        return "MMEVerse"


class Dfew(Mer):
    """DFEW: UAR, the mean recall of the classes that have gold, and WAR, which is accuracy.

    The script behind Emotion-LLaMA's figures was not published: there is no official reading.
    """

    name = "multimodal emotion recognition, DFEW"
    protocols = ("dfew",)
    headlines = (("uar", "UAR"), ("war", "WAR"))

    def official_of(self, part: str) -> str:
        return ""

    def finish(self, dataset: str, counts: Counter) -> Figures:
        figures = super().finish(dataset, counts)
        return {"uar": figures.pop("uar"), "war": figures.pop("accuracy")} | figures

    def remarks(self, block: Figures) -> list[str]:
        """Which classes the mean of recalls is without."""
        table = block["per_class"]["strict"]
        if not (absent := [label for label, row in table.items() if not row["support"]]):
            return []
        there = len(table) - len(absent)
        return [
            f"no gold answer is {' or '.join(absent)}: UAR is the mean of {there} recalls; with 0 for a class without "
            f"gold it would be {100 * block['strict']['uar'] * there / len(table):.2f} (strict)"
        ]


class OwnMer(Mer):
    """How a dataset of one's own is read: no published script scores it."""

    def official_of(self, part: str) -> str:
        return ""


PUBLISHED = frozenset(Mer.labels) - frozenset(Mer.bare)  # which EmoVerse's script can score
OWN = OwnMer()
VARIANTS: dict[str, Mer] = {"mer2023": Mer2023(), "dfew": Dfew()}
MMEVERSE = OfMmeverse()
TASK = Mer()
