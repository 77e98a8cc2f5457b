"""Backbones by name: `build_backbone("resnet50", norm="batch")`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from eyeline.errors import EyelineError
from eyeline.nn.backbones.resnet import VARIANTS, ResNet


def build_backbone(name: str, **options: Any) -> ResNet:
    """A backbone whose call gives the feature maps C2..C5; `name` is one of `VARIANTS`."""
    if name not in VARIANTS:
        near = get_close_matches(name, VARIANTS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(VARIANTS)}"
        raise EyelineError(f"no backbone is called {name!r}; {hint}")
    return ResNet(**VARIANTS[name], **options)
