"""Dataset doctor: what in the raw data would silently change results, before anything is trained on it.

    python -m data_prep.doctor --meld DIR --ecf DIR --mosei DIR [--media --jobs N] [--report OUT]
    python -m data_prep.doctor --data configs/datasets/mine.yaml …
    python -m data_prep.doctor --tokens MODEL --data AMT_DIR [--config configs/emoverse-4b]

The first form checks annotations (counts against the published tables, encoding, ids, duplicates, leakage between
splits and datasets) and, with --media, looks into every clip. It prints a table and writes OUT/doctor.json and
OUT/doctor.html. Exit status 1 when something breaks results, 0 with warnings only, 2 for input that is no dataset.
The last form is the length plan, see `data_prep.doctor.length_plan`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

from data_prep.doctor.checks import examine
from data_prep.doctor.findings import table
from data_prep.readers import own, published
from swift_plugins.files import InputError, run_cli, write_json
from swift_plugins.options import option, parse

LENGTHS = "length plan (data_prep.doctor.length_plan)"


@dataclass(frozen=True)
class Options:
    """What a user may choose; with the folder of every published dataset, see `main`."""

    media: bool = option(False, help="look into every clip")
    jobs: int = option(os.cpu_count() or 1, metavar="N", help="threads that look into clips")
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


def main(argv: Sequence[str] | None = None) -> int:
    """Examine what the command line names, print, write; 1 when something breaks results."""
    fields = [
        (name, Path | None, option(None, metavar="DIR", help=f"folder of {name.upper()}")) for name in published()
    ]
    options_and_folders = make_dataclass("DoctorOptions", fields, bases=(Options,), frozen=True)
    options: Any = parse(options_and_folders, __doc__, "python -m data_prep.doctor", argv)
    if options.tokens:
        from data_prep.doctor.length_plan import plan

        return plan(options, options.tokens)
    folders = {dataset: folder for dataset in published() if (folder := getattr(options, dataset)) is not None}
    folders |= own(options.data, options.root)
    if not folders:
        raise InputError(
            f"give at least one of {', '.join(f'--{name}' for name in published())}, --data FILE, "
            "or --tokens MODEL --data DIR"
        )
    if options.jobs < 1:
        raise InputError("--jobs is 1 or more")
    result = examine(folders, options.media, options.jobs)
    print(table(result))
    if options.report:
        from data_prep.doctor.page import write_page

        write_json(options.report / "doctor.json", result.as_json())
        write_page(result, options.report / "doctor.html")
        print(f"written: {options.report / 'doctor.html'}, {options.report / 'doctor.json'}")
    return result.status


if __name__ == "__main__":
    run_cli(main)
