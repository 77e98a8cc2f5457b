"""Sample data: real handwriting pasted at many sizes over clutter, for every task of the package.

The digits are the 8x8 scans that come with scikit-learn (UCI ML hand-written digits). Training
and validation pictures use different scans.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval.core import mask as rle
from PIL import Image

from eyeline.errors import EyelineError

DESCRIPTION = "eyeline sample data: digit scans of scikit-learn over clutter"
CLASSES = [str(digit) for digit in range(10)]
BACKGROUND, IGNORED = 10, 255  # in semantic masks; a digit's id is its value
MOST_DIGITS = 6
HEIGHTS = (20 / 160, 90 / 160)  # of the digits, by the picture's side
LEAST_VISIBLE = 0.8  # of each digit, after later ones are written over it
CONTRAST = 0.3  # of luminance, ink against what lies under and around it
LUMINANCE = np.array([0.299, 0.587, 0.114])  # of RGB
THRESHOLD = 0.5  # of a scan's ink, in [0, 1]


class Scene(NamedTuple):
    """One picture and its G digits."""

    image: np.ndarray  # (S, S, 3) uint8
    masks: np.ndarray  # (G, S, S) bool, what is visible of each digit
    labels: list[int]
    semantic: np.ndarray  # (S, S) uint8: 0-9 the digit, 10 background, 255 its soft edge


def write_samples(
    folder: str | Path, train: int = 400, val: int = 100, size: int = 160, seed: int = 0
) -> Path:
    """Write a data set of square pictures of 1 to 6 digits; the same arguments, the same bytes.

    annotations/instances_{train,val}.json   boxes, masks (RLE) and the classes "0" .. "9", COCO
    {train,val}/*.png                        the pictures
    semantic/{train,val}/*.png               ids 0-9 the digits, 10 background, 255 "ignore": the
                                             soft edges of the ink; names in semantic/classes.json

    Args:
        train, val: number of pictures.
        size: their side in pixels.

    Raises:
        EyelineError: scikit-learn is missing, a number is out of range, or the folder holds
            something.
    """
    folder = Path(folder)
    if train < 1 or val < 1 or size < 32:
        raise EyelineError(f"needs train, val >= 1 and size >= 32, not {train}, {val} and {size}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EyelineError(
            f"{folder} exists already and is not empty; choose a new folder for the sample data"
        )
    scans = _scans(seed)
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        pictures, semantic = folder / split, folder / "semantic" / split
        for path in (pictures, semantic, folder / "annotations"):
            path.mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in range(count):
            rng = np.random.default_rng((seed, number, i + 1))
            scene = compose(scans[split], size, rng)
            name = f"{i:05d}.png"
            Image.fromarray(scene.image).save(pictures / name)
            Image.fromarray(scene.semantic).save(semantic / name)
            images.append({"id": i, "file_name": name, "width": size, "height": size})
            for mask, label in zip(scene.masks, scene.labels, strict=True):
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": i, "category_id": label + 1}
                    | _shape(mask)
                )
        content = {
            "info": {"description": DESCRIPTION, "seed": seed},
            "images": images,
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)],
            "annotations": annotations,
        }
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content) + "\n")
    names = [*CLASSES, "background"]
    (folder / "semantic" / "classes.json").write_text(json.dumps(names) + "\n")
    return folder


def compose(scans: list[tuple[np.ndarray, int]], size: int, rng: np.random.Generator) -> Scene:
    """One picture: a background, and digits written on it one after the other."""
    canvas = background(size, rng)
    cover = np.zeros((0, size, size), np.float32)  # opacity of what is visible of each digit
    whole: list[int] = []  # pixels of each digit when nothing lay over it
    labels: list[int] = []
    wanted = int(rng.integers(1, MOST_DIGITS + 1))
    for _ in range(4 * wanted):  # tries
        if len(labels) == wanted:
            break
        scan, label = scans[rng.integers(len(scans))]
        drawn = _drawn(scan, size, rng)
        top, left = rng.integers(np.array([size, size]) - drawn.shape + 1)
        window = np.s_[top : top + drawn.shape[0], left : left + drawn.shape[1]]
        opacity = np.zeros((size, size), np.float32)
        opacity[window] = drawn
        under = cover * (1 - opacity)
        if ((under > 0.5).sum((1, 2)) < LEAST_VISIBLE * np.array(whole)).any():
            continue  # it would hide too much of another
        _paint(canvas, opacity, _ink(canvas[window], rng))
        cover = np.concatenate([under, opacity[None]])
        whole.append(int((opacity > 0.5).sum()))
        labels.append(label)

    canvas += rng.uniform(0.005, 0.03) * rng.standard_normal(canvas.shape, np.float32)
    semantic = np.full((size, size), BACKGROUND, np.uint8)
    semantic[((cover > 0.2) & (cover < 0.8)).any(0)] = IGNORED
    for visible, label in zip(cover, labels, strict=True):
        semantic[visible >= 0.8] = label
    image = (canvas.clip(0, 1) * 255).round().astype(np.uint8)
    return Scene(image, cover > 0.5, labels, semantic)


def background(size: int, rng: np.random.Generator) -> np.ndarray:
    """(S, S, 3) in [0, 1]: a gradient between four colours, with soft shapes and strokes on it."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / (size - 1)
    base = rng.uniform(0.1, 0.9, 3)
    corners = (base + rng.normal(0, 0.15, (2, 2, 3))).clip(0, 1).astype(np.float32)
    across, down = x[..., None], y[..., None]
    canvas = (1 - down) * ((1 - across) * corners[0, 0] + across * corners[0, 1])
    canvas += down * ((1 - across) * corners[1, 0] + across * corners[1, 1])
    for _ in range(rng.integers(4, 12)):
        # Coordinates of the shape, turned and about its centre, and how far outside it they lie.
        angle = float(rng.uniform(0, np.pi))
        cx, cy = rng.uniform(0, 1, 2).tolist()
        u = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
        v = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
        a, b = rng.uniform(0.05, 0.27, 2).tolist()
        kind = rng.integers(3)
        if kind == 0:  # ellipse
            distance = (np.sqrt((u / a) ** 2 + (v / b) ** 2) - 1) * min(a, b)
        elif kind == 1:  # rectangle
            distance = np.maximum(abs(u) - a, abs(v) - b)
        else:  # stroke, gently bent
            distance = np.maximum(abs(v + (8 * a - 1) * u**2) - b / 12, abs(u) - 0.4)
        softness = float(rng.uniform(1, 4)) / size
        opacity = float(rng.uniform(0.2, 0.7)) * (0.5 - distance / softness).clip(0, 1)
        _paint(canvas, opacity, (base + rng.normal(0, 0.25, 3)).clip(0, 1))
    return canvas


def _drawn(scan: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Opacity (h, w) of a scan, enlarged smoothly, a little turned and slanted, cut to its ink."""
    low, high = np.log(HEIGHTS)
    height = size * np.exp(rng.uniform(low, high))
    rows = np.flatnonzero((scan > 0.4).any(1))
    scale = height / (rows[-1] - rows[0] + 1)  # pixels of the picture for one of the scan
    angle, shear = rng.uniform(-0.2, 0.2, 2)
    stretch = rng.uniform(0.85, 1.15)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # From places (x, y) of the drawing to those of the scan, centre to centre.
    matrix = np.array([[1 / stretch, shear], [0, 1]]) @ turn / scale
    padded = Image.fromarray(np.pad(scan, 3).astype(np.float32))  # (14, 14)
    side = math.ceil(13 * scale)
    offset = 7 - matrix @ np.full(2, side / 2)
    place = np.column_stack([matrix, offset]).ravel().tolist()
    large = padded.transform((side, side), Image.Transform.AFFINE, place, Image.Resampling.BICUBIC)
    values = np.asarray(large)
    alpha = (0.5 + (values - THRESHOLD) * 0.6 * scale).clip(0, 1)  # edges of a pixel or two
    (top, bottom), (left, right) = _extent(alpha > 0.5)
    return alpha[top:bottom, left:right][:size, :size]


def _ink(around: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour that stands out from nearly all of the place (h, w, 3) where the digit goes."""
    pixels = around[::2, ::2].reshape(-1, 3) @ LUMINANCE
    colours = rng.uniform(0, 1, (30, 3))
    colours[-2:] = [[0], [1]]  # black and white, where no other does
    difference = abs((colours @ LUMINANCE)[:, None] - pixels)  # (30, pixels)
    least = np.quantile(difference, 0.05, axis=1)
    good = np.flatnonzero(least > CONTRAST)
    return colours[good[0] if len(good) else least.argmax()]


def _paint(canvas: np.ndarray, opacity: np.ndarray, colour: np.ndarray) -> None:
    """Lay a colour over the canvas (S, S, 3), in place."""
    on = opacity > 0
    below = canvas[on]
    canvas[on] = below + opacity[on][:, None] * (colour.astype(np.float32) - below)


def _extent(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and one past the last of the rows, and of the columns, that a mask touches."""
    lines = [np.flatnonzero(mask.any(axis)) for axis in (1, 0)]
    return [(int(line[0]), int(line[-1]) + 1) for line in lines]


def _shape(mask: np.ndarray) -> dict[str, Any]:
    """The fields of a COCO annotation that tell where the object is."""
    encoded = rle.encode(np.asfortranarray(mask, np.uint8))
    (y1, y2), (x1, x2) = _extent(mask)
    return {
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(mask.shape), "counts": encoded["counts"].decode()},
    }


def _scans(seed: int) -> dict[str, list[tuple[np.ndarray, int]]]:
    """Scans (8, 8) in [0, 1] and their digits: four fifths for train, the rest for val."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise EyelineError(
            "the sample data needs scikit-learn: pip install 'eyeline[learn]'"
        ) from None
    digits = load_digits()
    order = np.random.default_rng((seed, 2)).permutation(len(digits.target))
    scans = [(digits.images[i] / 16, int(digits.target[i])) for i in order]
    cut = len(scans) * 4 // 5
    return {"train": scans[:cut], "val": scans[cut:]}
