"""Annotation files that were emptied or zeroed do not vanish from a data set of several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyeline.data.checking import check
from eyeline.data.faults import Faults
from eyeline.data.formats import FORMATS, Annotations, Format, Record, open_annotations, recognise
from eyeline.data.formats.writing import plan, write
from eyeline.errors import EyelineError

SPLITS = ("train", "val")


def data_set(folder: Path, name: str) -> dict[str, Path]:
    """Two splits of two pictures each; their annotation files."""
    chosen = next(format for format in FORMATS if format.NAME == name)
    splits = {}
    for k, split in enumerate(SPLITS):
        records = []
        for i in range(2):
            path = folder / f"{split}{i}.png"
            noise = np.random.default_rng(2 * k + i).integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((64, 48)).save(path)
            box, label = np.array([[1, 2, 30, 40]], np.float32), np.array([0])
            no = np.zeros(1, bool)
            records.append(Record(path, 64, 48, box, label, no, None, i, ["made up"]))
        splits[split] = Annotations(["cat"], records, "made up")
    write(plan(splits, chosen), folder / "set")
    return {split: next(_files(folder / "set", chosen, split)) for split in SPLITS}


def _files(root: Path, chosen: Format, split: str):  # type: ignore[no-untyped-def]
    for pattern in chosen.FILES:
        for file in sorted(root.glob(pattern)):
            if split in str(file.relative_to(root)):
                yield file


SPOILT = {
    "emptied": b"",
    "blank": b" \n\n",
    "zeroed": bytes(200),
    "its beginning zeroed": bytes(3),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("name", ["via", "csv", "openimages", "coco"])
def test_a_split_that_was_spoilt_is_named(tmp_path: Path, name: str, how: str) -> None:
    files = data_set(tmp_path, name)
    root = tmp_path / "set"
    assert check(root, copies=False).count("error") == 0
    spoilt = files["val"]
    rest = spoilt.read_bytes()[3:] if how.startswith("its") else b""
    spoilt.write_bytes(SPOILT[how] + rest)
    found = [fault for fault in check(root, copies=False).faults if fault.severity == "error"]
    assert [fault.kind for fault in found] == ["file"] and str(spoilt) in found[0].where
    with pytest.raises(EyelineError) as caught:
        open_annotations(root, "val")
    assert str(spoilt) in str(caught.value) and "\n" not in str(caught.value)
    assert len(open_annotations(root, "train").records) == 2
    files["train"].write_bytes(SPOILT[how] if not rest else spoilt.read_bytes())
    with pytest.raises(EyelineError) as caught:
        open_annotations(root, "train")
    assert str(files["train"]) in str(caught.value)


@pytest.mark.parametrize("how", ["emptied", "blank", "zeroed"])
def test_labelme(tmp_path: Path, how: str) -> None:
    """One file a picture: of another name than its picture it is named, too."""
    data_set(tmp_path, "labelme")
    root = tmp_path / "set"
    own = root / "train" / "train0.json"
    own.rename(root / "train" / "first.json")
    assert len(open_annotations(root, "train").records) == 2
    (root / "train" / "first.json").write_bytes(SPOILT[how])
    faults = Faults(gather=True)
    assert len(open_annotations(root, "train", faults=faults).records) == 1
    assert [str(root / "train" / "first.json") in fault.where for fault in faults.found] == [True]
    for file in (root / "val").glob("*.json"):
        file.write_bytes(SPOILT[how])
    places = {fault.where for fault in check(root, copies=False).faults if fault.kind == "file"}
    assert {str(file) for file in (root / "val").glob("*.json")} < places


def test_a_table_whose_first_row_is_spoilt(tmp_path: Path) -> None:
    """It may be anything: a note. A list of classes is none."""
    files = data_set(tmp_path, "csv")
    files["val"].write_text(files["val"].read_text().replace("filename", "filenane"))
    (tmp_path / "set" / "classes.csv").write_text("cat,0\n")
    found = check(tmp_path / "set", copies=False).faults
    assert [(fault.kind, fault.where) for fault in found] == [("stray", str(files["val"]))]
    assert found[0].what == "nothing in it that CSV would hold; it is not read"


def test_what_was_looked_for_is_short(tmp_path: Path) -> None:
    """Only formats whose files are of the kind that lies there most."""
    with pytest.raises(EyelineError) as caught:
        recognise(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: not annotations of a known format; looked for COCO, Pascal VOC, YOLO, KITTI, "
        "VIA, LabelMe, CVAT, CSV, Open Images, semantic masks, instance masks"
    )
    (tmp_path / "a.xml").write_text("<boxes/>")
    with pytest.raises(EyelineError) as caught:
        recognise(tmp_path)
    assert "looked for Pascal VOC (Ann" in str(caught.value) and "; CVAT (" in str(caught.value)
    assert "COCO" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(tmp_path))
    (tmp_path / "a.xml").write_bytes(bytes(20))
    with pytest.raises(EyelineError, match=r"a\.xml: zeros stand where text should be$"):
        recognise(tmp_path)
