"""The commands and links of README.md and CONTRIBUTING.md, tried."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_data_steps_of_the_readme(world, tmp_path):
    """Steps 1 to 3 as they stand, on the demo world; its OpenFace tables take the place of OpenFace itself."""
    steps = README.partition("# 1. ")[2].partition("# 4. ")[0]
    steps = steps.replace("--openface /opt/OpenFace/build/bin", "--csv raw/mosei/openface")
    assert "--csv" in steps and "build_amt" in steps
    shutil.copytree(world, tmp_path / "raw")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-uc", "# " + steps],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "error" not in done.stderr, done.stderr
    assert (tmp_path / "doctor" / "doctor.html").is_file()
    written = {file.name for file in (tmp_path / "amt").iterdir()}
    assert {f"report.{split}.json" for split in ("train", "dev", "test")} <= written
    assert {"mosei.fer.train.jsonl", "meld.mer.test.jsonl", "ecf.ecpe.test.jsonl", "mosei.msa.dev.jsonl"} <= written


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_files_that_are_named_exist(text):
    named = set(
        re.findall(r"\b(?:data_prep|swift_plugins|configs|shell|tests|benchmarks)/[\w./]*\w\.(?:py|yaml|sh|md)", text)
    )
    assert named and not [name for name in named if not (ROOT / name).is_file()]


def test_contributing_names_every_module_in_its_room():
    """The tree of CONTRIBUTING: a line that begins with a folder names the modules in it."""
    tree = CONTRIBUTING.split("## What is where")[1].split("```")[1]
    for package in ("data_prep", "swift_plugins"):
        lines = tree.split(f"{package}/\n")[1].split("\nswift_plugins/")[0].splitlines()
        rooms = {line.split()[0].rstrip("/"): line for line in lines if line.split() and line.split()[0].endswith("/")}
        for file in sorted((ROOT / package).rglob("*.py")):
            if file.stem in ("__init__", "__main__"):
                continue
            room = file.parent.name
            where = "\n".join(lines) if room == package else rooms[room]
            assert re.search(rf"\b{file.stem}\b", where), file.relative_to(ROOT)
