"""Which rows of an epoch a process trains on: every row once, and as many tokens for each at a time.

ms-swift cuts an epoch to a multiple of the processes, so that the last rows of a dataset are never seen, and deals the
rest out in turn: who gets a clip of eight frames lets those wait who got text alone. Here the rows of an optimiser step
stay those that one process would see, and are dealt out by length. Where batches are padded, the passes of a step hold
rows of like length each: the loss is divided by the answered tokens of the whole step, so that it stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from swift.dataloader import BatchSamplerShard
from swift.trainers import mixin
from transformers.trainer_pt_utils import get_length_grouped_indices

from swift_plugins.template import about_tokens


def deal(rows: Sequence[int], lengths: Sequence[int], processes: int, size: int) -> list[list[int]]:
    """The rows of each process, at most `size`, in their order: the longest first to whoever has least to do."""
    shares: list[list[int]] = [[] for _ in range(processes)]
    work = [0] * processes
    even = -(-len(rows) // processes)
    for place in sorted(range(len(rows)), key=lambda place: -lengths[place]):
        rank = min((r for r in range(processes) if len(shares[r]) < min(size, even)), key=lambda r: (work[r], r))
        shares[rank].append(place)
        work[rank] += lengths[place]
    return [[rows[place] for place in sorted(share)] for share in shares]


def cut(rows: Sequence[int], lengths: Sequence[int], processes: int, size: int) -> list[list[list[int]]]:
    """Passes of like length, each the rows of each process, at most `size`, in their order; the longest pass first.

    They are padded as little as can be: the pass that is not whole, if one is, comes where it saves most.
    """
    order = sorted(range(len(rows)), key=lambda place: -lengths[place])
    whole = processes * size
    left = len(rows) % whole
    cuts = []
    for start in range(0, len(rows) - left + 1, whole) if left else [0]:
        ends = [*range(0, start + 1, whole), *range(start + left, len(rows) + 1, whole)]
        passes = [order[first:last] for first, last in pairwise(ends) if last > first]
        cuts.append([_split(places, processes) for places in passes])
    best = min(cuts, key=lambda passes: sum(len(share) * lengths[share[0]] for shares in passes for share in shares))
    return [[[rows[place] for place in sorted(share)] for share in shares] for shares in best]


def _split(places: list[int], processes: int) -> list[list[int]]:
    """One after another, as many for each as can be."""
    ends = [len(places) * rank // processes for rank in range(processes + 1)]
    return [places[first:last] for first, last in pairwise(ends)]


class Shares(BatchSamplerShard):
    """ms-swift's sampler, whose steps it keeps, losing no row.

    In the last step of an epoch, processes for which there is no row left see one of the first rows again: all take
    part in every step. measure: a row's number → about how long it is; without it, rows are dealt out in turn.
    passes: how many a step has, where batches are padded; None where the order of rows stays as it was drawn.
    """

    measure: Callable[[int], int] | None = None
    passes: int | None = None

    def __init__(self, total_samples: int, *args, **kwargs):
        super().__init__(total_samples, *args, **kwargs)
        self.rows = total_samples

    def _order(self) -> list[int]:
        """The rows of the epoch as one process would see them."""
        if not self.shuffle:
            return [*range(self.rows)]
        generator = torch.Generator().manual_seed(self.curr_seed)
        if self.group_by_length:
            return get_length_grouped_indices(self.lengths, self.batch_size * self.world_size, generator=generator)
        return torch.randperm(self.rows, generator=generator).tolist()

    def __iter__(self) -> Iterator[list[int]]:
        step = self.batch_size * self.world_size
        grouped = self.passes is not None and self.measure is not None and step > 1
        if self.world_size == 1 and not grouped:
            yield from super().__iter__()
            return
        order = self._order()
        if self.drop_last:
            order = order[: len(order) // step * step]
        together = step * self.passes if grouped else step
        for start in range(0, len(order), together):
            rows = order[start : start + together]
            rows += (order * self.world_size)[: max(0, self.world_size - (len(rows) % step or step))]
            lengths = [self.measure(row) for row in rows] if self.measure else [1] * len(rows)
            if grouped:
                yield from (shares[self.rank] for shares in cut(rows, lengths, self.world_size, self.batch_size))
            else:
                yield deal(rows, lengths, self.world_size, self.batch_size)[self.rank]

    def __len__(self) -> int:
        step = self.batch_size * self.world_size
        return self.rows // step if self.drop_last else -(-self.rows // step)


def register() -> None:
    """Have ms-swift's trainers deal out rows so."""
    whole = mixin.DataLoaderMixin.get_train_dataloader

    def get_train_dataloader(self, skip_batches=0):
        loader = whole(self, skip_batches)
        sampler = getattr(loader, "batch_sampler", None)  # none of streamed rows
        sampler = getattr(sampler, "batch_sampler", sampler)  # a resumed run skips batches
        rows = getattr(self.train_dataset, "dataset", None)
        if isinstance(sampler, Shares) and "messages" in (getattr(rows, "column_names", None) or ()):
            sampler.measure = lambda row: about_tokens(self.template, rows[row])
            sampler.passes = None if self.template.padding_free else self.args.gradient_accumulation_steps
        return loader

    mixin.BatchSamplerShard = Shares
    mixin.DataLoaderMixin.get_train_dataloader = get_train_dataloader
