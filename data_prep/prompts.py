"""Prompts: turn a Sample and a task into the query of a row, with the wording of configs/prompts.yaml."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Formatter

from data_prep.readers.sample import Sample
from swift_plugins.files import CONFIGS, InputError, read_yaml
from swift_plugins.tasks import TASKS

DEFAULT = CONFIGS / "prompts.yaml"

_COMMON = {"transcript", "speaker", "identifier", "labels"}
_LINE = {"index", "emotion", "speaker", "text"}
_FORMATS = ("line", "candidate", "target", "separator", "labels_separator")


@dataclass(frozen=True)
class Prompts:
    """The wording in use; `load` makes it, `query` renders it."""

    system: str
    tasks: dict[str, str]
    formats: dict[str, str]

    def query(self, sample: Sample, task: str) -> str:
        """The query of `sample` for `task`, byte for byte what the template says; no stripping, no cleaning."""
        template = self.tasks.get(f"{sample.dataset}.{task}", self.tasks.get(task))
        fields = {
            "transcript": sample.text,
            "speaker": sample.speaker,
            "identifier": TASKS[task].identifier,
            "labels": self.formats["labels_separator"].join(TASKS[task].labels.get(sample.dataset, ())),
        }
        if TASKS[task].fields:
            fields |= self._dialogue(sample)
        return template.format_map(fields)

    @property
    def digest(self) -> str:
        """Names the wording in reports: two builds with the same digest ask the same questions."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:12]

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


def load(path: Path | str | None = None) -> Prompts:
    """Read a prompts file (the project's own by default); `InputError` names an unknown field, task or key."""
    path = Path(path or DEFAULT)
    wording = read_yaml(path)
    if not isinstance(wording, dict) or not isinstance(wording.get("tasks"), dict):
        raise InputError("needs the keys system, tasks and formats", path)
    unknown = set(wording) - {"system", "tasks", "formats"}
    if unknown:
        raise InputError(f"unknown key {min(map(str, unknown))}", path)
    if not isinstance(wording.get("system") or "", str):
        raise InputError("system is not a text", path)

    tasks, formats = wording["tasks"], wording.get("formats") or {}
    for task in TASKS:
        if task not in tasks:
            raise InputError(f"tasks has no template for {task}", path)
    for key, template in tasks.items():
        task = str(key).rpartition(".")[2]
        if task not in TASKS:
            raise InputError(f"tasks: {key} is not a task (one of {', '.join(TASKS)})", path)
        _check(template, _COMMON | TASKS[task].fields, f"tasks.{key}", path)
    for key in _FORMATS:
        if key not in formats:
            raise InputError(f"formats has no {key}", path)
        _check(formats[key], set() if "separator" in key else _LINE, f"formats.{key}", path)
    return Prompts(wording.get("system") or "", tasks, formats)


def _check(template: object, allowed: set[str], where: str, path: Path) -> None:
    """Refuse a template that is no text, has broken braces, or names a field that does not exist."""
    if not isinstance(template, str):
        raise InputError(f"{where} is not a text", path)
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"{where}: {error}", path) from None
    for _, field, spec, conversion in parts:
        if field is not None and (field not in allowed or spec or conversion):
            raise InputError(f"{where}: no field {{{field}}} here; there are {', '.join(sorted(allowed))}", path)
