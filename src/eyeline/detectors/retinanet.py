"""RetinaNet: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002.

One stage: every cell of every level of a feature pyramid says of each of its nine anchors which
classes lie there and how to move it onto the object. The focal loss lets the hundred thousand
easy background anchors count for little, so none are sampled away.

Letters   B pictures, K classes, A anchors a cell, N_l anchors of level l, N in all, G objects,
          D detections at most.
Departs   smooth L1 bends at 1/9 as in the authors' code; the text says only "standard".
          `convention="torchvision"` is what that library's weights were trained with: anchors of
          whole coordinates about the corner of a cell, strides fitted to the padded picture, P6
          from P5, each object's best anchors matched at any IoU, an L1 loss, 300 detections. Its
          second version also has `head_norm="group", box_loss="giou", fpn_extra_from="backbone"`
          (after Zhang et al., CVPR 2020, arXiv:1912.02424).
          `convention="detectron2"` is that library's: anchors about the corner of a cell, each
          object's best anchors matched at any IoU, an L1 loss, boxes cut to the picture after NMS,
          Caffe's ResNet, whose stride lies in the 1x1. (It divides its losses by a running mean of
          the number of matched anchors.)
          `convention="mmdetection"` is that library's: as detectron2's the anchors, the matching
          and the L1 loss; no ReLU before P7, and no detections without an area. (It divides the
          losses of a batch by the number of its matched anchors.)
          `convention="yhenon"` is yhenon/pytorch-retinanet: moves of anchors in tenths and fifths,
          the mean of a box's four losses, where the paper's is a sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eyeline.losses.focal import sigmoid_focal_loss
from eyeline.losses.iou import IOU_LOSSES
from eyeline.losses.smooth_l1 import smooth_l1
from eyeline.nn.anchors import AnchorPyramid, flatten_cells
from eyeline.nn.backbones import build_backbone
from eyeline.nn.detector import Detector, Preprocess, make_config, suppression
from eyeline.nn.fused import fused
from eyeline.nn.layers import ConvNorm
from eyeline.nn.lineage import every_box, of_levels
from eyeline.nn.necks.fpn import FPN
from eyeline.note import note
from eyeline.ops.boxes import clip, has_area
from eyeline.ops.deltas import decode, encode
from eyeline.ops.matching import IGNORED, assign, pad_objects
from eyeline.ops.select import highest, indices, slots, take
from eyeline.registry import register
from eyeline.structures import Assignment, Batch, Padded, Prediction, Target


@dataclass(frozen=True)
class Config:
    """Numbers of the paper, each with its section."""

    num_classes: int
    convention: str = "paper"
    # Network
    backbone: str = "resnet50"
    norm: str = "batch"  # "frozen" with pretrained weights, "batch", "group"
    norm_epsilon: float = 1e-5
    stride_in_1x1: bool = False  # of the backbone's bottlenecks
    in_channels: int = 3
    fpn_channels: int = 256  # sec. 4, footnote 2
    fpn_extra_from: str = "backbone"  # sec. 4, footnote 2: P6 from C5; "level": from P5
    fpn_extra_relu: bool = True  # sec. 4, footnote 2: between P6 and P7
    fpn_norm: str = "none"  # or "batch", "frozen", "group", after each convolution
    head_norm: str = "none"  # so in the towers
    tower_depth: int = 4  # sec. 4
    prior: float = 0.01  # sec. 4.1: what a class's score is at the start
    # Pictures
    min_size: int = 800  # sec. 5
    max_size: int = 1333
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    # Anchors
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)  # sec. 4, P3 to P7
    anchor_scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # sec. 4
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # sec. 4
    anchor_offset: float = 0.5
    anchor_rounded: bool = False
    anchor_fitted: bool = False
    # Loss
    foreground_iou: float = 0.5  # sec. 4: from here on an anchor is an object,
    background_iou: float = 0.4  # below this background, in between it is ignored
    force_match: bool = False  # sec. 4 knows no other way for an object to get an anchor
    alpha: float = 0.25  # eq. 5
    gamma: float = 2.0  # eq. 5
    box_loss: str = "smooth_l1"  # sec. 4.1; of the boxes themselves "giou", "diou", "ciou"
    box_beta: float = 1 / 9
    box_weight: float = 1.0
    box_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)  # of moves
    # Detections
    score_threshold: float = 0.05  # sec. 4.1
    candidates: int = 1000  # sec. 4.1, a level
    nms_iou: float = 0.5  # sec. 4.1
    clip_last: bool = False  # boxes are cut to the picture after NMS, not before it
    keep_empty: bool = True  # also boxes that lie outside, of which nothing is left
    max_detections: int = 100
    nms: str = "hard"  # or "soft_linear", "soft_gaussian"; see eyeline.ops.suppression
    nms_sigma: float = 0.5
    nms_floor: float = 0.001
    class_agnostic_nms: bool = False
    vote_iou: float | None = None


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "torchvision": dict(
        fpn_extra_from="level",
        anchor_offset=0.0,
        anchor_rounded=True,
        anchor_fitted=True,
        force_match=True,
        box_beta=0.0,
        max_detections=300,
    ),
    "detectron2": dict(
        stride_in_1x1=True,
        anchor_offset=0.0,
        force_match=True,
        box_beta=0.0,
        clip_last=True,
    ),
    "mmdetection": dict(
        fpn_extra_relu=False,
        anchor_offset=0.0,
        force_match=True,
        box_beta=0.0,
        keep_empty=False,
    ),
    "yhenon": dict(
        min_size=608,
        max_size=1024,
        box_weight=0.25,
        box_weights=(10.0, 10.0, 5.0, 5.0),
    ),
}
STRIDES = (8, 16, 32, 64, 128)  # P3 .. P7


class Tower(nn.Module):
    """Four 3x3 convolutions with ReLU and one for the output, shared by all levels (Fig. 3)."""

    def __init__(
        self, channels: int, depth: int, outputs: int, bias: float = 0.0, norm: str = "none"
    ) -> None:
        super().__init__()
        self.tower = nn.ModuleList(ConvNorm(channels, channels, 3, norm) for _ in range(depth))
        self.output = nn.Conv2d(channels, outputs, 3, padding=1)
        for conv in [*self.tower, self.output]:
            nn.init.normal_(conv.weight, std=0.01)  # sec. 4.1
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        nn.init.constant_(self.output.bias, bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.tower:
            x = fused(x, conv, relu=True)
        return fused(x, self.output)


class RetinaNet(Detector):
    """One stage: classes and boxes for every anchor. See `forward` for what goes in and out."""

    class_dependent = ("class_head.output",)
    network = "heads"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        self.preprocess = Preprocess(
            c.num_classes, c.min_size, c.max_size, c.image_mean, c.image_std
        )
        self.backbone = build_backbone(
            c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels,
            stride_in_1x1=c.stride_in_1x1,
        )  # fmt: skip
        self.fpn = FPN(
            self.backbone.channels[1:], c.fpn_channels, "conv", c.fpn_extra_from, c.fpn_norm,
            c.fpn_extra_relu,
        )  # fmt: skip
        sizes = [[size * scale for scale in c.anchor_scales] for size in c.anchor_sizes]
        if c.anchor_rounded:
            sizes = [[math.floor(size) for size in level] for level in sizes]
        self.anchors = AnchorPyramid(
            sizes, c.anchor_ratios, STRIDES, c.anchor_offset, c.anchor_rounded, c.anchor_fitted
        )
        per_cell = self.anchors.per_cell
        bias = -math.log((1 - c.prior) / c.prior)  # sec. 4.1: a score of `prior` everywhere
        width, depth = c.fpn_channels, c.tower_depth
        self.class_head = Tower(width, depth, per_cell * c.num_classes, bias, c.head_norm)
        self.box_head = Tower(width, depth, per_cell * 4, norm=c.head_norm)

    def forward(
        self, images: Sequence[Tensor] | Batch, targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[Prediction]:
        """Losses where targets are given, else predictions, in train() and eval() alike.

        Args:
            images: pictures (C, H, W) of any sizes, uint8 or float in [0, 1], or a `Batch`.
            targets: of each picture `boxes` (G, 4) xyxy in its pixels and `labels` (G,) in
                0 .. K-1; objects with `iscrowd` (G,) are never positive.

        Returns:
            losses: `classification`, `box`, each a scalar.
            predictions: of each picture `boxes` (N, 4), `scores` (N,), `labels` (N,), best first.
        """
        batch = self.prepare(images, targets).to(self.device)
        if batch.targets is None:
            return self.finish(self.compute(batch), batch)
        return self.losses(batch, batch.targets)

    def heads(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Padded pictures (B, C, H, W) to logits (B, N_l, K), deltas (B, N_l, 4) and anchors
        (N_l, 4) of each level, float32."""
        features = note("features C2 to C5", self.backbone(images.to(self.dtype)))
        levels = note("levels P3 to P7, sec. 4", self.fpn(features[1:]))
        anchors = note("anchors, sec. 4", self.anchors(levels, images.shape[2:]))
        classes = self.config.num_classes
        logits = [flatten_cells(self.class_head(level), classes).float() for level in levels]
        deltas = [flatten_cells(self.box_head(level), 4).float() for level in levels]
        return logits, deltas, anchors

    def compute(self, batch: Batch) -> Padded:
        """A prepared batch to detections in fixed shapes, in the resized pictures' pixels."""
        c = self.config
        t = c.score_threshold
        # As a logit, a little low so that rounding loses nobody; `valid` below decides.
        threshold = math.log(t / (1 - t)) - 1e-4 if 0 < t < 1 else -math.inf
        heads = self.heads(batch.images)
        note("boxes of all anchors, sec. 4", heads, every_box, *heads, batch.sizes, c.box_weights)
        parts, rows = [], []
        for logits, deltas, anchors in zip(*heads, strict=True):
            # The best 1000 (anchor, class) pairs lie on the 1000 anchors with the best classes.
            _, best = highest(logits.amax(-1), c.candidates)  # (B, k)
            pairs = take(logits, best).flatten(1)  # (B, k K)
            top, index = highest(pairs, slots(pairs > threshold, c.candidates))  # (B, C)
            chosen = best.gather(1, index // c.num_classes)  # (B, C), anchors of the level
            boxes = decode(take(deltas, chosen), anchors[chosen], c.box_weights)
            boxes = boxes if c.clip_last else clip(boxes, batch.sizes[:, None])
            parts.append((boxes, top, index % c.num_classes))
            rows.append(chosen)
        boxes, top, labels = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        scores = top.sigmoid()
        valid = scores > c.score_threshold
        valid = valid if c.keep_empty else valid & has_area(boxes)
        note(
            "candidates over the threshold, sec. 4.1", valid, of_levels,
            boxes, scores, labels, valid, rows, heads[0], c.score_threshold, c.candidates,
        )  # fmt: skip
        thin_out = suppression(c)
        found = thin_out(boxes, scores, labels, valid, c.nms_iou, c.max_detections)  # (B, D)

        def within(found: Any) -> Any:
            """Cut to the picture, and dropped where nothing is left."""
            inside = clip(found.boxes, batch.sizes[:, None])
            return found._replace(boxes=inside, valid=found.valid & has_area(inside))

        last = within if c.clip_last else lambda found: found
        return note(
            "detections, sec. 4.1", last(found), lambda *given: last(thin_out.shown(*given)),
            boxes, scores, labels, valid, c.nms_iou, c.max_detections,
        )  # fmt: skip

    def losses(self, batch: Batch, targets: list[Target]) -> dict[str, Tensor]:
        """Focal loss of all anchors but the ignored, the box loss of those with an object; each
        picture's sums divided by the number of the latter (sec. 4.1), then the mean of the batch.
        """
        c = self.config
        level_logits, level_deltas, level_anchors = self.heads(batch.images)
        logits, deltas = torch.cat(level_logits, 1), torch.cat(level_deltas, 1)  # (B, N, ...)
        anchors = torch.cat(level_anchors)  # (N, 4)
        objects = pad_objects(targets)
        limits = (c.foreground_iou, c.background_iou)
        matches = assign(anchors, objects, *limits, c.force_match)  # (B, N)
        note(
            "anchors matched to objects, sec. 4", matches,
            Assignment, objects.boxes, objects.labels, matches, *limits,
        )  # fmt: skip
        positive = matches >= 0
        divisor = positive.sum(1).clamp(min=1)  # (B,)
        boxes, labels = objects.of(matches)  # (B, N, 4), (B, N)
        present = positive[..., None].to(logits.dtype)
        truth = torch.zeros_like(logits).scatter(2, labels[..., None], present)  # (B, N, K)
        focal = sigmoid_focal_loss(logits, truth, c.alpha, c.gamma)
        focal = focal * (matches != IGNORED)[..., None]
        # The positive ones; on a GPU all anchors, for its host must not look (ops/select.py), and
        # `counts` says which are positive. What is no object wants no other box than it has.
        picture, anchor = indices(positive)  # (P,) both
        counts, moves, moved = positive[picture, anchor], deltas[picture, anchor], anchors[anchor]
        found = boxes[picture, anchor].where(counts[:, None], moved)
        if c.box_loss == "smooth_l1":
            box = smooth_l1(moves, encode(found, moved, c.box_weights), c.box_beta).sum(1)
        else:
            box = IOU_LOSSES[c.box_loss](decode(moves, moved, c.box_weights), found)
        box = c.box_weight * (box / divisor[picture]).where(counts, 0)
        return {
            "classification": (focal.sum((1, 2)) / divisor).mean(),
            "box": box.sum() / len(targets),
        }


@register(
    "retinanet",
    task="detection",
    paper='Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002',
)
def retinanet(num_classes: int, **options: Any) -> RetinaNet:
    """RetinaNet; options are the fields of `Config`, and `size`."""
    return RetinaNet(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
