"""Winograd's convolution is the direct one, of any size, batch and place in a network."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.export import optimize
from eyeline.nn.backbones.resnet import VARIANTS, ResNet
from eyeline.nn.fused import WinogradConv2d, fused
from eyeline.nn.layers import ConvNorm
from eyeline.ops import winograd, winograd_training
from eyeline.ops.winograd import LARGE, SMALL, strip_size, strips
from eyeline.ops.winograd_training import Convolve

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="packed convolutions need oneDNN"
)


def exact(conv: nn.Conv2d, x: Tensor) -> Tensor:
    bias = None if conv.bias is None else conv.bias.double()
    d = conv.dilation
    return F.conv2d(x.double(), conv.weight.double(), bias, padding=d, dilation=d)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 20, 16, 16),
        (1, 20, 17, 15),  # odd sides: a part of a tile over
        (1, 20, 24, 23),
        (1, 20, 13, 13),  # too much of large tiles over, too few small ones: the direct sum
        (9, 20, 5, 5),  # the same, but many: small tiles
        (2, 20, 40, 66),  # strips of some rows
        (30, 20, 8, 7),  # strips of whole pictures, the last overlapping
        (30, 20, 7, 9),
        (1, 20, 3, 130),
        (1, 20, 2, 2),  # too small: the direct sum
    ],
)
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_equals_the_direct_sum(shape: tuple[int, ...], bias: bool) -> None:
    conv = nn.Conv2d(20, 12, 3, padding=1, bias=bias)
    x = torch.randn(shape).to(memory_format=torch.channels_last)
    before, layer = x.clone(), WinogradConv2d(conv)
    wanted = exact(conv, x)
    error = (layer(x) - wanted).abs().max()
    assert error < 2e-5
    form = winograd.best_form(x)
    sizes = {16: SMALL, 17: SMALL, 24: LARGE, 40: LARGE, 5: SMALL, 8: LARGE, 7: SMALL, 3: SMALL}
    assert form is sizes.get(shape[2])
    if form is SMALL:
        assert (layer(x) - wanted).std() <= 1.05 * (conv(x) - wanted).std()
    assert torch.equal(x, before)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("size", "dilation", "form"),
    [
        ((32, 32), 2, LARGE),
        ((45, 60), 4, LARGE),  # 4 x 4 parts of 12 x 15, with cells that are none
        ((42, 42), 3, SMALL),  # of 14 x 14: too much of large tiles over
        ((19, 19), 6, None),  # so many cells that are none: the direct sum
    ],
)
def test_dilated(size: tuple[int, int], dilation: int, form: winograd.Form | None) -> None:
    conv = nn.Conv2d(20, 12, 3, padding=dilation, dilation=dilation)
    x, add = torch.randn(2, 20, *size), torch.randn(2, 12, *size)
    assert winograd.best_form(x, dilation) is form
    with torch.inference_mode():
        found = WinogradConv2d(conv)(x, add=add, relu=True)
    wanted = (exact(conv, x) + add).clamp(min=0)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_dilated_gradients_are_the_direct_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "WIDE", 1)
    monkeypatch.setattr(winograd_training, "WIDE", 1)
    conv = nn.Conv2d(6, 4, 3, padding=2, dilation=2)
    x, grad = torch.randn(2, 6, 31, 30).requires_grad_(), torch.randn(2, 4, 31, 30)
    wanted = torch.autograd.grad(conv(x), [x, conv.weight, conv.bias], grad)
    called = []
    apply = Convolve.apply
    monkeypatch.setattr(Convolve, "apply", lambda *given: called.append(1) or apply(*given))
    out = fused(x, conv.train())
    assert called
    found = torch.autograd.grad(out, [x, conv.weight, conv.bias], grad)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5 * float(other.abs().max()))


@torch.inference_mode()
def test_a_shortcut_and_a_relu_follow() -> None:
    conv, x = nn.Conv2d(20, 20, 3, padding=1), torch.randn(2, 20, 18, 18)
    add = torch.randn(2, 20, 18, 18)
    layer = WinogradConv2d(conv)
    for more in (None, add):
        wanted = exact(conv, x) + (0 if more is None else more)
        for relu in (False, True):
            found = fused(x, layer, add=more, relu=relu)
            expected = wanted.clamp(min=0) if relu else wanted
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_large_tiles_round_less_than_at_the_papers_points() -> None:
    """The ratio is 5.3; at 1 and 2 it would be twice that."""
    conv = nn.Conv2d(128, 128, 3, padding=1)
    x = torch.randn(1, 128, 24, 24).relu()
    assert winograd.best_form(x) is LARGE
    wanted = exact(conv, x)
    assert (WinogradConv2d(conv)(x) - wanted).std() < 8 * (conv(x) - wanted).std()


@torch.inference_mode()
def test_sizes_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of few tiles want the kernels in another order than those of many, and small tiles
    want others. Of all that were made those of the last input are kept, until another kind comes.
    """
    made: list[weakref.ref[Tensor]] = []
    transform = winograd.kernels_of

    def watched(*given: Any, **options: Any) -> Tensor:
        kernels = transform(*given, **options)
        made.append(weakref.ref(kernels))
        return kernels

    monkeypatch.setattr(winograd, "kernels_of", watched)
    conv = nn.Conv2d(20, 20, 3, padding=1)
    layer = WinogradConv2d(conv)
    for side, count in ((24, 1), (28, 1), (60, 2), (59, 2), (17, 3), (24, 4)):
        x = torch.randn(1, 20, side, side)
        assert (
            layer(x, relu=True, slope=0.1) - F.leaky_relu(exact(conv, x), 0.1)
        ).abs().max() < 2e-5
        assert len(made) == count
        assert [kernels() is None for kernels in made] == [True] * (count - 1) + [False]


