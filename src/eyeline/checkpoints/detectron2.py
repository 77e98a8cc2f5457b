"""detectron2's checkpoints: Faster, Mask and Cascade R-CNN and RetinaNet with a ResNet and FPN.

Its model zoo has pickles of numpy arrays (`.pkl`), its training writes torch files (`.pth`); both
hold the names of its modules. What a file holds is told by its keys and shapes.

Letters   K classes of ours; its background is the last of K + 1. A anchors of a cell.

Its pictures are BGR, from 0 to 255, less a mean and divided by a deviation; a first convolution
turned round, and the same numbers in RGB from 0 to 1, make the same of our pictures. Files from
before 2021 hold both as `pixel_mean` and `pixel_std`; others are taken to be what the zoo's are:
Caffe's ResNets (MSRA), with a deviation of 1 and the stride in the 1x1. ResNeXts, and files whose
deviation is not 1, are torch's: their stride lies in the 3x3. Where that is wrong,
`create_model(weights=..., stride_in_1x1=False, image_std=...)` sets another. Pictures are resized
as all of ours are, by plain bilinear interpolation; detectron2 has PIL smooth them as they shrink.

Of 80 classes the file is taken to be of COCO, whose names it then gets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eyeline.checkpoints.names import COCO
from eyeline.checkpoints.renaming import (
    NORM,
    WB,
    by_cell,
    count,
    norm_of,
    of_heads,
    rename,
    resnet_of,
)
from eyeline.checkpoints.source import COUNTER, Checkpoint, State, begins
from eyeline.errors import EyelineError

MEAN = (103.53, 116.28, 123.675)  # BGR
TORCH_STD = (57.375, 57.12, 58.395)

STAGES = r"backbone\.bottom_up\.res"
BODY = [
    (r"backbone\.bottom_up\.stem\.conv1\.weight", r"backbone.conv1.weight"),
    (rf"backbone\.bottom_up\.stem\.conv1\.norm\.{NORM}", r"backbone.bn1.\1"),
    *(
        (rf"{STAGES}{stage + 1}\.(\d+)\.{theirs}", rf"backbone.layer{stage}.\1.{ours}")
        for stage in (1, 2, 3, 4)
        for theirs, ours in (
            (r"conv(\d)\.weight", r"conv\2.weight"),
            (rf"conv(\d)\.norm\.{NORM}", r"bn\2.\3"),
            (r"shortcut\.weight", "downsample.0.weight"),
            (rf"shortcut\.norm\.{NORM}", r"downsample.1.\2"),
        )
    ),
]  # fmt: skip
RPN = [
    (rf"proposal_generator\.rpn_head\.conv(?:\.conv0)?\.{WB}", r"rpn.conv.\1"),
    *(
        (rf"proposal_generator\.rpn_head\.conv\.conv{i}\.{WB}", rf"rpn.deeper.{i - 1}.\1")
        for i in range(1, 9)
    ),
    (rf"proposal_generator\.rpn_head\.objectness_logits\.{WB}", r"rpn.objectness.\1"),
    (rf"proposal_generator\.rpn_head\.anchor_deltas\.{WB}", r"rpn.deltas.\1"),
]
# Saved by older versions, and computed here.
COMPUTED = ("proposal_generator.anchor_generator", "anchor_generator")
PIXELS = ("pixel_mean", "pixel_std")


def neck(first: int) -> list[tuple[str, str]]:
    """The pyramid's lines, whose finest level is `first`: 2, or 3 of RetinaNet."""
    return [
        (rf"backbone\.fpn_{theirs}{level}\.{end}", rf"fpn.{ours}.{level - first}.{new}")
        for theirs, ours in (("lateral", "lateral"), ("output", "output"))
        for level in range(first, 6)
        for end, new in ((WB, r"\1"), (rf"norm\.{NORM}", r"norm.\1"))
    ]


