"""Mask R-CNN: He et al., "Mask R-CNN", ICCV 2017, arXiv:1703.06870; on a feature pyramid: Lin et
al., CVPR 2017, arXiv:1612.03144; its first stage and its boxes: Ren et al., "Faster R-CNN",
NeurIPS 2015, arXiv:1506.01497.

Faster R-CNN with a third branch. Beside its class and its box, each region gets K small masks,
one a class, each pixel by a sigmoid of its own: classes do not compete, for the class branch has
chosen already, and only the mask of that class is looked at. Regions are cut out by RoIAlign,
which rounds nothing, so that a mask's pixels lie where the object's do. At test the masks are
computed on the final boxes, not on the proposals.

Letters   B pictures, K classes, A anchors a cell, N_l anchors of level l, P proposals of a picture,
          R regions in all, G objects, D detections at most, m side of a mask.
Departs   Both stages train together, as in the authors' code (sec. 3.1 is silent; Faster R-CNN
          alternates). A pixel of a target is 1 where half of it is covered: the paper says only
          "intersection". Masks are pasted into the box as it is, each cell where RoIAlign read it.
          `convention="torchvision"` is what that library's weights were trained with: as for
          Faster R-CNN one score an anchor, anchors of whole coordinates about the corner of a cell,
          strides fitted to the padded picture, RoIAlign without the half-pixel shift, smooth L1
          bending at 1/9; targets that are the covered share of a pixel, from masks resized by
          their pixels' corners; pasting into boxes cut to whole pixels, as the authors' first code.
          Its second version also has `rpn_depth=2, fpn_norm="batch", head_convs=4, head_layers=1,
          head_norm="batch", mask_norm="batch"` (after Li et al., arXiv:2111.11429).
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
from eyeline.nn.heads.mask import MaskHead, mask_loss, mask_targets, of_class, pasted
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
    """Numbers of the paper (its sections; "F" in Faster R-CNN, "P" in the pyramid's paper)."""

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
    min_size: int = 800  # 3.1
    max_size: int = 1333
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    # Anchors
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)  # 3.1, one a level
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # 3.1
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
    proposals: tuple[int, int] = (2000, 1000)  # 3.1 at test; P 5.2
    # Classes and boxes
    pool_size: int = 7  # Fig. 4, right
    sampling_ratio: int = 2  # 3: four points a bin
    roi_aligned: bool = True
    head_width: int = 1024  # Fig. 4, right
    head_layers: int = 2  # Fig. 4, right: fully connected, 1 or 2;
    head_convs: int = 0  # before them 3x3 convolutions,
    head_norm: str = "none"  # each with such a norm
    head_samples: int = 512  # 3.1
    head_positive_fraction: float = 0.25  # 3.1: positives to negatives 1:3
    head_foreground_iou: float = 0.5  # 3.1
    head_background_iou: float = 0.5  # 3.1
    head_beta: float = 1.0  # Fast R-CNN, eq. 3
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)  # 1 / std of targets
    # Masks
    mask_pool_size: int = 14  # Fig. 4, right; masks have twice as many pixels a side
    mask_width: int = 256  # Fig. 4, right
    mask_depth: int = 4  # Fig. 4, right
    mask_norm: str = "none"  # behind each of its 3x3 convolutions
    mask_targets_binary: bool = True  # 3.1; False: shares between 0 and 1
    mask_resize: str = "nearest-exact"  # of the annotated masks, to the network's picture
    mask_rounded: bool = False  # pasted into boxes of whole pixels
    mask_threshold: float | None = 0.5  # 3.1; None: predictions have probabilities
    # Detections
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100  # 3.1
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
        mask_targets_binary=False,
        mask_resize="nearest",
        mask_rounded=True,
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
STRIDES = (4, 8, 16, 32, 64)  # P2 .. P6; the heads read the first four


