"""What the app is about, read and checked before gradio and the model are loaded, which takes seconds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from app.asking import checkpoint_and_channels
from app.options import Options
from app.reviews import Reviews
from app.rows import Shelf, amt_files
from data_prep import prompts
from swift_plugins.files import InputError


@dataclass(frozen=True)
class Sources:
    """Task → channel and the wording of its prompts; the checkpoint (None: the demo's, or a server); rows, reviews."""

    channels: dict[str, str]
    wording: prompts.Prompts
    checkpoint: Path | None
    shelf: Shelf | None
    reviews: Reviews | None


def read_sources(options: Options) -> Sources:
    """Raises `InputError` for whatever is not there or not what it should be."""
    checkpoint, channels = checkpoint_and_channels(options, ["all"])
    return Sources(
        channels,
        prompts.load(options.prompts),
        checkpoint,
        shelf_of(options),
        Reviews(options.eri) if options.eri else None,
    )


def shelf_of(options: Options) -> Shelf | None:
    """The rows to browse, None where no file was named."""
    if not (options.data or options.result):
        return None
    root = options.media_root or Path(os.environ.get("AMT_MEDIA") or options.data or ".")
    if not root.is_dir():
        raise InputError("no such folder", root)
    fer = options.fer or sorted(root.glob("*/fer.jsonl"))
    return Shelf(amt_files(options.data) if options.data else (), options.result, root, fer)
