"""OpenFace 2.x: call the user's own programs on a clip, and read the CSV files that they (or others) wrote.

    python -m data_prep.fer --openface DIR …     # calls the programs, one process per clip and core
    python -m data_prep.fer --csv DIR …          # reads CSV files that exist already

OpenFace is licensed for academic, non-commercial use and is not part of this project: it is called, never copied.
Its exit status says little (a clip that does not open ends with 0), so a run counts as done only when the status is
0, the CSV is whole, and FeatureExtraction says that it has postprocessed its Action Units.
"""

from __future__ import annotations

import csv as csv_module
import os
import signal
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from swift_plugins.files import InputError

# The AUs with an intensity column AUxx_r; those with a presence column AUxx_c are these and AU28.
INTENSITIES = tuple(f"AU{number:02}" for number in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45))
PRESENCES = (*INTENSITIES[:-1], "AU28", "AU45")
BLINK = "AU45"
# FaceLandmarkVidMulti keeps this many trackers; FeatureExtraction follows one face.
PROGRAMS = {False: "FeatureExtraction", True: "FaceLandmarkVidMulti"}
POSTPROCESSED = "Postprocessing the Action Unit predictions"
# Endings that a second try may cure. A clip without a face and a missing model stay what they are.
RETRIED = ("crash", "timeout", "partial_csv")


class OpenFaceError(InputError):
    """A clip or CSV that gives no Action Units; `kind` is the short key that is counted in reports.

    no_face, not_a_video, no_frames, models_missing, missing_au_column, partial_csv, bad_csv, crash, timeout.
    """

    def __init__(self, kind: str, reason: str, file: str | os.PathLike | None = None, row: int | None = None):
        super().__init__(reason, file, row)
        self.kind = kind


