"""Row and config files: checked reading, atomic writing, and errors that name file, row and reason.

Everything that this project reads from a user goes through here or raises `InputError`, and everything that it
writes is written to a temporary file first and renamed, so that a reader never sees half a file.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import sys
import tempfile
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

ROOT = Path(__file__).resolve().parents[1]
# In the repository `configs` is a folder of its own; an installed package carries it inside.
CONFIGS = next(path for path in (ROOT / "swift_plugins" / "configs", ROOT / "configs") if path.is_dir())


class InputError(Exception):
    """Bad input from the user: shown as one line `file:row: reason`, exit status 2, no traceback."""

    def __init__(self, reason: str, file: str | os.PathLike | None = None, row: int | str | None = None):
        where = "" if file is None else f"{os.fspath(file)}: " if row is None else f"{os.fspath(file)}:{row}: "
        super().__init__(" ".join(f"{where}{reason}".split("\n")))
        self.reason, self.file, self.row = reason, file, row


def run_cli(main: Callable[[], int | None]) -> None:
    """Call `main` and exit: its own status (None is 0), or 2 with one line on stderr for an `InputError`.

    So for what the file system refuses (a folder where a file is meant, no permission, a full disk).
    """
    try:
        status = main() or 0
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except BrokenPipeError:  # before its base class OSError; `… | head` closed the pipe: nothing to report
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path`; rename it onto `path` when the block ends well, remove it otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    text = "b" not in mode
    try:
        with os.fdopen(handle, mode, encoding="utf-8" if text else None, newline="\n" if text else None) as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes 0600; a shared folder expects the user's own default
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


class AtomicFiles:
    """Several text files that appear together, at `commit`, or not at all.

    with AtomicFiles() as files:
        files.open("out/a.jsonl").write("…")
        files.commit()
    """

    def __init__(self) -> None:
        self._files: dict[Path, tuple[IO[str], Path]] = {}
        self._made: list[Path] = []  # folders that did not exist before

    def __enter__(self) -> AtomicFiles:
        return self

    def open(self, path: str | os.PathLike) -> IO[str]:
        """The temporary file that becomes `path`, opened once, with its folder made."""
        path = Path(path)
        if path not in self._files:
            self._made += [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
            self._files[path] = os.fdopen(handle, "w", encoding="utf-8", newline="\n"), Path(temporary)
        return self._files[path][0]

    def commit(self, drop: Collection[IO[str]] = ()) -> None:
        """Give the files their names. Where one is empty or of `drop`, what has its name goes instead."""
        umask = os.umask(0)
        os.umask(umask)
        for file, _ in self._files.values():
            file.flush()
        for path, (file, temporary) in self._files.items():
            if file in drop or not temporary.stat().st_size:
                temporary.unlink()
                path.unlink(missing_ok=True)
            else:
                temporary.chmod(0o666 & ~umask)
                os.replace(temporary, path)
            file.close()
        self._files = {}

    def __exit__(self, *_: object) -> None:
        for file, temporary in self._files.values():
            with contextlib.suppress(OSError):
                file.close()
            temporary.unlink(missing_ok=True)
        if self._files:
            for folder in self._made:
                with contextlib.suppress(OSError):
                    folder.rmdir()


def is_text(value: object) -> bool:
    """Whether a value is a text that a UTF-8 file can hold: JSON can also hold halves of surrogate pairs."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write one indented JSON document, atomically."""
    with atomic_open(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def write_rows(path: str | os.PathLike, rows: Iterable[dict]) -> int:
    """Write one JSON object per line, UTF-8, atomically; return the number of rows."""
    count = 0
    with atomic_open(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_json(path: str | os.PathLike) -> object:
    """One JSON document; raises `InputError` when it is missing, not UTF-8 or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError("no such file", path) from None
    except IsADirectoryError:
        raise InputError("is a folder, not a file", path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 ({error.reason} at byte {error.start})", path) from None
    except json.JSONDecodeError as error:
        raise InputError(f"is not JSON: {error.msg}", path, error.lineno) from None
    except ValueError:  # an integer of thousands of digits
        raise InputError("is not JSON (number too long)", path) from None
    except RecursionError:
        raise InputError("is not JSON (nested too deeply)", path) from None


def read_yaml(path: str | os.PathLike) -> object:
    """One YAML document; raises `InputError` when it is missing, not UTF-8 or not YAML."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError((error.strerror or str(error)).lower(), path) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"is not YAML: {error}", path) from None


class Config(BaseModel):
    """What a YAML file of configs/ may hold: no unknown keys, no values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


C = TypeVar("C", bound=BaseModel)


def read_config(path: str | os.PathLike, model: type[C]) -> C:
    """A YAML file as the pydantic `model`; `InputError` names the file and the first key that is wrong.

    Validators of the model raise `ValueError` with the reason alone.
    """
    value = read_yaml(path)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = {"extra_forbidden": "unknown key", "missing": "missing key"}.get(first["type"], first["msg"])
        reason = reason.removeprefix("Value error, ")
        shown = (
            "" if first["type"] in ("missing", "extra_forbidden", "value_error") else f", not {first['input']!r:.60}"
        )
        raise InputError(f"{key}: {reason}{shown}" if key else f"{reason}{shown}", path) from None


def read_rows_at(path: str | os.PathLike, offsets: Iterable[int]) -> list[dict]:
    """The rows that begin at these bytes of a JSON lines file, as `read_rows` told them."""
    rows = []
    with open(path, "rb") as file:
        for offset in offsets:
            file.seek(offset)
            rows.append(json.loads(file.readline().decode("utf-8-sig" if offset == 0 else "utf-8")))
    return rows


def read_rows(path: str | os.PathLike, offsets: array | None = None) -> Iterator[tuple[int, dict]]:
    """Yield (line number from 1, object) of a JSON lines file, plain or `.gz`; blank lines are skipped.

    `offsets` takes the byte at which each row begins, for `read_rows_at` (plain files).

    Lines end at `\\n` only: U+2028 and its kin inside a string do not split a row. Raises `InputError` naming the
    line for anything that is not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", path)
    number = offset = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                start, offset = offset, offset + len(line)
                if not line.strip():
                    continue
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                if not isinstance(row, dict):
                    raise InputError(f"holds a {type(row).__name__} where a JSON object is expected", path, number)
                if offsets is not None:
                    offsets.append(start)
                yield number, row
    except UnicodeDecodeError:
        raise InputError("is not UTF-8", path, number) from None
    except (ValueError, RecursionError) as error:  # a plain ValueError: an integer of thousands of digits
        reason = getattr(error, "msg", "nested too deeply" if isinstance(error, RecursionError) else "number too long")
        raise InputError(f"is not JSON ({reason})", path, number) from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"is not a whole gzip file ({error})", path, number) from None
