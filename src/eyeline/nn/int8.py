"""Layers in 8 bits, for inference on a CPU through oneDNN.

A real number r is stored as the whole number q in 0 .. 255 with r = scale (q - zero_point):
Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018, arXiv:1712.05877, eq. 1. A tensor has one scale, of weights (-127 .. 127,
no zero point) each output channel has its own; products are summed in 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn.fused import PackedLayer, after
from eyeline.nn.resizing import beside


class Grid(NamedTuple):
    """The 256 real numbers that a tensor's values are rounded to."""

    scale: float
    zero_point: int

    @classmethod
    def spanning(cls, low: float, high: float) -> Grid:
        """From `low` to `high`, and 0 exactly: a padded border is 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255 or 1.0
        return cls(scale, round(-low / scale))


class Quantized(NamedTuple):
    """A tensor in 8 bits. It passes between layers of this file, and no other operator sees it."""

    values: Tensor  # uint8, channels last where it is a picture
    grid: Grid

    @classmethod
    def of(cls, x: Tensor, grid: Grid) -> Quantized:
        if grid.zero_point:
            zero = torch.full((), grid.zero_point, dtype=x.dtype, device=x.device)
            steps = torch.add(zero, x, alpha=1 / grid.scale)
        else:
            steps = x * (1 / grid.scale)
        return cls(steps.round_().clamp_(0, 255).to(torch.uint8), grid)

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    def max_pool(self, kernel: int, stride: int, padding: int, ceil_mode: bool) -> Quantized:
        """`F.max_pool2d`, which does not know 8 bits: the larger number is the larger step."""
        cells = self.values.permute(0, 2, 3, 1)
        for axis in (1, 2):
            size = cells.shape[axis] + 2 * padding - kernel
            count = (-(-size // stride) if ceil_mode else size // stride) + 1
            if ceil_mode and (count - 1) * stride >= cells.shape[axis] + padding:
                count -= 1  # a window of border alone
            after = max(0, (count - 1) * stride + kernel - padding - cells.shape[axis])
            if padding or after:  # 0 is the least
                cells = F.pad(cells, [0, 0] * (3 - axis) + [padding, after])
            parts = [
                cells.narrow(axis, i, (count - 1) * stride + 1)[
                    (slice(None),) * axis + (slice(None, None, stride),)
                ]
                for i in range(kernel)
            ]
            cells = reduce(torch.maximum, parts)
        return Quantized(cells.permute(0, 3, 1, 2), self.grid)

    @staticmethod
    def beside(
        x: Tensor | Quantized, others: Sequence[Tensor | Quantized], size: Sequence[int]
    ) -> Quantized | Joined:
        if isinstance(x, Quantized) and not others:
            return Quantized(beside(x.values, [], size), x.grid)
        return Joined((x, *others), (int(size[0]), int(size[1])))

    def real(self, dtype: torch.dtype) -> Tensor:
        return (self.values.to(dtype) - self.grid.zero_point) * self.grid.scale


class Joined(NamedTuple):
    """What `fused.beside` is given, if a part at least has 8 bits: each of these has a grid of its
    own, and the layer that reads them has their scales in its weights."""

    parts: tuple[Tensor | Quantized, ...]
    size: tuple[int, int]

    def on_grid(self, grid: Grid) -> Quantized:
        """Real numbers on a grid, the others as they are."""
        x, *others = (
            p.values if isinstance(p, Quantized) else Quantized.of(p, grid).values
            for p in self.parts
        )
        return Quantized(beside(x, others, self.size), grid)


class Int8Layer(PackedLayer):
    """A layer whose inputs and weights have 8 bits.

    Args:
        layer: what it stands for.
        reads: the grid of its inputs.
        writes: the grid of its results, where all their readers are such layers; None: results
            are real numbers of `dtype`.
        scales: of each input channel, where they differ: what its numbers count, in steps of
            `reads`.
    """

    scale: Tensor  # of each output's weights

    def __init__(
        self, layer: nn.Conv2d | nn.Linear, reads: Grid, writes: Grid | None, dtype: torch.dtype,
        scales: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.reads, self.writes, self.dtype = reads, writes, dtype
        weight = layer.weight.detach().float()
        if scales is not None:
            weight = weight * scales.view(-1, *[1] * (weight.ndim - 2))
        scale = weight.abs().flatten(1).amax(1).clamp(min=1e-12) / 127  # (outputs,)
        steps = (weight / scale.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int8)
        self.steps = nn.Parameter(steps, requires_grad=False)
        self.register_buffer("scale", scale)
        self.zero_point = torch.zeros(len(scale), dtype=torch.int32)
        bias = None if layer.bias is None else layer.bias.detach().float()
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def extra_repr(self) -> str:
        return f"reads={self.reads}, writes={self.writes}, {self.dtype}"

    def on_grid(self, x: Tensor | Quantized | Joined) -> Quantized:
        if isinstance(x, Joined):
            return x.on_grid(self.reads)
        if isinstance(x, Quantized) and x.grid.zero_point == self.reads.zero_point:
            return x
        # Packed weights are for one zero point.
        return Quantized.of(x.real(self.dtype) if isinstance(x, Quantized) else x, self.reads)


class Int8Conv2d(Int8Layer):
    def __init__(
        self, conv: nn.Conv2d, reads: Grid, writes: Grid | None, dtype: torch.dtype,
        scales: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__(conv, reads, writes, dtype, scales)
        self.shape = (conv.stride, conv.padding, conv.dilation, conv.groups)

    def pack(self, shape: list[int]) -> Tensor:
        packed: Tensor = torch.ops.onednn.qconv_prepack(
            self.steps, self.scale, *self.reads, *self.shape, shape
        )
        return packed

    def forward(
        self,
        x: Tensor | Quantized | Joined,
        add: Tensor | Quantized | None = None,
        relu: bool = False,
        slope: float = 0.0,
    ) -> Tensor | Quantized:
        leaky = relu and slope != 0  # which the operator has not: on its real results
        x, writes = self.on_grid(x), None if leaky else self.writes
        if isinstance(add, Quantized) and writes is None:
            add = add.real(self.dtype)
        if isinstance(add, Tensor):  # summed as real numbers: the operator wants one kind of both
            writes = None
        steps = (*(writes or Grid(1.0, 0)), self.dtype if writes is None else torch.uint8)
        layer = (x.values, *x.grid, self.packed_for(x.values), self.scale, self.zero_point)
        then = ("relu" if relu and not leaky else "none", [], "")
        if add is None:
            out = torch.ops.onednn.qconv2d_pointwise(*layer, self.bias, *self.shape, *steps, *then)
        else:
            other, grid = add if isinstance(add, Quantized) else (add.to(self.dtype), (1.0, 0))
            other = other.clone()  # the operator writes over it
            out = torch.ops.onednn.qconv2d_pointwise.binary(
                *layer, other, self.bias, *self.shape, *steps, *grid, "sum", 1.0, *then
            )
        if writes is not None:
            return Quantized(out, writes)
        out = after(out, None, leaky, slope)
        return out if self.writes is None else Quantized.of(out, self.writes)


class Int8Linear(Int8Layer):
    def pack(self, shape: list[int]) -> Tensor:
        packed: Tensor = torch.ops.onednn.qlinear_prepack(self.steps, shape)
        return packed

    def forward(
        self, x: Tensor | Quantized, add: None = None, relu: bool = False, slope: float = 0.0
    ) -> Tensor | Quantized:
        leaky = relu and slope != 0
        x, writes = self.on_grid(x), None if leaky else self.writes
        steps = (*(writes or Grid(1.0, 0)), self.dtype if writes is None else torch.uint8)
        layer = (x.values, *x.grid, self.packed_for(x.values), self.scale, self.zero_point)
        then = ("relu" if relu and not leaky else "none", [], "")
        out = torch.ops.onednn.qlinear_pointwise(*layer, self.bias, *steps, *then)
        if writes is not None:
            return Quantized(out, writes)
        out = after(out, None, leaky, slope)
        return out if self.writes is None else Quantized.of(out, self.writes)
