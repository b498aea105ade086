"""`swift app` with the gradio that goes with our pins: ms-swift 4.6 hands its chat pairs, gradio 6 takes messages only.

    python -m swift.cli.app --external_plugins swift_plugins/emoverse.py --host 127.0.0.1 …     # docs/app.md

It also ends its model server when it is told to end (SIGTERM), which ms-swift does for Ctrl+C only.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

Pair = list  # [question or (file,), answer or None]


def to_messages(pairs: list[Pair]) -> list[dict[str, Any]]:
    """ms-swift's history as gradio's messages."""
    messages = []
    for asked, answered in pairs or ():
        content = {"path": asked[0]} if isinstance(asked, (list, tuple)) else asked
        messages.append({"role": "user", "content": content})
        if answered is not None:
            messages.append({"role": "assistant", "content": answered})
    return messages


def to_pairs(messages: list[dict[str, Any]]) -> list[Pair]:
    """And back: a message's content is a text, a file, or a list of such parts."""
    pairs: list[Pair] = []
    for message in messages or ():
        content = message["content"]
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, dict) and part.get("type") == "text":
                part = part["text"]
            elif isinstance(part, dict):
                part = (part.get("path") or part["file"]["path"],)
            if message["role"] == "assistant" and pairs:
                pairs[-1][1] = part
            else:
                pairs.append([part, None])
    return pairs


def register() -> None:
    """Change nothing but in the process of `swift app`."""
    if Path(sys.argv[0]).parts[-2:] != ("cli", "app.py"):
        return
    import gradio

    # Its methods, not a class of our own: gradio writes a .pyi file beside the source of every new component.
    shown, given = gradio.Chatbot.postprocess, gradio.Chatbot.preprocess
    gradio.Chatbot.postprocess = lambda self, value: shown(self, to_messages(value or []))
    gradio.Chatbot.preprocess = lambda self, payload: to_pairs(given(self, payload))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
