"""Pictures with a class for every pixel: from masks, from outlines, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eyeline.data.checking import check
from eyeline.data.checking.usable import open_checked
from eyeline.data.formats.legend import Values
from eyeline.data.loader import build_loader
from eyeline.data.maps import SegmentationDataset, open_maps
from eyeline.data.transforms import from_names
from eyeline.errors import EyelineError

NAMES = ["road", "sky", "tree"]


def camvid(root: Path, count: int = 3, size: tuple[int, int] = (12, 16), seed: int = 0) -> Path:
    """Pictures whose grey is 40 times their map's value; the last class is to be ignored."""
    for split in ("train", "val"):
        for name in (split, f"{split}annot"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            rng = np.random.default_rng((seed, i + 1))
            values = rng.integers(0, 4, (size[0] // 4, size[1] // 4), np.uint8).repeat(4, 0)
            values = values.repeat(4, 1)
            Image.fromarray(values * 40).save(root / f"{split}/{i}.png")
            Image.fromarray(values).save(root / f"{split}annot/{i}.png")
    return root


def coco(root: Path, objects: list[dict[str, Any]], size: tuple[int, int] = (8, 10)) -> Path:
    (root / "train").mkdir(parents=True)
    (root / "annotations").mkdir()
    Image.new("RGB", size[::-1]).save(root / "train/a.png")
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": size[0], "width": size[1]}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": 5, "iscrowd": 0, "area": 1, "bbox": [0, 0, 10, 8], **one}
            for i, one in enumerate(objects)
        ],
    }
    (root / "annotations/instances_train.json").write_text(json.dumps(content))
    return root


def rectangle(x1: int, y1: int, x2: int, y2: int) -> list[list[int]]:
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def test_a_sample(tmp_path: Path) -> None:
    data = open_maps(camvid(tmp_path), "train", NAMES, values=Values(ignore=[3]))
    assert len(data) == 3 and data.classes == NAMES
    for i in range(3):
        image, target = data[i]
        assert image.shape == (3, 12, 16) and image.dtype == torch.uint8
        assert target["map"].shape == (12, 16) and target["map"].dtype == torch.uint8
        values = image[0] // 40
        assert torch.equal(target["map"], values.where(values != 3, 255))
        assert int(target["image_id"]) == i and set(target) == {"map", "image_id"}
    with pytest.raises(IndexError):
        data[3]


def test_a_value_that_is_no_class_is_named_with_file_and_picture(tmp_path: Path) -> None:
    camvid(tmp_path, 20)
    data = open_maps(tmp_path, "train", NAMES, values=Values(ignore=[3]))
    values = np.zeros((12, 16), np.uint8)
    values[2, 5] = 77
    Image.fromarray(values).save(tmp_path / "trainannot/7.png")
    with pytest.raises(EyelineError) as error:
        data[[record.path.stem for record in data.annotations.records].index("7")]
    said = str(error.value)
    assert f"{tmp_path}/trainannot/7.png: the value 77 is no class, at x=5, y=2" in said
    assert f"{tmp_path}/train/7.png" in said and "\n" not in said
    [fault] = check(
        tmp_path, ["train"], classes=NAMES, values=Values(ignore=[3]), copies=False
    ).faults
    assert fault.kind == "class" and "77" in fault.what


def test_a_map_of_another_size_is_named_with_its_picture(tmp_path: Path) -> None:
    camvid(tmp_path)
    Image.new("L", (8, 12)).save(tmp_path / "trainannot/1.png")
    data = open_maps(tmp_path, "train", NAMES, values=Values(ignore=[3]))
    sizes = f"{tmp_path}/train/1.png: the picture is 16x12, its mask {tmp_path}/trainannot/1.png"
    with pytest.raises(EyelineError) as error:
        data[1]
    assert str(error.value).startswith(f"{sizes} 8x12")
    report = check(tmp_path, ["train"], classes=NAMES, values=Values(ignore=[3]), lazy=True)
    assert [str(f) for f in report.faults if f.kind == "size"] == [
        f"{sizes} is 8x12; make them one size"
    ]
    for tolerant in (False, True):  # training is told, too, or goes without
        options: dict[str, Any] = dict(
            make=SegmentationDataset, classes=NAMES, values=Values(ignore=[3]), lazy=not tolerant
        )
        if tolerant:
            [opened] = open_checked(tmp_path, ["train"], True, **options)
            assert len(opened) == 2 and len(opened.left_out) == 1
        else:
            with pytest.raises(EyelineError, match="1 fault in the data"):
                open_checked(tmp_path, ["train"], **options)


