"""CVAT's XML as it exports it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from eyeline.data.faults import Fault, Faults
from eyeline.data.formats import format_named, open_annotations, recognise
from eyeline.data.formats.writing import plan, write
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import decode_masks

XML = """\
<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>4</id>
      <name>segmentation</name>
      <size>2</size>
      <mode>annotation</mode>
      <labels>
        <label>
          <name>plate</name>
          <color>#fa3253</color>
          <type>any</type>
          <attributes>
          </attributes>
        </label>
        <label>
          <name>car</name>
          <attributes>
          </attributes>
        </label>
        <label>
          <name>s1</name>
          <type>skeleton</type>
        </label>
        <label>
          <name>1</name>
          <type>points</type>
          <parent>s1</parent>
        </label>
      </labels>
    </task>
    <dumped>2018-09-25 11:38:28.799808+03:00</dumped>
  </meta>
  <image id="0" name="a.jpg" width="64" height="48">
    <box label="plate" source="manual" occluded="1" xtl="7.33" ytl="8.92" xbr="20.50" ybr="30.00" \
z_order="4">
      <attribute name="colour">red</attribute>
      <attribute name="truncated">true</attribute>
    </box>
    <box label="car" occluded="0" xtl="10.00" ytl="10.00" xbr="30.00" ybr="20.00" rotation="90.00" \
group_id="1">
    </box>
    <polygon label="car" occluded="0" points="1.00,2.00;9.50,2.00;9.50,8.25" group_id="1">
    </polygon>
    <polygon label="car" occluded="0" points="20.00,2.00;30.00,2.00;30.00,8.00" group_id="1">
    </polygon>
    <ellipse label="car" occluded="0" cx="30.00" cy="20.00" rx="8.00" ry="4.00" z_order="0">
    </ellipse>
    <mask label="car" source="manual" occluded="0" rle="3, 5, 2, 2" left="7" top="8" width="4" \
height="3" z_order="0">
    </mask>
    <polyline label="car" occluded="0" points="1.00,1.00;2.00,2.00">
    </polyline>
    <points label="car" occluded="0" points="1.00,1.00">
    </points>
    <tag label="car" source="manual">
    </tag>
    <skeleton label="s1" source="manual" z_order="0">
      <points label="1" occluded="0" source="manual" outside="0" points="54.47,94.81">
      </points>
    </skeleton>
  </image>
  <image id="1" name="sub/b.jpg" width="64" height="48">
  </image>
