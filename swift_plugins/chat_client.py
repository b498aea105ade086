"""Ask an OpenAI-compatible server many questions, bounded, retried, journaled, none of them twice.

Used by `data_prep.eri` (clues, reasons) and by the LLM judge of `compute_result.py`; not a program of its own.

    server = Server("judge", url, model, key=api_key("judge"), timeout=300.0)
    check(server)                                   # InputError in one line: wrong URL, wrong model, wrong key
    with AnswerJournal(folder / "judge.jsonl", resume=True) as journal:
        questions = [Question(key=fingerprint(id, prompt), messages=[{"role": "user", "content": prompt}],
                              params={"temperature": 0.0, "max_tokens": 64, "seed": 0}, about={"id": id})]
        unanswered = ask(server, questions, journal, concurrency=16, desc="judge")
        text = journal.answers[questions[0].key].text
        journal.totals()["judge"]                   # requests, answers, failures by kind, tokens

Retries, back-off, Retry-After and the connections are the openai client's. By hand is what it does not do: nothing is
asked twice, in this run or a later one; failures are counted and journaled; a run that cannot succeed ends early. The
API key comes from the environment (`api_key`) and is removed from everything that is written or raised.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import hashlib
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

import aiohttp
import httpx2
import openai
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tqdm import tqdm

from swift_plugins.files import InputError
from swift_plugins.journal import Journal
from swift_plugins.progress import progress

RETRIES = 29  # per question; the client waits 0.5 s, doubled up to 8 s: a server away for three minutes loses nothing
SHOWN_MODELS = 8
PART_OF_KEY = 8  # characters; as much of a key is a secret, and shorter keys (`EMPTY`, `x`) are placeholders


@dataclass(frozen=True, slots=True)
class Server:
    """One model behind one URL. `name` (`clue`, `reason`, `judge`) is used in journals and messages; `timeout` is
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
        """`text` without the API key, the values in the URL's query, and any part of them from `PART_OF_KEY` characters
        on, also as JSON and URLs write them."""
        parts = _parts_of_secrets(self.key, self.url)
        if not any(part in text for part in parts):
            return text
        secret = bytearray(len(text))
        for start in range(len(text) - PART_OF_KEY + 1):
            if text[start : start + PART_OF_KEY] in parts:
                secret[start : start + PART_OF_KEY] = bytes([1]) * PART_OF_KEY
        runs = itertools.groupby(zip(text, secret, strict=True), key=lambda pair: pair[1])
        return "".join("[key]" if hidden else "".join(character for character, _ in run) for hidden, run in runs)

    def short(self, text: str) -> str:
        """The beginning of `text` on one line, for journals and messages; the key is removed before the cut."""
        return " ".join(self.redact(text).split())[:200]


@functools.cache
def _parts_of_secrets(key: str, url: str) -> frozenset[str]:
    secrets = [key, *(value for _, value in parse_qsl(urlsplit(url).query))]
    written = [text for secret in secrets for text in (secret, json.dumps(secret)[1:-1], quote(secret, safe=""))]
    starts = ((text, start) for text in written for start in range(len(text) - PART_OF_KEY + 1))
    return frozenset(text[start : start + PART_OF_KEY] for text, start in starts)


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
    """What came back: the text, and why it ended (`stop`, `length`, …)."""

    text: str
    finish: str


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


class _Line(BaseModel):
    """A line of the journal: what failed, or an answer with its tokens [in, out], null where the server counts none."""

    model_config = ConfigDict(strict=True)

    server: str
    about: dict
    failure: str | None = None
    key: str = ""
    text: str = ""
    finish: str = ""
    tokens: list[int] | None = Field(None, min_length=2, max_length=2)


class AnswerJournal(Journal):
    """Every answer and every failure, locked against a second run.

    answers: key → `Answer`; `loaded` of them come from earlier runs. Raises `InputError` when the file exists and
    `resume` is false, when another run holds it, or when a line other than a cut-off last one is not ours.
    """

    def __init__(self, path: str | os.PathLike, resume: bool):
        super().__init__(path, resume=resume)
        self.answers: dict[str, Answer] = {}
        self._totals: dict[str, Counter] = {}
        for file, number, record in self.records():
            try:
                self._count(_Line.model_validate(record))
            except ValidationError as error:
                key = ".".join(map(str, error.errors()[0]["loc"]))
                raise InputError(f"is not a line of this journal ({key})", file, number) from None
        self.loaded = len(self.answers)

    def _count(self, line: _Line) -> None:
        total = self._totals.setdefault(line.server, Counter())
        if line.failure is not None:
            total[f"failure {line.failure}"] += 1
            return
        self.answers[line.key] = Answer(line.text, line.finish)
        tokens_in, tokens_out = line.tokens or (0, 0)
        total["answers"] += 1
        total["answers_without_usage"] += line.tokens is None
        total["tokens_in"] += tokens_in
        total["tokens_out"] += tokens_out

    def append(self, record: dict) -> None:
        """Count one record and write it as one line."""
        self._count(_Line.model_validate(record))
        super().append(record)

    def totals(self) -> dict[str, dict]:
        """Per server, over this and all earlier runs of the journal: requests (answered or failed), answers,
        failures by kind, tokens_in, tokens_out, and answers whose server reported no token usage."""
        result = {}
        for name, total in self._totals.items():
            failures = {key.split(" ", 1)[1]: n for key, n in sorted(total.items()) if key.startswith("failure ")}
            plain = {key: total[key] for key in ("answers", "tokens_in", "tokens_out", "answers_without_usage")}
            result[name] = {"requests": total["answers"] + sum(failures.values()), "failures": failures} | plain
        return result


