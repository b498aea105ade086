"""Which rows each process trains on: every row of an epoch once, in the steps that one process would take."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from swift.dataloader import BatchSamplerShard

from swift_plugins.shares import Shares, cut, deal

pytestmark = pytest.mark.swift


def world(processes, rows, size, *, measure=None, passes=None, **options):
    """What every process gets in an epoch, batch by batch."""
    options = {"shuffle": True, "drop_last": False, "data_seed": 42} | options
    epochs = []
    for rank in range(processes):
        kind = type("Rank", (Shares,), {"rank": rank, "world_size": processes})
        sampler = kind(rows, size, **options)
        sampler.measure, sampler.passes = measure, passes
        sampler.set_epoch(1)
        epochs.append([*sampler])
        assert len(sampler) == len(epochs[-1])
    return epochs


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_no_row_is_lost_and_steps_are_those_of_one_process(rows, size, processes, shuffle):
    epochs = world(processes, rows, size, shuffle=shuffle, measure=lambda row: row % 7)
    alone = world(1, rows, size * processes, shuffle=shuffle)[0]
    assert len({len(epoch) for epoch in epochs}) == 1, "who has no batch lets the others wait for ever"
    counts = Counter()
    for step, whole in enumerate(alone):
        shares = [epoch[step] for epoch in epochs]
        assert all(0 < len(share) <= size for share in shares)
        seen = Counter(row for share in shares for row in share)
        assert set(whole) <= set(seen)
        counts += seen
        if len(whole) >= processes:
            assert seen == Counter(whole)
    again = sum(counts.values()) - rows
    assert set(counts) == set(range(rows)) and again < processes, "rows seen again fill places of the last step alone"


def test_one_process_sees_what_ms_swift_shows_it():
    stock = BatchSamplerShard(23, 4, True, False, 42)
    stock.set_epoch(1)
    assert world(1, 23, 4)[0] == [*stock]


def test_a_last_step_that_is_not_whole_can_be_left_out():
    assert [len(batch) for batch in world(2, 11, 2, drop_last=True)[0]] == [2, 2]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.integers(1, 5))
def test_work_is_dealt_out_evenly(lengths, processes):
    shares = deal(range(len(lengths)), lengths, processes, len(lengths))
    assert sorted(row for share in shares for row in share) == [*range(len(lengths))]
    assert max(map(len, shares)) - min(map(len, shares)) <= -(-len(lengths) // processes)
    assert all(share == sorted(share) for share in shares), "in the order of the rows"


@pytest.mark.parametrize(
    "lengths, expected",
    [
        ([2048, 2048, 50, 50], [[0, 2], [1, 3]]),  # the clips come in a row
        ([2048, 50, 2048, 50], [[0, 1], [2, 3]]),  # in turn, one process would have both clips
        ([100, 1, 1, 1], [[0, 3], [1, 2]]),  # as many rows each, whatever they weigh
    ],
)
def test_clips_are_shared(lengths, expected):
    assert deal(range(4), lengths, 2, 2) == expected


def padded(shares, lengths):
    """Tokens that the batches of a pass become, one a process."""
    return sum(len(share) * max(lengths[row] for row in share) for share in shares)


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=60),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 4),
    st.booleans(),
)
def test_passes_of_padded_batches_hold_rows_of_like_length(lengths, size, processes, passes, drop_last):
    """A step has the rows that it would have, in as many passes, and never more tokens of padding than in their drawn
    order; on several processes that is said of steps that are whole."""
    options = {"measure": lengths.__getitem__, "drop_last": drop_last}
    drawn, grouped = (world(processes, len(lengths), size, passes=p, **options) for p in (None, passes))
    assert len(drawn[0]) == len(grouped[0]), "a resumed run skips as many batches"
    for start in range(0, len(drawn[0]), passes):
        steps = [[*zip(*epochs, strict=True)][start : start + passes] for epochs in (drawn, grouped)]
        rows = [sorted(row for shares in step for share in shares for row in share) for step in steps]
        assert rows[0] == rows[1]
        assert all(0 < len(share) <= size for shares in steps[1] for share in shares)
        before, after = (sum(padded(shares, lengths) for shares in step) for step in steps)
        if processes == 1 or len(rows[0]) % (size * processes) == 0:
            assert after <= before


@pytest.mark.parametrize(
    "lengths, processes, size, expected",
    [
        ([9, 1, 9, 1], 1, 2, [[[0, 2]], [[1, 3]]]),
        ([9, 1, 9, 1, 5], 1, 2, [[[0, 2]], [[4]], [[1, 3]]]),  # alone, the row between adds nothing to others
        ([9, 1, 1, 1], 1, 3, [[[0]], [[1, 2, 3]]]),
        ([9, 1, 9, 1], 2, 1, [[[0], [2]], [[1], [3]]]),  # no process waits for another's clip
        ([9, 1, 9, 1], 2, 2, [[[0, 2], [1, 3]]]),
        ([1, 9, 5], 1, 4, [[[0, 1, 2]]]),  # in their order: a step of one pass stays what it was to the last bit
    ],
)
def test_passes(lengths, processes, size, expected):
    assert cut(range(len(lengths)), lengths, processes, size) == expected


def test_rows_one_at_a_time_stay_as_drawn():
    measure = [*range(20)].__getitem__
    assert world(1, 20, 1, measure=measure, passes=4) == world(1, 20, 1)
