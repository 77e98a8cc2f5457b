"""Faster R-CNN: Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region
Proposal Networks", NeurIPS 2015, arXiv:1506.01497; on a feature pyramid: Lin et al., CVPR 2017,
arXiv:1612.03144.

An image goes through the backbone and the pyramid once. The region proposal network (RPN) looks
at every anchor and says whether an object lies there and how to move the anchor onto it. Its best
boxes, and nothing but the boxes, go to the second stage, which cuts each out of the pyramid and
says which class it is and how to move it once more.

Letters   B pictures, K classes, A anchors a cell, N_l anchors of level l, P proposals of a picture,
          R regions in all, G objects, D detections at most.
Departs   Both stages train together, as in the authors' later code; the paper alternates.
          Background for the head is every region below an IoU of 0.5; Fast R-CNN takes [0.1, 0.5).
          The RPN's header says what its loss is divided by.
          `convention="torchvision"` is what that library's weights were trained with: one score
          an anchor, anchors of whole coordinates about the corner of a cell, strides fitted to the
          padded picture, RoIAlign without the half-pixel shift, smooth L1 bending at 1/9. Its
          second version also has `rpn_depth=2, fpn_norm="batch", head_convs=4, head_layers=1,
          head_norm="batch"` (after Li et al., arXiv:2111.11429).
          `convention="detectron2"` is that library's: one score an anchor, anchors about the
          corner of a cell, RoIAlign with as many samples as a region has cells, L1 for the boxes,
          Caffe's ResNet, whose stride lies in the 1x1.
          `convention="mmdetection"` is that library's: the same as detectron2's, but with torch's
          ResNet, whose stride lies in the 3x3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eyeline.nn.anchors import AnchorPyramid
from eyeline.nn.backbones import build_backbone
from eyeline.nn.detector import Detector, Preprocess, make_config, suppression
from eyeline.nn.heads.roi import (
    BoxHead,
    RoIPooler,
    detect,
    picture_index,
    region_losses,
    sample_batch,
)
from eyeline.nn.heads.rpn import RPN
from eyeline.nn.heads.sampling import random_order
from eyeline.nn.necks.fpn import FPN
from eyeline.note import note
from eyeline.ops.matching import pad_objects
from eyeline.registry import register
from eyeline.structures import Batch, Padded, Prediction, Target


@dataclass(frozen=True)
class Config:
    """Numbers of the paper ("F" its section in Faster R-CNN, "P" in the pyramid's paper)."""

    num_classes: int
    convention: str = "paper"
    # Network
    backbone: str = "resnet50"
    norm: str = "batch"  # "frozen" with pretrained weights (P 5.1), "batch", "group"
    norm_epsilon: float = 1e-5
    stride_in_1x1: bool = False  # of the backbone's bottlenecks
    in_channels: int = 3
    fpn_channels: int = 256  # P 3
    fpn_norm: str = "none"  # or "batch", "frozen", "group", after each convolution
    # Pictures
    min_size: int = 800  # P 5.1
    max_size: int = 1333
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    # Anchors
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)  # P 4.1, one a level
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # P 4.1
    anchor_offset: float = 0.5  # F 3.1.1: centred at the sliding window
    anchor_rounded: bool = False
    anchor_fitted: bool = False
    # Region proposal network
    rpn_depth: int = 1  # F 3.1: 3x3 convolutions before its outputs
    objectness: str = "softmax"  # F 3.1.1: 2k scores; "sigmoid" is its footnote's k
    rpn_foreground_iou: float = 0.7  # F 3.1.2
    rpn_background_iou: float = 0.3  # F 3.1.2
    rpn_samples: int = 256  # F 3.1.3
    rpn_positive_fraction: float = 0.5  # F 3.1.3
    rpn_nms_iou: float = 0.7  # F 3.3
    rpn_beta: float = 1.0  # F 3.1.2, Fast R-CNN eq. 3
    proposals_before_nms: tuple[int, int] = (2000, 1000)  # a level; in training, at test
    proposals: tuple[int, int] = (2000, 1000)  # P 5.2; in training, at test
    # Head
    pooling: str = "roi_align"  # or "roi_pool", the paper's own
    pool_size: int = 7  # P 4.2
    sampling_ratio: int = 2  # Mask R-CNN, sec. 3: four points a bin
    roi_aligned: bool = True
    head_width: int = 1024  # P 4.2
    head_layers: int = 2  # P 4.2: fully connected, 1 or 2;
    head_convs: int = 0  # before them 3x3 convolutions,
    head_norm: str = "none"  # each with such a norm
    head_samples: int = 512  # P 5.2
    head_positive_fraction: float = 0.25  # Fast R-CNN, sec. 2.3
    head_foreground_iou: float = 0.5  # Fast R-CNN, sec. 2.3
    head_background_iou: float = 0.5
    head_beta: float = 1.0  # Fast R-CNN, eq. 3
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)  # 1 / std of targets
    # Detections
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100
    nms: str = "hard"  # or "soft_linear", "soft_gaussian"; see eyeline.ops.suppression
    nms_sigma: float = 0.5
    nms_floor: float = 0.001
    class_agnostic_nms: bool = False
    vote_iou: float | None = None


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "torchvision": dict(
        anchor_offset=0.0,
        anchor_rounded=True,
        anchor_fitted=True,
        objectness="sigmoid",
        rpn_beta=1 / 9,
        roi_aligned=False,
        head_beta=1 / 9,
    ),
    "detectron2": dict(
        stride_in_1x1=True,
        anchor_offset=0.0,
        objectness="sigmoid",
        rpn_beta=0.0,
        proposals=(1000, 1000),
        sampling_ratio=0,
        head_beta=0.0,
    ),
    "mmdetection": dict(
        anchor_offset=0.0,
        objectness="sigmoid",
        rpn_beta=0.0,
        proposals=(1000, 1000),
        sampling_ratio=0,
        head_beta=0.0,
    ),
}
STRIDES = (4, 8, 16, 32, 64)  # P2 .. P6; the head reads the first four