def box_head(number: str, ours: str) -> list[tuple[str, str]]:
    """A head's lines: `number` is "" or, of a cascade, "0." and so on."""
    n = number.replace(".", r"\.")
    convolutions = [
        (rf"roi_heads\.box_head\.{n}conv{i + 1}\.{end}", rf"{ours}.convs.{i}.{new}")
        for i in range(9)
        for end, new in ((WB, r"\1"), (rf"norm\.{NORM}", r"norm.\1"))
    ]
    return [
        *convolutions,
        (rf"roi_heads\.box_head\.{n}fc([12])\.{WB}", rf"{ours}.fc\1.\2"),
        (rf"roi_heads\.box_predictor\.{n}cls_score\.{WB}", rf"{ours}.classes.\1"),
        (rf"roi_heads\.box_predictor\.{n}bbox_pred\.{WB}", rf"{ours}.deltas.\1"),
    ]


def mask_head(ours: str) -> list[tuple[str, str]]:
    return [
        *(
            (rf"roi_heads\.mask_head\.mask_fcn{i + 1}\.{end}", rf"{ours}.convs.{i}.{new}")
            for i in range(9)
            for end, new in ((WB, r"\1"), (rf"norm\.{NORM}", r"norm.\1"))
        ),
        (rf"roi_heads\.mask_head\.deconv\.{WB}", rf"{ours}.up.\1"),
        (rf"roi_heads\.mask_head\.predictor\.{WB}", rf"{ours}.classes.\1"),
    ]


RETINANET = [
    *BODY,
    *neck(3),
    (rf"backbone\.top_block\.p6\.{WB}", r"fpn.extra.0.\1"),
    (rf"backbone\.top_block\.p7\.{WB}", r"fpn.extra.1.\1"),
    *(
        (rf"head\.{theirs}_subnet\.{2 * i}\.{WB}", rf"{ours}_head.tower.{i}.\1")
        for theirs, ours in (("cls", "class"), ("bbox", "box"))
        for i in range(9)
    ),
    (rf"head\.cls_score\.{WB}", r"class_head.output.\1"),
    (rf"head\.bbox_pred\.{WB}", r"box_head.output.\1"),
]

# Keys that tell a relative which is not read yet, and its name.
UNREAD = [
    ("roi_heads.keypoint_head", "Keypoint R-CNN"),
    ("sem_seg_head", "panoptic or semantic model"),
    ("roi_heads.res5", "R-CNN of a single feature map (C4)"),
    ("backbone.res2", "R-CNN of a single feature map (C4 or DC5)"),
    ("backbone.net", "ViTDet"),
    ("roi_heads.mask_head.coarse_head", "PointRend"),
]


def read(
    state: State, where: str, num_classes: int | None = None, skip: tuple[str, ...] = ()
) -> Checkpoint | None:
    """The checkpoint, if its keys are detectron2's. `skip`: prefixes of keys (theirs) that may be
    left over; `num_classes` is not needed, for a file has as many classes as it was trained for."""
    theirs = ("backbone.bottom_up", "proposal_generator.rpn_head", "sem_seg_head")
    if not any(begins(key, theirs) for key in state):
        return None
    for prefix, kind in UNREAD:
        if any(begins(key, [prefix]) for key in state):
            raise EyelineError(f"{where} holds detectron2's {kind}, which is not read yet")
    pixels = {key: state[key] for key in PIXELS if key in state}
    computed = [key for key in state if begins(key, COMPUTED)]
    rest = {key: value for key, value in state.items() if key not in {*pixels, *computed}}
    if "head.cls_score.weight" in state:
        found = _retinanet(rest, where, skip)
    else:
        found = _rcnn(rest, where, skip)
    found.dropped += [*pixels, *computed]
    _of_body(found, state, where)
    _of_pictures(found, pixels)
    return found


