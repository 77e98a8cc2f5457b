"""Batch norm where a map has one value alone of each channel.

Pooled over the whole of one picture, as in pyramid pooling, ASPP and global attention, a batch of
one has a variance of zero, and no batch statistics. There the running statistics stand in, which
are those that the network will be used with; they learn from larger batches only. Where a whole
network comes to one value, its pictures are too small to learn from, and that is told.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

ONE_VALUE = "Expected more than 1 value per channel when training"  # so torch says it
NOTHING_LEARNT = "batch norm cannot learn from one cell of one picture"


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    """norm(x), (B, C, H, W); by the running statistics where B, H and W are 1 and a batch norm
    would take the batch's."""
    if not (type(norm) is nn.BatchNorm2d and norm.training) or x.numel() != x.shape[1]:
        return norm(x)  # type: ignore[no-any-return]
    return F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
    )
