"""Boxes, masks and keypoints, against the shapes that are drawn in the transformed picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.transforms.drawn import copied, equal, extents, scene
from torch import Tensor

from eyeline.data.transforms import (
    Compose,
    CopyPaste,
    Expand,
    HorizontalFlip,
    IoUCrop,
    MixUp,
    Mosaic,
    MultiScale,
    Perspective,
    Resize,
    Rotate,
    VerticalFlip,
)
from eyeline.data.transforms.geometry import resized
from eyeline.structures import Target

seeds = st.integers(0, 100_000)
# Whole pixels stay what they are, so all is exact.
EXACT: dict[str, Any] = {
    "hflip": HorizontalFlip(1),
    "vflip": VerticalFlip(1),
    "expand": Expand(p=1, fill=(0, 0, 0)),
    "iou_crop": IoUCrop(),
    "copy_paste": CopyPaste(p=1),
    "mixup": MixUp(1e6, p=1),  # by halves, nearly
}
HALF = 127  # above it, a pixel is the object's more than not
LEVEL = 125  # less than a mixture leaves of an object's 255
RESAMPLED: dict[str, Any] = {
    "resize": Resize(35, 200),
    "multi_scale": MultiScale([30, 50, 80], 200),
    "rotate": Rotate((-180, 180), fill=0, min_visible=0, p=1),
    "perspective": Perspective((-30, 30), shear=15, tilt=0.3, fill=0, min_visible=0, p=1),
    "mosaic": Mosaic(100, fill=0, min_visible=0),
    "all": Compose(
        [
            HorizontalFlip(),
            CopyPaste(p=1),
            Mosaic(120, fill=0, min_visible=0),
            Rotate((-20, 20), fill=0, min_visible=0, p=1),
        ]
    ),
}


def run(transform: Any, seed: int) -> tuple[tuple[Tensor, Target], tuple[Tensor, Target]]:
    """A scene and what becomes of it; other pictures have their objects in other channels."""
    several = getattr(transform, "uses_others", False)
    channels = 24 if several else 3
    rng = np.random.default_rng(seed)
    before = scene(seed, 0, channels)
    kept = copied(before)
    if several:
        firsts = iter(range(3, channels, 3))
        after = transform(*before, rng, lambda: scene(seed, next(firsts), channels))
    else:
        after = transform(*before, rng)
    assert equal(before, kept)  # nothing is changed in place
    return before, after


def seen(image: Tensor, label: int, level: int = LEVEL) -> Tensor:
    """Where an object is in the picture, of which it is one channel."""
    return image[label] > level


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_where_pixels_stay_all_is_exact(name: str, seed: int) -> None:
    _, (image, target) = run(EXACT[name], seed)
    assert torch.equal(extents(target["masks"]), target["boxes"])
    for label, mask in zip(target["labels"].tolist(), target["masks"], strict=True):
        assert torch.equal(seen(image, label), mask)


@pytest.mark.parametrize("name", RESAMPLED)
@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_where_pixels_are_sampled_boxes_are_those_of_the_masks(name: str, seed: int) -> None:
    _, (image, target) = run(RESAMPLED[name], seed)
    # Whole boxes are scaled, not measured; and where a mask shrinks, its thin tips are lost.
    limit = {"resize": 2.0, "multi_scale": 2.0, "mosaic": 1.0}.get(name, 1e-6)
    stray = 5 if name == "all" else 0  # sampled twice, slivers lose their edges
    there = target["masks"].flatten(1).any(1)
    assert ((extents(target["masks"]) - target["boxes"])[there].abs() <= limit).all()
    for label, mask in zip(target["labels"].tolist(), target["masks"], strict=True):
        drawn = seen(image, label, HALF)
        # They differ along the outline alone: within one pixel on either side of it.
        assert (drawn & ~grown(mask)).sum() <= stray
        assert (~grown(~mask) & ~grown(drawn)).sum() <= stray


@settings(max_examples=30, deadline=None)
@given(seed=seeds, factor=st.floats(1, 4))
def test_enlarged_masks_are_where_the_picture_shows_the_object(seed: int, factor: float) -> None:
    image, target = scene(seed, 0, 3)
    size = round(image.shape[1] * factor), round(image.shape[2] * factor)
    larger, moved = resized(image, target, size)
    for label, mask in zip(moved["labels"].tolist(), moved["masks"], strict=True):
        assert torch.equal(seen(larger, label, HALF), mask)


def grown(mask: Tensor, by: int = 1) -> Tensor:
    return F.max_pool2d(mask[None].float(), 2 * by + 1, 1, by)[0] > 0


@pytest.mark.parametrize("name", sorted(({*EXACT, *RESAMPLED}) - {"iou_crop", "all"}))
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_only_what_is_not_seen_is_dropped(name: str, seed: int) -> None:
    (_, before), (image, target) = run((EXACT | RESAMPLED)[name], seed)
    for label in set(before["labels"].tolist()) - set(target["labels"].tolist()):
        assert seen(image, label).sum() <= 2  # of what is sampled, less than a pixel may remain


@pytest.mark.parametrize("name", [*EXACT, *RESAMPLED])
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_a_target_stays_whole(name: str, seed: int) -> None:
    (source, before), (image, target) = run((EXACT | RESAMPLED)[name], seed)
    assert image.dtype == source.dtype and image.permute(1, 2, 0).shape[2] == len(source)
    assert target.keys() - {"resized"} == before.keys()
    count, (height, width) = len(target["boxes"]), image.shape[1:]
    assert target["masks"].shape == (count, height, width)
    assert target["masks"].dtype == target["iscrowd"].dtype == torch.bool
    assert len(target["labels"]) == len(target["iscrowd"]) == len(target["keypoints"]) == count
    boxes = target["boxes"]
    assert boxes.dtype == torch.float32 and (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height] * 2)).all()
    assert target["image_id"] == before["image_id"]
    points = target["keypoints"]
    assert (points[points[..., 2] == 0] == 0).all()
    assert (points[..., :2] >= 0).all() and (points[..., 0] <= width).all()


WITHOUT_MASKS: dict[str, Callable[[], Any]] = {
    name: lambda name=name: (EXACT | RESAMPLED)[name]  # type: ignore[misc]
    for name in (*EXACT, *RESAMPLED)
    if name not in ("copy_paste", "all", "iou_crop")
}


@pytest.mark.parametrize("name", WITHOUT_MASKS)
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_without_masks_a_box_holds_all_that_is_seen(name: str, seed: int) -> None:
    transform, channels = WITHOUT_MASKS[name](), 15
    firsts = iter(range(0, channels, 3))

    def bare() -> tuple[Tensor, Target]:
        image, target = scene(seed, next(firsts), channels if several else 3)
        return image, {key: value for key, value in target.items() if key != "masks"}

    several = getattr(transform, "uses_others", False)
    rng = np.random.default_rng(seed)
    image, target = transform(*bare(), rng, bare) if several else transform(*bare(), rng)
    assert "masks" not in target
    for label, box in zip(target["labels"].tolist(), target["boxes"], strict=True):
        drawn = seen(image, label)
        if drawn.any():
            [tight] = extents(drawn[None])
            assert (tight[:2] >= box[:2] - 1).all() and (tight[2:] <= box[2:] + 1).all()


@pytest.mark.parametrize("name", sorted({*EXACT, *RESAMPLED} - {"copy_paste", "all"}))
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_keypoints_stay_on_their_outlines(name: str, seed: int) -> None:
    """They were on the outline of their shape, and so they are, if it is not cut off there."""
    _, (_, target) = run((EXACT | RESAMPLED)[name], seed)
    for points, mask in zip(target["keypoints"], target["masks"], strict=True):
        assert points[-1].tolist() == [0, 0, 0]  # never labelled
        ring = grown(mask, 5) & grown(~mask, 5)  # some enlarge it, and rounded pixels with it
        for x, y, visible in points.tolist():
            if visible == 2 and 5 < x < mask.shape[1] - 5 and 5 < y < mask.shape[0] - 5:
                assert ring[int(y), int(x)]
