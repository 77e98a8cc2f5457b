"""The head of a fully convolutional network, also as the auxiliary one of others."""

from __future__ import annotations

from torch import Tensor, nn

from eyeline.nn.fused import fused
from eyeline.nn.layers import ConvNorm


class ScoreHead(nn.Module):
    """A 3x3 convolution with its norm and ReLU, drop-out, a 1x1 to the classes:
    (B, inputs, H, W) -> (B, classes, H, W).

    Args:
        drop: share of what is dropped in training: of single values, or of whole channels where
            `spatial` is set.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        classes: int,
        norm: str = "batch",
        norm_epsilon: float = 1e-5,
        drop: float = 0.1,
        spatial: bool = False,
    ) -> None:
        super().__init__()
        self.hidden = ConvNorm(inputs, width, 3, norm, norm_epsilon=norm_epsilon)
        self.drop = nn.Dropout2d(drop) if spatial else nn.Dropout(drop)
        self.score = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return fused(self.drop(fused(x, self.hidden, relu=True)), self.score)
