"""An exponential moving average of the weights: Polyak and Juditsky, "Acceleration of stochastic
approximation by averaging", 1992; with a decay that grows, as TensorFlow's has it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from eyeline.training.recipe import Ema


class AveragedModel:
    """A copy of a model, in eval mode, whose weights follow it: after step t
    average = d average + (1 - d) weights, with d = min(decay, (1 + t) / (warmup + t)).

    Running statistics of norms are averaged too; numbers that are not fractions are copied.
    """

    def __init__(self, model: nn.Module, options: Ema) -> None:
        self.options, self.steps = options, 0
        self.model = deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """After a step of the optimizer."""
        self.steps += 1
        decay = min(self.options.decay, (1 + self.steps) / (self.options.warmup + self.steps))
        averages, weights = [], []
        new = model.state_dict()
        for name, average in self.model.state_dict().items():
            if average.is_floating_point():
                averages.append(average)
                weights.append(new[name])
            else:
                average.copy_(new[name])
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.model.load_state_dict(state["model"])
