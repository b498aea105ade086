"""Progress bars on stderr, alike in every command: on a terminal a moving line, in a log a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

DELAY = 2.0  # seconds that a step may take in silence


def progress(items: Iterable[Any] | None = None, *, desc: str, unit: str, total: int | None = None) -> tqdm:
    """A bar over `items`, or one to be moved with `update()`; nothing is shown of work that takes less than `DELAY`.

    `total` is needed where `items` has no length; without either the bar counts. Use it as a context manager where
    its loop may be left by an exception: the message then stands on a line of its own.
    """
    interval = 0.2 if sys.stderr.isatty() else 15.0  # seconds between two states
    return tqdm(items, desc=desc, unit=unit, total=total, mininterval=interval, smoothing=0.05, delay=DELAY)
