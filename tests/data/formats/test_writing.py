"""A data set is written whole or not at all; formats are told from folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyeline.data.formats import (
    FORMATS,
    Annotations,
    Format,
    Record,
    format_named,
    open_annotations,
    recognise,
)
from eyeline.data.formats.writing import plan, write
from eyeline.errors import EyelineError

ALL = pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.NAME)


@pytest.fixture
def made(tmp_path: Path) -> Annotations:
    records = []
    for name in ("a.png", "b/A.png", "c/a.jpg"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (len(records), 0, 0)).save(path)
        box = np.array([[1, 1, 5, 4]], np.float32)
        one = Record(path, 8, 6, box, np.zeros(1, int), np.zeros(1, bool), None, 0, ["here"])
        records.append(replace(one, image_id=len(records)))
    return Annotations(["cat"], records, "here")


@ALL
def test_pictures_of_one_name_get_others(format: Format, made: Annotations, tmp_path: Path) -> None:
    planned = plan({"train": made}, format)
    pictures = tmp_path / "pictures"
    assert planned.renamed == [
        f"{pictures}/b/A.png becomes A-2.png",
        f"{pictures}/c/a.jpg becomes a-3.jpg",
    ]
    write(planned, tmp_path / "new", link=False)
    read = open_annotations(tmp_path / "new", "train").records
    assert sorted(record.path.name for record in read) == ["A-2.png", "a-3.jpg", "a.png"]
    assert not any(record.path.is_symlink() for record in read)
    with pytest.raises(EyelineError, match=r"new exists already; choose a new folder$"):
        write(planned, tmp_path / "new")


@ALL
def test_what_breaks_off_leaves_nothing(format: Format, made: Annotations, tmp_path: Path) -> None:
    planned = plan({"train": made}, format)
    made.records[2].path.unlink()
    (tmp_path / "new").mkdir()  # an empty folder is as good as none
    with pytest.raises(FileNotFoundError):
        write(planned, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "pictures"]
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": [" cat"]}, "the class name ' cat' has blanks around it"),
        ({"classes": ["c\nt"]}, r"'c\\nt'"),
        ({"classes": [""]}, "the class name ''"),
    ],
)
def test_names_that_no_file_holds(made: Annotations, change: dict, said: str) -> None:
    with pytest.raises(EyelineError, match=said):
        plan({"train": replace(made, **change)}, FORMATS[0])


def test_what_cannot_be_written(made: Annotations) -> None:
    with pytest.raises(EyelineError, match=r"split '\.\./x'"):
        plan({"../x": made}, FORMATS[0])
    with pytest.raises(EyelineError, match="other classes than in here"):
        plan({"train": made, "val": replace(made, classes=["dog"])}, FORMATS[0])
    with pytest.raises(EyelineError, match=r"a\.png is listed twice"):
        plan({"train": replace(made, records=made.records[:1] * 2)}, FORMATS[0])
    made.records[1].boxes[0, 2] = np.inf
    with pytest.raises(EyelineError, match=r"^here: the box \[1.0, 1.0, inf, 4.0\]"):
        plan({"train": made}, FORMATS[0])


@ALL
def test_names_of_two_splits(format: Format, made: Annotations, tmp_path: Path) -> None:
    """Where every split has its folder, no picture needs another name because of the others."""
    first, second, third = made.records
    both = {"train": replace(made, records=[first]), "val": replace(made, records=[second])}
    planned = plan(both, format)
    renamed = [] if "folders" in format.HOLDS else [f"{second.path} becomes A-2.png"]
    assert planned.renamed == renamed
    write(planned, tmp_path / "new")
    assert [len(open_annotations(tmp_path / "new", split).records) for split in both] == [1, 1]
    both["val"].records.append(first)  # which needs one name for both
    both["train"].records.append(third)
    assert len(set(plan(both, format).names.values())) == 3


@pytest.mark.parametrize("name", ["voc", "kitti"])
def test_a_picture_of_two_splits(made: Annotations, tmp_path: Path, name: str) -> None:
    """Formats with one file for both hold it as long as both say the same."""
    both = {"train": made, "val": replace(made, records=made.records[1:])}
    write(plan(both, format_named(name)), tmp_path / "new")
    assert [len(open_annotations(tmp_path / "new", s).records) for s in both] == [3, 2]
    other = replace(made.records[1], boxes=made.records[1].boxes + 1)
    both["val"] = replace(made, records=[other])
    with pytest.raises(EyelineError, match=r"b/A\.png: it is in two splits with other objects"):
        write(plan(both, format_named(name)), tmp_path / "newer")
    assert not (tmp_path / "newer").exists()


def test_a_folder_of_two_formats(made: Annotations, tmp_path: Path) -> None:
    for name in ("coco", "voc"):
        write(plan({"train": made}, format_named(name)), tmp_path / name)
    for path in (tmp_path / "coco").iterdir():
        path.rename(tmp_path / "voc" / path.name)
    with pytest.raises(EyelineError) as error:
        open_annotations(tmp_path / "voc", "train")
    assert "looks like COCO and Pascal VOC" in str(error.value)
    assert "--format): coco or voc" in str(error.value)
    assert open_annotations(tmp_path / "voc", "train", format="voc").category_ids is None
    assert open_annotations(tmp_path / "voc", "train", format="coco").category_ids == [1]
    with pytest.raises(EyelineError, match="no format 'cocoa'; there are: coco, voc"):
        recognise(tmp_path / "voc", "cocoa")
    with pytest.raises(EyelineError, match=r"looked for YOLO"):
        recognise(tmp_path / "voc", "yolo")


def test_classes_in_a_list(made: Annotations, tmp_path: Path) -> None:
    write(plan({"train": made}, format_named("voc")), tmp_path / "new")
    (tmp_path / "new/classes.txt").write_text("dog\ncat\n\n")
    found = open_annotations(tmp_path / "new", "train")
    assert found.classes == ["dog", "cat"] and found.records[0].labels.tolist() == [1]
    for text, said in {
        "cat\n\ndog\n": ":2: an empty line",
        "cat\ncat": ":2: .*'cat' is there",
    }.items():
        (tmp_path / "new/classes.txt").write_text(text)
        with pytest.raises(EyelineError, match=f"classes.txt{said}"):
            open_annotations(tmp_path / "new", "train")
