"""The app in a real browser, on the demo's model: ask, browse 20,000 rows, review by keys; bad clips, two widths."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from app.engine import Question, ServedModel
from app.uploads import STALLED
from data_prep.eri.review import read_eri, read_review
from swift_plugins.files import write_rows
from swift_plugins.frames import sample_frames
from tests.conftest import CHROMIUM, ROOT, free_port
from tests.model_server import ModelServer

ABSENT = [name for name in ("gradio", "playwright") if find_spec(name) is None]
ABSENT += [] if CHROMIUM else ["chromium"]
needs_gradio = pytest.mark.skipif("gradio" in ABSENT, reason="gradio is not installed: the app is not tested")
browser_only = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}; the app is not looked at")
ROWS = 20_000
PATIENCE = 90_000  # milliseconds; other tests run on the same cores


def write_video(path: Path, frames: int = 25, rate: int = 25, every: int = 1, **options: str) -> Path:
    """A grey square, `every` ticks between two frames."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libvpx" if path.suffix == ".webm" else "libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 80 + number % 150, np.uint8))
            frame.pts = number * every
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for number in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Clips of drawn faces with their Action Units; AMT rows, results and ERI records about them."""
    from app.examples import make_examples

    folder = tmp_path_factory.mktemp("data")
    made = [Path(clip) for clip, *_ in make_examples(folder)]
    clips = folder / "raw" / "mosei" / "Raw" / "vid"
    clips.mkdir(parents=True)
    rows, peaks = [], []
    for number, clip in enumerate(made):
        shutil.copy(clip, clips / f"{number}.mp4")
        table = folder / "raw" / "mosei" / "openface" / "Raw" / "vid" / f"{number}.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip.parent / "openface" / f"{clip.stem}.csv", table)
        row = {"id": f"mosei/test/vid/{number}", "videos": [f"mosei/Raw/vid/{number}.mp4"]}
        row |= {"channel": "mosei.mer", "query": f"<video>Line {number} <b>here</b>\n<emotion> Which?"}
        rows.append(row | {"facts": {"transcript": f"Line {number} <b>here</b>"}, "response": "Happy."})
        peak = {"id": row["id"], "image": None, "frame": 9, "face_id": 0, "aus": ["AU12"]}
        peaks.append(peak | {"phrases": ["lip corners pulled up"]})
    write_rows(folder / "amt" / "mosei.mer.test.jsonl", rows)
    write_rows(folder / "amt" / "faults.test.jsonl", [{"fault": "no clip"}])  # as build_amt writes it beside them
    write_rows(folder / "raw" / "mosei" / "fer.jsonl", peaks)
    clues = {"character": "a smile", "scene": "a wall"}
    records = [{"reason": f"Reason {n}.", "clues": clues, "label": "happy"} for n in range(8)]
    write_rows(folder / "eri" / "eri.jsonl", ({"id": f"mosei/test/vid/{n}"} | r for n, r in enumerate(records)))
    answers = ("Happy.", "Anger.", "Happy.", "Sadness.", "well, happy")
    write_rows(
        folder / "result.jsonl",
        (
            rows[n % 4] | {"id": f"mosei/test/vid/{n % 4}-{n}", "labels": "Happy.", "response": answers[n % 5]}
            for n in range(ROWS)
        ),
    )
    return folder


class App:
    """A running app: its process, its address, the folder where it keeps uploads."""

    def __init__(self, folder: Path, *arguments: object):
        self.temporary = folder
        self.port = free_port()
        environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "OUTPUT_ROOT": str(folder / "none")}
        command = [sys.executable, "-m", "app", "--port", self.port, *arguments]
        self.process = subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("http://"):
                break
        self.url = lines[-1].strip()
        assert self.url == f"http://127.0.0.1:{self.port}", "".join(lines)

    def uploads(self) -> list[str]:
        """Names of the files that it keeps, beside its examples."""
        files = (path for path in self.temporary.glob("emoverse-app-*/**/*") if path.is_file())
        return [path.name for path in files if "examples" not in path.parts]

    def status(self, path: str, **headers: str) -> int:
        """The HTTP status of a page."""
        try:
            return urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers)).status
        except urllib.error.HTTPError as error:
            return error.code

    def end(self, number: int) -> str:
        """Send a signal; what is printed from then on."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=30)[0]


