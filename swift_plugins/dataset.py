"""The dataset `amt` of ms-swift: AMT rows from the folder `AMT_DATA`, mixed or by channel.

    --dataset amt:stage1            the rows that the stage of configs/mixtures.yaml draws
    --dataset amt:stage1#1000       the same ratio with 1,000 rows
    --dataset amt:mine              every training row of a dataset (a dataset of one's own, mostly)
    --dataset amt:meld.mer#200      200 training rows of one channel
    --val_dataset amt:meld.mer.test amt:dev     a channel of another split; every channel of a split

Media paths of the rows are relative to `AMT_MEDIA`; without it, to the media root that build_amt noted in its report.
With `AMT_SCORE=likelihood` (test.sh --score) rows whose answer is one of a set bring that set, `choices`, for
`swift infer` to rank (swift_plugins.answering). Unset, or `generate`: every answer is generated.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swift.dataset import DatasetMeta, register_dataset
from swift.dataset.loader import DatasetLoader

from swift_plugins import mixture
from swift_plugins.build_report import media_root
from swift_plugins.files import InputError
from swift_plugins.rows import MEDIA
from swift_plugins.tasks import split_channel, task_of

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "dev", "test")
WAYS = ("generate", "likelihood")
CHUNK = 10_000  # rows that are Python objects at a time; the others lie in Arrow tables


def read_subset(subset: str, data: Path, size: int | None = None) -> list[dict]:
    """The rows of one subset of `amt`; `InputError` when there is no such subset or it has fewer than `size` rows."""
    channel, _, split = subset.rpartition(".")
    if split not in SPLITS:
        channel, split = subset, "train"
    if not channel:
        channels = sorted(path.name.split(f".{split}.")[0] for path in data.glob(f"*.*.{split}.jsonl"))
        rows = [row for channel in channels for row in mixture.read_channel(data, channel, split)]
    elif "." in subset:
        try:
            split_channel(channel)
        except ValueError as error:
            raise InputError(f"amt:{subset}: {error}") from None
        rows = mixture.read_channel(data, channel, split)
    else:
        plan = mixture.draw(mixture.read_mixtures(), subset, data, size)
        plan.check()
        return plan.rows
    if not rows:
        raise InputError(f"no rows for amt:{subset}; {mixture.rows_there(data, split)}")
    if size is not None:
        if size > len(rows):
            raise InputError(f"amt:{subset}#{size}: there are only {len(rows):,} rows", data)
        parts = [split_channel(row["channel"])[2] for row in rows]
        places = mixture.order([row["id"] for row in rows], "", mixture.read_mixtures().seed, parts)
        rows = [rows[place] for place in places[:size]]
    return rows


def with_system(subset: str, data: Path, size: int | None = None) -> list[dict]:
    """As `read_subset`; rows that were built with a system turn of one's own (`build_amt --prompts`) carry it.

    ms-swift puts it before `--system` and before that of the template.
    """
    split = subset.rpartition(".")[2]
    turn = mixture.system_turn(data, split if split in SPLITS else "train")
    rows = read_subset(subset, data, size)
    return rows if turn is None else [row | {"system": turn} for row in rows]


def swift_row(row: dict, root: Path, facts: Iterable[str]) -> dict:
    """A row with whole media paths and every one of the `facts`; `InputError` for a file that is missing.

    `images` and `videos` are in every row, `audios` in those that list some.
    """
    media = {}
    for key in ("images", "videos", *(("audios",) if row.get("audios") else ())):
        paths = [os.path.normpath(root / path) for path in row.get(key) or ()]
        for path in paths:
            if not os.path.isfile(path):
                raise InputError(f"{row['id']} needs {path}, which is not there (AMT_MEDIA says where media are)")
        media[key] = paths or None
    kept = {key: row[key] for key in ("id", "channel", "query", "response", "system") if key in row}
    stated = {name: (row.get("facts") or {}).get(name) for name in facts}
    return kept | media | ({"facts": stated} if stated else {})


def parts(row: dict) -> list[tuple[str, str]]:
    """A query as a client sends it: ("text", words), and ("image", path), "video", "audio", as ms-swift orders them."""
    text = row["query"]
    kinds = ("image", "audio", "video")
    media = {f"<{kind}>": [(kind, path) for path in row.get(f"{kind}s") or ()] for kind in kinds}
    for tag, files in media.items():  # without a tag they stand before the words
        text = tag * (len(files) - text.count(tag)) + text
    pieces = filter(None, re.split("(<image>|<video>|<audio>)", text))
    return [media[piece].pop(0) if media.get(piece) else ("text", piece) for piece in pieces]


def ranks() -> bool:
    """Whether AMT_SCORE wants answers from closed sets ranked; `InputError` for a word that it does not know."""
    way = os.environ.get("AMT_SCORE") or "generate"
    if way not in WAYS:
        raise InputError(f"AMT_SCORE={way} is neither {' nor '.join(WAYS)}")
    return way == "likelihood"


def choices(row: dict) -> list[str] | None:
    """The golds of which the answer to a row is one, None where it is not from a closed set: its gold answer tells
    sentiment as a label from sentiment as a number."""
    task, dataset = task_of(row["channel"])
    return task.variant(row["response"], dataset).choices(dataset) or None


def fact_types(rows: Iterable[dict]) -> dict[str, str]:
    """Name → Arrow type of every fact that some row states; `InputError` for one that is of several types."""
    kinds = {bool: "bool", int: "int64", float: "float64", str: "string"}
    found: dict[str, str] = {}
    for row in rows:
        for name, value in (row.get("facts") or {}).items():
            kind = kinds.get(type(value))
            if kind is None or found.setdefault(name, kind) != kind:
                raise InputError(f"{row['id']}: the fact {name} is {value!r}, not one {found.get(name, 'plain value')}")
    return found


def to_dataset(rows: Sequence[dict], root: Path, solution: bool) -> Dataset:
    """An Arrow dataset of rows, every key in every row; with `solution`, the gold answer once more for rewards.

    There is a column `audios` where a row lists some: what has no sound becomes what it was before rows could have it.
    """
    from datasets import Dataset, Features, Sequence, Value, concatenate_datasets

    text, types = Value("string"), fact_types(rows)
    columns = dict.fromkeys(("id", "channel", "query", "response"), text)
    keys = MEDIA if any(row.get("audios") for row in rows) else ("images", "videos")
    columns |= {key: Sequence(text) for key in keys}
    if types:
        columns["facts"] = {name: Value(kind) for name, kind in types.items()}
    if any("system" in row for row in rows):
        columns["system"] = text
    if solution:
        columns["solution"] = text
    if ranks():
        columns["choices"] = Sequence(text)
    parts = []
    for start in range(0, len(rows), CHUNK):
        chunk = [dict.fromkeys(columns) | swift_row(row, root, types) for row in rows[start : start + CHUNK]]
        if solution:
            chunk = [row | {"solution": row["response"]} for row in chunk]
        if "choices" in columns:
            chunk = [row | {"choices": choices(row)} for row in chunk]
        parts.append(Dataset.from_list(chunk, features=Features(columns)))
    return concatenate_datasets(parts)


class AmtLoader(DatasetLoader):
    """What ms-swift calls for `amt:…`. `id` and `facts` stay in the rows, so that result rows say what they are."""

    def load(self, dataset_syntax=None, dataset_meta=None, *, use_hf=None):
        try:
            data = mixture.data_root()
            dataset = to_dataset(self._rows(dataset_syntax, data), media_root(data), not self.remove_unused_columns)
        except InputError as error:  # ms-swift would print a traceback of its own frames instead
            print(f"error: {error}", file=sys.stderr, flush=True)
            sys.exit(2)
        if self.streaming:
            dataset = dataset.to_iterable_dataset()
        return dataset_meta.preprocess_func(
            dataset, num_proc=self.num_proc, load_from_cache_file=self.load_from_cache_file, strict=True
        )

    @staticmethod
    def _rows(syntax, data: Path) -> list[dict]:
        subsets = syntax.subsets or ["stage1"]
        if syntax.dataset_sample is not None and len(subsets) > 1:
            raise InputError(f"#{syntax.dataset_sample} after several subsets: give each its own amt:…#n")
        return [row for subset in subsets for row in with_system(subset, data, syntax.dataset_sample)]


def register() -> None:
    """Make `amt` known to ms-swift."""
    register_dataset(DatasetMeta(dataset_name="amt", loader=AmtLoader), exist_ok=True)
