"""3x3 convolutions of training with 4 multiplications where the definition takes 9.

The forward pass is eq. 8 of `eyeline.ops.winograd` with F(2x2, 3x3), and so is the gradient of the
input, with kernels turned by half a turn: in eq. 8 that exchanges the first and last row, and the
first and last column, of the 16 places. The gradient of the kernels is eq. 8 the other way round:

    dg = G^T [sum over tiles of (A dY A^T) . (B^T d B)] G,   . for each output with each channel

Here tiles lie place by place, so that each place is one product of matrices, and the operations of
the transforms go over long stretches of memory. The sum over tiles is the inner dimension of such
a product, and goes on from strip to strip.

Letters   B pictures, C and O channels in and out, T tiles of a strip.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from eyeline.ops.winograd import SMALL, evenly, transform

TILES = 256  # of a strip, about; sums over more of them are rounded more
WIDE = 256  # geometric mean of C and O from which forward and the input's gradient are faster
AS_IT_IS, TURNED = (0, 1, 2, 3), (3, 1, 2, 0)  # where a place's row or column lies


class Convolve(torch.autograd.Function):
    """conv(x) + bias, padding 1: Convolve.apply(x, weight, bias), with x (B, C, H, W) float32 on a
    CPU, in tiles `enough`, kernels (O, C, 3, 3) and bias (O,) or None. Returns (B, O, H, W),
    channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        if not wide(weight):
            return torch.conv2d(x, weight, bias, padding=1)
        return convolve(x, kernels_of(weight).transpose(1, 2), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        found: list[Tensor | None] = [None, None, None]
        if of_x and wide(weight):
            found[0] = convolve(grad, kernels_of(weight), None, TURNED)
        elif of_x:
            found[0] = torch.ops.aten.convolution_backward(
                grad, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
                [True, False, False],
            )[0]  # fmt: skip
        if of_weight:
            found[1] = gradient_of_kernels(x, grad)
        if of_bias:
            found[2] = grad.sum((0, 2, 3))
        return tuple(found)


def wide(weight: Tensor) -> bool:
    """Whether kernels (O, C, 3, 3) have so many channels that the products gain more than the
    transforms of both sides cost. The gradient of the kernels has none of its outputs' side."""
    return weight.shape[0] * weight.shape[1] >= WIDE**2


def kernels_of(weight: Tensor) -> Tensor:
    """G g G^T of kernels (O, C, 3, 3), place by place: (16, O, C)."""
    g = torch.tensor(SMALL.G)
    return (torch.kron(g, g) @ weight.reshape(-1, 9).T).view(16, *weight.shape[:2])


class Strip(NamedTuple):
    """Rows of tiles of some pictures, whole ones if they are several."""

    first: int  # picture
    pictures: int
    top: int  # row of tiles
    rows: int


class Strips:
    """Pictures (B, C, H, W), channels last, cut in strips: no tile is in two of them."""

    def __init__(self, x: Tensor) -> None:
        batch, self.channels, height, width = x.shape
        self.cells = x.permute(0, 2, 3, 1)
        down, self.across = -(-height // 2), -(-width // 2)
        rows = evenly(down, TILES / self.across)
        pictures = 1 if rows < down else evenly(batch, TILES / (down * self.across))
        self.all = [
            Strip(b, min(pictures, batch - b), r, min(rows, down - r))
            for b in range(0, batch, pictures)
            for r in range(0, down, rows)
        ]
        self.most = pictures * rows * self.across  # tiles of a strip
        # Cells by the evenness of their row and column: then those of a row lie side by side.
        self.planes = x.new_zeros(4 * pictures * (rows + 1) * (self.across + 1) * self.channels)
        self.half = x.new_empty(8 * pictures * rows * (self.across + 1) * self.channels)
        self.tiles = x.new_empty(16 * self.most * self.channels)

    def inputs(self, strip: Strip, order: tuple[int, ...] = AS_IT_IS) -> Tensor:
        """B^T d B of a strip's tiles: (16, T, C)."""
        first, pictures, top, rows = strip
        across, channels = self.across, self.channels
        planes = part(self.planes, 2, 2, pictures, rows + 1, across + 1, channels)
        for i in (0, 1):  # even lines begin above the strip, even columns left of the picture
            above = int(top == 0 and i == 0)
            line = 2 * (top + above) + i - 1
            lines = self.cells[first : first + pictures, line : 2 * (top + rows) + i : 2]
            below = above + lines.shape[1]
            planes[i, :, :, :above] = 0
            planes[i, :, :, below:] = 0
            for j, columns in enumerate((lines[:, :, 1::2], lines[:, :, ::2])):
                left, right = 1 - j, 1 - j + columns.shape[2]
                planes[i, j, :, above:below, :left] = 0
                planes[i, j, :, above:below, left:right] = columns
                planes[i, j, :, above:below, right:] = 0
        half = part(self.half, 2, 4, pictures, rows, across + 1, channels)
        tiles = part(self.tiles, 4, 4, pictures, rows, across, channels)
        down = [planes[i % 2, :, :, i // 2 : i // 2 + rows] for i in range(4)]
        transform(down, [half[:, i] for i in order])
        right_ = [half[i % 2, :, :, :, i // 2 : i // 2 + across] for i in range(4)]
        transform(right_, [tiles[:, i] for i in order])
        return tiles.view(16, -1, channels)

    def spread(self, strip: Strip) -> Tensor:
        """A y A^T of a strip's squares y of 2x2 outputs, but for the sign of the last row and of
        the last column: (16, T, C)."""
        tiles = part(self.tiles, 4, 4, *strip[1::2], self.across, self.channels)
        for i in (0, 1):
            for j in (0, 1):
                cells = self.squares(self.cells, strip, i, j)
                height, width = cells.shape[1:3]
                place = tiles[3 * i, 3 * j]
                place[:, height:] = 0
                place[:, :height, width:] = 0
                place[:, :height, :width] = cells
        first, second, third, last = tiles[:, ::3].unbind(0)
        torch.add(first, last, out=second)
        torch.sub(first, last, out=third)
        first, second, third, last = tiles.unbind(1)
        torch.add(first, last, out=second)
        torch.sub(first, last, out=third)
        return tiles.view(16, -1, self.channels)

    @staticmethod
    def squares(cells: Tensor, strip: Strip, i: int, j: int) -> Tensor:
        """Of (B, H, W, C) the cells at row i and column j of a strip's 2x2 outputs; where H or W
        is odd the last may be missing."""
        first, pictures, top, rows = strip
        return cells[first : first + pictures, 2 * top + i : 2 * (top + rows) : 2, j::2]


def part(memory: Tensor, *shape: int) -> Tensor:
    """The beginning of a flat tensor in some shape."""
    return memory[: prod(shape)].view(shape)


def convolve(
    x: Tensor, kernels: Tensor, bias: Tensor | None, order: tuple[int, ...] = AS_IT_IS
) -> Tensor:
    """Pictures (B, C, H, W), channels last, with kernels (16, C, O) to (B, O, H, W)."""
    strips, outputs = Strips(x), kernels.shape[2]
    size = (len(x), outputs, *x.shape[2:])
    out = torch.empty(size, memory_format=torch.channels_last)
    written = out.permute(0, 2, 3, 1)
    products = x.new_empty(16 * strips.most * outputs)
    left = x.new_empty(8 * strips.most * outputs)
    two = x.new_empty(4 * strips.most * outputs)
    for strip in strips.all:
        tiles = strips.inputs(strip, order)
        m = part(products, 16, tiles.shape[1], outputs)
        torch.bmm(tiles, kernels, out=m)
        if bias is not None:
            m[5] += bias  # the second row and column, of which all four outputs have one
        squares = (*strip[1::2], strips.across, outputs)
        m = m.view(4, 4, *squares)
        down = part(left, 2, 4, *squares)
        untransform([m[i] for i in order], list(down), part(two, 4, *squares))
        for i in (0, 1):
            cells = [strips.squares(written, strip, i, j) for j in (0, 1)]
            untransform([down[i, k] for k in order], cells, part(two, *squares))
    return out


def untransform(m: list[Tensor], out: list[Tensor], two: Tensor) -> None:
    """A^T m along one axis: four tensors to two, which may end earlier in two dimensions."""
    for add, first, to in ((torch.add, 0, out[0]), (torch.sub, 1, out[1])):
        add(m[first], m[first + 1], out=two)
        height, width = to.shape[-3:-1]
        add(two[..., :height, :width, :], m[first + 2][..., :height, :width, :], out=to)


def gradient_of_kernels(x: Tensor, grad: Tensor) -> Tensor:
    """That of (O, C, 3, 3), given pictures (B, C, H, W) and the gradient of (B, O, H, W), both
    channels last."""
    inputs, outputs = Strips(x), Strips(grad)
    shape = (outputs.channels, inputs.channels)
    summed = x.new_zeros(16, *shape)
    for strip in inputs.all:
        torch.baddbmm(
            summed, outputs.spread(strip).transpose(1, 2), inputs.inputs(strip), out=summed
        )
    g = torch.tensor(SMALL.G)
    g[3] *= -1  # the sign that `spread` leaves out
    return (torch.kron(g, g).T @ summed.view(16, -1)).T.reshape(*shape, 3, 3)
