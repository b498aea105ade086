"""Label sets for result rows that this project did not build: compute_result.py RESULT --labels FILE.

FILE maps channels to labels, or is the file of a declared dataset (`swift_plugins.declared`):

    mine.mer: [开心, 难过, 生气]
    mine.msa: [Good, Bad]

Answers and gold answers of such rows are read with a full stop at their end or without one.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import RootModel, field_validator

from swift_plugins import declared
from swift_plugins.files import InputError, read_config, read_yaml
from swift_plugins.tasks import TASKS, LabelTask, split_channel


class LabelsFile(RootModel[dict[str, list[str]]]):
    """Channel → its labels."""

    @field_validator("root")
    @classmethod
    def _check(cls, root: dict[str, list[str]]) -> dict[str, list[str]]:
        if not root:
            raise ValueError("holds no channel")
        for channel, words in root.items():
            task = TASKS[split_channel(channel)[1]]
            if not isinstance(task, LabelTask):
                raise ValueError(f"{channel}: answers of {task.key} are no labels")
            try:
                declared.check_labels(words)
            except ValueError as error:
                raise ValueError(f"{channel}: {error}") from None
        return root


def use_labels(path: Path) -> list[str]:
    """Let the tasks read answers by the label sets of a file; returns its channels. Raises `InputError`."""
    content = read_yaml(path)
    if isinstance(content, dict) and "labels" in content:
        dataset = declared.add(path)
        channels = [f"{dataset.name}.{task}" for task in dataset.labels]
    else:
        sets = read_config(path, LabelsFile).root
        channels = list(sets)
        for channel, words in sets.items():
            name, key, _ = split_channel(channel)
            TASKS[key].add_labels(name, tuple(words))
    for channel in channels:
        LabelTask.plain.add(split_channel(channel)[0])
    if not channels:
        raise InputError("holds no labels", path)
    return channels
