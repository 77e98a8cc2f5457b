"""RefineDet: Zhang et al., "Single-Shot Refinement Neural Network for Object Detection", CVPR 2018,
arXiv:1711.06897.

Two steps in one pass. On four maps the anchor refinement module (ARM) says of each anchor whether
it holds an object, and moves it a first time. Transfer connection blocks (TCB) carry the same maps,
each joined by the coarser one, to the object detection module (ODM), which says what lies there and
moves the box a second time.

What the two steps have to do with each other, which is easily mistaken:

    maps ---> ARM: object or not, first move -------------+   nothing flows back from here
      |                                                   v
      +-----> TCB -> ODM: classes, second move ---> matching, loss, decoding

A transfer block reads the ARM's map, not what the ARM says. The ODM's convolutions stay where the
anchors stand and never read the refined ones. Only what is computed from both does: an object is
matched to refined anchors, the second move is encoded from them, and decoding makes both moves.

Letters   B pictures, K classes, N_l anchors of map l, N in all, G objects, C candidates, D
          detections at most. The last slot, 1 of the ARM's and K of the ODM's, is background.
Departs   The text discards an anchor that the ARM is sure is background from all of the ODM's
          training, the authors' code from the negatives alone: `discarded`. The text takes the best
          400 of a picture into NMS and keeps 200, the code 1000 of each class and 500:
          `convention="caffe"` is the code, whose detections may also jut out of the picture.
          `convention="luuuyi"` is the public PyTorch port: it discards positives alone, and mines
          these as negatives with their object's class; it has no anchor wider than the picture, and
          gives an object's best anchor to the last that wants it. (It means to keep 500 and keeps
          all.)
          An IoU of exactly 0.5 is an object; the text says "higher than". In RGB (the authors':
          BGR). From scratch all convolutions start as the paper's new ones do.
          Another `backbone` gives C3 to C5; behind them stand the same two layers as behind VGG16,
          where the paper's ResNet-101 has a residual block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eyeline.losses.multibox import multibox
from eyeline.nn.anchors import AnchorPyramid
from eyeline.nn.backbones import VGG, build_backbone
from eyeline.nn.backbones.vgg import L2Norm, ReducedVGG16, xavier
from eyeline.nn.cells import best_pairs
from eyeline.nn.detector import Detector, Preprocess, make_config, suppression
from eyeline.nn.fused import fused
from eyeline.nn.heads.maps import MapHeads
from eyeline.nn.layers import ConvNorm
from eyeline.nn.lineage import anchors_as_they_stand, of_classes, of_regions, refined_anchors
from eyeline.note import note
from eyeline.ops.boxes import clip
from eyeline.ops.deltas import decode
from eyeline.ops.matching import BACKGROUND, Objects, assign, pad_objects
from eyeline.ops.mining import mined
from eyeline.ops.select import best_of_classes, take
from eyeline.registry import register
from eyeline.structures import Assignment, Batch, Padded, Prediction, Target


@dataclass(frozen=True)
class Config:
    """Numbers of the paper for RefineDet320, each with its section."""

    num_classes: int
    convention: str = "paper"
    # Network
    backbone: str = "vgg16"  # sec. 4; or a ResNet
    norm: str = "none"  # of VGG16; of others see OTHERS
    extra_norm: str = "none"  # of the extra layers and transfer blocks
    norm_epsilon: float = 1e-5  # a ResNet's
    in_channels: int = 3
    width: int = 64  # channels of VGG16's first stage, of which its others are multiples
    map_scales: tuple[float, float] = (10.0, 8.0)  # sec. 4: of conv4_3 and conv5_3
    extra: tuple[int, int] = (256, 512)  # authors' code: channels of conv6_1 and conv6_2
    tcb_channels: int = 256  # Fig. 2
    # Pictures
    min_size: int = 320  # sec. 4: the side of the square to which every picture is stretched
    max_size: int = 320  # unless `stretch` is off: then as elsewhere
    stretch: bool = True
    image_mean: tuple[float, ...] = (123 / 255, 117 / 255, 104 / 255)
    image_std: tuple[float, ...] = (1 / 255, 1 / 255, 1 / 255)
    # Anchors, sec. 4: four times the stride, in pixels; height over width
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256)
    anchor_ratios: tuple[float, ...] = (1.0, 0.5, 2.0)
    anchor_clipped: bool = False  # no anchor is wider or higher than `min_size`
    # Loss
    foreground_iou: float = 0.5  # sec. 4
    claims: str = "distinct"  # sec. 4, each object's best anchor; see eyeline.ops.claims
    filter_above: float = 0.99  # sec. 3: theta, how sure the ARM may be of background
    discarded: str = "all"  # what of those the ODM does not learn: or "negatives", "positives"
    negatives: float = 3.0  # sec. 4, to a positive, of the ARM and of the ODM
    box_weight: float = 1.0  # eq. 1
    box_beta: float = 1.0
    box_variances: tuple[float, float] = (0.1, 0.2)  # authors' code: of shifts and of growth
    # Detections, sec. 4
    score_threshold: float = 0.01
    clipped: bool = True  # to the picture, before NMS
    candidates: int = 400
    candidates_per_class: bool = False  # else of a picture
    nms_iou: float = 0.45
    max_detections: int = 200
    nms: str = "hard"  # or "soft_linear", "soft_gaussian"; see eyeline.ops.suppression
    nms_sigma: float = 0.5
    nms_floor: float = 0.001
    class_agnostic_nms: bool = False
    vote_iou: float | None = None


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "caffe": dict(
        discarded="negatives",
        clipped=False,
        candidates=1000,
        candidates_per_class=True,
        max_detections=500,
    ),
    "luuuyi": dict(
        anchor_clipped=True,
        claims="last",
        discarded="positives",
        clipped=False,
        candidates=1000,
        candidates_per_class=True,
        max_detections=500,
    ),
}
STRIDES = (8, 16, 32, 64)
OTHERS: dict[str, Any] = dict(  # where the backbone is not VGG16: what ResNets were trained with
    norm="batch", image_mean=(0.485, 0.456, 0.406), image_std=(0.229, 0.224, 0.225)
)


class TransferBlock(nn.Module):
    """Transfer connection block, Fig. 2: a map of the ARM's, and the next coarser one of the
    ODM's, to the map of the ODM's. The coarsest has none above it."""

    def __init__(self, inputs: int, channels: int, norm: str, coarsest: bool) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, channels, 3, norm)
        self.second = ConvNorm(channels, channels, 3, norm)
        self.up = None
        if not coarsest:
            self.up = nn.ConvTranspose2d(channels, channels, 2, 2)
            nn.init.xavier_uniform_(self.up.weight)
            nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]
        self.output = ConvNorm(channels, channels, 3, norm)

    def forward(self, x: Tensor, above: Tensor | None) -> Tensor:
        joined = self.up(above) if self.up is not None else None  # (B, 256, H_l, W_l)
        x = fused(x, self.first, relu=True)
        x = fused(x, self.second, add=joined, relu=True)
        return fused(x, self.output, relu=True)


class Transfer(nn.ModuleList):
    """A transfer block for each map, from the coarsest down: maps (B, C_l, H_l, W_l) -> levels
    (B, channels, H_l, W_l), fine to coarse both."""

    def __init__(self, inputs: Sequence[int], channels: int, norm: str) -> None:
        last = len(inputs) - 1
        super().__init__(
            TransferBlock(c, channels, norm, level == last) for level, c in enumerate(inputs)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        levels: list[Tensor] = []
        for level, block in zip(reversed(maps), reversed(self), strict=True):
            levels.insert(0, block(level, levels[0] if levels else None))
        return levels


class RefineDet(Detector):
    """Anchors are refined, then detected from. See `forward` for what goes in and out."""

    class_dependent = ("odm_class_head",)
    network = "heads"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        self.preprocess = Preprocess(
            c.num_classes, c.min_size, c.max_size, c.image_mean, c.image_std, STRIDES[-1],
            stretch=c.stretch,
        )  # fmt: skip
        self.weights = tuple(1 / v for v in c.box_variances for _ in range(2))
        self.conv4_norm: L2Norm | None = None
        self.conv5_norm: L2Norm | None = None
        if c.backbone == VGG:
            # pool5 halves its map, so fc6 looks half as far as SSD's.
            self.backbone = ReducedVGG16(c.norm, c.in_channels, c.width, (2, 2, 0), dilation=3)
            channels = list(self.backbone.channels)
            self.conv4_norm, self.conv5_norm = map(L2Norm, channels, c.map_scales)
        else:
            self.backbone = build_backbone(
                c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels
            )
            channels = self.backbone.channels[1:]
        inner, outer = c.extra
        self.conv6_1 = ConvNorm(channels[-1], inner, 1, c.extra_norm)
        self.conv6_2 = ConvNorm(inner, outer, 3, c.extra_norm, stride=2)
        channels.append(outer)
        self.anchors = AnchorPyramid([[size] for size in c.anchor_sizes], c.anchor_ratios, STRIDES)
        if c.anchor_clipped:
            self.anchors.cells.clamp_(-c.min_size / 2, c.min_size / 2)
        self.transfer = Transfer(channels, c.tcb_channels, c.extra_norm)
        same, each = [c.tcb_channels] * len(channels), [self.anchors.per_cell] * len(channels)
        self.arm_class_head = MapHeads(channels, each, 2)  # object or background
        self.arm_box_head = MapHeads(channels, each, 4)
        self.odm_class_head = MapHeads(same, each, c.num_classes + 1)
        self.odm_box_head = MapHeads(same, each, 4)
        for name, part in self.named_children():
            if name != "backbone":
                xavier(part)

    def forward(
        self, images: Sequence[Tensor] | Batch, targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[Prediction]:
        """Losses where targets are given, else predictions, in train() and eval() alike.

        Args:
            images: pictures (C, H, W) of any sizes, uint8 or float in [0, 1], or a `Batch`.
            targets: of each picture `boxes` (G, 4) xyxy in its pixels and `labels` (G,) in
                0 .. K-1; objects with `iscrowd` (G,) are never positive.

        Returns:
            losses: `arm_objectness`, `arm_box`, `classification`, `box`, each a scalar.
            predictions: of each picture `boxes` (N, 4), `scores` (N,), `labels` (N,), best first.
        """
        batch = self.prepare(images, targets).to(self.device)
        if batch.targets is None:
            return self.finish(self.compute(batch), batch)
        return self.losses(batch, batch.targets)

    def heads(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Padded pictures (B, C, H, W) to what the ARM says, objectness (B, N, 2) and first moves
        (B, N, 4), what the ODM says, logits (B, N, K + 1) and second moves (B, N, 4), and the
        anchors (N, 4) in pixels, all float32."""
        maps = self.backbone(images.to(self.dtype))
        note(f"features C{6 - len(maps)} to C5, sec. 4", maps)
        maps = maps[-3:]
        maps.append(fused(fused(maps[-1], self.conv6_1, relu=True), self.conv6_2, relu=True))
        if self.conv4_norm is not None and self.conv5_norm is not None:
            maps[:2] = self.conv4_norm(maps[0]), self.conv5_norm(maps[1])
        note("maps of the ARM, Fig. 1", maps)
        levels = note("levels P3 to P6 of the ODM, Fig. 2", self.transfer(maps))
        anchors = note("anchors, sec. 4", self.anchors(maps, images.shape[2:]))
        arm = self.arm_class_head(maps), self.arm_box_head(maps)
        return *arm, self.odm_class_head(levels), self.odm_box_head(levels), torch.cat(anchors)

    def compute(self, batch: Batch) -> Padded:
        """A prepared batch to detections in fixed shapes, in the resized pictures' pixels."""
        c = self.config
        objectness, first, logits, second, anchors = self.heads(batch.images)
        background = objectness.softmax(-1)[..., 1]  # (B, N)
        kept = background <= c.filter_above
        note("all anchors, sec. 4", anchors, anchors_as_they_stand, anchors, background)
        refined = decode(first, anchors, self.weights)  # (B, N, 4)
        note(
            "anchors refined and filtered by the ARM, sec. 3", refined, refined_anchors,
            refined, background, kept, c.filter_above,
        )  # fmt: skip
        moved = decode(second, refined, self.weights)  # (B, N, 4)
        moved = clip(moved, batch.sizes[:, None]) if c.clipped else moved
        scores = logits.softmax(-1)[..., :-1].masked_fill(~kept[..., None], 0)  # (B, N, K)
        note("boxes of the ODM, sec. 3", moved, of_regions, moved, kept, scores)
        if c.candidates_per_class:
            top, chosen, labels, valid = best_of_classes(scores, c.score_threshold, c.candidates)
        else:
            top, chosen, labels, valid = best_pairs(
                scores.amax(-1), lambda rows: take(scores, rows), c.candidates, c.score_threshold
            )
        boxes = take(moved, chosen)  # (B, C, 4)
        note(
            "candidates over the threshold, sec. 4", valid, of_classes,
            boxes, top, labels, valid, chosen, scores, c.score_threshold, c.candidates, kept,
        )  # fmt: skip
        thin_out = suppression(c)
        found = thin_out(boxes, top, labels, valid, c.nms_iou, c.max_detections)  # (B, D)
        return note(
            "detections, sec. 4", found, thin_out.shown,
            boxes, top, labels, valid, c.nms_iou, c.max_detections,
        )  # fmt: skip

    def losses(self, batch: Batch, targets: list[Target]) -> dict[str, Tensor]:
        """Eq. 1: of the ARM, object or not, and of the ODM, which class, each with the boxes of its
        positives; both divided by the number of these, and 0 where there are none."""
        c = self.config
        objectness, first, logits, second, anchors = self.heads(batch.images)
        objects = pad_objects(targets)
        matches = self.matched("anchors matched to objects, sec. 4", anchors, objects)  # (B, N)
        positive = matches >= 0
        arm = self.step(
            "positives and hardest negatives of the ARM, sec. 4", objectness, first,
            anchors.expand(len(targets), -1, -1), objects, matches, (~positive).long(),
            positive, matches == BACKGROUND,
        )  # fmt: skip
        # The ODM's anchors are those that the ARM has moved. They are given: the ARM does not learn
        # from what becomes of them.
        refined = decode(first.detach(), anchors, self.weights)  # (B, N, 4)
        matches = self.matched("refined anchors matched to objects, sec. 4", refined, objects)
        sure = objectness.detach().softmax(-1)[..., 1] > c.filter_above
        positive, negative = matches >= 0, matches == BACKGROUND
        truth = objects.of(matches)[1].where(positive, c.num_classes)
        if c.discarded == "positives":  # those discarded are negatives with an object's class
            positive, negative = positive & ~sure, negative | (positive & sure)
        else:
            positive = positive & ~sure if c.discarded == "all" else positive
            negative = negative & ~sure
        odm = self.step(
            "positives and hardest negatives of the ODM, sec. 3 and 4", logits, second,
            refined, objects, matches, truth, positive, negative,
        )  # fmt: skip
        return {
            "arm_objectness": arm[0],
            "arm_box": c.box_weight * arm[1],
            "classification": odm[0],
            "box": c.box_weight * odm[1],
        }

    def matched(self, name: str, anchors: Tensor, objects: Objects) -> Tensor:
        """`assign` of anchors (N, 4) or (B, N, 4), noted."""
        c = self.config
        limits = (c.foreground_iou, c.foreground_iou)
        matches = assign(anchors, objects, *limits, claims=c.claims)
        return note(name, matches, Assignment, objects.boxes, objects.labels, matches, *limits)

    def step(
        self,
        name: str,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        objects: Objects,
        matches: Tensor,
        truth: Tensor,
        positive: Tensor,
        negative: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The two losses of one step, and what mining took, noted."""
        c = self.config
        boxes, _ = objects.of(matches)
        loss = multibox(
            logits, deltas, anchors, boxes, truth, positive, negative, c.negatives, self.weights,
            c.box_beta,
        )  # fmt: skip
        note(name, loss.mined, mined, positive, loss.mined, loss.taken, loss.each)
        return loss.classification, loss.box


PAPER = (
    'Zhang et al., "Single-Shot Refinement Neural Network for Object Detection", CVPR 2018, '
    "arXiv:1711.06897"
)


@register("refinedet320", task="detection", paper=PAPER)
def refinedet320(num_classes: int, **options: Any) -> RefineDet:
    """RefineDet for pictures of 320 x 320; options are the fields of `Config`, and `size`."""
    options = {"num_classes": num_classes, **options}
    if options.get("backbone", VGG) != VGG:
        options = {**OTHERS, **options}
    return RefineDet(make_config(Config, CONVENTIONS, options))


@register("refinedet512", task="detection", paper=PAPER)
def refinedet512(num_classes: int, **options: Any) -> RefineDet:
    """RefineDet for pictures of 512 x 512."""
    if "size" not in options:
        options = {"min_size": 512, "max_size": 512, **options}
    return refinedet320(num_classes, **options)
