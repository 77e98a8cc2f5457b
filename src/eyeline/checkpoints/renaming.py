"""What readers of other libraries' checkpoints share: names by a table, what shapes tell, and the
class layers of SSD.

Letters   S slots of the file's class layers (its background is slot 0), A default boxes of a cell.
"""

from __future__ import annotations

import re
from itertools import count as integers
from typing import Any

from torch import Tensor

from eyeline.checkpoints.source import COUNTER, State, begins, some
from eyeline.errors import EyelineError
from eyeline.nn.backbones.vgg import DEPTHS

# Of a parameter's name, in patterns: a norm's, a layer's.
NORM = r"(weight|bias|running_mean|running_var)"
WB = r"(weight|bias)"
# (blocks of each stage, bottleneck, width of the first 3x3, its groups) -> name
RESNETS: dict[tuple[tuple[int, ...], bool, int, int], str] = {
    ((2, 2, 2, 2), False, 64, 1): "resnet18",
    ((3, 4, 6, 3), False, 64, 1): "resnet34",
    ((3, 4, 6, 3), True, 64, 1): "resnet50",
    ((3, 4, 23, 3), True, 64, 1): "resnet101",
    ((3, 8, 36, 3), True, 64, 1): "resnet152",
    ((3, 4, 6, 3), True, 128, 32): "resnext50_32x4d",
    ((3, 4, 23, 3), True, 256, 32): "resnext101_32x8d",
    ((3, 4, 23, 3), True, 256, 64): "resnext101_64x4d",
    ((3, 4, 6, 3), True, 128, 1): "wide_resnet50_2",
    ((3, 4, 23, 3), True, 128, 1): "wide_resnet101_2",
}


def count(state: State, prefix: str, end: str = ".weight") -> int:
    """How many of "prefix.0.weight", "prefix.1.weight", ... there are."""
    return next(i for i in integers() if f"{prefix}.{i}{end}" not in state)


def norm_of(ours: State, layer: str) -> str:
    """The kind of the norm behind one of our convolutions."""
    if f"{layer}.norm.weight" not in ours:
        return "none"
    return "batch" if f"{layer}.norm.running_var" in ours else "group"


def resnet_of(state: State, prefix: str, where: str) -> str:
    """Which ResNet lies below `prefix`, by its shapes."""

    def depth(stage: int) -> int:
        return sum(f"{prefix}layer{stage}.{i}.conv1.weight" in state for i in range(100))

    depths = tuple(depth(stage) for stage in (1, 2, 3, 4))
    bottleneck = f"{prefix}layer1.0.conv3.weight" in state
    second = state.get(f"{prefix}layer1.0.conv2.weight")  # (width, width / groups, 3, 3)
    if second is None:
        raise EyelineError(f"{where} lacks {prefix}layer1.0.conv2.weight")
    width, groups = second.shape[0], second.shape[0] // second.shape[1]
    name = RESNETS.get((depths, bottleneck, width, groups))
    if name is None:
        raise EyelineError(
            f"{where} holds a ResNet that none of ours is: {depths} blocks, {width} wide, "
            f"{groups} groups"
        )
    return name


def vgg_places(normed: bool = False) -> dict[int, str]:
    """The names of VGG16's convolutions by their place in a row with all that lies between them:
    `normed` batch norms, ReLUs, poolings."""
    names, place = {}, 0
    for stage, depth in enumerate(DEPTHS, 1):
        for i in range(1, depth + 1):
            names[place] = f"conv{stage}_{i}"
            place += 3 if normed else 2
        place += 1
    return names


# VGG16's convolutions and SSD's two behind them, in one row.
SSD_PLACES = vgg_places() | {31: "fc6", 33: "fc7"}


def by_cell(weight: Tensor, channels: int) -> Tensor:
    """Of a box head's first layer (O, C S S), which reads a region channel by channel: cell by
    cell, as our RoIAlign leaves it."""
    return weight.unflatten(1, (channels, -1)).transpose(1, 2).flatten(1)


