"""From a recipe to weights, with real detectors, on four small pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eyeline.errors import EyelineError
from eyeline.registry import create_model
from eyeline.training import build, load_recipe, load_run, train_recipe


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """COCO: one bright square a picture, of the class "left" or "right"."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "annotations").mkdir()
    rng = np.random.default_rng(0)
    for split, names in (("train", ("left", "right")), ("val", ("left", "right"))):
        write(folder, split, names, rng)
    write(folder, "odd", ("left", "middle"), rng)
    return folder


def write(folder: Path, split: str, names: tuple[str, str], rng: np.random.Generator) -> None:
    (folder / split).mkdir()
    images, annotations = [], []
    for i in range(4):
        pixels = rng.integers(0, 90, (64, 64, 3), dtype=np.uint8)
        x, y = (8 if i % 2 == 0 else 36), int(rng.integers(4, 40))
        pixels[y : y + 20, x : x + 20] = 230
        Image.fromarray(pixels).save(folder / split / f"{i}.png")
        images.append({"id": i + 1, "file_name": f"{i}.png", "width": 64, "height": 64})
        box = {"bbox": [x, y, 20, 20], "area": 400, "iscrowd": 0}
        annotations.append({"id": i + 1, "image_id": i + 1, "category_id": i % 2 + 1, **box})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = folder / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content))


SMALL = {
    "retinanet": {"fpn_channels": 16, "tower_depth": 1},
    "faster_rcnn": {"fpn_channels": 16, "head_width": 32, "proposals": [50, 50]},
}


def recipe(name: str, pictures: Path, out: Path, *overrides: str):
    values = {
        "model": {"name": name, "backbone": "resnet18", "size": 64, **SMALL[name]},
        "data": {"path": str(pictures), "transforms": [], "workers": 0},
        "log": {"tensorboard": False},
        "optimizer": {"name": "sgd", "lr": 1e-3, "momentum": 0.0},  # no state: small files
        "schedule": {"name": "constant"},
        "out": str(out),
    }
    return load_recipe(values, ["epochs=2", *overrides])


@pytest.mark.parametrize("name", ["retinanet", "faster_rcnn"])
def test_two_epochs_of_a_detector_equal_one_and_one(tmp_path, pictures, name):
    straight = train_recipe(recipe(name, pictures, tmp_path / "a"))
    train_recipe(recipe(name, pictures, tmp_path / "b", "epochs=1"))
    used, _ = load_run(tmp_path / "b")
    train_recipe(load_recipe(used, ["epochs=2"]), resume=True)
    used, weights = load_run(tmp_path / "a")
    assert used == recipe(name, pictures, tmp_path / "a", "eval.metric=AP")  # what "auto" is
    assert weights.name == "best.safetensors"
    a, b = (create_model(weights=tmp_path / run / "last.safetensors") for run in "ab")
    assert (a.name, a.classes) == (name, ["left", "right"])
    for key, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[key]), key
    assert straight.metrics["loss"] > 0


def test_the_last_epochs_are_of_single_pictures(tmp_path, pictures):
    several = ["data.transforms=[hflip, {mosaic: {size: 48}}, mixup]", "data.single_epochs=1"]
    one = recipe("retinanet", pictures, tmp_path / "r", *several)
    _, dataset, _ = build(one)
    sizes = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        sizes.append({tuple(image.shape[1:]) for image, _ in map(dataset.__getitem__, range(2))})
    assert sizes == [{(48, 48)}, {(64, 64)}]
    assert train_recipe(one).metrics["loss"] > 0
    with pytest.raises(EyelineError, match=r"data\.single_epochs was 1 and is now 0"):
        used, _ = load_run(tmp_path / "r")
        train_recipe(load_recipe(used, ["data.single_epochs=0", "epochs=3"]), resume=True)


def test_pasting_reads_the_masks_it_needs(tmp_path, pictures):
    with pytest.raises(EyelineError, match="masks"):
        build(recipe("retinanet", pictures, tmp_path / "r", "data.transforms=[copy_paste]"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.val=odd", "the class 'middle' is not one of left, right"),
        ("classes=[left]", "the class 'right' is not one of left"),
        ("model.name=retinanett", "did you mean retinanet"),
        ("model.bakbone=resnet18", "backbone"),
        ("data.transforms=[hflipp]", "hflip"),
        ("data.path=null", "a recipe needs model.name and data.path"),
        ("eval.metric=AP99", "there is no 'AP99'"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(tmp_path, pictures, override, expected):
    with pytest.raises(EyelineError) as caught:
        train_recipe(recipe("retinanet", pictures, tmp_path / "r", override))
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_pixels_counted_from_one_are_the_recipes(tmp_path):
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\n")
    Image.new("RGB", (64, 64)).save(tmp_path / "JPEGImages/a.png")
    corners = "<xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax>"
    (tmp_path / "Annotations/a.xml").write_text(
        f"<annotation><object><name>x</name><bndbox>{corners}</bndbox></object></annotation>"
    )
    for value, box in (("false", [1, 2, 5, 6]), ("true", [0, 1, 5, 6])):
        overrides = ["data.val=null", f"data.one_based={value}"]
        _, dataset, _ = build(recipe("retinanet", tmp_path, tmp_path / "r", *overrides))
        assert dataset[0][1]["boxes"].tolist() == [box]
