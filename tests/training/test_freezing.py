"""Frozen parts: parameters that do not learn, norms that keep their statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.registry import create_model
from eyeline.training import freeze, load_run, train

QUICK = {"batch_size": 3, "epochs": 1, "data": {"workers": 0}, "log": {"tensorboard": False}}


def test_frozen_parts_stay_and_the_rest_learns(tmp_path, capsys):
    model = ToyDetector(dropout=0.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, ToyData(), freeze=["backbone", "norm"], out=str(tmp_path / "r"), **QUICK)
    changed = {name for name, value in model.state_dict().items()
               if not torch.equal(value, before[name])}  # fmt: skip
    assert changed == {"head.weight", "head.bias"}
    assert "frozen: 48 of 93 parameters" in capsys.readouterr().out
    assert load_run(tmp_path / "r")[0].freeze == ["backbone", "norm"]


def test_without_freezing_norms_do_change(tmp_path):
    model = ToyDetector(dropout=0.0)
    before = model.norm.running_mean.clone()
    train(model, ToyData(), out=str(tmp_path / "r"), **QUICK)
    assert not torch.equal(model.norm.running_mean, before)


def test_norms_of_a_frozen_stage_stay_in_eval_mode():
    model = create_model(
        "retinanet", num_classes=2, backbone="resnet18", norm="batch", fpn_channels=8,
        tower_depth=1, size=64,
    )  # fmt: skip
    total = sum(p.numel() for p in model.parameters())
    frozen = freeze(model, ["backbone.conv1", "backbone.bn1", "backbone.layer1"])
    assert frozen == sum(
        p.numel() for name, p in model.named_parameters()
        if name.startswith(("backbone.conv1.", "backbone.bn1.", "backbone.layer1."))
    )  # fmt: skip
    assert 0 < frozen < total
    for mode in (True, False, True):
        model.train(mode)
        norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
        still = {n for n, m in norms.items() if not m.training}
        assert len(norms) == 20
        stem = {n for n in norms if n.startswith(("backbone.bn1", "backbone.layer1."))}
        assert still == (stem if mode else set(norms))
        assert model.backbone.layer1[0].training is mode  # dropout and the like go on
    assert not model.backbone.layer1[0].conv1.weight.requires_grad
    assert model.backbone.layer2[0].conv1.weight.requires_grad


def test_norm_frozen_by_its_parameters_names():
    model = ToyDetector()
    freeze(model, ["norm.weight"])
    assert model.train().norm.training  # its bias still learns
    freeze(model, ["norm.weight", "norm.bias"])
    assert not model.train().norm.training and model.dropout.training


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["bakbone"], "freeze: the model has no part 'bakbone'; did you mean backbone?"),
        (["backbone.wieght"], "did you mean backbone.weight?"),
        (["back"], "freeze: the model has no part 'back'"),
        (["xyz"], "there are: backbone, norm, head, dropout"),
        (["backbone", "norm", "head"], "freeze: backbone, norm, head leaves nothing to train"),
    ],
)
def test_mistakes(tmp_path, parts, expected):
    with pytest.raises(EyelineError) as caught:
        train(ToyDetector(), ToyData(), freeze=parts, out=str(tmp_path / "r"), **QUICK)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists()
