"""RoIAlign and RoI pooling against their slow twins and against torchvision's stored results."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.ops.roi_align import (
    assign_levels,
    roi_align,
    roi_align_plain,
    roi_pool,
    roi_pool_plain,
)

STORED = Path(__file__).parents[1] / "parity" / "roi_ops.npz"  # make_roi_ops.py wrote it
SCALES = [0.25, 0.125]
Case = tuple[list[Tensor], Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    with np.load(STORED) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def inputs(stored: dict[str, Tensor]) -> Case:
    levels = [stored["fine"].clone(), stored["coarse"].clone()]
    return levels, stored["boxes"], stored["image"], stored["level"]


def random_case(regions: int = 20, channels: int = 3, dtype: torch.dtype = torch.float32) -> Case:
    levels = [torch.randn(2, channels, 14, 18), torch.randn(2, channels, 7, 9)]
    corner = torch.rand(regions, 2) * torch.tensor([80.0, 64.0]) - 8
    boxes = torch.cat([corner, corner + torch.rand(regions, 2) * 40], 1)
    index = torch.randint(0, 2, (2, regions))
    return [x.to(dtype) for x in levels], boxes, index[0], index[1]


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_align_equals_torchvision_forward_and_backward(stored, aligned, ratio, memory):
    levels, *rest = inputs(stored)
    levels = [x.contiguous(memory_format=memory).requires_grad_() for x in levels]
    out = roi_align(levels, *rest, (3, 4), SCALES, ratio, aligned)
    key = f"align_{aligned}_{ratio}"
    torch.testing.assert_close(out, stored[f"{key}_out"], rtol=0, atol=1e-5)
    ramp = torch.linspace(-1, 1, out.numel()).view(out.shape)
    grads = torch.autograd.grad((out * ramp).sum(), levels)
    for grad, name in zip(grads, ("fine", "coarse"), strict=True):
        torch.testing.assert_close(grad, stored[f"{key}_{name}"], rtol=0, atol=1e-5)


def test_pool_equals_torchvision_forward_and_backward(stored):
    levels, *rest = inputs(stored)
    levels = [x.requires_grad_() for x in levels]
    out = roi_pool(levels, *rest, (3, 4), SCALES)
    assert torch.equal(out, stored["pool_out"])
    ramp = torch.linspace(-1, 1, out.numel()).view(out.shape)
    grads = torch.autograd.grad((out * ramp).sum(), levels)
    for grad, name in zip(grads, ("fine", "coarse"), strict=True):
        torch.testing.assert_close(grad, stored[f"pool_{name}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [-1, 0, 1, 2, 3])
@pytest.mark.parametrize("size", [2, (1, 1), (3, 5)])
def test_align_equals_its_plain_twin(aligned, ratio, size):
    case = random_case()
    fast = roi_align(*case, size, SCALES, ratio, aligned)
    slow = roi_align_plain(*case, size, SCALES, ratio, aligned)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    box=st.tuples(*[st.integers(-80, 160)] * 4),
    level=st.integers(0, 1),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    ratio=st.integers(0, 3),
    aligned=st.booleans(),
)
def test_any_box_equals_the_plain_twins(box, level, size, ratio, aligned):
    """Half pixels: samples fall on cells, on borders, on -1 and on the size itself."""
    generator = torch.Generator().manual_seed(1)
    levels = [torch.randn(1, 2, 14, 18, generator=generator) for _ in SCALES]
    case = levels, torch.tensor([box]) / 2, torch.tensor([0]), torch.tensor([level])
    fast = roi_align(*case, size, SCALES, ratio, aligned)
    slow = roi_align_plain(*case, size, SCALES, ratio, aligned)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-5)
    assert torch.equal(roi_pool(*case, size, SCALES), roi_pool_plain(*case, size, SCALES))


def test_a_ramp_is_sampled_at_the_centres_of_the_bins():
    """A map that holds each cell's centre in pixels gives the bins' centres, by hand."""
    y, x = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    levels = [torch.stack([y, x])[None] * 4]  # scale 1/4
    boxes, zero = torch.tensor([[8.0, 4.0, 24.0, 20.0]]), torch.tensor([0])
    out = roi_align(levels, boxes, zero, zero, 2, [0.25], 2, aligned=True)
    assert out[0].tolist() == [[[8.0, 8.0], [16.0, 16.0]], [[12.0, 20.0], [12.0, 20.0]]]
    shifted = roi_align(levels, boxes, zero, zero, 2, [0.25], 2, aligned=False)
    torch.testing.assert_close(shifted, out + 2)  # half a cell of 4 pixels


def test_samples_outside_count_zero_and_borders_extend():
    ones, zero = [torch.ones(1, 1, 4, 4)], torch.tensor([0])

    def mean(*box: float) -> float:
        out = roi_align(ones, torch.tensor([box]), zero, zero, 1, [1.0], 2, aligned=False)
        return out.item()

    assert mean(0, 0, 4, 4) == 1.0
    assert mean(-2, 1, 2, 2) == 1.0  # samples at -1 and 1: -1 still takes the border's value
    assert mean(-4, 1, 0, 2) == 0.5  # samples at -3 and -1
    assert mean(3, 1, 7, 2) == 0.5  # samples at 4, the size itself, and 6
    assert mean(10, 10, 12, 12) == 0.0


@pytest.mark.parametrize("ratio", [0, 2])
def test_align_gradcheck(ratio):
    levels, *rest = random_case(regions=5, channels=1, dtype=torch.float64)
    levels = [x.requires_grad_() for x in levels]
    assert torch.autograd.gradcheck(
        lambda *maps: roi_align(list(maps), *rest, 2, SCALES, ratio), levels, fast_mode=True
    )


def test_pool_gradcheck():
    levels, *rest = random_case(regions=5, channels=1, dtype=torch.float64)
    levels = [x.requires_grad_() for x in levels]
    assert torch.autograd.gradcheck(
        lambda *maps: roi_pool(list(maps), *rest, 2, SCALES), levels, fast_mode=True
    )


@pytest.mark.parametrize(("pixel", "cell"), [(9.9, 2), (10.0, 3), (14.0, 4), (27.9, 7)])
def test_pool_rounds_halves_away_from_zero(pixel, cell):
    level, zero = [torch.arange(8.0).expand(1, 1, 1, 8)], torch.tensor([0])
    box = torch.tensor([[pixel, 0.0, pixel, 0.0]])  # at scale 1/4: 2.475, 2.5, 3.5, 6.975
    assert roi_pool(level, box, zero, zero, 1, [0.25]).item() == cell


def test_pool_gives_the_gradient_to_one_of_equal_cells():
    level = torch.ones(1, 1, 4, 4, requires_grad=True)
    zero = torch.tensor([0])
    roi_pool([level], torch.tensor([[1.0, 1.0, 3.0, 3.0]]), zero, zero, 1, [1.0]).sum().backward()
    assert level.grad is not None
    assert level.grad.nonzero().tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("pool", [roi_align, roi_align_plain, roi_pool, roi_pool_plain])
def test_no_regions(pool):
    levels, *rest = random_case(regions=0)
    levels = [x.requires_grad_() for x in levels]
    out = pool(levels, *rest, (3, 4), SCALES)
    assert out.shape == (0, 3, 3, 4)


@pytest.mark.parametrize("ratio", [0, 2])
def test_no_regions_give_zero_gradients(ratio):
    levels, *rest = random_case(regions=0)
    levels = [x.requires_grad_() for x in levels]
    grads = torch.autograd.grad(roi_align(levels, *rest, 2, SCALES, ratio).sum(), levels)
    assert [g.shape for g in grads] == [x.shape for x in levels]
    assert not any(g.any() for g in grads)


def test_boxes_get_no_gradient():
    levels, boxes, image, level = random_case()
    boxes.requires_grad_()
    out = roi_align([x.requires_grad_() for x in levels], boxes, image, level, 2, SCALES)
    out.sum().backward()
    assert boxes.grad is None
    assert levels[0].grad is not None


def test_regions_are_independent_and_in_the_callers_order():
    levels, boxes, image, level = random_case(regions=12)
    whole = roi_align(levels, boxes, image, level, 3, SCALES)
    shuffled = torch.randperm(12)
    part = roi_align(levels, boxes[shuffled], image[shuffled], level[shuffled], 3, SCALES)
    assert torch.equal(part, whole[shuffled])


@pytest.mark.parametrize("ratio", [0, 2])
def test_bfloat16_stays_near_float32_forward_and_backward(ratio):
    levels, *rest = random_case(regions=200)  # many regions: their gradients overlap
    half = [x.bfloat16().requires_grad_() for x in levels]
    full = [x.detach().float().requires_grad_() for x in half]
    out, wanted = (roi_align(maps, *rest, 3, SCALES, ratio) for maps in (half, full))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), wanted, rtol=0.02, atol=0.02)
    grad = torch.randn(out.shape).bfloat16()
    grads = torch.autograd.grad(out, half, grad)
    for mine, exact in zip(grads, torch.autograd.grad(wanted, full, grad.float()), strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine.float() - exact).norm() < 0.01 * exact.norm()


def test_positions_keep_float32_under_bfloat16_features():
    """A cell 300 steps in is named exactly, though bfloat16 has 8 bits."""
    level = torch.zeros(1, 1, 1, 512, dtype=torch.bfloat16)
    level[..., 301] = 1
    zero = torch.tensor([0])
    box = torch.tensor([[301.0, 0.0, 302.0, 1.0]])
    assert roi_align([level], box, zero, zero, 1, [1.0], 1).item() == 1.0


def test_compiled_equals_eager():
    levels, *rest = random_case()

    def run(fine: Tensor, coarse: Tensor) -> Tensor:
        return roi_align([fine, coarse], *rest, 3, SCALES, 2)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(*levels), run(*levels), rtol=0, atol=1e-5)


def test_a_box_that_is_nan_shows_in_the_result():
    levels, boxes, image, level = random_case(regions=3)
    boxes[1] = math.nan
    out = roi_align(levels, boxes, image, level, 2, SCALES)
    assert out.isnan().flatten(1).all(1).tolist() == [False, True, False]


def test_levels_and_scales_must_pair():
    levels, *rest = random_case()
    with pytest.raises(EyelineError, match="2 levels and 1 scales"):
        roi_align(levels, *rest, 2, [0.25])


@pytest.mark.parametrize(
    ("side", "level"),
    [(1, 0), (111, 0), (112, 1), (223, 1), (224, 2), (447, 2), (448, 3), (5000, 3), (0, 0)],
)
def test_levels_by_hand(side, level):
    """FPN eq. 1 with levels 2 to 5: 224 pixels belong to level 4, index 2."""
    box = torch.tensor([[7.0, 9.0, 7.0 + side, 9.0 + side]])
    assert assign_levels(box, 2, 5).tolist() == [level]
