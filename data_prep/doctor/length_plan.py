"""Length plan: how long rows become with their pictures, what exceeds max_length, how many steps a stage takes.

    python -m data_prep.doctor --tokens MODEL --data AMT_DIR [--config configs/emoverse-4b] [--stage stage1]

MODEL is the folder of the base model; lengths come from the template that training uses, so they are exact: no
picture is decoded, a tile counts as the tokens that it becomes. (Other backbones than InternVL2: the text of every row
is counted, the pictures on one row of each kind, since a picture has one size there.) Batch, epochs and max_length are
those of CONFIG/<stage>.yaml; what stands after `--` overrides them as it would in `swift sft`. Without --stage every
row file of AMT_DIR is counted and both stages are planned. Exit status 1 when a stage would lose rows.
"""

from __future__ import annotations

import argparse
import math
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import yaml

from swift_plugins import mixture
from swift_plugins.files import CONFIGS, InputError, read_rows, write_json

# What of a stage's configuration decides lengths and steps, with ms-swift's own defaults.
SETTINGS = {
    "model_type": None,
    "template": None,
    "system": None,
    "max_length": None,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3.0,
    "max_steps": -1,
}


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of some rows, visual ones included, and how many of them are visual."""

    total: np.ndarray
    visual: np.ndarray

    def as_json(self, max_length: int | None) -> dict:
        """Counts for one channel; `over` is None without a limit."""
        return {
            "rows": len(self.total),
            "p50": int(np.percentile(self.total, 50, method="higher")),
            "p95": int(np.percentile(self.total, 95, method="higher")),
            "max": int(self.total.max()),
            "visual_max": int(self.visual.max()),
            "over": None if max_length is None else int((self.total > max_length).sum()),
        }


class Meter:
    """Counts the tokens of rows with the template of one model and configuration."""

    def __init__(self, model: Path, settings: dict):
        # ms-swift takes seconds to import, and only this form of the doctor needs it.
        from swift.model import get_processor
        from swift.template import get_template

        import swift_plugins.emoverse  # noqa: F401  registers our models and templates
        from swift_plugins.template import EmoverseTemplate

        try:
            processor = get_processor(str(model), model_type=settings["model_type"], download_model=False)
            template = get_template(
                processor, settings["system"], template_type=settings["template"], max_length=1_000_000
            )
        except (ValueError, OSError, KeyError) as error:
            raise InputError(f"cannot be loaded as {settings['model_type']}: {error}", model) from None
        self.limit = settings["max_length"] or template.model_info.max_model_len
        self.exact = isinstance(template, EmoverseTemplate)
        if self.exact and template.max_num == template.video_max_num == 1:
            template = _blank(type(template))(processor, template.template_meta, settings["system"], 1_000_000)
        self.template = template
        self.template.set_mode("train")
        self.image_token = getattr(template.config, "image_token_id", None)
        self.by_media: dict[tuple[int, int], int] = {}

    def measure(self, rows: Iterable[dict], root: Path) -> Lengths:
        """Lengths of AMT rows, in order; media paths are relative to `root`."""
        pairs = [self._one(row, root) for row in rows]
        total, visual = zip(*pairs, strict=True) if pairs else ((), ())
        return Lengths(np.array(total, dtype=int), np.array(visual, dtype=int))

    def _one(self, row: dict, root: Path) -> tuple[int, int]:
        images, videos = ([str(root / path) for path in row.get(key) or ()] for key in ("images", "videos"))
        if self.exact:
            ids = self._ids(row, images, videos)
            return len(ids), ids.count(self.image_token)
        text = len(self._ids(row, [], []))
        media = len(images), len(videos)
        if media not in self.by_media:
            self.by_media[media] = len(self._ids(row, images, videos)) - text
        return text + self.by_media[media], self.by_media[media]

    def _ids(self, row: dict, images: list[str], videos: list[str]) -> list[int]:
        query = row["query"]
        if not images and not videos:
            query = query.replace("<image>", "").replace("<video>", "")
        messages = [{"role": "user", "content": query}, {"role": "assistant", "content": row["response"]}]
        return self.template.encode({"messages": messages, "images": images, "videos": videos})["input_ids"]


def _blank(template: type) -> type:
    """The template with pictures that are nothing but their number of tiles, which is one."""
    import torch
    from PIL import Image

    class Blank(template):
        def _preprocess_inputs(self, inputs):
            inputs.images = [Image.new("RGB", (1, 1)) for _ in inputs.images]
            super()._preprocess_inputs(inputs)

        def _frames(self, video):
            return [Image.new("RGB", (1, 1))] * self.video_segments

        def _tiles(self, image):
            return torch.empty(1, 0)

    return Blank


def read_settings(config: Path, stage: str, flags: list[str]) -> dict:
    """SETTINGS as CONFIG/<stage>.yaml has them, overridden by `--key value` pairs in `flags`.

    Raises `InputError` for a missing or broken file and for a value that is not a number where one is expected.
    """
    path = config / f"{stage}.yaml"
    try:
        written = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise InputError("no such file", path) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"is not YAML: {error}", path) from None
    given = dict(pairwise(flags)) | dict(flag.split("=", 1) for flag in flags if "=" in flag)
    settings = {}
    for key, default in SETTINGS.items():
        value = given.get(f"--{key}", written.get(key, default))
        if key not in ("model_type", "template", "system") and value is not None:
            try:
                value = float(value)
            except (TypeError, ValueError):
                raise InputError(f"{key} is {value!r}, not a number", path) from None
            value = value if key == "num_train_epochs" else int(value)
        settings[key] = value
    return settings


def steps(samples: int, settings: dict, processes: int) -> int:
    """Optimizer steps of a stage, as transformers' Trainer counts them."""
    if settings["max_steps"] > 0:
        return settings["max_steps"]
    batches = math.ceil(samples / (settings["per_device_train_batch_size"] * processes))
    per_epoch = max(1, math.ceil(batches / settings["gradient_accumulation_steps"])) if batches else 0
    return math.ceil(settings["num_train_epochs"] * per_epoch)


