"""Ablations of a configuration: every variant of configs/ablation.yaml for every seed, what they share once.

    MODEL=… DATA=… bash shell/ablation.sh CONFIG [SEED…] [--dry-run] [--only VARIANT…] [--jobs N]

A run is one variant with one seed: it trains the variant's last stage with shell/first_stage.sh or second_stage.sh,
answers the test rows with shell/test.sh, and then writes OUTPUT/<variant>/<seed>/manifest.json: what it was made of and
what it took. A variant's earlier stage is a run of its own, made once; the base model as it is does not depend on a
seed. Runs that have their manifest are skipped, one that was killed goes on where it was; one that fails is told of,
those that start from it are left out, and the others go on. Without a GPU as many runs are made side by side as there
are cores. `python -m benchmarks.ablation_report OUTPUT` makes the tables.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from swift_plugins import mixture
from swift_plugins.files import (
    CONFIGS,
    ROOT,
    Config,
    InputError,
    last_checkpoint,
    read_config,
    read_json,
    read_yaml,
    run_cli,
    write_json,
)
from swift_plugins.model_card import rows
from swift_plugins.options import option, parse

STAGES = ("stage1", "stage2")
SCRIPTS = {"stage1": "first_stage.sh", "stage2": "second_stage.sh"}
BASE = "base"  # the folder of a run that depends on no seed
MANIFEST = "manifest.json"
# Of the environment: a run has its own, or none.
LEFT_OUT = ("SIZE", "NPROC_PER_NODE", "SEED", "AMT_SEED", "MERGE", "FIRST", "CHECKPOINT", "MERGED", "BACKEND")
LIBRARIES = ("ms-swift", "torch", "transformers", "peft")


class Variant(Config):
    """What is trained: the mixture of a stage, from the checkpoint of the variant `after` or from the base model."""

    stage1: str = ""
    stage2: str = ""
    after: str = ""
    published: str = ""

    @model_validator(mode="after")
    def _check(self) -> Variant:
        if self.stage1 and self.stage2:
            raise ValueError("trains one stage; make the first a variant of its own, and name it under after")
        if bool(self.after) != bool(self.stage2):
            raise ValueError("stage2 starts from the variant that after names: give both or neither")
        return self

    @property
    def stage(self) -> str:
        """The stage whose settings it is trained with, "" where it is not trained."""
        return "stage2" if self.stage2 else "stage1" if self.stage1 else ""

    @property
    def mixture(self) -> str:
        """What it is trained on."""
        return self.stage2 or self.stage1


class Table(Config):
    """One table of the report: variants in their order, and the one that they are compared with."""

    title: str
    rows: list[str] = Field(min_length=1)
    against: str


class Column(Config):
    """A figure of the tables: of a channel, as the scorer calls it, and in words."""

    channel: str
    figure: str
    words: str


class Pace(Config):
    """Seconds a sample of training and an answer take, the starts of programs in them; source: who says so."""

    sample: float = Field(ge=0)
    answer: float = Field(ge=0)
    source: str

    def seconds(self, work: Work) -> float:
        """The time of a run."""
        return work.samples * self.sample + work.answers * self.answer


class Ablation(Config):
    """configs/ablation.yaml. `path` is where it was read from."""

    variants: dict[str, Variant] = Field(min_length=1)
    tables: dict[str, Table]
    figures: list[Column] = Field(min_length=1)
    score: Literal["generate", "likelihood"] = "generate"
    pace: dict[str, Pace] = {}
    path: str = ""

    @model_validator(mode="after")
    def _check(self) -> Ablation:
        for name, variant in self.variants.items():
            if variant.after and (variant.after not in self.variants or not self.variants[variant.after].stage1):
                raise ValueError(f"variants.{name}: after names {variant.after}, which is no variant with a stage1")
        for name, table in self.tables.items():
            if unknown := [row for row in (*table.rows, table.against) if row not in self.variants]:
                raise ValueError(f"tables.{name}: {unknown[0]} is no variant")
        return self


def read_ablation(config: Path) -> Ablation:
    """The variants of a configuration's folder: its own ablation.yaml, else the project's."""
    path = config / "ablation.yaml"
    path = path if path.is_file() else CONFIGS / "ablation.yaml"
    return read_config(path, Ablation).model_copy(update={"path": str(path)})


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    config: Path = option(metavar="DIR", help="the folder of the configuration")
    model: Path = option(metavar="DIR", help="folder of the base model")
    output: Path = option(metavar="DIR", help="where the runs go")
    seeds: tuple[int, ...] = option((), positional=True, nargs="*", metavar="SEED", help="default 1")
    dry_run: bool = option(False, help="print the runs, their steps and their time, and start nothing")
    score: str | None = option(
        None, choices=("generate", "likelihood"), help="how labels are answered (default: as ablation.yaml says)"
    )
    only: tuple[str, ...] = option((), metavar="VARIANT", help="these variants, and what they start from")
    pace: float | None = option(
        None, metavar="S", help="seconds a sample of training takes, for the estimate of the time"
    )
    jobs: int = option(0, metavar="N", help="runs side by side (default: one with a GPU, else one a core)")


@dataclass(frozen=True)
class Run:
    """One variant with one seed; seed None where it does not depend on one."""

    name: str
    variant: Variant
    seed: int | None

    @property
    def label(self) -> str:
        """For people."""
        return self.name if self.seed is None else f"{self.name}, seed {self.seed}"

    def folder(self, output: Path) -> Path:
        """Where it is."""
        return output / self.name / (BASE if self.seed is None else str(self.seed))


def runs_of(ablation: Ablation, seeds: Sequence[int], only: Sequence[str] = ()) -> list[Run]:
    """The runs in their order: what others start from, then what starts from the base model, then the rest."""
    if unknown := [name for name in only if name not in ablation.variants]:
        raise InputError(f"--only {unknown[0]} is no variant; there are {', '.join(ablation.variants)}", ablation.path)
    wanted = set(only or ablation.variants)
    wanted |= {ablation.variants[name].after for name in wanted} - {""}
    first = {variant.after for name, variant in ablation.variants.items() if name in wanted}

    def rank(name: str) -> int:
        return 0 if name in first else 2 if ablation.variants[name].after else 1

    names = sorted((name for name in ablation.variants if name in wanted), key=rank)
    return [
        Run(name, variant, seed)
        for name in names
        for variant in (ablation.variants[name],)
        for seed in (seeds if variant.stage else (None,))
    ]


# What the runs will take


@dataclass(frozen=True)
class Work:
    """What a run trains on and answers: rows of its mixture by task, optimiser steps, samples seen, rows answered."""

    tasks: dict[str, int]
    steps: int
    samples: int
    answers: int


def works(runs: Sequence[Run], config: Path, data: Path, answers: int) -> dict[Run, Work]:
    """The work of each run; `InputError` for a mixture that cannot be drawn."""
    from swift_plugins import length_plan

    settings = {
        stage: length_plan.read_settings(config, stage, ())
        for stage in STAGES
        if any(run.variant.stage == stage for run in runs)
    }
    mixtures = mixture.read_mixtures(os.environ.get("AMT_MIXTURES"))
    drawn: dict[str, dict[str, int]] = {}  # the seed does not change how many rows there are
    found = {}
    for run in runs:
        name = run.variant.mixture
        if name and name not in drawn:
            plan = mixture.draw(mixtures, name, data)
            plan.check()
            drawn[name] = {task: sum(len(s.picks) for s in plan.shares if s.task == task) for task in plan.stage.tasks}
        tasks = drawn.get(name, {})
        steps = samples = 0
        if run.variant.stage:
            setting = settings[run.variant.stage]
            steps = length_plan.steps(sum(tasks.values()), setting, length_plan.processes())
            samples = round(sum(tasks.values()) * setting["num_train_epochs"])
        found[run] = Work(tasks, steps, samples, answers)
    return found


def answered(config: Path, data: Path) -> int:
    """Rows that shell/test.sh asks for: those of `val_dataset` of the configuration's infer.yaml."""
    settings = read_yaml(config / "infer.yaml")
    given = settings.get("val_dataset", ()) if isinstance(settings, dict) else ()
    names = given if isinstance(given, list) else str(given).split()
    found = 0
    for name in names:
        subset, _, size = str(name).removeprefix("amt:").partition("#")
        channel, _, split = f".{subset}".rpartition(".")
        files = data.glob(f"{channel[1:] or '*.*'}.{split}.jsonl")
        count = sum(sum(1 for line in file.open("rb") if line.strip()) for file in files)
        found += min(count, int(size)) if size.isdecimal() else count
    return found


