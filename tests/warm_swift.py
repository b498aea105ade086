"""`swift sft`, `swift infer` … in a process of its own, without the 5 s that importing ms-swift takes.

    status, log = swift("sft", "stage1.yaml", "--output_dir", "out", cwd=tmp_path, AMT_DATA="amt")

The first run starts a server that has imported ms-swift and nothing of this project. Each run is a fork of it, which
reads the plugin anew and executes the file that the `swift` command executes. Where our scripts are the point, tests
run those.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["swift.pipelines.train", "swift.pipelines.infer"]
    + [f"transformers.models.{name}.modeling_{name}" for name in ("internvl", "phi3")]
)
atexit.register(forkserver._forkserver._stop)  # waited for, so that whoever measures a run of tests counts it
ROOT = Path(__file__).resolve().parents[1]


class Run:
    """One run of `swift COMMAND ARGS…` in folder `cwd`; what it prints is read when it has ended."""

    def __init__(self, command: str, *args: object, cwd: Path, **env: object):
        handle, log = tempfile.mkstemp(prefix="swift-", suffix=".log")
        os.close(handle)
        self.log = Path(log)
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | {key: str(value) for key, value in env.items()}
        given = command, list(map(str, args)), str(cwd), environment, log
        self.process = FORKS.Process(target=_swift, args=given)
        self.process.start()

    def running(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        """SIGKILL, also to the workers of its data loader."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        self.log.unlink()

    def ended(self, timeout: float = 300) -> tuple[int, str]:
        """Its exit status, and all that it printed."""
        self.process.join(timeout)
        with contextlib.suppress(ProcessLookupError):  # the workers of a run that failed look for it every 5 s only
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        said = self.log.read_text(encoding="utf-8", errors="replace")
        self.log.unlink()
        return self.process.exitcode, said


def swift(command: str, *args: object, cwd: Path, status: int = 0, **env: object) -> str:
    """Run `swift COMMAND ARGS…` to its end, which is expected to be `status`; returns what it printed."""
    ended, log = Run(command, *args, cwd=cwd, **env).ended()
    assert ended == status, log[-3000:]
    return log


def _swift(command: str, args: list[str], cwd: str, environment: dict[str, str], log: str) -> None:
    """What `swift COMMAND ARGS…` does, in the fork."""
    import torch
    from swift.cli.main import ROUTE_MAPPING, parse_yaml_args

    os.setsid()
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = [*filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *sys.path]
    if str(ROOT) not in environment.get("PYTHONPATH", ""):
        sys.path[:] = [path for path in sys.path if path != str(ROOT)]
    multiprocessing.set_start_method("fork", force=True)  # of data loaders: not the one of this process
    torch.set_num_threads(1)  # it has read OMP_NUM_THREADS already
    parse_yaml_args(args)
    program = importlib.util.find_spec(ROUTE_MAPPING[command]).origin
    sys.argv = [program, *args]
    try:
        runpy.run_path(program, run_name="__main__")
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
