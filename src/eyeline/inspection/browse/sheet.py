"""Contact sheets: pages of pictures in a grid, each with its name and counts below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from eyeline.errors import EyelineError
from eyeline.inference.draw import PALETTE, draw_frame
from eyeline.inspection.browse.drawing import FAULT, INK, PAPER, SIDE, SOFT, drawn, wrapped
from eyeline.inspection.browse.gather import Collection, told_counts

MARGIN, GAP = 32, 24
ROWS = 6  # of one page
KEYS = 16  # classes in the key at the top; of more the most frequent
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


@dataclass
class Cell:
    """A picture, no wider than SIDE, and the lines below it, the first the boldest."""

    image: Image.Image
    lines: list[str]


def cells_of(collection: Collection) -> Iterable[Cell]:
    """One a picture, drawn when its turn comes."""
    for picture in collection.pictures:
        labels = collection.shown_labels(picture.labels)
        image = drawn(picture, collection.names, labels)
        ignored = 0 if picture.record is None else int(picture.record.iscrowd.sum())
        told = told_counts(labels, collection.names)
        if ignored:
            told += f"; {ignored} of them ignored"
        lines = [f"{picture.split}/{picture.name}".removeprefix("/"), told]
        wrong = [fault for fault in picture.faults if fault.severity != "note"]
        lines += [f"! {fault.what}" for fault in wrong[:2]]
        yield Cell(image, lines)


def sheets(
    cells: Iterable[Cell], columns: int, title: str, names: Sequence[str], labels: np.ndarray
) -> Iterable[Image.Image]:
    """Pages of `columns` cells a row.

    Args:
        names, labels: of the classes, and of all objects: for the key of the colours.
    """
    rows: list[list[Cell]] = []
    number = 1
    for cell in cells:
        if rows and len(rows[-1]) < columns:
            rows[-1].append(cell)
            continue
        if len(rows) == ROWS:
            yield _page(rows, columns, f"{title}, page {number}", names, labels)
            rows, number = [], number + 1
        rows.append([cell])
    if rows:
        title = f"{title}, page {number}" if number > 1 else title
        yield _page(rows, columns, title, names, labels)


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


def _page(
    rows: list[list[Cell]], columns: int, title: str, names: Sequence[str], labels: np.ndarray
) -> Image.Image:
    width = 2 * MARGIN + columns * SIDE + (columns - 1) * GAP
    head = _head(width, title, names, labels)
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


def _head(width: int, title: str, names: Sequence[str], labels: np.ndarray) -> Image.Image:
    """The title, and which class has which colour."""
    large, font = ImageFont.load_default(30), ImageFont.load_default(17)
    found, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    keys = [(PALETTE[found[i] % len(PALETTE)], False, names[found[i]], counts[i]) for i in order]
    rest = [n for *_, n in keys[KEYS:]]
    texts = [(colour, False, f"{name} {n:,}") for colour, _, name, n in keys[:KEYS]]
    if rest:
        texts.append((SOFT, False, f"{len(rest)} other classes {sum(rest):,}"))
    texts += [(SOFT, True, "dashed, hatched: ignored"), (FAULT, True, "thick red dashes: a fault")]

    lines = wrapped(title, large, width - 2 * MARGIN)
    places, x, y = [], MARGIN, MARGIN + 40 * len(lines) + 8
    for colour, dashed, text in texts:
        wide = 34 + round(font.getlength(text)) + 28
        if x > MARGIN and x + wide > width - MARGIN:
            x, y = MARGIN, y + 28
        places.append((x, y, colour, dashed, text))
        x += wide
    image = Image.new("RGB", (width, y + 28 + GAP), PAPER)
    pen = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        pen.text((MARGIN, MARGIN + 40 * i), line, fill=INK, font=large)
    for x, y, colour, dashed, text in places:
        draw_frame(pen, (x, y + 2, x + 24, y + 18), colour, 2 if dashed else 3, dashed)
        pen.text((x + 34, y), text, fill=INK, font=font)
    return image
