"""No file is taken for one of another format, however it is laid out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eyeline.data.formats import FORMATS

OUTLINE = {"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2, 2]}
# Each with words of the others where a user may have put them.
REGION = {"shape_attributes": OUTLINE, "region_attributes": {"images": "annotations", "info": {}}}
PICTURE = {"filename": "shapes.jpg", "size": 7, "regions": [REGION], "file_attributes": {}}
SHAPE = {"label": "categories", "points": [[1, 2], [3, 4], [5, 5]], "flags": {"filename": True}}
EMBEDDED = 'a"[{' + "A" * 200_000
COCO: dict[str, Any] = {
    "info": {"description": '"shapes": [{"filename": "a"}]', "filename": "x"},
    "images": [{"id": 1, "file_name": "a.jpg", "shapes": 1, "regions": []}],
    "annotations": [],
    "categories": [{"id": 1, "name": "imageData"}],
}
LABELME = {"version": "5", "flags": {"images": True}, "shapes": [SHAPE], "imagePath": "a.jpg"}
FILES = {
    "coco": [COCO, dict(reversed(COCO.items()))],
    "via": [
        {"shapes.jpg7": PICTURE},
        {"shapes.jpg7": dict(sorted(PICTURE.items()))},
        {"info7": {"fileref": "", "size": 7, "filename": "a", "base64_img_data": EMBEDDED}},
        {"_via_settings": {"core": {}}, "_via_img_metadata": {"images": PICTURE}},
    ],
    "labelme": [
        {**LABELME, "imageData": EMBEDDED},
        dict(sorted({**LABELME, "imageData": EMBEDDED}.items())),
        {"imageData": EMBEDDED, "shapes": []},
    ],
    None: [{}, [COCO], {"a": {"b": 1}}, {"config": {"filename": "log.txt"}}, "images"],
}
CASES = [(name, content) for name, own in FILES.items() for content in own]


def found(path: Path) -> list[str]:
    return [format.NAME for format in FORMATS if format.splits(path) is not None]


@pytest.mark.parametrize("style", [{}, {"indent": 4}, {"separators": (",", ":")}])
@pytest.mark.parametrize(("name", "content"), CASES)
def test_json(tmp_path: Path, name: str | None, content: Any, style: Any) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(content, **style))
    expected = [] if name is None else [name]
    assert found(file) == expected
    assert found(tmp_path) == expected


def test_what_via_names_as_its_own(tmp_path: Path) -> None:
    """An empty one is VIA's by its name; what VIA exports in COCO's form is COCO's."""
    (tmp_path / "via_region_data.json").write_text("{}")
    assert found(tmp_path) == ["via"]
    (tmp_path / "via_region_data.json").write_text(json.dumps(COCO))
    assert found(tmp_path) == ["coco"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<annotations>", ["cvat"]),
        ("<?xml version='1.0'?>\n<!-- <annotation> -->\n<annotations >", ["cvat"]),
        ("<annotation><filename>a.jpg</filename></annotation>", []),
        ("<annotationsets>", []),
    ],
)
def test_xml(tmp_path: Path, text: str, expected: list[str]) -> None:
    (tmp_path / "x.xml").write_text(text)
    assert found(tmp_path / "x.xml") == found(tmp_path) == expected
