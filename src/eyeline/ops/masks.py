"""Masks: cut out by a region for training, pasted back into a picture, their boxes.

He et al., "Mask R-CNN", ICCV 2017, arXiv:1703.06870, sec. 3 and 3.1.

Letters   G objects with masks, R regions, N detections, m side of a small mask, H and W of a
          picture.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from eyeline.ops.resize import resize
from eyeline.ops.select import may_look

CHUNK = 32  # masks in float32 at once


def crop_masks(
    masks: Tensor, boxes: Tensor, index: Tensor, size: int, aligned: bool = True
) -> Tensor:
    """What of an object's mask each region sees: `roi_align` of 0 and 1, a sample a pixel.

    masks     (G, H, W) bool or 0 and 1
    boxes     (R, 4) xyxy, in the masks' pixels
    index     (R,) int64, the mask 0 .. G-1 of each region
    size      m, bins along each side
    aligned   as of `roi_align`

    Returns (R, m, m) float32 in [0, 1], the share of each bin that is covered.

    The average over a grid of bilinear samples is a product of one matrix for the rows and one
    for the columns, so no sample is ever listed; float masks are held for CHUNK regions at once.
    """
    if not len(boxes):
        return boxes.new_zeros(0, size, size)
    shift = 0.5 if aligned else 0.0
    start = boxes.detach().float() - shift
    extent = start[:, 2:] - start[:, :2]
    if not aligned:
        extent = extent.clamp(min=1)
    rows = _averages(start[:, 1], extent[:, 1], masks.shape[1], size)  # (R, m, H)
    columns = _averages(start[:, 0], extent[:, 0], masks.shape[2], size)  # (R, m, W)
    with torch.autocast(boxes.device.type, enabled=False):
        parts = [
            r @ masks[i].float() @ c.mT
            for r, c, i in zip(
                rows.split(CHUNK), columns.split(CHUNK), index.split(CHUNK), strict=True
            )
        ]
    return torch.cat(parts)


def _averages(start: Tensor, extent: Tensor, length: int, bins: int) -> Tensor:
    """Weights (R, bins, length) of the cells of one axis in the mean over each bin's samples."""
    step = (extent / bins)[:, None, None]
    samples = torch.ceil(step).clamp(min=1)  # (R, 1, 1), of a bin
    # The most that any bin has; where looking costs, what twice the whole length would need.
    most = int(samples.max()) if may_look(samples) else math.ceil(2 * length / bins)
    samples = samples.clamp(max=most)
    sample = torch.arange(most, device=start.device)  # (s,)
    bin_index = torch.arange(bins, device=start.device)[:, None]
    at = start[:, None, None] + bin_index * step + (sample + 0.5) * step / samples  # (R, bins, s)
    weight = ((sample < samples) & (at >= -1) & (at <= length)) / samples
    at = at.clamp(0, length - 1)
    low = at.floor()
    fraction = at - low
    out = start.new_zeros(len(start), bins, length)
    out.scatter_add_(2, low.long(), weight * (1 - fraction))
    out.scatter_add_(2, (low + 1).clamp(max=length - 1).long(), weight * fraction)
    return out


def paste_masks(
    masks: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    threshold: float | None = 0.5,
    rounded: bool = False,
) -> Tensor:
    """Small masks back in their boxes, in a picture of `size` (height, width).

    masks       (N, m, m), probabilities
    boxes       (N, 4) xyxy, in the picture's pixels; they may stick out
    threshold   from which on a pixel belongs to the object; None: the probabilities themselves
    rounded     False: the mask's cells fill the box as it is, bilinear between their centres.
                True: as the authors' first code and torchvision, the mask gets a border of
                zeros, the box grows with it, its corners are cut to whole pixels, both count.

    Returns bool (N, H, W), or float32 without a threshold.

    Bilinear interpolation is a matrix for the rows and one for the columns. On a CPU only the
    pixels about each box are computed.
    """
    masks, boxes = masks.float(), boxes.float()
    cells = masks.shape[-1]
    height, width = size
    y1, y2, x1, x2 = boxes[:, 1], boxes[:, 3], boxes[:, 0], boxes[:, 2]
    rows = _spread(y1, y2, height, cells, rounded)  # (N, H, m)
    columns = _spread(x1, x2, width, cells, rounded)  # (N, W, m)
    dtype = torch.float32 if threshold is None else torch.bool
    out = torch.zeros(len(masks), height, width, dtype=dtype, device=masks.device)

    def decided(values: Tensor) -> Tensor:
        return values if threshold is None else values >= threshold

    with torch.autocast(masks.device.type, enabled=False):
        if masks.device.type != "cpu":
            for i in range(0, len(masks), CHUNK):
                part = slice(i, i + CHUNK)
                out[part] = decided(rows[part] @ masks[part] @ columns[part].mT)
            return out
        # A pixel and a cell more than the box on each side, for rounding and for the border.
        margin = 2 + (boxes[:, 2:] - boxes[:, :2]).clamp(min=0) / cells
        low = (boxes[:, :2] - margin).floor()
        high = (boxes[:, 2:] + margin).ceil() + 1
        windows = torch.cat([low, high], 1).nan_to_num(0.0)
        limits = windows.new_tensor([width, height, width, height])
        windows = windows.clamp(min=0).minimum(limits).int()
        for i, (left, top, right, bottom) in enumerate(windows.tolist()):
            values = rows[i, top:bottom] @ masks[i] @ columns[i, left:right].T
            out[i, top:bottom, left:right] = decided(values)
    return out


