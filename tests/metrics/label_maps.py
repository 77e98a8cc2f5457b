"""Small maps of labels in blobs, and what their tests share."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st

from eyeline.metrics import SegmentationMetrics


def make(seed, classes=3, pictures=3, height=6, width=7, ignored=0.2, known=None):
    """Predictions and targets (B, H, W) in blobs; the first `known` classes only in the truth."""
    generator = torch.Generator().manual_seed(seed)

    def blobs(count):
        coarse = torch.randint(count, (pictures, 1, 3, 3), generator=generator).float()
        return torch.nn.functional.interpolate(coarse, (height, width))[:, 0].long()

    target, said = blobs(known or classes), blobs(classes)
    said = target.where(torch.rand(target.shape, generator=generator) < 0.6, said)
    target[torch.rand(target.shape, generator=generator) < ignored] = 255
    return said, target


cases = st.builds(
    make,
    st.integers(0, 10**6),
    classes=st.integers(1, 5),
    pictures=st.integers(1, 4),
    height=st.integers(1, 7),
    width=st.integers(1, 8),
    ignored=st.sampled_from([0.0, 0.2, 1.0]),
    known=st.sampled_from([None, 1]),
)


def measured(said, target, classes, **options):
    metrics = SegmentationMetrics(classes, **options)
    metrics.update(said, target)
    return metrics.numbers()


def same(a, b):
    """Equal to the last bit, the matrix too."""
    return {k: v.tolist() if k == "confusion" else v for k, v in a.items()} == {
        k: v.tolist() if k == "confusion" else v for k, v in b.items()
    }


def nanmean(values):
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def close(found, expected):
    if expected is None:
        return found is None
    return found is not None and math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-11)
