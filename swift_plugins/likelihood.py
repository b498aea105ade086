"""How likely a model finds given answers: log p of each whole answer to a row, its end token included.

    template.set_mode("train")
    prepared = prepare(template, rows, ["Positive.", "Negative."])  # rows as ms-swift knows them, without an answer
    log_likelihoods(model, template, prepared)                      # a list of two numbers for each row

What the answers to a row begin with in common, the prompt, runs once; the answers go on from its keys and values.
`ask.py`, the app and `test.sh --score likelihood` rank labels by it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from swift.template import Template


@dataclass(frozen=True)
class Prepared:
    """Rows and as many answers to each. rows: encoded, with the first answer or, where `ends` is None, with each of
    them in turn. shared: the tokens that the answers to a row begin with in common. ends: of each row and answer the
    tokens after them."""

    rows: list[dict[str, Any]]
    answers: int
    shared: list[int]
    ends: list[list[int]] | None


def shares(likelihoods: Sequence[float]) -> list[float]:
    """Probabilities among the given answers alone: the softmax of their log-likelihoods."""
    top = max(likelihoods)
    weights = [math.exp(value - top) for value in likelihoods]
    return [weight / sum(weights) for weight in weights]


def prepare(template: Template, rows: Sequence[dict[str, Any]], answers: Sequence[str]) -> Prepared:
    """Encode rows with each of the answers, as training would see them; the template is in its mode `train`.

    Pictures are looked at once a row. Raises what the template raises.
    """
    from swift_plugins.template import EmoverseTemplate

    turns = [[answered(row, answer) for answer in answers] for row in rows]
    if not isinstance(template, EmoverseTemplate):  # other models' inputs have more to a token than its id
        return Prepared(_encoded(template, [row for same in turns for row in same]), len(answers), [], None)
    encoded = _encoded(template, [same[0] for same in turns])
    shared, ends = [], []
    with template.lengths_only():
        for first, same in zip(encoded, turns, strict=True):
            every = [first, *(template.encode(row) for row in same[1:])]
            shared.append(common([(one["input_ids"], one["labels"]) for one in every]))
            ends += [one["input_ids"][shared[-1] :] for one in every]
    return Prepared(encoded, len(answers), shared, ends)


def log_likelihoods(model: torch.nn.Module, template: Template, prepared: Prepared) -> list[list[float]]:
    """log p of each answer, (rows, answers); the model is in evaluation, the template in its mode `train`."""
    import torch

    with torch.inference_mode():
        way = _whole if prepared.ends is None else _after_prompts
        return way(model, template, prepared).view(-1, prepared.answers).tolist()


def common(rows: Sequence[tuple[list[int], list[int]]]) -> int:
    """How many tokens the rows (ids, labels) begin with in common, before the first token of an answer."""
    asked = min(next(place for place, label in enumerate(labels) if label != -100) for _, labels in rows)
    columns = zip(*(ids[:asked] for ids, _ in rows), strict=True)
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), asked)


def answered(row: dict[str, Any], answer: str) -> dict[str, Any]:
    """A row with an answer to it."""
    return row | {"messages": [*row["messages"], {"role": "assistant", "content": answer}]}


def _encoded(template: Template, rows: list[dict]) -> list[dict]:
    """Rows encoded side by side, as ms-swift does: decoding clips is what takes long."""
    with ThreadPoolExecutor(min(len(rows), os.cpu_count() or 1)) as pool:
        return list(pool.map(template.encode, rows))


def _after_prompts(model: torch.nn.Module, template: Template, prepared: Prepared) -> torch.Tensor:
    """Of each row and answer. Prompts are padded on the left, so that all end, and answers begin, at one place."""
    import torch

    assert prepared.ends is not None
    device, number, width = model.device, prepared.answers, max(prepared.shared)
    prompts = []
    for row, length in zip(prepared.rows, prepared.shared, strict=True):
        ids = [template.tokenizer.pad_token_id] * (width - length) + row["input_ids"][:length]
        prompts.append(row | {"input_ids": ids, "labels": [-100] * width})
    shared = torch.tensor(prepared.shared, device=device)[:, None]
    there = torch.arange(width, device=device) >= width - shared
    places = (there.cumsum(-1) - 1).clamp(min=0)
    inputs = _inputs(model, template, prompts)[0] | {"attention_mask": there.long(), "position_ids": places}
    seen = model(**inputs, use_cache=True, logits_to_keep=1)
    seen.past_key_values.batch_repeat_interleave(number)

    longest = max(map(len, prepared.ends))
    ids = torch.tensor([end + [0] * (longest - len(end)) for end in prepared.ends], device=device)
    said = torch.arange(longest, device=device) < torch.tensor([*map(len, prepared.ends)], device=device)[:, None]
    logits = model(
        input_ids=ids,
        attention_mask=torch.cat([there.repeat_interleave(number, 0), said], dim=1).long(),
        position_ids=shared.repeat_interleave(number, 0) + torch.arange(longest, device=device),
        past_key_values=seen.past_key_values,
    ).logits
    logits = torch.cat([seen.logits.repeat_interleave(number, 0), logits[:, :-1]], dim=1)
    chosen = logits.float().log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return chosen.masked_fill(~said, 0).sum(-1)


def _whole(model: torch.nn.Module, template: Template, prepared: Prepared) -> torch.Tensor:
    """Of each row and answer, each run whole."""
    inputs, labels = _inputs(model, template, prepared.rows)
    targets = labels[:, 1:]
    answered = (targets != -100).any(0)  # the rest, gigabytes for a large model, is not needed
    targets = targets[:, answered]
    logits = model(**inputs).logits[:, :-1][:, answered].float().log_softmax(-1)
    chosen = logits.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return chosen.masked_fill(targets == -100, 0).sum(-1)


def _inputs(model: torch.nn.Module, template: Template, encoded: list[dict]) -> tuple[dict, Any]:
    """What the model takes of encoded rows, and their labels."""
    from swift.utils import to_device

    batch = to_device(template.data_collator(encoded), model.device)
    inputs = template.pre_forward_hook(model, None, batch)[1]
    return inputs, inputs.pop("labels", None)
