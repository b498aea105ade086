"""ERI data: two passes over real servers, wrong input, rules and reviews in a run, kill and resume."""

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
import time
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from PIL import Image

from data_prep.eri import clips as eri_clips
from data_prep.eri import config as eri_config
from data_prep.eri import review as eri_review
from data_prep.eri import run as eri
from swift_plugins.chat_client import AnswerJournal
from swift_plugins.files import InputError
from tests.model_server import KEY, ModelServer, clue_or_reason
from tests.test_eri_review import records, write_review

ROOT = Path(__file__).resolve().parents[1]
CONFIG = yaml.safe_load((ROOT / "configs" / "eri.yaml").read_text(encoding="utf-8"))


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
            "facts": {"transcript": f"well number {n} it is what they told me", "dialogue": ""},
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


@pytest.fixture
def quick(monkeypatch):
    """Short waits between tries: what is tested is which requests are repeated, not for how long."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.1)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


# The whole pipeline


def test_clues_and_reasons_of_every_clip(tmp_path, quick, capsys):
    rows_of(tmp_path, 9)
    fer = {"id": "mosei/train/v003/0", "caption": "lips parted; brows knitted", "image": "peak.png", "frame": 2}
    Image.new("RGB", (2000, 1000)).save(tmp_path / "peak.png")
    nothing_moved = {**fer, "id": "mosei/train/v004/0", "caption": None}  # as data_prep.fer writes it
    (tmp_path / "fer.jsonl").write_text(json.dumps(fer) + "\n" + json.dumps(nothing_moved) + "\n")
    with ModelServer(delay=0.02) as server:
        options = arguments(tmp_path, server.url, "--concurrency", "4", "--fer", str(tmp_path / "fer.jsonl"))
        assert eri.main(options) == 0
    assert "9 of 9 clips accepted" in capsys.readouterr().out
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


def test_a_wrong_key_is_named_and_not_shown(tmp_path, quick, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "wrong-key-0123")
    rows_of(tmp_path, 1)
    with ModelServer() as server, pytest.raises(InputError, match=r"key_refused.*OPENAI_API_KEY") as caught:
        eri.main(arguments(tmp_path, server.url))
    assert "wrong-key-0123" not in str(caught.value)


@pytest.mark.parametrize(
    "row, words",
    [
        ({"channel": "mosei.msa", "response": "Positive."}, "holds no emotion label"),
        ({"channel": "mosei"}, "is not a channel"),
        ({"response": "Joyous."}, "'Joyous.' is not an emotion of mosei"),
        ({"id": "mosei/train/v000/0"}, "duplicate id"),
        ({"id": 7}, "id must be a text"),
        ({"response": None}, "has no response"),
        ({"facts": None}, r"has no facts\.transcript: build the rows again"),
        ({"facts": {"dialogue": "x"}}, r"has no facts\.transcript: build the rows again"),
        ({"facts": {"transcript": ["x"]}}, r"has no facts\.transcript: build the rows again"),
        ({"facts": {"transcript": "half \ud800"}}, "holds half of a surrogate pair"),
        ({"images": "0.png"}, "must be lists of paths"),
        ({"images": [{"bytes": "x"}]}, "must be lists of paths"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, words):
    file = rows_of(tmp_path, 1)
    good = records(file)[0]
    file.write_text(json.dumps(good) + "\n" + json.dumps(good | {"id": "other"} | row) + "\n")
    with pytest.raises(InputError, match=words) as caught:
        eri_clips.read_clips([file], tmp_path / "media", None, eri_config.load())
    assert caught.value.row == 2


@pytest.mark.parametrize(
    "record, words",
    [
        ({"id": 7, "caption": "x"}, "has no text under id"),
        ({"id": "a"}, "has no text under caption"),
        ({"id": "a", "caption": 1}, "has no text under caption"),
        ({"id": "a", "caption": None, "image": 1}, "image is not the path of a picture"),
        ({"id": "a", "caption": None, "image": {"path": "x"}}, "image is not the path of a picture"),
    ],
)
def test_a_bad_fer_record_is_named(tmp_path, record, words):
    (tmp_path / "fer.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match=rf"fer\.jsonl:1: {words}"):
        eri_clips.read_clips([rows_of(tmp_path, 1)], tmp_path / "media", tmp_path / "fer.jsonl", eri_config.load())


@pytest.mark.parametrize(
    "change, words",
    [
        ({"attempts": 0}, "attempts: Input should be greater than or equal to 1"),
        ({"attempts": 10**20}, "attempts: Input should be less than or equal to 100"),  # it would ask for ever
        ({"attempts": "three"}, "attempts: Input should be a valid integer, not 'three'"),
        ({"attemps": 3}, "attemps: unknown key"),
        ({"clues": {"system": "x", "user": "y {who}", "params": {}}}, "no field {who}"),
        ({"clues": {"system": "x", "user": "y {", "params": {}}}, "clues.user"),
        ({"prices": {"m": {"input": 1}}}, "prices.m.output: missing key"),
        ({"quality": CONFIG["quality"] | {"words": {"clues": [1, 2]}}}, "quality.words: missing key reason"),
        ({"quality": CONFIG["quality"] | {"refusal": ["("]}}, "quality.refusal"),
        ({"quality": CONFIG["quality"] | {"emotions": {"happy": [True]}}}, "quality.emotions.happy"),
    ],
)
def test_a_bad_config_is_named(tmp_path, change, words):
    file = tmp_path / "eri.yaml"
    file.write_text(yaml.safe_dump(CONFIG | change))
    with pytest.raises(InputError) as caught:
        eri_config.load(file)
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
    urls = eri_clips.pictures(tmp_path / "a.mp4", frames=4, longest_side=896, jpeg_quality=95)
    shades = [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))).mean() for url in urls]
    assert shades == pytest.approx([n * 255 // 12 for n in (1, 4, 7, 9)], abs=6)
    assert len(eri_clips.pictures(tmp_path / "a.mp4", frames=40, longest_side=32, jpeg_quality=90)) == 12


# Kill and resume


@pytest.mark.slow
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
        held = AnswerJournal(tmp_path / "out" / "journal.jsonl", resume=False)
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


# Rules and duplicates in a run


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
