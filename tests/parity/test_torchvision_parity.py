"""The same weights on the same photographs give what torchvision gives, through our reader.

The references are torchvision 0.28's, written by make_torchvision.py; it is not needed here.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from references import (
    HERE,
    IDS,
    agree,
    annotations,
    filled,
    sample_the_first,
    stored,
    target,
    their_losses,
    theirs,
    train_with_fixed_norms,
)
from torch import Tensor, nn

from eyeline.checkpoints import torchvision
from eyeline.registry import create_model

QUICK = [
    "faster_rcnn_resnet18",
    "retinanet_resnet18",
    "faster_rcnn_v2_resnet18",
    "retinanet_v2_resnet18",
]
DETECTORS = [
    *QUICK,
    pytest.param("faster_rcnn_v2_resnet50", marks=pytest.mark.slow),
    pytest.param("retinanet_v2_resnet50", marks=pytest.mark.slow),
    pytest.param("faster_rcnn_resnet50", marks=pytest.mark.slow),
    pytest.param("retinanet_resnet50", marks=pytest.mark.slow),
]
CLASSIFIERS = ["resnet18", "resnet50", "resnext50_32x4d"]


@cache
def weights(case: str) -> dict[str, Tensor]:
    return filled(case, json.loads((HERE / "shapes.json").read_text())[case])


def build(case: str, size: int = 256, **options: Any) -> nn.Module:
    options = {"min_size": size, "max_size": 1333 * size // 800} | options
    if case.startswith("faster_rcnn_v2"):
        options["proposals"] = (2000, 200)
    return create_model(weights=weights(case), **options).eval()


@cache
def built(case: str) -> nn.Module:
    return build(case)


@pytest.fixture(scope="module")
def targets(shared_data: Path) -> list[dict[str, Tensor]]:
    return [target(own) for own in annotations(shared_data).values()]


@torch.no_grad()
def agreement(
    model: nn.Module, pictures: list[Tensor], case: str, size: int = 256, ids: list[int] = IDS
) -> list[bool]:
    return [agree(p, theirs(case, size, i), ids) for i, p in enumerate(model(pictures))]


@pytest.mark.parametrize("case", DETECTORS)
def test_detections(case: str, pictures: list[Tensor]) -> None:
    assert len(theirs(case, 256, 0)["boxes"]) >= 20
    assert agreement(built(case), pictures, case) == [True, True]


@pytest.mark.slow
def test_detections_of_the_full_size(pictures: list[Tensor]) -> None:
    case = "faster_rcnn_resnet50"
    model = build(case, 800)
    compared = [i for i in range(len(pictures)) if f"800.{i}.boxes" in stored(case)]
    assert compared
    with torch.no_grad():
        assert all(agree(model([pictures[i]])[0], theirs(case, 800, i), IDS) for i in compared)


@pytest.mark.parametrize("case", QUICK)
def test_ninety_classes(case: str, pictures: list[Tensor]) -> None:
    """At num_classes=90, a label is the category id less 1."""
    model = build(case, num_classes=90)
    assert agreement(model, pictures, case, ids=list(range(1, 91))) == [True, True]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (
            "faster_rcnn_v2_resnet18",
            dict(rpn_depth=2, head_convs=4, head_layers=1, fpn_channels=64),
        ),
        (
            "faster_rcnn_v2_resnet50",
            dict(rpn_depth=2, head_convs=4, head_layers=1, fpn_channels=256),
        ),
        ("retinanet_v2_resnet18", dict(box_loss="giou", head_norm="group", fpn_channels=64)),
        ("retinanet_v2_resnet50", dict(box_loss="giou", head_norm="group", fpn_channels=256)),
    ],
)
def test_second_versions_are_known_by_their_keys(case: str, expected: dict[str, Any]) -> None:
    options = torchvision.read(weights(case), case).options  # type: ignore[union-attr]
    assert options.items() >= {**expected, "norm": "batch", "norm_epsilon": 1e-5}.items()
    if case.startswith("faster"):
        assert (options["fpn_norm"], options["head_norm"]) == ("batch", "batch")
    else:
        assert (options["fpn_norm"], options["fpn_extra_from"]) == ("none", "backbone")


@pytest.mark.parametrize("case", DETECTORS)
def test_losses(
    case: str,
    pictures: list[Tensor],
    targets: list[dict[str, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample_the_first(monkeypatch)
    model = train_with_fixed_norms(built(case))
    with torch.no_grad():
        losses = model(pictures, targets)
    model.eval()
    assert {name: loss.item() for name, loss in losses.items()} == their_losses(case)
    assert len(losses) == (4 if case.startswith("faster") else 2)


# Each of these looks right and is wrong by the numbers: the comparison above must see it.
TRAPS = [
    ("faster_rcnn_resnet18", {"norm_epsilon": 1e-5}),
    ("faster_rcnn_resnet18", {"anchor_rounded": False}),
    ("faster_rcnn_resnet18", {"anchor_offset": 0.5}),
    ("faster_rcnn_resnet18", {"roi_aligned": True}),
    ("retinanet_resnet18", {"norm_epsilon": 1e-5}),
    ("retinanet_resnet18", {"anchor_rounded": False}),
    ("faster_rcnn_v2_resnet18", {"norm_epsilon": 0.0}),
    ("retinanet_v2_resnet18", {"norm_epsilon": 0.0}),
]


@pytest.mark.parametrize(("case", "trap"), TRAPS)
def test_traps_are_seen(case: str, trap: dict[str, Any], pictures: list[Tensor]) -> None:
    assert agreement(build(case, **trap), pictures, case) == [False, False]


@pytest.mark.parametrize("case", QUICK)
def test_wrong_slots_are_seen(
    case: str, pictures: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first 80 slots instead of those of COCO's 80 classes."""

    def naive(count: int, num_classes: int | None) -> tuple[list[int], list[str]]:
        return list(range(1, 81)), list(torchvision.COCO_SLOTS[1:81])

    monkeypatch.setattr(torchvision, "_slots", naive)
    assert agreement(build(case), pictures, case) == [False, False]


@pytest.mark.parametrize(
    ("key", "change"),
    [("boxes", 0.02), ("scores", 2e-4), ("labels", 1), ("boxes", None), ("boxes", 0.0)],
)
def test_the_comparison_can_fail(key: str, change: float | None) -> None:
    reference = theirs("retinanet_resnet18", 256, 1)
    ours = {name: value.clone() for name, value in reference.items()}
    ours["labels"] = torch.tensor([IDS.index(i) for i in ours["labels"].tolist()])
    if change is None:
        ours = {name: value[:-1] for name, value in ours.items()}
    else:
        ours[key][3] += change
    assert agree(ours, reference, IDS) == (change == 0)


@pytest.mark.parametrize("case", CLASSIFIERS)
def test_logits(case: str, pictures: list[Tensor]) -> None:
    model = create_model(weights=weights(case)).eval()
    assert model.name == case
    crops = torch.stack([picture[:, :224, :224] for picture in pictures])
    with torch.no_grad():
        logits = model(crops)
    expected = torch.from_numpy(stored(case)["logits"])
    assert expected.std() > 0.5
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
