"""Maps at another size, beside others."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from eyeline.nn.resizing import beside


@pytest.mark.parametrize("size", [(6, 10), (5, 9), (3, 5), (7, 13)])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_beside(size: tuple[int, int], count: int) -> None:
    x = torch.randn(2, 4, 3, 5, requires_grad=True)
    others = [torch.randn(2, n + 1, *size) for n in range(count)]
    wanted = torch.cat([F.interpolate(x, size, mode="nearest"), *others], 1)
    found = beside(x, others, size)
    assert torch.equal(found, wanted)
    grad = torch.randn_like(wanted)
    (one,), (other,) = torch.autograd.grad(found, x, grad), torch.autograd.grad(wanted, x, grad)
    torch.testing.assert_close(one, other)
    with torch.no_grad():  # in one pass
        assert torch.equal(beside(x, others, size), wanted)
        steps = (10 * x.clamp(0, 25)).to(torch.uint8)
        assert torch.equal(
            beside(steps, [], size), F.interpolate(steps.float(), size, mode="nearest").byte()
        )