def of_heads(ours: State, box: str, mask: str | None) -> dict[str, Any]:
    """The options that the shapes of an R-CNN's RPN, box head and mask head tell."""
    options: dict[str, Any] = {
        "rpn_depth": 1 + count(ours, "rpn.deeper"),
        "head_convs": count(ours, f"{box}.convs"),
        "head_layers": 2 if f"{box}.fc2.weight" in ours else 1,
        "head_norm": norm_of(ours, f"{box}.convs.0"),
        "head_width": len(ours[f"{box}.fc1.weight"]),
    }
    if mask:
        options |= {
            "mask_width": ours[f"{mask}.up.weight"].shape[1],
            "mask_depth": count(ours, f"{mask}.convs"),
            "mask_norm": norm_of(ours, f"{mask}.convs.0"),
        }
    return options


def rename(
    state: State,
    table: list[tuple[str, str]],
    layers: tuple[str, ...],
    where: str,
    skip: tuple[str, ...],
) -> tuple[State, dict[str, str], list[str]]:
    """Each key under our name; an error names those that no line of the table takes.

    `layers` of ours must be there, weight and bias, since the readers look into them; a layer with
    a norm behind it has no bias.
    """
    ours: State = {}
    renamed: dict[str, str] = {}
    dropped: list[str] = []
    over: list[str] = []
    for key, value in state.items():
        if key.endswith(COUNTER):
            dropped.append(key)
            continue
        for pattern, name in table:
            if match := re.fullmatch(pattern, key):
                new = match.expand(name)
                ours[new] = value
                if new != key:
                    renamed[new] = key
                break
        else:
            (dropped if begins(key, skip) else over).append(key)
    if over:
        raise EyelineError(
            f"{where}: no place for {some(over)}; name what to leave out with skip=[...]"
        )
    lacking = {f"{layer}.weight" for layer in layers} - ours.keys()
    biased = (layer for layer in layers if f"{layer}.norm.weight" not in ours)
    lacking |= {f"{layer}.bias" for layer in biased} - ours.keys()
    if lacking:
        raise EyelineError(f"{where} lacks our {some(lacking)}")
    return ours, renamed, dropped


def without_biases(ours: State, renamed: dict[str, str]) -> None:
    """A bias before a batch norm, which our layers have not, becomes a part of the norm's mean."""
    for name in [name for name in ours if name.endswith(".bias")]:
        norm = f"{name.removesuffix('.bias')}.norm"
        if f"{norm}.weight" in ours:
            mean = f"{norm}.running_mean"
            ours[mean] = ours[mean] - ours.pop(name)
            renamed.pop(name, None)


def ssd_slots(ours: State, where: str) -> int:
    """How many classes, with background, the layers `class_heads` of a state's maps score."""
    found = set()
    for i in range(count(ours, "class_heads")):
        boxes, scores = (len(ours.get(f"{kind}_heads.{i}.bias", ())) for kind in ("box", "class"))
        slots, over = divmod(scores, max(1, boxes // 4))
        if over or not slots or not boxes or boxes % 4:
            raise EyelineError(f"{where}: map {i} has class and box outputs that do not fit")
        found.add(slots)
    if len(found) != 1:
        raise EyelineError(f"{where}: its maps score different numbers of classes: {found}")
    return found.pop()


def take_slots(ours: State, slots: list[int]) -> None:
    """Of each default box's scores in `class_heads` the given slots, in that order."""
    for i in range(count(ours, "class_heads")):
        boxes = len(ours[f"box_heads.{i}.bias"]) // 4
        for key in (f"class_heads.{i}.weight", f"class_heads.{i}.bias"):
            ours[key] = ours[key].unflatten(0, (boxes, -1))[:, slots].flatten(0, 1)  # (A S, ...)
