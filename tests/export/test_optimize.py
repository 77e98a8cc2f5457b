"""optimize: an equal model, with the norms gone."""

from __future__ import annotations

from copy import deepcopy
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.export.folding import fold
from eyeline.export.optimize import optimize
from eyeline.nn.backbones.resnet import VARIANTS, ResNet
from eyeline.nn.fused import PackedConv2d
from eyeline.nn.heads.roi import BoxHead
from eyeline.nn.layers import ConvNorm, FrozenBatchNorm2d
from eyeline.nn.necks.fpn import FPN


def unsettle(model: nn.Module) -> None:
    """Statistics as after training, variances far below 1 among them, activations kept near 1."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            with torch.no_grad():
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.running_var[::7] = 1e-6
                module.weight.uniform_(0.1, 0.5)
                module.weight[::7] *= 1e-3
                module.bias.normal_(std=0.1)


@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_float32_is_equal(name: str, norm: str) -> None:
    model = ResNet(**VARIANTS[name], norm=norm)
    unsettle(model)
    model.train()
    fast = optimize(model)
    assert model.training and not fast.training
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        wanted, got = model.eval()(x), fast(x)
    for a, b in zip(wanted, got, strict=True):
        assert (a - b).abs().max() <= 1e-4 * max(1, a.abs().max())


def test_every_norm_of_a_resnet_is_folded() -> None:
    model = ResNet(**VARIANTS["resnet50"], norm="frozen")
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in model.modules()) == 53
    fast = optimize(model)
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in fast.modules())
    assert sum(isinstance(m, nn.Identity) for m in fast.modules()) == 53
    packed = [m for m in fast.modules() if isinstance(m, PackedConv2d)]
    assert len(packed) == 53 and all(m.bias is not None for m in packed)


def test_the_model_itself_is_left_alone() -> None:
    model = ResNet(**VARIANTS["resnet18"])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fast = optimize(model, "bf16")
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in fast.parameters())


def test_weights_are_packed_and_what_cannot_be_is_channels_last() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
    ).eval()
    fast = optimize(model)
    assert type(fast[0]) is PackedConv2d
    assert type(fast[1]) is nn.Conv2d
    assert fast[1].weight.is_contiguous(memory_format=torch.channels_last)
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(fast(x), model(x), atol=1e-5, rtol=1e-5)
    assert fast[0].last[1].layout == torch._mkldnn and fast[0].last[0] == x.shape
    again = deepcopy(fast)
    torch.testing.assert_close(again(x), fast(x))


def test_bf16_is_near_and_takes_float32() -> None:
    model = ResNet(**VARIANTS["resnet18"])
    unsettle(model)
    fast = optimize(model, "bf16")
    packed = [m for m in fast.modules() if isinstance(m, PackedConv2d)]
    assert len(packed) == 20 and {m.weight.dtype for m in packed} == {torch.bfloat16}
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        for a, b in zip(model.eval()(x), fast(x), strict=True):
            assert b.dtype == torch.bfloat16
            assert (a - b).norm() < 0.03 * a.norm()


def test_bf16_leaves_coordinates_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    model.register_buffer("anchors", torch.tensor([1023.5]))
    assert optimize(model, "bf16").anchors.dtype == torch.float32


def test_neighbours_in_a_sequential_are_folded_and_others_are_not() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=True),
        nn.BatchNorm2d(4, affine=False),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 1),
        nn.BatchNorm2d(4, track_running_stats=False),
    )
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    model.eval()
    fast = optimize(model)
    kinds = [type(m) for m in fast]
    assert kinds[1] is nn.Identity
    assert kinds[3] is nn.BatchNorm2d  # follows no convolution
    assert kinds[5] is nn.BatchNorm2d  # has no statistics but the batch's
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(fast(x), model(x), atol=1e-5, rtol=1e-5)


def test_undeclared_pairs_are_not_folded() -> None:
    """Attributes beside each other need not be applied one after the other."""

    class Crossed(nn.Module):
        fusable: ClassVar = [("conv", "norm")]

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.conv2, self.norm2 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv2(self.norm2(self.norm(self.conv(x))))

    fast = optimize(Crossed())
    assert isinstance(fast.norm, nn.Identity)
    assert isinstance(fast.norm2, nn.BatchNorm2d)


def test_fold_against_the_formula() -> None:
    conv, norm = nn.Conv2d(2, 3, 1), FrozenBatchNorm2d(3, eps=0.0)
    norm.running_var.copy_(torch.tensor([1e-8, 1.0, 4.0]))
    norm.running_mean.normal_()
    norm.weight.copy_(torch.tensor([1e-4, 2.0, -1.0]))
    norm.bias.normal_()
    folded = fold(conv, norm)
    x = torch.rand(1, 2, 4, 4)
    torch.testing.assert_close(folded(x), norm(conv(x)), atol=1e-5, rtol=1e-5)


def test_unknown_precision() -> None:
    with pytest.raises(EyelineError, match="float32, bf16"):
        optimize(nn.Linear(1, 1), "fp8")


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("norm", ["none", "batch", "frozen", "group"])
def test_norms_behind_convolutions(norm: str, precision: str) -> None:
    """Of a pyramid and of a box head: equal, and folded where statistics are fixed."""
    parts = [FPN((8, 16), 32, "conv", norm=norm), BoxHead(32, 7, 3, 16, 2, 1, norm)]
    inputs = [[torch.rand(1, 8, 12, 16), torch.rand(1, 16, 6, 8)], torch.rand(5, 32, 7, 7)]
    for part, x in zip(parts, inputs, strict=True):
        unsettle(part)
        part.eval()
        assert sum(isinstance(m, ConvNorm) for m in part.modules()) in (2, 4)
        fast = optimize(part, precision)
        left = [m.norm for m in fast.modules() if isinstance(m, ConvNorm) and m.norm is not None]
        assert bool(left) == (norm == "group")
        near = 1e-4 if precision == "float32" else 0.05
        with torch.inference_mode():
            for a, b in zip(part(x), fast(x), strict=True):
                assert (a - b).abs().max() <= near * max(1, a.abs().max())
