"""What is done already, as append-only JSON lines: a run that is killed at any moment resumes where it was.

    with Journal(out / "journal.jsonl", resume=True) as journal:      # one writer: locked against a second run
        done = journal.by_key("key")
        journal.append({"key": "a", "text": "…"})

    journal = Journal(out / "done", shared=True)                      # a folder: each process writes a file of its own
    journal.append({"id": "a", "record": …})                          # (from any machine that sees the folder)
    done = journal.by_key("id", rank=lambda line: "record" in line)   # a record counts for more than a fault

No data base: SQLite's locks do not hold on the network disks that several machines share, and a person can read this.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from swift_plugins.files import InputError, from_json, hold


class Journal:
    """Append-only JSON lines in one file with one writer, or (`shared`) in a folder with a file per process.

    A shared one is made in the process that writes to it, never handed over to another.
    Raises `InputError` when another run holds the file, or when it has content and `resume` is false.
    """

    def __init__(self, path: str | os.PathLike, *, resume: bool = False, shared: bool = False):
        self.path = Path(path)
        self._shared = shared
        self._lock = None
        if shared:
            self.path.mkdir(parents=True, exist_ok=True)
            # No two processes, of whatever machine and time, have the same file: nobody appends to a cut-off line.
            self._own = self.path / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}.jsonl"
            return
        self._own = self.path
        if not resume and self.path.exists() and self.path.stat().st_size:
            raise InputError("holds answers of an earlier run: go on with --resume, or choose another folder", path)
        self._lock = hold(self.path)
        self._lock.seek(0)
        self._lock.truncate(sum(len(line) for line in self._lock if line.endswith(b"\n")))

    def append(self, record: dict) -> None:
        """Write one record as one line. It survives a SIGKILL from here on, and readers on other machines see it:
        network disks show what was written when the file is closed."""
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self._own.open("ab", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            try:
                written = 0
                while written < len(line):
                    written += file.write(line[written:])
            except OSError:  # a full disk must not leave half a line between whole ones
                file.truncate(start)
                raise

    def records(self) -> Iterator[tuple[Path, int, dict]]:
        """(file, line number from 1, record) of all that was written, by all processes; files in order of their names.

        A last line that a kill cut off is left out. Raises `InputError` for any other line that is no JSON object.
        """
        for path in sorted(self.path.glob("*.jsonl")) if self._shared else [self.path]:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n"):
                        break
                    try:
                        record = from_json(line.decode())
                    except ValueError:
                        record = None
                    if not isinstance(record, dict):
                        raise InputError("is not a line of a journal", path, number)
                    yield path, number, record

    def by_key(self, name: str, rank: Callable[[dict], int] = lambda record: 0) -> dict[str, dict]:
        """For each value under `name` its last record of the highest `rank`; records without `name` are left out."""
        records = (record for _, _, record in self.records() if name in record)
        return {record[name]: record for record in sorted(records, key=rank)}

    def close(self) -> None:
        """Let go of the lock; a shared journal holds none."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
