"""CSV files of Action Units, of OpenFace and of the tools in configs/au_columns.yaml: read into arrays, faults named.

faces = read_faces("clip.csv")
faces.intensity[:, INTENSITIES.index("AU12")]        # one value for every row that can be trusted
"""

from __future__ import annotations

import csv as csv_module
import functools
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from swift_plugins.files import CONFIGS, Config, InputError, read_config

AU_COLUMNS = CONFIGS / "au_columns.yaml"

# The AUs with an intensity column AUxx_r; those with a presence column AUxx_c are these and AU28.
INTENSITIES = tuple(f"AU{number:02}" for number in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45))
PRESENCES = (*INTENSITIES[:-1], "AU28", "AU45")
BLINK = "AU45"
CORNERS = [f"{axis}_{point}" for axis in "xy" for point in range(68)]  # the landmarks, in pixels


class OpenFaceError(InputError):
    """A clip or CSV that gives no Action Units; `kind` is the short key that is counted in reports.

    no_face, not_a_video, no_frames, models_missing, missing_au_column, partial_csv, bad_csv, crash, timeout; of what
    comes after: no_clip, missing_clip, no_csv, other_clip, no_landmarks, no_peak_image.
    """

    def __init__(self, kind: str, reason: str, file: str | os.PathLike | None = None, row: int | None = None):
        super().__init__(reason, file, row)
        self.kind = kind


class AuTool(Config):
    """What a tool calls its columns, the top of its intensity scale, and from where on an AU counts as present."""

    frame: str
    first_frame: int
    intensity: str
    presence: str | None = None
    confidence: str | None = None
    maximum: float
    threshold: float | None = None  # None: the FACS table's, which is on OpenFace's scale


class AuColumns(Config):
    """configs/au_columns.yaml: tools by name."""

    tools: dict[str, AuTool]


OPENFACE = AuTool(
    frame="frame", first_frame=1, intensity="AU{au:02}_r", presence="AU{au:02}_c", confidence="confidence", maximum=5
)


@dataclass(frozen=True)
class Faces:
    """The rows of a CSV that can be trusted (success 1, confidence high enough), in file order.

    frame: int64 [n], numbered as in the file. index: int64 [n], the same counted from 0 over the decoded frames.
    face_id: int64 [n], OpenFace's tracker slot: it is reused, so it tells people apart within a frame only.
    intensity: float64 [n, 17] in the order of INTENSITIES, 0 to `tool.maximum`. presence: float64 [n, 18] in that of
    PRESENCES, 0 or 1. A column that the file lacks is all NaN and named in `missing`.
    box: float64 [n, 4], left, top, right, bottom of the face's landmarks in pixels, or None without landmarks.
    rows, last: number of data rows in the file and their highest index, kept or not. every_frame: the rows are frames
    1, 2, … of one face, as FeatureExtraction writes them, which leaves no frame out. tool: who wrote the file.
    """

    frame: np.ndarray
    index: np.ndarray
    face_id: np.ndarray
    intensity: np.ndarray
    presence: np.ndarray
    missing: frozenset[str]
    box: np.ndarray | None
    rows: int
    last: int = 0
    every_frame: bool = False
    tool: AuTool = OPENFACE

    @property
    def unknown(self) -> frozenset[str]:
        """Those of `missing` that the tool has no model for. OpenFace has one for every column."""
        if self.tool is not OPENFACE:
            return self.missing
        # Tools with OpenFace's names that write intensities alone cannot tell AU28.
        return frozenset({"AU28_c"}) if self.missing.issuperset(f"{au}_c" for au in PRESENCES) else frozenset()

    def require(self, columns: Collection[str], file: str | os.PathLike | None = None) -> None:
        """Raise `OpenFaceError` ("missing_au_column") naming those of `columns` that the file lacks."""
        lacking = [column for column in columns if column in self.missing]
        if lacking:
            plural = "s" if len(lacking) > 1 else ""
            raise OpenFaceError(
                "missing_au_column", f"column{plural} {', '.join(lacking)} missing (an AU model was not loaded)", file
            )


