"""The tables of an ablation: Tables 2, 3 and 5 of the paper, our figures beside its own; curves, what was forgotten.

    python -m benchmarks.ablation_report OUTPUT [OUTPUT…] [--out DIR] [--bootstrap N]

OUTPUT is a folder of shell/ablation.sh, or single runs of it (OUTPUT/<variant>/<seed>). Writes DIR/report.md and
DIR/index.html (default: OUTPUT/report), which say the same, and prints the tables. Which variants stand in which table,
and which figures: configs/ablation.yaml.

A cell is the mean over seeds ± their standard deviation; of one seed, ± the standard deviation of a bootstrap over
its test dialogues or clips. Comparisons are a paired bootstrap (Koehn 2004) over test dialogues or clips, in which all
seeds are resampled alike: what it leaves out is the chance of the seeds, which ± shows.
"""

from __future__ import annotations

import base64
import io
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from compute_result import published
from swift_plugins import metrics
from swift_plugins.ablation import MANIFEST, Ablation, Column, Table, read_ablation, read_manifest
from swift_plugins.files import CONFIGS, InputError, atomic_open, read_json, run_cli
from swift_plugins.options import option, parse
from swift_plugins.scoring.paired import p_value
from swift_plugins.scoring.results import Channel, read_results
from swift_plugins.scoring.scores import finish, flatten, scale, units_of
from swift_plugins.tasks import task_of

BEFORE = ("zero-shot", "stage1")  # what the matrix of forgetting starts with


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    outputs: tuple[Path, ...] = option(positional=True, nargs="+", metavar="OUTPUT", help="where the runs are")
    out: Path | None = option(None, metavar="DIR", help="where the report goes (default: report in the first OUTPUT)")
    config: Path | None = option(
        None, metavar="DIR", help="configuration whose ablation.yaml is meant (default: theirs)"
    )
    bootstrap: int = option(1000, metavar="N", help="draws of each comparison (1000)")


@dataclass(frozen=True)
class Result:
    """One finished run: its folder, its manifest, the scorer's blocks by channel."""

    folder: Path
    manifest: dict[str, Any]
    blocks: dict[str, dict]

    @cached_property
    def channels(self) -> dict[str, Channel]:
        """Its parsed answers."""
        return read_results((self.folder / "answers.jsonl",))

    def figure(self, channel: str, figure: str) -> float | None:
        """A figure of the strict reading, as a fraction; None where the run has no such channel."""
        block = self.blocks.get(channel)
        return None if block is None else flatten(block["strict"]).get(figure)


Results = dict[str, list[Result]]  # variant → its runs, one a seed


def read_runs(outputs: Iterable[Path]) -> Results:
    """The finished runs of some folders. Raises `InputError` where there is none."""
    found: Results = {}
    for output in outputs:
        paths = [output / MANIFEST] if (output / MANIFEST).is_file() else sorted(output.glob(f"*/*/{MANIFEST}"))
        if not paths:
            raise InputError("holds no finished run (shell/ablation.sh makes them)", output)
        for path in paths:
            manifest = read_manifest(path)
            scores = read_json(path.with_name("answers.scores.json"))
            if not isinstance(scores, dict):
                raise InputError("is not a JSON object", path.with_name("answers.scores.json"))
            found.setdefault(manifest["variant"], []).append(Result(path.parent, manifest, scores))
    return found


# Numbers


def spread(results: Sequence[Result], channel: str, figure: str) -> tuple[float, float | None] | None:
    """(mean, ±) over seeds; with one seed ± is of the bootstrap over its test units. None where no run has it."""
    values = [value for result in results if (value := result.figure(channel, figure)) is not None]
    if not values:
        return None
    if len(values) > 1:
        return statistics.mean(values), statistics.stdev(values)
    return values[0], deviation(results[0].channels[channel], figure)


def deviation(channel: Channel, figure: str, draws: int = 500) -> float:
    """Standard deviation of a figure over bootstrap draws of the channel's dialogues or clips."""
    columns = (channel.golds, channel.strict, channel.keys)
    counts = [
        channel.task.count(channel.dataset, *([column[row] for row in rows] for column in columns))
        for rows in units_of(channel)[0]
    ]
    samples = metrics.resample(counts, lambda drawn: {"it": flatten(finish(channel, drawn))[figure]}, draws)
    return float(np.std(samples["it",], ddof=1))


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs of one figure: the mean over seeds, its 95 % interval, a two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


