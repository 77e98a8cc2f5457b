"""One picture's annotation in every format; `eyeline explain --target` looks it up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from eyeline.data.lookup import annotated_picture
from eyeline.errors import EyelineError

CLASSES = ["disc", "cat"]
XML = """<annotation><filename>a.png</filename><size><width>80</width><height>60</height></size>
<object><name>cat</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>45</xmax><ymax>50</ymax></bndbox>
</object></annotation>"""
CAT = "cat 0 0 0 5 6 45 50 1 1 1 0 0 9 0\n"
REGION = "DontCare -1 -1 -10 50 6 60 50 -1 -1 -1 -1000 -1000 -1000 -10\n"


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 60)).save(path)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def assert_cat(source: Path, picture: Path, format: str | None = None) -> None:
    image, target, left_out = annotated_picture(source, picture, CLASSES, format=format)
    assert image.shape == (3, 60, 80) and left_out == 0
    assert target["labels"].tolist() == [1]
    assert target["boxes"][0].tolist() == pytest.approx([5, 6, 45, 50], abs=1e-4)


def kitti(root: Path, lines: str) -> Path:
    """Its picture is in two splits; what a third lists has no annotation."""
    text(root / "training/label_2/a.txt", lines)
    for split, names in (("train", "a"), ("trainval", "a"), ("test", "b")):
        text(root / f"ImageSets/{split}.txt", names)
    return picture(root / "training/image_2/a.png")


def test_kitti(tmp_path: Path) -> None:
    own = kitti(tmp_path, CAT)
    assert_cat(tmp_path, own)
    assert_cat(tmp_path, picture(tmp_path / "elsewhere/a.png"))
    with pytest.raises(EyelineError, match=r"b\.txt is not there"):
        annotated_picture(tmp_path, picture(tmp_path / "training/image_2/b.png"), CLASSES)


def test_regions_and_what_is_left_out(tmp_path: Path) -> None:
    """A region stands there for each class; a box is counted once that is left out."""
    outside = CAT.replace("45", "450")
    _, target, left_out = annotated_picture(
        tmp_path, kitti(tmp_path, REGION + CAT + outside), CLASSES
    )
    assert target["labels"].tolist() == [0, 1, 1]
    assert target["iscrowd"].tolist() == [True, True, False]
    assert left_out == 1


@pytest.mark.parametrize("names", ["names: [cat, dog]\n", None])
def test_yolo(tmp_path: Path, names: str | None) -> None:
    """Names are the data's; only where it has none, numbers are the model's."""
    own = picture(tmp_path / "images/val/a.png")
    picture(tmp_path / "images/test/b.png")  # a split without annotations
    number = 1
    if names:
        number = 0
        text(tmp_path / "data.yaml", "test: images/test\nval: images/val\n" + names)
    line = f"{number} {25 / 80} {28 / 60} {40 / 80} {44 / 60}\n"
    text(tmp_path / "labels/val/a.txt", line)
    assert_cat(tmp_path, own)
    with pytest.raises(EyelineError, match="no picture of 'test' has its label file"):
        annotated_picture(tmp_path, tmp_path / "images/test/b.png", CLASSES)


@pytest.mark.parametrize("below", ["", "VOC2007", "VOCdevkit/VOC2007"])
def test_voc_without_its_pictures(tmp_path: Path, below: str) -> None:
    """Neither a list of a split nor any picture needs to be there."""
    text(tmp_path / "data" / below / "Annotations/a.xml", XML)
    (tmp_path / "data" / below / "JPEGImages").mkdir()
    assert_cat(tmp_path / "data", picture(tmp_path / "a.png"))
    with pytest.raises(EyelineError, match=r"b\.xml: no such file, the picture's annotation"):
        annotated_picture(tmp_path / "data", picture(tmp_path / "b.png"), CLASSES)


def test_two_formats_in_a_folder(tmp_path: Path) -> None:
    text(tmp_path / "Annotations/a.xml", XML)
    own = picture(tmp_path / "JPEGImages/a.png")
    content = {
        "images": [{"id": 0, "file_name": "a.png"}, {"id": 1, "file_name": "elsewhere.png"}],
        "categories": [{"id": 3, "name": "disc"}, {"id": 4, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 4, "bbox": [5, 6, 40, 44]}],
    }
    text(tmp_path / "instances_val.json", json.dumps(content))
    with pytest.raises(EyelineError, match="looks like COCO and Pascal VOC"):
        annotated_picture(tmp_path, own, CLASSES)
    for name in ("coco", "voc"):
        assert_cat(tmp_path, own, name)
