"""LabelMe's JSON as its versions write it."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eyeline.data.faults import Fault, Faults
from eyeline.data.formats import REGION, format_named, open_annotations, recognise
from eyeline.data.formats.writing import plan, write
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import decode_masks

BITMAP = np.array([[1, 1, 0], [0, 1, 1]], bool)


def png(bitmap: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(bitmap).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def shape(label: str, points: list[list[float]], kind: str = "polygon", **more: Any) -> Any:
    own = {"label": label, "points": points, "group_id": None, "description": ""}
    return {**own, "shape_type": kind, "flags": {}, "mask": None, **more}


SHAPES = [
    shape("cat", [[1.5, 2], [20.25, 2], [20, 30]]),
    shape("dog", [[40, 30], [22, 8.5]], "rectangle"),  # drawn from its lower right
    shape("dog", [[30, 20], [33, 24]], "circle"),
    shape("cat", [[10, 4], [12, 5]], "mask", mask=png(BITMAP.astype(np.uint8))),
    shape("dog", [[1, 1], [5, 1], [5, 5]], group_id=3),
    shape("cat", [[1, 1], [5, 1], [5, 5]], group_id=3),  # of another class, so another object
    shape("dog", [[9, 9], [12, 9], [12, 12]], group_id=3),
    shape("__ignore__", [[50, 1], [60, 9]], "rectangle"),
    shape("dog", [[3, 4]], "point"),
    shape("dog", [[3, 4], [5, 6], [7, 8]], "linestrip"),
    shape("cat", [[0, 0], [4, 4]], "rectangle", flags={"difficult": True, "occluded": False}),
]


def content(shapes: list[Any] = SHAPES, name: str = "a.jpg", **more: Any) -> dict[str, Any]:
    data = {"imageData": None, "imageHeight": 48, "imageWidth": 64}
    return {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": name, **data, **more}


def data_set(folder: Path, **files: Any) -> Path:
    """Files by their stems; each has its picture beside it."""
    folder.mkdir(parents=True)
    for stem, data in files.items():
        Image.new("RGB", (64, 48)).save(folder / f"{stem}.jpg")
        text = json.dumps(data, ensure_ascii=False, indent=2)
        (folder / f"{stem}.json").write_text(text, encoding="utf-8")
    return folder


def test_content(tmp_path: Path) -> None:
    root = data_set(tmp_path / "x", a=content(), b=content([], "b.jpg"))
    data = open_annotations(root, "train")
    assert data.classes == ["cat", "dog"]
    record, empty = data.records
    assert empty.boxes.shape == (0, 4)
    assert record.path == root / "a.jpg" and (record.width, record.height) == (64, 48)
    assert record.labels.tolist() == [0, 1, 1, 0, 1, 0, REGION, 0]
    assert record.boxes.tolist() == [
        [1.5, 2, 20.25, 30],
        [22, 8.5, 40, 30],
        [25, 15, 35, 25],
        [10, 4, 13, 6],
        [1, 1, 12, 12],
        [1, 1, 5, 5],
        [50, 1, 60, 9],
        [0, 0, 4, 4],
    ]
    assert record.iscrowd.tolist() == [False] * 6 + [True] * 2
    assert record.attribute("difficult").tolist() == [0] * 7 + [1]
    assert record.where[4] == f"{root}/a.json: shapes[4]"
    assert record.segmentations is not None
    assert record.segmentations[1] == []
    assert record.segmentations[4] == [[1, 1, 5, 1, 5, 5], [9, 9, 12, 9, 12, 12]]
    masks = decode_masks(record.segmentations[2:4], 48, 64)
    assert masks[0].sum() == pytest.approx(np.pi * 25, rel=0.05)
    assert (masks[1][4:6, 10:13] == BITMAP).all() and masks[1].sum() == 4
    assert sorted(data.unread) == ["1 linestrip(s)", "1 point(s)"]


@pytest.mark.parametrize(
    "encoded",
    [png(BITMAP), png(BITMAP.astype(np.uint8) * 255), png(np.stack([BITMAP * np.uint8(9)] * 3, 2))],
    ids=["one bit", "255", "rgb"],
)
def test_masks_of_other_writers(tmp_path: Path, encoded: str) -> None:
    root = data_set(
        tmp_path / "x",
        # Corners between pixels; and one that sticks out to the left and the bottom.
        a=content([shape("cat", [[9.7, 4.2], [12.1, 5.4]], "mask", mask=encoded)]),
        b=content([shape("cat", [[-1, 47], [1, 48]], "mask", mask=encoded)], "b.jpg"),
    )
    first, second = open_annotations(root, "train").records
    assert first.boxes.tolist() == [[10, 4, 13, 6]]
    assert second.boxes.tolist() == [[0, 47, 1, 48]]
    assert second.segmentations is not None
    [mask] = decode_masks(second.segmentations, 48, 64)
    assert np.argwhere(mask).tolist() == [[47, 0]]


def test_a_group_of_a_mask_an_outline_and_a_box(tmp_path: Path) -> None:
    parts = [SHAPES[3], shape("cat", [[20, 20], [24, 20], [24, 24]]), SHAPES[-1]]
    root = data_set(tmp_path / "x", a=content([{**part, "group_id": 1} for part in parts]))
    [record] = open_annotations(root, "train").records
    assert record.boxes.tolist() == [[0, 0, 24, 23]] and record.iscrowd.tolist() == [True]
    assert record.segmentations is not None
    [mask] = decode_masks(record.segmentations, 48, 64)
    assert mask[:4, :4].all() and mask[4, 10] and mask[21, 23] and not mask[21, 20]
    assert mask.sum() == 16 + 4 + decode_masks([[[20, 20, 24, 20, 24, 24]]], 48, 64).sum()


def test_where_the_picture_is(tmp_path: Path) -> None:
    """By imagePath with either slash; else by the file's own name. What is embedded is not used."""
    embedded = png(np.ones((9, 9), bool))
    old = content(name="..\\pictures\\a.jpg", imageData=embedded)
    del old["imageHeight"], old["imageWidth"]
    for one in old["shapes"]:
        one.pop("mask", None) if one["shape_type"] != "mask" else None
    root = data_set(tmp_path / "x", a=old, b=content(name="moved/else.jpg"))
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (70, 50)).save(tmp_path / "pictures/a.jpg")
    first, second = open_annotations(root, "train").records
    assert first.path.resolve() == tmp_path / "pictures/a.jpg" and second.path == root / "b.jpg"
    assert (first.width, first.height) == (70, 50)
    (root / "b.jpg").unlink()
    with pytest.raises(Fault, match=r"b.json: no such picture: 'moved/else.jpg', nor b.jpg"):
        open_annotations(root, "train")
    (root / "b.json").write_text(json.dumps(content(name="../pictures/a.jpg")))
    with pytest.raises(Fault, match=r"b.json: annotates a.jpg, as .*a.json does"):
        open_annotations(root, "train")


