"""yhenon/pytorch-retinanet's checkpoints: RetinaNet with a ResNet, as state dicts or whole models.

`torch.save(model)`, which its training does, names that repository's classes; they are not run, for
`eyeline.checkpoints.inert` takes the tensors out. Pictures are RGB with ImageNet's mean and
deviation, their shorter side 608, the longer 1024 at most.

Departs   Theirs cuts boxes to the picture with its padding, ours to the picture, and hands every
          score above the threshold to NMS, ours the best 1000 of each level. Sizes of resized
          pictures are rounded down, theirs to the nearest, and smoothed. Its loss of classes keeps
          probabilities 1e-4 off 0 and 1.

Of 80 classes the file is taken to be of COCO, whose names it then gets.
"""

from __future__ import annotations

from typing import Any

from eyeline.checkpoints.names import COCO
from eyeline.checkpoints.renaming import count, rename, resnet_of
from eyeline.checkpoints.source import Checkpoint, State
from eyeline.errors import EyelineError

HEADS = ("classificationModel.output.weight", "regressionModel.output.weight")
TABLE = [
    (r"((?:conv1|bn1|layer[1-4]\..*)\.\w+)", r"backbone.\1"),
    *(
        (rf"fpn\.P{level}_{i}\.(weight|bias)", rf"fpn.{ours}.{level - 3}.\1")
        for level in (3, 4, 5)
        for i, ours in ((1, "lateral"), (2, "output"))
    ),
    (r"fpn\.P6\.(weight|bias)", r"fpn.extra.0.\1"),
    (r"fpn\.P7_2\.(weight|bias)", r"fpn.extra.1.\1"),
    *(
        (rf"{theirs}Model\.conv{i + 1}\.(weight|bias)", rf"{ours}_head.tower.{i}.\1")
        for theirs, ours in (("classification", "class"), ("regression", "box"))
        for i in range(4)
    ),
    (r"classificationModel\.output\.(weight|bias)", r"class_head.output.\1"),
    (r"regressionModel\.output\.(weight|bias)", r"box_head.output.\1"),
]


def read(state: State, where: str, skip: tuple[str, ...] = ()) -> Checkpoint | None:
    """The checkpoint, if its keys are pytorch-retinanet's; `skip`: keys that may be left over."""
    if not any(head in state for head in HEADS):
        return None
    layers = ("fpn.output.0", "fpn.extra.0", "class_head.output", "box_head.output")
    ours, renamed, dropped = rename(state, TABLE, layers, where, skip)
    anchors = len(ours["box_head.output.bias"]) // 4
    if anchors != 9:
        raise EyelineError(f"{where} has {anchors} anchors a cell; 9 are read")
    classes = len(ours["class_head.output.bias"]) // anchors
    options: dict[str, Any] = {
        "num_classes": classes,
        "convention": "yhenon",
        "backbone": resnet_of(state, "", where),
        "norm": "frozen",
        "norm_epsilon": 1e-5,
        "fpn_channels": len(ours["fpn.output.0.weight"]),
        "tower_depth": count(ours, "class_head.tower"),
        "min_size": 608,
        "max_size": 1024,
    }
    names = list(COCO) if classes == len(COCO) else None
    return Checkpoint("yhenon", "retinanet", where, options, names, ours, renamed, dropped)
