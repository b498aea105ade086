"""M2SE mixing: which AMT rows a stage trains on, exactly in the ratio of configs/mixtures.yaml.

    python -m swift_plugins.mixture --stage stage1 --data AMT_DIR

prints the plan of a stage: rows per channel available, wanted and drawn. `--dataset amt:stage1` draws the same rows
inside ms-swift (`swift_plugins.dataset`).

The draw orders a task's rows by a keyed hash of (seed, task, id) and takes the first ones. It therefore depends on
nothing but the seed (that of the file, or AMT_SEED) and the ids: not on the order of files or lines, the rank, or the
machine. A smaller draw is a prefix of a larger one, so `amt:stage1#1000` trains on rows that stage 2 leaves out just as
it does for all of stage 1.
A draw with replacement takes the rows of that order whose places are hashes of (seed, stage, channel, number of the
draw), with the same properties.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, PlainValidator, TypeAdapter, field_validator, model_validator

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


POOLED = TypeAdapter(Annotated[list[str], Field(min_length=1)])
WEIGHTED = TypeAdapter(Annotated[dict[str, Annotated[int, Field(gt=0)]], Field(min_length=1)])


def _sources(value: object) -> list[str] | dict[str, int]:
    """As a union would read them, which names its members in what it says of an error."""
    kind: TypeAdapter = WEIGHTED if isinstance(value, dict) else POOLED
    return kind.validate_python(value, strict=True)


class Lot(NamedTuple):
    """What gets rows of its own when a stage is shared out: a task, or a channel that has a weight. `name` is which."""

    task: str
    name: str
    weight: int
    sources: tuple[str, ...]


class Part(Config):
    """One task of a stage: the channels it draws from and its weight in the ratio.

    A list of `sources` is pooled. A mapping gives every channel its own weight, of which `weight` is the sum.
    """

    sources: Annotated[list[str] | dict[str, int], PlainValidator(_sources)]
    weight: int = Field(gt=0)
    oversample: bool = False

    @model_validator(mode="before")
    @classmethod
    def _sum(cls, value: Any) -> Any:
        sources = value.get("sources") if isinstance(value, dict) else None
        if not isinstance(sources, dict) or not all(type(weight) is int for weight in sources.values()):
            return value
        return {"weight": sum(sources.values())} | value

    @model_validator(mode="after")
    def _check(self) -> Part:
        if isinstance(self.sources, dict) and self.weight != sum(self.sources.values()):
            raise ValueError(f"weight is {self.weight}, but its sources add up to {sum(self.sources.values())}")
        return self

    def lots(self, task: str) -> list[Lot]:
        """What the task is shared out as."""
        if isinstance(self.sources, dict):
            return [Lot(task, channel, weight, (channel,)) for channel, weight in self.sources.items()]
        return [Lot(task, task, self.weight, tuple(self.sources))]


class Stage(Config):
    """One training stage, as configs/mixtures.yaml describes it."""

    size: Any = "scarcest"
    after: list[str] = []
    disjoint: Literal["clip_task", "clip"] = "clip_task"
    replacement: bool = False
    absent: Literal["refuse", "leave_out"] = "refuse"
    note: str = ""
    tasks: dict[str, Part] = Field(min_length=1)

    @field_validator("size")
    @classmethod
    def _size(cls, size: object) -> object:
        if isinstance(size, list) and size and all(isinstance(name, str) for name in size):
            return size
        if size != "scarcest" and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError(f"{size!r} is neither a positive number, nor scarcest, nor a list of stages")
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
            if self.replacement and part.oversample:
                raise ValueError(f"{task}: oversample repeats whole passes, replacement any row: give one of them")
            if self.absent == "leave_out" and isinstance(part.sources, list):
                raise ValueError(f"{task}: absent: leave_out needs a weight for each of its sources")
        if self.replacement and self.size == "scarcest":
            raise ValueError("replacement needs a size that is a number: no task is scarce where rows come again")
        if self.size == "scarcest" and all(part.oversample for part in self.tasks.values()):
            raise ValueError("size is scarcest, but every task oversamples, so none sets it")
        return self

    @property
    def lots(self) -> list[Lot]:
        """What the stage is shared out as, in the order of the file."""
        return [lot for task, part in self.tasks.items() for lot in part.lots(task)]

    @property
    def sized_by(self) -> list[str]:
        """The stages whose rows together are its size."""
        return self.size if isinstance(self.size, list) else []

    @property
    def pooled(self) -> bool:
        """Whether no channel has a weight of its own."""
        return all(isinstance(part.sources, list) for part in self.tasks.values())


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
            for key, named in (("after", stage.after), ("size", stage.sized_by)):
                for other in named:
                    if other not in self.stages or name in self._before(other):
                        kind = "no earlier stage" if key == "after" else "no other stage"
                        raise ValueError(f"stages.{name}: {key} names {other}, which is {kind}")
        return self

    def _before(self, name: str) -> set[str]:
        """The stage and all that it comes after or is sized by, directly or not; ends for circles, too."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            if (name := waiting.pop()) not in found:
                found.add(name)
                stage = self.stages[name]
                waiting += [other for other in (*stage.after, *stage.sized_by) if other in self.stages]
        return found


