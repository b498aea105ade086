"""Descriptions: what is heard in a clip (`audio`) and what is seen of it (`image`), in free text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swift_plugins import metrics
from swift_plugins.tasks.eri import Text
from swift_plugins.tasks.task import Figures, Gold, LeftOut

MOST = 120  # words; Emotion-LLaMAv2 does not train on longer ones


class Description(Text):
    """Answers are free text, compared by their words."""

    protocols = ("text",)
    headlines = (("rouge_l", "ROUGE-L"),)
    of_all = False

    def __init__(self, key: str, name: str, identifier: str):
        self.key, self.name, self.identifier = key, name, identifier

    def golds(self, sample: Any, records: Mapping[str, dict], options: Any) -> Iterator[Gold | LeftOut]:
        if sample.descriptions is None or self.key not in sample.descriptions:
            return
        text = sample.descriptions[self.key].strip()
        if not text:
            yield LeftOut("no description")
        elif len(text.split()) > MOST:
            yield LeftOut(f"a description of more than {MOST} words")
        else:
            yield Gold(text)

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        return metrics.text_counts(golds, predictions)

    def finish(self, dataset: str, counts: Counter) -> Figures:
        return metrics.text_overlap(counts)

    def reward(self, gold: Any, prediction: Any, dataset: str) -> float | None:
        """None: other words are not wrong."""
        return None


# <audio> and <image> would be ms-swift's own: the places of media.
AUDIO = Description("audio", "description of what is heard", "<heard>")
IMAGE = Description("image", "description of what is seen", "<seen>")
