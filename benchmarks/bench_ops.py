"""RoIAlign, RoIPool and NMS against torchvision on the CPU, forward and forward + backward.

Both sides run in this process, in turn. Results are compared before anything is timed. `bench.py`
is the command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torchvision
from torch import Tensor

from eyeline.ops.nms import nms
from eyeline.ops.roi_align import assign_levels, roi_align, roi_pool
from table import Table, take_turns

WIDTH, HEIGHT = 1088, 800
STRIDES = (4, 8, 16, 32)
Side = Callable[[], object]


def regions(count: int) -> Tensor:
    """Boxes as proposals have them: most are small, sizes log-normal about 74 pixels."""
    centre = torch.rand(count, 2) * torch.tensor([WIDTH, HEIGHT])
    size = torch.exp(torch.randn(count, 2) * 0.9 + 4.3)
    boxes = torch.cat([centre - size / 2, centre + size / 2], 1)
    return torch.minimum(boxes.clamp(min=0), torch.tensor([WIDTH, HEIGHT] * 2) * 1.0)


def pooling(
    name: str, pictures: int, count: int, size: int, ratio: int, memory: torch.memory_format
) -> Iterator[tuple[str, Side, Side]]:
    """Forward alone, then with backward; torchvision goes level by level, as its pooler does."""
    levels = [
        torch.randn(pictures, 256, HEIGHT // s, WIDTH // s).contiguous(memory_format=memory)
        for s in STRIDES
    ]
    boxes = regions(count * pictures)
    image = torch.arange(pictures).repeat_interleave(count)
    level = assign_levels(boxes, 2, 5)
    scales = [1 / s for s in STRIDES]

    def ours(maps: list[Tensor]) -> Tensor:
        if name == "roi_pool":
            return roi_pool(maps, boxes, image, level, size, scales)
        return roi_align(maps, boxes, image, level, size, scales, ratio, aligned=False)

    def theirs(maps: list[Tensor]) -> Tensor:
        out = maps[0].new_zeros(len(boxes), 256, size, size)
        for index, (features, scale) in enumerate(zip(maps, scales, strict=True)):
            mine = (level == index).nonzero()[:, 0]
            rois = torch.cat([image[mine, None].float(), boxes[mine]], 1)
            if name == "roi_pool":
                part = torchvision.ops.roi_pool(features, rois, size, scale)
            else:
                part = torchvision.ops.roi_align(features, rois, size, scale, ratio)
            out[mine] = part
        return out

    torch.testing.assert_close(ours(levels), theirs(levels), rtol=0, atol=1e-4)
    layout = "NHWC" if memory == torch.channels_last else "NCHW"
    sampling = f", ratio {ratio}" if name == "roi_align" else ""
    label = f"{name} {pictures} x {count}, {size}x{size}{sampling}, {layout}"
    yield label, lambda: ours(levels), lambda: theirs(levels)

    leaves = [x.detach().requires_grad_() for x in levels]

    def both(side: Callable[[list[Tensor]], Tensor], memory: torch.memory_format) -> Side:
        # each gets the gradient in the layout in which it gives its result
        grad = torch.randn(len(boxes), 256, size, size).contiguous(memory_format=memory)
        return lambda: torch.autograd.grad(side(leaves), leaves, grad)

    yield (
        f"{label}, + backward",
        both(ours, torch.channels_last),
        both(theirs, torch.contiguous_format),
    )


def suppression(
    count: int, objects: int, threshold: float, groups: int = 0, limit: int | None = None
) -> Iterator[tuple[str, Side, Side]]:
    """Boxes scattered about `objects` places: the fewer, the more are dropped."""
    place = regions(objects)[torch.randint(0, objects, (count,))]
    size = (place[:, 2:] - place[:, :2]).repeat(1, 2)
    boxes = place + torch.randn(count, 4) * 0.12 * size
    boxes = torch.cat([boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2])], 1)
    scores = torch.randperm(count) / count  # no ties: batched_nms does not keep their order
    group = torch.randint(0, groups, (count,)) if groups else None

    def ours() -> Tensor:
        return nms(boxes, scores, threshold, group, limit)

    def theirs() -> Tensor:
        if group is None:
            return torchvision.ops.nms(boxes, scores, threshold)[:limit]
        return torchvision.ops.batched_nms(boxes, scores, group, threshold)[:limit]

    kept = ours()
    assert torch.equal(kept, theirs())
    of = f", {groups} groups" if groups else ""
    yield f"nms {count} -> {len(kept)} (IoU {threshold}{of}, first {limit or 'all'})", ours, theirs


def cases() -> Iterator[tuple[str, Side, Side]]:
    for memory in (torch.contiguous_format, torch.channels_last):
        yield from pooling("roi_align", 1, 1000, 7, 2, memory)
        yield from pooling("roi_align", 2, 512, 7, 2, memory)
        yield from pooling("roi_align", 1, 100, 14, 2, memory)
        yield from pooling("roi_align", 1, 1000, 7, 0, memory)
        yield from pooling("roi_pool", 1, 1000, 7, 0, memory)
    for count in (1000, 2000, 5000):
        for objects in (30, 300, count):
            for threshold in (0.5, 0.7):
                yield from suppression(count, objects, threshold)
    yield from suppression(4819, 300, 0.7, groups=5, limit=1000)  # proposals of five levels
    yield from suppression(2000, 100, 0.5, groups=80, limit=100)  # detections of COCO's classes
    yield from suppression(20000, 500, 0.5, groups=80, limit=100)


def bench(table: Table, rounds: int, only: str = "") -> None:
    """Measure the cases whose names contain `only`."""
    torch.manual_seed(0)
    table.section("operators")
    for label, ours, theirs in cases():
        if only in label:
            seconds = take_turns({"theirs": theirs, "ours": ours}, rounds, table.clock)
            table.row(label, seconds["theirs"], seconds["ours"])
