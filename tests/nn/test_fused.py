"""`fused` is its steps one by one, whatever stands in the layer's place."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eyeline.nn.fused import PackedConv2d, fused
from eyeline.nn.layers import make_norm


@pytest.mark.parametrize(("norm", "add", "relu"), [*product(("batch", None), (0, 1), (0, 1))])
def test_plain_steps(norm: str | None, add: int, relu: int) -> None:
    layer = nn.Conv2d(3, 5, 3, padding=1)
    after = None if norm is None else make_norm(norm, 5).eval()
    x, side = torch.randn(2, 3, 6, 7), torch.randn(2, 5, 6, 7)
    wanted = layer(x) if after is None else after(layer(x))
    wanted = wanted + side if add else wanted
    wanted = F.relu(wanted) if relu else wanted
    before = side.clone()
    got = fused(x, layer, after, add=side if add else None, relu=bool(relu))
    assert torch.equal(got, wanted)
    assert torch.equal(side, before)
    leaky = fused(x, layer, after, add=side if add else None, relu=bool(relu), slope=0.1)
    whole = layer(x) if after is None else after(layer(x))
    whole = whole + side if add else whole
    assert torch.equal(leaky, F.leaky_relu(whole, 0.1) if relu else whole)


def test_gradients_reach_all_parts() -> None:
    layer, norm = nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5)
    x, side = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 5, 4, 4).requires_grad_()
    fused(x, layer, norm, add=side, relu=True).square().sum().backward()
    for value in (x, side, layer.weight, norm.weight, norm.bias):
        assert value.grad is not None and value.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        dict(kernel_size=1),
        dict(kernel_size=3, padding=1, stride=2),
        dict(kernel_size=3, padding=2, dilation=2, bias=False),
        dict(kernel_size=(1, 5), padding=(0, 2), groups=4),
    ],
)
@torch.inference_mode()
def test_packed_convolution(options: dict, dtype: torch.dtype) -> None:
    conv = nn.Conv2d(8, 12, **options).to(dtype, memory_format=torch.channels_last)
    packed = PackedConv2d(conv)
    for size in ((9, 11), (5, 30)):  # the packed weights are for every size
        x = torch.randn(2, 8, *size).to(dtype, memory_format=torch.channels_last)
        wanted = conv(x).float()
        side = torch.randn_like(wanted).to(dtype)
        near = dict(atol=1e-5, rtol=1e-5) if dtype == torch.float32 else dict(atol=0.05, rtol=0.02)
        torch.testing.assert_close(packed(x).float(), wanted, **near)
        torch.testing.assert_close(packed(x, relu=True).float(), F.relu(wanted), **near)
        leaky = F.leaky_relu(wanted, 0.1)
        torch.testing.assert_close(packed(x, relu=True, slope=0.1).float(), leaky, **near)
        before = side.clone()
        got = packed(x, add=side, relu=True).float()
        torch.testing.assert_close(got, F.relu(wanted + side.float()), **near)
        assert torch.equal(side, before)
        torch.testing.assert_close(packed(x, add=side).float(), wanted + side.float(), **near)


@torch.inference_mode()
def test_a_norm_that_could_not_be_folded_is_applied() -> None:
    conv, norm = nn.Conv2d(8, 32, 1), make_norm("group", 32)
    x = torch.randn(1, 8, 4, 4)
    wanted = F.relu(norm(conv(x)))
    got = fused(x, PackedConv2d(conv), norm, relu=True)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
