"""Dice and Tversky: loops, limits and what they are to each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_maps import cases, class_mean, listed, make

from eyeline.errors import EyelineError
from eyeline.losses import dice_loss, tversky_loss

properties = settings(max_examples=20, deadline=None)
how = st.sampled_from(["present", "all"]), st.booleans(), st.sampled_from([0.0, 1.0, 7.5])


@properties
@given(cases, *how)
def test_dice_equals_a_loop(case, classes, per_image, smooth):
    logits, target = case

    def loss(pixels, k):
        both = sum(p[k] for p, t in pixels if t == k)
        either = sum(p[k] for p, _ in pixels) + sum(t == k for _, t in pixels)
        return 1 - (2 * both + smooth) / max(either + smooth, 2e-7)

    rows = listed(logits, target)
    expected = class_mean(rows, loss, logits.shape[1] == 1, classes, per_image)
    found = dice_loss(logits, target, classes, per_image, smooth)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@properties
@given(cases, *how, st.floats(0.05, 2), st.floats(0.05, 2))
def test_tversky_equals_a_loop(case, classes, per_image, smooth, alpha, beta):
    logits, target = case

    def loss(pixels, k):
        both = sum(p[k] for p, t in pixels if t == k)
        false = sum(p[k] for p, t in pixels if t != k)
        missed = sum(1 - p[k] for p, t in pixels if t == k)
        return 1 - (both + smooth) / max(both + alpha * false + beta * missed + smooth, 1e-7)

    rows = listed(logits, target)
    expected = class_mean(rows, loss, logits.shape[1] == 1, classes, per_image)
    found = tversky_loss(logits, target, alpha, beta, classes, per_image, smooth)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_certain_and_right_certain_and_wrong():
    target = torch.tensor([[[0, 0, 1, 2]]])
    right = 50.0 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    assert dice_loss(right, target).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(right.roll(1, 1), target).item() == pytest.approx(1)
    # half of class 0 is taken for class 1: Dice 2/3, 2/3 and 1
    half = right.clone()
    half[0, :, 0, 1] = torch.tensor([0.0, 50.0, 0.0])
    assert dice_loss(half, target).item() == pytest.approx((1 / 3 + 1 / 3 + 0) / 3, abs=1e-6)


def test_beta_weighs_what_is_missed():
    target = torch.tensor([[[1, 1, 0, 0]]])
    few, many = torch.tensor([[[[9.0, -9, -9, -9]]]]), torch.tensor([[[[9.0, 9, 9, -9]]]])
    assert tversky_loss(few, target, 0.3, 0.7) > tversky_loss(many, target, 0.3, 0.7)
    assert tversky_loss(few, target, 0.7, 0.3) < tversky_loss(many, target, 0.7, 0.3)


def test_of_pictures_or_of_the_batch():
    logits, target = make(5, pictures=3)
    alone = torch.stack([dice_loss(x[None], t[None]) for x, t in zip(logits, target, strict=True)])
    torch.testing.assert_close(dice_loss(logits, target, per_image=True), alone.mean())
    assert (dice_loss(logits, target) - alone.mean()).abs() > 1e-4


def test_options_are_checked():
    with pytest.raises(EyelineError, match='"present" or "all", not \'some\''):
        dice_loss(*make(0), classes="some")
    with pytest.raises(EyelineError, match="alpha is -1, beta"):
        tversky_loss(*make(0), alpha=-1)
