"""How a run of ms-swift shares a folder and ends: one writer at a time, and one line for what a user can mend.

`register` is called by the plugin, so it covers `swift sft`, `pt`, `rlhf` and `infer`, however they are started.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from swift.pipelines.base import SwiftPipeline
from swift.utils import is_master

from swift_plugins.files import InputError, described, hold, read_json, shown

# What the file system refuses and a user can mend.
REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}

TORCH_WRITER = ("inline_container.cc", "PytorchStreamWriter")  # which does not say what the system told it


def lock_of(args: Any) -> tuple[Path, Path] | None:
    """The lock of what a run writes to, and that itself: a training's folder, the file of an inference's results.

    None for a run that shares its output with others: a server.
    """
    if hasattr(args, "training_args"):
        return Path(args.output_dir, ".lock"), Path(args.output_dir)
    if not getattr(args, "result_path", None) or hasattr(args, "served_model_name"):
        return None
    result = Path(args.result_path)
    return result.with_name(f".{result.name}.lock"), result


def _one_at_a_time(main):
    def locked(self):
        place = lock_of(self.args) if is_master() else None  # the other processes of a run belong to the first
        if place is None:
            return main(self)
        with hold(*place):
            try:
                return main(self)
            except Exception as error:
                error.add_note(os.fspath(place[1]))  # a disk that is full does not say which file it refuses
                raise

    return locked


def reason_of(error: BaseException) -> str | None:
    """One line for an error that a user can mend, None for any other: bad input, or what the file system refuses.

    On a full disk the saving of a model fails first, then what clears up after it: the cause is looked for in both.
    """
    for cause in _chain(error):
        text = str(cause)
        if isinstance(cause, InputError):
            return text
        if isinstance(cause, Image.DecompressionBombError):
            return shown(text.splitlines()[-1])
        where = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
        if isinstance(cause, OSError) and cause.errno in REFUSED:
            return described(cause) if cause.filename else where + described(cause)
        if any(f"(os error {number})" in text for number in REFUSED):  # safetensors, which is written in Rust
            return shown(where + text)
        if isinstance(cause, RuntimeError) and any(part in text for part in TORCH_WRITER):
            return f"{where}a file could not be written: full disk? ({shown(text)})"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def registered() -> bool:
    """Whether `register` was called in this process."""
    return getattr(SwiftPipeline.main, "__name__", "") == "locked"


def guessed(arguments: list[str]) -> str | None:
    """What to say to a command line that names an InternVL2 folder and no model type: ms-swift takes it for another.

    None where the type is said, comes with an adapter or a checkpoint, or the folder is of another kind; and for
    programs that are not ms-swift's.
    """
    if Path(arguments[0] if arguments else "").parts[-3:-1] != ("swift", "cli"):
        return None
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    if "--model" not in words or {"--model_type", "--adapters", "--ckpt_dir", "--resume_from_checkpoint"} & {*words}:
        return None
    config = Path(*words[words.index("--model") + 1 :][:1], "config.json")
    if not config.is_file():
        return None
    read = read_json(config)
    if not isinstance(read, dict) or "InternVLChatModel" not in (read.get("architectures") or ()):
        return None
    return f"{config.parent} is an original InternVL2 checkpoint: say --model_type emoverse"


def register() -> None:
    """Lock what runs write to, and end them in one line where the reason is known."""
    SwiftPipeline.main = _one_at_a_time(SwiftPipeline.main)
    other_errors = sys.excepthook

    def in_one_line(kind, error, trace) -> None:
        reason = reason_of(error)
        if reason is None:
            other_errors(kind, error, trace)
            return
        sys.stdout.flush()
        print(f"\nerror: {reason}", file=sys.stderr, flush=True)
        os._exit(2)  # after a hook the interpreter would exit with status 1

    sys.excepthook = in_one_line
    if told := guessed(sys.argv):
        raise InputError(told)
