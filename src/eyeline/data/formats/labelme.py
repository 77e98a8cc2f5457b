"""LabelMe's JSON, one file a picture: github.com/wkentaro/labelme.

{"imagePath": "a.jpg", "imageHeight": 480, "imageWidth": 640, "imageData": null, "shapes": [
  {"label": "cat", "points": [[x, y], ...], "shape_type": "polygon", "group_id": null, ...}, ...]}

Shapes of one label and one group_id are one object. A "rectangle" has two opposite corners, or, as
X-AnyLabeling writes them, all four, which may be turned; a "circle" its centre and a point on it, a
"mask" the corners of its box, both within it, and a PNG of the pixels there, base64. The label
"__ignore__" is no class.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from os.path import isfile  # False for names that no file can have, where Path raises
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from eyeline.data.faults import STRICT, Fault, Faults
from eyeline.data.formats.annotations import (
    CLASS_LIST,
    REGION,
    Annotations,
    Record,
    picture_size,
    read_json,
    record_of,
    write_class_list,
)
from eyeline.data.formats.fields import FLAGS, dict_of, json_keys, numbers_of, short, size_of
from eyeline.data.formats.fitting import SEPARATE, extent
from eyeline.data.formats.naming import USUAL, in_order
from eyeline.data.formats.numbers import decimal
from eyeline.data.formats.outlines import (
    Shape,
    cropped,
    ellipse,
    objects_of,
    placed,
    polygon,
    whole,
)
from eyeline.data.formats.pictures import place_picture
from eyeline.data.formats.strays import broken
from eyeline.data.images import DAMAGED, SUFFIXES
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import Segmentation, decode_masks

NAME = "labelme"
TITLE = "LabelMe"
LAYOUT = "a .json beside each picture, there or in the folders train, val ..."
FILES: tuple[str, ...] = ("*.json", "*/*.json")
HOLDS = frozenset(
    (
        "polygons",
        "digits",
        "parts",
        "masks",
        "regions",
        "sizes",
        "empty",
        "blanks",
        "folders",
        *SEPARATE,
        *FLAGS,
    )
)
KEYS = {"shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}
IGNORE = "__ignore__"
OUTLINES = ("polygon", "rectangle", "oriented_rectangle", "rotation")  # the last X-AnyLabeling's
UNREAD = ("point", "points", "line", "linestrip")
FIRST = 20  # JSON files of a folder by which it is told


def splits(path: Path) -> list[str] | None:
    return list(_folders(path)) or None


def read(
    path: Path,
    split: str,
    classes: Sequence[str] | None = None,
    faults: Faults = STRICT,
    **options: Any,
) -> Annotations:
    folders = _folders(path)
    unread: Counter[str] = Counter()
    labels: dict[str, int] = {}
    seen: dict[Path, Path] = {}
    records: list[Record] = []
    for file in _files(folders[split], unread):
        with faults:
            content = dict_of(read_json(file), str(file), "LabelMe's JSON")
            picture = _picture(file, content.get("imagePath"))
            if picture in seen:
                what = f"annotates {picture.name}, as {seen[picture]} does"
                raise Fault("reference", file, what)
            seen[picture] = file
            sides = content.get("imageHeight"), content.get("imageWidth")
            size = size_of(*sides, str(file)) or picture_size(picture)
            shapes = _shapes(file, content.get("shapes"), size, unread, faults)
            objects = objects_of(shapes, labels, size)
            records.append(record_of(picture, size, objects, len(records), outlines=True))
            flags = content.get("flags")
            if isinstance(flags, dict) and any(flags.values()):
                unread["picture(s) with flags"] += 1
    data = Annotations(list(labels), records, f"{path}, {split}")
    data.unread = [f"{number} {what}" for what, number in unread.items()]

    def of_train() -> Annotations:  # what is wrong there is told when that split is read
        return read(path, "train", [], Faults(faults.gather))

    other = split != "train" and "train" in folders
    root = path if path.is_dir() else path.parent
    return in_order(data, root, classes, of_train if other else None, faults)


def write(
    splits: Mapping[str, Annotations], folder: Path, names: Mapping[Path, str], link: bool
) -> None:
    """SPLIT/*.json with the pictures beside them, and classes.txt."""
    classes = next(iter(splits.values())).classes
    if IGNORE in classes:
        raise EyelineError(f"a class is called {IGNORE}, which in LabelMe is no class; rename it")
    for split, data in splits.items():
        (folder / split).mkdir()
        for record in data.records:
            picture = folder / split / names[record.path]
            place_picture(record.path, picture, link)
            objects = [_drawn(record, i, classes) for i in range(len(record.boxes))]
            content: dict[str, Any] = {
                "version": "5.5.0",
                "flags": {},
                "shapes": [shape for own in objects for shape in own],
                "imagePath": picture.name,
                "imageData": None,
                "imageHeight": record.height,
                "imageWidth": record.width,
            }
            text = json.dumps(content, indent=2) + "\n"
            picture.with_suffix(".json").write_text(text, encoding="utf-8")
    write_class_list(folder, classes)


def _drawn(record: Record, i: int, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The shapes of an object; several are of one group."""
    segmentation = record.segmentations[i] if record.segmentations else []
    parts: list[dict[str, Any]]
    if isinstance(segmentation, dict):
        [mask] = decode_masks([segmentation], record.height, record.width)
        part, left, top = cropped(mask)
        corners = [[left, top], [left + part.shape[1] - 1, top + part.shape[0] - 1]]
        parts = [{"shape_type": "mask", "points": corners, "mask": _encoded(part)}]
    elif segmentation:
        points = [np.reshape(polygon, (-1, 2)).tolist() for polygon in segmentation]
        parts = [{"shape_type": "polygon", "points": own} for own in points]
    else:
        x1, y1, x2, y2 = (decimal(value) for value in record.boxes[i])
        parts = [{"shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]}]
    region = record.labels[i] == REGION
    shared = {
        "label": IGNORE if region else classes[record.labels[i]],
        "group_id": i if len(parts) > 1 else None,
        "flags": {flag: True for flag in FLAGS if record.attribute(flag)[i]},
    }
    return [{**shared, **part} for part in parts]


def _encoded(bitmap: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(bitmap.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _is_upright(corners: list[list[float]]) -> bool:
    """Two opposite corners, or four one after the other, no edge of which is turned."""
    edges = zip(corners, [*corners[1:], corners[0]], strict=True)
    return len(corners) == 2 or all((x1 == x2) != (y1 == y2) for (x1, y1), (x2, y2) in edges)


def _decoded(text: Any, where: str, span: tuple[int, int]) -> np.ndarray:
    """The pixels (height, width), nearly as many as the mask's points span."""
    if not isinstance(text, str):
        raise Fault("field", where, f"the mask should be a PNG in base64, not {short(text)}")
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
            # Corners that are not whole numbers are rounded each by itself.
            if max(abs(image.height - span[0]), abs(image.width - span[1])) > 1:
                what = f"the mask has {image.width}x{image.height} pixels"
                raise Fault("field", where, f"{what}, its points span {span[1]}x{span[0]}")
            values = np.asarray(image)
    except Fault:  # which is a ValueError
        raise
    except (*DAMAGED, Image.DecompressionBombError) as error:
        unknown = isinstance(error, UnidentifiedImageError)  # whose text names Python's objects
        reason = "it begins like none" if unknown else " ".join(str(error).split())
        raise Fault("field", where, f"the mask is no PNG in base64: {reason}") from None
    drawn: np.ndarray = np.any(values.reshape(*values.shape[:2], -1), axis=2)
    return drawn


def _folders(path: Path) -> dict[str, Path]:
    """The folder of each split; of a file alone, the file."""
    if path.is_file():
        return {path.stem: path} if _is_labelme(path) else {}
    if _has_files(path):
        return {"train": path}
    folders = {folder.name: folder for folder in sorted(path.glob("*/")) if _has_files(folder)}
    listed = (path / CLASS_LIST).is_file()
    return folders if listed or any(n.startswith(USUAL) for n in folders) else {}


