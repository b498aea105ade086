"""Every field of every file that a command reads, with values that nobody expects: no traceback, nothing half-written.

A case is one file with one hostile value in one place, and one command that reads it, called in this process. It may
succeed, or end with status 2, one line on stderr and every other file as it was. `make check` runs a part of the
cases; all of them are marked slow.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import importlib
import io
import json
import os
import shlex
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from PIL import Image

from swift_plugins.files import CONFIGS, run_cli
from tests.model_server import Asked, ModelServer, clue_or_reason
from tests.test_frames import write_clip

# JSON texts, since json.dumps writes no number of 5,000 digits and no list that is 100,000 deep.
VALUES = {
    "null": "null",
    "true": "true",
    "a number": "7",
    "a negative number": "-1",
    "a fraction": "0.5",
    "NaN": "NaN",
    "infinity": "1e999",
    "5,000 digits": "9" * 5_000,
    "20 digits": "9" * 20,
    "an empty text": '""',
    "a text": '"x"',
    "a blank": '" "',
    "half a surrogate pair": '"a \\ud800 b"',
    "NUL": '"a\\u0000b"',
    "a line break": '"a\\nb\\u2028c"',
    "a way out": '"../../../etc/passwd"',
    "a long name": json.dumps("a/" + "b" * 5_000),
    "a media tag": '"<image>{transcript}%s"',
    "an empty list": "[]",
    "a list": '["x", 7]',
    "a list of lists": "[[[]]]",
    "an empty object": "{}",
    "an object": '{"x": {"y": [null]}}',
    "200 deep": "[" * 200 + "]" * 200,
    "900 deep": '{"a":' * 900 + "1" + "}" * 900,
}
LARGE = {"100,000 deep": "[" * 100_000 + "]" * 100_000, "10 MB": json.dumps("x é " * 2_000_000)}
NOT_TEXT = {
    "true",
    "a number",
    "a negative number",
    "a fraction",
    "20 digits",
    "a list",
    "a list of lists",
    "an object",
}
CELLS = {name: json.loads(text).encode("utf-8", "surrogatepass") for name, text in VALUES.items() if text[0] == '"'}
CELLS |= {name: VALUES[name].encode() for name in ("NaN", "infinity", "5,000 digits", "20 digits", "a fraction")}
CELLS |= {
    "a negative number": b"-1",
    "minus infinity": b"-inf",
    "not UTF-8": b"\xff\xfe",
    "a quote": b'a"b',
    "commas": b",,,,",
}
LARGE_CELLS = {"10 MB": b"x" * 10_000_000, "100 kB": b"y" * 100_000}
# Whole files.
FILES = {
    "empty": b"",
    "blank lines": b"\n \n",
    "NULs": bytes(1000),
    "not UTF-8": b"\xff" * 100,
    "UTF-16": "{}".encode("utf-16"),
    "a number": b"7",
    "5,000 digits": b"9" * 5_000,
    "100,000 deep": b"[" * 100_000,
    "gzip": b"\x1f\x8b" + bytes(30),
    "a text": b'"x"\n',
    "a list": b"[]",
    "references": b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "a tag": b"!!python/object/apply:os.system [true]\n",
    "a date": b"a: 2024-99-99\n",
    "a merge": b"<<: 7\n",
    "a list as a key": b"? [a]\n: b\n",
}


@dataclass(frozen=True)
class Input:
    """A file that commands read. texts: fields in which nothing but a text is taken."""

    file: str
    commands: tuple[str, ...]
    texts: tuple[str, ...] = ()


BUILD = "data_prep.build_amt --missing-media text-only --jobs 1 --out out"
MMEVERSE = f"{BUILD} --mmeverse raw/mmeverse --split train"
SCORE = "compute_result result.jsonl --json out/scores.json"
ERI = "data_prep.eri.run --media-root raw --clue-model seer --reason-model thinker --clue-url {url} --reason-url {url}"
AGENTS = "data_prep.eri.run --media-root raw --agent image=seer --agent reason=thinker --agent-url image={url}"
FER = "data_prep.fer.run --dataset mosei --root raw/mosei --csv openface --jobs 1"
MERR = "data_prep.merr --root raw/merr --out out"
MIXTURE = "swift_plugins.mixture --mixtures mixtures.yaml --data amt --stage stage2 --json out/plan.json"
DOCTOR = "data_prep.doctor.__main__ --jobs 1 --report out"
INPUTS = [
    Input("raw/meld/train_sent_emo.csv", (f"{BUILD} --meld raw/meld --split train", f"{DOCTOR} --meld raw/meld")),
    Input("raw/meld/test_sent_emo.csv", (f"{BUILD} --meld raw/meld --split train --exclude-leaks all",)),
    Input(
        "raw/mosei/label.csv",
        (f"{BUILD} --mosei raw/mosei --split train", f"{DOCTOR} --mosei raw/mosei --media", f"{FER} --out out"),
    ),
    Input(
        "raw/mosei/emotions.csv", (f"{BUILD} --mosei raw/mosei --split train", f"{DOCTOR} --mosei raw/mosei --media")
    ),
    Input("raw/sdk/sdk_segments.csv", (f"{BUILD} --mosei raw/sdk --split train", f"{DOCTOR} --mosei raw/sdk")),
    Input("raw/labels/labels.csv", (f"{BUILD} --mosei raw/labels --split train", f"{DOCTOR} --mosei raw/labels")),
    Input(
        "raw/ecf/Subtask_2_train.json",
        (
            f"{BUILD} --ecf raw/ecf --split train",
            f"{DOCTOR} --ecf raw/ecf --media",
            "data_prep.hold_out --ecf raw/ecf --out out/held-out",
        ),
        tuple(f"0.conversation.0.{name}" for name in ("text", "speaker", "emotion", "video_name")),
    ),
    Input("raw/ecf/Subtask_2_test.json", (f"{BUILD} --ecf raw/ecf --split train --exclude-leaks all",)),
    Input(
        "raw/dfew/label/single_trainset_1.csv",
        (f"{BUILD} --dfew raw/dfew --split train", f"{DOCTOR} --dfew raw/dfew"),
    ),
    Input(
        "raw/merr/MERR_fine_grained.json",
        (
            f"{BUILD} --merr raw/merr --split train",
            f"{MERR} --export --dataset merr",
            f"{MERR} --import",
            f"{DOCTOR} --merr raw/merr",
        ),
        tuple(f"sample_1.{name}" for name in ("pseu_emotion", "text", "AU_list", "peak_index", "smp_reason_caption")),
    ),
    Input("raw/mmeverse/MAFW.csv", (MMEVERSE, MMEVERSE.replace("train", "test"))),
    Input("raw/mmeverse/MAFW_AU_gpt.csv", (MMEVERSE,)),
    Input("raw/mmeverse/MAFW_peak.json", (MMEVERSE,)),
    Input("raw/mer2023/test_NCEV.txt", (f"{BUILD} --mer2023 raw/mer2023 --split test",)),
    Input("raw/merr/MERR_coarse_grained.json", (f"{BUILD} --merr-coarse raw/merr --split train",)),
    Input("raw/merr/transcription_en_all.csv", (f"{BUILD} --merr-coarse raw/merr --split train",)),
    Input(
        "raw/mosei/fer.jsonl",
        (f"{BUILD} --mosei raw/mosei --split train", f"{DOCTOR} --mosei raw/mosei"),
        ("id", "caption", "image"),
    ),
    Input("raw/mosei/eri.jsonl", (f"{BUILD} --mosei raw/mosei --split train",), ("id", "reason")),
    Input(
        "raw/mosei/rejected.jsonl",
        (
            f"{BUILD} --mosei raw/mosei --split train --review review.csv",
            "data_prep.eri.run --out raw/mosei --review review.csv",
        ),
        ("id", "reason", "label", "rejected.rule", "rejected.detail", "rejected.pass"),
    ),
    Input(
        "review.csv",
        (
            f"{BUILD} --mosei raw/mosei --split train --review review.csv",
            "data_prep.eri.run --out raw/mosei --review review.csv",
        ),
    ),
    Input("review.jsonl", ("data_prep.eri.run --out raw/mosei --review review.jsonl",), ("id", "decision", "reason")),
    Input("raw/mosei/report.json", ("data_prep.eri.run --out raw/mosei --review review.csv",)),
    Input(
        "prompts.yaml",
        (f"{BUILD} --ecf raw/ecf --mosei raw/mosei --prompts prompts.yaml --split train",),
        ("system", "tasks.mer", "formats.line"),
    ),
    Input("mer.jsonl", (f"{BUILD} --ecf raw/ecf --split test --ecf-emotions mer.jsonl",)),
    Input(
        "amt/report.train.json",
        (
            f"{BUILD.removesuffix('out')}amt --mosei raw/mosei --split test",
            f"{SCORE} --built amt/report.train.json",
        ),
    ),
    Input("amt/report.test.json", (f"{SCORE} --rows amt/ecf.ecpe.test.jsonl --semeval-submission out/s.json",)),
    Input("amt/mosei.msa.train.jsonl", (MIXTURE,), ("id", "channel", "query", "response")),
    Input("mixtures.yaml", (MIXTURE,)),
    Input(
        "amt/mosei.mer.train.jsonl",
        (f"{ERI} --rows amt/mosei.mer.train.jsonl --fer raw/mosei/fer.jsonl --out out",),
        ("id", "channel", "response", "facts.transcript"),
    ),
    Input(
        "raw/fer.jsonl",
        (f"{ERI} --rows amt/mosei.mer.train.jsonl --fer raw/fer.jsonl --out out",),
        ("id", "caption", "image"),
    ),
    Input(
        "eri.yaml",
        (
            f"{ERI} --rows amt/mosei.mer.train.jsonl --config eri.yaml --out out",
            f"{AGENTS} --rows amt/mosei.msa.train.jsonl --config eri.yaml --out out",
        ),
    ),
    Input(
        "eri/journal.jsonl",
        (f"{ERI} --rows amt/mosei.mer.train.jsonl --resume --out eri",),
        ("server", "text", "finish", "key"),
    ),
    Input("eri/report.json", (f"{ERI} --rows amt/mosei.mer.train.jsonl --resume --out eri",)),
    Input("result.jsonl", (f"{SCORE} --bootstrap 3", f"{SCORE} --report out"), ("channel",)),
    Input(
        "result2.jsonl", ("compute_result result2.jsonl --task mosei.mer --json out/scores.json --before result.jsonl",)
    ),
    Input(
        "amt/mosei.mer.test.jsonl", ("compute_result result2.jsonl --task mosei.mer --rows amt/mosei.mer.test.jsonl",)
    ),
    Input(
        "result.jsonl.judge.jsonl",
        (f"{SCORE} --judge {{url}} --judge-model seer",),
        ("server", "text", "finish", "key"),
    ),
    Input(
        "openface/train/v/1.csv",
        (
            f"{FER} --out out",
            "data_prep.peak_frame openface/train/v/1.csv --image out/p.png --video raw/mosei/Raw/v/1.mp4",
        ),
    ),
    Input(
        "facs.yaml",
        (f"{FER} --facs facs.yaml --out out", "data_prep.peak_frame openface/train/v/1.csv --facs facs.yaml"),
    ),
    Input("fer/.fer/settings.json", (f"{FER} --resume --out fer",)),
    Input("fer/.fer/done/one.jsonl", (f"{FER} --resume --contact-sheet --out fer",)),
]
MELD = """Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime
1,Where are the keys?,Ann,anger,negative,{0},0,1,1,"00:00:01,000","00:00:02,500"
2,On the table of course.,Bob,joy,positive,{0},1,1,1,"00:00:02,600","00:00:04,000"
"""
LABELS = "video_id,clip_id,text,label,annotation,mode\n" + "".join(
    f"v,{n},This is {word} and more of it.,{score},,{mode}\n"
    for n, (word, score, mode) in enumerate(
        [
            ("bad", -1.0, "train"),
            ("good", 2.0, "train"),
            ("fine", 1.0, "valid"),
            ("odd", 0.0, "test"),
            ("dull", -2.0, "test"),
        ]
    )
)
EMOTIONS = "happy,sad,anger,surprise,disgust,fear"
MERR_RECORD = {
    **{"peak_index": "4", "peak_AU_list": ["AU04", "AU25"], "AU_list": ["AU04"], "visual_prior_list": ["a frown"]},
    **{"audio_prior_list": "low", "pseu_emotion": "sad", "caption": "A man.", "smp_reason_caption": "He frowns."},
}
COLUMNS = ["frame", "face_id", "timestamp", "confidence", "success"]
COLUMNS += [f"AU{n:02}_r" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)]
COLUMNS += [f"AU{n:02}_c" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 28, 45)]
FER_RECORD = {"id": "mosei/train/v/0", "emotion": "sadness", "aus": ["AU04"], "phrases": ["brow lowered"]}
FER_RECORD |= {"caption": "brow lowered", "image": "peaks/0.png", "frame": 3, "face_id": 0, "score": 2.5}
ERI_RECORD = {"id": "mosei/train/v/0", "reason": "He has lost it.", "clues": {"character": "a man", "scene": "a room"}}
ERI_RECORD |= {
    "label": "sadness",
    "models": {"clues": "seer", "reason": "thinker"},
    "attempts": {"clues": 1, "reason": 1},
}
REJECTED = {"pass": "reason", "rule": "too_short", "detail": "2 words, fewer than 5"}
MIX = {
    "seed": 1,
    "stages": {
        "stage1": {"size": 1, "tasks": {"msa": {"weight": 1, "sources": ["mosei.msa"], "oversample": False}}},
        "stage2": {
            "size": "scarcest",
            "after": ["stage1"],
            "disjoint": "clip",
            "tasks": {"msa": {"weight": 1, "sources": ["mosei.msa"]}},
        },
    },
}


def conversation(number: int) -> dict:
    lines = [
        {"utterance_ID": n, "text": text, "speaker": "Cy", "emotion": emotion, "video_name": f"dia{number}utt{n}.mp4"}
        for n, text, emotion in ((1, f"It is gone for good, {number}.", "sadness"), (2, "What is?", "neutral"))
    ]
    lines[0]["video_source"] = ["e1", "00:00:01,0", "00:00:02,0"]
    return {"conversation_ID": number, "conversation": lines, "emotion-cause_pairs": [["1_sadness", "1"]]}


def jsonl(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def answers(folder: Path, channel: str) -> list[dict]:
    """Result rows of the test rows of a channel, as swift infer writes them."""
    rows = [json.loads(line) for line in (folder / f"amt/{channel}.test.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in row.items() if key != "query"}
        | {
            "labels": row["response"],
            "messages": [{"role": "user", "content": row["query"]}],
            "images": [{"path": "a.png"}],
        }
        for row in rows
    ]


def make_world(folder: Path, url: str) -> None:
    """Small and valid: each file that `INPUTS` names, and what the commands need beside it."""
    files = {f"raw/meld/{split}_sent_emo.csv": MELD.format(n) for n, split in enumerate(("train", "dev", "test"))}
    files |= {"raw/mosei/label.csv": LABELS, "raw/sdk/label.csv": LABELS}
    times = "".join(f"v,{n},{n}.0,{n}.9,1,0,0,0,0,0\n" for n in range(5))
    files["raw/mosei/emotions.csv"] = f"video_id,clip_id,start,end,{EMOTIONS}\n{times}"
    scores = [(-1.0, "train"), (2.0, "train"), (1.0, "valid"), (0.0, "test"), (-2.0, "test")]
    segments = "".join(f"v,{n}.0,{n}.9,{score},1,0,0,0,0,0\n" for n, (score, _) in enumerate(scores))
    files["raw/sdk/sdk_segments.csv"] = f"video_id,start,end,sentiment,{EMOTIONS}\n{segments}"
    labels = "".join(f"v,{n},{n}.0,{n}.9,{score},1,0,0,0,0,0,{mode}\n" for n, (score, mode) in enumerate(scores))
    files["raw/labels/labels.csv"] = f"video_id,clip_id,start,end,sentiment,{EMOTIONS},mode\n{labels}"
    for split, number in (("train", 1), ("test", 1400)):
        files[f"raw/ecf/Subtask_2_{split}.json"] = json.dumps([conversation(number), conversation(number + 1)])
    files["raw/dfew/label/single_trainset_1.csv"] = "video_name,label\n1,1\n00002,7\n"
    table = "video_id,mode,single_label,multi_label,text_whisper,response_Qwen2Audio,response_Qwen25vl_72B"
    rows = ["1,train,fear,fear;anxiety,Oh no,A high voice.,A face.", "2,test,anger,anger,Go,,"]
    files["raw/mmeverse/MAFW.csv"] = "\n".join([table, *rows]) + "\n"
    reasoned = f"{table},gpt-4o-mini_Single,gpt-4o-mini_Multi\n{rows[0]},Since she trembles.,Both are heard.\n"
    files["raw/mmeverse/MAFW_AU_gpt.csv"] = reasoned
    files["raw/mmeverse/MAFW_peak.json"] = json.dumps({"00001": {"peak_index": 3}})
    files["raw/mer2023/test_NCEV.txt"] = "sample_1 12 sad -10\nsample_2 30 happy 1.5\n"
    merr = dict.fromkeys(("sample_1", "sample_2"), MERR_RECORD)
    files["raw/merr/MERR_fine_grained.json"] = files["raw/merr/MERR_coarse_grained.json"] = json.dumps(merr)
    files["raw/merr/transcription_en_all.csv"] = "name,sentence\nsample_1,Hm\nsample_2,Oh\n"
    files["raw/mosei/fer.jsonl"] = jsonl(FER_RECORD, FER_RECORD | {"id": "mosei/train/v/1", "caption": None})
    files["raw/fer.jsonl"] = files["raw/mosei/fer.jsonl"].replace("peaks/", "mosei/peaks/")
    eri = [ERI_RECORD | {"id": f"mosei/test/v/{n}", "reason": f"She has lost the {n} keys."} for n in (3, 4)]
    edited = ERI_RECORD | {"id": "mosei/train/v/2", "review": "edit", "model_reason": "He lost.", "overruled": REJECTED}
    files["raw/mosei/eri.jsonl"] = jsonl(ERI_RECORD, *eri, edited)
    files["raw/mosei/rejected.jsonl"] = jsonl(ERI_RECORD | {"id": "mosei/train/v/1", "rejected": REJECTED})
    files["raw/mosei/report.json"] = "{}"
    files["review.csv"] = (
        "id,decision,reason,label\nmosei/train/v/0,edit,He has lost the keys.,sadness\nmosei/train/v/1,reject,,joy\n"
    )
    files["review.jsonl"] = jsonl({"id": "mosei/train/v/0", "decision": "edit", "reason": "He has lost the keys."})
    files["prompts.yaml"] = json.dumps(
        {
            "system": "Answer.",
            "tasks": {"mer": "{transcript} <emotion>"},
            "formats": {"line": "{index}: {text}", "separator": " "},
        }
    )
    files["mixtures.yaml"] = json.dumps(MIX)
    files["eri.yaml"] = json.dumps(yaml.safe_load((CONFIGS / "eri.yaml").read_text(encoding="utf-8")))
    files["facs.yaml"] = json.dumps(yaml.safe_load((CONFIGS / "facs.yaml").read_text(encoding="utf-8")))
    table = [[str(n + 1), "0", f"{n / 25:.3f}", "0.98", "1", *[f"{n % 5}.10"] * 17, *["1.00"] * 18] for n in range(12)]
    csv_text = "\n".join(map(",".join, [COLUMNS, *table])) + "\n"
    files |= {f"openface/{split}/v/{n}.csv": csv_text for n, (_, split) in enumerate(scores)}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for n in range(5):
        (folder / "raw/mosei/Raw/v").mkdir(parents=True, exist_ok=True)
        write_clip(folder / f"raw/mosei/Raw/v/{n}.mp4", n=12)
    for name in ("raw/mosei/peaks/0.png", "a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), "gray").save(folder / name)
    done_before = [
        f"{BUILD} --meld raw/meld --mosei raw/mosei --ecf raw/ecf --split train",
        f"{BUILD} --meld raw/meld --mosei raw/mosei --ecf raw/ecf --split test --ecf-mer",
    ]
    for line in done_before:
        succeed(folder, line.replace("--out out", "--out amt"))
    (folder / "mer.jsonl").write_text(jsonl(*answers(folder, "ecf.mer")))
    rows = [row for name in ("mosei.mer", "mosei.msa", "mosei.eri", "ecf.ecpe") for row in answers(folder, name)]
    (folder / "result.jsonl").write_text(jsonl(*rows))
    plain = [
        {k: v for k, v in row.items() if k not in ("id", "facts", "channel")} for row in answers(folder, "mosei.mer")
    ]
    (folder / "result2.jsonl").write_text(jsonl(*plain))
    for line in (
        f"{ERI} --rows amt/mosei.mer.train.jsonl --out eri",
        f"{SCORE} --judge {{url}} --judge-model seer",
        f"{FER} --out fer",
    ):
        succeed(folder, line.format(url=url))
    (done,) = (folder / "fer/.fer/done").glob("*.jsonl")
    done.rename(done.with_name("one.jsonl"))


def call(folder: Path, line: str) -> tuple[int, str]:
    """(exit status, stderr) of a command called in this process, its output encoded as a terminal's is."""
    module, *argv = shlex.split(line)
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.object(sys, "argv", [module, *argv]),
        pytest.raises(SystemExit) as ended,
    ):
        run_cli(importlib.import_module(module).main)
    return ended.value.code, err.buffer.getvalue().decode()


