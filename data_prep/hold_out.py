"""Hold a part of ECF's training conversations out as a dev split, of which ECF 2.0 publishes none.

    python -m data_prep.hold_out --ecf raw/ecf --out raw/ecf-held-out [--part 0.1] [--seed 42] [--utterances 8]

Writes Subtask_2_train.json and Subtask_2_dev.json to a new folder: whole conversations, in the order of the file,
chosen by a keyed hash of (seed, conversation_ID), so that a smaller part is inside a larger one; with --utterances only
those of at most so many utterances, for models to which longer prompts cost too much. Clips stay where they are: link
them as OUT/videos. MELD's training split holds many of these scenes, too: build_amt --exclude-leaks all.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from data_prep.readers import ecf
from swift_plugins.files import AtomicFiles, InputError, read_json, run_cli
from swift_plugins.options import option, parse


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    ecf: Path = option(metavar="DIR", help="folder of ECF 2.0")
    out: Path = option(metavar="DIR", help="a new folder")
    part: float = option(0.1, metavar="P", help="how much of the conversations, between 0 and 1 (0.1)")
    seed: int = option(42, metavar="N", help="of the choice (42)")
    utterances: int | None = option(None, metavar="N", help="leave longer conversations out of both (default: none)")


def chosen(identities: list[int], part: float, seed: int) -> set[int]:
    """The conversations that are held out, at least one; `InputError` where none would be left to train on."""
    count = max(1, round(part * len(identities)))
    if not 0 < part < 1 or count >= len(identities):
        raise InputError(f"--part {part:g} of {len(identities)} conversations leaves nothing on one side")
    order = sorted(identities, key=lambda identity: hashlib.blake2b(f"{seed}\x1f{identity}".encode()).digest())
    return set(order[:count])


def main() -> int:
    """Read, choose, write, print."""
    options = parse(Options, __doc__, prog="python -m data_prep.hold_out")
    if options.out.exists():
        raise InputError("exists already; name a new folder or remove this one first", options.out)
    if (dev := options.ecf / "Subtask_2_dev.json").exists():
        raise InputError("there is a dev split already", dev)
    for _ in ecf.read(options.ecf, "train", []):  # refuses what build_amt would refuse
        pass
    conversations = read_json(options.ecf / "Subtask_2_train.json")
    if options.utterances is not None:
        conversations = [one for one in conversations if len(one["conversation"]) <= options.utterances]
    held = chosen([int(one["conversation_ID"]) for one in conversations], options.part, options.seed)
    parts: dict[str, list] = {"train": [], "dev": []}
    for one in conversations:
        parts["dev" if int(one["conversation_ID"]) in held else "train"].append(one)
    with AtomicFiles() as files:
        for split, some in parts.items():
            json.dump(some, files.open(options.out / f"Subtask_2_{split}.json"), ensure_ascii=False, indent=1)
        files.commit()
    for split, some in parts.items():
        utterances = sum(len(one["conversation"]) for one in some)
        print(f"{split:<6}{len(some):>7,} conversations{utterances:>9,} utterances")
    return 0


if __name__ == "__main__":
    run_cli(main)
