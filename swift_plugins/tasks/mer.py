"""MER, multimodal emotion recognition: one label of the dataset's own set, `Surprise.`"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swift_plugins import metrics
from swift_plugins.tasks.task import Figures, Gold, LabelTask, LeftOut, Task

# The labels of MERR, in the order in which Emotion-LLaMA's prompt lists them.
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
        "dfew": ("Happy", "Sad", "Neutral", "Anger", "Surprise", "Disgust", "Fear"),  # label 1-7 of its lists
        "mer2023": ("Neutral", "Anger", "Happy", "Sad", "Worried", "Surprise"),
        "merr": MERR,
        "merr_coarse": MERR,
    }
    bare = frozenset(("merr", "merr_coarse"))
    protocols = ("labels",)
    headlines = (("weighted_f1", "weighted F1"), ("accuracy", "accuracy"))
    table_1 = 25_859

    def golds(self, sample: Any, records: Mapping[str, dict], options: Any) -> Iterator[Gold | LeftOut]:
        emotion = sample.gold_emotion or sample.emotion
        yield LeftOut("no emotion label") if emotion is None else Gold(emotion)

    def facts(self, sample: Any) -> dict[str, Any]:
        """The transcript, too: `data_prep.eri` makes reasons from these rows."""
        return super().facts(sample) | {"transcript": sample.text}

    def official(self, response: object, dataset: str) -> str:
        """EmoVerse's script: whatever is not exactly one of the labels is neutral."""
        return next((label.lower() for label in self.labels_of(dataset) if response == f"{label}."), "neutral")

    def official_of(self, part: str) -> str:
        return "EmoVerse"

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        return metrics.confusion(golds, predictions)

    def finish(self, dataset: str, counts: Counter) -> Figures:
        return metrics.classification(counts, self.classes(dataset))

    def variant(self, gold: object, dataset: str) -> Task:
        return self if dataset in PUBLISHED else OWN


class OwnMer(Mer):
    """How a dataset of one's own is read: no published script scores it."""

    def official_of(self, part: str) -> str:
        return ""


PUBLISHED = frozenset(Mer.labels) - Mer.bare  # nobody scored MERR, which is for training
OWN = OwnMer()
TASK = Mer()
