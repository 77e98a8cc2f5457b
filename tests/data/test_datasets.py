from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from eyeline.data.datasets import DetectionDataset, open_dataset
from eyeline.data.formats import REGION, Annotations, Record
from eyeline.errors import EyelineError
from eyeline.structures import Target


def record(path: Path, boxes: list[list[float]], width: int = 8, height: int = 6) -> Record:
    if not path.exists():
        Image.new("RGB", (8, 6)).save(path)
    return Record(
        path=path,
        width=width,
        height=height,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.arange(len(boxes)) % 2,
        iscrowd=np.zeros(len(boxes), bool),
        segmentations=[[[1, 1, 5, 1, 5, 4, 1, 4]]] * len(boxes),
        image_id=11,
        where=[f"here:{i}" for i in range(len(boxes))],
    )


def annotations(*records: Record) -> Annotations:
    return Annotations(["cat", "dog"], list(records), "memory")


def test_a_sample(tmp_path: Path) -> None:
    dataset = DetectionDataset(
        annotations(record(tmp_path / "a.png", [[1, 1, 5, 4], [0, 0, 8, 6]])), masks=True
    )
    image, target = dataset[0]
    assert image.shape == (3, 6, 8) and image.dtype == torch.uint8
    assert target["boxes"].tolist() == [[1, 1, 5, 4], [0, 0, 8, 6]]
    assert target["labels"].dtype == torch.int64 and target["labels"].tolist() == [0, 1]
    assert target["iscrowd"].dtype == torch.bool and target["image_id"].item() == 11
    assert target["masks"].shape == (2, 6, 8) and target["masks"].dtype == torch.bool
    assert len(dataset) == 1 and dataset.classes == ["cat", "dog"]
    target["boxes"].zero_()
    assert dataset[-1][1]["boxes"][0].tolist() == [1, 1, 5, 4]  # not the data set's own memory
    with pytest.raises(IndexError):
        dataset[1]


def test_a_picture_without_objects(tmp_path: Path) -> None:
    _, target = DetectionDataset(annotations(record(tmp_path / "a.png", [])), masks=True)[0]
    assert target["boxes"].shape == (0, 4) and target["masks"].shape == (0, 6, 8)


def test_a_draft_moves_its_targets(tmp_path: Path) -> None:
    """A square is seen in the smaller picture where its box and its mask say that it is."""
    array = np.zeros((480, 640, 3), np.uint8)
    array[96:288, 160:400] = 255
    Image.fromarray(array).save(tmp_path / "a.jpg", quality=95)
    square = [160.0, 96.0, 400.0, 288.0]
    one = replace(
        record(tmp_path / "a.jpg", [square], 640, 480),
        segmentations=[[[160, 96, 400, 96, 400, 288, 160, 288]]],
        areas=np.array([240.0 * 192], np.float32),
    )
    whole, target = DetectionDataset(annotations(one), masks=True)[0]
    assert whole.shape == (3, 480, 640) and target["area"].tolist() == [240 * 192]
    small, target = DetectionDataset(annotations(one), masks=True, draft=100)[0]
    assert small.shape == (3, 120, 160) and "area" not in target
    assert target["boxes"].tolist() == [[40, 24, 100, 72]]
    assert torch.equal(target["masks"][0], small[0] > 128)
    same, target = DetectionDataset(annotations(one), draft=300)[0]
    assert torch.equal(same, whole) and target["boxes"].tolist() == [square]
    assert "area" in target


NAN = float("nan")
BAD = {
    "no width": [3, 1, 3, 4],
    "no height": [3, 1, 4, 1],
    "corners exchanged": [4, 4, 1, 1],
    "outside": [9, 1, 12, 4],
    "in the border's pixel only": [8, 1, 9, 4],
    "sticks out": [2, 1, 9.5, 4],
    "sticks out left": [-1.5, 1, 4, 4],
    "nan": [NAN, 1, 4, 4],
    "infinite": [0, 1, float("inf"), 4],
}


