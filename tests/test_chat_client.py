"""The client of served models: faults of servers, nothing asked twice, keys that are never written down."""

from __future__ import annotations

import json
import threading
import time
from urllib.parse import quote

import pytest

from swift_plugins.chat_client import AnswerJournal, Question, Server, ask, check, fingerprint
from swift_plugins.files import InputError
from tests.model_server import KEY, ModelServer


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short waits between tries: what is tested is which requests are repeated, not for how long."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault, kind",
    [
        ("429", "rate_limited"),
        ("429-date", "rate_limited"),
        ("429-bare", "rate_limited"),
        ("500", "server_error"),
        ("502-html", "server_error"),
        ("hang", "timeout"),
        ("drip", "timeout"),
        ("close", "closed_mid_answer"),
        ("cut", "closed_mid_answer"),
        ("html", "not_json"),
        ("not-json", "not_json"),
        ("null", "no_choices"),
        ("no-choices", "no_choices"),
        ("no-choices-key", "no_choices"),
        ("null-choices", "no_choices"),
    ],
)
def test_a_fault_is_counted_and_costs_one_more_request(tmp_path, fault, kind):
    with ModelServer(fault=lambda ask: fault if ask.nth == 1 and "2" in ask.text else None) as server:
        target = Server("judge", server.url, "seer", KEY, timeout=1.0)
        questions = [question(n) for n in range(4)]
        with AnswerJournal(tmp_path / "j.jsonl", resume=False) as journal:
            started = time.monotonic()
            assert ask(target, questions, journal, concurrency=4) == []
            totals = journal.totals()["judge"]
    assert len(journal.answers) == 4 and totals["failures"] == {kind: 1} and totals["requests"] == 5
    assert set(server.answered.values()) == {1}
    if fault == "429":
        assert time.monotonic() - started >= 1.0, "Retry-After was not honoured"


@pytest.mark.parametrize("wait", ["-5", "soon", "nan", "inf", "Mon, 01 Jan 99999999999 00:00:00 GMT", "\u00b2", ""])
def test_an_unreadable_retry_after_means_the_ordinary_wait(tmp_path, wait):
    with (
        ModelServer(fault=lambda ask: "429" if ask.nth == 1 else None, retry_after=wait) as server,
        AnswerJournal(tmp_path / "j.jsonl", resume=False) as journal,
    ):
        started = time.monotonic()
        assert ask(Server("judge", server.url, "seer", KEY), [question(1)], journal) == []
        assert journal.totals()["judge"]["failures"] == {"rate_limited": 1} and time.monotonic() - started < 1.0


@pytest.mark.parametrize("place", ["answer", "finish", "error", "cut error"])
def test_the_key_reaches_no_journal_not_even_in_part(tmp_path, place):
    """The server cuts what it echoes after each number of characters; no eight characters of the key are written."""
    key = "sk-" + "".join(chr(97 + n * 7 % 26) + str(n % 10) for n in range(16))
    fault = {"answer": "echo-key", "finish": "echo-finish"}.get(place, "500")
    for cut in range(0, len(key) + 8, 3):
        with (
            ModelServer(fault=lambda ask: fault if ask.nth == 1 else None, echo=slice(cut)) as server,
            AnswerJournal(tmp_path / f"{cut}.jsonl", resume=False) as journal,
        ):
            # the key stands where the journal cuts a long error, too
            padding = "x" * (150 + cut) if place == "cut error" else ""
            server.padding = padding
            ask(Server("judge", server.url, "seer", key), [question(1)], journal)
        written = (tmp_path / f"{cut}.jsonl").read_text()
        assert not [key[n : n + 8] for n in range(len(key) - 7) if key[n : n + 8] in written]


@pytest.mark.parametrize("key", ['sk-"quoted\\-0123456789', "sk/with+signs=%41/0123456789"])
def test_the_key_is_found_as_json_and_urls_write_it(tmp_path, key):
    with (
        ModelServer(answer=lambda ask: f"{json.dumps(key)} {quote(key, safe='')}", models=(f"m-{key}",)) as server,
        AnswerJournal(tmp_path / "j.jsonl", resume=False) as journal,
    ):
        with pytest.raises(InputError, match="serves no model") as refused:
            check(Server("judge", server.url, "seer", key))
        ask(Server("judge", server.url, f"m-{key}", key), [question(1)], journal)
    written = (tmp_path / "j.jsonl").read_text() + str(refused.value)
    for text in (key, json.dumps(key)[1:-1], quote(key, safe="")):
        assert not [text[n : n + 8] for n in range(len(text) - 7) if text[n : n + 8] in written]


def question(n: int, prompt: str = "What is number") -> Question:
    text = f'{prompt} {n}? A person says: "x". The person\'s emotion: happy'
    return Question(fingerprint(text), [{"role": "user", "content": text}], {"seed": 1}, {"id": n})


@pytest.mark.slow
def test_a_slow_answer_is_waited_for(tmp_path):
    with ModelServer(fault=lambda ask: "slow") as server:
        with AnswerJournal(tmp_path / "j.jsonl", resume=False) as journal:
            assert ask(Server("judge", server.url, "seer", KEY), [question(1)], journal) == []
        assert sum(server.received.values()) == 1


