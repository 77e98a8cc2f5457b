"""PSPNet, PAN, DeepLabv3 and DeepLabv3+ of segmentation_models.pytorch and torchvision, and ours of
the same weights, say the same of a real picture; with any detail another way they do not.

The references are theirs, written by make_smp_dilated.py, which is not needed here.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from references import filled, stored
from torch import Tensor

from eyeline.checkpoints import read
from eyeline.checkpoints.names import VOC_REGIONS
from eyeline.registry import create_model

STEP = 8  # of the pixels that are stored
SIZES = {"smp": (256, 320), "torchvision": (128, 160)}


@cache
def weights(file: str, case: str) -> dict[str, Tensor]:
    return filled(file, json.loads(str(stored(file)[f"{case}.shapes"])))


def crop(file: str, pictures: list[Tensor]) -> Tensor:
    height, width = SIZES[file.split("_")[0]]
    return pictures[0][None, :, :height, :width]


@torch.no_grad()
def error(file: str, case: str, pictures: list[Tensor], **options: Any) -> float:
    """The largest, in deviations of a class's logits over the picture."""
    model = create_model(weights=dict(weights(file, case)), **options).eval()
    theirs = torch.from_numpy(stored(file)[f"{case}.logits"])
    ours = model(crop(file, pictures))[:, :, ::STEP, ::STEP]
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.std((2, 3)).mean())


CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("smp_pspnet", "resnet18.3", {}),
    ("smp_pan", "resnet18.16", {}),
    ("smp_deeplabv3", "mobilenet_v2.16", dict(output_stride=16)),
    ("smp_deeplabv3plus", "mobilenet_v2.16", {}),
    # From here on in slow tests alone.
    ("smp_pspnet", "mobilenet_v2.5", {}),
    ("smp_pan", "resnet18.32", dict(output_stride=32)),
    ("smp_deeplabv3", "resnet18.8", {}),
    ("smp_deeplabv3plus", "resnet18.8", dict(output_stride=8)),
]


def slow_from(place: int, cases: list[Any]) -> list[Any]:
    return [
        pytest.param(*each, marks=[pytest.mark.slow] * (i >= place)) for i, each in enumerate(cases)
    ]


@pytest.mark.parametrize(("file", "case", "stride"), slow_from(4, CASES))
def test_logits(file: str, case: str, stride: dict[str, Any], pictures: list[Tensor]) -> None:
    assert error(file, case, pictures, **stride) < 1e-4


WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("smp_pspnet", "resnet18.3", dict(align_corners=False)),
    ("smp_pan", "resnet18.16", dict(gate="relu")),
    ("smp_deeplabv3", "mobilenet_v2.16", dict(output_stride=16, rates_stride=8)),
    ("smp_deeplabv3plus", "mobilenet_v2.16", dict(align_corners=False)),
    # From here on in slow tests alone.
    ("smp_pspnet", "mobilenet_v2.5", dict(output_stride=16)),
    ("smp_pan", "resnet18.16", dict(align_corners=False)),
    ("torchvision_deeplabv3", "resnet50.8", dict(first_dilates=True)),
    ("torchvision_deeplabv3", "resnet50.8", dict(output_stride=16)),
    ("smp_pan", "resnet18.16", dict(first_dilates=False)),
    ("smp_pan", "resnet18.16", dict(output_stride=32)),
    ("smp_deeplabv3", "mobilenet_v2.16", dict(output_stride=8)),
    ("smp_deeplabv3", "mobilenet_v2.16", dict(output_stride=16, rates=(6, 12, 18))),
    ("smp_deeplabv3", "mobilenet_v2.16", dict(output_stride=16, align_corners=False)),
    ("smp_deeplabv3plus", "mobilenet_v2.16", dict(multi_grid=(1, 2, 4))),
    ("smp_deeplabv3plus", "mobilenet_v2.16", dict(first_dilates=False)),
]


@pytest.mark.parametrize(("file", "case", "wrong"), slow_from(4, WRONG))
def test_a_wrong_detail_is_seen(
    file: str, case: str, wrong: dict[str, Any], pictures: list[Tensor]
) -> None:
    assert error(file, case, pictures, **wrong) > 1e-2


@torch.no_grad()
def test_torchvision(pictures: list[Tensor]) -> None:
    """Logits, and the training loss with that of the auxiliary head."""
    file, case = "torchvision_deeplabv3", "resnet50.8"
    model = create_model(weights=dict(weights(file, case))).eval()
    assert (model.name, model.config.convention) == ("deeplabv3", "torchvision")
    picture, logits = crop(file, pictures), torch.from_numpy(stored(file)[f"{case}.logits"])
    difference = (model(picture)[:, :, ::STEP, ::STEP] - logits).abs().max()
    assert difference < 1e-4 * logits.std((2, 3)).mean()
    target = picture.float().mean(1).long() // 48
    found = model(picture, target.where(target < 5, 255))
    assert {name: float(value) for name, value in found.items()} == {
        "cross_entropy": pytest.approx(float(stored(file)[f"{case}.out"]), rel=1e-4),
        "auxiliary": pytest.approx(float(stored(file)[f"{case}.aux"]), rel=1e-4),
    }


def test_without_the_auxiliary_head_and_of_21_classes() -> None:
    state = weights("torchvision_deeplabv3", "resnet50.8")
    state = {key: value for key, value in state.items() if not key.startswith("aux_")}
    for key in ("classifier.4.weight", "classifier.4.bias"):
        state[key] = torch.cat([state[key]] * 5)[:21]
    found = read(state)
    assert found.classes == list(VOC_REGIONS)
    assert (found.options["num_classes"], found.options["auxiliary"]) == (21, 0)
