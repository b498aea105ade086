"""`swift infer` on many rows: rows of like length together, and the next ones prepared while the model writes.

Preparing goes as far as the vision tower, which looks once at a picture, however many rows show it. What a batch holds
is measured in tokens, those of the answers included: as many rows as max_batch_size says of the longest, more of
shorter ones, so that the memory needed is that of the longest rows. On CPUs several batches are written at a time, as
many as there are cores for the threads of each. The answers come back in the order of the rows, and are those of single
requests. `write_batch_size` rows are looked at together.

    AMT_MAX_NEW_TOKENS="mer=8,msa=8"   most tokens of an answer, by task, where `max_new_tokens` allows more

Unset by default: a label needs few tokens, but a model that is not trained may name it late, and what is cut off is
lost to the lenient figures. Say with such scores that it was set.

Rows that come with `choices` (`AMT_SCORE=likelihood`, swift_plugins.dataset) are not generated: the answer is the one
of them that the model finds likeliest, and `probabilities` takes the place of `choices` in the result row. The rows of
one set of choices are ranked together, as many at a time as make `max_batch_size` answers.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from threading import Semaphore
from typing import Any

import torch
from swift.infer_engine import InferRequest, RequestConfig, TransformersEngine
from swift.infer_engine.protocol import ChatCompletionResponse, ChatCompletionResponseChoice, ChatMessage
from tqdm import tqdm

from swift_plugins import likelihood
from swift_plugins.dataset import ranks
from swift_plugins.features import Seen
from swift_plugins.files import InputError
from swift_plugins.internvl2 import read_config
from swift_plugins.tasks import TASKS, task_of
from swift_plugins.template import EmoverseTemplate, about_tokens


def plan(tokens: Sequence[int], size: int, tasks: Sequence[str] = ()) -> list[list[int]]:
    """Batches of row numbers, longest first; padded, none has more tokens than `size` times the longest row.

    tasks: of each row; rows of one task stay together, since a batch writes until its longest answer ends.
    """
    batches: list[list[int]] = []
    most = size * max(tokens, default=0)
    tasks = tasks or [""] * len(tokens)
    for number in sorted(range(len(tokens)), key=lambda i: (tasks[i], -tokens[i])):
        first = batches[-1][0] if batches else None  # the batch is padded to it
        if first is None or tasks[first] != tasks[number] or (len(batches[-1]) + 1) * tokens[first] > most:
            batches.append([])
        batches[-1].append(number)
    return batches


def limits() -> dict[str, int]:
    """Task → most tokens of its answers, as AMT_MAX_NEW_TOKENS says; `InputError` where it says no such thing."""
    found: dict[str, int] = {}
    for part in filter(None, (os.environ.get("AMT_MAX_NEW_TOKENS") or "").split(",")):
        task, _, most = part.strip().partition("=")
        if task not in TASKS:
            raise InputError(f"AMT_MAX_NEW_TOKENS: {task!r} is not one of {', '.join(TASKS)}")
        if not re.fullmatch("[0-9]{1,9}", most) or int(most) < 1 or task in found:
            raise InputError(f"AMT_MAX_NEW_TOKENS: {part.strip()} is not {task}=N, once, with N of 1 or more")
        found[task] = int(most)
    return found


class AnsweringEngine(TransformersEngine):
    """ms-swift's engine; lists of requests longer than a batch are answered as `plan` says.

    So are shorter ones where tasks have limits of their own. Raises `InputError` for limits that are none.
    """

    @cached_property
    def _limits(self) -> dict[str, int]:
        return limits()

    @cached_property
    def _mine(self) -> threading.local:
        return threading.local()

    @cached_property
    def _seen(self) -> Seen:
        return Seen()

    def infer(self, infer_requests, request_config=None, metrics=None, *, use_tqdm=None, adapter_request=None) -> list:
        sets = [request.pop("choices", None) if isinstance(request, dict) else None for request in infer_requests]
        if not any(sets):
            return self._generate(infer_requests, request_config, metrics, use_tqdm, adapter_request)
        if request_config is not None and request_config.stream:
            raise InputError("--stream true: answers that are ranked by likelihood are not written word by word")
        answers: list[Any] = [None] * len(sets)
        ranked = [place for place, labels in enumerate(sets) if labels]
        others = [place for place, labels in enumerate(sets) if not labels]
        chosen = self._rank([infer_requests[place] for place in ranked], [sets[place] for place in ranked], use_tqdm)
        requests = [infer_requests[place] for place in others]
        written = self._generate(requests, request_config, metrics, use_tqdm, adapter_request) if others else []
        for place, answer in zip([*ranked, *others], [*chosen, *written], strict=True):
            answers[place] = answer
        self._update_metrics(chosen, metrics)
        return answers

    def _rank(self, requests: list[dict], sets: list[list[str]], use_tqdm: bool | None) -> list:
        """Answer each row with the likeliest of its labels; the row gets `probabilities`, {label: its share}."""
        self.template.set_mode("train")  # as training would see the answers
        self.model.eval()
        if self.template.use_model:
            self.template.model = self.model
        asked: dict[tuple[str, ...], list[int]] = {}  # answers as targets write them → the rows that choose from them
        for place, (request, labels) in enumerate(zip(requests, sets, strict=True)):
            task, dataset = task_of(request["channel"])
            asked.setdefault(tuple(task.target(label, dataset) for label in labels), []).append(place)
        most = self.max_batch_size if self.max_batch_size > 0 else sum(map(len, sets))
        batches, targets = [], {}
        for answers, places in asked.items():
            lengths = [about_tokens(self.template, requests[place]) for place in places]
            for batch in plan(lengths, max(1, most // len(answers))):
                batches.append([places[number] for number in batch])
                targets[batches[-1][0]] = answers

        def prepare(batch: list[int]) -> likelihood.Prepared:
            prepared = likelihood.prepare(self.template, [requests[place] for place in batch], targets[batch[0]])
            if isinstance(self.template, EmoverseTemplate):
                self.template.look_ahead(self.model, prepared.rows, self._seen)
            return prepared

        def write(ready: Future, batch: list[int]) -> list:
            return likelihood.log_likelihoods(self.model, self.template, ready.result())

        found, chosen = self._in_turn(batches, prepare, write, use_tqdm), []
        for place, likelihoods in enumerate(found):
            request, labels = requests[place], sets[place]
            request["probabilities"] = dict(zip(labels, likelihood.shares(likelihoods), strict=True))
            task, dataset = task_of(request["channel"])
            answer = task.target(max(labels, key=request["probabilities"].__getitem__), dataset)
            message = ChatMessage(role="assistant", content=answer)
            choice = ChatCompletionResponseChoice(index=0, message=message, finish_reason="stop")
            usage = self._get_usage_info(0, 0)
            chosen.append(ChatCompletionResponse(model=self.model_name, choices=[choice], usage=usage))
        return chosen

    def _generate(self, infer_requests, request_config, metrics, use_tqdm, adapter_request) -> list:
        tasks = [_task(request) for request in infer_requests]
        few = self.max_batch_size < 2 or len(infer_requests) <= self.max_batch_size
        few = few and (len(set(tasks)) < 2 or self._limits.keys().isdisjoint(tasks))
        if request_config is None or request_config.stream or few or self.model_info.task_type != "causal_lm":
            if len(set(tasks)) == 1:
                request_config = self._within(request_config, tasks[0])
            return super().infer(
                infer_requests, request_config, metrics, use_tqdm=use_tqdm, adapter_request=adapter_request
            )
        self.template.set_mode("transformers")
        configs = {task: self._within(request_config, task) for task in tasks}
        lengths = [
            about_tokens(self.template, _row(request)) + (configs[task].max_tokens or 0)
            for request, task in zip(infer_requests, tasks, strict=True)
        ]
        if self.max_batch_size == 1:
            batches = [[place] for place in range(len(tasks))]
        else:
            batches = plan(lengths, self.max_batch_size if self.max_batch_size > 0 else len(tasks), tasks)

        def prepare(batch: list[int]) -> tuple[list, list]:
            return self._prepare([infer_requests[place] for place in batch], adapter_request is None)

        def write(ready: Future, batch: list[int]) -> list:
            requests = [infer_requests[place] for place in batch]
            return self._write(ready, requests, configs[tasks[batch[0]]], adapter_request)

        answers = self._in_turn(batches, prepare, write, use_tqdm)
        self._update_metrics(answers, metrics)
        return answers

    @staticmethod
    def _in_turn(
        batches: list[list[int]],
        prepare: Callable[[list[int]], Any],
        write: Callable[[Future, list[int]], list],
        use_tqdm: bool | None,
    ) -> list:
        """What `write` makes of each row of the batches, which `prepare` makes ready before, in the order of rows."""
        answers: list[Any] = [None] * sum(map(len, batches))
        writers = 1 if torch.accelerator.is_available() else max(1, (os.cpu_count() or 1) // torch.get_num_threads())
        room, written = Semaphore(writers + 1), deque()  # one batch more is prepared than are written

        def keep() -> None:
            batch, answered = written.popleft()
            for place, answer in zip(batch, answered.result(), strict=True):
                answers[place] = answer

        def done(rows: int, _: Future) -> None:
            bar.update(rows)
            room.release()

        with (
            ThreadPoolExecutor(1) as ahead,
            ThreadPoolExecutor(writers) as pool,
            tqdm(total=len(answers), disable=use_tqdm is False) as bar,
        ):
            for batch in batches:
                room.acquire()
                while written and written[0][1].done():
                    keep()
                answered = pool.submit(write, ahead.submit(prepare, batch), batch)
                answered.add_done_callback(partial(done, len(batch)))
                written.append((batch, answered))
            while written:
                keep()
        return answers

    def _within(self, request_config: RequestConfig | None, task: str) -> RequestConfig | None:
        """The configuration with the task's limit, where it has one and the configuration allows more."""
        most, config = self._limits.get(task), request_config or RequestConfig()
        if most is None or (config.max_tokens is not None and config.max_tokens <= most):
            return request_config
        return replace(config, max_tokens=most)

    def _prepare(self, requests: list, as_loaded: bool) -> tuple[list, list]:
        """What `_batch_encode` returns; the pictures as the tower sees them, where no other adapter is asked for."""
        rows, errors = super()._batch_encode(requests, getattr(self, "strict", True))
        if as_loaded and isinstance(self.template, EmoverseTemplate):
            self.template.look_ahead(self.model, rows, self._seen)
        return rows, errors

    def _write(self, ready: Future, requests: list, request_config: Any, adapter_request: Any) -> list:
        """The answers to what is being prepared."""
        self._mine.ready = ready
        return self._infer(requests, request_config, adapter_request=adapter_request)

    def _batch_encode(self, infer_requests, strict):
        ready, self._mine.ready = getattr(self._mine, "ready", None), None
        return ready.result() if ready else super()._batch_encode(infer_requests, strict)


