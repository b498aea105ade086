"""How the rows of an optimiser step are shared by processes and passes.

A configuration says how many rows a step has: per_device_train_batch_size × gradient_accumulation_steps. How many
processes there are, and how many rows a GPU takes at a time (a preset of configs/presets), changes the passes, not the
step: ms-swift divides the loss by the answered tokens of the whole step, so loss and gradients stay the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict, Field

from swift_plugins.files import CONFIGS, Config, InputError, read_config

BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")


class Preset(Config):
    """A file of configs/presets: rows that a device takes at a time, and any settings of `swift sft`."""

    model_config = ConfigDict(extra="allow")

    rows_per_device: int = Field(ge=1)


def read_preset(name: str) -> Preset:
    """The preset of that name in configs/presets, or in a file; `InputError` where there is none."""
    presets = CONFIGS / "presets"
    path = presets / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in presets.glob("*.yaml")))
            raise InputError(f"PRESET={name} is neither one of {known} nor a file")
    return read_config(path, Preset)


def share(rows: int, most: int, processes: int) -> tuple[int, int] | None:
    """(rows per device, passes) whose product with `processes` is `rows`, the most rows at a time up to `most`.

    None where the processes cannot share the rows.
    """
    if rows % processes:
        return None
    own = rows // processes
    at_a_time = max(size for size in range(1, min(most, own) + 1) if own % size == 0)
    return at_a_time, own // at_a_time


def flags(preset: str | None, batch: int, passes: int, processes: int, own: Sequence[str] = ()) -> list[str]:
    """Flags of `swift sft`: the preset's settings, and the step of `batch` × `passes` rows as the processes share it.

    own: the flags that the user gave, and `batch` and `passes` with them. Who gives the passes is left alone; with the
    rows per device that somebody gives, the processes share the passes.
    """
    if batch < 1 or passes < 1:
        raise InputError(f"{BATCH[0]} {batch}, {BATCH[1]} {passes}: neither may be less than 1")
    chosen = read_preset(preset) if preset else None
    found = []
    for name, value in (chosen.model_extra or {}).items() if chosen else ():
        found += [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
    given = {flag.partition("=")[0] for flag in own}
    if f"--{BATCH[1]}" in given:
        return found
    if f"--{BATCH[0]}" in given:
        shared = None if passes % processes else (batch, passes // processes)
    else:
        shared = share(batch * passes, chosen.rows_per_device if chosen else batch, processes)
    if shared is None:
        print(
            f"{processes} processes do not share a batch of {batch * passes} rows evenly: it becomes "
            f"{processes} times as large",
            file=sys.stderr,
        )
        return found
    if shared != (batch, passes):
        found += [part for name, value in zip(BATCH, shared, strict=True) for part in (f"--{name}", str(value))]
    return found
