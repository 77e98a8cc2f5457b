"""CVAT's XML, "CVAT for images 1.1": docs.cvat.ai, "XML annotation format".

<annotations>
  <meta><task><labels><label><name>cat</name>...
  <image id="0" name="a.jpg" subset="train" width="640" height="480">
    <box label="cat" occluded="0" xtl="1.50" ytl="2.00" xbr="30.00" ybr="40.25" z_order="0">
      <attribute name="truncated">true</attribute>
    </box>
    <polygon label="cat" points="1.00,2.00;3.00,4.00;5.00,2.00" group_id="1" ... />
    <mask label="cat" rle="3, 5, 7, 5" left="7" top="8" width="5" height="4" ... />

Runs of a mask go along its rows, the first is of zeros. Outlines of one label and one group_id are
one object. The pictures lie in images/ or images/SUBSET/ beside the file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from os.path import isfile  # False for names that no file can have, where Path raises
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring
from xml.parsers import expat

import numpy as np

from eyeline.data.faults import STRICT, Fault, Faults
from eyeline.data.formats.annotations import (
    Annotations,
    Record,
    picture_size,
    record_of,
    with_classes,
)
from eyeline.data.formats.fields import FLAGS, YES, beginning, numbers_of, short, size_of
from eyeline.data.formats.fitting import SEPARATE, extent
from eyeline.data.formats.markup import parse_xml, text_of
from eyeline.data.formats.naming import in_order, split_files
from eyeline.data.formats.numbers import decimal, plain
from eyeline.data.formats.outlines import (
    Shape,
    cropped,
    ellipse,
    objects_of,
    placed,
    polygon,
    rectangle,
    whole,
)
from eyeline.data.formats.pictures import place_picture
from eyeline.data.images import SUFFIXES
from eyeline.ops.segmentations import Segmentation, decode_masks

NAME = "cvat"
TITLE = "CVAT"
LAYOUT = "annotations.xml and images/, there or in a folder for each split"
FILES: tuple[str, ...] = ("*.xml", "*/*.xml")
HOLDS = frozenset(
    (
        "polygons",
        "digits",
        "parts",
        "masks",
        "sizes",
        "empty",
        "blanks",
        "folders",
        *SEPARATE,
        *FLAGS,
    )
)
SHAPES = ("box", "polygon", "ellipse", "mask")
UNREAD = ("polyline", "points", "cuboid", "skeleton", "tag")
CORNERS = ("xtl", "ytl", "xbr", "ybr")
SUBSETS = {"Train": "train", "Validation": "val", "Test": "test"}  # the names that CVAT proposes
NONE = ("", "default")  # of a picture in no subset
FIRST = 20  # XML files of a folder that are looked at


def splits(path: Path) -> list[str] | None:
    return list(_parts(path)) or None


def read(
    path: Path,
    split: str,
    classes: Sequence[str] | None = None,
    faults: Faults = STRICT,
    **options: Any,
) -> Annotations:
    file, subset = _parts(path)[split]
    tree, lines = parse_xml(file, ("image", *SHAPES))
    if tree.find("track") is not None:
        what = "tracks of a video, which are not read; export the task as CVAT for images 1.1"
        raise Fault("file", file, what)
    labels: dict[str, int] = {}
    unread: Counter[str] = Counter()
    seen: set[Path] = set()
    records: list[Record] = []
    for image in tree.findall("image"):
        if subset is not None and image.get("subset", "") != subset:
            continue
        with faults:
            where = f"{file}:{lines[image]}"
            picture = _picture(file, image, split, where)
            if picture in seen:
                raise Fault("reference", where, f"the picture {picture.name} is there twice")
            seen.add(picture)
            sides = image.get("height"), image.get("width")
            size = size_of(*sides, where) or picture_size(picture)
            shapes, broken = [], []
            for element in image:
                before = len(faults.found)
                with faults:
                    if element.tag in SHAPES:
                        shapes.append(_shape(element, f"{file}:{lines[element]}", size))
                        _count_attributes(element, unread)
                    elif element.tag in UNREAD:
                        unread[f"{element.tag}(s)"] += 1
                    else:
                        raise Fault("field", where, f"there is no shape {short(element.tag)}")
                if len(faults.found) > before:
                    broken.append(element.get("group_id"))
            objects = objects_of(whole(shapes, broken), labels, size)
            records.append(record_of(picture, size, objects, len(records), outlines=True))
    words = [f"{number} {what}" for what, number in unread.items()]
    data = Annotations(list(labels), records, f"{path}, {split}", unread=words)
    if (listed := _labels(tree)) and classes is None:
        return with_classes(data, listed, faults=faults)
    return in_order(data, file.parent, classes, None, faults)


def write(
    splits: Mapping[str, Annotations], folder: Path, names: Mapping[Path, str], link: bool
) -> None:
    """annotations.xml, with the splits as subsets, and images/SPLIT/."""
    classes = next(iter(splits.values())).classes
    tree = Element("annotations")
    SubElement(tree, "version").text = "1.1"
    labels = SubElement(SubElement(SubElement(tree, "meta"), "project"), "labels")
    for name in classes:
        label = SubElement(labels, "label")
        SubElement(label, "name").text = name
        SubElement(label, "type").text = "any"
        described = SubElement(label, "attributes")
        for flag in ("difficult", "truncated"):  # every shape has "occluded" by itself
            one = SubElement(described, "attribute")
            fields = {"name": flag, "mutable": "False", "input_type": "checkbox"}
            for key, value in {**fields, "default_value": "false", "values": ""}.items():
                SubElement(one, key).text = value
    count = 0
    for split, data in splits.items():
        for record in data.records:
            name = names[record.path]
            place_picture(record.path, folder / "images" / split / name, link)
            size = {"width": str(record.width), "height": str(record.height)}
            fields = {"id": str(count), "name": name, "subset": split, **size}
            image = SubElement(tree, "image", fields)
            count += 1
            for i in range(len(record.boxes)):
                _add(image, record, i, classes)
    indent(tree)
    text = tostring(tree, encoding="utf-8", xml_declaration=True)
    (folder / "annotations.xml").write_bytes(bytes(text) + b"\n")


def _add(image: Element, record: Record, i: int, classes: Sequence[str]) -> None:
    """The shapes of an object; several are of one group."""
    segmentation = record.segmentations[i] if record.segmentations else []
    parts: list[tuple[str, dict[str, str]]]
    if isinstance(segmentation, dict):
        [mask] = decode_masks([segmentation], record.height, record.width)
        part, left, top = cropped(mask)
        height, width = part.shape
        place = {"left": left, "top": top, "width": width, "height": height}
        fields = {"rle": ", ".join(map(str, _runs(part)))}
        parts = [("mask", fields | {key: str(value) for key, value in place.items()})]
    elif segmentation:
        outlines = [np.reshape(corners, (-1, 2)) for corners in segmentation]
        texts = [";".join(f"{plain(x)},{plain(y)}" for x, y in points) for points in outlines]
        parts = [("polygon", {"points": text}) for text in texts]
    else:
        corners = [plain(decimal(value)) for value in record.boxes[i]]
        parts = [("box", dict(zip(CORNERS, corners, strict=True)))]
    group = {"group_id": str(i + 1)} if len(parts) > 1 else {}
    for tag, fields in parts:
        occluded = {"occluded": str(int(record.attribute("occluded")[i]))}
        shared = {"label": classes[record.labels[i]], "source": "manual", **occluded}
        element = SubElement(image, tag, {**shared, **fields, "z_order": "0", **group})
        for flag in ("difficult", "truncated"):
            if record.attribute(flag)[i]:
                SubElement(element, "attribute", name=flag).text = "true"


def _runs(bitmap: np.ndarray) -> list[int]:
    """Lengths of the runs along the rows, the first of zeros."""
    line = np.concatenate([[False], bitmap.ravel()])
    ends = np.flatnonzero(np.diff(line))
    lengths: list[int] = np.diff(np.concatenate([[0], ends, [bitmap.size]])).tolist()
    return lengths


def _bitmap(runs: str, height: int, width: int, where: str) -> np.ndarray:
    lengths = [int(run) for run in numbers_of(runs.split(","), where, "rle")]
    if min(lengths) < 0 or sum(lengths) != height * width:
        what = f"the runs of rle are of {sum(lengths)} pixels, and the mask of {height * width}"
        raise Fault("field", where, what)
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(height, width)


def _parts(path: Path) -> dict[str, tuple[Path, str | None]]:
    """Of each split the file, and the subset, or None where all of the file is one split."""
    if path.is_file():
        return _parts_of(path, path.stem) if _is_cvat(path) else {}
    found: dict[str, tuple[Path, str | None]] = {}
    for name, file in split_files(path, _files).items():
        for split, part in _parts_of(file, name).items():
            found[f"{split}_{file.stem}" if split in found else split] = part
    return found


def _parts_of(file: Path, name: str) -> dict[str, tuple[Path, str | None]]:
    """Its subsets; where there are none the file is the split of this name."""
    subsets: dict[str, None] = {}

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "image":
            subsets[attributes.get("subset", "")] = None

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    with suppress(expat.ExpatError, ValueError, LookupError, OSError):  # `read` will tell
        parser.Parse(file.read_bytes(), True)
    if not any(subset not in NONE for subset in subsets):
        return {name: (file, None)}
    return {SUBSETS.get(subset, subset or "default"): (file, subset) for subset in subsets}


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.xml"))[:FIRST] if _is_cvat(file)]


def _is_cvat(path: Path) -> bool:
    """By the root element; Pascal VOC's is <annotation>."""
    if path.suffix.lower() != ".xml":
        return False
    return re.search(rb"<annotations[\s>]", beginning(path)) is not None


