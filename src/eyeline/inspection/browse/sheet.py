"""Contact sheets: pages of pictures in a grid, each with its name and counts below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from eyeline.data.checking.maps import areas_of
from eyeline.errors import EyelineError
from eyeline.inference.draw import PALETTE, draw_frame
from eyeline.inference.overlay import hex_colours
from eyeline.inspection.browse.drawing import (
    FAULT,
    INK,
    PAPER,
    SIDE,
    SOFT,
    drawn,
    drawn_map,
    wrapped,
)
from eyeline.inspection.browse.gather import Collection, Picture, told_counts, told_shares

MARGIN, GAP = 32, 24
ROWS = 6  # of one page
KEYS = 16  # classes in the key at the top; of more the most frequent
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


@dataclass
class Cell:
    """A picture, no wider than SIDE, and the lines below it, the first the boldest."""

    image: Image.Image
    lines: list[str]


class Key(NamedTuple):
    """What a colour at the top of a sheet means."""

    colour: str
    kind: str  # "frame", "dashed", "filled", "striped"
    text: str


def cells_of(collection: Collection) -> Iterable[Cell]:
    """One a picture, drawn when its turn comes."""
    for picture in collection.pictures:
        labels = collection.shown_labels(picture.labels)
        if collection.maps and not picture.wrong:
            image, told = drawn_map(picture, collection.classes), "not read"
            if (record := picture.record) is not None:
                areas, whole = areas_of(record), record.width * record.height
                told = told_shares(areas, labels, whole, collection.names)
            yield Cell(image, _lines(picture, told))
            continue
        image = drawn(picture, collection.names, labels)
        ignored = 0 if picture.record is None else int(picture.record.iscrowd.sum())
        told = told_counts(labels, collection.names)
        if ignored:
            told += f"; {ignored} of them ignored"
        yield Cell(image, _lines(picture, told))


def _lines(picture: Picture, told: str) -> list[str]:
    wrong = [fault for fault in picture.faults if fault.severity != "note"]
    name = f"{picture.split}/{picture.name}".removeprefix("/")
    return [name, told, *(f"! {fault.what}" for fault in wrong[:2])]


def sheets(
    cells: Iterable[Cell],
    columns: int,
    title: str,
    names: Sequence[str],
    labels: np.ndarray,
    areas: np.ndarray | None = None,
) -> Iterable[Image.Image]:
    """Pages of `columns` cells a row.

    Args:
        names, labels: of the classes, and of all objects: for the key of the colours.
        areas: of all objects, where they are regions of a map: the key tells shares of pixels.
    """
    keys = _keys(names, labels, areas)
    rows: list[list[Cell]] = []
    number = 1
    for cell in cells:
        if rows and len(rows[-1]) < columns:
            rows[-1].append(cell)
            continue
        if len(rows) == ROWS:
            yield _page(rows, columns, f"{title}, page {number}", keys)
            rows, number = [], number + 1
        rows.append([cell])
    if rows:
        title = f"{title}, page {number}" if number > 1 else title
        yield _page(rows, columns, title, keys)


def check_sheet(path: Path) -> str:
    """ "PNG" or "JPEG". Raises EyelineError where no sheet can be written to `path`."""
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise EyelineError(f"{path}: a sheet is a .png or a .jpg")
    if path.exists():
        raise EyelineError(f"{path} exists already; choose another --sheet")
    return kind


def save_sheets(pages: Iterable[Image.Image], path: Path) -> list[Path]:
    """Write the pages to `path`, and further ones beside it as NAME-2, NAME-3 ...

    Raises:
        EyelineError: one of the files is there already; the suffix is not of PNG or JPEG.
    """
    kind = check_sheet(path)
    written = []
    for i, page in enumerate(pages, 1):
        file = path if i == 1 else path.with_stem(f"{path.stem}-{i}")
        check_sheet(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        page.save(file, kind, **({"quality": 88} if kind == "JPEG" else {}))
        written.append(file)
    return written


def _page(rows: list[list[Cell]], columns: int, title: str, keys: Sequence[Key]) -> Image.Image:
    width = 2 * MARGIN + columns * SIDE + (columns - 1) * GAP
    head = _head(width, title, keys)
    captions = [[_caption(cell.lines) for cell in row] for row in rows]
    heights = [
        max(cell.image.height for cell in row) + max(c.height for c in under) + GAP
        for row, under in zip(rows, captions, strict=True)
    ]
    page = Image.new("RGB", (width, head.height + sum(heights) + MARGIN - GAP), PAPER)
    page.paste(head, (0, 0))
    y = head.height
    for row, under, height in zip(rows, captions, heights, strict=True):
        for i, (cell, caption) in enumerate(zip(row, under, strict=True)):
            x = MARGIN + i * (SIDE + GAP)
            page.paste(cell.image, (x, y))
            page.paste(caption, (x, y + cell.image.height))
        y += height
    return page


def _caption(lines: Sequence[str]) -> Image.Image:
    font, below = ImageFont.load_default(17), ImageFont.load_default(15)
    parts = [(line, font, INK) for line in wrapped(lines[0], font, SIDE)]
    parts += [(p, below, SOFT) for line in lines[1:] for p in wrapped(line, below, SIDE)]
    image = Image.new("RGB", (SIDE, 8 + 21 * len(parts)), PAPER)
    pen = ImageDraw.Draw(image)
    for i, (text, letters, colour) in enumerate(parts):
        pen.text((0, 6 + 21 * i), text, fill=colour, font=letters)
    return image


def _keys(names: Sequence[str], labels: np.ndarray, areas: np.ndarray | None) -> list[Key]:
    """Which class has which colour, the most frequent first, and what else is drawn."""
    counts = np.bincount(labels, areas, len(names))
    order = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]
    rest = counts[order[KEYS:]].sum()
    if areas is None:
        keys = [
            Key(PALETTE[k % len(PALETTE)], "frame", f"{names[k]} {int(counts[k]):,}")
            for k in order[:KEYS]
        ]
        if rest:
            keys.append(Key(SOFT, "frame", f"{len(order) - KEYS} other classes {int(rest):,}"))
        ignored = Key(SOFT, "dashed", "dashed, hatched: ignored")
        return [*keys, ignored, Key(FAULT, "dashed", "thick red dashes: a fault")]
    colours, whole = hex_colours(names), max(1, counts.sum())
    keys = [
        Key(colours[k], "filled", f"{names[k]} {counts[k] / whole:.1%}")
        for k in order
        if k < len(names) - 1
    ][:KEYS]
    if len(order) > len(keys):
        other = [k for k in order[: len(names)] if k == len(names) - 1]
        if other:
            keys.append(Key("#808080", "striped", f"ignored {counts[other[0]] / whole:.1%}"))
    return keys


def _head(width: int, title: str, keys: Sequence[Key]) -> Image.Image:
    """The title, and the keys."""
    large, font = ImageFont.load_default(30), ImageFont.load_default(17)
    lines = wrapped(title, large, width - 2 * MARGIN)
    places, x, y = [], MARGIN, MARGIN + 40 * len(lines) + 8
    for key in keys:
        wide = 34 + round(font.getlength(key.text)) + 28
        if x > MARGIN and x + wide > width - MARGIN:
            x, y = MARGIN, y + 28
        places.append((x, y, key))
        x += wide
    image = Image.new("RGB", (width, y + 28 + GAP), PAPER)
    pen = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        pen.text((MARGIN, MARGIN + 40 * i), line, fill=INK, font=large)
    for x, y, key in places:
        box = (x, y + 2, x + 24, y + 18)
        if key.kind in ("filled", "striped"):
            pen.rectangle(box, fill=key.colour)
            for at in range(x + 4, x + 24, 8) if key.kind == "striped" else ():
                pen.line((at, y + 18, at + 5, y + 2), fill=PAPER, width=2)
        else:
            dashed = key.kind == "dashed"
            draw_frame(pen, box, key.colour, 2 if dashed else 3, dashed)
        pen.text((x + 34, y), key.text, fill=INK, font=font)
    return image
