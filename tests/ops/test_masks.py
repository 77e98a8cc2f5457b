"""Cutting masks out, pasting them back, their boxes: against slow twins and figures by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.ops.masks import CHUNK, crop_masks, mask_boxes, paste_masks, paste_masks_plain
from eyeline.ops.roi_align import roi_align

SEEDS = st.integers(0, 10**6)


def boxes_about(count: int, height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Boxes that may stick out of the picture, but touch it."""
    size = torch.tensor([width, height])
    low = torch.rand(count, 2, generator=generator) * (size + 8) - 10
    sides = 3 + torch.rand(count, 2, generator=generator) * size
    low = torch.maximum(low, 1 - sides)
    return torch.cat([low, low + sides], 1)


@given(seed=SEEDS, aligned=st.booleans(), size=st.integers(1, 14))
@settings(max_examples=30, deadline=None)
def test_crops_equal_roi_align(seed: int, aligned: bool, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(4, 23, 31, generator=generator) > 0.5
    boxes = boxes_about(9, 23, 31, generator)
    index = torch.randint(4, (9,), generator=generator)
    level = torch.zeros(9, dtype=torch.int64)
    features = [masks[:, None].float()]
    wanted = roi_align(features, boxes, index, level, size, [1.0], 0, aligned)[:, 0]
    found = crop_masks(masks, boxes, index, size, aligned)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_a_crop_by_hand() -> None:
    """The right half of the box is covered, in bins of two by two pixels."""
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, :, 4:] = True
    found = crop_masks(masks, torch.tensor([[2.0, 2, 6, 6]]), torch.tensor([0]), 2)
    # The outer bins hold a sample at 3.5, where bilinear interpolation says 0 or 1 alone.
    assert found.tolist() == [[[0, 1], [0, 1]]]


def test_more_regions_than_fit_at_once() -> None:
    masks = torch.rand(3, 9, 9) > 0.5
    count = 2 * CHUNK + 5
    boxes = torch.tensor([[1.0, 2, 7, 8]]).expand(count, 4)
    index = torch.arange(count) % 3
    found = crop_masks(masks, boxes, index, 5)
    assert found.shape == (count, 5, 5)
    assert torch.equal(found[:-3], found[3:])
    assert not torch.equal(found[0], found[1])
    assert crop_masks(masks[:0], boxes[:0], index[:0], 5).shape == (0, 5, 5)


@given(seed=SEEDS, rounded=st.booleans(), cells=st.sampled_from([1, 7, 28]))
@settings(max_examples=40, deadline=None)
def test_pasting_equals_the_slow_twin(seed: int, rounded: bool, cells: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(5, cells, cells, generator=generator)
    boxes = boxes_about(5, 30, 43, generator)
    found = paste_masks(masks, boxes, (30, 43), None, rounded)
    wanted = paste_masks_plain(masks, boxes, (30, 43), None, rounded)
    assert found.shape == (5, 30, 43) and found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)
    decided = paste_masks(masks, boxes, (30, 43), 0.5, rounded)
    assert decided.dtype == torch.bool
    assert torch.equal(decided, found >= 0.5)


@pytest.mark.parametrize("rounded", [False, True])
def test_a_full_mask_fills_its_box(rounded: bool) -> None:
    boxes = torch.tensor([[4.0, 6, 14, 20], [0, 0, 24, 30]])
    found = paste_masks(torch.ones(2, 28, 28), boxes, (30, 24), rounded=rounded)
    if not rounded:
        assert torch.equal(mask_boxes(found), boxes)
        assert found.flatten(1).sum(1).tolist() == [140, 720]
    else:  # whole pixels: up to one more on each side
        assert ((mask_boxes(found) - boxes).abs() <= 1).all()


def test_what_was_cut_out_comes_back() -> None:
    y, x = torch.arange(64)[:, None], torch.arange(80)
    disc = ((y - 30) ** 2 + (x - 41) ** 2 < 24**2)[None]
    boxes = mask_boxes(disc)
    cut = crop_masks(disc, boxes, torch.tensor([0]), 28)
    back = paste_masks(cut, boxes, (64, 80))
    union = (back | disc).sum()
    assert (back & disc).sum() / union > 0.97
    # Half a pixel off is seen: the comparison can fail.
    off = paste_masks(cut, boxes + 2, (64, 80))
    assert (off & disc).sum() / (off | disc).sum() < 0.93


def test_nothing_to_paste() -> None:
    assert paste_masks(torch.rand(0, 28, 28), torch.rand(0, 4), (5, 6)).shape == (0, 5, 6)


def test_bfloat16_masks_and_autocast() -> None:
    masks, boxes = torch.rand(2, 28, 28).bfloat16(), torch.tensor([[1.0, 2, 20, 18]] * 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = paste_masks(masks, boxes, (20, 22), None)
    assert found.dtype == torch.float32
    wanted = paste_masks_plain(masks.float(), boxes, (20, 22), None)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_boxes_of_masks() -> None:
    masks = torch.zeros(3, 6, 9, dtype=torch.bool)
    masks[0, 2, 3] = True
    masks[1, 1:5, 2:8] = True
    assert mask_boxes(masks).tolist() == [[3, 2, 4, 3], [2, 1, 8, 5], [0, 0, 0, 0]]
    assert mask_boxes(masks[:0]).shape == (0, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(40, 28, 28, generator=generator)
    boxes = boxes_about(40, 60, 70, generator)
    for rounded in (False, True):
        there = paste_masks(masks.cuda(), boxes.cuda(), (60, 70), None, rounded)
        here = paste_masks(masks, boxes, (60, 70), None, rounded)
        torch.testing.assert_close(there.cpu(), here, atol=1e-3, rtol=0)
