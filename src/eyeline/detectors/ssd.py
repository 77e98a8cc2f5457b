"""SSD: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv:1512.02325.

One stage: on six maps (seven at 512), from 38 x 38 cells down to one, every cell says of each of
its default boxes which class lies there, if any, and how to move the box onto the object. Each
map has its own small convolution for that; nothing is shared between scales.

Letters   B pictures, K classes, L maps, N_l default boxes of map l, N in all, G objects,
          C candidates, D detections at most. Slot K of the K + 1 confidences is background.
Departs   the scales are whole percents as in the authors' code, where eq. 4 gives 0.375, 0.55 ...
          A default box with an IoU of exactly 0.5 is an object; the text says "higher than".
          The picture is stretched to a square, in RGB (the authors': BGR). From scratch all
          convolutions start as the paper's new ones do; its VGG16 had learned classes before.
          A default box has its share of 300 pixels (of `min_size`) in a picture of any size, so
          that a larger one shows small objects as the network knows larger ones (test-time
          augmentation); of 300 x 300 pixels that is eq. 4.
          `convention="torchvision"` is what that library's weights were trained with: boxes of
          COCO's scales at fixed strides, no wider than the picture, each object's best box taken
          by the last of those that want it, a mean of its own. "lufficc" is the repository of that
          name: as the paper, but for the strides, a claim by the last, boxes whose centres stay in
          the picture, and detections that need not.
          `convention="mmdetection"` is that library's: fixed strides, a claim by the last, no
          detections without an area, RGB. (Of each map it takes the 1000 best pairs of box and
          class to NMS, this file the 400 best boxes of each class.)
          Another `backbone` than VGG16 gives its maps at strides 8, 16 and 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.losses.multibox import multibox
from eyeline.nn.backbones import VGG, build_backbone
from eyeline.nn.backbones.vgg import L2Norm, ReducedVGG16, xavier
from eyeline.nn.detector import Detector, Preprocess, make_config, suppression
from eyeline.nn.fused import fused
from eyeline.nn.heads.maps import MapHeads
from eyeline.nn.layers import ConvNorm
from eyeline.nn.lineage import of_classes, scored
from eyeline.note import note
from eyeline.ops.anchors import anchor_grid
from eyeline.ops.boxes import clip, has_area
from eyeline.ops.deltas import decode
from eyeline.ops.matching import BACKGROUND, assign, pad_objects
from eyeline.ops.mining import mined
from eyeline.ops.select import best_of_classes, take
from eyeline.registry import register
from eyeline.structures import Assignment, Batch, Padded, Prediction, Target


@dataclass(frozen=True)
class Config:
    """Numbers of the paper for SSD300, each with its section."""

    num_classes: int
    convention: str = "paper"
    # Network
    backbone: str = "vgg16"  # sec. 3; or a ResNet
    norm: str = "none"  # of VGG16; of others see OTHERS
    extra_norm: str = "none"  # of the extra layers; one cell alone has no statistics of a batch
    norm_epsilon: float = 1e-5  # a ResNet's
    in_channels: int = 3
    width: int = 64  # channels of VGG16's first stage, of which all other widths are multiples
    conv4_scale: float = 20.0  # sec. 3.1
    # Fig. 2: channels of the 1x1, channels, kernel, stride and padding of what follows it
    extras: tuple[tuple[int, int, int, int, int], ...] = (
        (256, 512, 3, 2, 1),  # conv8_2
        (128, 256, 3, 2, 1),
        (128, 256, 3, 1, 0),
        (128, 256, 3, 1, 0),  # conv11_2
    )
    # Pictures
    min_size: int = 300  # sec. 3: the side of the square to which every picture is stretched
    max_size: int = 300  # unless `stretch` is off: then as elsewhere
    stretch: bool = True
    image_mean: tuple[float, ...] = (123 / 255, 117 / 255, 104 / 255)
    image_std: tuple[float, ...] = (1 / 255, 1 / 255, 1 / 255)
    # Default boxes, sec. 2.2 and 3.1: a scale for each map, and one more; ratios for each map
    box_scales: tuple[float, ...] = (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05)
    box_ratios: tuple[tuple[float, ...], ...] = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    box_strides: tuple[int, ...] = ()  # pixels, at `min_size`; none: picture's side over the map's
    box_clipped: bool = False  # no box is wider or higher than `min_size`
    centres_clipped: bool = False  # no box is centred outside the picture
    # Loss
    foreground_iou: float = 0.5  # sec. 2.2
    claims: str = "distinct"  # sec. 2.2, the first step; see eyeline.ops.claims
    negatives: float = 3.0  # sec. 2.2, to a positive
    box_weight: float = 1.0  # eq. 1, alpha
    box_beta: float = 1.0
    box_variances: tuple[float, float] = (0.1, 0.2)  # authors' code: of shifts and of growth
    # Detections, sec. 3.7
    score_threshold: float = 0.01
    clipped: bool = True  # to the picture, before NMS
    keep_empty: bool = True  # also boxes of which nothing lies in the picture
    candidates: int = 400  # a class; authors' code
    nms_iou: float = 0.45
    max_detections: int = 200
    nms: str = "hard"  # or "soft_linear", "soft_gaussian"; see eyeline.ops.suppression
    nms_sigma: float = 0.5
    nms_floor: float = 0.001
    class_agnostic_nms: bool = False
    vote_iou: float | None = None


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "torchvision": dict(
        image_mean=(0.48235, 0.45882, 0.40784),
        box_scales=(0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
        box_strides=(8, 16, 32, 64, 100, 300),
        box_clipped=True,
        claims="last",
    ),
    "lufficc": dict(
        box_strides=(8, 16, 32, 64, 100, 300),
        box_clipped=True,
        centres_clipped=True,
        claims="last",
        clipped=False,
        max_detections=100,
    ),
    "mmdetection": dict(
        image_mean=(123.675 / 255, 116.28 / 255, 103.53 / 255),
        box_scales=(0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
        box_strides=(8, 16, 32, 64, 100, 300),
        claims="last",
        score_threshold=0.02,
        keep_empty=False,
    ),
}
SSD512: dict[str, Any] = dict(  # footnote 5: one map more
    min_size=512,
    max_size=512,
    extras=((256, 512, 3, 2, 1), *((128, 256, 3, 2, 1),) * 3, (128, 256, 4, 1, 1)),
    box_scales=(0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05),
    box_ratios=((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    box_strides=(),
)
OTHERS: dict[str, Any] = dict(  # where the backbone is not VGG16: what ResNets were trained with
    norm="batch", image_mean=(0.485, 0.456, 0.406), image_std=(0.229, 0.224, 0.225)
)


class Extra(nn.Module):
    """A 1x1 convolution and a larger one, which makes the map smaller (Fig. 2)."""

    def __init__(self, inputs: int, inner: int, outputs: int, norm: str, *shape: int) -> None:
        super().__init__()
        kernel, stride, padding = shape
        self.reduce = ConvNorm(inputs, inner, 1, norm)
        self.output = ConvNorm(inner, outputs, kernel, norm, stride, padding)
        self.reach = kernel - 2 * padding

    def forward(self, x: Tensor) -> Tensor:
        x = fused(x, self.reduce, relu=True)
        # Of a smaller picture than the paper's a map may be smaller than the kernel.
        missing = [max(0, self.reach - side) for side in (x.shape[3], x.shape[2])]
        if any(missing):
            x = F.pad(x, (0, missing[0], 0, missing[1]))
        return fused(x, self.output, relu=True)


class Extras(nn.ModuleList):
    """The extra layers one after another: (B, C, H, W) -> the map of each."""

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for layer in self:
            maps.append(layer(maps[-1] if maps else x))
        return maps


class SSD(Detector):
    """One stage on maps of many scales. See `forward` for what goes in and out."""

    class_dependent = ("class_heads",)
    network = "heads"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        self.preprocess = Preprocess(
            c.num_classes, c.min_size, c.max_size, c.image_mean, c.image_std, 1, stretch=c.stretch
        )
        self.weights = tuple(1 / v for v in c.box_variances for _ in range(2))
        self.conv4_norm: L2Norm | None = None
        if c.backbone == VGG:
            self.backbone = ReducedVGG16(c.norm, c.in_channels, c.width)
            channels = [self.backbone.channels[0], self.backbone.channels[2]]
            self.conv4_norm = L2Norm(channels[0], c.conv4_scale)
        else:
            self.backbone = build_backbone(
                c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels
            )
            channels = self.backbone.channels[1:]
        missing = len(c.box_ratios) - len(channels)  # maps that the backbone has not
        self.check(missing)
        self.extras = Extras()
        for inner, outputs, *shape in c.extras[len(c.extras) - missing :]:
            inner, outputs = inner * c.width // 64, outputs * c.width // 64
            self.extras.append(Extra(channels[-1], inner, outputs, c.extra_norm, *shape))
            channels.append(outputs)
        limit = 1.0 if c.box_clipped else None
        cells = default_boxes(c.box_scales, c.box_ratios, limit)
        for i, cell in enumerate(cells):
            self.register_buffer(f"cell_{i}", c.min_size * cell, persistent=False)  # (A_l, 4)
        counts = [len(cell) for cell in cells]
        self.class_heads = MapHeads(channels, counts, c.num_classes + 1)
        self.box_heads = MapHeads(channels, counts, 4)
        for part in (self.extras, self.class_heads, self.box_heads):
            xavier(part)

    def check(self, missing: int) -> None:
        """Raises EyelineError where the options are of different numbers of maps."""
        c, maps = self.config, len(self.config.box_ratios)
        if not 0 <= missing <= len(c.extras) or len(c.box_scales) != maps + 1:
            raise EyelineError(
                f"box_ratios are of {maps} maps: box_scales needs {maps + 1} numbers, not "
                f"{len(c.box_scales)}, and extras {max(0, missing)} layers, not {len(c.extras)}"
            )
        if len(c.box_strides) not in (0, maps):
            raise EyelineError(f"box_strides needs {maps} numbers or none, not {c.box_strides}")

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

    def heads(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures (B, C, H, W) to logits (B, N, K + 1), deltas (B, N, 4) and default boxes (N, 4)
        in pixels, float32."""
        maps = self.backbone(images.to(self.dtype))
        if self.conv4_norm is None:
            maps = note("features C2 to C5", maps)[1:]
        else:
            note("features C3 to C5 (conv4_3, conv5_3, fc7)", maps)
            maps = [self.conv4_norm(maps[0]), maps[2]]
        maps = note("levels of all scales, Fig. 2", [*maps, *self.extras(maps[-1])])
        boxes = note("anchors (default boxes), sec. 2.2", self.boxes(maps, images.shape[2:]))
        return self.class_heads(maps), self.box_heads(maps), torch.cat(boxes)

    def boxes(self, maps: Sequence[Tensor], image_size: Sequence[int]) -> list[Tensor]:
        """The default boxes (N_l, 4) of each map (B, C, H_l, W_l), in the picture's pixels."""
        c, (height, width) = self.config, image_size
        # Those of 300 pixels are for 300: of pictures stretched to other sizes the map decides.
        strides = c.box_strides if not c.stretch or height == c.min_size else ()
        found = []
        for i, level in enumerate(maps):
            rows, columns = level.shape[2:]
            steps = (height / rows, width / columns)
            if strides:
                steps = (strides[i],) * 2
            boxes = anchor_grid(getattr(self, f"cell_{i}"), (rows, columns), steps)
            if c.centres_clipped:
                x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).unbind(1)
                beyond = torch.stack([(x - width).clamp(min=0), (y - height).clamp(min=0)], 1)
                boxes = boxes - beyond.repeat(1, 2)
            found.append(boxes)
        return found

    def compute(self, batch: Batch) -> Padded:
        """A prepared batch to detections in fixed shapes, in the resized pictures' pixels."""
        c = self.config
        logits, deltas, anchors = self.heads(batch.images)
        scores = logits.softmax(-1)[..., :-1]  # (B, N, K)
        moved = decode(deltas, anchors, self.weights)  # (B, N, 4)
        moved = clip(moved, batch.sizes[:, None]) if c.clipped else moved
        note("boxes of all default boxes, sec. 2.1", moved, scored, moved, scores)
        top, rows, labels, valid = best_of_classes(scores, c.score_threshold, c.candidates)
        boxes = take(moved, rows)  # (B, C, 4), class by class
        valid = valid if c.keep_empty else valid & has_area(boxes)
        note(
            "candidates over the threshold, sec. 3.7", valid, of_classes,
            boxes, top, labels, valid, rows, scores, c.score_threshold, c.candidates,
        )  # fmt: skip
        thin_out = suppression(c)
        found = thin_out(boxes, top, labels, valid, c.nms_iou, c.max_detections)  # (B, D)
        return note(
            "detections, sec. 3.7", found, thin_out.shown,
            boxes, top, labels, valid, c.nms_iou, c.max_detections,
        )  # fmt: skip

    def losses(self, batch: Batch, targets: list[Target]) -> dict[str, Tensor]:
        """Softmax loss of the positive default boxes and of the hardest negatives, smooth L1 of the
        positive ones (eq. 1 to 3); both divided by the number of the latter in the batch, and 0
        where there are none."""
        c = self.config
        logits, deltas, anchors = self.heads(batch.images)
        objects = pad_objects(targets)
        limits = (c.foreground_iou, c.foreground_iou)
        matches = assign(anchors, objects, *limits, claims=c.claims)  # (B, N)
        note(
            "default boxes matched to objects, sec. 2.2", matches,
            Assignment, objects.boxes, objects.labels, matches, *limits,
        )  # fmt: skip
        positive = matches >= 0
        boxes, labels = objects.of(matches)  # (B, N, 4), (B, N)
        truth = labels.where(positive, c.num_classes)
        loss = multibox(
            logits, deltas, anchors.expand_as(deltas), boxes, truth, positive,
            matches == BACKGROUND, c.negatives, self.weights, c.box_beta,
        )  # fmt: skip
        note(
            "positives and hardest negatives, sec. 2.2", loss.mined,
            mined, positive, loss.mined, loss.taken, loss.each,
        )  # fmt: skip
        return {"classification": loss.classification, "box": c.box_weight * loss.box}