def test_files_in_a_folder_beside_that_of_the_pictures(tmp_path: Path) -> None:
    """images/ and labels/, which YOLO has too."""
    data_set(tmp_path / "labels", a=content())
    (tmp_path / "images").mkdir()
    (tmp_path / "labels/a.jpg").rename(tmp_path / "images/a.jpg")
    assert recognise(tmp_path)[0].NAME == "labelme"
    [record] = open_annotations(tmp_path, "train").records
    assert record.path.resolve() == tmp_path / "images/a.jpg"


def test_splits_are_folders(tmp_path: Path) -> None:
    data_set(tmp_path / "train", a=content())
    data_set(tmp_path / "val", a=content([shape("bird", [[1, 1], [5, 1], [5, 5]]), SHAPES[1]]))
    found, folder = recognise(tmp_path)
    assert (found.NAME, found.splits(folder)) == ("labelme", ["train", "val"])
    data = open_annotations(tmp_path, "val")
    assert data.classes == ["cat", "dog", "bird"]  # those of train keep their labels
    assert data.records[0].labels.tolist() == [2, 1]
    with pytest.raises(EyelineError, match=r"a.json: shapes\[0\]: the class 'bird' is not one of"):
        open_annotations(tmp_path, "val", ["cat", "dog"])
    assert len(open_annotations(tmp_path / "val/a.json", "any").records) == 1


