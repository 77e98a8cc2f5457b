"""torchvision's FCN and DeepLabV3 with a ResNet, with and without the auxiliary head.

A file of 21 classes is taken to be of VOC's, background first, whose names it then gets: so are the
published ones. DeepLabV3 with a MobileNetV3 is left out.
"""

from __future__ import annotations

from typing import Any

from eyeline.checkpoints.names import IMAGENET, VOC_REGIONS
from eyeline.checkpoints.renaming import NORM, WB, count, rename, resnet_of
from eyeline.checkpoints.source import Checkpoint, State
from eyeline.errors import EyelineError

Table = list[tuple[str, str]]


def head(theirs: str, ours: str) -> Table:
    """A convolution with its norm, and the classes."""
    return [
        (rf"{theirs}\.0\.weight", f"{ours}.hidden.weight"),
        (rf"{theirs}\.1\.{NORM}", rf"{ours}.hidden.norm.\1"),
        (rf"{theirs}\.4\.{WB}", rf"{ours}.score.\1"),
    ]


BOTH: Table = [
    (rf"backbone\.((?:conv1|bn1|layer[1-4]\..*)\.{NORM})", r"backbone.\1"),
    *head("aux_classifier", "auxiliary"),
]
FCN: Table = [*BOTH, *head("classifier", "head")]
DEEPLAB: Table = [
    *BOTH,
    (r"classifier\.0\.convs\.0\.0\.weight", "aspp.direct.weight"),
    (rf"classifier\.0\.convs\.0\.1\.{NORM}", r"aspp.direct.norm.\1"),
    (r"classifier\.0\.project\.0\.weight", "aspp.project.weight"),
    (rf"classifier\.0\.project\.1\.{NORM}", r"aspp.project.norm.\1"),
    (r"classifier\.1\.weight", "deeper.weight"),
    (rf"classifier\.2\.{NORM}", r"deeper.norm.\1"),
    (rf"classifier\.4\.{WB}", r"score.\1"),
]


def read(state: State, where: str, skip: tuple[str, ...] = ()) -> Checkpoint | None:
    """The checkpoint, if it is of one of the two; `skip`: keys that may be left over."""
    if "classifier.0.convs.0.0.weight" in state:
        return _deeplab(state, where, skip)
    if {"backbone.conv1.weight", "classifier.0.weight", "classifier.4.weight"} <= state.keys():
        how = (FCN, "head.hidden", "head.score")
        return _checkpoint("fcn", state, how, {"output_stride": 8}, where, skip)
    return None


def _deeplab(state: State, where: str, skip: tuple[str, ...]) -> Checkpoint:
    if "backbone.layer1.0.conv1.weight" not in state:
        raise EyelineError(
            f"{where} holds torchvision's DeepLabV3 with another backbone than a ResNet, which is "
            "not read"
        )
    rates = count(state, "classifier.0.convs", ".0.weight") - 1
    table = [*DEEPLAB]
    for i in range(rates):
        table += [
            (rf"classifier\.0\.convs\.{i + 1}\.0\.weight", f"aspp.atrous.{i}.weight"),
            (rf"classifier\.0\.convs\.{i + 1}\.1\.{NORM}", rf"aspp.atrous.{i}.norm.\1"),
        ]
    table += [
        (rf"classifier\.0\.convs\.{rates + 1}\.1\.weight", "aspp.pooled.weight"),
        (rf"classifier\.0\.convs\.{rates + 1}\.2\.{NORM}", r"aspp.pooled.norm.\1"),
    ]
    width = {"width": len(state["classifier.0.convs.0.0.weight"])}
    how = (table, "aspp.direct", "score")
    return _checkpoint("deeplabv3", state, how, width, where, skip)


def _checkpoint(
    name: str,
    state: State,
    how: tuple[Table, str, str],
    told: dict[str, Any],
    where: str,
    skip: tuple[str, ...],
) -> Checkpoint:
    """`how`: what to rename, and two layers that have to be there, of which the last scores."""
    table, *layers = how
    ours, renamed, dropped = rename(state, table, tuple(layers), where, skip)
    classes = len(ours[f"{layers[-1]}.weight"])
    options: dict[str, Any] = {
        "num_classes": classes,
        "convention": "torchvision",
        "backbone": resnet_of(state, "backbone.", where),
        "norm": "batch",
        "norm_epsilon": 1e-5,
        "in_channels": ours["backbone.conv1.weight"].shape[1],
        "auxiliary": 0.5 if "auxiliary.score.weight" in ours else 0.0,
    } | told
    if options["in_channels"] == len(IMAGENET["image_mean"]):
        options |= IMAGENET
    names = list(VOC_REGIONS) if classes == len(VOC_REGIONS) else None
    return Checkpoint("torchvision", name, where, options, names, ours, renamed, dropped)
