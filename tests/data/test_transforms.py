from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eyeline.data.colours import Distortion, shift_hsv_
from eyeline.data.transforms import (
    NAMES,
    Compose,
    Expand,
    HorizontalFlip,
    IoUCrop,
    MultiScale,
    Photometric,
    Resize,
    VerticalFlip,
    from_names,
)
from eyeline.errors import EyelineError
from eyeline.structures import Target

GEOMETRIC = {
    "hflip": HorizontalFlip(1),
    "vflip": VerticalFlip(1),
    "resize": Resize(25, 60),
    "multi_scale": MultiScale([20, 30, 50], 70),
    "iou_crop": IoUCrop(),
    "expand": Expand(p=1),
}
seeds = st.integers(0, 10_000)


def sample(seed: int, dtype: torch.dtype = torch.uint8) -> tuple[Tensor, Target]:
    """A picture with up to 5 objects whose masks fill their boxes, whole pixels, one a crowd."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(16, 60, 2)
    count = int(rng.integers(0, 6))
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    boxes = torch.zeros(count, 4)
    for i in range(count):
        x1, y1 = rng.integers(0, (width - 2, height - 2))
        x2, y2 = rng.integers((x1 + 2, y1 + 2), (width + 1, height + 1))
        boxes[i] = torch.tensor([x1, y1, x2, y2])
        masks[i, y1:y2, x1:x2] = True
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8))
    target = {
        "boxes": boxes,
        "labels": torch.arange(count),
        "iscrowd": torch.arange(count) == 1,
        "masks": masks,
        "image_id": torch.tensor(seed),
    }
    return (image if dtype == torch.uint8 else image.to(dtype) / 255), target


def extents(masks: Tensor) -> Tensor:
    """The tight boxes of masks that are not empty."""
    boxes = []
    for mask in masks:
        y, x = mask.nonzero().unbind(1)
        boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def equal(a: tuple[Tensor, Target], b: tuple[Tensor, Target]) -> bool:
    return torch.equal(a[0], b[0]) and all(torch.equal(a[1][k], b[1][k]) for k in a[1])


@pytest.mark.parametrize("name", GEOMETRIC)
@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_boxes_stay_inside_and_masks_agree(name: str, seed: int) -> None:
    image, target = sample(seed)
    before = image.clone(), {key: value.clone() for key, value in target.items()}
    out, new = GEOMETRIC[name](image, target, np.random.default_rng(seed))
    assert equal((image, target), before)  # nothing is changed in place
    assert out.dtype == torch.uint8 and new.keys() - {"resized"} == target.keys()
    height, width = out.shape[1:]
    boxes = new["boxes"]
    assert boxes.dtype == torch.float32
    assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height] * 2)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert new["masks"].shape == (len(boxes), height, width) and new["masks"].dtype == torch.bool
    assert len(new["labels"]) == len(new["iscrowd"]) == len(boxes)
    if name in ("resize", "multi_scale"):  # nearest pixels: off by less than a pixel
        seen = new["masks"].flatten(1).any(1)
        assert ((extents(new["masks"][seen]) - boxes[seen]).abs() < 1).all()
    else:
        assert torch.equal(extents(new["masks"]), boxes)


@pytest.mark.parametrize("flip", [HorizontalFlip(1), VerticalFlip(1)])
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_a_flip_twice_is_nothing(flip: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    once = flip(*sample(seed), rng)
    assert not torch.equal(once[0], sample(seed)[0])
    assert equal(flip(*once, rng), sample(seed))


def test_flips_by_hand() -> None:
    image = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3).expand(3, 2, 3)
    target = {"boxes": torch.tensor([[0.0, 0.0, 1.0, 2.0]])}
    rng = np.random.default_rng(0)
    flipped, new = HorizontalFlip(1)(image, target, rng)
    assert flipped[0].tolist() == [[2, 1, 0], [5, 4, 3]]
    assert new["boxes"].tolist() == [[2, 0, 3, 2]]
    flipped, new = VerticalFlip(1)(image, {"boxes": torch.tensor([[0.0, 0.5, 1.0, 1.0]])}, rng)
    assert flipped[0].tolist() == [[3, 4, 5], [0, 1, 2]]
    assert new["boxes"].tolist() == [[0, 1, 1, 1.5]]


@pytest.mark.parametrize("make", [HorizontalFlip, VerticalFlip, lambda p: Expand(p=p)])
def test_probability(make: Callable[[float], Any]) -> None:
    image, target = sample(1)
    rng = np.random.default_rng(0)

    def changed(p: float) -> float:
        results = [make(p)(image, target, rng)[0] for _ in range(200)]
        return sum(result is not image for result in results) / 200

    assert changed(0) == 0 and changed(1) == 1 and 0.2 < changed(0.3) < 0.4


def test_resize_sizes() -> None:
    image, target = torch.zeros(3, 40, 80), {"boxes": torch.tensor([[8.0, 4.0, 16.0, 20.0]])}
    rng = np.random.default_rng(0)
    out, new = Resize(20, 100)(image, target, rng)
    assert out.shape == (3, 20, 40) and new["boxes"].tolist() == [[4, 2, 8, 10]]
    assert Resize(60, 100)(image, target, rng)[0].shape == (3, 50, 100)
    sizes = {MultiScale([10, 20, 30], 100)(image, target, rng)[0].shape[1] for _ in range(50)}
    assert sizes == {10, 20, 30}


def test_resize_smooths() -> None:
    """Shrinking averages all pixels; without smoothing the bright columns would be missed."""
    image = torch.tensor([0, 0, 0, 200], dtype=torch.uint8).repeat(3, 64, 16)
    out, _ = Resize(16, 16)(image, {"boxes": torch.zeros(0, 4)}, np.random.default_rng(0))
    assert (out[:, :, 1:-1].float() - 50).abs().max() <= 10


# IoUCrop


def plain_iou(a: Tensor, b: Tensor) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(float(w), 0.0) * max(float(h), 0.0)
    areas = [float((x[2] - x[0]) * (x[3] - x[1])) for x in (a, b)]
    return inter / (sum(areas) - inter)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, min_iou=st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]))
def test_crops_keep_what_the_paper_says(seed: int, min_iou: float) -> None:
    image, target = sample(seed)
    # The picture's pixels are their own coordinates, which tells where the crop was.
    height, width = image.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    crop, new = IoUCrop([min_iou])(torch.stack([x, y, x]), target, np.random.default_rng(seed))
    if crop.shape[1:] == image.shape[1:]:
        assert len(new["boxes"]) == len(target["boxes"])
        return
    left, top = crop[0, 0, 0], crop[1, 0, 0]
    window = torch.tensor([left, top, left + crop.shape[2], top + crop.shape[1]]).float()
    ordinary = target["boxes"][~target["iscrowd"]]
    assert max(plain_iou(window, box) for box in ordinary) >= min_iou
    centres = (target["boxes"][:, :2] + target["boxes"][:, 2:]) / 2
    inside = ((centres > window[:2]) & (centres < window[2:])).all(1)
    assert inside[~target["iscrowd"]].any()
    seen = torch.tensor([plain_iou(window, box) > 0 for box in target["boxes"]])
    assert new["labels"].tolist() == (inside | (target["iscrowd"] & seen)).nonzero()[:, 0].tolist()
    ratio = crop.shape[2] / width / (crop.shape[1] / height)
    assert 0.5 * 0.85 <= ratio <= 2 * 1.18  # rounded to whole pixels
    assert crop.shape[2] >= 0.3 * 0.5**0.5 * width - 1


def test_crops_happen_and_differ() -> None:
    image, target = torch.zeros(3, 60, 60), {"boxes": torch.tensor([[10.0, 10.0, 40.0, 40.0]])}
    rng = np.random.default_rng(0)
    shapes = [tuple(IoUCrop()(image, target, rng)[0].shape) for _ in range(70)]
    whole = shapes.count((3, 60, 60)) / len(shapes)
    assert 0.05 < whole < 0.35 and len(set(shapes)) > 30  # one in six or seven is the whole


def test_some_object_stays_in_any_crop() -> None:
    image = torch.zeros(3, 60, 60)
    boxes = torch.tensor([[2.0, 2.0, 9.0, 9.0], [0.0, 0.0, 60.0, 60.0]])
    target = {"boxes": boxes, "iscrowd": torch.tensor([False, True])}
    rng = np.random.default_rng(0)
    kept = [IoUCrop([0.0])(image, target, rng)[1]["iscrowd"].tolist() for _ in range(40)]
    assert kept == [[False, True]] * 40


def test_pictures_without_ordinary_objects_are_not_cropped() -> None:
    image, target = sample(0)
    empty = {key: value[:0] for key, value in target.items() if key != "image_id"}
    crowd = {"boxes": torch.tensor([[0.0, 0.0, 9.0, 9.0]]), "iscrowd": torch.tensor([True])}
    for target in (empty, crowd):
        assert IoUCrop()(image, target, np.random.default_rng(0))[0] is image


def test_expand_surrounds_with_the_mean() -> None:
    image, target = sample(3)
    out, new = Expand(4, 1)(image, target, np.random.default_rng(5))
    assert out.shape[1] > image.shape[1] and out.shape[2] <= 4 * image.shape[2]
    left, top = (new["boxes"] - target["boxes"])[0, :2].int().tolist()
    height, width = image.shape[1:]
    assert torch.equal(out[:, top : top + height, left : left + width], image)
    out[:, top : top + height, left : left + width] = torch.tensor([124, 116, 104])[:, None, None]
    assert (out == torch.tensor([124, 116, 104])[:, None, None]).all()


# Colours


def plainly_shifted(rgb: Tensor, hue: float, saturation: float) -> Tensor:
    """`shift_hsv_` with the standard library, for values in [0, 1]."""
    columns = []
    for h, s, v in (colorsys.rgb_to_hsv(*column) for column in rgb.flatten(1).T.tolist()):
        columns.append(colorsys.hsv_to_rgb((h + hue) % 1, min(s * saturation, 1), v))
    return torch.tensor(columns).T.reshape(rgb.shape)


@pytest.mark.parametrize("hue", [0.0, 0.05, -0.05, 1 / 6, 0.3, -0.5, 0.5, -0.7])
@pytest.mark.parametrize("saturation", [0.0, 0.5, 1.0, 1.7])
def test_shifted_colours_equal_the_way_through_hsv(hue: float, saturation: float) -> None:
    levels = torch.linspace(0, 1, 6)
    rgb = torch.cartesian_prod(levels, levels, levels).T.contiguous()  # greys and ties among them
    expected = plainly_shifted(rgb, hue, saturation)
    assert (shift_hsv_(rgb * 255, hue, saturation) / 255 - expected).abs().max() < 1e-6  # any scale
    assert (shift_hsv_(rgb, hue, saturation) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    "distortion",
    [
        Distortion(brightness=0.1), Distortion(-0.1, contrast=1.4), Distortion(hue=0.05),
        Distortion(-0.1, 1.3, -0.04, 1.4), Distortion(0.1, hue=0.04, contrast_last=0.6),
        Distortion(saturation=0.5, contrast_last=1.5),
    ],
    ids=str,
)  # fmt: skip
def test_a_distortion_is_its_steps_in_order(distortion: Distortion, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(150, 17, 3, generator=generator).permute(2, 0, 1)  # more than one strip
    image = (image * 255).to(torch.uint8) if dtype == torch.uint8 else image
    before = image.clone()
    x = image.double() / 255 if dtype == torch.uint8 else image.double()
    x = (x + distortion.brightness).clamp(0, 1)
    x = (x * distortion.contrast).clamp(0, 1)
    x = plainly_shifted(x, distortion.hue, distortion.saturation)
    x = (x * distortion.contrast_last).clamp(0, 1)
    out = distortion(image)
    assert torch.equal(image, before) and out.dtype == dtype
    assert out.permute(1, 2, 0).is_contiguous()
    if dtype == torch.uint8:  # rounded, and where the exact value is a half, either way
        assert (out.double() - x * 255).abs().max() < 0.5 + 1e-3
    else:
        assert (out - x).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_colours_stay_in_range(dtype: torch.dtype, seed: int) -> None:
    image, target = sample(seed, dtype)
    out, same = Photometric(p=1)(image, target, np.random.default_rng(seed))
    assert same is target and out.dtype == dtype and out.shape == image.shape
    assert not torch.equal(out, image)
    assert dtype == torch.uint8 or ((out >= 0) & (out <= 1)).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_no_change_of_colours_is_none(dtype: torch.dtype) -> None:
    image, target = sample(0, dtype)
    rng = np.random.default_rng(0)
    assert torch.equal(Photometric(p=0)(image, target, rng)[0], image)
    none = Photometric(brightness=0, contrast=(1, 1), saturation=(1, 1), hue=0, p=1)
    assert torch.equal(none(image, target, rng)[0], image)


def test_each_change_of_colours() -> None:
    image = torch.tensor([0.5, 0.4, 0.3])[:, None, None]
    rng = np.random.default_rng(0)
    nothing: dict[str, Any] = {
        "brightness": 0, "contrast": (1, 1), "saturation": (1, 1), "hue": 0, "p": 1,
    }  # fmt: skip

    def changed(**change: Any) -> Tensor:
        return Photometric(**(nothing | change))(image, {}, rng)[0][:, 0, 0]

    assert torch.allclose(changed(contrast=(1.5, 1.5)), torch.tensor([0.75, 0.6, 0.45]))
    assert torch.allclose(changed(saturation=(0, 0)), torch.full((3,), 0.5))
    assert torch.allclose(changed(saturation=(0.5, 0.5)), torch.tensor([0.5, 0.45, 0.4]))
    brighter = changed(brightness=0.1) - image[:, 0, 0]
    assert torch.allclose(brighter, brighter[:1].expand(3)) and 0 < brighter[0].abs() <= 0.1
    hues = [colorsys.rgb_to_hsv(*changed(hue=18.0).tolist())[0] * 360 for _ in range(50)]
    assert 12 <= min(hues) < 20 and 40 < max(hues) <= 48  # about the picture's hue, 30 degrees


# Recipes


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "names", [["photometric", "hflip", "iou_crop"], ["photometric", "vflip", "expand", "iou_crop"]]
)
def test_colours_changed_after_cropping_are_those_changed_before(
    names: list[str], seed: int
) -> None:
    chain = Compose([Photometric(p=0.8), *from_names(names).transforms])
    expected, rng = sample(seed), np.random.default_rng(seed)
    for transform in chain.transforms:
        expected = transform(*expected, rng)
    assert equal(chain(*sample(seed), np.random.default_rng(seed)), expected)


def test_the_same_randomness_gives_the_same_result() -> None:
    chain = from_names(["hflip", "vflip", "photometric", "iou_crop", "expand"])
    results = [chain(*sample(7), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert equal(results[0], results[1]) and results[0][0].shape != results[2][0].shape


def test_from_names() -> None:
    chain = from_names(
        ["hflip", {"vflip": None}, {"multi_scale": {"min_sizes": [8, 9], "max_size": 20}}]
    )
    expected = (HorizontalFlip(), VerticalFlip(), MultiScale((8, 9), 20))
    assert isinstance(chain, Compose) and tuple(chain.transforms) == expected
    image, target = sample(0)
    same = from_names([])(image, target, np.random.default_rng(0))
    assert same[0] is image and same[1] is target
    assert len(NAMES) == 13


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("hflop", "'hflop'; did you mean 'hflip'"),
        ("zzz", "there are: hflip, vflip"),
        ({"hflip": {"prob": 1}}, "'hflip' has no option 'prob'"),
        ({"resize": {"min_size": 9, "max_sise": 9}}, "did you mean 'max_size'"),
        ({"resize": {"max_size": 9}}, "'resize' needs min_size"),
        ({"hflip": 0.5}, "options are"),
        ({"hflip": {"p": 1.5}}, "p should be from 0 to 1, not 1.5"),
        ({"hflip": {"p": "often"}}, "not 'often'"),
        ({"photometric": {"contrast": 0.5}}, r"contrast should be \[from, to\]"),
        ({"photometric": {"contrast": [1.5, 0.5]}}, r"contrast .* not \(1.5, 0.5\)"),
        ({"multi_scale": {"min_sizes": [], "max_size": 9}}, "min_sizes is empty"),
        ({"resize": {"min_size": 10, "max_size": 9}}, "max_size should be from 10"),
        ({"iou_crop": {"min_ious": [0.1, 2]}}, "min_ious"),
        ({"hflip": {}, "vflip": {}}, "a transform is a name"),
        (3, "a transform is a name"),
    ],
)
def test_bad_recipes_are_explained(entry: Any, said: str) -> None:
    with pytest.raises(EyelineError, match=rf"\A[^\n]*{said}[^\n]*\Z"):
        from_names([entry])
