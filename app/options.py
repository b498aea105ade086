"""The options of `python -m app`, and those that it shares with ask.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swift_plugins.options import option


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model is asked, and in whose words."""

    checkpoint: Path | None = option(None, metavar="DIR", help="an adapter, or the folder of a whole model")
    model: Path | None = option(None, metavar="DIR", help="the adapter's base model, where it has moved")
    server: str | None = option(None, metavar="URL", help="ask a server (OpenAI protocol) instead; OPENAI_API_KEY")
    dataset: str | None = option(None, metavar="NAME", help="in whose labels and words (as it was trained)")
    prompts: Path | None = option(None, metavar="FILE", help="your own wording, as build_amt takes it")
    openface: Path | None = option(None, metavar="DIR", help="the OpenFace programs: peak frame and Action Units")


@dataclass(frozen=True)
class Options(ModelOptions):
    """What a user may choose."""

    data: Path | None = option(None, metavar="DIR", help="browse the AMT rows of this folder")
    result: tuple[Path, ...] = option((), metavar="FILE", help="browse results of swift infer")
    media_root: Path | None = option(None, metavar="DIR", help="folder of the rows' clips (AMT_MEDIA, else --data)")
    fer: tuple[Path, ...] = option((), metavar="FILE", help="peak frames, Action Units (media root/*/fer.jsonl)")
    eri: Path | None = option(None, metavar="DIR", help="review the reasons in this folder of data_prep.eri")
    host: str = option("127.0.0.1", metavar="NAME", help="where to listen (127.0.0.1)")
    port: int = option(7860, metavar="N", help="and on which port (7860)")
    max_mb: int = option(200, metavar="N", help="largest upload in MB (200)")
