"""Taking rows by index where every picture has its own."""

from __future__ import annotations

import torch
from torch import Tensor


def take(rows: Tensor, index: Tensor) -> Tensor:
    """`rows[b, index[b]]` for each b: (B, N, ...) and (B, M) -> (B, M, ...)."""
    shape = index.shape + rows.shape[2:]
    return rows.gather(1, index.reshape(index.shape + (1,) * (rows.ndim - 2)).expand(shape))


def highest(scores: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The `limit` highest of each row, best first, or all where a row has fewer: scores (B, N) ->
    scores and index (B, k). Unlike `min`, `sym_min` leaves an exported N open."""
    return scores.topk(torch.sym_min(limit, scores.shape[-1]))


def slots(mask: Tensor, limit: int) -> int:
    """How many slots a row needs for its True entries, at most `limit`: mask (B, N) -> D.

    The shape is fixed, so D is `limit`, wherever looking would cost: while compiling and off the
    CPU. Run eagerly on a CPU, D is what the fullest row needs (at least 1), and nothing is
    computed for empty slots.
    """
    if torch.compiler.is_compiling() or mask.device.type != "cpu":
        return limit
    return max(1, min(limit, int(mask.sum(-1).max())))


def with_child(parent: Tensor, valid: Tensor, count: int) -> Tensor:
    """Which of `count` rows something was made of: parent (B, M), valid (B, M) -> (B, count)."""
    made = torch.zeros(len(parent), count, dtype=torch.int64, device=parent.device)
    return made.scatter_add_(1, parent, valid.long()) > 0
