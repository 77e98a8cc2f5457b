"""The region proposal network."""

from __future__ import annotations

import pytest
import torch

from eyeline.nn.anchors import AnchorPyramid
from eyeline.nn.heads.rpn import RPN


@pytest.fixture
def rpn():
    anchors = AnchorPyramid([[8], [16]], (0.5, 1.0, 2.0), (4, 8))
    return RPN(6, anchors, samples=40)


@pytest.fixture
def levels():
    return [
        torch.randn(2, 6, 7, 5, requires_grad=True),
        torch.randn(2, 6, 3, 3, requires_grad=True),
    ]


@pytest.mark.parametrize(
    ("objectness", "depth"), [("softmax", 1), ("sigmoid", 1), ("sigmoid", 2), ("sigmoid", 3)]
)
def test_single_anchors_equal_the_whole_map(objectness, depth, levels):
    """`at` and `forward`: the same values, the same gradients."""
    anchors = AnchorPyramid([[8], [16]], (0.5, 1.0, 2.0), (4, 8))
    rpn = RPN(6, anchors, objectness=objectness, depth=depth)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in rpn.modules()) == 2 + depth
    for parameter in rpn.parameters():
        torch.nn.init.normal_(parameter, std=1 if depth == 1 else 0.3)
    count = 3 * (35 + 9)
    picture = torch.randint(0, 2, (60,))
    anchor = torch.randint(0, count, (60,))  # some more than once
    parameters = [*rpn.parameters(), *levels]
    logits, deltas = rpn.at(levels, picture, anchor)
    sparse = torch.autograd.grad(logits.sin().sum() + deltas.cos().sum(), parameters)
    dense_logits, dense_deltas = (torch.cat(part, 1)[picture, anchor] for part in rpn(levels))
    dense = torch.autograd.grad(dense_logits.sin().sum() + dense_deltas.cos().sum(), parameters)
    torch.testing.assert_close(logits, dense_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(deltas, dense_deltas, atol=1e-4, rtol=1e-4)
    for a, b in zip(sparse, dense, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_proposals_are_the_best_of_each_level_after_nms(rpn, levels):
    logits, deltas = rpn(levels)
    anchors = rpn.anchors(levels, (28, 20))
    sizes = torch.tensor([[28, 20], [20, 16]])
    boxes, valid = rpn.propose(logits, deltas, anchors, sizes, before=10, after=8)
    assert boxes.shape[0] == 2 and boxes.shape[1] <= 8
    assert valid[:, 0].all()
    assert (boxes[1, valid[1]][:, 2] <= 16).all() and (boxes[1, valid[1]][:, 3] <= 20).all()
    # one level, nothing to suppress: the order is that of the scores
    one = RPN(6, AnchorPyramid([[8]], (1.0,), (4,)), nms_iou=1.0)
    logits, deltas = one(levels[:1])
    boxes, _ = one.propose(logits, deltas, one.anchors(levels[:1], (28, 20)), sizes, 35, 35)
    from eyeline.ops.boxes import clip
    from eyeline.ops.deltas import decode

    best = logits[0][0].argmax()
    expected = clip(
        decode(deltas[0][0, best], one.anchors(levels[:1], (28, 20))[0][best]), (28, 20)
    )
    torch.testing.assert_close(boxes[0, 0], expected)


def test_a_level_of_which_nothing_was_sampled(rpn, levels):
    logits, deltas = rpn.at(levels, torch.tensor([0, 1]), torch.tensor([0, 104]))
    assert logits.shape == (2,) and deltas.shape == (2, 4)


def test_loss_counts_only_what_was_sampled(rpn, levels):
    targets = [
        {"boxes": torch.tensor([[2.0, 2, 12, 10]]), "labels": torch.tensor([0]),
         "iscrowd": torch.tensor([False])}
    ] * 2  # fmt: skip
    anchors = rpn.anchors(levels, (28, 20))
    losses = rpn.losses(levels, anchors, targets)
    # all logits start near 0, where the logistic loss is log 2
    assert losses["rpn_objectness"].item() == pytest.approx(0.693, abs=0.05)
    assert losses["rpn_box"].item() > 0