def _row(request: dict | InferRequest) -> dict:
    return request if isinstance(request, dict) else vars(request)


def _task(request: dict | InferRequest) -> str:
    """The task of a row that names its channel, "" of others."""
    channel = _row(request).get("channel")
    return channel.split(".")[1] if channel and "." in channel else ""


def _said(arguments: Sequence[str], flag: str, default: str = "") -> str:
    """What a command line says of a flag, at last."""
    words = [part for word in arguments for part in word.split("=", 1)]
    places = [place for place, word in enumerate(words[:-1]) if word == flag]
    return words[places[-1] + 1] if places else default


def refused_by_vllm(arguments: Sequence[str]) -> str | None:
    """Why vLLM cannot answer what a command line asks it, and what to do; None where it can.

    Read in vLLM 0.33: adapters with modules_to_save (ours have the projector there) are refused (lora/peft_helper.py),
    the vision tower's last layer is taken whatever the config says (models/interns1.py). ms-swift lets vLLM trust the
    code of the folder.
    """
    backend, folder = "--infer_backend vllm", Path(_said(arguments, "--model"))
    if importlib.util.find_spec("vllm") is None:
        return f"{backend} needs the package vllm and a GPU: pip install vllm, or leave the flag out"
    if _said(arguments, "--adapters"):
        return f"{backend} takes no adapter: bash shell/export.sh merges it, then name that folder (MERGED) instead"
    if not (folder / "config.json").is_file():
        return None  # ms-swift says what is wrong with that
    config = read_config(folder)
    kind = str(config.get("model_type"))
    if kind.startswith("emotion_llama"):
        return f"{backend}: vLLM knows no Emotion-LLaMA; leave the flag out"
    if kind == "internvl_chat":
        return f"{backend}: {folder} is in the original layout; it takes what bash shell/export.sh writes"
    if kind != "internvl":
        return None
    if any(os.environ.get(name, "1") != "1" for name in ("MAX_NUM", "VIDEO_MAX_NUM")):
        return f"{backend}: MAX_NUM and VIDEO_MAX_NUM are to be 1, one tile a picture"
    if not (folder / "preprocessor_config.json").is_file():
        return f"{backend}: {folder} lacks its processor: python -m swift_plugins.complete_export {folder}"
    if config.get("vision_feature_layer", -1) != -1:
        return f"{backend}: {folder} takes another layer of the vision tower than its last; leave the flag out"
    coded = (file for file in sorted(folder.glob("*config.json")) if "auto_map" in file.read_text(encoding="utf-8"))
    if file := next(coded, None):
        return f"{backend}: {file} names code (auto_map), which vLLM would run; leave the flag out"
    return None


def register() -> None:
    """Have `swift infer` use the engine; nothing is done where it does not run."""
    inference = sys.modules.get("swift.pipelines.infer.infer")
    if inference is not None:
        limits()  # refused before a model loads
        backend = _said(sys.argv, "--infer_backend", "transformers")
        if ranks() and backend != "transformers":
            raise InputError(f"--infer_backend {backend}: answers are ranked by likelihood with transformers alone")
        if backend == "vllm" and (reason := refused_by_vllm(sys.argv)):
            raise InputError(reason)
        inference.TransformersEngine = AnsweringEngine
