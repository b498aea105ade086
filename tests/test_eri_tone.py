"""The tone of the voice: a third served model hears the clips, over a real server."""

from __future__ import annotations

import io
import json
import signal
import time
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from data_prep.eri import review as eri_review
from data_prep.eri import run as eri
from swift_plugins.files import InputError
from swift_plugins.sound import RATE, read_sound
from tests.model_server import ModelServer, clue_or_reason
from tests.test_eri import CONFIG, arguments, draw_clip, quick, rows_of, start  # noqa: F401 (a fixture)
from tests.test_eri_review import records, write_review
from tests.test_sound import write_sound


def write_talk(path: Path, seconds: float = 1.0) -> Path:
    """A clip with a sound track of its own: a grey picture and a tone."""
    with av.open(str(path), "w") as file:
        picture, sound = file.add_stream("libx264", rate=10), file.add_stream("aac", rate=RATE, layout="mono")
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        for _ in range(round(10 * seconds)):
            file.mux(picture.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")))
        samples = np.sin(2 * np.pi * 440 * np.arange(round(RATE * seconds)) / RATE) * 0.5
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.rate = RATE
        file.mux([*picture.encode(), *sound.encode(frame), *sound.encode()])
    return path


def heard_rows(folder: Path, number: int) -> Path:
    """`rows_of`, each row with a sound file, but for the third, which has none; the second's clip has a sound track."""
    file = rows_of(folder, number)
    rows = records(file)
    for n, row in enumerate(rows):
        if n == 1:
            write_talk(folder / "media" / "1.mp4")
        elif n != 2:
            write_sound(folder / "media" / f"{n}.wav", 200 + 10 * n)
            row["audios"] = [f"{n}.wav"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def with_tone(folder: Path, url: str, *more: str, out: str = "out") -> list[str]:
    return arguments(folder, url, "--tone-url", url, "--tone-model", "listener", *more, out=out)


def test_a_clip_is_heard_and_its_reason_draws_on_the_tone(tmp_path, quick, capsys):  # noqa: F811
    heard_rows(tmp_path, 4)
    with ModelServer() as server:
        assert eri.main(with_tone(tmp_path, server.url)) == 0
    made = records(tmp_path / "out" / "eri.jsonl")
    assert len(made) == 4
    assert [record.get("tone", "")[:12] for record in made] == ["The voice is", "The voice is", "", "The voice is"]
    assert made[0]["models"] == {"clues": "seer", "reason": "thinker", "tone": "listener"}
    assert made[0]["attempts"] == {"clues": 1, "tone": 1, "reason": 1} and made[2]["attempts"] == {
        "clues": 1,
        "reason": 1,
    }
    tones = [ask for ask in server.asks if ask.sounds]
    assert len(tones) == 3 and not any(ask.pictures for ask in tones)
    with wave.open(io.BytesIO(next(ask for ask in tones if "number 0 " in ask.text).sounds[0])) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (RATE, 1, 2)
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32_767
    assert np.abs(samples - read_sound(tmp_path / "media" / "0.wav")).max() < 1e-4
    for record in made:
        number = f"number {int(record['id'][-5:-2])} "
        (reason,) = [ask for ask in server.asks if number in ask.text and "The person's emotion: " in ask.text]
        assert (f"How the voice of the person sounds: {record.get('tone')}" in reason.text) == ("tone" in record)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["without_sound"] == {"the row names no sound or clip": 1}
    assert report["servers"]["tone"]["requests"] == 3
    assert "no sound of 1 clips: the row names no sound or clip" in capsys.readouterr().out
    sheet = (tmp_path / "out" / "review.csv").read_text(encoding="utf-8-sig")
    assert "scene,tone,rejected" in sheet and made[0]["tone"] in sheet


def test_no_tone_asks_what_it_always_asked(tmp_path, quick):  # noqa: F811
    """A journal of a run without tones is gone on with; nothing about voices is asked or told."""
    heard_rows(tmp_path, 3)
    with ModelServer() as server:
        assert eri.main(arguments(tmp_path, server.url)) == 0
        assert not any(ask.sounds or "voice" in ask.text for ask in server.asks)
        clues = [key for key, _ in server.received.items()]
        assert eri.main(with_tone(tmp_path, server.url, "--resume")) == 0
        assert all(server.received[key] == 1 for key in clues), "the same question is not asked again"
    assert sum("tone" in record for record in records(tmp_path / "out" / "eri.jsonl")) == 2
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["servers"]["reason"]["requests"] == 3 + 2 and report["servers"]["clue"]["requests"] == 3


def test_sound_that_cannot_be_heard_is_no_question(tmp_path, quick):  # noqa: F811
    file = heard_rows(tmp_path, 4)
    (tmp_path / "media" / "0.wav").write_bytes(b"RIFF no sound")
    (tmp_path / "media" / "3.wav").unlink()
    rows = records(file)
    draw_clip(tmp_path / "media" / "1.mp4")  # without a sound track
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ModelServer() as server:
        assert eri.main(with_tone(tmp_path, server.url)) == 0
        assert not any(ask.sounds for ask in server.asks)
    assert len(records(tmp_path / "out" / "eri.jsonl")) == 4, "their reasons are made without it"
    counts = json.loads((tmp_path / "out" / "report.json").read_text())["without_sound"]
    assert sum(counts.values()) == 4 and counts["has no sound track"] == 1
    assert any("No such file" in reason for reason in counts)


def test_one_server_after_the_other(tmp_path, quick, capsys):  # noqa: F811
    heard_rows(tmp_path, 4)
    with ModelServer() as server:
        options = with_tone(tmp_path, server.url)

        def only(url: str) -> list[str]:
            gone = [n for n, option in enumerate(options) if option.endswith("-url") and option != url]
            return [option for n, option in enumerate(options) if n not in gone and n - 1 not in gone]

        assert eri.main(only("--clue-url")) == 0
        assert eri.main([*only("--reason-url"), "--resume"]) == 0
        assert "3 clips wait for their tone" in capsys.readouterr().err, "and so do their reasons"
        assert len(records(tmp_path / "out" / "eri.jsonl")) == 1, "the one without sound"
        assert eri.main([*only("--tone-url"), "--resume"]) == 0
        assert eri.main([*only("--reason-url"), "--resume"]) == 0
        assert len(records(tmp_path / "out" / "eri.jsonl")) == 4 and set(server.received.values()) == {1}


def test_a_broken_rule_is_asked_again_then_kept_aside_and_a_review_brings_it_back(tmp_path, quick):  # noqa: F811
    heard_rows(tmp_path, 2)

    def answer(ask):
        return "Loud." if ask.sounds and ("number 0 " in ask.text or ask.seed == 42) else clue_or_reason(ask)

    with ModelServer(answer=answer) as server:
        assert eri.main(with_tone(tmp_path, server.url)) == 0
    (made,) = records(tmp_path / "out" / "eri.jsonl")
    assert made["id"] == "mosei/train/v001/0" and made["attempts"]["tone"] == 2
    (aside,) = records(tmp_path / "out" / "rejected.jsonl")
    assert (aside["rejected"]["pass"], aside["rejected"]["rule"]) == ("tone", "too_short")
    assert aside["rejected"]["answer"] == "Loud." and aside["attempts"] == {"clues": 1, "tone": 3}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rejected_by_rule"] == {"tone.too_short": 1}
    assert report["answers_that_broke_a_rule"] == {"tone.too_short": 4}
    review = write_review(
        tmp_path / "r.jsonl", [{"id": aside["id"], "decision": "edit", "reason": "She is happy, for she says so."}]
    )
    assert eri.main(["--out", str(tmp_path / "out"), "--review", str(review)]) == 0
    assert len(eri_review.read_eri([tmp_path / "out" / "eri.jsonl"])) == 2


@pytest.mark.slow
def test_a_killed_run_asks_nothing_twice_and_ends_in_the_same_bytes(tmp_path, quick):  # noqa: F811
    heard_rows(tmp_path, 24)
    with ModelServer(delay=0.02) as server:
        assert eri.main(with_tone(tmp_path, server.url, out="whole")) == 0
    with ModelServer(delay=0.05) as server:
        options = with_tone(tmp_path, server.url, "--concurrency", "2", "--resume")
        process = start(options)
        while process.poll() is None and sum(1 for ask in server.asks if ask.sounds) < 8:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        answered = sum(server.answered.values())
        assert 0 < answered < 71
        assert eri.main(options) == 0
        assert sum(server.answered.values()) <= 71 + 2, "no more than what was in flight is asked again"
    for name in ("eri.jsonl", "rejected.jsonl", "review.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "config", "words"),
    [
        (["--tone-url", "{url}"], {}, "--tone-url needs --tone-model"),
        (["--tone-url", "{url}", "--tone-model", "deaf"], {}, "serves no model 'deaf', but: seer, thinker, listener"),
        (["--tone-url", "http://127.0.0.1:1/v1", "--tone-model", "x"], {}, "no tone model can be asked there: connect"),
        (["--tone-url", "{url}", "--tone-model", "listener"], {"tone": None}, "has no prompt for the tone"),
        ([], {"tone": CONFIG["tone"] | {"heard": "{voice}"}}, "tone.heard: no field {voice}"),
        ([], {"tone": CONFIG["tone"] | {"user": "{scene}"}}, "tone.user: no field {scene}"),
        ([], {"tone": CONFIG["tone"] | {"seconds": 0}}, "tone.seconds: Input should be greater than 0"),
        (
            [],
            {"quality": CONFIG["quality"] | {"words": {"clues": [1, 2], "reason": [1, 2]}}},
            "quality.words: missing key tone",
        ),
    ],
)
def test_a_mistake_is_one_line_before_any_work(tmp_path, quick, options, config, words):  # noqa: F811
    heard_rows(tmp_path, 2)
    content = {key: value for key, value in (CONFIG | config).items() if value is not None}
    (tmp_path / "eri.yaml").write_text(yaml.safe_dump(content))
    with ModelServer() as server:
        given = [option.format(url=server.url) for option in options]
        with pytest.raises(InputError) as error:
            eri.main(arguments(tmp_path, server.url, "--config", str(tmp_path / "eri.yaml"), *given))
        assert words in str(error.value) and "\n" not in str(error.value) and not server.received
    assert not (tmp_path / "out").exists()


def test_a_config_of_before_goes_on_without_the_tone(tmp_path, quick):  # noqa: F811
    rows_of(tmp_path, 1)
    content = {key: value for key, value in CONFIG.items() if key not in ("tone", "agents")}
    content["quality"] = content["quality"] | {"words": {"clues": [6, 160], "reason": [8, 120]}}
    content["reason"] = content["reason"] | {"user": content["reason"]["user"].replace("{heard}", "")}
    (tmp_path / "eri.yaml").write_text(yaml.safe_dump(content))
    with ModelServer() as server:
        assert eri.main(arguments(tmp_path, server.url, "--config", str(tmp_path / "eri.yaml"))) == 0
    assert len(records(tmp_path / "out" / "eri.jsonl")) == 1