def test_a_tolerant_reader_leaves_pictures_with_bad_maps_out(tmp_path: Path) -> None:
    camvid(tmp_path)
    Image.fromarray(np.full((12, 16), 9, np.uint8)).save(tmp_path / "trainannot/2.png")
    [data] = open_checked(
        tmp_path, ["train"], True, make=SegmentationDataset, classes=NAMES, lazy=False,
        values=Values(ignore=[3]),
    )  # fmt: skip
    assert [record.path.stem for record in data.annotations.records] == ["0", "1"]
    assert [fault.kind for fault in data.left_out] == ["class"]


def test_outlines_become_maps(tmp_path: Path) -> None:
    """Things over a background; later or smaller objects on top; crowds ignored, below all."""
    objects = [
        {"category_id": 7, "segmentation": rectangle(2, 2, 4, 4)},
        {"category_id": 3, "segmentation": rectangle(0, 0, 6, 6)},
        {"category_id": 7, "segmentation": rectangle(5, 5, 10, 8), "iscrowd": 1},
    ]
    root = coco(tmp_path, objects)
    expected = np.full((8, 10), 255)
    expected[:6, :6] = 0
    found = open_maps(root, "train", background="ignore")
    assert found.classes == ["cat", "dog"]
    assert found[0][1]["map"].tolist() == expected.tolist()
    expected[2:4, 2:4] = 1
    found = open_maps(root, "train", background="ignore", on_top="smaller")
    assert found[0][1]["map"].tolist() == expected.tolist()
    named = open_maps(root, "train", background="ground", on_top="smaller")
    assert named.classes == ["ground", "cat", "dog"]
    expected = np.where(expected == 255, 0, expected + 1)
    expected[5:, 5:] = 255
    expected[5, 5] = 1
    assert named[0][1]["map"].tolist() == expected.tolist()
    last = open_maps(root, "train", ["dog", "cat", "ground"], background="ground")
    assert last.classes == ["dog", "cat", "ground"] and last[0][1]["map"][7, 0] == 2
    with pytest.raises(
        EyelineError, match=r"no class; set data\.background=ignore, or to the name"
    ):
        open_maps(root, "train")
    bare = coco(tmp_path / "bare", [{"category_id": 7}])
    with pytest.raises(EyelineError, match="the object has no mask"):
        open_maps(bare, "train", background="ignore")[0]


