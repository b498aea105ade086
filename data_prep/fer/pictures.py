"""Pictures for looking at FER data: one clip's Action Units over time, and pages of peak frames by emotion.

python -m data_prep.fer … --resume --plot mosei/train/VIDEO/CLIP --contact-sheet
python -m data_prep.peak_frame CSV --video CLIP --plot plot.png
"""

from __future__ import annotations

import collections
import os
import random
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image, ImageDraw, ImageFont

from data_prep.fer.au_table import BLINK, INTENSITIES, Faces
from data_prep.fer.facs import EXPRESSIVE, Facs, active_aus
from data_prep.fer.peaks import MILLIONTHS, Peak, frame_scores
from swift_plugins.files import atomic_open

ACCENT, PLAIN, MARK = "#d1495b", "#9aa5b1", "#1b1b1e"
THUMB, MARGIN, COLUMNS, ROWS = 200, 14, 6, 5  # of a contact sheet; sides in pixels


def plot_clip(
    path: str | os.PathLike,
    faces: Faces,
    peak: Peak,
    aus: Sequence[str],
    facs: Facs,
    *,
    title: str,
    image: Image.Image | None = None,
    label: str | None = None,
    caption: str | None = None,
) -> None:
    """Draw one clip: each person's score and the AUs of the peak's person over time, the peak frame and its AU bars.

    `aus` are those that the score sums; AU45 (blink) is shown where it is one of them. `image` is the peak frame as
    `peak_image` makes it. AUs of the label's emotion are in colour; the dashed line is the presence threshold.
    """
    shown = [au for au in INTENSITIES if au != BLINK or BLINK in aus]
    members = set((facs.au_set(label) if label else None) or ())
    colours = [ACCENT if au in members else PLAIN for au in shown]
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[2.6, 1], height_ratios=[1, 1.55])
    over_time = figure.add_subplot(grid[0, 0])
    heat = figure.add_subplot(grid[1, 0], sharex=over_time)
    picture = figure.add_subplot(grid[0, 1])
    bars = figure.add_subplot(grid[1, 1], sharey=heat)

    _plot_scores(over_time, faces, peak, aus)
    names = [f"{facs.aus[au].name if au in facs.aus else ''}  {au}" for au in shown]
    colour_scale = _plot_intensities(heat, faces, peak, shown)
    heat.set_yticks(range(len(shown)), names)
    for tick, colour in zip(heat.get_yticklabels(), colours, strict=True):
        if colour == ACCENT:
            tick.set(color=ACCENT, fontweight="bold")
    figure.colorbar(colour_scale, ax=heat, label="intensity", pad=0.01, fraction=0.03)
    _plot_bars(bars, faces, peak, shown, colours)
    if facs.presence.column == "r":
        threshold = facs.presence.threshold if faces.tool.threshold is None else faces.tool.threshold
        bars.axvline(threshold, color=MARK, linewidth=1, linestyle=(0, (2, 2)))

    picture.set_axis_off()
    if image is not None:
        picture.imshow(_true_proportions(image))
    active = ", ".join(active_aus(faces, peak.row, facs, {*EXPRESSIVE, *aus})) or "none"
    heading = title if label is None else f"{title}   {label}"
    figure.suptitle(heading, x=0.01, ha="left", fontweight="bold", fontsize=13)
    said = textwrap.fill(f"caption: {caption}" if caption else f"present at the peak: {active}", 150)
    figure.supxlabel(said, x=0.01, ha="left", fontsize=10)
    with atomic_open(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


def _plot_scores(axis: Axes, faces: Faces, peak: Peak, aus: Sequence[str]) -> None:
    """The score of equation 1 over time, a line for each person, and the peak."""
    scores = frame_scores(faces, aus) / MILLIONTHS
    people = np.unique(faces.face_id)
    for face in people:
        frames, line = _unbroken(faces.frame[faces.face_id == face], scores[faces.face_id == face])
        ours = face == peak.face_id
        style = {"color": ACCENT, "linewidth": 1.6, "zorder": 3} if ours else {"color": PLAIN, "linewidth": 1}
        axis.plot(frames, line, label=f"face {face}", **style)
    axis.plot([peak.frame], [peak.score], "o", color=MARK, markersize=7, zorder=4)
    near_end = peak.frame > (faces.frame.min() + faces.frame.max()) / 2
    axis.annotate(
        f"peak: frame {peak.frame}, score {peak.score:g}",
        (peak.frame, peak.score),
        xytext=(-9 if near_end else 9, 7),
        textcoords="offset points",
        ha="right" if near_end else "left",
        fontweight="bold",
    )
    axis.axvline(peak.frame, color=MARK, linewidth=1, linestyle=(0, (4, 3)), zorder=1.5)
    axis.set_ylabel(f"sum of {len(aus)} AU intensities")
    axis.set_ylim(0, max(peak.score, scores.max()) * 1.2 + 0.05)
    axis.tick_params(labelbottom=False)
    axis.spines[["top", "right"]].set_visible(False)
    if len(people) > 1:
        axis.legend(loc="upper center", ncols=len(people), frameon=False, bbox_to_anchor=(0.5, 1.14))


def _plot_intensities(axis: Axes, faces: Faces, peak: Peak, shown: Sequence[str]) -> AxesImage:
    """The intensities of the peak's person: a row for each AU, a column for each frame, grey without a face."""
    ours = faces.face_id == peak.face_id
    first, last = int(faces.frame.min()), int(faces.frame.max())
    table = np.full((len(shown), last - first + 1), np.nan)
    table[:, faces.frame[ours] - first] = faces.intensity[ours][:, [INTENSITIES.index(au) for au in shown]].T
    axis.set_facecolor("#dddddd")
    axis.axvline(peak.frame, color=MARK, linewidth=1, linestyle=(0, (4, 3)), zorder=1.5)
    axis.set_xlabel(f"frame, as numbered in the CSV; AUs of face {peak.face_id}, grey: no face to trust")
    return axis.imshow(
        np.ma.masked_invalid(table),
        aspect="auto",
        interpolation="nearest",
        cmap="OrRd",
        vmin=0,
        vmax=faces.tool.maximum,
        extent=(first - 0.5, last + 0.5, len(shown) - 0.5, -0.5),
    )


def _plot_bars(axis: Axes, faces: Faces, peak: Peak, shown: Sequence[str], colours: Sequence[str]) -> None:
    """The intensities at the peak."""
    strength = np.nan_to_num(faces.intensity[peak.row][[INTENSITIES.index(au) for au in shown]])
    axis.barh(range(len(shown)), strength, color=colours)
    for place, value in enumerate(strength):
        if value > 0:
            axis.text(value + faces.tool.maximum / 80, place, f"{value:.2f}", va="center", fontsize=8)
    axis.set_xlim(0, faces.tool.maximum)
    axis.tick_params(labelleft=False)
    axis.set_xlabel("intensity at the peak")
    axis.spines[["top", "right"]].set_visible(False)


def contact_sheets(folder: Path, records: Iterable[dict], root: Path, seed: int = 0) -> Iterator[Path]:
    """Write a page of peak frames for each emotion of `records` to `folder`; yields the paths.

    An emotion with more clips than a page holds shows a seeded sample of them, ordered by score; the person whose
    peak it is has a frame where the tables held landmarks. `root` is the folder that a record's image is relative to.
    """
    by_emotion: dict[str, list[dict]] = collections.defaultdict(list)
    for record in records:
        by_emotion[record["emotion"] or "no label"].append(record)
    for emotion in sorted(by_emotion):
        found = by_emotion[emotion]
        chosen = random.Random(seed).sample(found, min(len(found), COLUMNS * ROWS))
        chosen.sort(key=lambda record: -record["score"])
        path = folder / f"{re.sub(r'[^0-9A-Za-z]+', '_', emotion)[:60]}.png"
        heading = f"{emotion}: {len(chosen)} of {len(found)} clips, highest score first"
        with atomic_open(path, "wb") as file:
            _sheet(heading, chosen, root).save(file, "PNG")
        yield path


def _sheet(heading: str, records: list[dict], root: Path) -> Image.Image:
    title, name, small = (ImageFont.load_default(size) for size in (24, 13, 12))
    text_height = 92
    columns = min(COLUMNS, max(len(records), 3))
    rows = -(-len(records) // columns)
    width = MARGIN + columns * (THUMB + MARGIN)
    page = Image.new("RGB", (width, 56 + rows * (THUMB + text_height + MARGIN)), "white")
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 14), heading, font=title, fill=MARK)
    for place, record in enumerate(records):
        x = MARGIN + (place % columns) * (THUMB + MARGIN)
        y = 56 + (place // columns) * (THUMB + text_height + MARGIN)
        draw.rectangle((x, y, x + THUMB - 1, y + THUMB - 1), fill="#eef0f2")
        with Image.open(root / record["image"]) as image:
            picture = _true_proportions(image.convert("RGB") if "dpi" not in image.info else image)
        picture.thumbnail((THUMB, THUMB))
        if face := record.get("face"):
            corners = [part * side for part, side in zip(face, picture.size * 2, strict=True)]
            ImageDraw.Draw(picture).rectangle(corners, outline=ACCENT, width=2)
        page.paste(picture, (x + (THUMB - picture.width) // 2, y + (THUMB - picture.height) // 2))
        label = record["id"].partition("/")[2]
        while draw.textlength(label, name) > THUMB:
            label = "…" + label.lstrip("…")[1:]
        draw.text((x, y + THUMB + 3), label, font=name, fill=MARK)
        draw.text(
            (x, y + THUMB + 19), f"frame {record['frame']}, score {record['score']:g}", font=small, fill="#5c6670"
        )
        lines = textwrap.wrap(record["caption"] or "(no caption)", 31)
        if len(lines) > 4:
            lines = [*lines[:3], lines[3][:30].rstrip("; ") + "…"]
        draw.text(
            (x, y + THUMB + 35), "\n".join(lines), font=small, fill=ACCENT if record["caption"] else PLAIN, spacing=1
        )
    return page


def _true_proportions(image: Image.Image) -> Image.Image:
    """Undo the scaling of a peak image to a square, as its resolution tells."""
    across, down = image.info.get("dpi", (1, 1))
    image = image.convert("RGB")
    if across < down:  # squeezed sideways: fewer pixels to the inch
        return image.resize((image.width, round(image.height * across / down)))
    return image.resize((round(image.width * down / across), image.height))


def _unbroken(frames: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The line with a gap (NaN) wherever frames are missing in between."""
    gaps = np.flatnonzero(np.diff(frames) > 1) + 1
    return np.insert(frames.astype(float), gaps, np.nan), np.insert(values, gaps, np.nan)
