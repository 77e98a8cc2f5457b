"""Cascade R-CNN: Cai and Vasconcelos, "Cascade R-CNN: Delving into High Quality Object Detection",
CVPR 2018, arXiv:1712.00726; with masks: "Cascade R-CNN: High Quality Object Detection and Instance
Segmentation", TPAMI 2019, arXiv:1906.09756; on a feature pyramid: Lin et al., CVPR 2017,
arXiv:1612.03144; its first stage: Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497.

A head that learned from regions of an IoU of 0.5 is no judge of closer ones, and asked for 0.7 at
once it finds too few of them to learn from. So three heads stand in a row. Each takes the boxes of
the one before, which lie closer, and learns with a higher IoU u as the limit between object and
background; so each has about as many objects to learn from (sec. 4.2). At test the boxes go the
same way, and all three classifiers judge where the last head looks.

Letters   B pictures, K classes, N_l anchors of level l, P proposals of a picture, S sampled regions
          of a picture, R regions in all, G objects, D detections at most, T stages, u an IoU.
Departs   Stages train together, with the sum of their losses (eq. 8 with lambda = 1); the gradient
          on the features is their mean, as in detectron2: the authors' code weighs the losses by
          1, 1/2, 1/4 instead. Sec. 5.1 samples regions for the first stage alone; the next ones get
          all of them, moved, the objects among them: the authors' code drops these behind the first
          stage. The TPAMI paper has masks at the first, the last or all stages; here at all, with
          the mean of their probabilities at test.
          `method` has the paper's two baselines (Fig. 3 b, c): "iterative_bbox", one head that is
          applied three times at test (eq. 3), and "integral", classifiers of several u on the same
          regions, with one regressor (eq. 6).
          `convention="detectron2"` is what that library's weights were trained with: each stage's
          classifier judges its own regions, and their mean counts; masks at the first stage; one
          score an anchor, anchors about the corner of a cell, RoIAlign with as many samples as a
          region has cells, L1 for the boxes, Caffe's ResNet, whose stride lies in the 1x1.
          `convention="mmdetection"` is that library's: the same anchors and regions, but logits
          that are averaged, not probabilities, masks at all stages, and rounded spreads of moves.
          (It weighs the stages, and drops the objects behind the first, as the authors' code does.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.anchors import AnchorPyramid
from eyeline.nn.backbones import build_backbone
from eyeline.nn.detector import Detector, Preprocess, make_config, suppression
from eyeline.nn.gradient import scaled_gradient
from eyeline.nn.heads.mask import MaskHead, mask_loss, mask_targets, of_class, pasted
from eyeline.nn.heads.roi import (
    BoxHead,
    RoIPooler,
    Sampled,
    Stage,
    detect,
    label_regions,
    picture_index,
    region_losses,
    sample_rows,
)
from eyeline.nn.heads.rpn import RPN
from eyeline.nn.heads.sampling import random_order
from eyeline.nn.lineage import of_regions
from eyeline.nn.necks.fpn import FPN
from eyeline.note import note
from eyeline.ops.boxes import clip, has_area
from eyeline.ops.deltas import decode
from eyeline.ops.matching import pad_objects
from eyeline.registry import register
from eyeline.structures import Batch, Padded, Prediction, Target


@dataclass(frozen=True)
class Config:
    """Numbers of the paper ("F" its section in Faster R-CNN, "P" in the pyramid's paper, "M" in
    Mask R-CNN)."""

    num_classes: int
    convention: str = "paper"
    # The cascade
    method: str = "cascade"  # or "iterative_bbox", "integral": Fig. 3
    ious: tuple[float, ...] = (0.5, 0.6, 0.7)  # 5.1: u of each stage (or classifier)
    stage_scales: tuple[float, ...] = (1.0, 2.0, 3.0)  # 4.1, Fig. 2: of each stage's box_weights
    stage_weights: tuple[tuple[float, float, float, float], ...] = ()  # or x, y, w, h outright
    iterations: int = 3  # 5.3: of "iterative_bbox", at test
    scored_at: str = "last"  # Table 2: where all classifiers look; or "own": each at its own boxes
    averaged: str = "scores"  # Table 2: over the classifiers; or "logits"
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
    # Heads
    pool_size: int = 7  # P 4.2
    sampling_ratio: int = 2  # M 3: four points a bin
    head_width: int = 1024  # P 4.2
    head_layers: int = 2  # P 4.2: fully connected, 1 or 2;
    head_convs: int = 0  # before them 3x3 convolutions,
    head_norm: str = "none"  # each with such a norm
    head_samples: int = 512  # 5.5
    head_positive_fraction: float = 0.25  # Fast R-CNN, sec. 2.3
    head_beta: float = 1.0  # Fast R-CNN, eq. 3
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)  # 1 / std of targets
    # Masks
    masks: bool = False
    mask_stages: tuple[int, ...] = (1, 2, 3)  # TPAMI: at which there is a mask head
    mask_pool_size: int = 14  # M Fig. 4, right
    mask_width: int = 256  # M Fig. 4, right
    mask_depth: int = 4  # M Fig. 4, right
    mask_norm: str = "none"  # behind each of its 3x3 convolutions
    mask_threshold: float | None = 0.5  # M 3.1; None: predictions have probabilities
    # Detections
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100
    nms: str = "hard"  # or "soft_linear", "soft_gaussian"; see eyeline.ops.suppression
    nms_sigma: float = 0.5
    nms_floor: float = 0.001
    class_agnostic_nms: bool = False
    vote_iou: float | None = None


STDS = ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))  # mmdetection's, of a stage's shifts and growths
CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "detectron2": dict(
        scored_at="own", mask_stages=(1,), stride_in_1x1=True, anchor_offset=0.0,
        objectness="sigmoid", rpn_beta=0.0, sampling_ratio=0, head_beta=0.0,
    ),
    "mmdetection": dict(
        scored_at="own", averaged="logits", anchor_offset=0.0, objectness="sigmoid",
        rpn_beta=1 / 9, sampling_ratio=0,
        stage_weights=tuple((1 / s, 1 / s, 1 / t, 1 / t) for s, t in STDS),
    ),
}  # fmt: skip
STRIDES = (4, 8, 16, 32, 64)  # P2 .. P6; the heads read the first four


class CascadeRCNN(Detector):
    """Proposals, moved by one head after another. See `forward` for what goes in and out."""

    network = "levels"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        count = 1 if c.method == "iterative_bbox" else len(c.ious)
        of_stages = c.stage_weights or c.stage_scales
        if not c.ious or (c.method == "cascade" and len(of_stages) != count):
            raise EyelineError(
                f"ious have a number for each stage, and stage_scales, or stage_weights four; got "
                f"{c.ious} and {of_stages}"
            )
        if c.iterations < 1:
            raise EyelineError(f"iterations must be 1 at least, not {c.iterations}")
        self.needs_masks = c.masks
        self.class_dependent = tuple(f"heads.{t}.classes" for t in range(count))
        self.preprocess = Preprocess(
            c.num_classes, c.min_size, c.max_size, c.image_mean, c.image_std,
            masks="nearest-exact" if c.masks else None,
        )  # fmt: skip
        self.backbone = build_backbone(
            c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels,
            stride_in_1x1=c.stride_in_1x1,
        )  # fmt: skip
        self.fpn = FPN(self.backbone.channels, c.fpn_channels, extra="pool", norm=c.fpn_norm)
        anchors = AnchorPyramid(
            [[size] for size in c.anchor_sizes], c.anchor_ratios, STRIDES, c.anchor_offset
        )
        self.rpn = RPN(
            c.fpn_channels, anchors, c.objectness, c.rpn_foreground_iou, c.rpn_background_iou,
            c.rpn_samples, c.rpn_positive_fraction, c.rpn_nms_iou, c.rpn_beta, c.rpn_depth,
        )  # fmt: skip
        align = (STRIDES[:4], "roi_align", c.sampling_ratio, True)
        self.pool = RoIPooler(c.pool_size, *align)
        self.heads = nn.ModuleList(
            BoxHead(
                c.fpn_channels, c.pool_size, c.num_classes, c.head_width, c.head_convs,
                c.head_layers, c.head_norm, boxes=0 if t and c.method == "integral" else 1,
            )
            for t in range(count)
        )  # fmt: skip
        if c.masks:
            self.mask_heads = nn.ModuleDict()
            stages = [t for t in c.mask_stages if 1 <= t <= count]
            if not stages:
                raise EyelineError(f"mask_stages are {c.mask_stages}; name one of {count} at least")
            self.mask_pool = RoIPooler(c.mask_pool_size, *align)
            for t in stages:
                self.mask_heads[str(t)] = MaskHead(
                    c.fpn_channels, c.num_classes, c.mask_width, c.mask_depth, c.mask_norm
                )
                self.class_dependent += (f"mask_heads.{t}.classes",)

    def forward(
        self, images: Sequence[Tensor] | Batch, targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[Prediction]:
        """Losses where targets are given, else predictions, in train() and eval() alike.

        Args:
            images: pictures (C, H, W) of any sizes, uint8 or float in [0, 1], or a `Batch`.
            targets: of each picture `boxes` (G, 4) xyxy in its pixels and `labels` (G,) in
                0 .. K-1, with `masks` also `masks` (G, H, W) bool; objects with `iscrowd` (G,) are
                never positive.

        Returns:
            losses: `rpn_objectness`, `rpn_box`, and of each stage `classification`, `box` and, with
                `masks`, `mask`, from the second on with its number: `box_2`; each a scalar.
            predictions: of each picture `boxes` (N, 4), `scores` (N,), `labels` (N,), best first,
                with `masks` also `masks` (N, H, W), bool, or float32 without a `mask_threshold`.
        """
        batch = self.prepare(images, targets).to(self.device)
        if batch.targets is None:
            return self.finish(self.compute(batch), batch)
        return self.losses(batch, batch.targets)

    def levels(self, images: Tensor) -> list[Tensor]:
        """Padded pictures (B, C, H, W) to P2 .. P6, each (B, 256, H_l, W_l)."""
        features = note("features C2 to C5", self.backbone(images.to(self.dtype)))
        return note("levels P2 to P6", self.fpn(features))

    def weights(self, stage: int) -> tuple[float, float, float, float]:
        """What the deltas of a stage, from 0, are multiplied by: its own 1 / std (sec. 4.1)."""
        c, cascade = self.config, self.config.method == "cascade"
        if cascade and c.stage_weights:
            return c.stage_weights[stage]
        scale = c.stage_scales[stage] if cascade else 1.0
        x, y, w, h = c.box_weights
        return x * scale, y * scale, w * scale, h * scale

    def propose(
        self, levels: list[Tensor], anchors: list[Tensor], sizes: Tensor, test: bool
    ) -> tuple[Tensor, Tensor]:
        """B0 of Fig. 3: proposals (B, P, 4), and which of them are meant (B, P)."""
        before, after = self.config.proposals_before_nms[test], self.config.proposals[test]
        logits, deltas = self.rpn(levels)  # per level (B, N_l), (B, N_l, 4)
        return self.rpn.propose(logits, deltas, anchors, sizes, before, after)

    def look(self, head: nn.Module, regions: Tensor, boxes: Tensor) -> Stage:
        """A head's word on regions (B P, C, S, S), which were cut out at boxes (B, P, 4)."""
        logits, deltas = head(regions)
        rows = (-1, boxes.shape[1])
        return Stage(boxes, logits.unflatten(0, rows), deltas.unflatten(0, rows))

    def moved(self, stage: Stage, t: int, sizes: Tensor) -> Tensor:
        """The boxes (B, P, 4) that stage t makes of its own, within the pictures (eq. 7)."""
        return clip(decode(stage.deltas[:, :, 0], stage.boxes, self.weights(t)), sizes[:, None])

    def refine(
        self, levels: list[Tensor], boxes: Tensor, valid: Tensor, sizes: Tensor
    ) -> tuple[list[Stage], Tensor]:
        """The way of proposals (B, P, 4) through the stages (eq. 7, or eq. 3 of one head), and the
        mean of the classifiers (B, P, K)."""
        c, stages = self.config, []
        row = {"cascade": list(self.heads), "integral": [self.heads[0]]}
        for t, head in enumerate(row.get(c.method, [self.heads[0]] * c.iterations)):
            if t:
                boxes = self.moved(stages[-1], t - 1, sizes)
                note(
                    f"boxes after stage {t}, sec. 4.1", boxes, of_regions,
                    boxes, valid, stages[-1].scores,
                )  # fmt: skip
            regions = self.pool(levels, boxes.flatten(0, 1), picture_index(boxes))
            note(f"regions of stage {t + 1}, sec. 4.1", regions)
            stages.append(self.look(head, regions, boxes))
        judges = stages
        if c.scored_at == "last":  # Table 2: "the ensemble ... on the 3rd stage proposals"
            others = (other for other in self.heads if other is not head)
            judges = [stages[-1], *(self.look(o, regions, boxes) for o in others)]
        if c.averaged == "logits":
            return stages, torch.stack([j.logits for j in judges]).mean(0).softmax(-1)[..., :-1]
        return stages, torch.stack([j.scores for j in judges]).mean(0)

    def compute(self, batch: Batch) -> Padded:
        """A prepared batch to detections in fixed shapes, in the resized pictures' pixels; masks
        are (B, D, m, m), each over its box."""
        levels = self.levels(batch.images)
        anchors = note("anchors", self.rpn.anchors(levels, batch.images.shape[2:]))
        proposals, valid = self.propose(levels, anchors, batch.sizes, test=True)
        stages, scores = self.refine(levels, proposals, valid, batch.sizes)
        found = self.detections(stages[-1], scores, valid, batch.sizes, len(stages) - 1)
        if not self.config.masks:
            return found
        regions = self.mask_pool(levels, found.boxes.flatten(0, 1), picture_index(found.boxes))
        labels = found.labels.flatten()
        masks = [of_class(head(regions), labels).sigmoid() for head in self.mask_heads.values()]
        mean = torch.stack(masks).mean(0).unflatten(0, found.labels.shape)
        return found._replace(masks=note("masks, TPAMI sec. 6", mean))

    def detections(
        self, stage: Stage, scores: Tensor, valid: Tensor, sizes: Tensor, t: int
    ) -> Padded:
        """What NMS leaves of a stage's boxes, moved by its deltas as stage t's."""
        c = self.config
        return detect(
            scores, stage.deltas, stage.boxes, valid, sizes, self.weights(t), c.score_threshold,
            c.nms_iou, c.max_detections, suppression=suppression(c),
        )  # fmt: skip

    def finish(self, padded: Padded, batch: Batch) -> list[Prediction]:
        """Detections and their masks in the pixels of the caller's pictures."""
        predictions = super().finish(padded, batch)
        if padded.masks is None:
            return predictions
        return pasted(predictions, padded, batch, self.config.mask_threshold)

    def losses(self, batch: Batch, targets: list[Target]) -> dict[str, Tensor]:
        """The RPN's loss on sampled anchors, and each stage's on what the stage before made of the
        sampled proposals (eq. 8)."""
        c = self.config
        levels = self.levels(batch.images)
        anchors = self.rpn.anchors(levels, batch.images.shape[2:])
        losses = self.rpn.losses(levels, anchors, targets)
        test = not self.training
        with torch.no_grad():  # proposals are given to the heads as they are
            proposals, valid = self.propose(levels, anchors, batch.sizes, test)
        objects = pad_objects(targets)
        order = random_order(self, targets, c.proposals[test] + objects.own.shape[1])
        u = c.ious[0]
        rows = sample_rows(
            proposals, valid, objects, order, c.num_classes, c.head_samples,
            c.head_positive_fraction, u, u,
        )  # fmt: skip
        regions, there = rows.regions, rows.counts  # (B, S, 4), (B, S)
        for t, (head, u) in enumerate(zip(self.heads, c.ious[: len(self.heads)], strict=True)):
            if t:  # eq. 5: the same boxes, or those of the stage before, by their own limit
                rows = label_regions(regions, there, objects, c.num_classes, u, u)
            sampled = rows.flat()
            kind = "sampled regions" if t == 0 else f"regions of stage {t + 1}"
            note(f"{kind} and their labels, sec. 5.1", (sampled.regions, sampled.labels))
            features = self.pool(levels, sampled.regions, sampled.picture)
            logits, deltas = head(scaled_gradient(features, 1 / len(self.heads)))
            of_stage = region_losses(
                logits, deltas, sampled, len(targets), self.weights(t), c.head_beta
            )
            if c.masks and str(t + 1) in self.mask_heads:
                of_stage["mask"] = self.mask_loss(t + 1, levels, sampled, targets)
            losses |= {f"{key}_{t + 1}" if t else key: loss for key, loss in of_stage.items()}
            if c.method == "cascade":
                move = decode(deltas.detach()[:, 0], sampled.regions, self.weights(t))
                regions = rows.rows_of(clip(move, batch.sizes[sampled.picture]))
                there = rows.counts & has_area(regions)
        return losses

    def mask_loss(
        self, stage: int, levels: list[Tensor], sampled: Sampled, targets: list[Target]
    ) -> Tensor:
        """Of the mask head at a stage, from 1, on the regions that are an object there."""
        found = sampled.positive()
        logits = self.mask_heads[str(stage)](self.mask_pool(levels, found.regions, found.picture))
        wanted = mask_targets(targets, found, logits.shape[-1], aligned=True, binary=True)
        note(f"masks of stage {stage} and what they should be", (logits, wanted))
        return mask_loss(logits, found.labels, wanted, len(targets))


@register(
    "cascade_rcnn",
    task="detection",
    paper='Cai and Vasconcelos, "Cascade R-CNN", CVPR 2018, arXiv:1712.00726, with FPN',
)
def cascade_rcnn(num_classes: int, **options: Any) -> CascadeRCNN:
    """Cascade R-CNN on a feature pyramid; options are the fields of `Config`, and `size`."""
    return CascadeRCNN(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))


@register(
    "cascade_mask_rcnn",
    task="detection",
    paper='Cai and Vasconcelos, "Cascade R-CNN: High Quality Object Detection and Instance '
    'Segmentation", TPAMI 2019, arXiv:1906.09756, with FPN',
)
def cascade_mask_rcnn(num_classes: int, **options: Any) -> CascadeRCNN:
    """Cascade R-CNN with mask heads; options are the fields of `Config`, and `size`."""
    return cascade_rcnn(num_classes, **{"masks": True, **options})
