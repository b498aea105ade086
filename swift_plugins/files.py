"""Row and config files: checked reading, atomic writing, and errors that name file, row and reason.

Everything that this project reads from a user goes through here or raises `InputError`, and everything that it
writes is written to a temporary file first and renamed, so that a reader never sees half a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import gzip
import json
import os
import re
import sys
import tempfile
import unicodedata
import zlib
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

ROOT = Path(__file__).resolve().parents[1]
# In the repository `configs` is a folder of its own; an installed package carries it inside.
CONFIGS = next(path for path in (ROOT / "swift_plugins" / "configs", ROOT / "configs") if path.is_dir())
PLUGIN = ROOT / "swift_plugins" / "emoverse.py"  # for `--external_plugins`


class InputError(Exception):
    """Bad input from the user: shown as one line `file:row: reason`, exit status 2, no traceback."""

    def __init__(self, reason: str, file: str | os.PathLike | None = None, row: int | str | None = None):
        where = "" if file is None else f"{os.fspath(file)}: " if row is None else f"{os.fspath(file)}:{row}: "
        # The error of a data loader worker comes with that process's whole traceback as its message.
        reason = reason.rpartition(f"{__name__}.InputError: ")[2].rstrip("\n")
        self.reason, self.file, self.row = shown(reason), file, row
        super().__init__(shown(where) + self.reason)


def shown(text: str, most: int = 800) -> str:
    """`text` on one line that any terminal can show: control characters written out, the middle of a long one cut."""
    if len(text) > most:
        text = f"{text[: most // 2]} … {text[-most // 2 :]}"
    text = text.replace("\n", " ")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: a Chinese character takes two, an accent of its own none."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.category(char) in ("Mn", "Me", "Cf") for char in text)


def padded(text: str, width: int, right: bool = False) -> str:
    """`text` and spaces, before it where `right`: `width` columns of a terminal, or as many as the text takes."""
    spaces = " " * (width - columns(text))
    return spaces + text if right else text + spaces


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
        print(f"error: {described(error)}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


def described(error: OSError) -> str:
    """What the file system refuses, in one line: the file and the system's own words."""
    where = f"{os.fspath(error.filename)}: " if isinstance(error.filename, str | os.PathLike) else ""
    return shown(f"{where}{error.strerror or error}")


def _temporary(path: Path) -> tuple[int, str]:
    """A new file beside `path`, locked while it is open, its folder made. What killed runs left of such files goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle, name


def _is_stream(path: Path) -> bool:
    """Whether `path` is a device or a pipe, in whose place a rename would put a file: for root, even /dev/null."""
    return path.exists() and not path.is_dir() and (not path.is_file() or path.absolute().parent == Path("/dev"))


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path`; rename it onto `path` when the block ends well, remove it otherwise.

    A device or a pipe (/dev/null, /dev/stdout) is written to as it stands.
    """
    path = Path(path)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    if _is_stream(path):
        with path.open(mode, **text) as file:
            yield file
        return
    handle, temporary = _temporary(path)
    try:
        with os.fdopen(handle, mode, **text) as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes 0600; a shared folder expects the user's own default
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def check_place(path: Path) -> None:
    """`InputError` where a file cannot be written to `path`, before what it is to hold is worked out."""
    if path.is_dir():
        raise InputError("is a folder, not a file", path)
    if _is_stream(path):
        return
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise InputError("is a file, not a folder", above)
    if not os.access(above, os.W_OK):
        raise InputError("cannot be written to", above)


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
            handle, temporary = _temporary(path)
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


def hold(path: str | os.PathLike, shared: str | os.PathLike | None = None) -> IO[bytes]:
    """The file at `path`, made where it is not there, open for appending and locked until it is closed.

    The system closes it when this process ends, however it ends. Raises `InputError` where another process holds it;
    `shared` is what both would write to, where that is not the file itself.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+b")  # noqa: SIM115 (whoever holds it closes it)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError("another run is writing there", path if shared is None else shared) from None
    return file


def is_text(value: object) -> bool:
    """Whether a value is a text that a UTF-8 file can hold: JSON can also hold halves of surrogate pairs."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def last_checkpoint(stage: Path) -> Path | None:
    """The last whole checkpoint in the folder of a stage, None where there is none (as env.sh finds it)."""
    states = stage.glob("checkpoint-*/trainer_state.json")
    whole = [state.parent for state in states if state.read_text(encoding="utf-8").splitlines()[-1:] == ["}"]]
    return max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


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


