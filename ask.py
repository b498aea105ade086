"""Ask a trained model about clips of your own: sentiment, emotion, facial movements, the reason.

    python ask.py clip.mp4 --text "We won, we really won!"
    python ask.py clips/ --task mer --json answers.json --html answers      # a folder, a page with pictures
    python ask.py clip.mp4 --openface /opt/OpenFace/build/bin               # peak frame and Action Units, too
    python ask.py clip.mp4 --server http://127.0.0.1:8000/v1                # a model that shell/serve.sh serves

Without --checkpoint the adapter is asked that was trained last (output/*/stage2, else stage1), else the demo's small
model, which knows drawn faces only. Sentiment and emotion are answered by the likelihood of each label, so every label
has a probability among them; a server tells none, and its answer is read as it is written.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_plugins.files import InputError, run_cli, write_json
from swift_plugins.options import option, parse

BAR = 24  # characters of a probability of 1


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    clips: tuple[Path, ...] = option(positional=True, metavar="CLIP", help="videos or pictures, or folders of them")
    text: str | None = option(None, help="what is said in the clip", metavar="TEXT")
    text_file: Path | None = option(
        None, metavar="FILE", help="the same from a file; without both, FILE.txt beside each clip where there is one"
    )
    task: tuple[str, ...] = option(("all",), metavar="TASK", help="all, or some of msa, mer, fer, eri (all)")
    dataset: str | None = option(None, metavar="NAME", help="in whose labels and words (as the stages were trained)")
    prompts: Path | None = option(None, metavar="FILE", help="your own wording, as build_amt takes it")
    checkpoint: Path | None = option(None, metavar="DIR", help="an adapter, or the folder of a whole model")
    model: Path | None = option(None, metavar="DIR", help="the adapter's base model, where it has moved")
    server: str | None = option(None, metavar="URL", help="ask a server (OpenAI protocol) instead; OPENAI_API_KEY")
    openface: Path | None = option(None, metavar="DIR", help="the OpenFace programs: peak frame and Action Units")
    csv: Path | None = option(
        None, metavar="FILE", help="the clip's Action Units, or a folder with <clip>.csv for each"
    )
    json: Path | None = option(None, metavar="OUT", help="write everything as JSON, a record per clip")
    html: Path | None = option(None, metavar="DIR", help="write DIR/index.html with the pictures in it")


def texts(options: Options, clips: list[Path]) -> dict[Path, str]:
    """What is said in each clip."""
    from app.clips import transcript, transcript_file

    if options.text is not None and options.text_file is not None:
        raise InputError("give --text or --text-file, not both")
    if options.text is not None:
        return dict.fromkeys(clips, transcript(options.text, "--text"))
    if options.text_file is not None:
        return dict.fromkeys(clips, transcript_file(options.text_file))
    beside = {clip: clip.with_suffix(".txt") for clip in clips}
    return {clip: transcript_file(path) if path.is_file() else "" for clip, path in beside.items()}


def table_of(csv: Path | None, clip: Path) -> Path | None:
    """The clip's table of Action Units: the file itself, or the folder's `<clip>.csv`."""
    if csv is None or csv.is_file():
        return csv
    found = csv / f"{clip.stem}.csv"
    if not found.is_file():
        raise InputError(f"holds no {found.name}", csv)
    return found


def lines(record: dict) -> Iterator[str]:
    """A record for people to read."""
    yield f"{record['clip']}" + (f": {record['text']!r}" if record["text"] else ": (no transcript)")
    if "error" in record:
        yield f"  error: {record['error']}"
        return
    if record["peak"]:
        yield f"  peak frame {record['peak']['frame']}: {'; '.join(record['peak']['phrases']) or 'no movement'}"
    for key, answer in record["tasks"].items():
        yield f"  {key}  {answer['answer']}  ({answer['channel']}, {answer['seconds']:.2f} s)"
        shown = answer["probabilities"] or {}
        for label, share in sorted(shown.items(), key=lambda item: -item[1]):
            yield f"       {label:<12} {100 * share:5.1f} %  {'█' * round(BAR * share)}"


def main() -> int:
    """Ask about every clip; 2 when one of them could not be asked about."""
    options = parse(Options, __doc__, prog="python ask.py")
    from app.asking import channels, look_and_ask
    from app.clips import Clip, find_clips
    from data_prep import prompts

    clips = list(find_clips(options.clips))
    said = texts(options, clips)
    if options.csv is not None and options.csv.is_file() and len(clips) > 1:
        raise InputError(f"is one clip's table, and there are {len(clips)} clips: give the folder", options.csv)
    wanted = channels(options.task, options.dataset)
    wording = prompts.load(options.prompts)
    from app.engine import chosen_checkpoint

    model = Opener(chosen_checkpoint(options.checkpoint), options.model, options.server)
    with tempfile.TemporaryDirectory() as scratch:
        records, pages = [], []
        for number, path in enumerate(clips):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            try:
                clip = Clip(path, said[path], table_of(options.csv, path))
                record, page = look_and_ask(model, clip, wanted, wording, folder, options.openface)
            except InputError as error:
                record, page = {"clip": str(path), "text": said[path], "error": str(error)}, []
            records.append(record)
            pages.append(page)
            print("\n".join(lines(record)), flush=True)
        if options.json:
            answers = {"model": model.name, "load_seconds": round(model.seconds, 2), "clips": records}
            write_json(options.json, answers)
        if options.html:
            from app.page import write_page

            write_page(options.html / "index.html", model.name, records, pages)
            print(f"written: {options.html / 'index.html'}", file=sys.stderr)
    return 2 if any("error" in record for record in records) else 0


class Opener:
    """Opens the model when the first clip that can be shown needs it, and says so: it is what takes long."""

    def __init__(self, *where: Any):
        self.where, self.model, self.seconds = where, None, 0.0

    @property
    def name(self) -> str:
        """What is asked; "" where nothing was."""
        return self.model.name if self.model else ""

    def __call__(self) -> Any:
        """The model."""
        if self.model is None:
            from app.engine import DEMO, open_model

            start = time.perf_counter()
            print("loading the model …", file=sys.stderr, flush=True)
            self.model = open_model(*self.where)
            self.seconds = time.perf_counter() - start
            print(f"{self.model.name}, loaded in {self.seconds:.1f} s", file=sys.stderr, flush=True)
            if Path(self.model.name) == DEMO:
                print("the demo's base model knows drawn faces only, and fer and eri hardly", file=sys.stderr)
        return self.model


if __name__ == "__main__":
    run_cli(main)
