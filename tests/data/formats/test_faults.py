"""With faults gathered, what is wrong is left out and told, and all else is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.data.formats.made import make_pictures

from eyeline.data.faults import Fault, Faults
from eyeline.data.formats import Annotations, Record, format_named, open_annotations
from eyeline.data.formats.writing import plan, write
from eyeline.errors import EyelineError


def data_set(folder: Path, name: str) -> Path:
    """Three pictures with two objects each."""
    pictures = make_pictures(folder)[1:4]
    boxes = np.array([[1, 2, 5, 6], [0, 0, 2, 3]], np.float32)
    records = [
        Record(path, *size, boxes, np.arange(2), np.zeros(2, bool), None, i, ["a", "b"])
        for i, (path, size) in enumerate(zip(pictures, [(31, 13), (640, 480), (9, 9)], strict=True))
    ]
    data = Annotations(["cat", "dog"], records, "x")
    write(plan({"train": data}, format_named(name)), folder / name)
    return folder / name


def change(pattern: str, old: str, new: str) -> Callable[[Path], None]:
    """In the first file of the pattern, by name."""

    def apply(root: Path) -> None:
        file = sorted(root.glob(pattern))[0]
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    return apply


def remove(pattern: str) -> Callable[[Path], None]:
    return lambda root: sorted(root.glob(pattern))[0].unlink()


def coco_entry(key: str, index: int, **changed: object) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        file = root / "annotations" / "instances_train.json"
        content = json.loads(file.read_text())
        content[key][index] |= changed
        file.write_text(json.dumps(content))

    return apply


TABLE, BOXES = "train/_annotations.csv", "*-bbox.csv"
VIA, ONE, CVAT = "train/via_region_data.json", "train/*.json", "annotations.xml"
XML, LABEL, LINES = "Annotations/*.xml", "labels/train/*.txt", "training/label_2/*.txt"
BROKEN = [  # segmentations, and what is said of them
    ([[1, 2, 3, 4, 5, 6, 7]], "7 numbers"),
    ([[1, 2, 3, float("nan"), 5, 6]], "not finite"),
    ([[1, 2, 3, "x", 5, 6]], "real number"),
    (["x"], "lists of numbers"),
    ("x", "polygons, or a mask"),
    ({"counts": [5]}, "polygons, or a mask"),
    ({"size": [3, 4], "counts": [12]}, "a mask of size [3, 4]"),
    ({"size": [480, 640], "counts": [5, 6]}, "RLE"),
    ({"size": [480, 640], "counts": [-1, 307201]}, "from 0 on"),
    ({"size": [480, 640], "counts": "abc"}, "RLE"),
]
CASES = [  # what is done, the kind and a word of what is told, the objects of each picture left
    ("coco", coco_entry("annotations", 2, bbox=[1, 2]), "field", "annotations[2]", [2, 1, 2]),
    ("coco", coco_entry("annotations", 2, category_id=9), "reference", "category_id 9", [2, 1, 2]),
    ("coco", coco_entry("images", 1, id=0), "reference", "images[1]", [2, 2]),
    ("coco", coco_entry("images", 0, file_name="c.png"), "picture", "c.png", [2, 2]),
    ("coco", remove("train/*"), "picture", "no such picture", [2, 2]),
    ("voc", change(XML, "<xmin>0", "<xmin>x"), "field", ".xml:20", [1, 2, 2]),
    ("voc", change(XML, "<name>cat", "<name>"), "class", "no name", [1, 2, 2]),
    ("voc", change(XML, "</object>", "<object>"), "file", "not valid XML", [2, 2]),
    ("voc", change("classes.txt", "dog", "dogs"), "class", "did you mean 'dogs'", [1, 1, 1]),
    ("voc", remove(XML), "file", "train.txt:", [2, 2]),
    ("voc", remove("JPEGImages/*"), "picture", "no such picture", [2, 2]),
    ("yolo", change(LABEL, "1 ", "2 "), "class", ".txt:2", [1, 2, 2]),
    ("yolo", change(LABEL, "0 ", "0 x "), "field", ".txt:1", [1, 2, 2]),
    ("kitti", change(LINES, "cat ", "cat 5 5 "), "field", ".txt:1", [1, 2, 2]),
    ("kitti", change(LINES, " 1 ", " one "), "field", "one", [1, 2, 2]),
    ("kitti", remove(LINES), "file", "train.txt:", [2, 2]),
    ("kitti", remove("training/image_2/*"), "picture", "no picture", [2, 2]),
    ("csv", change(TABLE, ",1,2,", ",1,x,"), "field", "_annotations.csv:2", [1, 2, 2]),
    ("csv", change("classes.txt", "dog", "dogs"), "class", "did you mean 'dogs'", [1, 1, 1]),
    ("csv", remove("train/*.[jp]*"), "picture", "no such picture", [2, 2]),
    ("openimages", change(BOXES, ",dog,", ",,"), "class", "bbox.csv:3", [1, 2, 2]),
    ("openimages", remove("train/*"), "picture", "there is no picture", [2, 2]),
    ("semantic", change("classes.txt", "_background_\n", ""), "class", "the value 2", [2, 2, 2]),
    ("semantic", remove("masks/train/*"), "file", "has no mask", [2, 2]),
    ("instances", change("Annotation/*", "label for object 1", ""), "class", "object 1", [1, 2, 2]),
    ("instances", remove("PedMasks/*"), "file", "has no mask", [2, 2]),
    ("via", change(VIA, '"x": 1.0', '"x": null'), "field", "regions[0] of 'b.jpg'", [1, 2, 2]),
    ("via", change(VIA, '"class": "cat"', '"class": ""'), "class", "no class", [1, 2, 2]),
    ("via", change("classes.txt", "dog", "dogs"), "class", "did you mean 'dogs'", [1, 1, 1]),
    ("via", remove("train/b.jpg"), "picture", "no such picture", [2, 2]),
    ("labelme", change(ONE, "6.0", '"x"'), "field", "A.json: shapes[0]", [1, 2, 2]),
    ("labelme", change(ONE, '"cat"', "3"), "class", "no label", [1, 2, 2]),
    ("labelme", change(ONE, "{", "["), "file", "not valid JSON", [2, 2]),
    ("labelme", remove("train/b.jpg"), "picture", "no such picture", [2, 2]),
    ("cvat", change(CVAT, 'xtl="1"', 'xtl=""'), "field", "annotations.xml:", [1, 2, 2]),
    ("cvat", change(CVAT, 'label="cat"', 'label="cats"'), "class", "mean 'cat'", [1, 2, 2]),
    ("cvat", remove("images/train/b.jpg"), "picture", "no such picture", [2, 2]),
]


CASES += [
    ("coco", coco_entry("annotations", 2, segmentation=broken), "field", said, [2, 1, 2])
    for broken, said in BROKEN
]


@pytest.mark.parametrize(("name", "spoil", "kind", "said", "left"), CASES)
def test_what_is_wrong_is_told_and_the_rest_is_read(
    tmp_path: Path, name: str, spoil: Callable[[Path], None], kind: str, said: str, left: list[int]
) -> None:
    root = data_set(tmp_path, name)
    spoil(root)
    with pytest.raises(Fault) as raised:
        open_annotations(root, "train")
    faults = Faults(gather=True)
    data = open_annotations(root, "train", faults=faults)
    assert sorted(len(record.boxes) for record in data.records) == sorted(left)
    assert faults.found
    assert {fault.kind for fault in faults.found if "annotations[" not in fault.where} <= {kind}
    assert said in str(raised.value)
    assert any(said in str(fault) for fault in faults.found)


def test_what_leaves_nothing_is_raised(tmp_path: Path) -> None:
    root = data_set(tmp_path, "coco")
    change("annotations/*.json", "}", "")(root)
    with pytest.raises(EyelineError, match="not valid JSON"):
        open_annotations(root, "train", faults=Faults(gather=True))