def read_faces(path: str | os.PathLike, confidence: float = 0.8, boxes: bool = False) -> Faces:
    """Read the AUs of one CSV file: only the columns needed, only rows with success 1 and this confidence.

    Takes OpenFace's header styles ("," and ", "), single-face and multi-face files, files of images without a frame
    column, files of other tools with OpenFace's column names, and those of the tools in configs/au_columns.yaml. Where
    a tool writes no success or confidence, every row counts. Rows with an AU that is not a number are not kept.

    Raises `OpenFaceError`: "partial_csv" for a file that is empty, cut, or holds raw negative intensities (OpenFace
    was stopped before its last pass), "bad_csv" for anything else that is not such a table.
    """
    names, lines = _read_lines(path)
    tool, intensity, presence = _find_tool(names, path)
    units = [name for name in (*intensity.values(), *presence.values()) if name in names]
    if tool.frame not in names and "face" not in names:
        raise OpenFaceError("bad_csv", "has no frame column", path, 1)
    if not any(line.strip() for line in lines):
        raise OpenFaceError("partial_csv", "holds no data row", path)
    wanted = [tool.frame, "face_id", "face", tool.confidence, "success", *units, *(CORNERS if boxes else ())]
    columns = _columns(lines, names, [name for name in wanted if name in names], path)
    rows = len(columns[units[0]])

    def column(name: str | None, default: float) -> np.ndarray:
        return columns.get(name, np.full(rows, default))

    frame = _whole_numbers("frame", column(tool.frame, 1.0), path)
    face = columns.get("face_id", columns.get("face"))
    face = _running_number(frame) if face is None else _whole_numbers("face_id", face, path)
    strength = np.column_stack([column(name, np.nan) for name in intensity.values()])
    if tool is OPENFACE and len(negative := np.flatnonzero((strength < 0).any(1))):
        reason = "holds negative intensities: OpenFace was stopped early"
        raise OpenFaceError("partial_csv", reason, path, int(negative[0]) + 2)
    usable = np.isfinite(np.column_stack([columns[name] for name in units])).all(1)
    keep = (column("success", 1.0) == 1) & (column(tool.confidence, 1.0) >= confidence) & usable
    index = frame - (0 if frame.min() == 0 else tool.first_frame)
    return Faces(
        frame=frame[keep],
        index=index[keep],
        face_id=face[keep],
        intensity=strength[keep],
        presence=np.column_stack([column(name, np.nan) for name in presence.values()])[keep],
        missing=frozenset(
            f"{au}_{kind}"
            for kind, table in (("r", intensity), ("c", presence))
            for au, name in table.items()
            if name not in names
        ),
        box=_boxes(columns, keep) if boxes else None,
        rows=rows,
        last=int(index.max()),
        every_frame="timestamp" in names and not face.any() and np.array_equal(frame, np.arange(1, rows + 1)),
        tool=tool,
    )


def _find_tool(names: list[str], path: str | os.PathLike) -> tuple[AuTool, dict[str, str], dict[str, str | None]]:
    """Who wrote a table of these columns, and what it calls each AU's intensity and presence."""
    for tool in _tools():
        intensity = {au: tool.intensity.format(au=int(au[2:])) for au in INTENSITIES}
        if any(name in names for name in intensity.values()):
            presence = {au: tool.presence and tool.presence.format(au=int(au[2:])) for au in PRESENCES}
            return tool, intensity, presence
    raise OpenFaceError("bad_csv", "has no AU columns (AU01_r, …): not a CSV of OpenFace", path, 1)


def _tools() -> Iterator[AuTool]:
    yield OPENFACE
    yield from _other_tools()  # read only where OpenFace's names are missing


@functools.cache
def _other_tools() -> tuple[AuTool, ...]:
    return tuple(read_config(AU_COLUMNS, AuColumns).tools.values())


def _read_lines(path: str | os.PathLike) -> tuple[list[str], list[bytes]]:
    """The names of the columns, and the lines below them as they are."""
    try:
        with open(path, "rb", buffering=1 << 16) as file:
            header, lines = file.readline(), file.readlines()
        names = next(csv_module.reader([header.decode("utf-8-sig", "replace").rstrip("\r\n")]), [])
    except OSError as error:
        raise OpenFaceError("bad_csv", f"cannot be read ({error.strerror or error})", path) from None
    except csv_module.Error as error:
        raise OpenFaceError("bad_csv", f"is not CSV ({error})", path) from None
    if not header.strip() and not lines:
        raise OpenFaceError("partial_csv", "is empty", path)
    if not (lines or [header])[-1].endswith(b"\n") and not _is_whole(lines, len(names)):
        raise OpenFaceError("partial_csv", "is cut in its last line", path, len(lines) + 1)
    return [name.strip() for name in names], lines


