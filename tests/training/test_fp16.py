"""Half precision: scaled losses, steps that overflow, and where it ends."""

from __future__ import annotations

import json
import math
import signal

import pytest
import torch
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.training import train
from eyeline.training.states import STATE
from eyeline.training.step import backward, clip_gradients, loss_scaler, take_step

CPU = torch.device("cpu")
QUICK = {
    "batch_size": 3,
    "epochs": 2,
    "optimizer": {"lr": 1e-2},
    "data": {"workers": 0},
    "log": {"tensorboard": False, "every": 1},
    "precision": "fp16",
}


class Overflows(ToyDetector):
    """Multiplies its loss, a small one, at some training steps, counted from 1."""

    def __init__(self, factors: dict[int, float]) -> None:
        super().__init__(dropout=0.0)
        self.factors, self.calls = factors, 0

    def forward(self, images, targets=None):
        losses = super().forward(images, targets)
        self.calls += self.training
        factor = self.factors.get(self.calls, 1.0) if self.training else 1.0
        return {name: value * factor * 1e-3 for name, value in losses.items()}


def overflowing(factors: dict[int, float]) -> Overflows:
    torch.manual_seed(0)
    return Overflows(factors)


def steps(folder) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "step"]


def test_gradients_are_those_of_float32():
    data = [ToyData(6)[i] for i in range(6)]
    batch = [([image for image, _ in data], [target for _, target in data])]
    found = {}
    for precision in ("float32", "fp16"):
        torch.manual_seed(0)
        model = ToyDetector(dropout=0.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)
        scaler = loss_scaler(CPU, precision)
        backward(model, batch, [1.0], CPU, precision, scaler)
        if precision == "fp16":
            assert model.head.weight.grad.abs().max() > 100  # scaled
        scaler.unscale_(optimizer)
        norm = clip_gradients(model, 0.01)
        found[precision] = [norm.item(), model.head.weight.grad.clone()]
        assert model.head.weight.grad.norm() <= 0.0101
        assert take_step(optimizer, scaler)
    assert found["fp16"][0] == pytest.approx(found["float32"][0], rel=0.02)
    torch.testing.assert_close(found["fp16"][1], found["float32"][1], rtol=0.1, atol=1e-4)


@pytest.mark.parametrize("factor", [1e38, math.inf, math.nan])
def test_overflow_skips_the_step(tmp_path, capsys, factor):
    weights = {}

    class Watched(Overflows):
        def forward(self, images, targets=None):
            weights.setdefault(self.calls, self.head.weight.detach().clone())
            return super().forward(images, targets)

    torch.manual_seed(0)
    train(Watched({3: factor}), ToyData(), out=str(tmp_path / "r"), **QUICK)
    assert torch.equal(weights[2], weights[3])  # before the third step and after it
    assert not torch.equal(weights[1], weights[2]) and not torch.equal(weights[3], weights[4])
    lines = steps(tmp_path / "r")
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1, 1, 1, 1, 1]
    scales = [line["loss_scale"] for line in lines]
    assert scales == [65536.0] * 2 + [32768.0] * 6
    assert "1 steps skipped (overflow)" in capsys.readouterr().out
    epochs = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["losses"]["loss"] for line in epochs if '"epoch", "step"' in line]
    assert len(losses) == 2 and all(value is not None for value in losses)


@pytest.mark.parametrize("precision", ["fp16", "float32"])
def test_a_loss_that_is_not_finite_spoils_every_gradient(precision):
    """Though its own gradient may be finite; so all processes skip the step."""

    class Plus(ToyDetector):
        def forward(self, images, targets=None):
            return {k: v + math.inf for k, v in super().forward(images, targets).items()}

    model = Plus(dropout=0.0)
    scaler = loss_scaler(CPU, precision)
    data = [ToyData(6)[i] for i in range(6)]
    batch = [([image for image, _ in data], [target for _, target in data])]
    names, [values] = backward(model, batch, [1.0], CPU, precision, scaler)
    assert dict(zip(names, values, strict=True))["box"] == math.inf
    assert all(p.grad.isnan().all() for p in model.parameters())


def test_norm_and_clipping_are_of_the_true_gradients(tmp_path):
    norms = []
    for precision in ("float32", "fp16"):
        fields = {**QUICK, "precision": precision, "clip_norm": 1e-4}
        train(overflowing({}), ToyData(), out=str(tmp_path / precision), **fields)
        norms.append(steps(tmp_path / precision)[0]["gradient_norm"])
    assert norms[1] == pytest.approx(norms[0], rel=0.05)


def test_gradients_that_never_recover_end_the_run(tmp_path):
    with pytest.raises(EyelineError, match=r"not finite for 30 steps in a row.*precision=bf16"):
        train(
            overflowing(dict.fromkeys(range(1, 99), math.nan)), ToyData(), out=str(tmp_path / "r"),
            **{**QUICK, "epochs": 10},
        )  # fmt: skip


def test_statistics_that_overflowed_end_the_run(tmp_path):
    class Poisoned(Overflows):
        def forward(self, images, targets=None):
            if self.calls == 2:
                self.norm.running_mean.fill_(math.inf)
            return super().forward(images, targets)

    with pytest.raises(EyelineError, match=r"epoch 1, step 3: .* norm.running_mean with it"):
        train(Poisoned({3: math.inf}), ToyData(), out=str(tmp_path / "r"), **QUICK)


def test_other_precisions_still_end_at_once(tmp_path):
    for precision in ("float32", "bf16"):
        with pytest.raises(EyelineError, match="epoch 1, step 2: box is nan"):
            train(
                overflowing({2: math.nan}), ToyData(), out=str(tmp_path / precision),
                **{**QUICK, "precision": precision},
            )  # fmt: skip


def test_resumed_equals_uninterrupted(tmp_path, capsys):
    class Stops(Overflows):
        def forward(self, images, targets=None):
            if self.calls == 4 and self.training:
                signal.raise_signal(signal.SIGINT)
            return super().forward(images, targets)

    torch.manual_seed(0)
    straight = Overflows({2: math.inf})
    train(straight, ToyData(), out=str(tmp_path / "a"), **QUICK)
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        train(Stops({2: math.inf}), ToyData(), out=str(tmp_path / "b"), **QUICK)
    resumed = overflowing({})
    train(resumed, ToyData(), out=str(tmp_path / "b"), resume=True, **QUICK)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    a, b = (torch.load(tmp_path / run / STATE, weights_only=True) for run in "ab")
    assert a["scaler"] == b["scaler"] and a["scaler"]["scale"] == 32768.0
    assert a["position"]["skipped"] == b["position"]["skipped"] == 1
    for epochs, precision in ((3, "float32"), (4, "fp16")):  # and back: a new scale
        train(
            resumed, ToyData(), out=str(tmp_path / "b"), resume=True,
            **{**QUICK, "epochs": epochs, "precision": precision},
        )  # fmt: skip
    out = capsys.readouterr().out
    assert "changed: precision fp16 -> float32: the course differs by rounding" in out
    assert "changed: precision float32 -> fp16" in out
    assert steps(tmp_path / "b")[-1]["loss_scale"] == 65536.0


def test_a_device_without_it_is_told(monkeypatch):
    def refuse(*args):
        raise RuntimeError("\"slow_conv2d\" not implemented for 'Half'\nmore")

    monkeypatch.setattr("eyeline.training.step.F.conv2d", refuse)
    with pytest.raises(EyelineError, match=r"fp16 does not work on cpu \(.*'Half'\); take bf16"):
        loss_scaler(CPU, "fp16")
    assert not loss_scaler(CPU, "float32").is_enabled()
