"""Folders of masks in which a pixel's value is the number of an object, from 1 on; 0 is none.

PNGImages/NAME.png, PedMasks/NAME_mask.png and Annotation/NAME.txt, as Penn-Fudan has them (Wang et
al., "Object Detection Combining Recognition and Segmentation", ACCV 2007); or images/ and
instances/ beside Annotation/. A line of Annotation/NAME.txt,

Original label for object 1 "PASpersonWalking" : "PennFudanPed"

tells the class of an object; of its boxes the masks tell more. Where classes.txt lists one name,
all objects are of that class, and Annotation/ need not be there.

The splits are listed in ImageSets/SPLIT.txt, which Penn-Fudan does not have: there all is "train".
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eyeline.data.faults import STRICT, Fault, Faults
from eyeline.data.formats.annotations import (
    CLASS_LIST,
    Annotations,
    Object,
    Record,
    read_class_list,
    read_text,
    record_of,
    with_classes,
    write_class_list,
)
from eyeline.data.formats.mask_folders import Part, has_masks, listed_parts, mask_values, pairs
from eyeline.data.formats.pictures import place_records
from eyeline.data.formats.raster import mask_extent, painted
from eyeline.ops.segmentations import decode_masks, encode_rle

NAME = "instances"
TITLE = "instance masks"
LAYOUT = "PNGImages/ and PedMasks/*_mask.png, or images/ and instances/*.png"
FILES: tuple[str, ...] = ()
HOLDS = frozenset(("masks", "objects", "sizes", "empty", "blanks"))
FOLDERS = (("PNGImages", "PedMasks"), ("images", "instances"))
TEXTS, LISTS = "Annotation", "ImageSets"
ENDINGS = ("_mask", "")  # of a mask's stem
LINE = re.compile(r'Original label for object (\d+) "(.*)" : ')
HEADER = """\
# Compatible with PASCAL Annotation Version 1.00
Image filename : "{}"
Image size (X x Y x C) : {} x {} x 3
Objects with ground truth : {} {{ {} }}
# Top left pixel co-ordinates : (1, 1)
"""
OBJECT = """\
# Details for object {0} ("{1}")
Original label for object {0} "{1}" : "{1}"
Bounding box for object {0} "{1}" (Xmin, Ymin) - (Xmax, Ymax) : ({2}, {3}) - ({4}, {5})
Pixel mask for object {0} "{1}" : "{6}"
"""


def splits(path: Path) -> list[str] | None:
    return list(_parts(path)) or None


def read(
    path: Path,
    split: str,
    classes: Sequence[str] | None = None,
    faults: Faults = STRICT,
    **options: Any,
) -> Annotations:
    parts = _parts(path)
    if split not in parts:
        raise Fault("file", path, f"no split {split!r}; there are: {', '.join(parts)}")
    found, unread = pairs(parts[split], ENDINGS, faults)
    listed = read_class_list(path)
    only = listed[0] if listed and len(listed) == 1 else None
    names: set[str] = {only} if only else set()
    pictures: list[tuple[Path, Path, dict[int, str]]] = []  # with the names of their objects
    for picture, mask in found:
        with faults:
            own = {} if only else _told(_text(path, picture))
            names |= set(own.values())
            pictures.append((picture, mask, own))
    order = sorted(names)
    records: list[Record] = []
    for picture, mask, own in pictures:
        with faults:
            told = {number: order.index(name) for number, name in own.items()}
            where = _text(path, picture)
            records.append(_record(picture, mask, told, where, bool(only), len(records), faults))
    annotations = Annotations(order, records, f"{path}, {split}", unread=unread)
    if classes is not None:
        return annotations
    if listed is None:  # those of all splits, so that they have the same labels
        apart = Faults(faults.gather)  # what is wrong in other splits is told of them
        for text in sorted((path / TEXTS).glob("*.txt")):
            with apart:
                names |= set(_told(text).values())
        listed = sorted(names)
    return with_classes(annotations, listed, faults=faults)


def write(
    splits: Mapping[str, Annotations], folder: Path, names: Mapping[Path, str], link: bool
) -> None:
    """PNGImages/, PedMasks/, Annotation/, ImageSets/SPLIT.txt and classes.txt."""
    pictures, masks = (folder / name for name in FOLDERS[0])
    for name in (masks, folder / TEXTS, folder / LISTS):
        name.mkdir()
    classes = next(iter(splits.values())).classes

    def text(record: Record) -> bytes:
        return _text_of(record, names[record.path], classes).encode()

    place_records(splits, names, pictures, masks, "_mask.png", _mask_of, link)
    stems = place_records(splits, names, pictures, folder / TEXTS, ".txt", text, link)
    for split, listed in stems.items():
        path = folder / LISTS / f"{split}.txt"
        path.write_text("".join(f"{stem}\n" for stem in listed), encoding="utf-8")
    write_class_list(folder, classes)


def _mask_of(record: Record) -> bytes:
    """The PNG whose values are the numbers of the objects, of 16 bits where there are many."""
    masks = decode_masks(record.segmentations or [], record.height, record.width)
    pixels = painted(masks, record.iscrowd) + 1
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8 if len(masks) < 256 else np.uint16)).save(file, "PNG")
    return file.getvalue()


def _text_of(record: Record, name: str, classes: Sequence[str]) -> str:
    labels = [classes[label] for label in record.labels]
    quoted = " ".join(f'"{label}"' for label in labels)
    picture, mask = (f"{folder}/{name}" for folder in FOLDERS[0])
    mask = f"{Path(mask).with_suffix('')}_mask.png"
    parts = [HEADER.format(picture, record.width, record.height, len(labels), quoted)]
    for number, (label, box) in enumerate(zip(labels, record.boxes.astype(int), strict=True), 1):
        x1, y1, x2, y2 = box.tolist()
        parts.append(OBJECT.format(number, label, x1 + 1, y1 + 1, x2, y2, mask))
    return "\n".join(parts)


def _parts(path: Path) -> dict[str, Part]:
    """The splits; {} of other folders."""
    for pictures, masks in ((path / a, path / b) for a, b in FOLDERS):
        if pictures.is_dir() and has_masks(masks):
            return listed_parts(pictures, masks, path / LISTS)
    return {}


def _text(root: Path, picture: Path) -> Path:
    return root / TEXTS / f"{picture.stem}.txt"


def _told(text: Path) -> dict[int, str]:
    """The names of a picture's objects by their numbers. Raises Fault where they are not told."""
    if not text.is_file():
        what = f"it is not there, and {CLASS_LIST} does not list one class for all objects"
        raise Fault("file", text, what)
    names: dict[int, str] = {}
    for number, line in enumerate(read_text(text).splitlines(), 1):
        if match := LINE.match(line):
            if int(match[1]) in names:
                raise Fault("reference", f"{text}:{number}", f"object {match[1]} is there twice")
            if not match[2].strip():
                raise Fault("class", f"{text}:{number}", "the object has no name")
            names[int(match[1])] = match[2].strip()
    return names


def _record(
    picture: Path,
    mask: Path,
    told: Mapping[int, int],
    text: Path,
    alike: bool,
    image_id: int,
    faults: Faults,
) -> Record:
    """
    Args:
        told: the labels of the objects by their numbers.
        alike: there is but one class, and nothing is told.
    """
    numbers = mask_values(mask)
    if numbers.ndim == 3:
        raise Fault("field", mask, "its pixels are colours; they should be objects' numbers")
    there = [number for number in np.unique(numbers).tolist() if number]
    for number in sorted(told.keys() - set(there)):
        with faults:
            raise Fault("reference", text, f"object {number} has no pixel in {mask}")
    objects = []
    for number in there:
        with faults:
            if number not in told and not alike:
                raise Fault("class", mask, f"the class of object {number} is not told in {text}")
            own = numbers == number
            label = 0 if alike else told[number]
            [encoded] = encode_rle(own[None])
            where = f"{mask}: object {number}"
            objects.append(Object(where, label, mask_extent(own), segmentation=encoded))
    height, width = numbers.shape
    return record_of(picture, (height, width), objects, image_id, outlines=True)
