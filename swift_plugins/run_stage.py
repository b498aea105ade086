"""Measure the rows of a stage and train on them in one process: ms-swift takes seconds to import.

    python -m swift_plugins.run_stage --config configs/demo --settings stage1 --stage stage1 --model DIR \\
        --output OUT -- FLAGS

shell/first_stage.sh and second_stage.sh run this; FLAGS are those of `swift sft`. Rows that are longer than max_length
(`swift_plugins.length_plan`) end the run before it starts, with status 2. With NPROC_PER_NODE or NNODES `swift sft`
takes over and starts the processes.
"""

from __future__ import annotations

import logging
import os
import runpy
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from swift_plugins import TRAINING, mixture, need
from swift_plugins.files import PLUGIN, InputError, run_cli
from swift_plugins.length_plan import processes
from swift_plugins.options import option, parse


@dataclass(frozen=True)
class Options:
    """What the scripts say."""

    config: Path = option(metavar="DIR", help="the folder of the configuration")
    settings: str = option(metavar="NAME", help="CONFIG/NAME.yaml has the settings")
    stage: str = option(help="a stage of the mixtures file, or a dataset")
    model: Path = option(metavar="DIR", help="folder of the base model")
    output: Path = option(metavar="DIR", help="where checkpoints go; beside it, in DIR.log, what ms-swift tells")
    size: int | None = option(None, metavar="N", help="number of rows instead of the configured size")
    preset: str | None = option(None, metavar="NAME", help="batches for a GPU: a name of configs/presets, or a file")
    allow_long: bool = option(False, help="train although rows exceed max_length")
    verbose: bool = option(False, help="what ms-swift tells on the screen")
    flags: tuple[str, ...] = option((), positional=True, nargs="*", help="after --: flags of swift sft")


def plan(options: Options) -> Options:
    """Print how long the rows become, and say how the batch is shared; the options with the flags for that.

    Raises `InputError` for a stage that cannot be drawn or would lose rows.
    """
    need(*TRAINING)
    from swift_plugins import batches, length_plan

    settings = length_plan.read_settings(options.config, options.settings, options.flags)
    flags = batches.flags(options.preset, *(settings[name] for name in batches.BATCH), processes(), options.flags)
    options = replace(options, flags=(*flags, *options.flags))
    asked = os.environ.get("LOG_LEVEL")
    over = length_plan.plan(
        options.model,
        str(options.config),
        stage=options.stage,
        settings_name=options.settings,
        size=options.size,
        flags=options.flags,
    )
    if asked is None:  # the plan makes ms-swift quiet
        os.environ["LOG_LEVEL"] = "INFO" if options.verbose else "WARNING"  # of the processes that it may start
        _speak(None if options.verbose else options.output.with_suffix(".log"))
    if over and not options.allow_long:
        raise InputError("rows longer than max_length cannot be trained on: raise --max_length, or set ALLOW_LONG=1")
    sys.stdout.flush()
    return options


def _speak(log: Path | None) -> None:
    """Let ms-swift tell everything: on the screen, or in a file, with warnings on the screen."""
    for logger in (logging.getLogger("swift"), logging.getLogger("modelscope")):
        logger.setLevel(logging.INFO)
        for handler in logger.handlers:
            handler.setLevel(logging.WARNING if log else logging.INFO)
        if log:
            kept = logging.FileHandler(log, encoding="utf-8")
            kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            logger.addHandler(kept)


def train(options: Options) -> None:
    """What `swift sft CONFIG/SETTINGS.yaml --model … --dataset amt:STAGE FLAGS` does."""
    from swift.cli import main as swift

    size = f"#{options.size}" if options.size else ""
    arguments = [str(options.config / f"{options.settings}.yaml"), "--model", str(options.model)]
    arguments += ["--dataset", f"amt:{options.stage}{size}", "--output_dir", str(options.output)]
    if turn := mixture.system_turn(
        mixture.data_root(), "train"
    ):  # a server must know it from the checkpoint's arguments
        arguments += ["--system", turn]
    arguments += ["--external_plugins", str(PLUGIN), *options.flags]
    if swift.use_torchrun():
        os.execv(sys.executable, [sys.executable, "-m", "swift.cli.main", "sft", *arguments])
    swift.parse_yaml_args(arguments)
    sys.argv[1:] = arguments
    runpy.run_module("swift.cli.sft", run_name="__main__")
    print(f"adapter: {options.output}   next: bash shell/test.sh answers the test rows and scores")


if __name__ == "__main__":
    options, planned = parse(Options, __doc__, "python -m swift_plugins.run_stage"), []
    try:
        run_cli(lambda: planned.append(plan(options)))
    except SystemExit as end:
        if end.code:
            raise
    train(*planned)
