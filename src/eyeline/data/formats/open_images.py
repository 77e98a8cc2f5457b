"""Open Images' tables of boxes: Kuznetsova et al., "The Open Images Dataset V4", IJCV 2020.

ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,
IsDepiction,IsInside: a row an object, coordinates relative to the picture's sides; of what is
asked, 1 is yes, 0 no and -1 not known. A group (IsGroupOf) is a crowd.

SPLIT-annotations-bbox.csv    the boxes; pictures are SPLIT/ImageID.jpg
class-descriptions*.csv       LabelName,name of each class, in the order of the labels
SPLIT-images*.csv             the ImageIDs of all pictures, also of those without objects

The files lie in the folder or in its annotations/ (as CVAT writes them), the pictures also in
images/SPLIT/.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eyeline.data.faults import STRICT, Fault, Faults
from eyeline.data.formats.annotations import (
    Annotations,
    Object,
    Record,
    picture_size,
    record_of,
    with_classes,
)
from eyeline.data.formats.fitting import SEPARATE
from eyeline.data.formats.numbers import plain, shortest
from eyeline.data.formats.pictures import place_picture
from eyeline.data.formats.rows import first_row, read_rows
from eyeline.data.images import SUFFIXES

NAME = "openimages"
TITLE = "Open Images"
LAYOUT = "*-annotations-bbox.csv with ImageID, LabelName, XMin ..., and pictures in SPLIT/"
FILES: tuple[str, ...] = ("*-annotations-bbox.csv", "annotations/*-annotations-bbox.csv")
ENDING = "-annotations-bbox"
SIDES = ("XMin", "YMin", "XMax", "YMax")
COLUMNS = ("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax")
FLAGS = {  # Open Images' words for the attributes
    "occluded": "IsOccluded",
    "truncated": "IsTruncated",
    "crowd": "IsGroupOf",
    "depiction": "IsDepiction",
    "inside": "IsInside",
}
ATTRIBUTES = ("depiction", "inside")
HOLDS = frozenset(("boxes", "empty", "blanks", "folders", *SEPARATE, *FLAGS))
FARTHEST = 10.0  # a coordinate beyond it is in pixels, not relative
CLASSES = "class-descriptions-boxable.csv"
Row = tuple[str, dict[str, str]]  # file and line, values by the names of the columns


def splits(path: Path) -> list[str] | None:
    return list(_files(path)) or None


def read(
    path: Path,
    split: str,
    classes: Sequence[str] | None = None,
    faults: Faults = STRICT,
    **options: Any,
) -> Annotations:
    files = _files(path)
    if split not in files:
        raise Fault("file", path, f"no split {split!r}; there are: {', '.join(files)}")
    rows = _table(files[split], ("ImageID", "LabelName", *SIDES), faults)
    root, tables = _folders(files[split])
    names = _descriptions(tables)
    found = _labels([rows]) if names is None else list(names.values())
    label_of = {name: k for k, name in enumerate(found if names is None else names)}
    listed: dict[str, str] = {}  # where each picture is told first
    objects: dict[str, list[Row]] = {}
    for where, row in [*_image_ids(tables, split, faults), *rows]:
        listed.setdefault(row["ImageID"], where)
        if "XMin" in row:
            objects.setdefault(row["ImageID"], []).append((where, row))
    pictures = _pictures(root, split)
    records: list[Record] = []
    for image_id, where in listed.items():
        with faults:
            if image_id not in pictures:
                what = f"there is no picture {root / split / image_id}.jpg"
                raise Fault("picture", where, what)
            own = objects.get(image_id, [])
            records.append(_record(pictures[image_id], own, label_of, len(records), faults))
    unread = ["the clicks on extreme points"] if any("XClick1X" in row for _, row in rows) else []
    unlisted = len(pictures.keys() - listed.keys())
    unread += [f"{unlisted} picture(s) that no table lists"] if unlisted else []
    annotations = Annotations(found, records, f"{path}, {split}", unread=unread)
    if classes is not None or names is not None:
        return annotations
    apart = Faults(faults.gather)  # what is wrong in other splits is told of them
    every = (_table(file, ("LabelName",), apart) for file in files.values())
    return with_classes(annotations, _labels(every), faults=faults)


def write(
    splits: Mapping[str, Annotations], folder: Path, names: Mapping[Path, str], link: bool
) -> None:
    """SPLIT-annotations-bbox.csv, SPLIT-images.csv and SPLIT/; class-descriptions-boxable.csv.

    The labels, which in Open Images are ids ("/m/01yrx"), are the names themselves.
    """
    for split, data in splits.items():
        (folder / split).mkdir()
        rows: list[list[str]] = []
        for record in data.records:
            name = names[record.path]
            place_picture(record.path, folder / split / name, link)
            for i in range(len(record.boxes)):
                rows.append([Path(name).stem, *_fields(record, i, data.classes)])
        _write_table(folder / f"{split}{ENDING}.csv", [[*COLUMNS, *FLAGS.values()], *rows])
        stems = [[Path(names[record.path]).stem, split] for record in data.records]
        _write_table(folder / f"{split}-images.csv", [["ImageID", "Subset"], *stems])
    classes = next(iter(splits.values())).classes
    _write_table(folder / CLASSES, [["LabelName", "DisplayName"], *([n, n] for n in classes)])


def _write_table(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _fields(record: Record, i: int, classes: Sequence[str]) -> list[str]:
    """What follows the ImageID, with so few digits that it is read again as it was."""

    def share(value: np.float32, side: int) -> str:
        return plain(shortest(float(value) / side, lambda s: np.float32(s * side) == value, 6))

    x1, y1, x2, y2 = record.boxes[i]
    across = [share(x, record.width) for x in (x1, x2)]
    down = [share(y, record.height) for y in (y1, y2)]
    given = {flag: record.attribute(flag)[i] for flag in FLAGS} | {"crowd": record.iscrowd[i]}
    flags = [str(int(value)) for value in given.values()]
    return ["eyeline", classes[record.labels[i]], "1", *across, *down, *flags]


def _files(path: Path) -> dict[str, Path]:
    """The tables of boxes by their splits: "oidv6-train-annotations-bbox.csv" -> "train"."""
    if path.is_file():
        files = [path]
    else:
        places = (path, path / "annotations")
        files = [file for place in places for file in sorted(place.glob(f"*{ENDING}.csv"))]
    found: dict[str, Path] = {}
    for file in files:
        if {"ImageID", "LabelName", "XMin"} <= set(first_row(file)):
            split = re.sub(r"^oidv\d+-", "", file.stem.removesuffix(ENDING))
            found.setdefault(split, file)
    return found


def _folders(file: Path) -> tuple[Path, list[Path]]:
    """The folder of everything, and those of its tables."""
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    return root, list(dict.fromkeys([file.parent, root]))


def _table(file: Path, needed: Sequence[str], faults: Faults) -> list[Row]:
    """Rows as values by their columns. Raises Fault where one of the `needed` is not there."""
    rows = read_rows(file, faults)
    header = rows[0][1] if rows else []
    if missing := [name for name in needed if name not in header]:
        raise Fault(
            "file", f"{file}:1", f"no column {', '.join(missing)}; give a first row with it"
        )
    found: list[Row] = []
    for where, fields in rows[1:]:
        with faults:
            if len(fields) != len(header):
                what = f"should be {len(header)} fields as in the first row, not {len(fields)}"
                raise Fault("field", where, what)
            found.append((where, dict(zip(header, fields, strict=True))))
    return found


def _labels(tables: Iterable[list[Row]]) -> list[str]:
    return sorted({row["LabelName"] for table in tables for _, row in table} - {""})


def _descriptions(folders: Iterable[Path]) -> dict[str, str] | None:
    """The names of the labels, in the order of the file; older ones do not name their columns."""
    for file in (file for folder in folders for file in folder.glob("*class-descriptions*.csv")):
        names: dict[str, str] = {}
        for where, fields in read_rows(file, STRICT):
            if fields == ["LabelName", "DisplayName"]:
                continue
            if len(fields) != 2 or not all(fields):
                raise Fault("class", where, f"should be a label and its name, not {fields}")
            label, name = fields
            if label in names or name in names.values():
                raise Fault("class", where, f"the class {name!r} or its label is there twice")
            names[label] = name
        return names
    return None


def _image_ids(folders: Iterable[Path], split: str, faults: Faults) -> list[Row]:
    for file in (file for folder in folders for file in sorted(folder.glob("*.csv"))):
        if re.fullmatch(rf"(oidv\d+-)?{re.escape(split)}-image.*\.csv", file.name):
            return _table(file, ("ImageID",), faults)
    return []


def _pictures(root: Path, split: str) -> dict[str, Path]:
    """The pictures by their stems, from the first folder that is there."""
    for folder in (root / split, root / "images" / split, root / "images"):
        if folder.is_dir():
            files = sorted(folder.iterdir(), reverse=True)  # of two with one stem the first counts
            return {file.stem: file for file in files if file.suffix.lower() in SUFFIXES}
    return {}


def _record(
    picture: Path, rows: list[Row], label_of: Mapping[str, int], image_id: int, faults: Faults
) -> Record:
    height, width = picture_size(picture)
    objects = []
    for where, row in rows:
        with faults:
            objects.append(_object(where, row, label_of, np.array([width, height] * 2)))
    return record_of(picture, (height, width), objects, image_id)


def _object(where: str, row: dict[str, str], label_of: Mapping[str, int], sides: Any) -> Object:
    if row["LabelName"] not in label_of:
        what = f"there is no label {row['LabelName']!r} in {CLASSES}"
        raise Fault("class", where, what)
    words = [row[side] for side in SIDES]
    try:
        shares = np.array([float(word) for word in words])
    except ValueError:
        raise Fault("field", where, f"{', '.join(SIDES)} should be numbers, not {words}") from None
    if not (np.abs(shares) <= FARTHEST).all():
        what = "coordinates are shares of the picture's width and height, from 0 to 1"
        raise Fault("field", where, f"{what}, not {words}")
    flags = {name: float(row.get(column, "").strip() == "1") for name, column in FLAGS.items()}
    crowd = flags.pop("crowd") > 0
    return Object(where, label_of[row["LabelName"]], shares * sides, crowd, attributes=flags)