@pytest.fixture(scope="module")
def app(data, tmp_path_factory):
    arguments = ["--data", data / "amt", "--media-root", data / "raw", "--result", data / "result.jsonl"]
    running = App(tmp_path_factory.mktemp("temporary"), *arguments, "--eri", data / "eri", "--max-mb", 2)
    yield running
    running.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(app, chromium):
    """A page of the app; at its end nothing has gone wrong on it and nothing was asked of another server."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    page, complaints = context.new_page(), []
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    ours = (app.url, "data:", "blob:", "about:")
    page.on("request", lambda r: None if r.url.startswith(ours) else complaints.append(f"asked {r.url}"))
    page.complaints = complaints
    page.goto(app.url)
    yield page
    context.close()
    assert complaints == []


def opened(browser, url: str):
    """Another page."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    return page


def anew(page) -> None:
    """Load the page again. What it says while it is left, about requests that end with it, nobody sees."""
    known = len(page.complaints)
    page.reload()
    leaving = re.compile("AbortError|Connection errored out")
    page.complaints[known:] = [line for line in page.complaints[known:] if not leaving.search(line)]


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def ask(page, clip: Path, text: str = "") -> str:
    """Upload a clip and ask; the text of the answer."""
    page.set_input_files("#clip input[type=file]", clip)
    page.locator("#clip video").wait_for()
    page.fill("#transcript textarea", text)
    page.click("#ask")
    page.locator("#answer .timing, #answer .error").first.wait_for()
    return page.locator("#answer").inner_text()


def turn(page, key: str, card: str = "#row") -> float:
    """Press a key that shows another row or record; seconds until it is there."""
    before = page.locator(f"{card} .amt").get_attribute("data-id")
    start = time.perf_counter()
    page.keyboard.press(key)
    page.wait_for_function(
        "([card, old]) => document.querySelector(card + ' .amt').dataset.id != old", arg=[card, before]
    )
    return time.perf_counter() - start


def shoot(page, name: str) -> None:
    if keep := os.environ.get("EMOVERSE_SCREENSHOTS"):  # to look at them yourself
        page.screenshot(path=Path(keep) / f"app.{name}.png", full_page=True)


@browser_only
@pytest.mark.swift
def test_a_clip_is_uploaded_and_answered(app, page, data):
    clip = write_video(data / "été à la plage (1) #2.mp4", frames=125)  # 5 s
    answer = ask(page, clip, "I <video> love <b>this</b>!")
    bars = page.locator("#answer .task.mer .bar span:last-child").all_inner_texts()
    assert len(bars) == 7 and sum(float(bar.removesuffix("%")) for bar in bars) == pytest.approx(100, abs=0.4)
    assert len(page.locator("#answer .task.msa .bar").all()) == 2
    assert page.locator("#answer .task.eri .long, #answer .task.eri .answer").inner_text() != ""
    assert len(page.locator("#answer .strip img").all()) == 8
    seconds = [float(re.search(r"([\d.]+) s in all", answer)[1])]
    page.fill("#transcript textarea", "x" * 5_001)
    page.click("#ask")
    page.locator("#answer .error").wait_for()
    page.fill("#transcript textarea", "I love this!")
    page.click("#ask")  # warm
    page.locator("#answer .timing").wait_for()
    page.get_by_text("processing |").wait_for(state="hidden")
    seconds.append(float(re.search(r"([\d.]+) s in all", page.locator("#answer").inner_text())[1]))
    assert min(seconds) < 3, "a clip of 5 s within 3 s"
    shoot(page, "ask.1280")


@browser_only
@pytest.mark.swift
def test_an_example_has_a_peak_frame_and_action_units(page):
    page.locator(".gallery-item, tr.tr-body").first.click()
    page.locator("#clip video").wait_for()
    page.click("#ask")
    page.locator("#answer figure.peak").wait_for()
    assert "AU12" in page.locator("#answer").inner_text(), "joy pulls the lip corners up"
    shoot(page, "example.1280")


@browser_only
@pytest.mark.swift
def test_two_ask_at_once(app, page, chromium, data):
    other = opened(chromium, app.url)
    clips = [write_video(data / f"{name}.mp4") for name in "ab"]
    for one, clip in zip((page, other), clips, strict=True):
        one.set_input_files("#clip input[type=file]", clip)
        one.locator("#clip video").wait_for()
    for one in (page, other):
        one.click("#ask")
    for one in (page, other):
        one.locator("#answer .timing").wait_for()
    other.close()