class ChannelFile:
    """The rows of `<channel>.<split>.jsonl`: ids and parts of their channels in memory, themselves on the disk."""

    def __init__(self, data: Path | str, channel: str, split: str):
        self.path = Path(data) / f"{channel}.{split}.jsonl"
        self.channel = channel
        self.ids: list[str] = []
        self.parts: list[str] = []
        self.offsets = array("q")
        if self.path.is_file():
            for row in check_rows(self.path, channel, self.offsets):
                self.ids.append(row["id"])
                self.parts.append(sys.intern(row["channel"][len(channel) + 1 :]))

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
    """The rows of some picks, in their order; each file is opened once, each row read once."""
    numbers: dict[ChannelFile, set[int]] = {}
    for file, number in picks:
        numbers.setdefault(file, set()).add(number)
    rows: dict[tuple[ChannelFile, int], dict] = {}
    for file, some in numbers.items():
        wanted = sorted(some)
        rows |= {(file, number): row for number, row in zip(wanted, file.read(wanted), strict=True)}
    return [rows[pick] for pick in picks]


@dataclass(frozen=True)
class Share:
    """What a stage takes of one lot. `total` counts the rows of its channels, `available` those that earlier stages
    left, `wanted` its part of the stage's size, `picks` what was drawn: (file, number of the row)."""

    lot: Lot
    total: int
    available: int
    wanted: int
    picks: tuple[tuple[ChannelFile, int], ...]

    @property
    def task(self) -> str:
        """Its task."""
        return self.lot.task

    @cached_property
    def rows(self) -> list[dict]:
        """The rows that were drawn, in the order of the draw; a row that comes again is the same object."""
        return _read(self.picks)

    @cached_property
    def drawn_per_source(self) -> Counter:
        """Channel → rows drawn from it."""
        return Counter(file.channel for file, _ in self.picks)

    @property
    def short(self) -> bool:
        """Whether the lot has fewer rows than its share."""
        return len(self.picks) < self.wanted


