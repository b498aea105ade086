"""From training to a served model with the project's scripts on the demo checkpoint: the same answers everywhere."""

import base64
import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from openai import OpenAI
from PIL import Image
from swift.pipelines import SwiftSft, export_main
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

import swift_plugins.emoverse  # noqa: F401
from swift_plugins.frames import sample_frames
from tests.conftest import free_port, in_process
from tests.test_adapters import swift
from tests.test_training import FLAGS, ROOT, run, start
from tests.tiny_amt import tiny_amt

SYSTEM = "You are an sentiment and emotion analysis expert."
REQUESTS = {  # one for each task; pictures and clips as names in the data folder
    "msa": (["0.png"], "mosei.msa test 0"),
    "mer": (["clip0.mp4"], "meld.mer test 0"),
    "fer": (["1.png"], "mosei.fer test 0"),
    "eri": ([], "mosei.eri: why is he angry?"),
    "ecpe": (["clip0.mp4", "clip1.mp4"], "ecf.ecpe test 0"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    data = tiny_amt(folder / "amt")
    settings = {"CONFIG": "demo", "MODEL": ROOT / "configs" / "demo" / "checkpoint", "DATA": data, "AMT_MEDIA": data}
    settings |= {"AMT_MIXTURES": data / "mixtures.yaml", "OMP_NUM_THREADS": "1", "HOME": folder}
    return {key: str(value) for key, value in settings.items()}


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """Stage 1; its adapter merged; stage 2 with a new adapter on the merged model; that merged as well."""
    output = tmp_path_factory.mktemp("trained") / "out"
    with pytest.MonkeyPatch.context() as patch:  # in this process: test_training runs shell/first_stage.sh often enough
        for key in ("AMT_MEDIA", "AMT_MIXTURES"):
            patch.setenv(key, world[key])
        patch.setenv("AMT_DATA", world["DATA"])
        patch.setenv("SWIFT_CONFIG_FILE", "")
        flags = [*FLAGS[:-2], "--model", world["MODEL"], "--output_dir", output / "stage1"]  # without the recorder
        SwiftSft(swift(ROOT / "configs" / "demo" / "stage1.yaml", *flags)).main()
    log = run("second_stage.sh", world, output, *FLAGS[:-2], MERGE="1")  # which calls export.sh
    assert f"merged model: {output / 'stage1-merged'}" in log and (output / "stage1-merged" / "README.md").is_file()
    checkpoint = max((output / "stage2").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    export_main(["--adapters", str(checkpoint), "--merge_lora", "true", "--output_dir", str(output / "merged")])
    done = in_process("-m", "swift_plugins.complete_export", output / "merged")
    assert done.returncode == 0, done.stderr
    return output


@contextlib.contextmanager
def served(world, output, **settings):
    """A client of shell/serve.sh, which ends with the block."""
    port = str(free_port())
    server = start("serve.sh", world | {"MODEL": ""}, output, PORT=port, **settings)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/v1/models", timeout=1).read()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, server.communicate()[0][-3000:]
                time.sleep(0.3)
        yield OpenAI(base_url=f"{address}/v1", api_key="none")
    finally:
        server.terminate()  # the script alone, as a supervisor does: nothing stays on the port
        try:
            server.communicate(timeout=30)
            with socket.socket() as again:
                again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                again.bind(("127.0.0.1", int(port)))
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def client(world, trained):
    with served(world, trained) as client:
        yield client


def part(path: Path) -> dict:
    """A file as a client sends it: a data URL."""
    kind, mime = ("video_url", "video/mp4") if path.suffix == ".mp4" else ("image_url", "image/png")
    return {"type": kind, kind: {"url": f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"}}


def stock_answer(merged: Path, files: list[Path], text: str) -> str:
    """What transformers alone says, from the merged folder."""
    model = AutoModelForImageTextToText.from_pretrained(merged, dtype=torch.float32).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(merged), AutoImageProcessor.from_pretrained(merged)
    picture = f"<img>{'<IMG_CONTEXT>' * model.config.image_seq_length}</img>\n"
    pictures, query = [], ""
    for file in files:
        if file.suffix == ".mp4":
            pictures += sample_frames(file, 8)
            query += "".join(f"Frame{i + 1}: {picture}" for i in range(8))
        else:
            pictures.append(Image.open(file))
            query += picture
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": query + text}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(prompt, return_tensors="pt")
    if pictures:
        inputs["pixel_values"] = processor(pictures, return_tensors="pt")["pixel_values"]
    ids = model.generate(
        **{k: inputs[k] for k in ("input_ids", "attention_mask", "pixel_values") if k in inputs},
        max_new_tokens=16,
        do_sample=False,
    )
    return tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.swift
def test_every_task_is_answered_as_stock_transformers_would(client, trained, world):
    """Stage 1 → merge → stage 2 → served adapter, against → merge → transformers without this project."""
    assert [model.id for model in client.models.list().data] == ["emoverse"]
    answers = {}
    for task, (names, text) in REQUESTS.items():
        files = [Path(world["DATA"]) / name for name in names]
        messages = [{"role": "user", "content": [*map(part, files), {"type": "text", "text": text}]}]
        reply = client.chat.completions.create(model="emoverse", messages=messages, max_tokens=16, temperature=0)
        answers[task] = reply.choices[0].message.content
        assert answers[task] == stock_answer(trained / "merged", files, text), task
    assert len(set(answers.values())) > 1, answers


@pytest.mark.swift
def test_a_broken_clip_is_an_error_of_the_request(client):
    clip = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
    messages = [{"role": "user", "content": [clip, {"type": "text", "text": "?"}]}]
    with pytest.raises(Exception, match="cannot be decoded as video"):
        client.chat.completions.create(model="emoverse", messages=messages, max_tokens=4)
    assert client.models.list().data, "and the server goes on"
