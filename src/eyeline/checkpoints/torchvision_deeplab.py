"""torchvision's checkpoints of DeepLabV3 with a ResNet, with and without the auxiliary head.

A file of 21 classes is taken to be of VOC's, background first, whose names it then gets: so are the
published ones. The one with a MobileNetV3 is left out.
"""

from __future__ import annotations

from typing import Any

from eyeline.checkpoints.names import IMAGENET, VOC_REGIONS
from eyeline.checkpoints.renaming import NORM, WB, count, rename, resnet_of
from eyeline.checkpoints.source import Checkpoint, State
from eyeline.errors import EyelineError

TABLE = [
    (rf"backbone\.((?:conv1|bn1|layer[1-4]\..*)\.{NORM})", r"backbone.\1"),
    (r"classifier\.0\.convs\.0\.0\.weight", "aspp.direct.weight"),
    (rf"classifier\.0\.convs\.0\.1\.{NORM}", r"aspp.direct.norm.\1"),
    (r"classifier\.0\.project\.0\.weight", "aspp.project.weight"),
    (rf"classifier\.0\.project\.1\.{NORM}", r"aspp.project.norm.\1"),
    (r"classifier\.1\.weight", "deeper.weight"),
    (rf"classifier\.2\.{NORM}", r"deeper.norm.\1"),
    (rf"classifier\.4\.{WB}", r"score.\1"),
    (r"aux_classifier\.0\.weight", "auxiliary.hidden.weight"),
    (rf"aux_classifier\.1\.{NORM}", r"auxiliary.hidden.norm.\1"),
    (rf"aux_classifier\.4\.{WB}", r"auxiliary.score.\1"),
]


def fits(state: State) -> bool:
    """Whether the keys are torchvision's of a DeepLabV3."""
    return "classifier.0.convs.0.0.weight" in state


def read(state: State, where: str, skip: tuple[str, ...] = ()) -> Checkpoint:
    """The checkpoint of a state that `fits`; `skip`: keys that may be left over."""
    if "backbone.layer1.0.conv1.weight" not in state:
        raise EyelineError(
            f"{where} holds torchvision's DeepLabV3 with another backbone than a ResNet, which is "
            "not read"
        )
    rates = count(state, "classifier.0.convs", ".0.weight") - 1
    table = [*TABLE]
    for i in range(rates):
        table += [
            (rf"classifier\.0\.convs\.{i + 1}\.0\.weight", f"aspp.atrous.{i}.weight"),
            (rf"classifier\.0\.convs\.{i + 1}\.1\.{NORM}", rf"aspp.atrous.{i}.norm.\1"),
        ]
    table += [
        (rf"classifier\.0\.convs\.{rates + 1}\.1\.weight", "aspp.pooled.weight"),
        (rf"classifier\.0\.convs\.{rates + 1}\.2\.{NORM}", r"aspp.pooled.norm.\1"),
    ]
    layers = ("aspp.direct", "score")
    ours, renamed, dropped = rename(state, table, layers, where, skip)
    options: dict[str, Any] = {
        "num_classes": len(ours["score.weight"]),
        "convention": "torchvision",
        "backbone": resnet_of(state, "backbone.", where),
        "norm": "batch",
        "norm_epsilon": 1e-5,
        "in_channels": ours["backbone.conv1.weight"].shape[1],
        "width": len(ours["aspp.direct.weight"]),
        "auxiliary": 0.5 if "auxiliary.score.weight" in ours else 0.0,
    }
    if options["in_channels"] == len(IMAGENET["image_mean"]):
        options |= IMAGENET
    named = options["num_classes"] == len(VOC_REGIONS)
    classes = list(VOC_REGIONS) if named else None
    return Checkpoint("torchvision", "deeplabv3", where, options, classes, ours, renamed, dropped)
