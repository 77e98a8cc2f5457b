"""luuuyi/RefineDet.PyTorch's checkpoints: RefineDet320 and RefineDet512 with VGG16.

Its pictures are RGB (read as BGR, less the mean in that order, then turned round), resized by
OpenCV (to whole numbers; ours keep the fraction), less a mean of whole numbers, and not divided by
anything. Background is slot 0, of the ARM's two as of the ODM's; 21 slots are PASCAL VOC's.

The weights of both sizes have the same shapes. A file is a RefineDet512 where its name has "512" in
it, as the repository calls them, else a RefineDet320; `create_model("refinedet512", weights=...)`
takes any.

Letters   A anchors of a cell, S slots.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eyeline.checkpoints.names import VOC
from eyeline.checkpoints.renaming import SSD_PLACES, rename
from eyeline.checkpoints.source import Checkpoint, State
from eyeline.errors import EyelineError

MAPS = 4
# The layers of all transfer blocks lie in three lists, each block's one behind the other's, with
# the ReLUs between them.
TABLE = [
    *(
        (rf"vgg\.{place}\.(weight|bias)", rf"backbone.{name}.\1")
        for place, name in SSD_PLACES.items()
    ),
    (r"conv4_3_L2Norm\.weight", r"conv4_norm.weight"),
    (r"conv5_3_L2Norm\.weight", r"conv5_norm.weight"),
    (r"extras\.0\.(weight|bias)", r"conv6_1.\1"),
    (r"extras\.1\.(weight|bias)", r"conv6_2.\1"),
    *(
        (rf"{theirs}\.{place + step * i}\.(weight|bias)", rf"transfer.{i}.{ours}.\1")
        for i in range(MAPS)
        for theirs, place, step, ours in (
            ("tcb0", 0, 3, "first"),
            ("tcb0", 2, 3, "second"),
            ("tcb1", 0, 1, "up"),
            ("tcb2", 1, 3, "output"),
        )
    ),
    (r"arm_conf\.(\d)\.(weight|bias)", r"arm_class_head.\1.\2"),
    (r"arm_loc\.(\d)\.(weight|bias)", r"arm_box_head.\1.\2"),
    (r"odm_conf\.(\d)\.(weight|bias)", r"odm_class_head.\1.\2"),
    (r"odm_loc\.(\d)\.(weight|bias)", r"odm_box_head.\1.\2"),
]  # fmt: skip


def read(state: State, where: str, skip: tuple[str, ...] = ()) -> Checkpoint | None:
    """The checkpoint, if its keys are luuuyi/RefineDet.PyTorch's; `skip`: keys that may be left
    over begin so."""
    if not {"arm_loc.0.weight", "odm_loc.0.weight", "tcb0.0.weight"} <= state.keys():
        return None
    heads = [f"{step}.{i}" for step in ("arm_class_head", "odm_class_head") for i in range(MAPS)]
    layers = (
        "backbone.conv1_1",
        "conv6_1",
        "conv6_2",
        "transfer.0.output",
        "arm_box_head.0",
        *heads,
    )
    ours, renamed, dropped = rename(state, TABLE, layers, where, skip)
    anchors = len(ours["arm_box_head.0.bias"]) // 4
    for head in heads:
        if len(ours[f"{head}.bias"]) % max(1, anchors):
            raise EyelineError(f"{where}: our {head} has outputs that {anchors} anchors do not fit")
        for kind in ("weight", "bias"):
            rows = ours[f"{head}.{kind}"].unflatten(0, (anchors, -1))  # (A, S, ...)
            ours[f"{head}.{kind}"] = rows.roll(-1, 1).flatten(0, 1)  # background last
    count = len(ours["odm_class_head.0.bias"]) // anchors - 1
    first = ours["backbone.conv1_1.weight"]
    options: dict[str, Any] = {
        "num_classes": count,
        "convention": "luuuyi",
        "backbone": "vgg16",
        "norm": "none",
        "extra_norm": "none",
        "width": len(first),
        "in_channels": first.shape[1],
        "extra": (len(ours["conv6_1.weight"]), len(ours["conv6_2.weight"])),
        "tcb_channels": len(ours["transfer.0.output.weight"]),
        "image_mean": (123 / 255, 117 / 255, 104 / 255),
        "image_std": (1 / 255, 1 / 255, 1 / 255),
    }
    name = "refinedet512" if "512" in Path(where).name else "refinedet320"
    classes = list(VOC) if count == len(VOC) else None
    return Checkpoint(
        "luuuyi", name, where, options, classes, ours, renamed, dropped,
        also=("refinedet320", "refinedet512"),
    )  # fmt: skip
