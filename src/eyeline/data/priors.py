"""Priors of one's own boxes: k-means whose distance is 1 - IoU.

Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", CVPR 2017, arXiv:1612.08242, sec. 2;
"YOLOv3", 2018, arXiv:1804.02767, sec. 2.3.

Letters   N boxes, P priors.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from eyeline.errors import EyelineError

ROUNDS = 300


def shape_iou(shapes: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """IoU (N, P) of boxes with the same corner: widths and heights (N, 2) and (P, 2)."""
    both = np.minimum(shapes[:, None], priors).prod(-1)
    union: np.ndarray = shapes.prod(-1)[:, None] + priors.prod(-1) - both
    return both / union


def find_priors(shapes: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, float]:
    """The `count` widths and heights (P, 2), by area, that shapes (N, 2) are nearest to, and the
    mean of each shape's best IoU with one of them.

    The first ones are drawn one after another, a shape the likelier the less it is like those
    drawn; then each becomes the mean of its shapes until none changes hands. The same seed gives
    the same priors.

    Raises EyelineError where there are fewer different shapes than priors, or sides of 0.
    """
    shapes = np.asarray(shapes, np.float64).reshape(-1, 2)
    if count < 1 or len(shapes) == 0 or shapes.min() <= 0:
        raise EyelineError("priors need one box at least, and boxes of some width and height")
    different = len(np.unique(shapes, axis=0))
    if different < count:
        raise EyelineError(f"{count} priors need as many different boxes; there are {different}")
    random = np.random.default_rng(seed)
    priors = shapes[[random.integers(len(shapes))]]
    while len(priors) < count:
        far = 1 - shape_iou(shapes, priors).max(1)
        far[far < 1e-12] = 0  # drawn already
        priors = np.concatenate([priors, shapes[[random.choice(len(shapes), p=far / far.sum())]]])
    owner = None
    for _ in range(ROUNDS):
        nearest = shape_iou(shapes, priors).argmax(1)
        if owner is not None and (nearest == owner).all():
            break
        owner = nearest
        priors = np.stack(
            [
                shapes[owner == i].mean(0) if (owner == i).any() else prior
                for i, prior in enumerate(priors)
            ]
        )
    priors = priors[priors.prod(1).argsort(kind="stable")]
    return priors, float(shape_iou(shapes, priors).max(1).mean())


def shapes_of(
    boxes: Iterable[np.ndarray], sizes: Iterable[tuple[int, int]], longer_side: int
) -> np.ndarray:
    """Widths and heights (N, 2) of each picture's boxes (G, 4), xyxy, once its longer side is
    `longer_side`; sizes (height, width)."""
    found = [
        (own[:, 2:] - own[:, :2]) * (longer_side / max(size))
        for own, size in zip(boxes, sizes, strict=True)
    ]
    return np.concatenate(found) if found else np.zeros((0, 2))