def pace(output: Path) -> Pace | None:
    """The mean of the finished runs under `output`; None where there is none that was trained."""
    read = [read_manifest(path) for path in sorted(output.glob(f"*/*/{MANIFEST}"))]
    found = [manifest for manifest in read if manifest["samples"] and not manifest["resumed"]]
    if not found:
        return None
    train, answer = (sum(one["seconds"][name] for one in found) for name in ("train", "answer"))
    samples, answers = (sum(one[name] for one in found) for name in ("samples", "answers"))
    return Pace(sample=train / samples, answer=answer / max(1, answers), source="as the finished runs took")


def print_plan(runs: Sequence[Run], work: dict[Run, Work], output: Path, jobs: int, known: Pace | None) -> None:
    """The runs, a line each, and the time of what is left: at the pace of finished runs, else as `known` says."""
    known = pace(output) or known
    left, lines = 0.0, [("run", "from", "rows by task", "steps", "samples", "answers", "time")]
    for run in runs:
        one = work[run]
        done = (run.folder(output) / MANIFEST).is_file()
        seconds = known.seconds(one) if known else 0.0
        left += 0 if done else seconds
        told = "done" if done else _minutes(seconds) if known else ""
        tasks = " ".join(f"{task} {count:,}" for task, count in one.tasks.items()) or "–"
        source = run.variant.after or "base"
        lines.append((run.label, source, tasks, f"{one.steps:,}", f"{one.samples:,}", f"{one.answers:,}", told))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(cells).rstrip())
    samples = sum(work[run].samples for run in runs)
    print(f"{len(runs)} runs, {samples:,} samples; {jobs} side by side")
    if known:
        print(f"about {_minutes(left / jobs)} for what is left ({known.source})")
    else:
        print("how long they take is not known before one is finished, or --pace says (python -m benchmarks.plan)")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


