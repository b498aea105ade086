"""Ask an OpenAI-compatible server many questions, bounded, retried, journaled, none of them twice.

Used by `data_prep.eri` (clues, reasons) and by the LLM judge of `compute_result.py`; not a program of its own.

    server = Server("judge", url, model, key=api_key("judge"), timeout=300.0)
    check(server)                                   # InputError in one line: wrong URL, wrong model, wrong key
    with Journal(folder / "judge.jsonl", resume=True) as journal:
        questions = [Question(key=fingerprint(id, prompt), messages=[{"role": "user", "content": prompt}],
                              params={"temperature": 0.0, "max_tokens": 64, "seed": 0}, about={"id": id})]
        unanswered = ask(server, questions, journal, concurrency=16, desc="judge")
        text = journal.answers[questions[0].key].text
        journal.totals()["judge"]                   # requests, answers, failures by kind, tokens

The journal is append-only JSON lines, one flushed line per answer and per failure, so a SIGKILL loses only what was
in flight; a key that it answers is never asked again. The API key comes from the environment (`api_key`) and is
removed from everything that is written or raised.
"""

from __future__ import annotations

import asyncio
import email.utils
import fcntl
import hashlib
import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import httpx2
import openai
from tqdm import tqdm

from swift_plugins.files import InputError

TRIES = 10  # requests per question; with the waits below a server that is away for three minutes loses nothing
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds; doubled after each failure, at most a quarter shorter by jitter
LONGEST_RETRY_AFTER = 900.0  # seconds; a server that wants more is left alone until --resume
SHOWN_MODELS = 8


@dataclass(frozen=True, slots=True)
class Server:
    """One model behind one URL. `name` (`clue`, `reason`, `judge`) stands in journals and messages; `timeout` is
    seconds for a whole request, generous because a request given up is a request asked twice."""

    name: str
    url: str
    model: str
    key: str = field(repr=False)
    timeout: float = 300.0

    @property
    def shown_url(self) -> str:
        """The URL without user, password and query: the part that may be written down."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def redact(self, text: str) -> str:
        """`text` without the API key. Keys under 8 characters (`EMPTY`, `x`) are placeholders, not secrets."""
        return text.replace(self.key, "[key]") if len(self.key) >= 8 else text


@dataclass(frozen=True, slots=True)
class Question:
    """One request. `key` identifies it across runs (see `fingerprint`); `messages` is the chat, or a function that
    makes it when its turn comes (called in a thread: the pictures of 16,000 clips at once would not fit in memory)
    or returns None when it cannot be made, which leaves the question unanswered;
    `params` go to the server as they are; `about` is journaled beside the answer."""

    key: str
    messages: list[dict] | Callable[[], list[dict] | None]
    params: dict
    about: dict = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the text, why it ended (`stop`, `length`, …), and the question's `about`."""

    text: str
    finish: str
    about: dict


def api_key(name: str) -> str:
    """`EMOVERSE_<NAME>_API_KEY`, else `OPENAI_API_KEY`, else the placeholder that local servers accept.

    One variable per server, because clue and reason may live at different owners, and a key must not be shown to
    the wrong one.
    """
    return os.environ.get(f"EMOVERSE_{name.upper()}_API_KEY") or os.environ.get("OPENAI_API_KEY") or "EMPTY"


