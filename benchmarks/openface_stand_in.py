"""A stand-in for OpenFace's two programs: it behaves like a row of the failure table named in the clip's path.

`install(folder)` writes FeatureExtraction and FaceLandmarkVidMulti there. A clip at …/<row>/0.mp4 or …/<row>.mp4 plays
that row; any other clip has a face whose AUs peak at a frame that follows from the clip's name. With STAND_IN_CALLS
in the environment each call appends the clip's path to that file, with STAND_IN_PIDS its process id; STAND_IN_WORK
seconds of computing come first.
"""

from __future__ import annotations

import sys
from pathlib import Path

FRAMES = 12
ROWS = [
    *("noface", "notvideo", "noframes", "nolandmarks", "nomodels", "onemodel", "noout"),
    *("hang", "killed", "unfinished", "empty", "headeronly", "status3", "nolibrary"),
]

SOURCE = """
import os, resource, signal, sys, time, zlib

INTENSITIES = [1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45]
PRESENCES = INTENSITIES[:-1] + [28, 45]
several = os.path.basename(sys.argv[0]) == "FaceLandmarkVidMulti"
clip, out = (sys.argv[sys.argv.index(flag) + 1] for flag in ("-f", "-out_dir"))
assert "-aus" in sys.argv and os.environ["OPENBLAS_NUM_THREADS"] == "1" and os.path.isabs(sys.argv[0])
assert os.listdir(out) == [], "a fresh out_dir"
stem = os.path.splitext(os.path.basename(clip))[0]
row = next((part for part in (stem, os.path.basename(os.path.dirname(clip))) if part in ROWS), "face")
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if calls := os.environ.get("STAND_IN_CALLS"):
    with open(calls, "a") as file:
        file.write(clip + "\\n")
if pids := os.environ.get("STAND_IN_PIDS"):
    with open(pids, "a") as file:
        file.write(f"{os.getpid()}\\n")
end = time.process_time() + float(os.environ.get("STAND_IN_WORK", 0))
while time.process_time() < end:
    pass


def stop(number):
    sys.stdout.flush()
    os.kill(os.getpid(), number)


print("[ library noise on stderr, always ]", file=sys.stderr)
if row == "nolandmarks":
    print("ERROR: Could not load the landmark detector")
    sys.exit(1)
if row == "nomodels":
    print("WARNING: no Action Unit models found")
    stop(signal.SIGABRT)
if row == "noout":
    print("Could not create output directory", file=sys.stderr)
    stop(signal.SIGABRT)
if row == "notvideo" or not os.path.exists(clip):
    print("Failed to open the video file at location: " + clip)
    sys.exit(0)
if row == "nolibrary":
    missing = "libopencv_core.so.4.1: cannot open shared object file: No such file or directory"
    print(sys.argv[0] + ": error while loading shared libraries: " + missing, file=sys.stderr)
    sys.exit(127)
if row == "status3":
    sys.exit(3)
if row == "noframes" and several:
    sys.exit(0)
if row == "noframes":
    stop(signal.SIGSEGV)
with open(os.path.join(out, stem + "_of_details.txt"), "w") as file:
    file.write("Input:" + clip + "\\n")
if row == "noface" and several:
    sys.exit(0)

left = [au for au in INTENSITIES if not (row == "onemodel" and au == 12)]
header = ["frame", "face_id", "timestamp", "confidence", "success"]
header += ["AU%02d_r" % au for au in left] + ["AU%02d_c" % au for au in PRESENCES]
apex = 1 + zlib.crc32("/".join(clip.split("/")[-2:]).encode()) % FRAMES
lines = []
for frame in range(1, FRAMES + 1):
    for face in range(2 if several else 1):
        rise = max(0.0, 1 - abs(frame - apex - face) / 4) * (3 - face)
        strength = {6: rise, 12: rise, 4: 0.3, 45: 4.0 if frame == 1 else 0.0}
        if row in ("killed", "unfinished"):
            strength = {au: value - 0.5 for au, value in strength.items()}
        found = row != "noface"
        values = [frame, face, "%.3f" % ((frame - 1) / 8), "0.98" if found else "0.00", int(found)]
        values += ["%.2f" % (strength.get(au, 0.0) if found else 0) for au in left]
        values += ["%.2f" % (found and strength.get(au, 0.0) >= 1) for au in PRESENCES]
        lines.append(",".join(map(str, values)) + "\\n")
text = ",".join(header) + "\\n" + "".join({"empty": [], "headeronly": []}.get(row, lines))
if row in ("hang", "killed"):
    text = text[:-25]
with open(os.path.join(out, stem + ".csv"), "w") as file:
    file.write("" if row == "empty" else text)
if row == "hang":
    time.sleep(60)
if row == "killed":
    stop(signal.SIGKILL)
if row != "unfinished" and not several:
    print("Postprocessing the Action Unit predictions")
"""


def install(folder: Path) -> Path:
    """Write both programs into `folder`; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("FeatureExtraction", "FaceLandmarkVidMulti"):
        program = folder / name
        program.write_text(f"#!{sys.executable} -SE\nFRAMES, ROWS = {FRAMES}, {ROWS!r}\n{SOURCE}")
        program.chmod(0o755)
    return folder