@browser_only
@pytest.mark.swift
def test_uploads_end_with_their_page(app, chromium, data):
    page = opened(chromium, app.url)
    for name in ("first", "second"):
        ask(page, write_video(data / f"{name}.mp4", frames=30 + len(name)))
        assert {f"{name}.mp4"} <= set(app.uploads())
        if name == "first":
            page.get_by_label("Clear").first.click()
            page.locator("#clip input[type=file]").wait_for(state="attached")
            page.get_by_text("The answer appears here.").wait_for()  # not that of a clip which is gone
    page.close()  # half-way through whatever it was doing
    deadline = time.monotonic() + 20
    while {"first.mp4", "second.mp4"} & set(app.uploads()) and time.monotonic() < deadline:
        time.sleep(0.3)
    assert not {"first.mp4", "second.mp4"} & set(app.uploads())


@browser_only
@pytest.mark.swift
def test_clips_that_cannot_be_asked_about_are_told_in_a_sentence(app, page, data):
    folder = data / "bad"
    folder.mkdir()
    (folder / "text.mp4").write_text("no clip at all " * 50)
    live = write_video(folder / "live.webm", frames=121, rate=1, live="1")  # 121 s that its head does not tell
    with av.open(str(live)) as container:
        assert container.duration is None
    cases = {
        folder / "text.mp4": r"^text.mp4: cannot be decoded",
        write_sound(folder / "only sound.mp4"): "^only sound.mp4: holds no video stream",
        write_video(
            folder / "long.mp4", frames=120, rate=1, every=60
        ): r"^long.mp4: lasts 7,1\d\d s; cut the utterance",
        live: "^live.webm: is longer than a clip may be",
        write_video(folder / "short.webm", frames=3, rate=25, live="1"): "multimodal sentiment analysis",
    }
    for clip, message in cases.items():
        anew(page)
        assert re.search(message, ask(page, clip)), clip.name
    anew(page)
    assert "100,000 characters" in ask(page, folder / "short.webm", "x" * 100_000)
    anew(page)
    page.click("#ask")
    page.get_by_text("upload a clip, record one, or choose an example").wait_for()
    (folder / "notes.txt").write_text("x")
    page.set_input_files("#clip input[type=file]", folder / "notes.txt")
    page.get_by_text("Invalid file type: notes.txt").wait_for()
    anew(page)
    (folder / "large.mp4").write_bytes(bytes(2_100_000))
    page.set_input_files("#clip input[type=file]", folder / "large.mp4")
    page.get_by_text(re.compile("maximum", re.I)).first.wait_for()
    page.complaints[:] = [line for line in page.complaints if not re.search("413|maximum", line)]  # the refusal itself
    anew(page)
    assert "s in all" in ask(page, folder / "short.webm"), "and the server lives on"


@browser_only
@pytest.mark.swift
def test_browse(page, data):
    tab(page, "Browse")
    page.locator("#row .amt").wait_for()
    assert page.locator("#count").inner_text() == f"of {ROWS + 4:,}"
    assert statistics.median(turn(page, "ArrowRight") for _ in range(5)) < 0.5
    assert page.locator("#place input").input_value() == "6"
    turn(page, "ArrowLeft")
    assert page.locator("#row .answer.right").inner_text() == "Happy."
    assert "Line 0 <b>here</b>" in page.locator("#row blockquote").inner_text()
    page.wait_for_function("() => document.querySelector('#row video').readyState > 0")
    page.wait_for_function("() => document.querySelector('#row .frames').naturalWidth > 400")
    page.locator("#wrong input").check()
    page.get_by_text(f"of {ROWS * 3 // 5:,}").wait_for()
    assert page.locator("#row .answer.wrong").inner_text() == "Anger."
    assert "happy taken for anger" in page.locator("#row").inner_text()
    start = time.perf_counter()
    page.fill("#search input, #search textarea", "sadness LINE vid/2")
    page.keyboard.press("Enter")
    page.get_by_text(f"of {ROWS // 20:,}").wait_for()
    assert time.perf_counter() - start < 2
    assert "Sadness." in page.locator("#row").inner_text()
    shoot(page, "browse.1280")
    page.fill("#search input, #search textarea", "no such words")
    page.keyboard.press("Enter")
    page.get_by_text("No row is like that.").wait_for()


