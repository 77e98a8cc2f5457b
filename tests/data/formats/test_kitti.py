from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from eyeline.data.formats import REGION, format_named, open_annotations
from eyeline.data.formats.writing import plan, write
from eyeline.errors import EyelineError

LINES = """\
Truck 0.25 2 -1.57 599.41 156.4 629.75 189.25 2.85 2.63 12.34 0.47 1.49 69.44 -1.56
DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10
Car 0 0 0 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57
Cyclist -1 -1 -10 1 2 3.5 4 -1 -1 -1 -1000 -1000 -1000 -10
"""


def data_set(root: Path, text: str = LINES, names: tuple[str, ...] = ("000000", "000007")) -> Path:
    for folder in ("image_2", "label_2"):
        (root / folder).mkdir(parents=True)
    for name in names:
        Image.new("RGB", (1242, 375)).save(root / "image_2" / f"{name}.png")
        (root / "label_2" / f"{name}.txt").write_text(text)
    return root


def fails(path: Path, *said: str) -> None:
    with pytest.raises(EyelineError) as error:
        open_annotations(path, "train")
    assert "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)


def test_content(tmp_path: Path) -> None:
    data_set(tmp_path / "training")
    found = open_annotations(tmp_path, "train")
    assert found.classes == ["Car", "Cyclist", "Truck"] and len(found.records) == 2
    record = found.records[0]
    assert (record.width, record.height, record.path.name) == (1242, 375, "000000.png")
    assert record.labels.tolist() == [2, REGION, 0, 1]
    assert record.iscrowd.tolist() == [False, True, False, False]
    assert record.boxes[3].tolist() == [1, 2, 3.5, 4]
    assert record.boxes[0].round(2).tolist() == pytest.approx([599.41, 156.4, 629.75, 189.25])
    assert record.attribute("truncated").tolist() == [0.25, 0, 0, 0]
    assert record.attribute("occluded").tolist() == [2, 0, 0, 0]
    assert record.attribute("3-D length").tolist() == [12.34, 0, 3.69, 0]
    assert record.where[3] == f"{tmp_path}/training/label_2/000000.txt:4"


def test_nothing_of_a_line_is_lost(tmp_path: Path) -> None:
    """Numbers come back as they were, those of the solid too; what is not known is told its way."""
    found = open_annotations(data_set(tmp_path / "a"), "train")
    planned = plan({"train": found}, format_named("kitti"))
    assert planned.lost == [] and planned.renamed == []
    write(planned, tmp_path / "b")
    written = (tmp_path / "b/training/label_2/000007.txt").read_text()
    assert written == LINES.replace("Cyclist -1 -1", "Cyclist 0 0")


def test_unknown_names_can_be_ignored(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    with pytest.raises(EyelineError, match=r"000000.txt:1: the class 'Truck' is not one of Car"):
        open_annotations(root, "train", ["Car"])
    record = open_annotations(root, "train", ["Car"], unknown="ignore").records[0]
    assert record.labels.tolist() == [REGION, REGION, 0, REGION]
    assert record.iscrowd.tolist() == [True, True, False, True]
    with pytest.raises(EyelineError, match="'drop'"):
        open_annotations(root, "train", ["Car"], unknown="drop")  # type: ignore[arg-type]


def test_splits(tmp_path: Path) -> None:
    data_set(tmp_path / "training")
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets/val.txt").write_text("000007\n")
    (tmp_path / "ImageSets/train.txt").write_text("000000\n")
    (tmp_path / "training/label_2/000007.txt").write_text(LINES.splitlines()[2])
    found = open_annotations(tmp_path, "val")
    assert found.classes == ["Car", "Cyclist", "Truck"]  # the labels are those of "train"
    assert [record.labels.tolist() for record in found.records] == [[0]]
    (tmp_path / "ImageSets/train.txt").write_text("000000\n\n000009\n")
    fails(tmp_path, "train.txt:3", "000009.txt is not there")


def test_broken_files_are_named(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    label = root / "label_2/000007.txt"
    label.write_text(LINES + "Car 0 0 1 2 3 4\n")
    fails(root, "000007.txt:5", "15 fields", "not 7")
    label.write_text(LINES.replace("69.44", "far"))
    fails(root, "000007.txt:1", "numbers", "far")
    label.write_text(LINES)
    (root / "image_2/000007.png").unlink()
    fails(root, "000007.txt", "no picture", "image_2/000007.png")


def test_scores_are_said_to_be_left(tmp_path: Path) -> None:
    root = data_set(tmp_path, LINES.replace("-1.56\n", "-1.56 0.93\n"))
    assert open_annotations(root, "train").unread == ["2 score(s) of a detector"]


def test_a_class_that_kitti_has_another_use_for(tmp_path: Path) -> None:
    found = open_annotations(data_set(tmp_path / "a"), "train")
    found.classes[0] = "DontCare"
    with pytest.raises(EyelineError, match="a class is called DontCare"):
        write(plan({"train": found}, format_named("kitti")), tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
