"""M2SE mixing: which AMT rows a stage trains on, exactly in the ratio of configs/mixtures.yaml.

    python -m swift_plugins.mixture --stage stage1 --data AMT_DIR

prints the plan of a stage: rows per channel available, wanted and drawn. `--dataset amt:stage1` draws the same rows
inside ms-swift (`swift_plugins.dataset`).

The draw orders a task's rows by a keyed hash of (seed, task, id) and takes the first ones. It therefore depends on
nothing but the seed and the ids: not on the order of files or lines, the rank, or the machine. A smaller draw is a
prefix of a larger one, so `amt:stage1#1000` trains on rows that stage 2 leaves out just as it does for all of stage 1.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from swift_plugins.build_report import read_report
from swift_plugins.files import (
    CONFIGS,
    Config,
    InputError,
    read_config,
    read_rows,
    read_rows_at,
    read_yaml,
    run_cli,
    write_json,
)
from swift_plugins.options import option, parse
from swift_plugins.rows import MEDIA, check_row
from swift_plugins.tasks import TASKS, split_channel

DEFAULT = CONFIGS / "mixtures.yaml"


class Part(Config):
    """One task of a stage: its weight in the ratio and the channels it draws from, pooled."""

    weight: int = Field(gt=0)
    sources: list[str] = Field(min_length=1)
    oversample: bool = False


class Stage(Config):
    """One training stage, as configs/mixtures.yaml describes it."""

    size: Any = "scarcest"
    after: list[str] = []
    disjoint: Literal["clip_task", "clip"] = "clip_task"
    tasks: dict[str, Part] = Field(min_length=1)

    @field_validator("size")
    @classmethod
    def _size(cls, size: object) -> object:
        if size != "scarcest" and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError(f"{size!r} is neither a positive number nor scarcest")
        return size

    @model_validator(mode="after")
    def _check(self) -> Stage:
        for task, part in self.tasks.items():
            if task not in TASKS:
                raise ValueError(f"{task} is not a task (one of {', '.join(TASKS)})")
            if len(set(part.sources)) < len(part.sources):
                raise ValueError(f"{task}: sources is not a list of different channels")
            for source in part.sources:
                if not _is_channel_of(source, task):
                    raise ValueError(f"{task}: {source} is not a channel <dataset>.{task}")
        if self.size == "scarcest" and all(part.oversample for part in self.tasks.values()):
            raise ValueError("size is scarcest, but every task oversamples, so none sets it")
        return self


def _is_channel_of(source: str, task: str) -> bool:
    try:
        return split_channel(source)[1:] == (task, "")
    except ValueError:
        return False


class Mixtures(Config):
    """A mixtures file. `path` is where it was read from."""

    seed: int = 42
    stages: dict[str, Stage]
    path: str = ""

    @model_validator(mode="after")
    def _check(self) -> Mixtures:
        for name, stage in self.stages.items():
            for earlier in stage.after:
                if earlier not in self.stages or name in self._before(earlier):
                    raise ValueError(f"stages.{name}: after names {earlier}, which is no earlier stage")
        return self

    def _before(self, name: str) -> set[str]:
        """The stage and all that come before it, directly or not; ends for circles, too."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            if (name := waiting.pop()) not in found:
                found.add(name)
                waiting += [after for after in self.stages[name].after if after in self.stages]
        return found


class ChannelFile:
    """The rows of `<channel>.<split>.jsonl`: their ids in memory, themselves on the disk."""

    def __init__(self, data: Path | str, channel: str, split: str):
        self.path = Path(data) / f"{channel}.{split}.jsonl"
        self.channel = channel
        self.ids: list[str] = []
        self.offsets = array("q")
        if self.path.is_file():
            self.ids = [row["id"] for row in check_rows(self.path, channel, self.offsets)]

    def read(self, numbers: Sequence[int]) -> list[dict]:
        """The rows with these numbers, counted from 0; `InputError` where the file has changed since the draw."""
        try:
            rows = read_rows_at(self.path, [self.offsets[number] for number in numbers])
            same = all(row["id"] == self.ids[number] for row, number in zip(rows, numbers, strict=True))
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise InputError("was written anew while it was read", self.path)
        return rows


