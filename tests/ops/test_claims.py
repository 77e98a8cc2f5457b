from __future__ import annotations

import pytest
import torch

from eyeline.ops.claims import claimed
from eyeline.ops.matching import assign, pad_objects


def plain(iou, kind):
    """The slow twin: pairs in a list."""
    objects, anchors = iou.shape
    found = [-1] * anchors
    if kind == "last":
        for g in range(objects):
            best = max(range(anchors), key=lambda n: iou[g, n])
            if iou[g, best] > 0:
                found[best] = g
        return found
    pairs = sorted((-float(iou[g, n]), g, n) for g in range(objects) for n in range(anchors))
    done = set()
    for overlap, g, n in pairs:
        if overlap < 0 and g not in done and found[n] == -1:
            found[n] = g
            done.add(g)
    return found


@pytest.mark.parametrize("kind", ["distinct", "last"])
@pytest.mark.parametrize("size", [(1, 1), (3, 9), (9, 3), (7, 7)])
def test_it_equals_the_loop(kind: str, size: tuple[int, int]) -> None:
    iou = torch.rand(5, *size, generator=torch.Generator().manual_seed(0))
    iou[iou < 0.3] = 0
    iou[3, 0] = -1  # no object in that row
    found = claimed(iou, kind)
    assert found.tolist() == [plain(one, kind) for one in iou]
    assert (found[3] != 0).all()


@pytest.mark.parametrize(("kind", "expected"), [("distinct", [0, 1, -1]), ("last", [1, -1, -1])])
def test_two_objects_that_want_the_same_anchor(kind: str, expected: list[int]) -> None:
    iou = torch.tensor([[0.9, 0.8, 0.0], [0.7, 0.2, 0.0]])
    assert claimed(iou, kind).tolist() == expected


def test_an_object_without_any_overlap_claims_none() -> None:
    for kind in ("distinct", "last"):
        assert claimed(torch.zeros(2, 3), kind).tolist() == [-1, -1, -1]
        assert claimed(torch.zeros(0, 3), kind).tolist() == [-1, -1, -1]
        assert claimed(torch.zeros(2, 0), kind).tolist() == []


def test_a_claim_beats_the_threshold() -> None:
    """The small object's best anchor is the large one's too, and overlaps it more."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    target = {
        "boxes": torch.tensor([[0.0, 0, 10, 9], [0, 0, 4, 4]]),
        "labels": torch.tensor([0, 1]),
        "iscrowd": torch.tensor([False, False]),
    }
    objects = pad_objects([target])
    assert assign(anchors, objects, 0.5, 0.5).tolist() == [[0, -1]]
    assert assign(anchors, objects, 0.5, 0.5, claims="last").tolist() == [[1, -1]]
    assert assign(anchors, objects, 0.5, 0.5, claims="distinct").tolist() == [[0, -1]]