@pytest.mark.parametrize("box", BAD.values(), ids=BAD)
def test_bad_boxes_are_named_or_dropped(tmp_path: Path, box: list[float]) -> None:
    found = annotations(record(tmp_path / "a.png", [[1, 1, 5, 4], box, [0, 0, 2, 2]]))
    with pytest.raises(EyelineError, match=r"^1 bad box: here:1: .*data\.bad_boxes=drop[^\n]*$"):
        DetectionDataset(found)
    dataset = DetectionDataset(found, masks=True, bad_boxes="drop")
    _, target = dataset[0]
    assert target["boxes"].tolist() == [[1, 1, 5, 4], [0, 0, 2, 2]]
    assert target["labels"].tolist() == [0, 0] and len(target["masks"]) == 2
    assert dataset.annotations.records[0].where == ["here:0", "here:2"]
    assert len(found.records[0].boxes) == 3  # what was given is unchanged


def test_boxes_a_pixel_outside_are_clipped(tmp_path: Path) -> None:
    dataset = DetectionDataset(annotations(record(tmp_path / "a.png", [[-1, -0.5, 9, 7]])))
    assert dataset[0][1]["boxes"].tolist() == [[0, 0, 8, 6]]


def test_the_first_bad_boxes_are_named_and_all_are_counted(tmp_path: Path) -> None:
    records = [record(tmp_path / "a.png", [[1, 1, 1, 1]]) for _ in range(7)]
    for i, r in enumerate(records):
        r.where = [f"file:{i}"]
    with pytest.raises(EyelineError, match=r"^7 bad boxes: file:0:.*file:4:.*; and 2 more;") as e:
        DetectionDataset(annotations(*records))
    assert "file:5" not in str(e.value)


def test_options_are_checked(tmp_path: Path) -> None:
    found = annotations(replace(record(tmp_path / "a.png", []), segmentations=None))
    with pytest.raises(EyelineError, match="have no masks"):
        DetectionDataset(found, masks=True)
    with pytest.raises(EyelineError, match="'ignore'"):
        DetectionDataset(found, bad_boxes="ignore")  # type: ignore[arg-type]


def test_the_picture_s_real_size_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    dataset = DetectionDataset(annotations(record(path, [[1, 1, 5, 4]], 80, 60)), masks=True)
    assert dataset[0][1]["masks"].shape == (1, 6, 8)
    dataset = DetectionDataset(annotations(record(path, [[1, 1, 50, 40]], 80, 60)))
    with pytest.raises(EyelineError, match=r"not inside 8x6"):
        dataset[0]


def test_annotations_made_on_the_unrotated_picture_are_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    dataset = DetectionDataset(annotations(record(tmp_path / "a.jpg", [[1, 1, 5, 4]])))
    with pytest.raises(EyelineError, match=r"a\.jpg: .*EXIF.*8x6, upright it is 6x8"):
        dataset[0]


def test_undecodable_masks_are_named(tmp_path: Path) -> None:
    broken = record(tmp_path / "a.png", [[1, 1, 5, 4]])
    for segmentation in ({"size": [6, 8], "counts": [3]}, {"counts": []}, [["a"] * 6], [3.0]):
        broken.segmentations = [segmentation]  # type: ignore[list-item]
        with pytest.raises(EyelineError, match=r"\A[^\n]*a\.png: cannot decode its masks[^\n]*\Z"):
            DetectionDataset(annotations(broken), masks=True)[0]


def draw(image: Tensor, target: Target, rng: np.random.Generator) -> tuple[Tensor, Target]:
    return image, {"drawn": torch.tensor(rng.random())}


def test_randomness_is_of_seed_epoch_and_index(tmp_path: Path) -> None:
    found = annotations(*(record(tmp_path / "a.png", []) for _ in range(3)))

    def drawn(seed: int, epoch: int) -> list[float]:
        dataset = DetectionDataset(found, draw, seed=seed)
        dataset.set_epoch(epoch)
        return [dataset[i][1]["drawn"].item() for i in (2, 0, 1)]

    assert drawn(1, 2) == drawn(1, 2)
    values = drawn(1, 2) + drawn(1, 3) + drawn(2, 2)
    assert len(set(values)) == 9


