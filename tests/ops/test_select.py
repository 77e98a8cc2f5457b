"""What is left of rows when only some count."""

from __future__ import annotations

import pytest
import torch

from eyeline.ops.select import best_of_classes, fixed_shapes


@pytest.mark.parametrize("limit", [3, 50])
@pytest.mark.parametrize("threshold", [0.9, 0.2, 1.1])  # few rows, most, none
def test_the_best_of_each_class(threshold: float, limit: int) -> None:
    scores = torch.rand(2, 40, 5).square()
    with fixed_shapes():
        wide = best_of_classes(scores, threshold, limit)
    narrow = best_of_classes(scores, threshold, limit)
    assert narrow[0].shape[1] <= wide[0].shape[1] == 5 * min(limit, 40)
    for found in (wide, narrow):
        top, rows, labels, valid = found
        for b in range(2):
            got = set(zip(rows[b][valid[b]].tolist(), labels[b][valid[b]].tolist(), strict=True))
            wanted = set()
            for k in range(5):
                order = scores[b, :, k].argsort(descending=True)[:limit].tolist()
                wanted |= {(i, k) for i in order if scores[b, i, k] > threshold}
            assert got == wanted and len(got) == int(valid[b].sum())
        index = (torch.arange(2)[:, None], rows, labels)
        assert torch.equal(scores[index][valid], top[valid])
    assert (narrow[0].unflatten(1, (5, -1)).diff(dim=2) <= 0).all()  # best first
