"""Where the random choices of a loss come from."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import torch
from torch import Tensor, nn

from eyeline.ops.sampling import seeded_uniform
from eyeline.structures import Target


def random_order(module: nn.Module, targets: Sequence[Target], count: int) -> Tensor:
    """Random numbers (B, count) in [0, 1), of each picture its own, whatever the batch or the
    process in which it is, and on every device the same. They are seeded by the target's `seed`,
    of which a loader gives a new one each epoch; in eval() by the picture's objects, so that a
    validation loss is the same each time. In training without `seed` the device's own generator
    draws them."""
    device = targets[0]["boxes"].device
    if not module.training:
        drawn = [crc32(target["boxes"].detach().cpu().numpy().tobytes()) for target in targets]
        seeds = torch.tensor(drawn, device=device)
    elif all("seed" in target for target in targets):
        seeds = torch.stack([target["seed"] for target in targets])
    else:
        return torch.rand(len(targets), count, device=device)
    return seeded_uniform(seeds, count)
