"""The same weights on the same photographs give what lufficc/SSD's models give: our reader too.

The references are that repository's, written by make_lufficc.py; it is not needed here.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from references import agree, annotations, filled, stored, target, theirs
from torch import Tensor, nn

from eyeline.registry import create_model

SIDES = {"lufficc_ssd300": 300, "lufficc_ssd512": 512}
LOSSES = {"classification": "cls_loss", "box": "reg_loss"}


@cache
def weights(case: str) -> dict[str, Tensor]:
    return filled(case, json.loads(str(stored(case)["shapes"])))


def build(case: str, **options: Any) -> nn.Module:
    return create_model(weights=weights(case), **options).eval()


def agreement(case: str, model: nn.Module, pictures: list[Tensor]) -> list[bool]:
    ids = list(range(1, len(model.classes) + 1))
    with torch.no_grad():
        return [agree(p, theirs(case, SIDES[case], i), ids) for i, p in enumerate(model(pictures))]


@pytest.mark.parametrize("case", SIDES)
def test_detections_and_losses(case: str, pictures: list[Tensor], shared_data: Path) -> None:
    model, found = build(case), stored(case)
    side = SIDES[case]
    assert model.name == case.removeprefix("lufficc_")
    assert model.classes[0] == {300: "aeroplane", 512: "person"}[side]
    assert not model.load_report.missing
    assert len(model.load_report.loaded) == len(weights(case))
    assert len(theirs(case, side, 0)["boxes"]) >= 20
    assert agreement(case, model, pictures) == [True, True]
    targets = []
    for i, own in enumerate(annotations(shared_data).values()):
        kept = found[f"{side}.{i}.objects"].tolist()
        ids = torch.tensor([a["category_id"] for a in own])
        whole = target(own) | {"labels": ids % len(model.classes)}
        targets.append({key: value[kept] for key, value in whole.items()})
    assert sum(len(t["labels"]) for t in targets) >= 5
    with torch.no_grad():
        losses = model(pictures, targets)
    assert {name: loss.item() for name, loss in losses.items()} == {
        name: pytest.approx(float(found[f"{side}.losses.{key}"]), rel=1e-4)
        for name, key in LOSSES.items()
    }


# Each of these looks right and is wrong by the numbers: the comparison above must see it.
@pytest.mark.parametrize(
    "trap",
    [
        {"box_scales": (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)},
        {"clipped": True},
        {"image_mean": (104 / 255, 117 / 255, 123 / 255)},
    ],
)
def test_traps_are_seen(trap: dict[str, Any], pictures: list[Tensor]) -> None:
    model = build("lufficc_ssd300", **trap)
    assert agreement("lufficc_ssd300", model, pictures[:1]) == [False]


@pytest.mark.parametrize(
    ("case", "trap", "same"),
    [
        ("lufficc_ssd300", {}, True),
        ("lufficc_ssd512", {}, True),
        ("lufficc_ssd300", {"centres_clipped": False}, False),
        ("lufficc_ssd300", {"box_clipped": False}, True),  # of this map none is so large
        ("lufficc_ssd300", {"box_strides": ()}, False),
    ],
)
def test_default_boxes(case: str, trap: dict[str, Any], same: bool) -> None:
    """Of the third map."""
    side = SIDES[case]
    scales = {} if side == 300 else {"box_scales": (0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06)}
    options: dict[str, Any] = {"convention": "lufficc", "width": 4, **scales, **trap}
    model: Any = create_model(case.removeprefix("lufficc_"), num_classes=2, **options)
    sides = {300: (38, 19, 10, 5, 3, 1), 512: (64, 32, 16, 8, 4, 2, 1)}[side]
    maps = [torch.zeros(1, 1, n, n) for n in sides]
    boxes = model.boxes(maps, (side, side))[2]
    theirs_ = side * torch.from_numpy(stored(case)[f"{side}.priors"])
    assert boxes.shape == theirs_.shape
    assert bool((boxes - theirs_).abs().max() < 1e-3) is same