@browser_only
@pytest.mark.swift
def test_five_reasons_are_reviewed_by_keyboard_and_the_page_goes_on(page, app, chromium, data):
    tab(page, "Review")
    page.fill("#reviewer input, #reviewer textarea", "Anna")
    page.keyboard.press("Enter")
    page.locator("#record .reason").wait_for()
    assert "AU12" in page.locator("#record").inner_text(), "with the clip's Action Units"
    page.locator("#record video").first.wait_for()
    shoot(page, "review.1280")
    page.evaluate("document.activeElement.blur()")
    for key in "arara":
        turn(page, key, "#record")
    turn(page, "u", "#record")  # the last one after all not
    page.keyboard.press("e")
    page.wait_for_function("() => document.activeElement.tagName == 'TEXTAREA'")
    shoot(page, "edit.1280")
    page.keyboard.press("Control+a")
    page.keyboard.type("A reason, read and rewritten.")  # letters that are keys elsewhere
    turn(page, "Control+Enter", "#record")
    assert "5 of 8 decided" in page.locator("#progress").inner_text()
    anew(page)
    tab(page, "Review")
    page.locator("#record .reason").wait_for()
    assert page.locator("#record .amt").get_attribute("data-id") == "mosei/test/vid/5", "where she stopped"
    turn(page, "a", "#record")
    decided = {name: row[:2] for name, row in read_review(data / "eri" / "review.anna.csv").items()}
    said = ["accept", "reject", "accept", "reject", "edit", "accept"]
    assert [decision for decision, _ in decided.values()] == said
    assert decided["mosei/test/vid/4"][1] == "A reason, read and rewritten."
    _second_reviewer(app, chromium, data)


def _second_reviewer(app, chromium, data):
    """Sees nobody else's decision before his own, disagrees once, and finds how far they agree."""
    page = opened(chromium, app.url)
    tab(page, "Review")
    page.fill("#reviewer input, #reviewer textarea", "bo")
    page.keyboard.press("Enter")
    page.locator("#record .reason").wait_for()
    assert "anna" not in page.locator("#record").inner_text()
    page.evaluate("document.activeElement.blur()")
    turn(page, "r", "#record")  # she accepted it
    turn(page, "r", "#record")
    page.get_by_text("Agreement between reviewers").click()
    page.get_by_role("cell", name="1 (50 %)").wait_for()
    page.get_by_label("disputed").check()
    page.wait_for_function("() => document.querySelector('#record .amt')?.dataset.id == 'mosei/test/vid/0'")
    assert "anna: accept" in page.locator("#record").inner_text()
    page.close()
    kept = {r["id"]: r["reason"] for r in read_eri([data / "eri" / "eri.jsonl"], data / "eri" / "review.agreed.csv")}
    assert set(kept) == {f"mosei/test/vid/{n}" for n in (0, 2, 4, 5, 6, 7)}, "the disputed one is left as it was"


@browser_only
@pytest.mark.swift
def test_a_phone(page, data):
    page.set_viewport_size({"width": 400, "height": 800})
    ask(page, write_video(data / "phone.mp4"), "Averyveryverylongwordwithoutanyspaceinit" * 5)
    for name in ("Ask", "Browse", "Review"):
        tab(page, name)
        if name == "Review":
            page.fill("#reviewer input, #reviewer textarea", "cem")
            page.keyboard.press("Enter")
            page.locator("#record .reason").wait_for()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
        small = "e => e.offsetParent && e.innerText.trim() && parseFloat(getComputedStyle(e).fontSize) < 12"
        assert not page.evaluate(f"[...document.querySelectorAll('.amt *')].filter({small}).length"), name
        shoot(page, f"{name}.400")


@needs_gradio
@pytest.mark.swift
def test_only_named_clips_are_served_and_only_to_this_machine(app):
    assert app.status("/") == 200
    assert app.status("/", Host="example.com") == 400, "a name that somebody else gave to 127.0.0.1"
    assert app.status("/gradio_api/file=" + str(ROOT / "README.md")) in (403, 404)
    for path in ("/media/99999", "/media/-1", "/media/../README.md", "/media/x", "/docs", "/openapi.json"):
        assert app.status(path) in (404, 422), path


@needs_gradio
def test_what_a_browser_keeps_of_an_earlier_start_is_not_shown(tmp_path):
    """Files get numbers in the order in which pages name them; the first of another start has another address."""
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from app.media import Media

    earlier, now = Media(), Media()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "b.png")
    old, url = earlier.shown(tmp_path / "a.png")["url"], now.shown(tmp_path / "b.png")["url"]
    app = FastAPI()
    app.include_router(now.router)
    with TestClient(app) as client:
        assert client.get(url).content == (tmp_path / "b.png").read_bytes()
        for path in (old, f"{url[:-1]}99", f"{url[:-1]}-1", f"{url[:-1]}x", "/media/0"):
            assert client.get(path).status_code in (404, 422), path


