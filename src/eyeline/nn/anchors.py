"""Anchors of a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.ops.anchors import anchor_grid, cell_anchors


class AnchorPyramid(nn.Module):
    """Anchors for every cell of every level; a level has its own sizes, all have the same ratios.

    Args:
        sizes: for each level, the square roots of its anchors' areas, in pixels.
        ratios: height over width.
        strides: of each level, in pixels.
        offset: where in its cell an anchor is centred, in cells: 0.5 the middle, 0 the corner.
        rounded: anchors about the origin have whole coordinates.
        fitted: strides are the padded picture's size over the level's, rounded down; they differ
            from `strides` where a level's size had to be rounded up.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float],
        strides: Sequence[int],
        offset: float = 0.5,
        rounded: bool = False,
        fitted: bool = False,
    ) -> None:
        super().__init__()
        if len(sizes) != len(strides) or not ratios or min(map(min, sizes)) <= 0:
            raise EyelineError(
                f"anchor_sizes are {len(strides)} positive numbers, one a level of the pyramid, "
                f"and anchor_ratios one at least; got {list(map(list, sizes))} and {list(ratios)}"
            )
        self.strides, self.offset, self.fitted = tuple(strides), offset, fitted
        self.per_cell = len(sizes[0]) * len(ratios)
        cells = torch.stack([cell_anchors(s, ratios, rounded=rounded) for s in sizes])
        self.register_buffer("cells", cells, persistent=False)  # (L, A, 4)

    def forward(self, levels: list[Tensor], image_size: Sequence[int]) -> list[Tensor]:
        """Feature maps (B, C, H_l, W_l) of a padded picture to anchors (H_l W_l A, 4) a level."""
        anchors = []
        for level, cell, stride in zip(levels, self.cells, self.strides, strict=True):
            height, width = level.shape[-2:]
            steps = (stride, stride)
            if self.fitted:
                steps = (image_size[0] // height, image_size[1] // width)
            anchors.append(anchor_grid(cell, (height, width), steps, offset=self.offset))
        return anchors


def flatten_cells(output: Tensor, per_anchor: int) -> Tensor:
    """What a convolution says of each cell's anchors, (B, A * D, H, W) -> (B, H W A, D),
    in the order of the anchors."""
    return output.permute(0, 2, 3, 1).reshape(output.shape[0], -1, per_anchor)