class FasterRCNN(Detector):
    """Two stages: proposals, then classes and boxes. See `forward` for what goes in and out."""

    class_dependent = ("head.classes", "head.deltas")
    network = "levels"

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
        self.fpn = FPN(self.backbone.channels, c.fpn_channels, extra="pool", norm=c.fpn_norm)
        anchors = AnchorPyramid(
            [[size] for size in c.anchor_sizes], c.anchor_ratios, STRIDES,
            c.anchor_offset, c.anchor_rounded, c.anchor_fitted,
        )  # fmt: skip
        self.rpn = RPN(
            c.fpn_channels, anchors, c.objectness, c.rpn_foreground_iou, c.rpn_background_iou,
            c.rpn_samples, c.rpn_positive_fraction, c.rpn_nms_iou, c.rpn_beta, c.rpn_depth,
        )  # fmt: skip
        self.pool = RoIPooler(c.pool_size, STRIDES[:4], c.pooling, c.sampling_ratio, c.roi_aligned)
        self.head = BoxHead(
            c.fpn_channels, c.pool_size, c.num_classes, c.head_width, c.head_convs, c.head_layers,
            c.head_norm,
        )  # fmt: skip

    def forward(
        self, images: Sequence[Tensor] | Batch, targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[Prediction]:
        """Losses where targets are given, else predictions, in train() and eval() alike.

        Args:
            images: pictures (C, H, W) of any sizes, uint8 or float in [0, 1], or a `Batch`.
            targets: of each picture `boxes` (G, 4) xyxy in its pixels and `labels` (G,) in
                0 .. K-1; objects with `iscrowd` (G,) are never positive.

        Returns:
            losses: `rpn_objectness`, `rpn_box`, `classification`, `box`, each a scalar.
            predictions: of each picture `boxes` (N, 4), `scores` (N,), `labels` (N,), best first.
        """
        batch = self.prepare(images, targets).to(self.device)
        if batch.targets is None:
            return self.finish(self.compute(batch), batch)
        return self.losses(batch, batch.targets)

    def levels(self, images: Tensor) -> list[Tensor]:
        """Padded pictures (B, C, H, W) to P2 .. P6, each (B, 256, H_l, W_l)."""
        images = images.to(self.dtype)
        features = note("features C2 to C5", self.backbone(images))
        return note("levels P2 to P6", self.fpn(features))

    def compute(self, batch: Batch) -> Padded:
        """A prepared batch to detections in fixed shapes, in the resized pictures' pixels."""
        c = self.config
        levels = self.levels(batch.images)
        anchors = note("anchors, sec. 3.1.1", self.rpn.anchors(levels, batch.images.shape[2:]))
        logits, deltas = self.rpn(levels)  # per level (B, N_l), (B, N_l, 4)
        proposals, valid = self.rpn.propose(
            logits, deltas, anchors, batch.sizes, c.proposals_before_nms[1], c.proposals[1]
        )  # (B, P, 4), (B, P)
        count = proposals.shape[1]
        regions = self.pool(levels, proposals.flatten(0, 1), picture_index(proposals))
        class_logits, box_deltas = self.head(note("regions, sec. 2.1 of Fast R-CNN", regions))
        scores = class_logits.softmax(-1)[:, :-1]  # the last column is background
        return detect(
            scores.unflatten(0, (-1, count)), box_deltas.unflatten(0, (-1, count)), proposals,
            valid, batch.sizes, c.box_weights, c.score_threshold, c.nms_iou, c.max_detections,
            suppression=suppression(c),
        )  # fmt: skip

    def losses(self, batch: Batch, targets: list[Target]) -> dict[str, Tensor]:
        """The RPN's loss on sampled anchors, the head's on sampled proposals."""
        c = self.config
        levels = self.levels(batch.images)
        anchors = self.rpn.anchors(levels, batch.images.shape[2:])
        rpn_losses = self.rpn.losses(levels, anchors, targets)
        with torch.no_grad():  # proposals are given to the head as they are
            logits, deltas = self.rpn(levels)
        test = 0 if self.training else 1
        proposals, valid = self.rpn.propose(
            logits, deltas, anchors, batch.sizes, c.proposals_before_nms[test], c.proposals[test]
        )
        objects = pad_objects(targets)
        order = random_order(self, targets, c.proposals[test] + objects.own.shape[1])
        sampled = sample_batch(
            proposals, valid, objects, order, c.num_classes, c.head_samples,
            c.head_positive_fraction, c.head_foreground_iou, c.head_background_iou,
        )  # fmt: skip
        regions, picture, labels, *_ = sampled
        note("sampled regions and their labels, sec. 2.3 of Fast R-CNN", (regions, labels))
        class_logits, box_deltas = self.head(self.pool(levels, regions, picture))
        return rpn_losses | region_losses(
            class_logits, box_deltas, sampled, len(targets), c.box_weights, c.head_beta
        )


@register(
    "faster_rcnn",
    task="detection",
    paper='Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, with FPN',
)
def faster_rcnn(num_classes: int, **options: Any) -> FasterRCNN:
    """Faster R-CNN on a feature pyramid; options are the fields of `Config`, and `size`."""
    return FasterRCNN(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
