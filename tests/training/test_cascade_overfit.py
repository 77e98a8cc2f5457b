"""Cascade R-CNN learns four photographs by heart, and so do the paper's two baselines."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import ConcatDataset, Subset

from eyeline.data.datasets import open_dataset
from eyeline.evaluation import evaluate
from eyeline.registry import create_model
from eyeline.training import train

PICTURES = 4
SMALLEST = 60.0**2  # square pixels: what a picture of this size still shows


def few(shared_data):
    """The first photographs with two to six objects, none small, none a crowd."""
    dataset = open_dataset(shared_data / "tiny_coco", "train")
    fit = [
        i
        for i, record in enumerate(dataset.annotations.records)
        if 2 <= len(record.boxes) <= 6
        and not record.iscrowd.any()
        and record.areas is not None
        and (record.areas >= SMALLEST).all()
    ]
    assert len(fit) >= PICTURES
    part = Subset(dataset, fit[:PICTURES])
    part.classes = dataset.classes  # type: ignore[attr-defined]
    return part


def learn(shared_data, out, steps, **options):
    """Train on the four, `steps` times all of them; gives the report on the same pictures."""
    part = few(shared_data)
    torch.manual_seed(0)
    model = create_model(
        "cascade_rcnn", classes=part.classes, backbone="resnet18", norm="group", fpn_channels=64,
        head_width=128, min_size=128, max_size=176, head_samples=64,
        anchor_sizes=(16, 32, 64, 96, 128), proposals_before_nms=(200, 100), proposals=(150, 80),
        **options,
    )  # fmt: skip
    train(
        model, ConcatDataset([part] * steps), epochs=1, batch_size=PICTURES, out=str(out),
        optimizer={"name": "adamw", "lr": 1e-3}, schedule={"name": "onecycle"}, clip_norm=10.0,
        data={"workers": 0, "val": None}, log={"tensorboard": False},
    )  # fmt: skip
    return evaluate(model, part, progress=False)


def test_the_pictures_are_there(shared_data):
    targets = [target for _, target in (few(shared_data)[i] for i in range(PICTURES))]
    assert sum(len(target["labels"]) for target in targets) >= 8
    assert len(torch.cat([target["labels"] for target in targets]).unique()) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cascade", "iterative_bbox", "integral"])
def test_four_photographs_by_heart(shared_data, tmp_path, method):
    report = learn(shared_data, tmp_path / "run", steps=120, method=method)
    assert report.coco["AP50"] >= 0.9
