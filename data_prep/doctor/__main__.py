"""Dataset doctor: what in the raw data would silently change results, before anything is trained on it.

    python -m data_prep.doctor --meld DIR --ecf DIR --mosei DIR [--media --jobs N] [--report OUT]
    … --backend ray          # on the Ray cluster that RAY_ADDRESS (or this machine) names, clips on a shared disk
    python -m data_prep.doctor --data configs/datasets/mine.yaml …
    python -m data_prep.doctor --tokens MODEL --data AMT_DIR [--config configs/emoverse-4b]

The first form checks annotations (counts against the published tables, encoding, ids, duplicates, leakage between
splits and datasets) and, with --media, looks into every clip. It prints a table and writes OUT/doctor.json and
OUT/doctor.html. Exit status 1 when something breaks results, 0 with warnings only, 2 for input that is no dataset.
The last form is the length plan, see `swift_plugins.length_plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

from data_prep.doctor.checks import examine
from data_prep.doctor.findings import table
from data_prep.doctor.options import Options
from data_prep.readers import own, published
from swift_plugins.files import InputError, run_cli, write_json
from swift_plugins.length_plan import plan
from swift_plugins.options import option, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Examine what the command line names, print, write; 1 when something breaks results."""
    fields = [
        (name, Path | None, option(None, metavar="DIR", help=f"folder of {name.upper()}")) for name in published()
    ]
    options_and_folders = make_dataclass("DoctorOptions", fields, bases=(Options,), frozen=True)
    options: Any = parse(options_and_folders, __doc__, "python -m data_prep.doctor", argv)
    if options.tokens:
        return plan(
            options.tokens,
            options.config,
            options.data[-1] if options.data else None,
            options.stage,
            options.settings,
            options.size,
            options.flags,
            options.report,
        )
    folders = {dataset: folder for dataset in published() if (folder := getattr(options, dataset)) is not None}
    folders |= own(options.data, options.root)
    if not folders:
        raise InputError(
            f"give at least one of {', '.join(f'--{name}' for name in published())}, --data FILE, "
            "or --tokens MODEL --data DIR"
        )
    if options.jobs < -1 or options.jobs == 0:
        raise InputError("--jobs is 1 or more (-1: all cores)")
    result = examine(folders, options.media, options.jobs, options.backend)
    print(table(result))
    if options.report:
        from data_prep.doctor.page import write_page

        write_json(options.report / "doctor.json", result.as_json())
        write_page(result, options.report / "doctor.html")
        print(f"written: {options.report / 'doctor.html'}, {options.report / 'doctor.json'}")
    return result.status


if __name__ == "__main__":
    run_cli(main)
