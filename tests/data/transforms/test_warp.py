"""Homographies: exact where they can be, and against sampling point by point."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.transforms.drawn import POINTS, equal, scene
from torch import Tensor

from eyeline.data.transforms import Perspective, Rotate, from_names
from eyeline.data.transforms.base import seen_through
from eyeline.data.transforms.warp import rotation, shift, warp
from eyeline.errors import EyelineError
from eyeline.structures import Target

seeds = st.integers(0, 100_000)


def noisy(seed: int, dtype: torch.dtype = torch.uint8) -> tuple[Tensor, Target]:
    """A picture of noise with the objects of a scene."""
    image, target = scene(seed)
    noise = torch.randint(0, 256, image.shape, generator=torch.Generator().manual_seed(seed))
    return (noise.to(dtype) if dtype == torch.uint8 else noise.to(dtype) / 255), target


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_quarter_turns_are_exact(turns: int, seed: int) -> None:
    image, target = noisy(seed)
    height, width = image.shape[1:]
    size = (height, width) if turns == 2 else (width, height)
    about = shift(size[1] / 2, size[0] / 2) @ rotation(-90 * turns) @ shift(-width / 2, -height / 2)
    turned, new = warp(image, target, about, size)
    assert torch.equal(turned, image.rot90(turns, (1, 2)))
    assert torch.equal(new["masks"], target["masks"].rot90(turns, (1, 2)))
    points = target["keypoints"].clone()
    for _ in range(turns):  # a quarter against the clock: x, y -> y, W - x
        points[..., :2] = torch.stack([points[..., 1], width - points[..., 0]], -1)
        height, width = width, height
    points[points[..., 2] == 0] = 0
    assert torch.allclose(new["keypoints"], points, atol=1e-4)


def test_a_square_turned_by_the_transform() -> None:
    image = torch.randint(0, 256, (3, 50, 50), dtype=torch.uint8)
    box = {"boxes": torch.tensor([[10.0, 20.0, 30.0, 25.0]])}
    rng = np.random.default_rng(0)
    turned, target = Rotate((90, 90), p=1)(image, box, rng)  # clockwise
    assert torch.equal(turned, image.rot90(-1, (1, 2)))
    assert torch.allclose(target["boxes"], torch.tensor([[25.0, 10.0, 30.0, 30.0]]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_no_change_is_none(dtype: torch.dtype) -> None:
    sample = noisy(1, dtype)
    rng = np.random.default_rng(0)
    none = Perspective((0, 0), (1, 1), shear=0, translate=0, tilt=0, p=1)
    assert equal(none(*sample, rng), sample)
    assert equal(Rotate((0, 0), p=1)(*sample, rng), sample)
    assert Rotate(p=0)(*sample, rng)[0] is sample[0]
    assert Perspective(p=0)(*sample, rng)[0] is sample[0]


def sampled_slowly(image: Tensor, matrix: np.ndarray, x: int, y: int, fill: float) -> list[float]:
    """One pixel of the new picture: its centre taken back, and the mean of the four about it."""
    u, v, w = np.linalg.solve(matrix, [x + 0.5, y + 0.5, 1])
    u, v = u / w - 0.5, v / w - 0.5
    left, top = math.floor(u), math.floor(v)
    value = np.zeros(len(image))
    for i, j in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        inside = 0 <= i < image.shape[2] and 0 <= j < image.shape[1]
        pixel = image[:, j, i].double().numpy() if inside else np.full(len(image), fill)
        value += pixel * (1 - abs(u - i)) * (1 - abs(v - j))
    return list(value)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_pixels_equal_those_sampled_one_by_one(dtype: torch.dtype, seed: int) -> None:
    image, target = noisy(seed, dtype)
    height, width = image.shape[1:]
    rng = np.random.default_rng(seed)
    matrix = Perspective((-60, 60), shear=20, translate=0.3, tilt=0.45).draw(height, width, rng)
    size = (int(rng.integers(30, 150)), int(rng.integers(30, 150)))  # more and less than a strip
    out, new = warp(image, target, matrix, size, fill=0.5)
    assert out.shape == (3, *size) and out.dtype == dtype and out.permute(1, 2, 0).is_contiguous()
    fill = 128 if dtype == torch.uint8 else 0.5
    for _ in range(60):
        x, y = int(rng.integers(size[1])), int(rng.integers(size[0]))
        wanted = np.array(sampled_slowly(image, matrix, x, y, fill))
        near = np.abs(out[:, y, x].double().numpy() - wanted).max()
        assert near < (0.55 if dtype == torch.uint8 else 1e-3)
        u, v, w = np.linalg.solve(matrix, [x + 0.5, y + 0.5, 1])
        i, j = math.floor(u / w), math.floor(v / w)
        if abs(u / w - round(u / w)) > 1e-3 and abs(v / w - round(v / w)) > 1e-3:
            inside = 0 <= i < width and 0 <= j < height
            kept = torch.isin(target["labels"], new["labels"])
            expected = target["masks"][kept, j, i] if inside else torch.zeros(int(kept.sum())) > 0
            assert torch.equal(new["masks"][:, y, x], expected)


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_all_of_the_picture_is_before_the_eye(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 500, 2))
    matrix = Perspective((-180, 180), shear=45, translate=1, tilt=0.45).draw(height, width, rng)
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
    assert ((matrix @ corners.T)[2] > 0.09).all()


def test_objects_that_leave_take_all_with_them() -> None:
    """To the right by half: of three objects one stays whole, one is halved, one has left."""
    boxes = torch.tensor([[5.0, 5, 15, 15], [15, 20, 25, 30], [30, 30, 38, 38]])
    masks = torch.zeros(3, 40, 40, dtype=torch.bool)
    masks[0, 5:15, 5:15] = masks[1, 20:30, 15:25] = masks[2, 30:38, 30:38] = True
    points = torch.tensor([[[10.0, 10, 2]], [[24, 25, 1]], [[35, 35, 2]]])
    target = {
        "boxes": boxes, "masks": masks, "keypoints": points, "labels": torch.tensor([7, 8, 9]),
        "iscrowd": torch.tensor([False, False, False]), "area": torch.tensor([100.0, 100, 64]),
        "image_id": torch.tensor(3), "mirrored": torch.tensor([0]),
    }  # fmt: skip
    _, new = warp(torch.zeros(3, 40, 40), target, shift(20, 0), (40, 40), 0.4)
    assert new["boxes"].tolist() == [[25, 5, 35, 15], [35, 20, 40, 30]]
    assert new["labels"].tolist() == [7, 8] and new["area"].tolist() == [100, 100]
    assert new["keypoints"].tolist() == [[[30, 10, 2]], [[0, 0, 0]]]
    assert new["image_id"] == 3 and new["mirrored"].tolist() == [0]
    assert len(new["masks"]) == len(new["iscrowd"]) == 2
    _, new = warp(torch.zeros(3, 40, 40), target, shift(20, 0), (40, 40), 0.6)
    assert new["labels"].tolist() == [7]
    crowd = target | {"iscrowd": torch.tensor([False, True, True])}
    _, new = warp(torch.zeros(3, 40, 40), crowd, shift(20, 0), (40, 40), 0.6)
    assert new["labels"].tolist() == [7, 8]  # of a crowd, anything is enough


def test_a_mask_makes_the_box_tight() -> None:
    """A disc turned by 45 degrees keeps its box; that of a bare box grows by the root of 2."""
    y, x = torch.meshgrid(torch.arange(100), torch.arange(100), indexing="ij")
    disc = ((x + 0.5 - 50) ** 2 + (y + 0.5 - 50) ** 2) < 30**2
    box = {"boxes": torch.tensor([[20.0, 20, 80, 80]])}
    rng = np.random.default_rng(0)
    turn, image = Rotate((45, 45), p=1), torch.zeros(3, 100, 100)
    tight = turn(image, box | {"masks": disc[None]}, rng)[1]["boxes"]
    loose = turn(image, box, rng)[1]["boxes"]
    assert (tight - box["boxes"]).abs().max() <= 1
    half = 30 * math.sqrt(2)
    assert torch.allclose(loose, torch.tensor([[50 - half, 50 - half, 50 + half, 50 + half]]))


def test_draws_stay_within_their_options() -> None:
    rng = np.random.default_rng(0)
    flat = Perspective((-20, 20), (0.5, 2), shear=0, translate=0.2, tilt=0)
    found = [flat.draw(100, 200, rng) for _ in range(300)]
    angles = [math.degrees(math.atan2(m[1, 0], m[0, 0])) for m in found]
    scales = [math.hypot(m[0, 0], m[1, 0]) for m in found]
    centres = np.array([(m @ [100, 50, 1])[:2] for m in found]) - [100, 50]
    assert -20 <= min(angles) < -18 and 18 < max(angles) <= 20
    assert 0.5 <= min(scales) < 0.52 and 1.9 < max(scales) <= 2
    assert abs(np.median(scales) - 1) < 0.1  # as often smaller as larger
    assert np.abs(centres).max(0) == pytest.approx([40, 20], rel=0.05)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"rotate": {"degrees": 10}}, r"degrees should be \[from, to\]"),
        ({"rotate": {"degrees": [0, 400]}}, "degrees should be from -180 to 180"),
        ({"perspective": {"tilt": 0.5}}, "tilt should be from 0 to 0.45"),
        ({"perspective": {"scale": [0, 1]}}, "scale should be from 0.01"),
        ({"perspective": {"shear": -1}}, "shear should be from 0 to 45"),
        ({"perspective": {"tilted": 1}}, "did you mean 'tilt'"),
        ("rotat", "did you mean 'rotate'"),
    ],
)
def test_bad_options_are_explained(entry: Any, said: str) -> None:
    with pytest.raises(EyelineError, match=rf"\A[^\n]*{said}[^\n]*\Z"):
        from_names([entry])


def test_points_go_where_the_matrix_says() -> None:
    points = torch.rand(4, POINTS, 3) * 50
    points[..., 2] = 2
    target = {"boxes": torch.tensor([[0.0, 0, 60, 60]]).expand(4, 4), "keypoints": points}
    matrix = Perspective(p=1).draw(60, 60, np.random.default_rng(5))
    _, new = warp(torch.zeros(3, 60, 60), target, matrix, (300, 300))
    for (x, y, _), (new_x, new_y, visible) in zip(
        points.reshape(-1, 3).tolist(), new["keypoints"].reshape(-1, 3).tolist(), strict=True
    ):
        u, v, w = matrix @ [x, y, 1]
        there = 0 <= u / w <= 300 and 0 <= v / w <= 300
        wanted = [u / w, v / w, 2] if there else [0, 0, 0]
        assert [new_x, new_y, visible] == pytest.approx(wanted, abs=1e-3)


def test_a_corner_of_a_box_without_anything_of_the_mask_is_not_the_object() -> None:
    """A triangle below left in its box: of a window above right only the box is seen."""
    mask = torch.ones(20, 20, dtype=torch.bool).tril()
    target = {"boxes": torch.tensor([[0.0, 0, 20, 20]]), "masks": mask[None]}
    assert len(seen_through(target, (12, 0, 32, 8))["boxes"]) == 0
    bare = {"boxes": target["boxes"]}
    assert seen_through(bare, (12, 0, 32, 8))["boxes"].tolist() == [[0, 0, 8, 8]]
    assert seen_through(target, (5, 0, 25, 8))["boxes"].tolist() == [[0, 5, 3, 8]]
    # Less of the box is seen than asked for, whatever the mask.
    assert len(seen_through(target, (5, 0, 25, 4), min_visible=0.2)["boxes"]) == 0
    assert len(seen_through(target, (0, 0, 20, 5), min_visible=0.3)["boxes"]) == 0
    assert seen_through(target, (0, 0, 20, 5), min_visible=0.2)["boxes"].tolist() == [[0, 0, 5, 5]]
