"""3x3 convolutions with 16 multiplications where the definition takes 36, or 36 for 144.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv:1509.09308:
F(2x2, 3x3) and F(4x4, 3x3). A square Y of 2x2 (4x4) outputs comes from a tile d of 4x4 (6x6) inputs
and the kernel g as

    Y = A^T [(G g G^T) . (B^T d B)] A,   . element by element and summed over channels    (eq. 8)

With F(2x2) B and A hold nothing but 0, 1 and -1; the kernel's part is computed once. What is left
between the two transforms is, for each of the 16 or 36 places of a tile, a product of matrices: all
together are one 1x1 convolution in as many groups. Tiles go in strips that stay in the cache.

Where values are of one size, rounding differs with F(2x2) from the direct sum's and is not larger:
fewer products are added up. With F(4x4) it is some times as large; at the points that the paper
takes (1 and 2, here 5/8 and 3/2) it would be twice that, and four times where it is largest. But it
is relative to the largest input of the whole tile, 4x4 or 6x6, and no longer of the 3x3 that an
output is made of: beside one value of 1000 outputs that do not touch it are off by about 1e-4.
Training takes F(2x2) alone, see `eyeline.ops.winograd_training`.

Letters   B pictures, C and O channels in and out, th and tw tiles of a picture down and across.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDE = 128  # channels from which it is faster, measured
TILES = 256  # of a strip
SOME = 64  # kernels that are transformed at once
DILATED = 0.85  # part of the cells of tiles that dilated ones must use, for they are copied besides
FEW = 64  # tiles of a strip below which oneDNN wants the kernels in another order
NEAR, FAR = 5 / 8, 3 / 2  # eq. 8 evaluates polynomials at 0, both signs of these, and infinity


class Form(NamedTuple):
    """F(side x side, 3 x 3): the outputs of a tile, and the kernels' transform.

    Faster than the direct sum for at least so many tiles of all pictures, and where at least so
    large a part of their cells is used."""

    side: int
    G: tuple[tuple[float, float, float], ...]
    least: int
    used: float

    @property
    def reach(self) -> int:
        """How many inputs a tile has across."""
        return self.side + 2

    @property
    def one_by_one(self) -> tuple[list[int], list[int], list[int], int]:
        """Padding, stride, dilation and groups of the convolution that multiplies."""
        return [0, 0], [1, 1], [1, 1], self.reach**2


SMALL = Form(2, ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0)), FEW, 0.0)


def _kernel_rows(at: float, other: float) -> list[tuple[float, float, float]]:
    """Of LARGE's G those of the points `at` and -`at`."""
    scale = 1 / (2 * at * (at**2 - other**2))
    return [(scale, sign * at * scale, at**2 * scale) for sign in (1, -1)]


LARGE = Form(
    4,
    (
        ((NEAR * FAR) ** -2, 0.0, 0.0),
        *_kernel_rows(NEAR, FAR),
        *_kernel_rows(FAR, NEAR),
        (0.0, 0.0, 1.0),
    ),
    least=36,  # of fewer the kernels, four times those of the direct sum, cost more than they give
    used=0.75,
)


def suits(conv: nn.Conv2d) -> bool:
    """Whether a convolution is of the kind for which this is faster: 3x3, wide, float32, on a CPU
    that oneDNN knows; dilated by as much as it is padded (`eyeline.ops.phases`)."""
    return (
        (conv.kernel_size, conv.stride) == ((3, 3), (1, 1))
        and conv.padding == conv.dilation == conv.dilation[::-1]
        and (conv.groups, conv.padding_mode) == (1, "zeros")
        and min(conv.in_channels, conv.out_channels) >= WIDE
        and conv.weight.dtype == torch.float32
        and conv.weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
    )