def _read(picks: Sequence[tuple[ChannelFile, int]]) -> list[dict]:
    """The rows of some picks, in their order; each file is opened once."""
    numbers: dict[ChannelFile, list[int]] = {}
    for file, number in picks:
        numbers.setdefault(file, []).append(number)
    rows = {file: iter(file.read(wanted)) for file, wanted in numbers.items()}
    return [next(rows[file]) for file, _ in picks]


@dataclass(frozen=True)
class Share:
    """What a stage takes of one task. `total` counts the rows of its channels, `available` those that earlier
    stages left, `wanted` its part of the stage's size, `picks` what was drawn: (file, number of the row)."""

    task: str
    part: Part
    total: int
    available: int
    wanted: int
    picks: tuple[tuple[ChannelFile, int], ...]

    @cached_property
    def rows(self) -> list[dict]:
        """The rows that were drawn, in the order of the draw."""
        return _read(self.picks)

    @cached_property
    def drawn_per_source(self) -> Counter:
        """Channel → rows drawn from it."""
        return Counter(file.channel for file, _ in self.picks)

    @property
    def short(self) -> bool:
        """Whether the task has fewer rows than its share."""
        return len(self.picks) < self.wanted


@dataclass(frozen=True)
class Plan:
    """The draw of one stage. `largest` is the largest size that keeps the ratio without repeating a row."""

    name: str
    shares: tuple[Share, ...]
    largest: int

    @property
    def rows(self) -> list[dict]:
        """All rows drawn, mixed: shuffled by the same kind of hash, so that tasks alternate."""
        picks = [
            (_key(self.name, share.task, number, file.ids[row]), file, row)
            for share in self.shares
            for number, (file, row) in enumerate(share.picks)
        ]
        picks.sort(key=lambda pick: pick[0])
        return _read([(file, row) for _, file, row in picks])

    def check(self) -> None:
        """Raise `InputError` when a task has fewer rows than its share."""
        short = [share for share in self.shares if share.short]
        if not short:
            return
        lacks = "; ".join(
            f"{s.task} wants {s.wanted:,} rows and has {s.available:,} ({', '.join(s.part.sources)})" for s in short
        )
        advice = (
            f"the largest size that keeps the ratio is {self.largest:,} (amt:{self.name}#{self.largest})"
            if self.largest
            else "build its rows first, or leave the task out of the mixture"
        )
        raise InputError(f"{self.name} is too scarce: {lacks}; {advice}")

    def table(self) -> str:
        """The plan as text, one line per channel."""
        head = ("task", "weight", "channel", "available", "wanted", "drawn")
        lines = [head]
        for share in self.shares:
            for source in share.part.sources:
                first = source == share.part.sources[0]
                left = f"{share.available:,}" + (f" of {share.total:,}" if share.available != share.total else "")
                lines.append(
                    (
                        share.task if first else "",
                        str(share.part.weight) if first else "",
                        source,
                        left if first else "",
                        f"{share.wanted:,}" if first else "",
                        f"{share.drawn_per_source[source]:,}"
                        + (" TOO SCARCE" if share.short else " repeated" if share.wanted > share.available else ""),
                    )
                )
        wanted, drawn = sum(s.wanted for s in self.shares), sum(len(s.picks) for s in self.shares)
        lines.append(("total", "", "", "", f"{wanted:,}", f"{drawn:,}"))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i in (0, 2) or (i == 5 and "S" in cell) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def as_json(self) -> dict:
        """The plan's numbers."""
        return {
            "stage": self.name,
            "size": sum(len(share.picks) for share in self.shares),
            "largest": self.largest,
            "tasks": {
                share.task: {
                    "weight": share.part.weight,
                    "total": share.total,
                    "available": share.available,
                    "wanted": share.wanted,
                    "drawn": {source: share.drawn_per_source[source] for source in share.part.sources},
                }
                for share in self.shares
            },
        }


def apportion(size: int, weights: Sequence[int]) -> list[int]:
    """Split `size` by `weights` exactly, by the largest remainder; ties go to the earlier weight."""
    total = sum(weights)
    exact = [Fraction(size * weight, total) for weight in weights]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: size - sum(counts)]:
        counts[i] += 1
    return counts


def largest_size(weights: Sequence[int], available: Sequence[int | None]) -> int:
    """The largest size at which no task's exact share exceeds its rows (None: no limit, the task oversamples).

    The scarcest task gives all its rows: 4,839 ERI rows at 3:3:3:1 make 16,130.
    """
    total = sum(weights)
    return min(have * total // weight for weight, have in zip(weights, available, strict=True) if have is not None)


def _key(*parts: object) -> bytes:
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).digest()


