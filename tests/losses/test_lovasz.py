"""Lovasz-softmax: algorithm 1 step by step, and the IoU it stands for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_maps import cases, class_mean, listed, make

from eyeline.losses import lovasz_softmax
from eyeline.losses.lovasz import _slope


def jaccard(wrong, truth):
    """1 - IoU when the pixels of the set `wrong` are wrong and no others."""
    union = [i for i, t in enumerate(truth) if t or i in wrong]
    right = [i for i, t in enumerate(truth) if t and i not in wrong]
    return 1 - len(right) / len(union) if union else 0.0


def extension(pixels, k):
    """By its definition: errors fall, and the set of the wrong grows."""
    truth = [t == k for _, t in pixels]
    errors = [1 - p[k] if t == k else p[k] for p, t in pixels]
    total, wrong = 0.0, set()
    for i in sorted(range(len(errors)), key=lambda i: -errors[i]):
        before = jaccard(wrong, truth)
        wrong.add(i)
        total += errors[i] * (jaccard(wrong, truth) - before)
    return total


@settings(max_examples=25, deadline=None)
@given(cases, st.sampled_from(["present", "all"]), st.booleans())
def test_equals_the_definition(case, classes, per_image):
    logits, target = case
    rows = listed(logits, target)
    expected = class_mean(rows, extension, logits.shape[1] == 1, classes, per_image)
    found = lovasz_softmax(logits, target, classes, per_image)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=10, deadline=None)
@given(cases)
def test_of_certain_predictions_it_is_the_iou(case):
    logits, target = case
    if logits.shape[1] == 1 or (target == 255).all():
        return
    found = logits.argmax(1)
    certain = 1e4 * torch.nn.functional.one_hot(found, logits.shape[1]).movedim(-1, 1).double()
    known, parts = target != 255, []
    for k in target[known].unique():
        a, b = (found == k) & known, target == k
        parts.append(1 - int((a & b).sum()) / int((a | b).sum()))
    expected = sum(parts) / len(parts)
    assert lovasz_softmax(certain, target).item() == pytest.approx(expected, abs=1e-9)


def test_slopes_add_up():
    """All of a present class wrong is an IoU of 0: the steps lead from 0 to 1."""
    errors, truth = torch.rand(50, dtype=torch.float64), torch.rand(50) < 0.3
    steps = _slope(errors, truth, torch.ones(50, dtype=torch.bool))
    assert (steps >= 0).all() and steps.sum().item() == pytest.approx(1)
    alone = _slope(errors, torch.zeros(50, dtype=torch.bool), torch.ones(50, dtype=torch.bool))
    assert alone.nonzero().tolist() == [[errors.argmax().item()]] and alone.sum() == 1


def test_many_pixels_keep_their_digits():
    """Differences of a running Jaccard in float32 are off by percents."""
    count = 2**18
    errors, truth = torch.rand(count), torch.rand(count) < 0.4
    known = torch.ones(count, dtype=torch.bool)
    torch.testing.assert_close(
        _slope(errors, truth, known).double(),
        _slope(errors.double(), truth, known),
        rtol=1e-5,
        atol=0,
    )


def test_of_pictures_or_of_the_batch():
    logits, target = make(5, pictures=3)
    alone = [lovasz_softmax(x[None], t[None]) for x, t in zip(logits, target, strict=True)]
    mean = torch.stack(alone).mean()
    torch.testing.assert_close(lovasz_softmax(logits, target, per_image=True), mean)
    assert (lovasz_softmax(logits, target) - mean).abs() > 1e-4
