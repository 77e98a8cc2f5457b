"""Backbones whose late strides can be dilation: the same weights see the same, on a finer map."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.backbones import build_backbone
from eyeline.nn.backbones.dilation import stage_strides
from eyeline.nn.backbones.mobilenet_v2 import MobileNetV2
from eyeline.nn.backbones.resnet import BasicBlock, Bottleneck, ResNet
from eyeline.nn.backbones.xception import Xception
from eyeline.nn.layers import ConvNorm
from eyeline.nn.lone import normed

NAMES = ["basic", "bottleneck", "mobilenet_v2", "xception"]
SMALL: dict[str, Any] = {
    "basic": partial(ResNet, BasicBlock, (1, 1, 2, 2), planes=8),
    "bottleneck": partial(ResNet, Bottleneck, (1, 1, 2, 3), planes=8),
    "mobilenet_v2": MobileNetV2,
    "xception": partial(Xception, 1),
}


def build(name: str, **options: Any) -> Any:
    """With norms that change what they get."""
    torch.manual_seed(0)
    net = SMALL[name](**options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def picture() -> Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_every_second_cell_of_a_dilated_map_is_the_strided_ones(name: str) -> None:
    strided, dense = build(name), {stride: build(name, output_stride=stride) for stride in (16, 8)}
    maps = strided.stages(picture())
    assert [each.shape[1] for each in maps] == strided.stage_channels
    assert [each.shape[2] for each in maps] == [32, 16, 8, 4, 2]
    for stride, net in dense.items():
        for level, (mine, theirs) in enumerate(zip(net.stages(picture()), maps, strict=True), 1):
            step = max(1, 2**level // stride)
            assert mine.shape[2] == 64 // min(stride, 2**level)
            torch.testing.assert_close(mine[..., ::step, ::step], theirs, rtol=1e-4, atol=1e-4)
    if name != "xception":  # whose strides lie at the ends of blocks
        other = build(name, output_stride=16, first_dilates=True)(picture())[-1]
        assert not torch.allclose(other[..., ::2, ::2], maps[-1], rtol=1e-3, atol=1e-4)


def dilations(stage: nn.Module) -> list[int]:
    """Of the 3x3 convolutions."""
    return [
        m.dilation[0] for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] == 3
    ]


def test_multi_grid_and_first_blocks() -> None:
    options = dict(output_stride=16, multi_grid=(1, 2, 4))
    net = build("bottleneck", first_dilates=True, **options)
    assert dilations(net.layer4) == [2, 4, 8] and set(dilations(net.layer3)) == {1}
    assert dilations(build("bottleneck", **options).layer4) == [1, 4, 8]
    assert dilations(build("basic", **options).layer4) == [1, 2, 4, 4]
    net = build("bottleneck", output_stride=8, multi_grid=(1, 2, 4), first_dilates=True)
    assert set(dilations(net.layer3)) == {2} and dilations(net.layer4) == [4, 8, 16]
    net = build("mobilenet_v2", **options)
    assert dilations(net.features[14:18]) == [1, 4, 8, 8]
    assert dilations(build("xception", **options).blocks[-1]) == [2, 4, 8]


def test_later_stages_are_left_out() -> None:
    for name in NAMES[:3]:
        whole, less = build(name), build(name, depth=3, output_stride=8)
        with torch.no_grad():
            found = less(picture())
            less.load_state_dict(
                {k: v for k, v in whole.state_dict().items() if k in less.state_dict()}
            )
            assert torch.equal(less(picture())[-1], whole(picture())[1])
        assert len(found) == 2 and less.channels == whole.channels[:2]
        gone = {key for key in whole.state_dict() if key not in less.state_dict()}
        assert all(any(key.startswith(f"{p}.") for p in less.absent) for key in gone) and gone


def test_strides_that_cannot_be() -> None:
    assert stage_strides(16) == [(2, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)]
    for options, message in (
        (dict(output_stride=4), "must be 8, 16 or 32"),
        (dict(depth=2), "depth must be 3, 4 or 5"),
        (dict(depth=3), "give output_stride=8"),
    ):
        with pytest.raises(EyelineError, match=message):
            build_backbone("resnet18", **options)
    with pytest.raises(EyelineError, match=r"output_stride=16 is for .* not for vgg16"):
        build_backbone("vgg16", output_stride=16)
    with pytest.raises(EyelineError, match="did you mean xception65"):
        build_backbone("xception_65", output_stride=16)
    with pytest.raises(EyelineError, match="not for Xception"):
        build_backbone("xception41", depth=4, output_stride=16)


def test_xception_of_the_paper_has_more_relus() -> None:
    """Behind each depthwise convolution; the same weights say something else without."""
    paper, code = (build("xception", inside=inside) for inside in (True, False))
    with torch.no_grad():
        assert not torch.allclose(paper(picture())[-1], code(picture())[-1], rtol=1e-2, atol=1e-2)


def test_a_norm_of_one_value_uses_what_it_remembers() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm(torch.rand(8, 4, 3, 3))
    one, remembered = torch.rand(1, 4, 1, 1), norm.running_mean.clone()
    with pytest.raises(ValueError, match="more than 1 value"):
        norm(one)
    found = normed(one, norm)
    assert torch.equal(norm.running_mean, remembered)  # and learns nothing of it
    assert torch.equal(found, norm.eval()(one))
    norm.train()
    two = torch.rand(2, 4, 1, 1)
    batch = F.batch_norm(two, None, None, training=True)
    torch.testing.assert_close(normed(two, norm), batch)
    layer = ConvNorm(4, 4, 1, "batch").train()
    layer(one).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.any()
