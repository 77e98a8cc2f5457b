from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from eyeline.data.checking import check
from eyeline.data.formats import open_annotations
from eyeline.errors import EyelineError

NAMES = "names: [cat, traffic light]\n"


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 4)).save(path)


def data_set(root: Path, yaml: str = "train: images/train\n" + NAMES, line: str = "") -> Path:
    picture(root / "images/train/a.png")
    picture(root / "images/train/b.png")
    put(root / "labels/train/a.txt", line or "1 0.5 0.5 0.25 1\n\n0 0 0 0.5 0 0.5 0.5 0.25 0.75\n")
    put(root / "data.yaml", yaml)
    return root


def fails(path: Path, *said: str, split: str = "train") -> None:
    with pytest.raises(EyelineError) as error:
        open_annotations(path, split)
    assert "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)


def test_boxes_and_outlines(tmp_path: Path) -> None:
    found = open_annotations(data_set(tmp_path), "train")
    assert found.classes == ["cat", "traffic light"] and found.category_ids is None
    first, second = found.records
    assert (first.width, first.height, first.path.name) == (8, 4, "a.png")
    assert first.boxes.tolist() == [[3, 0, 5, 4], [0, 0, 4, 3]]
    assert first.labels.tolist() == [1, 0] and not first.iscrowd.any()
    assert first.segmentations == [[], [[0, 0, 4, 0, 4, 2, 2, 3]]]
    label = tmp_path / "labels/train/a.txt"
    assert first.where == [f"{label}:1", f"{label}:3"]
    assert second.boxes.shape == (0, 4) and second.labels.shape == (0,)  # it has no file


@pytest.mark.parametrize(
    "yaml",
    [
        "path: .\ntrain: images/train\nval:\nnc: 2\nnames:\n  0: cat\n  1: traffic light\n",
        "path: /where/it/was/made\ntrain: images/train\nnames: ['cat', \"traffic light\"]\n",
        "train: [images/train]\n" + NAMES,
        "train: ../images/train\ndownload: https://x.invalid/a.zip\n" + NAMES,
        "train: list.txt\n" + NAMES,
    ],
)
def test_the_usual_descriptions(tmp_path: Path, yaml: str) -> None:
    root = data_set(tmp_path / "set", yaml)
    put(root / "list.txt", "./images/train/a.png\nimages/train/b.png\n")
    for path in (root, root / "data.yaml"):
        found = open_annotations(path, "train")
        assert found.classes == ["cat", "traffic light"]
        assert [len(record.boxes) for record in found.records] == [2, 0]
        fails(path, "no split 'val'", "there are: train", split="val")


def test_folders_by_split(tmp_path: Path) -> None:
    """train/images and train/labels, as some sites export."""
    for split in ("train", "valid"):
        picture(tmp_path / split / "images/a.jpg")
        put(tmp_path / split / "labels/a.txt", "0 0.5 0.5 1 1")
    put(tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\n" + NAMES)
    [record] = open_annotations(tmp_path, "val").records
    assert record.path == tmp_path / "valid/images/a.jpg"
    assert record.boxes.tolist() == [[0, 0, 8, 4]]


def test_names_are_words_whatever_they_look_like(tmp_path: Path) -> None:
    yaml = "train: images/train\nnames: {0: no, 1: 010}\n"
    assert open_annotations(data_set(tmp_path, yaml), "train").classes == ["no", "010"]


def test_without_a_description(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    (root / "data.yaml").unlink()
    fails(root, "no names", "data.yaml", "classes.txt")
    named = open_annotations(root, "train", ["cat", "dog"])
    assert named.classes == ["cat", "dog"] and named.records[0].labels.tolist() == [1, 0]
    put(root / "labels/classes.txt", "cat\ntraffic light\n")
    other = open_annotations(root, "train", ["traffic light", "cat"])  # told by name
    assert other.records[0].labels.tolist() == [0, 1]
    for name in ("a.png", "b.png"):
        (root / "images/train" / name).rename(root / "images" / name)
    (root / "labels/train/a.txt").rename(root / "labels/a.txt")
    (root / "images/train").rmdir()
    found = open_annotations(root, "train")
    assert [len(record.boxes) for record in found.records] == [2, 0] and found.unread == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 0.2", ("a.txt:1", "4 numbers of a box", "not 4 numbers")),
        ("0 0.5 0.5 0.2 0.2 0.9", ("a.txt:1", "not 6 numbers")),
        ("\n0 0.5 0.5 0.2 x", ("a.txt:2", "'0 0.5 0.5 0.2 x'")),
        ("2 0.5 0.5 0.2 0.2", ("a.txt:1", "no class 2", "2 have names")),
        ("0.5 0.5 0.5 0.2 0.2", ("a.txt:1", "no class 0.5")),
        ("-1 0.5 0.5 0.2 0.2", ("a.txt:1", "no class -1")),
        ("0 320 240 20 20", ("a.txt:1", "from 0 to 1, not 320")),
        ("0 0.5 nan 0.2 0.2", ("a.txt:1", "not nan")),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: str, said: tuple[str, ...]) -> None:
    fails(data_set(tmp_path, line=line), *said)


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("train: images/train\nnames: [cat, cat]\n", ("data.yaml:2", "'cat' is there twice")),
        ("train: images/train\nnames: {0: cat, 2: dog}\n", ("data.yaml:2", "not 0, 2")),
        ("train: images/train\nnames: cat\n", ("data.yaml:2", "a list of names")),
        ("nc: 3\ntrain: images/train\nnames: [a, b]\n", ("data.yaml:1", "is 3", "2 names")),
        ("names: [a]\ntrain: images/other\n", ("data.yaml:2", "train", "images/other")),
        ("names: [a\ntrain: images/train\n", ("data.yaml:", "not valid YAML")),
        ("train: list.txt\nnames: [a, b]\n", ("list.txt:2", "images/c.png")),
    ],
)
def test_broken_descriptions_are_named(tmp_path: Path, yaml: str, said: tuple[str, ...]) -> None:
    root = data_set(tmp_path, yaml)
    put(root / "list.txt", "images/train/a.png\nimages/c.png\n")
    fails(root, *said)


def test_a_split_that_is_named_but_not_there(tmp_path: Path) -> None:
    """As of exports without pictures to test on."""
    root = data_set(tmp_path, "train: ../images/train\ntest: ../test/images\nnames: [cat, dog]\n")
    assert len(open_annotations(root, "train").records) == 2
    fails(root, "data.yaml:2", "test: there is no", "take out the line", split="test")
    report = check(root)
    assert list(report.splits) == ["train"]
    errors = [fault.where for fault in report.faults if fault.severity == "error"]
    assert errors == [f"{root / 'data.yaml'}:2: test"]


def test_labels_that_are_not_there_or_belong_to_nothing(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    put(root / "labels/train/c.txt", "0 0.5 0.5 1 1")
    assert open_annotations(root, "train").unread == ["1 label file(s) without a picture"]
    (root / "labels").rename(root / "lables")
    fails(root, "no picture of 'train' has its label file", "labels/train/a.txt")
