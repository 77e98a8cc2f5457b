"""The JSON of VIA, the VGG Image Annotator, versions 1 and 2: Dutta and Zisserman, "The VIA
Annotation Software for Images, Audio and Video", ACM Multimedia 2019.

One file for all pictures, which lie beside it, by name and size in bytes:

{"a.jpg1115004": {"filename": "a.jpg", "size": 1115004, "regions": [...], ...}, ...}

A region, "shape_attributes": {"name": "polygon", "all_points_x": [...], "all_points_y": [...]},
has besides what the user chose to call its "region_attributes": {"type": "balloon"}. Version 1
numbers the regions, {"0": ...}; in a project of version 2 all this is "_via_img_metadata".
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from os.path import isfile  # False for names that no file can have, where Path raises
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from eyeline.data.faults import STRICT, Fault, Faults
from eyeline.data.formats.annotations import (
    Annotations,
    Record,
    picture_size,
    read_class_list,
    read_json,
    record_of,
    write_class_list,
)
from eyeline.data.formats.fields import FLAGS, YES, dict_of, json_keys, numbers_of, short
from eyeline.data.formats.fitting import SEPARATE, extent
from eyeline.data.formats.naming import in_order, split_files
from eyeline.data.formats.numbers import decimal, shortest
from eyeline.data.formats.outlines import Shape, ellipse, objects_of, polygon
from eyeline.data.formats.pictures import place_picture
from eyeline.errors import EyelineError

NAME = "via"
TITLE = "VIA"
LAYOUT = "via_*.json beside the pictures, there or in a folder for each split"
FILES: tuple[str, ...] = ("*.json", "*/*.json")
HOLDS = frozenset(("polygons", "digits", "empty", "blanks", "folders", *SEPARATE, *FLAGS))
PREFERRED = ("class", "label", "category", "type", "name")  # of the region attributes
ALONE = "object"  # the class where regions have no attributes
FIRST = 20  # JSON files of a folder that are looked at
UNREAD = ("point", "polyline")


class Entry(NamedTuple):
    """A picture of the file."""

    filename: str
    regions: dict[str, dict[str, Any]]  # by where they stand, for messages


def splits(path: Path) -> list[str] | None:
    return list(_files(path)) or None


def read(
    path: Path,
    split: str,
    classes: Sequence[str] | None = None,
    faults: Faults = STRICT,
    attribute: str | None = None,
    **options: Any,
) -> Annotations:
    """As `Format.read` says.

    Args:
        attribute: the region attribute that is the class; by default the only one, or the first of
            PREFERRED that there is, or the first of all. Without any there is one class: the only
            one of `classes` or of classes.txt, or else "object".
    """
    files = _files(path)
    file, folder = files[split], path if path.is_dir() else path.parent
    entries, unread = _entries(file, faults)
    chosen, others = _attribute(entries, attribute, file)
    known = classes or read_class_list(folder) or []
    alone = known[0] if len(known) == 1 else ALONE
    labels: dict[str, int] = {}
    seen: dict[Path, str] = {}
    records: list[Record] = []
    for entry in entries:
        with faults:
            picture = _picture(file, entry.filename)
            if picture in seen:
                what = f"the picture {entry.filename!r} is there twice"
                raise Fault("reference", file, what)
            seen[picture] = entry.filename
            shapes = []
            for where, region in entry.regions.items():
                with faults:
                    name = alone if chosen is None else _name(region, chosen, where)
                    if (shape := _shape(region, where, name, unread)) is not None:
                        shapes.append(shape)
            size = picture_size(picture)
            objects = objects_of(shapes, labels, size)
            records.append(record_of(picture, size, objects, len(records), outlines=True))
    words = [f"{number} {what}" for what, number in unread.items()]
    words += [f"the region attribute {name!r}" for name in others]
    data = Annotations(list(labels), records, f"{path}, {split}", unread=words)

    def of_train() -> Annotations:  # what is wrong there is told when that split is read
        return read(path, "train", [], Faults(faults.gather), attribute)

    other = split != "train" and "train" in files
    return in_order(data, folder, classes, of_train if other else None, faults)


def write(
    splits: Mapping[str, Annotations], folder: Path, names: Mapping[Path, str], link: bool
) -> None:
    """SPLIT/via_region_data.json with the pictures beside it, and classes.txt."""
    for split, data in splits.items():
        (folder / split).mkdir()
        content = {}
        for record in data.records:
            name = names[record.path]
            place_picture(record.path, folder / split / name, link)
            size = record.path.stat().st_size
            regions = [_region(record, i, data.classes) for i in range(len(record.boxes))]
            content[f"{name}{size}"] = {
                "filename": name,
                "size": size,
                "regions": regions,
                "file_attributes": {},
            }
        target = folder / split / "via_region_data.json"
        target.write_text(json.dumps(content) + "\n", encoding="utf-8")
    write_class_list(folder, next(iter(splits.values())).classes)


def _region(record: Record, i: int, classes: Sequence[str]) -> dict[str, Any]:
    shape: dict[str, Any]
    if outline := record.segmentations[i] if record.segmentations else []:
        [corners] = outline
        shape = {"name": "polygon", "all_points_x": corners[::2], "all_points_y": corners[1::2]}
    else:
        x1, y1, x2, y2 = (decimal(value) for value in record.boxes[i])
        width = shortest(x2 - x1, lambda w: np.float32(x1 + w) == record.boxes[i, 2])
        height = shortest(y2 - y1, lambda h: np.float32(y1 + h) == record.boxes[i, 3])
        shape = {"name": "rect", "x": x1, "y": y1, "width": width, "height": height}
    flags = {flag: "1" for flag in FLAGS if record.attribute(flag)[i]}
    attributes = {"class": classes[record.labels[i]], **flags}
    return {"shape_attributes": shape, "region_attributes": attributes}


def _files(path: Path) -> dict[str, Path]:
    """The files by their splits."""
    if path.is_file():
        return {path.stem: path} if _is_via(path) else {}
    return split_files(path, _files_in)


def _files_in(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.json"), key=lambda f: (not f.name.startswith("via"), f.name))
    return [file for file in files[:FIRST] if _is_via(file)]


def _is_via(path: Path) -> bool:
    """By the keys of its beginning; what has the name of VIA's own files need not be whole."""
    if path.suffix.lower() != ".json":
        return False
    outer, inner = json_keys(path), json_keys(path, depth=2)
    sure = "filename" in inner and {"size", "regions", "fileref", "file_attributes"} & inner
    named = path.name.startswith("via_") and not {"images", "annotations", "info"} & outer
    return bool(sure or named or {"_via_settings", "_via_img_metadata"} & outer)


