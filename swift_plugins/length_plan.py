"""Length plan: how long rows become with their pictures, what exceeds max_length, how many steps a stage takes.

    python -m data_prep.doctor --tokens MODEL --data AMT_DIR [--config configs/emoverse-4b] [--stage stage1]

MODEL is the folder of the base model; lengths come from the template that training uses, so they are exact: no
picture is decoded, a tile counts as the tokens that it becomes. (Other backbones than InternVL2: the text of every row
is counted, the pictures on one row of each kind, since a picture has one size there; sounds are decoded, once a file,
where the model hears.) Batch, epochs and max_length are
those of CONFIG/<stage>.yaml; what stands after `--` overrides them as it would in `swift sft`. Without --stage every
row file of AMT_DIR is counted and both stages are planned. Exit status 1 when a stage would lose rows. Where AMT_CACHE
names a folder, exact lengths are kept there, and a row is measured once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from swift_plugins import mixture
from swift_plugins.files import CONFIGS, InputError, atomic_open, write_json
from swift_plugins.rows import MEDIA

# What of a stage's configuration decides lengths and steps: type and ms-swift's own default.
SETTINGS: dict[str, tuple[type, Any]] = {
    "model_type": (str, None),
    "template": (str, None),
    "system": (str, None),
    "max_length": (int, None),
    "per_device_train_batch_size": (int, 1),
    "gradient_accumulation_steps": (int, 1),
    "num_train_epochs": (float, 3.0),
    "max_steps": (int, -1),
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


class KnownLengths:
    """What earlier plans measured, in AMT_CACHE/lengths: `rows` is digest of a row → (tokens, visual ones).

    A file stands for all that decides ids: the model's files but its weights, the template's settings, the system turn,
    the code. One that is broken is not read, a folder that cannot be written to costs a measurement each time.
    """

    KEPT = 4  # files, the last written

    def __init__(self, folder: Path, model: Path, template: Any, system: str | None):
        files = [path for path in model.iterdir() if path.suffix in (".json", ".jinja", ".model", ".txt")]
        files += Path(__file__).parent.rglob("*.py")
        code = [hashlib.blake2b(path.read_bytes()).hexdigest() for path in sorted(files)]
        settings = {name: value for name, value in vars(template).items() if isinstance(value, str | int | float)}
        meta = template.template_meta
        libraries = [version(name) for name in ("ms-swift", "transformers", "tokenizers")]
        about = [settings, meta.template_type, meta.default_system, system, libraries, code]
        self.path = folder / "lengths" / f"{_digest(about)}.json"
        self.rows: dict[str, tuple[int, int]] = {}
        self.new = False
        try:
            said, _, body = self.path.read_text(encoding="utf-8").partition("\n")
            if said == _digest(body):
                self.rows = {key: (total, visual) for key, (total, visual) in json.loads(body).items()}
        except (OSError, ValueError):
            pass

    def of(self, row: dict, measure: Callable[[], tuple[int, int]]) -> tuple[int, int]:
        """The lengths of a row, measured where they are not known. Of its media only the numbers matter."""
        key = _digest([row["query"], row["response"], [len(row.get(kind) or ()) for kind in MEDIA]])
        if key not in self.rows:
            self.rows[key], self.new = measure(), True
        return self.rows[key]

    def save(self) -> None:
        """Keep what is new."""
        if not self.new:
            return
        body = json.dumps(self.rows)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_open(self.path) as file:
                file.write(f"{_digest(body)}\n{body}")
            for old in sorted(self.path.parent.glob("*.json"), key=os.path.getmtime)[: -self.KEPT]:
                old.unlink(missing_ok=True)
        except OSError:
            return
        self.new = False


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


class Meter:
    """Counts the tokens of rows with the template of one model and configuration."""

    def __init__(self, model: Path, settings: dict[str, Any]):
        # ms-swift takes seconds to import, and only this form of the doctor needs it.
        from swift.model import get_processor
        from swift.template import get_template

        import swift_plugins.emoverse  # noqa: F401  registers our models and templates

        try:
            processor = get_processor(str(model), model_type=settings["model_type"], download_model=False)
            template = get_template(
                processor, settings["system"], template_type=settings["template"], max_length=1_000_000
            )
        except (ValueError, OSError, KeyError) as error:
            raise InputError(f"cannot be loaded as {settings['model_type']}: {error}", model) from None
        self.limit = settings["max_length"] or template.model_info.max_model_len
        self.exact = getattr(template, "exact", False)
        self.template = template
        self.template.set_mode("train")
        self.media_token: Any = getattr(template, "media_token", getattr(template.config, "image_token_id", None))
        self.by_media: dict[tuple[int, int], int] = {}
        self.by_sound: dict[str, int] = {}
        self.known: KnownLengths | None = None
        if self.exact and (folder := os.environ.get("AMT_CACHE")):
            with template.lengths_only():
                if template.counting:  # else the size of a picture says how long its row is
                    self.known = KnownLengths(Path(folder), model, template, settings["system"])

    def measure(self, rows: Iterable[dict], root: Path) -> Lengths:
        """Lengths of AMT rows, in order; media paths are relative to `root`.

        A row that comes again, as the same object, is measured once.
        """
        rows = list(rows)
        distinct = {id(row): row for row in rows}
        if self.known:
            found = {key: self.known.of(row, partial(self._one, row, root)) for key, row in distinct.items()}
            self.known.save()
        else:
            found = {key: self._one(row, root) for key, row in distinct.items()}
        pairs = [found[id(row)] for row in rows]
        total, visual = zip(*pairs, strict=True) if pairs else ((), ())
        return Lengths(np.array(total, dtype=int), np.array(visual, dtype=int))

    def _one(self, row: dict, root: Path) -> tuple[int, int]:
        files = {key: [str(root / path) for path in row.get(key) or ()] for key in MEDIA}
        if self.exact:
            ids = self._ids(row, files)
            return len(ids), ids.count(self.media_token)
        text, sounds = len(self._ids(row, {})), files.pop("audios")
        media = len(files["images"]), len(files["videos"])
        if media not in self.by_media:
            self.by_media[media] = len(self._ids(row, files)) - text
        return text + self.by_media[media] + sum(map(self._sound, sounds)), self.by_media[media]

    def _sound(self, path: str) -> int:
        """Tokens of a file's sound, 0 where the model does not hear."""
        if path not in self.by_sound:
            length = getattr(self.template, "sound_length", None)
            self.by_sound[path] = length(path) if length else 0
        return self.by_sound[path]

    def _ids(self, row: dict, files: dict[str, list[str]]) -> list[int]:
        """The ids of a row with these files instead of its own; of those that are left out, the tags go, too."""
        query = row["query"]
        for key in MEDIA:
            if not files.get(key):
                query = query.replace(f"<{key.removesuffix('s')}>", "", len(row.get(key) or ()))
        messages = [{"role": "user", "content": query}, {"role": "assistant", "content": row["response"]}]
        with self.template.lengths_only() if self.exact else nullcontext():
            return self.template.encode({"messages": messages, **files})["input_ids"]


