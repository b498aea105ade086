"""A model to ask: a checkpoint in this process through ms-swift's engine, or one that runs behind an OpenAI URL.

model = open_model(checkpoint="output/4b/stage2/checkpoint-500")      # or server="http://127.0.0.1:8000/v1"
model.answer(Question("Is …?", images=("peak.png",)))
model.likelihoods(question, ["Positive.", "Negative."])
"""

from __future__ import annotations

import base64
import contextlib
import mimetypes
import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from swift_plugins import TRAINING, files, likelihood, need
from swift_plugins.files import CONFIGS, PLUGIN, ROOT, InputError, read_json

DEMO = CONFIGS / "demo" / "checkpoint"


@dataclass(frozen=True)
class Question:
    """What a row asks: its query, and the files that it looks at. system: another system turn than the template's."""

    query: str
    images: tuple[Path, ...] = ()
    videos: tuple[Path, ...] = ()
    system: str | None = None

    def messages(self) -> list[dict]:
        """The turns, text alone."""
        turns = [{"role": "system", "content": self.system}] if self.system is not None else []
        return [*turns, {"role": "user", "content": self.query}]


class Model(Protocol):
    """What `ask`, the app and their tests need of a model."""

    name: str

    def answer(self, question: Question, tokens: int = 256) -> str:
        """The greedy answer, of at most so many tokens."""

    def likelihoods(self, question: Question, answers: Sequence[str]) -> list[float] | None:
        """log p of each whole answer, its end included; None where the model does not tell."""


def last_checkpoint(folder: Path) -> Path | None:
    """The adapter that was saved last by a stage under `folder`: stage 2 before stage 1, whole saves only (env.sh)."""
    return next(filter(None, (files.last_checkpoint(folder / stage) for stage in ("stage2", "stage1"))), None)


def newest_checkpoint(output: Path) -> Path | None:
    """The last adapter of the run under `output` (output/<config>/stage…) that wrote one most recently."""
    found = [checkpoint for folder in sorted(output.glob("*/")) if (checkpoint := last_checkpoint(folder))]
    return max(found, key=lambda checkpoint: (checkpoint / "trainer_state.json").stat().st_mtime, default=None)


def chosen_checkpoint(option: Path | None) -> Path | None:
    """The one that a user named, else the newest under OUTPUT_ROOT, which is by default where shell/ puts them: output/
    of the repository, or of the current folder when installed. None: the demo's."""
    home = ROOT if (ROOT / "shell").is_dir() else Path()
    checkpoint = option or newest_checkpoint(Path(os.environ.get("OUTPUT_ROOT", home / "output")))
    if checkpoint is not None and not checkpoint.is_dir():
        raise InputError("no such folder", checkpoint)
    return checkpoint


def trained_on(checkpoint: Path) -> list[str]:
    """What the training of a checkpoint read of `amt`, as its args.json says: stages, datasets, channels (`stage2`,
    `mine`, `mine.mer`); [] where it says nothing of the kind."""
    if not (checkpoint / "args.json").is_file():
        return []
    settings = read_json(checkpoint / "args.json")
    given = settings.get("dataset") if isinstance(settings, dict) else None
    matches = [re.fullmatch(r"amt:([^#]+)(#\d+)?", str(one)) for one in (given if isinstance(given, list) else [given])]
    return [name for match in matches if match for name in match[1].split("/")]


def open_model(checkpoint: Path | None = None, base: Path | None = None, server: str | None = None) -> Model:
    """The model behind `server`, else that of `checkpoint`: an adapter or a whole folder. `base` moves its base model.

    Raises `InputError` for a folder that holds neither.
    """
    if server:
        return ServedModel(server)
    return LocalModel(checkpoint or DEMO, base)


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
            start = time.perf_counter()
            print("loading the model …", file=sys.stderr, flush=True)
            self.model = open_model(*self.where)
            self.seconds = time.perf_counter() - start
            print(f"{self.model.name}, loaded in {self.seconds:.1f} s", file=sys.stderr, flush=True)
            if Path(self.model.name) == DEMO:
                print("the demo's base model knows drawn faces only, and fer and eri hardly", file=sys.stderr)
        return self.model


