"""Throughput of the ERI client: requests per second and CPU per request against a local server with a fixed delay.

    python benchmarks/eri.py [--concurrency 64] [--delay 0.2] [--requests 6400] [--picture 60000]

The server is a process of its own. Printed: requests/s, the ceiling concurrency / delay, the client's own overhead
(CPU and the time that a request takes longer than the server's delay), and the same for a bare aiohttp client, side by
side in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from swift_plugins.chat_client import AnswerJournal, Question, Server, ask, check

REPLY = {
    "id": "x",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A reason. " * 20}}],
    "usage": {"prompt_tokens": 1200, "completion_tokens": 60, "total_tokens": 1260},
}


def serve(delay: float) -> None:
    """A server that answers every question after `delay` seconds; prints its port."""

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(delay)
        return web.json_response(REPLY)

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m"}]})

    async def run() -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", chat)
        app.router.add_get("/v1/models", models)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(site._server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())


@contextlib.contextmanager
def server(delay: float) -> Iterator[str]:
    command = [sys.executable, __file__, "--serve", "--delay", str(delay)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait()


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def messages(picture: str) -> list[dict]:
    content = [{"type": "text", "text": "Describe only what hints at this emotion. " * 12}]
    if picture:
        content.append({"type": "image_url", "image_url": {"url": picture}})
    return [{"role": "system", "content": "You describe pictures."}, {"role": "user", "content": content}]


def measure_ours(url: str, args: argparse.Namespace, picture: str) -> tuple[float, float]:
    target = Server("bench", url, "m", "EMPTY")
    check(target)
    chat = messages(picture)
    questions = [Question(f"{n:024}", chat, {"seed": n}, {"id": n}) for n in range(args.requests)]
    with tempfile.TemporaryDirectory() as folder, AnswerJournal(Path(folder) / "j.jsonl", resume=False) as journal:
        started, before = time.perf_counter(), cpu()
        left = ask(target, questions, journal, concurrency=args.concurrency, desc="chat_client")
        seconds, used = time.perf_counter() - started, cpu() - before
        assert not left and len(journal.answers) == args.requests
    return seconds, used


def measure_bare(url: str, args: argparse.Namespace, picture: str) -> tuple[float, float]:
    async def run() -> None:
        chat, numbers = messages(picture), iter(range(args.requests))

        async def worker() -> None:
            for number in numbers:
                body = {"model": "m", "messages": chat, "seed": number}
                async with session.post(f"{url}/chat/completions", json=body) as response:
                    await response.json()

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*[worker() for _ in range(args.concurrency)])

    started, before = time.perf_counter(), cpu()
    asyncio.run(run())
    return time.perf_counter() - started, cpu() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--delay", type=float, default=0.2, help="seconds until the server answers")
    parser.add_argument("--requests", type=int, default=6400)
    parser.add_argument("--picture", type=int, default=60_000, help="bytes of the picture in each request")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.delay)
        return
    print(
        f"{args.requests} requests, {args.concurrency} at once, server delay {1000 * args.delay:.0f} ms, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    ceiling = args.concurrency / args.delay
    with server(args.delay) as url:
        for name, run in (("chat_client", measure_ours), ("bare aiohttp", measure_bare)):
            for size in (0, args.picture):
                seconds, used = run(url, args, "data:image/jpeg;base64," + "A" * (size * 4 // 3) if size else "")
                rate = args.requests / seconds
                longer = 1000 * (args.concurrency / rate - args.delay)
                print(
                    f"{name:<13} {'with a ' + format(size // 1000) + ' kB picture' if size else 'text only':<22}"
                    f"{rate:6.0f} requests/s ({rate / ceiling:.0%} of the ceiling {ceiling:.0f}), "
                    f"{1000 * used / args.requests:.2f} ms CPU and {longer:.0f} ms extra waiting per request"
                )


if __name__ == "__main__":
    main()
