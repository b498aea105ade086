"""Many clips at once through joblib: on this machine's cores, or on the Ray cluster that there is."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import joblib
from tqdm import tqdm

from swift_plugins.files import ROOT, InputError


@contextlib.contextmanager
def workers(jobs: int, backend: str, bar: tqdm | None = None) -> Iterator[Workers]:
    """Processes that work through `joblib.delayed` tasks: `jobs` of this machine (loky), or of the Ray cluster.

    `bar` moves with the tasks. Loky's end soon after a killed run. Raises `InputError` where there is no cluster.
    """
    context = _ray_cluster() if backend == "ray" else contextlib.nullcontext()
    options = {} if backend == "ray" else {"initializer": _end_with_parent, "initargs": (os.getpid(),)}
    with context, Workers(bar, n_jobs=jobs, backend=backend, **options) as parallel:
        yield parallel


class Workers(joblib.Parallel):
    """joblib.Parallel that moves a progress bar, `bar`; joblib calls `print_progress` whenever a batch is done."""

    def __init__(self, bar: tqdm | None, **options):
        super().__init__(**options)
        self.bar, self.shown = bar, 0

    def print_progress(self) -> None:
        if self.n_completed_tasks < self.shown:  # a second call counts from 0 again
            self.shown = 0
        if self.bar is not None:
            self.bar.update(self.n_completed_tasks - self.shown)
        self.shown = self.n_completed_tasks


def _end_with_parent(parent: int) -> None:
    """Let this worker end soon after a killed run; it would wait for work, with its memory, for minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _ray_cluster() -> Iterator[None]:
    """Connect to the Ray cluster and register it with joblib; `InputError` where there is none."""
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise InputError("--backend ray needs the package ray (pip install ray)") from None
    root = os.fspath(ROOT)
    address = os.environ.get("RAY_ADDRESS") or "auto"
    try:
        if address != "auto":  # Ray itself tries for a quarter of an hour where no cluster answers
            host, _, port = address.rpartition("/")[2].rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(
            address=address,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}},
            log_to_driver=False,
            logging_level="error",
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray cluster to use (ray start --head, or RAY_ADDRESS): {error}") from None
    register_ray()
    try:
        yield
    finally:
        ray.shutdown()
