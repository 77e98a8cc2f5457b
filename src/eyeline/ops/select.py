"""Taking rows by index where every picture has its own, and shapes that do not depend on data.

How many rows count is known on the device alone. Reading it makes the host wait for everything
that it has asked a GPU for, so only where `may_look` says that it costs nothing are shapes made to
fit; elsewhere all rows are kept, and those that do not count get no weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_fixed = False


@contextmanager
def fixed_shapes() -> Iterator[None]:
    """Within the context nobody looks, on a CPU either: what a GPU would compute."""
    global _fixed
    before, _fixed = _fixed, True
    try:
        yield
    finally:
        _fixed = before


def may_look(tensor: Tensor) -> bool:
    """Whether a value can be read for nothing: on a CPU, unless torch compiles."""
    return not (_fixed or torch.compiler.is_compiling()) and tensor.device.type == "cpu"


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

    Where nobody may look, D is `limit`; else what the fullest row needs (at least 1), and nothing
    is computed for empty slots.
    """
    if not may_look(mask):
        return limit
    return max(1, min(limit, int(mask.sum(-1).max())))


def best_of_classes(
    scores: Tensor, threshold: float, limit: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each class those above a threshold, the best first, at most `limit`; class by class:
    scores, rows of N, labels, and which slots are filled, each (B, C). scores (B, N, K)

    Where looking costs nothing the rows without any such score, most of them, are left out first.
    """
    count, classes = scores.shape[1:]
    best = scores.amax(-1) if may_look(scores) else None  # (B, N)
    chosen = None
    if best is not None and (some := slots(best > threshold, count)) < count:
        chosen = highest(best, some)[1]
        scores = take(scores, chosen)
    by_class = scores.transpose(1, 2).contiguous()  # (B, K, N')
    most = slots((by_class > threshold).flatten(0, 1), limit)
    top, rows = (part.flatten(1) for part in highest(by_class, most))
    labels = torch.arange(classes, device=top.device)[:, None]
    labels = labels.expand(top.shape[0], -1, top.shape[1] // classes).flatten(1)
    rows = rows if chosen is None else chosen.gather(1, rows)
    return top, rows, labels, top > threshold


def with_child(parent: Tensor, valid: Tensor, count: int) -> Tensor:
    """Which of `count` rows something was made of: parent (B, M), valid (B, M) -> (B, count)."""
    made = torch.zeros(len(parent), count, dtype=torch.int64, device=parent.device)
    return made.scatter_add_(1, parent, valid.long()) > 0


def counting(mask: Tensor) -> Tensor:
    """Indices (M,) of the True rows of a mask (N,); of all rows where nobody may look."""
    if not may_look(mask):
        return torch.arange(len(mask), device=mask.device)
    return mask.nonzero()[:, 0]


def indices(mask: Tensor) -> tuple[Tensor, Tensor]:
    """`counting` of a mask with two axes (B, N): row and column (M,) of each entry."""
    index = counting(mask.flatten())
    return index // mask.shape[1], index % mask.shape[1]


def numbers(values: Sequence[float], like: Tensor, dtype: torch.dtype) -> Tensor:
    """A short vector made on the device itself: no copy from the host, so no synchronisation."""
    return torch.stack([torch.full((), v, dtype=dtype, device=like.device) for v in values])
