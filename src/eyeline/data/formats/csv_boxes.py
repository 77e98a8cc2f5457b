"""Tables of boxes, a row an object; the first row names the columns.

filename,width,height,class,xmin,ymin,xmax,ymax     as many tools write them; or without names
path,x1,y1,x2,y2,class                              as keras-retinanet reads them

Columns are found by name, whatever their order; NAMES lists the names. width and height are the
picture's. A row with neither class nor box is a picture without objects. A box is told by its
corners in pixels: of x, y, w and h, which some mean from the corner and some from the centre,
nothing is guessed.

The splits are files (train.csv, val_labels.csv), folders (train/_annotations.csv, as Roboflow
writes them), or the values of a column "split". classes.txt gives the classes' order, or a table
NAME,NUMBER (keras-retinanet's classes.csv); without them names are sorted.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from os.path import isfile  # False for names that no file can have, where Path raises
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from eyeline.data.faults import STRICT, Fault, Faults
from eyeline.data.formats.annotations import (
    Annotations,
    Object,
    Record,
    picture_size,
    read_class_list,
    record_of,
    with_classes,
    write_class_list,
)
from eyeline.data.formats.fitting import SEPARATE
from eyeline.data.formats.numbers import decimal, plain
from eyeline.data.formats.pictures import place_picture
from eyeline.data.formats.rows import first_row, read_rows
from eyeline.data.images import SUFFIXES

NAME = "csv"
TITLE = "CSV"
LAYOUT = "*.csv or */_annotations.csv with columns filename, class, xmin, ymin, xmax, ymax"
FILES: tuple[str, ...] = ("*.csv", "*.tsv", "*/_annotations.csv")
FLAGS = ("iscrowd", "difficult", "truncated", "occluded")
HOLDS = frozenset(
    ("boxes", "crowd", "degrees", "sizes", "empty", "blanks", "folders", *SEPARATE, *FLAGS[1:])
)

CORNERS = ("xmin", "ymin", "xmax", "ymax")
NAMES = {  # of each column, in small letters without blanks and signs; the first that is there
    "filename": ("filename", "filepath", "file", "imagepath", "imagename", "imagefile", "image",
                 "path", "imgpath", "imgname", "img", "imageid", "frame"),
    "class": ("class", "classname", "label", "labelname", "category", "categoryname", "name"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
    "xmin": ("xmin", "x1", "left", "bboxxmin", "bboxx1"),
    "ymin": ("ymin", "y1", "top", "bboxymin", "bboxy1"),
    "xmax": ("xmax", "x2", "right", "bboxxmax", "bboxx2"),
    "ymax": ("ymax", "y2", "bottom", "bboxymax", "bboxy2"),
    "split": ("split", "subset", "set", "partition"),
    "iscrowd": ("iscrowd", "crowd", "isgroupof"),
    "difficult": ("difficult", "isdifficult"),
    "truncated": ("truncated", "istruncated"),
    "occluded": ("occluded", "isoccluded"),
}  # fmt: skip
SIDES = {"x", "y", "w", "h", "xcenter", "ycenter", "cx", "cy", "bbox", "bboxx", "bboxy", "bboxw",
         "bboxh", "bboxwidth", "bboxheight", "boxwidth", "boxheight"}  # fmt: skip
HEADLESS = ("filename", *CORNERS, "class")
ROBOFLOW = "_annotations.csv"
MANY = 10  # boxes that are not all smaller than a pixel
WORDS = {"": 0.0, "false": 0.0, "no": 0.0, "true": 1.0, "yes": 1.0}


class Source(NamedTuple):
    """Where a split is told."""

    file: Path
    only: str | None  # the value of the column "split", where there is one


Row = tuple[str, dict[str, str]]  # file and line, values by the keys of NAMES


def splits(path: Path) -> list[str] | None:
    return list(_sources(path)) or None


def read(
    path: Path,
    split: str,
    classes: Sequence[str] | None = None,
    faults: Faults = STRICT,
    **options: Any,
) -> Annotations:
    sources = _sources(path)
    if split not in sources:
        raise Fault("file", path, f"no split {split!r}; there are: {', '.join(sources)}")
    table, unread = _table(sources[split], faults)
    found = _names([table])
    folder = sources[split].file.parent
    records = _records(table, folder, split, found, faults)
    _refuse_shares(sources[split].file, records)
    annotations = Annotations(found, records, f"{path}, {split}", unread=unread)
    if classes is not None:
        return annotations
    root = path if path.is_dir() else folder
    listed = read_class_list(root) or _numbered_classes(root)
    if listed is None:  # those of all splits, so that they have the same labels
        apart = Faults(faults.gather)  # what is wrong in other splits is told of them
        listed = _names(_table(source, apart)[0] for source in sources.values())
    return with_classes(annotations, listed, faults=faults)


def write(
    splits: Mapping[str, Annotations], folder: Path, names: Mapping[Path, str], link: bool
) -> None:
    """SPLIT/_annotations.csv beside the pictures of the split, and classes.txt."""
    for split, data in splits.items():
        (folder / split).mkdir()
        told = [
            flag for flag in FLAGS if any(_flags(record, flag).any() for record in data.records)
        ]
        target = folder / split / ROBOFLOW
        with target.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["filename", "width", "height", "class", *CORNERS, *told])
            for record in data.records:
                place_picture(record.path, folder / split / names[record.path], link)
                start = [names[record.path], record.width, record.height]
                own = [_flags(record, flag) for flag in told]
                for i, (box, label) in enumerate(zip(record.boxes, record.labels, strict=True)):
                    corners = [plain(decimal(value)) for value in box]
                    flags = [plain(given[i]) for given in own]
                    writer.writerow([*start, data.classes[label], *corners, *flags])
                if not len(record.boxes):
                    writer.writerow([*start, *[""] * (5 + len(told))])
    write_class_list(folder, next(iter(splits.values())).classes)


def _flags(record: Record, flag: str) -> np.ndarray:
    """(G,) float64."""
    if flag != "iscrowd":
        return record.attribute(flag)
    crowd: np.ndarray = record.iscrowd & (record.attribute("difficult") == 0)
    return crowd.astype(np.float64)


def _columns(row: Sequence[str]) -> dict[str, int] | None:
    """The place of each of NAMES in the first row of a table of boxes; None of any other."""
    if {"ImageID", "LabelName", "XMin"} <= set(row):
        return None  # Open Images, whose coordinates are shares
    plain_names = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in row]
    places = {
        key: plain_names.index(next(name for name in names if name in plain_names))
        for key, names in NAMES.items()
        if set(names) & set(plain_names)
    }
    boxes = set(CORNERS) & set(places) or SIDES & set(plain_names)
    if {"filename", "class"} <= set(places) and boxes:
        return places
    picture = Path(row[0]).suffix.lower() in SUFFIXES if row else False
    if len(row) == len(HEADLESS) and picture and (not any(row[1:]) or _are_numbers(row[1:5])):
        return {key: place for place, key in enumerate(HEADLESS)}
    return None


def _are_numbers(fields: Iterable[str]) -> bool:
    return all(re.fullmatch(r"\s*-?\d+([.,]\d*)?\s*", field) for field in fields)


def _sources(path: Path) -> dict[str, Source]:
    """The splits; {} where the file or folder has no table of boxes."""
    if path.is_file():
        files = [path]
    else:
        files = sorted([*path.glob("*.csv"), *path.glob("*.tsv"), *path.glob(f"*/{ROBOFLOW}")])
    tables = {file: columns for file in files if (columns := _columns(first_row(file)))}
    sources: dict[str, Source] = {}
    for file, columns in tables.items():
        rows: list[Row] = []
        with Faults(gather=True):  # `read` says what is wrong
            rows += _table(Source(file, None), Faults(gather=True))[0] if "split" in columns else []
        for value in sorted({row["split"] for _, row in rows} - {""}):
            sources.setdefault(value, Source(file, value))
        if not rows:
            sources.setdefault(_split(file, len(tables) == 1), Source(file, None))
    return sources


def _split(file: Path, alone: bool) -> str:
    """ "train_labels.csv" -> "train"."""
    if file.name == ROBOFLOW:
        return file.parent.name
    words = r"csv|annotations?|labels?|bbox(es)?|box(es)?"
    name = re.sub(rf"(?i)(?<![a-z])({words})(?![a-z])", "", file.stem.replace("_", "-"))
    name = re.sub(r"-+", "-", name).strip("-. ")
    return name if name and (not alone or name.startswith(("train", "val", "test"))) else "train"


def _table(source: Source, faults: Faults) -> tuple[list[Row], list[str]]:
    """The rows of a split, and in words what they tell besides."""
    rows = read_rows(source.file, faults)
    columns = _columns(rows[0][1]) if rows else None
    if columns is None:
        raise Fault("file", source.file, f"no table of boxes; its first row should be: {LAYOUT}")
    header = rows[0][1]
    headless = Path(header[0]).suffix.lower() in SUFFIXES
    if missing := [corner for corner in CORNERS if corner not in columns]:
        what = f"no column {', '.join(missing)}; a box is told by {', '.join(CORNERS)} in pixels"
        there = [name for name in header if name.strip().lower() in SIDES | {"width", "height"}]
        known = f": of {', '.join(there)} it is not certain what they mean" if there else ""
        raise Fault("field", f"{source.file}:1", what + known)
    found: list[Row] = []
    for where, fields in rows if headless else rows[1:]:
        with faults:
            if len(fields) != len(header):
                what = f"should be {len(header)} fields as in the first row, not {len(fields)}"
                raise Fault("field", where, what)
            values = {key: fields[place].strip() for key, place in columns.items()}
            values["filename"] = fields[columns["filename"]]
            if source.only is not None and not values["split"]:
                raise Fault("field", where, "it is of no split; tell which")
            if source.only is None or values["split"] == source.only:
                found.append((where, values))
    other = [n for i, n in enumerate(header) if n.strip() and i not in columns.values()]
    return found, [f"column {name!r}" for name in other if not name.startswith("Unnamed")]


def _names(tables: Iterable[list[Row]]) -> list[str]:
    return sorted({row["class"] for table in tables for _, row in table} - {""})


def _numbered_classes(folder: Path) -> list[str] | None:
    """The names in a table NAME,NUMBER, by their numbers, where there is one."""
    for file in sorted(folder.glob("*class*.csv")):
        if len(first_row(file)) != 2:
            continue
        rows = read_rows(file, STRICT)
        if not rows[0][1][1].strip().isdecimal():
            rows = rows[1:]  # it names the columns
        names: dict[str, str] = {}
        for where, fields in rows:
            if len(fields) != 2 or not fields[1].strip().isdecimal():
                raise Fault("class", where, f"should be a name and a number, not {fields}")
            name, number = fields[0].strip(), fields[1].strip()
            if number in names or name in names.values():
                raise Fault("class", where, f"the class {name!r} or its number is there twice")
            names[number] = name
        if sorted(map(int, names)) != list(range(len(names))):
            what = f"should number the classes 0, 1, 2 ..., not {', '.join(list(names)[:9])}"
            raise Fault("class", file, what)
        return [names[str(k)] for k in range(len(names))]
    return None


def _records(
    table: list[Row], folder: Path, split: str, classes: list[str], faults: Faults
) -> list[Record]:
    by_name: dict[str, list[Row]] = {}
    for where, row in table:
        by_name.setdefault(row["filename"], []).append((where, row))
    records: list[Record] = []
    for name, rows in by_name.items():
        with faults:
            picture = _picture(name, folder, split, rows[0][0])
            size = _size(rows) or picture_size(picture)
            objects = []
            for where, row in rows:
                with faults:
                    if any(row[key] for key in ("class", *CORNERS)):
                        objects.append(_object(where, row, classes))
            records.append(record_of(picture, size, objects, len(records)))
    return records


def _object(where: str, row: dict[str, str], classes: list[str]) -> Object:
    if not row["class"]:
        raise Fault("class", where, "the object has no class")
    try:
        box = [float(row[corner]) for corner in CORNERS]
    except ValueError:
        words = [row[corner] for corner in CORNERS]
        what = f"{', '.join(CORNERS)} should be numbers, not {words}"
        raise Fault("field", where, what) from None
    flags = {flag: _flag(where, flag, row[flag]) for flag in FLAGS if flag in row}
    ignored = flags.pop("iscrowd", 0.0) > 0 or flags.get("difficult", 0.0) > 0
    return Object(where, classes.index(row["class"]), box, iscrowd=ignored, attributes=flags)


def _flag(where: str, name: str, text: str) -> float:
    try:
        return WORDS[text.lower()] if text.lower() in WORDS else max(float(text), 0.0)
    except ValueError:
        raise Fault("field", where, f"{name} should be 0 or 1, not {text!r}") from None


def _size(rows: list[Row]) -> tuple[int, int] | None:
    """(height, width) as the rows of one picture tell it, if they do."""
    told: dict[tuple[str, str], str] = {}
    for where, row in rows:
        told.setdefault((row.get("height", ""), row.get("width", "")), where)
    [(size, where), *others] = told.items()
    for other, at in others:
        what = f"the picture is {other[1]}x{other[0]}, in {where} it was {size[1]}x{size[0]}"
        raise Fault("size", at, what)
    if not any(size):
        return None
    if not all(side.isdecimal() and 0 < len(side) < 7 and int(side) for side in size):
        what = f"the picture's width and height should be whole numbers, not {size[1]}, {size[0]}"
        raise Fault("field", where, what)
    return int(size[0]), int(size[1])


def _picture(name: str, folder: Path, split: str, where: str) -> Path:
    """The file of that path, or of that name near the table; its suffix may be missing."""
    told = PureWindowsPath(name)  # splits at / and at \
    near = [root / sub for root in (folder, folder.parent)
            for sub in (f"images/{split}", split, "images", ".")]  # fmt: skip
    paths = [folder / name, folder / told.as_posix(), *(place / told.name for place in near)]
    if told.suffix.lower() not in SUFFIXES:
        paths += [place / f"{told.name}{s}" for place in near for s in (".jpg", *sorted(SUFFIXES))]
    for path in paths:
        if isfile(path):
            return path
    raise Fault("picture", where, f"no such picture: {paths[0]}")


def _refuse_shares(file: Path, records: list[Record]) -> None:
    """Coordinates from 0 to 1 would be boxes without a pixel."""
    boxes = np.concatenate([np.zeros((0, 4)), *(record.boxes for record in records)])
    if len(boxes) >= MANY and (boxes >= 0).all() and (boxes <= 1).all():
        what = f"all {len(boxes)} boxes lie between 0 and 1: give corners in pixels, not shares"
        raise Fault("field", file, what)
