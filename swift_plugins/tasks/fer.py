"""FER, facial expression recognition: the movements of a face in words, `lip corners pulled up; eyes opened wide`."""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swift_plugins import metrics
from swift_plugins.files import CONFIGS, read_yaml
from swift_plugins.tasks.task import Figures, Gold, LeftOut, Task, majority, without_reasoning

_SEPARATOR = re.compile(r"[;,；，、\n\r\x0b\x0c\x85\u2028\u2029]")


def phrase_to_au() -> dict[str, str]:
    """Phrase or FACS name → AU ("cheeks raised", "cheek raiser" → "AU06"), from configs/facs.yaml.

    AMT_FACS names another file of that format: the one that `data_prep.fer --facs` wrote the captions with.
    """
    return _read_phrases(_facs_file())


def _facs_file() -> str:
    return os.environ.get("AMT_FACS") or str(CONFIGS / "facs.yaml")


@functools.cache
def _read_phrases(path: str) -> dict[str, str]:
    table: Any = read_yaml(path)
    return {phrase: au for au, entry in table["aus"].items() for phrase in (entry["name"], *entry["phrases"])}


@functools.cache
def _folded_phrases(path: str) -> dict[str, str]:
    return {phrase.lower(): phrase for phrase in _read_phrases(path)}


def aus_of(phrases: Sequence[str] | None) -> set[str]:
    """The AUs that phrases stand for; none where the response was unparsed."""
    return {phrase_to_au()[phrase] for phrase in phrases or ()}


class Fer(Task):
    """Answers are tuples of phrases; they are compared by the Action Units that the phrases stand for."""

    key = "fer"
    name = "facial expression recognition"
    identifier = "<face>"
    protocols = ("aus",)
    headlines = (("f1", "AU F1"),)
    table_1 = 15_870
    unit = "phrases"
    member_name = "AU"
    face_only = True
    part_reward = "amt_aus"
    gold_hint = "; AMT_FACS names the FACS file of its phrases"

    def golds(self, sample: Any, records: Mapping[str, dict], options: Any) -> Iterator[Gold | LeftOut]:
        if "fer" not in records:
            return
        if caption := records["fer"]["caption"]:
            yield Gold(tuple(caption.split("; ")))
        else:
            yield LeftOut("no caption: no Action Unit to describe (see fer_report.json)")

    def target(self, gold: Any, dataset: str) -> str:
        for phrase in gold:
            if not phrase or phrase != phrase.strip() or ";" in phrase:
                raise ValueError(f"{phrase!r} cannot be one of several phrases joined by '; '")
        return "; ".join(gold)

    def strict(self, response: object, dataset: str) -> tuple[str, ...] | None:
        if not isinstance(response, str):
            return None
        pieces, known = tuple(response.strip().split("; ")) if response.strip() else (), phrase_to_au()
        return pieces if all(piece in known for piece in pieces) else None

    def lenient(self, response: object, dataset: str) -> tuple[str, ...] | None:
        """Known phrases between `;`, `,` or line ends; unknown pieces are skipped."""
        if not isinstance(response, str):
            return None
        if (exact := self.strict(response, dataset)) is not None:
            return exact
        pieces = _SEPARATOR.split(without_reasoning(response))
        phrases = (" ".join(piece.split()).strip(" .!-*\"'").lower() for piece in pieces)
        known = _folded_phrases(_facs_file())
        return tuple(known[phrase] for phrase in phrases if phrase in known) or None

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        return metrics.set_counts(map(aus_of, golds), map(aus_of, predictions))

    def finish(self, dataset: str, counts: Counter) -> Figures:
        result = metrics.set_scores(counts, sorted({au for _, au in counts}))
        return {key: value for key, value in result.items() if not key.startswith("weighted")}

    def baselines(self, golds: Sequence, keys: Sequence) -> dict[str, list]:
        return {"majority": [majority(golds)] * len(golds)}

    def members(self, answer: Any) -> set:
        return aus_of(answer)


TASK = Fer()