# Making them


class Failed(Exception):
    """A run ended with an error, or what it starts from did."""


class Runner:
    """Makes runs; `stop` ends what is under way."""

    def __init__(self, options: Options, ablation: Ablation, data: Path, work: dict[Run, Work], jobs: int):
        self.options, self.ablation, self.data, self.work, self.jobs = options, ablation, data, work, jobs
        self.children: set[subprocess.Popen] = set()
        self.lock, self.stopped = threading.Lock(), False
        self.common = self._common()

    def make(self, run: Run, first: Future | None) -> None:
        """Train, answer, score, write the manifest. Raises `Failed`."""
        folder = run.folder(self.options.output)
        if (folder / MANIFEST).is_file():
            print(f"{run.label}: done before", flush=True)
            return
        if first is not None and first.exception() is not None:
            raise Failed("what it starts from failed")
        folder.mkdir(parents=True, exist_ok=True)
        seconds, memory = {}, {}
        stage, answers = run.variant.stage, folder / "answers.jsonl"
        resumed = answers.is_file() or any(folder.glob("*/checkpoint-*"))
        variables = {"OUTPUT": str(folder), "CONFIG": str(self.options.config), "MODEL": str(self.options.model)}
        variables |= {"DATA": str(self.data), "RESUME": "1", "OUTPUT_HELD": "", "STAGE": stage or "zero-shot"}
        if run.seed is not None:
            variables["SEED"] = str(run.seed)
        if stage:
            variables["MIXTURE"] = run.variant.mixture
            if run.variant.after:
                earlier = self._checkpoint(Run(run.variant.after, self.ablation.variants[run.variant.after], run.seed))
                variables["FIRST"] = str(earlier)
            seconds["train"], memory["train"] = self._do(SCRIPTS[stage], variables, folder / "train.log")
        variables["RESULT"] = str(answers)
        variables["SEED"] = ""  # the same rows for every run, where only some are asked for (amt:meld.mer.dev#300)
        variables |= {"CHECKPOINT": str(self._checkpoint(run))} if stage else {"MERGED": str(self.options.model)}
        if not answers.with_name("answers.scores.json").is_file():
            answers.unlink(missing_ok=True)  # of a kill while they were scored
            more = ("--score", self.ablation.score)
            seconds["answer"], memory["answer"] = self._do("test.sh", variables, folder / "answer.log", *more)
        write_json(folder / MANIFEST, self._manifest(run, seconds, memory, resumed))
        told = ", ".join(f"{_minutes(value)} to {name}" for name, value in seconds.items())
        print(f"{run.label}: {told}, {max(memory.values(), default=0):,} MB at most", flush=True)

    def _manifest(self, run: Run, seconds: dict[str, float], memory: dict[str, int], resumed: bool) -> dict[str, Any]:
        work = self.work[run]
        return {
            "variant": run.name,
            "seed": run.seed,
            "stage": run.variant.stage,
            "score": self.ablation.score,
            "mixture": run.variant.mixture,
            "after": run.variant.after,
            "tasks": work.tasks,
            "steps": work.steps,
            "samples": work.samples,
            "answers": work.answers,
            "seconds": {"train": seconds.get("train", 0.0), "answer": seconds.get("answer", 0.0)},
            "resumed": resumed,  # after a kill: its seconds are those of the last start
            "peak_memory_mb": memory,
            **self.common,
        }

    def _checkpoint(self, run: Run) -> Path:
        """The last whole checkpoint of a run. Raises `Failed` where there is none."""
        found = last_checkpoint(run.folder(self.options.output) / run.variant.stage)
        if found is None:
            raise Failed("has no checkpoint")
        return found

    def _do(self, script: str, variables: dict[str, str], log: Path, *more: str) -> tuple[float, int]:
        """Run a script of shell/; (seconds, MB of its largest process). Raises `Failed` with its last words."""
        start = time.monotonic()
        environment = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
        with log.open("wb") as said:
            with self.lock:
                if self.stopped:
                    raise Failed("stopped")
                child = subprocess.Popen(
                    ["bash", str(scripts() / script), *more],
                    env=environment | variables,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self.children.add(child)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            with self.lock:
                self.children.discard(child)
        if child.returncode:
            words = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
            last = next((line for line in reversed(words) if line.strip()), "")
            raise Failed(f"{script} ended with status {child.returncode}: {last[:300]} (all it said: {log})")
        return round(time.monotonic() - start, 1), usage.ru_maxrss // 1024

    def stop(self) -> None:
        """End what is under way, and start nothing more."""
        with self.lock:
            self.stopped = True
            for child in self.children:
                os.killpg(child.pid, signal.SIGTERM)

    def _common(self) -> dict[str, Any]:
        """What all runs of one start are made of: configuration, data, versions, machine."""
        files = sorted(self.options.config.glob("*.yaml"))
        settings = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
        there = rows(self.data)
        data = hashlib.sha256("".join(f"{row['channel']} {row['sha256']}\n" for row in there).encode()).hexdigest()
        return {
            "config": {"name": self.options.config.name, "sha256": settings},
            "model": "/".join(self.options.model.resolve().parts[-2:]),
            "data": {"sha256": data[:16], "channels": there},
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in LIBRARIES},
            "commit": commit(),
            "machine": {"cores": os.cpu_count(), "side_by_side": self.jobs, "processor": platform.machine()},
        }


