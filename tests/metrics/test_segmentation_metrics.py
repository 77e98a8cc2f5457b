"""Numbers of segmentation: slow twins, scikit-learn, and what must not change them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

import eyeline.metrics.segmentation as module
from eyeline.errors import EyelineError
from eyeline.metrics import SegmentationMetrics, boundary_f1, confusion_matrix
from eyeline.processes import place, turns
from eyeline.together import together

properties = settings(max_examples=20, deadline=None)
PER_CLASS = ("IoU", "precision", "recall", "F1", "Dice", "boundary_F1")


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


@properties
@given(cases, st.integers(0, 2))
def test_equals_a_loop_over_pixels(case, more):
    said, target = case
    classes = int(max(said.max(), target.where(target != 255, 0).max())) + 1 + more
    pairs = [
        (p, t)
        for p, t in zip(said.flatten().tolist(), target.flatten().tolist(), strict=True)
        if t != 255
    ]

    def ratio(part, whole):
        return sum(map(part, pairs)) / n if (n := sum(map(whole, pairs))) else None

    rows = [
        {
            "IoU": ratio(lambda x, k=k: x == (k, k), lambda x, k=k: k in x),
            "precision": ratio(lambda x, k=k: x == (k, k), lambda x, k=k: x[0] == k),
            "recall": ratio(lambda x, k=k: x == (k, k), lambda x, k=k: x[1] == k),
            "F1": ratio(lambda x, k=k: 2 * (x == (k, k)), lambda x, k=k: x.count(k)),
        }
        for k in range(classes)
    ]
    found = measured(said, target, classes)
    for k, row in enumerate(rows):
        row["Dice"] = row["F1"]
        assert all(close(found["per_class"][str(k)][key], row[key]) for key in row)
        assert found["per_class"][str(k)]["pixels"] == sum(t == k for _, t in pairs)
    assert close(found["pixel_accuracy"], ratio(lambda x: x[0] == x[1], lambda x: 1))
    assert close(found["mIoU"], nanmean([row["IoU"] for row in rows]))
    assert close(found["mean_pixel_accuracy"], nanmean([row["recall"] for row in rows]))
    for key in ("precision", "recall", "F1", "Dice"):
        assert close(found[key], nanmean([row[key] for row in rows]))
    weighted = [rows[t]["IoU"] for _, t in pairs]
    assert close(found["fw_IoU"], nanmean(weighted))
    assert found["pixels"] == len(pairs) and found["pictures"] == len(target)


def test_equals_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    said, target = make(3, classes=5, pictures=4, height=30, width=40)
    known = target != 255
    y, p, labels = target[known].numpy(), said[known].numpy(), range(6)  # class 5 is nowhere
    found = measured(said, target, 6)
    assert found["confusion"].tolist() == sklearn.confusion_matrix(y, p, labels=labels).tolist()
    assert found["confusion"].dtype == torch.int64
    assert found["pixel_accuracy"] == pytest.approx(sklearn.accuracy_score(y, p))
    assert found["mean_pixel_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(y, p))
    assert found["fw_IoU"] == pytest.approx(sklearn.jaccard_score(y, p, average="weighted"))
    for key, function in {
        "IoU": sklearn.jaccard_score,
        "precision": sklearn.precision_score,
        "recall": sklearn.recall_score,
        "F1": sklearn.f1_score,
    }.items():
        expected = function(y, p, labels=labels, average=None, zero_division=0)
        rows = [row[key] for row in found["per_class"].values()]
        assert rows[5] is None and rows[:5] == pytest.approx(expected[:5])
        mean = found["mIoU" if key == "IoU" else key]
        assert mean == pytest.approx(function(y, p, average="macro"))


def test_absent_classes():
    """Two are in both, one is only predicted, one only in the truth, one in neither."""
    target, said = torch.tensor([[0, 0, 1, 3]]), torch.tensor([[0, 2, 1, 1]])
    found = measured(said, target, ("a", "b", "c", "d", "e"))
    rows = found["per_class"]
    assert [rows[n]["IoU"] for n in "abcde"] == [1 / 2, 1 / 2, 0, 0, None]
    assert [rows[n]["precision"] for n in "abcde"] == [1, 1 / 2, 0, None, None]
    assert [rows[n]["recall"] for n in "abcde"] == [1 / 2, 1, None, 0, None]
    assert [rows[n]["F1"] for n in "abcde"] == pytest.approx([2 / 3, 2 / 3, 0, 0, None])
    assert found["mIoU"] == 1 / 4
    assert found["precision"] == found["recall"] == found["mean_pixel_accuracy"] == 1 / 2
    assert found["fw_IoU"] == (2 / 2 + 1 / 2) / 4


def test_binary_dice_is_f1():
    said, target = make(1, classes=2, ignored=0.0)
    both, either = (said & target).sum(), said.sum() + target.sum()
    row = measured(said, target, 2)["per_class"]["1"]
    assert row["Dice"] == row["F1"] == pytest.approx(2 * int(both) / int(either))
    harmonic = 2 / (1 / row["precision"] + 1 / row["recall"])
    assert row["F1"] == pytest.approx(harmonic)


@properties
@given(cases, st.randoms(use_true_random=False))
def test_renaming_classes_renames_the_numbers(case, random):
    said, target = case
    order = list(range(6))
    random.shuffle(order)
    new = torch.tensor(order)
    found = measured(said, target, 6)
    renamed = new[target.clamp(max=5)].where(target != 255, 255)
    other = measured(new[said], renamed, 6)
    for k in range(6):
        assert found["per_class"][str(k)] == other["per_class"][str(order[k])]
    assert torch.equal(found["confusion"], other["confusion"][new][:, new])
    means = {k: v for k, v in found.items() if k not in ("per_class", "confusion")}
    assert means == {k: other[k] for k in means}  # to the last bit


@properties
@given(cases, st.randoms(use_true_random=False))
def test_parts_make_the_whole(case, random):
    said, target = case
    whole = measured(said, target, 5)
    parts = [SegmentationMetrics(5) for _ in range(3)]
    for i in random.sample(range(len(said)), len(said)):
        random.choice(parts).update(said[i], target[i])
    states = [part.state for part in parts]
    assert all(v.dtype == torch.int64 and v.device.type == "cpu" for v in states[0].values())
    merged = SegmentationMetrics(5).merge(states[0]).merge(parts[1]).merge(states[2])
    assert same(merged.numbers(), whole)
    added = {name: sum(state[name] for state in states) for name in states[0]}
    assert same(SegmentationMetrics(5).merge(added).numbers(), whole)


@properties
@given(cases, st.integers(0, 4))
def test_what_is_ignored_changes_nothing(case, label):
    said, target = case
    whole = measured(said, target, 5)
    assert same(measured(said.where(target != 255, label), target, 5), whole)
    assert same(measured(said, target.where(target != 255, -3), 5, ignore=-3), whole)
    # nor does any class there that is none
    assert same(measured(said.where(target != 255, 77), target, 5), whole)


def test_a_state_is_a_copy():
    metrics = SegmentationMetrics(2)
    metrics.state["confusion"] += 1
    metrics.numbers()["confusion"].add_(1)
    assert not metrics.state["confusion"].any()


def test_more_pixels_than_32_bits_or_a_double_count():
    """A prime number of pixels, so that no rounding is hidden by a common factor."""
    counts = torch.tensor([[2**61 - 1, 2**59 + 1], [7, 2**58 + 3]])
    metrics = SegmentationMetrics(2)
    metrics.merge(metrics.state | {"confusion": counts})
    found = metrics.numbers()
    assert found["pixels"] == int(sum(counts.flatten().tolist()))
    expected = Fraction(2**61 - 1, 2**61 - 1 + 2**59 + 1 + 7)
    assert found["per_class"]["0"]["IoU"] == float(expected)


def test_logits_batches_and_lists():
    said, target = make(4, pictures=2)
    whole = measured(said, target, 3)
    logits = torch.nn.functional.one_hot(said, 3).movedim(-1, 1) + 0.5 * torch.rand(2, 3, 6, 7)
    assert same(measured(logits, target, 3), whole)
    assert same(measured(list(logits.half()), list(target.to(torch.uint8)), 3), whole)
    one = SegmentationMetrics(3)
    one.update(logits[0], target[0])
    one.update(said[1].to(torch.uint8), target[1])
    assert same(one.numbers(), whole)
    # one logit, two classes: the sign says which
    binary, truth = make(5, classes=2, pictures=1)
    found = measured(binary[:, None] - 0.5, truth, 2)
    assert same(found, measured(binary, truth, 2))


def test_nothing_counted():
    found = SegmentationMetrics(("a", "b")).numbers()
    assert found["pixels"] == found["pictures"] == 0
    assert [found[k] for k in ("pixel_accuracy", "mIoU", "fw_IoU", "boundary_F1")] == [None] * 4
    assert all(row[key] is None for row in found["per_class"].values() for key in PER_CLASS)


@pytest.mark.parametrize(
    ("said", "target", "message"),
    [
        (torch.zeros(4, 5), torch.zeros(4, 5).long(), r"\(4, 5\), torch.float32, and its target"),
        (torch.zeros(2, 4, 5), torch.zeros(4, 5).long(), r"logits \(3, H, W\)"),
        (torch.zeros(4, 5).long(), torch.zeros(4, 4).long(), r"give integers \(H, W\)"),
        (torch.zeros(4, 5).long() + 3, torch.zeros(4, 5).long(), "a prediction has class 3"),
        (torch.zeros(4, 5).long() - 1, torch.zeros(4, 5).long(), "a prediction has class -1"),
        (torch.zeros(4, 5).long(), torch.zeros(4, 5).long() + 9, "a target: class 9"),
        ([torch.zeros(4, 5).long()], [], "1 predictions for 0 targets"),
    ],
)
def test_what_does_not_fit_is_named(said, target, message):
    with pytest.raises(EyelineError, match=message):
        SegmentationMetrics(3).update(said, target)


def test_what_cannot_be_merged_or_made():
    with pytest.raises(EyelineError, match="other classes"):
        SegmentationMetrics(3).merge(SegmentationMetrics(2))
    for options in ({"classes": 0}, {"classes": 2, "tolerance": 0.0}):
        with pytest.raises(EyelineError, match="both must be above 0"):
            SegmentationMetrics(**options)


def test_over_processes(monkeypatch):
    """Each adds its own to the others' and has the whole; it keeps its own."""
    said, target = make(6)
    whole = measured(said, target, 3)
    own, other = SegmentationMetrics(3), SegmentationMetrics(3)
    own.update(said[:1], target[:1])
    other.update(said[1:], target[1:])
    before = own.state
    assert same(own.over_processes().numbers(), own.numbers())  # alone
    theirs = iter(other.state.values())
    monkeypatch.setattr(module, "sum_over_processes", lambda values: values + next(theirs))
    assert same(own.over_processes().numbers(), whole)
    assert all(torch.equal(own.state[k], v) for k, v in before.items())


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


# What each of the processes does: `torchrun test_segmentation_metrics.py FOLDER`.


@together()
def measure_own(folder):
    said, target = make(7, pictures=5)
    own = SegmentationMetrics(3)
    for i in turns(5):
        own.update(said[i], target[i])
    rank, count = place()
    assert count == 2
    torch.save(own.over_processes().numbers(), f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_two_processes(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run(
        [*torchrun, "--nproc-per-node=2", __file__, str(tmp_path)],
        check=True,
        capture_output=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    whole = measured(*make(7, pictures=5), 3)
    for rank in range(2):
        assert same(torch.load(tmp_path / f"{rank}.pt"), whole)


if __name__ == "__main__":
    measure_own(sys.argv[1])
