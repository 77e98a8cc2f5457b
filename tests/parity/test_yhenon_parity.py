"""The same weights on the same photographs give what yhenon/pytorch-retinanet's model gives.

The references are that repository's, written by make_yhenon.py; it is not needed here.
"""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import pytest
import torch
from references import agree, filled, stored
from torch import Tensor, nn

from eyeline.registry import create_model

SIZES = ((320, 256), (224, 320))  # what is cut out of each picture: nothing is resized
OBJECTS = {
    "boxes": torch.tensor([[20.0, 30, 150, 140], [100, 20, 180, 200], [60, 150, 200, 220]]),
    "labels": torch.tensor([3, 0, 17]),
    "resized": torch.tensor(True),
}


@cache
def weights() -> dict[str, Tensor]:
    return filled("yhenon", json.loads(str(stored("yhenon")["shapes"])))


def build(**options: Any) -> nn.Module:
    return create_model(weights=weights(), **options).eval()


def batch_of(model: Any, picture: Tensor, i: int) -> Any:
    height, width = SIZES[i]
    return model.prepare([picture[:, :height, :width]], [OBJECTS])


def agreement(model: Any, picture: Tensor, i: int) -> bool:
    batch = batch_of(model, picture, i)
    batch.targets = None
    keys = ("boxes", "scores", "labels")
    theirs = {key: torch.from_numpy(stored("yhenon")[f"{i}.{key}"]) for key in keys}
    assert len(theirs["boxes"]) >= 10
    with torch.no_grad():
        return agree(model(batch)[0], theirs, list(range(80)))


def test_detections_and_losses_are_theirs(pictures: list[Tensor]) -> None:
    model: Any = build()
    assert model.config.convention == "yhenon" and model.classes[0] == "person"
    assert not model.load_report.missing
    assert [agreement(model, picture, i) for i, picture in enumerate(pictures)] == [True, True]
    # Theirs keeps probabilities 1e-4 off 0 and 1 in its loss, which no trained network needs.
    limit = math.log(9999)
    model.class_head.register_forward_hook(lambda *given: given[2].clamp(-limit, limit))
    for i, picture in enumerate(pictures):
        with torch.no_grad():
            losses = model(batch_of(model, picture, i))
        expected = stored("yhenon")[f"{i}.losses"]
        ours = [losses["classification"].item(), losses["box"].item()]
        assert ours == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize(
    "trap", [{"box_weights": (1.0, 1.0, 1.0, 1.0)}, {"anchor_offset": 0.0}]
)  # fmt: skip
def test_traps_are_seen(trap: dict[str, Any], pictures: list[Tensor]) -> None:
    assert not agreement(build(**trap), pictures[1], 1)
