"""Boxes and masks drawn on pictures, with tags that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy import ndimage  # type: ignore[import-untyped]
from torch import Tensor

from eyeline.data.modes import to_rgb
from eyeline.errors import EyelineError
from eyeline.ops.pixels import check_pixels

# Sixteen colours far apart from one another, bright enough for any background; class 16 begins
# again with the first.
PALETTE = (
    "#ff3838", "#00d45a", "#2d6bff", "#ffb52e", "#de00ff", "#5ad1ff", "#a66f00", "#ff90de",
    "#007a3d", "#9b7aff", "#c8f000", "#904385", "#00b5a5", "#ff6a13", "#7a00d8", "#a8ffdc",
)  # fmt: skip

TINT = 0.45  # of a mask's colour over the picture
SHORTEST = 480  # pictures whose longer side is below it are enlarged by a whole factor


def to_pil(image: Tensor | np.ndarray | Image.Image) -> Image.Image:
    """An RGB PIL picture of a tensor (3, H, W), an array (H, W, 3) or another PIL picture: a copy.

    Tensors and arrays are uint8, or floats in [0, 1]. Of a tensor of more channels the first three
    are seen, of one or two the first, in grey.

    Raises:
        EyelineError: another shape, type or range.
    """
    if isinstance(image, Image.Image):
        converted = to_rgb(image)
        return converted.copy() if converted is image else converted
    if isinstance(image, Tensor):
        if image.ndim != 3 or not image.numel():
            raise EyelineError(f"a picture tensor is (3, H, W), this one is {tuple(image.shape)}")
        image = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
        image = image.detach().float().cpu() if image.is_floating_point() else image.cpu()
        image = image.permute(1, 2, 0).numpy()
    if image.ndim != 3 or image.shape[2] != 3:
        raise EyelineError(f"a picture array is (H, W, 3), this one is {tuple(image.shape)}")
    image = np.ascontiguousarray(image)
    check_pixels(torch.from_numpy(image), "the picture has")
    if np.issubdtype(image.dtype, np.floating):
        image = (image.clip(0, 1) * 255).round()
    return Image.fromarray(image.astype(np.uint8))


def draw_boxes(
    image: Tensor | np.ndarray | Image.Image,
    boxes: Tensor | np.ndarray | Sequence[Sequence[float]],
    labels: Tensor | np.ndarray | Sequence[int] | None = None,
    scores: Tensor | np.ndarray | Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    masks: Tensor | np.ndarray | None = None,
    ignored: Tensor | np.ndarray | Sequence[bool] | None = None,
    letters: int | None = None,
) -> Image.Image:
    """The picture with its boxes, a tag "class score" on each, and its masks under both.

    Lines and letters grow with the picture; small pictures are enlarged first, so the result can
    be larger than the input by a whole factor.

    Args:
        image: tensor (3, H, W), array (H, W, 3) (uint8 or float in [0, 1]), or PIL picture.
        boxes: (N, 4) xyxy in the picture's pixels, best first: the first get the best places.
        labels: (N,) class indices, which choose the colours; without them all are of one colour.
        scores: (N,).
        classes: names of the classes; without them the tag shows the index.
        masks: (N, h, w) bool of the same picture, in any size.
        ignored: (N,) those that do not count, such as crowds: dashed, their masks hatched.
        letters: height of the tags' letters in the result's pixels; by default the picture's size
            decides.
    """
    picture = to_pil(image)
    factor = max(1, ceil(SHORTEST / max(picture.size)))
    if factor > 1:
        picture = picture.resize(
            (picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC
        )
    scaled = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4).mul(factor).tolist()
    kinds = [0] * len(scaled) if labels is None else [int(label) for label in labels]
    names = [""] * len(scaled) if labels is None else [_name(kind, classes) for kind in kinds]
    if scores is not None:
        names = [f"{name} {score:.2f}".strip() for name, score in zip(names, scores, strict=True)]
    broken = [False] * len(scaled) if ignored is None else [bool(value) for value in ignored]
    longer = max(picture.size)
    width = max(2, round(longer / 320))
    font = ImageFont.load_default(letters or max(12, round(longer / 45)))

    if masks is not None:
        picture = paint_masks(picture, masks, kinds, width, broken)
        width = max(1, width // 2)  # the outline of the mask says more than the box
    pen = ImageDraw.Draw(picture)
    for box, kind, dashed in zip(scaled[::-1], kinds[::-1], broken[::-1], strict=True):
        draw_frame(pen, box, PALETTE[kind % len(PALETTE)], width, dashed)
    placed: list[tuple[float, float, float, float]] = []
    tags = []
    for box, kind, text in zip(scaled, kinds, names, strict=True):
        if not text:
            continue
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        pad = max(2, width)
        size = (right - left + 2 * pad, bottom - top + 2 * pad)
        place = _place(box, size, picture.size, placed, scaled, width)
        placed.append(place)
        tags.append((place, (place[0] + pad - left, place[1] + pad - top), kind, text))
    for place, origin, kind, text in reversed(tags):  # where tags must overlap, the best is on top
        colour = PALETTE[kind % len(PALETTE)]
        pen.rectangle(place, fill=colour)
        pen.text(origin, text, fill=contrasting(colour), font=font)
    return picture


def draw_frame(
    pen: ImageDraw.ImageDraw, box: Sequence[float], colour: str, width: int, dashed: bool = False
) -> None:
    """The outline of a box, inside it; its corners may come in any order."""
    left, right = sorted((box[0], box[2]))
    top, bottom = sorted((box[1], box[3]))
    if not dashed:
        pen.rectangle((left, top, right, bottom), outline=colour, width=width)
        return
    dash, inner = 5 * width, width - 1
    for x in np.arange(left, right, 2 * dash):
        for y in (top, max(top, bottom - inner)):
            pen.rectangle((x, y, min(x + dash, right), y + inner), fill=colour)
    for y in np.arange(top, bottom, 2 * dash):
        for x in (left, max(left, right - inner)):
            pen.rectangle((x, y, x + inner, min(y + dash, bottom)), fill=colour)


def paint_masks(
    picture: Image.Image,
    masks: Tensor | np.ndarray,
    kinds: Sequence[int],
    width: int,
    hatched: Sequence[bool] | None = None,
) -> Image.Image:
    """The picture with each mask (N, h, w) tinted, or hatched, in its class's colour and outlined,
    the first on top; masks of another size than the picture are enlarged to it, smoothly."""
    lines = np.add.outer(*map(np.arange, picture.size[::-1])) // (2 * width) % 3 == 0  # (H, W)
    canvas = np.asarray(picture, np.float32).copy()  # (H, W, 3)
    planes = masks.cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks)
    parts = list(zip(planes, kinds, hatched or [False] * len(planes), strict=True))
    for mask, kind, striped in reversed(parts):
        plane = Image.fromarray(mask.astype(np.uint8) * 255)
        if plane.size != picture.size:
            plane = plane.resize(picture.size, Image.Resampling.BICUBIC)
            plane = plane.point(lambda value: 255 * (value >= 128))
        extent = plane.getbbox()
        if extent is None:
            continue
        left, top, right, bottom = extent
        filled = np.asarray(plane)[top:bottom, left:right] > 0  # (h, w)
        # "constant": outside there is nothing, so that the outline closes there too.
        core = ndimage.minimum_filter(filled, 2 * width + 1, mode="constant")
        colour = np.array(ImageColor.getrgb(PALETTE[kind % len(PALETTE)]), np.float32)
        window = canvas[top:bottom, left:right]
        tinted = core & lines[top:bottom, left:right] if striped else core
        window[tinted] += TINT * (colour - window[tinted])
        window[filled & ~core] = colour
    return Image.fromarray(canvas.round().astype(np.uint8))


def _name(label: int, classes: Sequence[str] | None) -> str:
    return classes[label] if classes is not None and 0 <= label < len(classes) else str(label)


def _place(
    box: Sequence[float],
    size: tuple[float, float],
    picture: tuple[int, int],
    placed: Sequence[Sequence[float]],
    boxes: Sequence[Sequence[float]],
    width: int,
) -> tuple[float, float, float, float]:
    """Where a tag of `size` goes: inside the picture, hiding as little as it can.

    Tried in this order: above the box, inside its top, below it, inside its bottom, each at the
    left and at the right edge, then beside it. What counts is how much of other tags it would
    hide, and of boxes not much larger than itself.
    """
    x1, y1, x2, y2 = box
    w, h = size
    rows = (y1 - h + width - 1, y1, y2 - width + 1, y2 - h)
    beside = [(x2 - width + 1, y1), (x1 - w + width - 1, y1)]
    wanted = np.array([(x, y) for y in rows for x in (x1, x2 - w)] + beside)  # (P, 2)
    inside = np.clip(wanted, 0, np.maximum(np.array(picture) - size - 1, 0))
    tags = np.hstack([inside, inside + size])  # (P, 4)
    inner = tags + np.array([width, width, -width, -width])  # lines may touch
    others = np.array(boxes, dtype=float).reshape(-1, 4)
    small = others[np.prod(others[:, 2:] - others[:, :2], axis=1) < 4 * w * h]
    cost = 4 * _overlap(inner, np.array(placed).reshape(-1, 4)) + _overlap(inner, small)
    cost += h * np.abs(inside - wanted).sum(1)  # moved off its box's edge
    cost += np.arange(len(tags)) * w * h / 50  # little is not worth an unusual place
    left, top, right, bottom = tags[cost.argmin()].tolist()
    return left, top, right, bottom


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How much of each box of a (P, 4) lies in those of b (Q, 4), summed: (P,)."""
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    total: np.ndarray = sides.clip(min=0).prod(-1).sum(1)
    return total


def contrasting(colour: str) -> str:
    """Black or white, whichever has the greater contrast with `colour` (WCAG 2, sec. 1.4.3)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Equal contrast where (L + 0.05) / 0.05 == 1.05 / (L + 0.05).
    return "#000000" if luminance > 0.179 else "#ffffff"
