from __future__ import annotations

import torch

from eyeline.ops.mining import hard_negatives, mined
from eyeline.ops.select import fixed_shapes

LOSSES = torch.tensor([[0.5, 3.0, 1.0, 2.0, 9.0, 0.1], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
POSITIVE = torch.tensor([[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()
IGNORED = torch.tensor([[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]]).bool()


def taken(losses, positive, ignored, ratio):
    index, filled = hard_negatives(losses, positive, ~positive & ~ignored, ratio)
    return [row[full].tolist() for row, full in zip(index, filled, strict=True)]


def plain(losses, positive, ignored, ratio):
    """The slow twin: one picture after another, in plain Python."""
    found = []
    for row, own, left in zip(losses.tolist(), positive.tolist(), ignored.tolist(), strict=True):
        free = [i for i in range(len(row)) if not own[i] and not left[i]]
        free.sort(key=lambda i: -row[i])
        found.append(free[: int(ratio * sum(own))])
    return found


def test_the_hardest_three_to_one_of_each_picture() -> None:
    """Neither positives nor the ignored, and none where nothing is positive."""
    assert taken(LOSSES, POSITIVE, IGNORED, 3.0) == [[1, 3, 2], []]


def test_as_many_as_there_are() -> None:
    assert taken(LOSSES, POSITIVE, IGNORED, 100.0) == [[1, 3, 2, 5], []]


def test_it_equals_the_loop_and_has_fixed_shapes() -> None:
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(4, 200, generator=generator)
    kind = torch.rand(4, 200, generator=generator)
    positive, ignored = kind < 0.1, kind > 0.8
    positive[2] = False
    for ratio in (0.0, 0.5, 3.0, 20.0):
        expected = plain(losses, positive, ignored, ratio)
        assert taken(losses, positive, ignored, ratio) == expected
        with fixed_shapes():
            index, filled = hard_negatives(losses, positive, ~positive & ~ignored, ratio)
            assert index.shape == (4, 200)
            assert [r[f].tolist() for r, f in zip(index, filled, strict=True)] == expected


def test_no_gradient_passes_the_choice() -> None:
    losses = LOSSES.clone().requires_grad_()
    index, filled = hard_negatives(losses, POSITIVE, ~POSITIVE, 3.0)
    losses.gather(1, index).where(filled, 0).sum().backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == [[0, 1, 0, 1, 1, 0], [0] * 6]


def test_the_note_holds_positives_and_negatives() -> None:
    index, filled = hard_negatives(LOSSES, POSITIVE, ~POSITIVE & ~IGNORED, 2.0)
    sample = mined(POSITIVE, index, filled, LOSSES)
    assert sample.rows[0][sample.filled[0]].tolist() == [0, 1, 3]
    assert not sample.filled[1].any()
