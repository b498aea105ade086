"""What several test files need: the reference data, a small synthetic dataset, and commands as a user runs them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("EMOVERSE_SHARED", ROOT.parent / "shared")) / "data"


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


# Imports of seconds at the head of a test file: `make check` leaves such files out before they are imported.
HEAVY = re.compile(
    r"^(import|from) (torch|transformers|swift\b|swift_plugins\.(emoverse|internvl2|rewards|template|dataset))", re.M
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave a heavy file out when neither swift nor slow tests are wanted."""
    fast = {"not swift", "not slow"} <= set(config.option.markexpr.split(" and "))
    return True if fast and collection_path.suffix == ".py" and HEAVY.search(collection_path.read_text()) else None


@pytest.fixture(autouse=True, scope="module")
def environment() -> Iterator[None]:
    """What ms-swift leaves in the environment when it runs in this process ends with the file that ran it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data, which is not part of the project: tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data at {SHARED} (EMOVERSE_SHARED names their folder)")
    return SHARED


def process(*args: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess:
    """Run `python ARGS…` as a user would, from another folder than the project's; returns the finished process."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | env
    command = [sys.executable, *map(str, args)]
    return subprocess.run(command, cwd=cwd or Path.home(), env=environment, capture_output=True, text=True)


@pytest.fixture(scope="session")
def project() -> Callable[..., subprocess.CompletedProcess]:
    """The function `process`."""
    return process


def in_process(*args: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess:
    """`python ARGS…` in this process, for a command of ours, which ends through `run_cli`: the same result without the
    half second in which Python starts. At least one test of every command runs it as a process."""
    module = args[0] == "-m"
    command, *argv = map(str, args[1:] if module else args)
    out, err = (
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors, write_through=True)
        for errors in ("strict", "backslashreplace")
    )
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(action="ignore", category=RuntimeWarning),  # that the module has been imported before
        contextlib.chdir(cwd or Path.home()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        patch.setattr(sys, "argv", [command, *argv])
        for name, value in env.items():
            patch.setenv(name, value)
        if module:
            runpy.run_module(command, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(command, run_name="__main__")
    said = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(args, ended.value.code or 0, *said)


@pytest.fixture
def score(tmp_path) -> Callable[..., tuple[dict, str]]:
    """Score (response, gold) pairs of a channel as a user does; returns (JSON block, what was printed)."""

    def run(channel: str, pairs, *options: object) -> tuple[dict, str]:
        path = tmp_path / "result.jsonl"
        rows = [
            {"id": f"{channel}/{number}", "channel": channel, "response": response, "labels": gold}
            for number, (response, gold) in enumerate(pairs)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        done = in_process(ROOT / "compute_result.py", path, "--json", tmp_path / "scores.json", *options)
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))[channel], done.stdout

    return run


@pytest.fixture(scope="session")
def world(project, tmp_path_factory) -> Path:
    """The smallest synthetic dataset, in the raw layouts of MELD, MOSEI and ECF. Read only: copy what you change."""
    out = tmp_path_factory.mktemp("world") / "raw"
    done = project("-m", "data_prep.demo", "--out", out, "--size", "tiny")
    assert done.returncode == 0, done.stderr
    return out
