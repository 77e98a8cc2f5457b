"""What the values of a mask's pixels mean: the classes' numbers, or their colours.

Listed in the data set's folder, a line a class, in the order of the labels:

classes.txt         NAME, and then a pixel's value is the number of its class, from 0 on;
                    or R G B NAME, and then pixels have these colours
label_colors.txt    R G B NAME (CamVid)
class_dict.csv      name,r,g,b, with these words in the first row (CamVid, as others pack it)
labelmap.txt        NAME:R,G,B:parts:actions (CVAT)

What else numbers may mean is told by `Values`, of a recipe's keys.

A class called void, ignore, __ignore__, unlabelled or unlabeled is none: its pixels are to be
ignored, as 255 always is among numbers. Nor is _background_: nothing is there. ("background"
itself is a class, as segmenters learn it.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from eyeline.data.faults import Fault, Faults
from eyeline.data.formats.annotations import CLASS_LIST, REGION, read_class_list, read_text
from eyeline.data.formats.mask_folders import mask_values

NOTHING = -2  # the label of a pixel where nothing is; to be ignored it is REGION
BACKGROUND = "_background_"
VOIDS = ("void", "ignore", "__ignore__", "unlabelled", "unlabeled")
VOID = 255
CAMVID, CLASS_DICT, LABEL_MAP = "label_colors.txt", "class_dict.csv", "labelmap.txt"
COLOURED = re.compile(r"(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\S.*)")
DICT_ROW = re.compile(r"([^,]+?)\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*")
MAP_ROW = re.compile(r"(.+?):(\d{1,3}),(\d{1,3}),(\d{1,3})(?::.*)?")

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Values:
    """What numbers in masks mean where they are not the numbers of the classes; 255 is to be
    ignored unless `ids` has it.

    Args:
        ignore: those to be ignored; "others": all that are no class.
        shift: what is added to a number to get that of its class: -1 where the first class is 1.
        ids: the class's number by the mask's, all of them; instead of `shift`.
    """

    ignore: Sequence[int] | Literal["others"] = ()
    shift: int = 0
    ids: Mapping[int, int] | None = None


@dataclass
class Legend:
    """The classes of a folder of masks.

    Args:
        classes: names of the labels 0 .. K-1.
        label_of: labels, REGION or NOTHING by pixel values; by 65536 R + 256 G + B of colours.
        coloured: are the values colours?
        rest: the label of all other values; None: they are an error.
    """

    classes: list[str]
    label_of: dict[int, int]
    coloured: bool
    rest: int | None = None

    def known_as(
        self, classes: Sequence[str], unknown: Literal["error", "ignore"] = "error"
    ) -> Legend:
        """With the labels that `classes` gives the names; others are no class, or ignored."""
        if list(classes) == self.classes:
            return self
        new = {label: classes.index(n) for label, n in enumerate(self.classes) if n in classes}
        new |= {REGION: REGION, NOTHING: NOTHING}
        if unknown == "ignore":
            new = dict.fromkeys(range(len(self.classes)), REGION) | new
        label_of = {value: new[label] for value, label in self.label_of.items() if label in new}
        return Legend(list(classes), label_of, self.coloured, self.rest)

    def labels(
        self, mask: Path, faults: Faults, region: int = REGION, nothing: int = NOTHING
    ) -> np.ndarray:
        """(H, W) int64: the label of each pixel, `region` or `nothing`.

        Raises Fault where the mask cannot be read, or a value is no class.
        """
        values = mask_values(mask, self.coloured)
        if self.coloured:
            values = values @ np.array([1 << 16, 1 << 8, 1])
        elif values.ndim == 3:
            what = f"its pixels have colours; list them, R G B NAME a line, in {CLASS_LIST}"
            raise Fault("class", mask, what)
        # Numbers are mostly small, and counted faster than sorted.
        counted = not self.coloured and 0 <= values.min() and values.max() < 1 << 16
        present = np.flatnonzero(np.bincount(values.ravel())) if counted else np.unique(values)
        labels = np.full(len(present), NOTHING)
        for i, value in enumerate(present.tolist()):
            with faults:
                if value not in self.label_of and self.rest is None:
                    raise Fault("class", mask, self._unknown(value, values))
                labels[i] = self.label_of.get(value, self.rest)
        labels[labels == REGION], labels[labels == NOTHING] = region, nothing
        if not counted:
            return labels[np.searchsorted(present, values)]
        table = np.full(int(present[-1]) + 1, nothing)
        table[present] = labels
        return table[values]

    def _unknown(self, value: int, values: np.ndarray) -> str:
        y, x = np.argwhere(values == value)[0].tolist()
        if self.coloured:
            colour = (value >> 16, value >> 8 & 255, value & 255)
            return f"the colour {colour} is no class, at x={x}, y={y}; list it, as void perhaps"
        return (
            f"the value {value} is no class, at x={x}, y={y}; {len(self.classes)} have names; "
            f"where it is to be ignored, call it void in {CLASS_LIST}, or set data.ignore=[{value}]"
        )


def read_legend(
    folder: Path, classes: Sequence[str] | None = None, values: Values | None = None
) -> Legend:
    """The classes that the folder lists; otherwise `classes` are the names of the numbers.

    Raises Fault where there are neither, or where the list, or `values` with it, make no sense.
    """
    rows = listed(folder)
    if rows is None:
        if classes is None:
            what = (
                f"the classes of its masks have no names; give them in {CLASS_LIST}, one a line, "
                "or a recipe's classes"
            )
            raise Fault("class", folder, what)
        rows = [(name, None) for name in classes]
    colours = [colour for _, colour in rows if colour is not None]
    if colours and len(colours) < len(rows):
        plain = next(name for name, colour in rows if colour is None)
        raise Fault("class", folder, f"the class {plain!r} has no colour, and others have one")
    if len(set(colours)) < len(colours):
        twice = next(colour for colour in colours if colours.count(colour) > 1)
        raise Fault("class", folder, f"two classes have the colour {twice}")
    names = [name for name, _ in rows if name != BACKGROUND and name.casefold() not in VOIDS]
    if len(set(names)) < len(names):
        twice_named = next(name for name in names if names.count(name) > 1)
        raise Fault("class", folder, f"the class {twice_named!r} is listed twice")
    label_of: dict[int, int] = {} if colours else {VOID: REGION}
    for number, (name, colour) in enumerate(rows):
        value = number if colour is None else colour[0] << 16 | colour[1] << 8 | colour[2]
        known = names.index(name) if name in names else REGION
        label_of[value] = NOTHING if name == BACKGROUND else known
    legend = Legend(names, label_of, bool(colours))
    return legend if values in (None, Values()) else _of_values(legend, values, folder)


def _of_values(legend: Legend, values: Values, folder: Path) -> Legend:
    """The legend of numbers that are not its own."""
    if legend.coloured:
        what = "its masks have colours; data.ignore, shift and ids are for masks of numbers"
        raise Fault("class", folder, what)
    own = {value: label for value, label in legend.label_of.items() if value != VOID}
    if values.ids is None:
        found = {value - values.shift: label for value, label in own.items()}
        if min(found, default=0) < 0:
            what = f"with data.shift={values.shift} the first class would be {min(found)}"
            raise Fault("class", folder, what)
    elif values.shift:
        raise Fault("class", folder, "give data.ids or data.shift, not both")
    else:
        for value, number in values.ids.items():
            if number not in own:
                what = f"data.ids: {value} is to be class {number}, and {len(own)} have names"
                raise Fault("class", folder, f"{what}, from 0 on")
        found = {value: own[number] for value, number in values.ids.items()}
    ignore = () if values.ignore == "others" else values.ignore
    for value in ignore:
        if found.get(value, REGION) >= 0:
            name = legend.classes[found[value]]
            what = f"data.ignore has {value}, which is the class {name!r}; it cannot be both"
            raise Fault("class", folder, what)
    if values.ids is None or VOID not in values.ids:
        found[VOID] = REGION
    found |= dict.fromkeys(ignore, REGION)
    rest = REGION if values.ignore == "others" else None
    return Legend(legend.classes, found, False, rest)


def listed(folder: Path) -> list[tuple[str, Colour | None]] | None:
    """Names and colours from the first of the files that is there; None: there is none."""
    for file in (CLASS_LIST, CAMVID):
        if (names := read_class_list(folder, file)) is not None:
            matches = [COLOURED.fullmatch(name) for name in names]
            return [
                (m[4], _colour(folder / file, m.groups()[:3])) if m else (name, None)
                for name, m in zip(names, matches, strict=True)
            ]
    for file, row in ((CLASS_DICT, DICT_ROW), (LABEL_MAP, MAP_ROW)):
        if (folder / file).is_file():
            return _rows(folder / file, row)
    return None


def _rows(path: Path, row: re.Pattern[str]) -> list[tuple[str, Colour | None]]:
    rows: list[tuple[str, Colour | None]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        match = row.fullmatch(line.strip())
        if match:
            rows.append((match[1], _colour(f"{path}:{number}", match.groups()[1:])))
        elif number > 1 and line.strip() and not line.startswith("#"):
            raise Fault(
                "class", f"{path}:{number}", f"should be a name and its colour, not {line!r}"
            )
    return rows


def _colour(where: object, words: Sequence[str]) -> Colour:
    red, green, blue = (int(word) for word in words)
    if max(red, green, blue) > 255:
        raise Fault("class", where, f"no colour: {red} {green} {blue}; parts are from 0 to 255")
    return red, green, blue
