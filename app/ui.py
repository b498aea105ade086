"""The app's three tabs on Gradio: ask about a clip, browse rows, review reasons. What they do is in the other files."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from app import page
from app.asking import look_and_ask
from app.clips import LONGEST, Clip, transcript
from app.engine import Model
from app.media import Media
from app.reviews import Reviews
from app.rows import Shelf
from app.uploads import Uploads, held
from data_prep.prompts import Prompts
from swift_plugins.files import InputError
from swift_plugins.tasks import TASKS

# Keys press the button of the tab that is open; not while somebody types, except to leave the text.
KEYS = """
const keys = {a: "accept", r: "reject", e: "edit", u: "undo", ArrowRight: "next", ArrowLeft: "previous"};
document.addEventListener("keydown", event => {
    const control = event.ctrlKey || event.metaKey;
    let name = keys[event.key];
    if (event.target.closest("textarea, input:not([type=checkbox]):not([type=radio]), [role=listbox]"))
        name = {Escape: "cancel", Enter: control ? "save" : ""}[event.key];
    else if (control || event.altKey) return;
    else if (event.key.startsWith("Arrow") && event.target.closest("video, [role=tab], [type=radio]")) return;
    if (!name) return;
    const button = [...document.querySelectorAll("button.key-" + name)].find(one => one.offsetParent && !one.disabled);
    if (button) { event.preventDefault(); button.click(); }
});
// Arrows belong to a tab or a choice that was reached by keyboard, not to one that was clicked.
document.addEventListener("click", event => {
    const clicked = event.target.closest("[role=tab], label");
    if (event.detail && clicked && !clicked.querySelector("textarea, [type=text], [type=number]"))
        setTimeout(() => document.activeElement.blur(), 0);
});
"""
FOCUS = "() => setTimeout(() => document.querySelector('.reason-box textarea')?.focus(), 100)"
# A reviewer's name, in their browser.
REMEMBER = "name => { localStorage.setItem('emoverse-reviewer', name) }"
RECALL = "name => name || (localStorage.getItem('emoverse-reviewer') ?? '')"
NAMELESS = "Who reviews? Say your name; your decisions are kept under it."
CSS = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
# Of all events but the question: no spinner, and an answer to the request that asks, not in the page's one stream of
# answers, which gradio 6.31 closes at times while the next event waits in it: that one is never shown as done.
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
HINT = '<div class="amt"><p class="muted">The answer appears here.</p></div>'
NO_CLIP = "upload a clip, record one, or choose an example"


@dataclass(frozen=True)
class Asking:
    """What the first tab needs: a model, the channels in whose words each task is asked, examples."""

    model: Model
    channels: Mapping[str, str]
    wording: Prompts
    examples: Sequence[list[str]]
    openface: Path | None
    uploads: Uploads

    def show(self, video: str | None, table: str | None, request: gr.Request) -> None:
        """The page shows other files than before."""
        self.uploads.use(request.session_hash, (video, table))

    def close(self, request: gr.Request) -> None:
        """The page was closed, or loaded again."""
        self.uploads.use(request.session_hash, ())


def guarded(function: Callable[..., str]) -> Callable[..., str]:
    """A function of the page that tells what went wrong on the page, so that the server lives on."""

    def call(*arguments: Any) -> str:
        try:
            return function(*arguments)
        except InputError as error:
            return page.answers({"error": str(error)}, [])
        except Exception as error:
            logging.getLogger("emoverse.app").exception("a clip could not be asked about")
            return page.answers({"error": f"this clip cannot be asked about ({type(error).__name__})"}, [])

    return call


def build(asking: Asking, shelf: Shelf | None, reviews: Reviews | None, media: Media) -> gr.Blocks:
    """The page; tabs without something to show are left out."""
    with gr.Blocks(title="EmoVerse", analytics_enabled=False, delete_cache=(60, 3600)) as blocks:
        gr.Markdown(f"# EmoVerse\nModel: `{asking.model.name}`", elem_id="model")
        with gr.Tab("Ask", id="ask"):
            ask_tab(blocks, asking)
        if shelf is not None and len(shelf):
            with gr.Tab("Browse", id="browse"):
                browse_tab(blocks, shelf, media)
        if reviews is not None:
            with gr.Tab("Review", id="review"):
                review_tab(blocks, reviews, shelf, media)
    blocks.queue(max_size=32, default_concurrency_limit=8)
    return blocks


def ask_tab(blocks: gr.Blocks, asking: Asking) -> None:
    """Upload or record, transcript and tasks on the left, the answer on the right."""

    def answer(video: str | None, text: str, tasks: list[str], table: str | None) -> str:
        if not video:
            raise InputError(NO_CLIP)
        if not tasks:
            raise InputError("choose at least one task")
        said = transcript(text or "", "transcript")
        wanted = {key: channel for key, channel in asking.channels.items() if key in tasks}
        with tempfile.TemporaryDirectory() as folder:
            clip = Clip(held(video, Path(folder)), said, held(table, Path(folder)) if table else None)
            scratch = Path(folder) / "scratch"
            scratch.mkdir()
            record, pictures = look_and_ask(
                lambda: asking.model, clip, wanted, asking.wording, scratch, asking.openface
            )
        if "error" in record:  # where it lies on this machine is nobody's business
            record["error"] = record["error"].replace(f"{folder}/", "")
            return page.answers(record, [])
        seconds = f'<div class="amt"><p class="muted timing">{record["seconds"]:.1f} s in all</p></div>'
        return page.answers(record, pictures) + seconds

    with gr.Row():
        with gr.Column(min_width=280):
            video = gr.Video(
                label=f"Clip, at most {LONGEST} s",
                sources=["upload", "webcam"],
                include_audio=True,  # as recorded: without, each clip goes through ffmpeg
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="clip",
            )
            text = gr.Textbox(label="What is said in it", lines=2, elem_id="transcript")
            tasks = gr.CheckboxGroup(
                [(TASKS[key].name, key) for key in asking.channels], value=[*asking.channels], label="Tasks"
            )
            with gr.Accordion("Action Units of the clip (optional)", open=False):
                table = gr.File(label="CSV of OpenFace, LibreFace or py-feat", file_types=[".csv"], height=120)
            button = gr.Button("Ask", variant="primary", elem_id="ask")
        with gr.Column(scale=2, min_width=300):
            shown = gr.HTML(HINT, elem_id="answer")
    if asking.examples:
        gr.Examples(
            [[clip, words, units] for clip, words, units in asking.examples],
            [video, text, table],
            label="Examples: drawn faces, with their Action Units",
            elem_id="examples",
            api_visibility="private",
        )
    changes = [video.upload, video.stop_recording, video.clear, table.upload, table.clear]
    gr.on(changes, asking.show, [video, table], **QUIET)
    video.change(None, None, shown, js=f"() => {json.dumps(HINT)}", **QUIET)  # not of this clip any more
    blocks.unload(asking.close)
    button.click(guarded(answer), [video, text, tasks, table], shown, concurrency_limit=1, api_visibility="private")


def browse_tab(blocks: gr.Blocks, shelf: Shelf, media: Media) -> None:
    """One row at a time, of those that were filtered."""

    def show(channel: str, wrong: bool, words: str, place: float | None, step: int = 0) -> tuple[str, int, str]:
        found = shelf.find(channel or None, bool(wrong), words or "")
        if not found:
            return page.part("row_of_none"), 1, "nothing found"
        place = min(max(1, int(place or 1) + step), len(found))
        row = shelf.page(found[place - 1])
        row |= {"shown": [media.shown(path) for path in row["media"]], "peak": media.peak(row["peak"])}
        return page.part("row", row, page.names()), place, f"of {len(found):,}"

    with gr.Row():
        choices = [("every channel", ""), *((f"{name} ({n:,})", name) for name, n in sorted(shelf.channels.items()))]
        channel = gr.Dropdown(choices, value="", label="Channel", min_width=200)
        words = gr.Textbox(label="Search", placeholder="words, an id, a file", min_width=200, elem_id="search")
        wrong = gr.Checkbox(label="wrong answers only", visible=shelf.has_results, min_width=220, elem_id="wrong")
    with gr.Row(equal_height=True, elem_id="turn"):
        back = gr.Button("←", elem_classes="key-previous", min_width=60, scale=0)
        place = gr.Number(
            1, precision=0, minimum=1, show_label=False, container=False, min_width=90, scale=0, elem_id="place"
        )
        count = gr.Markdown(elem_id="count")
        on = gr.Button("→", elem_classes="key-next", min_width=60, scale=0)
    card = gr.HTML(elem_id="row")
    filters, outputs = [channel, wrong, words], [card, place, count]
    for event in (channel.change, wrong.change, words.submit):
        event(lambda *chosen: show(*chosen, 1), filters, outputs, **QUIET)
    place.submit(show, [*filters, place], outputs, **QUIET)
    back.click(partial(show, step=-1), [*filters, place], outputs, **QUIET)
    on.click(partial(show, step=1), [*filters, place], outputs, **QUIET)
    blocks.load(show, [*filters, place], outputs, **QUIET)


def review_tab(blocks: gr.Blocks, reviews: Reviews, shelf: Shelf | None, media: Media) -> None:
    """One reason at a time: accept, reject, edit by button or key; who comes back goes on where they stopped."""
    desk = Desk(reviews, shelf, media)
    current, last = gr.State(""), gr.State("")
    with gr.Row():
        name = gr.Textbox(label="Reviewer", placeholder="your name, then Enter", min_width=160, elem_id="reviewer")
        choices = [("open", "open"), ("decided", "decided"), ("disputed", "disputed"), ("all", "all")]
        show = gr.Radio(choices, value="open", label="Show", min_width=240)
    state = gr.Markdown(NAMELESS, elem_id="progress")
    with gr.Row():
        buttons = {
            "accept": gr.Button("Accept (a)", variant="primary", elem_classes="key-accept", min_width=120),
            "reject": gr.Button("Reject (r)", variant="stop", elem_classes="key-reject", min_width=120),
            "edit": gr.Button("Edit (e)", elem_classes="key-edit", min_width=120),
            "undo": gr.Button("Undo (u)", elem_classes="key-undo", min_width=120),
            "previous": gr.Button("←", elem_classes="key-previous", min_width=120),
            "next": gr.Button("→", elem_classes="key-next", min_width=120),
        }
    with gr.Group(visible=False) as editor:
        text = gr.Textbox(label="The reason in your words", lines=3, elem_classes="reason-box")
        with gr.Row():
            save = gr.Button("Save (Ctrl+Enter)", variant="primary", elem_classes="key-save")
            cancel = gr.Button("Cancel (Esc)", elem_classes="key-cancel")
    card = gr.HTML(elem_id="record")
    with gr.Accordion("Agreement between reviewers", open=False) as agreement:
        table = gr.HTML()
    outputs = [card, state, current, last, editor]
    inputs = [name, show, current, last]
    name.submit(desk.start, inputs, outputs, **QUIET)
    name.submit(None, name, js=REMEMBER, **QUIET)
    show.change(desk.start, inputs, outputs, **QUIET)
    for key in ("accept", "reject"):
        buttons[key].click(partial(desk.decide, key), inputs, outputs, **QUIET)
    save.click(partial(desk.decide, "edit"), [*inputs, text], outputs, **QUIET)
    buttons["undo"].click(desk.undo, inputs, outputs, **QUIET)
    buttons["previous"].click(partial(desk.move, -1), inputs, outputs, **QUIET)
    buttons["next"].click(partial(desk.move, 1), inputs, outputs, **QUIET)
    opened = buttons["edit"].click(desk.open_editor, [name, current], [editor, text], **QUIET)
    opened.then(None, js=FOCUS, **QUIET)
    cancel.click(lambda: gr.Group(visible=False), None, editor, js="() => document.activeElement.blur()", **QUIET)
    agreement.expand(lambda: page.part("agreement", reviews.agreement()), None, table, **QUIET)
    blocks.load(None, name, name, js=RECALL, **QUIET).then(desk.recall, inputs, outputs, **QUIET)


class Desk:
    """What the buttons of the review do. Each returns the card, the progress, the clip shown, the clip decided last,
    and the editor, closed."""

    def __init__(self, reviews: Reviews, shelf: Shelf | None, media: Media):
        self.reviews, self.shelf, self.media = reviews, shelf, media

    def start(self, name: str, show: str, current: str, last: str) -> tuple:
        """The first clip of the queue."""
        return self._shown(name, show, "", last)

    def recall(self, name: str, show: str, current: str, last: str) -> tuple:
        """As `start`, for a page that is opened; without a name nothing, since its reader may be typing one by now."""
        return self.start(name, show, current, last) if (name or "").strip() else (gr.skip(),) * 5

    def decide(self, decision: str, name: str, show: str, current: str, last: str, text: str = "") -> tuple:
        """Write the decision and go to the next clip."""
        if not current:
            return self._shown(name, show, "", last)
        try:
            queue = self.reviews.queue(self.reviews.check_name(name), show)
            self.reviews.decide(name, current, decision, text)
        except InputError as error:
            card, _, *rest = self._shown(name, show, current, last)
            return card, f"**Not kept: {error}.**", *rest
        place = queue.index(current) + 1 if current in queue else 0
        following = next(iter(queue[place:]), "")
        return self._shown(name, show, following, current)

    def undo(self, name: str, show: str, current: str, last: str) -> tuple:
        """Take the last decision back and show its clip."""
        if last:
            self.reviews.decide(name, last, "")
        return self._shown(name, show, last or current, "")

    def move(self, step: int, name: str, show: str, current: str, last: str) -> tuple:
        """The clip before or after, without a decision."""
        try:
            queue = self.reviews.queue(self.reviews.check_name(name), show)
        except InputError:
            return self._shown(name, show, current, last)
        place = queue.index(current) + step if current in queue else 0
        return self._shown(name, show, queue[min(max(place, 0), len(queue) - 1)] if queue else "", last)

    def open_editor(self, name: str, current: str) -> tuple:
        """The editor with the reviewer's own words, else the model's."""
        if not current or not (name or "").strip():
            return gr.Group(visible=False), ""
        mine = self.reviews.of(self.reviews.check_name(name)).get(current, ("", ""))
        return gr.Group(visible=True), mine[1] or self.reviews.records[current]["reason"]

    def _shown(self, name: str, show: str, current: str, last: str) -> tuple:
        closed = gr.Group(visible=False)
        if not (name or "").strip():
            return "", NAMELESS, "", "", closed
        try:
            reviewer = self.reviews.check_name(name)
            queue, mine = self.reviews.queue(reviewer, show), self.reviews.of(reviewer)
            current = current or next(iter(queue), "")
            words = f"{reviewer}: {len(mine):,} of {len(self.reviews.order):,} decided"
            if not current:
                return "", f"{words}. Nothing is left under '{show}'.", "", last, closed
            return self._card(reviewer, current), words, current, last, closed
        except InputError as error:
            return page.answers({"error": str(error)}, []), "", "", "", closed

    def _card(self, reviewer: str, name: str) -> str:
        record, seen = self.reviews.records[name], self.reviews.seen.get(name, {})
        clip = self.shelf.clip(name) if self.shelf else {"media": [], "text": "", "peak": None}
        paths = clip["media"]
        if not paths and seen.get("media") and self.shelf is not None:
            paths = self.shelf.media({"images": [seen["media"]]})
        votes = self.reviews.votes().get(name, {})
        mine = votes.pop(reviewer, None)
        rejected = record.get("rejected")
        return page.part(
            "review",
            {
                "id": name,
                "label": record["label"],
                "reason": record["reason"],
                "clues": record["clues"] or {},
                "rejected": rejected and f"{rejected['rule']} ({rejected['detail']})",
                "text": seen.get("transcript") or clip["text"],
                "shown": [self.media.shown(path) for path in paths],
                "peak": self.media.peak(clip["peak"]),
                "decision": mine,
                "votes": votes if mine else {},  # the others' only after one's own
            },
        )