def _has_files(folder: Path) -> bool:
    return any(_is_labelme(file) for file in sorted(folder.glob("*.json"))[:FIRST])


def _is_labelme(path: Path) -> bool:
    return path.suffix.lower() == ".json" and bool(json_keys(path) & KEYS)


def _files(place: Path, unread: Counter[str]) -> list[Path]:
    """The JSON files of a folder but those that are another's: they have no picture of their name,
    and do not look like LabelMe's. What is broken may be LabelMe's, and `read` will say so."""
    if place.is_file():
        return [place]
    there = {file.stem for file in place.iterdir() if file.suffix.lower() in SUFFIXES}
    files: list[Path] = []
    others: list[Path] = []
    for file in sorted(place.glob("*.json")):
        own = file.stem in there or _is_labelme(file) or broken(file)
        (files if own else others).append(file)
    if others:
        unread[f"JSON file(s) of another kind, the first {others[0].name}"] = len(others)
    return files


def _picture(file: Path, told: Any) -> Path:
    """The one that the file names, or else the one of the file's own name."""
    names = []
    if isinstance(told, str) and told:
        windows = PureWindowsPath(told)
        names = [told, windows.as_posix(), windows.name, f"../images/{windows.name}"]
    for name in (*names, *(file.stem + suffix for suffix in (".jpg", *sorted(SUFFIXES)))):
        if isfile(file.parent / name):
            return file.parent / name
    raise Fault("picture", file, f"no such picture: {short(told)}, nor {file.stem}.jpg")