def default_boxes(
    scales: Sequence[float], ratios: Sequence[Sequence[float]], limit: float | None = None
) -> list[Tensor]:
    """Each map's default boxes (A_l, 4) about the origin, for a picture of side 1 (sec. 2.2).

    A square of the map's scale s_k, one of sqrt(s_k s_k+1), and for each ratio a lying and a
    standing box of s_k's area; no side is longer than `limit`.
    """
    cells = []
    for (scale, after), shapes in zip(pairwise(scales), ratios, strict=True):
        sides = [(scale, scale), ((scale * after) ** 0.5,) * 2]
        for ratio in shapes:
            long, short = scale * ratio**0.5, scale / ratio**0.5
            sides += [(long, short), (short, long)]
        half = torch.tensor(sides) / 2
        half = half if limit is None else half.clamp(max=limit / 2)
        cells.append(torch.cat([-half, half], 1))
    return cells


PAPER = 'Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv:1512.02325'


@register("ssd300", task="detection", paper=PAPER)
def ssd300(num_classes: int, **options: Any) -> SSD:
    """SSD for pictures of 300 x 300; options are the fields of `Config`, and `size`."""
    options = {"num_classes": num_classes, **options}
    if options.get("backbone", VGG) != VGG:
        options = {**OTHERS, **options}
    return SSD(make_config(Config, CONVENTIONS, options))


@register("ssd512", task="detection", paper=PAPER)
def ssd512(num_classes: int, **options: Any) -> SSD:
    """SSD for pictures of 512 x 512, with a seventh map."""
    if "size" in options:  # which stands for these two
        options = {"min_size": options["size"], "max_size": options["size"], **options}
        del options["size"]
    return ssd300(num_classes, **{**SSD512, **options})
