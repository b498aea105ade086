"""MSA, multimodal sentiment analysis: `Positive.` or `Negative.`, or a score (`build_amt --msa score`)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swift_plugins import metrics
from swift_plugins.tasks.task import Figures, Gold, LabelTask, LeftOut, Task, without_reasoning

ZERO = "zero"
BINARY = ("Positive", "Negative")


class Msa(LabelTask):
    """Answers are positive or negative; `variant` reads a channel whose gold answers are scores."""

    key = "msa"
    name = "multimodal sentiment analysis"
    identifier = "<sentiment>"
    labels = dict.fromkeys(("mosei", "meld", "mosi"), BINARY)
    wordings = ("msa_score", "msa_three", "msa_labels")
    protocols = ("acc2",)
    headlines = (("acc2_has0", "Acc2 negative / non-negative"), ("acc2_non0", "Acc2 negative / positive"))
    table_1 = 25_859
    stand_in = "negative"
    parts = {ZERO: ("", ZERO)}  # one inference gives both Acc2: without zero, and with zero as non-negative

    def golds(self, sample: Any, records: Mapping[str, dict], options: Any) -> Iterator[Gold | LeftOut]:
        if sample.sentiment is None:
            return
        if self.wording_of(sample.dataset) != self.key:
            yield Gold(sample.sentiment)
            return
        neutral = sample.sentiment == "neutral"
        if options.msa == "three":
            yield Gold(sample.sentiment, "three", "msa_three")
        elif options.msa == "score" and sample.score is not None:
            yield Gold(sample.score, ZERO if neutral and sample.split != "train" else "", "msa_score")
        elif neutral and sample.split != "train":
            yield Gold("positive", ZERO)
        elif neutral and options.neutral == "drop":
            yield LeftOut("neutral sentiment (--neutral drop)")
        else:
            yield Gold("positive" if neutral else sample.sentiment)

    def wording_of(self, dataset: str) -> str:
        """A set of other labels than Positive and Negative is asked for in general, and scored as classes."""
        labels = {label.lower() for label in self.labels.get(dataset, BINARY)}
        return self.key if labels == {label.lower() for label in BINARY} else "msa_labels"

    def add_labels(self, dataset: str, labels: tuple[str, ...]) -> None:
        super().add_labels(dataset, labels)
        THREE.labels[dataset] = ("Positive", "Neutral", "Negative")  # build_amt --msa three

    def target(self, gold: Any, dataset: str) -> str:
        return SCORE.target(gold, dataset) if isinstance(gold, float) else super().target(gold, dataset)

    def official(self, response: object, dataset: str) -> str | None:
        """EmoVerse's script: whatever is not exactly `Positive.` is negative."""
        return {"Positive.": "positive", "Negative.": "negative"}.get(response) if isinstance(response, str) else None

    def official_of(self, part: str) -> str:
        return "EmoVerse"

    def of_part(self, part: str) -> Task:
        return THREE if part == "three" else self

    def variant(self, gold: object, dataset: str) -> Task:
        if self.wording_of(dataset) != self.key:
            return CLASSES
        return self if SCORE.strict(gold, dataset) is None else SCORE

    def row_key(self, facts: Mapping[str, Any], mark: str, gold: Any) -> bool:
        """Whether the clip's sentiment is zero."""
        return mark == ZERO or gold == 0

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        return metrics.sentiment_counts(golds, predictions, keys)

    def finish(self, dataset: str, counts: Counter) -> Figures:
        return metrics.sentiment(counts, self.classes(dataset))

    def sizes(self, keys: Sequence) -> dict[str, tuple[int, str]]:
        return {"n_non0": (keys.count(False), "not zero")}

    def baselines(self, golds: Sequence, keys: Sequence) -> dict[str, list]:
        return super().baselines(golds, keys) | {"always positive": ["positive"] * len(golds)}


