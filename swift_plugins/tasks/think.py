"""Think, then answer: `<think>why</think><answer>angry</answer>`, of which the answer is scored.

The label is that of another task: of `mer`, in channels `<set>.think.three` of sentiment in three classes, in
`<set>.think.multi` of `mlmer`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swift_plugins.tasks import mer, mlmer, msa
from swift_plugins.tasks.task import Figures, Gold, LabelTask, LeftOut, Task

_FORM = re.compile(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


class Think(Task):
    """Gold of the builder is (reason, label as the label's task has it); predictions are those of that task."""

    key = "think"
    name = "thinking before the answer"
    identifier = "<think>"
    wordings = ("think_three", "think_multi")
    protocols = ("think",)
    of_all = False

    def __init__(self, labelled: LabelTask, field: str, part: str = ""):
        self.labelled, self.field, self.part = labelled, field, part
        self.headlines, self.labels = labelled.headlines, labelled.labels
        self.unit, self.member_name = labelled.unit, labelled.member_name

    def golds(self, sample: Any, records: Mapping[str, dict], options: Any) -> Iterator[Gold | LeftOut]:
        record = records.get("eri", {})
        for task in (TASK, THREE, MULTI):
            label = getattr(sample, task.field)
            reason = (record.get("reasons") or {}).get(task.labelled.key, record.get("reason"))
            if label is None or not record:
                continue
            if reason:
                yield Gold((reason, label), task.part, f"think_{task.part}" if task.part else "")
            else:
                yield LeftOut("no reason")

    def add_labels(self, dataset: str, labels: tuple[str, ...]) -> None:
        raise ValueError(f"the labels of {self.key} are those of {self.labelled.key}")

    def target(self, gold: Any, dataset: str) -> str:
        try:
            reason, label = gold
        except ValueError:
            raise ValueError(f"{gold!r} is no reason and label") from None
        if not reason.strip() or any(tag in reason for tag in _TAGS):
            raise ValueError("a reason that is blank, or holds <think> or <answer>, cannot be a target")
        return f"<think>{reason.strip()}</think><answer>{self.labelled.target(label, dataset)}</answer>"

    def shown(self, answer: Any, dataset: str) -> str:
        return self.labelled.target(answer, dataset)

    def strict(self, response: object, dataset: str) -> Any:
        """The label, where there is one thought and one answer, and nothing else."""
        if not isinstance(response, str) or any(response.count(tag) != 1 for tag in _TAGS):
            return None
        form = _FORM.fullmatch(response)
        if form is None or not form[1].strip():
            return None
        return self.labelled.strict(form[2], dataset)

    def lenient(self, response: object, dataset: str) -> Any:
        """The label in the answer's part, in what follows the thought where no answer is marked."""
        if not isinstance(response, str):
            return None
        if (exact := self.strict(response, dataset)) is not None:
            return exact
        marked = _ANSWER.findall(response)
        if not marked and "<think>" in response and "</think>" not in response:
            return None  # it never came to an answer
        return self.labelled.lenient(marked[-1] if marked else response, dataset)

    def of_part(self, part: str) -> Task:
        return {"three": THREE, "multi": MULTI}.get(part, self)

    def count(self, dataset: str, golds: Sequence, predictions: Sequence, keys: Sequence) -> Counter:
        return self.labelled.count(dataset, golds, predictions, keys)

    def finish(self, dataset: str, counts: Counter) -> Figures:
        return self.labelled.finish(dataset, counts)

    def baselines(self, golds: Sequence, keys: Sequence) -> dict[str, list]:
        return self.labelled.baselines(golds, keys)

    def members(self, answer: Any) -> set:
        return self.labelled.members(answer)

    def reward(self, gold: Any, prediction: Any, dataset: str) -> float | None:
        """That of the label."""
        return self.labelled.reward(gold, prediction, dataset)


TASK = Think(mer.TASK, "emotion")
THREE = Think(msa.THREE, "sentiment", "three")
MULTI = Think(mlmer.TASK, "emotions", "multi")