def succeed(folder: Path, line: str) -> None:
    status, said = call(folder, line)
    assert status == 0, f"{line}: {said}"


# Cases


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value of a JSON document; of a list, those of its first entry."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def put(document: object, path: tuple, value: object) -> object:
    if not path:
        return value
    document = copy.deepcopy(document)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


def hostile_json(text: str, values: dict[str, str]) -> Iterator[tuple[str, str, bytes]]:
    document = json.loads(text)
    for path in places(document):
        marked = json.dumps(put(document, path, "HERE"))
        for name, value in values.items():
            yield ".".join(map(str, path)), name, marked.replace('"HERE"', value, 1).encode()


def hostile_rows(text: str, values: dict[str, str]) -> Iterator[tuple[str, str, bytes]]:
    """In the first row."""
    first, _, rest = text.partition("\n")
    for where, name, row in hostile_json(first, values):
        yield where, name, row + b"\n" + rest.encode()


def hostile_table(text: str, cells: dict[str, bytes]) -> Iterator[tuple[str, str, bytes]]:
    """In the first row, and in the header."""
    header, row, *rest = csv.reader(io.StringIO(text))
    for number, column in enumerate(header):
        for line in (0, 1):
            for name, cell in cells.items():
                table = copy.deepcopy([header, row, *rest])
                table[line][number] = "HERE"
                written = io.StringIO()
                csv.writer(written, lineterminator="\n").writerows(table)
                yield (
                    f"{'header ' if line == 0 else ''}{column}",
                    name,
                    written.getvalue().encode().replace(b"HERE", cell),
                )


