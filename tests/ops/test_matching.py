"""Matching: thresholds, forced matches, ignored anchors."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import eyeline.ops.matching
from eyeline.errors import EyelineError
from eyeline.ops.iou import box_iou
from eyeline.ops.matching import BACKGROUND, IGNORED, assign, ignored_by, match, pad_objects
from eyeline.ops.select import fixed_shapes

properties = settings(max_examples=60, deadline=None)
thresholds = st.sampled_from([(0.7, 0.3), (0.5, 0.4), (0.5, 0.5), (0.3, 0.0)])


@st.composite
def tables(draw):
    """IoU (G, N) in tenths: many ties, values on the thresholds, and a mask (N,)."""
    g, n = draw(st.integers(0, 4)), draw(st.integers(0, 8))
    tenths = st.lists(st.integers(0, 10), min_size=g * n, max_size=g * n)
    mask = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return torch.tensor(draw(tenths)).reshape(g, n) / 10, torch.tensor(mask, dtype=torch.bool)


def slow(iou, foreground, background, force_match, ignored):
    foreground, background = torch.tensor([foreground, background]).tolist()  # as float32 has them
    objects, anchors = range(iou.shape[0]), range(iou.shape[1])
    table = iou.tolist()
    matches = []
    for n in anchors:
        best = max(objects, key=lambda g: table[g][n], default=None)
        claimed = force_match and any(table[g][n] == max(table[g]) > 0 for g in objects)
        if best is not None and (claimed or table[best][n] >= foreground):
            matches.append(best)
        elif ignored[n] or (best is not None and table[best][n] >= background):
            matches.append(IGNORED)
        else:
            matches.append(BACKGROUND)
    return matches


@properties
@given(tables(), thresholds, st.booleans())
def test_equals_a_loop_over_anchors(table, limits, force_match):
    iou, mask = table
    found = match(iou, *limits, force_match, mask)
    assert found.dtype == torch.int64
    assert found.tolist() == slow(iou, *limits, force_match, mask)


@properties
@given(tables(), thresholds, st.booleans())
def test_the_order_of_the_anchors_does_not_matter(table, limits, force_match):
    iou, mask = table
    order = torch.randperm(iou.shape[1])
    found = match(iou, *limits, force_match, mask)
    assert torch.equal(match(iou[:, order], *limits, force_match, mask[order]), found[order])


@properties
@given(tables(), thresholds)
def test_forced_matching_leaves_no_object_out_unless_a_rival_overlaps_more(table, limits):
    iou, _ = table
    plain, forced = match(iou, *limits), match(iou, *limits, force_match=True)
    assert torch.equal(forced[plain >= 0], plain[plain >= 0])  # it only adds
    for row in iou:
        if len(row) and row.max() > 0:
            assert (forced[row == row.max()] >= 0).all()


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([0.0, 0.0], BACKGROUND),
        ([0.29, 0.1], BACKGROUND),
        ([0.3, 0.1], IGNORED),
        ([0.1, 0.69], IGNORED),
        ([0.1, 0.7], 1),
        ([0.9, 0.9], 0),
        ([1.0, 0.2], 0),
        ([float("nan"), 0.2], IGNORED),
    ],
    ids=["none", "below", "at lower", "between", "at upper", "tie", "identical", "nan"],
)
def test_one_anchor_among_thresholds(column, expected):
    assert match(torch.tensor(column)[:, None], 0.7, 0.3).tolist() == [expected]


def test_forced_matches():
    iou = torch.tensor(
        [
            [0.6, 0.6, 0.2, 0.6, 0.1],  # claims the three anchors that tie
            [0.0, 0.65, 0.1, 0.0, 0.0],  # is the better object at its best anchor
            [0.0, 0.0, 0.1, 0.05, 0.05],  # claims anchor 2, which goes to object 0
        ]
    )
    assert match(iou, 0.7, 0.3).tolist() == [-2, -2, -1, -2, -1]
    assert match(iou, 0.7, 0.3, force_match=True).tolist() == [0, 1, 0, 0, -1]


# torchvision 0.28 gives [1, 1] here: an object that no anchor overlaps ties with all of them, and
# every anchor becomes positive. Ours claims none.
def test_an_object_without_overlap_claims_nothing():
    iou = torch.tensor([[0.0, 0.0], [0.3, 0.45]])
    assert match(iou, 0.5, 0.4, force_match=True).tolist() == [-1, 1]


@pytest.mark.parametrize("force_match", [False, True])
def test_no_objects_and_no_anchors(force_match):
    mask = torch.tensor([False, True, False])
    assert match(torch.zeros(0, 3), 0.7, 0.3, force_match).tolist() == [-1, -1, -1]
    assert match(torch.zeros(0, 3), 0.7, 0.3, force_match, mask).tolist() == [-1, -2, -1]
    assert match(torch.zeros(2, 0), 0.7, 0.3, force_match).shape == (0,)
    assert match(torch.zeros(0, 0), 0.7, 0.3, force_match).dtype == torch.int64


def test_an_ignored_anchor_keeps_its_object():
    iou = torch.tensor([[0.8, 0.5, 0.1, 0.1], [0.1, 0.1, 0.2, 0.1]])
    mask = torch.ones(4, dtype=torch.bool)
    assert match(iou, 0.7, 0.3, ignored=mask).tolist() == [0, -2, -2, -2]
    assert match(iou, 0.7, 0.3, force_match=True, ignored=mask).tolist() == [0, -2, 1, -2]


def test_thresholds_out_of_order_are_an_error():
    with pytest.raises(EyelineError, match=r"background IoU 0\.6 is above foreground IoU 0\.5"):
        match(torch.zeros(1, 1), 0.5, 0.6)


def test_the_table_is_left_as_it_was():
    iou = torch.rand(3, 6)
    before = iou.clone()
    match(iou, 0.7, 0.3, force_match=True, ignored=torch.ones(6, dtype=torch.bool))
    assert torch.equal(iou, before)


CROWD = [10.0, 10.0, 50.0, 50.0]


@pytest.mark.parametrize(
    ("anchor", "inside"),
    [
        (CROWD, True),
        ([20, 20, 30, 30], True),
        ([0, 20, 20, 30], True),  # half, exactly
        ([0, 20, 19, 30], False),
        ([50, 10, 60, 50], False),
        ([0, 0, 100, 100], False),  # around it
        ([20, 20, 20, 20], False),
    ],
    ids=["identical", "inside", "half", "less", "touching", "around", "zero area"],
)
def test_ignored_by_the_part_of_the_anchor_that_is_covered(anchor, inside):
    boxes = torch.tensor([[200.0, 200, 300, 300], CROWD])
    assert ignored_by(torch.tensor([anchor]).float(), boxes).tolist() == [inside]


def test_nothing_to_ignore():
    assert ignored_by(torch.rand(3, 4).cumsum(1), torch.zeros(0, 4)).tolist() == [False] * 3
    assert ignored_by(torch.zeros(0, 4), torch.tensor([CROWD])).shape == (0,)


def test_threshold_of_ignoring():
    quarter = torch.tensor([[0.0, 20, 40 / 3, 30]])  # a quarter of it inside
    crowd = torch.tensor([CROWD])
    assert ignored_by(quarter, crowd, threshold=0.2).all()
    assert not ignored_by(quarter, crowd, threshold=0.3).any()


@pytest.mark.parametrize("objects", [0, 4])
def test_compiles_whole(objects):
    def both(boxes, anchors, crowd):
        return match(box_iou(boxes, anchors), 0.5, 0.4, True, ignored_by(anchors, crowd))

    inputs = [torch.rand(n, 4).cumsum(1) for n in (objects, 20, 2)]
    compiled = torch.compile(both, fullgraph=True, backend="eager")
    assert torch.equal(compiled(*inputs), both(*inputs))


def test_same_under_autocast():
    iou = torch.tensor([[0.4999, 0.5001]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert match(iou, 0.5, 0.5).tolist() == [BACKGROUND, 0]


@pytest.mark.parametrize("context", [nullcontext, fixed_shapes])
def test_a_batch_is_assigned_as_its_pictures_are_alone(context):
    """Whatever objects and crowds the others have; rows are those of the picture's own target."""
    torch.manual_seed(0)
    anchors = random_boxes(300)
    targets = [
        {"boxes": random_boxes(n), "labels": torch.arange(n), "iscrowd": torch.arange(n) < crowds}
        for n, crowds in ((0, 0), (3, 0), (9, 2), (1, 1))
    ]
    regions = torch.stack([anchors, anchors + 5, anchors + 1, anchors * 0.9])
    for boxes_in in (anchors, regions):
        with context():
            objects = pad_objects(targets)
            found = assign(boxes_in, objects, 0.5, 0.3, force_match=True)
            boxes, labels = objects.of(found)
        assert found.shape == (4, 300) and (found >= 0).any() and (found == IGNORED).any()
        for i, target in enumerate(targets):
            own = (~target["iscrowd"]).nonzero()[:, 0]
            there = boxes_in if boxes_in.dim() == 2 else boxes_in[i]
            crowd = ignored_by(there, target["boxes"][target["iscrowd"]])
            alone = match(box_iou(target["boxes"][own], there), 0.5, 0.3, True, crowd)
            positive = alone >= 0
            assert torch.equal(found[i][~positive], alone[~positive])
            assert torch.equal(found[i][positive], own[alone[positive]])
            assert torch.equal(boxes[i][positive], target["boxes"][found[i][positive]])
            assert torch.equal(labels[i][positive], found[i][positive])


