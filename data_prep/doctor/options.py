"""The options of `python -m data_prep.doctor`, which its two forms share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swift_plugins.options import option

LENGTHS = "length plan (swift_plugins.length_plan)"


@dataclass(frozen=True)
class Options:
    """What a user may choose; with the folder of every published dataset, see `main`."""

    media: bool = option(False, help="look into every clip")
    jobs: int = option(-1, metavar="N", help="processes that look into clips (all cores)")
    backend: str = option("loky", choices=("loky", "ray"), help="this machine, or an existing Ray cluster")
    report: Path | None = option(None, metavar="DIR", help="write doctor.json and doctor.html there")
    tokens: Path | None = option(None, metavar="MODEL", group=LENGTHS, help="folder of the base model")
    data: tuple[str, ...] = option(
        (),
        action="append",
        metavar="FILE|DIR",
        help="a dataset of your own (docs/own-data.md): its YAML file, or its name; with --tokens: the folder of AMT "
        "rows (default: AMT_DATA)",
    )
    root: Path | None = option(None, metavar="DIR", help="folder of the data of --data, where its file does not say")
    config: str = option("emoverse-4b", group=LENGTHS, help="a folder of configs/, or your own")
    stage: str | None = option(None, group=LENGTHS, help="plan the draw of this stage of the mixtures file only")
    settings: str | None = option(
        None, metavar="NAME", group=LENGTHS, help="CONFIG/NAME.yaml instead of the stage's own"
    )
    size: int | None = option(None, metavar="N", group=LENGTHS, help="number of rows instead of the configured size")
    flags: tuple[str, ...] = option(
        (),
        positional=True,
        nargs="*",
        group=LENGTHS,
        help="after --: flags of swift sft that override the configuration",
    )