def test_a_json_of_another_kind_beside_them(tmp_path: Path) -> None:
    root = data_set(tmp_path / "x", a=content())
    (root / "notes.json").write_text('{"by": "me"}')
    data = open_annotations(root, "train")
    assert len(data.records) == 1
    assert "1 JSON file(s) of another kind, the first notes.json" in data.unread
    (root / "a.json").write_text('{"by": "me"}')  # its picture is there, so it should be one
    (root / "b.json").write_text(json.dumps(content(name="a.jpg")))
    with pytest.raises(Fault, match=r"a.json: not LabelMe's JSON: it has no list 'shapes'"):
        open_annotations(root, "train")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": ""}, "the shape has no label, but ''"),
        ({"points": [[1, 2], [3, 4]]}, "at least 3 corners, not 2 and 2"),
        ({"points": [[1, 2], [3, "x"], [4, 5]]}, "points should be numbers"),
        ({"points": [1, 2, 3]}, r"should be a list of \[x, y\], not \[1, 2, 3\]"),
        ({"shape_type": "rectangle"}, "a rectangle has 2 or 4 points, not 3"),
        ({"shape_type": "blob"}, "there is no shape_type 'blob'"),
        ({"group_id": [1]}, r"group_id should be a number, not \[1\]"),
        ({"flags": [1]}, r"flags should be an object in braces, not \[1\]"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    root = data_set(tmp_path / "x", a=content([SHAPES[1], {**SHAPES[0], **change}]))
    with pytest.raises(Fault, match=rf"a.json: shapes\[1\]: .*{said}"):
        open_annotations(root, "train")
    faults = Faults(gather=True)
    assert len(open_annotations(root, "train", faults=faults).records[0].boxes) == 1
    assert len(faults.found) == 1


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (None, "should be a PNG in base64, not None"),
        ("!!", "is no PNG in base64: it begins like none"),
        (png(BITMAP)[:40], "is no PNG in base64"),
        (png(np.ones((2, 9), bool)), "has 9x2 pixels, its points span 3x2"),
    ],
)
def test_broken_masks(tmp_path: Path, mask: Any, said: str) -> None:
    root = data_set(tmp_path / "x", a=content([{**SHAPES[3], "mask": mask}]))
    with pytest.raises(Fault, match=rf"^{root}/a.json: shapes\[0\]: (the mask )?{said}"):
        open_annotations(root, "train")


@pytest.mark.parametrize("sides", [(-3, 5), (1e5, 1e5), (0.5, 4), ("x", 4)])
def test_sizes_that_make_no_sense(tmp_path: Path, sides: tuple[Any, Any]) -> None:
    root = data_set(tmp_path / "x", a=content([], imageHeight=sides[0], imageWidth=sides[1]))
    with pytest.raises(Fault, match=r"a.json: (a picture cannot be of|the height and width)"):
        open_annotations(root, "train")


def test_what_is_written_is_as_the_tool_reads_it(tmp_path: Path) -> None:
    data = open_annotations(data_set(tmp_path / "x", a=content()), "train")
    planned = plan({"train": data}, format_named("labelme"))
    assert planned.lost == [f"train: {text}" for text in data.unread]
    write(planned, tmp_path / "new")
    written = json.loads((tmp_path / "new/train/a.json").read_text())
    assert written["imagePath"] == "a.jpg" and written["imageWidth"] == 64
    kinds = [one["shape_type"] for one in written["shapes"]]
    assert kinds == [
        *("polygon", "rectangle", "polygon", "mask", "polygon", "polygon", "polygon"),
        *("rectangle", "rectangle"),
    ]
    assert [one["group_id"] for one in written["shapes"]] == [None] * 4 + [4, 4] + [None] * 3
    mask = written["shapes"][3]
    assert mask["points"] == [[10, 4], [12, 5]]
    with Image.open(io.BytesIO(base64.b64decode(mask["mask"]))) as image:
        assert (np.asarray(image) == BITMAP).all()
    data.classes[0] = "__ignore__"
    with pytest.raises(EyelineError, match="a class is called __ignore__"):
        write(plan({"train": data}, format_named("labelme")), tmp_path / "other")


def test_rectangles_of_four_corners(tmp_path: Path) -> None:
    """X-AnyLabeling's: a box where it stands upright, an outline where it is turned."""
    upright = [[9, 2], [9, 8], [1, 8], [1, 2]]
    turned = [[10, 2], [18, 10], [14, 14], [6, 6]]
    shapes = [
        shape("cat", upright, "rectangle"),
        shape("cat", turned, "rectangle"),
        {**shape("cat", turned, "rotation"), "difficult": True},
    ]
    [record] = open_annotations(data_set(tmp_path / "x", a=content(shapes)), "train").records
    assert record.boxes.tolist() == [[1, 2, 9, 8], [6, 2, 18, 14], [6, 2, 18, 14]]
    flat = [value for point in turned for value in point]
    assert record.segmentations == [[], [flat], [flat]]
    assert record.attribute("difficult").tolist() == [0, 0, 1]
    assert record.iscrowd.tolist() == [False, False, True]
