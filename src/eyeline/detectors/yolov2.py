"""YOLOv2: Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", CVPR 2017, arXiv:1612.08242.

One stage, one map: every cell says of each of its five priors whether an object's centre lies
there, how well its box fits, and what it is. The map of 26 x 26 cells is passed through to that of
13 x 13, four of its cells as one.

Letters   B pictures, K classes, A priors a cell, N priors in all cells, G objects, M of them with a
          prior, D detections at most.
Departs   the text gives no loss; this is the authors' region layer, whose gradients are those of
          half a squared error: offsets of centres as fractions of a cell, growth as logarithms,
          objectness towards the IoU of the box that is said (sec. 2). Not its first 12,800
          pictures, in which every prior also learns its own place. Losses are summed over a
          picture, as there, and averaged over the batch. A side grows at most 62.5 times.
          Thresholds and NMS of the detections are the code's.
          `convention="darknet"` is what the authors' last files do otherwise: what passes through
          has 64 channels first, and is taken apart as their code does it (`nn.cells.reorg`), not
          as the text says; small boxes count up to twice; a letter box on grey; batch norm with
          1e-6 (added to the root there, to the variance here).
          Not here: WordTree (sec. 4), and training as a classifier first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.anchors import flatten_cells
from eyeline.nn.backbones import build_backbone
from eyeline.nn.backbones.darknet import LeakyConv
from eyeline.nn.cells import best_pairs, claimed, moved, owners, priors_in_cells, reorg, split
from eyeline.nn.darknet_net import DarknetNet
from eyeline.nn.detector import Detector, Preprocess, make_config, suppression
from eyeline.nn.fused import fused
from eyeline.nn.letterbox import Letterbox, shift
from eyeline.nn.lineage import of_classes, scored
from eyeline.note import note
from eyeline.ops.boxes import clip, convert
from eyeline.ops.iou import elementwise_iou
from eyeline.ops.matching import BACKGROUND, assign, pad_objects
from eyeline.ops.select import indices, take
from eyeline.registry import register
from eyeline.structures import Assignment, Batch, Moves, Padded, Prediction, Target


@dataclass(frozen=True)
class Config:
    """Numbers of the paper, each with its section, or of the authors' configuration files."""

    num_classes: int
    convention: str = "paper"
    # Network
    backbone: str = "darknet19"  # sec. 3
    norm: str = "batch"  # sec. 2; "frozen", "group"
    norm_epsilon: float = 1e-5
    in_channels: int = 3
    neck_width: int = 1024  # sec. 3, training for detection
    tower_depth: int = 2  # 3x3 convolutions before the map passed through comes in; one after
    passthrough: str = "adjacent"  # sec. 2, fine-grained features; "darknet", "none"
    passthrough_width: int = 0  # channels of a 1x1 convolution before it; 0: none
    layers: tuple[str, ...] = ()  # a network of nn/darknet_sections.py in place of all these
    # Pictures
    min_size: int = 416  # sec. 2; the longer side
    max_size: int = 416
    image_mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    image_std: tuple[float, ...] = (1.0, 1.0, 1.0)
    letterbox: bool = False
    # Priors, width and height (sec. 2, dimension clusters): the files' for VOC, 32 pixels a cell
    priors: tuple[float, ...] = (
        42.3072, 55.4064, 102.168, 128.30208, 161.78784, 259.16544, 303.07584, 154.89696,
        359.5648, 320.2272,
    )  # fmt: skip
    # Loss
    ignore_iou: float = 0.6  # of a prior's box with an object, which then is no background
    rescored: bool = True  # sec. 2: objectness learns the IoU; False: 1
    object_weight: float = 5.0
    no_object_weight: float = 1.0
    class_weight: float = 1.0
    box_weight: float = 1.0
    small_box_weight: bool = False  # 2 - the part of the picture that the object covers
    # Detections
    score_threshold: float = 0.005
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
        passthrough="darknet",
        passthrough_width=64,
        letterbox=True,
        small_box_weight=True,
    ),
}
STRIDE = 32  # of a network without `layers`


