"""The same weights on the same photograph give what the authors' HRNet gives, through our reader.

The references were written by make_hrnet.py; the authors' code is not needed here.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from fill import fill
from references import stored
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.registry import create_model

SIZE = (113, 149)
STEPS = {"w18": 4, "cornered": 16}  # every which pixel is kept
CASES = ["cornered", pytest.param("w18", marks=pytest.mark.slow)]


@cache
def filled(case: str) -> dict[str, Tensor]:
    shapes = json.loads(str(stored("hrnet")[f"{case}.shapes"]))
    return {name: torch.from_numpy(value) for name, value in fill(shapes).items()}


def published(case: str) -> dict[str, Tensor]:
    """As the published files are: the network below "model.", the loss's weights beside it."""
    state = {f"model.{name}": value for name, value in filled(case).items()}
    return state | {"loss.criterion.weight": torch.ones(19)}


@cache
def built(case: str) -> nn.Module:
    return create_model(weights=published(case)).eval()


@pytest.fixture(scope="module")
def picture(pictures: list[Tensor]) -> Tensor:
    return pictures[0][:, : SIZE[0], : SIZE[1]]


@torch.no_grad()
def equal(model: nn.Module, picture: Tensor, case: str) -> bool:
    """Within 1e-4 of what the logits differ by over the picture, or of 1."""
    wanted = torch.from_numpy(stored("hrnet")[f"{case}.logits"])
    step = STEPS[case]
    found = model(picture[None])[:, :, ::step, ::step]
    assert found.shape == wanted.shape and wanted.std((2, 3)).min() > 0.01
    return bool((found - wanted).abs().max() < 1e-4 * wanted.std((2, 3)).mean().clamp(min=1))


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_logits_and_loss(case: str, picture: Tensor) -> None:
    model: Any = built(case)
    count = model.config.num_classes
    assert model.name == "hrnet" and model.config.align_corners is (case == "cornered")
    assert "loss.criterion.weight" in model.load_report.unused
    assert equal(model, picture, case)
    rows, columns = torch.arange(SIZE[0])[:, None] // 16, torch.arange(SIZE[1]) // 16
    target = (3 * rows + columns) % count
    target[:, 40:50] = 255
    loss = model(picture[None], target[None])["cross_entropy"].item()
    assert loss == pytest.approx(float(stored("hrnet")[f"{case}.loss"]), rel=1e-4)


@pytest.mark.parametrize("trap", [{"align_corners": False}, {"norm_epsilon": 1e-3}])
def test_traps_are_seen(trap: dict[str, Any], picture: Tensor) -> None:
    model = create_model(weights=published("cornered"), **trap).eval()
    assert not equal(model, picture, "cornered")


def test_names_without_a_prefix_and_left_over(picture: Tensor) -> None:
    assert equal(create_model(weights=filled("cornered")).eval(), picture, "cornered")
    with pytest.raises(EyelineError, match=r"no place for model\.extra\.weight"):
        create_model(weights=published("cornered") | {"model.extra.weight": torch.ones(1)})
    with pytest.raises(EyelineError, match="with OCR, which is not read"):
        create_model(
            weights=published("cornered") | {"model.ocr_distri_head.weight": torch.ones(1)}
        )


# As make_hrnet.py has it.
CORNERED: dict[str, Any] = dict(
    width=8, modules=(1, 2, 1), blocks=2, first_blocks=1, first_width=32
)


def test_classification_weights_go_into_the_network() -> None:
    state = filled("classifier")
    model: Any = create_model("hrnet", num_classes=3, **CORNERED, pretrained=state)
    body = model.backbone.state_dict()
    assert len(body) == sum(name in state for name in body)
    assert all(body[n].equal(state[n]) for n in body)
    assert {name.partition(".")[0] for name in model.load_report.unused} >= {
        "incre_modules", "downsamp_modules", "final_layer", "classifier",
    }  # fmt: skip
    with pytest.raises(EyelineError, match="holds a hrnet_w8, the model's backbone is a hrnet_w4"):
        create_model("hrnet", num_classes=3, width=4, pretrained=state)
    with pytest.raises(EyelineError, match=r"its weights go to .*pretrained="):
        create_model(weights=state)