def difference(ours: Sequence[Result], theirs: Sequence[Result], columns: Sequence[Column], draws: int) -> dict:
    """{(channel, figure): Difference} of two variants by a paired bootstrap, seeds in step; see the module.

    Runs that do not depend on a seed stand beside each seed of the other. Raises `InputError` for other rows.
    """
    pairs = _pairs(ours, theirs)
    found = {}
    for name in dict.fromkeys(column.channel for column in columns):
        sides = [[run.channels.get(name) for run in side] for side in zip(*pairs, strict=True)]
        if any(channel is None for side in sides for channel in side):
            continue
        wanted = [column.figure for column in columns if column.channel == name]
        units = _units(name, sides)

        def figures(counts: Counter, sides: list = sides, wanted: Sequence[str] = wanted) -> dict[str, float]:
            """Mean over seeds of our figures minus theirs."""
            parts: dict[tuple[int, int], Counter] = {}
            for (side, seed, key), value in counts.items():
                parts.setdefault((side, seed), Counter())[key] = value
            made = {place: flatten(finish(sides[place[0]][place[1]], part)) for place, part in parts.items()}
            seeds = range(len(sides[0]))
            return {
                figure: sum(made[0, seed][figure] - made[1, seed][figure] for seed in seeds) / len(seeds)
                for figure in wanted
            }

        whole: Counter = Counter()
        for unit in units:
            whole.update(unit)
        observed, samples = figures(whole), metrics.resample(units, figures, draws)
        for figure in wanted:
            drawn = np.array(samples[figure,])
            low, high = np.percentile(drawn, [2.5, 97.5])
            p = p_value(drawn, observed[figure])
            found[name, figure] = Difference(observed[figure], float(low), float(high), p)
    return found


