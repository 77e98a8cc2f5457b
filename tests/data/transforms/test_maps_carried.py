"""A map goes with its picture, pixel by pixel; what no picture covers is ignored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eyeline.data.transforms import from_names
from eyeline.data.transforms.warp import rotation, shift, warp
from eyeline.errors import EyelineError
from eyeline.ops.resize import resize_map

# Pure colours: a mixture of two is none of them, nor is the grey of what is not covered.
COLOURS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], dtype=torch.uint8)


def sample(seed: int = 0, size: tuple[int, int] = (60, 80), cell: int = 10) -> tuple[Tensor, Any]:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, 4, (size[0] // cell, size[1] // cell), generator=generator)
    classes = cells.repeat_interleave(cell, 0).repeat_interleave(cell, 1)
    return COLOURS[classes].permute(2, 0, 1), {"map": classes.byte(), "image_id": torch.tensor(7)}


@pytest.mark.parametrize(
    ("entry", "covered"),
    [
        ({"hflip": {"p": 1.0}}, 1.0),
        ({"vflip": {"p": 1.0}}, 1.0),
        ({"resize": {"min_size": 45, "max_size": 100}}, 0.6),
        ({"multi_scale": {"min_sizes": [90, 117], "max_size": 300}}, 0.7),
        ({"expand": {"p": 1.0}}, 1.0),
        ({"rotate": {"degrees": [-40, 40], "p": 1.0}}, 0.6),
        ({"perspective": {"p": 1.0}}, 0.6),
        ({"random_crop": {"size": [50, 70], "scale": [0.5, 2.0]}}, 0.6),
        ({"random_crop": {"size": [120, 40], "scale": [0.9, 1.1]}}, 0.6),
        ({"mosaic": {"size": 96}}, 0.7),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_pure_pixels_keep_their_class(entry: dict[str, Any], covered: float, seed: int) -> None:
    image, target = sample(seed)
    others = iter(range(10, 20))
    before = image.clone(), target["map"].clone()
    rng = np.random.default_rng(seed)
    found, new = from_names([entry])(image, target, rng, lambda: sample(next(others)))
    classes = new["map"]
    assert classes.shape == found.shape[1:] and classes.dtype == torch.uint8
    assert new["image_id"] == 7
    pure = torch.stack([(found == colour[:, None, None]).all(0) for colour in COLOURS])  # (4, H, W)
    is_pure = pure.any(0)
    assert torch.equal(classes[is_pure].long(), pure.long().argmax(0)[is_pure])
    outside = classes == 255
    assert not (outside & is_pure).any()
    assert is_pure.sum() >= covered * (~outside).sum()
    grey = (found.amax(0).int() - found.amin(0).int()) < 30  # uncovered, or nearly
    assert (outside & ~grey).sum() <= 0.05 * outside.numel()  # at slanted edges alone
    assert torch.equal(image, before[0]) and torch.equal(target["map"], before[1])


@pytest.mark.parametrize("new", [(7, 5), (3, 9), (60, 80), (1, 1), (13, 200)])
def test_resized_map_is_the_nearest_pixel(new: tuple[int, int]) -> None:
    old = torch.arange(60 * 80).reshape(60, 80)
    found = resize_map(old, new)
    for y in range(new[0]):
        for x in range(new[1]):  # a new centre, in old pixels; whole numbers decide exactly
            row, column = (2 * y + 1) * 60 // (2 * new[0]), (2 * x + 1) * 80 // (2 * new[1])
            assert found[y, x] == row * 80 + column
            assert row <= (y + 0.5) * 60 / new[0] <= row + 1
    assert torch.equal(resize_map(old.expand(2, -1, -1), new)[1], found)


def test_warped_map_is_the_nearest_pixel() -> None:
    old = torch.arange(5 * 7).reshape(5, 7)
    matrix = shift(4, 3) @ rotation(30) @ np.diag([1.3, 0.8, 1.0]) @ shift(-3, -2)
    matrix[2] = 0.01, 0.02, 1
    _, new = warp(torch.zeros(3, 5, 7), {"map": old}, matrix, (9, 11))
    back = np.linalg.inv(matrix)
    inside = 0
    for y in range(9):
        for x in range(11):
            u, v, w = back @ (x + 0.5, y + 0.5, 1)
            at = int(np.floor(v / w)), int(np.floor(u / w))
            within = 0 <= at[0] < 5 and 0 <= at[1] < 7
            inside += within
            assert new["map"][y, x] == (old[at] if within else 255)
    assert 20 < inside < 99


def test_a_map_beside_objects() -> None:
    """Both go along, as each does alone."""
    image, target = sample()
    box = torch.tensor([[10.0, 20.0, 30.0, 40.0]])
    both = target | {"boxes": box, "labels": torch.tensor([1])}
    for entry in (
        {"hflip": {"p": 1.0}},
        {"rotate": {"p": 1.0}},
        {"random_crop": {"size": [60, 80]}},
    ):
        transform = from_names([entry])
        together = transform(image, both, np.random.default_rng(3))[1]
        alone = transform(image, target, np.random.default_rng(3))[1]
        assert torch.equal(together["map"], alone["map"]) and len(together["boxes"]) == 1


def test_random_crop_of_the_picture_itself() -> None:
    image, target = sample()
    crop = from_names([{"random_crop": {"size": [30, 50], "scale": [1.0, 1.0]}}])
    places = set()
    for seed in range(20):
        found, new = crop(image, target, np.random.default_rng(seed))
        assert new["resized"] and found.shape == (3, 30, 50)
        assert torch.equal(COLOURS[new["map"].long()].permute(2, 0, 1), found)
        windows = target["map"].unfold(0, 30, 1).unfold(1, 50, 1)  # (31, 31, 30, 50)
        same = (windows == new["map"]).flatten(2).all(2)
        assert same.any()
        places.add(tuple(torch.nonzero(same)[0].tolist()))
    assert len(places) > 5


def test_random_crop_fills_up_with_grey_that_is_ignored() -> None:
    image, target = sample()
    crop = from_names([{"random_crop": {"size": [100, 90], "scale": [1.0, 1.0]}}])
    found, new = crop(image, target, np.random.default_rng(0))
    outside = new["map"] == 255
    assert outside.sum() == 100 * 90 - 60 * 80
    assert (found[:, outside] == 114).all()
    assert torch.equal(found[:, ~outside], COLOURS[new["map"][~outside].long()].T)


def test_random_crop_avoids_parts_of_one_class() -> None:
    """A quarter of the picture is worth a look, the rest is one class."""
    classes = torch.zeros(60, 80, dtype=torch.uint8)
    classes[:30, :40] = torch.randint(1, 4, (30, 40), generator=torch.Generator().manual_seed(0))
    classes[:, 79] = 255  # does not count
    image = COLOURS[classes.long() % 4].permute(2, 0, 1)
    shares = {}
    for most in (1.0, 0.75):
        options = {"size": [20, 20], "scale": [1.0, 1.0], "max_share": most}
        crop = from_names([{"random_crop": options}])
        largest = []
        for seed in range(60):
            part = crop(image, {"map": classes}, np.random.default_rng(seed))[1]["map"]
            counts = torch.bincount(part[part != 255].long())
            largest.append(float(counts.max() / counts.sum()))
        shares[most] = np.mean(np.array(largest) > 0.75)
    assert shares[1.0] > 0.5 and shares[0.75] < 0.1


def test_options_of_random_crop() -> None:
    for options, said in (
        ({}, "needs size"),
        ({"size": [10]}, "height, width"),
        ({"size": [10, 0]}, "height, width"),
        ({"size": [9, 9], "scale": [2, 1]}, "scale"),
        ({"size": [9, 9], "max_share": 2}, "max_share"),
    ):
        with pytest.raises(EyelineError, match=said):
            from_names([{"random_crop": options}])
