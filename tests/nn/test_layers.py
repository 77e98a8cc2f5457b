"""Convolutions with their norm, and the heads that are made of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.fused import fused
from eyeline.nn.heads.roi import BoxHead
from eyeline.nn.layers import ConvNorm, FrozenBatchNorm2d
from eyeline.nn.necks.fpn import FPN
from eyeline.registry import create_model


def test_without_a_norm_it_is_a_convolution():
    """So weights that were saved as a plain convolution's load."""
    conv, plain = ConvNorm(3, 4, 3), nn.Conv2d(3, 4, 3, padding=1)
    conv.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 5, 6)
    assert torch.equal(conv(x), plain(x))


@pytest.mark.parametrize("kind", ["batch", "frozen", "group"])
def test_with_a_norm_it_has_no_bias(kind):
    conv = ConvNorm(3, 32, 1, kind).eval()
    assert conv.bias is None
    with torch.no_grad():
        conv.norm.bias.fill_(2.0)
        conv.norm.weight.fill_(0.0)
    assert (conv(torch.rand(1, 3, 2, 2)) == 2).all()


def test_names_of_the_paper_are_kept():
    """Files from before there were norms and deeper heads still load."""
    assert set(FPN((8,), 4).state_dict()) == {
        f"{part}.0.{kind}" for part in ("lateral", "output") for kind in ("weight", "bias")
    }
    assert set(BoxHead(4, 7, 3, 8).state_dict()) == {
        f"{part}.{kind}" for part in ("fc1", "fc2", "classes", "deltas")
        for kind in ("weight", "bias")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("faster_rcnn", dict(rpn_depth=0), "rpn_depth is 0; it must be 1 or more"),
        ("faster_rcnn", dict(head_layers=3), "head_layers is 3; fully connected are 1 or 2"),
        ("faster_rcnn", dict(fpn_norm="batchnorm"), "fpn_norm must be one of none, frozen, batch"),
        ("retinanet", dict(box_loss="iou"), "box_loss must be one of smooth_l1, giou, diou, ciou"),
        ("retinanet", dict(head_norm="group", fpn_channels=48), "32 groups, which 48 channels"),
    ],
)
def test_options_that_cannot_be_meant(name, options, message):
    with torch.device("meta"), pytest.raises(EyelineError, match=message):
        create_model(name, num_classes=1, backbone="resnet18", **options)


def test_a_map_of_one_cell_has_whole_gradients_in_bf16() -> None:
    """torch leaves some of them uninitialised; freed memory full of NaN shows it."""
    from eyeline.nn.necks.fpn import Halving

    for _ in range(20):
        layer = Halving(64, 64)
        for _ in range(3):
            torch.full((64, 64, 3, 3), float("nan"), dtype=torch.bfloat16)
            torch.full((64, 64, 3, 3), float("nan"))
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(torch.ones(1, 64, 1, 1).contiguous(memory_format=torch.channels_last))
        out.float().sum().backward()
        assert out.shape == (1, 64, 1, 1) and layer.weight.grad is not None
        assert torch.isfinite(layer.weight.grad).all()
        assert (layer.weight.grad[:, :, 1, 1] == 1).all() and layer.weight.grad.sum() == 64 * 64


@pytest.mark.parametrize("bias", [False, True])
def test_a_frozen_norm_joins_the_convolution_before_it(bias: bool) -> None:
    conv, norm = nn.Conv2d(6, 8, 3, 2, padding=1, bias=bias), FrozenBatchNorm2d(8)
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 2)
    x = torch.randn(2, 6, 33, 30)
    given = [conv.weight] + ([conv.bias] if bias else [])
    wanted, found = norm(conv(x)), fused(x, conv, norm)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(found, given, grad), torch.autograd.grad(wanted, given, grad),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_frozen_norm_leaves_a_convolution_alone_where_that_is_better() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    conv, norm, x = nn.Conv2d(6, 8, 3), FrozenBatchNorm2d(8), torch.randn(2, 6, 33, 30)
    assert norm.joins(conv, x)
    assert not norm.joins(conv, x[..., :5, :5])  # fewer results than kernels
    assert not norm.joins(Doubled(6, 8, 3), x)  # computes what only it knows
    seen: list[int] = []
    handle = conv.register_forward_hook(lambda *_: seen.append(1))
    assert not norm.joins(conv, x)
    fused(x, conv, norm)
    assert seen == [1]
    handle.remove()
    assert norm.joins(conv, x)