def scripts() -> Path:
    """The folder of the scripts, in the repository or in the installed package."""
    return next(folder for folder in (ROOT / "shell", CONFIGS.parent / "shell") if folder.is_dir())


def commit() -> str:
    """The commit of the project's sources, with `+` where they were changed since; "" where there is no git."""
    try:
        told = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return told.stdout.strip()


def read_manifest(path: Path) -> dict[str, Any]:
    """A run's manifest; `InputError` for a file that is none."""
    found = read_json(path)
    if (
        not isinstance(found, dict)
        or not {"variant", "seed", "samples", "answers", "seconds", "resumed"} <= found.keys()
    ):
        raise InputError("is not the manifest of a run", path)
    return found


def side_by_side(given: int) -> int:
    """How many runs at a time."""
    if given < 0:
        raise InputError(f"--jobs {given} is not a number of runs")
    if given:
        return given
    import torch

    return 1 if torch.accelerator.is_available() else os.cpu_count() or 1


def main() -> int:
    """Make the runs; status 1 where one failed."""
    options = parse(Options, __doc__, prog="shell/ablation.sh")
    if options.pace is not None and not options.pace > 0:
        raise InputError(f"--pace {options.pace:g} is not a number of seconds")
    seeds = tuple(dict.fromkeys(options.seeds or (1,)))
    ablation, data = read_ablation(options.config), mixture.data_root()
    if options.score:
        ablation = ablation.model_copy(update={"score": options.score})
    runs = runs_of(ablation, seeds, options.only)
    jobs = side_by_side(options.jobs)
    work = works(runs, options.config, data, answered(options.config, data))
    known = ablation.pace.get(options.config.name)
    if options.pace is not None:
        known = Pace(sample=options.pace, answer=known.answer if known else 0, source="--pace; answers not counted")
    print_plan(runs, work, options.output, jobs, known)
    if options.dry_run:
        return 0
    cores = os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // jobs)))
    runner, futures, start = Runner(options, ablation, data, work, jobs), {}, time.monotonic()

    def end(*_: object) -> None:
        runner.stop()
        sys.exit(143)

    signal.signal(signal.SIGTERM, end)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for run in runs:
                first = futures.get((run.variant.after, run.seed))
                futures[run.name, run.seed] = pool.submit(runner.make, run, first)
            failed = []
            for run in runs:
                error = futures[run.name, run.seed].exception()
                if isinstance(error, Failed | OSError):
                    failed.append(run)
                    print(f"{run.label}: FAILED: {error}", file=sys.stderr, flush=True)
                elif error is not None:
                    raise error
        except BaseException:
            runner.stop()
            raise
    print(f"{len(runs) - len(failed)} of {len(runs)} runs are there, after {_minutes(time.monotonic() - start)}")
    return int(bool(failed))


if __name__ == "__main__":
    run_cli(main)
