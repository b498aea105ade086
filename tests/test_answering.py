"""Which rows `swift infer` answers together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_plugins.answering import plan

pytestmark = pytest.mark.swift


@given(st.lists(st.integers(1, 3000), max_size=300), st.integers(1, 40))
def test_every_row_once_and_no_batch_larger_than_the_longest_rows_would_be(tokens, size):
    batches = plan(tokens, size)
    assert sorted(number for batch in batches for number in batch) == list(range(len(tokens)))
    for batch in batches:
        longest = max(tokens[number] for number in batch)
        assert len(batch) * longest <= size * max(tokens)
        assert len(batch) >= min(size, len(batches[-1])), "never fewer rows than max_batch_size, but in the last"


@pytest.mark.parametrize(
    "tokens, size, expected",
    [
        ([], 4, []),
        ([5, 5, 5], 2, [[0, 1], [2]]),
        ([10, 100, 10, 10], 1, [[1], [0, 2, 3]]),  # ten short rows would fit beside each other
        ([100, 50, 50, 50], 2, [[0, 1], [2, 3]]),
    ],
)
def test_batches(tokens, size, expected):
    assert plan(tokens, size) == expected
