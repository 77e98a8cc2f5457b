"""What a conversion would lose is said in words, and what can stay stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyeline.data.formats import REGION, Annotations, Record, format_named
from eyeline.data.formats.annotations import spread
from eyeline.data.formats.fitting import extent, fitted, joined, lost
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import decode_masks, encode_rle

COCO, VOC, YOLO, KITTI = (format_named(n).HOLDS for n in ("coco", "voc", "yolo", "kitti"))
SEMANTIC, INSTANCES = (format_named(name).HOLDS for name in ("semantic", "instances"))
SQUARE = [1, 1, 5, 1, 5, 4, 1, 4]


@pytest.fixture
def made(tmp_path: Path) -> Annotations:
    """A box, a crowd as a mask, an outline of two parts that is difficult, a region."""
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    mask = np.zeros((1, 6, 8), bool)
    mask[0, 1:4, 2:7] = True
    record = Record(
        path=tmp_path / "a.png",
        width=8,
        height=6,
        boxes=np.array([[0, 0, 3, 3], [2, 1, 7, 4], [1, 0, 8, 6], [4, 4, 8, 6]], np.float32),
        labels=np.array([0, 1, 1, REGION]),
        iscrowd=np.array([False, True, True, True]),
        segmentations=[[], encode_rle(mask)[0], [SQUARE, [6, 0, 8, 0, 8, 6.0000004]], []],
        image_id=5,
        where=[f"here:{i}" for i in range(4)],
        areas=np.array([9, 15, 3, 8], np.float32),
        attributes={
            "difficult": np.array([0.0, 0, 1, 0]),
            "truncated": np.array([0.3, 0, 1, 0]),
            "pose": np.array([2.0, 0, 0, 0]),
        },
    )
    return Annotations(["cat", "traffic light"], [record], "here", [3, 7], ["2 poems"])


def test_coco(made: Annotations) -> None:
    kept, words = fitted(made, COCO)
    assert words == [
        "1 region without a class becomes an ignored object of each class",
        "1 difficult object becomes crowd object",
        "truncated of 2 objects",
        "pose of 1 object",
        "2 poems",
    ]
    [record] = kept.records
    assert (
        record.labels.tolist() == [0, 1, 1, 0, 1]
        and record.iscrowd.tolist() == [False] + [True] * 4
    )
    assert record.segmentations == [*made.records[0].segmentations, []]
    assert kept.category_ids == [3, 7] and record.image_id == 5 and record.attributes == {}


def test_voc(made: Annotations) -> None:
    kept, words = fitted(made, VOC)
    assert words == [
        "1 region without a class becomes an ignored object of each class",
        "3 crowd objects become difficult objects",
        "how much 1 object becomes truncated",
        "pose of 1 object",
        "2 outlines become boxes",
        "1 annotated area, other than the box's",
        "the ids of pictures and classes",
        "2 poems",
    ]
    [record] = kept.records
    assert record.attribute("difficult").tolist() == [0, 1, 1, 1, 1]
    assert record.attribute("truncated").tolist() == [1, 0, 1, 0, 0]
    assert record.segmentations is None and record.areas is None and kept.category_ids is None


def test_yolo(made: Annotations) -> None:
    made.records[0].iscrowd[:3] = False
    made.records[0].attributes.pop("difficult")
    kept, words = fitted(made, YOLO)
    assert words == [
        "1 region to be ignored, without a class left out",
        "truncated of 2 objects",
        "pose of 1 object",
        "1 mask becomes outline of the same pixels",
        "digits of 1 outline beyond a millionth of a pixel",
        "1 outline of several parts becomes one, along lines between",
        "1 annotated area, other than the box's",
        "the ids of pictures and classes",
        "2 poems",
    ]
    [record] = kept.records
    assert record.boxes.tolist() == made.records[0].boxes[:3].tolist()
    first, second = decode_masks(made.records[0].segmentations[1:3], 6, 8)
    assert (decode_masks(record.segmentations[1:], 6, 8) == [first, second]).all()
    assert [len(outline) for outline in record.segmentations] == [0, 1, 1]


def test_kitti(made: Annotations) -> None:
    kept, words = fitted(made, KITTI)
    assert "1 crowd object becomes region to be ignored, without a class" in words
    assert "1 difficult object becomes region to be ignored, without a class" in words
    assert "blanks in 1 name of classes, now _" in words
    assert kept.classes == ["cat", "traffic_light"]
    assert kept.records[0].labels.tolist() == [0, REGION, REGION, REGION]
    assert kept.records[0].attribute("truncated").tolist() == [0.3, 0, 0, 0]
    made.classes[0] = "traffic_light"
    with pytest.raises(EyelineError, match="both be called 'traffic_light'"):
        lost(made, KITTI)


def test_what_is_lost_of_whole_pictures(made: Annotations) -> None:
    made.records[0].width = 9
    assert "1 annotated size, other than the picture's" not in lost(made, VOC)
    made.records[0].segmentations = None
    kept, words = fitted(made, YOLO - {"empty"})
    assert "1 annotated size, other than the picture's" in words
    assert kept.records[0].width == 8
    made.records[0].iscrowd[:] = True
    kept, words = fitted(made, YOLO - {"empty"})
    assert "1 picture without objects" in words and kept.records == []


def test_a_box_that_is_not_its_outline_s(made: Annotations) -> None:
    record = made.records[0]
    record.iscrowd[:] = False
    record.labels[3] = 0
    record.attributes.clear()
    record.segmentations = [[SQUARE], [], [], []]
    kept, words = fitted(made, YOLO)
    assert "1 box becomes the extent of the outline" in words
    assert kept.records[0].boxes[0].tolist() == [1, 1, 5, 4]
    record.segmentations = [[[1, 1, 2, 2]], [], [], []]  # two corners enclose nothing
    kept, words = fitted(made, YOLO)
    assert "1 part of outlines left out, with fewer than three corners" in words
    assert kept.records[0].boxes[0].tolist() == [0, 0, 3, 3]


@pytest.mark.parametrize(
    "bad",
    [[[1, 2, 3]], [[1, 2, float("nan"), 3, 4, 5]], {"size": [5, 5], "counts": [25]}, [[1, "x"]]],
)
def test_broken_outlines_are_named(made: Annotations, bad: object) -> None:
    made.records[0].segmentations[0] = bad
    with pytest.raises(EyelineError, match=r"^here:0: its segmentation: [^\n]*; mend it$"):
        fitted(made, YOLO)


def test_regions_spread_over_all_classes(made: Annotations) -> None:
    record = spread(made.records[0], 3)
    assert record.labels.tolist() == [0, 1, 1, 0, 1, 2]
    assert record.boxes[3:].tolist() == [[4, 4, 8, 6]] * 3 and record.iscrowd[3:].all()
    assert record.where[3:] == ["here:3"] * 3 and len(record.segmentations) == 6
    assert record.attribute("truncated").tolist() == [0.3, 0, 1, 0, 0, 0]


def test_what_regions_share_is_outlined_once(made: Annotations) -> None:
    """A region of 80 classes would else take 80 times as long."""
    region = encode_rle(np.eye(made.records[0].height, made.records[0].width)[None] > 0)[0]
    made.records[0].labels[3] = REGION
    made.records[0].segmentations = [[], [], [], region]
    kept, words = fitted(made, YOLO - {"masks"} | {"crowd"})
    shared = kept.records[0].segmentations[3:]
    assert len(shared) == len(made.classes) > 1
    assert shared[0] and all(other is shared[0] for other in shared)
    assert f"{len(shared)} masks become outlines of the same pixels" in words


def test_joined_outlines_cover_what_they_covered() -> None:
    parts = [[0, 0, 3, 0, 3, 3, 0, 3], [5, 1, 8, 1, 8, 5], [1, 4, 4, 4, 4, 6]]
    assert (decode_masks([[joined(parts)]], 6, 8) == decode_masks([parts], 6, 8)).all()
    assert extent([joined(parts)], 6, 8).tolist() == [0, 0, 8, 6]
    assert joined(parts[:1]) == parts[0]


def test_masks_of_classes(made: Annotations) -> None:
    """What is covered, what was a box, and that objects of a class become one."""
    kept, words = fitted(made, SEMANTIC)
    assert words == [
        "1 crowd object becomes region to be ignored, without a class",
        "1 difficult object becomes region to be ignored, without a class",
        "truncated of 2 objects",
        "pose of 1 object",
        "1 box becomes the extent of the outline",
        "1 outline becomes mask of pixels",
        "2 boxes without an outline become masks of all their pixels",
        "2 objects become one with others of their class",
        "2 objects without the pixels that others cover",
        "1 annotated area, other than the box's",
        "the ids of pictures and classes",
        "2 poems",
    ]
    [record] = kept.records
    assert record.labels.tolist() == [0, REGION] and record.iscrowd.tolist() == [False, True]
    assert record.boxes.tolist() == [[0, 0, 3, 3], [1, 0, 8, 6]]
    cat, ignored = decode_masks(record.segmentations, 6, 8)
    assert cat[:3, :3].all() and cat.sum() == 9 and not (cat & ignored).any()
    assert ignored[1:4, 3:7].all() and ignored[4:, 4:].all() and ignored[0, 6:].all()


def test_masks_of_objects(made: Annotations) -> None:
    made.records[0].iscrowd[:3] = False
    made.records[0].attributes.clear()
    kept, words = fitted(made, INSTANCES)
    assert words == [
        "1 region to be ignored, without a class left out",
        "1 box becomes the extent of the outline",
        "1 outline becomes mask of pixels",
        "1 box without an outline becomes mask of all their pixels",
        "2 objects without the pixels that others cover",
        "2 annotated areas, other than the box's",
        "the ids of pictures and classes",
        "2 poems",
    ]
    [record] = kept.records
    assert record.labels.tolist() == [0, 1, 1]
    masks = decode_masks(record.segmentations, 6, 8)
    assert masks.sum(0).max() == 1  # a later one lies on top
    assert masks[0].sum() == 5 and masks[2, 1:4, 1:5].all() and not masks[1, 1:4, :5].any()
    assert record.boxes[1].tolist() == [5, 1, 7, 4]


def test_objects_without_a_pixel(made: Annotations) -> None:
    record = made.records[0]
    record.iscrowd[:], record.labels[3] = False, 0
    record.attributes.clear()
    record.segmentations = None
    record.boxes[:] = [[0.6, 0, 1.4, 6], [9, 1, 12, 4], [0.5, 0.5, 3.5, 2.4], [3, 2, 3, 4]]
    kept, words = fitted(made, INSTANCES)
    assert words[:2] == [
        "4 boxes without an outline become masks of all their pixels",
        "3 objects without a visible pixel left out",
    ]
    assert kept.records[0].boxes.tolist() == [[0, 0, 3, 2]]  # the centres of pixels count
