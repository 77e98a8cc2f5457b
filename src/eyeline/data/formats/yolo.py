"""YOLO's text files: one a picture, a line an object, coordinates relative to the picture's sides.

data.yaml   `names`, and for each split a folder of pictures or a file that lists them, relative
            to `path` (by default the file's own folder); or else images/, labels/, classes.txt
labels/     a file beside each picture's folder: images/train/a.jpg -> labels/train/a.txt
a line      class cx cy width height, a box; or class x1 y1 x2 y2 x3 y3 ..., an outline
no line     no object; so, too, where the file is missing
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from os.path import isdir, isfile  # False for names that no file can have, where Path raises
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from eyeline.data.faults import STRICT, Fault, Faults
from eyeline.data.formats.annotations import (
    CLASS_LIST,
    Annotations,
    Object,
    Record,
    picture_size,
    read_class_list,
    read_text,
    record_of,
)
from eyeline.data.formats.fitting import SEPARATE, extent
from eyeline.data.formats.numbers import plain, shortest
from eyeline.data.formats.pictures import place_picture
from eyeline.data.images import SUFFIXES
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import Segmentation

NAME = "yolo"
TITLE = "YOLO"
LAYOUT = "data.yaml with names and train, or images/ and labels/*.txt"
FILES: tuple[str, ...] = ()
HOLDS = frozenset(("polygons", "empty", "blanks", "folders", *SEPARATE))

FARTHEST = 10.0  # a coordinate beyond it is in pixels, not relative
DIGITS = 6  # behind the point of an outline's corner in pixels


class Description(NamedTuple):
    """What data.yaml tells, or the folders without it."""

    classes: list[str] | None
    pictures: dict[str, list[Path]]  # of each split: folders, or .txt files that list pictures
    root: Path  # to which listed pictures are relative
    missing: Mapping[str, Fault] = MappingProxyType({})  # splits that are named, but not there


def splits(path: Path) -> list[str] | None:
    try:
        found = _described(path)
    except EyelineError:
        return ["train"]  # it is one, and `read` will say what is wrong with it
    return None if found is None else list(found.pictures)


def read(
    path: Path,
    split: str,
    classes: Sequence[str] | None = None,
    faults: Faults = STRICT,
    **options: Any,
) -> Annotations:
    found = _described(path)
    if found is None or split not in found.pictures:
        raise Fault("file", path, f"no split {split!r} in YOLO's form")
    if split in found.missing:
        raise found.missing[split]
    names = found.classes or (None if classes is None else list(classes))
    if names is None:
        what = "the classes have no names; give them in data.yaml as names, or in classes.txt"
        raise Fault("class", path, what)
    places = found.pictures[split]
    pictures = [file for place in places for file in _pictures(place, found.root, faults)]
    labels = [_label_file(picture) for picture in pictures]
    if pictures and not any(file.is_file() for file in labels):
        what = f"no picture of {split!r} has its label file; the first would be {labels[0]}"
        raise Fault("file", path, what)
    records = []
    for i, (picture, file) in enumerate(zip(pictures, labels, strict=True)):
        with faults:
            records.append(_record(picture, file, names, i, faults))
    known = set(labels)
    folders = dict.fromkeys(file.parent for file in labels)
    alone = sum(
        file not in known and file.name != CLASS_LIST
        for folder in folders
        for file in folder.glob("*.txt")
        if all(place.is_dir() for place in places)
    )
    unread = [f"{alone} label file(s) without a picture"] if alone else []
    return Annotations(names, records, f"{path}, {split}", unread=unread)


def write(
    splits: Mapping[str, Annotations], folder: Path, names: Mapping[Path, str], link: bool
) -> None:
    """data.yaml, images/SPLIT/ and labels/SPLIT/*.txt."""
    lines = [f"{json.dumps(split)}: {json.dumps(f'images/{split}')}" for split in splits]
    lines += ["names:"]
    for k, name in enumerate(next(iter(splits.values())).classes):
        lines.append(f"  {k}: {json.dumps(name, ensure_ascii=False)}")
    (folder / "data.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for split, data in splits.items():
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for record in data.records:
            picture = folder / "images" / split / names[record.path]
            place_picture(record.path, picture, link)
            text = "".join(_line(record, i) + "\n" for i in range(len(record.boxes)))
            (folder / "labels" / split / f"{picture.stem}.txt").write_text(text, encoding="utf-8")


def _line(record: Record, i: int) -> str:
    """One object, with so few digits that it is read again as it was."""
    outline: Any = record.segmentations[i] if record.segmentations else []
    sides = np.array([record.width, record.height], np.float64)
    if outline:
        both = sides.tolist()  # NumPy's numbers round in another way than those that are read
        values = [_share(v, both[k % 2]) for k, v in enumerate(outline[0])]
    else:
        box = record.boxes[i].astype(np.float64)
        centre, size = (box[:2] + box[2:]) / 2 / sides, (box[2:] - box[:2]) / sides
        exact = np.concatenate([centre, size])
        tries = (exact.round(digits) for digits in range(DIGITS, 17))
        same = (t for t in tries if (_box(t, sides) == record.boxes[i]).all())
        values = next(same, exact).tolist()
    return " ".join([str(record.labels[i]), *map(plain, values)])


def _share(value: float, side: float) -> float:
    return shortest(value / side, lambda share: round(share * side, DIGITS) == value, DIGITS)


def _box(values: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """(4,) centre and size, relative -> float32 corners in pixels."""
    centre, size = values[:2], values[2:]
    corners = np.concatenate([centre - size / 2, centre + size / 2])
    corners *= np.tile(sides, 2)
    return corners.astype(np.float32)


def _record(picture: Path, file: Path, classes: list[str], image_id: int, faults: Faults) -> Record:
    height, width = picture_size(picture)
    objects = []
    text = read_text(file) if file.is_file() else ""
    for number, line in enumerate(text.splitlines(), 1):
        with faults:
            if line.strip():
                objects.append(_object(line, f"{file}:{number}", classes, height, width))
    return record_of(picture, (height, width), objects, image_id, outlines=True)


def _object(line: str, where: str, classes: list[str], height: int, width: int) -> Object:
    try:
        values = np.array([float(word) for word in line.split()])
    except ValueError:
        raise Fault("field", where, f"should be numbers, not {line.strip()[:60]!r}") from None
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        what = (
            "should be a class and 4 numbers of a box, or the x and y of at least 3 corners, "
            f"not {len(values)} numbers"
        )
        raise Fault("field", where, what)
    if values[0] not in range(len(classes)):
        what = f"there is no class {values[0]:g}; {len(classes)} have names, from 0 on"
        raise Fault("class", where, what)
    label, shares = int(values[0]), values[1:]
    if not (np.abs(shares) <= FARTHEST).all():
        worst = shares[~(np.abs(shares) <= FARTHEST)][0]
        what = "coordinates are shares of the picture's width and height, from 0 to 1"
        raise Fault("field", where, f"{what}, not {worst:g}")
    sides = np.array([width, height], np.float64)
    if len(shares) == 4:
        return Object(where, label, _box(shares, sides))
    corners = (shares.reshape(-1, 2) * sides).ravel().tolist()
    outline: Segmentation = [[round(value, DIGITS) for value in corners]]
    return Object(where, label, extent(outline, height, width), segmentation=outline)


def _label_file(picture: Path) -> Path:
    """.../images/a/b.jpg -> .../labels/a/b.txt; beside the picture where no folder is "images"."""
    parts = list(picture.parent.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts) / f"{picture.stem}.txt"


def _pictures(place: Path, root: Path, faults: Faults) -> list[Path]:
    """The pictures in a folder and below it, or those that a .txt file lists."""
    if place.is_dir():
        return sorted(
            file
            for file in place.rglob("*")
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        )
    found = []
    for number, line in enumerate(read_text(place).splitlines(), 1):
        if not (name := line.strip()):
            continue
        near = [folder / name for folder in (root, place.parent)]
        picture = next((file for file in near if isfile(file)), None)
        with faults:
            if picture is None:
                raise Fault("picture", f"{place}:{number}", f"no such picture: {near[0]}")
            found.append(picture)
    return found


def _described(path: Path) -> Description | None:
    """None where the folder or file is not of this format."""
    if path.is_file():
        return _from_yaml(path) if path.suffix.lower() in (".yaml", ".yml") else None
    for file in sorted([*path.glob("*.yaml"), *path.glob("*.yml")]):
        if found := _from_yaml(file):
            return found
    images, labels = path / "images", path / "labels"
    if not (images.is_dir() and labels.is_dir()) or any(labels.glob("*.json")):  # LabelMe's
        return None
    classes = read_class_list(path) or read_class_list(labels)
    inside = sorted(folder for folder in images.iterdir() if folder.is_dir())
    pictures = {folder.name: [folder] for folder in inside} or {"train": [images]}
    return Description(classes, pictures, path)


def _from_yaml(file: Path) -> Description | None:
    """What a YAML file with names and splits tells; None of any other."""
    if not re.search(rb"^[\"']?names[\"']?\s*:", file.read_bytes(), re.MULTILINE):
        return None
    text = read_text(file)
    try:
        content = YAML(typ="base", pure=True).load(text)  # every scalar is a string
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Fault("file", f"{file}:{line}", f"not valid YAML: {error.problem}") from None
    except YAMLError as error:
        raise Fault("file", file, f"not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        return None
    root = file.parent / str(content.get("path") or ".")
    root = root if isdir(root) else file.parent  # where the files lay when it was written
    pictures: dict[str, list[Path]] = {}
    absent: dict[str, Fault] = {}
    for key, value in content.items():
        values = value if isinstance(value, list) else [value]
        if (
            key in ("path", "names", "nc")
            or not values
            or not all(isinstance(v, str) and v for v in values)
        ):
            continue
        places = [_place(root, name) for name in values]
        if None not in places:
            pictures[key] = [place for place in places if place]
        elif key in ("train", "val", "test"):
            what = f"there is no {root / values[places.index(None)]}; add it, or take out the line"
            absent[key] = Fault("picture", _at(file, text, key), what)
            pictures[key] = []
    if not pictures:
        return None
    return Description(_names(file, text, content), pictures, root, absent)


def _place(root: Path, name: str) -> Path | None:
    """A folder or a list; "../train/images", as some tools write it, may mean "train/images"."""
    for candidate in (root / name, root / name.removeprefix("../")):
        if isdir(candidate) or (candidate.suffix == ".txt" and isfile(candidate)):
            return candidate
    return None


def _names(file: Path, text: str, content: dict[str, Any]) -> list[str]:
    names, where = content.get("names"), _at(file, text, "names")
    if isinstance(names, dict):
        numbers = list(map(str, names))
        if sorted(numbers, key=lambda n: (len(n), n)) != [str(k) for k in range(len(numbers))]:
            what = f"should number the classes 0, 1, 2 ..., not {', '.join(numbers[:9])}"
            raise Fault("class", where, what)
        names = [names[str(k)] for k in range(len(numbers))]
    if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names):
        raise Fault("class", where, "should be a list of names, or numbers and names")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Fault("class", where, f"the class {twice!r} is there twice")
    if (count := content.get("nc")) not in (None, "", str(len(names))):
        what = f"is {count}, but there are {len(names)} names"
        raise Fault("class", _at(file, text, "nc"), what)
    return names


def _at(file: Path, text: str, key: str) -> str:
    """The place of a key, for messages."""
    lines = [i for i, line in enumerate(text.splitlines(), 1) if line.strip("\"'").startswith(key)]
    return f"{file}:{lines[0] if lines else 1}: {key}"
