"""A scripted OpenAI-compatible server for tests: real sockets, answers that depend on the question only, and faults.

with ModelServer(fault=lambda ask: "500" if ask.nth == 1 else None) as server:
    server.url, server.answered      # Counter of (prompt, seed): how often each question got its answer
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

PLACES = ["kitchen", "garden", "office", "station", "bakery", "harbour", "library", "stadium", "museum", "forest"]
THINGS = ["letter", "cake", "bicycle", "window", "violin", "ladder", "suitcase", "lantern", "puzzle", "kettle"]
KEY = "sk-test-0123456789abcdef"


@dataclass(frozen=True)
class Asked:
    """A request: its whole text, seed, number of pictures, the how-manieth time it comes (from 1), its WAV files."""

    text: str
    seed: int
    pictures: int
    nth: int
    sounds: tuple[bytes, ...] = ()


def clue_or_reason(ask: Asked) -> str:
    """Good answers to the prompts of configs/eri.yaml, unlike one another, fixed by question and seed."""
    number = sum(map(ord, ask.text)) * 31 + len(ask.text) * 7 + ask.seed
    words = [PLACES[number % 10], THINGS[number // 10 % 10], PLACES[number // 100 % 10], THINGS[number // 1000 % 10]]
    spoken = ask.text.partition('says: "')[2].partition('"')[0]
    if ask.pictures:
        return (
            f"Character: A person with an open mouth near a {words[1]} who leans towards the {words[3]}.\n"
            f"Scene: A {words[0]} with a {words[1]} on a table and a door to the {words[2]}."
        )
    if ask.sounds:
        return f"The voice is {'loud' if number % 2 else 'low'} and rises towards the end, with a pause of {number} ms."
    known = ask.text.partition("Known of the person: ")[2].partition("\n")[0]  # as the agents' merger is told
    label = known or ask.text.partition("The person's emotion: ")[2].split()[0]
    return (
        f"The words '{spoken}' tell of a {words[1]} in the {words[0]}, and with the {words[3]} so near to the "
        f"{words[2]} the person has every cause for {label}, number {number}."
    )


class ModelServer:
    """Runs in a thread. `fault(Asked)` names what goes wrong with a request, or None; `answer(Asked)` is the model.

    Faults: 429, 429-date, 429-bare, 500, 502-html, hang, close, cut, html, no-choices, no-choices-key, null-choices,
    not-json, null, 400, 401, 404, slow, drip, echo-key, echo-finish, no-usage, length, surrogate. `retry_after` is the
    header of a 429, `echo` the part of the key that faults give back, `padding` what stands before it in an error.
    """

    def __init__(
        self,
        fault: Callable[[Asked], str | None] = lambda ask: None,
        answer: Callable[[Asked], str] = clue_or_reason,
        delay: float = 0.0,
        models: tuple[str, ...] | None = ("seer", "thinker", "listener"),
        port: int = 0,
        retry_after: str = "1",
        echo: slice = slice(None),
        padding: str = "",
    ):
        self.retry_after, self.echo, self.padding = retry_after, echo, padding
        self.fault, self.answer, self.delay, self.models, self.port = fault, answer, delay, models, port
        self.received: Counter = Counter()
        self.answered: Counter = Counter()
        self.asks: list[Asked] = []
        self.keys: set[str] = set()
        self.now = self.most_at_once = 0

    def __enter__(self) -> ModelServer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> int:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._chat)
        if self.models is not None:
            app.router.add_get("/v1/models", self._models)
        app.router.add_get("/page/models", self._page)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        return site._server.sockets[0].getsockname()[1]

    async def _models(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") == "Bearer wrong-key-0123":
            return web.json_response({"error": {"message": "Incorrect API key wrong-key-0123"}}, status=401)
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text="<html>hello</html>", content_type="text/html")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.keys.add(request.headers.get("Authorization", ""))
        if self.models is not None and body["model"] not in self.models:
            return web.json_response({"error": {"message": f"no model {body['model']}"}}, status=404)
        content = body["messages"][-1]["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        text = "".join(part.get("text", "") for part in parts)
        pictures = sum(part["type"] == "image_url" for part in parts)
        key = (text, body.get("seed", 0))
        self.received[key] += 1
        sounds = [part["input_audio"] for part in parts if part["type"] == "input_audio"]
        if any(sound["format"] != "wav" for sound in sounds):
            return web.json_response({"error": {"message": "only wav is heard"}}, status=400)
        wavs = tuple(base64.b64decode(sound["data"], validate=True) for sound in sounds)
        ask = Asked(text, body.get("seed", 0), pictures, self.received[key], wavs)
        self.asks.append(ask)
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        try:
            await asyncio.sleep(self.delay)
            return await self._reply(request, ask, key)
        finally:
            self.now -= 1

    async def _reply(self, request: web.Request, ask: Asked, key: tuple) -> web.StreamResponse:
        fault = self.fault(ask)
        header = request.headers.get("Authorization", "")
        header = f"Bearer {header.removeprefix('Bearer ')[self.echo]}"
        error = {"error": {"message": f"fault {fault}, {self.padding}your header was {header}"}}
        page = "<html><body>Bad gateway</body></html>"
        if fault in ("429", "429-date", "429-bare"):
            headers = {
                "429": {"Retry-After": self.retry_after},
                "429-date": {"Retry-After": "Sat, 01 Jan 2000 00:00:00 GMT"},
            }
            return web.json_response(error, status=429, headers=headers.get(fault))
        if fault == "429-hours":
            return web.json_response(error, status=429, headers={"Retry-After": "7200"})
        if fault in ("400", "401", "404", "500"):
            return web.json_response(error, status=int(fault))
        if fault == "502-html":
            return web.Response(text=page, status=502, content_type="text/html")
        if fault == "html":
            return web.Response(text=page, content_type="text/html")
        if fault == "not-json":
            return web.Response(text='{"choices": [', content_type="application/json")
        if fault == "null":
            return web.json_response(None)
        if fault == "no-choices":
            return web.json_response({"choices": [], "usage": None})
        if fault == "no-choices-key":
            return web.json_response({"id": "x"})
        if fault == "null-choices":
            return web.json_response({"choices": None})
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "close":
            request.transport.close()
            return web.Response()
        if fault == "slow":
            await asyncio.sleep(1.0)
        message = {"role": "assistant", "content": self.answer(ask)}
        if fault == "echo-key":
            message["content"] += f" {header}"
        if fault == "surrogate":
            message["content"] += " half \ud83d"
        usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        finish = {"length": "length", "echo-finish": header}.get(fault or "", "stop")
        reply = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
        reply |= {"choices": [{"index": 0, "finish_reason": finish, "message": message}]}
        reply |= {} if fault == "no-usage" else {"usage": usage}
        if fault in ("cut", "drip"):
            data = json.dumps(reply).encode()
            stream = web.StreamResponse(headers={"Content-Length": str(len(data)), "Content-Type": "application/json"})
            await stream.prepare(request)
            if fault == "cut":
                await stream.write(data[:40])
                request.transport.close()
                return stream
            for byte in data:  # never silent for long, never done in time
                await stream.write(bytes([byte]))
                await asyncio.sleep(0.05)
            return stream
        self.answered[key] += 1
        return web.json_response(reply)
