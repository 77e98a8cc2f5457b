"""Boxes: area, formats, clipping, checks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from eyeline.errors import EyelineError
from eyeline.ops.boxes import FORMATS, area, check_boxes, clip, convert

NAN, INF = float("nan"), float("inf")
properties = settings(max_examples=60, deadline=None)
number, side = st.integers(-400, 400), st.integers(0, 400)


@st.composite
def boxes(draw):
    """(N, 4) on a grid of quarter pixels, on which float32 computes without error."""
    rows = draw(st.lists(st.tuples(number, number, side, side), max_size=6))
    rows = [(x, y, x + w, y + h) for x, y, w, h in rows]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4) / 4


@properties
@given(boxes(), number, number)
def test_area_is_width_times_height_wherever_the_box_lies(b, dx, dy):
    expected = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in b.tolist()]
    assert area(b).tolist() == expected
    assert area(b + torch.tensor([dx, dy, dx, dy])).tolist() == expected


@pytest.mark.parametrize(
    "shape", [(0, 4), (3, 0, 4), (4,), (2, 5, 4)], ids=["none", "none of 3", "one", "batch"]
)
def test_area_keeps_the_leading_dimensions(shape):
    assert area(torch.rand(shape)).shape == shape[:-1]


@pytest.mark.parametrize(
    ("kind", "row"),
    [("xyxy", [10, 20, 40, 100]), ("xywh", [10, 20, 30, 80]), ("cxcywh", [25, 60, 30, 80])],
)
def test_one_box_in_each_format(kind, row):
    corners = torch.tensor([[10.0, 20, 40, 100]])
    assert convert(corners, "xyxy", kind).tolist() == [row]
    assert convert(torch.tensor([row]).float(), kind, "xyxy").tolist() == corners.tolist()


@properties
@given(boxes(), st.sampled_from(FORMATS), st.sampled_from(FORMATS))
def test_formats_convert_back(b, source, target):
    there = convert(b, source, target)
    assert there.shape == b.shape
    assert torch.equal(convert(there, target, source), b)
    assert torch.equal(convert(convert(b, source, "xyxy"), "xyxy", target), there)


def test_an_unknown_format_is_named_with_those_there_are():
    with pytest.raises(EyelineError, match=r"'yxyx'; there are: xyxy, xywh, cxcywh"):
        convert(torch.zeros(1, 4), "xyxy", "yxyx")


@properties
@given(boxes(), st.integers(1, 90), st.integers(1, 90))
def test_clipped_boxes_lie_in_the_picture(b, height, width):
    out = clip(b, (height, width))
    for before, after in zip(b.tolist(), out.tolist(), strict=True):
        limits = (width, height, width, height)
        assert after == [min(max(v, 0), m) for v, m in zip(before, limits, strict=True)]
    assert torch.equal(clip(out, (height, width)), out)
    assert torch.equal(clip(b, torch.tensor([height, width])), out)


def test_each_picture_has_its_own_size():
    b = torch.tensor([-5.0, -5, 500, 500]).expand(2, 3, 4)
    out = clip(b, torch.tensor([[100, 200], [300, 50]])[:, None])
    assert out[:, 0].tolist() == [[0, 0, 200, 100], [0, 0, 50, 300]]
    assert torch.equal(out[:, 0], out[:, 2])


def test_clipping_hides_no_nan():
    for size in ((10, 10), torch.tensor([10, 10])):
        assert clip(torch.tensor([[NAN, 0, 5, 5]]), size)[0, 0].isnan()


def test_good_boxes_pass():
    check_boxes(torch.zeros(0, 4))
    check_boxes(torch.tensor([[-3.0, 0, 0.5, 1e-3], [0, 0, 1e6, 1e6]]))


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ([NAN, 0, 1, 1], "is not finite"),
        ([0, 0, 1, INF], "is not finite"),
        ([-INF, 0, 1, 1], "is not finite"),
        ([5, 0, 5, 1], "has no area"),
        ([0, 5, 1, 5], "has no area"),
        ([5, 5, 5, 5], "has no area"),
        ([8, 0, 5, 1], "has no area"),
        ([8, 8, 5, 5], "has no area"),
    ],
)
def test_the_first_bad_box_is_named(box, fault):
    rows = torch.tensor([[0.0, 0, 1, 1], box, [0, 0, 1, 1], [2, 2, 2, 2]])
    with pytest.raises(EyelineError, match=rf"^cat\.jpg\[1\] = \(.*\) {fault}") as error:
        check_boxes(rows, "cat.jpg")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(4,), (2, 5), (1, 2, 4)])
def test_boxes_of_another_shape_are_an_error(shape):
    with pytest.raises(EyelineError, match=r"must have shape \(N, 4\), not \("):
        check_boxes(torch.ones(shape))


FUNCTIONS = {
    "area": area,
    "clip": lambda b: clip(b, (30, 40)),
    "clip by tensor": lambda b: clip(b, torch.tensor([30, 40])),
    **{f"to {kind}": lambda b, kind=kind: convert(b, "xyxy", kind) for kind in FORMATS},
    **{f"from {kind}": lambda b, kind=kind: convert(b, kind, "xyxy") for kind in FORMATS},
}
SOME = torch.tensor([[3.0, 5, 17, 21], [-4, 8, 45, 20], [30, 20, 39, 33]])


@pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS.keys())
class TestEvery:
    def test_gradient(self, f):
        assert gradcheck(f, SOME.double().requires_grad_())

    def test_stays_float32_under_autocast(self, f):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = f(SOME)
        assert out.dtype == torch.float32
        assert torch.equal(out, f(SOME))


def test_every_one_compiles_whole():
    def every(b):
        return [f(b) for f in FUNCTIONS.values()]

    compiled = torch.compile(every, fullgraph=True, backend="eager")
    for found, expected in zip(compiled(SOME), every(SOME), strict=True):
        assert torch.equal(found, expected)
