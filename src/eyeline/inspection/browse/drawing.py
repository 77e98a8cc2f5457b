"""Annotated pictures with everything drawn on them: objects, what is ignored, what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from eyeline.data.formats import Record
from eyeline.data.images import read_image
from eyeline.data.targets import semantic_target
from eyeline.errors import EyelineError
from eyeline.inference.draw import draw_boxes, draw_frame, to_pil
from eyeline.inference.overlay import paint_map
from eyeline.inspection.browse.gather import Picture
from eyeline.ops.segmentations import decode_masks

SIDE = 480  # pixels of a drawn picture's longer side, from which letters can be read
FAULT = "#ff2020"
PAPER, INK, SOFT = "#fdfdfb", "#1c2126", "#5b6570"  # of the pages' light theme
LEAST = 12  # pixels of a frame around a box without area


def drawn(picture: Picture, names: Sequence[str], labels: np.ndarray) -> Image.Image:
    """The picture with all that is annotated, its longer side SIDE; one that says why there is
    none where it cannot be read.

    Args:
        names, labels: of the classes, and of each object, as `Collection` shows them.
    """
    try:
        image = fitted(read_image(picture.path, draft=SIDE))  # a draft is smaller, boxes are not
    except EyelineError as error:
        return missing(str(error).removeprefix(f"{picture.path}: "))
    record = picture.record
    if record is None:
        return image
    scale = np.array([image.width / record.width, image.height / record.height] * 2)
    boxes = record.boxes * scale
    whole = np.isfinite(boxes).all(1)
    masks = masks_of(record)
    shown = draw_boxes(
        image, boxes[whole], labels[whole], None, names,
        None if masks is None else masks[whole], record.iscrowd[whole],
    )  # fmt: skip
    return mark_faults(shown, {
        i: (boxes[i], faults[0].what) for i, faults in picture.wrong.items() if whole[i]
    })  # fmt: skip


def drawn_map(picture: Picture, classes: Sequence[str]) -> Image.Image:
    """The picture with the class of every pixel, its longer side SIDE, as `drawn`."""
    try:
        image = fitted(read_image(picture.path, draft=SIDE))
    except EyelineError as error:
        return missing(str(error).removeprefix(f"{picture.path}: "))
    if picture.record is None:
        return image
    return paint_map(image, semantic_target(picture.record, outside=-1), classes)


def masks_of(record: Record) -> np.ndarray | None:
    """The masks (G, H, W) of a picture's objects, empty where one cannot be decoded."""
    if not any(record.segmentations or ()):
        return None
    masks = np.zeros((len(record.boxes), record.height, record.width), bool)
    for mask, segmentation in zip(masks, record.segmentations or (), strict=True):
        try:
            mask[:] = decode_masks([segmentation], record.height, record.width)[0]
        except (ValueError, KeyError, TypeError, RuntimeError):
            continue  # it is drawn as a box; `data check` tells what is wrong with it
    return masks


def fitted(image: Tensor | Image.Image, side: int = SIDE) -> Image.Image:
    """Smaller or larger, so that the longer side is `side`."""
    picture = to_pil(image)
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def mark_faults(image: Image.Image, faults: Mapping[int, tuple[np.ndarray, str]]) -> Image.Image:
    """Boxes, by their number, framed in thick red dashes, with what is wrong beside each."""
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(13)
    for box, text in faults.values():
        middle, half = (box[:2] + box[2:]) / 2, np.abs(box[2:] - box[:2]) / 2
        half = np.maximum(half, LEAST / 2)
        corners = np.concatenate([middle - half, middle + half])
        corners = corners.clip(0, np.array([image.width - 1, image.height - 1] * 2))
        frame = corners + [-2, -2, 2, 2]
        draw_frame(pen, frame.tolist(), "#ffffff", 6)
        draw_frame(pen, corners.tolist(), FAULT, 4, dashed=True)
        lines = wrapped(f"! {text}", font, min(300, image.width - 8))
        right, bottom = pen.multiline_textbbox((0, 0), "\n".join(lines), font=font)[2:]
        x = float(np.clip(corners[0], 0, max(0, image.width - right - 8)))
        below = corners[3] + 4
        y = below if below + bottom + 8 < image.height else max(0.0, corners[1] - bottom - 12)
        pen.rectangle((x, y, x + right + 8, y + bottom + 8), fill="#ffffff", outline=FAULT)
        pen.multiline_text((x + 4, y + 3), "\n".join(lines), fill="#a00000", font=font)
    return image


def missing(reason: str) -> Image.Image:
    """In the place of a picture that cannot be read."""
    image = Image.new("RGB", (SIDE, SIDE * 3 // 4), "#eceeef")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(18)
    draw_frame(pen, (6, 6, image.width - 7, image.height - 7), FAULT, 3, dashed=True)
    lines = ["No picture:", *wrapped(reason, font, SIDE - 60)]
    pen.multiline_text((30, 40), "\n".join(lines[:12]), fill=INK, font=font, spacing=6)
    return image


def wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float
) -> list[str]:
    """Lines no wider than `width`; a word that is too long is cut up."""
    lines = [""]
    for word in text.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
