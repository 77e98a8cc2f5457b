"""Boundary F1: by hand, and by distance transforms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from label_maps import cases, close, make, measured, nanmean
from scipy.ndimage import distance_transform_edt

from eyeline.metrics import boundary_f1, confusion_matrix

properties = settings(max_examples=20, deadline=None)


def slow_boundary(said, target, classes, tolerance):
    """By scipy's distance transform of each class, pixel by pixel."""
    height, width = target.shape
    said = [[-1 if t == 255 else p for p, t in zip(*r, strict=True)]
            for r in zip(said.tolist(), target.tolist(), strict=True)]  # fmt: skip
    truth = [[-1 if t == 255 else t for t in row] for row in target.tolist()]

    def border(labels, k):
        on = np.zeros((height, width), bool)
        for y in range(height):
            for x in range(width):
                around = [
                    labels[b][a]
                    for b, a in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
                    if 0 <= b < height and 0 <= a < width
                ]
                on[y, x] = labels[y][x] == k and any(other not in (-1, k) for other in around)
        return on

    result = []
    for k in range(classes):
        a, b = border(said, k), border(truth, k)
        if not a.any() and not b.any():
            result.append(None)
        elif not a.any() or not b.any():
            result.append(0.0)
        else:
            reach = tolerance * math.sqrt(height**2 + width**2)
            p = (distance_transform_edt(~b)[a] < reach).mean()
            r = (distance_transform_edt(~a)[b] < reach).mean()
            result.append(2 * p * r / (p + r) if p + r else 0.0)
    return result


@properties
@given(cases, st.sampled_from([0.0075, 0.12, 0.25, 2.0]))
def test_boundary_by_distance_transforms(case, tolerance):
    said, target = case
    rows = [slow_boundary(s, t, 5, tolerance) for s, t in zip(said, target, strict=True)]
    for s, t, row in zip(said, target, rows, strict=True):
        found = boundary_f1(s, t, 5, tolerance).tolist()
        assert [None if math.isnan(v) else v for v in found] == pytest.approx(row)
    numbers = measured(said, target, 5, tolerance=tolerance)
    for k in range(5):
        mean = nanmean([row[k] for row in rows])
        assert close(numbers["per_class"][str(k)]["boundary_F1"], mean)
    assert close(numbers["boundary_F1"], nanmean([nanmean(row) for row in rows]))


def test_boundary_on_a_larger_picture():
    said, target = make(8, classes=4, pictures=1, height=60, width=80, ignored=0.02)
    found = boundary_f1(said[0], target[0], 4, 0.04)
    expected = slow_boundary(said[0], target[0], 4, 0.04)
    assert found.tolist() == pytest.approx(expected) and 0.2 < found.mean() < 1


def test_boundary_by_hand():
    """A picture of 6 x 8, diagonal 10. The edge between the classes is off by one column."""
    target, said = torch.zeros(2, 6, 8, dtype=torch.int64)
    target[:, 4:] = 1
    said[:, 5:] = 1
    assert boundary_f1(said, target, 3, 0.1).tolist()[:2] == [0, 0]  # nearer than 1: no
    found = boundary_f1(said, target, 3, 0.11)
    assert found[:2].tolist() == [1, 1] and found[2].isnan()
    said[:] = 0  # the truth has borders, the prediction none
    assert boundary_f1(said, target, 2).tolist() == [0, 0]
    assert boundary_f1(said, said, 2).isnan().all()  # neither has
    target[:, 4] = 255  # what lies between the classes is unknown: none in the truth either
    target[:, 3] = 255
    assert boundary_f1(target.clamp(max=1), target, 2).isnan().all()


def test_without_a_tolerance_there_is_no_boundary():
    said, target = make(2)
    found = measured(said, target, 3, tolerance=None)
    assert found["boundary_F1"] is None and found["mIoU"] == measured(said, target, 3)["mIoU"]


def test_one_picture_or_many():
    """Boundary F1 is a mean over pictures, IoU one number of all pixels."""
    said, target = make(9, pictures=4, height=20, width=24)
    alone = [measured(s, t, 3) for s, t in zip(said, target, strict=True)]
    whole = measured(said, target, 3)
    assert whole["boundary_F1"] == pytest.approx(nanmean([row["boundary_F1"] for row in alone]))
    assert abs(whole["mIoU"] - nanmean([row["mIoU"] for row in alone])) > 1e-4
    assert torch.equal(whole["confusion"], confusion_matrix(said, target, 3))
