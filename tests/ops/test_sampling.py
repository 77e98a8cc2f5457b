"""Balanced sampling: how many of which, at random, without repetition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.ops.sampling import balanced_sample


def sample(matches, count, fraction):
    """Positives (P,) and negatives (Q,) of one row, in a random order."""
    order = torch.rand(len(matches), generator=torch.Generator().manual_seed(SEED[0]))
    SEED[0] += 1
    index, filled = balanced_sample(matches, order, count, fraction)
    assert index.shape == filled.shape == (min(count, len(matches)),)
    drawn = index[: int(filled.sum())]
    assert filled[: len(drawn)].all(), "an empty slot before a filled one"
    positive = int((matches[drawn] >= 0).sum())
    return drawn[:positive], drawn[positive:]


SEED = [0]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(-2, 3), max_size=40),
    st.integers(0, 30),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_sizes_and_members(values, count, fraction):
    matches = torch.tensor(values, dtype=torch.int64)
    positive, negative = sample(matches, count, fraction)
    assert len(positive) == min(sum(v >= 0 for v in values), int(count * fraction))
    assert len(negative) == min(values.count(-1), count - len(positive))
    assert all(values[i] >= 0 for i in positive)
    assert all(values[i] == -1 for i in negative)
    drawn = [*positive.tolist(), *negative.tolist()]
    assert len(set(drawn)) == len(drawn)
    assert positive.dtype == negative.dtype == torch.int64


@pytest.mark.parametrize(
    ("matches", "sizes"),
    [
        ([], (0, 0)),
        ([-2, -2, -2], (0, 0)),
        ([0, 1, 2, 0, 0, 0], (2, 0)),  # positives never fill the negatives' part
        ([-1] * 20, (0, 8)),  # negatives fill the positives' part
        ([5] + [-1] * 20, (1, 7)),
        ([0] * 9 + [-1] * 9 + [-2] * 9, (2, 6)),
        ([0, 0, 0, -1, -1], (2, 2)),
    ],
    ids=["empty", "ignored", "positive", "negative", "one positive", "plenty", "too few"],
)
def test_eight_a_quarter_of_them_positive(matches, sizes):
    positive, negative = sample(torch.tensor(matches, dtype=torch.int64), 8, 0.25)
    assert (len(positive), len(negative)) == sizes


def test_the_highest_of_both_kinds_are_drawn():
    matches = torch.tensor([0, -1, 3, -1, -2, 1, -1])
    order = torch.tensor([0.1, 0.2, 0.9, 0.8, 0.99, 0.5, 0.0])
    index, filled = balanced_sample(matches, order, 4, 0.5)
    assert filled.all() and set(index[:2].tolist()) == {2, 5} and index[2:].tolist() == [3, 1]
    index, filled = balanced_sample(matches, order, 6, 0.5)  # 0.0 is drawn too
    assert filled.all() and set(index.tolist()) == {0, 1, 2, 3, 5, 6}


def test_every_anchor_has_the_same_chance():
    matches = torch.tensor([0, -1] * 10)
    drawn = torch.zeros(20)
    for _ in range(1000):
        drawn[torch.cat(sample(matches, 10, 0.5))] += 1
    assert (drawn - 500).abs().max() < 80  # five standard deviations of a binomial, sqrt(250)


def test_rows_are_sampled_alone_and_compile_whole():
    matches, order = torch.randint(-2, 3, (5, 40)), torch.rand(5, 40)
    compiled = torch.compile(balanced_sample, fullgraph=True, backend="eager")
    for call in (balanced_sample, compiled):
        index, filled = call(matches, order, 30, 0.25)
        for row in range(5):
            one, full = balanced_sample(matches[row], order[row], 30, 0.25)
            assert torch.equal(filled[row], full) and torch.equal(index[row][full], one[full])