@pytest.mark.slow
def test_a_server_that_is_away_for_a_while(tmp_path, monkeypatch):
    """It dies after five answers and comes back at the same address: nothing lost, no answer fetched twice."""
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 1.0)
    with ModelServer(delay=0.02) as first:
        target, port = Server("judge", first.url, "seer", KEY, timeout=5.0), first.port
        outcome = {}

        def work():
            with AnswerJournal(tmp_path / "j.jsonl", resume=False) as journal:
                outcome["left"] = ask(target, [question(n) for n in range(40)], journal, concurrency=4)
                outcome["totals"] = journal.totals()["judge"]

        worker = threading.Thread(target=work)
        worker.start()
        while sum(first.answered.values()) < 5:
            time.sleep(0.005)
    time.sleep(1.0)
    with ModelServer(port=port) as second:
        worker.join(60)
    assert outcome["left"] == [] and outcome["totals"]["answers"] == 40
    assert outcome["totals"]["failures"].get("connect", 0) > 0
    twice = [key for key in first.answered if key in second.answered]
    assert len(twice) <= 4, "only what was on the way when it died may be asked again"


@pytest.mark.slow
def test_a_server_that_stays_away_ends_the_run_in_one_line(tmp_path):
    alive = [True]
    with ModelServer(fault=lambda ask: None if alive[0] else "500") as server:
        target = Server("judge", server.url, "seer", KEY)
        with AnswerJournal(tmp_path / "j.jsonl", resume=False) as journal:
            ask(target, [question(n) for n in range(3)], journal)
            alive[0] = False
            with pytest.raises(InputError, match=r"given up.*no answer in 30 tries.*--resume"):
                ask(target, [question(n) for n in range(300)], journal, concurrency=8)
            assert len(journal.answers) == 3
        assert len(server.received) < 20, "300 questions were not tried one by one"


def test_questions_that_the_server_refuses_stay_unanswered(tmp_path):
    with ModelServer(fault=lambda ask: "400" if "number 2?" in ask.text else None) as server:
        target = Server("judge", server.url, "seer", KEY)
        with AnswerJournal(tmp_path / "j.jsonl", resume=False) as journal:
            left = ask(target, [question(n) for n in range(4)], journal)
            assert [q.about["id"] for q in left] == [2]
            assert journal.totals()["judge"]["failures"] == {"bad_request": 1}


@pytest.mark.parametrize(
    "fault, words",
    [("400", "bad_request"), ("401", "key_refused"), ("404", "not_found"), ("429-hours", r"Retry-After: 7200")],
)
def test_a_run_that_cannot_succeed_stops_early(tmp_path, fault, words):
    with ModelServer(fault=lambda ask: fault) as server:
        with (
            AnswerJournal(tmp_path / "j.jsonl", resume=False) as journal,
            pytest.raises(InputError, match=words) as caught,
        ):
            ask(Server("judge", server.url, "seer", KEY), [question(n) for n in range(500)], journal, concurrency=4)
        assert KEY not in str(caught.value) and "\n" not in str(caught.value)
        assert sum(server.received.values()) < 20


@pytest.mark.slow
def test_a_full_server_that_answers_others_loses_nothing(tmp_path):
    """One question is turned away fourteen times while others are answered: it is not given up."""
    with (
        ModelServer(fault=lambda ask: "429-bare" if ask.nth < 15 and "number 9?" in ask.text else None) as server,
        AnswerJournal(tmp_path / "j.jsonl", resume=False) as journal,
    ):
        assert ask(Server("judge", server.url, "seer", KEY), [question(n) for n in range(600)], journal) == []
        assert journal.totals()["judge"]["failures"] == {"rate_limited": 14}


def test_an_odd_answer_is_kept_as_text(tmp_path):
    faults = {"number 0": "no-usage", "number 1": "surrogate", "number 2": "length"}
    with (
        ModelServer(fault=lambda ask: next((f for k, f in faults.items() if k in ask.text), None)) as server,
        AnswerJournal(tmp_path / "j.jsonl", resume=False) as journal,
    ):
        assert ask(Server("judge", server.url, "seer", KEY), [question(n) for n in range(3)], journal) == []
        totals = journal.totals()["judge"]
    with AnswerJournal(tmp_path / "j.jsonl", resume=True) as journal:
        assert journal.totals()["judge"] == totals and totals["answers_without_usage"] == 1
        assert {answer.finish for answer in journal.answers.values()} == {"stop", "length"}


def test_a_gateway_without_a_model_list_is_asked_for_one_token():
    with ModelServer(models=None, answer=lambda ask: "Hi") as server:
        check(Server("judge", server.url, "anything", KEY))
        assert sum(server.received.values()) == 1
    with ModelServer(models=None, fault=lambda ask: "404") as server, pytest.raises(InputError, match="not_found"):
        check(Server("judge", server.url, "anything", KEY))


def test_password_and_query_of_a_url_are_not_written_down():
    assert Server("judge", "http://me:secret@host:1/v1?key=secret", "m", "k").shown_url == "http://host:1/v1"
    assert "k3y" not in repr(Server("judge", "http://host", "m", "k3y"))


GOOD_LINE = {"server": "judge", "key": "k", "about": {"id": 1}, "text": "t", "finish": "stop", "tokens": [1, 2]}


@pytest.mark.parametrize("key", GOOD_LINE)
@pytest.mark.parametrize("value", [None, 7, -1.5, True, [], ["a", "b"], {"a": {"b": []}}])
def test_a_journal_that_is_not_ours_is_named(tmp_path, key, value):
    (tmp_path / "j.jsonl").write_text(json.dumps(GOOD_LINE) + "\n" + json.dumps(GOOD_LINE | {key: value}) + "\n")
    if (key, value) in (("tokens", None), ("about", {"a": {"b": []}})):
        assert AnswerJournal(tmp_path / "j.jsonl", resume=True).loaded == 1
        return
    with pytest.raises(InputError, match=rf"j\.jsonl:2: is not a line of this journal \({key}"):
        AnswerJournal(tmp_path / "j.jsonl", resume=True)
