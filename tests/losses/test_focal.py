"""Focal loss: its equation, its limits, its behaviour at extreme logits."""

from __future__ import annotations

import math
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from random_maps import cases, listed, make
from torch.autograd import gradcheck

from eyeline.errors import EyelineError
from eyeline.losses.entropy import cross_entropy
from eyeline.losses.focal import sigmoid_focal_loss, softmax_focal_loss

properties = settings(max_examples=60, deadline=None)
logit = st.floats(-30, 30)
alphas, gammas = st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0])
LOGITS = torch.linspace(-8, 8, 34).reshape(2, 17)
TARGETS = (torch.arange(34).reshape(2, 17) % 3 == 0).float()


@properties
@given(st.lists(st.tuples(logit, st.booleans()), max_size=8), alphas, gammas)
def test_equals_a_loop_over_logits(pairs, alpha, gamma):
    expected = []
    for x, present in pairs:
        p_t = 1 / (1 + math.exp(-x if present else x))
        rest = 1 / (1 + math.exp(x if present else -x))  # 1 - p_t without cancellation
        weight = alpha if present else 1 - alpha
        expected.append(-weight * rest**gamma * math.log(p_t))
    x = torch.tensor([x for x, _ in pairs], dtype=torch.float64)
    t = torch.tensor([float(t) for _, t in pairs], dtype=torch.float64)
    found = sigmoid_focal_loss(x, t, alpha, gamma)
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12
    )


def test_without_gamma_and_alpha_it_is_cross_entropy():
    found = sigmoid_focal_loss(LOGITS, TARGETS, alpha=-1, gamma=0)
    torch.testing.assert_close(
        found, F.binary_cross_entropy_with_logits(LOGITS, TARGETS, reduction="none")
    )


def test_alpha_one_half_is_half_of_no_alpha():
    halved = sigmoid_focal_loss(LOGITS, TARGETS, alpha=0.5)
    torch.testing.assert_close(2 * halved, sigmoid_focal_loss(LOGITS, TARGETS, alpha=-1))


@properties
@given(logit, alphas, gammas)
def test_absent_is_present_with_logit_and_alpha_turned_round(x, alpha, gamma):
    x = torch.tensor([x], dtype=torch.float64)
    one = torch.ones_like(x)
    torch.testing.assert_close(
        sigmoid_focal_loss(x, one, alpha, gamma),
        sigmoid_focal_loss(-x, 1 - one, 1 - alpha, gamma),
    )


# sec. 3.2: "With gamma = 2, an example classified with p_t = 0.9 would have 100x lower loss
# compared with CE and with p_t ~ 0.968 it would have 1000x lower loss"; at most 4x from p_t <= .5.
@pytest.mark.parametrize(("p", "factor"), [(0.9, 100), (0.9683772, 1000), (0.5, 4)])
def test_easy_examples_count_less_by_the_papers_factors(p, factor):
    x = torch.tensor(p, dtype=torch.float64).logit()
    one = torch.ones_like(x)
    focal = sigmoid_focal_loss(x, one, alpha=-1, gamma=2)
    entropy = sigmoid_focal_loss(x, one, alpha=-1, gamma=0)
    assert (entropy / focal).item() == pytest.approx(factor, rel=1e-4)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
@pytest.mark.parametrize("extreme", [100.0, 1e4])
def test_extreme_logits(extreme, gamma):
    x = torch.tensor([-extreme, extreme, -extreme, extreme], requires_grad=True)
    t = torch.tensor([0.0, 1, 1, 0])
    loss = sigmoid_focal_loss(x, t, alpha=-1, gamma=gamma)
    torch.testing.assert_close(loss, torch.tensor([0, 0, extreme, extreme]))
    loss.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([0.0, 0, -1, 1]))


@pytest.mark.parametrize("gamma", [0, 0.5, 2])
@pytest.mark.parametrize("alpha", [-1, 0.25])
def test_gradient(alpha, gamma):
    def f(x):
        return sigmoid_focal_loss(x, TARGETS.double(), alpha, gamma)

    assert gradcheck(f, LOGITS.double().requires_grad_())


def test_descends_towards_the_target():
    x = LOGITS.clone().requires_grad_()
    sigmoid_focal_loss(x, TARGETS).sum().backward()
    assert torch.equal(x.grad < 0, TARGETS > 0)


def test_reductions():
    each = sigmoid_focal_loss(LOGITS, TARGETS)
    assert each.shape == LOGITS.shape
    torch.testing.assert_close(sigmoid_focal_loss(LOGITS, TARGETS, reduction="sum"), each.sum())
    torch.testing.assert_close(sigmoid_focal_loss(LOGITS, TARGETS, reduction="mean"), each.mean())


def test_an_unknown_reduction_is_named():
    with pytest.raises(EyelineError, match="'avg'; there are: none, sum, mean"):
        sigmoid_focal_loss(LOGITS, TARGETS, reduction="avg")


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_no_elements_no_loss(reduction):
    x = torch.zeros(0, 3, requires_grad=True)
    loss = sigmoid_focal_loss(x, torch.zeros(0, 3), reduction=reduction)
    assert loss.item() == 0
    loss.backward()
    assert x.grad.shape == (0, 3)


def test_compiles_whole():
    compiled = torch.compile(sigmoid_focal_loss, fullgraph=True, backend="eager")
    assert torch.equal(compiled(LOGITS, TARGETS), sigmoid_focal_loss(LOGITS, TARGETS))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_judged_in_float32(dtype):
    x = LOGITS.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sigmoid_focal_loss(x, TARGETS.to(dtype))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, sigmoid_focal_loss(x.float(), TARGETS))


@settings(max_examples=20, deadline=None)
@given(cases, gammas, st.booleans())
def test_of_a_softmax_equals_a_loop_over_pixels(case, gamma, weighted):
    logits, target = case
    w = [0.5, 2.0, 0.25, 1.0, 3.0][: max(2, logits.shape[1])]
    top = bottom = 0.0
    for p, t in chain(*listed(logits, target)):
        rest = sum(x for k, x in enumerate(p) if k != t)
        top += -(w[t] if weighted else 1) * rest**gamma * math.log(p[t])
        bottom += w[t] if weighted else 1
    found = softmax_focal_loss(logits, target, gamma, w if weighted else None)
    assert found.item() == pytest.approx(top / bottom if bottom else 0, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(cases)
def test_of_a_softmax_without_gamma_it_is_cross_entropy(case):
    logits, target = case
    w = torch.rand(max(2, logits.shape[1])).double() + 0.1
    found = softmax_focal_loss(logits, target, 0.0, w)
    torch.testing.assert_close(found, cross_entropy(logits, target, w))


def test_of_a_softmax_over_one_class_it_is_the_sigmoids():
    logits, target = make(0, classes=1, ignored=0.0)
    found = sigmoid_focal_loss(logits[:, 0], target.double(), alpha=-1, reduction="mean")
    torch.testing.assert_close(softmax_focal_loss(logits, target), found)


def test_of_a_softmax_a_gamma_below_0():
    with pytest.raises(EyelineError, match="gamma is -1"):
        softmax_focal_loss(*make(0), gamma=-1)
