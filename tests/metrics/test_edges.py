"""Errors by their distance to a boundary."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eyeline.metrics.edges import BANDS, EdgeErrors, distances
from eyeline.ops.labels import IGNORE


def slow_distances(labels):
    """Of each pixel the way to the nearest that has a neighbour of another label, and one more."""
    height, width = labels.shape
    touching = [
        (y, x)
        for y in range(height)
        for x in range(width)
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
        if 0 <= y + dy < height and 0 <= x + dx < width and labels[y + dy, x + dx] != labels[y, x]
    ]
    return np.array(
        [
            [min(np.hypot(y - v, x - u) for v, u in touching) + 1 for x in range(width)]
            for y in range(height)
        ]
    )


def test_distances_equal_a_plain_search():
    labels = np.random.default_rng(0).integers(0, 9, (12, 15)) // 7
    labels[4:, :4] = IGNORE
    assert np.allclose(distances(labels), slow_distances(labels))
    assert np.isinf(distances(np.zeros((3, 4), int))).all()


def test_errors_are_counted_in_their_bands():
    truth = torch.zeros(4, 60, dtype=torch.int64)
    truth[:, 30:] = 1
    truth[0] = IGNORE
    said = truth.clone()
    said[2, 30] = 0  # touches the boundary
    said[3, 0] = 1  # far from it, and 3 below the ignored row
    said[0] = 1  # counts nowhere
    found = EdgeErrors()
    found.update(said, truth)
    bands = found.bands()
    assert sum(band.pixels for band in bands) == 180
    assert sum(band.errors for band in bands) == 2
    assert bands[0].errors == 1 and bands[0].pixels == 60 + 2 * 2  # below the ignored row, and x
    far = next(band for band in bands if band.upto == 4)
    assert far.errors == 1
    assert bands[0].rate == pytest.approx(1 / 64)
    assert [band.name for band in bands] == [
        "1 pixel", "2 pixels", "3 to 4 pixels", "5 to 8 pixels", "9 to 16 pixels",
        "17 to 32 pixels", "beyond 32 pixels",
    ]  # fmt: skip


def test_counts_of_several_add_up():
    generator = torch.Generator().manual_seed(0)
    one, two, both = EdgeErrors(), EdgeErrors(), EdgeErrors()
    for part in (one, two):
        for _ in range(2):
            said, truth = torch.randint(0, 3, (2, 20, 20), generator=generator)
            part.update(said, truth)
            both.update(said, truth)
    one.merge(two)
    assert np.array_equal(one.counts, both.counts) and one.counts[0].sum() == 1600
    assert EdgeErrors().bands()[0].rate is None and len(EdgeErrors().bands()) == len(BANDS)


def test_a_picture_of_one_class_lies_inside():
    found = EdgeErrors()
    found.update(torch.ones(5, 5, dtype=torch.int64), torch.zeros(5, 5, dtype=torch.int64))
    assert found.bands()[-1] == (32.0, float("inf"), 25, 25)