def _entries(file: Path, faults: Faults) -> tuple[list[Entry], Counter[str]]:
    """The pictures, and how many of them have attributes of their own."""
    content = dict_of(read_json(file), str(file), "VIA's JSON")
    if {"project", "config", "view"} <= set(content):
        what = "a project of VIA 3, which is not read; VIA 2 can export annotations as JSON"
        raise Fault("file", file, what)
    pictures = dict_of(content.get("_via_img_metadata", content), str(file), "_via_img_metadata")
    entries = []
    unread: Counter[str] = Counter()
    for key, value in pictures.items():
        with faults:
            where = f"{file}: {key!r}"
            picture = dict_of(value, where, "a picture")
            filename, regions = picture.get("filename"), picture.get("regions")
            if not isinstance(filename, str) or not filename:
                raise Fault("field", where, f"filename should be a name, not {short(filename)}")
            if isinstance(regions, list):
                regions = dict(enumerate(regions))
            checked = {}
            for i, region in dict_of(regions, where, "regions").items():
                with faults:
                    place = f"{file}: regions[{i}] of {filename!r}"
                    region = dict_of(region, place, "a region")
                    for part in ("shape_attributes", "region_attributes"):
                        dict_of(region.get(part), place, part)
                    checked[place] = region
            entries.append(Entry(filename, checked))
            given = picture.get("file_attributes")
            if isinstance(given, dict) and any(given.values()):
                unread["picture(s) with attributes of their own"] += 1
    return entries, unread


