"""Smooth L1: the bend, what lies on either side of it, its limits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from eyeline.errors import EyelineError
from eyeline.losses.smooth_l1 import smooth_l1

properties = settings(max_examples=60, deadline=None)
value, bend = st.floats(-10, 10), st.sampled_from([0.0, 1 / 9, 0.5, 1.0, 3.0])


def one(pred, target, beta):
    return smooth_l1(*(torch.tensor([v], dtype=torch.float64) for v in (pred, target)), beta).item()


@properties
@given(value, value, bend)
def test_equals_the_equation(pred, target, beta):
    d = abs(pred - target)
    expected = d * d / (2 * beta) if d < beta else d - beta / 2
    assert one(pred, target, beta) == pytest.approx(expected, abs=1e-12)
    assert one(target, pred, beta) == one(pred, target, beta)
    assert one(pred, pred, beta) == 0


@properties
@given(value, value, bend)
def test_lies_between_l1_and_l1_less_half_beta(pred, target, beta):
    d = abs(pred - target)
    assert d - beta / 2 - 1e-12 <= one(pred, target, beta) <= d + 1e-12


def test_without_a_bend_it_is_l1():
    pred, target = torch.randn(50), torch.randn(50)
    assert torch.equal(smooth_l1(pred, target, beta=0), (pred - target).abs())


def test_with_the_bend_far_away_it_is_the_square():
    pred, target = torch.randn(50), torch.randn(50)
    expected = (pred - target) ** 2 / 200
    torch.testing.assert_close(smooth_l1(pred, target, beta=100), expected)


@pytest.mark.parametrize("beta", [1 / 9, 1.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_value_and_slope_are_continuous_at_the_bend(beta, sign):
    near = torch.tensor([beta - 1e-9, beta, beta + 1e-9], dtype=torch.float64) * sign
    near.requires_grad_()
    loss = smooth_l1(near, torch.zeros_like(near), beta)
    torch.testing.assert_close(loss, torch.full_like(loss, beta / 2), rtol=0, atol=2e-9)
    loss.sum().backward()
    torch.testing.assert_close(near.grad, torch.full_like(loss, float(sign)), rtol=0, atol=2e-8)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_equals_torchs(beta, reduction):
    pred, target = 2 * torch.randn(40, 4), torch.randn(40, 4)
    expected = F.smooth_l1_loss(pred, target, beta=beta, reduction=reduction)
    torch.testing.assert_close(smooth_l1(pred, target, beta, reduction), expected)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_gradient(beta):
    pred = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    target = torch.full((9,), 0.1, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda p, t: smooth_l1(p, t, beta), (pred, target))


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_no_difference_no_gradient(beta):
    pred = torch.ones(3, requires_grad=True)
    smooth_l1(pred, torch.ones(3), beta, "sum").backward()
    assert pred.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_no_elements_no_loss(reduction):
    assert smooth_l1(torch.zeros(0, 4), torch.zeros(0, 4), 1.0, reduction).item() == 0


def test_errors():
    with pytest.raises(EyelineError, match=r"beta is -1; it must be 0 or more"):
        smooth_l1(torch.zeros(1), torch.zeros(1), -1)
    with pytest.raises(EyelineError, match=r"compares \(3, 4\) with \(4,\)"):
        smooth_l1(torch.zeros(3, 4), torch.zeros(4))
    with pytest.raises(EyelineError, match="'avg'; there are: none, sum, mean"):
        smooth_l1(torch.zeros(1), torch.zeros(1), 1.0, "avg")


def test_compiles_whole():
    pred, target = torch.randn(5, 4), torch.randn(5, 4)
    compiled = torch.compile(smooth_l1, fullgraph=True, backend="eager")
    assert torch.equal(compiled(pred, target, 0.5, "sum"), smooth_l1(pred, target, 0.5, "sum"))


def test_half_precision_deltas_are_compared_in_float32():
    pred, target = torch.randn(20).bfloat16(), torch.randn(20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = smooth_l1(pred, target)
    assert found.dtype == torch.float32
    assert torch.equal(found, smooth_l1(pred.float(), target))
