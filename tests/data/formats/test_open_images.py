"""Open Images' tables, rows as the set's own site shows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from eyeline.data.formats import format_named, open_annotations, recognise
from eyeline.data.formats.writing import plan, write
from eyeline.errors import EyelineError

HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,"
    "IsDepiction,IsInside"
)
ROWS = """\
000595fe6fee6369,xclick,/m/02xwb,1,0.45655376,0.6097202,0.20399113,0.50554323,0,0,1,0,0
00075905539074f2,xclick,/m/04yx4,1,0.020477816,0.32935154,0.0956023,0.665392,0,0,0,1,0
000595fe6fee6369,xclick,/m/09j2d,1,0.5,1,0,0.75,1,1,0,0,-1
"""
DESCRIPTIONS = "/m/09j2d,Clothing\n/m/02xwb,Fruit\n/m/04yx4,Man\n/m/0k0pj,Nose\n"
IDS = """\
ImageID,Subset,OriginalURL,Title,Rotation
00075905539074f2,train,https://example.com/a.jpg,"12.11, noon",
0001eeaf4aed83f9,train,https://example.com/b.jpg,,0.0
"""


def data_set(root: Path, rows: str = f"{HEADER}\n{ROWS}", split: str = "train") -> Path:
    (root / split).mkdir(parents=True)
    for name in ("000595fe6fee6369", "00075905539074f2", "0001eeaf4aed83f9"):
        Image.new("RGB", (1024, 680)).save(root / split / f"{name}.jpg")
    (root / f"{split}-annotations-bbox.csv").write_text(rows)
    (root / "class-descriptions-boxable.csv").write_text(DESCRIPTIONS)
    (root / f"{split}-images-boxable-with-rotation.csv").write_text(IDS)
    return root


def fails(path: Path, *said: str) -> None:
    with pytest.raises(EyelineError) as error:
        open_annotations(path, "train")
    assert "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)


def test_content(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    assert recognise(root)[0].NAME == "openimages"
    found = open_annotations(root, "train")
    assert found.classes == ["Clothing", "Fruit", "Man", "Nose"] and found.unread == []
    first, empty, third = found.records  # those of the list of pictures come first
    assert [r.path.stem for r in found.records] == [
        "00075905539074f2", "0001eeaf4aed83f9", "000595fe6fee6369"
    ]  # fmt: skip
    assert (first.width, first.height) == (1024, 680) and empty.boxes.shape == (0, 4)
    assert third.boxes[1].tolist() == [512, 0, 1024, 510]  # XMin, XMax, YMin, YMax in the file
    assert third.labels.tolist() == [1, 0] and third.iscrowd.tolist() == [True, False]
    assert third.attribute("occluded").tolist() == [0, 1] == third.attribute("truncated").tolist()
    assert third.attribute("inside").tolist() == [0, 0]  # -1 is not known
    assert first.attribute("depiction").tolist() == [1]
    assert third.where[1] == f"{root}/train-annotations-bbox.csv:4"


def test_other_places(tmp_path: Path) -> None:
    """As CVAT lays it out; with the sixth version's names and clicks; without the lists."""
    root = data_set(tmp_path, split="validation")
    (root / "images").mkdir()
    (root / "validation").rename(root / "images/validation")
    (root / "annotations").mkdir()
    table = root / "annotations/oidv6-validation-annotations-bbox.csv"
    lines = [f"{line},0.1" for line in ROWS.splitlines()]
    table.write_text("\n".join([f"{HEADER},XClick1X", *lines]))
    (root / "validation-annotations-bbox.csv").unlink()
    found = open_annotations(root, "validation")
    assert len(found.records) == 3 and found.classes[1] == "Fruit"
    assert found.unread == ["the clicks on extreme points"]
    for file in root.glob("*.csv"):
        file.unlink()
    found = open_annotations(table, "any")
    assert found.classes == ["/m/02xwb", "/m/04yx4", "/m/09j2d"] and len(found.records) == 2
    assert found.unread[1:] == ["1 picture(s) that no table lists"]


def test_written(tmp_path: Path) -> None:
    found = open_annotations(data_set(tmp_path / "a"), "train")
    planned = plan({"train": found}, format_named("openimages"))
    assert planned.lost == []
    write(planned, tmp_path / "b")
    lines = (tmp_path / "b/train-annotations-bbox.csv").read_text().splitlines()
    assert lines[0] == HEADER
    assert lines[3] == "000595fe6fee6369,eyeline,Clothing,1,0.5,1,0,0.75,1,1,0,0,0"
    again = open_annotations(tmp_path / "b", "train")
    for mine, theirs in zip(found.records, again.records, strict=True):
        assert mine.boxes.tolist() == theirs.boxes.tolist()
    assert again.classes == found.classes


def test_broken_files_are_named(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    table, text = root / "train-annotations-bbox.csv", f"{HEADER}\n{ROWS}"
    for old, new, said in [
        ("/m/09j2d", "/m/1", ":4: there is no label '/m/1' in class-descriptions"),
        ("0.75", "far", ":4: XMin, YMin, XMax, YMax should be numbers"),
        ("0.75", "nan", ":4: coordinates are shares"),
        ("0.75", "510", ":4: coordinates are shares of the picture's width and height, from 0 to"),
        ("000595", "000596", ":2: there is no picture"),
        (",0,-1\n", "\n", ":4: should be 13 fields"),
    ]:
        table.write_text(text.replace(old, new))
        fails(root, "train-annotations-bbox.csv", said)
    table.write_text(text)
    (root / "class-descriptions-boxable.csv").write_text(DESCRIPTIONS + "/m/1,Man\n")
    fails(root, "boxable.csv:5: the class 'Man' or its label is there twice")