def order(ids: Sequence[str], task: str, seed: int) -> np.ndarray:
    """The numbers of the rows with these ids in the order in which they are drawn for `task`."""
    keys = np.frombuffer(b"".join(_key(seed, task, clip) for clip in ids), dtype=">u8").reshape(-1, 2)
    return np.lexsort((keys[:, 1], keys[:, 0]))


def read_mixtures(path: Path | str | None = None) -> Mixtures:
    """Read a mixtures file (`AMT_MIXTURES`, else the project's own); `InputError` names what is wrong in it."""
    path = Path(path or os.environ.get("AMT_MIXTURES") or DEFAULT)
    return read_config(path, Mixtures).model_copy(update={"path": str(path)})


def check_rows(path: Path, channel: str, offsets: array | None = None) -> Iterator[dict]:
    """The rows of a channel's file, one at a time; `offsets` takes where each of them begins.

    Raises `InputError` for a row without id, query, response or with another channel than the file's, and for an id
    that comes twice.
    """
    seen: set[str] = set()
    for number, row in read_rows(path, offsets):
        for key in ("id", "channel", "query", "response"):
            if not isinstance(row.get(key), str):
                raise InputError(f"has no text under {key}", path, number)
        check_row(row, path, number)
        if not all(isinstance(name, str) for key in MEDIA for name in row.get(key) or ()):
            raise InputError("images, videos and audios are not lists of paths", path, number)
        try:
            source = ".".join(split_channel(row["channel"])[:2])
        except ValueError as error:
            raise InputError(str(error), path, number) from None
        if source != channel:
            raise InputError(f"channel {row['channel']} in a file of {channel}", path, number)
        if row["id"] in seen:
            raise InputError(f"duplicate id {row['id']}", path, number)
        seen.add(row["id"])
        yield row


def read_channel(data: Path | str, channel: str, split: str) -> list[dict]:
    """The rows of `<channel>.<split>.jsonl`, [] when there is no such file; raises as `check_rows`."""
    path = Path(data) / f"{channel}.{split}.jsonl"
    return list(check_rows(path, channel)) if path.is_file() else []


@dataclass(frozen=True)
class _Pool:
    """What a task can draw from: all its files, and its picks in the order of the draw, without those taken before."""

    total: int
    left: list[tuple[ChannelFile, int]]


def _pool(files: Sequence[ChannelFile], task: str, seed: int, taken: set[str]) -> _Pool:
    rows = [(file, number) for file in files for number in range(len(file.ids))]
    left = [(file, number) for file, number in rows if file.ids[number] not in taken] if taken else rows
    places = order([file.ids[number] for file, number in left], task, seed)
    return _Pool(len(rows), [left[place] for place in places])


def whole(name: str, data: Path) -> Stage | None:
    """A stage that is no stage of a file: every training row of a channel (`mine.mer`) or of all channels of a dataset
    (`mine`), mixed as they are; None where `data` holds no such rows.
    """
    counts = {}
    for path in sorted(data.glob(f"{glob.escape(name)}{'' if '.' in name else '.*'}.train.jsonl")):
        channel = path.name.removesuffix(".train.jsonl")
        with contextlib.suppress(ValueError), path.open("rb") as file:
            counts[channel, split_channel(channel)[1]] = sum(1 for line in file if line.strip())
    tasks = {task: Part(weight=count, sources=[channel]) for (channel, task), count in counts.items() if count}
    return Stage(size=sum(counts.values()), tasks=tasks) if tasks else None


def rows_there(data: Path, split: str = "train") -> str:
    """What `data` has of a split, in words for who asked for something else: its datasets and their channels."""
    found: dict[str, list[str]] = {}
    for path in sorted(data.glob(f"*.*.{split}.jsonl")):
        channel = path.name.removesuffix(f".{split}.jsonl")
        with contextlib.suppress(ValueError):
            if path.stat().st_size:
                found.setdefault(split_channel(channel)[0], []).append(channel)
    datasets = ", ".join(f"{dataset} ({', '.join(channels)})" for dataset, channels in found.items())
    return f"{data} has {split} rows of {datasets or 'nothing'}"


