"""Backbones by name: `build_backbone("resnet50", norm="batch")`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from eyeline.errors import EyelineError
from eyeline.nn.backbones.resnet import VARIANTS, ResNet
from eyeline.nn.backbones.timm import PREFIX, TimmBackbone


def build_backbone(name: str, **options: Any) -> ResNet | TimmBackbone:
    """A backbone whose call gives the feature maps C2..C5.

    `name` is one of `VARIANTS`, or "timm:NAME" for a model of timm (`norm_epsilon` is its own).
    """
    if name.startswith(PREFIX):
        options.pop("norm_epsilon", None)
        if options.pop("stride_in_1x1", False):
            raise EyelineError(f"stride_in_1x1 is for our own ResNets, not for {name}")
        return TimmBackbone(name.removeprefix(PREFIX), **options)
    if name not in VARIANTS:
        near = get_close_matches(name, VARIANTS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(VARIANTS)}"
        raise EyelineError(f"no backbone is called {name!r}; {hint}")
    return ResNet(**VARIANTS[name], **options)
