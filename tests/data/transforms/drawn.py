"""Drawn shapes: each object is one channel of its picture, so that a transformed picture itself
tells where its objects are."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from eyeline.structures import Target

POINTS = 12  # about each shape


def scene(seed: int, first: int = 0, channels: int = 3) -> tuple[Tensor, Target]:
    """Up to three ellipses and polygons: 255 in the channels first, first + 1, ... and 0 elsewhere.

    `labels` are the channels; the second object is a crowd. Each has POINTS keypoints on its
    outline, the last of them not labelled.
    """
    rng = np.random.default_rng((seed, first))
    height, width = (int(side) for side in rng.integers(40, 90, 2))
    count = int(rng.integers(0, 4))
    masks, points = [], []
    for _ in range(count):
        ring = outline(rng, height, width)
        canvas = Image.new("1", (width, height))
        # Pillow's corners are centres of pixels.
        ImageDraw.Draw(canvas).polygon([tuple(p) for p in ring - 0.5], fill=1)
        mask = np.asarray(canvas)
        if mask.any():
            masks.append(torch.from_numpy(mask.copy()))
            points.append(torch.from_numpy(ring[:: len(ring) // POINTS][:POINTS]).float())
    count = len(masks)
    stacked = torch.stack(masks) if masks else torch.zeros(0, height, width, dtype=torch.bool)
    image = torch.zeros(channels, height, width, dtype=torch.uint8)
    image[first : first + count] = stacked * 255
    keypoints = torch.full((count, POINTS, 3), 2.0)
    if points:
        keypoints[..., :2] = torch.stack(points)
    keypoints[:, -1] = 0
    outside = (keypoints[..., :2] < 0) | (keypoints[..., :2] > torch.tensor([width, height]))
    keypoints[outside.any(-1)] = 0
    return image, {
        "boxes": extents(stacked),
        "labels": torch.arange(first, first + count),
        "iscrowd": torch.arange(count) == 1,
        "masks": stacked,
        "keypoints": keypoints,
        "image_id": torch.tensor(seed),
    }


def outline(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(N, 2): an ellipse or a polygon about a point of the picture; it may stick out."""
    angle = np.linspace(0, 2 * np.pi, 8 * POINTS, endpoint=False)
    if rng.random() < 0.5:  # a polygon whose corners are dense enough for POINTS
        radius = np.interp(angle, angle[::POINTS], rng.uniform(0.6, 1, 8), period=2 * np.pi)
    else:
        radius = np.ones(len(angle))
    size = rng.uniform(5, 0.4 * np.array([width, height]))
    centre = rng.uniform(0, (width, height))
    return centre + size * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


def extents(masks: Tensor) -> Tensor:
    """The tight boxes of masks, one by one; of an empty mask all zeros."""
    boxes = []
    for mask in masks:
        y, x = mask.nonzero().unbind(1)
        boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0] * 4)
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def copied(sample: tuple[Tensor, Target]) -> tuple[Tensor, Target]:
    return sample[0].clone(), {key: value.clone() for key, value in sample[1].items()}


def equal(a: tuple[Tensor, Target], b: tuple[Tensor, Target]) -> bool:
    return (
        torch.equal(a[0], b[0])
        and a[1].keys() == b[1].keys()
        and all(torch.equal(a[1][k], b[1][k]) for k in a[1])
    )
