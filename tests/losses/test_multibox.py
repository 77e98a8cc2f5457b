from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from eyeline.losses.multibox import MultiBox, multibox
from eyeline.ops.select import fixed_shapes

UNIT = (1.0, 1.0, 1.0, 1.0)
ANCHORS = torch.tensor([[0.0, 0, 10, 10], [10, 0, 30, 10], [0, 20, 4, 30], [5, 5, 9, 25]])
BOXES = torch.tensor([[1.0, 0, 11, 10], [10, 0, 30, 20], [0, 0, 1, 1], [0, 0, 1, 1]])


def given() -> dict[str, Tensor]:
    """Two pictures of four anchors: the first has two positives and one ignored, the other none."""
    generator = torch.Generator().manual_seed(0)
    positive = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    negative = torch.tensor([[0, 0, 1, 0], [1, 1, 1, 1]]).bool()
    return {
        "logits": torch.randn(2, 4, 3, generator=generator, requires_grad=True),
        "deltas": torch.randn(2, 4, 4, generator=generator, requires_grad=True),
        "anchors": ANCHORS.expand(2, 4, 4),
        "boxes": BOXES.expand(2, 4, 4),
        "truth": torch.tensor([[0, 1, 2, 2], [2, 2, 2, 2]]),
        "positive": positive,
        "negative": negative,
    }


def test_by_hand() -> None:
    """Positives are anchors 0 and 1 of the first picture, its only negative is anchor 2."""
    values = given()
    found = multibox(**values, weights=UNIT)
    logits, deltas = values["logits"].tolist(), values["deltas"].tolist()
    classes = sum(
        math.log(sum(map(math.exp, logits[0][n]))) - logits[0][n][label]
        for n, label in ((0, 0), (1, 1), (2, 2))
    )
    wanted = [[0.1, 0, 0, 0], [0, 0.5, 0, math.log(2)]]  # moves of the two
    box = 0.0
    for row, moves in zip(wanted, deltas[0], strict=False):
        for truth, move in zip(row, moves, strict=True):
            d = abs(move - truth)
            box += d * d / 2 if d < 1 else d - 0.5
    assert found.classification.item() == pytest.approx(classes / 2, rel=1e-5)
    assert found.box.item() == pytest.approx(box / 2, rel=1e-5)
    assert found.mined[found.taken].tolist() == [2]
    assert found.each.shape == (2, 4)


def gradients(found: MultiBox, values: dict[str, Tensor]) -> list[Tensor]:
    return list(
        torch.autograd.grad(found.classification + found.box, [values["logits"], values["deltas"]])
    )


def test_fixed_shapes_give_the_same() -> None:
    """Also where an anchor that is not positive has no area, and its target is no number."""
    values = given()
    values["anchors"] = values["anchors"].clone()
    values["anchors"][1, 3] = 5.0
    looked = multibox(**values)
    with fixed_shapes():
        fixed = multibox(**values)
    for a, b in zip(looked[:2], fixed[:2], strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(gradients(looked, values), gradients(fixed, values), strict=True):
        torch.testing.assert_close(a, b)
        assert a.isfinite().all() and a.any()


def test_anchors_are_given() -> None:
    values = given()
    values["anchors"] = values["anchors"].clone().requires_grad_()
    multibox(**values).box.backward()
    assert values["anchors"].grad is None and values["deltas"].grad is not None


def test_nothing_positive_is_zero() -> None:
    values = given()
    values["positive"] = torch.zeros_like(values["positive"])
    found = multibox(**values)
    assert (found.classification.item(), found.box.item()) == (0, 0)
    assert all(not gradient.any() for gradient in gradients(found, values))


def test_the_ratio() -> None:
    values = given()
    values["positive"] = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    values["negative"] = ~values["positive"]
    for ratio, count in ((0.0, 0), (2.0, 2), (9.0, 3)):
        assert int(multibox(**values, ratio=ratio).taken.sum()) == count
