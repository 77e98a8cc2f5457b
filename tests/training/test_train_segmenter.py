"""Segmenters are trained as detectors are: recipe, best weights, resuming, processes."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import in_two_processes
from typer.testing import CliRunner

from eyeline.cli.app import app
from eyeline.data.maps import SegmentationDataset
from eyeline.errors import EyelineError
from eyeline.evaluation.segmentation import evaluate_segmentation
from eyeline.registry import create_model
from eyeline.training import load_recipe, train, train_recipe
from eyeline.training.build import build

NAMES = ["red", "green", "blue"]
MODEL = {"name": "unet", "width": 4, "depth": 2, "padding": "same", "norm": "batch", "dropout": 0.0}
CROP = {"random_crop": {"size": [16, 24], "scale": [0.8, 1.2], "max_share": 0.75}}


def pictures(root: Path, train: int = 8, val: int = 3) -> Path:
    """Cells of three colours with some noise; masks of 1, 2, 3 for them, and 7 is to be ignored."""
    for split, count in (("train", train), ("val", val)):
        for part in ("images", "masks"):
            (root / part / split).mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng((count, i + 1))
            cells = rng.integers(0, 3, (4, 5)).repeat(6, 0).repeat(6, 1)
            image = np.eye(3)[cells] * 150 + rng.integers(0, 80, (24, 30, 3))
            mask = (cells + 1).astype(np.uint8)
            mask[:2] = 7
            Image.fromarray(image.astype(np.uint8)).save(root / f"images/{split}/{i}.png")
            Image.fromarray(mask).save(root / f"masks/{split}/{i}.png")
    return root


def recipe(root: Path, out: Path, **fields: Any) -> Any:
    data = {
        "path": str(root), "shift": -1, "ignore": [7], "transforms": ["hflip", CROP], "workers": 0,
        **fields.pop("data", {}),
    }  # fmt: skip
    return load_recipe({
        "model": {**MODEL, **fields.pop("model", {})}, "classes": NAMES, "data": data,
        "epochs": 3, "batch_size": 3, "optimizer": {"lr": 1e-2}, "log": {"tensorboard": False},
        "out": str(out), **fields,
    })  # fmt: skip


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return create_model(weights=folder / f"{name}.safetensors").state_dict()


def test_from_recipe_to_best_weights(tmp_path: Path) -> None:
    root, out = pictures(tmp_path / "data"), tmp_path / "run"
    run = train_recipe(recipe(root, out, epochs=4))
    epochs = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in epochs if record["event"] == "epoch"]
    values = [record["metrics"]["mIoU"] for record in epochs]
    assert len(values) == 4 and run.best == max(values) and run.metrics["mIoU"] == values[-1]
    assert epochs[-1]["losses"]["loss"] < 0.9 * epochs[0]["losses"]["loss"]
    assert epochs[-1]["val_losses"].keys() == {"cross_entropy"}
    assert load_recipe(out / "recipe.yaml").eval.metric == "mIoU"
    page = (out / "report.html").read_text()
    assert "boundary F1" in page and ".png" in page  # the validation pictures too
    # The file of the best epoch gives its number again.
    best = create_model(weights=out / "best.safetensors")
    assert best.classes == NAMES and best.task == "segmentation"
    _, _, val = build(recipe(root, out))
    assert isinstance(val, SegmentationDataset)
    assert evaluate_segmentation(best, val, progress=False).metrics["mIoU"] == max(values)


def test_a_model_learns_a_size_that_it_keeps(tmp_path: Path) -> None:
    """Validation is in the model's size, and measured in the pictures' own."""
    root, out = pictures(tmp_path / "data"), tmp_path / "run"
    fields: dict[str, Any] = {"size": 12}
    train_recipe(recipe(root, out, model=fields, epochs=1))
    model = create_model(weights=out / "last.safetensors")
    assert (model.config.min_size, model.config.max_size) == (12, 20)
    image = torch.zeros(3, 24, 30, dtype=torch.uint8)
    assert model.prepare([image]).images.shape == (1, 3, 12, 15)
    assert model.eval()([image]).shape == (1, 3, 24, 30)


def test_resumed_run_is_the_same_to_the_bit(tmp_path: Path) -> None:
    root = pictures(tmp_path / "data")
    fields: dict[str, Any] = {
        "ema": 0.9, "precision": "bf16", "freeze": ["down.0"], "schedule": {"name": "onecycle"},
        "data": {"transforms": ["hflip", CROP, "photometric"]},
    }  # fmt: skip
    train_recipe(recipe(root, tmp_path / "whole", **fields))

    def stop(epoch: int, metrics: Any) -> bool:
        return epoch == 2

    part = recipe(root, tmp_path / "part", **fields)
    train_recipe(part, on_epoch=stop)
    train_recipe(part, resume=True)
    for name in ("last", "best"):
        a, b = weights(tmp_path / "whole", name), weights(tmp_path / "part", name)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    with pytest.raises(EyelineError, match=r"data\.ignore was \[7\] and is now \[7, 9\]"):
        other = {**fields, "data": {**fields["data"], "ignore": [7, 9]}}
        train_recipe(recipe(root, tmp_path / "part", **other), resume=True)


def test_shorthand(tmp_path: Path) -> None:
    """eyeline train unet --data PATH, as of a detector."""
    root, out = pictures(tmp_path / "data"), tmp_path / "run"
    (root / "classes.txt").write_text("void\nred\ngreen\nblue\n")
    settings = [f"model.{k}={str(v).lower()}" for k, v in MODEL.items() if k != "name"]
    settings += ["data.ignore=[7]", "data.workers=0", "epochs=1", "log.tensorboard=false"]
    arguments = ["train", "unet", "--data", str(root), "--out", str(out), *settings]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "mIoU" in result.output and weights(out)["head.weight"].shape[0] == 3


def test_what_is_refused_before_the_first_step(tmp_path: Path) -> None:
    root = pictures(tmp_path / "data")
    for fields, said in (
        ({"data": {"ignore": []}}, "the value 7 is no class"),
        ({"data": {"shift": 0}}, "the value 3 is no class"),
        ({"data": {"transforms": ["iou_crop"]}}, "IoUCrop is for objects"),
        ({"data": {"masks": True}}, "data.masks is for objects"),
        ({"data": {"sizes": [12, 24], "transforms": []}}, "data.sizes needs a model that resizes"),
        ({"eval": {"metric": "AP"}}, "there is no 'AP'; choose one of mIoU, pixel_accuracy"),
        ({"model": {"class_weights": [1.0, 2.0]}}, "class_weights has 2 numbers for 3 classes"),
    ):
        with pytest.raises(EyelineError) as error:
            train_recipe(recipe(root, tmp_path / "run", **fields))
        assert said in str(error.value)
    with pytest.raises(EyelineError, match=r"data\.ignore is for segmenters, and retinanet is a"):
        build(load_recipe({"model": {"name": "retinanet"}, "data": {"path": "x", "ignore": [3]}}))


def test_a_batch_without_a_loss_is_saved_with_its_maps(tmp_path: Path) -> None:
    root, out = pictures(tmp_path / "data"), tmp_path / "run"
    model, data, _ = build(recipe(root, out, data={"val": None}))
    with torch.no_grad():
        model.head.bias.fill_(math.nan)
    with pytest.raises(EyelineError, match="cross_entropy is nan on pictures"):
        train(model, data, recipe=recipe(root, out, data={"val": None}))
    [folder] = (out / "bad_batches").iterdir()
    content = json.loads((folder / "batch.json").read_text())
    assert len(content["pictures"]) == 3 and content["pictures"][1]["map"] == "1-map.png"
    assert "map" not in content["pictures"][1]["target"]
    values = np.asarray(Image.open(folder / "1-map.png"))
    assert values.shape == (16, 24) and set(np.unique(values)) <= {0, 1, 2, 255}


def train_and_measure(folder: str) -> None:
    """11 pictures; each process leaves its weights and what it measured beside the folder."""
    root = Path(folder).parent / "data"
    told = recipe(
        root, Path(folder), batch_size=2, model={"norm": "frozen"}, epochs=2,
        optimizer={"name": "sgd", "lr": 0.05, "weight_decay": 0.0}, eval={"batch_size": 2},
    )  # fmt: skip
    model, data, val = build(told)
    run = train(model, data, val, told)
    data.transforms = None
    found = evaluate_segmentation(model, data, 2, progress=False)
    torch.save(
        {"weights": model.state_dict(), "best": run.best, "metrics": found.metrics,
         "confusion": found.confusion, "ids": found.image_ids}, f"{folder}-{os.environ['RANK']}.pt",
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_measure_as_one(tmp_path: Path) -> None:
    pictures(tmp_path / "data", 11, 5)
    in_two_processes("both", tmp_path / "two", __file__)
    both = [torch.load(tmp_path / f"two-{rank}.pt") for rank in (0, 1)]
    for key, value in both[0]["weights"].items():
        assert torch.equal(value, both[1]["weights"][key])
    assert torch.equal(both[0]["confusion"], both[1]["confusion"])
    assert both[0]["metrics"] == both[1]["metrics"] and both[0]["ids"] == list(range(11))
    # The same weights measured in one process: whole numbers, and so the same to the last bit.
    _, data, val = build(recipe(tmp_path / "data", tmp_path / "again"))
    data.transforms = None
    options = {key: value for key, value in MODEL.items() if key != "name"}
    model = create_model("unet", classes=NAMES, **options | {"norm": "frozen"})
    model.load_state_dict(both[0]["weights"])
    alone = evaluate_segmentation(model, data, 2, progress=False)
    assert torch.equal(alone.confusion, both[0]["confusion"])
    assert alone.metrics == both[0]["metrics"]
    best = create_model(weights=tmp_path / "two/best.safetensors")
    assert evaluate_segmentation(best, val, 2, progress=False).metrics["mIoU"] == both[0]["best"]


if __name__ == "__main__":
    train_and_measure(sys.argv[2])