class MaskRCNN(Detector):
    """Proposals, then classes, boxes and masks. See `forward` for what goes in and out."""

    class_dependent = ("head.classes", "head.deltas", "mask_head.classes")
    network = "levels"
    needs_masks = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        self.preprocess = Preprocess(
            c.num_classes, c.min_size, c.max_size, c.image_mean, c.image_std, masks=c.mask_resize
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
        align = (STRIDES[:4], "roi_align", c.sampling_ratio, c.roi_aligned)
        self.pool = RoIPooler(c.pool_size, *align)
        self.head = BoxHead(
            c.fpn_channels, c.pool_size, c.num_classes, c.head_width, c.head_convs, c.head_layers,
            c.head_norm,
        )  # fmt: skip
        self.mask_pool = RoIPooler(c.mask_pool_size, *align)
        self.mask_head = MaskHead(
            c.fpn_channels, c.num_classes, c.mask_width, c.mask_depth, c.mask_norm
        )

    def forward(
        self, images: Sequence[Tensor] | Batch, targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[Prediction]:
        """Losses where targets are given, else predictions, in train() and eval() alike.

        Args:
            images: pictures (C, H, W) of any sizes, uint8 or float in [0, 1], or a `Batch`.
            targets: of each picture `boxes` (G, 4) xyxy in its pixels, `labels` (G,) in 0 .. K-1
                and `masks` (G, H, W) bool; objects with `iscrowd` (G,) are never positive.

        Returns:
            losses: `rpn_objectness`, `rpn_box`, `classification`, `box`, `mask`, each a scalar.
            predictions: of each picture `boxes` (N, 4), `scores` (N,), `labels` (N,), best first,
                and `masks` (N, H, W), bool, or float32 where `mask_threshold` is None.
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
        """A prepared batch to detections in fixed shapes, in the resized pictures' pixels; their
        masks are (B, D, m, m), each over its box."""
        c = self.config
        levels = self.levels(batch.images)
        anchors = note("anchors", self.rpn.anchors(levels, batch.images.shape[2:]))
        logits, deltas = self.rpn(levels)  # per level (B, N_l), (B, N_l, 4)
        proposals, valid = self.rpn.propose(
            logits, deltas, anchors, batch.sizes, c.proposals_before_nms[1], c.proposals[1]
        )  # (B, P, 4), (B, P)
        count = proposals.shape[1]
        regions = self.pool(levels, proposals.flatten(0, 1), picture_index(proposals))
        class_logits, box_deltas = self.head(note("regions, sec. 3", regions))
        scores = class_logits.softmax(-1)[:, :-1]  # the last column is background
        found = detect(
            scores.unflatten(0, (-1, count)), box_deltas.unflatten(0, (-1, count)), proposals,
            valid, batch.sizes, c.box_weights, c.score_threshold, c.nms_iou, c.max_detections,
            suppression=suppression(c),
        )  # fmt: skip
        # Sec. 3.1: the mask branch sees the detections, and of its K masks the class's is taken.
        regions = self.mask_pool(levels, found.boxes.flatten(0, 1), picture_index(found.boxes))
        masks = of_class(self.mask_head(regions), found.labels.flatten()).sigmoid()
        return found._replace(masks=note("masks, sec. 3.1", masks.unflatten(0, found.labels.shape)))

    def finish(self, padded: Padded, batch: Batch) -> list[Prediction]:
        """Detections and their masks in the pixels of the caller's pictures."""
        c, predictions = self.config, super().finish(padded, batch)
        return pasted(predictions, padded, batch, c.mask_threshold, c.mask_rounded)

    def losses(self, batch: Batch, targets: list[Target]) -> dict[str, Tensor]:
        """The RPN's loss on sampled anchors, the heads' on sampled proposals: L = L_cls + L_box +
        L_mask (sec. 3), the last on the positive ones alone."""
        c = self.config
        levels = self.levels(batch.images)
        anchors = self.rpn.anchors(levels, batch.images.shape[2:])
        rpn_losses = self.rpn.losses(levels, anchors, targets)
        with torch.no_grad():  # proposals are given to the heads as they are
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
        note("sampled regions and their labels, sec. 3.1", (regions, labels))
        class_logits, box_deltas = self.head(self.pool(levels, regions, picture))
        box_losses = region_losses(
            class_logits, box_deltas, sampled, len(targets), c.box_weights, c.head_beta
        )
        found = sampled.positive()
        mask_logits = self.mask_head(self.mask_pool(levels, found.regions, found.picture))
        wanted = mask_targets(
            targets, found, mask_logits.shape[-1], c.roi_aligned, c.mask_targets_binary
        )
        note("masks and what they should be, sec. 3", (mask_logits, wanted))
        masks = mask_loss(mask_logits, found.labels, wanted, len(targets))
        return rpn_losses | box_losses | {"mask": masks}


@register(
    "mask_rcnn",
    task="detection",
    paper='He et al., "Mask R-CNN", ICCV 2017, arXiv:1703.06870, with FPN',
)
def mask_rcnn(num_classes: int, **options: Any) -> MaskRCNN:
    """Mask R-CNN on a feature pyramid; options are the fields of `Config`, and `size`."""
    return MaskRCNN(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