class _Stop(Exception):
    """The server is not worth asking any more in this run."""


def check(server: Server) -> None:
    """Raise a one-line `InputError` unless the server answers, accepts the key and serves the model.

    Servers without a model list are asked for a single token instead.
    """
    try:
        parts = urlsplit(server.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:  # a wrong port raises
            raise ValueError
        models = asyncio.run(_models(server))
    except (ValueError, httpx2.InvalidURL):
        raise InputError(f"the {server.name} URL must look like http://host:port/v1") from None
    except openai.OpenAIError as error:
        failure = _failure(server, error)
        hint = "" if server.url.rstrip("/").endswith("/v1") else " (should the URL end in /v1?)"
        if failure.kind == "key_refused":
            hint = f" (set EMOVERSE_{server.name.upper()}_API_KEY or OPENAI_API_KEY)"
        raise InputError(f"no {server.name} model can be asked there: {failure}{hint}", server.shown_url) from None
    if models is not None and not any(name == server.model or name.endswith("/" + server.model) for name in models):
        known = server.redact(", ".join(models[:SHOWN_MODELS])) + (", …" if len(models) > SHOWN_MODELS else "")
        raise InputError(f"serves no model {server.model!r}, but: {known or 'none'}", server.shown_url)


async def _models(server: Server) -> list[str] | None:
    """What GET /models lists; None where there is no list, but an answer to a question of one token."""
    async with _client(server) as client:
        quick = client.with_options(max_retries=2, timeout=20.0)
        try:
            response = await quick.get("/models", cast_to=httpx2.Response)
        except openai.APIStatusError as error:
            if _failure(server, error).kind != "not_found":
                raise
            hello = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "model": server.model}
            # Under the timeout of an answer: the first token of a gateway may wait for the model to load.
            await client.with_options(max_retries=2).post("/chat/completions", body=hello, cast_to=httpx2.Response)
            return None
    return response.extensions["reply"]["models"]


def ask(
    server: Server,
    questions: Iterable[Question],
    journal: AnswerJournal,
    *,
    concurrency: int = 16,
    then: Callable[[Question, Answer], Question | None] | None = None,
    desc: str = "",
) -> list[Question]:
    """Ask every question that `journal` has no answer to, `concurrency` at once; return those left unanswered.

    `then` looks at an answer, a journaled one too, and may return a follow-up question (the same one with another
    seed). Transient failures (429, 5xx, closed or refused connections, timeouts, HTML, an answer without choices)
    are retried with doubling waits, or after the time that Retry-After names (up to two minutes). Raises `InputError`
    when going on is pointless: key refused, model gone, every request refused as malformed, or a server that has
    answered nothing while a question was given up. The journal then holds all that came back.
    """
    questions = list({question.key: question for question in questions}.values())
    with progress(total=len(questions), desc=desc, unit="clip") as bar:
        try:
            return asyncio.run(_Run(server, journal, then, bar).all(questions, concurrency))
        except _Stop as stop:
            message = f"the {server.name} server was given up: {stop}; all answers are kept, go on with --resume"
            raise InputError(message, server.shown_url) from None


_ABOUT: contextvars.ContextVar[dict] = contextvars.ContextVar("about")  # of the question that a worker is asking


class _Run:
    """The state that the workers of one `ask` share."""

    def __init__(self, server: Server, journal: AnswerJournal, then: Callable | None, bar: tqdm):
        self.server, self.journal, self.then, self.bar = server, journal, then, bar
        self.last_answer = 0.0
        self.refused_in_a_row = 0
        self.failures: Counter = Counter()
        self.unanswered: list[Question] = []

    async def all(self, questions: list[Question], concurrency: int) -> list[Question]:
        queue = iter(questions)
        async with _client(self.server, self._failed) as client:
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
                answer = self.journal.answers.get(question.key) or await self._answer(client, question)
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
        _ABOUT.set(question.about)
        started = time.monotonic()
        body = {"model": self.server.model, "messages": messages, **question.params}
        try:
            # Not chat.completions.create: its check of every message part against type hints takes half of the CPU.
            response = await client.post("/chat/completions", body=body, cast_to=httpx2.Response)
        except openai.OpenAIError as error:
            self._give_up(error, started)
            return None
        self.last_answer = time.monotonic()
        self.refused_in_a_row = 0
        about = {"server": self.server.name, "key": question.key, "about": question.about}
        self.journal.append(about | response.extensions["reply"])
        return self.journal.answers[question.key]

    def _failed(self, failure: _Failure) -> None:
        """Count and journal a request that brought no answer, be it tried again or not."""
        self.failures[failure.kind] += 1
        self.bar.set_postfix(dict(self.failures.most_common(4)), refresh=False)
        line = {"server": self.server.name, "failure": failure.kind, "detail": failure.detail, "about": _ABOUT.get()}
        self.journal.append(line)

    def _give_up(self, error: openai.OpenAIError, started: float) -> None:
        """Raise `_Stop` where other questions will fare no better than this one, which the client has given up."""
        failure = _failure(self.server, error)
        refused = failure.kind == "bad_request"
        self.refused_in_a_row += refused
        if failure.kind in ("key_refused", "not_found") or self.refused_in_a_row >= 10:
            raise _Stop(str(failure))
        if not refused and self.last_answer < started:
            tries = int(error.request.headers.get("x-stainless-retry-count", 0)) + 1
            raise _Stop(f"no answer in {tries} tries over {time.monotonic() - started:.0f} s, the last {failure}")


