"""Other libraries' transforms: what becomes of boxes, labels and masks; who decides the draw.

Each library's tests are skipped where it is not installed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eyeline.data.adapters import adapt
from eyeline.data.transforms import Compose, HorizontalFlip
from eyeline.errors import EyelineError

BOXES = [[10.0, 8.0, 30.0, 28.0], [40.0, 5.0, 60.0, 45.0], [2.0, 40.0, 8.0, 47.0]]
LIBRARIES = ("albumentations", "kornia", "torchvision")


def picture() -> Tensor:
    return torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)


def target(masks: bool = True, count: int = 3) -> dict[str, Tensor]:
    boxes = torch.tensor(BOXES)[:count]
    made = {
        "boxes": boxes,
        "labels": torch.tensor([5, 6, 7])[:count],
        "iscrowd": torch.tensor([False, True, False])[:count],
        "image_id": torch.tensor(9),
    }
    if masks:
        made["masks"] = torch.zeros(count, 48, 64, dtype=torch.bool)
        for mask, box in zip(made["masks"], boxes.int().tolist(), strict=True):
            mask[box[1] : box[3], box[0] : box[2]] = True
    return made


def library(name: str) -> Any:
    if name == "albumentations":
        return pytest.importorskip("albumentations", reason="albumentations is not installed")
    if name == "kornia":
        return pytest.importorskip("kornia.augmentation", reason="kornia is not installed")
    reason = "torchvision is not installed, or not for this build of torch"
    return pytest.importorskip("torchvision.transforms.v2", reason=reason, exc_type=Exception)


def flip(name: str) -> Any:
    found = library(name)
    if name == "albumentations":
        return found.HorizontalFlip(p=1.0)
    return found.RandomHorizontalFlip(p=1.0)


def crop(name: str) -> Any:
    """The right half, by 32 pixels."""
    found = library(name)
    if name == "albumentations":
        return found.Crop(x_min=32, y_min=0, x_max=64, y_max=48)
    if name == "kornia":
        return found.RandomCrop((48, 32), p=1.0, cropping_mode="slice")
    return found.RandomCrop((48, 32))


def jitter(name: str) -> Any:
    found = library(name)
    if name == "albumentations":
        return found.Compose([found.RandomBrightnessContrast(p=0.9), found.HorizontalFlip(p=0.5)])
    if name == "kornia":
        return found.AugmentationSequential(
            found.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.9), found.RandomHorizontalFlip(p=0.5)
        )
    return found.Compose([found.ColorJitter(0.4, 0.4), found.RandomHorizontalFlip(0.5)])


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_flip_is_ours(name: str, masks: bool) -> None:
    image, given = picture(), target(masks)
    theirs, found = adapt(flip(name))(image, given, np.random.default_rng(0))
    ours, wanted = HorizontalFlip(1.0)(image, given, np.random.default_rng(0))
    assert theirs.dtype == torch.uint8 and (theirs.int() - ours.int()).abs().max() <= 1
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.allclose(found[key].float(), value.float(), atol=1e-3), key
        assert found[key].dtype == value.dtype
    assert torch.equal(given["boxes"], torch.tensor(BOXES))  # not changed in place


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_crop_drops_what_it_cuts_off(name: str) -> None:
    """Wherever the crop lies: boxes lie around their masks, labels stay with them."""
    transform = adapt(crop(name))
    rng, dropped = np.random.default_rng(0), 0
    for _ in range(6):
        image, found = transform(picture(), target(), rng)
        assert image.shape == (3, 48, 32)
        assert len(found["boxes"]) == len(found["labels"]) == len(found["masks"])
        assert found["masks"].shape[1:] == (48, 32) and found["masks"].dtype == torch.bool
        assert found["image_id"] == 9
        dropped += 3 - len(found["labels"])
        for box, label, crowd, mask in zip(
            found["boxes"], found["labels"], found["iscrowd"], found["masks"], strict=True
        ):
            y, x = mask.nonzero().T
            around = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
            assert torch.allclose(box, around, atol=1e-3)
            assert bool(crowd) == (label == 6)
    assert dropped > 0


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_generator_decides(name: str) -> None:
    image, transform = picture(), adapt(jitter(name))
    draws = []
    for seed in (1, 2, 3, 4, 1):
        torch.manual_seed(seed * 7 + len(draws))  # whatever the global generators hold
        before = torch.get_rng_state()
        draws.append(transform(image, target(), np.random.default_rng(seed)))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws[0][0], draws[4][0])
    assert torch.equal(draws[0][1]["boxes"], draws[4][1]["boxes"])
    assert len({tuple(image.flatten()[:300].tolist()) for image, _ in draws}) == 4


@pytest.mark.parametrize("name", LIBRARIES)
def test_pictures_without_objects_and_float_pictures(name: str) -> None:
    image = picture().float() / 255
    found, empty = adapt(flip(name))(image, target(count=0), np.random.default_rng(0))
    assert found.dtype == torch.float32 and torch.allclose(found, image.flip(2), atol=1e-5)
    assert empty["boxes"].shape == (0, 4) and empty["labels"].shape == (0,)
    assert empty["masks"].shape == (0, 48, 64)


def test_normalising_is_the_models() -> None:
    v2 = library("torchvision")
    normalise = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.1] * 3)]
    )
    with pytest.raises(EyelineError, match="leave normalising out"):
        adapt(normalise)(picture(), target(), np.random.default_rng(0))


def test_the_first_version_of_torchvisions_is_refused() -> None:
    library("torchvision")
    from torchvision import transforms  # type: ignore[import-not-found, unused-ignore]

    with pytest.raises(EyelineError, match=r"take it from torchvision\.transforms\.v2"):
        adapt(transforms.ColorJitter(0.4))


def test_others_are_refused() -> None:
    with pytest.raises(EyelineError, match="function is no transform of albumentations"):
        adapt(picture)


class _Theirs:
    """Stands for a library's transform, so that the adapter's own part is tested without any."""

    __module__ = "kornia.augmentation.own"


def theirs(apply: Any) -> Any:
    adapter = adapt(_Theirs())
    adapter.apply = apply
    return adapter


def test_boxes_are_clipped_and_dropped_with_all_that_is_theirs() -> None:
    def moved(transform: Any, image: Tensor, boxes: Tensor, masks: Tensor, seed: int) -> Any:
        return image, boxes + torch.tensor([30.0, 0, 30.0, 0]), masks, torch.arange(len(boxes))

    both = Compose([theirs(moved), HorizontalFlip(1.0)])
    _, found = both(picture(), target(), np.random.default_rng(0))
    assert found["labels"].tolist() == [5, 7]  # the second left the picture
    assert found["iscrowd"].tolist() == [False, False] and len(found["masks"]) == 2
    assert found["boxes"].tolist() == [[4.0, 8.0, 24.0, 28.0], [26.0, 40.0, 32.0, 47.0]]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 8, 8), r"shape \(1, 8, 8\)"),
        (torch.full((3, 8, 8), 2.5), "leave normalising out"),
    ],
)
def test_what_is_no_picture(image: Tensor, message: str) -> None:
    def broken(transform: Any, given: Tensor, boxes: Tensor, masks: Tensor, seed: int) -> Any:
        return image, boxes, masks, torch.arange(len(boxes))

    with pytest.raises(EyelineError, match=message):
        theirs(broken)(picture(), target(), np.random.default_rng(0))


def test_boxes_that_lose_their_labels() -> None:
    def careless(transform: Any, image: Tensor, boxes: Tensor, masks: Tensor, seed: int) -> Any:
        return image, boxes[:1], masks, torch.arange(len(boxes))

    with pytest.raises(EyelineError, match="1 boxes for 3 objects"):
        theirs(careless)(picture(), target(False), np.random.default_rng(0))
