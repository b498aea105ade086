"""HTML report of a scoring run: one self-contained page, and its pictures as PNG files beside it.

    python compute_result.py output/result.jsonl --report output/report      # open output/report/index.html

The page needs no network and no script; pictures are embedded. Layout in report.html.j2.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from matplotlib import font_manager, ft2font
from matplotlib.figure import Figure

from swift_plugins import metrics
from swift_plugins.files import InputError, atomic_open
from swift_plugins.frames import PICTURES, jpeg, read_picture, sample_frames
from swift_plugins.scoring.results import Channel, media_of, printable, query_of, reread
from swift_plugins.scoring.scores import (
    calibration_lines,
    columns,
    flatten,
    judge_lines,
    percent,
    published_lines,
    scale,
)
from swift_plugins.tasks import LabelTask

WORST = 20
INK, MUTED, ACCENT, SECOND, GRID = "#1c2733", "#6b7a89", "#2f6fb2", "#d9822b", "#e3e8ed"
STYLE: Any = {
    "font.size": 8.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "savefig.dpi": 200,
}


# Pictures


def fonts_for(text: str) -> list[str]:
    """DejaVu Sans, and installed fonts for the letters that it lacks, as few as will do.

    Prints a line on stderr where no font has some: pictures show boxes then.
    """
    lacking = {ord(letter) for letter in text if letter.isprintable()}
    names: list[str] = []
    installed = [font for font in font_manager.fontManager.ttflist if "Last Resort" not in font.name]  # boxes for all
    for entry in sorted(installed, key=lambda font: font.name != "DejaVu Sans"):
        if not lacking:
            break
        known = lacking & ft2font.FT2Font(entry.fname).get_charmap().keys()
        if known or not names:
            names.append(entry.name)
            lacking -= known
    if lacking:
        letters = "".join(map(chr, sorted(lacking)[:20]))
        print(f"no installed font has {letters}: the pictures show boxes; install one for them", file=sys.stderr)
    return names


def shown_reading(channel: Channel) -> str:
    """The reading that pictures show: strict, unless it leaves most answers unparsed."""
    return "strict" if 2 * channel.strict.count(None) <= len(channel.strict) else "lenient"


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def confusion_picture(channel: Channel, reading: str, labels: list[str]) -> Figure:
    """Rows are gold, columns predictions and unparsed; shade = share of the row, number = count."""
    counts = metrics.confusion(channel.golds, getattr(channel, reading))
    names: list = [*labels, None]
    figure, axes = _figure(4.4, 0.42 * len(labels) + 1.25)
    for row, gold in enumerate(labels):
        total = sum(counts[gold, name] for name in names)
        for column, name in enumerate(names):
            count = counts[gold, name]
            share = metrics.ratio(count, total)
            color = matplotlib.colors.to_rgba(SECOND if name is None else ACCENT, 0.06 + 0.94 * share)
            axes.add_patch(matplotlib.patches.Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, color=color, lw=0))
            if count:
                axes.text(column, row, f"{count:,}", ha="center", va="center", color="white" if share > 0.55 else INK)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(labels) - 0.5, -0.5))
    long = len(labels) > 3
    ticks = [*labels, "unparsed"]
    axes.set_xticks(range(len(names)), ticks, rotation=40 if long else 0, ha="right" if long else "center")
    axes.set_yticks(range(len(labels)), labels)
    axes.spines[:].set_visible(False)
    axes.set_title(f"Gold (rows) against prediction, {reading}")
    return figure


def class_picture(per_class: dict, reading: str, title: str) -> Figure:
    """F1 per class as bars, the largest support first, gold count beside the label; classes without gold left out."""
    ordered = sorted(per_class.items(), key=lambda item: -item[1]["support"])
    ordered = [item for item in ordered if item[1]["support"]] or ordered[:1]
    figure, axes = _figure(4.4, 0.3 * len(ordered) + 0.9)
    for place, (_, row) in enumerate(ordered):
        axes.barh(place, 1, color=GRID, height=0.58, alpha=0.6)
        axes.barh(place, min(row["f1"], 1), color=ACCENT, height=0.58)
        inside = row["f1"] > 0.85
        axes.text(
            min(row["f1"], 1) + (-0.015 if inside else 0.015),
            place,
            f"{100 * row['f1']:.1f}",
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else INK,
        )
    axes.set_yticks(range(len(ordered)), [f"{label}  ({row['support']:,})" for label, row in ordered])
    axes.set(xlim=(0, 1), ylim=(len(ordered) - 0.5, -0.5), xticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(f"{title}, {reading} (gold count)")
    return figure


def _two_bars(axes, places: list, gold: list[float], predicted: list[float], labels: list[str]) -> None:
    axes.bar([place - 0.2 for place in places], gold, width=0.4, color=MUTED, label="gold")
    axes.bar([place + 0.2 for place in places], predicted, width=0.4, color=ACCENT, label="predicted")
    axes.set_xticks(places, labels)
    axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.legend()


def distance_picture(channel: Channel, reading: str) -> Figure:
    """Where causes stand relative to their target: 0 = the target itself, negative = earlier; shares of all pairs."""

    def shares(answers: Iterable) -> list[float]:
        found = Counter(max(-5, min(3, distance)) for answer in answers for distance in channel.task.distances(answer))
        return [metrics.ratio(found[distance], found.total()) for distance in range(-5, 4)]

    figure, axes = _figure(4.4, 2.6)
    labels = ["≤ −5", "−4", "−3", "−2", "−1", "self", "+1", "+2", "≥ +3"]
    _two_bars(axes, list(range(9)), shares(channel.golds), shares(getattr(channel, reading)), labels)
    axes.set_xlabel("lines from target to cause")
    axes.set_title(f"Distance of the cause, {reading}")
    return figure


def length_picture(channel: Channel, reading: str) -> Figure:
    """Whether answers are as long as they should be: pairs, phrases or words per answer, gold and predicted."""
    length = channel.task.length
    gold = [length(answer) for answer in channel.golds]
    predicted = [length(answer) for answer in getattr(channel, reading) if answer is not None]
    longest = max([1, *gold]) + 1
    step = max(1, -(-(longest + 1) // 10))
    last = longest // step  # the last bin also takes whatever is longer than any gold answer

    def shares(lengths: list[int]) -> list[float]:
        found = Counter(min(value // step, last) for value in lengths)
        return [metrics.ratio(found[place], len(lengths)) for place in range(last + 1)]

    labels = [str(place) if step == 1 else f"{place * step}–{place * step + step - 1}" for place in range(last + 1)]
    labels[-1] = f"≥ {last * step}"
    figure, axes = _figure(4.4, 2.6)
    _two_bars(axes, list(range(last + 1)), shares(gold), shares(predicted), labels)
    if step > 1:
        axes.tick_params(axis="x", rotation=40)
    axes.set_xlabel(f"{channel.task.unit} per answer")
    axes.set_title(f"Length of the answers, {reading}")
    return figure


def reliability_picture(calibration: dict) -> Figure:
    """Accuracy of the ranked answers by their probability, a bar per bin, darker the more answers it has; on the line
    from corner to corner the probabilities are right."""
    figure, axes = _figure(4.4, 3)
    most = max(row["n"] for row in calibration["bins"])
    for row in calibration["bins"]:
        place, width = row["above"], row["up_to"] - row["above"]
        color = matplotlib.colors.to_rgba(ACCENT, 1 - 0.8 * (1 - row["n"] / most))
        axes.bar(place, row["accuracy"], width=0.92 * width, align="edge", color=color)
        axes.text(place + width / 2, row["accuracy"] + 0.015, f"{row['n']:,}", ha="center", color=MUTED, fontsize=7)
    axes.plot([0, 1], [0, 1], color=SECOND, lw=1)
    axes.set(xlim=(0, 1), ylim=(0, 1.08), xlabel="probability of the answer (number of answers above the bars)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    axes.set_title(f"Accuracy by probability, ECE {100 * calibration['ece']:.1f}")
    return figure


def pictures(channel: Channel, block: dict) -> dict[str, tuple[str, Figure]]:
    """{file stem: (alternative text, figure)} of one channel."""
    task, reading, name = channel.task, shown_reading(channel), channel.name
    found = {}
    per_class = block["per_class"][reading]
    if isinstance(task, LabelTask) and per_class and not task.unit:
        found[f"{name}.confusion"] = (
            f"Confusion matrix of {name}",
            confusion_picture(channel, reading, list(per_class)),
        )
    member = task.member_name
    if len(task.protocols) > 1:
        for protocol, classes in per_class.items():
            text = f"F1 per {member} of {name}, {protocol}"
            title = f"F1 per {member}, {protocol}"
            found[f"{name}.{protocol}"] = text, class_picture(classes, reading, title)
    elif per_class:
        title = f"F1 per {member}"
        found[f"{name}.classes"] = f"{title} of {name}", class_picture(per_class, reading, title)
    if task.has_distances:
        found[f"{name}.distance"] = f"Distance of cause from target in {name}", distance_picture(channel, reading)
    if task.unit:
        found[f"{name}.lengths"] = f"Length of answers in {name}", length_picture(channel, reading)
    if "calibration" in block:
        found[f"{name}.calibration"] = f"Accuracy by probability in {name}", reliability_picture(block["calibration"])
    return found


# Mistakes


def worst(channel: Channel, reading: str, limit: int = WORST) -> list[tuple[int, str]]:
    """(row, why it is shown) of the worst mistakes among the parsed answers.

    One label: examples of the commonest confusions, each confusion in turn. Several parts: the most parts wrong.
    """
    predictions = getattr(channel, reading)
    wrong = [i for i, (g, p) in enumerate(zip(channel.golds, predictions, strict=True)) if p is not None and g != p]
    task = channel.task
    if task.unit:
        score = {i: task.wrongness(channel.golds[i], predictions[i]) for i in wrong}
        wrong.sort(key=lambda i: -score[i])
        return [(i, task.describe_wrongness(score[i])) for i in wrong[:limit] if score[i]]
    if isinstance(channel.golds[0], float):
        wrong.sort(key=lambda i: -abs(channel.golds[i] - predictions[i]))
        return [(i, f"off by {abs(channel.golds[i] - predictions[i]):.2f}") for i in wrong[:limit]]
    cells = defaultdict(list)
    for i in wrong:
        cells[channel.golds[i], predictions[i]].append(i)
    ordered = sorted(cells.items(), key=lambda item: -len(item[1]))
    turns = [(turn, place) for place, (_, rows) in enumerate(ordered) for turn in range(min(len(rows), limit))]
    chosen = sorted(sorted(turns)[:limit], key=lambda item: (item[1], item[0]))
    return [
        (ordered[place][1][turn], f"{len(ordered[place][1]):,} of {channel.golds.count(ordered[place][0][0]):,}")
        for turn, place in chosen
    ]


def answer_text(channel: Channel, answer: object) -> str:
    """A gold answer or prediction as the task writes it."""
    text = "unparsed" if answer is None else channel.task.shown(answer, channel.dataset) or "(empty)"
    return text if len(text) <= 600 else text[:600] + " …"


def thumbnail(media: str, height: int = 112) -> str:
    """A base64 JPEG of a picture or of a clip's middle frame; "" for what is not there or cannot be shown."""
    path = Path(media)
    if len(media) > 4096 or not path.is_file():
        return ""
    try:
        picture = read_picture(path) if path.suffix.lower() in PICTURES else sample_frames(path, 1)[0]
    except InputError:
        return ""
    return base64.b64encode(jpeg(picture, height)).decode()


