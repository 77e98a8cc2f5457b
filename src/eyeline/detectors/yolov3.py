"""YOLOv3: Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018, arXiv:1804.02767.

One stage, three scales: every cell of each says of each of its three priors whether an object's
centre lies there, what it is, and how far its box differs from the prior. An object belongs to one
prior alone: of all nine the one of the most similar shape, in the cell of its centre.

Letters   B pictures, K classes, A priors a cell, N_l priors of scale l, N in all, G objects,
          P priors of all scales, D detections at most.
Departs   a fraction of a cell has no logit at the cell's border, to which the paper's squared error
          would pull; it is kept MARGIN off. A side grows at most 62.5 times. Losses are summed over
          a picture, as in the authors' code, and averaged over the batch.
          `convention="darknet"` is what that code does where the text says otherwise or nothing:
          an ignored prior is one whose *predicted* box overlaps an object by 0.7 (text: the prior
          itself, by 0.5); offsets learn by cross-entropy; small boxes count up to twice; a letter
          box on grey; batch norm with 1e-6 (added to the root there, to the variance here).
          `convention="mmdetection"` is that library's: pictures of RGB in the corner of the canvas,
          detections by two thresholds, of objectness and of the class, and chosen for NMS by the
          class alone; boxes may leave the picture. (Its losses weigh boxes twice.)
          Both: thresholds and NMS of the detections are the code's.
          `yolov3_tiny` is in the authors' files alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.losses.focal import sigmoid_focal_loss
from eyeline.nn.anchors import flatten_cells
from eyeline.nn.backbones import build_backbone
from eyeline.nn.backbones.darknet import LeakyConv
from eyeline.nn.cells import best_pairs, claimed, moved, owners, priors_in_cells, split
from eyeline.nn.darknet_net import DarknetNet
from eyeline.nn.detector import Detector, Preprocess, make_config, suppression
from eyeline.nn.fused import fused
from eyeline.nn.letterbox import Letterbox, shift
from eyeline.nn.lineage import every_pair, of_pairs
from eyeline.note import note
from eyeline.ops.boxes import clip, convert, has_area
from eyeline.ops.matching import IGNORED, assign, pad_objects
from eyeline.ops.select import indices, take
from eyeline.registry import register
from eyeline.structures import Assignment, Batch, Moves, Padded, Prediction, Target


@dataclass(frozen=True)
class Config:
    """Numbers of the paper, each with its section, or of the authors' configuration file."""

    num_classes: int
    convention: str = "paper"
    # Network
    backbone: str = "darknet53"  # sec. 2.4
    norm: str = "batch"  # "frozen", "group"
    norm_epsilon: float = 1e-5
    in_channels: int = 3
    neck_width: int = 1024  # of the coarsest scale, half of it at each finer one
    tower_depths: tuple[int, ...] = (5, 5, 5)  # coarsest first; "several", sec. 2.3
    layers: tuple[str, ...] = ()  # a network of nn/darknet_sections.py in place of all these
    # Pictures
    min_size: int = 416  # sec. 3: 320, 416, 608; the longer side
    max_size: int = 416
    image_mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    image_std: tuple[float, ...] = (1.0, 1.0, 1.0)
    letterbox: bool = False
    # Priors: width, height, of all scales, finest first (sec. 2.3)
    priors: tuple[float, ...] = (
        10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326
    )  # fmt: skip
    offsets: str = "logistic"  # sec. 2.1; tried in sec. 4: "linear" in cells, "anchor" in priors
    # Loss
    ignore_iou: float = 0.5  # sec. 2.1
    ignore_by: str = "prior"  # or the predicted "box"
    foreground_iou: float | None = None  # sec. 4: two thresholds; from this one on an object too
    offset_loss: str = "squared"  # sec. 2.1, or "logistic"
    small_box_weight: bool = False  # 2 - the part of the picture that the object covers
    gamma: float = 0.0  # of a focal loss of objectness, tried in sec. 4; 0: cross-entropy
    alpha: float = -1.0  # its weight of objects, below 0 none
    # Detections
    score_threshold: float = 0.005
    chosen_by: str = "score"  # what that is of, and candidates are best in; or "class"
    objectness_threshold: float = 0.0  # no candidates are below
    clipped: bool = True  # to the picture
    keep_empty: bool = True  # also boxes of which nothing lies in the picture
    candidates: int = 1000
    nms_iou: float = 0.45
    max_detections: int = 100
    nms: str = "hard"  # or "soft_linear", "soft_gaussian"; see eyeline.ops.suppression
    nms_sigma: float = 0.5
    nms_floor: float = 0.001
    class_agnostic_nms: bool = False
    vote_iou: float | None = None


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "darknet": dict(
        norm_epsilon=1e-6,
        letterbox=True,
        ignore_iou=0.7,
        ignore_by="box",
        offset_loss="logistic",
        small_box_weight=True,
    ),
    "mmdetection": dict(
        score_threshold=0.05,
        chosen_by="class",
        objectness_threshold=0.005,
        clipped=False,
        keep_empty=False,
    ),
}
TINY: dict[str, Any] = dict(
    backbone="darknet_tiny",
    neck_width=512,
    tower_depths=(1, 0),
    priors=(10, 14, 23, 27, 37, 58, 81, 82, 135, 169, 344, 319),
)
COARSEST = 32  # stride; half of it at each finer scale
MARGIN = 1e-3


