"""Layers in 8 bits against the same layers on numbers rounded to the same grids."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from eyeline.nn.int8 import Grid, Int8Conv2d, Int8Linear, Quantized

pytestmark = pytest.mark.skipif(
    not torch.cpu._is_vnni_supported(), reason="this processor has no 8-bit products"
)
BOUNDS = st.floats(-1e4, 1e4, width=32)


def rounded(x: Tensor, grid: Grid) -> Tensor:
    """On the grid, written without the code under test."""
    steps = torch.round(x.double() / grid.scale) + grid.zero_point
    return ((steps.clamp(0, 255) - grid.zero_point) * grid.scale).float()


def rounded_weight(weight: Tensor) -> Tensor:
    scale = weight.abs().flatten(1).amax(1).view(-1, *[1] * (weight.ndim - 1)) / 127
    return torch.round(weight / scale) * scale


@given(BOUNDS, BOUNDS)
def test_a_grid_holds_zero_and_its_ends(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    grid = Grid.spanning(low, high)
    assert grid.scale > 0 and 0 <= grid.zero_point <= 255
    points = (torch.arange(256).double() - grid.zero_point) * grid.scale
    assert (points == 0).any()
    for value in (low, high, 0.0):
        assert (points - value).abs().min() <= grid.scale / 2 * 1.001


def test_values_are_rounded_to_the_nearest_and_cut_off() -> None:
    grid = Grid.spanning(-1.0, 4.1)  # steps of 0.02, zero is the 50th
    assert grid == (pytest.approx(0.02), 50)
    x = torch.tensor([-9.0, -1.0, -0.011, 0.009, 0.011, 4.1, 9.0])
    held = Quantized.of(x, grid)
    assert held.values.tolist() == [0, 0, 49, 50, 51, 255, 255]
    torch.testing.assert_close(
        held.real(torch.float32), torch.tensor([-1.0, -1.0, -0.02, 0.0, 0.02, 4.1, 4.1])
    )


@pytest.mark.parametrize("low", [0.0, -1.5])
@pytest.mark.parametrize(
    "options",
    [
        dict(kernel_size=1, stride=2),
        dict(kernel_size=3, padding=1),  # the border is 0, whatever the zero point
        dict(kernel_size=3, padding=2, dilation=2, bias=False),
        dict(kernel_size=3, padding=1, groups=4),
    ],
)
@torch.inference_mode()
def test_convolution(options: dict, low: float) -> None:
    conv = nn.Conv2d(16, 32, **options)
    x = (torch.rand(2, 16, 9, 13) * (2 - low) + low).to(memory_format=torch.channels_last)
    reads = Grid.spanning(low, 2.0)
    exact = nn.Conv2d(16, 32, **options)
    exact.weight.copy_(rounded_weight(conv.weight))
    if conv.bias is not None:
        exact.bias.copy_(conv.bias)
    wanted = exact(rounded(x, reads))
    side = torch.randn_like(wanted)
    layer = Int8Conv2d(conv, reads, None, torch.float32)
    near = dict(atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(layer(x), wanted, **near)
    torch.testing.assert_close(layer(Quantized.of(x, reads), relu=True), F.relu(wanted), **near)
    before = side.clone()
    torch.testing.assert_close(layer(x, side, relu=True), F.relu(wanted + side), **near)
    assert torch.equal(side, before)

    writes = Grid.spanning(0.0, 3.0)
    held = Int8Conv2d(conv, reads, writes, torch.float32)(x, relu=True)
    assert held.grid == writes and held.values.dtype == torch.uint8
    off = held.real(torch.float32) - rounded(F.relu(wanted), writes)
    assert off.abs().max() <= writes.scale * 1.01  # a half may round either way
    assert (off.abs() > writes.scale / 2).float().mean() < 0.01


@pytest.mark.parametrize("held_side", [True, False])
@pytest.mark.parametrize("held_out", [True, False])
@torch.inference_mode()
def test_shortcuts_of_both_kinds(held_side: bool, held_out: bool) -> None:
    conv = nn.Conv2d(8, 16, 1)
    x, side = torch.rand(1, 8, 6, 6), torch.randn(1, 16, 6, 6)
    side = side.to(memory_format=torch.channels_last)
    reads, of_side, writes = Grid.spanning(0, 1), Grid.spanning(-3, 3), Grid.spanning(0, 4)
    plain = nn.Conv2d(8, 16, 1)
    plain.weight.copy_(rounded_weight(conv.weight))
    plain.bias.copy_(conv.bias)
    wanted = F.relu(plain(rounded(x, reads)) + (rounded(side, of_side) if held_side else side))
    layer = Int8Conv2d(conv, reads, writes if held_out else None, torch.float32)
    add = Quantized.of(side, of_side) if held_side else side
    before = add.values.clone() if held_side else add.clone()
    out = layer(x.to(memory_format=torch.channels_last), add, relu=True)
    assert torch.equal(add.values if held_side else add, before)
    assert isinstance(out, Quantized) == held_out
    real = out.real(torch.float32) if held_out else out
    assert (real - wanted).abs().max() <= (writes.scale * 1.01 if held_out else 1e-4)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("how", [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1), (1, 2, 0)])
def test_pooling_is_that_of_the_numbers(how: tuple[int, int, int], ceil_mode: bool) -> None:
    for size in ((7, 8), (9, 10), (3, 3)):
        x = torch.randn(2, 5, *size)
        held = Quantized.of(x.to(memory_format=torch.channels_last), Grid.spanning(-2, 3))
        pooled = held.max_pool(*how, ceil_mode)
        wanted = F.max_pool2d(held.real(torch.float32), *how, ceil_mode=ceil_mode)
        assert torch.equal(pooled.real(torch.float32), wanted)


@pytest.mark.parametrize("writes", [Grid.spanning(-0.5, 3), None])
@torch.inference_mode()
def test_a_leaky_relu_follows(writes: Grid | None) -> None:
    x, reads = torch.randn(2, 8, 6, 6), Grid.spanning(-3, 3)
    x = x.to(memory_format=torch.channels_last)
    for kind, layer, source in (
        (Int8Conv2d, nn.Conv2d(8, 16, 3, padding=1), x),
        (Int8Linear, nn.Linear(8, 16), x[0, :, 0].T.contiguous()),
    ):
        # Not of the grid that it writes, which cuts off what is below -0.5 before it shrinks.
        wanted = F.leaky_relu(kind(layer, reads, None, torch.float32)(source), 0.1)
        got = kind(layer, reads, writes, torch.float32)(source, relu=True, slope=0.1)
        assert isinstance(got, Quantized) == (writes is not None)
        real = got.real(torch.float32) if writes else got
        assert wanted.min() < -0.06
        assert (real - wanted).abs().max() <= (writes.scale * 0.51 if writes else 1e-6)


@torch.inference_mode()
def test_another_zero_point_than_the_weights_are_packed_for() -> None:
    conv = nn.Conv2d(8, 16, 3, padding=1)
    layer = Int8Conv2d(conv, Grid.spanning(0, 2), None, torch.float32)
    x = torch.rand(1, 8, 6, 6).to(memory_format=torch.channels_last)
    other = Quantized.of(x, Grid.spanning(-1, 2))
    torch.testing.assert_close(layer(other), layer(x), atol=0.1, rtol=0.05)


@torch.inference_mode()
def test_linear() -> None:
    linear = nn.Linear(40, 24)
    x, reads, writes = torch.randn(7, 40), Grid.spanning(-3, 3), Grid.spanning(0, 2)
    wanted = F.linear(rounded(x, reads), rounded_weight(linear.weight), linear.bias)
    layer = Int8Linear(linear, reads, None, torch.float32)
    torch.testing.assert_close(layer(x), wanted, atol=1e-5, rtol=1e-5)
    held = Int8Linear(linear, reads, writes, torch.float32)(x, relu=True)
    off = held.real(torch.float32) - rounded(F.relu(wanted), writes)
    assert off.abs().max() <= writes.scale * 1.01


@torch.inference_mode()
def test_a_channel_without_weights_and_an_empty_batch() -> None:
    linear = nn.Linear(8, 4)
    linear.weight[1] = 0
    layer = Int8Linear(linear, Grid.spanning(-1, 1), None, torch.float32)
    out = layer(torch.ones(2, 8))
    assert out[0, 1].item() == pytest.approx(linear.bias[1].item(), abs=1e-6)
    assert layer(torch.ones(0, 8)).shape == (0, 4)
    conv = Int8Conv2d(nn.Conv2d(8, 4, 1), Grid.spanning(0, 1), None, torch.float32)
    assert conv(torch.ones(0, 8, 3, 3)).shape == (0, 4, 3, 3)
