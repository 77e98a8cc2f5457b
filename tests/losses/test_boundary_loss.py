"""Boundary loss: distances by hand and by brute force, and what it pushes where."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from random_maps import cases, make

from eyeline.errors import EyelineError
from eyeline.losses import boundary_loss, dice_loss, signed_distances

properties = settings(max_examples=12, deadline=None)


def slow_distances(target, classes):
    result = torch.zeros(len(target), classes, *target.shape[1:], dtype=torch.float64)
    for b, picture in enumerate(target.tolist()):
        pixels = {(y, x): t for y, row in enumerate(picture) for x, t in enumerate(row)}
        for k in range(classes):
            own = [at for at, t in pixels.items() if t == k]
            rest = [at for at, t in pixels.items() if t not in (k, 255)]
            for (y, x), t in pixels.items():
                if own and rest and t != 255:
                    if t == k:
                        value = 1 - min(math.dist((y, x), at) for at in rest)
                    else:
                        value = min(math.dist((y, x), at) for at in own)
                    result[b, k, y, x] = value
    return result


@properties
@given(cases)
def test_distances_by_brute_force(case):
    logits, target = case
    classes = max(2, logits.shape[1])
    found = signed_distances(target, classes)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), slow_distances(target, classes), rtol=1e-6, atol=0)


@properties
@given(cases)
def test_equals_a_loop(case):
    logits, target = case
    binary = logits.shape[1] == 1
    phi = slow_distances(target, max(2, logits.shape[1]))
    p = torch.cat([1 - logits.sigmoid(), logits.sigmoid()], 1) if binary else logits.softmax(1)
    total, labelled = 0.0, max(1, int((target != 255).sum()))
    for k in range(int(binary), phi.shape[1]):
        total += (p[:, k] * phi[:, k]).sum().item()
    expected = total / labelled / (phi.shape[1] - int(binary))
    assert boundary_loss(logits, target).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_distances_by_hand():
    row = torch.tensor([[[0, 0, 0, 1, 1, 255, 1]]])
    found = signed_distances(row, 3)[0, :, 0]
    assert found.tolist() == [
        [-2, -1, 0, 1, 2, 0, 4],
        [3, 2, 1, 0, -1, 0, -3],
        [0, 0, 0, 0, 0, 0, 0],
    ]
    assert not signed_distances(torch.zeros(1, 4, 4, dtype=torch.int64), 2).any()


def test_distances_may_be_given():
    logits, target = make(0)
    phi = signed_distances(target, 3)
    assert torch.equal(boundary_loss(logits, target, phi), boundary_loss(logits, target))
    with pytest.raises(EyelineError, match=r"distances are \(2, 2, 4, 5\), not \(2, 3, 4, 5\)"):
        boundary_loss(logits, target, phi[:, :2])
    with pytest.raises(EyelineError, match="class 3 "):
        signed_distances(torch.tensor([[[0, 3]]]), 2)


def test_lowest_where_the_regions_are_right():
    _, target = make(2, ignored=0.1, height=8, width=9)
    right = 50.0 * torch.nn.functional.one_hot(target.where(target < 3, 0), 3).movedim(-1, 1)
    lowest = boundary_loss(right, target)
    assert lowest <= 0
    for seed in range(20):
        assert boundary_loss(make(seed, height=8, width=9)[0], target) > lowest


def test_what_is_farther_off_costs_more():
    """Where Dice sees one wrong pixel, whichever it is."""
    target = torch.zeros(1, 1, 12, dtype=torch.int64)
    target[..., :3] = 1
    losses = []
    for wrong in (3, 7, 11):
        logits = torch.full((1, 1, 1, 12), -40.0)
        logits[..., :3] = logits[..., wrong] = 40.0
        losses.append((boundary_loss(logits, target).item(), dice_loss(logits, target).item()))
    assert losses[0][0] < losses[1][0] < losses[2][0]
    assert losses[0][1] == pytest.approx(losses[2][1])
