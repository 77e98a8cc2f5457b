"""Errors of maps by their distance to a true boundary: is a class wrong, or only its outline?

The boundary runs where the label of a pixel's neighbour, above, below, left or right, is another;
what is ignored has a label of its own there, and counts nowhere itself. The pixels that touch it
are 1 pixel away. Kohli et al., "Robust Higher Order Potentials for Enforcing Label Consistency",
CVPR 2008, count what lies within a band about it; here is all, out to the inside.

Letters   H and W of a map, D bands.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]
from torch import Tensor

from eyeline.ops.labels import IGNORE
from eyeline.processes import sum_over_processes

# Pixels from a boundary: a band holds what lies so far away at most, and beyond the one before.
BANDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, float("inf"))


class Band(NamedTuple):
    """The pixels of a distance."""

    above: float  # the band begins beyond this distance
    upto: float
    pixels: int
    errors: int

    @property
    def rate(self) -> float | None:
        """Which share of its pixels is wrong; None without any."""
        return self.errors / self.pixels if self.pixels else None

    @property
    def name(self) -> str:
        """As "3 to 4 pixels", from whole numbers on."""
        if self.upto == float("inf"):
            return f"beyond {self.above:g} pixels"
        low = int(self.above) + 1
        if low < self.upto:
            return f"{low} to {self.upto:g} pixels"
        return f"{low} pixel{'s' if low > 1 else ''}"


class EdgeErrors:
    """Counts over any number of pictures."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, len(BANDS)), np.int64)  # pixels, and those that are wrong

    def update(self, said: Tensor, truth: Tensor) -> None:
        """Maps (H, W) of classes; what `truth` ignores counts nowhere."""
        labels, found = truth.cpu().numpy(), said.cpu().numpy()
        known = labels != IGNORE
        band = np.searchsorted(BANDS, distances(labels)[known])
        wrong = found[known] != labels[known]
        size = len(BANDS)
        self.counts[0] += np.bincount(band, minlength=size)
        self.counts[1] += np.bincount(band[wrong], minlength=size)

    def merge(self, other: EdgeErrors) -> None:
        self.counts += other.counts

    def over_processes(self) -> EdgeErrors:
        """What all processes have counted together, in each; all must call it."""
        whole = EdgeErrors()
        whole.counts += sum_over_processes(torch.from_numpy(self.counts)).numpy()
        return whole

    def to_json(self) -> list[dict[str, float | int | None]]:
        """The bands: pixels and errors up to a distance; None: beyond all others."""
        return [
            {"upto": None if band.upto == float("inf") else band.upto, "pixels": band.pixels,
             "errors": band.errors}
            for band in self.bands()
        ]  # fmt: skip

    def bands(self) -> list[Band]:
        """From the boundary to the inside."""
        low = (0.0, *BANDS)
        return [
            Band(low[i], high, int(self.counts[0, i]), int(self.counts[1, i]))
            for i, high in enumerate(BANDS)
        ]


def distances(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """(H, W): how many pixels each lies from a boundary of the map (H, W), 1 where it touches one;
    infinite where there is none."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        changes = np.diff(labels, axis=axis) != 0
        before = [slice(None), slice(None)]
        after = [slice(None), slice(None)]
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        edge[tuple(before)] |= changes
        edge[tuple(after)] |= changes
    if not edge.any():
        return np.full(labels.shape, np.inf)
    found: NDArray[np.float64] = ndimage.distance_transform_edt(~edge) + 1
    return found
