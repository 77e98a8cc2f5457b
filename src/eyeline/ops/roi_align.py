"""RoIAlign, RoI pooling and the pyramid level of a region, in plain tensor code.

RoIAlign   He et al., "Mask R-CNN", ICCV 2017, arXiv:1703.06870, sec. 3.
RoIPool    Girshick, "Fast R-CNN", ICCV 2015, arXiv:1504.08083, sec. 2.1.
Levels     Lin et al., "Feature Pyramid Networks", CVPR 2017, arXiv:1612.03144, eq. 1.

A bin of RoIAlign is the mean of bilinear samples, so it is a weighted sum of feature vectors: with
the features of all levels and pictures laid out as rows of one table, `F.embedding_bag` computes
every bin in a single call.

Letters   L levels, B pictures, C channels, H_l and W_l of a level, R regions, h and w bins of a
          region, s samples of a bin along one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.ops.select import numbers
from eyeline.ops.whole import kept_whole


def assign_levels(
    boxes: Tensor,
    min_level: int,
    max_level: int,
    canonical_size: float = 224,
    canonical_level: int = 4,
) -> Tensor:
    """Pyramid level of each box, FPN eq. 1: k = floor(k0 + log2(sqrt(area) / 224)).

    boxes (R, 4) pixels of the picture the network sees. Returns (R,) int64, counted from
    `min_level`: 0 is the finest level. The small constant is torchvision's.
    """
    size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = torch.floor(canonical_level + torch.log2(size / canonical_size) + 1e-6)
    return level.clamp(min_level, max_level).long() - min_level


def roi_align(
    levels: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level_index: Tensor,
    output_size: int | tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> Tensor:
    """Features of each region, resampled to a grid of fixed size.

    levels          L maps (B, C, H_l, W_l), fastest in channels-last memory
    boxes           (R, 4) float32, xyxy pixels of the picture; they get no gradient
    image_index     (R,) int64, the picture 0 .. B-1 of each region
    level_index     (R,) int64, the level 0 .. L-1 of each region
    output_size     bins (h, w), or one number for both
    scales          L numbers, cells of a level to one pixel: 1/4, 1/8 ...
    sampling_ratio  samples of a bin along each axis; 0 (or less): one a cell, that is
                    ceil(extent of the region / bins). Only a fixed ratio has shapes that do not
                    depend on the data, as torch.compile and CUDA graphs need.
    aligned         True: cell i covers [i, i + 1], its centre is i + 0.5. False: the first
                    publication's code, centre at i and extents of at least one cell.

    Returns (R, C, h, w) in the features' dtype, channels-last in memory. A sample beyond [-1, H]
    or [-1, W] counts as zero; other samples outside the map take the border's value.
    """
    if len(levels) != len(scales):
        raise EyelineError(
            f"roi_align got {len(levels)} levels and {len(scales)} scales: give one scale a level"
        )
    bins = _pair(output_size)
    if kept_whole():
        kept: Tensor = torch.ops.eyeline.roi_align(
            levels, boxes, image_index, level_index, *bins, scales, sampling_ratio, aligned
        )
        return kept
    extents, first_row = _layout(levels)
    start, step = _grid(boxes, level_index, bins, scales, aligned)
    extent = extents[level_index]  # (R, 2) height and width of the region's level
    base = (first_row[level_index] + image_index * extent[:, 0] * extent[:, 1]).int()
    if sampling_ratio > 0:
        y, wy = _axis(start[:, 0], step[:, 0], extent[:, 0], bins[0], sampling_ratio)
        x, wx = _axis(start[:, 1], step[:, 1], extent[:, 1], bins[1], sampling_ratio)
        y = base[:, None, None] + y * extent[:, 1, None, None]  # (R, h, 2s)
        rows = (y[:, :, None, :, None] + x[:, None, :, None, :]).flatten(0, 2)  # (R*h*w, 2s, 2s)
        weights = (wy[:, :, None, :, None] * wx[:, None, :, None, :]).flatten()
        offsets = torch.arange(rows.shape[0], device=rows.device, dtype=torch.int32)
        bag = offsets[:, None, None].expand_as(rows).flatten()
        rows, offsets = rows.flatten(), offsets * (2 * sampling_ratio) ** 2
    else:
        rows, weights, bag, offsets = _adaptive(start, step, extent, base, bins)
    weights = weights.to(levels[0].dtype)
    out: Tensor
    if torch.compiler.is_compiling():  # without gradients it cannot trace the function below
        out = _weighted_sum(rows, weights, offsets, _table(levels))
    else:
        out = _WeightedRows.apply(rows, weights, bag, offsets, *levels)  # type: ignore[no-untyped-call]
    return out.view(boxes.shape[0], *bins, out.shape[1]).permute(0, 3, 1, 2)


class _WeightedRows(torch.autograd.Function):
    """out[b] = sum of weights[e] * feature row rows[e] over the entries e of bag b.

    Rows count through the channels-last cells of all levels: level, picture, y, x. The gradient is
    the same sum with the roles of row and bag exchanged, so `embedding_bag` does it too: each cell
    is written once, from a float32 sum, and faster than by its own backward. The table is not kept.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weights: Tensor, bag: Tensor, offsets: Tensor, *levels: Tensor
    ) -> Tensor:
        ctx.save_for_backward(rows, weights, bag)
        ctx.shapes = [x.shape for x in levels]
        return _weighted_sum(rows, weights, offsets, _table(levels))  # (bags, C)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weights, bag = ctx.saved_tensors
        count = [b * h * w for b, _, h, w in ctx.shapes]
        rows, order = rows.sort()
        cell = torch.arange(sum(count), device=rows.device, dtype=rows.dtype)
        offsets = torch.searchsorted(rows, cell, out_int32=True)
        table = _weighted_sum(bag[order], weights[order], offsets, grad.contiguous())
        grads = [
            g.view(b, h, w, c).permute(0, 3, 1, 2)
            for g, (b, c, h, w) in zip(table.split(count), ctx.shapes, strict=True)
        ]
        return None, None, None, None, *grads


