"""IoU and its relatives: ranges, invariances, degenerate boxes, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from eyeline.ops.iou import (
    box_ciou,
    box_diou,
    box_giou,
    box_ioa,
    box_iou,
    elementwise_ciou,
    elementwise_diou,
    elementwise_giou,
    elementwise_iou,
)

PAIRWISE = {"iou": box_iou, "giou": box_giou, "diou": box_diou, "ciou": box_ciou, "ioa": box_ioa}
ELEMENTWISE = {
    "iou": elementwise_iou,
    "giou": elementwise_giou,
    "diou": elementwise_diou,
    "ciou": elementwise_ciou,
}
LOWEST = {"iou": 0, "giou": -1, "diou": -1, "ciou": -1.5, "ioa": 0}
SYMMETRIC = list(ELEMENTWISE)

properties = settings(max_examples=60, deadline=None)
number = st.integers(-200, 200)
names = st.sampled_from(list(PAIRWISE))


@st.composite
def boxes(draw, smallest=0):
    """(N, 4) on a grid of quarter pixels, on which float32 adds and subtracts without error."""
    extent = st.integers(smallest, 200)
    rows = draw(st.lists(st.tuples(number, number, extent, extent), min_size=1, max_size=5))
    return torch.tensor([(x, y, x + w, y + h) for x, y, w, h in rows], dtype=torch.float32) / 4


def slow(name, a, b):
    """One pair of boxes, in Python's numbers, by the papers' words."""
    a_width, a_height, b_width, b_height = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = a_width * a_height + b_width * b_height - shared
    overlap = shared / union if union else 0.0
    width = max(a[2], b[2]) - min(a[0], b[0])
    height = max(a[3], b[3]) - min(a[1], b[1])
    if name == "ioa":
        return shared / (a_width * a_height) if a_width * a_height else 0.0
    if name == "giou":
        hull = width * height
        return overlap - ((hull - union) / hull if hull else 0.0)
    if name == "iou":
        return overlap
    a_centre, b_centre = ((p[0] + p[2]) / 2 + (p[1] + p[3]) / 2 * 1j for p in (a, b))
    diagonal = abs(complex(width, height))
    distance = (abs(a_centre - b_centre) / diagonal) ** 2 if diagonal else 0.0
    if name == "diou":
        return overlap - distance
    v = 4 / math.pi**2 * (math.atan2(b_width, b_height) - math.atan2(a_width, a_height)) ** 2
    alpha = v / (1 - overlap + v) if v else 0.0
    return overlap - distance - alpha * v


@properties
@given(names, boxes(), boxes())
def test_equals_a_loop_over_pairs(name, a, b):
    expected = [[slow(name, p, q) for q in b.tolist()] for p in a.tolist()]
    torch.testing.assert_close(PAIRWISE[name](a, b), torch.tensor(expected), rtol=1e-5, atol=1e-6)


@properties
@given(names, boxes(), boxes())
def test_range(name, a, b):
    value = PAIRWISE[name](a, b)
    assert value.shape == (len(a), len(b))
    assert (value >= LOWEST[name]).all() and (value <= 1).all()


@properties
@given(st.sampled_from(SYMMETRIC), boxes(), boxes())
def test_symmetry(name, a, b):
    f = PAIRWISE[name]
    torch.testing.assert_close(f(a, b), f(b, a).T)


@properties
@given(names, boxes(), boxes(), number, number, st.sampled_from([0.25, 0.5, 2, 8]))
def test_moved_scaled_and_mirrored_boxes_overlap_as_before(name, a, b, dx, dy, scale):
    f = PAIRWISE[name]
    before = f(a, b)
    move = torch.tensor([dx, dy, dx, dy])
    torch.testing.assert_close(f(a + move, b + move), before)
    torch.testing.assert_close(f(a * scale, b * scale), before)
    mirror = [2, 1, 0, 3]  # x to -x: the corners change places
    sign = torch.tensor([-1.0, 1, -1, 1])
    torch.testing.assert_close(f(a[:, mirror] * sign, b[:, mirror] * sign), before)


@properties
@given(boxes(), boxes())
def test_each_penalty_only_lowers(a, b):
    iou = box_iou(a, b)
    assert (box_giou(a, b) <= iou).all()
    assert (box_diou(a, b) <= iou).all()
    assert (box_ciou(a, b) <= box_diou(a, b)).all()


@properties
@given(st.sampled_from(SYMMETRIC), boxes(smallest=1))
def test_a_box_equals_itself(name, a):
    assert PAIRWISE[name](a, a).diagonal().tolist() == [1.0] * len(a)


@properties
@given(st.sampled_from(SYMMETRIC), boxes(), boxes())
def test_elementwise_is_the_diagonal(name, a, b):
    n = min(len(a), len(b))
    pairs = PAIRWISE[name](a[:n], b[:n]).diagonal()
    assert torch.equal(ELEMENTWISE[name](a[:n], b[:n]), pairs)


@pytest.mark.parametrize("name", PAIRWISE)
def test_every_picture_of_a_batch_alone(name):
    a = torch.rand(3, 5, 4).cumsum(-1)
    b = torch.rand(3, 7, 4).cumsum(-1)
    f = PAIRWISE[name]
    out = f(a, b)
    assert out.shape == (3, 5, 7)
    for i in range(3):
        assert torch.equal(out[i], f(a[i], b[i]))
    assert torch.equal(f(a[0], b), f(a[:1].expand(3, 5, 4), b))  # leading dimensions broadcast


BOX, POINT, LINE = [0, 0, 4, 4], [1, 1, 1, 1], [0, 2, 4, 2]
BENT = 1 / 20  # alpha v, where v is 1/4: a square's angle is pi/4, a point's 0, a line's pi/2


@pytest.mark.parametrize(
    ("a", "b", "iou", "giou", "diou", "ciou", "ioa"),
    [
        pytest.param(BOX, BOX, 1, 1, 1, 1, 1, id="identical"),
        pytest.param(BOX, [4, 0, 8, 4], 0, 0, -1 / 5, -1 / 5, 0, id="touching sides"),
        pytest.param(BOX, [4, 4, 8, 8], 0, -1 / 2, -1 / 4, -1 / 4, 0, id="touching corners"),
        pytest.param(BOX, [1, 1, 3, 3], 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4, id="inside, concentric"),
        pytest.param([1, 1, 3, 3], BOX, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1, id="around, concentric"),
        pytest.param(BOX, [0, 2, 4, 6], 1 / 3, 1 / 3, 10 / 39, 10 / 39, 1 / 2, id="half"),
        pytest.param(BOX, POINT, 0, 0, -1 / 16, -1 / 16 - BENT, 0, id="a point inside"),
        pytest.param(POINT, BOX, 0, 0, -1 / 16, -1 / 16 - BENT, 0, id="inside, from the point"),
        pytest.param(BOX, LINE, 0, 0, 0, -BENT, 0, id="a line across"),
        pytest.param(POINT, POINT, 0, 0, 0, 0, 0, id="a point and itself"),
        pytest.param(LINE, LINE, 0, 0, 0, 0, 0, id="a line and itself"),
        pytest.param(POINT, [3, 4, 3, 4], 0, -1, -1, -1, 0, id="two points"),
    ],
)  # fmt: skip
def test_degenerate_cases(a, b, iou, giou, diou, ciou, ioa):
    a, b = torch.tensor([a]).float(), torch.tensor([b]).float()
    expected = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou, "ioa": ioa}
    for name, f in PAIRWISE.items():
        assert f(a, b).item() == pytest.approx(expected[name], abs=1e-6), name


@pytest.mark.parametrize("name", PAIRWISE)
def test_no_boxes(name):
    none, some = torch.zeros(0, 4), torch.rand(3, 4).cumsum(-1)
    f = PAIRWISE[name]
    assert f(none, some).shape == (0, 3)
    assert f(some, none).shape == (3, 0)
    assert f(none, none).shape == (0, 0)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_nan_is_not_hidden(name):
    a = torch.tensor([[0, 0, 1, 1], [0, float("nan"), 1, 1]])
    b = torch.tensor([[0.0, 0, 2, 2]])
    assert PAIRWISE[name](a, b).isnan()[:, 0].tolist() == [False, True]


# in general position: no corner on another's line, where the overlap has a kink
A = torch.tensor([[0.0, 0, 4, 5], [10, 2, 17, 8.5], [1, 30, 6, 33], [2, 2, 9, 9.25]]).double()
B = torch.tensor([[1.0, 2, 6, 6.5], [11, 3, 15, 7], [20, 1, 26, 9]]).double()


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ioa"])
def test_gradient(name):
    assert gradcheck(PAIRWISE[name], (A.clone().requires_grad_(), B.clone().requires_grad_()))


def test_gradient_of_ciou_takes_alpha_for_a_constant():
    a, b = A[:3].clone().requires_grad_(), B[[0, 1, 2]]
    alpha = ((elementwise_diou(a, b) - elementwise_ciou(a, b)) / aspect_term(a, b)).detach()
    assert (alpha > 1e-4).all()
    (expected,) = torch.autograd.grad((elementwise_diou(a, b) - alpha * aspect_term(a, b)).sum(), a)
    (found,) = torch.autograd.grad(elementwise_ciou(a, b).sum(), a)
    torch.testing.assert_close(found, expected)


def aspect_term(a, b):
    angles = [((p[:, 2] - p[:, 0]) / (p[:, 3] - p[:, 1])).atan() for p in (a, b)]
    return 4 / math.pi**2 * (angles[0] - angles[1]) ** 2


@pytest.mark.parametrize("name", PAIRWISE)
def test_degenerate_boxes_have_finite_gradients(name):
    a = torch.tensor([BOX, POINT, LINE, [4, 4, 8, 8]]).float().requires_grad_()
    b = a.detach().clone().requires_grad_()
    PAIRWISE[name](a, b).sum().backward()
    assert a.grad.isfinite().all() and b.grad.isfinite().all()


def test_every_one_compiles_whole():
    def every(a, b):
        pairwise = [f(a, b) for f in PAIRWISE.values()]
        return pairwise + [f(a[:3], b) for f in ELEMENTWISE.values()]

    compiled = torch.compile(every, fullgraph=True, backend="eager")
    for found, expected in zip(compiled(A, B), every(A, B), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", PAIRWISE)
def test_stays_float32_under_autocast(name):
    f = PAIRWISE[name]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = f(A.float(), B.float())
    assert out.dtype == torch.float32
    assert torch.equal(out, f(A.float(), B.float()))