def break_off(running: App, waiting: float = 60) -> None:
    """Send half of an upload and leave; what came of it is removed when it is old, and not before."""
    head = "POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000\r\n"
    head += "Content-Type: multipart/form-data; boundary=xx\r\n\r\n"
    part = '--xx\r\nContent-Disposition: form-data; name="files"; filename="half.mp4"\r\n\r\n'
    deadline = time.monotonic() + waiting
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall((head + part).encode() + bytes(300_000))
        while not (half := [path for path in running.temporary.glob("emoverse-app-*/*") if path.is_file()]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    time.sleep(2)  # two rounds
    assert half[0].is_file()
    os.utime(half[0], (time.time() - STALLED - 1,) * 2)
    while half[0].exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not half[0].exists() and running.status("/") == 200


@needs_gradio
@pytest.mark.swift
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["kill", "closed-terminal"])
def test_nothing_is_left_behind(number, tmp_path):
    """Nor is more said of it than nothing, although a page is open, as its heartbeat shows, and an upload broke off."""
    with ModelServer() as model:
        running = App(tmp_path, "--server", model.url)
        assert running.status("/") == 200 and list(tmp_path.glob("emoverse-app-*"))
        if number == signal.SIGTERM:
            break_off(running)
        with urllib.request.urlopen(f"{running.url}/gradio_api/heartbeat/somebody") as heartbeat:
            assert b"ALIVE" in heartbeat.readline()
            assert running.end(number) == ""
    assert list(tmp_path.glob("emoverse-app-*")) == []
    with socket.socket() as again:
        again.bind(("127.0.0.1", running.port))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--data", "/no/such"], "/no/such"),
        (["--eri", "/no/such"], "/no/such: holds no eri.jsonl of data_prep.eri"),
        (["--result", "/no/such.jsonl"], "/no/such.jsonl: no such file"),
        (["--result", "/no/such.jsonl", "--media-root", "/no/such"], "/no/such: no such folder"),
        (["--checkpoint", "/no/such"], "/no/such: no such folder"),
        (["--dataset", "nobody"], "--dataset nobody: no such dataset"),
        (["--port", "99999999"], "--port 99999999"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid"),
    ],
)
def test_wrong_options_are_told_in_one_line(project, arguments, message, tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))  # no run's adapter, in whose words the app would say that it asks
    done = project("-m", "app", "--port", "0", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and message in done.stderr and done.stderr.count("\n") == 1


def test_a_port_in_use_is_told_before_anything_is_loaded(project):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = project("-m", "app", "--port", other.getsockname()[1])
    assert (done.returncode, done.stdout) == (2, "") and "address already in use" in done.stderr


@browser_only
@pytest.mark.swift
def test_swift_app_chats_with_our_model_type_and_ends_with_its_server(chromium, data, tmp_path):
    ports = [free_port() for _ in range(2)]
    command = [sys.executable, "-m", "swift.cli.app", "--model", ROOT / "configs" / "demo" / "checkpoint"]
    command += ["--model_type", "emoverse", "--external_plugins", ROOT / "swift_plugins" / "emoverse.py"]
    command += ["--infer_backend", "transformers", "--host", "127.0.0.1", "--port", ports[0], "--lang", "en"]
    command += ["--server_port", ports[1], "--temperature", "0", "--max_new_tokens", "12"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    environment["GRADIO_TEMP_DIR"] = str(tmp_path / "uploads")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(list(map(str, command)), cwd=tmp_path, env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + 240
    while "Running on" not in (text := (tmp_path / "log").read_text()):
        assert process.poll() is None and time.monotonic() < deadline, text[-3000:]
        time.sleep(0.5)
    try:
        _chat(chromium, f"http://127.0.0.1:{ports[1]}", f"http://127.0.0.1:{ports[0]}/v1", data, tmp_path / "face.png")
    finally:
        process.terminate()  # one process alone, as a supervisor does
        process.wait(timeout=60)
    for port in ports:
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))


def _chat(chromium, url: str, model_url: str, data: Path, face: Path):
    """A message with a picture, and a second one: the answer is the one that the model gives to this picture."""
    sample_frames(data / "raw" / "mosei" / "Raw" / "vid" / "0.mp4", 8)[4].save(face)
    asked = "<face> Describe the facial expression of this person."
    model = ServedModel(model_url)
    expected, blind = (model.answer(Question(asked, images), 12) for images in ((face,), ()))
    assert expected != blind
    page = opened(chromium, url)
    page.set_input_files("input[type=file]", face)
    page.locator("[data-testid=user] img").wait_for()
    page.get_by_label("Input").fill(asked)
    page.keyboard.press("Enter")
    page.locator("[data-testid=bot]").get_by_text(expected, exact=True).wait_for()
    page.get_by_label("Input").fill("And now?")
    page.keyboard.press("Enter")
    page.locator("[data-testid=bot]").nth(1).wait_for()
    assert page.locator("[data-testid=bot]").nth(1).inner_text().strip()
    page.close()
