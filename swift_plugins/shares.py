"""Which rows of an epoch a process trains on: every row once, and as many tokens for each at a time.

ms-swift cuts an epoch to a multiple of the processes, so that the last rows of a dataset are never seen, and deals the
rest out in turn: who gets a clip of eight frames lets those wait who got text alone. Here the rows of an optimiser step
stay those that one process would see, and are dealt out by length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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


class Shares(BatchSamplerShard):
    """ms-swift's sampler, whose order it keeps, losing no row.

    In the last step of an epoch, processes for which there is no row left see one of the first rows again: all take
    part in every step. measure: a row's number → about how long it is; without it, rows are dealt out in turn.
    """

    measure: Callable[[int], int] | None = None

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
        if self.world_size == 1:
            yield from super().__iter__()
            return
        order, step = self._order(), self.batch_size * self.world_size
        for start in range(0, len(order), step):
            rows = order[start : start + step]
            if len(rows) < step and self.drop_last:
                return
            rows += (order * self.world_size)[: max(0, self.world_size - len(rows))]
            lengths = [self.measure(row) for row in rows] if self.measure else [1] * len(rows)
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
        return loader

    mixin.BatchSamplerShard = Shares
    mixin.DataLoaderMixin.get_train_dataloader = get_train_dataloader
