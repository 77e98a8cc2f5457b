"""Annotation formats: one file reads one format; `open_annotations` finds out which it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eyeline.data.formats.annotations import Annotations, Record
from eyeline.data.formats.coco import coco_splits, find_coco, read_coco
from eyeline.data.formats.voc import find_voc, read_voc
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import Segmentation

__all__ = ["Annotations", "Record", "Segmentation", "open_annotations", "read_coco", "read_voc"]


def open_annotations(
    path: str | Path, split: str, classes: Sequence[str] | None = None, one_based: bool = False
) -> Annotations:
    """Read one split of whatever annotated data lies at `path`.

    COCO: a folder with annotations/instances_SPLIT.json, instances_SPLIT2017.json, SPLIT.json
    or SPLIT/_annotations.coco.json, or such a file itself, which is its own split whatever
    `split` says; pictures in SPLIT/, images/SPLIT/, images/ or beside.
    Pascal VOC: a folder with Annotations/, JPEGImages/ and ImageSets/Main/SPLIT.txt, or one that
    holds such a folder at most two levels down (VOCdevkit/VOC2007).

    Args:
        path: folder, or a COCO file.
        split: "train", "val", "test" ...
        classes: names for the labels of VOC, which has no list of its own; see `read_voc`.
        one_based: VOC's corners count pixels from 1; see `read_voc`.

    Raises:
        EyelineError: nothing there, no known format, no such split, or the file is broken.
    """
    path = Path(path)
    if not path.exists():
        raise EyelineError(f"{path}: no such file or folder")
    if path.is_file():
        if path.suffix.lower() != ".json":
            raise EyelineError(f"{path}: neither a folder nor a COCO .json file")
        return read_coco(path)
    root = find_voc(path, (".",))
    if root is None and (splits := coco_splits(path)):
        return read_coco(find_coco(path, split, splits))
    if root := root or find_voc(path, ("*", "*/*")):
        return read_voc(root, split, classes, one_based)
    raise EyelineError(
        f"{path}: no annotations of a known format; looked for COCO (annotations/instances_*.json, "
        "*.json) and Pascal VOC (Annotations/, JPEGImages/ and ImageSets/Main/)"
    )
