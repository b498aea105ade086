"""ECPE, emotion-cause pair extraction: which lines cause a line's emotion, `5_surprise,2;5_surprise,5`."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from swift_plugins import metrics
from swift_plugins.tasks.task import Figures, Gold, LeftOut, Task, without_reasoning

Pair = tuple[int, str, int]  # (index of the emotion utterance, its emotion, index of the cause utterance)

EMOTIONS = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
# Six digits are more than any conversation has; longer runs of digits are noise, and int() refuses very long ones.
_NUMBER = "(0|[1-9][0-9]{0,5})"


@functools.cache
def _pair_pattern(emotions: tuple[str, ...]) -> re.Pattern:
    return re.compile(rf"{_NUMBER}_({'|'.join(map(re.escape, emotions))}),{_NUMBER}", re.ASCII)


@functools.cache
def _lenient_pattern(emotions: tuple[str, ...]) -> re.Pattern:
    names = "|".join(map(re.escape, emotions))
    case = "ai" if names.isascii() else "i"  # without ASCII, ignoring case also takes "ſ" for "s"
    return re.compile(rf"(?<![0-9])([0-9]{{1,6}})\s*_\s*((?{case}:{names}))[\s\"'“”‘’,，]+([0-9]{{1,6}})(?![0-9])")


class Target(NamedTuple):
    """The line that a row asks for; None for what its row does not say."""

    dialogue: str | None
    line: int | None
    emotion: str | None
    previous: int | None
    missed: bool = False  # a target that the model's own emotions missed: gold without an answer


class Ecpe(Task):
    """Answers are tuples of pairs. Prompts hold gold emotions, or predicted ones (`data_prep.ecf_emotions`)."""

    key = "ecpe"
    name = "emotion-cause pair extraction"
    fields = frozenset({"conversation", "candidates", "target", "index", "emotion"})
    labels = {"ecf": EMOTIONS}
    protocols = ("paper", "semeval")
    headlines = (("paper f1", "F1, paper's protocol"), ("semeval f1", "F1, SemEval's protocol"))
    table_1 = 7_081  # the train targets with a cause
    parts = {"predicted": ("predicted", ""), "missed": ("predicted", "missed")}
    unit = "pairs"
    member_name = "emotion"
    part_reward = "amt_pairs"
    has_distances = True

    def golds(self, sample: Any, records: Mapping[str, dict], options: Any) -> Iterator[Gold | LeftOut]:
        if sample.causes is None:
            return
        gold = tuple((sample.index, sample.gold_emotion or sample.emotion, cause) for cause in sample.causes)
        target = sample.emotion in self.emotions(sample.dataset)
        if sample.gold_emotion is not None:
            if target or gold:
                yield Gold(gold, "predicted" if target else "missed")
            else:
                yield LeftOut("predicted neutral, and without a cause in the gold")
        elif not target:
            yield LeftOut("neutral utterances are context, never targets")
        elif sample.split == "train" and not gold:
            yield LeftOut("a training target without an annotated cause")
        else:
            yield Gold(gold)

    def emotions(self, dataset: str) -> tuple[str, ...]:
        """The emotions that have causes, as answers write them."""
        return self.labels.get(dataset, EMOTIONS)

    def add_labels(self, dataset: str, labels: tuple[str, ...]) -> None:
        if wrong := [label for label in labels if re.search(r"[,;_]|^[0-9]|[0-9]$", label) or label != label.lower()]:
            raise ValueError(f"{wrong[0]!r} cannot be read back from 5_{wrong[0]},2: lower case, without , ; _")
        super().add_labels(dataset, labels)

    def facts(self, sample: Any) -> dict[str, Any]:
        """The target's line, its emotion as the prompt shows it, and the line before it."""
        before = [line.index for line in sample.conversation if line.index < sample.index]
        shown = {"index": sample.index, "emotion": sample.emotion}
        return super().facts(sample) | shown | ({"previous": max(before)} if before else {})

    def target(self, gold: Any, dataset: str) -> str:
        for index, emotion, cause in gold:
            if emotion not in self.emotions(dataset) or not (0 <= index < 10**6 and 0 <= cause < 10**6):
                raise ValueError(f"{(index, emotion, cause)!r} is not an emotion-cause pair of {dataset}")
        return ";".join(f"{index}_{emotion},{cause}" for index, emotion, cause in gold)

    def strict(self, response: object, dataset: str) -> tuple[Pair, ...] | None:
        if not isinstance(response, str):
            return None
        answer = response.strip()
        matches = (
            [_pair_pattern(self.emotions(dataset)).fullmatch(piece) for piece in answer.split(";")] if answer else []
        )
        return None if None in matches else tuple(_pair(match) for match in matches if match)

    def lenient(self, response: object, dataset: str) -> tuple[Pair, ...] | None:
        """Every pair found in the text, whatever stands between them."""
        if not isinstance(response, str):
            return None
        if (exact := self.strict(response, dataset)) is not None:
            return exact
        found = _lenient_pattern(self.emotions(dataset)).finditer(without_reasoning(response))
        return tuple(_pair(match) for match in found) or None

    def official(self, response: object, dataset: str) -> tuple[str, ...]:
        """EmoVerse's script: whatever stands between `;` is a prediction, readable or not, an empty answer too."""
        return tuple(response.split(";")) if isinstance(response, str) else ("",)

    def official_of(self, part: str) -> str:
        return "" if part else "EmoVerse"

    def row_key(self, facts: Mapping[str, Any], mark: str, gold: Any) -> Target:
        emotion = facts.get("emotion") or (gold[0][1] if gold else None)
        return Target(facts.get("dialogue"), facts.get("index"), emotion, facts.get("previous"), mark == "missed")

    def counts_answer(self, mark: str) -> bool:
        return mark != "missed"

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        counts: Counter = Counter()
        for key, count in metrics.paper_pair_counts(golds, predictions).items():
            counts["paper", *key] = count
        # a row that does not say its dialogue is one of its own
        dialogues = [key.dialogue or place for place, key in enumerate(keys)]
        for key, count in metrics.semeval_pair_counts(golds, predictions, dialogues).items():
            counts["semeval", *key] = count
        return counts

    def finish(self, dataset: str, counts: Counter) -> Figures:
        result = {}
        for protocol in self.protocols:
            own = Counter({key[1:]: count for key, count in counts.items() if key[0] == protocol})
            result[protocol] = metrics.set_scores(own, self.emotions(dataset))
            if any(emotion is None for _, emotion in own):
                # A target that does not say its emotion: a wrong prediction all the same, but of which class?
                del result[protocol]["weighted_precision"], result[protocol]["weighted_f1"]
        return result

    def score_official(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Figures:
        """Pieces of text against pieces of text, row by row, rows with an empty gold left out."""
        pieces = [self.target(gold, dataset).split(";") if gold else () for gold in golds]
        return {
            "paper": metrics.set_scores(
                metrics.paper_pair_counts(pieces, predictions, _emotion_of), self.emotions(dataset)
            )
        }

    def protocols_of(self, part: str) -> tuple[str, ...]:
        """With predicted emotions only semeval: the paper's protocol does not see what is predicted for nothing."""
        return ("semeval",) if part == "predicted" else self.protocols

    def baselines(self, golds: Sequence, keys: Sequence) -> dict[str, list]:
        """Every target blames itself; itself and the line before."""
        unknown = sum(not key.missed and key.line is None for key in keys)
        if unknown:
            raise ValueError(f"{unknown:,} rows do not say which line they ask for (--rows FILE does)")
        own = [() if key.missed else ((key.line, key.emotion, key.line),) for key in keys]
        before = [
            () if key.missed or key.previous is None else ((key.line, key.emotion, key.previous),) for key in keys
        ]
        return {"self-cause": own, "self + previous": [a + b for a, b in zip(own, before, strict=True)]}

    def describe_wrongness(self, wrongness: float) -> str:
        return f"{wrongness:.0f} pair{'s' if wrongness > 1 else ''} wrong"

    def members(self, answer: Any) -> set:
        return set(answer or ())

    def distances(self, answer: Any) -> list[int]:
        return [cause - index for index, _, cause in answer or ()]


def _emotion_of(piece: str) -> str | None:
    """`joy` of `2_joy,1`, by the script's own cuts; None where they fail (the script itself would end there)."""
    parts = piece.split(",")[0].split("_")
    return parts[1] if len(parts) > 1 else None


def _pair(match: re.Match) -> Pair:
    return int(match[1]), match[2].lower(), int(match[3])


TASK = Ecpe()