class Head(nn.Module):
    """From the backbone's maps to what is said of each cell (sec. 3). Registered in the order of
    the authors' files.

    Args:
        fine, coarse: channels of the maps at strides 16 and 32.
        outputs: numbers a cell.
    """

    def __init__(self, fine: int, coarse: int, outputs: int, c: Config) -> None:
        super().__init__()
        how, width = (c.norm, c.norm_epsilon), c.neck_width
        self.passthrough = c.passthrough
        self.tower = nn.Sequential()
        for _ in range(c.tower_depth):
            self.tower.append(LeakyConv(coarse, width, 3, *how))
            coarse = width
        self.reduce: LeakyConv | None = None
        if c.passthrough != "none":
            if c.passthrough_width:
                self.reduce = LeakyConv(fine, c.passthrough_width, 1, *how)
            coarse += 4 * (c.passthrough_width or fine)
        self.last = LeakyConv(coarse, width, 3, *how)
        self.output = nn.Conv2d(width, outputs, 1)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(B, fine, H/16, W/16) and (B, coarse, H/32, W/32) to (B, outputs, H/32, W/32)."""
        x = self.tower(coarse)
        if self.passthrough != "none":
            if self.reduce is not None:
                fine = self.reduce(fine)
            x = torch.cat([reorg(fine, self.passthrough), x], 1)
        return fused(self.last(x), self.output)


class YOLOv2(Detector):
    """One stage, one map, priors. See `forward` for what goes in and out."""

    network = "heads"
    class_dependent = ("head.output",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        kind = Letterbox if c.letterbox else Preprocess
        self.preprocess = kind(c.num_classes, c.min_size, c.max_size, c.image_mean, c.image_std)
        if not c.priors or len(c.priors) % 2 or min(c.priors) <= 0:
            raise EyelineError(f"priors are widths and heights, all positive; got {c.priors}")
        shapes = torch.tensor(c.priors, dtype=torch.float32).reshape(-1, 2)
        self.register_buffer("shapes", shapes, persistent=False)  # (A, 2)
        outputs, self.stride = len(shapes) * (5 + c.num_classes), STRIDE
        if c.layers:
            how = (c.in_channels, c.max_size, c.norm, c.norm_epsilon)
            self.layers = DarknetNet(c.layers, "region", outputs, *how)
            self.preprocess.divisor, (self.stride,) = self.layers.divisor, self.layers.strides
            self.class_dependent = (f"layers.{self.layers.ends[0]}",)
            return
        self.backbone = build_backbone(
            c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels
        )
        fine, coarse = list(self.backbone.channels)[2:]
        self.head = Head(fine, coarse, outputs, c)

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

    def heads(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Padded pictures (B, C, H, W) to outputs (B, N, 5 + K), which are four moves, objectness
        and classes, and priors in their cells (N, 4), float32."""
        if self.config.layers:
            said = self.layers(images.to(self.dtype))[0]
        else:
            features = note("features C2 to C5", self.backbone(images.to(self.dtype)))
            said = self.head(*features[2:])  # (B, A (5 + K), H/32, W/32)
        note("outputs of the cells, sec. 2", [said])
        priors = priors_in_cells(self.shapes, said.shape[2:], self.stride)
        note("anchors: the priors in their cells, sec. 2", [priors])
        return flatten_cells(said, 5 + self.config.num_classes).float(), priors

    def compute(self, batch: Batch) -> Padded:
        """A prepared batch to detections in fixed shapes, in the resized pictures' pixels."""
        c = self.config
        outputs, priors = self.heads(batch.images)
        moves, objectness, classes = split(outputs)
        note("moves of all priors, sec. 2", moves, Moves, moves, objectness, "logistic")
        boxes = moved(moves, priors, self.stride)  # (B, N, 4)
        boxes = clip(boxes - shift(batch), batch.sizes[:, None])
        scores = objectness.sigmoid()[..., None] * classes.softmax(-1)  # (B, N, K)
        note("boxes of all priors, sec. 2", boxes, scored, boxes, scores)
        top, rows, labels, valid = best_pairs(
            scores.amax(-1), partial(take, scores), c.candidates, c.score_threshold
        )
        boxes = take(boxes, rows)  # (B, C, 4)
        note(
            "candidates over the threshold", valid, of_classes,
            boxes, top, labels, valid, rows, scores, c.score_threshold, c.candidates,
        )  # fmt: skip
        thin_out = suppression(c)
        found = thin_out(boxes, top, labels, valid, c.nms_iou, c.max_detections)  # (B, D)
        return note(
            "detections", found, thin_out.shown,
            boxes, top, labels, valid, c.nms_iou, c.max_detections,
        )  # fmt: skip

    def losses(self, batch: Batch, targets: list[Target]) -> dict[str, Tensor]:
        """Objectness of all priors but the ignored, classes and boxes of those with an object;
        summed over each picture, then the mean of the batch."""
        c = self.config
        outputs, priors = self.heads(batch.images)
        moves, objectness, classes = split(outputs)  # (B, N, 4), (B, N), (B, N, K)
        canvas, own = batch.images.shape[2:], pad_objects(targets)
        objects = own._replace(boxes=own.boxes + shift(batch))  # on the canvas
        said = moved(moves.detach(), priors, self.stride)  # (B, N, 4)
        # Above the threshold a prior is ignored; an object belongs to the one that it claims.
        matches = assign(said, objects, 2.0, c.ignore_iou)  # (B, N)
        owner = owners(*claimed(objects, self.shapes, [self.stride], canvas))  # of several the last
        matches = torch.where(owner >= 0, owner, matches)
        note(
            "priors matched to objects, sec. 2", matches,
            Assignment, own.boxes, own.labels, matches, 2.0, c.ignore_iou,
        )  # fmt: skip
        background = (objectness.sigmoid() ** 2 / 2).where(matches == BACKGROUND, 0).sum()
        found, labels = objects.of(matches)  # (B, N, 4), (B, N)
        # The positive ones; on a GPU all priors, for its host must not look (ops/select.py).
        picture, row = indices(matches >= 0)  # (M,) both
        counts, prior = (matches >= 0)[picture, row], priors[row]
        box = found[picture, row].where(counts[:, None], prior)
        fits = (
            elementwise_iou(said[picture, row], box) if c.rescored else torch.ones_like(box[:, 0])
        )
        present = (objectness[picture, row].sigmoid() - fits) ** 2 / 2  # (M,)
        classification = F.cross_entropy(
            classes[picture, row], labels[picture, row], reduction="none"
        )
        errors = self.box_loss(moves[picture, row], box, prior)
        if c.small_box_weight:
            errors = errors * (2 - (box[:, 2:] - box[:, :2]).prod(-1) / (canvas[0] * canvas[1]))
        present, classification, errors = (
            part.where(counts, 0).sum() for part in (present, classification, errors)
        )
        weighted = {
            "objectness": c.object_weight * present + c.no_object_weight * background,
            "classification": c.class_weight * classification,
            "box": c.box_weight * errors,
        }
        return {name: value / len(targets) for name, value in weighted.items()}

    def box_loss(self, moves: Tensor, boxes: Tensor, priors: Tensor) -> Tensor:
        """Half the squared error of moves (M, 4) from those that lead to boxes (M, 4): (M,)."""
        centre, size = convert(boxes, "xyxy", "cxcywh").split(2, -1)
        prior_centre, prior_size = convert(priors, "xyxy", "cxcywh").split(2, -1)
        t_xy, t_wh = moves.split(2, -1)
        part = ((centre - prior_centre) / self.stride + 0.5).clamp(0, 1)  # of the cell
        growth = (size / prior_size).log()
        return ((t_xy.sigmoid() - part) ** 2 + (t_wh - growth) ** 2).sum(-1) / 2


@register(
    "yolov2",
    task="detection",
    paper='Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", CVPR 2017, arXiv:1612.08242',
)
def yolov2(num_classes: int, **options: Any) -> YOLOv2:
    """YOLOv2; options are the fields of `Config`, and `size`, the longer side."""
    if (size := options.pop("size", None)) is not None:
        options = {"min_size": size, "max_size": size} | options
    return YOLOv2(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