# One request


class _Failure(httpx2.RequestError):
    """One request that brought no answer: its kind and one line of detail. The client retries a `RequestError`."""

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


class _HttpClient(openai.DefaultAioHttpClient):
    """Looks at each request of the openai client, the retried ones too, which the client itself does not do: it counts
    none, takes a page of HTML or an answer without choices for an answer, and its timeouts start again with every byte.

    The aiohttp transport takes 30 % less CPU per request than the default one, see benchmarks.
    """

    def __init__(self, server: Server, failed: Callable[[_Failure], None]):
        super().__init__()
        self.server, self.failed = server, failed

    async def send(self, request: httpx2.Request, **options) -> httpx2.Response:
        """The response, its JSON under `extensions["reply"]`, an answer's as the journal holds it."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(request.extensions["timeout"]["read"]):
                response = await super().send(request, **options)
            if response.is_success:
                reply = _read_reply(self.server, response)
                if request.method == "POST":
                    reply |= {"seconds": round(time.monotonic() - started, 3)}
                response.extensions["reply"] = reply
                return response
        except _Failure as failure:
            self.failed(failure)
            raise
        except (httpx2.RequestError, aiohttp.ClientError, OSError) as error:
            broken = _connection_failure(self.server, error)
            self.failed(broken)
            raise broken from None
        self.failed(_status_failure(self.server, response))
        return response


def _client(server: Server, failed: Callable[[_Failure], None] = lambda failure: None) -> openai.AsyncOpenAI:
    http = _HttpClient(server, failed)
    return openai.AsyncOpenAI(
        base_url=server.url, api_key=server.key, max_retries=RETRIES, timeout=server.timeout, http_client=http
    )


def _read_reply(server: Server, response: httpx2.Response) -> dict:
    """{"models"} of a model list, {"text", "finish", "tokens": [in, out] | None} of an answer; raises `_Failure`."""
    try:
        reply = json.loads(response.content)
    except (ValueError, RecursionError):
        raise _Failure("not_json", server.short(response.text)) from None
    if response.request.method == "GET":
        try:
            return {"models": [str(model["id"]) for model in reply["data"]]}
        except (KeyError, TypeError):
            raise _Failure("not_openai", "the answer to GET /models is no model list") from None
    if not isinstance(reply, dict) or not isinstance(choices := reply.get("choices"), list) or not choices:
        raise _Failure("no_choices", server.short(response.text))
    try:
        text = choices[0]["message"].get("content") or ""
        finish = str(choices[0].get("finish_reason") or "")
        usage = reply.get("usage")
        tokens = [int(usage["prompt_tokens"]), int(usage["completion_tokens"])] if usage else None
        # JSON can hold half characters, UTF-8 cannot
        text, finish = (server.redact(part.encode("utf-8", "replace").decode()) for part in (text, finish))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise _Failure("not_openai", server.short(response.text)) from None
    return {"text": text, "finish": finish[:40], "tokens": tokens}


_STATUS = {401: "key_refused", 403: "key_refused", 404: "not_found", 405: "not_found", 429: "rate_limited"}
_STATUS |= {408: "timeout", 409: "timeout"}


def _status_failure(server: Server, response: httpx2.Response) -> _Failure:
    status = response.status_code
    kind = _STATUS.get(status, "server_error" if status >= 500 else "bad_request")
    wait = f" (Retry-After: {response.headers['retry-after']})" if "retry-after" in response.headers else ""
    return _Failure(kind, server.short(f"{status}{wait} {response.text}"))


def _connection_failure(server: Server, error: Exception) -> _Failure:
    if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
        return _Failure("timeout", "no answer in time")
    cause = error.__cause__ or error  # the transport's own class tells more than the wrapper around it
    closed = isinstance(cause, aiohttp.ClientError) and not isinstance(cause, aiohttp.ClientConnectorError)
    return _Failure("closed_mid_answer" if closed else "connect", server.short(str(cause)))


def _failure(server: Server, error: openai.OpenAIError) -> _Failure:
    """Why the openai client gave a request up."""
    if isinstance(error, openai.APIStatusError):
        return _status_failure(server, error.response)
    if isinstance(error.__cause__, _Failure):
        return error.__cause__
    return _Failure("not_openai", server.short(str(error)))
