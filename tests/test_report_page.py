"""The HTML report in a real browser: no console error, every picture loaded, nothing wider than the window."""

import asyncio
import base64
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from PIL import Image

from swift_plugins.scoring.report import fonts_for, thumbnail
from tests.conftest import CHROMIUM, ROOT

SENTENCES = (
    "Oh my God, you did what?",
    "I told you that I would be late & you <b>never</b> listen!",
    "That is the nicest thing that anybody has said to me in weeks, and I mean it, from the bottom of my heart.",
    "Hm.",
    "Averyveryverylongwordwithoutanyspaceinitthatmustnotmakethepagewiderthanthewindowofaphone" * 2,
)


def result_rows():
    """One result row at a time, of every task, with right, wrong and unparsed answers."""
    generator = random.Random(0)
    pick = generator.choice

    def answer(gold, others):
        return gold if generator.random() < 0.7 else pick(others)

    def row(channel, gold, response, query, **media):
        messages = [{"role": "user", "content": query}, {"role": "assistant", "content": str(response)}]
        return {
            "response": response,
            "labels": gold,
            "logprobs": None,
            "messages": messages,
            "channel": channel,
            **media,
        }

    emotions = ["Anger.", "Sadness.", "Surprise.", "Disgust.", "Joy.", "Neutral.", "Fear."]
    phrases = ["cheeks raised", "lip corners pulled up", "nose wrinkled", "brows knitted", "lips tightened"]
    for number in range(120):
        text = pick(SENTENCES)
        yield row(
            "meld.mer",
            (gold := pick(emotions)),
            answer(gold, [*emotions, "It is joy", "no idea", None]),
            f"<video>{text}\n<emotion> Which emotion?",
            videos=[f"test_splits/dia{number // 6}_utt{number % 6}.mp4"],
        )
        yield row(
            f"mosei.msa{pick(['', '', '.zero'])}",
            (gold := pick(["Positive.", "Negative."])),
            answer(gold, ["Positive.", "Negative.", "neutral"]),
            f"<image>{text}\n<sentiment> Positive or negative?",
            images=[{"bytes": None, "path": f"peaks/{number}.png"}],
        )
        yield row(
            "mosei.fer",
            "; ".join(sorted(generator.sample(phrases, 2))),
            "; ".join(sorted(generator.sample(phrases, pick([1, 2, 3])))),
            "<image><face> Describe the face.",
            images=[{"bytes": None, "path": f"peaks/{number}.png"}],
        )
        yield row(
            "mosei.eri",
            f"The person is {pick(['happy', 'sad'])} because of the news: {text}",
            f"She looks {pick(['happy', 'sad'])} since she heard the news.",
            f"<image>{text}\n<reason> Why?",
            images=[{"bytes": None, "path": f"peaks/{number}.png"}],
        )
        target, emotion = number % 6 + 1, pick(["joy", "anger", "fear"])
        lines = "\n".join(f"{index}_{emotion}. Ross: {pick(SENTENCES[:3])}" for index in range(1, 7))
        gold = ";".join(
            f"{target}_{emotion},{cause}" for cause in sorted(generator.sample(range(1, 7), pick([0, 1, 2])))
        )
        yield row(
            "ecf.ecpe",
            gold,
            answer(gold, [f"{target}_{emotion},{target}", f"{target}_{emotion},1", "none"]),
            f"Conversation:\n{lines}\n\nTarget:\n{target}",
            videos=[f"dia{number // 6 + 1}utt{target}.mp4"],
        )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rows = [json.dumps(row) for row in result_rows()]
    (folder / "result.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "before.jsonl").write_text("\n".join(rows).replace('"response": "Joy."', '"response": "Fear."') + "\n")
    arguments = ["--report", folder / "out", "--compare", "emoverse-4b", "--bootstrap", "200"]
    arguments += ["--before", folder / "before.jsonl"]
    command = [sys.executable, ROOT / "compute_result.py", folder / "result.jsonl", *arguments]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "out"


@pytest.mark.slow
def test_the_page_stands_alone_and_holds_what_was_asked_for(report):
    page = (report / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", page), "something is loaded from elsewhere"
    assert "<script" not in page
    assert "you &lt;b&gt;never&lt;/b&gt; listen" in page, "a transcript is text, not markup"
    pictures = {path.name for path in report.glob("*.png")}
    assert pictures == {
        *(f"{channel}.{kind}.png" for channel in ("meld.mer", "mosei.msa") for kind in ("confusion", "classes")),
        "mosei.fer.classes.png",
        "mosei.fer.lengths.png",
        "mosei.eri.lengths.png",
        *(f"ecf.ecpe.{kind}.png" for kind in ("paper", "semeval", "distance", "lengths")),
    }
    assert page.count("data:image/png;base64,") == len(pictures)
    for channel in ("meld.mer", "mosei.msa", "mosei.fer", "mosei.eri", "ecf.ecpe"):
        assert f'<section id="{channel}">' in page
        assert f"{channel}|protocol:" in page
    assert 0 < page.count('<article class="mistake">') <= 5 * 20


class Browser:
    """Chromium's debugging protocol: one page, its console and its exceptions."""

    def __init__(self, socket):
        self.socket, self.number, self.complaints = socket, 0, []

    async def call(self, method, **parameters):
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": parameters})
        while True:
            message = await self.socket.receive_json(timeout=60)
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                self.complaints.append(message["params"])
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]

    async def value(self, expression):
        result = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"]["value"]


async def look(url, folder, widths):
    """{width: facts about the page}, console messages; writes a screenshot per width."""
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ]
    command += ["--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}", "about:blank"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        port_file = folder / "profile" / "DevToolsActivePort"
        for _ in range(600):
            if port_file.exists() and "\n" in port_file.read_text():
                break
            await asyncio.sleep(0.1)
        port = port_file.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as reply:
                target = next(page for page in await reply.json() if page["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                browser, facts = Browser(socket), {}
                for domain in ("Page", "Runtime", "Log"):
                    await browser.call(f"{domain}.enable")
                for width in widths:
                    await browser.call(
                        "Emulation.setDeviceMetricsOverride",
                        width=width,
                        height=900,
                        deviceScaleFactor=1,
                        mobile=width < 600,
                    )
                    await browser.call("Page.navigate", url=url)
                    await browser.value(
                        "new Promise(done => { const look = () => document.readyState == 'complete'"
                        " && location.protocol == 'file:' ? done(true) : setTimeout(look, 50); look(); })"
                    )
                    facts[width] = await browser.value(
                        """({
                            images: document.images.length,
                            loaded: [...document.images].filter(i => i.complete && i.naturalWidth).length,
                            overflow: document.documentElement.scrollWidth - innerWidth,
                            outside: [...document.querySelectorAll('section, .card, .mistake, img, h1, h2, nav a')]
                                .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
                                .map(e => e.outerHTML.slice(0, 80)),
                            smallest: Math.min(...[...document.querySelectorAll('p, td, th, span, code, li, em')]
                                .map(e => parseFloat(getComputedStyle(e).fontSize))),
                            narrowest: Math.min(...[...document.images].map(i => i.getBoundingClientRect().width)),
                        })"""
                    )
                    shot = await browser.call("Page.captureScreenshot", captureBeyondViewport=True)
                    (folder / f"{width}.png").write_bytes(base64.b64decode(shot["data"]))
                await browser.call("Browser.close")
                return facts, browser.complaints
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: the page is not looked at")
def test_the_page_in_a_browser(report, tmp_path):
    facts, complaints = asyncio.run(look((report / "index.html").as_uri(), tmp_path, (1280, 400)))
    assert complaints == []
    for width, page in facts.items():
        assert page["images"] == page["loaded"] == len(list(report.glob("*.png")))
        assert page["overflow"] <= 0, f"wider than {width} pixels"
        assert page["outside"] == []
        assert page["smallest"] >= 12
        assert page["narrowest"] >= 300
    if keep := os.environ.get("EMOVERSE_SCREENSHOTS"):  # to look at them yourself
        for width in facts:
            shutil.copy(tmp_path / f"{width}.png", Path(keep) / f"report.{width}.png")


def test_pictures_take_a_font_that_has_the_labels_letters(capsys):
    assert fonts_for("happy: 1.5") == ["DejaVu Sans"]
    assert not any("Last Resort" in name for name in fonts_for("开\U00010600")), "its glyphs are boxes"
    said = capsys.readouterr().err  # of a sign of Linear A
    assert said.startswith("no installed font has ") and "\U00010600" in said and said.count("\n") == 1


def test_a_broken_picture_has_no_thumbnail(tmp_path):
    """Its header is whole; what follows is not, which Pillow says by a SyntaxError."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8))
    noise.save(tmp_path / "whole.png")
    data = bytearray((tmp_path / "whole.png").read_bytes())
    data[data.index(b"IDAT", data.index(b"IDAT") + 4)] = 0
    (tmp_path / "broken.png").write_bytes(data)
    assert thumbnail(str(tmp_path / "whole.png")) and thumbnail(str(tmp_path / "broken.png")) == ""
