"""The page of `ask.py --html`: one file without scripts, the pictures inside it; and the parts of the app's pages."""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from pathlib import Path

import jinja2

from swift_plugins.files import atomic_open
from swift_plugins.tasks import TASKS

FOLDER = Path(__file__).parent


@functools.cache
def environment() -> jinja2.Environment:
    """Templates of this folder; whatever they are given is text, never markup."""
    loader = jinja2.FileSystemLoader(FOLDER)
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def names() -> dict[str, str]:
    """The tasks in words."""
    return {key: task.name for key, task in TASKS.items()}


def embedded(pictures: Sequence[tuple[str, bytes]]) -> list[tuple[str, str]]:
    """Names and JPEGs, as a page holds them."""
    return [(name, base64.b64encode(jpeg).decode()) for name, jpeg in pictures]


def part(macro: str, *arguments: object) -> str:
    """What a macro of parts.html.j2 makes of its arguments."""
    return str(getattr(environment().get_template("parts.html.j2").module, macro)(*arguments))


def answers(record: dict, pictures: Sequence[tuple[str, bytes]]) -> str:
    """A record of `asking.look_and_ask`, for the app."""
    return f'<div class="amt">{part("answers", record, embedded(pictures), names())}</div>'


def write_page(
    path: Path, model: str, records: Sequence[dict], pictures: Sequence[Sequence[tuple[str, bytes]]]
) -> None:
    """Write the page, atomically; `pictures` are names and JPEGs per record."""
    clips = list(zip(records, map(embedded, pictures), strict=True))
    text = environment().get_template("page.html.j2").render(model=model, clips=clips, names=names())
    with atomic_open(path) as file:
        file.write(text + "\n")
