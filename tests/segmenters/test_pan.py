"""PAN: what the suite over every segmenter does not ask."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eyeline.errors import EyelineError
from eyeline.registry import create_model
from eyeline.segmenters.pan import FeaturePyramidAttention, GlobalAttentionUpsample

HOW: tuple[Any, ...] = (4, "batch", 1e-5)


@pytest.mark.parametrize("gate", ["relu", "sigmoid"])
@torch.no_grad()
def test_a_deep_map_weighs_the_channels_of_a_finer_one(gate: str) -> None:
    torch.manual_seed(0)
    upsample = GlobalAttentionUpsample(6, *HOW, gate, True).eval()
    fine, deep = torch.rand(2, 6, 9, 13), torch.rand(2, 4, 5, 7)
    found = upsample(fine, deep)
    assert found.shape == (2, 4, 9, 13)
    # Corner pixels are as they were, and what was added is one weight a channel.
    weighed = upsample.finer(fine).relu()
    weight = (found - deep[..., :1, :1])[..., 0, 0] / weighed[..., 0, 0]
    mean = upsample.weigh(deep.mean((2, 3), keepdim=True))
    expected = mean.relu() if gate == "relu" else mean.sigmoid()
    used = weighed[..., 0, 0] > 1e-3
    torch.testing.assert_close(weight[used], expected[..., 0, 0][used], rtol=1e-3, atol=1e-4)
    assert used.any()


@pytest.mark.parametrize("size", [(16, 24), (9, 13), (2, 3), (1, 1)])
def test_pyramid_attention_of_maps_of_any_size(size: tuple[int, int]) -> None:
    """Each halving leaves a cell at least; a gradient reaches all, in a batch of one too."""
    torch.manual_seed(0)
    attention = FeaturePyramidAttention(6, *HOW, True).train()
    sides: list[tuple[int, int]] = []
    for conv in attention.down:
        conv.register_forward_hook(lambda _, __, out: sides.append(tuple(out.shape[2:])))
    found = attention(torch.rand(1, 6, *size))
    assert found.shape == (1, 4, *size)
    assert sides == [tuple(max(1, side >> i) for side in size) for i in (1, 2, 3)]
    found.square().sum().backward()
    assert all(p.grad is not None for p in attention.parameters())


@torch.no_grad()
def test_one_weight_a_place() -> None:
    """Without the mean of the whole, the channels of a place are all weighed the same."""
    torch.manual_seed(0)
    attention = FeaturePyramidAttention(6, *HOW, True).eval()
    x = torch.rand(1, 6, 16, 16)
    whole = attention.whole(x.mean((2, 3), keepdim=True)).relu()
    plain = attention.middle(x).relu()
    ratio = (attention(x) - whole)[plain > 1e-2] / plain[plain > 1e-2]
    weight = ratio.new_full(plain.shape, torch.nan).masked_scatter(plain > 1e-2, ratio)
    spread = weight.nan_to_num(-1e9).amax(1) - weight.nan_to_num(1e9).amin(1)
    several = (plain > 1e-2).sum(1) > 1
    assert several.any() and spread[several].abs().max() < 1e-3
    assert weight[~weight.isnan()].std() > 0


def test_nothing_is_dilated_at_stride_32() -> None:
    model: Any = create_model("pan", num_classes=3, backbone="resnet18", output_stride=32)
    convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(m.dilation == (1, 1) for m in convs) and len(convs) > 30
    model = create_model("pan", num_classes=3, backbone="resnet18")
    # Sec. 3.3: from res5b on.
    assert [block.conv1.dilation[0] for block in model.backbone.layer4] == [1, 2]
    with pytest.raises(EyelineError, match='gate must be "relu" or "sigmoid"'):
        create_model("pan", num_classes=3, backbone="resnet18", gate="tanh")
