"""VIA's JSON as its versions write it, and as people do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eyeline.data.faults import Fault, Faults
from eyeline.data.formats import format_named, open_annotations, recognise
from eyeline.data.formats.writing import plan, write
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import decode_masks

# Version 1, as of the balloon set: regions are numbered, the last corner is the first again.
BALLOON = (
    '{"a.jpg1115004":{"fileref":"","size":1115004,"filename":"a.jpg","base64_img_data":"",'
    '"file_attributes":{},"regions":{"0":{"shape_attributes":{"name":"polygon",'
    '"all_points_x":[10,30,20,10],"all_points_y":[5,5,25,5]},"region_attributes":{}},'
    '"1":{"shape_attributes":{"name":"polygon","all_points_x":[40,60,60],'
    '"all_points_y":[8,8,30]},"region_attributes":{}}}},'
    '"b.jpg7":{"fileref":"","size":7,"filename":"b.jpg","base64_img_data":"",'
    '"file_attributes":{},"regions":{}}}'
)

# A project of version 2, every shape it can draw; "type" is a dropdown, "quality" check boxes.
SHAPES: list[dict[str, Any]] = [
    {"name": "rect", "x": 4, "y": 5, "width": 10, "height": 20.5},
    {"name": "circle", "cx": 30, "cy": 20, "r": 8.5},
    {"name": "ellipse", "cx": 40, "cy": 24, "rx": 12, "ry": 6, "theta": 1.5707963267948966},
    {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]},
    {"name": "point", "cx": 3, "cy": 4},
    {"name": "polyline", "all_points_x": [1, 2], "all_points_y": [3, 4]},
]
TYPES = ["bird", "bird", "human", "bird", "bird", "human"]


def project(**attributes: Any) -> dict[str, Any]:
    regions = [
        {"shape_attributes": shape, "region_attributes": {"name": "Swan", "type": kind}}
        for shape, kind in zip(SHAPES, TYPES, strict=True)
    ]
    regions[0]["region_attributes"] |= attributes
    picture = {"filename": "a.jpg", "size": 62201, "regions": regions}
    return {
        "_via_settings": {"ui": {"annotation_editor_height": 25}, "core": {"buffer_size": "18"}},
        "_via_img_metadata": {"a.jpg62201": {**picture, "file_attributes": {"caption": "Swan"}}},
        "_via_attributes": {"region": {"type": {"type": "dropdown", "options": {"bird": ""}}}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": ["a.jpg62201"],
    }


def data_set(folder: Path, content: Any, name: str = "via_region_data.json") -> Path:
    folder.mkdir(parents=True)
    for picture in ("a.jpg", "b.jpg"):
        Image.new("RGB", (64, 48)).save(folder / picture)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_the_form_of_the_balloon_set(tmp_path: Path) -> None:
    for split in ("train", "val"):
        data_set(tmp_path / split, BALLOON)
    found, folder = recognise(tmp_path)
    assert (found.NAME, found.splits(folder)) == ("via", ["train", "val"])
    data = open_annotations(tmp_path, "val")
    assert data.classes == ["object"] and data.unread == []
    first, second = data.records
    assert first.path == tmp_path / "val/a.jpg" and second.boxes.shape == (0, 4)
    assert (first.width, first.height) == (64, 48)
    assert first.boxes.tolist() == [[10, 5, 30, 25], [40, 8, 60, 30]]
    assert first.segmentations == [[[10, 5, 30, 5, 20, 25, 10, 5]], [[40, 8, 60, 8, 60, 30]]]
    assert first.where[1] == f"{tmp_path}/val/via_region_data.json: regions[1] of 'a.jpg'"
    # The class gets its name from who opens it, or from classes.txt.
    assert open_annotations(tmp_path, "val", ["balloon"]).records[0].labels.tolist() == [0, 0]
    (tmp_path / "classes.txt").write_text("balloon\n")
    assert open_annotations(tmp_path, "val").classes == ["balloon"]
    planned = plan({"val": open_annotations(tmp_path, "val")}, format_named("via"))
    assert planned.lost == []


def test_a_project_of_version_2(tmp_path: Path) -> None:
    root = data_set(tmp_path / "x", project(), "via_project_25Nov2020_10h11m.json")
    data = open_annotations(root, "train")
    assert data.classes == ["bird", "human"]
    [record] = data.records
    assert record.labels.tolist() == [0, 0, 1, 0]
    assert record.boxes[0].tolist() == [4, 5, 14, 25.5]
    assert record.boxes[1].tolist() == [21.5, 11.5, 38.5, 28.5]
    assert record.boxes[2].tolist() == [34, 12, 46, 36]  # turned by a right angle
    assert record.segmentations is not None and record.segmentations[0] == []
    areas = decode_masks(record.segmentations[1:3], 48, 64).sum((1, 2))
    assert areas.tolist() == pytest.approx([np.pi * 8.5**2, np.pi * 12 * 6], rel=0.03)
    assert sorted(data.unread) == [
        "1 picture(s) with attributes of their own",
        "1 point(s)",
        "1 polyline(s)",
        "the region attribute 'name'",
    ]


def test_which_attribute_is_the_class(tmp_path: Path) -> None:
    root = data_set(tmp_path / "x", project())
    assert open_annotations(root, "train", attribute="name").classes == ["Swan"]
    with pytest.raises(
        EyelineError, match=r"no region attribute 'kind'; there are: 'name', 'type'"
    ):
        open_annotations(root, "train", attribute="kind")
    one = json.dumps(project()["_via_img_metadata"]).replace('"type"', '"Colour"')
    (root / "via_region_data.json").write_text(one.replace('"name": "Swan", ', ""))
    assert open_annotations(root, "train").classes == ["bird", "human"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"bird": True}, None),
        ({"bird": True, "human": True}, "'type' has several values: bird, human"),
        ({"bird": False}, "the region has no class: 'type' is None"),
        ("", "the region has no class: 'type' is ''"),
    ],
)
def test_check_boxes_and_no_choice(tmp_path: Path, value: Any, said: str | None) -> None:
    root = data_set(tmp_path / "x", project(type=value))
    if said is None:
        assert open_annotations(root, "train").records[0].labels.tolist() == [0, 0, 1, 0]
        return
    with pytest.raises(Fault, match=rf"regions\[0\] of 'a\.jpg': {said}"):
        open_annotations(root, "train")
    faults = Faults(gather=True)
    data = open_annotations(root, "train", faults=faults)
    assert [len(record.boxes) for record in data.records] == [3] and len(faults.found) == 1


def test_flags(tmp_path: Path) -> None:
    root = data_set(tmp_path / "x", project(difficult="1", occluded=True, truncated="no"))
    record = open_annotations(root, "train").records[0]
    assert record.iscrowd.tolist() == [True, False, False, False]
    flags = [record.attribute(name)[0] for name in ("difficult", "occluded", "truncated")]
    assert flags == [1, 1, 0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"x": 4', '"x": "far"', r"regions\[0\] of 'a.jpg': x, y, width, height should be numbers"),
        ('"x": 4', '"x": NaN', r"should be numbers, not \[nan, 5, 10, 20.5\]"),
        ("[1, 9, 9]", "[1, 9]", r"regions\[3\] .*at least 3 corners, not 2 and 3"),
        ("[1, 9, 9]", "7", r"regions\[3\] .*should be lists, not 7"),
        ('"circle"', '"blob"', r"there is no shape 'blob'"),
        ('"filename": "a.jpg"', '"filename": "c.jpg"', r"x/c.jpg: no such picture"),
        ('"filename": "a.jpg"', '"filename": 3', r"'a.jpg62201': filename should be a name, not 3"),
        ('"regions": [', '"regions": [7, ', r"regions\[0\] of 'a.jpg': a region should be an obj"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = json.dumps(project())
    assert text.count(old) == 1
    root = data_set(tmp_path / "x", text.replace(old, new))
    with pytest.raises(Fault, match=said):
        open_annotations(root, "train")


def test_a_project_of_version_3_is_refused(tmp_path: Path) -> None:
    content = {"project": {"pid": "__VIA_PROJECT_ID__"}, "config": {}, "file": {}, "view": {}}
    root = data_set(tmp_path / "x", content, "via_project_1.json")
    with pytest.raises(EyelineError, match="a project of VIA 3, which is not read"):
        open_annotations(root, "train")


def test_files_and_splits(tmp_path: Path) -> None:
    """One file a split in the folder of the pictures; a name as Windows has it; images/."""
    root = data_set(tmp_path / "x", BALLOON, "train.json")
    (root / "val.json").write_text(BALLOON.replace('"a.jpg"', '"C:\\\\data\\\\a.jpg"'))
    (root / "images").mkdir()
    (root / "a.jpg").rename(root / "images/a.jpg")
    found, folder = recognise(root)
    assert found.splits(folder) == ["train", "val"]
    for path in (root, root / "val.json"):
        assert open_annotations(path, "val").records[0].path == root / "images/a.jpg"


def test_what_is_written_is_as_the_tool_reads_it(tmp_path: Path) -> None:
    data = open_annotations(data_set(tmp_path / "x", project()), "train")
    write(plan({"train": data}, format_named("via")), tmp_path / "new")
    content = json.loads((tmp_path / "new/train/via_region_data.json").read_text())
    size = (tmp_path / "x/a.jpg").stat().st_size
    assert list(content) == [f"a.jpg{size}"]
    picture = content[f"a.jpg{size}"]
    assert (picture["filename"], picture["size"]) == ("a.jpg", size)
    rect = {"name": "rect", "x": 4.0, "y": 5.0, "width": 10.0, "height": 20.5}
    assert picture["regions"][0] == {
        "shape_attributes": rect,
        "region_attributes": {"class": "bird"},
    }