@dataclass(frozen=True)
class Plan:
    """The draw of one stage. `largest` is the largest size that keeps the ratio without repeating a row; `left_out`
    what `absent: leave_out` leaves out."""

    name: str
    stage: Stage
    shares: tuple[Share, ...]
    largest: int
    left_out: tuple[Lot, ...] = ()

    @property
    def rows(self) -> list[dict]:
        """All rows drawn, mixed: shuffled by the same kind of hash, so that tasks alternate. A row that comes again
        is the same object."""
        picks = [
            (_key(self.name, share.lot.name, number, file.ids[row]), file, row)
            for share in self.shares
            for number, (file, row) in enumerate(share.picks)
        ]
        picks.sort(key=lambda pick: pick[0])
        return _read([(file, row) for _, file, row in picks])

    def check(self) -> None:
        """Raise `InputError` when a task, or a channel with a weight, has fewer rows than its share, and when all of
        them were left out."""
        if not self.shares:
            names = ", ".join(lot.name for lot in self.left_out)
            raise InputError(f"{self.name} has nothing to draw: no channel of it has rows ({names}); build them first")
        short = [share for share in self.shares if share.short]
        if not short:
            return
        lacks = "; ".join(
            f"{s.task} wants {s.wanted:,} rows and has {s.available:,} ({', '.join(s.lot.sources)})" for s in short
        )
        advice = (
            f"the largest size that keeps the ratio is {self.largest:,} (amt:{self.name}#{self.largest})"
            if self.largest
            else "build its rows first, or leave the task out of the mixture"
        )
        raise InputError(f"{self.name} is too scarce: {lacks}; {advice}")

    def table(self) -> str:
        """The plan as text: a line per channel, what is left out, the stage's note.

        Where channels have weights or rows come again, it also says the share of the stage, and how often a row comes.
        """
        lines: list[tuple[str, ...]] = [
            ("task", "weight", "share", "channel", "available", "wanted", "drawn", "per row")
        ]
        task = ""
        for share, part in zip(self.shares, _hundredths([share.lot.weight for share in self.shares]), strict=True):
            more = share.wanted > share.available
            fate = " TOO SCARCE" if share.short else " repeated" if more and not self.stage.replacement else ""
            left = f"{share.available:,}" + (f" of {share.total:,}" if share.available != share.total else "")
            times = f"{len(share.picks) / share.available:.2f}" if share.available else ""
            name = "" if share.task == task else share.task
            for number, source in enumerate(share.lot.sources):
                drawn = f"{share.drawn_per_source[source]:,}{fate}"
                weight = str(share.lot.weight)
                line = (name, weight, f"{part / 100:.2f} %", source, left, f"{share.wanted:,}", drawn, times)
                lines.append(("", "", "", source, "", "", drawn, "") if number else line)
            task = share.task
        of_stage = "100.00 %" if self.shares else ""
        sums = sum(share.wanted for share in self.shares), sum(len(share.picks) for share in self.shares)
        lines.append(("total", "", of_stage, "", "", *(f"{count:,}" for count in sums), ""))
        if self.stage.pooled and not self.stage.replacement:
            lines = [line[:2] + line[3:7] for line in lines]
        head, widths = lines[0], [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                cell.ljust(width)
                if name in ("task", "channel") or (name == "drawn" and "S" in cell)
                else cell.rjust(width)
                for name, cell, width in zip(head, line, widths, strict=True)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*text, *filter(None, (self._left_out(), self.stage.note.strip()))])

    def _left_out(self) -> str:
        """What is left out, with the part of the stage that it would have been; nothing where nothing is."""
        parts = dict(zip(self.stage.lots, _hundredths([lot.weight for lot in self.stage.lots]), strict=True))
        told = ", ".join(f"{lot.name} {parts[lot] / 100:.2f} %" for lot in self.left_out)
        whole = sum(parts[lot] for lot in self.left_out)
        return f"left out: {told}; {whole / 100:.2f} % of the stage in all" if told else ""

    def as_json(self) -> dict:
        """The plan's numbers; shares of the stage as exact fractions, those of what is left out of the whole stage."""
        tasks: dict[str, dict] = {}
        for task, part in self.stage.tasks.items():
            if shares := [share for share in self.shares if share.task == task]:
                tasks[task] = self._numbers(shares)
                tasks[task]["drawn"] = {source: s.drawn_per_source[source] for s in shares for source in s.lot.sources}
                if isinstance(part.sources, dict):
                    tasks[task]["channels"] = {share.lot.name: self._numbers([share]) for share in shares}
        whole = sum(lot.weight for lot in self.stage.lots)
        return {
            "stage": self.name,
            "size": sum(len(share.picks) for share in self.shares),
            "largest": self.largest,
            "tasks": tasks,
            "left_out": {lot.name: str(Fraction(lot.weight, whole)) for lot in self.left_out},
            "note": self.stage.note.strip(),
        }

    def _numbers(self, shares: Sequence[Share]) -> dict:
        weight = sum(share.lot.weight for share in shares)
        return {
            "weight": weight,
            "share": str(Fraction(weight, sum(share.lot.weight for share in self.shares))),
            "total": sum(share.total for share in shares),
            "available": sum(share.available for share in shares),
            "wanted": sum(share.wanted for share in shares),
            "drawn": sum(len(share.picks) for share in shares),
        }


def _hundredths(weights: Sequence[int]) -> list[int]:
    """Hundredths of a per cent that the weights are of their sum; they add up to 100 %."""
    return apportion(10_000, weights) if weights else []


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


