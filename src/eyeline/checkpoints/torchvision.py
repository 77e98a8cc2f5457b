"""torchvision's checkpoints: ResNet classifiers; Faster R-CNN, Mask R-CNN and RetinaNet with a
ResNet and FPN; SSD300 with VGG16; FCN with a ResNet (`torchvision_segmentation`).

What a file holds is told by its keys and shapes alone, so fine-tuned files and other ResNets load
as the published ones do. timm's ResNets have the names of torchvision's.

Letters   S slots of the file's class layers (its background is slot 0), K classes of ours (S - 1,
          without background), A anchors of a cell.

The 91 slots of the COCO files are COCO's category ids: 80 classes, 10 ids that nothing has, and
background. They become the 80 contiguous classes, or ids 1..90 as labels 0..89 where 90 classes
are asked for.

The published COCO weights of these detectors were trained with a frozen batch norm that adds
nothing to the variance, and torchvision sets its epsilon to 0 for them. A file does not tell its
epsilon; a detector with frozen norms gets 0, and `create_model(norm_epsilon=1e-5)` sets another.
The second versions ("_v2": norms in the pyramid, deeper heads) were trained with a batch norm of
the usual 1e-5. Their RetinaNet's box loss was GIoU, which no file tells: norms in its towers do.
"""

from __future__ import annotations

import re
from typing import Any

from eyeline.checkpoints.names import COCO, COCO_SLOTS, IMAGENET
from eyeline.checkpoints.renaming import (
    NORM,
    by_cell,
    count,
    norm_of,
    of_heads,
    rename,
    resnet_of,
    ssd_slots,
    take_slots,
    vgg_places,
)
from eyeline.checkpoints.source import COUNTER, Checkpoint, State
from eyeline.errors import EyelineError

# Their names -> ours. Two namings of the pyramid, the RPN, the towers and the mask head exist:
# files from before torchvision 0.13 (the mask head's: 0.14), and those written since.
BODY = r"(?:conv1|bn1|layer[1-4]\..*)\.\w+"
NECK = [
    (rf"backbone\.body\.({BODY})", r"backbone.\1"),
    (r"backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?\.(weight|bias)", r"fpn.lateral.\1.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?\.(weight|bias)", r"fpn.output.\1.\2"),
    (rf"backbone\.fpn\.inner_blocks\.(\d)\.1\.{NORM}", r"fpn.lateral.\1.norm.\2"),
    (rf"backbone\.fpn\.layer_blocks\.(\d)\.1\.{NORM}", r"fpn.output.\1.norm.\2"),
]
FASTER_RCNN = [
    *NECK,
    (r"rpn\.head\.conv(?:\.0\.0)?\.(weight|bias)", r"rpn.conv.\1"),
    *((rf"rpn\.head\.conv\.{i}\.0\.(weight|bias)", rf"rpn.deeper.{i - 1}.\1") for i in range(1, 9)),
    (r"rpn\.head\.cls_logits\.(weight|bias)", r"rpn.objectness.\1"),
    (r"rpn\.head\.bbox_pred\.(weight|bias)", r"rpn.deltas.\1"),
    (r"roi_heads\.box_head\.fc6\.(weight|bias)", r"head.fc1.\1"),
    (r"roi_heads\.box_head\.fc7\.(weight|bias)", r"head.fc2.\1"),
    (r"roi_heads\.box_head\.(\d)\.0\.(weight|bias)", r"head.convs.\1.\2"),
    (rf"roi_heads\.box_head\.(\d)\.1\.{NORM}", r"head.convs.\1.norm.\2"),
    (r"roi_heads\.box_predictor\.cls_score\.(weight|bias)", r"head.classes.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(weight|bias)", r"head.deltas.\1"),
]
MASK_RCNN = [
    *FASTER_RCNN,
    (r"roi_heads\.mask_head\.(\d)\.0\.(weight|bias)", r"mask_head.convs.\1.\2"),
    (rf"roi_heads\.mask_head\.(\d)\.1\.{NORM}", r"mask_head.convs.\1.norm.\2"),
    *(
        (rf"roi_heads\.mask_head\.mask_fcn{i + 1}\.(weight|bias)", rf"mask_head.convs.{i}.\1")
        for i in range(9)
    ),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(weight|bias)", r"mask_head.up.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(weight|bias)", r"mask_head.classes.\1"),
]
RETINANET = [
    *NECK,
    (r"backbone\.fpn\.extra_blocks\.p6\.(weight|bias)", r"fpn.extra.0.\1"),
    (r"backbone\.fpn\.extra_blocks\.p7\.(weight|bias)", r"fpn.extra.1.\1"),
    (r"head\.classification_head\.conv\.(\d)\.0\.(weight|bias)", r"class_head.tower.\1.\2"),
    (rf"head\.classification_head\.conv\.(\d)\.1\.{NORM}", r"class_head.tower.\1.norm.\2"),
    *(
        (rf"head\.{theirs}_head\.conv\.{2 * i}\.(weight|bias)", rf"{ours}_head.tower.{i}.\1")
        for theirs, ours in (("classification", "class"), ("regression", "box"))
        for i in range(4)
    ),
    (r"head\.classification_head\.cls_logits\.(weight|bias)", r"class_head.output.\1"),
    (r"head\.regression_head\.conv\.(\d)\.0\.(weight|bias)", r"box_head.tower.\1.\2"),
    (rf"head\.regression_head\.conv\.(\d)\.1\.{NORM}", r"box_head.tower.\1.norm.\2"),
    (r"head\.regression_head\.bbox_reg\.(weight|bias)", r"box_head.output.\1"),
]
FIFTH = 23  # where VGG16's fifth stage begins, with the pooling before it: SSD has it apart
SSD = [
    *(
        (
            rf"backbone\.{f'features.{place}' if place < FIFTH else f'extra.0.{place - FIFTH}'}"
            r"\.(weight|bias)",
            rf"backbone.{name}.\1",
        )
        for place, name in vgg_places().items()
    ),
    (r"backbone\.extra\.0\.7\.1\.(weight|bias)", r"backbone.fc6.\1"),
    (r"backbone\.extra\.0\.7\.3\.(weight|bias)", r"backbone.fc7.\1"),
    *(
        (rf"backbone\.extra\.{i + 1}\.{place}\.(weight|bias)", rf"extras.{i}.{name}.\1")
        for i in range(5)
        for place, name in ((0, "reduce"), (2, "output"))
    ),
    (r"backbone\.scale_weight", r"conv4_norm.weight"),
    (r"head\.classification_head\.module_list\.(\d)\.(weight|bias)", r"class_heads.\1.\2"),
    (r"head\.regression_head\.module_list\.(\d)\.(weight|bias)", r"box_heads.\1.\2"),
]
CLASSIFIER = [(rf"({BODY}|fc\.(?:weight|bias))", r"\1")]

