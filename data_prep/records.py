"""fer.jsonl and eri.jsonl, the records that belong to clips, as `data_prep.fer` and `data_prep.eri` write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.readers.sample import Sample
from swift_plugins.files import InputError, read_rows


@dataclass(frozen=True)
class Records:
    """The records of fer.jsonl or eri.jsonl files by clip id: text, picture, and the folder the picture is relative to.

    text_key: what the text is called there, `caption` or `reason`.
    """

    text_key: str
    by_id: dict[str, tuple[str | None, str | None, Path]]
    reasons: dict[str, Mapping[str, str]] = field(default_factory=dict)  # task → reason, of clips of several labels

    @classmethod
    def read(cls, paths: Iterable[Path], text_key: str) -> Records:
        """`InputError` for a record whose `id` or text is no text (the text may be null), or a repeated id."""
        by_id: dict[str, tuple[str | None, str | None, Path]] = {}
        for path in paths:
            for number, record in read_rows(path):
                if not isinstance(record.get("id"), str):
                    raise InputError("has no text under id", path, number)
                if text_key not in record or not isinstance(record[text_key], str | None):
                    raise InputError(f"has no text under {text_key}", path, number)
                if not isinstance(record.get("image"), str | None):
                    raise InputError("image is not the path of a picture", path, number)
                if record["id"] in by_id:
                    raise InputError(f"duplicate id {record['id']}", path, number)
                by_id[record["id"]] = (record[text_key], record.get("image"), path.parent)
        return cls(text_key, by_id)

    def add(self, made: Mapping[str, Mapping], folder: Path) -> None:
        """The records by clip id that a reader found in its own files (`data_prep.readers`), for clips without one."""
        for clip, record in made.items():
            if clip not in self.by_id:
                self.by_id[clip] = record[self.text_key], record.get("image"), folder
                if len(record.get("reasons", ())) > 1:
                    self.reasons[clip] = record["reasons"]

    def of(self, sample: Sample) -> dict[str, Any] | None:
        """What a task may know of the clip's record; None where there is none."""
        found = self.by_id.get(sample.id)
        reasons = {"reasons": self.reasons[sample.id]} if sample.id in self.reasons else {}
        return found and {self.text_key: found[0]} | reasons

    def image(self, sample: Sample) -> Path | None:
        """The peak frame of the clip; `InputError` when the record names one that is not there."""
        _, image, folder = self.by_id.get(sample.id, (None, None, Path()))
        if not image:
            return None
        path = folder / image
        if not path.is_file():
            raise InputError(f"the peak frame of {sample.id} is not there", path)
        return path


def descriptions(record: Mapping[str, Any]) -> dict[str, str]:
    """What models saw (`image`) and heard (`audio`) of a clip, from a record of eri.jsonl: what the agents of these
    names answered, else clues and tone. Without the key where nothing was described."""
    clues, tone = record.get("clues") or {}, record.get("tone") or ""
    seen = clues.get("image") or " ".join(clues[part] for part in ("character", "scene") if clues.get(part))
    heard = clues.get("audio") or (tone if isinstance(tone, str) else " ".join(tone))
    return {key: text for key, text in (("image", seen), ("audio", heard)) if text}
