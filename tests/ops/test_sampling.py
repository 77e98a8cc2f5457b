"""Balanced sampling: how many of which, at random, without repetition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.ops.sampling import balanced_sample


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(-2, 3), max_size=40),
    st.integers(0, 30),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_sizes_and_members(values, count, fraction):
    matches = torch.tensor(values, dtype=torch.int64)
    positive, negative = balanced_sample(matches, count, fraction)
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
    positive, negative = balanced_sample(torch.tensor(matches, dtype=torch.int64), 8, 0.25)
    assert (len(positive), len(negative)) == sizes


def test_a_generator_makes_it_repeatable():
    matches = torch.randint(-2, 3, (500,))

    def draw(seed):
        return torch.cat(balanced_sample(matches, 64, 0.5, torch.Generator().manual_seed(seed)))

    state = torch.get_rng_state()
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(torch.get_rng_state(), state)  # torch's own is left alone


def test_every_anchor_has_the_same_chance():
    matches = torch.tensor([0, -1] * 10)
    drawn = torch.zeros(20)
    for _ in range(1000):
        drawn[torch.cat(balanced_sample(matches, 10, 0.5))] += 1
    assert (drawn - 500).abs().max() < 80  # five standard deviations of a binomial, sqrt(250)


def test_compiles_whole():
    matches = torch.tensor([0, -1, -2, 1, -1, -1, 2])

    def draw(matches):
        return balanced_sample(matches, 4, 0.5)

    # how many are found depends on the data, which dynamo captures only if asked to
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(draw, fullgraph=True, backend="eager")
        positive, negative = compiled(matches)
    assert len(positive) == len(negative) == 2
    assert set(positive.tolist()) <= {0, 3, 6} and set(negative.tolist()) <= {1, 4, 5}
