"""Puts the app together and serves it: the model, the rows, the reviews, the page, its routes."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import socket
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from app import ui
from app.engine import Opener
from app.examples import make_examples
from app.media import Media
from app.options import Options
from app.sources import Sources
from app.uploads import Uploads, remove_stalled

LOCAL = ("127.0.0.1", "localhost", "::1")


def make_app(options: Options, sources: Sources, scratch: Path) -> FastAPI:
    """The ASGI app; `scratch` is where uploads and examples lie. Raises `InputError` for a model that cannot be had."""
    media = Media()
    examples = make_examples(scratch)
    uploads = Uploads(scratch, keep=(path for clip, _, table in examples for path in (clip, table)))
    model = Opener(sources.checkpoint, options.model, options.server)()
    asking = ui.Asking(model, sources.channels, sources.wording, examples, options.openface, uploads)
    blocks = ui.build(asking, sources.shelf, sources.reviews, media)
    no_docs = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = FastAPI(**no_docs)
    if options.host in LOCAL:  # a page of the internet cannot read this one by giving 127.0.0.1 a name of its own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL])
    app.add_middleware(LeftHalfway)
    app.include_router(media.router)
    fonts = ("system-ui", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
    theme = gr.themes.Default(primary_hue="blue", font=fonts, font_mono=("monospace",))
    # Gradio's own shades leave white letters at a contrast of 2.8 and 3.8; readable is 4.5.
    strong = {"button_primary_background_fill": "*primary_600", "button_cancel_background_fill": "#dc2626"}
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=options.host,
        server_port=options.port,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        app_kwargs=no_docs,
        max_file_size=options.max_mb * 1_000_000,
        theme=theme.set(**strong),
        css=ui.CSS,
        head=f"<script>{ui.KEYS}</script>",
    )


class LeftHalfway:
    """Who leaves in the middle of an upload is no error: the traceback would stand on the terminal."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What ASGI calls."""
        with contextlib.suppress(ClientDisconnect):
            await self.app(scope, receive, send)


class Server(uvicorn.Server):
    """Ends what open pages hold open: each would take the seconds of a timeout, and a traceback on the terminal. While
    it runs it removes what is left in `scratch` of uploads that broke off."""

    def __init__(self, config: uvicorn.Config, scratch: Path):
        super().__init__(config)
        self.scratch = scratch

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if counter % 10 == 0:
            remove_stalled(self.scratch)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell gradio before the connections are waited for; what is cut off then is no error."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        for route in self.config.app.routes:
            if isinstance(inner := getattr(route, "app", None), gr.routes.App):
                inner.stop_event.set()
        await super().shutdown(sockets)


def serve(options: Options, sources: Sources, bound: socket.socket, scratch: Path) -> None:
    """Serve on the bound socket until a signal."""
    app = make_app(options, sources, scratch)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    server = Server(config, scratch)
    signal.signal(signal.SIGHUP, server.handle_exit)
    host, port = bound.getsockname()[:2]
    gc.freeze()  # what is loaded stays; looking through it once more at the end takes seconds
    print(f"http://{host}:{port}", flush=True)
    server.run(sockets=[bound])
