"""The same weights on the same photographs give what luuuyi/RefineDet.PyTorch gives: our reader
too.

The references are that repository's, written by make_refinedet.py; it is not needed here.

Where its code departs from the authors' Caffe, and no number below would tell:

- Caffe leaves the anchors that the ARM is sure about out of the negatives; here they are left out
  of the positives, and are then mined as negatives with their object's class.
- Caffe gives each object an anchor of its own, pair by pair; here the last object that wants an
  anchor gets it, and one that no anchor overlaps gets the first.
- Caffe's anchors may be wider than the picture.
- Caffe keeps the best 500 of a picture; here the line that should has no effect.
- Targets are the logarithm of the growth and 1e-5; with no positive the losses are not numbers.
"""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from references import agree, annotations, filled, stored, target, theirs
from torch import Tensor, nn

from eyeline.detectors import refinedet
from eyeline.nn.anchors import AnchorPyramid
from eyeline.registry import create_model

CASE = "refinedet"
IDS = list(range(20))
OURS = {
    "arm_conf": "arm_objectness", "arm_loc": "arm_box", "odm_conf": "classification",
    "odm_loc": "box",
}  # fmt: skip


@cache
def weights() -> dict[str, Tensor]:
    return filled(CASE, json.loads(str(stored(CASE)["shapes"])))


def build(name: str = "refinedet320", **options: Any) -> nn.Module:
    return create_model(name, weights=weights(), **options).eval()


@cache
def built() -> nn.Module:
    return build()


def agreement(
    model: nn.Module, pictures: list[Tensor], size: int, which: tuple[int, ...]
) -> list[bool]:
    with torch.no_grad():
        found = model([pictures[i] for i in which])
    return [agree(p, theirs(CASE, size, i), IDS) for i, p in zip(which, found, strict=True)]


def losses(
    model: nn.Module, pictures: list[Tensor], data: Path, size: int, which: tuple[int, ...]
) -> dict[str, float]:
    """Of the objects whose best anchor is no tie; labels are COCO's ids, counted round 20."""
    everything, targets = list(annotations(data).values()), []
    for i in which:
        own = [everything[i][j] for j in stored(CASE)[f"{size}.{i}.objects"].tolist()]
        labels = torch.tensor([a["category_id"] % 20 for a in own])
        targets.append(target(own) | {"labels": labels})
    assert sum(len(t["labels"]) for t in targets) >= 5
    with torch.no_grad():
        found = model([pictures[i] for i in which], targets)
    return {name: loss.item() for name, loss in found.items()}


def reference_losses(size: int) -> dict[str, Any]:
    return {
        ours: pytest.approx(float(stored(CASE)[f"{size}.losses.{name}"]), rel=1e-4)
        for name, ours in OURS.items()
    }


def test_the_file_sets_the_config() -> None:
    model = built()
    assert model.name == "refinedet320"
    assert model.classes[:2] == ["aeroplane", "bicycle"]
    assert model.config.num_classes == 20
    assert model.config.convention == "luuuyi"
    assert not model.load_report.missing
    assert len(model.load_report.loaded) == len(weights())


@pytest.mark.slow
def test_512(pictures: list[Tensor], shared_data: Path) -> None:
    """The same weights are of both sizes."""
    model = build("refinedet512")
    assert model.name == "refinedet512" and model.preprocess.min_size == 512
    assert agreement(model, pictures, 512, (1,)) == [True]
    assert losses(model, pictures, shared_data, 512, (1,)) == reference_losses(512)


@pytest.fixture(scope="module")
def said(pictures: list[Tensor]) -> tuple[Tensor, ...]:
    """What the network, which is right, says of both pictures."""
    with torch.no_grad():
        return built().heads(built().prepare(pictures).images)


@pytest.fixture
def beheaded(said: tuple[Tensor, ...]) -> Any:
    """The model without the time that its network takes."""
    model: Any = copy(built())
    model.heads = lambda images: said
    return model


def test_detections(beheaded: Any, pictures: list[Tensor]) -> None:
    assert all(len(theirs(CASE, 320, i)["boxes"]) >= 20 for i in (0, 1))
    assert agreement(beheaded, pictures, 320, (0, 1)) == [True, True]


def test_losses(beheaded: Any, pictures: list[Tensor], shared_data: Path) -> None:
    found = losses(beheaded, pictures, shared_data, 320, (0, 1))
    assert found == reference_losses(320)


# Each of these looks right and is wrong by the numbers: the comparisons above must see it.
@pytest.mark.parametrize("trap", [{"filter_above": 1.0}, {"clipped": True}, {"nms_iou": 0.5}])
def test_traps_of_detections_are_seen(
    trap: dict[str, Any], beheaded: Any, pictures: list[Tensor]
) -> None:
    assert agreement(beheaded, pictures, 320, (0, 1)) == [True, True]
    beheaded.config = replace(beheaded.config, **trap)
    assert agreement(beheaded, pictures, 320, (0, 1)) == [False, False]


@pytest.mark.parametrize("trap", [{"clipped": False}, {"ratios": (1.0, 2.0, 0.5)}])
def test_traps_of_anchors_are_seen(
    trap: dict[str, Any], beheaded: Any, said: tuple[Tensor, ...], pictures: list[Tensor]
) -> None:
    c = beheaded.config
    sizes = [[size] for size in c.anchor_sizes]
    pyramid = AnchorPyramid(sizes, trap.get("ratios", c.anchor_ratios), refinedet.STRIDES)
    if trap.get("clipped", True):
        pyramid.cells.clamp_(-160, 160)
    maps = [torch.zeros(1, 1, n, n) for n in (40, 20, 10, 5)]
    anchors = torch.cat(pyramid(maps, (320, 320)))
    beheaded.heads = lambda images: tuple(part[1:] for part in said[:4]) + (anchors,)
    assert agreement(beheaded, pictures, 320, (1,)) == [False]


def test_targets_of_the_anchors_as_they_stand_are_seen(
    beheaded: Any, pictures: list[Tensor], shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refinedet, "decode", lambda move, anchors, _: anchors.expand_as(move))
    found = losses(beheaded, pictures, shared_data, 320, (0, 1))
    wanted = reference_losses(320)
    assert {name for name in found if found[name] != wanted[name]} == {"classification", "box"}


@pytest.mark.parametrize("discarded", ["all", "negatives"])
def test_what_is_discarded_counts(
    discarded: str, beheaded: Any, pictures: list[Tensor], shared_data: Path
) -> None:
    beheaded.config = replace(beheaded.config, discarded=discarded)
    found = losses(beheaded, pictures, shared_data, 320, (0, 1))
    wanted = reference_losses(320)
    assert found["arm_box"] == wanted["arm_box"]
    assert found["classification"] != wanted["classification"]
