"""Objects that a spoilt file hid without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from eyeline.data.formats import open_annotations
from eyeline.errors import EyelineError


def test_a_key_that_is_twice(tmp_path: Path) -> None:
    """Of two pictures of VIA's under one key only the last would be read."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    entries = [
        json.dumps({"filename": name, "size": 1, "regions": [], "file_attributes": {}})
        for name in ("a.png", "b.png")
    ]
    text = "{" + ", ".join(f'"a.png1": {entry}' for entry in entries) + "}"
    (tmp_path / "via_region_data.json").write_text(text)
    with pytest.raises(EyelineError, match=r"json: the key 'a\.png1' is twice in one object$"):
        open_annotations(tmp_path, "train")


def test_a_shape_of_cvat_that_there_is_not(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    shape = '<bax label="cat" occluded="0" xtl="1" ytl="1" xbr="5" ybr="5"/>'
    text = f'<annotations><image id="0" name="a.png" width="8" height="6">{shape}</image>'
    (tmp_path / "annotations.xml").write_text(f"{text}</annotations>")
    with pytest.raises(EyelineError, match=r"annotations\.xml:1: there is no shape 'bax'"):
        open_annotations(tmp_path, "train")


def test_an_object_within_an_object(tmp_path: Path) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    inner = f"<object><name>dog</name>{box}</object>"
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text(
        f"<annotation><object><name>cat</name>{inner}{box}</object></annotation>"
    )
    data = open_annotations(tmp_path, "train")
    assert [data.classes[k] for k in data.records[0].labels] == ["cat", "dog"]