class MsaScore(Msa):
    """How an msa channel is read when its gold answers are scores ("1.4"): acc-7, MAE, correlation, both Acc2."""

    name = "multimodal sentiment analysis, scores"
    labels = {}

    def target(self, gold: Any, dataset: str) -> str:
        return f"{gold:.6f}".rstrip("0").removesuffix(".")

    def strict(self, response: object, dataset: str) -> Any:
        exact = isinstance(response, str) and re.fullmatch(r"\s*([+-]?[0-9]{1,3}(?:\.[0-9]{1,20})?)\s*", response)
        return float(exact[1]) if exact else None

    def lenient(self, response: object, dataset: str) -> Any:
        if not isinstance(response, str):
            return None
        text = without_reasoning(response).replace("\u2212", "-")  # the minus sign that is no hyphen
        found = set(re.findall(r"(?<![\w.])[+-]?[0-9]{1,3}(?:\.[0-9]{1,20})?(?![\w]|\.[0-9])", text))
        return float(found.pop()) if len(found) == 1 else None

    def official_of(self, part: str) -> str:
        return ""

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        return metrics.score_counts(golds, predictions)

    def finish(self, dataset: str, counts: Counter) -> Figures:
        return metrics.scores(counts)

    def baselines(self, golds: Sequence, keys: Sequence) -> dict[str, list]:
        return {"mean score": [sum(golds) / len(golds)] * len(golds)}


class MsaClasses(LabelTask):
    """How an msa channel of other labels than Positive and Negative is read: as classes."""

    key = "msa"
    name = "multimodal sentiment analysis, classes"
    identifier = "<sentiment>"
    labels = Msa.labels
    protocols = ("labels",)
    headlines = (("weighted_f1", "weighted F1"), ("accuracy", "accuracy"))

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        return metrics.confusion(golds, predictions)

    def finish(self, dataset: str, counts: Counter) -> Figures:
        return metrics.classification(counts, self.classes(dataset))


class MsaThree(MsaClasses):
    """Sentiment in three classes (`build_amt --msa three`, and the sets of MMEVerse), channel `<dataset>.msa.three`."""

    name = "multimodal sentiment analysis, three classes"
    labels = dict.fromkeys(Msa.labels, ("Positive", "Neutral", "Negative"))
    bare: set[str] = set()
    protocols = ("three",)

    def variant(self, gold: object, dataset: str) -> Task:
        return VARIANTS.get(dataset, self)


class OfMmeverse(MsaThree):
    """A set that MMEVerse scores as it scores all single labels: MELD."""

    def official(self, response: object, dataset: str) -> str | None:
        """MMEVerse's script: the bare word in any case, here with the full stop where the set's labels have one."""
        answer = response.strip().lower() if isinstance(response, str) else ""
        answer = answer if dataset in self.bare else answer.removesuffix(".")
        return answer if answer in self.classes(dataset) else None

    def official_of(self, part: str) -> str:
        return "MMEVerse"


class WithoutNeutral(OfMmeverse):
    """A set that MMEVerse scores without the clips whose gold answer is neutral."""

    def score_official(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Figures:
        """Of the rows whose gold is not neutral; an answer of neutral is wrong."""
        pairs = [pair for pair in zip(golds, predictions, strict=True) if pair[0] != "neutral"]
        counts = metrics.confusion([gold for gold, _ in pairs], [prediction for _, prediction in pairs])
        return self.finish(dataset, counts)

    def remarks(self, block: Figures) -> list[str]:
        """How many rows the published script leaves out."""
        neutral = block["per_class"]["strict"]["neutral"]["support"]
        return [f"official: without the {neutral:,} rows whose gold answer is neutral"] if neutral else []


SCORE = MsaScore()
CLASSES = MsaClasses()
THREE = MsaThree()
TASK = Msa()
VARIANTS: dict[str, MsaThree] = {}


def add_three(dataset: str, labels: tuple[str, ...], metric: str) -> None:
    """Take a set of MMEVerse, whose sentiments are three; answers of sets that are new here are the label alone.

    metric: `sentiment` leaves out gold answers of neutral, `accuracy` does not.
    """
    VARIANTS[dataset] = WithoutNeutral() if metric == "sentiment" else OfMmeverse()
    if dataset not in Msa.labels:
        Msa.labels[dataset], THREE.labels[dataset] = BINARY, labels
        THREE.bare.add(dataset)
