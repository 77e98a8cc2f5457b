"""What the decoders of segmenters share.

Letters   B pictures, C and C' channels, H and W of a map, h and w of a coarser one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.fused import fused
from eyeline.nn.layers import ConvNorm, make_norm


class DoubleConv(nn.Module):
    """Twice a 3x3 convolution, its norm ("none": none) and a ReLU: (B, inputs, H, W) -> (B,
    outputs, H, W); where `padding` is 0, all but two cells at every side."""

    def __init__(
        self, inputs: int, outputs: int, norm: str = "none", norm_epsilon: float = 1e-5,
        padding: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.first, self.second = (
            ConvNorm(before, outputs, 3, norm, padding=padding, norm_epsilon=norm_epsilon)
            for before in (inputs, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return fused(fused(x, self.first, relu=True), self.second, relu=True)


class Enlarging(nn.ConvTranspose2d):
    """A convolution to a map `stride` times as large, and the norm behind it ("none": a bias
    instead): (B, inputs, h, w) -> (B, outputs, stride h, stride w); `kernel` is 3 or 4."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, norm: str = "none",
        norm_epsilon: float = 1e-5, stride: int = 2,
    ) -> None:  # fmt: skip
        if stride == 1:
            kernel = 3  # of 4 there is no middle
        super().__init__(
            inputs, outputs, kernel, stride, padding=1, output_padding=stride - 1 - (kernel - 3),
            bias=norm == "none",
        )  # fmt: skip
        self.norm = None if norm == "none" else make_norm(norm, outputs, norm_epsilon)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        x = super().forward(x, output_size)
        return x if self.norm is None else self.norm(x)


def fitting(
    options: Mapping[str, Any], config: Any, conventions: Mapping[str, Mapping[str, Any]],
    alone: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Options of a U-Net, with the norms that a backbone has by default.

    Raises EyelineError for one that has no effect and differs from its default in `config`: of
    `alone`, which are the paper's own way down, with a backbone; of the decoder, without one.
    """
    chosen = {**conventions.get(options.get("convention", "paper"), {}), **options}
    backbone = chosen.get("backbone")
    for key in ("decoder_widths", "decoder_norm") if backbone is None else alone:
        if key in options and options[key] != getattr(config, key):
            told = "without a backbone" if backbone is None else f"with backbone={backbone}"
            raise EyelineError(f"{key}={options[key]!r} has no effect {told}; leave it out")
    return dict(options) if backbone is None else {"norm": "batch", **options}


def fitted(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) cut at the right and below, or its last column and row repeated: a coarse map
    begins where the fine one begins, and where halves were rounded they end apart."""
    height, width = int(size[0]), int(size[1])
    x = x[..., :height, :width]
    below, right = height - x.shape[2], width - x.shape[3]
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x


def he(module: nn.Module) -> None:
    """The convolutions below `module`, and those that enlarge, as He et al. start them, "Delving
    Deep into Rectifiers", ICCV 2015, eq. 10: normal, of variance 2 / N, N the numbers that one of
    the results is made of; biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            numbers = float(part.weight[0].numel())
        elif isinstance(part, nn.ConvTranspose2d):
            numbers = part.weight[:, 0].numel() / (part.stride[0] * part.stride[1])
        else:
            continue
        nn.init.normal_(part.weight, std=(2 / numbers) ** 0.5)
        if part.bias is not None:
            nn.init.zeros_(part.bias)