@dataclass(frozen=True)
class Faces:
    """The rows of a CSV that can be trusted (success 1, confidence high enough), in file order.

    frame: int64 [n], numbered as in the file. index: int64 [n], the same counted from 0 over the decoded frames.
    face_id: int64 [n], OpenFace's tracker slot: it is reused, so it tells people apart within a frame only.
    intensity: float64 [n, 17] in the order of INTENSITIES, 0 to 5. presence: float64 [n, 18] in that of PRESENCES,
    0 or 1. A column that the file lacks is all NaN and named in `missing`.
    box: float64 [n, 4], left, top, right, bottom of the face's landmarks in pixels, or None without landmarks.
    rows: data rows in the file, kept or not.
    """

    frame: np.ndarray
    index: np.ndarray
    face_id: np.ndarray
    intensity: np.ndarray
    presence: np.ndarray
    missing: frozenset[str]
    box: np.ndarray | None
    rows: int

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
    column, and files of other tools with OpenFace's column names; py-feat's own names (AU01, FaceScore) as well. Where
    a tool writes no success or confidence, every row counts. Rows with an AU that is not a number are not kept.

    Raises `OpenFaceError`: "partial_csv" for a file that is empty, cut, or holds raw negative intensities (OpenFace
    was stopped before its last pass), "bad_csv" for anything else that is not such a table.
    """
    corners = [f"{axis}_{point}" for axis in "xy" for point in range(68)] if boxes else []
    try:
        with open(path, "rb", buffering=1 << 16) as file:
            header = file.readline()
            names = next(csv_module.reader([header.decode("utf-8-sig", "replace").rstrip("\r\n")]), [])
            names = [name.strip() for name in names]
            bare = not any(f"{au}_r" in names for au in INTENSITIES)  # py-feat: AU01 where OpenFace says AU01_r
            intensity = {au: au if bare else f"{au}_r" for au in INTENSITIES}
            presence = {au: f"{au}_c" for au in PRESENCES}
            wanted = {"frame", "face_id", "face", "confidence", "FaceScore", "success", *corners}
            wanted |= {*intensity.values(), *presence.values()}
            wanted = [name for name in dict.fromkeys(names) if name in wanted]
            lines, names = _read_lines(file, names, wanted)
    except OSError as error:
        raise OpenFaceError("bad_csv", f"cannot be read ({error.strerror or error})", path) from None
    except csv_module.Error as error:
        raise OpenFaceError("bad_csv", f"is not CSV ({error})", path) from None
    if not header.strip() and not lines:
        raise OpenFaceError("partial_csv", "is empty", path)
    if not (lines or [header])[-1].endswith(b"\n"):  # OpenFace and every CSV library end the last line
        raise OpenFaceError("partial_csv", "is cut in its last line", path, len(lines) + 1)
    if not any(name in wanted for name in intensity.values()):
        raise OpenFaceError("bad_csv", "has no AU columns (AU01_r, …): not a CSV of OpenFace", path, 1)
    if "frame" not in wanted and "face" not in wanted:
        raise OpenFaceError("bad_csv", "has no frame column", path, 1)
    if not any(line.strip() for line in lines):
        raise OpenFaceError("partial_csv", "holds no data row", path)

    columns = _columns(lines, names, wanted, path)
    rows = len(next(iter(columns.values())))

    def column(name: str, default: float) -> np.ndarray:
        return columns.get(name, np.full(rows, default))

    frame = column("frame", 1.0)
    face = columns.get("face_id", columns.get("face"))
    if face is None:
        face = _running_number(frame)
    score = columns.get("confidence", column("FaceScore", 1.0))
    success = column("success", 1.0)
    for name, values in (("frame", frame), ("face_id", face)):
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0) & (values == np.rint(values))))
        if len(wrong):
            raise OpenFaceError("bad_csv", f"{name} is not a whole number", path, int(wrong[0]) + 2)
    strength = np.column_stack([column(name, np.nan) for name in intensity.values()])
    negative = np.flatnonzero((strength < 0).any(1))
    if len(negative):
        raise OpenFaceError(
            "partial_csv", "holds negative intensities: OpenFace was stopped early", path, int(negative[0]) + 2
        )
    active = np.column_stack([column(name, np.nan) for name in presence.values()])
    present = [name for name in (*intensity.values(), *presence.values()) if name in columns]
    usable = np.isfinite(np.column_stack([columns[name] for name in present])).all(1)
    keep = (success == 1) & (score >= confidence) & usable

    box = None
    if boxes and all(name in columns for name in corners):
        x, y = (np.column_stack([columns[name] for name in corners[part : part + 68]])[keep] for part in (0, 68))
        box = np.column_stack([x.min(1), y.min(1), x.max(1), y.max(1)]) if keep.any() else np.zeros((0, 4))
    from_zero = "FaceScore" in columns or frame.min() == 0  # OpenFace counts frames from 1, py-feat from 0
    return Faces(
        frame=frame[keep].astype(np.int64),
        index=(frame[keep] - (0 if from_zero else 1)).astype(np.int64),
        face_id=face[keep].astype(np.int64),
        intensity=strength[keep],
        presence=active[keep],
        missing=frozenset(
            f"{au}_{kind}"
            for kind, table in (("r", intensity), ("c", presence))
            for au, name in table.items()
            if name not in columns
        ),
        box=box,
        rows=rows,
    )


def _columns(lines: list[bytes], names: list[str], wanted: list[str], path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The columns `wanted` of a table with the columns `names`, as float64; NaN for what is empty or says so."""
    place = {name: n for n, name in reversed(list(enumerate(names)))}
    try:
        table = np.loadtxt(lines, delimiter=",", comments=None, encoding="latin1", ndmin=2)
        if table.shape[1] != len(names):
            raise ValueError
    except ValueError:
        columns = zip(*_careful_rows(lines, names, [place[name] for name in wanted], path), strict=True)
        return {name: np.array(column) for name, column in zip(wanted, columns, strict=True)}
    return {name: table[:, place[name]] for name in wanted}


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


def _read_lines(file: BinaryIO, names: list[str], wanted: list[str]) -> tuple[list[bytes], list[str]]:
    """The remaining lines of the table, and the names of its columns; of a wide one without most of what is unwanted.

    Gaze and landmarks are hundreds of columns between the first five and the AUs: that gap is cut out line by line, so
    that nobody parses it. A table that is not plain (quotes, lines of another length) is read as it is: the parser
    says what is wrong with it.
    """
    if len(wanted) < 2 or len(names) <= 2 * len(wanted):
        return file.readlines(), names
    place = {name: n for n, name in reversed(list(enumerate(names)))}
    gap = max(range(1, len(wanted)), key=lambda i: place[wanted[i]] - place[wanted[i - 1]])
    left, right = place[wanted[gap - 1]] + 1, len(names) - place[wanted[gap]]
    start, commas, lines = file.tell(), len(names) - 1, []
    for line in file:
        if line.count(b",") != commas or b'"' in line:
            file.seek(start)
            return file.readlines(), names
        lines.append(b",".join(line.split(b",", left)[:left] + line.rsplit(b",", right)[-right:]))
    return lines, names[:left] + names[-right:]