class Scale(nn.Module):
    """What is said at one scale, of the backbone's map and what the coarser scale passes on (sec.
    2.3). Registered in the order of the authors' files.

    Args:
        inputs, coarser: channels of the two; 0 where no scale is coarser.
        width: of 3x3 convolutions; the 1x1 in between have half.
        depth: convolutions in the part that the finer scale reads.
        outputs: numbers a cell.
    """

    def __init__(
        self, inputs: int, coarser: int, width: int, depth: int, outputs: int, norm: str, eps: float
    ) -> None:
        super().__init__()
        self.reduce = LeakyConv(coarser, coarser // 2, 1, norm, eps) if coarser else None
        channels = inputs + coarser // 2
        self.tower = nn.Sequential()
        for i in range(depth):
            wanted, kernel = (width, 3) if i % 2 else (width // 2, 1)
            self.tower.append(LeakyConv(channels, wanted, kernel, norm, eps))
            channels = wanted
        self.channels = channels
        self.last = LeakyConv(channels, width, 3, norm, eps)
        self.output = nn.Conv2d(width, outputs, 1)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, inputs, H, W) and (B, coarser, H/2, W/2) to (B, outputs, H, W) and what goes on."""
        if self.reduce is not None:
            above = F.interpolate(self.reduce(coarser), scale_factor=2.0)  # (B, coarser/2, H, W)
            x = torch.cat([above, x], 1)
        x = self.tower(x)
        return fused(self.last(x), self.output), x


class Scales(nn.ModuleList):
    """Coarsest first, each fed by the one before: maps C2..C5 to outputs, finest first."""

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        said: list[Tensor] = []
        passed = None
        for scale, feature in zip(self, features[::-1], strict=False):
            output, passed = scale(feature, passed)
            said.append(output)
        return said[::-1]


class YOLOv3(Detector):
    """One stage, one prior an object. See `forward` for what goes in and out."""

    network = "heads"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        kind = Letterbox if c.letterbox else Preprocess
        self.preprocess = kind(c.num_classes, c.min_size, c.max_size, c.image_mean, c.image_std)
        count = sum(line.startswith("yolo") for line in c.layers) or len(c.tower_depths)
        if not count:
            raise EyelineError("tower_depths are empty; a number for each scale, one at least")
        self.per_cell = len(c.priors) // (2 * count)
        if not c.priors or len(c.priors) % (2 * count) or min(c.priors) <= 0:
            raise EyelineError(
                f"priors are widths and heights, positive, as many at each of {count} scales; "
                f"got {c.priors}"
            )
        shapes = torch.tensor(c.priors, dtype=torch.float32).reshape(-1, 2)
        self.register_buffer("shapes", shapes, persistent=False)  # (P, 2)
        outputs = self.per_cell * (5 + c.num_classes)
        if c.layers:
            how = (c.in_channels, c.max_size, c.norm, c.norm_epsilon)
            self.layers = DarknetNet(c.layers, "yolo", outputs, *how)
            self.preprocess.divisor, self.strides = self.layers.divisor, self.layers.strides
            self.class_dependent = tuple(f"layers.{name}" for name in self.layers.ends)
            return
        self.backbone = build_backbone(
            c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels
        )
        self.strides = [COARSEST >> i for i in range(count)][::-1]  # finest first
        inputs = list(self.backbone.channels)[::-1]
        if count > len(inputs):
            raise EyelineError(
                f"tower_depths are of {count} scales; {c.backbone} has {len(inputs)} maps"
            )
        self.scales = Scales()
        passed, width = 0, c.neck_width
        for channels, depth in zip(inputs, c.tower_depths, strict=False):
            norm = (c.norm, c.norm_epsilon)
            self.scales.append(Scale(channels, passed, width, depth, outputs, *norm))
            passed, width = self.scales[-1].channels, width // 2
        self.class_dependent = tuple(f"scales.{i}.output" for i in range(count))

    def forward(
        self, images: Sequence[Tensor] | Batch, targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[Prediction]:
        """Losses where targets are given, else predictions, in train() and eval() alike.

        Args:
            images: pictures (C, H, W) of any sizes, uint8 or float in [0, 1], or a `Batch`.
            targets: of each picture `boxes` (G, 4) xyxy in its pixels and `labels` (G,) in
                0 .. K-1; objects with `iscrowd` (G,) are never positive.

        Returns:
            losses: `objectness`, `classification`, `box`, each a scalar.
            predictions: of each picture `boxes` (N, 4), `scores` (N,), `labels` (N,), best first.
        """
        batch = self.prepare(images, targets).to(self.device)
        if batch.targets is None:
            return self.finish(self.compute(batch), batch)
        return self.losses(batch, batch.targets)

    def heads(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Padded pictures (B, C, H, W) to outputs (B, N_l, 5 + K), which are four moves, objectness
        and classes, and priors in their cells (N_l, 4), finest scale first, float32."""
        if self.config.layers:
            said = self.layers(images.to(self.dtype))
        else:
            said = self.scales(note("features C2 to C5", self.backbone(images.to(self.dtype))))
        note("outputs of the scales, sec. 2.3", said)
        priors = zip(said, self.shapes.split(self.per_cell), self.strides, strict=True)
        anchors = [
            priors_in_cells(shapes, output.shape[2:], stride) for output, shapes, stride in priors
        ]
        note("anchors: the priors in their cells, sec. 2.3", anchors)
        numbers_each = 5 + self.config.num_classes
        return [flatten_cells(output, numbers_each).float() for output in said], anchors

    def strides_of(self, anchors: list[Tensor]) -> Tensor:
        """The stride of each prior's cell, (N, 1)."""
        pairs = zip(anchors, self.strides, strict=True)
        return torch.cat([torch.full_like(a[:, :1], stride) for a, stride in pairs])

    def compute(self, batch: Batch) -> Padded:
        """A prepared batch to detections in fixed shapes, in the resized pictures' pixels."""
        c = self.config
        outputs, anchors = self.heads(batch.images)
        moves, objectness, classes = split(torch.cat(outputs, 1))
        note("moves of all priors, sec. 2.1", moves, Moves, moves, objectness, c.offsets)
        boxes = moved(moves, torch.cat(anchors), self.strides_of(anchors), c.offsets)
        boxes = boxes - shift(batch)  # (B, N, 4)
        boxes = clip(boxes, batch.sizes[:, None]) if c.clipped else boxes
        sure = objectness.sigmoid()  # (B, N), what a class's score is multiplied by
        factor = sure.new_ones(()).expand_as(sure) if c.chosen_by == "class" else sure
        note("boxes of all priors, sec. 2.1", boxes, every_pair, boxes, sure, factor, classes)
        if c.objectness_threshold > 0:
            factor = factor * (sure >= c.objectness_threshold)

        def pairs(rows: Tensor) -> Tensor:  # (B, k) to (B, k, K)
            return take(factor, rows)[..., None] * take(classes, rows).sigmoid()

        best = factor * classes.amax(-1).sigmoid()
        scores, rows, labels, valid = best_pairs(best, pairs, c.candidates, c.score_threshold)
        scores = scores * take(sure, rows) if c.chosen_by == "class" else scores
        boxes = take(boxes, rows)  # (B, C, 4)
        valid = valid if c.keep_empty else valid & has_area(boxes)
        note(
            "candidates over the threshold", valid, of_pairs,
            boxes, scores, labels, valid, rows, sure, factor, classes,
            c.objectness_threshold, c.score_threshold, c.candidates,
        )  # fmt: skip
        thin_out = suppression(c)
        found = thin_out(boxes, scores, labels, valid, c.nms_iou, c.max_detections)  # (B, D)
        return note(
            "detections", found, thin_out.shown,
            boxes, scores, labels, valid, c.nms_iou, c.max_detections,
        )  # fmt: skip

    def losses(self, batch: Batch, targets: list[Target]) -> dict[str, Tensor]:
        """Objectness of all priors but the ignored, classes and boxes of those with an object;
        summed over each picture, then the mean of the batch."""
        c = self.config
        outputs, level_anchors = self.heads(batch.images)
        moves, objectness, classes = split(torch.cat(outputs, 1))  # (B, N, 4), (B, N), (B, N, K)
        anchors, strides = torch.cat(level_anchors), self.strides_of(level_anchors)
        canvas, own = batch.images.shape[2:], pad_objects(targets)
        objects = own._replace(boxes=own.boxes + shift(batch))  # on the canvas
        regions = anchors
        if c.ignore_by == "box":
            regions = moved(moves.detach(), anchors, strides, c.offsets)  # (B, N, 4)
        # With one threshold nothing overlaps enough: what is above it is ignored.
        foreground = 2.0 if c.foreground_iou is None else c.foreground_iou
        matches = assign(regions, objects, foreground, c.ignore_iou)  # (B, N)
        rows, count = claimed(objects, self.shapes, self.strides, canvas)  # (B, G)
        owner = owners(rows, count)  # of several the last
        matches = torch.where(owner >= 0, owner, matches)
        note(
            "priors matched to objects, sec. 2.1", matches,
            Assignment, own.boxes, own.labels, matches, foreground, c.ignore_iou,
        )  # fmt: skip
        positive = matches >= 0
        wanted = positive.to(objectness.dtype)
        no_object = sigmoid_focal_loss(objectness[..., None], wanted[..., None], c.alpha, c.gamma)
        found, labels = objects.of(matches)  # (B, N, 4), (B, N)
        # A prior that several claim is of the classes of all (sec. 2.2).
        truth = F.pad(torch.zeros_like(classes), (0, 0, 0, 1))  # (B, N + 1, K)
        truth[:, :-1].scatter_(2, labels[..., None], wanted[..., None])
        pair = rows * c.num_classes + objects.labels
        truth = truth.flatten(1).scatter(1, pair, 1.0).view_as(truth)
        # The positive ones; on a GPU all priors, for its host must not look (ops/select.py).
        picture, row = indices(positive)  # (M,) both
        counts = positive[picture, row][:, None]
        box = found[picture, row].where(counts, anchors[row])
        classification = F.binary_cross_entropy_with_logits(
            classes[picture, row], truth[picture, row], reduction="none"
        )  # sec. 2.2
        errors = self.box_loss(moves[picture, row], box, anchors[row], strides[row])
        if c.small_box_weight:
            area = (box[:, 2:] - box[:, :2]).prod(-1, keepdim=True) / (canvas[0] * canvas[1])
            errors = errors * (2 - area)
        return {
            "objectness": no_object[..., 0].where(matches != IGNORED, 0).sum() / len(targets),
            "classification": classification.where(counts, 0).sum() / len(targets),
            "box": errors.where(counts, 0).sum() / len(targets),
        }

    def box_loss(self, moves: Tensor, boxes: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
        """Half the squared error of moves (M, 4) from those that lead to boxes (M, 4): (M, 4)."""
        c = self.config
        centre, size = convert(boxes, "xyxy", "cxcywh").split(2, -1)
        prior_centre, prior_size = convert(anchors, "xyxy", "cxcywh").split(2, -1)
        t_xy, t_wh = moves.split(2, -1)
        step = centre - prior_centre
        part = (step / strides + 0.5).clamp(0, 1)  # of the cell
        if c.offsets == "anchor":
            xy = (t_xy - step / prior_size) ** 2 / 2
        elif c.offsets == "linear":
            xy = (t_xy - part) ** 2 / 2
        elif c.offset_loss == "logistic":  # the gradient is that of a squared error of sigmoids,
            xy = F.binary_cross_entropy_with_logits(t_xy, part, reduction="none")  # less a factor
        else:
            xy = (t_xy - part.logit(MARGIN)) ** 2 / 2  # sec. 2.1
        return torch.cat([xy, (t_wh - (size / prior_size).log()) ** 2 / 2], -1)


PAPER = 'Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018, arXiv:1804.02767'


@register("yolov3", task="detection", paper=PAPER)
def yolov3(num_classes: int, **options: Any) -> YOLOv3:
    """YOLOv3; options are the fields of `Config`, and `size`, the longer side."""
    if (size := options.pop("size", None)) is not None:
        options = {"min_size": size, "max_size": size} | options
    return YOLOv3(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))


@register("yolov3_tiny", task="detection", paper=PAPER)
def yolov3_tiny(num_classes: int, **options: Any) -> YOLOv3:
    """The authors' small YOLOv3, of two scales; options as of `yolov3`."""
    return yolov3(num_classes, **TINY | options)
