"""The doctor's HTML page: one file without scripts, thumbnails of suspect clips inside it.

python -m data_prep.doctor --meld DIR --media --report OUT      # writes OUT/doctor.html
"""

from __future__ import annotations

import base64
from html import escape

from data_prep.doctor.checks import ERRORS, PUBLISHED, WARNINGS, Examination, Finding, summary, verdict
from data_prep.doctor.clips import thumbnails

PICTURED = 24  # clips with thumbnails per kind
LISTED = 200  # findings listed per kind; doctor.json has all

STYLE = """
:root{color-scheme:light dark;--line:#8884;--bad:#b3261e;--warn:#8a6100;--good:#1b6e3c;--soft:#8881}
@media (prefers-color-scheme:dark){:root{--bad:#ff8a80;--warn:#ffcf66;--good:#7fd9a0}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:72rem;padding:1.5rem}
h1{font-size:1.6rem;margin:0 0 .25rem}h2{font-size:1.2rem;margin:2rem 0 .5rem}
.status{font-weight:600;margin:0 0 1rem}.bad{color:var(--bad)}.warn{color:var(--warn)}.good{color:var(--good)}
.wide{overflow-x:auto}
table{border-collapse:collapse;margin-bottom:1.2rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child,td.text,th.text{text-align:left}td.text{white-space:normal}
td small{display:block}
details{border:1px solid var(--line);border-radius:.4rem;margin:.5rem 0;padding:.4rem .8rem}
summary{cursor:pointer}summary b{margin-right:.4rem}
ul{padding-left:1.1rem;margin:.5rem 0}li{overflow-wrap:anywhere}
code{font-size:.9em;overflow-wrap:anywhere}
.clips{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:.8rem;padding:0;list-style:none}
.clips li{border:1px solid var(--line);border-radius:.4rem;padding:.5rem;background:var(--soft)}
.film{display:grid;grid-template-columns:repeat(3,1fr);gap:2px;margin-bottom:.4rem;min-height:3.2rem}
.film img{width:100%;display:block}.film span{grid-column:1/-1;place-self:center;opacity:.7}
"""


def page(result: Examination) -> str:
    """The whole page; texts of the datasets are escaped and nothing is loaded from elsewhere."""
    status = f'<p class="status {"bad" if result.status else "good"}">{escape(summary(result).capitalize())}</p>'
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">",
        f"<title>Dataset doctor</title><style>{STYLE}</style></head><body><main><h1>Dataset doctor</h1>{status}",
        *_counts(result),
        *_leaks(result),
        "<h2>Findings</h2>",
        *(_kind(kind, found) for kind, found in result.by_kind().items()),
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


def _counts(result: Examination) -> list[str]:
    parts = ["<h2>Counts</h2>"]
    for dataset, (names, _) in PUBLISHED.items():
        splits = {split: counts for (name, split), counts in result.counts.items() if name == dataset}
        if not splits:
            continue
        heads = "".join(f'<th scope="col">{escape(name.replace("_", " "))}</th>' for name in names)
        parts.append(f'<div class="wide"><table><tr><th scope="col">{dataset.upper()}</th>{heads}<th></th></tr>')
        for split, counts in splits.items():
            cells = []
            for _, here, there in counts:
                wrong = there is not None and here != there
                note = f"<small>published {there:,}</small>" if wrong else ""
                cells.append(f'<td class="{"bad" if wrong else ""}">{here:,}{note}</td>')
            cells.append(f'<td class="text">{escape(verdict(counts).split(":")[0])}</td>')
            parts.append(f'<tr><th scope="row">{split}</th>{"".join(cells)}</tr>')
        parts.append("</table></div>")
    return parts


def _leaks(result: Examination) -> list[str]:
    if not result.leaks:
        return []
    parts = [
        "<h2>Conversations in two places</h2>",
        '<div class="wide"><table><tr><th scope="col">training</th><th class="text" scope="col">also in</th>'
        '<th scope="col">conversations</th><th scope="col">utterances linked</th></tr>',
    ]
    for leak in result.leaks:
        held_out = not leak["held_out"].endswith(":train")
        parts.append(
            f'<tr><td>{escape(leak["training"])}</td><td class="text {"bad" if held_out else ""}">'
            f"{escape(leak['held_out'])}</td>"
            f"<td>{len(leak['conversations']):,} of {leak['training_conversations']:,}</td>"
            f"<td>{leak['utterances']:,} of {leak['held_out_utterances']:,}</td></tr>"
        )
    parts.append("</table></div>")
    return parts


def _kind(kind: str, found: list[Finding]) -> str:
    breaks = kind in ERRORS
    label = f'<b class="{"bad" if breaks else "warn"}">{"breaks results" if breaks else "warning"}</b>'
    title = f"{label}{len(found):,} × {escape((ERRORS | WARNINGS)[kind])} <code>{kind}</code>"
    pictured = [finding for finding in found if finding.clip][:PICTURED]
    rest = [finding for finding in found if finding not in pictured][:LISTED]
    cards = "".join(_card(finding) for finding in pictured)
    items = "".join(f"<li><code>{escape(f.where)}</code> {escape(f.detail)}</li>" for f in rest)
    body = (f'<ul class="clips">{cards}</ul>' if cards else "") + (f"<ul>{items}</ul>" if items else "")
    hidden = len(found) - len(pictured) - len(rest)
    if hidden:
        body += f"<p>… and {hidden:,} more in doctor.json</p>"
    return f"<details{' open' if breaks else ''}><summary>{title}</summary>{body}</details>"


def _card(finding: Finding) -> str:
    pictures = thumbnails(finding.clip)
    film = "".join(
        f'<img alt="{name} frame" src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">'
        for name, picture in zip(("first", "middle", "last"), pictures, strict=False)
    )
    film = film or "<span>no picture</span>"
    return f'<li><div class="film">{film}</div><code>{escape(finding.where)}</code><br>{escape(finding.detail)}</li>'
