"""Where the random choices of a loss come from."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import torch
from torch import Tensor, nn

from eyeline.structures import Target


def random_order(module: nn.Module, targets: Sequence[Target], count: int) -> Tensor:
    """Random numbers (B, count) in [0, 1): in training from the device's own generator; in eval()
    from one that is seeded by the picture's objects, so that a validation loss is the same each
    time, on every device and in every batch."""
    device = targets[0]["boxes"].device
    if module.training:
        return torch.rand(len(targets), count, device=device)
    rows = []
    for target in targets:
        seed = crc32(target["boxes"].detach().cpu().numpy().tobytes())
        rows.append(torch.rand(count, generator=torch.Generator().manual_seed(seed)))
    return torch.stack(rows).to(device)
