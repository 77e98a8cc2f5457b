"""Cross entropy of pixels, of all and of the hard ones."""

from __future__ import annotations

import math
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from random_maps import cases, listed, make, mean

from eyeline.errors import EyelineError
from eyeline.losses import cross_entropy, ohem_cross_entropy

properties = settings(max_examples=20, deadline=None)
WEIGHTS = torch.tensor([0.5, 2.0, 0.25, 1.0, 3.0])


def weights_for(logits):
    return WEIGHTS[: max(2, logits.shape[1])].double()


@properties
@given(cases, st.booleans(), st.sampled_from([0.0, 0.1, 0.6]))
def test_equals_a_loop_over_pixels(case, weighted, smoothing):
    logits, target = case
    w = weights_for(logits) if weighted else torch.ones(max(2, logits.shape[1])).double()
    top = bottom = 0.0
    for p, t in chain(*listed(logits, target)):
        k = len(p)
        spread = [smoothing / k + (1 - smoothing) * (c == t) for c in range(k)]
        top += sum(-s * float(w[c]) * math.log(p[c]) for c, s in enumerate(spread))
        bottom += float(w[t])
    found = cross_entropy(logits, target, w if weighted else None, smoothing)
    assert found.item() == pytest.approx(top / bottom if bottom else 0, rel=1e-9)


@properties
@given(cases, st.sampled_from([0.0, 0.3]))
def test_equals_torch(case, smoothing):
    logits, target = case
    if logits.shape[1] == 1 or (target == 255).all():
        return
    w = weights_for(logits)
    expected = F.cross_entropy(logits, target, w, ignore_index=255, label_smoothing=smoothing)
    torch.testing.assert_close(cross_entropy(logits, target, w, smoothing), expected)


def test_one_class_is_a_sigmoid():
    logits, target = make(0, classes=1, ignored=0.0)
    expected = F.binary_cross_entropy_with_logits(logits[:, 0], target.double())
    torch.testing.assert_close(cross_entropy(logits, target), expected)


def test_weights_may_be_numbers():
    logits, target = make(1)
    numbers = cross_entropy(logits, target, (0.5, 2.0, 0.25))
    torch.testing.assert_close(numbers, cross_entropy(logits, target, WEIGHTS[:3].double()))
    with pytest.raises(EyelineError, match="2 class weights for 3 classes"):
        cross_entropy(logits, target, (1, 2))


def test_where_no_weight_is_there_is_no_loss():
    """As pixels of classes that the training pictures have not."""
    logits, target = make(1, ignored=0.0)
    logits.requires_grad_()
    loss = cross_entropy(logits, torch.zeros_like(target), (0.0, 1.0, 1.0), smoothing=0.1)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_share_out_of_range(smoothing):
    with pytest.raises(EyelineError, match="it is a share"):
        cross_entropy(*make(0), smoothing=smoothing)


@properties
@given(
    cases,
    st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    st.integers(0, 9),
    st.sampled_from([0.0, 1 / 16, 0.5, 1.0]),
    st.booleans(),
)
def test_hard_pixels_by_a_loop(case, threshold, least, share, weighted):
    logits, target = case
    w = weights_for(logits) if weighted else torch.ones(max(2, logits.shape[1])).double()
    pixels = sorted((p[t], float(w[t])) for p, t in chain(*listed(logits, target)))
    easy = min(least, math.ceil(share * len(pixels)))  # that are kept all the same
    kept = [(p, w) for i, (p, w) in enumerate(pixels) if p < threshold or i < easy]
    expected = mean([-w * math.log(p) for p, w in kept]) / (mean([w for _, w in kept]) or 1)
    w = w if weighted else None
    found = ohem_cross_entropy(logits, target, w, threshold, least, share)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_ignored_pixels_are_not_among_the_hard_ones():
    logits = torch.tensor([[[[0.0, 0.0, 0.0, 0.0]], [[9.0, 8.0, 1.0, 2.0]]]])
    target = torch.tensor([[[255, 255, 0, 0]]])
    found = ohem_cross_entropy(logits, target, threshold=0.0, least=1)
    assert found.item() == pytest.approx(math.log(1 + math.exp(2)))


def test_only_the_ratio_of_weights_counts():
    logits, target = make(1)
    found = [f(logits, target, 1e-4 * WEIGHTS[:3]) for f in (cross_entropy, ohem_cross_entropy)]
    torch.testing.assert_close(found[0], cross_entropy(logits, target, WEIGHTS[:3]))
    torch.testing.assert_close(found[1], ohem_cross_entropy(logits, target, WEIGHTS[:3]))


def test_small_batches_have_hard_pixels_too():
    """By default a sixteenth of the labelled pixels is kept, not all that there are."""
    logits, target = torch.zeros(1, 2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64)
    logits[0, 0] = torch.linspace(3, 6, 64).reshape(8, 8)
    target[0, 4:] = 255  # of 32 labelled ones two are kept
    expected = F.softplus(-logits[0, 0].flatten()[:2]).mean()
    torch.testing.assert_close(ohem_cross_entropy(logits, target), expected)


def test_of_equally_hard_pixels_all_are_kept():
    logits = torch.zeros(1, 2, 1, 6)
    logits[0, 0, 0, :2] = 3.0  # two easy ones
    target = torch.zeros(1, 1, 6, dtype=torch.int64)
    found = ohem_cross_entropy(logits, target, threshold=0.0, least=1)
    assert found.item() == pytest.approx(math.log(2))


def test_hard_pixels_that_float32_holds_for_impossible():
    """Their probabilities are all 0, yet the hardest is told from the others."""
    logits = torch.zeros(1, 2, 1, 4)
    logits[0, 1, 0] = torch.tensor([200.0, 300.0, 500.0, 400.0])
    target = torch.zeros(1, 1, 4, dtype=torch.int64)
    assert ohem_cross_entropy(logits, target, threshold=0.0, least=1).item() == 500


@properties
@given(cases)
def test_all_are_kept_from_as_many_on(case):
    logits, target = case
    found = ohem_cross_entropy(logits, target, weights_for(logits), 0.0, target.numel(), 1)
    torch.testing.assert_close(found, cross_entropy(logits, target, weights_for(logits)))


def test_easy_pixels_get_no_gradient():
    logits, target = make(3, ignored=0.0, height=8, width=8)
    logits.requires_grad_()
    ohem_cross_entropy(logits, target, threshold=0.4, least=5).backward()
    hard = logits.softmax(1).gather(1, target[:, None])[:, 0] < 0.4
    assert 5 < hard.sum() < hard.numel()
    assert torch.equal(logits.grad.abs().sum(1) > 0, hard)


@pytest.mark.parametrize(
    "options", [{"threshold": 1.1}, {"threshold": -0.1}, {"least": -1}, {"share": 1.1}]
)
def test_options_out_of_range(options):
    with pytest.raises(EyelineError, match="the first is a probability"):
        ohem_cross_entropy(*make(0), **options)
