"""The doctor's HTML page: one file without scripts, thumbnails of suspect clips inside it. Layout in page.html.j2.

python -m data_prep.doctor --meld DIR --media --report OUT      # writes OUT/doctor.html
"""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2

from data_prep.doctor.clips import thumbnails
from data_prep.doctor.findings import Examination, Finding, summary, title, verdict
from swift_plugins.files import atomic_open

PICTURED = 24  # clips with thumbnails per kind
LISTED = 200  # findings listed per kind; doctor.json has all


def page(result: Examination) -> str:
    """The whole page; texts of the datasets are escaped and nothing is loaded from elsewhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    groups = [_group(kind, found) for kind, found in result.by_kind().items()]
    words = {"summary": summary, "verdict": verdict, "title": title}
    template = environment.get_template("page.html.j2")
    return template.render(result=result, groups=groups, pictures=_pictures, **words) + "\n"


def write_page(result: Examination, path: Path) -> None:
    """The page as a file, atomically."""
    with atomic_open(path) as file:
        file.write(page(result))


def _group(kind: str, found: list[Finding]) -> dict:
    """The findings of a kind as the page shows them: some with pictures, some in a list, the others as a number."""
    pictured = [finding for finding in found if finding.clip][:PICTURED]
    shown = set(map(id, pictured))
    listed = [finding for finding in found if id(finding) not in shown][:LISTED]
    hidden = len(found) - len(pictured) - len(listed)
    numbers = {"number": len(found), "hidden": hidden, "breaks": found[0].breaks}
    return {"kind": kind, "pictured": pictured, "listed": listed, **numbers}


def _pictures(clip: str) -> list[tuple[str, str]]:
    """Names and base64 JPEGs of the frames of a clip that can be shown."""
    names = ("first", "middle", "last")
    return [(name, base64.b64encode(jpeg).decode()) for name, jpeg in zip(names, thumbnails(clip), strict=False)]
