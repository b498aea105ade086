"""Uploads belong to the page that they were made on: another clip there, or its end, removes them."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path

STALLED = 600  # seconds without a byte, after which an upload does not go on


class Uploads:
    """Which page uses which files below `folder`. Two pages that upload the same file share it."""

    def __init__(self, folder: Path, keep: Iterable[str | Path] = ()):
        self._folder, self._keep = folder.resolve(), {Path(path).resolve() for path in keep}
        self._pages: dict[str, set[Path]] = {}
        self._lock = threading.Lock()

    def use(self, page: str, files: Iterable[str | None]) -> None:
        """What a page shows now; what only it showed before is removed. No files: the page is closed."""
        now = {Path(file).resolve() for file in files if file}
        with self._lock:
            before = self._pages.pop(page, set())
            if now:
                self._pages[page] = now
            for path in before - self._keep - set().union(*self._pages.values()):
                if path.is_relative_to(self._folder):
                    path.unlink(missing_ok=True)


def held(path: str, folder: Path) -> Path:
    """The same file under the same name in `folder`, where it stays whatever the page does."""
    mine = folder / Path(path).name
    try:
        os.link(path, mine)
    except OSError:  # another disk, or one without links
        shutil.copyfile(path, mine)
    return mine


def remove_stalled(folder: Path) -> None:
    """Remove what broken uploads left: gradio writes into `folder` itself, and moves what is complete into a folder of
    its own."""
    with contextlib.suppress(FileNotFoundError):  # one has just been completed; the rest comes next time
        for path in folder.iterdir():
            if path.is_file() and time.time() - path.stat().st_mtime > STALLED:
                path.unlink()