@torch.inference_mode()
def test_rounding_is_relative_to_the_largest_of_a_tile() -> None:
    """As the direct sum's is to the largest of the 3x3: beside a spike that is much more."""
    conv, x = nn.Conv2d(128, 128, 3, padding=1), 0.01 * torch.rand(1, 128, 24, 24)
    x[0, 5, 10, 10] = 1000.0
    wanted, form = exact(conv, x), winograd.best_form(x)
    assert form is LARGE
    highest = x.amax(1)  # (1, H, W)
    near = F.max_pool2d(highest, 3, 1, 1)
    tiles = F.max_pool2d(F.pad(highest, (1, 1, 1, 1)), form.reach, form.side)
    tiles = tiles.repeat_interleave(form.side, 1).repeat_interleave(form.side, 2)
    error = (WinogradConv2d(conv)(x) - wanted).abs().amax(1)
    assert (error < 1e-5 * tiles).all()
    assert (error > 1e-4 * near).any()
    assert ((conv(x) - wanted).abs().amax(1) < 1e-5 * near).all()


@pytest.mark.parametrize("tiles", [1, 7, 64, 10_000])
def test_strips_cover_everything_once_they_are_joined(
    tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "TILES", tiles)
    for batch, down, across in ((1, 1, 1), (3, 5, 4), (10, 3, 3), (2, 50, 68)):
        pictures, rows = strip_size(batch, down, across)
        seen = torch.zeros(batch, down)
        for b, r in strips(batch, down, pictures, rows):
            assert 0 <= b <= batch - pictures and 0 <= r <= down - rows
            seen[b : b + pictures, r : r + rows] = 1
        assert seen.all()


