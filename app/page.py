"""The page of `ask.py --html`: one file without scripts, the pictures inside it. Layout in page.html.j2."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2

from swift_plugins.files import atomic_open
from swift_plugins.tasks import TASKS


def write_page(
    path: Path, model: str, records: Sequence[dict], pictures: Sequence[Sequence[tuple[str, bytes]]]
) -> None:
    """Write the page, atomically; `pictures` are names and JPEGs per record."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    shown = [[(name, base64.b64encode(jpeg).decode()) for name, jpeg in those] for those in pictures]
    clips = list(zip(records, shown, strict=True))
    names = {key: task.name for key, task in TASKS.items()}
    text = environment.get_template("page.html.j2").render(model=model, clips=clips, names=names)
    with atomic_open(path) as file:
        file.write(text + "\n")
