"""The same weights on the same photographs give what torchvision's SSD300 gives: our reader too.

The references are torchvision 0.28's, written by make_ssd.py; it is not needed here.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from references import IDS, LOSSES, agree, annotations, filled, stored, target, theirs
from torch import Tensor, nn

from eyeline.registry import create_model

CASE = "ssd300"


@cache
def weights() -> dict[str, Tensor]:
    return filled(CASE, json.loads(str(stored(CASE)["shapes"])))


def build(**options: Any) -> nn.Module:
    return create_model(weights=weights(), **options).eval()


@cache
def built() -> nn.Module:
    return build()


def agreement(model: nn.Module, pictures: list[Tensor], ids: list[int] = IDS) -> list[bool]:
    with torch.no_grad():
        return [agree(p, theirs(CASE, 300, i), ids) for i, p in enumerate(model(pictures))]


def test_the_file_sets_the_config() -> None:
    model = built()
    assert model.name == "ssd300"
    assert model.classes[:2] == ["person", "bicycle"]
    assert model.config.num_classes == 80
    assert model.config.convention == "torchvision"
    assert not model.load_report.missing
    assert len(model.load_report.loaded) == len(weights())


def test_detections(pictures: list[Tensor]) -> None:
    assert len(theirs(CASE, 300, 0)["boxes"]) >= 20
    assert agreement(built(), pictures) == [True, True]


def test_losses(pictures: list[Tensor], shared_data: Path) -> None:
    found = stored(CASE)
    targets = []
    for i, own in enumerate(annotations(shared_data).values()):
        kept = found[f"300.{i}.objects"].tolist()
        targets.append({key: value[kept] for key, value in target(own).items()})
    assert sum(len(t["labels"]) for t in targets) >= 8
    with torch.no_grad():
        losses = built()(pictures, targets)
    assert {name: loss.item() for name, loss in losses.items()} == {
        LOSSES[name]: pytest.approx(float(found[f"300.losses.{name}"]), rel=1e-4)
        for name in ("classification", "bbox_regression")
    }


# Each of these looks right and is wrong by the numbers: the comparison above must see it.
@pytest.mark.parametrize(
    "trap",
    [
        {"box_variances": (0.1, 0.1)},
        {"box_strides": ()},
        {"image_mean": (0.485, 0.456, 0.406)},
        {"stretch": False},
    ],
)
def test_traps_are_seen(trap: dict[str, Any], pictures: list[Tensor]) -> None:
    assert agreement(build(**trap), pictures[:1]) == [False]


def test_ninety_classes(pictures: list[Tensor]) -> None:
    """At num_classes=90, a label is the category id less 1."""
    assert agreement(build(num_classes=90), pictures[:1], list(range(1, 91))) == [True]
