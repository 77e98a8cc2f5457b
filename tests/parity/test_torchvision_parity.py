"""The same weights on the same photographs give what torchvision gives, through our reader.

The references are torchvision 0.28's, written by make_torchvision.py; it is not needed here.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fill import UNUSED, fill
from PIL import Image
from torch import Tensor, nn

import eyeline.nn.heads.roi
import eyeline.nn.heads.rpn
from eyeline.checkpoints import torchvision
from eyeline.registry import create_model
from eyeline.structures import Prediction

HERE = Path(__file__).parent
PICTURES = ("000000006818", "000000037777")
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
# torchvision's names of the losses -> ours
LOSSES = {
    "loss_classifier": "classification",
    "loss_box_reg": "box",
    "loss_objectness": "rpn_objectness",
    "loss_rpn_box_reg": "rpn_box",
    "classification": "classification",
    "bbox_regression": "box",
}
IDS = [i for i in range(1, 91) if i not in UNUSED]  # category ids of the 80 classes


@cache
def stored(case: str) -> dict[str, np.ndarray]:
    with np.load(HERE / f"{case}.npz") as file:
        return dict(file)


@cache
def weights(case: str) -> dict[str, Tensor]:
    """The state dict that torchvision had."""
    shapes = json.loads((HERE / "shapes.json").read_text())[case]
    calibration = {
        key.removeprefix("calibration."): value
        for key, value in stored(case).items()
        if key.startswith("calibration.")
    }
    return {name: torch.from_numpy(v) for name, v in fill(shapes, calibration).items()}


def build(case: str, size: int = 256, **options: Any) -> nn.Module:
    options = {"min_size": size, "max_size": 1333 * size // 800} | options
    if case.startswith("faster_rcnn_v2"):
        options["proposals"] = (2000, 200)
    return create_model(weights=weights(case), **options).eval()


@cache
def built(case: str) -> nn.Module:
    return build(case)


@pytest.fixture(scope="module")
def pictures(shared_data: Path) -> list[Tensor]:
    def read_picture(name: str) -> Tensor:
        with Image.open(shared_data / "tiny_coco" / "val2017" / f"{name}.jpg") as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)

    return [read_picture(name) for name in PICTURES]


@pytest.fixture(scope="module")
def targets(shared_data: Path) -> list[dict[str, Tensor]]:
    """The photographs' own objects, crowds left out, labelled 0 .. 79."""
    path = shared_data / "tiny_coco" / "annotations" / "instances_val2017.json"
    annotations = json.loads(path.read_text())["annotations"]

    def target(name: str) -> dict[str, Tensor]:
        own = [a for a in annotations if a["image_id"] == int(name) and not a["iscrowd"]]
        x, y, w, h = torch.tensor([a["bbox"] for a in own]).T
        labels = torch.tensor([IDS.index(a["category_id"]) for a in own])
        return {"boxes": torch.stack([x, y, x + w, y + h], 1), "labels": labels}

    return [target(name) for name in PICTURES]


def theirs(case: str, size: int, picture: int) -> Prediction:
    found = stored(case)
    return {
        key: torch.from_numpy(found[f"{size}.{picture}.{key}"])
        for key in ("boxes", "scores", "labels")
    }


def agree(ours: Prediction, theirs: Prediction, ids: list[int]) -> bool:
    """Whether each detection of one is in the other: within 0.01 px, 1e-4, of the same class."""
    if len(ours["boxes"]) != len(theirs["boxes"]):
        return False
    close = (ours["boxes"][:, None] - theirs["boxes"]).abs().amax(-1) <= 0.01
    close &= (ours["scores"][:, None] - theirs["scores"]).abs() <= 1e-4
    close &= torch.tensor(ids)[ours["labels"]][:, None] == theirs["labels"]
    return bool(close.any(0).all() and close.any(1).all())


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
    """In train() mode; where sampling is random both sides take the first, and batch norms use
    their own statistics."""

    def first(
        matches: Tensor, count: int, positive_fraction: float, generator: object = None
    ) -> tuple[Tensor, Tensor]:
        positive = (matches >= 0).nonzero()[:, 0][: int(count * positive_fraction)]
        negative = (matches == -1).nonzero()[:, 0][: count - len(positive)]
        return positive, negative

    for module in (eyeline.nn.heads.roi, eyeline.nn.heads.rpn):
        monkeypatch.setattr(module, "balanced_sample", first)
    prefix = "256.losses."
    expected = {
        LOSSES[key.removeprefix(prefix)]: pytest.approx(float(value), rel=1e-4)
        for key, value in stored(case).items()
        if key.startswith(prefix)
    }
    model = built(case).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        losses = model(pictures, targets)
    model.eval()
    assert {name: loss.item() for name, loss in losses.items()} == expected
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