def hostile_words(text: str, cells: dict[str, bytes]) -> Iterator[tuple[str, str, bytes]]:
    """In the first line of a list whose fields stand between blanks."""
    first, _, rest = text.partition("\n")
    for number in range(len(words := first.encode().split(b" "))):
        for name, cell in cells.items():
            line = b" ".join([*words[:number], cell, *words[number + 1 :]])
            yield f"field {number + 1}", name, line + b"\n" + rest.encode()


def hostile(path: Path, large: bool) -> Iterator[tuple[str, str, bytes]]:
    """(where, what, content) of every hostile version of a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        yield from hostile_table(text, LARGE_CELLS if large else CELLS)
    elif path.suffix == ".txt":
        yield from hostile_words(text, LARGE_CELLS if large else CELLS)
    else:
        yield from (hostile_rows if path.suffix == ".jsonl" else hostile_json)(text, LARGE if large else VALUES)
    if not large:
        for name, content in FILES.items():
            yield "the whole file", name, content
        data = path.read_bytes()
        for share in (1, 3, 5, 7):
            yield "the whole file", f"{share} eighths", data[: len(data) * share // 8]


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def answer(ask: Asked) -> str:
    return clue_or_reason(ask) if "The person's emotion: " in ask.text and " says: " in ask.text else "7"


@dataclass
class Fuzz:
    """A valid folder, and what became of the cases that were tried in it."""

    folder: Path
    url: str
    cases: int = 0
    refused: int = 0
    slowest: float = 0.0

    def __post_init__(self) -> None:
        make_world(self.folder, self.url)
        self.before = snapshot(self.folder)

    def restore(self) -> None:
        for path in [path for path in self.folder.rglob("*") if path.is_file()]:
            if path not in self.before:
                path.unlink()
        for path, content in self.before.items():
            if not path.is_file() or path.read_bytes() != content:
                path.write_bytes(content)

    def try_one(self, given: Input, line: str, where: str, what: str, content: bytes) -> str | None:
        """What is wrong with the way in which one case ended, or None."""
        (self.folder / given.file).write_bytes(content)
        started = time.perf_counter()
        try:
            status, said = call(self.folder, line.format(url=self.url))
            after = snapshot(self.folder)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {error!s:.100} ({Path(frame.filename).name}:{frame.lineno})"
        finally:
            self.restore()
        self.cases, self.slowest = self.cases + 1, max(self.slowest, time.perf_counter() - started)
        if status == 2:
            self.refused += 1
            told = [row for row in said.replace("\r", "\n").split("\n") if row.strip() and "clip/s]" not in row]
            if len(told) != 1 or not told[0].startswith("error: ") or len(told[0]) > 2000:
                return f"says {told!r:.200}"
            changed = [
                path
                for path, old in (self.before | after).items()
                if path.name != Path(given.file).name and after.get(path) != self.before.get(path)
            ]
            return f"changed {changed[0].relative_to(self.folder)} and {len(changed)} in all" if changed else None
        if status not in (0, 1):
            return f"status {status}: {said[-200:]}"
        if where in given.texts and "doctor" not in line and what in NOT_TEXT | {"half a surrogate pair"}:
            return "is taken for a text"
        return None


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory) -> Iterator[Fuzz]:
    with ModelServer(answer=answer) as server:
        yield Fuzz(tmp_path_factory.mktemp("fuzz"), server.url)


def wrong_ends(fuzz: Fuzz, given: Input, line: str, share: float, large: bool = False) -> list[str]:
    """What went wrong with a share of the cases of a file, chosen evenly; one is in memory at a time."""
    found = []
    for number, (where, what, content) in enumerate(hostile(fuzz.folder / given.file, large)):
        if number and int(number * share) == int((number - 1) * share):
            continue
        if (wrong := fuzz.try_one(given, line, where, what, content)) is not None:
            found.append(f"{line.split()[0]}: {where} = {what}: {wrong}")
    return found


CASES = {f"{given.file} {n}": (given, line) for given in INPUTS for n, line in enumerate(given.commands)}


@pytest.mark.parametrize("given", INPUTS, ids=[given.file for given in INPUTS])
def test_a_few_of_the_cases(fuzz, given):
    line = given.commands[0]
    few = 2 if "{url}" in line else 6
    assert wrong_ends(fuzz, given, line, few / len(list(hostile(fuzz.folder / given.file, False)))) == []


@pytest.mark.slow
@pytest.mark.parametrize(("given", "line"), CASES.values(), ids=CASES.keys())
def test_all_of_the_cases(fuzz, given, line):
    """`EMOVERSE_FUZZ=1` tries every one, which takes a quarter of an hour; otherwise one in fifty."""
    before = fuzz.cases
    assert wrong_ends(fuzz, given, line, float(os.environ.get("EMOVERSE_FUZZ", 1 / 50))) == []
    print(f"{given.file}: {fuzz.cases - before:,} cases; {fuzz.refused:,} refused so far, at most {fuzz.slowest:.1f} s")


@pytest.mark.slow
@pytest.mark.parametrize("given", INPUTS, ids=[given.file for given in INPUTS])
def test_values_without_measure(fuzz, given):
    """10 MB in one field, and brackets 100,000 deep."""
    line = given.commands[0]
    share = float(os.environ.get("EMOVERSE_FUZZ", 1 / 50))
    assert wrong_ends(fuzz, given, line, share, large=True) == []
