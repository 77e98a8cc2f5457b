"""The range test of learning rates."""

from __future__ import annotations

import csv
import math
from itertools import pairwise

import pytest
import torch
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.training import lr_find
from eyeline.training.lr_finder import LrCurve

QUICK = {"batch_size": 4, "data": {"workers": 0}, "optimizer": {"name": "sgd", "momentum": 0.0}}


def toy(kind: type[ToyDetector] = ToyDetector) -> ToyDetector:
    torch.manual_seed(0)
    return kind(dropout=0.0)


def find(model=None, **fields) -> LrCurve:
    return lr_find(model or toy(), ToyData(), **{**QUICK, **fields})


class Slope(ToyDetector):
    """The loss is (w - 3)^2 of one weight: below a rate of 1 it falls, above it runs away."""

    def forward(self, images, targets=None):
        return {
            "loss": (self.head.bias[0] - 3.0).square()
            + 0.0 * super().forward(images, targets)["box"]
        }


def test_a_parabola_runs_away_at_the_rate_it_must():
    curve = find(toy(Slope), start=1e-3, end=100.0, steps=60)
    assert curve.diverged and len(curve.rates) < 60
    assert curve.rates[-1] > 1.0  # |1 - 2 lr| > 1
    assert curve.suggestion == pytest.approx(curve.lowest / 10, rel=0.05)
    assert 0.05 < curve.suggestion < 1.0  # there it converges, and fast


def test_rates_grow_by_one_factor_and_the_smoothing_is_unbiased():
    curve = find(start=1e-6, end=1e-2, steps=20)
    assert len(curve.rates) == 20 and not curve.diverged
    assert curve.rates[0] == pytest.approx(1e-6) and curve.rates[-1] == pytest.approx(1e-2)
    factors = [b / a for a, b in pairwise(curve.rates)]
    assert factors == pytest.approx([10 ** (4 / 19)] * 19)
    assert curve.smoothed[0] == pytest.approx(curve.losses[0])
    second = (0.9 * 0.1 * curve.losses[0] + 0.1 * curve.losses[1]) / (1 - 0.81)
    assert curve.smoothed[1] == pytest.approx(second)


def test_model_and_the_backbones_share_of_the_rate():
    model = toy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    rates = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            rates.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    original, torch.optim.SGD = torch.optim.SGD, Watched
    try:
        find(model, optimizer={"name": "sgd", "backbone_lr_factor": 0.1}, freeze=["norm"], steps=10)
    finally:
        torch.optim.SGD = original
    assert len(rates) == 10
    assert all(pair == pytest.approx([0.1 * pair[1], pair[1]]) for pair in rates)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not model.training and all(
        p.requires_grad and p.grad is None for p in model.parameters()
    )


def test_interrupted_it_leaves_the_model_as_it_was():
    model = toy()
    before = model.head.weight.clone()

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lr_find(model, ToyData(), steps=10, advance=stop, **QUICK)
    assert torch.equal(model.head.weight, before) and model.training


def test_no_suggestion_where_nothing_is_learnt():
    rates = [10.0**k for k in range(-6, -1)]
    flat = LrCurve(rates, [1.0] * 5, [1.0, 1.0, 0.99, 1.0, 1.1], False)
    assert flat.suggestion is None and "suggested" not in flat.to_svg()
    fell = LrCurve(rates, [1.0] * 5, [1.0, 0.9, 0.5, 0.6, 3.0], True)
    assert (fell.lowest, fell.suggestion) == (1e-4, 1e-5)
    svg = fell.to_svg()
    assert svg.startswith("<svg") and "suggested 1e-05" in svg and svg.count('class="curve"') == 2


def test_noise_is_no_fall():
    rates = torch.logspace(-6, 0, 100).tolist()
    fall = [1.0] * 60 + [0.4] * 20 + [2.0] * 20
    found = []
    for seed in range(20):
        noise = torch.randn(100, generator=torch.Generator().manual_seed(seed)) * 0.3
        for course in ([1.0] * 80 + [5.0] * 20, fall):
            losses = (torch.tensor(course) + noise).tolist()
            average, smoothed = 0.0, []
            for i, loss in enumerate(losses):
                average = 0.9 * average + 0.1 * loss
                smoothed.append(average / (1 - 0.9 ** (i + 1)))
            found.append(LrCurve(rates, losses, smoothed, True).suggestion)
    assert sum(value is not None for value in found[::2]) <= 2  # by chance
    assert sum(value is not None for value in found[1::2]) >= 18


def test_csv(tmp_path):
    curve = LrCurve([1e-3, 1e-2], [2.0, 1.0], [2.0, 1.5], False)
    curve.to_csv(tmp_path / "lr.csv")
    rows = list(csv.reader((tmp_path / "lr.csv").open()))
    assert rows == [["lr", "loss", "smoothed"], ["0.001", "2.0", "2.0"], ["0.01", "1.0", "1.5"]]


def test_loss_that_is_no_number():
    class Breaks(ToyDetector):
        calls = 0

        def forward(self, images, targets=None):
            Breaks.calls += 1
            factor = math.nan if Breaks.calls >= first else 1.0
            return {k: v * factor for k, v in super().forward(images, targets).items()}

    first = 8
    curve = find(toy(Breaks), steps=20)
    assert curve.diverged and len(curve.rates) == 7
    first, Breaks.calls = 1, 0
    with pytest.raises(EyelineError, match=r"learning rate 1\.0e-06: box is nan"):
        find(toy(Breaks), steps=20)


def test_in_half_precision_running_away_is_overflow():
    """Steps whose losses are no number are skipped there, and do not end the test."""

    class Breaks(ToyDetector):
        calls = 0

        def forward(self, images, targets=None):
            Breaks.calls += 1
            factor = math.inf if Breaks.calls >= 8 else 1.0
            return {k: v * factor for k, v in super().forward(images, targets).items()}

    curve = find(toy(Breaks), steps=20, precision="fp16")
    assert Breaks.calls == 20 and len(curve.rates) == 7
    assert curve.diverged


def test_errors_of_the_model_are_not_taken_for_running_away():
    class Breaks(ToyDetector):
        calls = 0

        def forward(self, images, targets=None):
            Breaks.calls += 1
            if Breaks.calls == 8:
                raise EyelineError("picture 3: a box has no area")
            return super().forward(images, targets)

    with pytest.raises(EyelineError, match="a box has no area"):
        find(toy(Breaks), steps=20)


@pytest.mark.parametrize("wrong", [{"start": 0.0}, {"start": 1.0, "end": 0.1}, {"steps": 3}])
def test_ranges_that_are_none(wrong):
    with pytest.raises(EyelineError, match="the rates go from start > 0 up to end"):
        find(**wrong)
