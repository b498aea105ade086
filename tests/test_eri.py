"""ERI data: two passes over real servers, faults of servers, quality rules, review, kill and resume."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.eri import quality as eri_quality
from data_prep.eri import review as eri_review
from data_prep.eri import run as eri
from swift_plugins import chat_client as eri_client
from swift_plugins.chat_client import Journal, Question, Server, ask, check, fingerprint
from swift_plugins.files import InputError
from tests.model_server import KEY, ModelServer, clue_or_reason

ROOT = Path(__file__).resolve().parents[1]
CONFIG = yaml.safe_load((ROOT / "configs" / "eri.yaml").read_text(encoding="utf-8"))
RULES = CONFIG["quality"]


def draw_clip(path: Path, frames: int = 12) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            picture = np.full((64, 64, 3), number * 255 // frames, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def rows_of(folder: Path, number: int) -> Path:
    """`number` AMT rows of mosei.mer with a small picture each, except the second, which has a clip."""
    (folder / "media").mkdir(parents=True)
    lines = []
    for n in range(number):
        label = ("Happy", "Anger", "Sadness", "Neutral")[n % 4]
        row = {
            "id": f"mosei/train/v{n:03}/0",
            "channel": "mosei.mer",
            "query": f"well number {n} it is what they told me\n<emotion> Which emotion? Answer with one of: Happy.",
            "response": f"{label}.",
        }
        if n == 1:
            draw_clip(folder / "media" / "1.mp4")
            row["videos"] = ["1.mp4"]
        else:
            Image.new("RGB", (48, 32), (n % 256, 80, 90)).save(folder / "media" / f"{n}.png")
            row["images"] = [f"{n}.png"]
        lines.append(json.dumps(row))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "rows.jsonl"


def arguments(folder: Path, url: str, *more: str, out: str = "out") -> list[str]:
    servers = ["--clue-url", url, "--clue-model", "seer", "--reason-url", url, "--reason-model", "thinker"]
    files = ["--rows", str(folder / "rows.jsonl"), "--media-root", str(folder / "media"), "--out", str(folder / out)]
    return [*files, *servers, *more]


def start(arguments: list[str], **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "data_prep.eri", *arguments],
        cwd=Path.home(),
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": KEY} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(arguments: list[str], **env: str) -> subprocess.CompletedProcess:
    process = start(arguments, **env)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def quick(monkeypatch):
    """Short waits between tries: what is tested is which requests are repeated, not for how long."""
    monkeypatch.setattr(eri_client, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(eri_client, "LONGEST_WAIT", 0.1)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


# The whole pipeline


def test_clues_and_reasons_of_every_clip(tmp_path):
    rows_of(tmp_path, 9)
    fer = {"id": "mosei/train/v003/0", "caption": "lips parted; brows knitted", "image": "peak.png", "frame": 2}
    Image.new("RGB", (2000, 1000)).save(tmp_path / "peak.png")
    nothing_moved = {**fer, "id": "mosei/train/v004/0", "caption": None}  # as data_prep.fer writes it
    (tmp_path / "fer.jsonl").write_text(json.dumps(fer) + "\n" + json.dumps(nothing_moved) + "\n")
    with ModelServer(delay=0.02) as server:
        done = run(arguments(tmp_path, server.url, "--concurrency", "4", "--fer", str(tmp_path / "fer.jsonl")))
    assert done.returncode == 0, done.stderr
    assert "9 of 9 clips accepted" in done.stdout
    made = records(tmp_path / "out" / "eri.jsonl")
    assert [record["id"] for record in made] == [f"mosei/train/v{n:03}/0" for n in range(9)]
    assert made[0]["label"] == "happy" and "happy" in made[0]["reason"] and "number 0" in made[0]["reason"]
    assert set(made[0]["clues"]) == {"character", "scene"} and made[0]["clues"]["scene"].startswith("A ")
    assert made[0]["models"] == {"clues": "seer", "reason": "thinker"}
    assert made[0]["attempts"] == {"clues": 1, "reason": 1}
    clues = [ask for ask in server.asks if ask.pictures]
    assert sorted(ask.pictures for ask in clues) == [1] * 8 + [4], "a peak frame, or four frames of a clip"
    assert sum("lips parted; brows knitted" in ask.text for ask in clues) == 1
    assert server.most_at_once <= 4
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["accepted"] == 9 and report["rejected"] == 0
    for name in ("clue", "reason"):
        totals = report["servers"][name]
        assert (totals["requests"], totals["tokens_in"], totals["tokens_out"]) == (9, 900, 180)
        assert totals["failures"] == {}


def test_the_order_of_arrival_leaves_no_trace(tmp_path, quick):
    rows_of(tmp_path, 12)
    chance = random.Random(7)

    def answer(ask):
        time.sleep(chance.random() / 100)
        return clue_or_reason(ask)

    for out, concurrency in (("a", "1"), ("b", "12")):
        with ModelServer(answer=answer) as server:
            assert eri.main(arguments(tmp_path, server.url, "--concurrency", concurrency, out=out)) == 0
    for name in ("eri.jsonl", "rejected.jsonl", "review.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_key_is_in_no_file_and_no_message(tmp_path, quick, capsys):
    rows_of(tmp_path, 4)
    faults = {1: "500", 2: "echo-key"}
    with ModelServer(fault=lambda ask: faults.get(ask.nth)) as server:
        eri.main(arguments(tmp_path, server.url))
        assert server.keys == {f"Bearer {KEY}"}
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert b"[key]" in written and KEY.encode() not in written
    captured = capsys.readouterr()
    assert KEY not in captured.out + captured.err


def test_each_server_is_shown_its_own_key_only(tmp_path, quick, monkeypatch):
    rows_of(tmp_path, 2)
    monkeypatch.setenv("EMOVERSE_CLUE_API_KEY", "clue-key-0123456")
    with ModelServer() as clue, ModelServer() as reason:
        options = arguments(tmp_path, clue.url)
        options[options.index("--reason-url") + 1] = reason.url
        assert eri.main(options) == 0
    assert clue.keys == {"Bearer clue-key-0123456"} and reason.keys == {f"Bearer {KEY}"}


def test_one_server_after_the_other(tmp_path, quick, capsys):
    """One GPU holds one model at a time: clues first, reasons in a second run."""
    rows_of(tmp_path, 3)
    with ModelServer() as server:
        options = arguments(tmp_path, server.url)
        without = lambda name: [o for n, o in enumerate(options) if name not in (o, options[n - 1])]  # noqa: E731
        assert eri.main(without("--reason-url")) == 0
        assert "3 clips wait for their reason" in capsys.readouterr().err
        assert records(tmp_path / "out" / "eri.jsonl") == []
        assert eri.main([*without("--clue-url"), "--resume"]) == 0
        made = records(tmp_path / "out" / "eri.jsonl")
        sheet = tmp_path / "out" / "review.csv"
        with sheet.open(encoding="utf-8-sig", newline="") as file:
            shown = [row["reason"] for row in csv.DictReader(file)]
        assert len(made) == 3 and shown == [record["reason"] for record in made], "the sheet of the first run had none"
        filled_in = sheet.read_bytes().replace(b",,", b",reject,", 1)
        sheet.write_bytes(filled_in)
        capsys.readouterr()
        assert eri.main([*options, "--resume"]) == 0 == eri.main([*options, "--resume"])
        assert sheet.read_bytes() == filled_in, "work of a person is kept"
        assert capsys.readouterr().out.count("review.csv holds changes of yours") == 2
        assert set(server.received.values()) == {1}


# Faults of servers


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
def test_a_fault_is_counted_and_costs_one_more_request(tmp_path, quick, fault, kind):
    with ModelServer(fault=lambda ask: fault if ask.nth == 1 and "2" in ask.text else None) as server:
        target = Server("judge", server.url, "seer", KEY, timeout=1.0)
        questions = [question(n) for n in range(4)]
        with Journal(tmp_path / "j.jsonl", resume=False) as journal:
            started = time.monotonic()
            assert ask(target, questions, journal, concurrency=4) == []
            totals = journal.totals()["judge"]
    assert len(journal.answers) == 4 and totals["failures"] == {kind: 1} and totals["requests"] == 5
    assert set(server.answered.values()) == {1}
    if fault == "429":
        assert time.monotonic() - started >= 1.0, "Retry-After was not honoured"


def question(n: int, prompt: str = "What is number") -> Question:
    text = f'{prompt} {n}? A person says: "x". The person\'s emotion: happy'
    return Question(fingerprint(text), [{"role": "user", "content": text}], {"seed": 1}, {"id": n})


def test_a_slow_answer_is_waited_for(tmp_path, quick):
    with ModelServer(fault=lambda ask: "slow") as server:
        with Journal(tmp_path / "j.jsonl", resume=False) as journal:
            assert ask(Server("judge", server.url, "seer", KEY), [question(1)], journal) == []
        assert sum(server.received.values()) == 1


def test_a_server_that_is_away_for_a_while(tmp_path, quick, monkeypatch):
    """It dies after five answers and comes back at the same address: nothing lost, no answer fetched twice."""
    monkeypatch.setattr(eri_client, "LONGEST_WAIT", 1.0)
    with ModelServer(delay=0.02) as first:
        target, port = Server("judge", first.url, "seer", KEY, timeout=5.0), first.port
        outcome = {}

        def work():
            with Journal(tmp_path / "j.jsonl", resume=False) as journal:
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


def test_a_server_that_stays_away_ends_the_run_in_one_line(tmp_path, quick):
    alive = [True]
    with ModelServer(fault=lambda ask: None if alive[0] else "500") as server:
        target = Server("judge", server.url, "seer", KEY)
        with Journal(tmp_path / "j.jsonl", resume=False) as journal:
            ask(target, [question(n) for n in range(3)], journal)
            alive[0] = False
            with pytest.raises(InputError, match=r"given up.*no answer in 10 tries.*--resume"):
                ask(target, [question(n) for n in range(300)], journal, concurrency=8)
            assert len(journal.answers) == 3
        assert sum(server.received.values()) < 200, "300 questions were not tried one by one"


def test_questions_that_the_server_refuses_stay_unanswered(tmp_path, quick):
    with ModelServer(fault=lambda ask: "400" if "number 2?" in ask.text else None) as server:
        target = Server("judge", server.url, "seer", KEY)
        with Journal(tmp_path / "j.jsonl", resume=False) as journal:
            left = ask(target, [question(n) for n in range(4)], journal)
            assert [q.about["id"] for q in left] == [2]
            assert journal.totals()["judge"]["failures"] == {"bad_request": 1}


@pytest.mark.parametrize(
    "fault, words", [("400", "bad_request"), ("401", "key_refused"), ("404", "not_found"), ("429-hours", "wait 7200 s")]
)
def test_a_run_that_cannot_succeed_stops_early(tmp_path, quick, fault, words):
    with ModelServer(fault=lambda ask: fault) as server:
        with Journal(tmp_path / "j.jsonl", resume=False) as journal, pytest.raises(InputError, match=words) as caught:
            ask(Server("judge", server.url, "seer", KEY), [question(n) for n in range(500)], journal, concurrency=4)
        assert KEY not in str(caught.value) and "\n" not in str(caught.value)
        assert sum(server.received.values()) < 20


def test_a_full_server_that_answers_others_loses_nothing(tmp_path, quick):
    """One question is turned away fourteen times while others are answered: it is not given up."""
    with (
        ModelServer(fault=lambda ask: "429-bare" if ask.nth < 15 and "number 9?" in ask.text else None) as server,
        Journal(tmp_path / "j.jsonl", resume=False) as journal,
    ):
        assert ask(Server("judge", server.url, "seer", KEY), [question(n) for n in range(600)], journal) == []
        assert journal.totals()["judge"]["failures"] == {"rate_limited": 14}


def test_an_odd_answer_is_kept_as_text(tmp_path, quick):
    faults = {"number 0": "no-usage", "number 1": "surrogate", "number 2": "length"}
    with (
        ModelServer(fault=lambda ask: next((f for k, f in faults.items() if k in ask.text), None)) as server,
        Journal(tmp_path / "j.jsonl", resume=False) as journal,
    ):
        assert ask(Server("judge", server.url, "seer", KEY), [question(n) for n in range(3)], journal) == []
        totals = journal.totals()["judge"]
    with Journal(tmp_path / "j.jsonl", resume=True) as journal:
        assert journal.totals()["judge"] == totals and totals["answers_without_usage"] == 1
        assert {answer.finish for answer in journal.answers.values()} == {"stop", "length"}


# Wrong URL, model or key: one line before any work starts


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    "option, value, words",
    [
        ("--clue-url", "http://127.0.0.1:{closed}/v1", "no clue model can be asked there: connect"),
        ("--reason-url", "http://127.0.0.1:{port}/v2", "no reason model can be asked there: not_found"),
        ("--clue-url", "http://127.0.0.1:{port}", "should the URL end in /v1?"),
        ("--clue-url", "http://127.0.0.1:{port}/page", "not_json"),
        ("--clue-url", "127.0.0.1:{port}/v1", "must look like http://host:port/v1"),
        ("--clue-url", "ftp://127.0.0.1/v1", "must look like http://host:port/v1"),
        ("--reason-model", "thinkr", "serves no model 'thinkr', but: seer, thinker"),
        ("--rows", "{folder}/absent.jsonl", "no such file"),
        ("--media-root", "{folder}/absent", "holds none of the pictures"),
        ("--config", "{folder}/absent.yaml", "no such file"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(tmp_path, quick, option, value, words):
    rows_of(tmp_path, 2)
    with ModelServer() as server:
        options = arguments(tmp_path, server.url, "--config", str(ROOT / "configs" / "eri.yaml"))
        options[options.index(option) + 1] = value.format(closed=closed_port(), port=server.port, folder=tmp_path)
        with pytest.raises(InputError, match=words.replace("?", r"\?").replace("/", "/")) as caught:
            eri.main(options)
        assert "\n" not in str(caught.value)
        assert not server.received and not (tmp_path / "out").exists()


def test_a_mistake_ends_with_status_2_and_no_traceback(tmp_path):
    rows_of(tmp_path, 1)
    done = run(arguments(tmp_path, f"http://127.0.0.1:{closed_port()}/v1"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("error: http://127.0.0.1")


def test_a_wrong_key_is_named_and_not_shown(tmp_path, quick, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "wrong-key-0123")
    rows_of(tmp_path, 1)
    with ModelServer() as server, pytest.raises(InputError, match=r"key_refused.*OPENAI_API_KEY") as caught:
        eri.main(arguments(tmp_path, server.url))
    assert "wrong-key-0123" not in str(caught.value)


def test_a_gateway_without_a_model_list_is_asked_for_one_token(quick):
    with ModelServer(models=None, answer=lambda ask: "Hi") as server:
        check(Server("judge", server.url, "anything", KEY))
        assert sum(server.received.values()) == 1
    with ModelServer(models=None, fault=lambda ask: "404") as server, pytest.raises(InputError, match="not_found"):
        check(Server("judge", server.url, "anything", KEY))


def test_password_and_query_of_a_url_are_not_written_down():
    assert Server("judge", "http://me:secret@host:1/v1?key=secret", "m", "k").shown_url == "http://host:1/v1"
    assert "k3y" not in repr(Server("judge", "http://host", "m", "k3y"))


@pytest.mark.parametrize(
    "row, words",
    [
        ({"channel": "mosei.msa", "response": "Positive."}, "holds no emotion label"),
        ({"channel": "mosei"}, "is not a channel"),
        ({"response": "Joyous."}, "'Joyous.' is not an emotion of mosei"),
        ({"query": "no identifier"}, "has no <emotion>"),
        ({"id": "mosei/train/v000/0"}, "duplicate id"),
        ({"query": None, "id": "new"}, "has no <emotion>"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, words):
    file = rows_of(tmp_path, 1)
    good = records(file)[0]
    file.write_text(json.dumps(good) + "\n" + json.dumps(good | {"id": "other"} | row) + "\n")
    with pytest.raises(InputError, match=words) as caught:
        eri.read_clips([file], tmp_path / "media", None, CONFIG)
    assert caught.value.row == 2


@pytest.mark.parametrize(
    "change, words",
    [
        ({"attempts": 0}, "at least 1"),
        ({"attempts": "three"}, "attempts must be of type int"),
        ({"attemps": 3}, "unknown key attemps"),
        ({"clues": {"system": "x", "user": "y {who}", "params": {}}}, "no field {who}"),
        ({"clues": {"system": "x", "user": "y {", "params": {}}}, "clues.user"),
        ({"prices": {"m": {"input": 1}}}, "prices.m needs"),
        ({"quality": RULES | {"refusal": ["("]}}, "quality.refusal"),
        ({"quality": RULES | {"emotions": {"happy": [True]}}}, "quality.emotions.happy"),
    ],
)
def test_a_bad_config_is_named(tmp_path, change, words):
    file = tmp_path / "eri.yaml"
    file.write_text(yaml.safe_dump(CONFIG | change))
    with pytest.raises(InputError) as caught:
        eri.read_config(file)
    assert words in str(caught.value)


# Media


def test_clips_without_a_usable_picture_are_kept_aside(tmp_path, quick):
    file = rows_of(tmp_path, 5)
    media = tmp_path / "media"
    (media / "0.png").unlink()
    (media / "1.mp4").write_bytes((media / "1.mp4").read_bytes()[:200])
    (media / "2.png").write_bytes((media / "2.png").read_bytes()[:40])
    rows = records(file)
    del rows[3]["images"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ModelServer() as server:
        assert eri.main(arguments(tmp_path, server.url)) == 0
        assert sum(server.received.values()) == 2
    aside = records(tmp_path / "out" / "rejected.jsonl")
    assert [record["rejected"]["rule"] for record in aside] == ["no_picture"] * 4
    assert [record["id"] for record in records(tmp_path / "out" / "eri.jsonl")] == ["mosei/train/v004/0"]


def test_frames_come_from_the_centres_of_equal_parts(tmp_path):
    draw_clip(tmp_path / "a.mp4", frames=12)
    urls = eri.pictures(tmp_path / "a.mp4", frames=4, longest_side=896, jpeg_quality=95)
    shades = [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))).mean() for url in urls]
    assert shades == pytest.approx([n * 255 // 12 for n in (1, 4, 7, 9)], abs=6)
    assert len(eri.pictures(tmp_path / "a.mp4", frames=40, longest_side=32, jpeg_quality=90)) == 12


# Kill and resume


def test_killed_again_and_again_asks_nothing_twice(tmp_path, quick):
    """SIGKILL at random moments, then --resume: the files of an uninterrupted run, every answer kept once."""
    rows_of(tmp_path, 40)
    moments = random.Random(3)
    with ModelServer() as server:
        assert eri.main(arguments(tmp_path, server.url, out="whole")) == 0
    with ModelServer(delay=0.05) as server:
        options = arguments(tmp_path, server.url, "--concurrency", "4", "--resume")
        for _ in range(3):
            process = start(options)
            before, seconds = sum(server.received.values()), moments.uniform(0.05, 0.4)
            while process.poll() is None and sum(server.received.values()) == before:
                time.sleep(0.01)
            time.sleep(seconds)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        assert 0 < sum(server.answered.values()) < 80, "the kills came while there was work"
        last = run(options)
        assert last.returncode == 0, last.stderr
        assert sum(server.answered.values()) - 80 <= 3 * 4, "more than what was in flight was asked again"
        journal = records(tmp_path / "out" / "journal.jsonl")
        assert len({line["key"] for line in journal}) == len(journal) == 80, "an answer was fetched twice"
        received = sum(server.received.values())
        assert eri.main(options) == 0
        assert sum(server.received.values()) == received, "a finished run asks nothing"
    for name in ("eri.jsonl", "rejected.jsonl", "review.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_two_runs_on_one_folder_and_a_run_without_resume_are_refused(tmp_path, quick):
    rows_of(tmp_path, 2)
    with ModelServer() as server:
        held = Journal(tmp_path / "out" / "journal.jsonl", resume=False)
        with held, pytest.raises(InputError, match="another run is writing"):
            eri.main(arguments(tmp_path, server.url))
        assert eri.main(arguments(tmp_path, server.url)) == 0
        with pytest.raises(InputError, match="go on with --resume"):
            eri.main(arguments(tmp_path, server.url))
        assert set(server.received.values()) == {1}


def test_an_eri_file_made_elsewhere_is_not_overwritten(tmp_path, quick):
    rows_of(tmp_path, 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "eri.jsonl").write_text("{}\n")
    with ModelServer() as server, pytest.raises(InputError, match="would be lost"):
        eri.main(arguments(tmp_path, server.url))


@pytest.fixture(scope="module")
def journal_bytes(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    with (
        ModelServer(fault=lambda ask: "no-choices" if ask.nth == 1 and "3?" in ask.text else None) as server,
        pytest.MonkeyPatch.context() as patch,
        Journal(path, resume=False) as journal,
    ):
        patch.setattr(eri_client, "FIRST_WAIT", 0.01)
        ask(Server("judge", server.url, "seer", KEY), [question(n, "Wie heißt ⌘") for n in range(6)], journal)
    return path.read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1))
def test_a_journal_cut_anywhere_keeps_its_whole_lines(tmp_path, journal_bytes, cut):
    path = tmp_path / "cut.jsonl"
    path.write_bytes(journal_bytes[: round(cut * len(journal_bytes))])
    lines = path.read_bytes().count(b"\n")
    with Journal(path, resume=True) as journal:
        assert journal.totals().get("judge", {"requests": 0})["requests"] == lines
    assert path.read_bytes().count(b"\n") == lines and path.read_bytes()[-1:] in (b"", b"\n")


def test_a_journal_that_is_not_ours_is_named(tmp_path):
    (tmp_path / "j.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    with pytest.raises(InputError, match=r"j\.jsonl:1: is not a line of this journal"):
        Journal(tmp_path / "j.jsonl", resume=True)


# Quality rules

PROMPT = CONFIG["reason"]["system"] + "\n" + CONFIG["reason"]["user"]


@pytest.mark.parametrize(
    "rule, label, text",
    [
        (None, "happy", "She is happy because she finally got the job that she wanted for so many years."),
        (None, "joy", "He is delighted with the gift and cannot stop smiling at the people around him."),
        # empty, short, long
        ("empty", "happy", ""),
        ("empty", "happy", " … -- !"),
        ("too_short", "happy", "Because of the job."),
        ("too_long", "happy", "She is happy with the job and the people. " * 20),
        # refusals, and words that only look like one
        ("refusal", "happy", "I'm sorry, but I can't help with that."),
        ("refusal", "happy", "I’m sorry, I cannot identify people in pictures, so the emotion is unknown to me."),
        ("refusal", "happy", "As an AI language model I do not feel, yet the person may be glad about the job."),
        ("refusal", "happy", "It is not possible to determine the reason from the words that are given here."),
        ("refusal", "happy", "Unfortunately I do not have enough information about the scene to give the reason."),
        (None, "sadness", "She says 'I am sorry' because she regrets what she has done to her old friend."),
        (None, "surprise", "'I cannot believe it', the man says, and the gift on the table has surprised him."),
        # other languages
        ("other_language", "happy", "La femme est heureuse parce qu'elle a enfin obtenu le travail tant voulu hier."),
        ("other_language", "happy", "Die Frau freut sich, weil sie endlich die ersehnte Stelle bekommen hat."),
        ("other_language", "happy", "La mujer está feliz porque por fin consiguió el trabajo que quería."),
        ("other_language", "happy", "这位女士很高兴，因为她终于得到了她想要的工作。"),
        ("other_language", "happy", "Она счастлива, потому что наконец получила работу, о которой мечтала."),
        # the prompt given back
        ("prompt_copy", "happy", "In two or three sentences, explain why the person feels this way. Draw on it."),
        # another emotion asserted
        ("contradiction", "happy", "The woman is clearly angry about what the others have said to her today."),
        ("contradiction", "happy", "He feels a mix of happiness and fear about the things that are to come."),
        ("contradiction", "neutral", "The emotion is anger, as the raised voice and the tense lips of the man show."),
        ("contradiction", "sadness", "Emotion: anger. The raised voice and the tense lips of the man show it."),
        ("contradiction", "surprise", "Her fear of the dog shows in the wide eyes and in the way she steps back."),
        # another emotion negated, of somebody else, or of a thing
        (None, "happy", "The woman feels joyful, not sad, since her friends came to see her today."),
        (None, "joy", "The man doesn't look angry at all; he is delighted with the gift on the table."),
        (None, "sadness", "She is sad because her father is angry with her and has left the room."),
        (None, "happy", "It is a sad story but she enjoys telling it to the others around the table."),
        (None, "neutral", "The person stays calm, without any anger or sadness in the face or the words."),
        # a label that the table does not know contradicts nothing
        (None, "nostalgia", "The woman is clearly angry about what the others have said to her today."),
    ],
)
def test_quality_of_reasons(rule, label, text):
    found = eri_quality.check("reason", text, "stop", PROMPT, label, RULES)
    assert (found and found[0]) == rule, found


def test_an_answer_that_was_cut_off_is_too_long():
    text = "She is happy because she finally got the job that she wanted for so many"
    assert eri_quality.check("reason", text, "length", PROMPT, "happy", RULES) == ("too_long", "cut off at max_tokens")


@pytest.mark.parametrize(
    "text, character, scene",
    [
        ("Character: a smile.\nScene: a kitchen.", "a smile.", "a kitchen."),
        ("**Character:** a smile.\n\n**Scene:** a\nkitchen.", "a smile.", "a kitchen."),
        ("Sure!\n- Character - a smile\n- Scene - a kitchen", "a smile", "a kitchen"),
        ('```json\n{"Character": "a smile", "scene": "a kitchen"}\n```', "a smile", "a kitchen"),
        ("CHARACTER: a smile. SCENE: a kitchen", "a smile.", "a kitchen"),
    ],
)
def test_clues_are_found_in_the_forms_that_models_write(text, character, scene):
    assert eri_quality.parse_clues(text) == {"character": character, "scene": scene}


@pytest.mark.parametrize("text", ["", "a smile in a kitchen", "Character: a smile", '{"character": "a", "scene": ""}'])
def test_clues_with_a_part_missing_are_malformed(text):
    assert eri_quality.parse_clues(text) is None


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=300) | st.text('{}":,characterscene \n*', max_size=80))
def test_no_text_breaks_the_rules(text):
    eri_quality.parse_clues(text)
    for kind in ("clues", "reason"):
        found = eri_quality.check(kind, text, "stop", PROMPT, "happy", RULES)
        assert found is None or (found[0] in eri_quality.RULES and "\n" not in found[1])


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join), max_size=12),
    similar=st.floats(0.3, 0.95),
    length=st.integers(1, 3),
)
def test_near_duplicates_are_those_of_comparing_all_pairs(texts, similar, length):
    named = [(str(n), text) for n, text in enumerate(texts)]
    runs = {name: eri_quality._runs(eri_quality.words(text), length) for name, text in named}
    kept, expected = [], set()
    for name, _ in named:
        alike = [k for k in kept if len(runs[k] & runs[name]) > similar * len(runs[k] | runs[name])]
        expected.add(name) if alike else kept.append(name)
    assert set(eri_quality.near_duplicates(named, length, similar)) == expected


def test_a_broken_rule_is_asked_again_with_another_seed_then_kept_aside(tmp_path, quick):
    """Clip 0 refuses once, clip 2 always contradicts, clip 3 has no scene; the others are good at once."""
    rows_of(tmp_path, 5)

    def answer(ask):
        if "number 0 " in ask.text and not ask.pictures and ask.seed == 42:
            return "I'm sorry, but I can't assist with that request."
        if "number 2 " in ask.text and not ask.pictures:
            return "The person is furious about what they have told him, as the words and the lips show."
        if "number 3 " in ask.text and ask.pictures:
            return "Character: a person with an open mouth who leans towards the window."
        return clue_or_reason(ask)

    with ModelServer(answer=answer) as server:
        assert eri.main(arguments(tmp_path, server.url)) == 0
    made = {record["id"][-5:-2]: record for record in records(tmp_path / "out" / "eri.jsonl")}
    aside = {record["id"][-5:-2]: record for record in records(tmp_path / "out" / "rejected.jsonl")}
    assert set(made) == {"000", "001", "004"} and made["000"]["attempts"] == {"clues": 1, "reason": 2}
    assert aside["002"]["rejected"]["rule"] == "contradiction" and "furious" in aside["002"]["reason"]
    assert aside["003"]["rejected"]["rule"] == "malformed" and aside["003"]["attempts"] == {"clues": 3}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rejected_by_rule"] == {"clues.malformed": 1, "reason.contradiction": 1}
    broken = {"clues.malformed": 3, "reason.contradiction": 3, "reason.refusal": 1}
    assert report["answers_that_broke_a_rule"] == broken
    assert sorted(ask.seed for ask in server.asks if "number 2 " in ask.text and not ask.pictures) == [42, 43, 44]


def test_near_duplicates_keep_the_first_clip_and_ask_the_others_again(tmp_path, quick):
    rows_of(tmp_path, 6)
    stock = "The person has every cause for it, as the words about the house and the garden make plain to all."

    def answer(ask):
        number = int(ask.text.partition("number ")[2].split()[0])
        if ask.pictures or number == 1:
            return clue_or_reason(ask)
        if number == 5:
            return stock  # whatever the seed
        return stock if ask.seed == 42 else clue_or_reason(ask)

    for out, concurrency in (("a", "1"), ("b", "6")):
        with ModelServer(answer=answer) as server:
            assert eri.main(arguments(tmp_path, server.url, "--concurrency", concurrency, out=out)) == 0
    made = records(tmp_path / "a" / "eri.jsonl")
    assert [record["attempts"]["reason"] for record in made] == [1, 1, 2, 2, 2]
    aside = records(tmp_path / "a" / "rejected.jsonl")
    assert [r["rejected"]["rule"] for r in aside] == ["near_duplicate"] and "v000" in aside[0]["rejected"]["detail"]
    assert (tmp_path / "a" / "eri.jsonl").read_bytes() == (tmp_path / "b" / "eri.jsonl").read_bytes()


def test_cost_is_known_where_a_price_is(tmp_path, quick):
    rows_of(tmp_path, 2)
    prices = {"thinker": {"input": 1.0, "output": 10.0}}
    (tmp_path / "eri.yaml").write_text(yaml.safe_dump(CONFIG | {"prices": prices}))
    with ModelServer() as server:
        assert eri.main(arguments(tmp_path, server.url, "--config", str(tmp_path / "eri.yaml"))) == 0
    servers = json.loads((tmp_path / "out" / "report.json").read_text())["servers"]
    assert servers["reason"]["cost_usd"] == pytest.approx((200 * 1.0 + 40 * 10.0) / 1e6, abs=1e-4)
    assert "cost_usd" not in servers["clue"]


# Review


def record(name: str, reason: str = "a reason", **more: object) -> dict:
    clues = {"character": "c", "scene": "s"}
    return {"id": name, "reason": reason, "clues": clues, "label": "happy", **more}


REJECTED = {"rejected": {"pass": "reason", "rule": "contradiction", "detail": "…"}}


def write_review(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            sheet = csv.DictWriter(file, ["id", "decision", "reason"], delimiter=";" if "semi" in path.name else ",")
            sheet.writeheader()
            sheet.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["review.csv", "semicolons.csv", "review.jsonl"])
def test_accept_reject_edit(tmp_path, name):
    made = [record("a"), record("b"), record("c", "a third"), record("d", **REJECTED), record("e", "", **REJECTED)]
    decisions = [
        {"id": "a", "decision": "reject", "reason": ""},
        {"id": "b", "decision": "", "reason": "a reason"},
        {"id": "c", "decision": "Edit", "reason": "better, “said”\nanew; so"},
        {"id": "d", "decision": "accept", "reason": ""},
        {"id": "e", "decision": "edit", "reason": "written by hand"},
    ]
    review = write_review(tmp_path / name, decisions)
    after = {r["id"]: r for r in eri_review.apply_review(made, review)}
    assert [name for name, r in after.items() if "rejected" not in r] == ["b", "c", "d", "e"]
    assert after["c"]["reason"] == "better, “said” anew; so" and after["c"]["model_reason"] == "a third"
    assert after["a"]["rejected"]["rule"] == "reviewer" and after["d"]["overruled"]["rule"] == "contradiction"
    assert list(after.values()) == eri_review.apply_review(after.values(), review), "twice is once"
    undone = write_review(tmp_path / "blank.csv", [{"id": n, "decision": "", "reason": ""} for n in "abcde"])
    assert eri_review.apply_review(after.values(), undone) == made


@pytest.mark.parametrize(
    "row, words",
    [
        ({"id": "zz", "decision": "accept"}, "no record has the id zz"),
        ({"id": "a", "decision": "maybe"}, "'maybe' is not accept"),
        ({"id": "a", "decision": "edit", "reason": " "}, "an edit needs the new reason"),
        ({"id": "a", "decision": "", "reason": "changed text"}, "write edit as its decision"),
        ({"id": "a", "decision": "accept", "reason": "changed text"}, "write edit as its decision"),
        ({"id": "e", "decision": "accept", "reason": ""}, "no reason to accept"),
        ({"id": "", "decision": "accept"}, "has no id"),
        ({"id": "b", "decision": "accept"}, "b comes twice"),
    ],
)
@pytest.mark.parametrize("name", ["review.csv", "review.jsonl"])
def test_a_bad_review_is_named(tmp_path, name, row, words):
    review = write_review(tmp_path / name, [{"id": "b", "decision": "accept"}, row])
    with pytest.raises(InputError, match=words) as caught:
        eri_review.apply_review([record("a"), record("b"), record("e", "", **REJECTED)], review)
    assert caught.value.row == (3 if name == "review.csv" else 2)


@pytest.mark.parametrize(
    "row, words",
    [
        ({"id": "a", "decision": "accept", "reason": 7}, "an edit needs"),
        ({"id": "a", "decision": ["accept"]}, "is not accept"),
        ({"id": 5, "decision": "accept"}, "has no id"),
        ({"decision": "accept"}, "has no id"),
    ],
)
def test_a_review_line_of_other_types_is_named(tmp_path, row, words):
    with pytest.raises(InputError, match=words):
        eri_review.read_review(write_review(tmp_path / "review.jsonl", [row]))


@pytest.mark.parametrize(
    "content, words",
    [
        (b"id,reason\na,b\n", "has no column decision"),
        (b"", "has no column id"),
        (b"id,decision,reason\na,accept\n", "more or fewer fields"),
        (b"id,decision,reason\na,accept,b,c\n", "more or fewer fields"),
        (b'id,decision,reason\na,accept,"b\n', "is not CSV"),
        (b"id,decision\n\xff\xfe,accept\n", "is not UTF-8"),
    ],
)
def test_a_broken_review_sheet_is_named(tmp_path, content, words):
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(InputError, match=words):
        eri_review.read_review(tmp_path / "r.csv")
    with pytest.raises(InputError, match=r"\.csv or a \.jsonl"):
        eri_review.read_review(tmp_path / "r.xlsx")


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(str.strip)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reasons=st.lists(TEXTS, min_size=1, max_size=5), edited=TEXTS)
def test_the_sheet_that_is_written_is_read_back(tmp_path, reasons, edited):
    made = [record(f"id,{n};", " ".join(reason.split()) or "x") for n, reason in enumerate(reasons)]
    seen = {r["id"]: {"transcript": r["reason"], "media": "m.png"} for r in made}
    path = tmp_path / "review.csv"
    path.unlink(missing_ok=True)
    assert eri_review.write_sheet(path, made, seen) and not eri_review.write_sheet(path, made, seen)
    assert eri_review.apply_review(made, path) == made, "an untouched sheet changes nothing"
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0] |= {"decision": "edit", "reason": edited}
    with path.open("w", encoding="utf-8", newline="") as file:
        sheet = csv.DictWriter(file, rows[0])
        sheet.writeheader()
        sheet.writerows(rows)
    assert eri_review.apply_review(made, path)[0]["reason"] == " ".join(edited.split())


def test_a_review_of_other_clips_is_refused_before_any_work(tmp_path, quick):
    rows_of(tmp_path, 2)
    review = write_review(tmp_path / "r.csv", [{"id": "mosei/train/other/0", "decision": "reject", "reason": ""}])
    with ModelServer() as server, pytest.raises(InputError, match=r"r\.csv:2: no row has the id"):
        eri.main(arguments(tmp_path, server.url, "--review", str(review)))
    assert not server.received and not (tmp_path / "out").exists()


def test_review_of_a_finished_run_asks_nobody(tmp_path, quick):
    rows_of(tmp_path, 3)
    with ModelServer() as server:
        assert eri.main(arguments(tmp_path, server.url)) == 0
    out = tmp_path / "out"
    sheet = list(csv.DictReader((out / "review.csv").open(encoding="utf-8-sig", newline="")))
    assert [row["decision"] for row in sheet] == ["", "", ""] and sheet[0]["transcript"].startswith("well number 0")
    sheet[1]["decision"] = "reject"
    sheet[2] |= {"decision": "edit", "reason": "A reason by hand."}
    review = write_review(out / "mine.jsonl", sheet)
    assert eri.main(["--out", str(out), "--review", str(review)]) == 0
    assert [r["reason"] for r in records(out / "eri.jsonl")][1:] == ["A reason by hand."]
    assert json.loads((out / "report.json").read_text())["reviewed"] == {"edit": 1, "reject": 1}
    assert [r["id"] for r in eri_review.read_eri([out / "eri.jsonl"], review)] == [sheet[0]["id"], sheet[2]["id"]]
    assert len(eri_review.read_eri([out / "eri.jsonl"], write_review(tmp_path / "none.csv", []))) == 3


def test_the_builder_takes_a_review(project, world, tmp_path):
    eri_file = world / "mosei" / "eri.jsonl"
    first, second = [record for record in records(eri_file) if record["id"].startswith("mosei/train/")][:2]
    decisions = [
        {"id": first["id"], "decision": "reject", "reason": ""},
        {"id": second["id"], "decision": "edit", "reason": "A reason by hand."},
    ]
    command = ["-m", "data_prep.build_amt", "--mosei", world / "mosei", "--split", "train"]
    review = write_review(tmp_path / "review.csv", decisions)
    assert project(*command, "--out", tmp_path / "before").returncode == 0
    done = project(*command, "--out", tmp_path / "after", "--review", review)
    assert done.returncode == 0, done.stderr
    before, after = (records(tmp_path / name / "mosei.eri.train.jsonl") for name in ("before", "after"))
    expected = [
        row | ({"response": "A reason by hand."} if row["id"] == second["id"] else {})
        for row in before
        if row["id"] != first["id"]
    ]
    assert after == expected
    review = write_review(tmp_path / "wrong.csv", [{"id": "mosei/train/none/0", "decision": "accept", "reason": ""}])
    done = project(*command, "--out", tmp_path / "wrong", "--review", review)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "wrong.csv:2: no record has the id" in done.stderr
    assert not (tmp_path / "wrong").exists()
