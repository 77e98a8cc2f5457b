"""torchvision's FCN with a ResNet, told by its keys and shapes.

Its published files were trained on the pictures of COCO that have PASCAL VOC's classes: 21 with the
background. They have an auxiliary head; a file without one makes a model without it.
"""

from __future__ import annotations

from typing import Any

from eyeline.checkpoints.names import IMAGENET, VOC_REGIONS
from eyeline.checkpoints.renaming import NORM, WB, rename, resnet_of
from eyeline.checkpoints.source import Checkpoint, State

TABLE = [
    (r"backbone\.((?:conv1|bn1|layer[1-4]\..*)\.\w+)", r"backbone.\1"),
    *(
        line
        for theirs, ours in (("classifier", "head"), ("aux_classifier", "auxiliary"))
        for line in (
            (rf"{theirs}\.0\.weight", f"{ours}.hidden.weight"),
            (rf"{theirs}\.1\.{NORM}", rf"{ours}.hidden.norm.\1"),
            (rf"{theirs}\.4\.{WB}", rf"{ours}.score.\1"),
        )
    ),
]


def read(state: State, where: str, skip: tuple[str, ...] = ()) -> Checkpoint | None:
    """The checkpoint, if it is an FCN's; `skip`: keys that may be left over."""
    if not {"backbone.conv1.weight", "classifier.0.weight", "classifier.4.weight"} <= state.keys():
        return None
    ours, renamed, dropped = rename(state, TABLE, ("head.hidden", "head.score"), where, skip)
    count = len(ours["head.score.weight"])
    options: dict[str, Any] = {
        "num_classes": count,
        "backbone": resnet_of(state, "backbone.", where),
        "convention": "torchvision",
        "norm": "batch",
        "norm_epsilon": 1e-5,
        "output_stride": 8,
        "auxiliary": 0.5 if "auxiliary.score.weight" in ours else 0.0,
        "in_channels": ours["backbone.conv1.weight"].shape[1],
    }
    if options["in_channels"] == len(IMAGENET["image_mean"]):
        options |= IMAGENET
    names = list(VOC_REGIONS) if count == len(VOC_REGIONS) else None
    return Checkpoint("torchvision", "fcn", where, options, names, ours, renamed, dropped)
