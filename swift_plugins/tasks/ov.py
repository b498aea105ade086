"""Open-vocabulary emotion recognition: emotions in any words, `worried, tired`, scored on emotion wheels.

Figures are those of OV-MERD and MER-UniBench: hit rate, mscore, precision, recall and F over the sets of emotions that
gold and answer belong to (`swift_plugins.wheels`), means over five wheels. Two protocols are in use. In channels
`<set>.ov` the answer itself is scored; in `<set>.ov.extracted` the labels that a language model read out of it before.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swift_plugins import metrics, wheels
from swift_plugins.tasks.task import Figures, Gold, LeftOut, Task, majority, set_f1, without_reasoning

_WORD = re.compile(r"[^\W\d_][\w'’/-]*(?: [^\W\d_][\w'’/-]*){0,4}")  # up to five words: "at a loss for words"
_SEPARATOR = re.compile(r"[;,；，、\n\"'“”]|\band\b")


class Listed(tuple):
    """Words that were written as a list, ['sad']: MERTools takes no such gold answer for one label."""

    __slots__ = ()


class Ov(Task):
    """Answers are tuples of words in lower case."""

    key = "ov"
    name = "open-vocabulary emotion recognition"
    identifier = "<emotions>"
    protocols: tuple[str, ...] = ("raw-answer",)
    headlines = (("hit_rate", "hit rate"), ("f", "set F"))
    unit = "words"
    member_name = "word"
    of_all = False

    def golds(self, sample: Any, records: Mapping[str, dict], options: Any) -> Iterator[Gold | LeftOut]:
        if sample.open_emotions is not None:
            yield Gold(sample.open_emotions) if sample.open_emotions else LeftOut("no emotion word")

    def facts(self, sample: Any) -> dict[str, Any]:
        """The transcript, too: `data_prep.eri` makes reasons from these rows."""
        return super().facts(sample) | {"transcript": sample.text}

    def target(self, gold: Any, dataset: str) -> str:
        text = ", ".join(gold)
        if self.strict(text, dataset) != tuple(gold):
            raise ValueError(f"{text!r} cannot be told from other words between commas")
        return text

    def strict(self, response: object, dataset: str) -> tuple[str, ...] | None:
        """One to five words each between commas, none twice; also as a list, ['sad', 'tired']."""
        text = response.strip() if isinstance(response, str) else ""
        listed = text[:1] + text[-1:] == "[]"
        pieces = [piece.strip() for piece in (text[1:-1] if listed else text).split(",")]
        words = tuple((piece.strip("'\"") if listed else piece).lower() for piece in pieces)
        if len(set(words)) < len(words) or not all(map(_WORD.fullmatch, words)):
            return None
        return Listed(words) if listed else words

    def lenient(self, response: object, dataset: str) -> tuple[str, ...] | None:
        """The words that the wheels' tables know between commas, semicolons, quotes, line ends or `and`."""
        if not isinstance(response, str):
            return None
        if (exact := self.strict(response, dataset)) is not None:
            return exact
        pieces = (piece.strip(" .!*[]-_").lower() for piece in _SEPARATOR.split(without_reasoning(response)))
        return tuple(dict.fromkeys(filter(wheels.known, pieces))) or None

    def official(self, response: object, dataset: str) -> tuple[str, ...]:
        """MERTools: what stands between commas and quotes, one bracket at each end aside; sentences give nothing."""
        if not isinstance(response, str):
            return ()
        text = response.strip().removeprefix("[").removesuffix("]")
        return tuple(word for piece in re.split("[,'\"]", text) if (word := piece.strip().lower()))

    def official_of(self, part: str) -> str:
        return "MERTools"

    def of_part(self, part: str) -> Task:
        return EXTRACTED if part == "extracted" else self

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        return metrics.wheel_counts(golds, predictions, wheels.levels, _alone)

    def finish(self, dataset: str, counts: Counter) -> Figures:
        return metrics.wheel_scores(counts)

    def remarks(self, block: Figures) -> list[str]:
        """What a hit rate does not tell by itself."""
        said = [
            f"{block['official']['labels_per_answer']:.2f} labels per answer (official); an answer that lists every "
            f"label has hit rate {100 * block['baselines']['all labels']['hit_rate']:.1f}, "
            f"mscore {100 * block['baselines']['all labels']['mscore']:.1f}"
        ]
        unmapped = block["official"]["gold_unmapped"]
        if unmapped:
            said.append(
                f"{100 * unmapped:.1f} % of the rows, mean over the wheels, have a gold answer that a wheel does not "
                "know (neutral is none of its emotions), and are in no figure"
            )
        return said

    def baselines(self, golds: Sequence, keys: Sequence) -> dict[str, list]:
        """majority: the commonest gold answer that a wheel knows, for the others are in no figure."""
        everything = tuple(sorted({word for gold in golds for word in gold}))
        counted = [gold for gold in golds if any(any(wheels.levels(word)) for word in gold)]
        return {"majority": [majority(counted or golds)] * len(golds), "all labels": [everything] * len(golds)}

    def members(self, answer: Any) -> set:
        return set(answer)

    def reward(self, gold: Any, prediction: Any, dataset: str) -> float | None:
        """F1 of the emotions, mean over the wheels that know the gold's; None where none does."""
        ours, theirs = ([wheels.levels(word) for word in words or ()] for words in (gold, prediction))
        sides = [[{word[wheel] for word in side} - {None} for side in (ours, theirs)] for wheel in range(wheels.WHEELS)]
        found = [set_f1(*both) for both in sides if both[0]]
        return sum(found) / len(found) if found else None


def _alone(gold: Sequence[str]) -> bool:
    return len(gold) == 1 and not isinstance(gold, Listed)


class Extracted(Ov):
    """Labels that a language model read out of the answer, as AffectGPT is scored: a protocol of its own."""

    name = "open-vocabulary emotion recognition, labels extracted by a language model"
    protocols = ("extracted",)


EXTRACTED = Extracted()
TASK = Ov()
