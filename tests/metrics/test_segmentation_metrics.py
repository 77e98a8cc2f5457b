"""Numbers of segmentation: slow twins, scikit-learn, and what must not change them."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from label_maps import cases, close, make, measured, nanmean, same

import eyeline.metrics.segmentation as module
from eyeline.errors import EyelineError
from eyeline.metrics import SegmentationMetrics
from eyeline.processes import place, turns
from eyeline.together import together

properties = settings(max_examples=20, deadline=None)
PER_CLASS = ("IoU", "precision", "recall", "F1", "Dice", "boundary_F1")


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


def test_a_mean_has_no_order():
    """Plain sums of these differ in the last bit."""
    values = [0.1, 0.2, 0.3, 0.7, None, 1 / 3]
    assert len({sum(p) for p in permutations([0.1, 0.2, 0.3, 0.7, 1 / 3])}) > 1
    assert len({module._mean(list(p)) for p in permutations(values)}) == 1


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
        (torch.zeros(4, 5).long(), torch.zeros(4, 5) + 0.9, r"the target is torch\.float32"),
        (torch.full((3, 4, 5), torch.nan), torch.zeros(4, 5).long(), r"finite \(20 pixels\)"),
        (torch.full((3, 4, 5), torch.inf), torch.zeros(4, 5).long(), "logits are not finite"),
    ],
)
def test_what_does_not_fit_is_named(said, target, message):
    with pytest.raises(EyelineError, match=message):
        SegmentationMetrics(3).update(said, target)


def test_what_cannot_be_merged_or_made():
    with pytest.raises(EyelineError, match="other classes"):
        SegmentationMetrics(3).merge(SegmentationMetrics(2))
    with pytest.raises(EyelineError, match=r"tolerance=None, this one tolerance=0\.0075"):
        SegmentationMetrics(3).merge(SegmentationMetrics(3, tolerance=None))
    with pytest.raises(EyelineError, match="ignore=7, this one ignore=255"):
        SegmentationMetrics(3).merge(SegmentationMetrics(3, ignore=7))
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
