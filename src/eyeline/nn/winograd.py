"""3x3 convolutions with 16 multiplications where the definition takes 36.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv:1509.09308:
F(2x2, 3x3). A square Y of 2x2 outputs comes from a tile d of 4x4 inputs and the kernel g as

    Y = A^T [(G g G^T) . (B^T d B)] A,   . element by element and summed over channels    (eq. 8)

B and A hold nothing but 0, 1 and -1, and the kernel's part is computed once. What is left between
the two transforms is, for each of the 16 places of a tile, a product of matrices: all 16 together
are one 1x1 convolution in 16 groups. Tiles go through in strips that stay in the cache.

Rounding differs from the direct sum's and is not larger: fewer products are added up.

Letters   B pictures, C and O channels in and out, th and tw tiles of a picture down and across.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn.fused import FusedLayer, PackedConv2d

TILES = 256  # of a strip
LEAST = 64  # tiles of all pictures; below that the direct sum is faster
ONE_BY_ONE = ([0, 0], [1, 1], [1, 1], 16)  # padding, stride, dilation, groups
G = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))  # sec. 4.1


class WinogradConv2d(FusedLayer):
    """A 3x3 convolution of stride 1 and padding 1 in float32 on a CPU, its ReLU included."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.direct = PackedConv2d(conv)
        self.bias, self.outputs = conv.bias, conv.out_channels
        g, kernel = torch.tensor(G, dtype=torch.float64), conv.weight.detach().double()
        kernels = torch.einsum("ai,ocij,bj->aboc", g, kernel, g)  # (4, 4, O, C)
        # Packed once: one order is the best for all strips of 64 tiles and more.
        self.kernels: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            kernels.float().flatten(0, 2)[..., None, None], *ONE_BY_ONE,
            [1, 16 * conv.in_channels, 1, TILES],
        )  # fmt: skip

    def products(self, tiles: Tensor) -> Tensor:
        """Transformed tiles (T, 4, 4, C) to (T, 4, 4, O)."""
        x = tiles.view(1, 1, len(tiles), -1).permute(0, 3, 1, 2)
        out = torch.ops.mkldnn._convolution_pointwise(
            x, self.kernels, None, *ONE_BY_ONE, "none", [], ""
        )
        return out.permute(0, 2, 3, 1).view(len(tiles), 4, 4, self.outputs)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, add: Tensor | None = None, relu: bool = False) -> Tensor:
        (batch, channels, height, width), outputs = x.shape, self.outputs
        down, across = -(-height // 2), -(-width // 2)
        if batch * down * across < LEAST or x.dtype != torch.float32:
            return self.direct(x, add, relu)  # type: ignore[no-any-return]
        cells = x.permute(0, 2, 3, 1)
        out = x.new_empty(batch, 2 * down, 2 * across, outputs)
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
            products = self.products(tiles.flatten(0, 2)).view(*shape, 4, 4, outputs)
            untransform(products.unbind(3), left)
            squares = out[b : b + pictures, 2 * r : 2 * (r + rows)]
            untransform(
                left.unbind(4), squares.unflatten(2, (across, 2)).unflatten(1, (rows, 2))
                .permute(4, 2, 0, 1, 3, 5),
            )  # fmt: skip
            if self.bias is not None:
                squares += self.bias
            if relu and add is None:
                F.relu(squares, inplace=True)
        out = out[:, :height, :width].permute(0, 3, 1, 2)
        out = out.contiguous(memory_format=torch.channels_last)
        if add is None:
            return out
        out += add
        return F.relu(out, inplace=True) if relu else out


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
    """Pictures and rows of tiles that a strip has: part of a picture, or several whole ones."""
    rows = max(1, min(down, round(TILES / across)))
    if rows < down:
        return 1, rows
    return max(1, min(batch, round(TILES / (down * across)))), down


def strips(batch: int, down: int, pictures: int, rows: int) -> Iterator[tuple[int, int]]:
    """Where each begins. All are of one size: the last overlaps the one before."""
    for b in range(0, batch, pictures):
        for r in range(0, down, rows):
            yield min(b, batch - pictures), min(r, down - rows)
