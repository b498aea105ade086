"""The agents: who sees, who hears, and who knows the labels and merges, each behind a server of its own."""

from __future__ import annotations

import csv
import io
import json
import signal
import time
import wave
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from PIL import Image

from data_prep.eri import clips as eri_clips
from data_prep.eri import config as eri_config
from data_prep.eri import quality as eri_quality
from data_prep.eri import review as eri_review
from data_prep.eri import run as eri
from data_prep.records import Records, descriptions
from swift_plugins.files import InputError
from swift_plugins.sound import RATE
from swift_plugins.tasks import TASKS
from tests.model_server import ModelServer, clue_or_reason
from tests.test_eri import CONFIG, closed_port, quick, run, start  # noqa: F401 (a fixture)
from tests.test_eri_review import records, write_review
from tests.test_eri_tone import heard_rows

MODELS = {"image": "looker", "audio": "listener", "reason": "thinker"}
KEYS = {f"EMOVERSE_{name.upper()}_API_KEY": f"{name}-key-0123456789" for name in MODELS}
RULES = eri_config.load().quality


def agent_rows(folder: Path, number: int) -> None:
    """`heard_rows` (the third clip has no sound), a row of sentiment for each clip, and Action Units of its own."""
    rows = records(heard_rows(folder, number))
    fer, lines = [], []
    for n, row in enumerate(rows):
        sentiment = "Negative." if row["response"] in ("Anger.", "Sadness.") else "Positive."
        lines.append(row | {"channel": "mosei.msa", "response": sentiment})
        Image.new("RGB", (64, 48), (n, n, n)).save(folder / f"peak{n}.png")
        aus = ["AU12", f"AU{100 + n}"]  # one that the FACS table words, one that tells the clips apart
        fer.append({"id": row["id"], "caption": "lips parted", "image": f"peak{n}.png", "frame": 2, "peak_aus": aus})
    for name, content in (("msa.jsonl", lines), ("fer.jsonl", fer)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in content))


