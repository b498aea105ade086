"""OpenFace 2.x: call the user's own programs on a clip.

    python -m data_prep.fer --openface DIR …     # one process per clip and core

OpenFace is licensed for academic, non-commercial use and is not part of this project: it is called, never copied.
Its exit status says little (a clip that does not open ends with 0), so a run counts as done only when the status is
0, the CSV is whole, and FeatureExtraction says that it has postprocessed its Action Units.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from data_prep.fer.au_table import INTENSITIES, PRESENCES, Faces, OpenFaceError, read_faces
from data_prep.readers.media import probe
from swift_plugins.files import InputError

# FaceLandmarkVidMulti keeps this many trackers; FeatureExtraction follows one face.
PROGRAMS = {False: "FeatureExtraction", True: "FaceLandmarkVidMulti"}
POSTPROCESSED = "Postprocessing the Action Unit predictions"
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
# Endings that a second try may cure. A clip without a face and a missing model stay what they are.
RETRIED = ("crash", "timeout", "partial_csv")


def find_program(openface: str | os.PathLike, several: bool = False) -> Path:
    """Absolute path of FeatureExtraction (or of FaceLandmarkVidMulti for `several` people) at `openface`.

    `openface` is the folder of the programs, one above it (bin/, build/bin/), or one of the programs itself. OpenFace
    looks for its models next to the name it was called by: hence an absolute path, and the one that a link leads to,
    unless that has another name (a wrapper that serves both programs by the name it is called). Raises `InputError`.
    """
    name = PROGRAMS[several]
    root = Path(openface).expanduser()
    if root.is_file() and root.name in PROGRAMS.values():
        root = root.parent
    if not root.is_dir():
        reason = "no such folder" if not root.is_file() else f"is neither {' nor '.join(PROGRAMS.values())}"
        raise InputError(f"{reason} (--openface or OPENFACE_DIR names the folder that holds the programs)", root)
    for folder in (root, root / "bin", root / "build" / "bin"):
        program = folder / name
        if program.is_file():
            if not os.access(program, os.X_OK):
                raise InputError("is not executable", program)
            target = program.resolve()
            return target if target.name == name else program.absolute()
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
    aus: Collection[str] = PRESENCES,
) -> Faces:
    """Run `program` on one clip, publish its CSV at `csv` by rename, and return what `read_faces` reads from it.

    `scratch` is a folder on the same disk as `csv`; each try gets a fresh folder in it. `flags` go to the program as
    they are (`-mloc FILE`). A crash, a time-out (seconds) and a partial CSV are tried a second time.
    Raises `OpenFaceError` for every ending without a whole CSV with all columns of `aus`.
    """
    for retry in (True, False):
        try:
            return _extract_once(Path(video), Path(csv), program, Path(scratch), flags, timeout, confidence, boxes, aus)
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
    aus: Collection[str],
) -> Faces:
    several = program.name == PROGRAMS[True]
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as folder:
        out = Path(folder) / "out"  # beside the two logs, so that only the program writes there
        command = [os.fspath(program), "-f", os.fspath(video.absolute()), "-out_dir", os.fspath(out.absolute()), "-aus"]
        command += [*(["-2Dfp"] if boxes else []), *flags]
        out.mkdir()
        status, stdout = _run(command, Path(folder), timeout)
        said = _last_words(Path(folder) / "stderr", program, video)
        if status is None:
            raise OpenFaceError("timeout", f"{program.name} was stopped after {timeout:g} s{said}")
        if "Could not load the landmark detector" in stdout:
            raise OpenFaceError("models_missing", f"{program.name} found no landmark model (see -mloc)")
        if "no Action Unit models found" in stdout:
            raise OpenFaceError("models_missing", f"{program.name} found no Action Unit models")
        if "Failed to open the video file" in stdout:
            raise OpenFaceError("not_a_video", f"{program.name} cannot open the clip")
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            hint = " (usual for a clip without a frame that decodes)" if name == "SIGSEGV" else ""
            raise OpenFaceError("crash", f"{program.name} ended by {name}{hint}{said}")
        if status:
            raise OpenFaceError("crash", f"{program.name} ended with status {status}{said}")
        written = sorted(out.glob("*.csv"))
        if not written:
            # Of several people's program a clip that opens and then breaks off looks like one without a face.
            broken = probe(video) or ""
            if broken.startswith(("cannot be decoded", "holds no frame")):
                raise OpenFaceError("no_frames", f"{program.name} wrote no CSV: the clip {broken}")
            if several and any(out.glob("*_of_details.txt")):
                raise OpenFaceError("no_face", f"{program.name} found no face")
            raise OpenFaceError("no_frames", f"{program.name} wrote no CSV: no frame of the clip decodes")
        try:
            faces = read_faces(written[0], confidence, boxes)
            if not several and POSTPROCESSED not in stdout:
                raise OpenFaceError("partial_csv", f"{program.name} did not finish")
            faces.require([f"{au}_r" for au in INTENSITIES if au in aus] + [f"{au}_c" for au in aus])
        except OpenFaceError as error:  # without the name of a folder that is about to vanish
            raise OpenFaceError(error.kind, f"the CSV {error.reason}", row=error.row) from None
        csv.parent.mkdir(parents=True, exist_ok=True)
        os.replace(written[0], csv)
        return faces


def _last_words(log: Path, program: Path, video: Path) -> str:
    """ ": " and the last line of the program's stderr, with names instead of this machine's paths; "" without one."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    for path in (program, video.absolute()):
        last = last.replace(os.fspath(path), path.name)
    last = "".join(letter for letter in last.removeprefix(f"{program.name}: ") if letter.isprintable())
    return f": {last[:200]}" if last else ""


def _run(command: list[str], folder: Path, timeout: float) -> tuple[int | None, str]:
    """Exit status (negative: signal; None: ran past `timeout`) and stdout of a command; the logs lie in `folder`.

    Output goes to files, and the command leads its own process group: a time-out then ends it with all it started,
    and never waits for a pipe that somebody still holds. It ends when this process does, however that ends.
    """
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    with open(folder / "stdout", "wb") as stdout, open(folder / "stderr", "wb") as stderr:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                start_new_session=True,
                preexec_fn=functools.partial(_end_with_parent, os.getpid()) if LIBC else None,
            )
        except OSError as error:
            raise InputError(f"cannot be started ({error.strerror or error})", command[0]) from None
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.returncode is None:
                _end_group(process)
    return status, (folder / "stdout").read_text(encoding="utf-8", errors="replace")


def _end_with_parent(parent: int) -> None:
    """In the child, before the program starts: let the system send SIGTERM when the parent is gone (Linux).

    SIGTERM and not SIGKILL, so that a wrapper (docker run) can pass it on. Nothing is imported or locked here.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # gone already
        os._exit(1)


def _end_group(process: subprocess.Popen) -> None:
    """SIGTERM to a program and all that it started, and SIGKILL to what is left of them after 2 seconds."""
    os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(2)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
