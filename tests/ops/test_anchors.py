"""Anchors: their areas, shapes, order and places."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.ops.anchors import anchor_grid, cell_anchors
from eyeline.ops.boxes import area

properties = settings(max_examples=40, deadline=None)
sizes = st.lists(st.floats(4, 600), min_size=1, max_size=4)
ratios = st.lists(st.floats(0.2, 5), min_size=1, max_size=3)


@properties
@given(sizes, ratios)
def test_area_and_ratio_are_those_asked_for(sizes, ratios):
    anchors = cell_anchors(sizes, ratios)
    assert anchors.shape == (len(sizes) * len(ratios), 4)
    assert anchors.dtype == torch.float32
    x1, y1, x2, y2 = anchors.unbind(1)
    assert torch.equal(x1, -x2) and torch.equal(y1, -y2)  # about the origin
    wanted = torch.tensor([(s * s, r) for r in ratios for s in sizes])  # ratio by ratio
    torch.testing.assert_close(area(anchors), wanted[:, 0])
    torch.testing.assert_close((y2 - y1) / (x2 - x1), wanted[:, 1])


@properties
@given(sizes, ratios)
def test_rounding_moves_a_side_by_half_a_pixel_at_most(sizes, ratios):
    exact, rounded = cell_anchors(sizes, ratios), cell_anchors(sizes, ratios, rounded=True)
    assert (exact - rounded).abs().max() <= 0.5
    assert torch.equal(rounded, rounded.round())


# Made by torchvision 0.28:
#   AnchorGenerator(((32, 40, 50),), ((0.5, 1.0, 2.0),)).cell_anchors[0]
#   AnchorGenerator(((5, 7),), ((1.0,),)).cell_anchors[0]  # halves go to the even side
TORCHVISION = [
    [-23, -11, 23, 11], [-28, -14, 28, 14], [-35, -18, 35, 18],
    [-16, -16, 16, 16], [-20, -20, 20, 20], [-25, -25, 25, 25],
    [-11, -23, 11, 23], [-14, -28, 14, 28], [-18, -35, 18, 35],
]  # fmt: skip


def test_rounded_anchors_are_torchvisions():
    assert cell_anchors((32, 40, 50), (0.5, 1.0, 2.0), rounded=True).tolist() == TORCHVISION
    assert cell_anchors((5, 7), (1.0,), rounded=True).tolist() == [[-2, -2, 2, 2], [-4, -4, 4, 4]]


def slow_grid(cell, feature_size, stride, offset):
    return [
        [x1 + cx, y1 + cy, x2 + cx, y2 + cy]
        for cy in ((row + offset) * stride[0] for row in range(feature_size[0]))
        for cx in ((column + offset) * stride[1] for column in range(feature_size[1]))
        for x1, y1, x2, y2 in cell.tolist()
    ]


@properties
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 64), st.integers(1, 64)),
    st.sampled_from([0.0, 0.5]),
)
def test_grid_equals_a_loop(feature_size, stride, offset):
    cell = cell_anchors((16, 24), (0.5, 2.0), rounded=True)
    grid = anchor_grid(cell, feature_size, stride, offset)
    assert grid.dtype == torch.float32
    assert grid.tolist() == slow_grid(cell, feature_size, stride, offset)


def test_anchors_stand_in_the_middle_of_their_cells_unless_told_otherwise():
    cell = cell_anchors((8,), (1.0,))
    assert anchor_grid(cell, (1, 2), (16, 32)).tolist() == [[12, 4, 20, 12], [44, 4, 52, 12]]
    assert anchor_grid(cell, (1, 2), (16, 32), 0.0).tolist() == [[-4, -4, 4, 4], [28, -4, 36, 4]]


@pytest.mark.parametrize("feature_size", [(0, 3), (3, 0), (0, 0)])
def test_no_cells_no_anchors(feature_size):
    assert anchor_grid(cell_anchors((8,), (1.0,)), feature_size, (8, 8)).shape == (0, 4)


def test_compiles_whole():
    def both(x):
        return anchor_grid(cell_anchors((32.0, 64.0), (0.5, 1.0)), x.shape[-2:], (8, 16))

    x = torch.rand(1, 3, 4, 5)
    compiled = torch.compile(both, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), both(x))


def test_stays_float32_under_autocast():
    cell = cell_anchors((100.0,), (0.5, 1.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        grid = anchor_grid(cell, (30, 40), (4, 4))
    assert grid.dtype == torch.float32
    assert torch.equal(grid, anchor_grid(cell, (30, 40), (4, 4)))
