"""1 - GIoU, 1 - DIoU, 1 - CIoU: ranges, gradients, and that descending them moves boxes home."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from eyeline.losses.iou import ciou_loss, diou_loss, giou_loss
from eyeline.ops.iou import elementwise_ciou, elementwise_diou, elementwise_giou, elementwise_iou

LOSSES = {
    giou_loss: (elementwise_giou, 2.0),
    diou_loss: (elementwise_diou, 2.0),
    ciou_loss: (elementwise_ciou, 2.5),
}
every = pytest.mark.parametrize("loss", LOSSES)
number, side = st.integers(-200, 200), st.integers(1, 200)
box = st.tuples(number, number, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
pairs = st.lists(st.tuples(box, box), min_size=1, max_size=6)

PRED = torch.tensor([[0.0, 0, 4, 5], [10, 2, 17, 8.5], [1, 30, 6, 33]])
TARGET = torch.tensor([[1.0, 2, 6, 6.5], [11, 3, 15, 7], [20, 1, 26, 9]])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(LOSSES)), pairs)
def test_value_and_range(loss, pairs):
    pred, target = torch.tensor(pairs).float().unbind(1)
    overlap, highest = LOSSES[loss]
    value = loss(pred, target)
    torch.testing.assert_close(value, 1 - overlap(pred, target))
    assert (value >= 0).all() and (value <= highest).all()
    assert (value >= 1 - elementwise_iou(pred, target)).all()
    assert loss(target, target).tolist() == [0.0] * len(target)


# Made by torchvision 0.28, with PRED and TARGET above:
#   generalized_box_iou_loss(PRED, TARGET), distance_box_iou_loss(...), complete_box_iou_loss(...)
TORCHVISION = {
    giou_loss: [0.8723689, 0.6483517, 1.92125],
    diou_loss: [0.7992346, 0.6517763, 1.6564584],
    ciou_loss: [0.7993918, 0.6517768, 1.6599276],
}


@every
def test_equals_torchvision(loss):
    expected = torch.tensor(TORCHVISION[loss])
    torch.testing.assert_close(loss(PRED, TARGET), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("loss", [giou_loss, diou_loss])
def test_gradient(loss):
    assert gradcheck(loss, (PRED.double().requires_grad_(), TARGET.double().requires_grad_()))


def test_gradient_of_ciou_is_dious_where_the_aspects_agree():
    target = PRED * 1.5 + 0.75
    grads = []
    for loss in (ciou_loss, diou_loss):
        pred = PRED.clone().requires_grad_()
        loss(pred, target, "sum").backward()
        grads.append(pred.grad)
    torch.testing.assert_close(grads[0], grads[1])


@every
def test_pulls_boxes_that_do_not_touch(loss):
    pred = torch.tensor([[0.0, 0, 10, 10]], requires_grad=True)
    loss(pred, torch.tensor([[30.0, 0, 40, 10]]), "sum").backward()
    assert pred.grad[0, 2] < 0  # descending moves x2 right, towards the target


@every
def test_descending_brings_a_box_home(loss):
    pred = torch.tensor([[0.0, 0, 10, 10], [50, 20, 70, 60]], requires_grad=True)
    target = torch.tensor([[20.0, 25, 45, 40], [20, 25, 45, 40]])
    optimizer = torch.optim.Adam([pred], lr=1.0)
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, total_iters=200)
    for _ in range(200):
        optimizer.zero_grad()
        loss(pred, target, "sum").backward()
        optimizer.step()
        rate.step()
    assert (elementwise_iou(pred, target) > 0.9).all()


@every
@pytest.mark.parametrize(
    ("pred", "target"),
    [
        ([5, 5, 5, 5], [0, 0, 10, 10]),
        ([0, 0, 10, 10], [5, 5, 5, 5]),
        ([5, 5, 5, 5], [5, 5, 5, 5]),
        ([0, 5, 10, 5], [0, 0, 10, 10]),
        ([0, 0, 10, 10], [10, 0, 20, 10]),
        ([0, 0, 10, 10], [0, 0, 10, 10]),
    ],
    ids=["point", "onto a point", "two points", "line", "touching", "identical"],
)
def test_degenerate_boxes_are_finite(loss, pred, target):
    pred = torch.tensor([pred]).float().requires_grad_()
    value = loss(pred, torch.tensor([target]).float(), "sum")
    value.backward()
    assert value.isfinite() and pred.grad.isfinite().all()


@every
def test_reductions(loss):
    each = loss(PRED, TARGET)
    assert each.shape == (3,)
    torch.testing.assert_close(loss(PRED, TARGET, "sum"), each.sum())
    torch.testing.assert_close(loss(PRED, TARGET, "mean"), each.mean())
    none = torch.zeros(0, 4)
    assert loss(none, none, "sum").item() == loss(none, none, "mean").item() == 0


def test_every_one_compiles_whole():
    def every(pred, target):
        return torch.stack([loss(pred, target, "mean") for loss in LOSSES])

    compiled = torch.compile(every, fullgraph=True, backend="eager")
    assert torch.equal(compiled(PRED, TARGET), every(PRED, TARGET))


@every
def test_stays_float32_under_autocast(loss):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(PRED, TARGET)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(PRED, TARGET))
