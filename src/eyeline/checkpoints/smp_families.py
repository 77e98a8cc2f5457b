"""What readers of segmentation-models-pytorch's checkpoints share: encoders, and what a reader
knows of one of its networks.

An encoder lies below "encoder.", a decoder below "decoder.", the last convolution is
"segmentation_head.0".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eyeline.checkpoints.names import IMAGENET
from eyeline.checkpoints.renaming import NORM, WB, resnet_of, vgg_places
from eyeline.checkpoints.source import State
from eyeline.checkpoints.torchvision import BODY
from eyeline.errors import EyelineError
from eyeline.nn.backbones import VGG

ENCODER, HEAD = "encoder.", "segmentation_head.0.weight"
# Their names -> ours.
RESNET = [(rf"encoder\.({BODY})", r"backbone.\1")]


@dataclass(frozen=True)
class Family:
    """One of its networks: what only its keys look like, their names and ours, and the options of
    our Config that a state under our names tells, besides the encoder, classes and channels."""

    name: str  # of our model
    theirs: str
    sign: str  # a pattern of keys
    table: list[tuple[str, str]]
    layers: tuple[str, ...]  # of ours, that must be there: see `rename`
    options: Callable[[State, str], dict[str, Any]]  # of the state and where it comes from
    idle: tuple[str, ...] = ()  # prefixes of its keys for what it has and never calls


def conv_norm(theirs: str, ours: str) -> list[tuple[str, str]]:
    """Lines for its `Conv2dReLU`, a convolution and a norm in a row; groups of `theirs`, a pattern,
    stand in `ours`."""
    groups = re.compile(theirs).groups
    return [
        (rf"{theirs}\.0\.{WB}", rf"{ours}.\{groups + 1}"),
        (rf"{theirs}\.1\.{NORM}", rf"{ours}.norm.\{groups + 1}"),
    ]


def encoder_table(state: State, where: str) -> list[tuple[str, str]]:
    """Lines for the encoder, a ResNet or VGG16. Raises EyelineError where it is another."""
    if "encoder.layer1.0.conv1.weight" in state:
        return RESNET
    normed = "encoder.features.1.running_var" in state
    places = vgg_places(normed)
    found = {
        int(m[1])
        for key in state
        if (m := re.fullmatch(r"encoder\.features\.(\d+)\.weight", key)) and state[key].ndim == 4
    }
    if found != places.keys():
        raise EyelineError(
            f"{where} has an encoder of segmentation-models-pytorch that is not read; read are its "
            "ResNets, ResNeXts, wide ResNets and VGG16, also with batch norm"
        )
    lines = [
        (rf"encoder\.features\.{at}\.{WB}", rf"backbone.{ours}.\1") for at, ours in places.items()
    ]
    return lines + [
        (rf"encoder\.features\.{at + 1}\.{NORM}", rf"backbone.{ours}.norm.\1")
        for at, ours in places.items()
        if normed
    ]


def encoder_options(state: State, ours: State, where: str) -> dict[str, Any]:
    """What the encoder says of a Config: which it is, its norms, the channels it takes. Its ResNets
    saw ImageNet's mean and deviation; of other channels nothing tells."""
    if "encoder.layer1.0.conv1.weight" in state:
        options: dict[str, Any] = {"backbone": resnet_of(state, ENCODER, where), "norm": "batch"}
        first = ours["backbone.conv1.weight"]
    else:
        normed = "backbone.conv1_1.norm.weight" in ours
        options = {"backbone": VGG, "norm": "batch" if normed else "none"}
        first = ours["backbone.conv1_1.weight"]
    options |= {"in_channels": first.shape[1], "norm_epsilon": 1e-5}
    if options["in_channels"] == len(IMAGENET["image_mean"]):
        options |= IMAGENET
    return options
