"""Mask R-CNN with torchvision's weights, through our reader: the same boxes, scores, masks, losses.

The references are torchvision 0.28's, written by make_mask_rcnn.py; it is not needed here.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fill import fill
from PIL import Image
from test_torchvision_parity import HERE, IDS, LOSSES, PICTURES, agree
from torch import Tensor, nn

import eyeline.nn.heads.roi
import eyeline.nn.heads.rpn
from eyeline.ops.masks import paste_masks
from eyeline.ops.segmentations import decode_masks
from eyeline.registry import create_model

# "v2": torchvision's second version, with a ResNet-18 at a quarter of the width.
QUICK = ["resnet18", "v2_resnet18"]
SLOW = [pytest.param(case, marks=pytest.mark.slow) for case in ("resnet50", "v2_resnet50")]
CASES = [*QUICK, *SLOW]
STEP = 4  # of the pasted masks every STEP-th pixel is stored
WITHIN = 1e-3


@cache
def stored(case: str) -> dict[str, np.ndarray]:
    with np.load(HERE / f"mask_rcnn_{case}.npz") as file:
        return dict(file)


@cache
def built(case: str, **options: Any) -> nn.Module:
    """Predictions have probabilities, not masks."""
    found = stored(case)
    calibration = {
        key.removeprefix("calibration."): value
        for key, value in found.items()
        if key.startswith("calibration.")
    }
    arrays = fill(json.loads(str(found["shapes"])), calibration)
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    options = {"min_size": 256, "max_size": 426, "mask_threshold": None} | options
    if case.startswith("v2_"):
        options["proposals"] = (2000, 200)
    return create_model(weights=state, **options).eval()


def probabilities(case: str, key: str) -> Tensor:
    return torch.from_numpy(stored(case)[key].astype(np.float32) / 65535)


@pytest.fixture(scope="module")
def pictures(shared_data: Path) -> list[Tensor]:
    def read_picture(name: str) -> Tensor:
        with Image.open(shared_data / "tiny_coco" / "val2017" / f"{name}.jpg") as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)

    return [read_picture(name) for name in PICTURES]


@pytest.fixture(scope="module")
def targets(shared_data: Path, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
    path = shared_data / "tiny_coco" / "annotations" / "instances_val2017.json"
    annotations = json.loads(path.read_text())["annotations"]

    def target(name: str, picture: Tensor) -> dict[str, Tensor]:
        own = [a for a in annotations if a["image_id"] == int(name) and not a["iscrowd"]]
        x, y, w, h = torch.tensor([a["bbox"] for a in own]).T
        masks = decode_masks([a["segmentation"] for a in own], *picture.shape[1:])
        labels = torch.tensor([IDS.index(a["category_id"]) for a in own])
        boxes = torch.stack([x, y, x + w, y + h], 1)
        return {"boxes": boxes, "labels": labels, "masks": torch.from_numpy(masks)}

    return [target(name, picture) for name, picture in zip(PICTURES, pictures, strict=True)]


def difference(ours: dict[str, Tensor], small: Tensor, case: str, picture: int) -> float:
    """The farthest that a mask's probability is from torchvision's, small or pasted; infinite
    where the detections are not the same."""
    found = stored(case)
    theirs = {
        key: torch.from_numpy(found[f"256.{picture}.{key}"])
        for key in ("boxes", "scores", "labels")
    }
    if not agree(ours, theirs, IDS):
        return float("inf")
    # Which of ours each of theirs is; scores may be equal.
    apart = (ours["boxes"][:, None] - theirs["boxes"]).abs().amax(-1)
    apart += (ours["scores"][:, None] - theirs["scores"]).abs()
    of_theirs = (apart + (torch.tensor(IDS)[ours["labels"]][:, None] != theirs["labels"])).argmin(0)
    assert len(of_theirs.unique()) == len(of_theirs)
    wanted = probabilities(case, f"256.{picture}.small")
    farthest = (small[of_theirs[: len(wanted)]] - wanted).abs().max().item()
    index = of_theirs[found[f"256.{picture}.pasted_index"]]
    pasted = probabilities(case, f"256.{picture}.pasted")
    assert len(pasted) >= 4
    there = ours["masks"][index][:, ::STEP, ::STEP]
    return max(farthest, (there - pasted).abs().max().item())


@torch.no_grad()
def differences(case: str, pictures: list[Tensor], **options: Any) -> list[float]:
    model = built(case, **options)
    batch = model.prepare(pictures)
    padded = model.compute(batch)
    predictions = model.finish(padded, batch)
    return [
        difference(prediction, padded.masks[i][padded.valid[i]], case, i)
        for i, prediction in enumerate(predictions)
    ]


@pytest.mark.parametrize("case", CASES)
def test_masks(case: str, pictures: list[Tensor]) -> None:
    assert max(differences(case, pictures)) <= WITHIN


@pytest.mark.parametrize("case", CASES)
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
    names = LOSSES | {"loss_mask": "mask"}
    expected = {
        names[key.removeprefix(prefix)]: pytest.approx(float(value), rel=1e-4)
        for key, value in stored(case).items()
        if key.startswith(prefix)
    }
    model = built(case).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        losses = model(pictures, targets)
        # Each choice of the convention moves the loss: the comparison can fail.
        usual = model.config
        for change in ({"mask_targets_binary": True}, {"roi_aligned": True}):
            model.config = replace(usual, **change)
            other = model(pictures, targets)["mask"].item()
            assert abs(other - losses["mask"].item()) > 3e-4 * other
        model.config = usual
    model.eval()
    assert {name: loss.item() for name, loss in losses.items()} == expected
    assert len(losses) == 5


@pytest.mark.parametrize(
    ("case", "trap"),
    [
        ("resnet18", {"mask_rounded": False}),
        ("resnet18", {"sampling_ratio": 1}),
        ("v2_resnet18", {"norm_epsilon": 0.0}),
    ],
)
def test_traps_are_seen(case: str, trap: dict[str, Any], pictures: list[Tensor]) -> None:
    assert differences(case, pictures[:1], **trap)[0] > WITHIN


@pytest.mark.parametrize(
    ("case", "width"),
    [("v2_resnet18", 64), pytest.param("v2_resnet50", 256, marks=pytest.mark.slow)],
)
def test_the_second_version_is_known_by_its_keys(case: str, width: int) -> None:
    config = built(case).config
    assert (config.norm, config.norm_epsilon) == ("batch", 1e-5)
    assert (config.fpn_norm, config.head_norm, config.mask_norm) == ("batch", "batch", "batch")
    assert (config.rpn_depth, config.head_convs, config.head_layers) == (2, 4, 1)
    assert (config.fpn_channels, config.mask_width, config.mask_depth) == (width, width, 4)


def test_the_epsilon_of_the_mask_heads_norms_is_seen(
    pictures: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    for conv in built("v2_resnet18").mask_head.convs:
        monkeypatch.setattr(conv.norm, "eps", 0.0)
    assert not differences("v2_resnet18", pictures[:1])[0] <= WITHIN


def test_the_order_of_a_regions_cells_is_seen(
    pictures: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box head that reads them channel by channel, as the file has them."""
    layer = built("v2_resnet18").head.fc1
    by_cell = layer.weight.detach().unflatten(1, (7 * 7, -1))  # (1024, 7 * 7, C)
    monkeypatch.setattr(layer, "weight", nn.Parameter(by_cell.transpose(1, 2).flatten(1)))
    assert differences("v2_resnet18", pictures[:1])[0] == float("inf")


def test_pasting_alone() -> None:
    """Boxes that stick out, thin ones, whole numbers."""
    masks = probabilities("resnet18", "paste.masks")
    boxes = torch.from_numpy(stored("resnet18")["paste.boxes"])
    wanted = probabilities("resnet18", "paste.pasted")
    found = paste_masks(masks, boxes, (50, 70), None, rounded=True)
    assert (found - wanted).abs().max() <= 1e-4
    # A shift of a hundredth of a pixel crosses a whole number somewhere.
    other = paste_masks(masks, boxes + 0.5, (50, 70), None, rounded=True)
    assert (other - wanted).abs().max() > 0.1
