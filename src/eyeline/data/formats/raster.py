"""Objects as the pixels of one picture, each pixel of one object at most."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from eyeline.data.formats.annotations import REGION, Record, taken
from eyeline.ops.segmentations import Masks, Segmentation, decode_masks, encode_rle


def painted(masks: Masks, ignored: np.ndarray, smaller_on_top: bool = False) -> np.ndarray:
    """Masks (G, H, W) one over the other -> (H, W) int64: whose each pixel is, -1 of none.

    The later one lies on top, or the smaller one, of the same size the later; those that are
    `ignored`, (G,) bool, below all others.
    """
    canvas = np.full(masks.shape[1:], -1, np.int64)
    sizes = masks.sum((1, 2)) if smaller_on_top else np.zeros(len(masks))
    for i in np.lexsort((-sizes, ~ignored)):
        canvas[masks[i]] = i
    return canvas


def mask_extent(mask: Masks) -> np.ndarray:
    """(4,) float32 xyxy: the box around a mask (H, W); of an empty one all zeros."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return np.zeros(4, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def rastered(record: Record, objects: bool, lost: Counter[str]) -> Record:
    """The record as a picture of masks holds it: of each object the pixels that no other covers.

    Args:
        record: its segmentations are run-length encodings, or [] of objects that are a box alone.
        objects: are objects of one class told apart? Otherwise they become one, in the order of
            the labels, and a REGION is the last.
        lost: what is lost is counted here.
    """
    given = record.segmentations or [[]] * len(record.boxes)
    masks = decode_masks(given, record.height, record.width)  # (G, H, W)
    for i, segmentation in enumerate(given):
        if not segmentation:
            lost["{} box(es) without an outline become mask(s) of all their pixels"] += 1
            masks[i] = _filled(record.boxes[i], record.height, record.width)
    keys = np.arange(len(masks)) if objects else record.labels
    order = sorted(dict.fromkeys(keys.tolist()), key=lambda key: (key == REGION, key))
    owner = painted(masks, record.iscrowd)
    first, segmentations, boxes = [], [], []
    for key in order:
        members = np.flatnonzero(keys == key)
        own = np.isin(owner, members)
        if not own.any():
            lost["{} object(s) without a visible pixel left out"] += len(members)
            continue
        lost["{} object(s) become one with others of their class"] += len(members) - 1
        covered = [bool((masks[i] & ~own).any()) for i in members]
        lost["{} object(s) without the pixels that others cover"] += sum(covered)
        first.append(members[0])
        segmentations += encode_rle(own[None])
        boxes.append(mask_extent(own))
    kept = taken(record, first)
    kept_segmentations: list[Segmentation] = list(segmentations)
    return replace(
        kept,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        segmentations=kept_segmentations,
    )


def _filled(box: np.ndarray, height: int, width: int) -> Masks:
    """(H, W): the pixels whose centre lies in the box."""
    left, top, right, bottom = np.ceil(box.astype(np.float64) - 0.5)
    x, y = np.arange(width), np.arange(height)[:, None]
    return np.asarray((x >= left) & (x < right) & (y >= top) & (y < bottom))
