"""What the numbers in masks may mean, and masks that are not read yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eyeline.data.faults import STRICT, Fault
from eyeline.data.formats import open_annotations, recognise
from eyeline.data.formats.legend import NOTHING, Values, read_legend
from eyeline.data.formats.semantic import read_target
from eyeline.errors import EyelineError

NAMES = ["road", "sky", "tree"]


def mask(path: Path, values: list[list[int]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("values", "pixels", "expected"),
    [
        (Values(), [0, 1, 2, 255], [0, 1, 2, 255]),
        (Values(ignore=[11, 3]), [0, 11, 2, 3], [0, 255, 2, 255]),
        (Values(ignore=[0], shift=-1), [0, 1, 3, 255], [255, 0, 2, 255]),  # ADE20K's
        (Values(ids={7: 0, 8: 0, 26: 2}, ignore="others"), [7, 8, 26, 9], [0, 0, 2, 255]),
        (Values(ids={200: 1, 0: 2}), [200, 0, 255, 0], [1, 2, 255, 2]),
        (Values(ids={0: 0, 255: 1}), [0, 255, 0, 255], [0, 1, 0, 1]),
    ],
)
def test_numbers(tmp_path: Path, values: Values, pixels: list[int], expected: list[int]) -> None:
    legend = read_legend(tmp_path, NAMES, values)
    assert legend.classes == NAMES
    assert read_target(mask(tmp_path / "a.png", [pixels]), legend).tolist() == [expected]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (Values(ignore=[1]), "data.ignore has 1, which is the class 'sky'"),
        (Values(shift=1), "with data.shift=1 the first class would be -1"),
        (Values(ids={4: 3}), "data.ids: 4 is to be class 3, and 3 have names"),
        (Values(ids={4: 2}, shift=1), "give data.ids or data.shift, not both"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, values: Values, said: str) -> None:
    with pytest.raises(Fault) as error:
        read_legend(tmp_path, NAMES, values)
    assert said in str(error.value)


def test_a_shift_leaves_no_value_unexplained(tmp_path: Path) -> None:
    """Of ADE20K 0 has to be ignored by name: nothing is ignored by the way."""
    legend = read_legend(tmp_path, NAMES, Values(shift=-1))
    file = mask(tmp_path / "a.png", [[1, 2], [3, 0]])
    with pytest.raises(Fault) as error:
        legend.labels(file, STRICT)
    assert str(error.value).startswith(f"{file}: the value 0 is no class, at x=1, y=1")
    assert "data.ignore=[0]" in str(error.value)


def test_colours_have_no_numbers(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("128 0 0 road\n0 128 0 sky\n")
    with pytest.raises(Fault, match="its masks have colours"):
        read_legend(tmp_path, None, Values(ignore=[3]))


def test_a_legend_by_other_names(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("road\nsky\ntree\n_background_\n")
    legend = read_legend(tmp_path)
    other = legend.known_as(["tree", "car", "road"], "ignore")
    assert other.label_of == {0: 2, 1: -1, 2: 0, 3: NOTHING, 255: -1}
    file = mask(tmp_path / "a.png", [[0, 1, 2, 3]])
    assert read_target(file, other, outside=1).tolist() == [[2, 255, 0, 1]]
    with pytest.raises(Fault, match="the value 1 is no class"):
        read_target(file, legend.known_as(["tree", "car", "road"]))


def folder(root: Path, count: int = 12, values: Any = ((0, 1), (2, 255))) -> Path:
    for i in range(count):
        mask(root / f"train/{i:02}.png", [[0, 0], [0, 0]])
        mask(root / f"trainannot/{i:02}.png", values)
    return root


def test_masks_that_are_read_later(tmp_path: Path) -> None:
    folder(tmp_path)
    lazy = open_annotations(tmp_path, "train", NAMES, lazy=True)
    assert [len(record.boxes) for record in lazy.records] == [0] * 12
    record = lazy.records[3]
    assert record.mask == tmp_path / "trainannot/03.png" and (record.height, record.width) == (2, 2)
    assert lazy.legend.label_of == {0: 0, 1: 1, 2: 2, 255: -1}
    eager = open_annotations(tmp_path, "train", NAMES)
    assert [r.mask for r in eager.records] == [r.mask for r in lazy.records]
    assert [len(r.boxes) for r in eager.records] == [4] * 12
    # A few are read all the same: what is wrong in all of them is told before anything begins.
    folder(tmp_path, values=((0, 1), (2, 9)))
    with pytest.raises(Fault, match=r"trainannot/00.png: the value 9 is no class, at x=1, y=1"):
        open_annotations(tmp_path, "train", NAMES, lazy=True)
    folder(tmp_path, values=((0, 0), (255, 255)))
    with pytest.raises(Fault, match="no other value than 0 and 255"):
        open_annotations(tmp_path, "train", NAMES, lazy=True)
    open_annotations(tmp_path, "train", NAMES, values=Values(ignore=[255]), lazy=True)
    # Other numbers that are to be ignored are no white.
    folder(tmp_path, values=((0, 0), (11, 11)))
    open_annotations(tmp_path, "train", NAMES, values=Values(ignore=[11]), lazy=True)
    for names in ("road\nvoid\nsky\n", "void\nroad\nsky\n"):
        (tmp_path / "classes.txt").write_text(names)
        folder(tmp_path, values=((0, 0), (1, 1)))
        open_annotations(tmp_path, "train", lazy=True)
        folder(tmp_path, values=((0, 0), (255, 255)))
        with pytest.raises(Fault, match="no other value than 0 and 255"):
            open_annotations(tmp_path, "train", lazy=True)


def test_vocs_own_masks_are_read_where_the_format_is_named(tmp_path: Path) -> None:
    folder(tmp_path, 2)
    (tmp_path / "train").rename(tmp_path / "JPEGImages")
    (tmp_path / "trainannot").rename(tmp_path / "SegmentationClass")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("01\n")
    (tmp_path / "ImageSets/Main").mkdir()
    (tmp_path / "ImageSets/Main/train.txt").write_text("00\n01\n")
    assert recognise(tmp_path)[0].NAME == "voc"
    found = open_annotations(tmp_path, "val", NAMES, format="semantic", lazy=True)
    assert [r.path.name for r in found.records] == ["01.png"]
    with pytest.raises(EyelineError, match="no split 'test'"):
        open_annotations(tmp_path, "test", NAMES, format="semantic")


def test_numbers_below_0_and_large_ones(tmp_path: Path) -> None:
    """As TIFFs have them where nothing is known."""
    file = tmp_path / "a.tif"
    Image.fromarray(np.array([[0, -9999], [1, 1 << 30]], np.int32)).save(file)
    legend = read_legend(tmp_path, NAMES, Values(ignore=[-9999, 1 << 30]))
    assert read_target(file, legend).tolist() == [[0, 255], [1, 255]]
    with pytest.raises(Fault, match="the value -9999 is no class, at x=1, y=0"):
        read_target(file, read_legend(tmp_path, NAMES))