def random_boxes(count):
    corner = torch.rand(count, 2) * 80
    return torch.cat([corner, corner + 10 + torch.rand(count, 2) * 30], 1)


def test_a_crowded_picture_costs_only_itself(monkeypatch):
    """On a CPU each picture is matched with its own objects, not with rows of padding."""
    sizes = []
    iou = eyeline.ops.matching.box_iou

    def counted(a, b):
        sizes.append(len(a))
        return iou(a, b)

    monkeypatch.setattr(eyeline.ops.matching, "box_iou", counted)
    boxes = torch.rand(9, 2).repeat(1, 2) + torch.tensor([0, 0, 1, 1])
    targets = [
        {
            "boxes": boxes[:n],
            "labels": torch.zeros(n, dtype=torch.int64),
            "iscrowd": torch.arange(n) == 1,
        }
        for n in (9, 0, 2)
    ]
    assign(boxes, pad_objects(targets), 0.5, 0.4)
    assert sizes == [9, 0, 2]


def test_off_the_cpu_memory_is_held_for_some_pictures_at_once(monkeypatch):
    boxes = torch.rand(50, 2).repeat(1, 2) + torch.tensor([0, 0, 1, 1])
    targets = [
        {
            "boxes": boxes[:n],
            "labels": torch.zeros(n, dtype=torch.int64),
            "iscrowd": torch.zeros(n, dtype=torch.bool),
        }
        for n in (3, 1, 4, 2, 2)
    ]
    objects = pad_objects(targets)
    with fixed_shapes():
        whole = assign(boxes, objects, 0.5, 0.4)
        monkeypatch.setattr(eyeline.ops.matching, "PAIRS", 2 * 4 * 50)
        assert torch.equal(assign(boxes, objects, 0.5, 0.4), whole)
    assert torch.equal(assign(boxes, objects, 0.5, 0.4), whole)
