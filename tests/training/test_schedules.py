"""Schedules as functions of the step, against torch's own and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim import lr_scheduler

from eyeline.training.recipe import Schedule
from eyeline.training.schedules import build_schedule, cosine, stairs, warmup


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def rates(schedule, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return found


def ours(epochs: int = 10, steps_per_epoch: int = 4, **options) -> list[float]:
    schedule = build_schedule(sgd(), Schedule(**options), epochs, steps_per_epoch)
    return rates(schedule, epochs * steps_per_epoch)


def test_constant():
    assert ours(name="constant") == [1.0] * 40


def test_cosine_is_torchs():
    assert ours(name="cosine") == pytest.approx(
        rates(lr_scheduler.CosineAnnealingLR(sgd(), T_max=40), 40), abs=1e-9
    )
    assert ours(name="cosine", final=0.2) == pytest.approx(
        rates(lr_scheduler.CosineAnnealingLR(sgd(), T_max=40, eta_min=0.2), 40), abs=1e-9
    )


@pytest.mark.parametrize("warmup_steps", [0, 5])
def test_onecycle_is_torchs(warmup_steps):
    share = (warmup_steps + 1) / 40 if warmup_steps else 0.3
    expected = lr_scheduler.OneCycleLR(sgd(), max_lr=1.0, total_steps=40, pct_start=share)
    found = ours(name="onecycle", warmup_steps=warmup_steps)
    assert found == pytest.approx([*rates(expected, 39), found[-1]], abs=1e-9)
    assert found[-1] == pytest.approx(4e-6)


def test_onecycle_of_few_steps_stays_within_bounds():
    for epochs in (1, 2, 3, 4):
        assert all(0 < rate <= 1 for rate in ours(epochs, 1, name="onecycle"))


def test_step_falls_at_epochs():
    found = ours(name="step", milestones=[2, 5.5], gamma=0.1)
    assert found == pytest.approx([1.0] * 8 + [0.1] * 14 + [0.01] * 18)


def test_warmup_is_linear_and_meets_the_schedule():
    assert ours(name="constant", warmup_steps=4)[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    found = ours(name="cosine", warmup_steps=10)
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert found[10] == 1.0 and found[10:] == sorted(found[10:], reverse=True)
    assert found[25] == pytest.approx(0.5)


def test_by_hand():
    assert warmup(0, 0) == 1.0
    assert cosine(40, 40, final=0.3) == pytest.approx(0.3)
    assert cosine(100, 40) == pytest.approx(0.0)
    assert cosine(10, 40) == pytest.approx(0.5 + math.sqrt(0.5) / 2)
    assert [stairs(step, [2, 2, 4], 0.5) for step in range(6)] == [1, 1, 0.25, 0.25, 0.125, 0.125]