def _labels(tree: Element) -> list[str]:
    """The names of classes, but for those of nothing that has an area."""
    names: dict[str, None] = {}
    for label in tree.findall("meta//labels/label"):
        name = text_of(label, "name")
        if name and text_of(label, "type") not in UNREAD and label.find("parent") is None:
            names[name] = None
    return list(names)


def _shape(element: Element, where: str, size: tuple[int, int]) -> Shape:
    name, kind = element.get("label", "").strip(), element.tag
    if not name:
        raise Fault("class", where, f"the {kind} has no label")

    def numbers(*keys: str) -> list[float]:
        return numbers_of([element.get(key) for key in keys], where, ", ".join(keys))

    [degrees] = numbers_of([element.get("rotation", "0")], where, "rotation")
    group = element.get("group_id") if kind != "box" else None  # a box has no outline to join
    outline: list[float] | None = None
    segmentation: Segmentation = []
    if kind == "mask":
        left, top, width, height = map(round, numbers("left", "top", "width", "height"))
        bitmap = _bitmap(element.get("rle", ""), height, width, where)
        segmentation, box = placed(bitmap, left, top, size)
    elif kind == "box":
        box = np.array(numbers(*CORNERS))
        outline = rectangle(box.tolist(), degrees) if degrees % 360 else None
    elif kind == "ellipse":
        cx, cy, rx, ry = numbers("cx", "cy", "rx", "ry")
        outline = ellipse(cx, cy, rx, ry, degrees)
    else:
        points = [point.split(",") for point in element.get("points", "").split(";")]
        if any(len(point) != 2 for point in points):
            what = f"points should be x,y;x,y;..., not {short(element.get('points', ''))}"
            raise Fault("field", where, what)
        xs, ys = (numbers_of(values, where, "points") for values in zip(*points, strict=True))
        outline = polygon(xs, ys, where)
    if outline is not None:
        segmentation, box = [outline], extent([outline], *size)
    flags = {flag: _is_yes(element, flag) for flag in FLAGS}
    flags["occluded"] = max(flags["occluded"], float(element.get("occluded") == "1"))
    return Shape(where, name, box, segmentation, group or None, flags)


def _is_yes(element: Element, flag: str) -> float:
    """1 where the attribute is set, else 0."""
    own = [one.text or "" for one in element.iterfind("attribute") if one.get("name") == flag]
    return float(any(text.strip().lower() in YES for text in own))


def _count_attributes(element: Element, unread: Counter[str]) -> None:
    for attribute in element.iterfind("attribute"):
        if (name := attribute.get("name")) not in FLAGS:
            unread[f"shape(s) with the attribute {name!r}"] += 1


def _picture(file: Path, image: Element, split: str, where: str) -> Path:
    """In images/ or beside the file, there or in a folder of the subset's or the split's name; the
    frames of a video are named without a suffix."""
    name, subset = image.get("name", ""), image.get("subset")
    if not name:
        raise Fault("field", where, "the image has no name")
    folders = dict.fromkeys([subset or ".", split, "."])
    for suffix in ("", ".jpg", ".PNG", *sorted(SUFFIXES)):
        for root in ("images", "."):
            for folder in folders:
                picture = file.parent / root / folder / (name + suffix)
                if isfile(picture):
                    return picture
    raise Fault("picture", where, f"no such picture: {file.parent / 'images' / name}")
