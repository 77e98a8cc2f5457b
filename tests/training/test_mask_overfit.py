"""Mask R-CNN learns eight photographs by heart: masks, classes and boxes fit together."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import ConcatDataset, Subset

from eyeline.data.datasets import open_dataset
from eyeline.evaluation import evaluate
from eyeline.registry import create_model
from eyeline.training import train

PICTURES = 8
SMALLEST = 40.0**2  # square pixels: what a picture of this size still shows


def few(shared_data):
    """The first photographs with one to six objects, none small, none a crowd."""
    dataset = open_dataset(shared_data / "tiny_coco", "train", masks=True)
    records = dataset.annotations.records
    fit = [
        i
        for i, record in enumerate(records)
        if 1 <= len(record.boxes) <= 6
        and not record.iscrowd.any()
        and record.areas is not None
        and (record.areas >= SMALLEST).all()
    ]
    assert len(fit) >= PICTURES
    part = Subset(dataset, fit[:PICTURES])
    part.classes = dataset.classes  # type: ignore[attr-defined]
    return part


def learn(shared_data, out, steps, **options):
    """Train on the eight, `steps` times all of them; gives the report on the same pictures."""
    part = few(shared_data)
    torch.manual_seed(0)
    model = create_model(
        "mask_rcnn", classes=part.classes, backbone="resnet18", fpn_channels=128, head_width=256,
        mask_width=64, mask_depth=2, min_size=192, max_size=256, head_samples=64,
        anchor_sizes=(16, 32, 64, 128, 192), proposals_before_nms=(500, 300), proposals=(300, 150),
        **options,
    )  # fmt: skip
    train(
        model, ConcatDataset([part] * steps), epochs=1, batch_size=PICTURES, out=str(out),
        optimizer={"name": "adamw", "lr": 1e-3}, schedule={"name": "onecycle"}, clip_norm=10.0,
        data={"workers": 0, "val": None}, log={"tensorboard": False},
    )  # fmt: skip
    return evaluate(model, part, progress=False)


def test_the_pictures_are_there(shared_data):
    part = few(shared_data)
    targets = [part[i][1] for i in range(PICTURES)]
    assert sum(len(target["labels"]) for target in targets) >= 12
    assert len(torch.cat([target["labels"] for target in targets]).unique()) >= 5
    assert all(target["masks"].flatten(1).any(1).all() for target in targets)


@pytest.mark.slow
def test_eight_photographs_by_heart(shared_data, tmp_path):
    report = learn(shared_data, tmp_path / "run", steps=400)
    assert report.segm is not None
    assert report.segm["AP50"] >= 0.9
    assert report.coco["AP50"] >= 0.9
