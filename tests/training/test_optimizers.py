"""Which parameters get which learning rate and weight decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import ToyDetector

from eyeline.training.optimizers import build_optimizer, parameter_groups
from eyeline.training.recipe import Optimizer


def settings(model: nn.Module, **options) -> dict[str, tuple[float, float]]:
    """(lr, weight decay) of each parameter, by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, Optimizer(**options))
    found = [
        (names[id(p)], (group["lr"], group["weight_decay"]))
        for group in groups
        for p in group["params"]
    ]
    assert len(found) == len(dict(found)), "a parameter in two groups"
    return dict(found)


def test_norms_and_biases_go_without_decay():
    decays = {k: v[1] for k, v in settings(ToyDetector(), weight_decay=0.1).items()}
    assert decays == {
        "backbone.weight": 0.1,
        "backbone.bias": 0.0,
        "norm.weight": 0.0,
        "norm.bias": 0.0,
        "head.weight": 0.1,
        "head.bias": 0.0,
    }


@pytest.mark.parametrize(
    ("name", "option", "spared"),
    [
        ("adamw", None, True),
        ("sgd", None, False),
        ("adam", None, False),
        ("adamw", False, False),
        ("sgd", True, True),
    ],
)
def test_sparing_is_the_default_of_adamw_alone(name, option, spared):
    found = settings(ToyDetector(), name=name, weight_decay=0.1, no_decay_on_norms=option)
    assert (found["norm.weight"][1] == 0.0) is spared
    assert found["head.weight"][1] == 0.1


def test_backbone_learns_slower():
    found = settings(ToyDetector(), lr=1.0, backbone_lr_factor=0.1)
    assert {k: v[0] for k, v in found.items() if k.endswith("weight")} == {
        "backbone.weight": 0.1,
        "norm.weight": 1.0,
        "head.weight": 1.0,
    }


def test_frozen_parameters_are_left_out():
    model = ToyDetector()
    model.backbone.requires_grad_(False)
    assert set(settings(model)) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}


def test_the_kinds():
    model = ToyDetector()
    adamw = build_optimizer(model, Optimizer(momentum=0.8))
    assert type(adamw) is torch.optim.AdamW and adamw.defaults["betas"] == (0.8, 0.999)
    assert adamw.defaults["fused"]
    assert type(build_optimizer(model, Optimizer(name="adam"))) is torch.optim.Adam
    sgd = build_optimizer(model, Optimizer(name="sgd", momentum=0.7))
    assert type(sgd) is torch.optim.SGD and sgd.defaults["momentum"] == 0.7
    assert sgd.defaults["fused"]
