"""report.<split>.json of an AMT folder: what other programs read of what `data_prep.build_amt` wrote there."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from swift_plugins.files import InputError, read_json, validated


class Overlap(BaseModel):
    """How many utterances of a held-out split stand in the training rows."""

    model_config = ConfigDict(strict=True)

    utterances: int
    of: int


class BuildOptions(BaseModel):
    """The wording of the queries (its digest, and the system turn), and the splits that no training row may hold."""

    model_config = ConfigDict(strict=True)

    prompts: str | None = None
    system: str | None = None
    exclude_leaks: list[str] = []


class BuildReport(BaseModel):
    """What is read of a report; a key that an earlier version did not write is empty.

    media_root: relative to the folder. dialogues: dataset → ids in the owners' order. overlap: dataset of the training
    rows → `meld:test` → counts.
    """

    model_config = ConfigDict(strict=True)

    split: str = ""
    options: BuildOptions = BuildOptions()
    media_root: str | None = None
    clips: dict | None = None
    dialogues: dict[str, list[str]] = {}
    overlap: dict[str, dict[str, Overlap]] | None = None


def read_report(path: str | os.PathLike) -> BuildReport:
    """The report at `path`; `InputError` where it is none."""
    return validated(BuildReport, read_json(path), path)


def media_root(data: Path) -> Path:
    """The folder that media paths are relative to."""
    if root := os.environ.get("AMT_MEDIA"):
        return Path(root)
    roots = {read_report(report).media_root for report in sorted(data.glob("report.*.json"))} - {None}
    if len(roots) > 1:
        raise InputError(f"its reports name {len(roots)} media roots; set AMT_MEDIA", data)
    return data / roots.pop() if roots else data
