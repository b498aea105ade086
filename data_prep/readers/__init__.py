"""The datasets that the pipeline reads: the one list that build_amt, doctor, fer and eri share.

A reader is a module with `read(root, split, faults) -> Iterator[Sample]`. It may say which tasks its samples are for
(`TASKS`, default: all that a sample has a gold answer for) and whether their rows show the peak frame instead of the
clip (`PEAK_FRAMES`). One whose files hold what fer.jsonl and eri.jsonl would say gives it by `records(root, split)`:
"fer" or "eri" → sample id → record. The doctor uses what else it has: `count(samples, faults)` → name → number and, to
compare with, `PUBLISHED` (split → name → number), `own_data(splits)` (split → why it is no part of the published
dataset), `durations(root, split)` (sample id → seconds), `known_bad_clips(split)` (sample id → path). To add one: write
it, add its line here, its label set in `swift_plugins/tasks/` and its channels in configs/mixtures.yaml. A dataset that
is declared in a file (`swift_plugins.declared`) gets an instance of the one reader `data_prep.readers.declared`. The
sets of MMEVerse are no part of the list: some have the name of a dataset here, and their tables lie in one folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_prep.readers import dfew, ecf, meld, mer2023, merr, mosei
from data_prep.readers.declared import DeclaredReader
from swift_plugins import declared, extensions
from swift_plugins.files import InputError

SPLITS = ("train", "dev", "test")

READERS: dict[str, Any] = {"meld": meld, "ecf": ecf, "mosei": mosei}
READERS |= {reader.name: reader for reader in (merr.READER, merr.COARSE_READER)}
READERS |= {"mer2023": mer2023, "dfew": dfew}


def tasks_of(dataset: str) -> tuple[str, ...]:
    """The tasks that rows are built for, where a sample has a gold answer for them."""
    from swift_plugins.tasks import TASKS  # here: an extension that it loads adds to READERS, which must be there

    return getattr(READERS[dataset], "TASKS", tuple(name for name, task in TASKS.items() if task.of_all))


def own(given: Iterable[str], root: Path | None = None) -> dict[str, Path]:
    """Name → folder of declared datasets that a command was given (`--data`): by their files, or by their names.

    `root` is where the data are instead, of one dataset. Raises `InputError` for a name that nothing declares.
    """
    found = {}
    for one in given:
        is_file = one.endswith((".yaml", ".yml"))
        if not is_file and one not in declared.DATASETS:
            known = ", ".join(declared.DATASETS) or "none is known here"
            raise InputError(f"--data {one}: no such dataset ({known}); give its file, as in --data mine.yaml")
        dataset = declared.add(one) if is_file else declared.DATASETS[one]
        found[dataset.name] = root or dataset.home
    if root is not None and len(found) != 1:
        raise InputError("--root is where the data of one --data are")
    return found


def published() -> list[str]:
    """The datasets whose folder is an option of its own: all but the declared ones."""
    return [name for name, reader in READERS.items() if not isinstance(reader, DeclaredReader)]


def _add_reader(dataset: declared.Declared) -> None:
    if dataset.name in READERS:
        raise InputError(f"name: {dataset.name} is a dataset of the project; give yours another", dataset.path)
    READERS[dataset.name] = DeclaredReader(dataset, READERS)


extensions.load()
declared.watch(_add_reader)
