"""Masks in results and on pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from eyeline.errors import EyelineError
from eyeline.inference.draw import PALETTE, TINT, draw_boxes, paint_masks
from eyeline.inference.result import Result
from eyeline.ops.segmentations import decode_masks


@pytest.fixture
def result() -> Result:
    masks = torch.zeros(2, 600, 800, dtype=torch.bool)
    masks[0, 100:300, 150:400] = True
    masks[1, 400:500, 500:700] = True
    return Result(
        image=torch.full((3, 600, 800), 90, dtype=torch.uint8),
        boxes=torch.tensor([[150.0, 100, 400, 300], [500, 400, 700, 500]]),
        scores=torch.tensor([0.75, 0.5]),
        labels=torch.tensor([1, 0]),
        classes=["cat", "dog"],
        masks=masks,
    )


def test_coco(result: Result) -> None:
    assert result.masks is not None
    for form in ("rle", "polygons"):
        records = result.to_coco(7, segmentation=form)
        assert [record["area"] for record in records] == [50_000, 20_000]
        back = decode_masks([record["segmentation"] for record in records], 600, 800)
        assert (back == result.masks.numpy()).all()
    with pytest.raises(EyelineError, match="not 'bitmap'"):
        result.to_coco(7, segmentation="bitmap")
    result.masks = None
    assert "segmentation" not in result.to_coco(7)[0] and "area" not in result.to_coco(7)[0]


def test_plot_tints_and_outlines(result: Result) -> None:
    drawn = np.asarray(result.plot())
    assert drawn.shape == (600, 800, 3)
    colour = np.array(ImageColor.getrgb(PALETTE[1]), float)
    tinted = 90 + TINT * (colour - 90)
    assert abs(drawn[250, 300] - tinted).max() <= 1  # inside
    assert abs(drawn[298, 300] - colour).max() <= 1  # the outline
    assert (drawn[350, 450] == 90).all()  # outside
    other = np.array(ImageColor.getrgb(PALETTE[0]), float)
    assert abs(drawn[450, 600] - (90 + TINT * (other - 90))).max() <= 1


def test_the_outline_follows_the_mask() -> None:
    """Of a ragged mask that runs out of the picture: what is nearer than the width to its edge."""
    rng = np.random.default_rng(0)
    mask = np.zeros((500, 640), bool)
    mask[:200, 100:400] = rng.random((200, 300)) < 0.999
    drawn = np.asarray(paint_masks(Image.new("RGB", (640, 500)), mask[None], [0], 3))
    padded = np.pad(mask, 3)
    core = np.all([padded[y : y + 500, x : x + 640] for y in range(7) for x in range(7)], axis=0)
    red = drawn[:, :, 0]
    assert (red[mask & ~core] == 255).all() and (red[~mask] == 0).all()
    assert (red[core] == round(255 * TINT)).all() and 1000 < core.sum() < mask.sum()


def test_the_best_is_on_top_and_empty_masks_draw_nothing() -> None:
    image = np.full((500, 500, 3), 100, np.uint8)
    masks = torch.zeros(3, 500, 500, dtype=torch.bool)
    masks[0, 100:300, 100:300] = True
    masks[1, 200:400, 200:400] = True
    boxes = torch.tensor([[100.0, 100, 300, 300], [200, 200, 400, 400], [10, 10, 20, 20]])
    drawn = np.asarray(draw_boxes(image, boxes, [0, 2, 3], masks=masks), float)
    first, second = (np.array(ImageColor.getrgb(PALETTE[k]), float) for k in (0, 2))
    below = 100 + TINT * (second - 100)
    assert abs(drawn[250, 250] - (below + TINT * (first - below))).max() <= 1.5
    assert abs(drawn[350, 350] - below).max() <= 1
    assert (drawn[450, 450] == 100).all()


def test_masks_grow_with_a_small_picture() -> None:
    image = torch.full((3, 60, 80), 90, dtype=torch.uint8)
    masks = torch.zeros(1, 60, 80, dtype=torch.bool)
    masks[0, 20:50, 10:40] = True
    picture = draw_boxes(image, [[10, 20, 40, 50]], [0], masks=masks)
    assert picture.size == (480, 360)
    assert np.asarray(picture)[240, 150, 0] > 120  # red over grey
    assert isinstance(picture, Image.Image)
