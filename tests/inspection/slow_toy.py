"""A detector of which every stage's time and work is known."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eyeline.nn.detector import Detector, Preprocess
from eyeline.ops.boxes import clip
from eyeline.structures import Batch, Padded


@dataclass(frozen=True)
class Config:
    score_threshold: float = 0.5


class SlowGradient(torch.autograd.Function):
    """Hands everything on; its backward pass takes its time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seconds: float) -> Tensor:
        ctx.seconds = seconds
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        time.sleep(ctx.seconds)
        return grad, None


class Slow(nn.Module):
    """A 1x1 convolution that sleeps, forward and backward."""

    def __init__(self, forward: float = 0.0, backward: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.seconds, self.backward_seconds = forward, backward

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return SlowGradient.apply(self.conv(x), self.backward_seconds)  # type: ignore[no-any-return]

    def decide(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return clip(x, x.new_tensor([8, 8]))


class Toy(Detector):
    def __init__(self, between: float = 0.0, **seconds: float) -> None:
        super().__init__()
        self.config, self.classes = Config(), ["a", "b"]
        self.preprocess = Preprocess(2, 32, 32, [0.0] * 3, [1.0] * 3)
        self.backbone = Slow(**seconds)
        self.head = Slow(0.01, 0.02)
        self.between = between

    def features(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images) * 2)  # type: ignore[no-any-return]

    def compute(self, batch: Batch) -> Padded:
        maps = self.features(batch.images)
        boxes = self.backbone.decide(maps.flatten(1)[:, :4, None].repeat(1, 1, 4))
        time.sleep(self.between)
        scores = torch.linspace(0.4, 0.1, 4).expand(len(boxes), 4)
        valid = scores > self.config.score_threshold
        return Padded(boxes, scores, torch.zeros_like(scores).long(), valid)

    def losses(self, batch: Batch, targets: list[Any]) -> dict[str, Tensor]:
        return {"loss": self.features(batch.images).square().mean()}

    def forward(self, images: Any, targets: Any = None) -> Any:
        batch = self.prepare(images, targets)
        if batch.targets is None:
            return self.finish(self.compute(batch), batch)
        return self.losses(batch, batch.targets)
