"""Pooling with remembered places and its inverse, against plain loops."""

from __future__ import annotations

import pytest
import torch

from eyeline.ops.unpool import pool_with_places, unpool


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 3)])
@pytest.mark.parametrize("ceil_mode", [True, False])
def test_as_by_a_plain_loop(size, ceil_mode):
    if 1 in size and not ceil_mode:
        return  # nothing is left
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-9, 9, (2, 3, *size), generator=generator).float()  # with ties
    values, places = pool_with_places(x, ceil_mode)
    back = unpool(10 * values, places, size)
    expected = torch.zeros_like(x)
    height, width = ((n + ceil_mode) // 2 for n in size)
    assert values.shape == (2, 3, height, width)
    for b in range(2):
        for c in range(3):
            for i in range(height):
                for j in range(width):
                    window = x[b, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                    k = int(window.argmax())
                    row, column = 2 * i + k // window.shape[1], 2 * j + k % window.shape[1]
                    assert values[b, c, i, j] == window.max()
                    assert places[b, c, i, j] == row * size[1] + column
                    expected[b, c, row, column] = 10 * window.max()
    assert torch.equal(back, expected)


def test_gradients():
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)

    def there_and_back(x):
        values, places = pool_with_places(x, ceil_mode=True)
        return unpool(values**2, places, x.shape[2:])

    assert torch.autograd.gradcheck(there_and_back, x)


def test_half_precision_and_channels_last():
    x = torch.randn(1, 8, 6, 6).to(torch.bfloat16).to(memory_format=torch.channels_last)
    values, places = pool_with_places(x)
    back = unpool(values, places, (6, 6))
    assert back.dtype == torch.bfloat16 and (back != 0).sum() == values.numel()
    assert torch.equal(back[back != 0], x[back != 0])
