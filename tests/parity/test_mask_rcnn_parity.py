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
from references import (
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

from eyeline.ops.masks import paste_masks
from eyeline.ops.segmentations import decode_masks
from eyeline.registry import create_model

# "v2": torchvision's second version, with a ResNet-18 at a quarter of the width.
QUICK = ["mask_rcnn_resnet18", "mask_rcnn_v2_resnet18"]
SLOW = [
    pytest.param(case, marks=pytest.mark.slow)
    for case in ("mask_rcnn_resnet50", "mask_rcnn_v2_resnet50")
]
CASES = [*QUICK, *SLOW]
STEP = 4  # of the pasted masks every STEP-th pixel is stored
WITHIN = 1e-3


@cache
def built(case: str, **options: Any) -> nn.Module:
    """Predictions have probabilities, not masks."""
    state = filled(case, json.loads(str(stored(case)["shapes"])))
    options = {"min_size": 256, "max_size": 426, "mask_threshold": None} | options
    if "_v2_" in case:
        options["proposals"] = (2000, 200)
    return create_model(weights=state, **options).eval()


def probabilities(case: str, key: str) -> Tensor:
    return torch.from_numpy(stored(case)[key].astype(np.float32) / 65535)


@pytest.fixture(scope="module")
def targets(shared_data: Path, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
    def with_masks(own: list[dict[str, Any]], picture: Tensor) -> dict[str, Tensor]:
        masks = decode_masks([a["segmentation"] for a in own], *picture.shape[1:])
        return {**target(own), "masks": torch.from_numpy(masks)}

    every = annotations(shared_data).values()
    return [with_masks(own, picture) for own, picture in zip(every, pictures, strict=True)]


def difference(ours: dict[str, Tensor], small: Tensor, case: str, picture: int) -> float:
    """The farthest that a mask's probability is from torchvision's, small or pasted; infinite
    where the detections are not the same."""
    reference = theirs(case, 256, picture)
    if not agree(ours, reference, IDS):
        return float("inf")
    # Which of ours each of theirs is; scores may be equal.
    apart = (ours["boxes"][:, None] - reference["boxes"]).abs().amax(-1)
    apart += (ours["scores"][:, None] - reference["scores"]).abs()
    apart += torch.tensor(IDS)[ours["labels"]][:, None] != reference["labels"]
    of_theirs = apart.argmin(0)
    assert len(of_theirs.unique()) == len(of_theirs)
    wanted = probabilities(case, f"256.{picture}.small")
    farthest = (small[of_theirs[: len(wanted)]] - wanted).abs().max().item()
    index = of_theirs[stored(case)[f"256.{picture}.pasted_index"]]
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
    sample_the_first(monkeypatch)
    model = train_with_fixed_norms(built(case))
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
    assert {name: loss.item() for name, loss in losses.items()} == their_losses(case)
    assert len(losses) == 5


@pytest.mark.parametrize(
    ("case", "trap"),
    [
        ("mask_rcnn_resnet18", {"mask_rounded": False}),
        ("mask_rcnn_resnet18", {"sampling_ratio": 1}),
        ("mask_rcnn_v2_resnet18", {"norm_epsilon": 0.0}),
    ],
)
def test_traps_are_seen(case: str, trap: dict[str, Any], pictures: list[Tensor]) -> None:
    assert differences(case, pictures[:1], **trap)[0] > WITHIN


@pytest.mark.parametrize(
    ("case", "width"),
    [
        ("mask_rcnn_v2_resnet18", 64),
        pytest.param("mask_rcnn_v2_resnet50", 256, marks=pytest.mark.slow),
    ],
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
    for conv in built("mask_rcnn_v2_resnet18").mask_head.convs:
        monkeypatch.setattr(conv.norm, "eps", 0.0)
    assert not differences("mask_rcnn_v2_resnet18", pictures[:1])[0] <= WITHIN


def test_the_order_of_a_regions_cells_is_seen(
    pictures: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box head that reads them channel by channel, as the file has them."""
    layer = built("mask_rcnn_v2_resnet18").head.fc1
    by_cell = layer.weight.detach().unflatten(1, (7 * 7, -1))  # (1024, 7 * 7, C)
    monkeypatch.setattr(layer, "weight", nn.Parameter(by_cell.transpose(1, 2).flatten(1)))
    assert differences("mask_rcnn_v2_resnet18", pictures[:1])[0] == float("inf")


def test_pasting_alone() -> None:
    """Boxes that stick out, thin ones, whole numbers."""
    masks = probabilities("mask_rcnn_resnet18", "paste.masks")
    boxes = torch.from_numpy(stored("mask_rcnn_resnet18")["paste.boxes"])
    wanted = probabilities("mask_rcnn_resnet18", "paste.pasted")
    found = paste_masks(masks, boxes, (50, 70), None, rounded=True)
    assert (found - wanted).abs().max() <= 1e-4
    # A shift of a hundredth of a pixel crosses a whole number somewhere.
    other = paste_masks(masks, boxes + 0.5, (50, 70), None, rounded=True)
    assert (other - wanted).abs().max() > 0.1
