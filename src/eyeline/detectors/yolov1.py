"""YOLO: Redmon et al., "You Only Look Once: Unified, Real-Time Object Detection", CVPR 2016,
arXiv:1506.02640.

Detection as regression: one network sees the whole picture and fills a grid of 7 x 7 cells. Each
cell says of two boxes where they are and how sure it is of them, and of itself what it shows; the
cell of an object's centre answers for the object, with the one of its boxes that fits it best.

Letters   B pictures, K classes, S cells a side, A boxes a cell (the paper's B), N = S S A in all,
          G objects, D detections at most.
Departs   all numbers of the network are plain outputs, so that a score can be anything; what is
          below 1e-6 or above 1 counts as that. Where no box of a cell overlaps its object, the
          nearest answers (authors' code; the text takes the highest IoU). Of several objects in a
          cell the first counts. Losses are eq. 3, summed over a picture and averaged over the
          batch; the code's gradient is half of it. Thresholds and NMS are the code's. Pictures are
          stretched to the network's size; of another one the last map is averaged to fit.
          `convention="darknet"` is the authors' last file, yolov1.cfg: batch norm, three boxes a
          cell, a locally connected layer in place of the first connected one.
          Connected layers learn each cell apart, which takes very many pictures.
          `head="convolutional"` puts the same two 1x1 convolutions into every cell, as YOLOv2
          does, for data of some hundred pictures.
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
from eyeline.nn.backbones import build_backbone
from eyeline.nn.backbones.darknet import SLOPE, LeakyConv
from eyeline.nn.cells import best_pairs, cells_of, ones_at, owners
from eyeline.nn.darknet_net import DarknetNet
from eyeline.nn.detector import Detector, Preprocess, make_config, suppression
from eyeline.nn.lineage import of_classes, scored
from eyeline.nn.local import Local
from eyeline.note import note
from eyeline.ops.anchors import anchor_grid
from eyeline.ops.boxes import clip, convert
from eyeline.ops.iou import elementwise_iou
from eyeline.ops.matching import IGNORED, assign, pad_objects
from eyeline.ops.select import numbers, take
from eyeline.registry import register
from eyeline.structures import Assignment, Batch, Moves, Padded, Prediction, Target

BACKBONE = "extraction"


@dataclass(frozen=True)
class Config:
    """Numbers of the paper, each with its section."""

    num_classes: int
    convention: str = "paper"
    # Network, sec. 2.1 and Fig. 3
    backbone: str = BACKBONE
    norm: str = "none"  # "batch", "frozen", "group"; the default of other backbones is "batch"
    norm_epsilon: float = 1e-5
    in_channels: int = 3
    neck_width: int = 1024  # of the four convolutions after the pretrained ones
    neck_stride: int = 2  # of the second of them
    head: str = "connected"  # or "local": its own 3x3 kernels for each place; "convolutional"
    head_width: int = 4096  # of the first connected layer, or channels of the one in its place
    dropout: float = 0.5  # sec. 2.2
    layers: tuple[str, ...] = ()  # a network of nn/darknet_sections.py in place of all these
    grid: int = 7  # sec. 2, S
    boxes: int = 2  # sec. 2, B
    # Pictures
    min_size: int = 448  # sec. 2.1: the side of the square to which every picture is stretched
    max_size: int = 448  # the same
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # authors' code: [0, 1] to [-1, 1]
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    # Loss
    box_weight: float = 5.0  # sec. 2.2, lambda_coord
    no_object_weight: float = 0.5  # sec. 2.2, lambda_noobj
    # Detections
    score_threshold: float = 0.005
    candidates: int = 1000
    nms_iou: float = 0.5
    max_detections: int = 100
    nms: str = "hard"  # or "soft_linear", "soft_gaussian"; see eyeline.ops.suppression
    nms_sigma: float = 0.5
    nms_floor: float = 0.001
    class_agnostic_nms: bool = False
    vote_iou: float | None = None


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "darknet": dict(
        norm="batch",
        norm_epsilon=1e-6,
        head="local",
        head_width=256,
        boxes=3,
        image_mean=(0.0, 0.0, 0.0),
        image_std=(1.0, 1.0, 1.0),
    ),
}
LEAST = 1e-6  # that a score's factors can be


class Square(Preprocess):
    """Every picture at the network's one size, whatever tools resized before."""

    def __call__(self, images: Sequence[Tensor], targets: Sequence[Target] | None = None) -> Batch:
        if targets is not None:
            targets = [{k: v for k, v in t.items() if k != "resized"} for t in targets]
        return super().__call__(images, targets)


class Neck(nn.Sequential):
    """Four 3x3 convolutions, of which the second halves the map (Fig. 3)."""

    def __init__(self, inputs: int, width: int, norm: str, eps: float, stride: int) -> None:
        super().__init__(
            LeakyConv(inputs, width, 3, norm, eps),
            LeakyConv(width, width, 3, norm, eps, stride=stride),
            LeakyConv(width, width, 3, norm, eps),
            LeakyConv(width, width, 3, norm, eps),
        )