def test_a_background_that_masks_have(tmp_path: Path) -> None:
    camvid(tmp_path)
    (tmp_path / "classes.txt").write_text("road\nsky\ntree\n_background_\n")
    with pytest.raises(EyelineError, match="pixels that belong to no object"):
        open_maps(tmp_path, "train")
    image, target = open_maps(tmp_path, "train", background="ground")[0]
    assert torch.equal(target["map"].long(), (image[0].long() // 40 + 1) % 4)


def test_one_class_alone_is_nothing_to_learn(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    values = np.zeros((8, 10), np.uint8)
    values[2:5] = 255
    for name in ("images", "masks"):
        Image.fromarray(values).save(tmp_path / f"{name}/a.png")
    (tmp_path / "classes.txt").write_text("polyp\n")
    for background in (None, "ignore", "polyp"):
        with pytest.raises(EyelineError, match="one class, 'polyp', and no background") as error:
            open_maps(tmp_path, "train", background=background)
        assert "name two classes, or set data.background" in str(error.value)
    data = open_maps(tmp_path, "train", background="healthy")
    assert data.classes == ["healthy", "polyp"]  # white is the class
    assert torch.equal(data[0][1]["map"], data[0][0][0] // 255)
    again = open_maps(tmp_path, "train", data.classes, background="healthy")
    assert torch.equal(again[0][1]["map"], data[0][1]["map"])


def test_a_draft_moves_its_map(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    values = np.zeros((480, 640), np.uint8)
    values[96:288, 160:400] = 1
    Image.fromarray(values * 255).save(tmp_path / "images/a.jpg", quality=95)
    Image.fromarray(values).save(tmp_path / "masks/a.png")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    image, target = open_maps(tmp_path, "train", draft=100)[0]
    assert image.shape == (3, 120, 160) and torch.equal(target["map"], (image[0] > 128).byte())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("iou_crop", "random_crop is the crop"),
        ("mixup", "a mixed pixel would have two"),
        ("copy_paste", "it tells no object from another"),
    ],
)
def test_transforms_of_objects_are_refused(tmp_path: Path, name: str, said: str) -> None:
    data = open_maps(camvid(tmp_path), "train", NAMES, values=Values(ignore=[3]))
    with pytest.raises(EyelineError, match="is for objects") as error:
        data.use_transforms(from_names(["hflip", name]))
    assert said in str(error.value)
    image, target = data[0]
    with pytest.raises(EyelineError, match="the data has a class for every pixel"):
        from_names([{name: {} if name == "iou_crop" else {"p": 1.0}}])(
            image, target, np.random.default_rng(0), lambda: data[1]
        )


def test_every_batch_is_the_same_with_any_number_of_workers(tmp_path: Path) -> None:
    names = from_names(["hflip", {"random_crop": {"size": [8, 8]}}, {"mosaic": {"size": 12}}])
    data = open_maps(camvid(tmp_path, 5), "train", NAMES, names, values=Values(ignore=[3]), seed=4)
    seen = []
    for workers in (0, 2):
        loader = build_loader(data, 2, workers=workers, seed=4)
        loader.set_epoch(1)
        seen.append([(torch.stack(i), torch.stack([t["map"] for t in m])) for i, m in loader])
    assert len(seen[0]) == 3
    for a, b in zip(*seen, strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    again = pickle.loads(pickle.dumps(data))  # as for a process that is not forked
    assert torch.equal(again[0][1]["map"], data[0][1]["map"])


def test_numbers_of_a_data_set(tmp_path: Path) -> None:
    camvid(tmp_path)
    report = check(tmp_path, classes=NAMES, values=Values(ignore=[3]), copies=False)
    found = report.maps["train"]
    maps = np.stack([np.asarray(Image.open(f"{tmp_path}/trainannot/{i}.png")) for i in range(3)])
    assert found.pixels == [int((maps == k).sum()) for k in range(3)]
    assert found.ignored == int((maps == 3).sum()) and found.nothing == 0
    within = [(maps == k).any((1, 2)) for k in range(3)]
    assert found.within == [int(w.sum()) for w in within]
    labelled = (maps != 3).sum((1, 2))
    assert found.present == [int(labelled[w].sum()) for w in within]
    assert report.as_json()["maps"]["val"]["pixels"] == found.pixels


def test_camvid(shared_data: Path) -> None:
    names = ["Sky", "Building", "Pole", "Road", "Pavement", "Tree"]
    names += ["SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"]
    root = shared_data / "camvid"
    counts = []
    for split in ("train", "val", "test"):
        data = open_maps(root, split, names, values=Values(ignore=[11]))
        counts.append(len(data))
        image, target = data[0]
        assert image.shape == (3, 360, 480) and target["map"].shape == (360, 480)
        assert set(target["map"].unique().tolist()) <= {*range(11), 255}
    assert counts == [367, 101, 233]
    with pytest.raises(EyelineError, match="the value 11 is no class"):
        open_maps(root, "train", names)
