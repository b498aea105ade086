"""Prompts: turn a Sample and a task into the query of a row, with the wording of configs/prompts.yaml.

Rows of MMEVerse's tables are worded in configs/mmeverse.yaml: a pool of wordings for training, one for evaluation.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

from pydantic import ValidationError, model_validator

from data_prep.readers.sample import Sample
from swift_plugins import mmeverse
from swift_plugins.declared import DATASETS
from swift_plugins.files import CONFIGS, Config, InputError, read_config
from swift_plugins.tasks import TASKS

DEFAULT = CONFIGS / "prompts.yaml"

_COMMON = {"transcript", "speaker", "identifier", "labels"}
_LINE = {"index", "emotion", "speaker", "text"}


def _check_fields(template: str, allowed: set[str], where: str) -> None:
    """ValueError for a template with broken braces or a field that does not exist."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    for _, name, spec, conversion in parts:
        if name is not None and (name not in allowed or spec or conversion):
            raise ValueError(f"{where}: no field {{{name}}} here; there are {', '.join(sorted(allowed))}")


def _wordings(value: Any, where: str) -> list[str]:
    """The templates of one key: a text, or a list of several of which each row gets one."""
    found = value if isinstance(value, list) and value else [value]
    if not all(isinstance(template, str) for template in found):
        raise ValueError(f"{where}: Input should be a valid string, or a list of several")
    return found


class Formats(Config):
    """How the parts of an ECPE prompt are written and joined."""

    line: str | None = None
    candidate: str | None = None
    target: str | None = None
    separator: str | None = None
    labels_separator: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Formats:
        for name, template in self:
            _check_fields(template or "", set() if "separator" in name else _LINE, name)
        return self


class PromptsFile(Config):
    """A prompts file; what one of your own leaves out is taken from configs/prompts.yaml."""

    system: str | None = None
    tasks: dict[str, Any] = {}  # a text, or a list of them
    formats: Formats = Formats()

    @model_validator(mode="after")
    def _check(self) -> PromptsFile:
        fields = {key: task.fields for name, task in TASKS.items() for key in (name, *task.wordings)}
        for key, template in self.tasks.items():
            name = key.rpartition(".")[2]
            if name not in fields:
                raise ValueError(f"tasks: {key} is not a task (one of {', '.join(fields)})")
            for one in _wordings(template, f"tasks.{key}"):
                _check_fields(one, _COMMON | fields[name], f"tasks.{key}")
        return self


@dataclass(frozen=True)
class Prompts:
    """The wording in use; `load` makes it, `query` renders it."""

    system: str
    tasks: dict[str, str | list[str]]
    formats: dict[str, str]
    evaluation: dict[str, str] = field(default_factory=dict)  # what dev and test are asked instead

    def query(self, sample: Sample, task: str, wording: str = "", part: str = "") -> str:
        """The query of `sample` for `task`, byte for byte what the template says; no stripping, no cleaning.

        `wording` names another template than the task's own (`msa_score`), `part` the third part of the row's channel.
        Of several templates the sample's id draws one, each alike likely and the same on any machine.
        """
        key = wording or TASKS[task].wording_of(sample.dataset)
        # `mine.msa` words the task for mine, whatever labels it has
        names = (f"{sample.dataset}.{key}", *([] if wording else [f"{sample.dataset}.{task}"]), key)
        pools = (self.evaluation, self.tasks) if sample.split != "train" else (self.tasks,)
        template = next((pool[name] for pool in pools for name in names if name in pool), None)
        if template is None:
            raise InputError(f"no wording for {key}: word it under tasks in a prompts file (--prompts)", DEFAULT)
        fields = {
            "transcript": sample.text,
            "speaker": sample.speaker,
            "identifier": TASKS[task].identifier,
            "labels": self.formats["labels_separator"].join(TASKS[task].of_part(part).labels.get(sample.dataset, ())),
        }
        if TASKS[task].fields:
            fields |= self._dialogue(sample)
        if isinstance(template, list):
            template = random.Random(sample.id).choice(template)
        return template.format_map(fields)

    @property
    def own_system(self) -> str | None:
        """The system turn where it is not the project's own: any other a checkpoint knows itself."""
        return None if self.system == read_config(DEFAULT, PromptsFile).system else self.system

    @property
    def digest(self) -> str:
        """Names the wording in reports: two builds with the same digest ask the same questions."""
        parts = {name: words for name, words in asdict(self).items() if words or name != "evaluation"}
        return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()[:12]

    def _dialogue(self, sample: Sample) -> dict[str, object]:
        def lines(kind: str, utterances) -> str:
            return self.formats["separator"].join(
                self.formats[kind].format_map(
                    {"index": u.index, "emotion": u.emotion, "speaker": u.speaker, "text": u.text}
                )
                for u in utterances
            )

        target = next(u for u in sample.conversation if u.index == sample.index)
        return {
            "conversation": lines("line", sample.conversation),
            "candidates": lines("candidate", [u for u in sample.conversation if u.index < target.index]),
            "target": lines("target", [target]),
            "index": target.index,
            "emotion": target.emotion,
        }


def load(
    path: Path | str | None = None, datasets: Collection[str] | None = None, tables: Collection[str] = ()
) -> Prompts:
    """The project's own wording, overridden by what a prompts file says; `InputError` names what is wrong in it.

    A file that words a task for one dataset (`meld.mer`) or for all (`mer`) replaces the project's for the same.
    Between the two stands what a declared dataset words itself; `datasets` are those whose words count (None: all).
    tables: sets of MMEVerse whose rows come of its tables, and are asked as configs/mmeverse.yaml says.
    """
    files = [read_config(DEFAULT, PromptsFile)]
    for name, dataset in DATASETS.items():
        if dataset.prompts and (datasets is None or name in datasets):
            try:
                files.append(PromptsFile(tasks={f"{name}.{task}": words for task, words in dataset.prompts.items()}))
            except ValidationError as error:
                raise InputError(f"prompts: {error.errors()[0]['msg']}", dataset.path) from None
    training, evaluation = _of_tables(tables)
    files.append(PromptsFile.model_construct(tasks=training))
    if path:
        own = read_config(path, PromptsFile)
        files.append(own)
        evaluation = {name: words for name, words in evaluation.items() if name not in own.tasks}
    tasks: dict[str, Any] = {}  # a text, or a list of them
    formats: dict[str, str] = {}
    for file in files:
        tasks |= file.tasks
        formats |= file.formats.model_dump(exclude_none=True)
    return Prompts(next(file.system for file in reversed(files) if file.system is not None), tasks, formats, evaluation)


def _of_tables(tables: Collection[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """`<set>.<key>` → templates of training, and the template of evaluation, with their lines and labels filled in."""
    words = mmeverse.WORDINGS
    training: dict[str, Any] = {}
    evaluation: dict[str, str] = {}
    for name in tables:
        for key, word in words.words.items():
            line = words.of("lines", name, "thought" if key.startswith(("eri", "think")) else "heard")
            pool = words.of("train", name, key)
            labels = words.asked.get(f"{name}.{key}", mmeverse.SETS[name].labels_of(key))
            if pool:
                training[f"{name}.{key}"] = [_worded(line, word, one, labels) for one in pool]
            if asked := words.of("test", name, key):
                evaluation[f"{name}.{key}"] = _worded(line, word, asked, labels)
    return training, evaluation


def _worded(line: str, word: str, instruction: str, labels: Collection[str]) -> str:
    """A template whose labels are written out: the line, `[word]` and the instruction, with the published blanks."""
    return f"{line} [{word}] {instruction.replace('{labels}', ', '.join(labels))} "