def _attribute(
    entries: Sequence[Entry], given: str | None, file: Path
) -> tuple[str | None, list[str]]:
    """The region attribute that is the class, and the others; None where there are none."""
    regions = [region for entry in entries for region in entry.regions.values()]
    names = dict.fromkeys(name for region in regions for name in region["region_attributes"])
    own = [name for name in names if name not in FLAGS]
    folded = {name.casefold(): name for name in reversed(own)}
    chosen = next((folded[name] for name in PREFERRED if name in folded), own[0] if own else None)
    if given is not None:
        if given not in names and regions:
            told = ", ".join(map(repr, names)) or "none"
            raise EyelineError(f"{file}: no region attribute {given!r}; there are: {told}")
        chosen = given
    return chosen, [name for name in own if name != chosen]


def _name(region: dict[str, Any], attribute: str, where: str) -> str:
    """The class of a region: a text, or the one box that is ticked of several."""
    value = region["region_attributes"].get(attribute)
    if isinstance(value, dict):
        ticked = [name for name, on in value.items() if on]
        if len(ticked) > 1:
            raise Fault("class", where, f"{attribute!r} has several values: {', '.join(ticked)}")
        value = ticked[0] if ticked else None
    name = str(value).strip() if isinstance(value, str | int | float) else ""
    if not name:
        raise Fault("class", where, f"the region has no class: {attribute!r} is {short(value)}")
    return name


def _shape(region: dict[str, Any], where: str, name: str, unread: Counter[str]) -> Shape | None:
    """None of what has no area; it is counted."""
    drawn, attributes = region["shape_attributes"], region["region_attributes"]
    kind = drawn.get("name")
    if kind in UNREAD:
        unread[f"{kind}(s)"] += 1
        return None

    def numbers(*keys: str) -> list[float]:
        return numbers_of([drawn.get(key) for key in keys], where, ", ".join(keys))

    flags = {flag: float(str(attributes.get(flag)).lower() in YES) for flag in FLAGS}
    if kind == "rect":
        x, y, width, height = numbers("x", "y", "width", "height")
        box = np.array([x, y, x + width, y + height])
        return Shape(where, name, box, attributes=flags)
    if kind == "polygon":
        xs, ys = (_list(drawn.get(f"all_points_{axis}"), where) for axis in "xy")
        outline = polygon(xs, ys, where)
    elif kind == "circle":
        cx, cy, r = numbers("cx", "cy", "r")
        outline = ellipse(cx, cy, r, r)
    elif kind == "ellipse":
        cx, cy, rx, ry = numbers("cx", "cy", "rx", "ry")
        [theta] = numbers_of([drawn.get("theta", 0)], where, "theta")
        outline = ellipse(cx, cy, rx, ry, math.degrees(theta))
    else:
        raise Fault("field", where, f"there is no shape {short(kind)}")
    return Shape(where, name, extent([outline], 0, 0), [outline], attributes=flags)


def _list(values: Any, where: str) -> list[float]:
    if not isinstance(values, list):
        raise Fault("field", where, f"all_points_x and _y should be lists, not {short(values)}")
    return numbers_of(values, where, "all_points_x and _y")


def _picture(file: Path, filename: str) -> Path:
    """Beside the file, or in images/ there."""
    name = PureWindowsPath(filename).name  # splits at / and at \\
    for given in (filename, name, f"images/{name}"):
        if isfile(file.parent / given):
            return file.parent / given
    raise Fault("picture", file.parent / filename, f"no such picture; {file} lists it")
