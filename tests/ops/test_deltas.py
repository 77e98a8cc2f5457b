"""Deltas: what is encoded decodes, and the numbers are the paper's."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from eyeline.ops.deltas import decode, encode

HEAD = (10.0, 10.0, 5.0, 5.0)  # Fast R-CNN's weights
properties = settings(max_examples=60, deadline=None)
weights = st.sampled_from([(1.0, 1.0, 1.0, 1.0), HEAD, (0.5, 2.0, 3.0, 4.0)])


def boxes(n):
    number, side = st.floats(-300, 300, width=32), st.floats(1, 300, width=32)
    rows = st.lists(st.tuples(number, number, side, side), min_size=n, max_size=n)
    return rows.map(lambda rows: torch.tensor([(x, y, x + w, y + h) for x, y, w, h in rows]))


@properties
@given(boxes(4), boxes(4), weights)
def test_encoded_boxes_decode(b, anchors, w):
    growth = math.log(300)  # the widest box here over the narrowest anchor
    decoded = decode(encode(b, anchors, w), anchors, w, log_clamp=growth)
    torch.testing.assert_close(decoded, b, rtol=1e-5, atol=2e-3)


@properties
@given(boxes(3), st.lists(st.floats(-2, 2, width=32), min_size=12, max_size=12), weights)
def test_decoded_deltas_encode(anchors, values, w):
    deltas = torch.tensor(values, dtype=torch.float64).reshape(3, 4)
    again = encode(decode(deltas, anchors.double(), w), anchors.double(), w)
    torch.testing.assert_close(again, deltas, rtol=1e-6, atol=1e-6)


@properties
@given(boxes(3), boxes(3), weights, st.floats(-100, 100), st.floats(0.25, 4))
def test_deltas_know_neither_place_nor_scale(b, anchors, w, shift, scale):
    b, anchors = b.double(), anchors.double()
    moved = encode(b * scale + shift, anchors * scale + shift, w)
    torch.testing.assert_close(moved, encode(b, anchors, w), rtol=1e-9, atol=1e-9)


@properties
@given(boxes(3), boxes(3), weights)
def test_equals_a_loop(b, anchors, w):
    expected = []
    for (x1, y1, x2, y2), (p1, q1, p2, q2) in zip(b.tolist(), anchors.tolist(), strict=True):
        expected.append([
            w[0] * ((x1 + x2) / 2 - (p1 + p2) / 2) / (p2 - p1),
            w[1] * ((y1 + y2) / 2 - (q1 + q2) / 2) / (q2 - q1),
            w[2] * math.log((x2 - x1) / (p2 - p1)),
            w[3] * math.log((y2 - y1) / (q2 - q1)),
        ])  # fmt: skip
    torch.testing.assert_close(encode(b, anchors, w), torch.tensor(expected), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("deltas", "box"),
    [
        ([0, 0, 0, 0], [10, 20, 30, 60]),
        ([0.5, 0, 0, 0], [20, 20, 40, 60]),
        ([0, -0.25, 0, 0], [10, 10, 30, 50]),
        ([0, 0, math.log(2), 0], [0, 20, 40, 60]),
        ([0, 0, 0, -math.log(4)], [10, 35, 30, 45]),
        ([0, 0, 1e4, 0], [20 - 625, 20, 20 + 625, 60]),  # 20 pixels times 1000/16
        ([0, 0, 0, -1e4], [10, 40, 30, 40]),
    ],
    ids=["same", "right", "up", "wider", "flatter", "clamped", "vanished"],
)
def test_one_anchor_moved(deltas, box):
    anchor = torch.tensor([10.0, 20, 30, 60])
    torch.testing.assert_close(
        decode(torch.tensor(deltas, dtype=torch.float32), anchor), torch.tensor(box).float()
    )


def test_weights_divide_what_a_network_says():
    anchor, said = torch.tensor([[10.0, 20, 30, 60]]), torch.tensor([[3.0, -2, 1, 0.5]])
    weights = (2.0, 4.0, 5.0, 10.0)
    plain = said / torch.tensor(weights)
    torch.testing.assert_close(decode(said, anchor, weights), decode(plain, anchor))


@pytest.mark.parametrize("value", [1e4, -1e4, 88.0])
def test_wild_deltas_stay_finite(value):
    anchors = torch.tensor([[0.0, 0, 512, 512]])
    assert decode(torch.full((1, 4), value), anchors).isfinite().all()


def test_degenerate_anchors():
    point = torch.tensor([[5.0, 6, 5, 6]])
    assert decode(torch.rand(1, 4), point).tolist() == point.tolist()  # nothing to scale
    assert decode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
    assert encode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)


def test_nan_is_not_hidden():
    anchor = torch.tensor([[0.0, 0, 8, 8]])
    assert decode(torch.tensor([[0, 0, float("nan"), 0]]), anchor)[0, ::2].isnan().all()


def test_anchors_are_shared_by_the_batch():
    anchors, deltas = torch.rand(5, 4).cumsum(-1), torch.randn(2, 5, 4)
    out = decode(deltas, anchors)
    assert torch.equal(out, torch.stack([decode(d, anchors) for d in deltas]))


# Made by torchvision 0.28:
#   coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
#   coder.encode_single(torch.tensor([[12.0, 7, 40, 50]]), torch.tensor([[10.0, 5, 30, 60]]))
TORCHVISION = [3.0, -0.7272727489471436, 1.682361125946045, -1.2306652069091797]


def test_equals_torchvision():
    found = encode(torch.tensor([[12.0, 7, 40, 50]]), torch.tensor([[10.0, 5, 30, 60]]), HEAD)
    torch.testing.assert_close(found, torch.tensor([TORCHVISION]), rtol=1e-7, atol=1e-7)


ANCHORS = torch.tensor([[0.0, 0, 16, 32], [5, 6, 40, 20], [-3, 2, 9, 30]])
BOXES = torch.tensor([[2.0, 1, 20, 30], [1, 9, 33, 27], [-5, 0, 8, 25]])


@pytest.mark.parametrize("f", [encode, decode])
class TestBoth:
    def test_gradient(self, f):
        inputs = (BOXES.double() / 20).requires_grad_(), ANCHORS.double().requires_grad_()
        assert gradcheck(lambda x, y: f(x, y, HEAD), inputs)

    def test_compiles_whole(self, f):
        compiled = torch.compile(f, fullgraph=True, backend="eager")
        assert torch.equal(compiled(BOXES, ANCHORS, HEAD), f(BOXES, ANCHORS, HEAD))

    def test_stays_float32_under_autocast(self, f):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = f(BOXES, ANCHORS)
        assert out.dtype == torch.float32
        assert torch.equal(out, f(BOXES, ANCHORS))


def test_half_precision_deltas_move_float32_anchors_in_float32():
    deltas = torch.randn(3, 4).bfloat16()
    out = decode(deltas, ANCHORS)
    assert out.dtype == torch.float32
    assert torch.equal(out, decode(deltas.float(), ANCHORS))


def test_clamped_deltas_get_no_gradient():
    deltas = torch.tensor([[0.0, 0, 9, 1]], requires_grad=True)
    decode(deltas, ANCHORS[:1])[0, 2:].sum().backward()
    assert deltas.grad[0, 2] == 0 and deltas.grad[0, 3] > 0