def _weighted_sum(rows: Tensor, weights: Tensor, offsets: Tensor, table: Tensor) -> Tensor:
    return F.embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=weights)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _layout(levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Height and width (L, 2) of each level, and the row (L,) at which it begins in the table."""
    first = list(accumulate((x.shape[0] * x.shape[2] * x.shape[3] for x in levels), initial=0))
    heights, widths = (
        numbers([x.shape[axis] for x in levels], levels[0], torch.int32) for axis in (2, 3)
    )
    return torch.stack([heights, widths], 1), numbers(first[:-1], levels[0], torch.int32)


def _table(levels: Sequence[Tensor]) -> Tensor:
    """The features of all levels as rows, (sum of B*H_l*W_l, C)."""
    if torch.compiler.is_compiling():
        return torch.cat([x.permute(0, 2, 3, 1).flatten(0, 2) for x in levels])
    count = [x.shape[0] * x.shape[2] * x.shape[3] for x in levels]
    table = levels[0].new_empty(sum(count), levels[0].shape[1])
    for part, x in zip(table.split(count), levels, strict=True):  # torch.cat transposes slowly
        part.view(len(x), -1, part.shape[1]).copy_(x.flatten(2).transpose(1, 2))
    return table


def _grid(
    boxes: Tensor,
    level_index: Tensor,
    bins: tuple[int, int],
    scales: Sequence[float],
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    """Start of each region and extent of its bins in cells, both (R, 2) as (y, x), float32."""
    scale = numbers(scales, boxes, torch.float32)[level_index, None]
    corners = boxes.detach().float() * scale - (0.5 if aligned else 0.0)
    start, end = corners[:, [1, 0]], corners[:, [3, 2]]
    extent = end - start if aligned else (end - start).clamp(min=1.0)
    return start, extent / numbers(bins, boxes, torch.float32)


def _axis(
    start: Tensor, step: Tensor, size: Tensor, bins: int, samples: int
) -> tuple[Tensor, Tensor]:
    """Cells that each bin's samples touch along one axis and their weights, (R, bins, 2s) both.

    start, step, size (R,): where the region begins, extent of a bin, extent of the map, in cells.
    """
    bin_index = torch.arange(bins, device=start.device)[:, None]
    sample = torch.arange(samples, device=start.device) + 0.5
    start, step, size = start[:, None, None], step[:, None, None], size[:, None, None]
    cell, weight = _cells(start + bin_index * step + sample * step / samples, size)
    return cell.flatten(2), weight.flatten(2) / samples


def _cells(at: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The two cells about each position and their linear weights, in a new last dimension.

    A position that is NaN gets the weight NaN, and a cell that exists.
    """
    inside = (at >= -1) & (at <= size)
    last = size - 1
    at = torch.minimum(at.clamp(min=0), last.to(at.dtype))
    low = torch.where(inside, at, 0).int()
    high = torch.minimum(low + 1, last)
    fraction = at - low
    weight = torch.stack([1 - fraction, fraction], dim=-1)
    return torch.stack([low, high], dim=-1), weight * inside[..., None]


def _adaptive(
    start: Tensor, step: Tensor, extent: Tensor, base: Tensor, bins: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, weights and bags of the entries (E,), first entry of each bag (R*h*w,)."""
    h, w = bins
    samples = torch.ceil(step).clamp(min=0).int()  # (R, 2)
    y, wy, first_y = _axis_adaptive(start[:, 0], step[:, 0], extent[:, 0], samples[:, 0], h)
    x, wx, first_x = _axis_adaptive(start[:, 1], step[:, 1], extent[:, 1], samples[:, 1], w)

    def of_bag(value: Tensor) -> Tensor:
        return value.expand(-1, h, w).flatten()

    bag, entry, offsets = _ragged(of_bag(4 * samples.prod(1, dtype=torch.int32)[:, None, None]))
    across = of_bag(2 * samples[:, 1, None, None])[bag]
    at_y = of_bag(first_y[:, :, None])[bag] + entry // across
    at_x = of_bag(first_x[:, None, :])[bag] + entry % across
    region = bag // (h * w)
    rows = base[region] + y[at_y] * extent[region, 1] + x[at_x]
    return rows, wy[at_y] * wx[at_x], bag, offsets


def _axis_adaptive(
    start: Tensor, step: Tensor, size: Tensor, samples: Tensor, bins: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`_axis` with samples (R,): cells and weights in one row, each bin's first entry (R, bins)."""
    bag, sample, first = _ragged(samples[:, None].expand(-1, bins).flatten())
    region, bin_index = bag // bins, bag % bins
    start, step, size, samples = start[region], step[region], size[region], samples[region]
    cell, weight = _cells(start + bin_index * step + (sample + 0.5) * step / samples, size)
    weight = weight / samples[:, None]
    return cell.flatten(), weight.flatten(), 2 * first.view(-1, bins)


def _ragged(count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bag and position therein of each entry (E,), and first entry of each bag; count (bags,)."""
    first = (count.cumsum(0) - count).int()
    bag = torch.arange(len(count), device=count.device, dtype=torch.int32)
    bag = bag.repeat_interleave(count)
    return bag, torch.arange(len(bag), device=bag.device, dtype=torch.int32) - first[bag], first


def sample_positions(
    boxes: Tensor,
    level_index: Tensor,
    output_size: int | tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> list[tuple[Tensor, Tensor]]:
    """Where `roi_align` takes its samples, its arguments' meaning the same.

    Returns of each region y (h s,) and x (w s,), in cells of its level: 0 is the centre of the
    first cell. Each y is sampled with each x; s samples one after another belong to a bin.
    """
    h, w = _pair(output_size)
    start, step = _grid(boxes, level_index, (h, w), scales, aligned)
    adaptive = torch.ceil(step).clamp(min=0)
    counts = torch.full_like(step, sampling_ratio) if sampling_ratio > 0 else adaptive
    return [
        (_positions(y, high, h, int(ny)), _positions(x, wide, w, int(nx)))
        for (y, x), (high, wide), (ny, nx) in zip(start, step, counts, strict=True)
    ]


def roi_align_plain(
    levels: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level_index: Tensor,
    output_size: int | tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> Tensor:
    """`roi_align`, region by region: the slow twin."""
    h, w = _pair(output_size)
    out = []
    for box, image, level in zip(boxes.float(), image_index, level_index, strict=True):
        features = levels[int(level)][int(image)]  # (C, H, W)
        x1, y1, x2, y2 = (box * scales[int(level)] - (0.5 if aligned else 0.0)).unbind()
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = height.clamp(min=1), width.clamp(min=1)
        ny = sampling_ratio if sampling_ratio > 0 else max(int(torch.ceil(height / h)), 0)
        nx = sampling_ratio if sampling_ratio > 0 else max(int(torch.ceil(width / w)), 0)
        if ny * nx == 0:
            out.append(features.new_zeros(len(features), h, w))
            continue
        y = _positions(y1, height / h, h, ny)
        x = _positions(x1, width / w, w, nx)
        out.append(F.avg_pool2d(_bilinear(features, y, x), (ny, nx)))
    return torch.stack(out) if out else levels[0].new_zeros(0, levels[0].shape[1], h, w)


def _positions(start: Tensor, step: Tensor, bins: int, samples: int) -> Tensor:
    bin_index = torch.arange(bins, device=step.device)[:, None]
    sample = torch.arange(samples, device=step.device) + 0.5
    return (start + bin_index * step + sample * step / samples).flatten()


def _bilinear(features: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Samples (C, Y, X) of a map (C, H, W) at every pair of y (Y,) and x (X,)."""
    height, width = features.shape[-2:]
    inside = ((y >= -1) & (y <= height))[:, None] & ((x >= -1) & (x <= width))
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    y0, x0 = y.long(), x.long()
    y1, x1 = (y0 + 1).clamp(max=height - 1), (x0 + 1).clamp(max=width - 1)
    fy, fx = (y - y0)[:, None].to(features.dtype), (x - x0).to(features.dtype)
    top = features[:, y0][:, :, x0] * (1 - fx) + features[:, y0][:, :, x1] * fx
    bottom = features[:, y1][:, :, x0] * (1 - fx) + features[:, y1][:, :, x1] * fx
    return (top * (1 - fy) + bottom * fy) * inside


def roi_pool(
    levels: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level_index: Tensor,
    output_size: int | tuple[int, int],
    scales: Sequence[float],
) -> Tensor:
    """Maximum of each bin of each region, (R, C, h, w); arguments as of `roi_align`.

    Corners are rounded to cells and both belong to the region; neighbouring bins may share cells.
    A bin without a cell (outside the map) is 0. The gradient goes to the first maximum of a bin.
    Shapes inside depend on the data: not for torch.compile.
    """
    h, w = _pair(output_size)
    extents, first_row = _layout(levels)
    extent = extents[level_index]
    base = first_row[level_index] + image_index * extent[:, 0] * extent[:, 1]
    edges = pool_edges(boxes, level_index, extent, (h, w), scales)
    top, bottom, left, right = (edge.flatten() for edge in edges)  # (R*h*w,)
    width = (right - left).clamp(min=0)
    bag, cell, offsets = _ragged((bottom - top).clamp(min=0) * width)
    region = bag // (h * w)
    y, x = top[bag] + cell // width[bag], left[bag] + cell % width[bag]
    rows = base[region] + y * extent[region, 1] + x
    table = torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in levels])
    out = F.embedding_bag(rows, table, offsets.long(), mode="max")  # 0 where a bag is empty
    return out.view(len(boxes), h, w, out.shape[1]).permute(0, 3, 1, 2)


def pool_edges(
    boxes: Tensor,
    level_index: Tensor,
    extent: Tensor,
    bins: tuple[int, int],
    scales: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The cells that each bin of `roi_pool` takes its maximum of: first row, last row + 1, first
    column, last column + 1, (R, h, w) int64 each. extent (R, 2): height and width of each region's
    level."""
    scale = numbers(scales, boxes, torch.float32)[level_index, None]
    corners = boxes.detach().float() * scale
    corners = (corners.abs() + 0.5).floor() * corners.sign()  # halves away from zero, as C rounds
    edges = []
    for axis in (1, 0):  # y, x
        start, end = corners[:, axis, None], corners[:, axis + 2, None]
        count = bins[1 - axis]
        step = (end - start + 1).clamp(min=1) / count
        index = torch.arange(count, device=boxes.device)
        size = extent[:, 1 - axis, None]
        low = torch.minimum((start + (index * step).floor()).clamp(min=0).long(), size)
        high = torch.minimum((start + ((index + 1) * step).ceil()).clamp(min=0).long(), size)
        edges += [low, high]
    shape = (len(boxes), *bins)
    top, bottom = (edge[:, :, None].expand(shape) for edge in edges[:2])
    left, right = (edge[:, None, :].expand(shape) for edge in edges[2:])
    return top, bottom, left, right


def roi_pool_plain(
    levels: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level_index: Tensor,
    output_size: int | tuple[int, int],
    scales: Sequence[float],
) -> Tensor:
    """`roi_pool`, bin by bin: the slow twin."""
    h, w = _pair(output_size)
    extent = _layout(levels)[0][level_index]
    edges = torch.stack(pool_edges(boxes, level_index, extent, (h, w), scales), -1)
    out = levels[0].new_zeros(len(boxes), levels[0].shape[1], h, w)
    for r, i, j in torch.cartesian_prod(*(torch.arange(n) for n in (len(boxes), h, w))).tolist():
        top, bottom, left, right = edges[r, i, j].tolist()
        if top < bottom and left < right:
            features = levels[int(level_index[r])][int(image_index[r])]
            out[r, :, i, j] = features[:, top:bottom, left:right].amax((1, 2))
    return out