def enough(x: Tensor, form: Form = SMALL, dilation: int = 1) -> bool:
    """Whether pictures (B, C, H, W) have tiles enough, numbers of the right kind, and not too many
    cells that are none: below that the direct sum is faster."""
    down, across = (-(-side // dilation) for side in x.shape[2:])
    tiles = len(x) * dilation**2 * -(-down // form.side) * -(-across // form.side)
    used = len(x) * x.shape[2] * x.shape[3] / (tiles * form.side**2) if tiles else 0.0
    wanted = form.used if dilation == 1 else DILATED
    return tiles >= form.least and used >= wanted and x.dtype == torch.float32


def best_form(x: Tensor, dilation: int = 1) -> Form | None:
    """The one that is fastest for pictures (B, C, H, W); None: the direct sum."""
    return next((form for form in (LARGE, SMALL) if enough(x, form, dilation)), None)


def tiles_of(x: Tensor, form: Form) -> int:
    """How many a strip of pictures (B, C, H, W) has."""
    down, across = (-(-side // form.side) for side in x.shape[2:])
    pictures, rows = strip_size(len(x), down, across)
    return pictures * rows * across


def kernels_of(weight: Tensor, form: Form = SMALL, tiles: int = TILES) -> Tensor:
    """G g G^T of kernels (O, C, 3, 3) in float64, rounded once, packed for strips of that many
    tiles, or as many as that below or from FEW on."""
    g = torch.tensor(form.G, dtype=torch.float64)
    both = torch.kron(g, g)  # (t t, 9), with which G g G^T is one product
    parts = torch.empty(len(both), *weight.shape[:2])  # (t t, O, C)
    for part, kernels in zip(parts.split(SOME, 1), weight.detach().split(SOME), strict=True):
        part.copy_((both @ kernels.double().reshape(-1, 9).T).view_as(part))
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        parts.flatten(0, 1)[..., None, None],
        *form.one_by_one,
        [1, form.reach**2 * weight.shape[1], 1, tiles],
    )
    return packed


def convolve(
    x: Tensor,
    kernels: Tensor,
    outputs: int,
    bias: Tensor | None,
    slope: float = 1.0,
    form: Form = SMALL,
) -> Tensor:
    """conv(x) + bias, padding 1, what is below 0 times `slope` (1: as it is, 0: ReLU).

    x (B, C, H, W) float32 on a CPU, in tiles `enough`; kernels of `kernels_of`, of the same form.
    Returns (B, outputs, H, W), channels last."""
    batch, channels, height, width = x.shape
    side, reach = form.side, form.reach
    down, across = -(-height // side), -(-width // side)
    cells = x.permute(0, 2, 3, 1)
    size = (batch, outputs, side * down, side * across)
    out = torch.empty(size, memory_format=torch.channels_last)
    written = out.permute(0, 2, 3, 1)
    pictures, rows = strip_size(batch, down, across)
    shape = (pictures, rows, across)
    to, forward, back = side * (rows - 1) + 1, *TRANSFORMS[side]
    lines = x.new_zeros(pictures, side * rows + 2, side * across + 2, channels)  # with its border
    half = x.new_empty(reach, pictures, rows, side * across + 2, channels)
    tiles = x.new_empty(*shape, reach, reach, channels)
    left = x.new_empty(side, *shape, reach, outputs)
    for b, r in strips(batch, down, pictures, rows):
        top = side * r - 1  # the line above the strip
        first, last = max(top, 0), min(side * (r + rows) + 1, height)
        lines[:, : first - top] = 0
        lines[:, first - top : last - top, 1 : width + 1] = cells[b : b + pictures, first:last]
        lines[:, last - top :] = 0
        forward([lines[:, i : i + to : side] for i in range(reach)], half)
        columns = [half[..., i : i + side * (across - 1) + 1 : side, :] for i in range(reach)]
        # The axes (row of a tile, picture, strip, ...) to where they belong.
        forward(columns, tiles.permute(4, 3, 0, 1, 2, 5))
        products = multiply(tiles.flatten(0, 2), kernels, outputs, form)
        back(products.view(*shape, reach, reach, outputs).unbind(3), left)
        squares = written[b : b + pictures, side * r : side * (r + rows)]
        split = squares.unflatten(2, (across, side)).unflatten(1, (rows, side))
        back(left.unbind(4), split.permute(4, 2, 0, 1, 3, 5))
        if bias is not None:
            squares += bias
        if slope != 1:
            F.leaky_relu_(squares, slope)
    if (height, width) != size[2:]:
        out = out[:, :, :height, :width].clone(memory_format=torch.channels_last)
    return out


def multiply(tiles: Tensor, kernels: Tensor, outputs: int, form: Form = SMALL) -> Tensor:
    """Transformed tiles (T, t, t, C) to (T, t, t, O), t across."""
    x = tiles.view(1, 1, len(tiles), -1).permute(0, 3, 1, 2)
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, kernels, None, *form.one_by_one, "none", [], ""
    )
    return out.permute(0, 2, 3, 1).view(len(tiles), form.reach, form.reach, outputs)


def transform(d: Sequence[Tensor], out: Tensor | Sequence[Tensor]) -> None:
    """B^T d along one axis of tiles: four tensors to out (4, ...)."""
    torch.sub(d[0], d[2], out=out[0])
    torch.add(d[1], d[2], out=out[1])
    torch.sub(d[2], d[1], out=out[2])
    torch.sub(d[1], d[3], out=out[3])


def untransform(m: Sequence[Tensor], out: Tensor) -> None:
    """A^T m along one axis: four tensors to out (2, ...)."""
    torch.add(m[0], m[1], out=out[0]).add_(m[2])
    torch.sub(m[1], m[2], out=out[1]).sub_(m[3])


def transform_large(d: Sequence[Tensor], out: Tensor) -> None:
    """The same for tiles of six: six tensors to out (6, ...)."""
    for i, at, other in ((1, NEAR, FAR), (3, FAR, NEAR)):
        even = torch.sub(d[4], d[2], alpha=other**2)
        odd = torch.sub(d[3], d[1], alpha=other**2)
        torch.add(even, odd, alpha=at, out=out[i])
        torch.sub(even, odd, alpha=at, out=out[i + 1])
    for i in (0, 1):
        torch.sub(d[4 + i], d[2 + i], alpha=NEAR**2 + FAR**2, out=out[5 * i])
        out[5 * i].add_(d[i], alpha=(NEAR * FAR) ** 2)


def untransform_large(m: Sequence[Tensor], out: Tensor) -> None:
    """The same for tiles of six: six tensors to out (4, ...)."""
    near, far = torch.add(m[1], m[2]), torch.add(m[3], m[4])
    torch.add(m[0], near, alpha=1 / NEAR, out=out[0]).add_(far, alpha=1 / FAR)
    torch.mul(near, NEAR, out=out[2]).add_(far, alpha=FAR)
    torch.sub(m[1], m[2], out=near)
    torch.sub(m[3], m[4], out=far)
    torch.add(near, far, out=out[1])
    torch.add(m[5], near, alpha=NEAR**2, out=out[3]).add_(far, alpha=FAR**2)


TRANSFORMS = {2: (transform, untransform), 4: (transform_large, untransform_large)}


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