def _rcnn(state: State, where: str, skip: tuple[str, ...]) -> Checkpoint:
    stages = count(state, "roi_heads.box_head", ".fc1.weight")
    masks = any(begins(key, ["roi_heads.mask_head"]) for key in state)
    heads = [f"heads.{t}" for t in range(stages)] or ["head"]
    table = [*BODY, *neck(2), *RPN]
    for t, ours in enumerate(heads):
        table += box_head(f"{t}." if stages else "", ours)
    mask = ("mask_heads.1" if stages else "mask_head") if masks else None
    if mask:
        table += mask_head(mask)
    layers = ["fpn.output.0", "rpn.objectness"]
    layers += [f"{head}.{part}" for head in heads for part in ("fc1", "classes", "deltas")]
    layers += [f"{mask}.up", f"{mask}.classes"] if mask else []
    ours, renamed, dropped = rename(state, table, tuple(layers), where, skip)
    channels = len(ours["fpn.output.0.weight"])
    classes = len(ours[f"{heads[0]}.classes.weight"]) - 1
    for head in heads:
        ours[f"{head}.fc1.weight"] = by_cell(ours[f"{head}.fc1.weight"], channels)
        boxes, expected = len(ours[f"{head}.deltas.bias"]), 4 if stages else 4 * classes
        if boxes != expected:
            raise EyelineError(f"{where}: {boxes} box outputs where {expected} are expected")
    options: dict[str, Any] = {
        "num_classes": classes,
    } | of_heads(ours, heads[0], mask)
    if stages:
        options |= {"masks": masks}
        if stages != 3:
            raise EyelineError(f"{where} holds a cascade of {stages} stages; 3 are read")
        name = "cascade_mask_rcnn" if masks else "cascade_rcnn"
    else:
        name = "mask_rcnn" if masks else "faster_rcnn"
    return Checkpoint("detectron2", name, where, options, None, ours, renamed, dropped)


def _retinanet(state: State, where: str, skip: tuple[str, ...]) -> Checkpoint:
    layers = ("fpn.output.0", "fpn.extra.0", "class_head.output", "box_head.output")
    ours, renamed, dropped = rename(state, RETINANET, layers, where, skip)
    anchors = len(ours["box_head.output.bias"]) // 4
    classes = len(ours["class_head.output.bias"]) // anchors
    if anchors != 9:
        raise EyelineError(f"{where} has {anchors} anchors a cell; 9 are read")
    for head, size in (("class_head", classes), ("box_head", 4)):
        for kind in ("weight", "bias"):
            ours[f"{head}.output.{kind}"] = _by_ratio(ours[f"{head}.output.{kind}"], size)
    from_level = ours["fpn.extra.0.weight"].shape[1] == len(ours["fpn.output.0.weight"])
    options = {
        "num_classes": classes,
        "tower_depth": count(ours, "class_head.tower"),
        "fpn_extra_from": "level" if from_level else "backbone",
    }
    return Checkpoint("detectron2", "retinanet", where, options, None, ours, renamed, dropped)


def _by_ratio(rows: Tensor, size: int) -> Tensor:
    """Outputs of 3 sizes of 3 ratios each, as 3 ratios of 3 sizes each: (A size, ...)."""
    return rows.unflatten(0, (3, 3, size)).transpose(0, 1).flatten(0, 2)


def _of_body(found: Checkpoint, state: State, where: str) -> None:
    """Backbone, pyramid and names of classes, into the options."""
    ours = found.state
    if "backbone.bn1.running_var" in ours:
        norm = "batch" if any(key.endswith(COUNTER) for key in state) else "frozen"
    else:
        norm = "group"
    found.options |= {
        "convention": "detectron2",
        "backbone": resnet_of(ours, "backbone.", where),
        "norm": norm,
        "norm_epsilon": 1e-5,
        "fpn_channels": len(ours["fpn.output.0.weight"]),
        "fpn_norm": norm_of(ours, "fpn.output.0"),
        "min_size": 800,
        "max_size": 1333,
    }
    if found.options["num_classes"] == 80:
        found.classes = list(COCO)


def _of_pictures(found: Checkpoint, pixels: State) -> None:
    """What the network takes, into the options: BGR of 0 to 255 becomes RGB of 0 to 1."""
    mean, std = torch.tensor(MEAN), torch.ones(3)
    if found.options["backbone"].startswith("resnext"):
        std = torch.tensor(TORCH_STD)
    mean, std = (
        pixels.get(key, known).flatten().float()
        for key, known in zip(PIXELS, (mean, std), strict=True)
    )
    if mean[0] < mean[-1]:  # blue first, of the lower mean
        first = found.state["backbone.conv1.weight"]
        found.state["backbone.conv1.weight"] = first.flip(1)
        mean, std = mean.flip(0), std.flip(0)
    found.options |= {
        "image_mean": tuple((mean / 255).tolist()),
        "image_std": tuple((std / 255).tolist()),
        "stride_in_1x1": bool((std == 1).all()),
    }
