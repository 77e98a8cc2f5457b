from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference

from eyeline.data.formats import open_annotations, read_coco, read_voc
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import decode_masks

COCO: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 8, "height": 6},
        {"id": 3, "file_name": "b.png", "width": 8, "height": 6},
    ],
    "categories": [{"id": 30, "name": "dog"}, {"id": 2, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 30, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0.5, 0, 2, 2], "iscrowd": 1},
    ],
}

XML = """<?xml version="1.0"?>
<annotation>
  <filename>{name}.png</filename>
  <size><width>{width}</width><height>6</height><depth>3</depth></size>
  <object>
    <name>{label}</name>
    <difficult>0</difficult>
    <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox>
    <part><name>tail</name>
      <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>2</xmax><ymax>3</ymax></bndbox></part>
  </object>
  <object>
    <name>ant</name><difficult>1</difficult>
    <bndbox><ymax>3.5</ymax><xmax>4</xmax><ymin>1</ymin><xmin>2</xmin></bndbox>
  </object>
</annotation>
"""


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(path)


def write_coco(json_path: Path, pictures: Path, content: Any = COCO) -> Path:
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(content if isinstance(content, str) else json.dumps(content))
    for name in ("a.png", "b.png"):
        picture(pictures / name)
    return json_path


def write_voc(root: Path, splits: dict[str, dict[str, str]], width: int = 8) -> Path:
    """splits: name -> {picture: class of its first object}."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, labels in splits.items():
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(labels) + "\n")
        for name, label in labels.items():
            picture(root / f"JPEGImages/{name}.png")
            text = XML.format(name=name, label=label, width=width)
            (root / f"Annotations/{name}.xml").write_text(text)
    return root


def fails(*said: str) -> Any:
    """A context that demands an EyelineError of one line with all these parts in it."""
    pattern = "".join(f"(?=.*{part})" for part in map(re.escape, said))
    return pytest.raises(EyelineError, match=rf"\A{pattern}[^\n]*\Z")


# COCO


def test_coco_content(tmp_path: Path) -> None:
    found = read_coco(write_coco(tmp_path / "x.json", tmp_path), tmp_path)
    assert found.classes == ["cat", "dog"] and found.category_ids == [2, 30]
    first, second = found.records
    assert (first.image_id, first.width, first.height) == (7, 8, 6)
    assert first.boxes.tolist() == [[1, 2, 4, 6], [0.5, 0, 2.5, 2]]
    assert first.boxes.dtype == np.float32 and first.labels.dtype == np.int64
    assert first.labels.tolist() == [1, 0] and first.iscrowd.tolist() == [False, True]
    assert first.where[1].endswith("x.json: annotations[1] (id 2)")
    assert second.boxes.shape == (0, 4) and second.where == []


@pytest.mark.parametrize(
    ("json_name", "folder", "split"),
    [
        ("annotations/instances_train2017.json", "train2017", "train"),
        ("annotations/instances_train2017.json", "images/train2017", "train2017"),
        ("annotations/instances_train2017.json", "train", "train"),
        ("annotations/instances_train.json", "train", "train"),
        ("annotations/train.json", "images", "train"),
        ("train.json", "train", "train"),
        ("train.json", "images/train", "train"),
        ("train/_annotations.coco.json", "train", "train"),
        ("train.json", ".", "train"),
    ],
)
def test_coco_layouts(tmp_path: Path, json_name: str, folder: str, split: str) -> None:
    json_path = write_coco(tmp_path / json_name, tmp_path / folder)
    for path in (tmp_path, json_path):
        found = open_annotations(path, split)
        assert found.records[0].path.resolve() == (tmp_path / folder / "a.png").resolve()
        assert found.source == str(json_path)


def test_coco_size_is_read_where_it_is_not_written(tmp_path: Path) -> None:
    content = copy.deepcopy(COCO)
    del content["images"][0]["width"]
    content["images"][1]["height"] = 0
    found = read_coco(write_coco(tmp_path / "x.json", tmp_path, content))
    assert [(r.width, r.height) for r in found.records] == [(8, 6), (8, 6)]


def with_change(key: str, index: int, **change: Any) -> dict[str, Any]:
    content = copy.deepcopy(COCO)
    content[key][index].update(change)
    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"images": [\n1,, 2]}', ("x.json:2:3", "not valid JSON")),
        ("[1, 2]", ("x.json", "looked for COCO")),
        ({"images": [], "annotations": []}, ("x.json", "no list 'categories'")),
        ({**COCO, "annotations": ["box"]}, ("annotations[0]", "'box'")),
        (with_change("images", 1, id=None), ("images[1]", "id and a file_name")),
        (with_change("images", 1, id=7), ("two images", "7")),
        (with_change("images", 1, file_name="c.png"), ("c.png", "no such picture", "x.json")),
        (with_change("images", 0, file_name="c.png"), ("c.png", "no such picture", "x.json")),
        (
            {
                "images": [{"id": 7, "file_name": "c.png"}],
                "categories": [],
                "annotations": [],
            },
            ("c.png", "looked in", "x.json"),
        ),
        (with_change("categories", 1, id=30), ("two categories", "30")),
        (with_change("categories", 1, name="dog"), ("two categories", "'dog'")),
        (with_change("annotations", 1, image_id=4), ("annotations[1]", "no image_id 4")),
        (with_change("annotations", 0, image_id=[4]), ("annotations[0]", "no image_id [4]")),
        (with_change("annotations", 1, category_id=1), ("annotations[1]", "no category_id 1")),
        (with_change("annotations", 1, bbox=[1, 2, 3]), ("annotations[1]", "[1, 2, 3]")),
        (with_change("annotations", 1, bbox=[1, 2, 3, "4"]), ("annotations[1]", "'4'")),
    ],
)
def test_broken_coco_is_explained(tmp_path: Path, content: Any, said: tuple[str, ...]) -> None:
    json_path = write_coco(tmp_path / "x.json", tmp_path, content)
    with fails(*said):
        open_annotations(json_path, "train")


def test_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'{"images": "\xff"}')
    with fails("x.json", "not UTF-8 at byte 12"):
        open_annotations(tmp_path / "x.json", "train")


def test_what_is_not_there_is_explained(tmp_path: Path) -> None:
    with fails("nowhere", "no such file or folder"):
        open_annotations(tmp_path / "nowhere", "train")
    with fails(str(tmp_path), "looked for COCO", "Pascal VOC"):
        open_annotations(tmp_path, "train")
    (tmp_path / "x.csv").touch()
    with fails("x.csv", "not a file of a known format; looked for COCO, Pascal VOC"):
        open_annotations(tmp_path / "x.csv", "train")
    for year in (2014, 2017):
        write_coco(tmp_path / f"annotations/instances_train{year}.json", tmp_path / f"train{year}")
    (tmp_path / "annotations/captions_train2017.json").write_text("{}")
    with fails("'val'", "there are: train2014, train2017"):
        open_annotations(tmp_path, "val")
    with fails("'train'", "which of train2014, train2017?"):
        open_annotations(tmp_path, "train")
    assert len(open_annotations(tmp_path, "train2014").records) == 2


def test_masks_equal_the_reference() -> None:
    rng = np.random.default_rng(0)
    blob = rng.random((9, 7)) > 0.5
    compressed = reference.encode(np.asfortranarray(blob, np.uint8))
    compressed = {"size": [9, 7], "counts": compressed["counts"].decode()}
    flat = blob.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    uncompressed = {"size": [9, 7], "counts": [0, *counts] if flat[0] else counts}
    polygons = [[1, 1, 5, 1, 5, 6], [0.5, 7, 6, 7, 6, 8.5, 1, 8]]
    masks = decode_masks([compressed, uncompressed, polygons, []], 9, 7)
    assert masks.shape == (4, 9, 7) and masks.dtype == bool
    assert (masks[0] == blob).all() and (masks[1] == blob).all()
    expected = reference.decode(reference.merge(reference.frPyObjects(polygons, 9, 7)))
    assert (masks[2] == expected).all() and expected.any()
    assert not masks[3].any()
    assert decode_masks([], 9, 7).shape == (0, 9, 7)
    assert not decode_masks([[[1, 1, 3, 3]]], 9, 7).any()  # two points, not a box


@pytest.mark.parametrize(
    "segmentation", [{"size": [7, 9], "counts": [63]}, {"size": [9, 7], "counts": [5]}, [1.0, 2.0]]
)
def test_broken_masks_raise(segmentation: Any) -> None:
    with pytest.raises(ValueError):
        decode_masks([segmentation], 9, 7)


def test_real_coco(shared_data: Path) -> None:
    found = open_annotations(shared_data / "tiny_coco", "val")
    assert len(found.records) == 50 and len(found.classes) == 80
    assert found.classes[:2] == ["person", "bicycle"] and found.category_ids[-1] == 90
    crowds = sum(int(record.iscrowd.sum()) for record in found.records)
    content = json.loads((shared_data / "tiny_coco/annotations/instances_val2017.json").read_text())
    assert crowds == sum(a["iscrowd"] for a in content["annotations"]) > 0
    record = next(record for record in found.records if record.iscrowd.any())
    masks = decode_masks(record.segmentations, record.height, record.width)
    for mask, box in zip(masks, record.boxes, strict=True):
        y, x = mask.nonzero()
        tight = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert np.abs(tight - box).max() <= 1.5


# VOC


def test_voc_content(tmp_path: Path) -> None:
    write_voc(tmp_path, {"train": {"p": "dog"}, "val": {"q": "dog"}})
    found = read_voc(tmp_path, "train")
    assert found.classes == ["ant", "dog"] and found.category_ids is None
    [record] = found.records
    assert record.path == tmp_path / "JPEGImages/p.png"
    assert record.boxes.tolist() == [[1, 2, 5, 6], [2, 1, 4, 3.5]]
    assert record.labels.tolist() == [1, 0] and record.iscrowd.tolist() == [False, True]
    assert record.segmentations is None
    assert record.where == [f"{tmp_path}/Annotations/p.xml:{line}" for line in (5, 12)]
    shifted = read_voc(tmp_path, "train", one_based=True).records[0]
    assert shifted.boxes.tolist() == [[0, 1, 5, 6], [1, 0, 4, 3.5]]
    assert read_voc(tmp_path, "val").classes == ["ant", "dog"]
    assert read_voc(tmp_path, "train", ["dog", "bee", "ant"]).records[0].labels.tolist() == [0, 2]


@pytest.mark.parametrize("nested", [".", "BCCD", "VOCdevkit/VOC2007"])
def test_voc_layouts(tmp_path: Path, nested: str) -> None:
    write_voc(tmp_path / nested, {"train": {"p": "dog"}})
    assert len(open_annotations(tmp_path, "train").records) == 1


def test_voc_size_is_read_where_it_is_zero(tmp_path: Path) -> None:
    write_voc(tmp_path, {"train": {"p": "dog"}}, width=0)
    [record] = read_voc(tmp_path, "train").records
    assert (record.width, record.height) == (8, 6)


def test_broken_voc_is_explained(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"train": {"p": "dog"}, "val": {"q": "cow"}})
    (root / "ImageSets/Main/dog_train.txt").write_text("p 1\n")
    with fails("'test'", "there are: train, val"):
        open_annotations(root, "test")
    with fails("q.xml:5", "'cow'", "ant, dog"):
        open_annotations(root, "val")
    with fails("p.xml:5", "'dog'", "cow"):
        open_annotations(root, "train", ["ant", "cow"])
    xml = root / "Annotations/p.xml"
    whole = xml.read_text()
    for text, said in {
        whole.replace("</object>", "</objct>", 1): ("p.xml:11:", "not valid XML"),
        whole[:100]: ("p.xml", "not valid XML"),
        "": ("p.xml:1:1", "not valid XML"),
        whole.replace("<xmin>1", "<xmin>one"): ("p.xml:5", "numbers", "one"),
        whole.replace("bndbox", "polygon"): ("p.xml:5", "numbers"),
        whole.replace("?>", ' encoding="euc-kr"?>'): ("p.xml: ", "encoding", "save it as UTF-8"),
        whole.replace("?>", ' encoding="none"?>'): ("p.xml: ", "none", "save it as UTF-8"),
    }.items():
        xml.write_text(text)
        with fails(*said):
            open_annotations(root, "train")
    xml.write_text(whole)
    (root / "JPEGImages/p.png").unlink()
    with fails("JPEGImages/p", "no such picture"):
        open_annotations(root, "train")
    xml.unlink()
    with fails("train.txt:1", "p.xml"):
        open_annotations(root, "train")
    (root / "ImageSets/Main/train.txt").write_bytes(b"p\n\xff\n")
    with fails("train.txt: not UTF-8", "at byte 2"):
        open_annotations(root, "train")
    for file in root.glob("ImageSets/Main/*"):
        file.unlink()
    with fails("no split 'val'", "there are: train"):
        open_annotations(root, "val")


def test_voc_without_lists_is_all_to_train_on(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"train": {"p": "dog"}, "val": {"q": "cat"}})
    shutil.rmtree(root / "ImageSets")
    found = open_annotations(root, "train")
    assert found.classes == ["ant", "cat", "dog"]
    assert {record.path.stem for record in found.records} == {"p", "q"}


def test_several_voc_folders(tmp_path: Path) -> None:
    for year in (2007, 2012):
        write_voc(tmp_path / f"VOC{year}", {"train": {"p": "dog"}})
    with fails("several", "VOC2007, VOC2012"):
        open_annotations(tmp_path, "train")


def test_real_voc(shared_data: Path) -> None:
    counts = {}
    for split in ("train", "val", "test"):
        found = open_annotations(shared_data / "bccd", split)
        labels = np.concatenate([record.labels for record in found.records])
        counts[split] = len(found.records), np.bincount(labels)
    assert found.classes == ["Platelets", "RBC", "WBC"]
    assert [number for number, _ in counts.values()] == [205, 87, 72]
    assert sum(labels for _, labels in counts.values()).tolist() == [361, 4155, 372]
