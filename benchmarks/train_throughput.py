"""Training and answering of the demo's model against plain ms-swift, on the same rows with as many processes.

    python -m benchmarks.train_throughput                       # the demo's checkpoint and data on this machine
    python -m benchmarks.train_throughput --model DIR --config emoverse-4b --preset 80gb --data AMT --steps 20

Theirs is `swift sft` with the paper's official flags: one row at a time, 8 accumulated, gradient checkpointing, the
dropout of ms-swift; clips are decoded every time. Ours is the project's configuration with its cache of prepared clips
filled, as in every epoch after the first. Measured are the steps after the first quarter, without loading and start.
Answers: `swift infer` with the configuration's batches against one row at a time, from the first row on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import alternate, keep
from swift_plugins import batches
from swift_plugins.files import CONFIGS, ROOT, run_cli
from swift_plugins.options import option, parse

OFFICIAL = [
    "--per_device_train_batch_size",
    "1",
    "--gradient_accumulation_steps",
    "8",
    "--gradient_checkpointing",
    "true",
]
OFFICIAL += ["--padding_free", "false", "--attn_impl", "sdpa", "--lora_dropout", "0.05"]


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    model: Path = option(CONFIGS / "demo" / "checkpoint", metavar="DIR", help="the base model (the demo's)")
    config: str = option("demo", metavar="NAME", help="a folder of configs/ (demo)")
    preset: str | None = option(None, metavar="NAME", help="batches for a GPU, of configs/presets")
    data: Path | None = option(None, metavar="AMT", help="rows with media (default: the demo's, made anew)")
    steps: int = option(24, metavar="N", help="optimiser steps of a run (24)")
    runs: int = option(5, metavar="N", help="runs of each (5)")
    only: str | None = option(None, choices=("train", "answer"), help="measure one of the two")
    profile: bool = option(False, help="only print where ten steps of each go, the ten operators that take most")


def demo_data(folder: Path) -> Path:
    """The demo's AMT rows, made with its own commands."""
    raw, amt = folder / "raw", folder / "amt"
    run = [sys.executable, "-m"]
    subprocess.run([*run, "data_prep.demo", "--out", raw], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    for name in ("mosei", "meld"):
        faces = ["--dataset", name, "--root", raw / name, "--csv", raw / name / "openface", "--out", raw / name]
        splits = ["--split", "train", "dev", "test"]
        subprocess.run([*run, "data_prep.fer", *faces, *splits], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    for split in ("train", "test"):
        roots = [part for name in ("meld", "mosei", "ecf") for part in (f"--{name}", raw / name)]
        build = [*run, "data_prep.build_amt", "--split", split, "--out", amt, *roots]
        subprocess.run(build, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return amt


class Runs:
    """Runs of `swift` on one model, configuration and data."""

    def __init__(self, options: Options, data: Path, scratch: Path):
        self.options, self.scratch = options, scratch
        self.config, self.memory = CONFIGS / options.config, []
        own = self.config / "mixtures.yaml"
        self.environment = os.environ | {"AMT_DATA": str(data), "PYTHONPATH": str(ROOT), "LOG_LEVEL": "WARNING"}
        self.environment |= {"AMT_MIXTURES": str(own)} if own.is_file() else {}
        self.environment |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}

    def swift(self, *arguments, **environment) -> str:
        command = [sys.executable, "-m", "swift.cli.main", *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment | environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
        return done.stdout

    def train(self, stage: str, *flags: str, cache: bool, steps: int = 0, profile: int = 0) -> float:
        """Rows a second of a training."""
        clock = self.scratch / "clock.jsonl"
        clock.unlink(missing_ok=True)
        said = self.swift(
            *("sft", self.config / f"{stage}.yaml", "--model", self.options.model, "--dataset", f"amt:{stage}"),
            *("--output_dir", self.scratch / "out", "--save_strategy", "no", "--report_to", "none"),
            *("--max_steps", steps or self.options.steps, "--external_plugins", ROOT / "benchmarks" / "step_clock.py"),
            *flags,
            STEP_CLOCK=str(clock),
            AMT_CACHE=str(self.scratch / "cache") if cache else "",
            PROFILE=str(profile),
        )
        if profile:
            print(said[said.index("-----") :])
        ticks = [json.loads(line) for line in clock.read_text().splitlines()]
        first = len(ticks) // 4
        self.memory.append(ticks[-1][3])
        return sum(tick[1] for tick in ticks[first + 1 :]) / (ticks[-1][0] - ticks[first][0])

    def ours(self, stage: str, **more) -> float:
        """The project's configuration, with the preset."""
        settings = length_settings(self.config, stage)
        preset = batches.flags(self.options.preset, *settings, 1) if self.options.preset else []
        return self.train(stage, *preset, cache=True, **more)

    def answer(self, *flags: str, cache: bool = True) -> float:
        """Rows a second of `swift infer` on the test rows, from the first row on."""
        result = self.scratch / "result.jsonl"
        result.unlink(missing_ok=True)
        command = ("infer", self.config / "infer.yaml", "--model", self.options.model, "--model_type", "emoverse")
        plugin = ("--external_plugins", ROOT / "benchmarks" / "infer_clock.py")
        self.swift(
            *(*command, *plugin, "--result_path", result, *flags),
            STEP_CLOCK=str(self.scratch / "clock.json"),
            AMT_CACHE=str(self.scratch / "cache") if cache else "",
        )
        speed, memory = json.loads((self.scratch / "clock.json").read_text())
        self.memory.append(memory)
        return speed

    def compared(self, name: str, ours: Callable[[], float], theirs: Callable[[], float], runs: int) -> None:
        """`measure.alternate`, and the peak memory of the same runs."""
        self.memory.clear()
        alternate(name, "rows/s", ours, theirs, runs)
        # Every second pair ran in the other order.
        pairs = [
            (a, b) if place % 2 == 0 else (b, a)
            for place, (a, b) in enumerate(zip(*[iter(self.memory)] * 2, strict=True))
        ]
        keep(f"memory_{name}", "MB at most", pairs, more=False)


def length_settings(config: Path, stage: str) -> tuple[int, int]:
    """Rows per device and passes of a configuration."""
    from swift_plugins.length_plan import read_settings

    settings = read_settings(config, stage, ())
    return settings[batches.BATCH[0]], settings[batches.BATCH[1]]


def main() -> int:
    """Measure and write benchmarks/results.json."""
    options = parse(Options, __doc__, "python -m benchmarks.train_throughput")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        runs = Runs(options, options.data or demo_data(scratch), scratch)
        stages = ("stage1", "stage2") if options.only != "answer" else ()
        start = time.perf_counter()
        for stage in stages:
            runs.ours(stage, steps=4 * options.steps)  # fills the cache
        print(f"cache filled in {time.perf_counter() - start:.0f} s", flush=True)
        if options.profile:
            for title, flags, cache in (("theirs", OFFICIAL, False), ("ours", [], True)):
                print(f"{title}, stage 2")
                runs.train("stage2", *flags, cache=cache, steps=16, profile=10)
            return 0
        for stage in stages:
            runs.compared(
                f"train_{options.config}_{stage}",
                lambda stage=stage: runs.ours(stage),
                lambda stage=stage: runs.train(stage, *OFFICIAL, cache=False),
                options.runs,
            )
        if options.only == "train":
            return 0
        runs.answer()  # fills the cache with the test clips
        one = ("--max_batch_size", "1")
        runs.compared(
            f"answer_{options.config}",
            runs.answer,
            lambda: runs.answer(*one, cache=False),
            options.runs,
        )
    return 0


if __name__ == "__main__":
    run_cli(main)