_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # of a surrogate pair: an escape of JSON that may be no character
HALF = "holds half of a surrogate pair, which is no character"


def from_json(text: str, halves: bool = False) -> Any:
    """The value of a JSON text; ValueError says in a few words why it is none, or none that a file can hold.

    halves: let halves of surrogate pairs pass, as `is_text` finds them.
    """
    try:
        value = json.loads(text)
        whole = halves or not _HALF.search(text) or is_text(json.dumps(value, ensure_ascii=False))
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer of thousands of digits
        raise ValueError("number too long") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not whole:
        raise ValueError(HALF)
    return value


def read_json(path: str | os.PathLike) -> Any:
    """One JSON document; raises `InputError` when it is missing, not UTF-8, not JSON or holds half characters."""
    try:
        return from_json(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError("no such file", path) from None
    except IsADirectoryError:
        raise InputError("is a folder, not a file", path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 ({error.reason} at byte {error.start})", path) from None
    except json.JSONDecodeError as error:
        raise InputError(f"is not JSON: {error.msg}", path, error.lineno) from None
    except ValueError as error:
        raise InputError(HALF if str(error) == HALF else f"is not JSON ({error})", path) from None


def read_yaml(path: str | os.PathLike) -> Any:
    """One YAML document; raises `InputError` when it is missing, not UTF-8 or not YAML."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        value = yaml.safe_load(text)
    except OSError as error:
        raise InputError((error.strerror or str(error)).lower(), path) from None
    except RecursionError:
        raise InputError("is not YAML: nested too deeply", path) from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # a day or number that cannot be, a merge of no map
        raise InputError(f"is not YAML: {error}", path) from None
    if _HALF.search(text):  # YAML puts no pairs together
        raise InputError(f"{HALF}: write the character itself, not its escapes", path)
    return value


class Config(BaseModel):
    """What a YAML file of configs/ may hold: no unknown keys, no values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


C = TypeVar("C", bound=BaseModel)


def read_config(path: str | os.PathLike, model: type[C]) -> C:
    """A YAML file as the pydantic `model`; `InputError` names the file and the first key that is wrong.

    Validators of the model raise `ValueError` with the reason alone.
    """
    return validated(model, read_yaml(path), path)


def validated(model: type[C], value: object, path: str | os.PathLike, row: int | None = None) -> C:
    """What was read from a file as the pydantic `model`; `InputError` names the first key that is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = {"extra_forbidden": "unknown key", "missing": "missing key"}.get(first["type"], first["msg"])
        reason = reason.removeprefix("Value error, ")
        if first["type"] not in ("missing", "extra_forbidden", "value_error"):
            reason += f", not {first['input']!r:.60}"
        raise InputError(f"{key}: {reason}" if key else reason, path, row) from None
    except RecursionError:
        raise InputError("is nested too deeply", path, row) from None


def read_rows_at(path: str | os.PathLike, offsets: Iterable[int]) -> list[dict]:
    """The rows that begin at these bytes of a JSON lines file, as `read_rows` told them."""
    rows = []
    with open(path, "rb") as file:
        for offset in offsets:
            file.seek(offset)
            rows.append(json.loads(file.readline().decode("utf-8-sig" if offset == 0 else "utf-8")))
    return rows


def read_rows(
    path: str | os.PathLike, offsets: array | None = None, halves: bool = False
) -> Iterator[tuple[int, dict]]:
    """Yield (line number from 1, object) of a JSON lines file, plain or `.gz`; blank lines are skipped.

    `offsets` takes the byte at which each row begins, for `read_rows_at` (plain files); `halves` as in `from_json`.

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
                row = from_json(line.decode("utf-8-sig" if number == 1 else "utf-8"), halves)
                if not isinstance(row, dict):
                    raise InputError(f"holds a {type(row).__name__} where a JSON object is expected", path, number)
                if offsets is not None:
                    offsets.append(start)
                yield number, row
    except UnicodeDecodeError:
        raise InputError("is not UTF-8", path, number) from None
    except ValueError as error:
        reason = getattr(error, "msg", str(error))
        raise InputError(HALF if reason == HALF else f"is not JSON ({reason})", path, number) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"is not a whole gzip file ({error})", path, number) from None