@contextmanager
def agents(**more) -> Iterator[dict[str, ModelServer]]:
    """A server for each agent, which serves no other's model."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(ModelServer(models=(model,), **more)) for name, model in MODELS.items()}


def arguments(folder: Path, servers: dict[str, ModelServer], *more: str, out: str = "out") -> list[str]:
    options = ["--rows", str(folder / "rows.jsonl"), str(folder / "msa.jsonl"), "--media-root", str(folder / "media")]
    options += ["--fer", str(folder / "fer.jsonl"), "--out", str(folder / out)]
    options += [part for name, model in MODELS.items() for part in ("--agent", f"{name}={model}")]
    return [*options, *(part for name, one in servers.items() for part in ("--agent-url", f"{name}={one.url}")), *more]


def test_each_is_shown_its_part_and_the_merger_knows_the_labels(tmp_path):
    """In a process of its own, with a key of its own for each server."""
    agent_rows(tmp_path, 4)
    with agents() as servers:
        done = run(arguments(tmp_path, servers), **KEYS)
        assert done.returncode == 0, done.stderr
        again = run(arguments(tmp_path, servers, "--resume"), **KEYS)
        assert again.returncode == 0, again.stderr
    looked, heard, merged = (servers[name].asks for name in MODELS)
    assert (len(looked), len(heard), len(merged)) == (4, 3, 4), "each once; a clip without sound is not asked about"
    for name, server in servers.items():
        assert server.keys == {f"Bearer {name}-key-0123456789"}
    assert all((ask.pictures, ask.sounds) == (1, ()) for ask in looked)
    for n in range(4):
        assert sum(f"AU12 (lip corners pulled up), AU{100 + n}\n" in ask.text for ask in looked) == 1
    assert all(ask.pictures == 0 and len(ask.sounds) == 1 for ask in heard)
    with wave.open(io.BytesIO(heard[0].sounds[0])) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (RATE, 1, 2)
    known = [f"emotion: {label}" for label in ("happy", "anger", "sadness", "neutral")]
    for words in ("happy", "anger", "sadness", "neutral", "positive", "negative", "well number"):
        assert not any(words in ask.text for ask in (*looked, *heard)), "they are told neither label nor words"
    made = records(tmp_path / "out" / "eri.jsonl")
    assert [record["label"] for record in made] == [
        "happy, positive",
        "anger, negative",
        "sadness, negative",
        "neutral, positive",
    ]
    for n, record in enumerate(made):
        (ask,) = [ask for ask in merged if f"well number {n} " in ask.text]
        assert (ask.pictures, ask.sounds) == (0, ()) and f"Known of the person: {known[n]}; sentiment: " in ask.text
        assert list(record["clues"]) == (["image"] if n == 2 else ["image", "audio"])
        assert all(clue in ask.text for clue in record["clues"].values())
        assert ("What is heard" in ask.text) == (n != 2) and "What is seen: " in ask.text
        assert descriptions(record) == record["clues"] and known[n] in record["reason"]
        assert record["models"] == MODELS and record["attempts"] == dict.fromkeys((*record["clues"], "reason"), 1)
    assert Records.read([tmp_path / "out" / "eri.jsonl"], "reason").by_id[made[0]["id"]][0] == made[0]["reason"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["without_sound"] == {"the row names no sound or clip": 1}
    assert {name: one["requests"] for name, one in report["servers"].items()} == {"image": 4, "audio": 3, "reason": 4}
    written = (
        b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir()) + (done.stdout + done.stderr).encode()
    )
    assert not any(key.encode() in written for key in KEYS.values())
    with (tmp_path / "out" / "review.csv").open(encoding="utf-8-sig", newline="") as file:
        sheet = list(csv.DictReader(file))
    assert list(sheet[0])[5:] == ["image", "audio", "rejected", "media"] and sheet[2]["audio"] == ""
    decisions = [
        {"id": made[0]["id"], "decision": "reject"},
        {"id": made[1]["id"], "decision": "edit", "reason": "So."},
    ]
    review = write_review(tmp_path / "r.jsonl", decisions)
    assert eri.main(["--out", str(tmp_path / "out"), "--review", str(review)]) == 0
    assert eri_review.read_eri([tmp_path / "out" / "eri.jsonl"])[0]["reason"] == "So."


@pytest.mark.slow
def test_a_killed_run_asks_nothing_twice_and_ends_in_the_same_bytes(tmp_path):
    agent_rows(tmp_path, 16)
    with agents() as servers:
        assert run(arguments(tmp_path, servers, out="whole"), **KEYS).returncode == 0
    total = 16 + 15 + 16
    with agents(delay=0.05) as servers:
        options = arguments(tmp_path, servers, "--concurrency", "2", "--resume")
        for name in ("image", "audio", "reason"):  # once while each of them answers
            process = start(options, **KEYS)
            while process.poll() is None and len(servers[name].asks) < 5:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        answered = sum(sum(server.answered.values()) for server in servers.values())
        assert 0 < answered < total, "the kills came while there was work"
        last = run(options, **KEYS)
        assert last.returncode == 0, last.stderr
        answered = sum(sum(server.answered.values()) for server in servers.values())
        assert answered <= total + 3 * 2, "no more than what was in flight is asked again"
        journal = records(tmp_path / "out" / "journal.jsonl")
        assert len({line["key"] for line in journal}) == len(journal) == total
    for name in ("eri.jsonl", "rejected.jsonl", "review.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_one_server_after_the_other_and_none_that_hears(tmp_path, quick, capsys):  # noqa: F811
    agent_rows(tmp_path, 4)
    with agents() as servers:
        assert eri.main(arguments(tmp_path, {"image": servers["image"]})) == 0
        assert eri.main(arguments(tmp_path, {"reason": servers["reason"]}, "--resume")) == 0
        assert "3 clips wait for their audio" in capsys.readouterr().err
        assert [record["id"][-5:-2] for record in records(tmp_path / "out" / "eri.jsonl")] == ["002"]
        assert eri.main(arguments(tmp_path, {"audio": servers["audio"]}, "--resume")) == 0
        assert eri.main(arguments(tmp_path, {"reason": servers["reason"]}, "--resume")) == 0
        assert len(records(tmp_path / "out" / "eri.jsonl")) == 4
        assert [len(servers[name].asks) for name in MODELS] == [4, 3, 4], "nobody is asked twice"
        deaf = arguments(tmp_path, {name: servers[name] for name in ("image", "reason")}, out="deaf")
        place = deaf.index("audio=listener")
        del deaf[place - 1 : place + 1]
        assert eri.main(deaf) == 0
        assert not any("heard" in ask.text for ask in servers["reason"].asks[4:])
        assert {len(record["clues"]) for record in records(tmp_path / "deaf" / "eri.jsonl")} == {1}


def test_answers_that_break_a_rule_are_asked_again_counted_and_kept_aside(tmp_path, quick):  # noqa: F811
    """Clip 0: the picture is refused; 1: nothing heard at first; 2: the other sentiment; 3: another emotion at first.

    A description that names another emotion than the label is kept: whoever looks is not told the label.
    """
    agent_rows(tmp_path, 5)
    first = eri_config.load().seed
    heard = []

    def answer(ask):
        good = clue_or_reason(ask)
        if "AU100\n" in ask.text:
            return "I'm sorry, but I can't help with that."
        if "AU104\n" in ask.text:
            return "She looks angry and leans towards the window, in a kitchen with a kettle on the table."
        if ask.sounds:
            heard.append(ask)
            return "" if len(heard) == 2 else good
        if "well number 2 " in ask.text:
            return f"She tells of a loss, and yet the sentiment is positive. {good}"
        if "well number 3 " in ask.text and ask.seed == first:
            return f"The person is furious about the words and about the room. {good}"
        return good

    with agents(answer=answer) as servers:
        assert eri.main(arguments(tmp_path, servers, "--concurrency", "1")) == 0
    made = {record["id"][-5:-2]: record for record in records(tmp_path / "out" / "eri.jsonl")}
    aside = {record["id"][-5:-2]: record for record in records(tmp_path / "out" / "rejected.jsonl")}
    assert set(made) == {"001", "003", "004"} and made["003"]["attempts"] == {"image": 1, "audio": 1, "reason": 2}
    assert "angry" in made["004"]["clues"]["image"] and made["004"]["label"] == "happy, positive"
    assert (aside["000"]["rejected"]["pass"], aside["000"]["rejected"]["rule"]) == ("image", "refusal")
    assert aside["002"]["rejected"]["detail"] == 'says "is positive", the label is negative'
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rejected_by_rule"] == {"image.refusal": 1, "reason.contradiction": 1}
    assert report["answers_that_broke_a_rule"] == {"audio.empty": 1, "image.refusal": 3, "reason.contradiction": 4}
    assert made["001"]["attempts"] == {"image": 1, "audio": 2, "reason": 1}


def test_a_list_of_other_agents(tmp_path, quick):  # noqa: F811
    """Two who look, by a config of one's own."""
    agent_rows(tmp_path, 2)
    listed = dict(CONFIG["agents"])
    listed["place"] = listed["image"] | {"user": "Describe the place only.", "told": "\nThe place: {place}"}
    listed["reason"] = listed["reason"] | {"user": "{place}{image}{audio} Known of the person: {labels}\nExplain it."}
    words = CONFIG["quality"]["words"] | {"place": [4, 100]}
    config = CONFIG | {"agents": listed, "quality": CONFIG["quality"] | {"words": words}}
    (tmp_path / "eri.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    with agents() as servers:
        url = servers["image"].url
        more = ("--agent", "place=looker", "--agent-url", f"place={url}", "--config", str(tmp_path / "eri.yaml"))
        assert eri.main(arguments(tmp_path, servers, *more)) == 0
    made = records(tmp_path / "out" / "eri.jsonl")
    assert [list(record["clues"]) for record in made] == [["image", "audio", "place"]] * 2
    assert all("The place: " in ask.text for ask in servers["reason"].asks)


# Mistakes: one line before any work


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image=looker": "eyes=looker"}, "--agent eyes: no such agent, but: image, audio, reason"),
        ({"image=looker": "looker"}, "--agent expects NAME=…"),
        ({"image=looker": "image="}, "--agent expects NAME=…"),
        ({"image=looker": "audio=looker"}, "--agent audio is given twice"),
        ({"image=looker": None}, "--agent image=MODEL is missing"),
        ({"audio=listener": None}, "--agent audio=MODEL is missing"),
        ({"reason=thinker": None}, "--agent reason=MODEL is missing"),
        ({"image=looker": "image=blind"}, "serves no model 'blind', but: looker"),
        ({"image={url}": "eyes={url}"}, "--agent-url eyes: no such agent"),
        ({"image={url}": "image=127.0.0.1"}, "the image URL must look like http://host:port/v1"),
        ({"image={url}": "http://me:secret@127.0.0.1/v1?key=x"}, "--agent-url expects NAME=…"),
        ({"image={url}": "image=http://127.0.0.1:{closed}/v1"}, "no image model can be asked there: connect"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(tmp_path, quick, change, words):  # noqa: F811
    agent_rows(tmp_path, 2)
    with agents() as servers:
        options = arguments(tmp_path, servers)
        for old, new in change.items():
            place = options.index(old.format(url=servers["image"].url))
            new = new and new.format(url=servers["image"].url, closed=closed_port())
            options[place - 1 : place + 1] = [options[place - 1], new] if new else []
        with pytest.raises(InputError) as error:
            eri.main(options)
        assert words in str(error.value) and "\n" not in str(error.value) and "secret" not in str(error.value)
        assert not any(server.received for server in servers.values()) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--agent-url", "image=http://x/v1"], "--agent-url needs --agent"),
        (["--agent", "image=a"], "--agent needs --rows, --media-root and an --agent-url"),
        (["--agent", "image=a", "--clue-url", "http://x/v1"], "stand instead of --clue-…"),
        (["--agent-url", "image=http://x/v1", "--reason-model", "a"], "stand instead of --clue-…"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        eri.main(["--out", str(tmp_path / "out"), *options])


def test_a_config_without_agents_is_named(tmp_path, quick):  # noqa: F811
    agent_rows(tmp_path, 1)
    (tmp_path / "eri.yaml").write_text(yaml.safe_dump({key: CONFIG[key] for key in CONFIG if key != "agents"} | QUIET))
    with agents() as servers, pytest.raises(InputError, match=r"eri\.yaml: has no agents"):
        eri.main(arguments(tmp_path, servers, "--config", str(tmp_path / "eri.yaml")))


QUIET = {"quality": CONFIG["quality"] | {"words": {"clues": [1, 9], "tone": [1, 9], "reason": [1, 9]}}}
IMAGE, AUDIO, REASON = (CONFIG["agents"][name] for name in MODELS)


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ({"image": IMAGE, "audio": AUDIO}, "agents: missing key reason"),
        ({"audio": AUDIO, "reason": REASON}, "agents: none takes pictures"),
        ({"image": IMAGE | {"takes": "smell"}, "reason": REASON}, "agents.image.takes: Input should be 'pictures'"),
        ({"image": IMAGE | {"takes": None}, "reason": REASON}, "agents: image: missing key takes"),
        ({"image": IMAGE | {"told": ""}, "reason": REASON}, "agents: image: missing key told"),
        ({"image": IMAGE, "reason": REASON | {"takes": "sound"}}, "agents: reason merges what the others answer"),
        ({"label": IMAGE, "reason": REASON}, "'label' cannot be the name of an agent"),
        ({"Eyes": IMAGE, "reason": REASON}, "'Eyes' cannot be the name of an agent"),
        ({"image": IMAGE, "reason": REASON | {"user": "{image}"}}, "name neither {label} nor {labels}"),
        ({"image": IMAGE, "reason": REASON}, "agents.reason.user: no field {audio}"),
        ({"image": IMAGE | {"user": "{audio}"}, "audio": AUDIO, "reason": REASON}, "image.user: no field {audio}"),
        ({"image": IMAGE | {"told": "{seen}"}, "audio": AUDIO, "reason": REASON}, "image.told: no field {seen}"),
        ({"eyes": IMAGE, "reason": REASON}, "quality.words: missing key eyes"),
        ({}, "quality.words.audio: unknown key"),
    ],
)
def test_a_bad_list_of_agents_is_named(tmp_path, listed, words):
    (tmp_path / "eri.yaml").write_text(yaml.safe_dump(CONFIG | {"agents": listed}))
    with pytest.raises(InputError) as error:
        eri_config.load(tmp_path / "eri.yaml")
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"channel": "mosei.eri", "response": "Because."}, "channel mosei.eri holds no label: give <dataset>.mer or "),
        ({"channel": "mosei.msa", "response": "Happy."}, "'Happy.' is not a sentiment of mosei"),
        ({"channel": "mosei.msa", "response": None}, "has no response"),
        ({"response": "Happy."}, "duplicate id"),
    ],
)
def test_a_row_without_a_label_is_named(tmp_path, row, words):
    agent_rows(tmp_path, 1)
    file = tmp_path / "rows.jsonl"
    (good,) = records(file)
    file.write_text(json.dumps(good) + "\n" + json.dumps(good | row) + "\n")
    with pytest.raises(InputError, match=words) as error:
        eri_clips.read_clips([file], tmp_path / "media", None, eri_config.load(), tuple(eri_clips.LABELLED))
    assert error.value.row == 2


