"""Folders of masks in which a pixel's value, or its colour, is a class.

images/ and masks/    the pictures, and PNGs (TIFFs, BMPs) of the same stems, there or in a folder a
                      split; also annotations/ or labels/
SPLIT/ and SPLITannot/                      as SegNet packs CamVid; also SPLIT_labels/
SPLIT/images/ and SPLIT/masks/
JPEGImages/ and SegmentationClass/, with ImageSets/Segmentation/SPLIT.txt    as CVAT writes them;
                      Pascal VOC's own are read so where the format is named

What the values mean is listed in the folder: see `eyeline.data.formats.legend`. Where it lists one
class alone, and grey masks hold 0 and 255 alone, white is the class, and black nothing.

A picture is read as one object a class: its mask, and the box around it. Pixels to be ignored
are a region. Written, a later object covers an earlier one, and both cover regions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from eyeline.data.faults import STRICT, Fault, Faults
from eyeline.data.formats.annotations import (
    CLASS_LIST,
    REGION,
    Annotations,
    Object,
    Record,
    picture_size,
    record_of,
    write_class_list,
)
from eyeline.data.formats.legend import (
    BACKGROUND,
    COLOURED,
    NOTHING,
    VOID,
    VOIDS,
    Legend,
    Values,
    listed,
    read_legend,
)
from eyeline.data.formats.mask_folders import (
    MASK,
    Part,
    has_masks,
    has_pictures,
    listed_parts,
    mask_values,
    pairs,
)
from eyeline.data.formats.pictures import place_picture
from eyeline.data.formats.raster import mask_extent, painted
from eyeline.data.palette import class_palette
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import decode_masks, encode_rle

T = TypeVar("T")

NAME = "semantic"
TITLE = "semantic masks"
LAYOUT = "images/ and masks/*.png, or SPLIT/ and SPLITannot/*.png"
FILES: tuple[str, ...] = ()
HOLDS = frozenset(("masks", "regions", "sizes", "empty", "blanks", "folders"))
FOLDERS = ("masks", "annotations", "labels")
BEHIND = ("annot", "_labels", "_masks")  # CamVid's, and others' names of a split's masks
ENDINGS = ("", "_mask", "_L", "_label")  # of a mask's stem; CamVid's own are NAME_L.png
LOOKED = 8  # masks of a split that are read at once, where all are read later
IGNORED = "where 255 is to be ignored, set data.ignore=[255]"
MOST = VOID - 1  # classes; one value is left for nothing


def splits(path: Path) -> list[str] | None:
    return list(_parts(path)) or None


def read(
    path: Path,
    split: str,
    classes: Sequence[str] | None = None,
    faults: Faults = STRICT,
    values: Values | None = None,
    lazy: bool = False,
    **options: Any,
) -> Annotations:
    """See `Format.read`.

    Args:
        values: what the numbers mean, where they are not those of the classes.
        lazy: of all masks but a few only the sizes are read, and records have no objects: it is
            quick, and enough where `Record.mask` is read later.
    """
    part = _part(path, split)
    legend = legend_of(path, classes, values)
    found, unread = pairs(part, ENDINGS, faults)
    records = []
    for i, (picture, mask) in enumerate(found):
        with faults:
            if lazy:
                record = record_of(picture, picture_size(mask), [], i, outlines=True)
            else:
                record = _record(picture, mask, legend, i, faults)
            records.append(replace(record, mask=mask))
    looked = records
    if lazy:
        looked = []
        for picture, mask in _some(found):
            with faults:
                looked.append(_record(picture, mask, legend, 0, faults))
    labels = {label for record in looked for label in record.labels.tolist()}
    if REGION in labels and labels <= {REGION, legend.label_of.get(0)}:
        refuse_black_and_white([mask for _, mask in _some(found)], legend, values)
    return Annotations(legend.classes, records, f"{path}, {split}", unread=unread, legend=legend)


def read_targets(
    path: Path, split: str, classes: Sequence[str] | None = None, values: Values | None = None
) -> tuple[Legend, list[tuple[Path, Path]]]:
    """What the masks of a split mean, and each picture with its mask; for `read_target`.

    Args:
        classes: names of the numbers, where the folder does not list them.
        values: what the numbers mean, where they are not those of the classes.
    """
    return legend_of(path, classes, values), pairs(_part(path, split), ENDINGS, STRICT)[0]


def legend_of(path: Path, classes: Sequence[str] | None, values: Values | None) -> Legend:
    """What the masks of a folder, in all its splits, mean.

    Raises Fault as `read_legend`, and where white seems to be the one class that a caller names:
    with a background he has two, and then the folder has to tell."""
    legend = read_legend(path, classes, values)
    numbers = {value: label for value, label in legend.label_of.items() if value != VOID}
    alone = numbers in ({0: 0}, {0: NOTHING, 1: 0})  # one class, and nothing but it
    if legend.coloured or not alone or values not in (None, Values()):
        return legend
    parts = [pairs(part, ENDINGS, Faults(gather=True))[0] for part in _parts(path).values()]
    seen = _seen(mask for part in parts for _, mask in _some(part))
    if seen == {0}:  # small things are in few pictures
        each = (_seen([mask]) for part in parts for _, mask in part)
        seen = next((values for values in each if values > {0}), seen)
    if not seen or not seen <= {0, VOID}:
        return legend
    if listed(path) is None:
        what = (
            f"the masks have no other value than 0 and 255; where white is {legend.classes[0]!r}, "
            f"name it in {CLASS_LIST}, alone; {IGNORED}"
        )
        raise Fault("class", path, what)
    return replace(legend, label_of=legend.label_of | {0: NOTHING, VOID: 0})


def root_of(mask: Path) -> Path | None:
    """The folder in which a mask lies among those of a split; None: it lies elsewhere."""
    mask = Path(os.path.abspath(mask))
    for folder in mask.parents[1:3]:
        with suppress(PermissionError):
            if any(part.masks == mask.parent for part in _parts(folder).values()):
                return folder
    return None


def read_target(mask: Path, legend: Legend, outside: int = VOID) -> np.ndarray:
    """(H, W) int64: the label of each pixel, 255 for those to be ignored.

    It equals `eyeline.data.targets.semantic_target` of the record, and encodes no masks.

    Args:
        outside: the label of pixels where nothing is.
    """
    return legend.labels(mask, STRICT, VOID, outside)


def write(
    splits: Mapping[str, Annotations], folder: Path, names: Mapping[Path, str], link: bool
) -> None:
    """images/SPLIT/, masks/SPLIT/*.png, whose values are the labels, and classes.txt."""
    classes = next(iter(splits.values())).classes
    _check(classes)
    palette = class_palette(len(classes)).tobytes()
    bare = False  # are there pixels where nothing is?
    for split, data in splits.items():
        (folder / "masks" / split).mkdir(parents=True)
        for record in data.records:
            name = names[record.path]
            place_picture(record.path, folder / "images" / split / name, link)
            masks = decode_masks(record.segmentations or [], record.height, record.width)
            values = [VOID if label == REGION else label for label in record.labels]
            pixels = np.array([*values, len(classes)])[painted(masks, record.iscrowd)]
            bare |= bool((pixels == len(classes)).any())
            image = Image.fromarray(pixels.astype(np.uint8))
            image.putpalette(palette)
            image.save(folder / "masks" / split / f"{Path(name).stem}{MASK}")
    write_class_list(folder, [*classes, BACKGROUND] if bare else classes)


def _check(classes: Sequence[str]) -> None:
    if len(classes) > MOST:
        raise EyelineError(
            f"{len(classes)} classes; a mask has room for {MOST}; write another format"
        )
    for name in classes:
        if name == BACKGROUND or name.casefold() in VOIDS or COLOURED.fullmatch(name):
            raise EyelineError(
                f"a class is called {name!r}, which among masks has another meaning; rename it"
            )


def _part(path: Path, split: str) -> Part:
    parts = _parts(path)
    if split not in parts:
        raise Fault("file", path, f"no split {split!r}; there are: {', '.join(parts)}")
    return parts[split]


def _parts(path: Path) -> dict[str, Part]:
    """The splits; {} of other folders."""
    if not path.is_dir():
        return {}
    if has_masks(path / "SegmentationClass"):
        lists = path / "ImageSets" / "Segmentation"
        return listed_parts(path / "JPEGImages", path / "SegmentationClass", lists)
    images = path / "images"
    for masks in (path / name for name in FOLDERS):
        if images.is_dir() and masks.is_dir():
            inside = {f.name: Part(images / f.name, f) for f in _folders(masks) if has_masks(f)}
            if parts := {name: part for name, part in inside.items() if part.pictures.is_dir()}:
                return parts
            if has_masks(masks):
                return {"train": Part(images, masks)}
    folders = {folder.name: folder for folder in _folders(path)}
    beside = {
        name: Part(folder, folders[name + ending])
        for name, folder in folders.items()
        for ending in BEHIND
        if name + ending in folders
    }
    below = {
        name: Part(folder / "images", folder / masks)
        for name, folder in folders.items()
        for masks in FOLDERS
        if has_masks(folder / masks)
    }
    parts = {**beside, **below}
    return {n: p for n, p in parts.items() if has_masks(p.masks) and has_pictures(p.pictures)}


def _folders(path: Path) -> list[Path]:
    with os.scandir(path) as entries:  # which knows what is a folder, where Path asks the disk
        return sorted(Path(entry) for entry in entries if entry.is_dir())


def _record(picture: Path, mask: Path, legend: Legend, image_id: int, faults: Faults) -> Record:
    labels = legend.labels(mask, faults)
    objects = []
    found = (np.flatnonzero(np.bincount((labels - NOTHING).ravel())) + NOTHING).tolist()
    there = sorted(set(found) - {NOTHING}, key=lambda label: (label == REGION, label))
    masks = labels == np.array(there).reshape(-1, 1, 1)
    for label, own, encoded in zip(there, masks, encode_rle(masks), strict=True):
        name = "to be ignored" if label == REGION else legend.classes[label]
        objects.append(
            Object(
                where=f"{mask}: {name}",
                label=label,
                box=mask_extent(own),
                iscrowd=label == REGION,
                segmentation=encoded,
            )
        )
    height, width = labels.shape
    return record_of(picture, (height, width), objects, image_id, outlines=True)


def refuse_black_and_white(masks: Iterable[Path], legend: Legend, values: Values | None) -> None:
    """Raises Fault where white seems to be a class, for 255 would be nothing to learn from."""
    told = values is not None and (values.ignore or values.ids)
    if legend.coloured or told or legend.label_of.get(VOID) != REGION or not legend.classes:
        return
    masks = list(masks)
    if _seen(masks) == {0, VOID}:
        several = len(legend.classes) > 1
        black, white = legend.classes[:2] if several else (BACKGROUND, legend.classes[0])
        what = (
            "the masks have no other value than 0 and 255; where white is a class, list "
            f'colours in {CLASS_LIST}: "0 0 0 {black}" and "255 255 255 {white}"; {IGNORED}'
        )
        raise Fault("class", masks[0].parent, what)


def _seen(masks: Iterable[Path]) -> set[int]:
    """The numbers in grey masks, up to one that is neither 0 nor 255. None where a mask has a
    palette, in which 255 is mostly void."""
    seen: set[int] = set()
    for mask in masks:
        try:
            with Image.open(mask) as image:
                indexed = image.mode == "P"
            values = mask_values(mask)
        except (EyelineError, OSError, Image.DecompressionBombError):
            continue  # told where it is read
        if indexed or values.ndim == 3:
            return set()
        seen |= set(np.unique(values).tolist())
        if not seen <= {0, VOID}:
            break
    return seen


def _some(items: Sequence[T]) -> list[T]:
    """At most LOOKED of them, evenly spread."""
    chosen = np.unique(np.linspace(0, len(items) - 1, LOOKED).astype(int)) if items else []
    return [items[i] for i in chosen]
