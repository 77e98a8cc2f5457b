"""Soft NMS against its slow twin, voting against a loop, and both by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.ops.iou import box_iou
from eyeline.ops.nms import nms_plain
from eyeline.ops.suppression import HARD, Suppression, soft_nms, soft_nms_plain, vote

A = [0.0, 0.0, 10.0, 10.0]
HALF = [0.0, 0.0, 10.0, 5.0]  # IoU with A: 0.5
FAR = [50.0, 50.0, 60.0, 60.0]
SOFT = ["soft_linear", "soft_gaussian"]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    n = draw(st.integers(0, 20))
    box = st.tuples(*(st.integers(0, 6) for _ in range(4)))
    rows = draw(st.lists(box, min_size=n, max_size=n))
    scores = draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))
    groups = draw(st.none() | st.lists(st.sampled_from([0, 1, 2**40]), min_size=n, max_size=n))
    valid = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(n, 4)
    boxes[:, 2:] += boxes[:, :2]  # some without area
    return (
        boxes,
        torch.tensor(scores, dtype=torch.float32) / 20,
        None if groups is None else torch.tensor(groups),
        torch.tensor(valid, dtype=torch.bool),
    )


@settings(max_examples=150, deadline=None)
@given(
    case=cases(),
    kind=st.sampled_from(SOFT),
    threshold=st.sampled_from([0.0, 0.31, 0.5]),  # exact, or no overlap of such boxes
    sigma=st.sampled_from([0.1, 0.5]),
    floor=st.sampled_from([0.0, 0.001, 0.3]),
    limit=st.integers(1, 25),
)
def test_equals_the_slow_twin(case, kind, threshold, sigma, floor, limit):
    boxes, scores, groups, valid = case
    index, lowered, found = soft_nms(
        boxes, scores, kind, threshold, limit, groups, valid, sigma, floor
    )
    usable = valid.nonzero()[:, 0]
    some = None if groups is None else groups[usable]
    wanted, wanted_scores = soft_nms_plain(
        boxes[usable], scores[usable], kind, threshold, limit, some, sigma, floor
    )
    assert found.tolist() == [i < len(wanted) for i in range(limit)]
    assert torch.equal(index[found], usable[wanted])
    torch.testing.assert_close(lowered[found], wanted_scores)
    assert not index[~found].any() and not lowered[~found].any()


@settings(max_examples=100, deadline=None)
@given(case=cases(), kind=st.sampled_from(SOFT))
def test_scores_only_sink_and_come_best_first(case, kind):
    boxes, scores, groups, _ = case
    index, lowered, found = soft_nms(boxes, scores, kind, 0.3, len(scores) + 1, groups)
    assert (lowered[found] <= scores[index[found]]).all()
    assert (lowered[found].diff() <= 0).all()
    assert len(index[found].unique()) == int(found.sum())
    if found.any():
        assert lowered[0] == scores.max()  # the best keeps its score


@settings(max_examples=100, deadline=None)
@given(case=cases(), threshold=st.sampled_from([0.2, 0.5]))
def test_a_vanishing_sigma_is_hard_nms_at_any_overlap(case, threshold):
    boxes, scores, groups, _ = case
    usable = (scores >= 0.01).nonzero()[:, 0]
    boxes, scores = boxes[usable], scores[usable]
    groups = None if groups is None else groups[usable]
    index, _, found = soft_nms(
        boxes, scores, "soft_gaussian", threshold, 30, groups, None, 1e-9, 0.001
    )
    assert torch.equal(index[found], nms_plain(boxes, scores, 0.0, groups))


@pytest.mark.parametrize(
    ("kind", "threshold", "wanted"),
    [
        # HALF overlaps A by one half: linear halves its score, at the threshold it keeps it
        ("soft_linear", 0.3, [(0, 0.9), (2, 0.6), (1, 0.4)]),
        ("soft_linear", 0.5, [(0, 0.9), (1, 0.8), (2, 0.6)]),
        ("soft_gaussian", 0.9, [(0, 0.9), (2, 0.6), (1, 0.8 * math.exp(-0.25 / 0.5))]),
    ],
)
def test_by_hand(kind, threshold, wanted):
    boxes, scores = torch.tensor([A, HALF, FAR]), torch.tensor([0.9, 0.8, 0.6])
    index, lowered, found = soft_nms(boxes, scores, kind, threshold, 5)
    assert found.tolist() == [True] * 3 + [False] * 2
    assert index[:3].tolist() == [i for i, _ in wanted]
    assert lowered[:3].tolist() == pytest.approx([s for _, s in wanted])


def test_of_scores_that_become_equal_the_first_is_taken():
    boxes = torch.tensor([[0.0, 0, 2, 3], [9, 9, 10, 10], [0, 0, 3, 2]])  # IoU of 0 and 2: a half
    scores = torch.tensor([0.1, 0.05, 0.1])
    index, lowered, _ = soft_nms(boxes, scores, "soft_linear", 0.0, 2, floor=0.0)
    assert index.tolist() == [0, 1]
    torch.testing.assert_close(lowered, scores[:2])


def test_the_floor_drops_for_good():
    """The same box thrice, linear: IoU 1 takes their scores to 0, below any floor."""
    boxes, scores = torch.tensor([A, A, HALF]), torch.tensor([0.9, 0.8, 0.4])
    for floor, kept in ((0.001, [0, 2]), (0.2, [0, 2]), (0.21, [0]), (0.95, [])):
        index, _, found = soft_nms(boxes, scores, "soft_linear", 0.3, 3, floor=floor)
        assert index[found].tolist() == kept


def rows() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    corner = torch.rand(2, 3, 30, 2, generator=generator) * 30
    size = torch.rand(2, 3, 30, 2, generator=generator) * 20
    scores = torch.rand(2, 3, 30, generator=generator)
    groups = torch.randint(0, 2, (2, 3, 30), generator=generator)
    valid = torch.rand(2, 3, 30, generator=generator) > 0.2
    valid[1, 2] = False
    return torch.cat([corner, corner + size], -1), scores, groups, valid


@pytest.mark.parametrize("kind", SOFT)
def test_many_rows_and_compiled(kind):
    boxes, scores, groups, valid = rows()
    compiled = torch.compile(soft_nms, fullgraph=True, backend="aot_eager")
    for form in (soft_nms, compiled):
        index, lowered, found = form(boxes, scores, kind, 0.3, 8, groups, valid)
        assert index.shape == lowered.shape == found.shape == (2, 3, 8)
        for row in [(i, j) for i in range(2) for j in range(3)]:
            usable = valid[row].nonzero()[:, 0]
            wanted, wanted_scores = soft_nms_plain(
                boxes[row][usable], scores[row][usable], kind, 0.3, 8, groups[row][usable]
            )
            assert torch.equal(index[row][found[row]], usable[wanted])
            torch.testing.assert_close(lowered[row][found[row]], wanted_scores)


def test_bad_input_is_named():
    boxes = torch.tensor([A, A])
    with pytest.raises(EyelineError, match="box 1 of 2"):
        soft_nms(boxes, torch.tensor([0.5, math.nan]), "soft_linear", 0.3, 2, None, boxes[:, 0] < 1)


# ---- voting ----------------------------------------------------------------------------------


def test_vote_by_hand():
    """A and a box 2 wider (IoU 10 / 12) with weights 3 and 1: the right side goes to 10.5."""
    boxes = torch.tensor([A, [0.0, 0, 12, 10], FAR, A])
    groups = torch.tensor([0, 0, 0, 1])
    weights = torch.tensor([0.9, 0.3, 0.8, 0.7])
    voted = vote(boxes[:1], boxes, weights, 0.5, groups[:1], groups)
    torch.testing.assert_close(voted, torch.tensor([[0.0, 0, 10.5, 10]]))
    assert torch.equal(vote(boxes[:1], boxes, weights, 0.9, groups[:1], groups), boxes[:1])
    # without groups A of the other class votes too: 10 + 2 * 0.3 / 1.9
    assert vote(boxes[:1], boxes, weights, 0.5)[0, 2] == pytest.approx(10 + 0.6 / 1.9)


def test_votes_equal_a_loop():
    boxes, scores, groups, _ = (x[0, 0] for x in rows())
    kept = boxes[:7]
    voted = vote(kept, boxes, scores, 0.3, groups[:7], groups)
    for i in range(7):
        near = (box_iou(kept[i : i + 1], boxes)[0] >= 0.3) & (groups == groups[i])
        total = scores[near].double()
        mean = (total[:, None] * boxes[near].double()).sum(0) / total.sum()
        assert voted[i].tolist() == pytest.approx(mean.tolist(), abs=1e-4)
    assert (voted != kept).any()


def test_nobody_votes_for_a_box_without_area():
    empty = torch.tensor([[5.0, 5, 5, 5]])
    assert torch.equal(vote(empty, empty, torch.tensor([0.9]), 0.5), empty)


# ---- the whole step --------------------------------------------------------------------------


def step(suppression: Suppression) -> list[tuple[list[float], float, int]]:
    boxes = torch.tensor([[A, [0.0, 0, 10, 8], A, FAR, FAR]])  # IoU of the second with A: 0.8
    scores = torch.tensor([[0.9, 0.6, 0.8, 0.7, 0.99]])
    labels = torch.tensor([[0, 0, 1, 0, 0]])
    valid = torch.tensor([[True, True, True, True, False]])
    found = suppression(boxes, scores, labels, valid, 0.5, 4)
    assert found.boxes.shape == (1, 4, 4)
    return [
        (found.boxes[0, i].tolist(), round(found.scores[0, i].item(), 4), int(found.labels[0, i]))
        for i in found.valid[0].nonzero()[:, 0]
    ]


def test_every_way_by_hand():
    assert step(HARD) == [(A, 0.9, 0), (A, 0.8, 1), (FAR, 0.7, 0)]
    assert step(Suppression(class_agnostic=True)) == [(A, 0.9, 0), (FAR, 0.7, 0)]
    soft = [(A, 0.9, 0), (A, 0.8, 1), (FAR, 0.7, 0), ([0.0, 0, 10, 8], 0.12, 0)]
    assert step(Suppression("soft_linear")) == soft
    voted = step(Suppression(vote_iou=0.5))
    assert voted[0][0] == pytest.approx([0, 0, 10, (9 + 0.6 * 8) / 1.5])
    assert voted[1:] == [(A, 0.8, 1), (FAR, 0.7, 0)]
    # together: all three about A vote, with the scores they had before
    both = step(Suppression("soft_linear", class_agnostic=True, vote_iou=0.5))
    assert both[0][0] == pytest.approx([0, 0, 10, (9 + 8 + 0.6 * 8) / 2.3])
    assert [row[1] for row in both] == [0.9, 0.7, 0.12]  # A of class 1 is dropped at IoU 1