def _spread(start: Tensor, end: Tensor, length: int, cells: int, rounded: bool) -> Tensor:
    """Weights (N, length, cells) of a small mask's cells in each pixel of one axis."""
    pixel = torch.arange(length, device=start.device)
    cell = torch.arange(cells, device=start.device)
    if not rounded:
        extent = (end - start)[:, None]
        at = (pixel + 0.5 - start[:, None]) / extent * cells - 0.5  # (N, length)
        return (1 - (at[..., None] - cell).abs()).clamp(min=0)
    grown = (end - start) * 0.5 * ((cells + 2) / cells)
    centre = (end + start) * 0.5
    first = (centre - grown).trunc()[:, None]
    count = ((centre + grown).trunc()[:, None] - first + 1).clamp(min=1)
    at = (pixel - first + 0.5) * ((cells + 2) / count) - 0.5
    inside = (pixel >= first) & (pixel < first + count)
    weights = (1 - (at.clamp(0, cells + 1)[..., None] - (cell + 1)).abs()).clamp(min=0)
    return weights * inside[..., None]


def paste_masks_plain(
    masks: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    threshold: float | None = 0.5,
    rounded: bool = False,
) -> Tensor:
    """`paste_masks`, mask by mask, through torch's own interpolation: the slow twin."""
    out = masks.new_zeros(len(masks), *size, dtype=torch.float32)
    for canvas, mask, box in zip(out, masks.float(), boxes.float(), strict=True):
        x1, y1, x2, y2 = box.unbind()
        if not rounded:
            y = (torch.arange(size[0]) + 0.5 - y1) / (y2 - y1) * 2 - 1
            x = (torch.arange(size[1]) + 0.5 - x1) / (x2 - x1) * 2 - 1
            grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)  # (H, W, 2)
            canvas[:] = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
            continue
        scale = (masks.shape[-1] + 2) / masks.shape[-1]
        cx, cy, w, h = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2 * scale, (y2 - y1) / 2 * scale
        left, top, right, bottom = (int(v) for v in (cx - w, cy - h, cx + w, cy + h))
        shape = (max(bottom - top + 1, 1), max(right - left + 1, 1))
        large = F.interpolate(F.pad(mask, (1, 1, 1, 1))[None, None], shape, mode="bilinear")[0, 0]
        ys, xs = slice(max(top, 0), top + shape[0]), slice(max(left, 0), left + shape[1])
        target = canvas[ys, xs]
        source = large[ys.start - top :, xs.start - left :]
        target[:] = source[: target.shape[0], : target.shape[1]]
    return out if threshold is None else out >= threshold


def mask_boxes(masks: Tensor) -> Tensor:
    """The tight boxes (N, 4) of masks (N, H, W), xyxy, float32; of an empty mask all zeros."""

    def ends(line: Tensor) -> tuple[Tensor, Tensor]:
        """First and one past the last True of each row (N, length)."""
        count = line.shape[1]
        place = torch.arange(count, device=line.device)
        first = torch.where(line, place, count).amin(1)
        return first, torch.where(line, place + 1, 0).amax(1)

    masks = masks.bool()
    if not masks.numel():
        return torch.zeros(len(masks), 4, device=masks.device)
    columns, rows = any_along(masks, 1), any_along(masks, 2)
    (left, right), (top, bottom) = ends(columns), ends(rows)
    boxes = torch.stack([left, top, right, bottom], 1).float()
    return boxes * rows.any(1)[:, None]


def any_along(masks: Tensor, dim: int) -> Tensor:
    """`masks.any(dim)` of bool masks, which on a CPU is many times faster as a maximum of bytes."""
    return masks.view(torch.uint8).amax(dim).bool()


def resize_masks(masks: Tensor, size: tuple[int, int], mode: str = "nearest-exact") -> Tensor:
    """Bool (G, H, W) -> (G, *size).

    Args:
        mode: "nearest-exact", the pixel under each new one's centre; "nearest", the one under its
            corner; "bilinear", from half of what a picture's pixel of 0 and 1 would become.
    """
    if tuple(masks.shape[-2:]) == tuple(size):
        return masks
    if not len(masks):
        return masks.new_zeros(0, *size)
    if mode == "bilinear":
        # Up to four channels of bytes have a fast path.
        return torch.cat([resize(part.byte() * 255, size) > 127 for part in masks.split(4)])
    return F.interpolate(masks[None].byte(), size=size, mode=mode)[0].bool()