class LocalModel:
    """A checkpoint in this process. One question at a time, whoever asks: the engine is not made for threads."""

    def __init__(self, checkpoint: Path, base: Path | None = None):
        need(*TRAINING)
        self.name = str(checkpoint)
        self._lock = threading.Lock()
        # ms-swift prints every layer, transformers a bar for 93 tensors.
        os.environ.setdefault("LOG_LEVEL", "ERROR")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        arguments = {"external_plugins": [str(PLUGIN)], "infer_backend": "transformers", "max_batch_size": 8}
        if (checkpoint / "adapter_config.json").is_file():
            arguments["adapters"] = [str(checkpoint)]
            home = base or Path(read_json(checkpoint / "args.json")["model"])
            if not (home / "config.json").is_file():
                raise InputError(f"its base model {home} is not there (--model says where it is)", checkpoint)
            arguments["model"] = str(home)
        elif (checkpoint / "config.json").is_file():
            arguments |= {"model": str(checkpoint), "model_type": "emoverse"}
        else:
            raise InputError("holds neither an adapter nor a model", checkpoint)
        with contextlib.redirect_stdout(None):
            import torch
            from swift.arguments import InferArguments
            from swift.infer_engine import TransformersEngine
            from swift.pipelines.utils import prepare_model_template
            from transformers.utils import logging

            from swift_plugins.media_cache import LastFiles

            logging.disable_progress_bar()
            if not torch.accelerator.is_available():
                arguments["torch_dtype"] = "float32"
            model, self._template = prepare_model_template(InferArguments(**arguments))
            # Every task asks about the same clip. Nothing of an upload stays on the disk.
            self._template.media_cache = LastFiles()
            self._engine = TransformersEngine(model, template=self._template, max_batch_size=8)

    def answer(self, question: Question, tokens: int = 256) -> str:
        """See `Model`."""
        from swift.infer_engine import InferRequest, RequestConfig

        media = {"images": [*map(str, question.images)], "videos": [*map(str, question.videos)]}
        with self._lock:
            request = InferRequest(messages=question.messages(), **media)
            settings = RequestConfig(max_tokens=tokens, temperature=0)
            return self._engine.infer([request], settings, use_tqdm=False)[0].choices[0].message.content

    def likelihoods(self, question: Question, answers: Sequence[str]) -> list[float]:
        """See `Model`: as training would see the answers."""
        media = {"images": [*map(str, question.images)], "videos": [*map(str, question.videos)]}
        with self._lock:
            self._engine.model.eval()
            self._template.set_mode("train")
            prepared = likelihood.prepare(self._template, [{"messages": question.messages(), **media}], answers)
            return likelihood.log_likelihoods(self._engine.model, self._template, prepared)[0]


class ServedModel:
    """A model behind an OpenAI-compatible URL (shell/serve.sh); files are sent as data URLs."""

    def __init__(self, url: str):
        from openai import OpenAI

        self._client = OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "none"))
        with self._errors(url):
            self._model = self._client.models.list().data[0].id
        self.name = f"{self._model} at {url}"
        self._url = url

    @contextlib.contextmanager
    def _errors(self, url: str):
        from openai import OpenAIError

        try:
            yield
        except OpenAIError as error:
            raise InputError(f"gives no answer: {str(error).splitlines()[0][:200]}", url) from None

    def answer(self, question: Question, tokens: int = 256) -> str:
        """See `Model`."""
        *before, last = question.messages()
        parts: list[dict] = [{"type": "image_url", "image_url": {"url": data_url(path)}} for path in question.images]
        parts += [{"type": "video_url", "video_url": {"url": data_url(path)}} for path in question.videos]
        messages = [*before, last | {"content": [*parts, {"type": "text", "text": last["content"]}]}]
        with self._errors(self._url):
            done = self._client.chat.completions.create(
                model=self._model, messages=messages, max_tokens=tokens, temperature=0
            )
        return done.choices[0].message.content or ""

    def likelihoods(self, question: Question, answers: Sequence[str]) -> None:
        """See `Model`: a chat API does not score answers that are given to it."""
        return None


def data_url(path: Path) -> str:
    """A file as a data URL."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