def fingerprint(*parts: object) -> str:
    """A short stable key over JSON-able parts: the same question in another run has the same key."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class Journal:
    """Append-only record of every answer and every failure, locked against a second run.

    answers: key → `Answer`; `loaded` of them come from earlier runs. Raises `InputError` when the file exists and
    `resume` is false, when another run holds it, or when a line other than a torn last one is not ours.
    """

    def __init__(self, path: str | os.PathLike, resume: bool):
        self.path = Path(path)
        self.answers: dict[str, Answer] = {}
        self._totals: dict[str, Counter] = {}
        if self.path.exists() and self.path.stat().st_size and not resume:
            raise InputError("holds answers of an earlier run: go on with --resume, or choose another folder", path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise InputError("another run is writing to this file", path) from None
        self._load()
        self.loaded = len(self.answers)

    def _load(self) -> None:
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                self._file.truncate(whole)  # the write that SIGKILL cut off
                break
            whole += len(line)
            try:
                record = json.loads(line)
                self._count(record)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise InputError("is not a line of this journal", self.path, number) from None
        self._file.seek(0, os.SEEK_END)

    def _count(self, record: dict) -> None:
        total = self._totals.setdefault(record["server"], Counter())
        if "failure" in record:
            total[f"failure {record['failure']}"] += 1
            return
        self.answers[record["key"]] = Answer(record["text"], record["finish"], record["about"])
        total["answers"] += 1
        tokens = record["tokens"]
        if tokens is None:
            total["answers_without_usage"] += 1
        else:
            total["tokens_in"] += tokens[0]
            total["tokens_out"] += tokens[1]

    def append(self, record: dict) -> None:
        """Count one record and write it as one line, flushed to the operating system."""
        self._count(record)
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def totals(self) -> dict[str, dict]:
        """Per server, over this and all earlier runs of the journal: requests (answered or failed), answers,
        failures by kind, tokens_in, tokens_out, and answers whose server reported no token usage."""
        result = {}
        for name, total in self._totals.items():
            failures = {key.split(" ", 1)[1]: n for key, n in sorted(total.items()) if key.startswith("failure ")}
            result[name] = {
                "requests": total["answers"] + sum(failures.values()),
                "answers": total["answers"],
                "failures": failures,
                "tokens_in": total["tokens_in"],
                "tokens_out": total["tokens_out"],
                "answers_without_usage": total["answers_without_usage"],
            }
        return result

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Failure(Exception):
    """One request that brought no answer: its kind, one line of detail, and what to do next."""

    def __init__(self, kind: str, detail: str, wait: float | None = None, retry: bool = True, fatal: bool = False):
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail, self.wait, self.retry, self.fatal = kind, detail, wait, retry, fatal


class _Stop(Exception):
    """The server is not worth asking any more in this run."""


def check(server: Server) -> None:
    """Raise a one-line `InputError` unless the server answers, accepts the key and serves the model.

    Servers without a model list are asked for a single token instead.
    """
    if urlsplit(server.url).scheme not in ("http", "https") or not urlsplit(server.url).netloc:
        raise InputError(f"the {server.name} URL must look like http://host:port/v1, not {server.shown_url!r}")
    try:
        asyncio.run(_check(server))
    except _Failure as failure:
        hint = " (should the URL end in /v1?)" if not server.url.rstrip("/").endswith("/v1") else ""
        if failure.kind == "key_refused":
            hint = f" (set EMOVERSE_{server.name.upper()}_API_KEY or OPENAI_API_KEY)"
        raise InputError(
            server.redact(f"no {server.name} model can be asked there: {failure}{hint}"), server.shown_url
        ) from None


async def _check(server: Server) -> None:
    async with _client(server) as client:
        for attempt in range(3):
            try:
                reply = await _request(client.get("/models", cast_to=httpx2.Response), 20.0)
                models = [model["id"] for model in reply["data"]]
                break
            except (KeyError, TypeError):
                raise _Failure("not_openai", "the answer to GET /models is no model list") from None
            except _Failure as failure:
                if failure.kind == "not_found":  # hosted gateways without a list: one token tells as much
                    await _ask_once(client, server, [{"role": "user", "content": "Hello"}], {"max_tokens": 1})
                    return
                if failure.kind not in ("rate_limited", "server_error") or attempt == 2:
                    raise
                await asyncio.sleep(min(failure.wait or 2.0, 10.0))
    if not any(model == server.model or model.endswith("/" + server.model) for model in models):
        known = ", ".join(models[:SHOWN_MODELS]) + (", …" if len(models) > SHOWN_MODELS else "")
        raise InputError(f"serves no model {server.model!r}, but: {known or 'none'}", server.shown_url)


def ask(
    server: Server,
    questions: Iterable[Question],
    journal: Journal,
    *,
    concurrency: int = 16,
    then: Callable[[Question, Answer], Question | None] | None = None,
    desc: str = "",
) -> list[Question]:
    """Ask every question that `journal` has no answer to, `concurrency` at once; return those left unanswered.

    `then` looks at an answer, a journaled one too, and may return a follow-up question (the same one with another
    seed). Transient failures (429, 5xx, closed or refused connections, timeouts, HTML, an answer without choices)
    are retried with doubling waits, or after the time that Retry-After names, during which nobody asks. Raises
    `InputError` when going on is pointless: key refused, model gone, every request refused as malformed, or a
    server that has answered nothing while a question used up its tries. The journal then holds all that came back.
    """
    questions = list({question.key: question for question in questions}.values())
    seconds = 0.2 if sys.stderr.isatty() else 15.0  # a log file needs no smooth bar
    with tqdm(total=len(questions), desc=desc, unit="clip", mininterval=seconds) as bar:
        try:
            return asyncio.run(_Run(server, journal, then, bar).all(questions, concurrency))
        except _Stop as stop:
            message = f"the {server.name} server was given up: {stop}; all answers are kept, go on with --resume"
            raise InputError(server.redact(message), server.shown_url) from None


class _Run:
    """The state that the workers of one `ask` share."""

    def __init__(self, server: Server, journal: Journal, then: Callable | None, bar: tqdm):
        self.server, self.journal, self.then, self.bar = server, journal, then, bar
        self.open_at = 0.0  # nobody sends before this moment (Retry-After)
        self.last_answer = 0.0
        self.refused_in_a_row = 0
        self.failures: Counter = Counter()
        self.unanswered: list[Question] = []

    async def all(self, questions: list[Question], concurrency: int) -> list[Question]:
        queue = iter(questions)
        async with _client(self.server) as client:
            workers = [asyncio.create_task(self._worker(client, queue)) for _ in range(concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        return self.unanswered

    async def _worker(self, client: openai.AsyncOpenAI, queue: Iterable[Question]) -> None:
        for question in queue:
            follow_up: Question | None = question
            while follow_up is not None:
                question = follow_up
                answer = self.journal.answers.get(question.key)
                if answer is None:
                    answer = await self._answer(client, question)
                if answer is None:
                    self.unanswered.append(question)
                    break
                follow_up = self.then(question, answer) if self.then else None
            self.bar.update()

    async def _answer(self, client: openai.AsyncOpenAI, question: Question) -> Answer | None:
        messages = question.messages
        if callable(messages):
            messages = await asyncio.to_thread(messages)
        if messages is None:
            return None
        started = asked = time.monotonic()
        tries, wait = 0, FIRST_WAIT
        while True:
            while (delay := self.open_at - time.monotonic()) > 0:
                await asyncio.sleep(delay + random.uniform(0, 0.2))  # not all at the same instant
            last_asked, asked = asked, time.monotonic()
            try:
                record = await _ask_once(client, self.server, messages, question.params)
            except _Failure as failure:
                self._failed(question, failure)
                if not failure.retry:
                    return None
                # A full server that goes on answering others is no reason to give this question up.
                tries += failure.kind != "rate_limited" or self.last_answer < last_asked
                if tries == TRIES and self.last_answer < started:
                    seconds = time.monotonic() - started
                    raise _Stop(f"no answer in {TRIES} tries over {seconds:.0f} s, the last {failure}") from None
                if tries == TRIES:
                    return None
                self.open_at = max(self.open_at, time.monotonic() + (failure.wait or 0.0))
                if failure.wait is None:
                    await asyncio.sleep(wait * random.uniform(0.75, 1.0))
                wait = min(2 * wait, LONGEST_WAIT)
                continue
            self.last_answer = time.monotonic()
            self.refused_in_a_row = 0
            record = {"server": self.server.name, "key": question.key, "about": question.about, **record}
            record["text"] = self.server.redact(record["text"])
            self.journal.append(record)
            return self.journal.answers[question.key]

    def _failed(self, question: Question, failure: _Failure) -> None:
        self.failures[failure.kind] += 1
        self.bar.set_postfix(dict(self.failures.most_common(4)), refresh=False)
        detail = self.server.redact(failure.detail)
        self.journal.append(
            {"server": self.server.name, "failure": failure.kind, "detail": detail, "about": question.about}
        )
        self.refused_in_a_row += failure.kind == "bad_request"
        if failure.fatal or self.refused_in_a_row >= 10:
            raise _Stop(str(failure))
        if (failure.wait or 0.0) > LONGEST_RETRY_AFTER:
            raise _Stop(f"it asks to wait {failure.wait:.0f} s")


def _client(server: Server) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=server.url,
        api_key=server.key,
        max_retries=0,  # the client's own retries are neither counted nor shared between workers
        timeout=server.timeout,
        http_client=openai.DefaultAioHttpClient(),  # 30 % less CPU per request than the default, see benchmarks
    )


async def _ask_once(client: openai.AsyncOpenAI, server: Server, messages: list[dict], params: dict) -> dict:
    """One request: `{"text", "finish", "tokens": [in, out] | None, "seconds"}`; raises `_Failure`."""
    started = time.monotonic()
    body = {"model": server.model, "messages": messages, **params}
    # Not chat.completions.create: its check of every message part against type hints takes half of the client's CPU.
    reply = await _request(client.post("/chat/completions", body=body, cast_to=httpx2.Response), server.timeout)
    if not isinstance(reply, dict) or not isinstance(choices := reply.get("choices"), list) or not choices:
        raise _Failure("no_choices", _short(json.dumps(reply)))
    try:
        text = choices[0]["message"].get("content")
        finish = choices[0].get("finish_reason")
        usage = reply.get("usage")
        tokens = [int(usage["prompt_tokens"]), int(usage["completion_tokens"])] if usage else None
    except (KeyError, TypeError, AttributeError, ValueError):
        raise _Failure("not_openai", _short(json.dumps(reply))) from None
    if not isinstance(text, str | None):
        raise _Failure("not_openai", _short(json.dumps(reply)))
    return {
        "text": (text or "").encode("utf-8", "replace").decode(),  # JSON can hold half characters, UTF-8 cannot
        "finish": str(finish or ""),
        "tokens": tokens,
        "seconds": round(time.monotonic() - started, 3),
    }


async def _request(call, timeout: float) -> object:
    """Await one call of the openai client and decode its JSON; every way to fail becomes a `_Failure`.

    The timeout covers the whole request: the HTTP client's own ones start again with every byte.
    """
    try:
        async with asyncio.timeout(timeout):
            response = await call
        body = response.text
    except openai.APIStatusError as error:
        raise _status_failure(error) from None
    except (openai.APIConnectionError, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _connection_failure(error) from None
    except openai.OpenAIError as error:
        raise _Failure("not_openai", _short(str(error))) from None
    try:
        return json.loads(body)
    except ValueError:
        raise _Failure("not_json", _short(body)) from None


def _status_failure(error: openai.APIStatusError) -> _Failure:
    status, detail = error.status_code, _short(f"{error.status_code} {error.message}")
    if status == 429:
        return _Failure("rate_limited", detail, _retry_after(error))
    if status in (408, 409) or status >= 500:
        return _Failure("server_error" if status >= 500 else "timeout", detail, _retry_after(error))
    if status in (401, 403):
        return _Failure("key_refused", detail, retry=False, fatal=True)
    if status in (404, 405):
        return _Failure("not_found", detail, retry=False, fatal=True)
    return _Failure("bad_request", detail, retry=False)


def _connection_failure(error: BaseException) -> _Failure:
    cause: BaseException | None = error
    while cause is not None:  # the transport's own class tells more than the wrapper around it
        if isinstance(cause, aiohttp.ClientConnectorError):
            return _Failure("connect", _short(str(cause)))
        if isinstance(cause, aiohttp.ServerTimeoutError):
            return _Failure("timeout", "no answer in time")
        if isinstance(cause, aiohttp.ClientPayloadError | aiohttp.ClientConnectionError | aiohttp.ClientResponseError):
            return _Failure("closed_mid_answer", _short(str(cause)))
        last, cause = cause, cause.__cause__
    if isinstance(last, TimeoutError) or isinstance(error, openai.APITimeoutError | TimeoutError):
        return _Failure("timeout", "no answer in time")
    return _Failure("connect", _short(str(last)))


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or Retry-After as seconds or as an HTTP date."""
    headers = error.response.headers
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = float(headers.get("retry-after", "nan"))
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
        except (KeyError, TypeError, ValueError):
            return None
    return None if math.isnan(seconds) else max(seconds, 0.0)


def _short(text: str) -> str:
    return " ".join(text.split())[:200]
