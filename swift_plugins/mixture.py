"""M2SE mixing: which AMT rows a stage trains on, exactly in the ratio of configs/mixtures.yaml.

    python -m swift_plugins.mixture --stage stage1 --data AMT_DIR

prints the plan of a stage: rows per channel available, wanted and drawn. `--dataset amt:stage1` draws the same rows
inside ms-swift (`swift_plugins.dataset`).

The draw orders a task's rows by a keyed hash of (seed, task, id) and takes the first ones. It therefore depends on
nothing but the seed and the ids: not on the order of files or lines, the rank, or the machine. A smaller draw is a
prefix of a larger one, so `amt:stage1#1000` trains on rows that stage 2 leaves out just as it does for all of stage 1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from swift_plugins.files import CONFIGS, InputError, read_rows, read_yaml, run_cli, write_json
from swift_plugins.tasks import TASKS, split_channel

DEFAULT = CONFIGS / "mixtures.yaml"


@dataclass(frozen=True)
class Part:
    """One task of a stage: its weight in the ratio and the channels it draws from, pooled."""

    task: str
    weight: int
    sources: tuple[str, ...]
    oversample: bool = False


@dataclass(frozen=True)
class Stage:
    """One training stage; `size` is None for `scarcest`."""

    name: str
    parts: tuple[Part, ...]
    size: int | None = None
    after: tuple[str, ...] = ()
    disjoint: str = "clip_task"


@dataclass(frozen=True)
class Mixtures:
    """A mixtures file."""

    path: Path
    seed: int
    stages: dict[str, Stage]

    def stage(self, name: str) -> Stage:
        try:
            return self.stages[name]
        except KeyError:
            raise InputError(f"has no stage {name}; there are {', '.join(self.stages)}", self.path) from None


@dataclass(frozen=True)
class Share:
    """What a stage takes of one task. `total` counts the rows of its channels, `available` those that earlier
    stages left, `wanted` its part of the stage's size, `rows` what was drawn."""

    part: Part
    total: int
    available: int
    wanted: int
    rows: tuple[dict, ...]

    def drawn(self, source: str) -> int:
        return sum(_source(row) == source for row in self.rows)

    @property
    def short(self) -> bool:
        return len(self.rows) < self.wanted