@torch.inference_mode()
def test_optimize_takes_it_where_channels_are_many() -> None:
    net = ResNet(**VARIANTS["resnet18"]).eval()
    fast = optimize(net)
    kinds = {name: type(layer).__name__ for name, layer in fast.named_modules()}
    assert kinds["layer1.0.conv1"] == "PackedConv2d"  # 64 channels
    assert kinds["layer2.0.conv1"] == "PackedConv2d"  # stride 2
    assert kinds["layer2.0.conv2"] == kinds["layer4.1.conv2"] == "WinogradConv2d"
    assert "WinogradConv2d" not in {type(m).__name__ for m in optimize(net, "bf16").modules()}
    x = torch.randn(1, 3, 160, 128)
    for plain, found in zip(net(x), fast(x), strict=True):
        scale = float(plain.abs().max())
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-5 * scale)


SIZES = [(2, 17, 18), (2, 18, 20), (1, 17, 18), (1, 18, 17), (5, 3, 7)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("tiles", [512, 20])
def test_gradients_are_the_direct_sums(
    size: tuple[int, int, int], bias: bool, wide: bool, tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd_training, "WIDE", 15 if wide else 16)
    monkeypatch.setattr(winograd_training, "TILES", tiles)  # 20: some rows, or two pictures of five
    conv = nn.Conv2d(20, 12, 3, padding=1, bias=bias)
    (batch, *sides), grad = size, torch.randn(size[0], 12, *size[1:])
    x = torch.randn(batch, 20, *sides).requires_grad_()
    given = [x, conv.weight] + ([conv.bias] if bias else [])
    wanted = torch.autograd.grad(F.relu(conv(x) + 1), given, grad)
    out = Convolve.apply(x, conv.weight, conv.bias)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.double(), exact(conv, x), rtol=0, atol=2e-5)
    out += 1  # as a shortcut and a ReLU are: in place
    found = torch.autograd.grad(F.relu(out, inplace=True), given, grad)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5 * float(other.abs().max()))
    x.requires_grad_(False)
    conv.weight.requires_grad_(False)
    assert not Convolve.apply(x, conv.weight, None).requires_grad


@torch.inference_mode()
def test_gradients_round_as_the_direct_sums_do() -> None:
    """Of pictures with one bright spot too; and always alike."""
    x = torch.randn(2, 128, 75, 75).relu().to(memory_format=torch.channels_last)
    grad = torch.randn(2, 128, 75, 75).to(memory_format=torch.channels_last)
    for spot in (0.0, 1000.0):
        x[0, :, 10, 10] += spot
        wanted, direct = (
            direct_gradient(*each) for each in ((x.double(), grad.double()), (x, grad))
        )
        found = winograd_training.gradient_of_kernels(x, grad)
        assert (found - wanted).std() < 1.5 * (direct - wanted).std()
        assert torch.equal(found, winograd_training.gradient_of_kernels(x, grad))


def direct_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Of the kernels of a 3x3 convolution."""
    weight = x.new_zeros(grad.shape[1], x.shape[1], 3, 3)
    same: list[Any] = [[1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]]
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *same)[1]


def test_layers_take_it_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = ConvNorm(256, 256, 3), torch.randn(1, 256, 20, 20)
    calls: list[str] = []

    def count(name: str) -> None:
        function = getattr(winograd_training, name)

        def counted(*given: object) -> Tensor:
            calls.append(name)
            return function(*given)  # type: ignore[no-any-return]

        monkeypatch.setattr(winograd_training, name, counted)

    count("convolve")
    count("gradient_of_kernels")
    out = layer.train()(x)
    assert len(calls) == 1
    torch.testing.assert_close(out, layer.eval()(x), rtol=0, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.train()(x).dtype == torch.bfloat16
    assert ConvNorm(256, 256, 1)(x).shape == ConvNorm(96, 256, 3)(x[:, :96]).shape
    layer(x[..., :8, :8])  # too small
    assert calls == ["convolve"]
    layer(x).sum().backward()  # forward; x wants no gradient
    assert calls[1:] == ["convolve", "gradient_of_kernels"] and layer.weight.grad is not None
    calls.clear()
    ConvNorm(128, 128, 3)(x[:, :128].requires_grad_()).sum().backward()  # too few for the others
    assert calls == ["gradient_of_kernels"]