@pytest.mark.parametrize("aus", ["AU12", [12], None])
def test_action_units_of_another_type_are_named(tmp_path, aus):
    agent_rows(tmp_path, 1)
    (record,) = records(tmp_path / "fer.jsonl")
    (tmp_path / "fer.jsonl").write_text(json.dumps(record | {"peak_aus": aus}) + "\n")
    with pytest.raises(InputError, match=r"fer\.jsonl:1: peak_aus is not a list of Action Units"):
        eri_clips.read_clips(
            [tmp_path / "rows.jsonl"], tmp_path / "media", tmp_path / "fer.jsonl", eri_config.load(), ("mer",)
        )


@pytest.mark.skipif("mlmer" not in TASKS, reason="there is no task of several labels here")
def test_several_labels_of_a_row(tmp_path):
    """MAFW has one label and several: the merger is told each once."""
    agent_rows(tmp_path, 1)
    (row,) = records(tmp_path / "rows.jsonl")
    rows = [row | {"channel": "mafw.mlmer", "response": "anger; disgust"}]
    rows.append(row | {"channel": "mafw.mer", "response": "anger"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (clip,) = eri_clips.read_clips(
        [tmp_path / "rows.jsonl"], tmp_path / "media", None, eri_config.load(), tuple(eri_clips.LABELLED)
    )
    assert clip.said["labels"] == "emotion: anger, disgust" and clip.label == "anger, disgust"


@pytest.mark.parametrize(
    ("labels", "text", "broken"),
    [
        ({"emotion": ("anger", "disgust")}, "She is disgusted by the food and angry about the words of the man.", None),
        (
            {"emotion": ("anger", "disgust")},
            "She is delighted with the food and with the words of the man.",
            "delighted",
        ),
        # a label that no line knows contradicts nothing, and takes nothing from one that a line knows
        ({"emotion": ("helplessness",)}, "She is delighted with the food and with the words of the man.", None),
        (
            {"emotion": ("helplessness", "sadness")},
            "She is delighted with the words of the man and the food.",
            "delight",
        ),
        (
            {"sentiment": ("negative",)},
            "Her opinion of the man is positive, for she speaks of it with a smile.",
            "positive",
        ),
        (
            {"sentiment": ("negative",)},
            "Her opinion of the man is not positive, for she speaks of it with a frown.",
            None,
        ),
        (
            {"sentiment": ("neutral",)},
            "Her opinion of the man is negative, for she speaks of it with a frown.",
            "negative",
        ),
        ({"sentiment": ("positive",)}, "Her expression is neutral, and yet she speaks of the film with praise.", None),
        ({"intent": ("wishing",)}, "She is angry about the film, for she speaks of it with a frown on her face.", None),
        ({}, "She is angry about the film, for she speaks of it with a frown on her face.", None),
    ],
)
def test_answers_are_held_against_every_label_that_the_model_knows(labels, text, broken):
    found = eri_quality.check("reason", text, "stop", "", labels, RULES)
    assert (found is None) if broken is None else (found[0] == "contradiction" and broken in found[1])


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"clues": {"image": "A man.", "audio": "A shout."}}, {"image": "A man.", "audio": "A shout."}),
        ({"clues": {"image": "A man."}}, {"image": "A man."}),
        (
            {"clues": {"character": "A man.", "scene": "A room."}, "tone": "Low."},
            {"image": "A man. A room.", "audio": "Low."},
        ),
        ({"clues": None, "tone": ["low", "slow"]}, {"audio": "low slow"}),  # as MERR lists them
        ({"clues": None}, {}),
    ],
)
def test_what_was_seen_and_heard_of_a_record(record, expected):
    assert descriptions(record) == expected
