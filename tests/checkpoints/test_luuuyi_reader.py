"""luuuyi/RefineDet.PyTorch's names and shapes become ours; what is no such file is named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eyeline.checkpoints import load_weights, read
from eyeline.errors import EyelineError
from eyeline.registry import create_model

WIDTH, TCB, EXTRA = 4, 6, (5, 7)
VGG = {0: (0, 1), 2: (1, 1), 5: (1, 2), 7: (2, 2), 10: (2, 4), 12: (4, 4), 14: (4, 4), 17: (4, 8),
       19: (8, 8), 21: (8, 8), 24: (8, 8), 26: (8, 8), 28: (8, 8), 31: (8, 16),
       33: (16, 16)}  # fmt: skip
SMALL: dict[str, Any] = dict(width=WIDTH, tcb_channels=TCB, extra=EXTRA)


def checkpoint(slots: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}

    def layer(name: str, inputs: int, outputs: int, kernel: int = 3) -> None:
        spread = 1 / math.sqrt(inputs * kernel**2)
        state[f"{name}.weight"] = spread * torch.randn(outputs, inputs, kernel, kernel)
        state[f"{name}.bias"] = torch.randn(outputs)

    for place, (inputs, outputs) in VGG.items():
        layer(f"vgg.{place}", inputs * WIDTH or 3, outputs * WIDTH, 1 if place == 33 else 3)
    for name in ("conv4_3_L2Norm", "conv5_3_L2Norm"):
        state[f"{name}.weight"] = torch.rand(8 * WIDTH)
    layer("extras.0", 16 * WIDTH, EXTRA[0], 1)
    layer("extras.1", *EXTRA)
    for i, channels in enumerate((8 * WIDTH, 8 * WIDTH, 16 * WIDTH, EXTRA[1])):
        layer(f"arm_loc.{i}", channels, 3 * 4)
        layer(f"arm_conf.{i}", channels, 3 * 2)
        layer(f"odm_loc.{i}", TCB, 3 * 4)
        layer(f"odm_conf.{i}", TCB, 3 * slots)
        layer(f"tcb0.{3 * i}", channels, TCB)
        layer(f"tcb0.{3 * i + 2}", TCB, TCB)
        layer(f"tcb2.{3 * i + 1}", TCB, TCB)
        if i < 3:
            layer(f"tcb1.{i}", TCB, TCB, 2)
    return state


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_is_read_whole(prefix: str, tmp_path: Path) -> None:
    state = checkpoint()
    torch.save({prefix + key: v for key, v in state.items()}, path := tmp_path / "final.pth")
    model: Any = create_model(weights=path)
    assert model.name == "refinedet320" and model.config.convention == "luuuyi"
    assert len(model.load_report.loaded) == len(state) and not model.load_report.left_out
    assert [255 * value for value in model.preprocess.mean] == pytest.approx([123, 117, 104])
    assert [1 / value for value in model.preprocess.std] == pytest.approx([255, 255, 255])
    ours = model.state_dict()
    for name, theirs in {
        "backbone.fc7.weight": "vgg.33.weight",
        "conv6_2.bias": "extras.1.bias",
        "transfer.2.first.weight": "tcb0.6.weight",
        "transfer.2.second.bias": "tcb0.8.bias",
        "transfer.2.up.weight": "tcb1.2.weight",
        "transfer.3.output.weight": "tcb2.10.weight",
        "arm_box_head.1.bias": "arm_loc.1.bias",
    }.items():
        torch.testing.assert_close(ours[name], state[theirs])
    # Their background comes first, for each anchor.
    for name, theirs, slots in (
        ("odm_class_head", "odm_conf", 4),
        ("arm_class_head", "arm_conf", 2),
    ):
        rows = state[f"{theirs}.1.bias"].view(3, slots)
        wanted = rows[:, [*range(1, slots), 0]]
        assert torch.equal(ours[f"{name}.1.bias"].view(3, slots), wanted)
    with torch.no_grad():
        found = model.eval()([torch.rand(3, 60, 90)])
    assert found[0]["boxes"].shape[1] == 4


@pytest.mark.parametrize(
    ("slots", "first"), [(21, "aeroplane"), (4, None)], ids=["voc", "one's own"]
)
def test_classes(slots: int, first: str | None) -> None:
    found = read(checkpoint(slots))
    assert found.options["num_classes"] == slots - 1
    assert (found.classes[0] if found.classes else None) == first


def test_either_size(tmp_path: Path) -> None:
    """The shapes are the same: the file's name tells, or who loads it."""
    torch.save(checkpoint(), path := tmp_path / "RefineDet512_VOC_final.pth")
    model: Any = create_model(weights=path)
    assert (model.name, model.preprocess.min_size) == ("refinedet512", 512)
    for name, side in (("refinedet320", 320), ("refinedet512", 512)):
        model = create_model(name, weights=checkpoint())
        assert (model.name, model.preprocess.min_size) == (name, side)
    same = create_model("refinedet512", num_classes=3, convention="luuuyi", **SMALL)
    assert not load_weights(same, checkpoint()).missing


def misfit() -> dict[str, Tensor]:
    return checkpoint() | {"odm_conf.2.bias": torch.zeros(11)}


def lacking() -> dict[str, Tensor]:
    return {key: value for key, value in checkpoint().items() if not key.startswith("extras.1")}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (misfit, "our odm_class_head.2 has outputs that 3 anchors do not fit"),
        (lacking, "lacks our conv6_2.bias, conv6_2.weight"),
        (lambda: checkpoint() | {"odd.weight": torch.ones(1)}, "no place for odd.weight"),
    ],
)
def test_what_does_not_fit_is_named(state: Any, message: str) -> None:
    with pytest.raises(EyelineError, match=message):
        read(state())
    assert "odd.weight" in read(checkpoint() | {"odd.weight": torch.ones(1)}, skip=["odd"]).dropped


def test_into_a_model_of_another_kind() -> None:
    model = create_model("refinedet320", num_classes=3, **SMALL)
    with pytest.raises(EyelineError, match="convention='luuuyi', the model 'paper'"):
        load_weights(model, checkpoint())
    with pytest.raises(EyelineError, match="holds a refinedet320, not a retinanet"):
        create_model("retinanet", weights=checkpoint())
