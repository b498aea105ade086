"""The dataset `amt` of ms-swift: AMT rows from the folder `AMT_DATA`, mixed or by channel.

    --dataset amt:stage1            the rows that the stage of configs/mixtures.yaml draws
    --dataset amt:stage1#1000       the same ratio with 1,000 rows
    --dataset amt:meld.mer#200      200 training rows of one channel
    --val_dataset amt:meld.mer.test amt:dev     a channel of another split; every channel of a split

Media paths of the rows are relative to `AMT_MEDIA`; without it, to the media root that build_amt noted in its report.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from swift.dataset import DatasetMeta, register_dataset
from swift.dataset.loader import DatasetLoader
from swift.dataset.preprocessor import RowPreprocessor

from swift_plugins import mixture
from swift_plugins.files import InputError, read_json
from swift_plugins.tasks import split_channel

SPLITS = ("train", "dev", "test")


def read_subset(subset: str, data: Path, size: int | None = None) -> list[dict]:
    """The rows of one subset of `amt`; `InputError` when there is no such subset or it has fewer than `size` rows."""
    if subset in SPLITS:
        channels = sorted(path.name.split(f".{subset}.")[0] for path in data.glob(f"*.*.{subset}.jsonl"))
        rows = [row for channel in channels for row in mixture.read_channel(data, channel, subset)]
    elif "." in subset:
        channel, _, split = subset.rpartition(".")
        if split not in SPLITS:
            channel, split = subset, "train"
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
        raise InputError(f"no rows for amt:{subset}", data)
    if size is not None:
        if size > len(rows):
            raise InputError(f"amt:{subset}#{size}: there are only {len(rows):,} rows", data)
        rows = mixture.order(rows, "", mixture.read_mixtures().seed)[:size]
    return rows


def media_root(data: Path) -> Path:
    """The folder that media paths are relative to."""
    if root := os.environ.get("AMT_MEDIA"):
        return Path(root)
    roots = {read_json(report)["media_root"] for report in sorted(data.glob("report.*.json"))}
    if len(roots) > 1:
        raise InputError(f"its reports name {len(roots)} media roots; set AMT_MEDIA", data)
    return data / roots.pop() if roots else data


def swift_row(row: dict, root: Path) -> dict:
    """A row with ms-swift's keys only and whole media paths; `InputError` when a file of it is not there."""
    media = {}
    for key in ("images", "videos"):
        paths = [os.path.normpath(root / path) for path in row.get(key) or ()]
        for path in paths:
            if not os.path.isfile(path):
                raise InputError(f"{row['id']} needs {path}, which is not there (AMT_MEDIA says where media are)")
        media[key] = paths or None
    return {"query": row["query"], "response": row["response"], "channel": row["channel"], **media}


class AmtLoader(DatasetLoader):
    """What ms-swift calls for `amt:…`."""

    def load(self, dataset_syntax=None, dataset_meta=None, *, use_hf=None):
        try:
            rows = self._rows(dataset_syntax)
        except InputError as error:  # ms-swift would print a traceback of its own frames instead
            print(f"error: {error}", file=sys.stderr, flush=True)
            sys.exit(2)
        # Every key in every row: the features come from the whole list, and a split without media still has them.
        from datasets import Dataset, Features, Sequence, Value

        text = Value("string")
        columns = {"query": text, "response": text, "channel": text, "images": Sequence(text), "videos": Sequence(text)}
        if not self.remove_unused_columns:  # GRPO: rewards read the gold answer from `solution`
            columns["solution"] = text
            rows = [row | {"solution": row["response"]} for row in rows]
        features = Features(columns)
        dataset = Dataset.from_list(rows, features=features)
        if self.streaming:
            dataset = dataset.to_iterable_dataset()
        dataset = dataset_meta.preprocess_func(
            dataset, num_proc=self.num_proc, load_from_cache_file=self.load_from_cache_file, strict=True
        )
        return RowPreprocessor.remove_useless_columns(dataset) if self.remove_unused_columns else dataset

    @staticmethod
    def _rows(syntax) -> list[dict]:
        subsets = syntax.subsets or ["stage1"]
        if syntax.dataset_sample is not None and len(subsets) > 1:
            raise InputError(f"#{syntax.dataset_sample} after several subsets: give each its own amt:…#n")
        data = mixture.data_root()
        root = media_root(data)
        return [swift_row(row, root) for subset in subsets for row in read_subset(subset, data, syntax.dataset_sample)]


def register() -> None:
    """Make `amt` known to ms-swift."""
    register_dataset(DatasetMeta(dataset_name="amt", loader=AmtLoader), exist_ok=True)
