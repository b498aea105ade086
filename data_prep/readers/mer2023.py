"""MER2023-SEMI: read the label list of its test clips, as Emotion-LLaMA is scored on them.

    python -m data_prep.build_amt --mer2023 DIR --split test --out OUT --prompts configs/emotion-llama/prompts.yaml

Layout of DIR: one label list whose name holds `test` (`relative_test3_NCEV.txt`), transcripts and clips as MERR has
them (`data_prep.readers.merr`). There is no training split here: MERR's lists are that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.readers import merr
from data_prep.readers.sample import Fault, Sample, SplitAbsent
from data_prep.readers.tables import transcript
from swift_plugins.files import InputError

EMOTIONS = merr.LABELS[:6]
TASKS = ("mer",)
PUBLISHED = {"test": {"clips": 834}}


def read(root: Path, split: str, faults: list[Fault]) -> Iterator[Sample]:
    """Yield the clips of the list in its order.

    Raises `SplitAbsent` for another split than test and for a folder without the list, `InputError` for two lists, what
    `merr.read_label_list` refuses, and a label that is none of the six.
    """
    root = Path(root)
    lists = [path for path in sorted(root.glob(merr.LISTS)) if "test" in path.name]
    if split != "test" or not lists:
        held = "no label list of test clips (*test*_NCEV.txt)" if split == "test" else f"no {split} split"
        raise SplitAbsent(f"is not a MER2023 folder with what is asked for: it holds {held}", root)
    if len(lists) > 1:
        raise InputError(f"holds {' and '.join(path.name for path in lists)}: which one is to be scored?", root)
    folder = merr.clip_folder(root)
    sentences = merr.transcripts(root)
    for line, name, _, emotion, _ in merr.read_label_list(lists[0]):
        if emotion not in EMOTIONS:
            raise InputError(f"{name}: {emotion!r} is not one of {', '.join(EMOTIONS)}", lists[0], line)
        clip = f"mer2023/test/{name}"
        yield Sample(
            id=clip,
            dataset="mer2023",
            split="test",
            text=transcript(sentences.get(name, ""), clip, faults),
            video=f"{folder}{name}.mp4",
            emotion=emotion,
        )


def count(samples: list[Sample], faults: list[Fault]) -> dict[str, int]:
    """The numbers that `PUBLISHED` has of a split."""
    return {"clips": len(samples)}
