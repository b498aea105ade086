"""The datasets that the pipeline reads: the one list that build_amt, doctor, fer and eri share.

A reader is a module with `read(root, split, faults) -> Iterator[Sample]`. It may say which tasks its samples are for
(`TASKS`, default: all that a sample has a gold answer for) and whether their rows show the peak frame instead of the
clip (`PEAK_FRAMES`). The doctor uses what else it has: `count(samples, faults)` → name → number and, to compare with,
`PUBLISHED` (split → name → number), `own_data(splits)` (split → why it is no part of the published dataset),
`durations(root, split)` (sample id → seconds), `known_bad_clips(split)` (sample id → path). To add one: write it, add
its line here, its label set in `swift_plugins/tasks/` and its channels in configs/mixtures.yaml.
"""

from __future__ import annotations

from typing import Any

from data_prep.readers import ecf, meld, mosei
from swift_plugins import extensions

SPLITS = ("train", "dev", "test")

READERS: dict[str, Any] = {"meld": meld, "ecf": ecf, "mosei": mosei}


def tasks_of(dataset: str) -> tuple[str, ...]:
    """The tasks that rows are built for, where a sample has a gold answer for them."""
    from swift_plugins.tasks import TASKS  # here: an extension that it loads adds to READERS, which must be there

    return getattr(READERS[dataset], "TASKS", tuple(TASKS))


extensions.load()
