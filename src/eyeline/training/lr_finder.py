"""Which learning rate? The range test of Smith, "Cyclical Learning Rates for Training Neural
Networks", WACV 2017, arXiv:1506.01186, sec. 3.3, with a rate that grows exponentially."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import Dataset

from eyeline.data.loader import build_loader
from eyeline.errors import EyelineError
from eyeline.evaluation.charts import lines_svg
from eyeline.nn.detector import prepare_of
from eyeline.training.checks import NotFinite
from eyeline.training.recipe import Recipe
from eyeline.training.recompute import recomputing
from eyeline.training.step import groups, loss_scaler, seed_generators, start_trial, train_step

SMOOTHING = 0.9  # of the loss: an exponential average, corrected for its start
DIVERGED = 4.0  # times the lowest loss: the test ends
FALLEN = 0.98  # of the first losses: above it, nothing was learnt at any rate
NOISE = 3.0  # standard deviations of their smoothed value: less is no fall either


@dataclass(frozen=True)
class LrCurve:
    """The loss at growing rates."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    diverged: bool  # the test ended for that, not at its last rate

    @property
    def lowest(self) -> float:
        """The rate at which the smoothed loss was lowest, past the first tenth of the rates."""
        return self.rates[self._lowest()]

    def _lowest(self) -> int:
        first = len(self.smoothed) // 10  # where it is an average of too few
        return first + int(np.argmin(self.smoothed[first:]))

    @property
    def suggestion(self) -> float | None:
        """A tenth of `lowest`, in two digits; None if the loss did not fall clearly."""
        early = self.losses[: max(len(self.losses) // 5, 1)]
        start = float(np.mean(early))
        noise = float(np.std(early)) * math.sqrt((1 - SMOOTHING) / (1 + SMOOTHING))
        if self.smoothed[self._lowest()] > min(FALLEN * start, start - NOISE * noise):
            return None
        return float(f"{self.lowest / 10:.1e}")

    def to_csv(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("lr", "loss", "smoothed"))
            writer.writerows(zip(self.rates, self.losses, self.smoothed, strict=True))

    def to_svg(self) -> str:
        """The curve; the y axis leaves out where the loss has run away."""
        lines = {
            "loss": list(zip(self.rates, self.losses, strict=True)),
            "smoothed loss": list(zip(self.rates, self.smoothed, strict=True)),
        }
        marks = [(self.lowest, f"lowest {self.lowest:.1e}")]
        if self.suggestion is not None:
            marks.insert(0, (self.suggestion, f"suggested {self.suggestion:g}"))
        low = min(*self.losses, *self.smoothed)
        high = max(self.smoothed[: self._lowest() + 1])
        return lines_svg(
            lines, "learning rate", "loss", merit=False, log_x=True, pale=("loss",), marks=marks,
            y_range=(low, high + 0.5 * (high - low)),
        )  # fmt: skip


def lr_find(
    model: nn.Module,
    dataset: Dataset[Any],
    recipe: Recipe | None = None,
    *,
    start: float = 1e-6,
    end: float = 1.0,
    steps: int = 100,
    advance: Callable[[], object] = lambda: None,
    **fields: Any,
) -> LrCurve:
    """Train a copy of the model for some steps at rates from `start` to `end`, each a constant
    factor above the last; the model itself stays as it is.

    Args:
        recipe: optimizer, batch size, precision and the like are those of the training to come;
            its schedule plays no part.
        advance: called after each step.
        fields: of the recipe, over `recipe`.

    It ends early once the smoothed loss is 4 times its lowest, or no number.

    Raises:
        EyelineError: model, data and recipe disagree; a range that is none; a loss that is not
            finite at the first rates.
    """
    if not 0 < start < end or steps < 10:
        raise EyelineError("the rates go from start > 0 up to end, in at least 10 steps")
    trial, optimizer, recipe, device = start_trial(model, dataset, recipe, fields)
    relative = [group["lr"] / recipe.optimizer.lr for group in optimizer.param_groups]
    scaler = loss_scaler(device, recipe.precision)
    endless = _endless(trial, dataset, recipe)
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average, diverged = 0.0, False
    with recomputing(trial, recipe.checkpoint_activations):
        for k, rate in enumerate(np.geomspace(start, end, steps).tolist()):
            for group, factor in zip(optimizer.param_groups, relative, strict=True):
                group["lr"] = rate * factor
            seed_generators(recipe.seed, k)
            where = f"learning rate {rate:.1e}"
            try:
                done = train_step(trial, next(endless), optimizer, scaler, recipe, device, where)
            except NotFinite:  # worth its words only where there is no curve yet
                if len(rates) < steps // 10:
                    raise
                break
            advance()
            loss = sum(done.losses.values())
            if not math.isfinite(loss):  # half precision overflowed, the step was skipped
                continue
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            rates.append(rate)
            losses.append(loss)
            smoothed.append(average / (1 - SMOOTHING ** len(rates)))
            if len(rates) > steps // 10 and smoothed[-1] > DIVERGED * min(smoothed):
                diverged = True
                break
    if len(rates) < 2:
        raise EyelineError("the loss is not finite at any rate; check the data, or the precision")
    diverged |= rates[-1] < rate  # the last ones gave no number
    return LrCurve(rates, losses, smoothed, diverged)


def _endless(model: nn.Module, dataset: Dataset[Any], recipe: Recipe) -> Iterator[list[Any]]:
    """The batches of each step, epoch after epoch."""
    workers = recipe.data.workers
    loader = build_loader(
        dataset, recipe.batch_size, prepare_of(model), True, workers, recipe.seed,
        sizes=recipe.data.sizes, sizes_every=recipe.data.sizes_every,
    )  # fmt: skip
    for epoch in count():
        loader.set_epoch(epoch)
        yield from groups(loader, recipe.accumulate)
