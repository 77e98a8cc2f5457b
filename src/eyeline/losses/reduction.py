"""From a loss of each element to one number."""

from __future__ import annotations

from torch import Tensor

from eyeline.errors import EyelineError


def reduce(loss: Tensor, reduction: str) -> Tensor:
    """`loss` as it is ("none"), its "sum" or its "mean"; both are 0 where there is no element."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.sum() / max(1, loss.numel())  # an empty mean would be NaN
    raise EyelineError(f"no reduction is called {reduction!r}; there are: none, sum, mean")