class YOLOv1(Detector):
    """A grid of cells, filled at once. See `forward` for what goes in and out."""

    network = "heads"
    class_dependent = ("output",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        if c.min_size % 32 or c.min_size < 64:
            raise EyelineError(f"size must be a multiple of 32, 64 at least, not {c.min_size}")
        self.preprocess = Square(
            c.num_classes, c.min_size, c.min_size, c.image_mean, c.image_std, stretch=True
        )
        outputs = c.grid**2 * (c.num_classes + 5 * c.boxes)
        if c.layers:
            how = (c.in_channels, c.min_size, c.norm, c.norm_epsilon)
            self.layers = DarknetNet(c.layers, "detection", outputs, *how)
            self.class_dependent = (f"layers.{self.layers.ends[0]}",)
            return
        self.backbone = build_backbone(
            c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels
        )
        how = (c.norm, c.norm_epsilon, c.neck_stride)
        self.neck = Neck(self.backbone.channels[-1], c.neck_width, *how)
        side = -(-c.min_size // (32 * c.neck_stride))  # of the map
        inputs = c.neck_width * side**2
        self.side = side
        self.dropout = nn.Dropout(c.dropout)
        self.hidden: Local | nn.Linear | nn.Conv2d
        if c.head == "convolutional":
            if side != c.grid:
                raise EyelineError(
                    f'head="convolutional" says a cell at each place of the map: of size '
                    f"{c.min_size} and neck_stride {c.neck_stride} give grid={side}, not {c.grid}"
                )
            self.hidden = nn.Conv2d(c.neck_width, c.head_width, 1)
            self.output: nn.Linear | nn.Conv2d = nn.Conv2d(c.head_width, outputs // side**2, 1)
            return
        if c.head == "local":
            self.hidden = Local(c.neck_width, c.head_width, 3, (side, side))
            hidden = c.head_width * side**2
        else:
            self.hidden, hidden = nn.Linear(inputs, c.head_width), c.head_width
        self.output = nn.Linear(hidden, outputs)

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

    def outputs(self, images: Tensor) -> Tensor:
        """Square pictures (B, C, H, W) to all that is said of them, (B, S S (K + 5 A)), float32."""
        if self.config.layers:
            return self.layers(images.to(self.dtype))[0].flatten(1).float()
        features = note("features C2 to C5", self.backbone(images.to(self.dtype)))
        x = self.neck(features[-1])  # (B, neck_width, H/64, W/64)
        if x.shape[2:] != (self.side, self.side):
            x = F.adaptive_avg_pool2d(x, self.side)
        if self.config.head == "convolutional":
            x = F.leaky_relu(self.hidden(x), SLOPE)
            return self.one_after_another(self.output(self.dropout(x)).float())
        x = x if self.config.head == "local" else x.flatten(1)
        x = F.leaky_relu(self.hidden(x), SLOPE)
        return self.output(self.dropout(x.flatten(1))).float()

    def one_after_another(self, said: Tensor) -> Tensor:
        """What is said cell by cell (B, K + 5 A, S, S) in the order in which `heads` reads it."""
        c = self.config
        parts = said.split([c.num_classes, c.boxes, 4 * c.boxes], 1)
        return torch.cat([part.flatten(2).transpose(1, 2).flatten(1) for part in parts], 1)

    def heads(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Square pictures (B, C, H, W) to classes (B, S S, K), confidences (B, S S, A) and boxes
        (B, S S, A, 4): centres as parts of the cell, square roots of sides as parts of the picture;
        float32."""
        c, said = self.config, self.outputs(images)
        cells = c.grid**2
        # One after another: classes of all cells, then confidences, then boxes (authors' code).
        classes, confidences, boxes = said.split(
            [cells * c.num_classes, cells * c.boxes, cells * c.boxes * 4], 1
        )
        classes = classes.unflatten(1, (cells, -1))
        note("confidences of the cells, sec. 2", confidences, in_grid, confidences, c.grid)
        return classes, confidences.unflatten(1, (cells, -1)), boxes.view(-1, cells, c.boxes, 4)

    def cells(self, canvas: Sequence[int], like: Tensor) -> Tensor:
        """The grid's cells (S S, 4) in a picture of height and width `canvas`."""
        height, width = (side / self.config.grid for side in canvas)
        cell = numbers([-width / 2, -height / 2, width / 2, height / 2], like, like.dtype)[None]
        return anchor_grid(cell, (self.config.grid,) * 2, (height, width))

    def boxes(self, said: Tensor, cells: Tensor) -> Tensor:
        """What is said (B, S S, A, 4) as boxes, xyxy, in cells (S S, 4) (sec. 2)."""
        corner, cell = cells[:, None, :2], (cells[:, 2:] - cells[:, :2])[:, None]  # (S S, 1, 2)
        xy, root = said.split(2, -1)
        centre, half = corner + xy * cell, root**2 * cell * self.config.grid / 2
        return torch.cat([centre - half, centre + half], -1)

    def compute(self, batch: Batch) -> Padded:
        """A prepared batch to detections in fixed shapes, in the resized pictures' pixels."""
        c = self.config
        classes, confidences, said = self.heads(batch.images)
        cells = self.cells(batch.images.shape[2:], said)
        anchors = cells.repeat_interleave(c.boxes, 0)
        note("anchors: the cells, once for each of their boxes, sec. 2", [anchors])
        flat = said.flatten(1, 2), confidences.flatten(1)
        note("boxes as the cells say them, sec. 2", said, Moves, *flat, "parts")
        boxes = clip(self.boxes(said, cells).flatten(1, 2), batch.sizes[:, None])  # (B, N, 4)
        factors = confidences.clamp(LEAST, 1.0)[..., None], classes.clamp(LEAST, 1.0)[:, :, None]
        scores = (factors[0] * factors[1]).flatten(1, 2)  # eq. 1: (B, N, K)
        note("boxes of all cells, sec. 2", boxes, scored, boxes, scores)
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
            "detections, sec. 2.3", found, thin_out.shown,
            boxes, top, labels, valid, c.nms_iou, c.max_detections,
        )  # fmt: skip

    def losses(self, batch: Batch, targets: list[Target]) -> dict[str, Tensor]:
        """Eq. 3: a sum of squares, of which confidences are `objectness`."""
        c = self.config
        classes, confidences, said = self.heads(batch.images)
        canvas, objects = batch.images.shape[2:], pad_objects(targets)
        cells, count = self.cells(canvas, said), c.grid**2
        step = cells[0, 2:] - cells[0, :2]
        centres = convert(objects.boxes, "xyxy", "cxcywh")[..., :2] / step  # (B, G, 2), in cells
        side = torch.full_like(objects.labels, c.grid)
        at = cells_of(centres, torch.ones_like(side), side, side)  # (B, G)
        owner = owners(at.masked_fill(~objects.own, count), count, "amin")  # of several the first
        owned = owner >= 0  # (B, S S)
        box, labels = objects.of(owner)  # (B, S S, 4), (B, S S)
        found = self.boxes(said.detach(), cells)  # (B, S S, A, 4)
        iou = elementwise_iou(found, box[:, :, None])  # (B, S S, A)
        apart = ((convert(found, "xyxy", "cxcywh") - convert(box, "xyxy", "cxcywh")[:, :, None])
                 / max(canvas)).square().sum(-1)  # fmt: skip
        fit = torch.where((iou > 0).any(-1, keepdim=True), iou, -apart)
        best = fit.argmax(-1, keepdim=True) == torch.arange(c.boxes, device=fit.device)
        responsible = best & owned[..., None]  # (B, S S, A)
        # Nothing overlaps by 2: cells within a crowd are ignored, all others background.
        empty = assign(cells, objects, 2.0, 2.0)[..., None]  # (B, S S, 1)
        matches = owner[..., None].where(responsible, empty)  # (B, S S, A)
        note(
            "boxes matched to objects, sec. 2", matches,
            Assignment, objects.boxes, objects.labels, matches.flatten(1), 2.0, 2.0,
        )  # fmt: skip
        weight = torch.where(responsible, 1.0, c.no_object_weight)
        certainty = weight * (confidences - iou.where(responsible, 0)) ** 2
        certainty = certainty.masked_fill(matches == IGNORED, 0)
        truth = ones_at(labels, owned, classes)
        mistakes = ((classes - truth) ** 2).sum(-1).where(owned, 0)  # (B, S S)
        error = (said - self.encode(box, cells, canvas)[:, :, None]) ** 2  # (B, S S, A, 4)
        error = error.sum(-1).where(responsible, 0)
        return {
            "objectness": certainty.sum() / len(targets),
            "classification": mistakes.sum() / len(targets),
            "box": c.box_weight * error.sum() / len(targets),
        }

    def encode(self, boxes: Tensor, cells: Tensor, canvas: Sequence[int]) -> Tensor:
        """What a cell (S S, 4) has to say of boxes (B, S S, 4), one each (sec. 2 and 2.2)."""
        centre, size = convert(boxes, "xyxy", "cxcywh").split(2, -1)
        part = (centre - cells[:, :2]) / (cells[:, 2:] - cells[:, :2])
        return torch.cat([part, (size / numbers(list(canvas)[::-1], size, size.dtype)).sqrt()], -1)


def in_grid(values: Tensor, side: int) -> list[Tensor]:
    """Values (B, S S A) of cells as a list of one map (B, A, S, S)."""
    return [values.unflatten(1, (side, side, -1)).permute(0, 3, 1, 2)]


@register(
    "yolov1",
    task="detection",
    paper='Redmon et al., "You Only Look Once", CVPR 2016, arXiv:1506.02640',
)
def yolov1(num_classes: int, **options: Any) -> YOLOv1:
    """YOLO; options are the fields of `Config`, and `size`, the side of the pictures."""
    if (size := options.pop("size", None)) is not None:
        options = {"min_size": size, "max_size": size} | options
    if options.get("backbone", BACKBONE) != BACKBONE or options.get("layers"):
        options = {"norm": "batch"} | options
    return YOLOv1(make_config(Config, CONVENTIONS, {"num_classes": num_classes, **options}))
