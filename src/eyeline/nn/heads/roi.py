"""The second stage of the R-CNN family: regions to classes and boxes.

Girshick, "Fast R-CNN", ICCV 2015, arXiv:1504.08083; its head on a pyramid: Lin et al., CVPR 2017,
arXiv:1612.03144, sec. 4.2.

Letters   B pictures, P proposals of a picture, R regions in all, K classes (column K is
          background), G objects, D detections.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.losses.normaliser import batch_total
from eyeline.losses.smooth_l1 import smooth_l1
from eyeline.nn.fused import fused
from eyeline.nn.layers import ConvNorm
from eyeline.nn.lineage import of_regions, over_threshold
from eyeline.note import note
from eyeline.ops.boxes import clip
from eyeline.ops.deltas import decode, encode
from eyeline.ops.matching import IGNORED, Objects, assign
from eyeline.ops.roi_align import assign_levels, roi_align, roi_pool
from eyeline.ops.sampling import balanced_sample
from eyeline.ops.select import counting, slots, take
from eyeline.ops.suppression import HARD, Suppression
from eyeline.structures import Cut, Padded


class RoIPooler(nn.Module):
    """Regions of a pyramid to a fixed size; each from the level that fits its own size (eq. 1).

    Args:
        size: height and width of what comes out.
        strides: of the levels, fine to coarse.
        kind: "roi_align" (He et al. 2017) or "roi_pool" (Fast R-CNN, sec. 2.1).
        sampling_ratio, aligned: see `eyeline.ops.roi_align.roi_align`.
    """

    def __init__(
        self, size: int, strides: Sequence[int], kind: str, sampling_ratio: int, aligned: bool
    ) -> None:
        super().__init__()
        self.size, self.kind = size, kind
        self.scales = [1 / stride for stride in strides]
        self.sampling_ratio, self.aligned = sampling_ratio, aligned

    def forward(self, levels: list[Tensor], boxes: Tensor, image_index: Tensor) -> Tensor:
        """Levels (B, C, H_l, W_l), boxes (R, 4), their pictures (R,) -> (R, C, size, size)."""
        levels = levels[: len(self.scales)]
        first = round(-math.log2(self.scales[0]))
        level = assign_levels(boxes, first, first + len(levels) - 1)
        note(
            f"regions cut {self.size}x{self.size}", level, Cut, boxes, image_index, level,
            tuple(self.scales), self.size, self.kind, self.sampling_ratio, self.aligned,
        )  # fmt: skip
        if self.kind == "roi_pool":
            return roi_pool(levels, boxes, image_index, level, self.size, self.scales)
        return roi_align(
            levels, boxes, image_index, level, self.size, self.scales,
            self.sampling_ratio, self.aligned,
        )  # fmt: skip


class BoxHead(nn.Module):
    """Two layers of 1024 and two sisters: K + 1 classes, and four deltas for each of K (sec. 2.1).

    Before them may stand 3x3 convolutions, as many as `convs`, each with its `norm` and a ReLU
    (Wu and He, "Group Normalization", ECCV 2018, arXiv:1803.08494, have four of them on COCO, and
    then one fully connected layer: `layers` 1).

    `boxes` is how many deltas a region gets: one a class where it is None, 1 for all classes
    alike, 0 for none.

    `fc1` reads a region cell by cell, all channels of a cell together: the order in which RoIAlign
    leaves it, so nothing is copied.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        num_classes: int,
        width: int = 1024,
        convs: int = 0,
        layers: int = 2,
        norm: str = "none",
        boxes: int | None = None,
    ) -> None:
        super().__init__()
        if layers not in (1, 2):
            raise EyelineError(f"head_layers is {layers}; fully connected are 1 or 2")
        self.convs = nn.ModuleList(ConvNorm(channels, channels, 3, norm) for _ in range(convs))
        self.fc1 = nn.Linear(channels * size * size, width)
        self.fc2 = nn.Linear(width, width) if layers == 2 else None
        self.classes = nn.Linear(width, num_classes + 1)
        boxes = num_classes if boxes is None else boxes
        self.deltas = nn.Linear(width, boxes * 4) if boxes else None
        hidden = [self.fc1] if self.fc2 is None else [self.fc1, self.fc2]
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        for layer in hidden:
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.classes.weight, std=0.01)  # sec. 2.3
        outputs = [self.classes]
        if self.deltas is not None:
            nn.init.normal_(self.deltas.weight, std=0.001)
            outputs.append(self.deltas)
        for layer in (*hidden, *outputs):
            nn.init.zeros_(layer.bias)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Regions (R, C, S, S) to logits (R, K + 1) and deltas (R, K, 4), float32; of `boxes` rows
        instead of K where it is given."""
        for conv in self.convs:
            regions = fused(regions, conv, relu=True)
        cells = regions.permute(0, 2, 3, 1).flatten(1)  # (R, S S C)
        hidden = fused(cells, self.fc1, relu=True)
        if self.fc2 is not None:
            hidden = fused(hidden, self.fc2, relu=True)
        logits = self.classes(hidden).float()
        if self.deltas is None:
            return logits, logits.new_zeros(logits.shape[0], 0, 4)
        return logits, self.deltas(hidden).float().unflatten(1, (-1, 4))


class Stage(NamedTuple):
    """Where a head of a cascade looks, and what it says."""

    boxes: Tensor  # (B, P, 4)
    logits: Tensor  # (B, P, K + 1)
    deltas: Tensor  # (B, P, 1, 4), its move of the boxes, whatever their class (5.1)

    @property
    def scores(self) -> Tensor:
        return self.logits.softmax(-1)[..., :-1]  # the last column is background


def picture_index(boxes: Tensor) -> Tensor:
    """Which picture each of the boxes (B, P, 4) is of, (B P,)."""
    return torch.arange(boxes.shape[0], device=boxes.device).repeat_interleave(boxes.shape[1])


class Sampled(NamedTuple):
    """The regions of a batch that the heads' losses see; of each picture positive ones first.

    In rows of the pictures each field begins with (B, S) instead of (R,): see `flat`.
    """

    regions: Tensor  # (R, 4)
    picture: Tensor  # (R,) of each region
    labels: Tensor  # (R,), `num_classes` for background
    index: Tensor  # (R,) the region's object, its row in the picture's target; -1 for background
    objects: Tensor  # (R, 4) that object's box; for background it means nothing
    counts: Tensor  # (R,) bool; False where a picture had too few regions, and this is none

    def flat(self) -> Sampled:
        """Rows of the pictures (B, S, ...) one after another: (R, ...), without those that do not
        count where that costs nothing."""
        chosen = counting(self.counts.flatten())
        return Sampled(*(part.flatten(0, 1)[chosen] for part in self))

    def rows_of(self, values: Tensor) -> Tensor:
        """What was made of each of `flat`'s regions (R, ...), back in rows of the pictures
        (B, S, ...); 0 for those left out."""
        chosen = counting(self.counts.flatten())
        rows = values.new_zeros(self.counts.numel(), *values.shape[1:])
        return rows.index_copy(0, chosen, values).unflatten(0, self.counts.shape)

    def positive(self) -> Sampled:
        """Those that are an object. Their number is read from the device: an empty slot would cost
        the mask head as much as an object does, and count in its norms."""
        found = (self.counts & (self.index >= 0)).nonzero()[:, 0]
        return Sampled(*(part[found] for part in self))

    def of_each(self, pictures: int) -> list[Sampled]:
        """Of each picture its own, if they stand in order. Their numbers are read."""
        number = torch.arange(pictures, device=self.picture.device)[:, None]
        counts = (self.picture == number).sum(1).tolist()
        parts = zip(*(part.split(counts) for part in self), strict=True)
        return [Sampled(*part) for part in parts]


def label_regions(
    regions: Tensor,
    there: Tensor,
    objects: Objects,
    num_classes: int,
    foreground_iou: float,
    background_iou: float,
) -> Sampled:
    """What each of the regions (B, S, 4) that are `there` (B, S) is, in rows of the pictures.

    A region whose best IoU is `foreground_iou` or more is that object, below `background_iou`
    background; what lies between, or in a crowd, does not count.
    """
    matches = assign(regions, objects, foreground_iou, background_iou).where(there, IGNORED)
    boxes, labels = objects.of(matches)
    labels = labels.where(matches >= 0, num_classes)
    picture = torch.arange(len(regions), device=regions.device)[:, None].expand_as(matches)
    return Sampled(regions, picture, labels, matches, boxes, matches != IGNORED)


def sample_rows(
    proposals: Tensor,
    valid: Tensor,
    objects: Objects,
    order: Tensor,
    num_classes: int,
    samples: int,
    positive_fraction: float,
    foreground_iou: float,
    background_iou: float,
) -> Sampled:
    """The regions that the head's loss sees, `samples` of each picture (Fast R-CNN, sec. 2.3), in
    rows of the pictures (B, S).

    The objects themselves join the proposals (B, P, 4), of which those count that are `valid`
    (B, P); see `label_regions` for what they are. `order` (B, P + G or more) is random, see
    `balanced_sample`; its last columns are the objects'.
    """
    regions = torch.cat([proposals, objects.boxes], 1)  # (B, P + G, 4)
    there = torch.cat([valid, objects.own], 1)
    every = label_regions(regions, there, objects, num_classes, foreground_iou, background_iou)
    (_, first), (_, last) = proposals.shape[:2], objects.own.shape
    order = torch.cat([order[:, :first], order[:, order.shape[1] - last :]], 1)
    index, filled = balanced_sample(every.index, order, samples, positive_fraction)  # (B, S)
    return Sampled(*(take(part, index) for part in every))._replace(counts=filled)


def sample_batch(
    proposals: Tensor,
    valid: Tensor,
    objects: Objects,
    order: Tensor,
    num_classes: int,
    samples: int,
    positive_fraction: float,
    foreground_iou: float,
    background_iou: float,
) -> Sampled:
    """`sample_rows`, one after another. Where nobody may look (a GPU), slots that no region fills
    pass through the head with no weight, and only a batch norm in it would notice them."""
    return sample_rows(
        proposals, valid, objects, order, num_classes, samples, positive_fraction, foreground_iou,
        background_iou,
    ).flat()  # fmt: skip


def region_losses(
    logits: Tensor,
    deltas: Tensor,
    sampled: Sampled,
    pictures: int,
    weights: tuple[float, float, float, float],
    beta: float,
) -> dict[str, Tensor]:
    """Fast R-CNN's multi-task loss (eq. 1 to 3) over the sampled regions of a batch of `pictures`.

    Logits (R, K + 1), deltas (R, K, 4), or (R, 1, 4) for all classes alike; of (R, 0, 4) there is
    no loss of boxes. Cross-entropy is a mean; smooth L1 sees the deltas of the true class only, and
    its sum is divided by R as well.
    """
    regions, _, labels, _, objects, counts = sampled
    background = logits.shape[1] - 1
    cross_entropy = F.cross_entropy(logits, labels, reduction="none") * counts
    total = batch_total(counts.sum(), pictures)
    losses = {"classification": cross_entropy.sum() / total}
    if not deltas.shape[1]:
        return losses
    positive = counts & (labels < background)
    column = labels.clamp(max=min(background, deltas.shape[1]) - 1)
    own = take(deltas, column[:, None])[:, 0]  # (R, 4)
    # What is no object wants no other box than the one it has.
    wanted = encode(objects, regions, weights).where(positive[:, None], own.detach())
    return losses | {"box": smooth_l1(own, wanted, beta, reduction="sum") / total}


def detect(
    scores: Tensor,
    deltas: Tensor,
    proposals: Tensor,
    valid: Tensor,
    sizes: Tensor,
    weights: tuple[float, float, float, float],
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
    min_size: float = 1e-2,
    suppression: Suppression = HARD,
) -> Padded:
    """Regions with class probabilities to detections: threshold, decode, NMS class by class.

    Scores (B, P, K), deltas (B, P, K, 4) or, for all classes alike, (B, P, 1, 4), proposals
    (B, P, 4), valid (B, P), sizes (B, 2).
    """
    classes = scores.shape[2]
    flat = scores.masked_fill(~valid[..., None], 0).flatten(1)  # (B, P K)
    # Probabilities of a region sum to 1: fewer than 1 / threshold of them exceed the threshold.
    most = classes
    if score_threshold > 0:
        most = max(1, min(classes, math.ceil(1 / score_threshold) - 1))
    count = slots(flat > score_threshold, scores.shape[1] * most)
    best, index = flat.topk(count)  # (B, C)
    labels = index % classes
    region = index // classes
    column = region if deltas.shape[2] == 1 else index
    boxes = decode(take(deltas.flatten(1, 2), column), take(proposals, region), weights)
    boxes = clip(boxes, sizes[:, None])  # (B, C, 4)
    sides = boxes[..., 2:] - boxes[..., :2]
    over, large = best > score_threshold, (sides >= min_size).all(-1)
    note(
        "regions and their classes, sec. 2.1 of Fast R-CNN", scores, of_regions,
        proposals, valid, scores,
    )  # fmt: skip
    note(
        "candidates over the threshold", over, over_threshold,
        boxes, best, labels, over, index, scores, score_threshold,
    )  # fmt: skip
    found = suppression(boxes, best, labels, over & large, nms_iou, max_detections)
    return note(
        "detections, sec. 2.2 of Fast R-CNN", found, suppression.shown,
        boxes, best, labels, over, nms_iou, max_detections, large,
    )  # fmt: skip
