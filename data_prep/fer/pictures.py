"""Pictures for looking at FER data: one clip's Action Units over time, and pages of peak frames by emotion.

python -m data_prep.fer … --resume --plot mosei/train/VIDEO/CLIP --contact-sheet
python -m data_prep.peak_frame CSV --video CLIP --plot plot.png
"""

from __future__ import annotations

import collections
import os
import random
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from data_prep.fer.au_table import INTENSITIES, Faces
from data_prep.fer.facs import Facs, active_aus
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

    `aus` are those that the score sums. `image` is the peak frame as `data_prep.peak_frame.peak_image` makes it.
    AUs of the label's emotion are in colour; the dashed line is the presence threshold.
    """
    members = set((facs.au_set(label) if label else None) or ())
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[2.6, 1], height_ratios=[1, 1.55])
    over_time = figure.add_subplot(grid[0, 0])
    heat = figure.add_subplot(grid[1, 0], sharex=over_time)
    picture = figure.add_subplot(grid[0, 1])
    bars = figure.add_subplot(grid[1, 1], sharey=heat)

    scores = frame_scores(faces, aus) / MILLIONTHS
    people = np.unique(faces.face_id)
    for face in people:
        frames, line = _unbroken(faces.frame[faces.face_id == face], scores[faces.face_id == face])
        ours = face == peak.face_id
        over_time.plot(
            frames,
            line,
            color=ACCENT if ours else PLAIN,
            linewidth=1.6 if ours else 1,
            label=f"face {face}",
            zorder=3 if ours else 2,
        )
    over_time.plot([peak.frame], [peak.score], "o", color=MARK, markersize=7, zorder=4)
    near_end = peak.frame > (faces.frame.min() + faces.frame.max()) / 2
    over_time.annotate(
        f"peak: frame {peak.frame}, score {peak.score:g}",
        (peak.frame, peak.score),
        xytext=(-9 if near_end else 9, 7),
        textcoords="offset points",
        ha="right" if near_end else "left",
        fontweight="bold",
    )
    over_time.set_ylabel(f"sum of {len(aus)} AU intensities")
    over_time.set_ylim(0, max(peak.score, scores.max()) * 1.2 + 0.05)
    over_time.tick_params(labelbottom=False)
    over_time.spines[["top", "right"]].set_visible(False)
    if len(people) > 1:
        over_time.legend(loc="upper center", ncols=len(people), frameon=False, bbox_to_anchor=(0.5, 1.14))

    ours = faces.face_id == peak.face_id
    first, last = int(faces.frame.min()), int(faces.frame.max())
    table = np.full((len(INTENSITIES), last - first + 1), np.nan)
    table[:, faces.frame[ours] - first] = faces.intensity[ours].T
    shown = heat.imshow(
        np.ma.masked_invalid(table),
        aspect="auto",
        interpolation="nearest",
        cmap="OrRd",
        vmin=0,
        vmax=5,
        extent=(first - 0.5, last + 0.5, len(INTENSITIES) - 0.5, -0.5),
    )
    heat.set_facecolor("#dddddd")
    for axis in (over_time, heat):
        axis.axvline(peak.frame, color=MARK, linewidth=1, linestyle=(0, (4, 3)), zorder=1.5)
    heat.set_xlabel(f"frame, as numbered in the CSV; AUs of face {peak.face_id}, grey: no face to trust")
    heat.set_yticks(
        range(len(INTENSITIES)), [f"{facs.aus[au].name if au in facs.aus else ''}  {au}" for au in INTENSITIES]
    )
    for tick, au in zip(heat.get_yticklabels(), INTENSITIES, strict=True):
        if au in members:
            tick.set(color=ACCENT, fontweight="bold")
    figure.colorbar(shown, ax=heat, label="intensity", pad=0.01, fraction=0.03)

    strength = np.nan_to_num(faces.intensity[peak.row])
    bars.barh(range(len(INTENSITIES)), strength, color=[ACCENT if au in members else PLAIN for au in INTENSITIES])
    for place, value in enumerate(strength):
        if value > 0:
            bars.text(value + 0.06, place, f"{value:.2f}", va="center", fontsize=8)
    if facs.presence.column == "r":
        bars.axvline(facs.presence.threshold, color=MARK, linewidth=1, linestyle=(0, (2, 2)))
    bars.set_xlim(0, 5)
    bars.tick_params(labelleft=False)
    bars.set_xlabel("intensity at the peak")
    bars.spines[["top", "right"]].set_visible(False)

    picture.set_axis_off()
    if image is not None:
        picture.imshow(_true_proportions(image))
    active = ", ".join(active_aus(faces, peak.row, facs)) or "none"
    heading = title if label is None else f"{title}   {label}"
    figure.suptitle(heading, x=0.01, ha="left", fontweight="bold", fontsize=13)
    said = textwrap.fill(f"caption: {caption}" if caption else f"present at the peak: {active}", 150)
    figure.supxlabel(said, x=0.01, ha="left", fontsize=10)
    with atomic_open(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


def contact_sheets(folder: Path, records: Iterable[dict], root: Path, seed: int = 0) -> Iterator[Path]:
    """Write a page of peak frames for each emotion of `records` to `folder`; yields the paths.

    An emotion with more clips than a page holds shows a seeded sample of them, ordered by score. `root` is the folder
    that a record's image is relative to.
    """
    by_emotion: dict[str, list[dict]] = collections.defaultdict(list)
    for record in records:
        by_emotion[record["emotion"] or "no label"].append(record)
    for emotion in sorted(by_emotion):
        found = by_emotion[emotion]
        chosen = random.Random(seed).sample(found, min(len(found), COLUMNS * ROWS))
        chosen.sort(key=lambda record: -record["score"])
        path = folder / f"{emotion.replace(' ', '_')}.png"
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
