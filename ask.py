"""Ask a trained model about clips of your own: sentiment, emotion, facial movements, the reason.

    python ask.py clip.mp4 --text "We won, we really won!"
    python ask.py clips/ --task mer --json answers.json --html answers      # a folder, a page with pictures
    python ask.py clip.mp4 --openface /opt/OpenFace/build/bin               # peak frame and Action Units, too
    python ask.py clip.mp4 --server http://127.0.0.1:8000/v1                # a model that shell/serve.sh serves

Without --checkpoint the adapter is asked that was trained last (output/*/stage2, else stage1), else the demo's small
model, which knows drawn faces only. It is asked in the words that it was trained on and, where those were of your own
data alone, for their tasks; --dataset and --task say otherwise. Sentiment and emotion are answered by the likelihood of
each label, so every label has a probability among them; a server tells none, and its answer is read as it is written.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.options import ModelOptions
from swift_plugins.files import InputError, check_place, columns, padded, run_cli, write_json
from swift_plugins.options import option, parse

BAR = 24  # characters of a probability of 1


@dataclass(frozen=True)
class Options(ModelOptions):
    """What a user may choose."""

    clips: tuple[Path, ...] = option(positional=True, metavar="CLIP", help="videos or pictures, or folders of them")
    text: str | None = option(None, help="what is said in the clip", metavar="TEXT")
    text_file: Path | None = option(
        None, metavar="FILE", help="the same from a file; without both, FILE.txt beside each clip where there is one"
    )
    task: tuple[str, ...] = option(("all",), metavar="TASK", help="all, or some of msa, mer, fer, eri (all)")
    csv: Path | None = option(
        None, metavar="FILE", help="the clip's Action Units, or a folder with <clip>.csv for each"
    )
    json: Path | None = option(None, metavar="OUT", help="write everything as JSON, a record per clip")
    html: Path | None = option(None, metavar="DIR", help="write DIR/index.html with the pictures in it")


def text_of(options: Options) -> Callable[[Path], str]:
    """A function that tells what is said in a clip; raises `InputError` for a file beside it that is no transcript."""
    from app.clips import transcript, transcript_file

    if options.text is not None and options.text_file is not None:
        raise InputError("give --text or --text-file, not both")
    if options.text is not None:
        said = transcript(options.text, "--text")
        return lambda clip: said
    if options.text_file is not None:
        said = transcript_file(options.text_file)
        return lambda clip: said
    return lambda clip: transcript_file(beside) if (beside := clip.with_suffix(".txt")).is_file() else ""


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
        width = max([12, *map(columns, shown)])
        for label, share in sorted(shown.items(), key=lambda item: -item[1]):
            yield f"       {padded(label, width)} {100 * share:5.1f} %  {'█' * round(BAR * share)}"


def main() -> int:
    """Ask about every clip; 2 when one of them could not be asked about."""
    options = parse(Options, __doc__, prog="python ask.py")
    from app.asking import checkpoint_and_channels, look_and_ask
    from app.clips import Clip, find_clips
    from app.engine import Opener
    from data_prep import prompts

    for place in (options.json, options.html and options.html / "index.html"):
        if place:
            check_place(place)
    clips = list(find_clips(options.clips))
    said = text_of(options)
    if options.csv is not None and options.csv.is_file() and len(clips) > 1:
        raise InputError(f"is one clip's table, and there are {len(clips)} clips: give the folder", options.csv)
    checkpoint, wanted = checkpoint_and_channels(options, options.task)
    wording = prompts.load(options.prompts)
    model = Opener(checkpoint, options.model, options.server)
    with tempfile.TemporaryDirectory() as scratch:
        records, pages = [], []
        for number, path in enumerate(clips):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            try:
                clip = Clip(path, said(path), table_of(options.csv, path))
                record, page = look_and_ask(model, clip, wanted, wording, folder, options.openface)
            except InputError as error:
                record, page = {"clip": str(path), "text": "", "error": str(error)}, []
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


if __name__ == "__main__":
    run_cli(main)