def _running_number(frame: np.ndarray) -> np.ndarray:
    """0, 1, … over the rows of the same frame, in file order: faces of a tool that does not number them."""
    order = np.argsort(frame, kind="stable")
    ordered = frame[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    number = np.empty(len(frame))
    number[order] = np.arange(len(frame)) - np.repeat(starts, np.diff(np.r_[starts, len(frame)]))
    return number


def find_program(openface: str | os.PathLike, several: bool = False) -> Path:
    """Absolute path of FeatureExtraction (or of FaceLandmarkVidMulti for `several` people) under `openface`.

    Absolute because OpenFace looks for its models next to the name it was called by. Raises `InputError`.
    """
    name = PROGRAMS[several]
    root = Path(openface).expanduser()
    if not root.is_dir():
        raise InputError("no such folder (--openface or OPENFACE_DIR names the one that holds the programs)", root)
    for folder in (root, root / "bin", root / "build" / "bin"):
        program = folder / name
        if program.is_file():
            if not os.access(program, os.X_OK):
                raise InputError("is not executable", program)
            return program.absolute()
    raise InputError(f"holds no {name}, nor do its bin and build/bin", root)


def extract(
    video: str | os.PathLike,
    csv: str | os.PathLike,
    program: Path,
    scratch: str | os.PathLike,
    *,
    flags: Sequence[str] = (),
    timeout: float = 600.0,
    confidence: float = 0.8,
    boxes: bool = False,
) -> Faces:
    """Run `program` on one clip, publish its CSV at `csv` by rename, and return what `read_faces` reads from it.

    `scratch` is a folder on the same disk as `csv`; each try gets a fresh folder in it. `flags` go to the program as
    they are (`-mloc FILE`). A crash, a time-out (seconds) and a partial CSV are tried a second time.
    Raises `OpenFaceError` for every ending without a whole CSV with all AU columns.
    """
    for retry in (True, False):
        try:
            return _extract_once(Path(video), Path(csv), program, Path(scratch), flags, timeout, confidence, boxes)
        except OpenFaceError as error:
            if not (retry and error.kind in RETRIED):
                raise
    raise AssertionError("unreachable")


def _extract_once(
    video: Path,
    csv: Path,
    program: Path,
    scratch: Path,
    flags: Sequence[str],
    timeout: float,
    confidence: float,
    boxes: bool,
) -> Faces:
    several = program.name == PROGRAMS[True]
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as folder:
        out = Path(folder) / "out"  # beside the two logs, so that only the program writes there
        command = [os.fspath(program), "-f", os.fspath(video.absolute()), "-out_dir", os.fspath(out.absolute()), "-aus"]
        command += [*(["-2Dfp"] if boxes else []), *flags]
        out.mkdir()
        status, stdout = _run(command, Path(folder), timeout)
        if status is None:
            raise OpenFaceError("timeout", f"{program.name} was stopped after {timeout:g} s")
        if "Could not load the landmark detector" in stdout:
            raise OpenFaceError("models_missing", f"{program.name} found no landmark model (see -mloc)")
        if "no Action Unit models found" in stdout:
            raise OpenFaceError("models_missing", f"{program.name} found no Action Unit models")
        if "Failed to open the video file" in stdout:
            raise OpenFaceError("not_a_video", f"{program.name} cannot open the clip")
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            hint = " (usual for a clip without a frame that decodes)" if name == "SIGSEGV" else ""
            raise OpenFaceError("crash", f"{program.name} ended by {name}{hint}")
        if status:
            raise OpenFaceError("crash", f"{program.name} ended with status {status}")
        written = sorted(out.glob("*.csv"))
        if not written:
            if several and any(out.glob("*_of_details.txt")):
                raise OpenFaceError("no_face", f"{program.name} found no face")
            raise OpenFaceError("no_frames", f"{program.name} wrote no CSV: no frame of the clip decodes")
        try:
            faces = read_faces(written[0], confidence, boxes)
            if not several and POSTPROCESSED not in stdout:
                raise OpenFaceError("partial_csv", f"{program.name} did not finish")
            faces.require([f"{au}_r" for au in INTENSITIES] + [f"{au}_c" for au in PRESENCES])
        except OpenFaceError as error:  # without the name of a folder that is about to vanish
            raise OpenFaceError(error.kind, f"the CSV {error.reason}", row=error.row) from None
        csv.parent.mkdir(parents=True, exist_ok=True)
        os.replace(written[0], csv)
        return faces


def _run(command: list[str], folder: Path, timeout: float) -> tuple[int | None, str]:
    """Exit status (negative: signal; None: ran past `timeout`) and stdout of a command; the logs lie in `folder`.

    Output goes to files, and the command leads its own process group: a time-out then ends it with all it started,
    and never waits for a pipe that somebody still holds.
    """
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    with open(folder / "stdout", "wb") as stdout, open(folder / "stderr", "wb") as stderr:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment, start_new_session=True
            )
        except OSError as error:
            raise InputError(f"cannot be started ({error.strerror or error})", command[0]) from None
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return status, (folder / "stdout").read_text(encoding="utf-8", errors="replace")
