"""The tasks, a file each: labels, target, parsers, metric, protocols, baselines, reward.

Pure Python; imports neither torch nor swift. To add one: its file here, its line in `TASKS`, its wording in
configs/prompts.yaml. A plug-in of one's own adds to `TASKS` from the outside, see `swift_plugins.extensions`.

    >>> TASKS["mer"].target("joy", "meld")
    'Joy.'
    >>> TASKS["mer"].strict("It is joy!", "meld"), TASKS["mer"].lenient("It is joy!", "meld")
    (None, 'joy')
"""

from __future__ import annotations

import re

from swift_plugins import declared, extensions, mmeverse
from swift_plugins.files import InputError
from swift_plugins.tasks import describe, ecpe, eri, fer, intent, mer, mlmer, msa, ov, think
from swift_plugins.tasks.task import Gold, LabelTask, LeftOut, Task

__all__ = ["TASKS", "Gold", "LabelTask", "LeftOut", "Task", "split_channel", "task_of"]

TASKS: dict[str, Task] = {"msa": msa.TASK, "mer": mer.TASK, "fer": fer.TASK, "eri": eri.TASK, "ecpe": ecpe.TASK}
TASKS |= {"mlmer": mlmer.TASK, "intent": intent.TASK, "ov": ov.TASK, "think": think.TASK}
TASKS |= {"audio": describe.AUDIO, "image": describe.IMAGE}


def split_channel(channel: object) -> tuple[str, str, str]:
    """`mosei.msa.zero` → ("mosei", "msa", "zero"), `meld.mer` → ("meld", "mer", ""); ValueError for nonsense."""
    parts = channel.split(".") if isinstance(channel, str) else []
    if len(parts) not in (2, 3) or not all(re.fullmatch(r"[a-z0-9][a-z0-9_-]*", part) for part in parts):
        raise ValueError(f"{channel!r} is not a channel: expected <dataset>.<task> such as meld.mer")
    if parts[1] not in TASKS:
        raise ValueError(f"{channel!r} names no task: {parts[1]!r} is not one of {', '.join(TASKS)}")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def task_of(channel: object) -> tuple[Task, str]:
    """(task, dataset) of a channel; ValueError as `split_channel`."""
    dataset, key, part = split_channel(channel)
    return TASKS[key].of_part(part), dataset


def _add_labels(dataset: declared.Declared) -> None:
    """Give the tasks the label sets of a declared dataset."""
    for key in (*(dataset.tasks or ()), *dataset.labels, *dataset.prompts):
        if key not in TASKS:
            raise InputError(f"{key} is no task (one of {', '.join(TASKS)})", dataset.path)
    if any(dataset.name in TASKS[key].labels for key in dataset.labels):
        raise InputError(f"name: {dataset.name} is a dataset of the project; give yours another", dataset.path)
    for key, words in dataset.labels.items():
        try:
            TASKS[key].add_labels(dataset.name, tuple(words))
        except ValueError as error:
            raise InputError(f"labels.{key}: {error}", dataset.path) from None


def _add_mmeverse() -> None:
    """Give the tasks the label sets of configs/mmeverse.yaml, but for those of datasets that have theirs already."""
    tasks: dict[str, LabelTask] = {"mer": mer.TASK, "mlmer": mlmer.TASK, "intent": intent.TASK}
    for name, described in mmeverse.SETS.items():
        for key, words in described.labels.items():
            if key == "msa":
                msa.add_three(name, tuple(words), described.metric["msa"])
            elif name not in tasks[key].labels:
                tasks[key].add_labels(name, tuple(words))
                tasks[key].bare.add(name)
                if key == "mer":
                    mer.VARIANTS[name] = mer.MMEVERSE


_add_mmeverse()
extensions.load()
declared.watch(_add_labels)
