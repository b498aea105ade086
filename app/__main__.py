"""The app: ask about a clip, browse rows and results, review reasons, in a browser on this machine.

    python -m app                                                           # the model trained last, else the demo's
    python -m app --data amt --media-root raw --result output/4b/stage2.test.jsonl
    python -m app --eri raw/mosei --data amt --media-root raw               # review by keyboard: a, r, e, u, arrows

An upload is removed when its page shows another clip or is closed, after an hour at the latest. A review is written to
DIR/review.<name>.csv at once, and what most reviewers decided to DIR/review.agreed.csv: give either to
`build_amt --review`. The app asks nobody for a password: keep --host 127.0.0.1, or stand it behind a proxy that does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

from app.options import Options
from swift_plugins.files import InputError, run_cli
from swift_plugins.options import parse


def listen(host: str, port: int) -> socket.socket:
    """The bound socket; `InputError` where there is none to have, before anything is loaded."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(64)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--host {host} --port {port}: {reason.lower()}") from None
    return bound


def end(number: int, frame: object) -> None:
    """A closed terminal and a kill end the app as Ctrl+C does: with its files removed."""
    sys.exit(128 + number)


def main() -> int:
    """Load what was asked for, serve until a signal."""
    options = parse(Options, __doc__, prog="python -m app")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    with listen(options.host, options.port) as bound:
        from app.sources import read_sources

        sources = read_sources(options)
        with tempfile.TemporaryDirectory(prefix="emoverse-app-") as scratch:
            # Before gradio is imported: where uploads go, that nothing is sent or asked elsewhere, and how soon it is
            # seen that a page was closed.
            os.environ |= {"GRADIO_TEMP_DIR": scratch, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
            os.environ.setdefault("GRADIO_HEARTBEAT_INTERVAL", "2")
            try:
                import gradio  # noqa: F401
            except ImportError:
                raise InputError("the app needs gradio: pip install gradio, or emoverse-swift[app]") from None
            from app.server import serve

            serve(options, sources, bound, Path(scratch))
    return 0


if __name__ == "__main__":
    run_cli(main)
