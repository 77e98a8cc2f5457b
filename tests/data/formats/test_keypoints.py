"""Keypoints: COCO's, and what becomes of them elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eyeline.data.adapters import Adapter
from eyeline.data.arrange import merge, split
from eyeline.data.datasets import DetectionDataset, mirrored, open_dataset
from eyeline.data.faults import Faults
from eyeline.data.formats import FORMATS, open_annotations
from eyeline.data.formats.coco import read_coco
from eyeline.data.formats.fitting import lost
from eyeline.data.formats.writing import plan, write
from eyeline.data.transforms import HorizontalFlip, VerticalFlip
from eyeline.errors import EyelineError

POINTS = ["nose", "left_eye", "right_eye"]
VALUES = [10, 11, 2, 3.25, 4, 1, 0, 0, 0]


def write_coco(folder: Path, names: Any = POINTS, values: Any = VALUES) -> Path:
    """A person with keypoints and a dog without, in one picture of 20x16."""
    Image.new("RGB", (20, 16)).save(folder / "a.png")
    box = {"image_id": 1, "bbox": [1, 2, 10, 12], "area": 120, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 16}],
        "categories": [{"id": 1, "name": "person", "keypoints": names}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "category_id": 1, "keypoints": values, "num_keypoints": 2, **box},
            {"id": 2, "category_id": 2, **box},
        ],
    }
    path = folder / "train.json"
    path.write_text(json.dumps(content))
    return path


def test_reading(tmp_path: Path) -> None:
    found = read_coco(write_coco(tmp_path))
    assert found.keypoint_names == POINTS and found.unread == []
    [record] = found.records
    assert record.keypoints is not None and record.keypoints.dtype == np.float32
    # COCO names the pixel, whose centre is half a pixel from its edge.
    assert record.keypoints[0].tolist() == [[10.5, 11.5, 2], [3.75, 4.5, 1], [0, 0, 0]]
    assert not record.keypoints[1].any()


@pytest.mark.parametrize(
    "values",
    [
        VALUES[:-1], [*VALUES, 1, 1, 1], [*VALUES[:2], 3, *VALUES[3:]], ["10", *VALUES[1:]],
        [float("nan"), *VALUES[1:]], {"nose": [1, 2]}, 7,
    ],
)  # fmt: skip
def test_bad_keypoints_are_told(tmp_path: Path, values: Any) -> None:
    path = write_coco(tmp_path, values=values)
    said = r"train\.json: annotations\[0\]: keypoints should be .* for each of 3"
    with pytest.raises(EyelineError, match=said):
        read_coco(path)
    faults = Faults(gather=True)
    assert read_coco(path, faults=faults).records[0].labels.tolist() == [1]  # the dog is left
    assert [fault.kind for fault in faults.found] == ["field"]


@pytest.mark.parametrize("names", [None, [], ["a", "a", "b"], "abc", [1, 2, 3]])
def test_points_without_names_are_not_read(tmp_path: Path, names: Any) -> None:
    found = read_coco(write_coco(tmp_path, names=names))
    assert found.keypoint_names is None and found.records[0].keypoints is None
    assert found.unread == ["keypoints of 1 objects, whose categories do not name the same ones"]
    with pytest.raises(EyelineError, match=r"train\.json: the annotations have no keypoints"):
        DetectionDataset(found, keypoints=True)


def test_real_people_come_back_as_they_were(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "tiny_coco" / "annotations" / "person_keypoints_val2017.json"
    people = open_annotations(source, "val")
    assert sum(int(r.keypoints.any((1, 2)).sum()) for r in people.records) == 46  # type: ignore
    coco = next(format for format in FORMATS if format.NAME == "coco")
    planned = plan({"val": people}, coco)
    write(planned, tmp_path / "new", link=True)
    again = open_annotations(tmp_path / "new", "val")
    assert again.keypoint_names == people.keypoint_names and len(again.keypoint_names or []) == 17
    for mine, theirs in zip(people.records, again.records, strict=True):
        assert np.array_equal(mine.keypoints, theirs.keypoints)  # type: ignore[arg-type]
    # And so the numbers in the file.
    old, new = (
        {(a["image_id"], tuple(a["bbox"])): a["keypoints"] for a in listed if a["num_keypoints"]}
        for listed in (
            json.loads(source.read_text())["annotations"],
            [
                {"num_keypoints": 0, **a}
                for a in json.loads(
                    (tmp_path / "new" / "annotations" / "instances_val.json").read_text()
                )["annotations"]
            ],
        )
    )
    assert len(old) == 46 and old == new
    for format in FORMATS:
        told = [words for words in lost(people, format.HOLDS) if "keypoints" in words]
        assert told == ([] if format is coco else ["keypoints of 46 objects"]), format.NAME


def test_merging_and_splitting(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    people = open_annotations(write_coco(tmp_path / "a"), "train")
    bare = open_annotations(write_coco(tmp_path / "b", names=None), "train")
    other = open_annotations(write_coco(tmp_path / "c", names=["x", "y", "z"]), "train")
    both, _ = merge({"b": {"train": bare}, "a": {"train": people}})
    assert both["train"].keypoint_names == POINTS
    assert [r.keypoints is None for r in both["train"].records] == [True, False]
    dataset = DetectionDataset(both["train"], keypoints=True)
    assert [int((t["keypoints"][..., 2] > 0).sum()) for _, t in dataset] == [0, 2]  # type: ignore
    parts = split({"one": bare, "two": people}, {"train": 0.5, "val": 0.5})
    assert parts["train"].keypoint_names == parts["val"].keypoint_names == POINTS
    with pytest.raises(EyelineError, match="other keypoints than in"):
        merge({"a": {"train": people}, "c": {"train": other}})


def test_left_and_right() -> None:
    assert mirrored(["nose", "left_eye", "right_eye", "LeftFoot", "RightFoot"]).tolist() == [
        0, 2, 1, 4, 3,
    ]  # fmt: skip
    assert mirrored(["left", "tail", "cleft", "RIGHT"]).tolist() == [0, 1, 2, 3]


def test_a_mirrored_left_eye_is_a_right_one(tmp_path: Path) -> None:
    dataset = open_dataset(write_coco(tmp_path), "train", keypoints=True)
    image, target = dataset[0]
    assert target["mirrored"].tolist() == [0, 2, 1]
    rng = np.random.default_rng(0)
    _, flipped = HorizontalFlip(1)(image, target, rng)
    assert flipped["keypoints"][0].tolist() == [[9.5, 11.5, 2], [0, 0, 0], [16.25, 4.5, 1]]
    _, flipped = VerticalFlip(1)(image, target, rng)
    assert flipped["keypoints"][0].tolist() == [[10.5, 4.5, 2], [0, 0, 0], [3.75, 11.5, 1]]
    del target["mirrored"]  # nobody says which is which
    _, flipped = HorizontalFlip(1)(image, target, rng)
    assert flipped["keypoints"][0].tolist() == [[9.5, 11.5, 2], [16.25, 4.5, 1], [0, 0, 0]]


def test_a_draft_moves_them(tmp_path: Path) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "a.jpg")
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    content["images"][0] |= {"file_name": "a.jpg", "width": 640, "height": 480}
    path.write_text(json.dumps(content))
    image, target = open_dataset(path, "train", keypoints=True, draft=200)[0]
    assert image.shape == (3, 240, 320)
    assert target["keypoints"][0].tolist() == [[5.25, 5.75, 2], [1.875, 2.25, 1], [0, 0, 0]]


def test_other_libraries_would_leave_them_behind(tmp_path: Path) -> None:
    image, target = open_dataset(write_coco(tmp_path), "train", keypoints=True)[0]
    never = Adapter(torch.nn.Identity(), lambda *_: pytest.fail("called"))
    with pytest.raises(EyelineError, match="Identity would leave the keypoints where they are"):
        never(image, target, np.random.default_rng(0))
