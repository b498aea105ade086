"""Attention `varlen`: rows laid end to end in one sequence, each looking at itself alone, without flash-attn.

    padding_free: true      # or packing: true
    attn_impl: varlen

ms-swift allows padding-free batches with flash attention only: its other kernels know no rows within a sequence.
Here every row goes through PyTorch's own attention: its kernel for rows of different lengths on a GPU that has one
(half precision), else the ordinary kernel, row after row. No token is padding, and no mask is ever written down.
Batches that are not packed, generation and the vision tower are attended to as with `sdpa`.
"""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise

import torch
from swift.arguments import SftArguments
from swift.dataset import AddLengthPreprocessor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "varlen"


def row_starts(position_ids: torch.Tensor) -> torch.Tensor:
    """What stands for the mask of a packed batch, (1, 1, 1, rows + 1) int32: where each row begins, and the end.

    position_ids: (1, tokens), 0 at the start of a row. Four dimensions, as transformers hands a mask of four through
    to the attention as it is. `ends`, an attribute of it, are the same as numbers of Python.
    """
    starts = (position_ids[0] == 0).nonzero().flatten().tolist()
    ends = [*starts, position_ids.shape[1]]
    mask = torch.tensor(ends, dtype=torch.int32, device=position_ids.device)[None, None, None]
    mask.ends = ends
    return mask


def packed_mask(template, model: torch.nn.Module, inputs: dict) -> dict[str, torch.Tensor]:
    """The mask of a batch whose rows lie end to end, as an input of the model; {} for any other batch."""
    packed = template.padding_free and model.config.text_config._attn_implementation == NAME
    return {"attention_mask": row_starts(inputs["position_ids"])} if packed else {}


def _rows(mask: torch.Tensor) -> list[tuple[int, int]]:
    """Where the rows of a packed batch begin and end; a copy of the mask on another GPU has lost the attribute."""
    return [*pairwise(getattr(mask, "ends", None) or mask.flatten().tolist())]


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Causal attention of a packed batch, (1, heads, tokens, size) in and (1, tokens, heads, size) out."""
    if attention_mask is None or attention_mask.dtype != torch.int32:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, sliding_window=sliding_window, **kwargs
        )
    packed = _rows(attention_mask)
    longest = max(end - start for start, end in packed)
    if _has_kernel(query) and not dropout:
        from torch.nn.attention.varlen import varlen_attn

        places = attention_mask[0, 0, 0]
        window = (-1 if sliding_window is None else sliding_window - 1, 0)
        rows = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
        return varlen_attn(*rows, places, places, longest, longest, scale=scaling, window_size=window, enable_gqa=True)[
            None
        ], None
    seen = []
    for start, end in packed:
        banded = sliding_window is not None and end - start > sliding_window
        seen.append(
            scaled_dot_product_attention(
                *(part[:, :, start:end] for part in (query, key, value)),
                attn_mask=_band(end - start, sliding_window, query.device) if banded else None,
                dropout_p=dropout,
                scale=scaling,
                is_causal=not banded,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    return torch.cat(seen, dim=2).transpose(1, 2).contiguous(), None


def _has_kernel(query: torch.Tensor) -> bool:
    return (
        query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] <= 256
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _band(length: int, window: int, device: torch.device) -> torch.Tensor:
    """(length, length): a token sees itself and the window - 1 before it."""
    behind = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (behind >= 0) & (behind < window)


def _measure_without_pictures() -> None:
    """Before packing, ms-swift encodes every row for its length: of our templates, without decoding any clip."""
    whole = AddLengthPreprocessor.preprocess

    def preprocess(self, row):
        with getattr(self.template, "lengths_only", nullcontext)():
            return whole(self, row)

    AddLengthPreprocessor.preprocess = preprocess


def register() -> None:
    """Make `varlen` known to transformers, and padding-free batches with it to ms-swift."""
    _measure_without_pictures()
    AttentionInterface.register(NAME, varlen_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    check = SftArguments._check_padding_free

    def _check_padding_free(self):
        if self.attn_impl != NAME:
            check(self)
        elif self.packing:
            self.padding_free = True

    SftArguments._check_padding_free = _check_padding_free
