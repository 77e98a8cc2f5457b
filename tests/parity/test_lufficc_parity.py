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
    assert sum(len(t["labels"]) for t in targets) >= 8
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
        {"centres_clipped": False},
        {"clipped": True},
        {"image_mean": (104 / 255, 117 / 255, 123 / 255)},
        {"box_variances": (0.1, 0.1)},
    ],
)
def test_traps_are_seen(trap: dict[str, Any], pictures: list[Tensor]) -> None:
    model = build("lufficc_ssd300", **trap)
    assert not all(agreement("lufficc_ssd300", model, pictures))