</annotations>
"""
SUBSETS = XML.replace('name="a.jpg"', 'name="a.jpg" subset="Train" task_id="1"').replace(
    'name="sub/b.jpg"', 'name="sub/b.jpg" subset="Validation" task_id="2"'
)
PLACES = ("images/a.jpg", "images/sub/b.jpg")


def data_set(root: Path, xml: str = XML, places: tuple[str, ...] = PLACES) -> Path:
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(root / place)
    (root / "annotations.xml").write_text(xml)
    return root


def test_content(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    data = open_annotations(root, "train")
    assert data.classes == ["plate", "car"]  # in the order of the labels, without the skeleton's
    record, empty = data.records
    assert empty.path == root / "images/sub/b.jpg" and empty.boxes.shape == (0, 4)
    assert record.labels.tolist() == [0, 1, 1, 1, 1]
    assert (
        record.boxes.tolist()
        == np.float32(
            [
                [7.33, 8.92, 20.5, 30],
                [15, 5, 25, 25],  # 20 wide and 10 high, turned by a right angle
                [1, 2, 30, 8.25],
                [22, 16, 38, 24],
                [7, 8, 11, 11],
            ]
        ).tolist()
    )
    assert record.attribute("occluded").tolist() == [1, 0, 0, 0, 0]
    assert record.attribute("truncated").tolist() == [1, 0, 0, 0, 0]
    assert record.where[0] == f"{root}/annotations.xml:37"
    outlines = record.segmentations
    assert outlines is not None and outlines[0] == []
    assert outlines[1] == [[25, 5, 25, 25, 15, 25, 15, 5]]
    assert outlines[2] == [[1, 2, 9.5, 2, 9.5, 8.25], [20, 2, 30, 2, 30, 8]]
    ellipse, mask = decode_masks(outlines[3:], 48, 64)
    assert ellipse.sum() == pytest.approx(np.pi * 8 * 4, rel=0.05)
    assert mask[8:11, 7:11].astype(int).tolist() == [[0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 1, 1]]
    assert mask.sum() == 7
    assert sorted(data.unread) == [
        *("1 points(s)", "1 polyline(s)", "1 shape(s) with the attribute 'colour'"),
        *("1 skeleton(s)", "1 tag(s)"),
    ]


@pytest.mark.parametrize(
    "places",
    [
        ("images/Train/a.jpg", "images/Validation/sub/b.jpg"),
        ("Train/a.jpg", "Validation/sub/b.jpg"),
        PLACES,
        ("a.jpg", "sub/b.jpg"),
    ],
)
def test_subsets_are_splits(tmp_path: Path, places: tuple[str, ...]) -> None:
    root = data_set(tmp_path, SUBSETS, places)
    found, folder = recognise(root)
    assert (found.NAME, found.splits(folder)) == ("cvat", ["train", "val"])
    for split, place in zip(("train", "val"), places, strict=True):
        data = open_annotations(root, split)
        assert [record.path for record in data.records] == [root / place]
        assert data.classes == ["plate", "car"]


def test_no_subset_is_called_default(tmp_path: Path) -> None:
    root = data_set(tmp_path, SUBSETS.replace("Train", "default").replace("Validation", "default"))
    assert len(open_annotations(root, "train").records) == 2
    root = data_set(tmp_path / "2", SUBSETS.replace('"Train"', "'default'"))
    found, folder = recognise(root)
    assert found.splits(folder) == ["default", "val"]
    half = SUBSETS.replace('subset="Train"', "").replace("a.jpg", "a>.jpg")
    root = data_set(tmp_path / "3", half, ("images/a>.jpg", PLACES[1]))
    assert len(open_annotations(root, "default").records) == 1


def test_a_file_of_any_name(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    (root / "annotations.xml").rename(root / "task 4.xml")
    assert len(open_annotations(root, "train").records) == 2


def test_a_file_or_a_folder_for_each_split(tmp_path: Path) -> None:
    root = data_set(tmp_path / "files")
    (root / "annotations.xml").rename(root / "train.xml")
    (root / "val.xml").write_text(XML)
    assert open_annotations(root, "val").records[0].path == root / "images/a.jpg"
    for split in ("train", "val"):
        data_set(tmp_path / "folders" / split)
    found, folder = recognise(tmp_path / "folders")
    assert (found.NAME, found.splits(folder)) == ("cvat", ["train", "val"])
    data = open_annotations(folder, "val")
    assert data.records[1].path == folder / "val/images/sub/b.jpg"
    assert len(open_annotations(folder / "val/annotations.xml", "any").records) == 2


def test_frames_have_no_suffix(tmp_path: Path) -> None:
    xml = XML.replace("a.jpg", "frame_000000").replace("sub/b.jpg", "frame_000001")
    places = ("images/frame_000000.PNG", "images/frame_000001.PNG")
    data = open_annotations(data_set(tmp_path, xml, places), "train")
    assert [record.path.name for record in data.records] == [Path(p).name for p in places]


def test_tracks_are_refused(tmp_path: Path) -> None:
    track = '<track id="0" label="car"><box frame="0" xtl="1" ytl="1" xbr="2" ybr="2"/></track>'
    root = data_set(tmp_path, f"<annotations><version>1.1</version>{track}</annotations>")
    with pytest.raises(EyelineError, match=r"annotations.xml: tracks of a video, .* images 1\.1"):
        open_annotations(root, "train", faults=Faults(gather=True))


@pytest.mark.parametrize(
    ("old", "new", "said", "left"),
    [
        ('xtl="7.33"', 'xtl="left"', "xml:37: xtl, ytl, xbr, ybr should be numbers, not", [4, 0]),
        ('xtl="7.33"', "", r"xml:37: .*not \[None, '8.92'", [4, 0]),
        ("1.00,2.00;9.50,2.00;9.50", "1.00,2.00;9.50", "xml:43: .*at least 3 corners", [4, 0]),
        ("1.00,2.00;9.50", "1.00;9.50", "xml:43: points should be x,y;x,y", [4, 0]),
        ('"3, 5, 2, 2"', '"3, 5, 2"', "xml:49: the runs of rle are of 10 pixels, .* 12", [4, 0]),
        ('"3, 5, 2, 2"', '"3, 5, 5, -1"', "xml:49: the runs of rle", [4, 0]),
        ('label="plate"', 'label=""', "xml:37: the box has no label", [4, 0]),
        ('label="plate"', 'label="plat"', "xml:37: .*'plat' is not one of.*mean 'plate'", [4, 0]),
        ('name="sub/b.jpg"', 'name="c.jpg"', "xml:62: no such picture: .*images/c.jpg", [5]),
        ('name="sub/b.jpg"', 'name="a.jpg"', "xml:62: the picture a.jpg is there twice", [5]),
        ('name="sub/b.jpg" width="64"', 'name="sub/b.jpg" width="-64"', "xml:62: a pic", [5]),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, old: str, new: str, said: str, left: list[int]
) -> None:
    assert XML.count(old) == 1
    root = data_set(tmp_path, XML.replace(old, new))
    with pytest.raises(Fault, match=said):
        open_annotations(root, "train")
    faults = Faults(gather=True)
    data = open_annotations(root, "train", faults=faults)
    assert [len(record.boxes) for record in data.records] == left
    assert len(faults.found) == 1


def test_what_is_written_is_as_the_tool_reads_it(tmp_path: Path) -> None:
    data = open_annotations(data_set(tmp_path / "x"), "train")
    write(plan({"train": data}, format_named("cvat")), tmp_path / "new")
    tree = ElementTree.parse(tmp_path / "new/annotations.xml").getroot()
    assert tree.findtext("version") == "1.1"
    assert [e.text for e in tree.iterfind("meta/project/labels/label/name")] == ["plate", "car"]
    first, second = tree.findall("image")
    assert first.attrib["name"] == "a.jpg" and first.attrib["subset"] == "train"
    assert second.attrib["id"] == "1" and (tmp_path / "new/images/train/b.jpg").is_file()
    tags = [element.tag for element in first]
    assert tags == ["box", "polygon", "polygon", "polygon", "polygon", "mask"]
    assert [e.get("group_id") for e in first] == [None, None, "3", "3", None, None]
    assert first[0].attrib["xtl"] == "7.33" and first[0].attrib["occluded"] == "1"
    mask = {key: first[5].attrib[key] for key in ("rle", "left", "top", "width", "height")}
    assert mask == {"rle": "3, 5, 2, 2", "left": "7", "top": "8", "width": "4", "height": "3"}