def _pairs(ours: Sequence[Result], theirs: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Runs of one seed side by side; one that has none beside every run of the other."""
    by_seed = [{run.manifest["seed"]: run for run in side} for side in (ours, theirs)]
    seeds = sorted((by_seed[0].keys() | by_seed[1].keys()) - {None}) or [None]
    pairs = [tuple(side.get(seed, side.get(None)) for side in by_seed) for seed in seeds]
    return [(one, other) for one, other in pairs if one is not None and other is not None]


def _units(name: str, sides: Sequence[Sequence[Channel]]) -> list[Counter]:
    """Counts of each dialogue or clip, by (side, seed, key)."""
    units: dict[str, Counter] = {}
    golds: dict[str, Any] | None = None
    for side, channels in enumerate(sides):
        for seed, channel in enumerate(channels):
            mine = dict(zip(channel.ids, channel.golds, strict=True))
            if golds is not None and mine != golds:
                raise InputError(f"{name}: the runs answered other rows")
            golds = mine
            for rows in units_of(channel)[0]:
                columns = ([column[row] for row in rows] for column in (channel.golds, channel.strict, channel.keys))
                unit = str(channel.units[rows[0]] or channel.ids[rows[0]])
                counts = channel.task.count(channel.dataset, *columns)
                units.setdefault(unit, Counter()).update({(side, seed, key): value for key, value in counts.items()})
    return list(units.values())


# Tables, as lists of cells


def cell(value: tuple[float, float | None] | None, figure: str) -> str:
    """`67.3 ± 1.2` in per cent."""
    if value is None:
        return "–"
    mean, deviation = (None if part is None else scale(figure) * part for part in value)
    return f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"


def tasks_of(result: Result, results: Results) -> str:
    """What a variant was trained on, its earlier stage included: `MSA 360 FER 180 MER 60, then MER 380`."""
    own = " ".join(f"{task.upper()} {count:,}" for task, count in result.manifest["tasks"].items() if count)
    before = results.get(result.manifest["after"] or "")
    return f"{tasks_of(before[0], results)}; {own}" if before else own or "nothing"


def main_table(table: Table, ablation: Ablation, results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows: each variant, under it the paper's figures, and what needs no model."""
    columns = [column for column in ablation.figures if any(_has(results, row, column) for row in table.rows)]
    head = ["variant", "trained on (rows)", "seeds", *(column.words for column in columns)]
    lines = []
    for name in table.rows:
        runs = results.get(name, [])
        trained = tasks_of(runs[0], results) if runs else "not run"
        seeds = str(len(runs)) if runs and runs[0].manifest["seed"] is not None else "–"
        values = [cell(spread(runs, column.channel, column.figure), column.figure) for column in columns]
        lines.append([name, trained, seeds, *values])
        figures = paper(ablation.variants[name].published or name)
        if figures:
            shown = [figures.get((column.channel.partition(".")[2], column.figure)) for column in columns]
            lines.append(["paper", "", "", *("–" if value is None else f"{100 * value:.1f}" for value in shown)])
    return head, lines + baselines(columns, results)


def _has(results: Results, name: str, column: Column) -> bool:
    return any(run.figure(column.channel, column.figure) is not None for run in results.get(name, ()))


def paper(name: str) -> dict[tuple[str, str], float]:
    """(task, figure) → the paper's figure, under the name that it has in configs/published.yaml; {} where unknown."""
    try:
        entry = published(name)
    except InputError:
        return {}
    return {
        (channel.partition(".")[2], figure): value
        for channel, block in entry.items()
        for figure, value in flatten(block["figures"]).items()
    }


def baselines(columns: Sequence[Column], results: Results) -> list[list[str]]:
    """What needs no model, by any run's gold answers."""
    blocks = next(iter(results.values()))[0].blocks
    names = dict.fromkeys(name for column in columns for name in blocks.get(column.channel, {}).get("baselines", {}))
    lines = []
    for name in names:
        known = [flatten(blocks.get(c.channel, {}).get("baselines", {}).get(name, {})).get(c.figure) for c in columns]
        shown = [
            "–" if value is None else f"{scale(c.figure) * value:.1f}" for value, c in zip(known, columns, strict=True)
        ]
        lines.append([name, "no model", "", *shown])
    return lines


def comparisons(table: Table, ablation: Ablation, results: Results, draws: int) -> tuple[list[str], list[list[str]]]:
    """Head and rows: each variant minus the one that the table compares with, in points."""
    columns = [column for column in ablation.figures if _has(results, table.against, column)]
    head = [f"minus {table.against}", *(column.words for column in columns)]
    lines = []
    for name in table.rows:
        if name == table.against or not results.get(name) or not results.get(table.against):
            continue
        found = difference(results[name], results[table.against], columns, draws)
        cells = []
        for column in columns:
            one = found.get((column.channel, column.figure))
            by = scale(column.figure)
            cells.append(
                f"{by * one.value:+.1f} [{by * one.low:+.1f}, {by * one.high:+.1f}] p {one.p:.3f}" if one else "–"
            )
        lines.append([name, *cells])
    return head, lines


def forgetting(ablation: Ablation, results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows: the first figure of each channel after each stage, and against stage 1 where it comes later."""
    names = [name for name in ablation.variants if name in BEFORE or ablation.variants[name].after]
    names = [name for name in names if results.get(name)]
    channels = dict.fromkeys(channel for name in names for channel in results[name][0].blocks)
    lines = []
    for channel in channels:
        figure = headline(channel, results[names[0]][0].blocks[channel])
        first = spread(results.get("stage1", ()), channel, figure)
        cells = []
        for name in names:
            value = spread(results[name], channel, figure)
            change = ""
            if first and value and ablation.variants[name].after:
                change = f" ({scale(figure) * (value[0] - first[0]):+.1f})"
            cells.append(cell(value, figure) + change)
        lines.append([channel, figure.replace("_", " "), *cells])
    return ["channel", "figure", *names], lines


def everything(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows: the first figure of every channel, by variant."""
    first = next(iter(results.values()))[0].blocks
    figures = {channel: headline(channel, block) for channel, block in first.items()}
    head = ["variant", *(f"{channel} {figure.replace('_', ' ')}" for channel, figure in figures.items())]
    return head, [
        [name, *(cell(spread(runs, channel, figure), figure) for channel, figure in figures.items())]
        for name, runs in results.items()
    ]


def headline(channel: str, block: dict) -> str:
    """The figure that stands for a channel."""
    strict = flatten(block["strict"])
    key = task_of(channel)[0].headlines[0][0]
    return key if key in strict else next(name for name in strict if name.endswith(f" {key}"))


def calibration(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows: accuracy, mean probability and ECE of ranked answers, by variant and channel; mean over seeds."""
    lines = []
    for name, runs in results.items():
        for channel in runs[0].blocks:
            found = [run.blocks[channel]["calibration"] for run in runs if "calibration" in run.blocks.get(channel, {})]
            if found:
                means = [100 * statistics.mean(one[key] for one in found) for key in ("accuracy", "confidence", "ece")]
                lines.append([name, channel, *(f"{mean:.1f}" for mean in means)])
    return ["variant", "channel", "accuracy", "mean probability", "ECE"], lines


def runs_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows: what each run took."""
    head = ["variant", "seed", "rows", "steps", "samples", "training s", "answers", "answering s", "peak MB", "commit"]
    lines = []
    for name, runs in results.items():
        for run in runs:
            made = run.manifest
            seconds, memory = made["seconds"], max(made["peak_memory_mb"].values(), default=0)
            mark = "*" if made["resumed"] else ""
            numbers = (sum(made["tasks"].values()), made["steps"], made["samples"])
            row = [name, "–" if made["seed"] is None else str(made["seed"]), *(f"{n:,}" for n in numbers)]
            row += [f"{seconds['train']:.0f}{mark}", f"{made['answers']:,}", f"{seconds['answer']:.0f}{mark}"]
            lines.append([*row, f"{memory:,}", made["commit"]])
    return head, lines


# Curves


def log_of(result: Result) -> list[dict[str, Any]]:
    """The entries of the trainer's log, in order of steps."""
    state = max(
        result.folder.glob("*/checkpoint-*/trainer_state.json"),
        key=lambda path: int(path.parent.name.split("-")[-1]),
        default=None,
    )
    found = read_json(state) if state else {}
    return found.get("log_history", []) if isinstance(found, dict) else []


def curves(results: Results, kind: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """variant → channel → (samples seen, value), the mean over seeds. kind: "loss" of the training rows by channel, or
    "score": the first figure of each dev channel."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, runs in results.items():
        values: dict[str, dict[float, list[float]]] = {}
        for run in runs:
            made = run.manifest
            each = made["samples"] / made["steps"] if made["steps"] else 0
            for entry in log_of(run):
                for key, value in entry.items():
                    if (channel := _curve(key, kind)) is not None:
                        values.setdefault(channel, {}).setdefault(entry["step"] * each, []).append(value)
        lines = {
            channel: [(at, statistics.mean(some)) for at, some in sorted(points.items())]
            for channel, points in values.items()
        }
        if lines:
            found[name] = lines
    return found


def _curve(key: str, kind: str) -> str | None:
    """The channel that an entry of the log belongs to, None where it is no point of such a curve."""
    if kind == "loss":
        return key[len("loss_") :] if key.startswith("loss_") and "." in key else None
    channel, _, figure = key.removeprefix("eval_").partition("_")
    if not key.startswith("eval_") or key.startswith("eval_loss") or channel.count(".") != 1:
        return None
    return channel if figure == task_of(channel)[0].headlines[0][0].replace(" ", "_") else None


def picture(lines: Mapping[str, Mapping[str, Sequence]], kind: str, known: Sequence[str]) -> bytes:
    """A PNG: a panel for each variant, a line for each channel; `known` channels have their colours in that order."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = sorted({channel for channels in lines.values() for channel in channels})
    colours = dict(zip(known, mpl.colormaps["tab10"].colors * 3, strict=False))
    across = min(4, len(lines))
    down = -(-len(lines) // across)
    figure = Figure(figsize=(3.1 * across, 2.3 * down + 0.5), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharey=True)
    for axes in panels.flat[len(lines) :]:
        axes.set_visible(False)
    for axes, (name, channels) in zip(panels.flat, lines.items(), strict=False):
        for channel, points in channels.items():
            axes.plot(*zip(*points, strict=True), color=colours[channel], lw=1.4, marker=".", ms=3, label=channel)
        axes.set_title(name, fontsize=10)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
    if kind == "loss":
        panels[0, 0].set_yscale("log")
    for axes in panels[-1]:
        axes.set_xlabel("samples seen in this stage", fontsize=8)
    handles = [mpl.lines.Line2D([], [], color=colours[name], label=name) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(names)), fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


# The report


def sections(ablation: Ablation, results: Results, draws: int) -> list[dict[str, Any]]:
    """Titles with tables (head, rows), in order."""
    found = []
    for name, table in ablation.tables.items():
        if not any(results.get(row) for row in table.rows):
            continue
        found.append({"title": f"{name}: {table.title}", "table": main_table(table, ablation, results)})
        if any(name.startswith("single") for name in table.rows):
            found[-1]["note"] = (
                "A single task has as many rows as M2SE in both stages; where it has fewer, they come again."
            )
        compared = comparisons(table, ablation, results, draws)
        if compared[1]:
            note = "Difference in points, 95 % interval and p-value of a paired bootstrap over dialogues or clips."
            found.append({"title": f"{name}, compared", "note": note, "table": compared})
    if results.get("stage1"):
        note = "The first figure of every test channel after each stage; in brackets the change since stage 1."
        found.append({"title": "What a stage forgets", "note": note, "table": forgetting(ablation, results)})
    note = "The first figure of every test channel, whether it was trained or not."
    found.append({"title": "Every variant on every channel", "note": note, "table": everything(results)})
    calibrated = calibration(results)
    if calibrated[1]:
        note = "Labels ranked by likelihood: expected calibration error, 15 bins, in per cent; mean over seeds."
        found.append({"title": "Calibration", "note": note, "table": calibrated})
    note = "Seconds as the runs ran, side by side with others; *: goes on after a kill, the last start alone."
    found.append({"title": "Runs", "note": note, "table": runs_table(results)})
    return found


def facts(results: Results) -> list[str]:
    """What all runs are made of, a line each; several where runs differ."""
    made = [run.manifest for runs in results.values() for run in runs]

    def several(value: Callable[[dict], str]) -> str:
        return " and ".join(sorted({value(one) for one in made}))

    seeds = sorted({one["seed"] for one in made if one["seed"] is not None})
    hours = sum(sum(one["seconds"].values()) for one in made) / 3600
    machine = several(
        lambda one: f"{one['machine']['cores']} cores, {one['machine']['side_by_side']} runs side by side"
    )
    return [
        f"configuration {several(lambda one: one['config']['name'] + ' ' + one['config']['sha256'])}, "
        f"base model {several(lambda one: one['model'])}, rows {several(lambda one: one['data']['sha256'])}",
        f"seeds {', '.join(map(str, seeds))}; {len(made)} runs, {hours:.2f} hours of runs on {machine}",
        several(lambda one: ", ".join(f"{name} {version}" for name, version in one["versions"].items()))
        + f"; commit {several(lambda one: one['commit'])}",
        f"answers: {several(lambda one: one['score'])}",
    ]


def markdown(told: Sequence[str], parts: Sequence[dict[str, Any]], pictures: Mapping[str, bytes]) -> str:
    """The report in markdown."""
    lines = ["# Ablation", "", *(f"- {line}" for line in told)]
    for part in parts:
        head, rows = part["table"]
        lines += ["", f"## {part['title']}", ""]
        if "note" in part:
            lines += [part["note"], ""]
        lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    for name in pictures:
        lines += ["", f"## {name}", "", f"![{name}]({_file(name)})"]
    return "\n".join(lines) + "\n"


def _file(name: str) -> str:
    return f"{name.split()[0].lower()}.png"


def page(told: Sequence[str], parts: Sequence[dict[str, Any]], pictures: Mapping[str, bytes]) -> str:
    """The same as one self-contained page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    embedded = {name: base64.b64encode(data).decode("ascii") for name, data in pictures.items()}
    return environment.get_template("ablation_report.html.j2").render(facts=told, parts=parts, pictures=embedded)


def main() -> int:
    """Read, compare, write, print."""
    options = parse(Options, __doc__, prog="python -m benchmarks.ablation_report")
    if options.bootstrap < 1:
        raise InputError("--bootstrap needs a number of draws")
    results = read_runs(options.outputs)
    name = next(iter(results.values()))[0].manifest["config"]["name"]
    ablation = read_ablation(options.config or CONFIGS / name)
    order = list(ablation.variants)
    results = {
        variant: results[variant] for variant in sorted(results, key=lambda v: order.index(v) if v in order else 99)
    }
    told, parts = facts(results), sections(ablation, results, options.bootstrap)
    drawn = {"Loss of the training rows by channel": "loss", "Scores of the dev rows by channel": "score"}
    found = {title: (lines, kind) for title, kind in drawn.items() if (lines := curves(results, kind))}
    known = sorted({channel for lines, _ in found.values() for channels in lines.values() for channel in channels})
    pictures = {title: picture(lines, kind, known) for title, (lines, kind) in found.items()}
    folder = options.out or options.outputs[0] / "report"
    for title, data in pictures.items():
        with atomic_open(folder / _file(title), "wb") as file:
            file.write(data)
    text = markdown(told, parts, pictures)
    for file_name, content in (("report.md", text), ("index.html", page(told, parts, pictures))):
        with atomic_open(folder / file_name) as file:
            file.write(content)
    print(text.partition("\n## Runs")[0])
    print(f"{folder / 'index.html'}")
    return 0


if __name__ == "__main__":
    run_cli(main)
