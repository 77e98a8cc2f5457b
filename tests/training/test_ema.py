"""Averaged weights: by hand, as what a run evaluates and keeps, over an interruption."""

from __future__ import annotations

import signal

import pytest
import torch
import toys
from safetensors.torch import load_file
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.training import load_recipe, train
from eyeline.training.ema import AveragedModel
from eyeline.training.recipe import Ema
from eyeline.training.states import STATE

QUICK = {**toys.QUICK, "ema": {"decay": 0.9, "warmup": 4}}


def test_by_hand():
    model = ToyDetector()
    model.register_buffer("count", torch.tensor(0))
    ema = AveragedModel(model, Ema(decay=0.5, warmup=4))
    weight, mean = ema.model.head.weight.clone(), ema.model.norm.running_mean.clone()
    for step in range(1, 6):
        with torch.no_grad():
            model.head.weight.normal_()
            model.norm.running_mean.normal_()
            model.count += 3
        ema.update(model)
        decay = min(0.5, (1 + step) / (4 + step))
        weight = decay * weight + (1 - decay) * model.head.weight
        mean = decay * mean + (1 - decay) * model.norm.running_mean
    torch.testing.assert_close(ema.model.head.weight.detach(), weight.detach())
    torch.testing.assert_close(ema.model.norm.running_mean, mean)
    assert ema.model.count == 15
    assert torch.equal(ema.model.backbone.weight, model.backbone.weight)  # did not move
    assert not ema.model.training and model.training
    assert not any(p.requires_grad for p in ema.model.parameters())


def test_first_average_follows_the_weights_closely():
    """warmup: after the first step 2 / (1 + warmup) of the old weights are left; 1: the decay."""
    for warmup, left in ((10.0, 2 / 11), (1.0, 0.999)):
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(model.weight)
        ema = AveragedModel(model, Ema(decay=0.999, warmup=warmup))
        torch.nn.init.zeros_(model.weight)
        ema.update(model)
        assert ema.model.weight.item() == pytest.approx(left)


def test_a_run_evaluates_and_keeps_the_average(tmp_path):
    seen = []

    def measure(model):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"score": float(len(seen))}

    model = ToyDetector()
    train(
        model, ToyData(), ToyData(4), out=str(tmp_path / "r"), measure=measure,
        eval={"metric": "score"}, **QUICK,
    )  # fmt: skip
    state = torch.load(tmp_path / "r" / STATE, weights_only=True)
    assert state["ema"]["steps"] == 8
    for name in ("best", "last"):
        kept = load_file(tmp_path / "r" / f"{name}.safetensors")
        for key, value in state["ema"]["model"].items():
            assert torch.equal(kept[key], value) and torch.equal(seen[-1][key], value), key
    assert torch.equal(state["model"]["head.weight"], model.head.weight)
    assert not torch.equal(model.head.weight, kept["head.weight"])


def test_resumed_equals_uninterrupted(tmp_path):
    class Stops(ToyDetector):
        calls = 0

        def forward(self, images, targets=None):
            Stops.calls += self.training
            if Stops.calls == 6 and self.training:
                signal.raise_signal(signal.SIGINT)
            return super().forward(images, targets)

    torch.manual_seed(0)
    train(ToyDetector(), ToyData(), out=str(tmp_path / "a"), **QUICK)
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        train(Stops(), ToyData(), out=str(tmp_path / "b"), **QUICK)
    train(ToyDetector(), ToyData(), out=str(tmp_path / "b"), resume=True, **QUICK)
    a, b = (load_file(tmp_path / run / "last.safetensors") for run in "ab")
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    with pytest.raises(EyelineError, match=r"ema\.decay was 0\.9 and is now 0\.8"):
        train(
            ToyDetector(), ToyData(), out=str(tmp_path / "b"), resume=True,
            **{**QUICK, "epochs": 3, "ema": {"decay": 0.8, "warmup": 4}},
        )  # fmt: skip


def test_a_number_is_the_decay():
    assert load_recipe({"ema": 0.99}).ema == Ema(decay=0.99, warmup=10.0)
    assert load_recipe({}, ["ema.warmup=5"]).ema == Ema(decay=0.9998, warmup=5)
    assert load_recipe({}).ema is None
    for wrong in ("1.5", "true", "[1]", "{decey: 1}"):
        with pytest.raises(EyelineError, match=r"command line: (unknown key )?ema"):
            load_recipe({}, [f"ema={wrong}"])