def mistakes(channel: Channel, reading: str, rows: dict, folder: Path) -> list[dict]:
    """What the page in `folder` shows of each of the worst mistakes; `rows` are the result rows by place."""
    shown = []
    for index, why in worst(channel, reading):
        row, gold, prediction = rows[channel.places[index]], channel.golds[index], getattr(channel, reading)[index]
        media = media_of(row)
        clip = media[-1] if media and len(media[-1]) < 300 else ""
        response = printable(row["response"]) if isinstance(row["response"], str) else json.dumps(row["response"])
        shown.append(
            {
                "gold": answer_text(channel, gold),
                "predicted": answer_text(channel, prediction),
                "why": why,
                "clip": clip,
                "link": Path(os.path.relpath(clip, folder)).as_posix() if clip and Path(clip).is_file() else "",
                "picture": thumbnail(clip) if clip else "",
                "prompt": query_of(row).strip()[:1500] or "(the result row holds no text)",
                "response": response[:600],
            }
        )
    return shown


# The page


def overview(name: str, channel: Channel, block: dict) -> list[dict]:
    """The bars at the top: value, interval, best baseline and published figure, each in per cent."""
    bars = []
    strict = flatten(block["strict"])
    for metric, label in channel.task.headlines:
        if metric not in strict:
            continue
        baselines = {
            baseline: flatten(figures)[metric]
            for baseline, figures in block["baselines"].items()
            if metric in flatten(figures)
        }
        best = max(baselines, key=lambda name: baselines[name], default=None)
        paper = flatten(block.get("published", {}).get("figures", {})).get(metric)
        earlier = flatten(block.get("before", {}).get("strict", {})).get(metric)
        bars.append(
            {
                "label": label,
                "value": 100 * strict[metric],
                "baseline": best and (best, 100 * baselines[best]),
                "interval": [100 * end for end in flatten(block["intervals"]["strict"])[metric]]
                if "intervals" in block
                else None,
                "published": paper and 100 * paper,
                "change": None if earlier is None else 100 * (strict[metric] - earlier),
            }
        )
    return bars


