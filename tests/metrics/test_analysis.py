"""Pairs, thresholds and confusions: by hand, and against the metric that everybody uses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from eyeline.errors import EyelineError
from eyeline.metrics import CocoMetric
from eyeline.metrics.analysis import (
    BINS,
    analyse,
    best_threshold,
    confusion,
    histogram,
    pair,
    picture_score,
    verdicts,
)


def row(*parts, **more):
    """Prediction (box, label, score) or target (box, label)."""
    boxes = torch.tensor([p[0] for p in parts], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([p[1] for p in parts], dtype=torch.int64)
    out = {"boxes": boxes, "labels": labels, **more}
    if parts and len(parts[0]) == 3:
        out["scores"] = torch.tensor([p[2] for p in parts])
    return out


NOTHING = row() | {"scores": torch.zeros(0)}


def at(x, width=10):
    return [float(x), 0.0, float(x + width), 10.0]


def test_pairs_by_hand():
    """The best takes what it overlaps most; the next takes what is left, or nothing."""
    target = row((at(0), 0), (at(2), 0), (at(50), 1))
    prediction = row((at(1), 0, 0.5), (at(2), 0, 0.9), (at(0), 0, 0.4), (at(50), 0, 0.8))
    found = pair(prediction, target)
    assert found.object.tolist() == [0, 1, -1, -1] and not found.ignored.any()
    assert pair(prediction, NOTHING).object.tolist() == [-1] * 4
    assert pair(NOTHING, target).object.tolist() == []
    # IoU exactly one half counts
    assert pair(row((at(0, 5), 0, 0.5)), row((at(0), 0))).object.tolist() == [0]
    assert pair(row((at(0, 4), 0, 0.5)), row((at(0), 0))).object.tolist() == [-1]


def test_ignored_objects():
    """Any number may lie on a crowd, if half of each lies in it, but objects come first."""
    target = row((at(0, 40), 0), (at(5), 0), iscrowd=torch.tensor([True, False]))
    prediction = row(
        (at(5), 0, 0.9), (at(6), 0, 0.8), (at(35), 0, 0.7), (at(36), 0, 0.6), (at(5), 1, 0.5)
    )
    found = pair(prediction, target)
    assert found.object.tolist() == [1, -1, -1, -1, -1]
    assert found.ignored.tolist() == [False, True, True, False, False]  # 5 and 4 of 10 lie in it
    right, false, missed = verdicts(prediction, target, found, np.zeros(2))
    assert right.tolist() == [True] + [False] * 4
    assert false.tolist() == [False] * 3 + [True, True]
    assert not missed.any()
    matrix = confusion(prediction, target, found, np.zeros(2))
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 0]]


def test_confusion_by_hand():
    """Cat found; dog taken for a cat; dog missed; a cat where nothing is; one below threshold."""
    target = row((at(0), 0), (at(20), 1), (at(40), 1), (at(60), 0))
    prediction = row(
        (at(0), 0, 0.9), (at(20), 0, 0.8), (at(80), 0, 0.7), (at(60), 1, 0.6), (at(40), 1, 0.1)
    )
    found = pair(prediction, target)
    matrix = confusion(prediction, target, found, np.array([0.5, 0.5]))
    assert matrix.tolist() == [[1, 1, 0], [1, 0, 1], [1, 0, 0]]
    assert matrix[:2].sum() == 4 and matrix[:, :2].sum() == 4  # every object, every detection once
    # without thresholds the last dog is found
    assert confusion(prediction, target, found, np.zeros(2))[1].tolist() == [1, 1, 0]
    assert picture_score(prediction, target, found, np.zeros(2)) == (4 / 9, 2, 3, 2)


def test_a_second_detection_of_the_right_class_does_not_hide_a_wrong_one():
    """Two on one cat: the cat counts as found, the dog as one of background."""
    target = row((at(0), 0))
    prediction = row((at(0), 1, 0.9), (at(1), 0, 0.5))
    matrix = confusion(prediction, target, pair(prediction, target), np.zeros(2))
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_best_threshold_by_hand():
    """F1 for 4 objects: 2/5, 2/6, 4/7, 6/8, 6/9: the fourth; equal scores count together."""
    right = np.array([1, 0, 1, 1, 0], bool)
    best = best_threshold(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), right, 4)
    assert best == (0.6, 0.75, 0.75, 0.75)
    shuffled = [3, 0, 4, 1, 2]
    assert best_threshold(np.array([0.6, 0.9, 0.5, 0.8, 0.7]), right[shuffled], 4) == best
    tied = best_threshold(np.array([0.9, 0.8, 0.7, 0.6, 0.6]), right, 4)
    assert tied == (0.6, 6 / 9, 3 / 5, 3 / 4)
    assert best_threshold(np.array([0.9]), np.array([False]), 4) is None
    assert best_threshold(np.array([0.9]), np.array([False]), 0) is None
    assert best_threshold(np.zeros(0), np.zeros(0, bool), 3) is None


def test_best_threshold_is_the_best_of_all():
    generator = np.random.default_rng(0)
    for _ in range(50):
        n, objects = generator.integers(1, 30), 12
        scores = generator.integers(0, 10, n) / 10
        right = generator.random(n) < 0.4
        right[np.flatnonzero(right)[objects:]] = False
        best = best_threshold(scores, right, objects)
        every = [
            2 * right[scores >= t].sum() / ((scores >= t).sum() + objects) for t in set(scores)
        ]
        assert (best is None) == (not right.any())
        if best is not None:
            assert best.f1 == pytest.approx(max(every))
            shown = scores >= best.score
            assert best.precision == right[shown].sum() / shown.sum()


def test_histogram():
    scores = np.array([0.0, 0.049, 0.05, 0.5, 0.51, 0.999, 1.0])
    right = np.array([0, 1, 1, 1, 0, 1, 1], bool)
    good, bad = histogram(scores, right)
    assert len(good) == BINS == 20
    assert {i: int(n) for i, n in enumerate(good) if n} == {0: 1, 1: 1, 10: 1, 19: 2}
    assert {i: int(n) for i, n in enumerate(bad) if n} == {0: 1, 10: 1}


def test_whole_analysis_by_hand():
    predictions = [
        row((at(0), 0, 0.9), (at(20), 0, 0.3)),  # one right, one false
        row((at(0), 0, 0.8), (at(20), 0, 0.7)),  # two right
        NOTHING,  # nothing there, nothing found
        row((at(0), 1, 0.6)),  # one missed, one false of a class that is nowhere
    ]
    targets = [row((at(0), 0)), row((at(0), 0), (at(20), 0)), row(), row((at(40), 0))]
    result = analyse(predictions, targets, 2)
    assert result.best[0] == (pytest.approx(0.7), 6 / 7, 1.0, 0.75) and result.best[1] is None
    assert result.thresholds[1] == math.inf
    assert result.confusion.tolist() == [[3, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert result.pictures == [(1.0, 1, 0, 0), (1.0, 2, 0, 0), (1.0, 0, 0, 0), (0.0, 0, 0, 1)]
    assert result.worst_first() == [3, 2, 0, 1]
    assert result.histograms[0][0].sum() == 3 and result.histograms[0][1].sum() == 1
    assert result.histograms[1][1].sum() == 1


def random_pictures(count=40, classes=3):
    generator = torch.Generator().manual_seed(4)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    predictions, targets = [], []
    for _ in range(count):
        g = int(rand(1) * 8)
        corner = rand(g, 2) * 100
        boxes = torch.cat([corner, corner + 5 + rand(g, 2) * 60], 1)
        labels = (rand(g) * classes).long()
        crowd = rand(g) < 0.25
        again = torch.cat([boxes] * 3) + rand(3 * g, 4) * 12 - 6
        again[:, 2:] = torch.maximum(again[:, 2:], again[:, :2] + 1)
        guesses = torch.where(rand(3 * g) < 0.8, labels.repeat(3), (rand(3 * g) * classes).long())
        predictions.append({"boxes": again, "labels": guesses, "scores": rand(3 * g)})
        targets.append({"boxes": boxes, "labels": labels, "iscrowd": crowd})
    return predictions, targets


def test_pairs_are_those_of_the_coco_metric():
    """AP50 worked out from the pairs, at 101 recalls, is what the COCO metric says."""
    predictions, targets = random_pictures()
    names = ["a", "b", "c"]
    metric = CocoMetric(names)
    metric.update(predictions, targets)
    wanted = metric.compute()["per_class"]
    result = analyse(predictions, targets, 3)
    labels = torch.cat([p["labels"] for p in predictions]).numpy()
    scores = torch.cat([p["scores"] for p in predictions]).numpy()
    found = np.concatenate([p.object for p in result.pairs])
    ignored = np.concatenate([p.ignored for p in result.pairs])
    assert ignored.sum() > 20 and (found >= 0).sum() > 50
    for k, name in enumerate(names):
        mine = np.flatnonzero((labels == k) & ~ignored)
        mine = mine[np.argsort(-scores[mine], kind="stable")]
        hits = (found[mine] >= 0).cumsum()
        recall = hits / wanted[name]["objects"]
        precision = hits / np.arange(1, len(mine) + 1)
        highest = [max(precision[recall >= r - 1e-12], default=0.0) for r in np.linspace(0, 1, 101)]
        assert np.mean(highest) == pytest.approx(wanted[name]["AP50"], abs=1e-6)


def test_everything_is_counted_once():
    predictions, targets = random_pictures()
    result = analyse(predictions, targets, 3)
    counted = sum(int((~t["iscrowd"]).sum()) for t in targets)
    assert result.confusion[:3].sum() == counted
    right, false, missed = (sum(p[i] for p in result.pictures) for i in (1, 2, 3))
    assert np.trace(result.confusion) == right and right + missed == counted
    assert result.confusion[:, :3].sum() == right + false
    for k, best in enumerate(result.best):
        assert result.confusion[k, k] == round(best.recall * result.confusion[k].sum())
        judged = result.histograms[k][0].sum(), result.histograms[k][1].sum()
        assert judged[0] >= result.confusion[k, k] > 0 and judged[1] > 0


def test_labels_out_of_range_are_named():
    with pytest.raises(EyelineError, match="prediction 0 has label 5"):
        analyse([row((at(0), 5, 0.5))], [row((at(0), 0))], 2)
