"""Learning-rate schedules: pure functions from the step, 0 .. total - 1, to a factor."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from eyeline.training.recipe import Schedule


def warmup(step: int, steps: int) -> float:
    """Rises linearly to 1, which it reaches at the last of `steps`."""
    return min(1.0, (step + 1) / max(steps, 1))


def cosine(step: int, total: int, start: int = 0, final: float = 0.0) -> float:
    """1 until `start`, then half a cosine down to `final` at the step after the last
    (Loshchilov and Hutter, "SGDR", ICLR 2017, eq. 5, without restarts)."""
    progress = min(1.0, max(0, step - start) / max(total - start, 1))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def stairs(step: int, milestones: Sequence[int], gamma: float) -> float:
    """`gamma` to the number of milestones, in steps, that have been reached."""
    return gamma ** sum(step >= milestone for milestone in milestones)


def onecycle(step: int, total: int, rise: int, start: float = 1 / 25, end: float = 4e-6) -> float:
    """Half a cosine from `start` up to 1 at step `rise`, another down to `end` at the last
    (Smith and Topin, "Super-Convergence", 2017, with cosines as in fast.ai; momentum stays)."""
    if step <= rise:
        low, progress = start, 1 - step / max(rise, 1)
    else:
        low, progress = end, (step - rise) / max(total - 1 - rise, 1)
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


class Rates(LambdaLR):
    """Goes on after a step that the optimizer did not take: such a step is skipped, not late."""

    def step(self) -> None:  # type: ignore[override]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            super().step()


def build_schedule(
    optimizer: Optimizer, options: Schedule, epochs: int, steps_per_epoch: int, done: int = 0
) -> Rates:
    """The schedule of a recipe; call its `step()` after each step of the optimizer.

    `done`: steps that lie behind it, of a run that is resumed.
    """
    factor = _factor(options, epochs, steps_per_epoch)
    return Rates(optimizer, lambda step: factor(done + step))


def _factor(options: Schedule, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    total = epochs * steps_per_epoch
    if options.name == "onecycle":
        rise = options.warmup_steps or round(0.3 * total) - 1
        return partial(onecycle, total=total, rise=rise)
    shape: Callable[[int], float]
    if options.name == "cosine":
        shape = partial(cosine, total=total, start=options.warmup_steps, final=options.final)
    elif options.name == "step":
        milestones = [round(epoch * steps_per_epoch) for epoch in options.milestones]
        shape = partial(stairs, milestones=milestones, gamma=options.gamma)
    else:
        shape = partial(stairs, milestones=(), gamma=1.0)
    return lambda step: warmup(step, options.warmup_steps) * shape(step)
