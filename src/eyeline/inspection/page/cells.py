"""What the cells of a YOLO say, and which cell and prior answer for each object, as plain data for
the page's script.

Letters   N priors in all cells, P priors of all scales, A of a cell, G objects.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eyeline.inspection.page.packing import packed
from eyeline.inspection.xray import XRay
from eyeline.nn.cells import LOG_CLAMP, cells_of, claimed
from eyeline.ops.boxes import convert
from eyeline.ops.matching import pad_objects


def cells(x: XRay, names: list[str]) -> dict[str, Any] | str | None:
    """What is said in each row of N, and in which row each object and detection has its prior; None
    where the model's file notes no `Moves`."""
    said = x.moves
    if said is None:
        return None
    if x.pyramid is None:
        return "The cells of this model's file do not stand in maps that it notes."
    count = len(x.prediction["boxes"]) if x.linked else 0
    found: dict[str, Any] = {
        "kind": said.kind,
        "moves": packed(said.moves, "float32"),  # (N, 4)
        "objectness": packed(said.objectness, "float32"),  # (N,)
        "most": LOG_CLAMP,
        "canvas": list(x.batch.images.shape[2:]),
        "detections": [x.rows(d)[0] for d in range(count)],
        "objects": [],
    }
    if x.target is not None and x.learning is not None:
        found["objects"] = _objects(x, said.kind == "parts")
    return found


def _objects(x: XRay, parts: bool) -> list[dict[str, Any]]:
    """Of each object but crowds its row of N, and which other one has it (None: it itself)."""
    assert x.learning is not None
    count, matches = len(x.crowd), x.learning.assignment.matches
    boxes, labels = x.learning.assignment.boxes[:count], x.learning.assignment.labels[:count]
    rows = _cells(x, boxes) if parts else _claims(x, boxes, labels)
    found = []
    for g in (~x.crowd).nonzero()[:, 0].tolist():
        row, by = int(rows[g]), int(matches[rows[g]])
        if parts:  # rows of one cell stand together: which of them answers is told by the network
            per_cell = len(x.anchors[0]) // (x.grids[0][0] * x.grids[0][1])
            answers = (matches[row : row + per_cell] >= 0).nonzero()[:, 0].tolist()
            row += answers[0] if answers else 0
            by = int(matches[row])
        found.append({"object": g, "row": row, "by": by if 0 <= by != g else None})
    return found


def _claims(x: XRay, boxes: Tensor, labels: Tensor) -> Tensor:
    """The row (G,) that each object claims: the prior of the most similar shape, in its cell."""
    canvas = x.batch.images.shape[2:]
    strides = [canvas[0] // height for height, _ in x.grids]
    shapes = []
    for anchors, (height, width) in zip(x.anchors, x.grids, strict=True):
        first = anchors[: len(anchors) // (height * width)]
        shapes.append(first[:, 2:] - first[:, :2])
    objects = pad_objects([{"boxes": boxes, "labels": labels, "iscrowd": x.crowd}])
    return claimed(objects, torch.cat(shapes), strides, canvas)[0][0]


def _cells(x: XRay, boxes: Tensor) -> Tensor:
    """The first row (G,) of the cell in which each object's centre lies, on the one map."""
    [anchors], [(height, width)] = x.anchors, x.grids
    step = anchors[0, 2:] - anchors[0, :2]
    centres = convert(boxes, "xyxy", "cxcywh")[None, :, :2] / step
    one = torch.ones(centres.shape[:2], dtype=torch.int64)
    return cells_of(centres, one, width * one, height * one)[0] * (len(anchors) // (height * width))
