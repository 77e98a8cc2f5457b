"""Pascal VOC's XML as others than VOC lay it out."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from eyeline.data.checking import check
from eyeline.data.faults import Faults
from eyeline.data.formats import open_annotations, recognise
from eyeline.data.lookup import annotated_picture
from eyeline.errors import EyelineError

OBJECT = "<object><name>{}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax>"
OBJECT += "</bndbox></object>"


def xml(name: str, *classes: str) -> str:
    objects = "".join(OBJECT.format(own) for own in classes)
    size = "<size><width>20</width><height>16</height></size>"
    return f"<annotation>\n<filename>{name}</filename>{size}{objects}</annotation>"


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (value, 2 * value, 99)).save(path)


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """As Roboflow exports them."""
    root = tmp_path / "export"
    classes = {"train/a": ["dog"], "train/b": [], "valid/c": ["cat", "dog"], "test/d": ["cat"]}
    for i, (stem, own) in enumerate(classes.items()):
        picture(root / f"{stem}.jpg", 20 * i)
        (root / f"{stem}.xml").write_text(xml(f"{Path(stem).name}.jpg", *own))
    (root / "README.roboflow.txt").write_text("exported")
    return root


def test_beside_their_pictures(beside: Path) -> None:
    found, folder = recognise(beside)
    assert (found.NAME, folder) == ("voc", beside)
    assert found.splits(beside) is not None
    assert sorted(found.splits(beside) or []) == ["test", "train", "valid"]
    train = open_annotations(beside, "train")
    assert train.classes == ["dog"] and [len(r.boxes) for r in train.records] == [1, 0]
    assert train.records[0].path == beside / "train" / "a.jpg"
    assert train.records[0].boxes.tolist() == [[1, 2, 9, 8]]
    with pytest.raises(EyelineError, match=r"c\.xml:2: the class 'cat' is not one of dog"):
        open_annotations(beside, "valid")
    (beside / "classes.txt").write_text("cat\ndog\n")
    assert open_annotations(beside, "valid").records[0].labels.tolist() == [0, 1]
    assert check(beside, copies=False).count("error") == 0
    one = open_annotations(beside / "test", "train")  # a folder of its own
    assert one.classes == ["cat"] and len(one.records) == 1


def test_spoilt_and_foreign_files_beside_them(beside: Path) -> None:
    (beside / "train" / "a.xml").write_bytes(b"")
    (beside / "train" / "zeros.xml").write_bytes(bytes(9))
    (beside / "train" / "other.xml").write_text("<boxes/>")
    faults = Faults(gather=True)
    data = open_annotations(beside, "train", faults=faults)
    assert [record.path.name for record in data.records] == ["b.jpg"]
    assert [Path(f.where.partition(":")[0]).name for f in faults.found] == ["a.xml", "zeros.xml"]
    assert data.unread == ["1 XML file(s) of another kind, the first other.xml"]


def test_the_annotation_of_one_picture(beside: Path) -> None:
    found = annotated_picture(beside, beside / "valid" / "c.jpg", ["cat", "dog"])
    assert found.target["labels"].tolist() == [0, 1]
    picture(beside / "x.jpg")
    with pytest.raises(EyelineError, match=r"x\.xml: no such file, the picture's annotation"):
        annotated_picture(beside, beside / "x.jpg", ["cat"])


def test_xml_without_pictures_beside_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(xml("a.jpg", "dog"))
    with pytest.raises(EyelineError, match="not annotations of a known format"):
        recognise(tmp_path)


def test_pets(tmp_path: Path) -> None:
    """Lists of more than has boxes, as the archives of the Oxford-IIIT Pet Dataset lay them out."""
    names = {"Abyssinian_1": "cat", "beagle_2": "dog", "pug_3": "", "Bengal_4": ""}
    for i, (stem, name) in enumerate(names.items()):
        picture(tmp_path / f"images/{stem}.jpg", 20 * i)
        picture(tmp_path / f"annotations/trimaps/{stem}.png")
        (tmp_path / "annotations/xmls").mkdir(exist_ok=True)
        if name:
            (tmp_path / f"annotations/xmls/{stem}.xml").write_text(xml(f"{stem}.jpg", name))
    lists = {
        "trainval": "Abyssinian_1 1 1 1\nbeagle_2 5 2 1\npug_3 6 2 2\n",
        "test": "Bengal_4 2 1 2\n",
    }
    for split, text in lists.items():
        (tmp_path / f"annotations/{split}.txt").write_text(text)
    (tmp_path / "annotations/list.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n")
    found, _ = recognise(tmp_path)
    assert (found.NAME, found.splits(tmp_path)) == ("voc", ["trainval"])  # no box in test
    data = open_annotations(tmp_path, "trainval")
    assert data.classes == ["cat", "dog"]
    assert [r.path.stem for r in data.records] == ["Abyssinian_1", "beagle_2"]
    assert data.records[1].where == [f"{tmp_path}/annotations/xmls/beagle_2.xml:2"]
    assert data.unread == ["1 listed picture(s) without an XML file"]
    (tmp_path / "annotations/trainval.txt").write_bytes(b"\xff\n")
    with pytest.raises(EyelineError, match=r"trainval\.txt: not UTF-8"):
        open_annotations(tmp_path, "trainval")


def test_the_trimaps_as_masks(tmp_path: Path) -> None:
    """As docs/data.md says: beside links to the folders, a list of what 0, 1, 2 and 3 mean."""
    picture(tmp_path / "pets/images/a.jpg")
    trimap = Image.new("L", (20, 16), 2)
    trimap.paste(3, (2, 2, 12, 12))
    trimap.paste(1, (4, 4, 10, 10))
    (tmp_path / "pets/annotations/trimaps").mkdir(parents=True)
    trimap.save(tmp_path / "pets/annotations/trimaps/a.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/images").symlink_to(tmp_path / "pets/images")
    (tmp_path / "masks/masks").symlink_to(tmp_path / "pets/annotations/trimaps")
    (tmp_path / "masks/classes.txt").write_text("void\npet\n_background_\nignore\n")
    data = open_annotations(tmp_path / "masks", "train")
    assert data.classes == ["pet"]
    assert data.records[0].labels.tolist() == [0, -1]
    assert data.records[0].boxes.tolist() == [[4, 4, 10, 10], [2, 2, 12, 12]]
