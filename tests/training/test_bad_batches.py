"""Losses that are no numbers: the batch is named and saved, the weights are never poisoned."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, Subset
from toys import ToyData, ToyDetector, in_two_processes

from eyeline.data.datasets import open_dataset
from eyeline.errors import EyelineError
from eyeline.registry import create_model
from eyeline.structures import Batch
from eyeline.training import train
from eyeline.training.bad_batches import save_bad_batch

QUICK = {
    "batch_size": 3,
    "epochs": 2,
    "optimizer": {"lr": 1e-2},
    "data": {"workers": 0},
    "log": {"every": 1, "tensorboard": False},
}


class Bad(ToyDetector):
    """Spoils its loss, or its picture's pixels, at some training steps, counted from 1."""

    def __init__(self, steps: dict[int, float], pixels: bool = False) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.steps, self.pixels, self.calls = steps, pixels, 0
        self.weights = []

    def forward(self, images, targets=None):
        if not self.training:
            return super().forward(images, targets)
        self.calls += 1
        self.weights.append(self.head.weight.detach().clone())
        bad = self.steps.get(self.calls)
        if bad is not None and self.pixels:
            images = [image.float() + bad for image in images]
        losses = super().forward(images, targets)
        if bad is not None and not self.pixels:
            losses = {**losses, "box": losses["box"] + bad}
        return losses


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_bad_step_is_skipped(tmp_path, capsys, value, pixels, accumulate):
    """Weights, running statistics and averages are as before it."""
    model = Bad({2: value}, pixels)
    fields = {**QUICK, "on_nan": "skip", "accumulate": accumulate, "ema": 0.5}
    train(model, ToyData(), out=str(tmp_path / "r"), **fields)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    average = torch.load(tmp_path / "r" / "state.pt", weights_only=True)["ema"]["model"]
    assert all(value.isfinite().all() for value in average.values())
    if accumulate == 1:
        assert torch.equal(model.weights[1], model.weights[2])
        assert not torch.equal(model.weights[2], model.weights[3])
        # A normal step, its first picture's statistics included, then nothing, then as before.
        assert model.norm.num_batches_tracked == 7
    out = capsys.readouterr().out
    assert "step 1: box is " * (accumulate == 2) in out and "; the step is skipped\n" in out
    assert out.count("1 steps skipped (not finite)") == 2
    steps = [line for line in records(tmp_path / "r") if line["event"] == "step"]
    assert [line.get("skipped") for line in steps][-1] == 1
    epochs = [line for line in records(tmp_path / "r") if line["event"] == "epoch"]
    assert all(math.isfinite(line["losses"]["loss"]) for line in epochs)
    saved = list((tmp_path / "r" / "bad_batches").iterdir())
    assert [path.name for path in saved] == [f"step-{2 if accumulate == 1 else 1}"]
    assert len(list(saved[0].glob("*.png"))) == 3  # of accumulated batches only the bad one


@pytest.mark.filterwarnings("error")
def test_the_first_step_may_be_skipped(tmp_path):
    """Of which torch's schedules warn, as if it were the caller's fault."""
    model = Bad({1: math.nan})
    train(model, ToyData(), out=str(tmp_path / "r"), **QUICK, on_nan="skip")
    steps = [line for line in records(tmp_path / "r") if line["event"] == "step"]
    assert [step["skipped"] for step in steps] == [1] * 8
    assert steps[0]["lr"] == 1e-2 > steps[1]["lr"] > steps[2]["lr"]


def test_skipping_has_an_end(tmp_path):
    model = Bad(dict.fromkeys(range(1, 99), math.nan))
    with pytest.raises(EyelineError, match=r"for 30 steps in a row; lower optimizer\.lr"):
        train(model, ToyData(), out=str(tmp_path / "r"), **{**QUICK, "epochs": 9}, on_nan="skip")
    assert len(model.weights) == 30
    assert all(torch.equal(model.weights[0], weight) for weight in model.weights)
    saved = list((tmp_path / "r" / "bad_batches").iterdir())
    assert len(saved) == 20


def test_a_resumed_run_counts_on(tmp_path):
    """Steps skipped in a row are counted through a resumption."""
    with pytest.raises(EyelineError, match="step 8: box is nan"):
        train(Bad({8: math.nan}), ToyData(), out=str(tmp_path / "r"), **QUICK)
    model = Bad({4: math.nan})  # its fourth
    train(model, ToyData(), out=str(tmp_path / "r"), **QUICK, on_nan="skip", resume=True)
    assert (tmp_path / "r" / "bad_batches" / "step-8" / "batch.json").exists()
    state = torch.load(tmp_path / "r" / "state.pt", weights_only=True)
    assert state["position"]["skipped"] == 1


class Planted(nn.Module):
    """A model whose loss is NaN on one picture."""

    def __init__(self, model: nn.Module, image_id: int) -> None:
        super().__init__()
        self.model, self.image_id = model, image_id
        self.classes, self.preprocess = model.classes, model.preprocess
        self.prepare = model.prepare

    def forward(self, batch: Batch):
        losses = self.model(batch)
        if any(int(target["image_id"]) == self.image_id for target in batch.targets):
            losses = {name: value * math.nan for name, value in losses.items()}
        return losses


