"""RefineDet learns four photographs by heart: its two steps of boxes, matching, losses and decoding
fit together."""

from __future__ import annotations

import pytest
import torch
from test_ssd_overfit import PICTURES, few
from torch.utils.data import ConcatDataset

from eyeline.evaluation import evaluate
from eyeline.registry import create_model
from eyeline.training import train


def learn(shared_data, out, steps, **options):
    """Train on the four, `steps` times all of them; gives the report on the same pictures."""
    part = few(shared_data)
    torch.manual_seed(0)
    model = create_model(
        "refinedet320", classes=part.classes, size=128, anchor_sizes=(16, 32, 64, 128),
        tcb_channels=64, extra=(64, 128), extra_norm="batch", norm="batch", **options,
    )  # fmt: skip
    train(
        model, ConcatDataset([part] * steps), epochs=1, batch_size=PICTURES, out=str(out),
        optimizer={"name": "adamw", "lr": 1e-3}, schedule={"name": "onecycle"}, clip_norm=10.0,
        data={"workers": 0, "val": None}, log={"tensorboard": False},
    )  # fmt: skip
    return evaluate(model, part, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"width": 16}, {"backbone": "resnet18"}], ids=["vgg16", "resnet18"]
)
def test_refinedet_learns_four_pictures_by_heart(shared_data, tmp_path, options):
    report = learn(shared_data, tmp_path / "run", 150, **options)
    assert report.coco["AP50"] > 0.9


def test_it_cannot_without_training(shared_data, tmp_path):
    report = learn(shared_data, tmp_path / "run", 1, width=8)
    assert report.coco["AP50"] < 0.5