def change_columns(block: dict) -> dict[str, dict[str, str]]:
    """Two more columns when there is a `before`: its strict figures, and the change in points."""
    if "before" not in block:
        return {}
    earlier, now = flatten(block["before"]["strict"]), flatten(block["strict"])
    both = [metric for metric in now if metric in earlier]
    points = {metric: (now[metric] - earlier[metric]) * scale(metric) for metric in both}
    return {
        "before": {metric: percent(metric, earlier[metric]) for metric in both},
        "change": {metric: f"{points[metric]:+.2f}" for metric in both},
    }


def write_report(folder: Path, channels: dict[str, Channel], blocks: dict[str, dict], files: Collection[Path]) -> None:
    """Write `folder`/index.html and one PNG per picture; nothing is written unless everything could be made."""
    folder, files = Path(folder), list(files)
    wanted = set()
    for channel in channels.values():
        wanted |= {channel.places[index] for index, _ in worst(channel, shown_reading(channel))}
    rows = reread(files, wanted)
    sections, images = [], {}
    tasks = [(channel.task, channel.dataset) for channel in channels.values()]
    words = "".join(word for task, name in tasks if isinstance(task, LabelTask) for word in task.classes(name))
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # a font of one weight only is no news
    with matplotlib.rc_context(STYLE | {"font.family": fonts_for(words)}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # which was said
        for name, channel in channels.items():
            block = blocks[name]
            embedded = []
            for stem, (text, figure) in pictures(channel, block).items():
                buffer = io.BytesIO()
                figure.savefig(buffer, format="png", metadata={"Software": None})
                images[f"{stem}.png"] = buffer.getvalue()
                data = base64.b64encode(buffer.getvalue()).decode("ascii")
                width, height = (round(float(inches) * 200) for inches in figure.get_size_inches())
                embedded.append({"alt": text, "src": f"data:image/png;base64,{data}", "width": width, "height": height})
            table = columns(block) | change_columns(block)
            reading = shown_reading(channel)
            sections.append(
                {
                    "name": name,
                    "task": channel.task.name,
                    "block": block,
                    "bars": overview(name, channel, block),
                    "columns": list(table),
                    "rows": [(m, [column.get(m, "") for column in table.values()]) for m in table["strict"]],
                    "pictures": embedded,
                    "reading": reading,
                    "mistakes": mistakes(channel, reading, rows, folder),
                    "by_cell": not channel.task.unit,
                    "sizes": list(channel.task.sizes(channel.keys).values()),
                    "notes": [
                        *block.get("remarks", ()),
                        *calibration_lines(block),
                        *published_lines(block.get("published", {})),
                    ],
                    "judge": judge_lines(block) if "judge" in block else [],
                }
            )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html.j2").render(sections=sections, files=[str(file) for file in files])
    for stem, picture in images.items():
        with atomic_open(folder / stem, "wb") as file:
            file.write(picture)
    with atomic_open(folder / "index.html") as file:
        file.write(page)
