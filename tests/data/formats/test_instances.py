"""Masks whose values are objects, as Penn-Fudan has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyeline.data.faults import Faults
from eyeline.data.formats import format_named, open_annotations, recognise
from eyeline.data.formats.writing import plan, write
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import decode_masks

# As the set has it, its numbers changed to those of a small picture.
TEXT = """\
# Compatible with PASCAL Annotation Version 1.00
Image filename : "PennFudanPed/PNGImages/FudanPed00001.png"
Image size (X x Y x C) : 6 x 4 x 3
Database : "The Penn-Fudan-Pedestrian Database"
Objects with ground truth : 2 { "PASpersonWalking" "PASpersonWalking" }
# Note there may be some objects not included in the ground truth list for they are severe-occluded
# or have very small size.
# Top left pixel co-ordinates : (1, 1)
# Details for pedestrian 1 ("PASpersonWalking")
Original label for object 1 "PASpersonWalking" : "PennFudanPed"
Bounding box for object 1 "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : (2, 1) - (3, 3)
Pixel mask for object 1 "PASpersonWalking" : "PennFudanPed/PedMasks/FudanPed00001_mask.png"

# Details for pedestrian 2 ("PASpersonWalking")
Original label for object 2 "PASpersonWalking" : "PennFudanPed"
Bounding box for object 2 "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : (4, 2) - (6, 4)
Pixel mask for object 2 "PASpersonWalking" : "PennFudanPed/PedMasks/FudanPed00001_mask.png"
"""
NUMBERS = np.array(
    [[0, 1, 1, 0, 0, 0], [0, 1, 0, 0, 2, 0], [0, 1, 0, 2, 2, 2], [0, 0, 0, 2, 0, 2]], np.uint8
)


def data_set(root: Path) -> Path:
    for folder in ("PNGImages", "PedMasks", "Annotation"):
        (root / folder).mkdir(parents=True)
    for name in ("FudanPed00001", "PennPed00001"):
        Image.new("RGB", (6, 4)).save(root / f"PNGImages/{name}.png")
        Image.fromarray(NUMBERS).save(root / f"PedMasks/{name}_mask.png")
        (root / f"Annotation/{name}.txt").write_text(TEXT)
    return root


def fails(path: Path, *said: str) -> None:
    with pytest.raises(EyelineError) as error:
        open_annotations(path, "train")
    assert "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)


def test_penn_fudan(tmp_path: Path) -> None:
    root = data_set(tmp_path / "PennFudanPed")
    assert recognise(tmp_path) == (format_named("instances"), root)
    found = open_annotations(root, "train")
    assert found.classes == ["PASpersonWalking"] and len(found.records) == 2
    record = found.records[0]
    assert record.path == root / "PNGImages/FudanPed00001.png"
    assert record.boxes.tolist() == [[1, 0, 3, 3], [3, 1, 6, 4]]  # between pixels, from 0
    assert record.labels.tolist() == [0, 0] and not record.iscrowd.any()
    masks = decode_masks(record.segmentations or [], 4, 6)
    assert (masks == [NUMBERS == 1, NUMBERS == 2]).all()
    assert record.where[1] == f"{root}/PedMasks/FudanPed00001_mask.png: object 2"


def test_one_class_for_all(tmp_path: Path) -> None:
    """By classes.txt; the texts need not be there then."""
    root = data_set(tmp_path)
    (root / "classes.txt").write_text("person\n")
    assert open_annotations(root, "train").classes == ["person"]
    for file in (root / "Annotation").iterdir():
        file.unlink()
    found = open_annotations(root, "train")
    assert found.classes == ["person"] and found.records[1].labels.tolist() == [0, 0]
    (root / "classes.txt").unlink()
    fails(root, "Annotation/FudanPed00001.txt: it is not there, and classes.txt does not list one")


def test_written(tmp_path: Path) -> None:
    """Several classes; more objects than eight bits can count."""
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    found = open_annotations(data_set(tmp_path / "a"), "train")
    found.classes = ["a dog", 'say "cat"']
    found.records[0].labels[1] = 1
    planned = plan({"train": found}, format_named("instances"))
    assert planned.lost == []
    write(planned, tmp_path / "b")
    text = (tmp_path / "b/Annotation/FudanPed00001.txt").read_text()
    assert "Image size (X x Y x C) : 6 x 4 x 3\n" in text
    assert '2 "say "cat"" (Xmin, Ymin) - (Xmax, Ymax) : (4, 2) - (6, 4)\n' in text
    again = open_annotations(tmp_path / "b", "train")
    assert again.classes == found.classes and again.records[0].labels.tolist() == [0, 1]
    many = np.arange(600, dtype=np.uint16).reshape(20, 30)
    (tmp_path / "c/images").mkdir(parents=True)
    (tmp_path / "c/instances").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "c/images/a.jpg")
    Image.fromarray(many).save(tmp_path / "c/instances/a.png")
    (tmp_path / "c/classes.txt").write_text("cell\n")
    found = open_annotations(tmp_path / "c", "train")
    assert len(found.records[0].boxes) == 599
    assert found.records[0].boxes[-1].tolist() == [29, 19, 30, 20]
    write(plan({"train": found}, format_named("instances")), tmp_path / "d")
    with Image.open(tmp_path / "d/PedMasks/a_mask.png") as image:
        assert (np.array(image) == many).all()


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    text, mask = root / "Annotation/FudanPed00001.txt", root / "PedMasks/FudanPed00001_mask.png"
    for old, new, kind, said in [
        ("object 2", "object 3", "reference", f"{text}: object 3 has no pixel in {mask}"),
        (
            "label for object 2",
            "2",
            "class",
            f"{mask}: the class of object 2 is not told in",
        ),
        ("label for object 2", "label for object 1", "reference", ".txt:15: object 1 is there"),
        ('object 2 "PASpersonWalking" : ', 'object 2 "" : ', "class", ".txt:15: the object has no"),
    ]:
        text.write_text(TEXT.replace(old, new))
        faults = Faults(gather=True)
        records = open_annotations(root, "train", faults=faults).records
        assert len(records[-1].boxes) == 2 and faults.found[0].kind == kind
        fails(root, said)
    text.write_text(TEXT)
    Image.fromarray(np.stack([NUMBERS, NUMBERS, NUMBERS * 2], -1)).save(mask)
    fails(root, f"{mask}: its pixels are colours")
    mask.write_bytes(b"")
    fails(root, f"{mask}: not a picture")