def order(ids: Sequence[str], task: str, seed: int, parts: Sequence[str] = ()) -> np.ndarray:
    """The numbers of the rows with these ids in the order in which they are drawn for `task`.

    parts: of their channels, which tell rows of one id apart (`mafw.think` and `mafw.think.multi`).
    """
    keys = np.frombuffer(b"".join(_key(seed, task, clip) for clip in ids), dtype=">u8").reshape(-1, 2)
    ties = (np.array(parts),) if any(parts) else ()
    return np.lexsort((*ties, keys[:, 1], keys[:, 0]))


def read_mixtures(path: Path | str | None = None) -> Mixtures:
    """Read a mixtures file (`AMT_MIXTURES`, else the project's own), with the seed of `AMT_SEED` where that is set.

    `InputError` names what is wrong in it.
    """
    path = Path(path or os.environ.get("AMT_MIXTURES") or DEFAULT)
    mixtures = read_config(path, Mixtures)
    seed = os.environ.get("AMT_SEED") or str(mixtures.seed)
    if not re.fullmatch("-?[0-9]{1,18}", seed):
        raise InputError(f"AMT_SEED={seed} is not a whole number")
    return mixtures.model_copy(update={"path": str(path), "seed": int(seed)})


def check_rows(path: Path, channel: str, offsets: array | None = None) -> Iterator[dict]:
    """The rows of a channel's file, one at a time; `offsets` takes where each of them begins.

    Raises `InputError` for a row without id, query, response or with another channel than the file's, and for an id
    that comes twice in one part of the channel.
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
            dataset, task, part = split_channel(row["channel"])
        except ValueError as error:
            raise InputError(str(error), path, number) from None
        if f"{dataset}.{task}" != channel:
            raise InputError(f"channel {row['channel']} in a file of {channel}", path, number)
        key = f"{row['id']}\x1f{part}" if part else row["id"]
        if key in seen:
            raise InputError(f"duplicate id {row['id']}", path, number)
        seen.add(key)
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
    parts = [file.parts[number] for file, number in left]
    places = order([file.ids[number] for file, number in left], task, seed, parts)
    return _Pool(len(rows), [left[place] for place in places])


def _again(left: list, count: int, *key: object) -> list:
    """`count` draws with replacement, each at a place that the hash of `key` and its number names."""
    return [left[int.from_bytes(_key(*key, number), "big") % len(left)] for number in range(count)]


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
    their configured draw, or all rows of a task that is too scarce for it. A stage with replacement draws from the rows
    that these left, as often as it wants.
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
    for source in (source for lot in stage.lots for source in lot.sources):
        if source not in files:
            files[source] = ChannelFile(data, source, "train")
    there = {lot: any(files[source].ids for source in lot.sources) for lot in stage.lots}
    lots = [lot for lot in stage.lots if there[lot] or stage.absent == "refuse"]
    pools = {
        lot: _pool([files[source] for source in lot.sources], lot.task, mixtures.seed, taken[lot.task]) for lot in lots
    }
    weights = [lot.weight for lot in lots]
    oversample = {lot: stage.replacement or stage.tasks[lot.task].oversample for lot in lots}
    largest = 0
    if all(pools[lot].left or oversample[lot] for lot in lots):
        limits = [None if oversample[lot] else len(pools[lot].left) for lot in lots]
        largest = largest_size(weights, limits) if any(limit is not None for limit in limits) else 0
    if size is None and stage.sized_by:
        shared = (share for other in stage.sized_by for share in draw(mixtures, other, data, _files=files).shares)
        size = sum(share.wanted for share in shared)
    elif size is None:
        size = largest if stage.size == "scarcest" else stage.size
    shares = []
    for lot, wanted in zip(lots, apportion(size, weights), strict=True):
        left = pools[lot].left
        if size == 0:  # scarcest, and some lot has no rows at all: name it instead of drawing nothing
            wanted = max(wanted, int(not left))
        if stage.replacement and left:
            picks = _again(left, wanted, mixtures.seed, name, lot.name)
        else:
            passes = -(-wanted // len(left)) if oversample[lot] and left else 1
            picks = (left * passes)[:wanted]
        shares.append(Share(lot, pools[lot].total, len(left), wanted, tuple(picks)))
    return Plan(name, stage, tuple(shares), largest, tuple(lot for lot in stage.lots if lot not in pools))


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