def test_classes_given_number_the_labels(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 0, "file_name": "a.png", "width": 8, "height": 6}],
        "categories": [{"id": k, "name": name} for k, name in enumerate(("cat", "dog", "emu"))],
        "annotations": [
            {"id": k, "image_id": 0, "category_id": k, "bbox": [0, 0, 2, 2]} for k in (1, 0)
        ],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    dataset = open_dataset(tmp_path, "val", ["dog", "emu", "cat"])
    assert dataset.classes == ["dog", "emu", "cat"]
    assert dataset[0][1]["labels"].tolist() == [0, 2]
    assert dataset.annotations.category_ids == [1, 2, 0]
    assert len(open_dataset(tmp_path, "val", ["cat", "dog"])) == 1  # no emu is in any picture
    with pytest.raises(EyelineError, match=r"val\.json: annotations\[0\].*'dog'.*cat, fox"):
        open_dataset(tmp_path, "val", ["cat", "fox"])


def test_labels_are_mapped_by_name(shared_data: Path) -> None:
    root = shared_data / "bccd"
    ours = open_dataset(root, "test", ["WBC", "Platelets", "other", "RBC"])
    theirs = open_dataset(root, "test")
    order = np.array([1, 3, 0])
    assert len(ours) == 72
    for a, b in zip(ours.annotations.records, theirs.annotations.records, strict=True):
        assert (a.labels == order[b.labels]).all()
    with pytest.raises(EyelineError, match=r"BloodImage_\d+\.xml:\d+: .*'WBC'"):
        open_dataset(root, "test", ["RBC", "Platelets"])


def test_coco_labels_are_mapped_by_name(shared_data: Path) -> None:
    root = shared_data / "tiny_coco"
    theirs = open_dataset(root, "train")
    names = sorted(theirs.classes)
    ours = open_dataset(root, "train", names)
    assert ours.classes == names
    assert ours.annotations.category_ids == [
        theirs.annotations.category_ids[theirs.classes.index(name)] for name in names
    ]
    for a, b in zip(ours.annotations.records, theirs.annotations.records, strict=True):
        assert [names[k] for k in a.labels] == [theirs.classes[k] for k in b.labels]
    with pytest.raises(EyelineError, match=r"annotations\[\d+\].*'person'"):
        open_dataset(root, "train", [name for name in names if name != "person"])


def test_the_two_bad_boxes_of_bccd(shared_data: Path) -> None:
    with pytest.raises(EyelineError) as error:
        open_dataset(shared_data / "bccd", "trainval")
    message = str(error.value)
    assert message.startswith("2 bad boxes: ") and "\n" not in message
    assert "BloodImage_00338.xml:158: " in message and "BloodImage_00343.xml:50: " in message
    dataset = open_dataset(shared_data / "bccd", "trainval", bad_boxes="drop")
    kept = sum(len(record.boxes) for record in dataset.annotations.records)
    test = sum(len(r.boxes) for r in open_dataset(shared_data / "bccd", "test").annotations.records)
    assert len(dataset) == 292 and kept == 361 + 4155 + 372 - 2 - test
    image, target = dataset[0]
    assert image.shape == (3, 480, 640) and target["boxes"].shape == (len(target["labels"]), 4)


def test_a_region_without_a_class_is_ignored_for_every_class(tmp_path: Path) -> None:
    one = replace(
        record(tmp_path / "a.png", [[1, 1, 5, 4], [0, 0, 3, 3]]),
        labels=np.array([REGION, 1]),
        iscrowd=np.array([True, False]),
    )
    _, target = DetectionDataset(annotations(one), masks=True)[0]
    assert target["labels"].tolist() == [0, 1, 1]
    assert target["iscrowd"].tolist() == [True, True, False]
    assert target["boxes"].tolist() == [[1, 1, 5, 4], [1, 1, 5, 4], [0, 0, 3, 3]]
    assert len(target["masks"]) == 3
