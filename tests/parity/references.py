"""What the parity tests share: stored references, weights filled by name, and comparisons."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fill import UNUSED, fill
from torch import Tensor, nn

import eyeline.nn.heads.rpn
from eyeline.structures import Prediction

HERE = Path(__file__).parent
PICTURES = ("000000006818", "000000037777")
IDS = [i for i in range(1, 91) if i not in UNUSED]  # category ids of the 80 classes
# torchvision's names of the losses -> ours
LOSSES = {
    "loss_classifier": "classification",
    "loss_box_reg": "box",
    "loss_objectness": "rpn_objectness",
    "loss_rpn_box_reg": "rpn_box",
    "loss_mask": "mask",
    "classification": "classification",
    "bbox_regression": "box",
}


@cache
def stored(case: str) -> dict[str, np.ndarray]:
    with np.load(HERE / f"{case}.npz") as file:
        return dict(file)


def filled(case: str, shapes: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict that the other side had."""
    calibration = {
        key.removeprefix("calibration."): value
        for key, value in stored(case).items()
        if key.startswith("calibration.")
    }
    return {name: torch.from_numpy(v) for name, v in fill(dict(shapes), calibration).items()}


def annotations(shared_data: Path) -> dict[str, list[dict[str, Any]]]:
    """The objects of each of PICTURES, crowds left out."""
    path = shared_data / "tiny_coco" / "annotations" / "instances_val2017.json"
    found = json.loads(path.read_text())["annotations"]
    return {
        name: [a for a in found if a["image_id"] == int(name) and not a["iscrowd"]]
        for name in PICTURES
    }


def target(own: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Boxes, and labels 0 .. 79."""
    x, y, w, h = torch.tensor([a["bbox"] for a in own]).T
    labels = torch.tensor([IDS.index(a["category_id"]) for a in own])
    return {"boxes": torch.stack([x, y, x + w, y + h], 1), "labels": labels}


def target_within(
    shared_data: Path, picture: int, size: tuple[int, int], least: int
) -> dict[str, Tensor]:
    """Of a picture cut to a height and width its objects of more than so many pixels a side, as
    `make_detectron2` and `make_mmdetection` have them; a mask is an ellipse in its box."""
    height, width = size
    own = annotations(shared_data)[PICTURES[picture]]
    x, y, w, h = torch.tensor([a["bbox"] for a in own]).T
    limit = torch.tensor([width, height] * 2)
    boxes = torch.stack([x, y, x + w, y + h], 1).clamp(min=0).minimum(limit)
    labels = torch.tensor([IDS.index(a["category_id"]) for a in own])
    large = (boxes[:, 2:] - boxes[:, :2] > least).all(1)
    boxes, labels = boxes[large], labels[large]
    rows, columns = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    x1, y1, x2, y2 = boxes[..., None, None].unbind(1)
    masks = ((columns - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((rows - (y1 + y2) / 2) / (y2 - y1)) ** 2
    return {"boxes": boxes, "labels": labels, "masks": masks < 0.25}


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


def their_losses(case: str) -> dict[str, Any]:
    """Under our names, each equal to what is within 1e-4 of it, relatively."""
    prefix = "256.losses."
    return {
        LOSSES[key.removeprefix(prefix)]: pytest.approx(float(value), rel=1e-4)
        for key, value in stored(case).items()
        if key.startswith(prefix)
    }


def sample_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sampling is random both sides take the first."""

    def falling(module: nn.Module, targets: Sequence[object], count: int) -> Tensor:
        return (1 - torch.arange(count) / (count + 1)).expand(len(targets), -1)

    detectors = [m for name, m in sys.modules.items() if name.startswith("eyeline.detectors.")]
    for module in (eyeline.nn.heads.rpn, *detectors):
        if hasattr(module, "random_order"):
            monkeypatch.setattr(module, "random_order", falling)


def train_with_fixed_norms(model: nn.Module) -> nn.Module:
    """In train() mode, while batch norms use their own statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model