# Keys that tell a relative which is not read yet, and its name.
UNREAD = [
    (r"roi_heads\.keypoint_head\.", "Keypoint R-CNN"),
    (r"head\.regression_head\.bbox_ctrness\.", "FCOS"),
    (r"backbone\.features\.\d+\.\d+\.", "SSDlite"),
    (r"backbone\.body\.\d+\.", "detector with a MobileNet"),
    (r"(aux_)?classifier\.\d\.", "segmentation model"),
]


def read(
    state: State, where: str, num_classes: int | None = None, skip: tuple[str, ...] = ()
) -> Checkpoint | None:
    """The checkpoint, if its keys are torchvision's or timm's.

    Args:
        num_classes: how many classes are wanted: it chooses between the 80 and the 90 of COCO.
        skip: prefixes of keys (theirs) that may be left over.
    """
    for pattern, kind in UNREAD:
        if any(re.match(pattern, key) for key in state):
            raise EyelineError(f"{where} holds torchvision's {kind}, which is not read yet")
    if "roi_heads.box_predictor.cls_score.weight" in state:
        return _faster_rcnn(state, where, num_classes, skip)
    if "head.classification_head.cls_logits.weight" in state:
        return _retinanet(state, where, num_classes, skip)
    if "backbone.scale_weight" in state:
        return _ssd(state, where, num_classes, skip)
    if {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight"} <= state.keys():
        return _classifier(state, where, skip)
    return None


def _classifier(state: State, where: str, skip: tuple[str, ...]) -> Checkpoint:
    ours, renamed, dropped = rename(state, CLASSIFIER, (), where, skip)
    options: dict[str, Any] = {"in_channels": ours["conv1.weight"].shape[1]}
    if options["in_channels"] == len(IMAGENET["image_mean"]):
        options |= IMAGENET
    if "fc.weight" in ours:
        options["num_classes"] = len(ours["fc.weight"])
    name = resnet_of(state, "", where)
    return Checkpoint("torchvision", name, where, options, None, ours, renamed, dropped)


def _faster_rcnn(
    state: State, where: str, num_classes: int | None, skip: tuple[str, ...]
) -> Checkpoint:
    layers: tuple[str, ...] = ("fpn.output.0", "head.fc1", "head.classes", "head.deltas")
    table, name = FASTER_RCNN, "faster_rcnn"
    if masks := any(key.startswith("roi_heads.mask_") for key in state):
        table, name = MASK_RCNN, "mask_rcnn"
        layers = (*layers, "mask_head.up", "mask_head.classes")
    table = [*table, *_after_convolutions(state)]
    ours, renamed, dropped = rename(state, table, layers, where, skip)
    channels = len(ours["fpn.output.0.weight"])
    ours["head.fc1.weight"] = by_cell(ours["head.fc1.weight"], channels)
    slots, classes = _slots(len(ours["head.classes.weight"]), num_classes)
    for kind in ("weight", "bias"):
        scores, deltas = ours[f"head.classes.{kind}"], ours[f"head.deltas.{kind}"]
        ours[f"head.classes.{kind}"] = scores[[*slots, 0]]  # (K + 1, ...), background last
        if len(deltas) != 4 * len(scores):
            raise EyelineError(f"{where}: {len(deltas)} box outputs for {len(scores)} slots")
        rows = deltas.unflatten(0, (-1, 4))  # (S, 4, ...)
        ours[f"head.deltas.{kind}"] = rows[slots].flatten(0, 1)  # (4 K, ...)
        if masks:
            rows = ours[f"mask_head.classes.{kind}"]
            if len(rows) != len(scores):
                raise EyelineError(f"{where}: {len(rows)} masks for {len(scores)} slots")
            ours[f"mask_head.classes.{kind}"] = rows[slots]  # (K, ...)
    options = _options(state, ours, where, len(slots))
    options |= of_heads(ours, "head", "mask_head" if masks else None)
    return Checkpoint("torchvision", name, where, options, classes, ours, renamed, dropped)


def _retinanet(
    state: State, where: str, num_classes: int | None, skip: tuple[str, ...]
) -> Checkpoint:
    layers = ("fpn.output.0", "fpn.extra.0", "class_head.output", "box_head.output")
    ours, renamed, dropped = rename(state, RETINANET, layers, where, skip)
    anchors = len(ours["box_head.output.bias"]) // 4
    slots, classes = _slots(len(ours["class_head.output.bias"]) // anchors, num_classes)
    for kind in ("weight", "bias"):
        rows = ours[f"class_head.output.{kind}"].unflatten(0, (anchors, -1))  # (A, S, ...)
        ours[f"class_head.output.{kind}"] = rows[:, slots].flatten(0, 1)  # (A K, ...)
    options = _options(state, ours, where, len(slots)) | {
        "head_norm": norm_of(ours, "class_head.tower.0"),
        "tower_depth": count(ours, "class_head.tower"),
    }
    # P6 is made of P5 where the widths allow it, as torchvision does.
    from_level = ours["fpn.extra.0.weight"].shape[1] == options["fpn_channels"]
    options["fpn_extra_from"] = "level" if from_level else "backbone"
    if options["head_norm"] != "none":
        options["box_loss"] = "giou"
    return Checkpoint("torchvision", "retinanet", where, options, classes, ours, renamed, dropped)


def _ssd(state: State, where: str, num_classes: int | None, skip: tuple[str, ...]) -> Checkpoint:
    layers = ("backbone.conv1_1", "class_heads.0", "box_heads.0")
    ours, renamed, dropped = rename(state, SSD, layers, where, skip)
    slots, classes = _slots(ssd_slots(ours, where), num_classes)
    take_slots(ours, [*slots, 0])  # background last
    first = ours["backbone.conv1_1.weight"]
    options: dict[str, Any] = {
        "num_classes": len(slots),
        "backbone": "vgg16",
        "norm": "none",
        "convention": "torchvision",
        "width": len(first),
        "in_channels": first.shape[1],
        "min_size": 300,
        "max_size": 300,
        "image_mean": (0.48235, 0.45882, 0.40784),
        "image_std": (1 / 255, 1 / 255, 1 / 255),
    }
    return Checkpoint("torchvision", "ssd300", where, options, classes, ours, renamed, dropped)


def _slots(count: int, num_classes: int | None) -> tuple[list[int], list[str] | None]:
    """The file's slot of each class of ours, and the classes' names where they are known."""
    if count != len(COCO_SLOTS):
        return list(range(1, count)), None
    if num_classes == count - 1:
        names = [name or f"unused id {slot}" for slot, name in enumerate(COCO_SLOTS)]
        return list(range(1, count)), names[1:]
    slots = [slot for slot, name in enumerate(COCO_SLOTS) if name]
    return slots, list(COCO)


def _options(state: State, ours: State, where: str, num_classes: int) -> dict[str, Any]:
    """What every detector's config learns from a file."""
    second = any(".norm." in name for name in ours)  # the second versions have more than the body's
    frozen = not second and not any(key.endswith(COUNTER) for key in state)
    return {
        "num_classes": num_classes,
        "backbone": resnet_of(state, "backbone.body.", where),
        "convention": "torchvision",
        "norm": "frozen" if frozen else "batch",
        "norm_epsilon": 0.0 if frozen else 1e-5,
        "fpn_channels": len(ours["fpn.output.0.weight"]),
        "fpn_norm": norm_of(ours, "fpn.output.0"),
        "min_size": 800,
        "max_size": 1333,
        **IMAGENET,
    }


def _after_convolutions(state: State) -> list[tuple[str, str]]:
    """Lines for the fully connected layers of a box head that begins with convolutions: one
    `Sequential`, in which they follow a flattening, each with a ReLU behind it."""
    convolutions = count(state, "roi_heads.box_head", ".0.weight")
    return [
        (rf"roi_heads\.box_head\.{convolutions + place}\.(weight|bias)", rf"head.{name}.\1")
        for place, name in ((1, "fc1"), (3, "fc2"))
    ]
