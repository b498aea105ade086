"""`swift infer` on many rows: rows of like length together, and the next batch prepared while the model writes.

What a batch holds is measured in tokens, those of the answers included: as many rows as max_batch_size says of the
longest, more of shorter ones, so that the memory needed is that of the longest rows. The answers come back in the order
of the rows, and are those of single requests. `write_batch_size` rows are looked at together.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from swift.infer_engine import InferRequest, TransformersEngine
from tqdm import tqdm

CHARACTERS = 3  # of a token, about


def plan(tokens: Sequence[int], size: int) -> list[list[int]]:
    """Batches of row numbers, longest first; padded, none has more tokens than `size` times the longest row."""
    batches: list[list[int]] = []
    most = size * max(tokens, default=0)
    for number in sorted(range(len(tokens)), key=lambda i: -tokens[i]):
        if not batches or (len(batches[-1]) + 1) * tokens[batches[-1][0]] > most:  # padded to its first row
            batches.append([])
        batches[-1].append(number)
    return batches


class AnsweringEngine(TransformersEngine):
    """ms-swift's engine; lists of requests longer than a batch are answered as `plan` says."""

    _prepared: Future | None = None

    def infer(self, infer_requests, request_config=None, metrics=None, *, use_tqdm=None, adapter_request=None) -> list:
        few = self.max_batch_size < 2 or len(infer_requests) <= self.max_batch_size
        if request_config is None or request_config.stream or few or self.model_info.task_type != "causal_lm":
            return super().infer(
                infer_requests, request_config, metrics, use_tqdm=use_tqdm, adapter_request=adapter_request
            )
        self.template.set_mode("transformers")
        answer = request_config.max_tokens or 0
        batches = plan([self._tokens(request) + answer for request in infer_requests], self.max_batch_size)
        answers: list[Any] = [None] * len(infer_requests)
        with ThreadPoolExecutor(1) as ahead, tqdm(total=len(answers), disable=use_tqdm is False) as bar:

            def prepare(batch: list[int]) -> Future:
                requests = [infer_requests[number] for number in batch]
                return ahead.submit(super(AnsweringEngine, self)._batch_encode, requests, getattr(self, "strict", True))

            following = prepare(batches[0])
            for number, batch in enumerate(batches):
                self._prepared = following
                following = prepare(batches[number + 1]) if number + 1 < len(batches) else None
                requests = [infer_requests[place] for place in batch]
                for place, answer in zip(
                    batch, self._infer(requests, request_config, adapter_request=adapter_request), strict=True
                ):
                    answers[place] = answer
                bar.update(len(batch))
        self._update_metrics(answers, metrics)
        return answers

    def _batch_encode(self, infer_requests, strict):
        prepared, self._prepared = self._prepared, None
        return prepared.result() if prepared else super()._batch_encode(infer_requests, strict)

    def _tokens(self, request: dict | InferRequest) -> int:
        """About how long a request becomes."""
        row = request if isinstance(request, dict) else vars(request)
        pictures = len(row.get("images") or ()) + len(row.get("videos") or ()) * getattr(
            self.template, "video_segments", 8
        )
        each = getattr(self.template.config, "image_seq_length", 256)
        text = sum(len(message["content"]) for message in row["messages"] if isinstance(message["content"], str))
        return 1 + pictures * each + text // CHARACTERS


def register() -> None:
    """Have `swift infer` use the engine; nothing is done where it does not run."""
    inference = sys.modules.get("swift.pipelines.infer.infer")
    if inference is not None:
        inference.TransformersEngine = AnsweringEngine