def plan(args: argparse.Namespace) -> int:
    """Print the plan; 1 when a planned stage would lose rows."""
    config = CONFIGS / args.config if (CONFIGS / args.config).is_dir() else Path(args.config)
    if not (args.tokens / "config.json").is_file():
        raise InputError("is not a model folder: it holds no config.json", args.tokens)
    if not config.is_dir():
        raise InputError("is neither a folder of configs/ nor a folder", args.config)
    data = mixture.data_root(args.data)
    if not data.is_dir():
        raise InputError("no such folder of AMT rows (python -m data_prep.build_amt makes it)", data)
    mixtures_file = os.environ.get("AMT_MIXTURES") or (
        config / "mixtures.yaml" if (config / "mixtures.yaml").is_file() else None
    )
    mixtures = mixture.read_mixtures(mixtures_file)
    processes = int(os.environ.get("NPROC_PER_NODE") or 1) * int(os.environ.get("NNODES") or 1)

    stages = [args.stage] if args.stage else [name for name in ("stage1", "stage2") if name in mixtures.stages]
    if args.stage:
        mixtures.stage(args.stage)  # refused in one line where there is none
    # An ablation of a stage is trained with that stage's configuration: stage2_mer with stage2.yaml.
    settings = {stage: read_settings(config, args.settings or stage.split("_")[0], args.flags) for stage in stages}
    draws = {stage: mixture.draw(mixtures, stage, data, args.size) for stage in stages}
    if args.stage:
        draws[args.stage].check()

    os.environ.setdefault("LOG_LEVEL", "ERROR")  # ms-swift tells every setting otherwise
    from swift_plugins.dataset import media_root

    root = media_root(data)
    meter = Meter(args.tokens, settings[stages[0]])
    report: dict = {"model": str(args.tokens), "max_length": meter.limit, "channels": {}, "stages": {}}
    print(f"{'channel':<26}{'rows':>8}{'p50':>8}{'p95':>8}{'max':>8}{'visual':>8}   over {meter.limit:,}")

    lengths: dict[tuple[str, str], tuple[int, int]] = {}
    if not args.stage:
        files = sorted(data.glob("*.*.*.jsonl"))
        if not files:
            raise InputError("holds no row files (<dataset>.<task>.<split>.jsonl)", data)
        for path in files:
            rows = [row for _, row in read_rows(path)]
            measured = meter.measure(rows, root)
            if path.name.endswith(".train.jsonl"):
                lengths |= {
                    (row["channel"], row["id"]): pair
                    for row, *pair in zip(rows, measured.total, measured.visual, strict=True)
                }
            if rows:
                _line(path.name.removesuffix(".jsonl"), measured, meter.limit, report["channels"])

    lost = 0
    for stage, drawn in draws.items():
        try:
            drawn.check()
        except InputError as error:
            print(f"{stage}: cannot be planned: {error}")
            continue
        rows = drawn.rows
        limit = settings[stage]["max_length"] or meter.limit
        unknown = [row for row in rows if (row["channel"], row["id"]) not in lengths]
        measured = meter.measure(unknown, root)
        for row, total, visual in zip(unknown, measured.total, measured.visual, strict=True):
            lengths[row["channel"], row["id"]] = (total, visual)
        if args.stage:
            groups = defaultdict(list)
            for row in rows:
                groups[row["channel"]].append(lengths[row["channel"], row["id"]])
            for channel, pairs in sorted(groups.items()):
                _line(f"{channel} in {stage}", Lengths(*np.array(pairs).T), limit, report["channels"])
        over = int(sum(lengths[row["channel"], row["id"]][0] > limit for row in rows))
        tokens = int(sum(lengths[row["channel"], row["id"]][0] for row in rows))
        count = steps(len(rows), settings[stage], processes)
        lost += over
        report["stages"][stage] = {"samples": len(rows), "tokens": tokens, "steps": count, "over": over}
        print(
            f"{stage}: {len(rows):,} samples, {tokens:,} tokens an epoch, {count:,} steps on {processes} process"
            f"{'es' if processes > 1 else ''}, {over:,} rows over max_length {limit:,}"
        )
    if args.report:
        write_json(args.report / "lengths.json", report)
    return int(lost > 0)


def _line(name: str, lengths: Lengths, limit: int, report: dict) -> None:
    numbers = lengths.as_json(limit)
    report[name] = numbers
    print(
        f"{name:<26}{numbers['rows']:>8,}{numbers['p50']:>8,}{numbers['p95']:>8,}{numbers['max']:>8,}"
        f"{numbers['visual_max']:>8,}   {numbers['over']:,}",
        flush=True,
    )