def draw(mixtures: Mixtures, name: str, data: Path | str, size: int | None = None, _files: dict | None = None) -> Plan:
    """The plan of stage `name` over the training rows in `data`; `size` overrides the configured one.

    A dataset or a channel is a stage, too: all its rows.

    A task with too few rows gives fewer (`Plan.check` refuses that); it is never padded. What `after` stages take is
    their configured draw, or all rows of a task that is too scarce for it.
    """
    data = Path(data)
    if not data.is_dir():
        raise InputError("no such folder of AMT rows (python -m data_prep.build_amt makes it)", data)
    stage = mixtures.stages.get(name) or whole(name, data)
    if stage is None:
        known = f"there are {', '.join(mixtures.stages)}, and {rows_there(data)}"
        raise InputError(f"has no stage {name}; {known}", mixtures.path)
    files: dict[str, ChannelFile] = {} if _files is None else _files  # read once for all stages of the chain
    taken: dict[str, set[str]] = {task: set() for task in TASKS}  # task → ids
    for earlier in stage.after:
        for share in draw(mixtures, earlier, data, _files=files).shares:
            taken[share.task] |= {file.ids[number] for file, number in share.picks}
    if stage.disjoint == "clip":
        taken = dict.fromkeys(taken, set().union(*taken.values()))
    for source in (source for part in stage.tasks.values() for source in part.sources):
        if source not in files:
            files[source] = ChannelFile(data, source, "train")
    pools = {
        task: _pool([files[source] for source in part.sources], task, mixtures.seed, taken[task])
        for task, part in stage.tasks.items()
    }
    parts = stage.tasks
    weights = [part.weight for part in parts.values()]
    largest = 0
    if all(pools[task].left or part.oversample for task, part in parts.items()):
        limits = [None if part.oversample else len(pools[task].left) for task, part in parts.items()]
        largest = largest_size(weights, limits) if any(limit is not None for limit in limits) else 0
    if size is None:
        size = largest if stage.size == "scarcest" else stage.size
    shares = []
    for (task, part), wanted in zip(parts.items(), apportion(size, weights), strict=True):
        left = pools[task].left
        if size == 0:  # scarcest, and some task has no rows at all: name it instead of drawing nothing
            wanted = max(wanted, int(not left))
        passes = -(-wanted // len(left)) if part.oversample and left else 1
        shares.append(Share(task, part, pools[task].total, len(left), wanted, tuple((left * passes)[:wanted])))
    return Plan(name, tuple(shares), largest)


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    stage: str = option(help="a stage of the mixtures file (stage1, stage2, …), or a dataset or channel: all its rows")
    data: str | None = option(None, metavar="DIR", help="folder of AMT rows (default: AMT_DATA)")
    mixtures: Path | None = option(
        None, metavar="FILE", help="mixtures file (default: AMT_MIXTURES, else configs/mixtures.yaml)"
    )
    size: int | None = option(None, metavar="N", help="number of rows instead of the configured size")
    json: Path | None = option(None, metavar="FILE", help="also write the plan to this file")


def data_root(option: str | None = None) -> Path:
    """The folder of AMT rows: the option, else `AMT_DATA`; `InputError` when neither is given."""
    root = option or os.environ.get("AMT_DATA")
    if not root:
        raise InputError("say where the AMT rows are: --data DIR or AMT_DATA")
    return Path(root)


def system_turn(data: Path, split: str) -> str | None:
    """The system turn that the rows of a split were built with, where it is not the project's own (`--prompts`)."""
    path = data / f"report.{split}.json"
    turn = read_report(path).options.system if path.is_file() else None
    own: Any = read_yaml(CONFIGS / "prompts.yaml")
    return turn if turn != own["system"] else None


def main() -> int:
    """Print the plan of a stage; a stage that cannot be drawn ends with status 2."""
    options = parse(Options, __doc__, prog="swift_plugins.mixture")
    if options.size is not None and options.size < 1:
        raise InputError(f"--size {options.size} is not a positive number")
    mixtures = read_mixtures(options.mixtures)
    plan = draw(mixtures, options.stage, data_root(options.data), options.size)
    print(f"{options.stage} of {mixtures.path}, seed {mixtures.seed}\n{plan.table()}")
    plan.check()
    if options.json:
        write_json(options.json, plan.as_json())
    return 0


if __name__ == "__main__":
    run_cli(main)
