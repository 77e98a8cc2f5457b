"""Backbones by name: `build_backbone("resnet50", norm="batch")`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from eyeline.errors import EyelineError
from eyeline.nn.backbones.darknet import VARIANTS as DARKNETS
from eyeline.nn.backbones.mobilenet_v2 import MobileNetV2
from eyeline.nn.backbones.resnet import VARIANTS as RESNETS
from eyeline.nn.backbones.resnet import ResNet
from eyeline.nn.backbones.timm import PREFIX, TimmBackbone
from eyeline.nn.backbones.vgg import VGG16
from eyeline.nn.backbones.xception import VARIANTS as XCEPTIONS
from eyeline.nn.backbones.xception import Xception

VGG = "vgg16"
MOBILENET = "mobilenet_v2"

VARIANTS = (*RESNETS, *DARKNETS, MOBILENET, *XCEPTIONS)
# What those are told of which parts can be dilated or left out, and what all others do.
DILATIONS = {"output_stride": 32, "depth": 5, "multi_grid": (1,)}


def build_encoder(name: str, **options: Any) -> Any:
    """A backbone whose `stages` gives C1..C5, at strides 2, 4, 8, 16, 32, of `stage_channels`.

    Raises EyelineError where a model of timm has no map at one of these strides.
    """
    if name.startswith(PREFIX):
        options["finest"] = 2
    return build_backbone(name, **options)


def build_backbone(name: str, **options: Any) -> Any:
    """A backbone whose call gives the feature maps C2..C5.

    `name` is one of `VARIANTS`, "vgg16", or "timm:NAME" for a model of timm (`norm_epsilon` is its
    own).
    """
    if not name.startswith(PREFIX) and name not in (known := (*VARIANTS, VGG)):
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
        raise EyelineError(f"no backbone is called {name!r}; {hint}")
    if name not in RESNETS and options.pop("stride_in_1x1", False):
        raise EyelineError(f"stride_in_1x1 is for our own ResNets, not for {name}")
    if name not in (*RESNETS, MOBILENET):
        options.pop("first_dilates", None)  # there is no such choice
    if name not in (*RESNETS, MOBILENET, *XCEPTIONS):
        for key, value in DILATIONS.items():
            if (given := options.pop(key, value)) != value:
                raise EyelineError(
                    f"{key}={given} is for our ResNets, MobileNetV2 and Xception, not for {name}; "
                    f"give {key}={value}"
                )
    if name == VGG:
        return VGG16(**options)
    if name.startswith(PREFIX):
        options.pop("norm_epsilon", None)
        return TimmBackbone(name.removeprefix(PREFIX), **options)
    if name in DARKNETS:
        return DARKNETS[name](**options)
    if name == MOBILENET:
        return MobileNetV2(**options)
    if name in XCEPTIONS:
        return Xception(**XCEPTIONS[name], **options)
    return ResNet(**RESNETS[name], **options)
