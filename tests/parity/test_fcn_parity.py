"""The same weights on the same photograph give what torchvision's FCN and wkentaro's give, through
our readers.

The references were written by make_fcn.py; the other sides are not needed here.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fill import fill
from references import stored
from torch import Tensor

from eyeline.note import watch
from eyeline.registry import create_model

SIZE = (113, 149)
CAFFE = ["fcn32s", "fcn16s", "fcn8s", "fcn8s_at_once"]
TORCHVISION = ["fcn_resnet50", pytest.param("fcn_resnet101", marks=pytest.mark.slow)]


def file_of(case: str) -> str:
    return "fcn_torchvision" if "resnet" in case else "fcn_caffe"


@cache
def weights(case: str) -> dict[str, Tensor]:
    shapes = json.loads(str(stored(file_of(case))[f"{case}.shapes"]))
    state = {name: torch.from_numpy(value) for name, value in fill(shapes).items()}
    for name in ("upscore", "upscore16", "upscore8"):
        if f"{name}.weight" in state and case != "fcn16s":  # of fcn16s it is not bilinear
            side = state[f"{name}.weight"].shape[-1]
            one = F.pad(torch.ones(1, 1, 1, 1), (1, 1, 1, 1))
            tent = F.interpolate(one, scale_factor=side // 2, mode="bilinear")[0, 0]
            tent = tent[side // 4 : -side // 4, side // 4 : -side // 4]  # 3 cells less 1/2 a side
            state[f"{name}.weight"] = torch.zeros_like(state[f"{name}.weight"])
            state[f"{name}.weight"][range(21), range(21)] = tent
    return state


def options_of(case: str) -> dict[str, Any]:
    """What no file tells."""
    return {"skip_scales": (1e-2, 1e-4)} if case.endswith("at_once") else {}


@pytest.fixture(scope="module")
def picture(pictures: list[Tensor]) -> Tensor:
    return pictures[0][:, : SIZE[0], : SIZE[1]]


def target() -> Tensor:
    """As make_fcn.py has it."""
    rows, columns = torch.arange(SIZE[0])[:, None] // 16, torch.arange(SIZE[1]) // 16
    classes = (3 * rows + columns) % 21
    classes[:, 40:50] = 255
    return classes


def same(found: Tensor, case: str) -> bool:
    """Within 1e-4 of what the logits differ by over the picture, or of 1."""
    wanted = torch.from_numpy(stored(file_of(case))[f"{case}.logits"])
    step = 4 if "resnet" in case else 8
    found = found[:, :, ::step, ::step]
    assert found.shape == wanted.shape and wanted.std((2, 3)).min() > 0.01
    return bool((found - wanted).abs().max() < 1e-4 * wanted.std((2, 3)).mean().clamp(min=1))


@pytest.mark.parametrize("case", [*TORCHVISION, *CAFFE])
@torch.no_grad()
def test_logits_and_losses(case: str, picture: Tensor) -> None:
    model: Any = create_model(weights=weights(case), **options_of(case)).eval()
    assert model.name == case.removesuffix("_at_once").partition("_")[0]
    assert model.classes[0] == "background" and model.classes[15] == "person"
    seen: dict[str, Any] = {}
    with watch(seen.__setitem__):
        losses = model(picture[None], target()[None])
    assert same(seen["logits"], case)
    for name, theirs in (("cross_entropy", "out"), ("auxiliary", "aux")):
        assert (name in losses) or "resnet" not in case
        if "resnet" in case:
            reference = float(stored("fcn_torchvision")[f"{case}.loss.{theirs}"])
            factor = 0.5 if name == "auxiliary" else 1  # torchvision's training script
            assert losses[name].item() == pytest.approx(factor * reference, rel=1e-4)


# Each of these looks right and is wrong by the numbers.
TRAPS: list[Any] = [
    ("fcn_resnet50", {"first_dilates": True}),
    pytest.param("fcn_resnet50", {"output_stride": 16}, marks=pytest.mark.slow),
    ("fcn8s", {"border": 0}),
    ("fcn8s", {"skip_scales": (1e-2, 1e-4)}),
    ("fcn8s_at_once", {"skip_scales": (1.0, 1.0)}),
    ("fcn32s", {"image_mean": (104 / 255, 117 / 255, 123 / 255)}),
]


@pytest.mark.parametrize(("case", "trap"), TRAPS)
def test_traps_are_seen(case: str, trap: dict[str, Any], picture: Tensor) -> None:
    model = create_model(weights=weights(case), **options_of(case) | trap).eval()
    with torch.no_grad():
        assert not same(model(picture[None]), case)
