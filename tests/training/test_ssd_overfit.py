"""SSD learns four photographs by heart: boxes, matching, losses and decoding fit together."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import ConcatDataset, Subset

from eyeline.data.datasets import open_dataset
from eyeline.evaluation import evaluate
from eyeline.registry import create_model
from eyeline.training import train

PICTURES = 4


def few(shared_data):
    """The first photographs with one to six objects, none small, none a crowd."""
    dataset = open_dataset(shared_data / "tiny_coco", "train")
    fit = [
        i
        for i, record in enumerate(dataset.annotations.records)
        if 1 <= len(record.boxes) <= 6
        and not record.iscrowd.any()
        and ((record.boxes[:, 2:] - record.boxes[:, :2]) >= 40).all()
    ]
    part = Subset(dataset, fit[:PICTURES])
    part.classes = dataset.classes
    return part


def learn(shared_data, out, steps, **options):
    """Train on the four, `steps` times all of them; gives the report on the same pictures."""
    part = few(shared_data)
    torch.manual_seed(0)
    model = create_model("ssd300", classes=part.classes, size=128, **options)
    train(
        model, ConcatDataset([part] * steps), epochs=1, batch_size=PICTURES, out=str(out),
        optimizer={"name": "adamw", "lr": 1e-3}, schedule={"name": "onecycle"}, clip_norm=10.0,
        data={"workers": 0, "val": None}, log={"tensorboard": False},
    )  # fmt: skip
    return evaluate(model, part, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"norm": "batch", "width": 16}, {"backbone": "resnet18"}], ids=["vgg16", "resnet18"]
)
def test_ssd_learns_four_pictures_by_heart(shared_data, tmp_path, options):
    report = learn(shared_data, tmp_path / "run", 150, **options)
    assert report.coco["AP50"] > 0.9


def test_it_cannot_without_training(shared_data, tmp_path):
    report = learn(shared_data, tmp_path / "run", 1, norm="batch", width=8)
    assert report.coco["AP50"] < 0.5
