"""The annotation of one picture, out of whatever annotated data it is in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from eyeline.data.datasets import DetectionDataset
from eyeline.data.formats import Annotations, recognise, with_classes
from eyeline.data.formats.voc import read_voc_file
from eyeline.errors import EyelineError
from eyeline.structures import Target


def annotated_picture(
    source: str | Path, picture: str | Path, classes: Sequence[str], masks: bool = False
) -> tuple[Tensor, Target]:
    """A picture (3, H, W) uint8 and its target, with the labels that `classes` gives the names.

    Args:
        source: a COCO .json, a Pascal VOC .xml, or a folder of either form, all splits of it.
        picture: found there by its file name; it may lie elsewhere.
        masks: decode them where they are annotated.

    Raises EyelineError where the picture is not annotated there, or an object's class is not one
    of `classes`. Boxes that cannot be meant are left out.
    """
    source, picture = Path(source), Path(picture)
    if not picture.is_file():
        raise EyelineError(f"{picture}: no such picture")
    same, named = [], []
    for part in _read(source, picture):
        for record in part.records:
            if record.path.name == picture.name:
                own = Annotations(part.classes, [replace(record, path=picture)], str(source))
                named.append(own)
                if record.path.resolve() == picture.resolve():
                    same.append(own)
    found = same or named
    if len(found) != 1:
        count = f"{len(found)} pictures are" if found else "no picture is"
        raise EyelineError(f"{source}: {count} named {picture.name}; give its own annotation")
    data = DetectionDataset(with_classes(found[0], list(classes)), bad_boxes="drop")
    if masks and data.has_masks:
        data.use_masks()
    return data[0]


def _read(source: Path, picture: Path) -> list[Annotations]:
    """Those in which the picture may be."""
    if source.suffix.lower() == ".xml" and source.is_file():
        return [read_voc_file(source, picture)]
    found, folder = recognise(source)
    if found.NAME == "voc":
        return [_voc_file(folder, picture)]
    return [found.read(folder, split) for split in found.splits(folder) or []]


def _voc_file(root: Path, picture: Path) -> Annotations:
    path = root / "Annotations" / f"{picture.stem}.xml"
    if not path.is_file():
        raise EyelineError(f"{path}: no such file, the picture's annotation")
    return read_voc_file(path, picture)
