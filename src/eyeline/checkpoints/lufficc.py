"""lufficc/SSD's checkpoints: SSD300 and SSD512 with VGG16, of PASCAL VOC, COCO or other classes.

Its pictures are RGB, resized by OpenCV (to whole numbers; ours keep the fraction), less a mean of
whole numbers, and not divided by anything. Background is slot 0. A file does not tell its default
boxes: 81 slots are COCO's, whose published weights have boxes of their own; all others have VOC's.

Departs   Theirs hands every score above its threshold to NMS, ours the best `candidates` (400) of
          each class.
"""

from __future__ import annotations

from typing import Any

from eyeline.checkpoints.names import COCO, VOC
from eyeline.checkpoints.renaming import SSD_PLACES, count, rename, ssd_slots, take_slots
from eyeline.checkpoints.source import Checkpoint, State
from eyeline.errors import EyelineError

HEADS = "box_head.predictor."
TABLE = [
    *(
        (rf"backbone\.vgg\.{place}\.(weight|bias)", rf"backbone.{name}.\1")
        for place, name in SSD_PLACES.items()
    ),
    *(
        (rf"backbone\.extras\.{2 * i + j}\.(weight|bias)", rf"extras.{i}.{name}.\1")
        for i in range(5)
        for j, name in enumerate(("reduce", "output"))
    ),
    (r"backbone\.l2_norm\.weight", r"conv4_norm.weight"),
    (rf"{HEADS}cls_headers\.(\d)\.(weight|bias)", r"class_heads.\1.\2"),
    (rf"{HEADS}reg_headers\.(\d)\.(weight|bias)", r"box_heads.\1.\2"),
]
# Sides of the default boxes, the first of each map and one more, in shares of the picture's.
SCALES = {
    ("ssd300", False): (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05),
    ("ssd300", True): (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
    ("ssd512", False): (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 537.65 / 512),
    ("ssd512", True): (0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06),
}


def read(state: State, where: str, skip: tuple[str, ...] = ()) -> Checkpoint | None:
    """The checkpoint, if its keys are lufficc/SSD's; `skip`: keys that may be left over begin so.

    Raises EyelineError where it is of another network than VGG16.
    """
    if not any(key.startswith(HEADS) for key in state):
        return None
    if not any(key.startswith("backbone.vgg.") for key in state):
        raise EyelineError(
            f"{where} holds lufficc/SSD's SSD with another backbone than VGG16, which is not read"
        )
    layers = ("backbone.conv1_1", "class_heads.0", "box_heads.0")
    ours, renamed, dropped = rename(state, TABLE, layers, where, skip)
    maps, slots = count(ours, "class_heads"), ssd_slots(ours, where)
    name = {6: "ssd300", 7: "ssd512"}.get(maps)
    if name is None:
        raise EyelineError(f"{where} has {maps} maps; SSD300 has 6 and SSD512 has 7")
    take_slots(ours, [*range(1, slots), 0])
    side, first = int(name[3:]), ours["backbone.conv1_1.weight"]
    options: dict[str, Any] = {
        "num_classes": slots - 1,
        "convention": "lufficc",
        "backbone": "vgg16",
        "norm": "none",
        "width": len(first),
        "in_channels": first.shape[1],
        "min_size": side,
        "max_size": side,
        "image_mean": (123 / 255, 117 / 255, 104 / 255),
        "image_std": (1 / 255, 1 / 255, 1 / 255),
        "box_scales": SCALES[name, slots == len(COCO) + 1],
    }
    classes = {len(VOC): list(VOC), len(COCO): list(COCO)}.get(slots - 1)
    return Checkpoint("lufficc", name, where, options, classes, ours, renamed, dropped)
