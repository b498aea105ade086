"""The model card of a merged model: README.md beside the weights, ready for a hub.

    python -m swift_plugins.model_card MERGED --checkpoint DIR [--data AMT] [--scores FILE …]

shell/export.sh calls it. Everything in it is read from files: the checkpoint's settings, the builder's report with the
hashes of the rows, the scorer's figures with their signatures. What is not there is said to be missing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from swift_plugins.build_report import BuildReport, read_report
from swift_plugins.files import InputError, atomic_open, read_json, run_cli
from swift_plugins.options import option, parse
from swift_plugins.scoring.scores import flatten, percent
from swift_plugins.tasks import task_of

SETTINGS = {
    "learning_rate": "learning rate",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "rows per device and step",
    "gradient_accumulation_steps": "steps accumulated",
    "lora_rank": "LoRA rank",
    "lora_alpha": "LoRA alpha",
    "max_length": "longest row (tokens)",
    "seed": "seed",
}


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    merged: Path = option(positional=True, metavar="MERGED", help="the merged folder; README.md is written into it")
    checkpoint: Path = option(metavar="DIR", help="the adapter that was merged")
    data: Path | None = option(None, metavar="AMT", help="the rows that it was trained on (build_amt's folder)")
    scores: tuple[Path, ...] = option((), metavar="FILE", help="figures, as compute_result.py --json writes them")


def training(checkpoint: Path) -> list[dict[str, Any]]:
    """The stages that made an adapter, first to last: name, dataset, settings."""
    stages: list[dict[str, Any]] = []
    seen = set()
    folder: Path | None = checkpoint
    while folder is not None and folder.resolve() not in seen and (folder / "args.json").is_file():
        seen.add(folder.resolve())
        settings = _mapping(folder / "args.json")
        stages.insert(
            0,
            {
                "dataset": ", ".join(map(str, settings.get("dataset") or ())),
                "base": Path(str(settings.get("model"))).name,
                "swift": settings.get("swift_version"),
                "settings": {words: settings[key] for key, words in SETTINGS.items() if settings.get(key) is not None},
            },
        )
        earlier = settings.get("adapters") or ()
        folder = Path(str(earlier[0])) if earlier else None
    if not stages:
        raise InputError("holds no args.json of a training", checkpoint)
    return stages


def rows(data: Path) -> list[dict[str, Any]]:
    """The training rows: channel, number, and the beginning of the file's SHA-256."""
    found = []
    for path in sorted(data.glob("*.train.jsonl")):
        channel = path.name.removesuffix(".train.jsonl")
        if channel.count(".") != 1:
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
            file.seek(0)
            count = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
        if count:
            found.append({"channel": channel, "rows": count, "sha256": digest})
    return found


def leaks(report: BuildReport) -> list[str]:
    """What the report knows of held-out conversations among the training rows."""
    if not report.overlap:
        return ["Whether they hold conversations of a held-out split was not looked into."]
    said = []
    if left_out := report.options.exclude_leaks:
        said.append(f"Conversations that stand in {', '.join(left_out)} were left out of the training rows.")
    held = [
        f"{dataset}: {counts.utterances:,} of the {counts.of:,} utterances of {split}"
        for dataset, splits in report.overlap.items()
        for split, counts in splits.items()
        if counts.utterances
    ]
    said += [f"The training rows still hold held-out utterances: {'; '.join(held)}."] if held else []
    return said or ["No held-out conversation was found among the training rows."]


def figures(path: Path) -> list[dict[str, Any]]:
    """One line per channel of a scorer's JSON: n, the headline figures in per cent, the signatures."""
    found = []
    for channel, block in _mapping(path).items():
        task, _ = task_of(channel)
        strict = flatten(block["strict"])
        shown = {words: percent(name, strict[name]) for key, words in task.headlines if (name := _name(key, strict))}
        found.append({"channel": channel, "n": block["n"], "figures": shown, "signatures": block["signatures"]})
    return found


def _name(key: str, figures: dict[str, Any]) -> str | None:
    """The figure's full name: `paper f1` for `f1` of a task with protocols."""
    return key if key in figures else next((name for name in figures if name.endswith(f" {key}")), None)


def _mapping(path: Path) -> dict:
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError("is not a JSON object", path)
    return value


def card(merged: Path, checkpoint: Path, data: Path | None, scores: tuple[Path, ...]) -> str:
    """The text of the card. Raises `InputError` for a file that is not what its option says."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True
    )
    path = data / "report.train.json" if data else None
    report = read_report(path) if path and path.is_file() else None
    return environment.get_template("model_card.md.j2").render(
        name=merged.name,
        stages=training(checkpoint),
        rows=rows(data) if data else [],
        leaks=leaks(report) if report else [],
        prompts=report.options.prompts if report else None,
        scores=[line for path in scores for line in figures(path)],
    )


def main() -> int:
    """Write README.md into the merged folder."""
    options = parse(Options, __doc__, prog="python -m swift_plugins.model_card")
    if not options.merged.is_dir():
        raise InputError("no such folder", options.merged)
    text = card(options.merged, options.checkpoint, options.data, options.scores)
    with atomic_open(options.merged / "README.md") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    run_cli(main)