@pytest.mark.parametrize("workers", [0, 1])
def test_files_of_the_pictures_are_named_and_their_annotations_saved(
    tmp_path, shared_data, workers
):
    """Through Subset and ConcatDataset, with a network's own sizes."""
    whole = open_dataset(shared_data / "tiny_coco", "val", masks=True)
    parts = [Subset(whole, [3, 4]), Subset(whole, [10, 11, 12])]
    dataset = ConcatDataset(parts)
    dataset.classes = whole.classes
    record = whole.annotations.records[11]
    model = create_model(
        "mask_rcnn", classes=whole.classes, backbone="resnet18", size=64, fpn_channels=8,
        norm="frozen", head_width=16, proposals=[20, 20],
    )  # fmt: skip
    with pytest.raises(EyelineError) as caught:
        train(
            Planted(model, record.image_id), dataset, out=str(tmp_path / "r"),
            **{**QUICK, "batch_size": 1, "data": {"workers": workers}},
        )  # fmt: skip
    message = str(caught.value)
    assert (
        f" is nan on pictures {record.path}, saved in {tmp_path / 'r' / 'bad_batches'}" in message
    )
    assert "\n" not in message and message.endswith("or on_nan=skip")
    (folder,) = (tmp_path / "r" / "bad_batches").iterdir()
    found = json.loads((folder / "batch.json").read_text())
    (picture,) = found["pictures"]
    assert (picture["index"], picture["path"]) == (3, str(record.path))
    assert picture["target"]["image_id"] == record.image_id
    assert len(picture["target"]["boxes"]) == len(record.boxes) > 0
    assert len(picture["target"]["masks"]) == len(record.boxes)
    height, width = picture["pixels"]["height"], picture["pixels"]["width"]
    assert picture["target"]["masks"][0]["size"] == [height, width]
    seen = np.asarray(Image.open(folder / picture["file"]), np.float32)
    assert seen.shape == (height, width, 3)
    with Image.open(record.path) as original:  # the same picture in other sizes
        expected = original.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    assert np.corrcoef(seen.ravel(), np.asarray(expected, np.float32).ravel())[0, 1] > 0.9


@pytest.mark.slow
def test_processes_agree(tmp_path):
    """A loss of the second process is no number: both skip the step, or both stop."""
    in_two_processes("bad", tmp_path / "r")
    weights = [torch.load(tmp_path / f"r-{rank}.pt") for rank in (0, 1)]
    for name, value in weights[0].items():
        assert value.isfinite().all() and torch.equal(value, weights[1][name])
    saved = [path.name for path in (tmp_path / "r" / "bad_batches").iterdir()]
    assert saved == ["step-2-rank-1"]
    stopped = [(tmp_path / f"r-{rank}.txt").read_text() for rank in (0, 1)]
    assert "step 2: another process has a loss that is not finite" in stopped[0]
    assert "step 2: box is nan on pictures 1" in stopped[1]
    # Two processes were broken off after 1 step of 6 pictures in all; one takes the other 6.
    seen = []

    class Seen(ToyDetector):
        def forward(self, images, targets=None):
            seen.extend(int(target["image_id"]) for target in targets)
            return super().forward(images, targets)

    train(
        Seen(nn.LayerNorm, dropout=0.0), ToyData(12), out=str(tmp_path / "r-stop"), resume=True,
        **{**QUICK, "epochs": 1, "optimizer": {"name": "sgd"}},
    )  # fmt: skip
    before = [json.loads((tmp_path / f"r-{rank}.json").read_text()) for rank in (0, 1)]
    assert sorted(before[0] + before[1] + seen) == list(range(100, 112))


def test_what_is_not_finite_is_told(tmp_path):
    image = torch.rand(3, 4, 5)
    image[0, 0, 0], image[1, 2, 3] = math.nan, 7.0
    target = {"boxes": torch.tensor([[0.0, math.inf, 1.0, math.nan]]), "labels": torch.tensor([1])}
    pictures = [{"index": 0, "path": None}]
    save_bad_batch(tmp_path, [([image], [target])], pictures, "box is nan")
    found = json.loads((tmp_path / "batch.json").read_text())
    assert found["what"] == "box is nan"
    (picture,) = found["pictures"]
    assert picture["pixels"]["not_finite"] == 1 and picture["pixels"]["highest"] == 7.0
    assert picture["target"]["boxes"] == [[0.0, "inf", 1.0, "nan"]]
    seen = np.asarray(Image.open(tmp_path / "0.png"))
    assert seen.shape == (4, 5, 3) and seen.max() == seen[2, 3, 1] == 255


def test_a_bad_batch_that_cannot_be_saved_is_named_all_the_same(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr("eyeline.training.guard.save_bad_batch", full)
    with pytest.raises(EyelineError, match=r"which could not be saved \(no space left on device\)"):
        train(Bad({6: math.nan}), ToyData(), out=str(tmp_path / "r"), **QUICK)


def test_a_batch_norm_with_one_value_is_told(tmp_path):
    """The last batch of an epoch, of one small picture."""
    small = {"backbone": "resnet18", "fpn_channels": 8, "tower_depth": 1, "size": 32}
    target = {
        "boxes": torch.tensor([[2.0, 2.0, 20.0, 20.0]]), "labels": torch.tensor([0]),
        "image_id": torch.tensor(7),
    }  # fmt: skip
    data = [(torch.rand(3, 32, 32), target)]
    options = {"batch_size": 2, "epochs": 1, "data": {"workers": 0}, "log": {"tensorboard": False}}
    model = create_model("retinanet", num_classes=1, **small)
    told = r"step 1.*: batch norm cannot learn from one cell of one picture \(7, 32x32\); take"
    with pytest.raises(EyelineError, match=told):
        train(model, data, out=str(tmp_path / "r"), **options)
    model = create_model("retinanet", num_classes=1, norm="group", **small)
    train(model, data, out=str(tmp_path / "r"), **options)