def read_settings(
    config: Path, stage: str, flags: Sequence[str], wanted: dict[str, tuple[Callable, Any]] = SETTINGS
) -> dict[str, Any]:
    """What is `wanted` of a stage, as `swift sft CONFIG/<stage>.yaml FLAGS` would have it: ms-swift itself turns the
    file into flags. wanted: name → how its text is read, ms-swift's default.

    Raises `InputError` for a missing or broken file and for a value that is not a number where one is expected.
    """
    path = config / f"{stage}.yaml"
    if not path.is_file():
        raise InputError("no such file", path)
    from swift.cli.main import parse_yaml_args  # imports torch, as measuring does; what is refused was refused before

    arguments = [str(path), *flags]
    try:
        parse_yaml_args(arguments)
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:  # the last for a list or a text
        raise InputError(f"is not a configuration in YAML: {error}", path) from None
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    for name, (kind, default) in wanted.items():
        parser.add_argument(f"--{name}", type=kind, default=default)
    try:
        return vars(parser.parse_known_args(arguments)[0])
    except argparse.ArgumentError as error:
        raise InputError(str(error), path) from None


def processes() -> int:
    """How many processes train: ms-swift's NPROC_PER_NODE on NNODES machines."""
    count = 1
    for name in ("NPROC_PER_NODE", "NNODES"):
        said = os.environ.get(name) or "1"
        if not said.isdecimal() or int(said) < 1:
            raise InputError(f"{name}={said} is not a number of processes")
        count *= int(said)
    return count


def steps(samples: int, settings: dict[str, Any], processes: int) -> int:
    """Optimizer steps of a stage, as transformers' Trainer counts them."""
    if settings["max_steps"] > 0:
        return settings["max_steps"]
    batches = math.ceil(samples / (settings["per_device_train_batch_size"] * processes))
    per_epoch = max(1, math.ceil(batches / settings["gradient_accumulation_steps"])) if batches else 0
    return math.ceil(settings["num_train_epochs"] * per_epoch)


