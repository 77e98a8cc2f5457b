"""Tables of boxes as tools and people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from eyeline.data.faults import Faults
from eyeline.data.formats import Record, csv_boxes, format_named, open_annotations, recognise
from eyeline.data.formats.writing import plan, write
from eyeline.errors import EyelineError

# As Roboflow and the scripts about TensorFlow's detectors write it.
TENSORFLOW = """\
filename,width,height,class,xmin,ymin,xmax,ymax
000001.jpg,500,375,helmet,111,144,134,174
000007.jpg,500,466,head,115,139,180,230
000001.jpg,500,375,helmet,178,84,230,143
"""
# As keras-retinanet's README shows it.
KERAS = """\
/data/imgs/img_001.jpg,837,346,981,456,cow
/data/imgs/img_002.jpg,215,312,279,391,cat
/data/imgs/img_002.jpg,22,5,89,84,bird
/data/imgs/img_003.jpg,,,,,
"""
# As VoTT exports it.
VOTT = '''"image","xmin","ymin","xmax","ymax","label"
"a.jpg",1.5,2,30.25,40,"a, ""b"""
'''


def data_set(root: Path, table: str, name: str = "annotations.csv", *pictures: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(table, encoding="utf-8")
    for picture in pictures or ("a.jpg",):
        path = root / picture
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(path)
    return root


def boxes(records: list[Record]) -> list[tuple[str, list[list[float]], list[int]]]:
    return [(r.path.name, r.boxes.tolist(), r.labels.tolist()) for r in records]


def fails(path: Path, *said: str, split: str = "train") -> None:
    with pytest.raises(EyelineError) as error:
        open_annotations(path, split)
    assert "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)


def test_tensorflow_and_roboflow(tmp_path: Path) -> None:
    names = ("000001.jpg", "000007.jpg")
    for split in ("train", "valid"):
        pictures = (f"{split}/{name}" for name in names)
        data_set(tmp_path, TENSORFLOW, f"{split}/_annotations.csv", *pictures)
    assert csv_boxes.splits(tmp_path) == ["train", "valid"]
    found = open_annotations(tmp_path, "valid")
    assert found.classes == ["head", "helmet"] and found.unread == []
    assert boxes(found.records) == [
        ("000001.jpg", [[111, 144, 134, 174], [178, 84, 230, 143]], [1, 1]),
        ("000007.jpg", [[115, 139, 180, 230]], [0]),
    ]
    first, second = found.records
    assert (first.width, first.height) == (500, 375) and (second.width, second.height) == (500, 466)
    assert first.path == tmp_path / "valid/000001.jpg"
    assert first.where == [f"{tmp_path}/valid/_annotations.csv:{line}" for line in (2, 4)]


def test_keras_retinanet(tmp_path: Path) -> None:
    """No names of columns, paths of another machine, pictures without objects, numbered classes."""
    pictures = [f"images/img_00{i}.jpg" for i in (1, 2, 3)]
    data_set(tmp_path, KERAS, "annotations.csv", *pictures)
    (tmp_path / "classes.csv").write_text("cow,0\ncat,1\nbird,2\n")
    found = open_annotations(tmp_path, "train")
    assert found.classes == ["cow", "cat", "bird"]
    assert boxes(found.records) == [
        ("img_001.jpg", [[837, 346, 981, 456]], [0]),
        ("img_002.jpg", [[215, 312, 279, 391], [22, 5, 89, 84]], [1, 2]),
        ("img_003.jpg", [], []),
    ]
    assert (found.records[0].width, found.records[0].height) == (64, 48)  # the picture's own
    for text, said in {
        "cow,0\ncat,0\nbird,2\n": "classes.csv:2: the class 'cat' or its number is there twice",
        "cow,0\ncat,1\nbird,3\n": "should number the classes 0, 1, 2 ..., not 0, 1, 3",
        "cow,0\ncat,one\n": "classes.csv:2: should be a name and a number",
        "cow,0\ncat,1\n": "annotations.csv:3: the class 'bird' is not one of cow, cat",
    }.items():
        (tmp_path / "classes.csv").write_text(text)
        fails(tmp_path, said)


@pytest.mark.parametrize(
    "table",
    [
        VOTT,
        "\ufeff" + VOTT,
        VOTT.replace("\n", "\r\n"),
        'Label;Image Path;X1;Y1;X2;Y2\n"a, ""b""";C:\\data\\a.jpg;1,5;2;30,25;40\n',
        'image_id\tymax\txmax\tymin\txmin\tclass_name\na\t40\t30.25\t2\t1.5\t"a, ""b"""\n',
    ],
    ids=["quotes", "mark of UTF-8", "Windows", "semicolons and decimal commas", "tabs"],
)
def test_ways_to_write_a_table(tmp_path: Path, table: str) -> None:
    found = open_annotations(data_set(tmp_path, table), "train")
    assert found.classes == ['a, "b"']
    assert boxes(found.records) == [("a.jpg", [[1.5, 2, 30.25, 40]], [0])]


def test_a_column_of_splits_and_flags(tmp_path: Path) -> None:
    table = (
        "split,image,xmin,ymin,xmax,ymax,label,iscrowd,difficult,truncated,colour\n"
        "train,a.jpg,1,2,3,4,cat,1,0,0.25,red\nval,b.jpg,1,2,3,4,dog,,true,no,\n"
    )
    data_set(tmp_path, table, "all.csv", "a.jpg", "b.jpg")
    train, val = (open_annotations(tmp_path, split) for split in ("train", "val"))
    assert train.classes == val.classes == ["cat", "dog"]
    assert train.unread == ["column 'colour'"]
    assert [r.path.name for r in (*train.records, *val.records)] == ["a.jpg", "b.jpg"]
    assert train.records[0].iscrowd.tolist() == [True] == val.records[0].iscrowd.tolist()
    assert train.records[0].attribute("truncated").tolist() == [0.25]
    assert val.records[0].attribute("difficult").tolist() == [1]
    assert open_annotations(tmp_path / "all.csv", "val").records[0].path.name == "b.jpg"
    (tmp_path / "all.csv").write_text(table.replace("val,", ","))
    fails(tmp_path, "all.csv:3: it is of no split")


def test_names_of_splits(tmp_path: Path) -> None:
    for name in ("train_labels.csv", "test-annotations.csv", "VAL.csv"):
        data_set(tmp_path, TENSORFLOW, name, "images/000001.jpg", "images/000007.jpg")
    assert csv_boxes.splits(tmp_path) == ["VAL", "test", "train"]
    assert len(open_annotations(tmp_path, "test").records) == 2
    file = data_set(tmp_path / "one", KERAS, "My boxes.csv") / "My boxes.csv"
    assert csv_boxes.splits(file) == csv_boxes.splits(file.parent) == ["train"]


def test_pictures_beside_the_folder_of_the_table(tmp_path: Path) -> None:
    data_set(tmp_path, TENSORFLOW, "data/train_labels.csv", "images/train/000001.jpg")
    data_set(tmp_path, TENSORFLOW, "data/train_labels.csv", "images/train/000007.jpg")
    found, folder = recognise(tmp_path)
    assert (found.NAME, folder) == ("csv", tmp_path / "data")
    assert len(open_annotations(tmp_path, "train").records) == 2


@pytest.mark.parametrize(
    "header",
    [
        "image,label,x,y,w,h",
        "image,label,bbox_x,bbox_y,bbox_width,bbox_height",
        "image,label,left,top,width,height",
    ],
)
def test_boxes_by_width_and_height_are_not_guessed(tmp_path: Path, header: str) -> None:
    data_set(tmp_path, f"{header}\na.jpg,cat,1,2,3,4\n")
    fails(tmp_path, "annotations.csv:1: no column", "xmax, ymax in pixels")


def test_coordinates_from_0_to_1_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"a.jpg,cat,0.{i},0.1,0.9,0.8\n" for i in range(10))
    data_set(tmp_path, f"image,label,xmin,ymin,xmax,ymax\n{rows}")
    fails(tmp_path, "all 10 boxes lie between 0 and 1: give corners in pixels")


def test_tables_of_something_else_are_none(tmp_path: Path) -> None:
    """bccd's table has no column of classes by any name we know."""
    for table in (
        "filename,cell_type,xmin,xmax,ymin,ymax\nBloodImage_00000.jpg,WBC,260,491,177,376\n",
        "epoch,loss\n1,0.5\n",
        "a.jpg,1,2,3,4\n",
        "a.jpg,1,2,3,cat,4\n",
        "filename,label\na.jpg,cat\n",
        "",
        "\0\0",
    ):
        assert csv_boxes.splits(data_set(tmp_path, table)) is None
    fails(tmp_path, "not annotations of a known format", "CSV (*.csv")


CASES = [
    ("111", "left", "field", ":2: xmin, ymin, xmax, ymax should be numbers, not ['left'"),
    ("helmet,111", ",111", "class", ":2: the object has no class"),
    (",174\n", "\n", "field", ":2: should be 8 fields as in the first row, not 7"),
    ("000001.jpg,500,375,helmet,178", "000001.jpg,500,374,helmet,178", "size",
     ":4: the picture is 500x374, in"),
    ("500,466", "500,0", "field", ":3: the picture's width and height should be whole numbers"),
    ("000007.jpg", "000008.jpg", "picture", ":3: no such picture:"),
    ("helmet,178", '"helmet,178', "file", "not a row of a table: unexpected end of data"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "kind", "said"), CASES)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, kind: str, said: str) -> None:
    table = TENSORFLOW.replace(old, new, 1)
    assert table != TENSORFLOW
    data_set(tmp_path, table, "train.csv", "000001.jpg", "000007.jpg")
    fails(tmp_path, "train.csv", said)
    faults = Faults(gather=True)
    left = open_annotations(tmp_path, "train", faults=faults)
    assert [fault.kind for fault in faults.found] == [kind] and said in str(faults.found[0])
    assert sum(len(record.boxes) for record in left.records) in (1, 2)


def test_written(tmp_path: Path) -> None:
    """In the form that other tools read, with the columns that are needed and no more."""
    data_set(tmp_path / "a", KERAS, "a.csv", *[f"img_00{i}.jpg" for i in (1, 2, 3)])
    found = open_annotations(tmp_path / "a", "train")
    found.records[1].iscrowd[1] = True
    write(plan({"train": found}, format_named("csv")), tmp_path / "b")
    assert (tmp_path / "b/train/_annotations.csv").read_text() == (
        "filename,width,height,class,xmin,ymin,xmax,ymax,iscrowd\n"
        "img_001.jpg,64,48,cow,837,346,981,456,0\n"
        "img_002.jpg,64,48,cat,215,312,279,391,0\n"
        "img_002.jpg,64,48,bird,22,5,89,84,1\n"
        "img_003.jpg,64,48,,,,,,\n"
    )
    assert (tmp_path / "b/classes.txt").read_text() == "bird\ncat\ncow\n"
