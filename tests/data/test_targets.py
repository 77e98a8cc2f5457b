"""A class for every pixel, of any record with masks. Folders of masks: formats/test_semantic.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eyeline.data.formats import REGION, Record, open_annotations
from eyeline.data.targets import semantic_target
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import decode_masks, encode_rle


@pytest.fixture
def record() -> Record:
    """A square, a crowd over all, a square over the first, a region on both."""
    whole = encode_rle(np.ones((1, 4, 6), bool))[0]
    region = np.zeros((1, 4, 6), bool)
    region[0, 3] = True
    return Record(
        path=Path("a.png"),
        width=6,
        height=4,
        boxes=np.zeros((4, 4), np.float32),
        labels=np.array([3, 0, 1, REGION]),
        iscrowd=np.array([False, True, False, True]),
        segmentations=[
            [[0, 0, 4, 0, 4, 3, 0, 3]], whole, [[2, 1, 6, 1, 6, 4, 2, 4]], encode_rle(region)[0]
        ],
        image_id=0,
        where=["a", "b", "c", "d"],
    )  # fmt: skip


def test_later_objects_lie_on_top_and_the_ignored_below(record: Record) -> None:
    target = semantic_target(record)
    assert target.dtype == np.int64
    assert target.tolist() == [
        [3, 3, 3, 3, 255, 255],
        [3, 3, 1, 1, 1, 1],
        [3, 3, 1, 1, 1, 1],
        [255, 255, 1, 1, 1, 1],
    ]


def test_pixels_without_an_object(record: Record) -> None:
    assert record.segmentations
    alone = replace(
        record,
        labels=record.labels[:1],
        iscrowd=record.iscrowd[:1],
        segmentations=record.segmentations[:1],
        where=["a"],
    )
    assert semantic_target(alone)[3].tolist() == [255] * 6
    assert semantic_target(alone, outside=80)[0].tolist() == [3, 3, 3, 3, 80, 80]
    nothing = replace(alone, labels=alone.labels[:0], iscrowd=alone.iscrowd[:0],
                      segmentations=None, where=[])  # fmt: skip
    assert semantic_target(nothing, outside=0).tolist() == [[0] * 6] * 4


def test_what_has_no_mask_is_named(record: Record) -> None:
    assert record.segmentations
    record.segmentations[2] = []
    with pytest.raises(EyelineError, match=r"^c: the object has no mask"):
        semantic_target(record)
    record.segmentations[2] = {"size": [4, 4], "counts": [16]}
    with pytest.raises(EyelineError, match=r"^a.png: cannot decode its masks: a mask of size"):
        semantic_target(record)


def test_coco(shared_data: Path) -> None:
    """Against a plain loop over the objects of each picture."""
    data = open_annotations(shared_data / "tiny_coco", "val")
    crowds = 0
    for record in data.records[::3]:
        slow = np.full((record.height, record.width), 255)
        masks = decode_masks(record.segmentations or [], record.height, record.width)
        for label, crowd, mask in zip(record.labels, record.iscrowd, masks, strict=True):
            crowds += crowd
            if not crowd:
                slow[mask] = label
        assert (semantic_target(record) == slow).all()
    assert len(data.records) == 50 and crowds > 0
