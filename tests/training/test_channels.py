"""Pictures of five channels, from files to a trained detector; pictures of one pixel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eyeline.checkpoints import load_weights, save_weights
from eyeline.data.datasets import open_dataset
from eyeline.errors import EyelineError
from eyeline.evaluation import evaluate
from eyeline.inference import Predictor
from eyeline.registry import create_model
from eyeline.training import load_recipe, train_recipe


def write_multiband(path: Path, array: np.ndarray) -> None:
    """(H, W, C) uint16 as a TIFF, plain samples."""
    height, width, channels = array.shape
    tags = {256: width, 257: height, 259: 1, 262: 1, 277: channels, 278: height}
    tags |= {279: array.nbytes, 339: 1, 258: 16}
    start = 8 + 2 + 12 * (len(tags) + 1) + 4
    tags[273] = start
    entries = b"".join(
        np.array([tag, 4], "<u2").tobytes() + np.array([1, value], "<u4").tobytes()
        for tag, value in sorted(tags.items())
    )
    head = b"II*\0" + np.array([8], "<u4").tobytes() + np.array([len(tags)], "<u2").tobytes()
    path.write_bytes(head + entries + bytes(4) + array.astype("<u2").tobytes())


def write_coco(folder: Path, sizes: dict[str, tuple[int, int]], box: list[float]) -> Path:
    images = [
        {"id": i, "file_name": name, "height": size[0], "width": size[1]}
        for i, (name, size) in enumerate(sizes.items())
    ]
    objects = [
        {"id": i, "image_id": i, "category_id": 0, "bbox": box, "area": 1, "iscrowd": 0}
        for i in range(len(images))
    ]
    content = {
        "images": images, "annotations": objects, "categories": [{"id": 0, "name": "thing"}],
    }  # fmt: skip
    (folder / "train.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def multiband(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("five")
    rng = np.random.default_rng(0)
    sizes = {f"{i}.tif": (48, 64) for i in range(3)} | {"3.npy": (48, 64)}
    for name in sizes:
        array = rng.integers(0, 65536, (48, 64, 5)).astype(np.uint16)
        if name.endswith("npy"):
            np.save(folder / name, array)
        else:
            write_multiband(folder / name, array)
    return write_coco(folder, sizes, [8, 8, 30, 30])


def values(data: Path, out: Path, **fields: Any) -> dict[str, Any]:
    return {
        "model": {"name": "retinanet", "backbone": "resnet18", "size": 64, "fpn_channels": 16,
                  "tower_depth": 1, "norm": "group"},
        "data": {"path": str(data), "val": None, "workers": 0, **fields},
        "log": {"tensorboard": False}, "epochs": 1, "batch_size": 2, "out": str(out),
    }  # fmt: skip


def test_five_channels_from_files_to_detections(multiband: Path, tmp_path: Path) -> None:
    recipe = load_recipe(values(multiband, tmp_path / "run", channels=5))
    train_recipe(recipe)  # two steps
    predictor = Predictor(tmp_path / "run", score_threshold=0.0)
    config = predictor.model.config
    assert config.in_channels == predictor.channels == 5 and config.image_mean == (0.5,) * 5
    for name in ("0.tif", "3.npy"):
        result = predictor(multiband / name)
        assert result.image.shape == (5, 48, 64) and len(result) > 0
        result.save(tmp_path / f"{name}.png")
    array = np.load(multiband / "3.npy")
    from_memory = predictor((array / 65535).astype(np.float32))
    torch.testing.assert_close(from_memory.boxes, result.boxes)
    dataset = open_dataset(multiband, "train", channels=5)
    assert dataset[0][0].dtype == torch.float32
    evaluate(predictor.model, dataset)


def test_what_does_not_fit_is_said(multiband: Path, tmp_path: Path) -> None:
    five = create_model("retinanet", num_classes=1, backbone="resnet18", size=64,
                        in_channels=5, image_mean=[0.5] * 5, image_std=[0.25] * 5)  # fmt: skip
    with pytest.raises(EyelineError, match=r"shape \(3, 8, 8\), not \(5, H, W\), .*in_channels"):
        five([torch.rand(3, 8, 8)])
    with pytest.raises(EyelineError, match="in_channels=5 needs as many numbers in image_mean="):
        create_model("retinanet", num_classes=1, backbone="resnet18", in_channels=5)
    with pytest.raises(EyelineError, match=r"0\.tif: .*5 channels, not 3; .*data\.channels=5"):
        open_dataset(multiband, "train")[0]
    for transform in ("photometric", "expand"):
        recipe = load_recipe(values(multiband, tmp_path / "a", channels=5, transforms=[transform]))
        with pytest.raises(EyelineError, match=r"is for RGB .* have 5 channels; .*data\.transf"):
            train_recipe(recipe)
    fields = values(multiband, tmp_path / "b", channels=5)
    fields["model"] |= {"in_channels": 4, "image_mean": [0.5] * 4, "image_std": [0.5] * 4}
    with pytest.raises(EyelineError, match=r"data\.channels is 5 and the model takes 4; set"):
        train_recipe(load_recipe(fields))


def build(channels: int) -> Any:
    stats = dict(image_mean=[0.5] * channels, image_std=[0.25] * channels)
    return create_model(
        "retinanet", num_classes=2, backbone="resnet18", size=64, in_channels=channels, **stats
    ).eval()


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_weights_of_rgb_for_other_channels(tmp_path: Path, channels: int) -> None:
    """A picture whose channels are equal gives what it gave."""
    rgb = build(3)
    save_weights(rgb, tmp_path / "rgb.safetensors")
    model = create_model(
        weights=tmp_path / "rgb.safetensors", in_channels=channels,
        image_mean=[0.5] * channels, image_std=[0.25] * channels,
    ).eval()  # fmt: skip
    assert model.load_report.widened == ("backbone.conv1.weight",)
    assert "made of RGB's for the model's channels: backbone.conv1" in str(model.load_report)
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected = rgb.backbone(grey.expand(-1, 3, -1, -1))
        found = model.backbone(grey.expand(-1, channels, -1, -1))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    report = load_weights(rgb, tmp_path / "rgb.safetensors")
    assert report.widened == ()


SIZES = {"0.png": (1, 1), "1.png": (1, 5000), "2.png": (5000, 1), "3.png": (2, 3)}


def test_the_smallest_and_the_thinnest(tmp_path: Path) -> None:
    for name, (height, width) in SIZES.items():
        Image.new("RGB", (width, height), (90, 60, 30)).save(tmp_path / name)
    data = write_coco(tmp_path, SIZES, [0, 0, 1, 1])
    fields = values(data, tmp_path / "run", transforms=["hflip", "photometric", "iou_crop"])
    fields["data"]["val"] = "train"
    train_recipe(load_recipe(fields))
    predictor = Predictor(tmp_path / "run", score_threshold=0.0)
    for name, (height, width) in SIZES.items():
        result = predictor(tmp_path / name)
        assert result.image.shape == (3, height, width)
        limit = torch.tensor([width, height, width, height])
        assert (result.boxes >= 0).all() and (result.boxes <= limit).all()
        result.save(tmp_path / "drawn.png")
    other = create_model("faster_rcnn", num_classes=1, backbone="resnet18", size=64)
    pictures = [torch.rand(3, *size) for size in SIZES.values()]
    target = {"boxes": torch.tensor([[0.0, 0.0, 1.0, 1.0]]), "labels": torch.tensor([0])}
    assert all(loss.isfinite() for loss in other(pictures, [target] * 4).values())
    assert len(other.eval()(pictures)) == 4