def _shapes(
    file: Path, given: Any, size: tuple[int, int], unread: Counter[str], faults: Faults
) -> list[Shape]:
    if not isinstance(given, list):
        raise Fault("field", file, "not LabelMe's JSON: it has no list 'shapes'")
    shapes, broken = [], []
    for i, value in enumerate(given):
        before = len(faults.found)
        with faults:
            where = f"{file}: shapes[{i}]"
            shape = dict_of(value, where, "a shape")
            if shape.get("shape_type") in UNREAD:
                unread[f"{shape['shape_type']}(s)"] += 1
            else:
                shapes.append(_shape(shape, where, size))
        if len(faults.found) > before and isinstance(value, dict):
            broken.append(value.get("group_id"))
    return whole(shapes, broken)


def _shape(shape: dict[str, Any], where: str, size: tuple[int, int]) -> Shape:
    name, group, flags = shape.get("label"), shape.get("group_id"), shape.get("flags") or {}
    if not isinstance(name, str) or not name.strip():
        raise Fault("class", where, f"the shape has no label, but {short(name)}")
    if not isinstance(group, int | str | None):
        raise Fault("field", where, f"group_id should be a number, not {short(group)}")
    on = dict_of(flags, where, "flags")
    # X-AnyLabeling has "difficult" beside the flags.
    attributes = {flag: float(bool(on.get(flag)) or shape.get(flag) is True) for flag in FLAGS}
    kind = shape.get("shape_type") or "polygon"
    needed = {"rectangle": (2, 4), "circle": (2,), "mask": (2,)}.get(str(kind))
    points = shape.get("points")
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise Fault("field", where, f"points should be a list of [x, y], not {short(points)}")
    if needed and len(points) not in needed:
        told = " or ".join(map(str, needed))
        raise Fault("field", where, f"a {kind} has {told} points, not {len(points)}")
    values = numbers_of([value for point in points for value in point], where, "points")
    xs, ys = values[::2], values[1::2]
    segmentation: Segmentation = []
    if kind == "rectangle" and _is_upright(points):
        box = np.array([min(xs), min(ys), max(xs), max(ys)])
    elif kind == "mask":
        left, top, right, bottom = (round(value) for value in values)
        bitmap = _decoded(shape.get("mask"), where, (bottom - top + 1, right - left + 1))
        segmentation, box = placed(bitmap, left, top, size)
    else:
        if kind == "circle":
            radius = math.dist(*zip(xs, ys, strict=True))
            segmentation = [ellipse(xs[0], ys[0], radius, radius)]
        elif kind in OUTLINES:
            segmentation = [polygon(xs, ys, where)]
        else:
            raise Fault("field", where, f"there is no shape_type {short(kind)}")
        box = extent(segmentation, *size)
    own = None if name == IGNORE else name.strip()
    return Shape(where, own, box, segmentation, group, attributes)
