"""3x3 convolutions with 16 multiplications where the definition takes 36.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv:1509.09308:
F(2x2, 3x3). A square Y of 2x2 outputs comes from a tile d of 4x4 inputs and the kernel g as

    Y = A^T [(G g G^T) . (B^T d B)] A,   . element by element and summed over channels    (eq. 8)

B and A hold nothing but 0, 1 and -1, and the kernel's part is computed once. What is left between
the two transforms is, for each of the 16 places of a tile, a product of matrices: all 16 together
are one 1x1 convolution in 16 groups. Tiles go through in strips that stay in the cache.

Rounding differs from the direct sum's and is not larger: fewer products are added up. The gradient
of the input is such a convolution too, with the kernels turned by half a turn.

Letters   B pictures, C and O channels in and out, th and tw tiles of a picture down and across.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WIDE = 128  # channels from which it is faster, measured
TILES = 256  # of a strip
LEAST = 64  # tiles of all pictures; below that the direct sum is faster
ONE_BY_ONE = ([0, 0], [1, 1], [1, 1], 16)  # padding, stride, dilation, groups
G = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))  # sec. 4.1


def suits(conv: nn.Conv2d) -> bool:
    """Whether a convolution is of the kind for which this is faster: 3x3, wide, float32, on a CPU
    that oneDNN knows."""
    return (
        (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
        and (conv.dilation, conv.groups, conv.padding_mode) == ((1, 1), 1, "zeros")
        and min(conv.in_channels, conv.out_channels) >= WIDE
        and conv.weight.dtype == torch.float32
        and conv.weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
    )


def enough(x: Tensor) -> bool:
    """Whether pictures (B, C, H, W) have tiles enough, and numbers of the right kind."""
    tiles = len(x) * -(-x.shape[2] // 2) * -(-x.shape[3] // 2)
    return tiles >= LEAST and x.dtype == torch.float32


def kernels_of(weight: Tensor, exact: bool = True) -> Tensor:
    """G g G^T of kernels (O, C, 3, 3), packed; `exact`: in float64, rounded once."""
    dtype = torch.float64 if exact else weight.dtype
    g, kernel = torch.tensor(G, dtype=dtype), weight.detach().to(dtype)
    parts = torch.einsum("ai,ocij,bj->aboc", g, kernel, g).float()  # (4, 4, O, C)
    # One order is the best for all strips of 64 tiles and more.
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        parts.flatten(0, 2)[..., None, None], *ONE_BY_ONE, [1, 16 * weight.shape[1], 1, TILES]
    )
    return packed


class Convolve(torch.autograd.Function):
    """`convolve` with a gradient: Convolve.apply(x, weight, bias)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return convolve(x, kernels_of(weight, exact=False), len(weight), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_x = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3).transpose(0, 1)
            of_x = convolve(grad, kernels_of(turned, exact=False), x.shape[1], None)
        _, of_weight, of_bias = torch.ops.aten.convolution_backward(
            grad, x, weight, [len(weight)] if ctx.biased else None, [1, 1], [1, 1], [1, 1], False,
            [0, 0], 1, [False, *ctx.needs_input_grad[1:]],
        )  # fmt: skip
        return of_x, of_weight, of_bias


def convolve(
    x: Tensor, kernels: Tensor, outputs: int, bias: Tensor | None, relu: bool = False
) -> Tensor:
    """relu(conv(x) + bias), padding 1: x (B, C, H, W) float32 on a CPU, in tiles `enough`; kernels
    of `kernels_of`. Returns (B, outputs, H, W), channels last."""
    batch, channels, height, width = x.shape
    down, across = -(-height // 2), -(-width // 2)
    cells = x.permute(0, 2, 3, 1)
    size = (batch, outputs, 2 * down, 2 * across)
    out = torch.empty(size, memory_format=torch.channels_last)
    written = out.permute(0, 2, 3, 1)
    pictures, rows = strip_size(batch, down, across)
    shape = (pictures, rows, across)
    lines = x.new_zeros(pictures, 2 * rows + 2, 2 * across + 2, channels)  # with its border
    half = x.new_empty(4, pictures, rows, 2 * across + 2, channels)
    tiles = x.new_empty(*shape, 4, 4, channels)
    left = x.new_empty(2, *shape, 4, outputs)
    for b, r in strips(batch, down, pictures, rows):
        top = 2 * r - 1  # the line above the strip
        first, last = max(top, 0), min(2 * (r + rows) + 1, height)
        lines[:, : first - top] = 0
        lines[:, first - top : last - top, 1 : width + 1] = cells[b : b + pictures, first:last]
        lines[:, last - top :] = 0
        transform([lines[:, i : i + 2 * rows - 1 : 2] for i in range(4)], half)
        columns = [half[..., i : i + 2 * across - 1 : 2, :] for i in range(4)]
        # The axes (row of a tile, picture, strip, ...) to where they belong.
        transform(columns, tiles.permute(4, 3, 0, 1, 2, 5))
        products = multiply(tiles.flatten(0, 2), kernels, outputs).view(*shape, 4, 4, outputs)
        untransform(products.unbind(3), left)
        squares = written[b : b + pictures, 2 * r : 2 * (r + rows)]
        split = squares.unflatten(2, (across, 2)).unflatten(1, (rows, 2))
        untransform(left.unbind(4), split.permute(4, 2, 0, 1, 3, 5))
        if bias is not None:
            squares += bias
        if relu:
            F.relu(squares, inplace=True)
    if (height, width) != (2 * down, 2 * across):
        out = out[:, :, :height, :width].clone(memory_format=torch.channels_last)
    return out


def multiply(tiles: Tensor, kernels: Tensor, outputs: int) -> Tensor:
    """Transformed tiles (T, 4, 4, C) to (T, 4, 4, O)."""
    x = tiles.view(1, 1, len(tiles), -1).permute(0, 3, 1, 2)
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, kernels, None, *ONE_BY_ONE, "none", [], ""
    )
    return out.permute(0, 2, 3, 1).view(len(tiles), 4, 4, outputs)


def transform(d: Sequence[Tensor], out: Tensor) -> None:
    """B^T d along one axis of tiles: four tensors to out (4, ...)."""
    torch.sub(d[0], d[2], out=out[0])
    torch.add(d[1], d[2], out=out[1])
    torch.sub(d[2], d[1], out=out[2])
    torch.sub(d[1], d[3], out=out[3])


def untransform(m: Sequence[Tensor], out: Tensor) -> None:
    """A^T m along one axis: four tensors to out (2, ...)."""
    torch.add(m[0], m[1], out=out[0]).add_(m[2])
    torch.sub(m[1], m[2], out=out[1]).sub_(m[3])


def strip_size(batch: int, down: int, across: int) -> tuple[int, int]:
    """Pictures and rows of tiles that a strip has: part of a picture, or several whole ones. All
    strips are of one size, and overlap as little as can be."""
    rows = evenly(down, TILES / across)
    return (1, rows) if rows < down else (evenly(batch, TILES / (down * across)), down)


def evenly(count: int, most: float) -> int:
    """How many of `count` go into each part where about `most` would fit."""
    parts = -(-count // max(1, min(count, round(most))))
    return -(-count // parts)


def strips(batch: int, down: int, pictures: int, rows: int) -> Iterator[tuple[int, int]]:
    """Where each begins; the last overlaps the one before."""
    for b in range(0, batch, pictures):
        for r in range(0, down, rows):
            yield min(b, batch - pictures), min(r, down - rows)
