"""lufficc/SSD's names and shapes become ours; what is no such file is named."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from eyeline.checkpoints import load_weights, read
from eyeline.errors import EyelineError
from eyeline.registry import create_model

WIDTH = 4  # channels of the first stage
VGG = {0: (0, 1), 2: (1, 1), 5: (1, 2), 7: (2, 2), 10: (2, 4), 12: (4, 4), 14: (4, 4), 17: (4, 8),
       19: (8, 8), 21: (8, 8), 24: (8, 8), 26: (8, 8), 28: (8, 8), 31: (8, 16),
       33: (16, 16)}  # fmt: skip
EXTRAS = {
    300: ((16, 4, 1), (4, 8, 3), (8, 2, 1), (2, 4, 3), (4, 2, 1), (2, 4, 3), (4, 2, 1), (2, 4, 3)),
    512: ((16, 4, 1), (4, 8, 3), (8, 2, 1), (2, 4, 3), (4, 2, 1), (2, 4, 3), (4, 2, 1), (2, 4, 3),
          (4, 2, 1), (2, 4, 4)),
}  # fmt: skip
HEADS = {
    300: ((8, 4), (16, 6), (8, 6), (4, 6), (4, 4), (4, 4)),
    512: ((8, 4), (16, 6), (8, 6), (4, 6), (4, 6), (4, 4), (4, 4)),
}


def checkpoint(side: int = 300, slots: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}

    def layer(name: str, inputs: int, outputs: int, kernel: int) -> None:
        inputs = inputs or 3
        spread = 1 / math.sqrt(inputs * kernel**2)
        state[f"{name}.weight"] = spread * torch.randn(outputs, inputs, kernel, kernel)
        state[f"{name}.bias"] = torch.randn(outputs)

    for place, (inputs, outputs) in VGG.items():
        kernel = 1 if place == 33 else 3
        layer(f"backbone.vgg.{place}", inputs * WIDTH, outputs * WIDTH, kernel)
    for i, (inputs, outputs, kernel) in enumerate(EXTRAS[side]):
        layer(f"backbone.extras.{i}", inputs * WIDTH, outputs * WIDTH, kernel)
    state["backbone.l2_norm.weight"] = torch.rand(8 * WIDTH)
    for i, (inputs, boxes) in enumerate(HEADS[side]):
        predictor = "box_head.predictor"
        layer(f"{predictor}.cls_headers.{i}", inputs * WIDTH, boxes * slots, 3)
        layer(f"{predictor}.reg_headers.{i}", inputs * WIDTH, boxes * 4, 3)
    return state


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("side", [300, 512])
def test_a_file_is_read_whole(side: int, wrapped: bool, tmp_path: Any) -> None:
    state = checkpoint(side)
    content = {"model": state, "optimizer": {"state": {}}, "iteration": 5} if wrapped else state
    torch.save(content, path := tmp_path / "model.pth")
    model: Any = create_model(weights=path)
    assert model.name == f"ssd{side}" and model.config.convention == "lufficc"
    assert len(model.load_report.loaded) == len(state) and not model.load_report.left_out
    assert model.preprocess.min_size == model.preprocess.max_size == side
    assert [255 * value for value in model.preprocess.mean] == pytest.approx([123, 117, 104])
    ours = model.state_dict()
    torch.testing.assert_close(ours["backbone.fc7.weight"], state["backbone.vgg.33.weight"])
    torch.testing.assert_close(ours["extras.1.output.bias"], state["backbone.extras.3.bias"])
    # Their background comes first, for each default box.
    theirs = state["box_head.predictor.cls_headers.1.bias"].view(6, 4)
    assert torch.equal(ours["class_heads.1.bias"].view(6, 4), theirs[:, [1, 2, 3, 0]])
    with torch.no_grad():
        found = model.eval()([torch.rand(3, 60, 90)])
    assert found[0]["boxes"].shape[1] == 4


@pytest.mark.parametrize(
    ("side", "slots", "first", "scales"),
    [
        (300, 21, "aeroplane", (0.1, 1.05)),
        (300, 81, "person", (0.07, 1.05)),
        (300, 4, None, (0.1, 1.05)),
        (512, 21, "aeroplane", (0.07, 537.65 / 512)),
        (512, 81, "person", (0.04, 1.06)),
    ],
)
def test_classes_and_default_boxes(
    side: int, slots: int, first: str | None, scales: tuple[float, float]
) -> None:
    found = read(checkpoint(side, slots))
    assert found.options["num_classes"] == slots - 1
    assert (found.classes[0] if found.classes else None) == first
    sides = found.options["box_scales"]
    assert (sides[0], sides[-1]) == scales and len(sides) == len(HEADS[side]) + 1


def other_backbone() -> dict[str, Tensor]:
    state = checkpoint()
    return {key.replace("backbone.vgg", "backbone.features"): v for key, v in state.items()}


def misfit() -> dict[str, Tensor]:
    return checkpoint() | {"box_head.predictor.cls_headers.2.bias": torch.zeros(23)}


def fewer_maps() -> dict[str, Tensor]:
    return {key: value for key, value in checkpoint().items() if "headers.5" not in key}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (other_backbone, "lufficc/SSD's SSD with another backbone than VGG16, which is not read"),
        (misfit, "map 2 has class and box outputs that do not fit"),
        (fewer_maps, "has 5 maps; SSD300 has 6 and SSD512 has 7"),
        (lambda: checkpoint() | {"odd.weight": torch.ones(1)}, "no place for odd.weight"),
    ],
)
def test_what_does_not_fit_is_named(state: Any, message: str) -> None:
    with pytest.raises(EyelineError, match=message):
        read(state())
    assert "odd.weight" in read(checkpoint() | {"odd.weight": torch.ones(1)}, skip=["odd"]).dropped


def test_into_a_model_of_another_convention() -> None:
    model = create_model("ssd300", num_classes=3, width=WIDTH)
    with pytest.raises(EyelineError, match="convention='lufficc', the model 'paper'"):
        load_weights(model, checkpoint())
    with pytest.raises(EyelineError, match="holds a ssd300, not a retinanet"):
        create_model("retinanet", weights=checkpoint())
    same = create_model("ssd300", num_classes=3, width=WIDTH, convention="lufficc")
    assert not load_weights(same, checkpoint()).missing
