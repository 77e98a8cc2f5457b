from __future__ import annotations

import pytest
import torch

from eyeline.data.datasets import open_dataset
from eyeline.data.samples import write_samples
from eyeline.metrics.detection import CocoMetric
from eyeline.registry import create_model


@pytest.fixture
def overfitted(tmp_path):
    """A function that trains a model on four small pictures and tells its AP50 on them."""

    def fit(name, steps=150, lr=1e-3, **options):
        write_samples(tmp_path / "data", train=4, val=1, size=96, seed=0)
        data = open_dataset(tmp_path / "data", "train")
        samples = [data[i] for i in range(4)]
        images, targets = [s[0] for s in samples], [s[1] for s in samples]
        torch.manual_seed(0)
        model = create_model(name, num_classes=10, **{"size": 96} | options)
        optimizer = torch.optim.Adam(model.parameters(), lr)
        for _ in range(steps):
            loss = sum(model(images, targets).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            # Its own statistics: four pictures are too few to have run in.
            for module in model.modules():
                module.training = isinstance(module, torch.nn.BatchNorm2d)
            found = model(images)
        metric = CocoMetric([str(i) for i in range(10)])
        metric.update(found, targets)
        return metric.compute()["AP50"]

    return fit
