"""Where the random choices of a loss come from."""

from __future__ import annotations

from zlib import crc32

import torch
from torch import nn

from eyeline.structures import Target


def generator_for(module: nn.Module, target: Target) -> torch.Generator | None:
    """torch's own generator in training; in eval() one that is seeded by the picture's objects,
    so that a validation loss is the same each time."""
    if module.training:
        return None
    boxes = target["boxes"]
    seed = crc32(boxes.detach().cpu().numpy().tobytes())
    return torch.Generator(boxes.device).manual_seed(seed)
