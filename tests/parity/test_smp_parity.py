"""The same weights on the same photograph give segmentation-models-pytorch's logits, by our reader.

The references are those of version 0.6.0, written by make_smp.py; it is not needed here.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from references import HERE, filled, stored
from torch import Tensor, nn

from eyeline.checkpoints import smp
from eyeline.errors import EyelineError
from eyeline.nn import fused
from eyeline.registry import create_model
from eyeline.segmenters import unet, unetplusplus

SHAPES = json.loads((HERE / "smp.json").read_text())
QUICK = ["fpn_resnet18", "linknet_resnet18", "unet_resnet18", "unetplusplus_resnet18"]
CASES = [pytest.param(case, marks=[] if case in QUICK else [pytest.mark.slow]) for case in SHAPES]
EVERY = 5  # rows and columns


@cache
def weights(case: str) -> dict[str, Tensor]:
    return filled(f"smp_{case}", SHAPES[case])


def build(case: str, **options: Any) -> nn.Module:
    return create_model(weights=weights(case), **options).eval()


@torch.no_grad()
def difference(model: nn.Module, case: str, picture: Tensor) -> float:
    """The largest of all logits, by their spread over the picture."""
    found = 0.0
    for size, array in stored(f"smp_{case}").items():
        height, width = map(int, size.split("x"))
        theirs = torch.from_numpy(array)
        ours = model(picture[None, :, :height, :width])[0]
        assert ours.shape[1:] == (height, width)
        ours = ours[:, ::EVERY, ::EVERY]
        spread = (theirs - theirs.mean((1, 2), keepdim=True)).std()
        assert ours.shape == theirs.shape and spread > 0.002
        found = max(found, float((ours - theirs).abs().max() / spread))
    return found


@pytest.mark.parametrize("case", CASES)
def test_logits(case: str, pictures: list[Tensor]) -> None:
    model = build(case)
    assert model.name == case.partition("_")[0]
    assert model.config.convention == "smp" and model.config.num_classes == 5
    assert model.load_report.missing == ()
    assert difference(model, case, pictures[1]) < 1e-4


# Each of these looks right and is wrong by the numbers: the comparison above must see it.
TRAPS = [
    *((case, {"norm_epsilon": 1e-3}) for case in QUICK),
    *((case, {"image_mean": (0.5, 0.5, 0.5)}) for case in QUICK),
    ("fpn_resnet18", {"align_corners": False}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "trap"), TRAPS)
def test_traps_are_seen(case: str, trap: dict[str, Any], pictures: list[Tensor]) -> None:
    assert difference(build(case, **trap), case, pictures[1]) > 1e-3


@pytest.mark.parametrize("case", ["unet_resnet18", "unetplusplus_resnet18"])
def test_smooth_enlarging_is_seen(
    case: str, pictures: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def smooth(x: Tensor, others: Any, size: Any) -> Tensor:
        x = nn.functional.interpolate(x, tuple(size), mode="bilinear")
        return torch.cat([x, *others], 1)

    for module in (unet, unetplusplus):
        assert module.beside is fused.beside
        monkeypatch.setattr(module, "beside", smooth)
    assert difference(build(case), case, pictures[1]) > 1e-3


def test_what_files_tell() -> None:
    """Networks, encoders, widths, merging."""
    expected = {
        "unet_vgg16_bn": dict(
            backbone="vgg16", norm="batch", decoder_widths=(64, 48, 32, 16, 16),
            decoder_norm="batch", in_channels=3, num_classes=5,
        ),
        "unet_vgg16": dict(backbone="vgg16", norm="none", decoder_norm="none"),
        "unet_resnext50_32x4d": dict(backbone="resnext50_32x4d", norm="batch"),
        "linknet_resnet50": dict(backbone="resnet50", final_width=32),
        "fpn_resnet50_cat": dict(merge="cat", fpn_channels=128, branch_width=128),
        "fpn_resnet18": dict(merge="add", fpn_channels=256, norm_epsilon=1e-5),
    }  # fmt: skip
    for case, options in expected.items():
        checkpoint = smp.read({k: torch.zeros(s) for k, s in SHAPES[case].items()}, case)
        assert checkpoint is not None
        assert checkpoint.options.items() >= options.items()


def test_what_cannot_be_read_is_named() -> None:
    state = {k: torch.zeros(s) for k, s in SHAPES["unet_resnet18"].items()}
    head = torch.zeros(4, 512)
    with pytest.raises(EyelineError, match=r"classification_head\.3\.weight"):
        smp.read(state | {"classification_head.3.weight": head}, "here")
    assert smp.read(
        state | {"classification_head.3.weight": head}, "here", ("classification_head",)
    )
    other = {k.replace("decoder.", "decoder.other."): v for k, v in state.items()}
    with pytest.raises(EyelineError, match="a network of segmentation-models-pytorch that is not"):
        smp.read(other, "here")
    other = {k.replace("encoder.layer", "encoder.model.layer"): v for k, v in state.items()}
    with pytest.raises(EyelineError, match="an encoder of segmentation-models-pytorch"):
        smp.read(other, "here")
    short = {k: v for k, v in state.items() if not k.startswith("decoder.blocks.4")}
    with pytest.raises(EyelineError, match="other than 5 stages"):
        smp.read(short, "here")
    assert smp.read({"conv1.weight": head}, "here") is None


def test_other_classes_and_channels() -> None:
    """The class layer stays as it was, and all else is loaded; so RGB's first convolution."""
    theirs = weights("linknet_resnet18")
    model = create_model(
        "linknet", weights=theirs, classes=["a", "b"], in_channels=4,
        image_mean=(0.5,) * 4, image_std=(0.5,) * 4,
    )  # fmt: skip
    assert model.load_report.replaced == ("head.weight", "head.bias")
    assert model.load_report.widened == ("backbone.conv1.weight",)
    assert model(torch.rand(1, 4, 40, 50)).shape == (1, 2, 40, 50)
