"""What the tasks ask about one clip, in the words of training, and what a model answers.

A closed label set is answered by the likelihood of its labels, so that the answer is always one of them and every label
has a probability; other answers are generated.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.clips import Clip, Look, look
from app.engine import Model, Question, chosen_checkpoint, trained_on
from app.options import ModelOptions
from data_prep.prompts import Prompts
from data_prep.readers import READERS, tasks_of
from data_prep.readers.sample import Sample
from swift_plugins.files import InputError
from swift_plugins.likelihood import shares
from swift_plugins.mixture import read_mixtures
from swift_plugins.tasks import TASKS, LabelTask, split_channel


@dataclass(frozen=True)
class Answer:
    """One task's answer. `label` is what the strict reading makes of `text`; `probabilities` sum to one over the labels
    as answers write them, None where the model gave none."""

    task: str
    channel: str
    text: str
    label: str | None
    probabilities: dict[str, float] | None
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """What `ask.py --json` writes of it."""
        return {
            "channel": self.channel,
            "answer": self.text,
            "label": self.label,
            "probabilities": self.probabilities,
            "seconds": round(self.seconds, 3),
        }


def askable() -> list[str]:
    """The tasks that can be asked of a clip alone: those of all datasets whose wording needs no dialogue."""
    return [key for key, task in TASKS.items() if task.of_all and not task.fields]


def checkpoint_and_channels(options: ModelOptions, wanted: Sequence[str]) -> tuple[Path | None, dict[str, str]]:
    """The checkpoint that is asked (None: the demo's, or a server) and the `channels`, of its training where the user
    named no dataset; says on stderr whose words are taken from it. Raises as `chosen_checkpoint` and `channels`."""
    checkpoint = None if options.server else chosen_checkpoint(options.checkpoint)
    names = trained_on(checkpoint) if checkpoint and not options.dataset else []
    found, learned = channels(wanted, options.dataset, names), _learned(names)
    datasets = {channel.partition(".")[0]: None for key, channel in found.items() if learned.get(key) == channel}
    training = f"{checkpoint} was trained on {', '.join(f'amt:{name}' for name in names)}"
    if datasets:
        print(f"in the words of {', '.join(datasets)}: {training} (--dataset takes others)", file=sys.stderr)
    elif names and not learned:
        unknown = "which is no stage or dataset known here (AMT_MIXTURES, AMT_EXTENSIONS name files)"
        print(f"{training}, {unknown}: in the words of {', '.join(found.values())}", file=sys.stderr)
    return checkpoint, found


def channels(wanted: Sequence[str], dataset: str | None = None, trained: Sequence[str] = ()) -> dict[str, str]:
    """Task → the channel in whose words it is asked: of `dataset`, else that of the training (`trained_on`), else the
    one that the stages train it on last.

    "all" are those of the dataset that can be asked of a clip; without a dataset those of the training, or of the
    stages where a stage was trained. Raises `InputError` for a task that cannot be asked of a clip, for one that the
    dataset does not have, and for a dataset that there is not.
    """
    labelled = {name for task in TASKS.values() if isinstance(task, LabelTask) for name in task.labels}
    if dataset and dataset not in READERS and dataset not in labelled:
        raise InputError(f"--dataset {dataset}: no such dataset; there are {', '.join(READERS)}")
    stages = read_mixtures().stages
    learned = _learned(trained)
    last = _learned([name for name in ("stage1", "stage2") if name in stages] or [*stages]) | learned
    if "all" in wanted and dataset:
        wanted = _tasks_of(dataset)
    elif "all" in wanted:
        has = learned if learned and not stages.keys() & trained else last
        wanted = [key for key in askable() if key in has]
    found = {}
    for key in wanted:
        if key not in askable():
            reason = "is no task"
            if key in TASKS:
                reason = "is asked of a dialogue, not of a clip" if TASKS[key].fields else "is of MMEVerse's rows alone"
            raise InputError(f"--task {key} {reason}; there are {', '.join(askable())}")
        channel = f"{dataset}.{key}" if dataset else last.get(key)
        task = TASKS[key]
        if channel is None or not _has_labels(key, channel.partition(".")[0]):
            known = ", ".join(getattr(task, "labels", ())) or "none"
            raise InputError(f"--task {key}: {dataset or 'no stage'} has no labels of it; --dataset is one of {known}")
        found[key] = channel
    if not found:
        raise InputError(f"{dataset or 'the mixtures file'} has no task that can be asked of a clip: --dataset, --task")
    return found


def _learned(names: Sequence[str]) -> dict[str, str]:
    """Task → channel of what a training read (`trained_on`), the last of several; those that can be asked of a clip."""
    stages, found = read_mixtures().stages, {}
    for name in names:
        dataset, key, _ = (*name.split("."), "", "")[:3]
        if name in stages:
            found |= {task: next(iter(part.sources)) for task, part in stages[name].tasks.items()}
        elif dataset in READERS:
            found |= {task: f"{dataset}.{task}" for task in _tasks_of(dataset) if key in ("", task)}
    return {key: channel for key, channel in found.items() if key in askable()}


def _tasks_of(dataset: str) -> list[str]:
    """The tasks that a dataset has, of those that can be asked of a clip."""
    has = tasks_of(dataset) if dataset in READERS else askable()
    return [key for key in askable() if key in has and _has_labels(key, dataset)]


def _has_labels(key: str, dataset: str) -> bool:
    """Whether answers of the task can be told apart: any text will do, or the dataset names labels."""
    task = TASKS[key]
    return not isinstance(task, LabelTask) or dataset in task.labels


def question(channel: str, clip: Clip, seen: Look, wording: Prompts) -> Question:
    """The row's query and media, as `build_amt` would write them for this clip."""
    dataset, key, _ = split_channel(channel)
    sample = Sample(f"{dataset}/test/{clip.path.stem}", dataset, "test", clip.text)
    query = wording.query(sample, key)
    framed = TASKS[key].face_only or getattr(READERS.get(dataset), "PEAK_FRAMES", False)
    if clip.is_picture:
        return Question(query, images=(clip.path,), system=wording.own_system)
    if framed and seen.peak is not None:
        return Question(query, images=(seen.peak,), system=wording.own_system)
    return Question(query, videos=(clip.path,), system=wording.own_system)


def ask(model: Model, channel: str, clip: Clip, seen: Look, wording: Prompts) -> Answer:
    """One task's answer."""
    start = time.perf_counter()
    dataset, key, _ = split_channel(channel)
    task, asked = TASKS[key], question(channel, clip, seen, wording)
    if labels := task.choices(dataset):
        likelihoods = model.likelihoods(asked, [task.target(label, dataset) for label in labels])
        if likelihoods is not None:
            probabilities = dict(zip(labels, shares(likelihoods), strict=True))
            label = max(probabilities, key=probabilities.__getitem__)
            rounded = {name: round(value, 4) for name, value in probabilities.items()}
            text = task.target(label, dataset)
            return Answer(key, channel, text, label, rounded, time.perf_counter() - start)
    text = model.answer(asked)
    label = task.lenient(text, dataset) if isinstance(task, LabelTask) else None
    return Answer(key, channel, text, label, None, time.perf_counter() - start)


def look_and_ask(
    model: Callable[[], Model],
    clip: Clip,
    wanted: Mapping[str, str],
    wording: Prompts,
    scratch: Path,
    openface: Path | None = None,
) -> tuple[dict, list[tuple[str, bytes]]]:
    """The record of one clip, for `wanted` tasks and their channels, and the pictures (name, JPEG) for its page.

    What a user did wrong stands in the record as `error`. `model` is called when the clip can be shown; `scratch` is an
    empty folder.
    """
    start = time.perf_counter()
    record: dict = {"clip": str(clip.path), "text": clip.text}
    try:
        seen = look(clip, scratch, openface)
        record |= {"frames": seen.frames, "duration": seen.seconds, "peak": seen.as_json()}
        record["tasks"] = {key: ask(model(), channel, clip, seen, wording).as_json() for key, channel in wanted.items()}
    except InputError as error:
        return record | {"error": str(error)}, []
    record["seconds"] = round(time.perf_counter() - start, 3)
    return record, seen.shown()