def plan(
    model: Path,
    config: str = "emoverse-4b",
    data: str | None = None,
    stage: str | None = None,
    settings_name: str | None = None,
    size: int | None = None,
    flags: Sequence[str] = (),
    report_folder: Path | None = None,
) -> int:
    """Print the plan for the base model in a folder; 1 when a planned stage would lose rows.

    config: a folder of configs/, or another. data: the folder of AMT rows (default: AMT_DATA). stage: the only one to
    plan, of `size` rows, trained with CONFIG/<settings_name>.yaml and the flags. Raises `InputError`.
    """
    config_folder, rows_folder = _folders(model, config, data)
    own_mixtures = config_folder / "mixtures.yaml"
    mixtures = mixture.read_mixtures(
        os.environ.get("AMT_MIXTURES") or (own_mixtures if own_mixtures.is_file() else None)
    )
    stages: list[str] = [name for name in ("stage1", "stage2") if name in mixtures.stages]
    if stage:
        stages = [stage]  # `draw` refuses a name that is none
    draws = {name: mixture.draw(mixtures, name, rows_folder, size) for name in stages}
    if stage:
        draws[stage].check()
    files = [] if stage else sorted(rows_folder.glob("*.*.*.jsonl"))
    if not files and not stage:
        raise InputError("holds no row files (<dataset>.<task>.<split>.jsonl)", rows_folder)

    os.environ.setdefault("LOG_LEVEL", "ERROR")  # ms-swift tells every setting otherwise
    # An ablation of a stage is trained with that stage's configuration: stage2_mer with stage2.yaml.
    settings = {name: read_settings(config_folder, settings_name or name.split("_")[0], flags) for name in stages}
    if turn := mixture.system_turn(rows_folder, "train"):  # rows carry it (swift_plugins.dataset), and it comes first
        settings = {name: {**values, "system": turn} for name, values in settings.items()}
    report = _measured(model, rows_folder, files, draws, settings)
    if report_folder:
        write_json(report_folder / "lengths.json", report)
    return int(any(stage["over"] for stage in report["stages"].values()))


def _folders(model: Path, config: str, data: str | None) -> tuple[Path, Path]:
    """The folders of the configuration and of the rows; `InputError` where they or the model's are not there."""
    folder = CONFIGS / config if (CONFIGS / config).is_dir() else Path(config)
    if not (model / "config.json").is_file():
        raise InputError("is not a model folder: it holds no config.json", model)
    if not folder.is_dir():
        raise InputError("is neither a folder of configs/ nor a folder", config)
    rows = mixture.data_root(data)
    if not rows.is_dir():
        raise InputError("no such folder of AMT rows (python -m data_prep.build_amt makes it)", rows)
    return folder, rows


def _measured(
    model: Path,
    data: Path,
    files: list[Path],
    draws: dict[str, mixture.Plan],
    settings: dict[str, dict[str, Any]],
) -> dict:
    """Measure the row files and the draws, printing a line for each; lengths.json."""
    from swift_plugins.build_report import media_root

    root = media_root(data)
    meter = Meter(model, next(iter(settings.values())))
    report: dict = {"model": str(model), "max_length": meter.limit, "channels": {}, "stages": {}}
    print(f"{'channel':<26}{'rows':>8}{'p50':>8}{'p95':>8}{'max':>8}{'visual':>8}   over {meter.limit:,}")
    known: dict[tuple[str, str], tuple[int, int]] = {}  # channel and id → length and its visual part
    for path in files:
        rows = list(mixture.check_rows(path, path.name.rsplit(".", 2)[0]))
        measured = meter.measure(rows, root)
        if path.name.endswith(".train.jsonl"):
            known |= _by_row(rows, measured)
        if rows:
            _print_channel(path.name.removesuffix(".jsonl"), measured, meter.limit, report["channels"])
    for stage, drawn in draws.items():
        try:
            drawn.check()
        except InputError as error:
            print(f"{stage}: cannot be planned: {error}")
            continue
        rows = drawn.rows
        unknown = [row for row in rows if (row["channel"], row["id"]) not in known]
        known |= _by_row(unknown, meter.measure(unknown, root))
        lengths = [known[row["channel"], row["id"]] for row in rows]
        limit = settings[stage]["max_length"] or meter.limit
        if not files:  # one stage alone: its channels have not been shown
            channels = defaultdict(list)
            for row, pair in zip(rows, lengths, strict=True):
                channels[row["channel"]].append(pair)
            for channel, pairs in sorted(channels.items()):
                _print_channel(f"{channel} in {stage}", Lengths(*np.array(pairs).T), limit, report["channels"])
        report["stages"][stage] = _print_stage(stage, [total for total, _ in lengths], limit, settings[stage])
    return report


def _by_row(rows: list[dict], measured: Lengths) -> dict[tuple[str, str], tuple[int, int]]:
    pairs = zip(measured.total.tolist(), measured.visual.tolist(), strict=True)
    return {(row["channel"], row["id"]): pair for row, pair in zip(rows, pairs, strict=True)}


def _print_channel(name: str, lengths: Lengths, limit: int, report: dict) -> None:
    numbers = lengths.as_json(limit)
    report[name] = numbers
    print(
        f"{name:<26}{numbers['rows']:>8,}{numbers['p50']:>8,}{numbers['p95']:>8,}{numbers['max']:>8,}"
        f"{numbers['visual_max']:>8,}   {numbers['over']:,}",
        flush=True,
    )


def _print_stage(stage: str, lengths: list[int], limit: int, settings: dict[str, Any]) -> dict:
    numbers = {
        "samples": len(lengths),
        "tokens": sum(lengths),
        "steps": steps(len(lengths), settings, processes()),
        "over": sum(length > limit for length in lengths),
    }
    print(
        f"{stage}: {numbers['samples']:,} samples, {numbers['tokens']:,} tokens an epoch, {numbers['steps']:,} steps "
        f"on {processes()} process{'es' if processes() > 1 else ''}, {numbers['over']:,} rows over max_length {limit:,}"
    )
    return numbers
