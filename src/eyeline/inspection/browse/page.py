"""A page to browse annotated pictures: one file, or a folder with thumbnails of many."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from eyeline.data.checking import silent
from eyeline.data.checking.pictures import THREADS, Track
from eyeline.data.faults import KINDS, Fault
from eyeline.data.images import read_image
from eyeline.errors import EyelineError
from eyeline.evaluation.html import ALERTS, counted, document, picture_uri, scripts
from eyeline.inference.draw import PALETTE, contrasting, to_pil
from eyeline.inference.draw_map import hex_colours
from eyeline.inspection.browse.gather import Collection, Picture
from eyeline.inspection.browse.outlines import outline

HERE = Path(__file__).parent
COMMON = HERE.parent / "page" / "common.js"
SCRIPTS = ("filter.js", "draw.js", "charts.js", "large.js", "grid.js", "controls.js", "main.js")
ONE_FILE = 400  # pictures up to which the page holds them itself
CARRIED, THUMBNAIL = 720, 400  # longer side: of pictures that a page holds, of files beside it
AT_ONCE = 64  # pictures read ahead, so that memory does not grow with their number


def write_page(collection: Collection, out: str | Path, track: Track = silent) -> Path:
    """Write the page of all pictures, and give back its path.

    Args:
        out: NAME.html, a page that holds its pictures; any other name becomes a folder with
            index.html and thumbnails/, as is better for more than ONE_FILE of them.
        track: as in `eyeline.data.checking.check`.
    """
    out = Path(out)
    one_file = is_page(out)
    page = out if one_file else out / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    if not one_file:
        (out / "thumbnails").mkdir(exist_ok=True)
    rows = []
    side = CARRIED if one_file else THUMBNAIL
    pictures, images = collection.pictures, _thumbnails(collection.pictures, side)
    paths = track([picture.path for picture in pictures], "thumbnails", len(pictures))
    for i, (picture, _) in enumerate(zip(pictures, paths, strict=True)):
        image = next(images)
        row = told(picture, collection, page.parent)
        if isinstance(image, str):
            row["broken"] = image
        elif one_file:
            row["image"] = picture_uri(image, "JPEG")
        else:
            row["image"] = f"thumbnails/{i:06d}.jpg"
            image.save(out / row["image"], quality=82)
        rows.append(row)
    page.write_text(html(collection, rows), encoding="utf-8", errors="replace")
    return page


def is_page(out: Path) -> bool:
    """Is it the name of a page, and not of a folder?"""
    return out.suffix.lower() in (".html", ".htm")


def html(collection: Collection, rows: Sequence[dict[str, Any]]) -> str:
    """The page of the rows that `told` made."""
    count = len(collection.names)
    colours = [PALETTE[k % len(PALETTE)] for k in range(count)]
    if collection.maps:
        colours = [*hex_colours(collection.classes), "#808080"]
    faults = [fault for picture in collection.pictures for fault in picture.every_fault]
    kinds = {fault.kind for fault in faults}
    data = {
        "classes": collection.names,
        "colours": colours,
        "inks": [contrasting(colour) for colour in colours],
        "splits": collection.splits,
        "maps": collection.maps,
        "kinds": {kind: KINDS[kind] for kind in KINDS if kind in kinds},
        "pictures": rows,
    }
    objects = sum(len(picture.labels) for picture in collection.pictures)
    omitted = ""
    if len(rows) < collection.whole:
        omitted = f" Not on this page: {counted(collection.whole - len(rows), 'picture')} more."
    title = Path(collection.source).resolve().name
    body = f"""<header>
<h1>{escape(title)}</h1>
<p>{counted(len(rows), "picture")}, {counted(objects, "object")},
{counted(len(collection.classes), "class", "classes")},
{severities([*faults, *collection.elsewhere])}.{omitted}</p>
{ALERTS}
{_elsewhere(collection)}</header>
<div class="browser">
<form id="filters" aria-label="Filters"></form>
<main>
<p id="result" role="status"></p>
<div id="charts"></div>
<div id="grid"></div>
</main>
</div>
<dialog id="large" aria-label="One picture, large"></dialog>
{scripts(data, [COMMON, *(HERE / name for name in SCRIPTS)])}"""
    style = (HERE / "browse.css").read_text(encoding="utf-8")
    return document(f"{title}: annotated pictures", body, style)


def severities(faults: Sequence[Fault]) -> str:
    """As "2 errors, 1 note"."""
    counts = Counter[str](fault.severity for fault in faults)
    names = ("error", "warning", "note")
    return ", ".join(counted(counts[n], n) for n in names if counts[n]) or "nothing wrong"


def told(picture: Picture, collection: Collection, folder: Path) -> dict[str, Any]:
    """What the page's script knows of a picture.

    An object is [label, x1, y1, x2, y2, ignored, side, outlines, faults]; side is the root of its
    area in pixels. What is zero or empty at its end is left out.
    """
    row: dict[str, Any] = {
        "name": picture.name,
        "split": collection.splits.index(picture.split),
        "file": _address(picture.path, folder),
    }
    if picture.faults:
        row["faults"] = [[fault.kind, fault.what] for fault in picture.faults]
    record = picture.record
    if record is None:
        return row | {"width": 4, "height": 3, "objects": []}
    labels = collection.shown_labels(record.labels).tolist()
    boxes = np.nan_to_num(record.boxes.astype(float), posinf=1e6, neginf=-1e6)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(1)
    if record.areas is not None:
        areas = np.nan_to_num(record.areas.astype(float)).clip(min=0)
    sides = np.sqrt(areas).round(1).tolist()
    objects = []
    for i, box in enumerate(boxes.round(1).tolist()):
        rings = outline(record.segmentations[i], record) if record.segmentations else []
        faults = [[f.kind, f.what, f.where] for f in picture.wrong.get(i, [])]
        entry = [labels[i], *box, int(record.iscrowd[i]), sides[i], rings, faults]
        while not entry[-1] and len(entry) > 7:
            entry.pop()
        objects.append(entry)
    return row | {"width": record.width, "height": record.height, "objects": objects}


def _address(path: Path, folder: Path) -> str:
    """The picture itself, as seen from the page: so the page may show it in its full size."""
    try:
        relative = os.path.relpath(path.resolve(), folder.resolve())
    except ValueError:  # another drive
        return path.resolve().as_uri()
    return quote(Path(relative).as_posix(), errors="replace")


def _thumbnails(pictures: Sequence[Picture], side: int) -> Iterator[Image.Image | str]:
    """One of each picture, or why there is none; in order, read by several threads."""

    def small(picture: Picture) -> Image.Image | str:
        try:
            image = to_pil(read_image(picture.path, draft=side))
        except EyelineError as error:
            return str(error).removeprefix(f"{picture.path}: ")
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        return image

    with ThreadPoolExecutor(THREADS) as pool:
        for first in range(0, len(pictures), AT_ONCE):
            yield from pool.map(small, pictures[first : first + AT_ONCE])


def _elsewhere(collection: Collection) -> str:
    """The faults that belong to none of the pictures."""
    if not collection.elsewhere:
        return ""
    items = "".join(
        f"<li>{fault.severity}: {escape(str(fault))}</li>" for fault in collection.elsewhere
    )
    title = f"Of the data as a whole: {severities(collection.elsewhere)}"
    return f'<details class="elsewhere"><summary>{title}</summary><ul>{items}</ul></details>\n'