def _is_whole(lines: list[bytes], cells: int) -> bool:
    """Whether a last line without an end (some editors write none) has every cell, the last with all its decimals."""

    def decimals(line: bytes) -> int:
        return len(line.rstrip().rpartition(b",")[2].partition(b".")[2])

    if len(lines) < 2 or len(next(csv_module.reader([lines[-1].decode("utf-8", "replace")]))) != cells:
        return False
    return bool(lines[-1].rpartition(b",")[2].strip()) and decimals(lines[-1]) >= min(map(decimals, lines[:-1]))


def _columns(lines: list[bytes], names: list[str], wanted: list[str], path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The columns `wanted` of a table with the columns `names`, as float64; NaN for what is empty or says so.

    NumPy's parser and not pandas.read_csv(usecols=…): that takes 1.9 to 2.7 times as long as all of `read_faces` on
    real files of 70 to 170 rows, which clips mostly are (1.3 times on 714 columns, 0.9 on 2,100 rows; measured by
    benchmarks/data_prep.py), and names neither the cell nor the line that is wrong.
    """
    places = [names.index(name) for name in wanted]
    try:
        if any(line.count(b",") != len(names) - 1 for line in lines):
            raise ValueError  # quotes, blank lines or lines of another length
        table = np.loadtxt(lines, delimiter=",", comments=None, encoding="latin1", ndmin=2, usecols=places)
    except ValueError:
        table = np.array(list(_careful_rows(lines, names, places, path)))
    return dict(zip(wanted, table.T, strict=True))


def _careful_rows(
    lines: list[bytes], names: list[str], places: list[int], path: str | os.PathLike
) -> Iterator[list[float]]:
    """The cells at `places` of each row of a table with quotes, text or gaps; names the line that is wrong."""
    reader = csv_module.reader(line.decode("utf-8", "replace") for line in lines)
    try:
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(names):
                reason = f"has {len(cells)} cells where {len(names)} are expected"
                raise OpenFaceError("bad_csv", reason, path, reader.line_num + 1)
            yield [_number(cells[place], names[place], path, reader.line_num + 1) for place in places]
    except csv_module.Error as error:
        raise OpenFaceError("bad_csv", f"is not a CSV ({error})", path, reader.line_num + 1) from None


def _number(cell: str, name: str, path: str | os.PathLike, line: int) -> float:
    cell = cell.strip()
    if not cell or cell.lstrip("-").lower() in ("nan(ind)", "na", "null", "none"):
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        raise OpenFaceError("bad_csv", f"{name} is {cell[:40]!r}, not a number", path, line) from None


def _whole_numbers(name: str, values: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """The column as int64."""
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0) & (values == np.rint(values))))
    if len(wrong):
        raise OpenFaceError("bad_csv", f"{name} is not a whole number", path, int(wrong[0]) + 2)
    return values.astype(np.int64)


def _running_number(frame: np.ndarray) -> np.ndarray:
    """0, 1, … over the rows of the same frame, in file order: faces of a tool that does not number them."""
    order = np.argsort(frame, kind="stable")
    ordered = frame[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    number = np.empty(len(frame), dtype=np.int64)
    number[order] = np.arange(len(frame)) - np.repeat(starts, np.diff(np.r_[starts, len(frame)]))
    return number


def _boxes(columns: dict[str, np.ndarray], keep: np.ndarray) -> np.ndarray | None:
    """Left, top, right, bottom of the landmarks of each kept row; None for a file without landmarks."""
    if not all(name in columns for name in CORNERS):
        return None
    if not keep.any():
        return np.zeros((0, 4))
    x, y = (np.column_stack([columns[name] for name in CORNERS[part : part + 68]])[keep] for part in (0, 68))
    return np.column_stack([x.min(1), y.min(1), x.max(1), y.max(1)])