@dataclass(frozen=True)
class Plan:
    """The draw of one stage. `largest` is the largest size that keeps the ratio without repeating a row."""

    stage: Stage
    shares: tuple[Share, ...]
    largest: int

    @property
    def rows(self) -> list[dict]:
        """All rows drawn, mixed: shuffled by the same kind of hash, so that tasks alternate."""
        rows = [(share.part.task, number, row) for share in self.shares for number, row in enumerate(share.rows)]
        rows.sort(key=lambda item: _key(self.stage.name, item[0], item[1], item[2]["id"]))
        return [row for *_, row in rows]

    def check(self) -> None:
        """Raise `InputError` when a task has fewer rows than its share."""
        short = [share for share in self.shares if share.short]
        if not short:
            return
        lacks = "; ".join(
            f"{s.part.task} wants {s.wanted:,} rows and has {s.available:,} ({', '.join(s.part.sources)})"
            for s in short
        )
        advice = (
            f"the largest size that keeps the ratio is {self.largest:,} (amt:{self.stage.name}#{self.largest})"
            if self.largest
            else "build its rows first, or leave the task out of the mixture"
        )
        raise InputError(f"{self.stage.name} is too scarce: {lacks}; {advice}")

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
                        share.part.task if first else "",
                        str(share.part.weight) if first else "",
                        source,
                        left if first else "",
                        f"{share.wanted:,}" if first else "",
                        f"{share.drawn(source):,}"
                        + (" TOO SCARCE" if share.short else " repeated" if share.wanted > share.available else ""),
                    )
                )
        wanted, drawn = sum(s.wanted for s in self.shares), sum(len(s.rows) for s in self.shares)
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
        return {
            "stage": self.stage.name,
            "size": sum(len(share.rows) for share in self.shares),
            "largest": self.largest,
            "tasks": {
                share.part.task: {
                    "weight": share.part.weight,
                    "total": share.total,
                    "available": share.available,
                    "wanted": share.wanted,
                    "drawn": {source: share.drawn(source) for source in share.part.sources},
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


def _source(row: dict) -> str:
    return ".".join(split_channel(row["channel"])[:2])


def order(rows: Sequence[dict], task: str, seed: int) -> list[dict]:
    """The rows in the order in which they are drawn for `task`."""
    return sorted(rows, key=lambda row: (_key(seed, task, row["id"]), row["channel"]))


def read_mixtures(path: Path | str | None = None) -> Mixtures:
    """Read a mixtures file (`AMT_MIXTURES`, else the project's own); `InputError` names what is wrong in it."""
    path = Path(path or os.environ.get("AMT_MIXTURES") or DEFAULT)
    config = read_yaml(path)
    if not isinstance(config, dict) or not isinstance(config.get("stages"), dict):
        raise InputError("needs a key stages", path)
    _no_other_keys(config, {"seed", "stages"}, "the file", path)
    seed = config.get("seed", 42)
    if not isinstance(seed, int):
        raise InputError(f"seed is {seed!r}, not a whole number", path)
    stages = {name: _stage(name, body, path) for name, body in config["stages"].items()}
    for stage in stages.values():
        for earlier in stage.after:
            if not isinstance(earlier, str) or earlier not in stages or stage.name in _before(earlier, stages):
                raise InputError(f"{stage.name}: after names {earlier}, which is no earlier stage", path)
    return Mixtures(path, seed, stages)


def _before(name: str, stages: dict[str, Stage]) -> set[str]:
    """The stage and all that come before it, directly or not; ends for circles, too."""
    found, open_names = set(), [name]
    while open_names:
        if (name := open_names.pop()) not in found:
            found.add(name)
            open_names += [after for after in stages[name].after if isinstance(after, str) and after in stages]
    return found


def _no_other_keys(mapping: dict, allowed: set[str], where: str, path: Path) -> None:
    unknown = sorted(set(mapping) - allowed)
    if unknown:
        raise InputError(f"{where} has an unknown key {unknown[0]}; there are {', '.join(sorted(allowed))}", path)


def _stage(name: str, body: object, path: Path) -> Stage:
    if not isinstance(body, dict) or not isinstance(body.get("tasks"), dict) or not body["tasks"]:
        raise InputError(f"{name} needs a key tasks", path)
    _no_other_keys(body, {"size", "after", "disjoint", "tasks"}, name, path)
    size = body.get("size", "scarcest")
    if size != "scarcest" and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise InputError(f"{name}: size is {size!r}, neither a positive number nor scarcest", path)
    disjoint = body.get("disjoint", "clip_task")
    if disjoint not in ("clip_task", "clip"):
        raise InputError(f"{name}: disjoint is {disjoint!r}, neither clip_task nor clip", path)
    parts = []
    for task, options in body["tasks"].items():
        where = f"{name}.{task}"
        if task not in TASKS:
            raise InputError(f"{where} is not a task (one of {', '.join(TASKS)})", path)
        if not isinstance(options, dict):
            raise InputError(f"{where} needs the keys weight and sources", path)
        _no_other_keys(options, {"weight", "sources", "oversample"}, where, path)
        weight, sources = options.get("weight"), options.get("sources")
        if not isinstance(weight, int) or isinstance(weight, bool) or weight < 1:
            raise InputError(f"{where}: weight is {weight!r}, not a positive whole number", path)
        if not isinstance(sources, list) or not sources or len(set(map(str, sources))) < len(sources):
            raise InputError(f"{where}: sources is {sources!r}, not a list of different channels", path)
        for source in sources:
            try:
                fits = split_channel(source)[1:] == (task, None)
            except (ValueError, AttributeError, TypeError):
                fits = False
            if not fits:
                raise InputError(f"{where}: {source} is not a channel <dataset>.{task}", path)
        oversample = options.get("oversample", False)
        if not isinstance(oversample, bool):
            raise InputError(f"{where}: oversample is {oversample!r}, neither true nor false", path)
        parts.append(Part(task, weight, tuple(sources), oversample))
    if size == "scarcest" and all(part.oversample for part in parts):
        raise InputError(f"{name}: size is scarcest, but every task oversamples, so none sets it", path)
    after = body.get("after") or []
    if not isinstance(after, list):
        raise InputError(f"{name}: after is {after!r}, not a list of stages", path)
    return Stage(name, tuple(parts), None if size == "scarcest" else size, tuple(after), disjoint)


def read_channel(data: Path | str, channel: str, split: str) -> list[dict]:
    """The rows of `<channel>.<split>.jsonl`, [] when there is no such file.

    Raises `InputError` for a row without id, query, response or with another channel than the file's, and for an id
    that comes twice.
    """
    path = Path(data) / f"{channel}.{split}.jsonl"
    if not path.is_file():
        return []
    rows, seen = [], set()
    for number, row in read_rows(path):
        for key in ("id", "channel", "query", "response"):
            if not isinstance(row.get(key), str):
                raise InputError(f"has no text under {key}", path, number)
        try:
            fits = _source(row) == channel
            "".join((row["id"], row["query"], row["response"])).encode()
        except UnicodeEncodeError:
            raise InputError("holds half of a surrogate pair, which is no character", path, number) from None
        except ValueError as error:
            raise InputError(str(error), path, number) from None
        if not fits:
            raise InputError(f"channel {row['channel']} in a file of {channel}", path, number)
        if row["id"] in seen:
            raise InputError(f"duplicate id {row['id']}", path, number)
        seen.add(row["id"])
        rows.append(row)
    return rows


def draw(mixtures: Mixtures, name: str, data: Path | str, size: int | None = None, _read: dict | None = None) -> Plan:
    """The plan of stage `name` over the training rows in `data`; `size` overrides the configured one.

    A task with too few rows gives fewer (`Plan.check` refuses that); it is never padded. What `after` stages take is
    their configured draw, or all rows of a task that is too scarce for it.
    """
    data = Path(data)
    if not data.is_dir():
        raise InputError("no such folder of AMT rows (python -m data_prep.build_amt makes it)", data)
    stage = mixtures.stage(name)
    cache = {} if _read is None else _read  # a channel's file is read once for all stages of the chain

    taken: set = set()
    for earlier in stage.after:
        for share in draw(mixtures, earlier, data, _read=cache).shares:
            taken |= {(row["id"], share.part.task) for row in share.rows}
    if stage.disjoint == "clip":
        clips = {clip for clip, _ in taken}

    pools = []
    for part in stage.parts:
        for source in part.sources:
            if source not in cache:
                cache[source] = read_channel(data, source, "train")
        rows = [row for source in part.sources for row in cache[source]]
        if stage.disjoint == "clip":
            left = [row for row in rows if row["id"] not in clips]
        else:
            left = [row for row in rows if (row["id"], part.task) not in taken]
        pools.append((part, len(rows), order(left, part.task, mixtures.seed)))

    weights = [part.weight for part in stage.parts]
    largest = 0
    if all(left or part.oversample for part, _, left in pools) and not all(part.oversample for part in stage.parts):
        largest = largest_size(weights, [None if part.oversample else len(left) for part, _, left in pools])
    if size is None:
        size = stage.size if stage.size is not None else largest
    shares = []
    for (part, total, left), wanted in zip(pools, apportion(size, weights), strict=True):
        if size == 0:  # scarcest, and some task has no rows at all: name it instead of drawing nothing
            wanted = max(wanted, int(not left))
        passes = -(-wanted // len(left)) if part.oversample and left else 1
        shares.append(Share(part, total, len(left), wanted, tuple((left * passes)[:wanted])))
    return Plan(stage, tuple(shares), largest)


def data_root(option: str | None = None) -> Path:
    """The folder of AMT rows: the option, else `AMT_DATA`; `InputError` when neither is given."""
    root = option or os.environ.get("AMT_DATA")
    if not root:
        raise InputError("say where the AMT rows are: --data DIR or AMT_DATA")
    return Path(root)


def main() -> int:
    parser = argparse.ArgumentParser(description="Print the plan of an M2SE stage.", prog="swift_plugins.mixture")
    parser.add_argument("--stage", required=True, help="a stage of the mixtures file: stage1, stage2, …")
    parser.add_argument("--data", help="folder of AMT rows (default: AMT_DATA)")
    parser.add_argument("--mixtures", help="mixtures file (default: AMT_MIXTURES, else configs/mixtures.yaml)")
    parser.add_argument("--size", type=int, help="number of rows instead of the configured size")
    parser.add_argument("--json", help="also write the plan to this file")
    args = parser.parse_args()
    if args.size is not None and args.size < 1:
        raise InputError(f"--size {args.size} is not a positive number")
    mixtures = read_mixtures(args.mixtures)
    plan = draw(mixtures, args.stage, data_root(args.data), args.size)
    print(f"{args.stage} of {mixtures.path}, seed {mixtures.seed}\n{plan.table()}")
    plan.check()
    if args.json:
        write_json(args.json, plan.as_json())
    return 0


if __name__ == "__main__":
    run_cli(main)
