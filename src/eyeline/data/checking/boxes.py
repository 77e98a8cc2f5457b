"""What is wrong with boxes, seen over all of a split at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from eyeline.data.datasets import sound, unsound
from eyeline.data.faults import Fault
from eyeline.data.formats import REGION, Annotations, Record

TINY = 1.0  # pixels
LEAST_SIDE = 16  # of a picture in which a box within the first pixel is none
LEAST = 3  # unsound boxes, or boxes at a border, from which on something is suspected
MENDED = 0.9  # of the unsound boxes, and ...
FITTING = 0.98  # ... of all boxes of their pictures, by what is suspected
SHARE = 0.2  # of all boxes that are unsound where another meaning of all four is suspected
ID = re.compile(r"\(id (\S+)\)$")


class Flat:
    """The N objects of all pictures of a split, one after another."""

    def __init__(self, data: Annotations) -> None:
        self.records = data.records
        counts = [len(record.boxes) for record in data.records]
        self.owner = np.repeat(np.arange(len(counts)), counts)  # (N,) index of its record
        self.first = np.cumsum([0, *counts])  # of each record, its first object
        empty = [np.zeros((0, 4), np.float32)]
        self.boxes = np.concatenate(empty + [record.boxes for record in data.records])
        self.labels = np.concatenate(
            [np.zeros(0, np.int64), *(record.labels for record in data.records)]
        )
        self.ignored = np.concatenate(
            [np.zeros(0, bool), *(record.iscrowd for record in data.records)]
        )
        sides = np.array([[r.width, r.height] for r in data.records], np.float32).reshape(-1, 2)
        self.sizes = np.tile(sides, 2)[self.owner]  # (N, 4) width, height, width, height

    def record(self, i: int) -> Record:
        return self.records[self.owner[i]]

    def where(self, i: int) -> str:
        return self.record(i).where[i - self.first[self.owner[i]]]

    def fault(self, kind: str, i: int, what: str) -> Fault:
        return Fault(kind, self.where(i), what, self.record(i).path)


def check_boxes(data: Annotations) -> Iterator[Fault]:
    """All that can be said of a split without its pictures."""
    flat = Flat(data)
    good = sound(flat.boxes, flat.sizes)
    shares = _shares(flat) & (flat.labels != REGION)
    for i in np.flatnonzero(shares):
        what = (
            f"the box {flat.boxes[i].tolist()} lies within the first pixel, as if it were in "
            "shares of the picture; multiply by its width and height"
        )
        yield flat.fault("scale", i, what)
    for i in np.flatnonzero(~good & ~shares):
        record = flat.record(i)
        what = unsound(flat.boxes[i], record.width, record.height)
        yield flat.fault("box", i, f"{what}; mend it, or take it out")
    yield from _thin_outlines(flat)
    yield from _other_meaning(flat, ~good & ~shares)
    sides = flat.boxes[:, 2:] - flat.boxes[:, :2]
    for i in np.flatnonzero(good & ~shares & (sides.min(1) < TINY)):
        width, height = sides[i]
        what = f"the box is {width:.3g} x {height:.3g} pixels; mend it, or take it out"
        yield flat.fault("tiny", i, what)
    yield from _twice(flat, good)
    yield from _same_ids(flat)


def _thin_outlines(flat: Flat) -> Iterator[Fault]:
    """Outlines that enclose nothing: to learn their masks is to learn that nothing is there."""
    first = 0
    for record in flat.records:
        for i, outline in enumerate(record.segmentations or []):
            if outline and isinstance(outline, list) and max(map(len, outline)) < 6:
                what = "no polygon of its outline has three corners; mend it, or leave it out"
                yield flat.fault("field", first + i, what)
        first += len(record.boxes)


def _shares(flat: Flat) -> np.ndarray:
    within = ((flat.boxes >= 0) & (flat.boxes <= 1)).all(1)
    some: np.ndarray = within & (flat.boxes > 0).any(1) & (flat.sizes.min(1) >= LEAST_SIDE)
    return some


def _corners_of_sides(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def _sides_of_corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def _transposed(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, [1, 0, 3, 2]]


def _sorted_corners(boxes: np.ndarray) -> np.ndarray:
    a, b = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([np.minimum(a, b), np.maximum(a, b)], 1)


class Meaning(NamedTuple):
    """What the four numbers of boxes may have been that came to us as corners (N, 4)."""

    told: str
    reading: Callable[[np.ndarray], np.ndarray]  # the corners they then have
    share: float = 0.0  # of all boxes, that must be unsound for it
    backwards: bool = False  # do most unsound ones end before they begin?


MEANINGS = (
    Meaning(
        "x, y, width and height, read as two corners; write x + width and y + height",
        _corners_of_sides,
        share=SHARE,
        backwards=True,
    ),
    Meaning(
        "two corners, read as x, y, width and height; write x2 - x1 and y2 - y1",
        _sides_of_corners,
        share=SHARE,
    ),
    Meaning("of pictures with x and y exchanged; exchange them there", _transposed),
    Meaning(
        "told with the right or lower corner first; exchange the corners",
        _sorted_corners,
        backwards=True,
    ),
)


def _other_meaning(flat: Flat, bad: np.ndarray) -> Iterator[Fault]:
    """One fault where most unsound boxes, and all others of their pictures, fit another way."""
    count = int(bad.sum())
    if count < LEAST:
        return
    backwards = (flat.boxes[bad, 2:] < flat.boxes[bad, :2]).any(1).mean() > 0.5
    touched = np.isin(flat.owner, flat.owner[bad])
    for meaning in MEANINGS:
        fits = sound(meaning.reading(flat.boxes[touched]), flat.sizes[touched])
        mended = fits[bad[touched]].mean() >= MENDED and fits.mean() >= FITTING
        if mended and bad.mean() >= meaning.share and (backwards or not meaning.backwards):
            what = (
                f"{count} boxes do not fit their pictures, this one first; they seem to be "
                f"{meaning.told}"
            )
            yield flat.fault("order", int(bad.argmax()), what)
            return


def _twice(flat: Flat, good: np.ndarray) -> Iterator[Fault]:
    index = np.flatnonzero(good & ~flat.ignored)
    keys = np.column_stack([flat.owner, flat.labels, flat.boxes])[index]
    order = np.lexsort(keys.T[::-1])  # stable: of equal ones the first comes first
    same = (keys[order][1:] == keys[order][:-1]).all(1)
    first = -1
    for k in np.flatnonzero(same):
        if k == 0 or not same[k - 1]:
            first = index[order[k]]
        what = f"the same class and box as {flat.where(first)}; take one of them out"
        yield flat.fault("twice", index[order[k + 1]], what)


def _same_ids(flat: Flat) -> Iterator[Fault]:
    """Of a format that numbers its annotations, and tells the number in `where`."""
    first: dict[str, int] = {}
    for i in range(len(flat.boxes)):
        match = ID.search(flat.where(i))
        if match is None or match[1] == "None":
            continue
        if (other := first.setdefault(match[1], i)) != i:
            what = f"{flat.where(other)} has the same id; number the annotations anew"
            yield flat.fault("id", i, what)


def check_corners(splits: Mapping[str, Annotations]) -> Iterator[Fault]:
    """Boxes go to the border, many from pixel 1, and none from 0, in any split."""
    data = list(splits.values())
    every = [Flat(part) for part in data]
    boxes = np.concatenate([flat.boxes for flat in every])
    sizes = np.concatenate([flat.sizes for flat in every])
    starts = (boxes[:, :2] == 1).any(1).sum()
    ends = (boxes[:, 2:] == sizes[:, 2:]).any(1).sum()
    if starts >= LEAST and ends >= LEAST and boxes[:, :2].min() >= 1:
        what = (
            f"no box begins at 0, {starts} begin at 1, and {ends} end at the border: are pixels "
            "counted from 1? then --one-based, in a recipe data.one_based=true"
        )
        yield Fault("corner", data[0].source, what)
