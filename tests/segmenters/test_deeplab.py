"""DeepLabv3 and v3+: what the suite over every segmenter does not ask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from eyeline.nn.heads.aspp import ASPP, rates_at
from eyeline.registry import create_model


def test_rates_follow_the_output_stride() -> None:
    assert rates_at(16, (6, 12, 18), 16) == (6, 12, 18)
    assert rates_at(8, (6, 12, 18), 16) == (12, 24, 36)
    assert rates_at(32, (6, 12, 18), 16) == (3, 6, 9)
    assert rates_at(8, (12, 24, 36), None) == (12, 24, 36)


@pytest.mark.parametrize("separable", [False, True])
@torch.no_grad()
def test_each_branch_sees_as_far_as_its_rate(separable: bool) -> None:
    """What a single cell changes: nine cells at each rate, and in the branch of the mean all."""
    torch.manual_seed(0)
    aspp = ASPP(4, 8, (2, 5), separable=separable).eval()
    x = torch.rand(1, 4, 15, 15)
    seen: dict[str, Tensor] = {}
    parts = {"direct": aspp.direct, "pooled": aspp.pooled}
    parts |= {str(rate): conv for rate, conv in zip((2, 5), aspp.atrous, strict=True)}
    for name, part in parts.items():
        part.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.clone()}))
    aspp(x)
    before = dict(seen)
    x[..., 7, 7] += 1
    assert aspp(x).shape == (1, 8, 15, 15)
    changed = {name: (seen[name] != before[name]).any(1)[0].nonzero().tolist() for name in parts}
    assert changed["direct"] == [[7, 7]] and changed["pooled"] == [[0, 0]]
    for rate in (2, 5):
        cells = [7 - rate, 7, 7 + rate]
        assert changed[str(rate)] == [[row, column] for row in cells for column in cells]


@torch.no_grad()
def test_the_mean_of_the_picture_reaches_every_cell() -> None:
    torch.manual_seed(0)
    aspp = ASPP(4, 8, (2,)).eval()
    for name in ("direct", "atrous"):  # only the mean is left
        for p in getattr(aspp, name).parameters():
            p.zero_()
    found = aspp(torch.rand(2, 4, 5, 7))
    assert torch.allclose(found, found[..., :1, :1].expand_as(found))
    assert not torch.allclose(found[0], found[1])


def test_published_defaults() -> None:
    """Of the papers, and what separates the networks' conventions."""
    small: dict[str, Any] = dict(num_classes=3, backbone="resnet18")
    model: Any = create_model("deeplabv3", **small)
    assert [conv.dilation[0] for conv in model.aspp.atrous] == [6, 12, 18]
    assert [m.conv2.dilation[0] for m in model.backbone.layer4] == [2, 4]
    assert (model.deeper, model.auxiliary_weights) == (None, {})
    model = create_model("deeplabv3", output_stride=8, **small)
    assert [conv.dilation[0] for conv in model.aspp.atrous] == [12, 24, 36]
    model = create_model("deeplabv3plus", **small)
    assert model.low.weight.shape == (48, 64, 1, 1) and len(model.decoder) == 2
    assert model.aspp.atrous[0].depthwise.norm is not None
    model = create_model("deeplabv3plus", separable=False, **small)
    assert type(model.decoder[0]).__name__ == "ConvNorm"
    model = create_model("deeplabv3plus", convention="smp", **small)
    assert model.aspp.atrous[0].depthwise.bias is None and len(model.decoder) == 1


def test_the_auxiliary_head_costs_nothing_where_nothing_is_learnt() -> None:
    torch.manual_seed(0)
    model: Any = create_model(
        "deeplabv3", num_classes=3, backbone="resnet18", convention="torchvision", width=8
    )
    calls: list[int] = []
    model.auxiliary.register_forward_hook(lambda *_: calls.append(1))
    images, target = torch.rand(1, 3, 40, 40), torch.zeros(1, 40, 40, dtype=torch.int64)
    with torch.no_grad():
        model.eval()(images)
        assert not calls
        half = model(images, target)["auxiliary"]
        model.auxiliary_weights = {"auxiliary": 1.0}
        assert calls and model(images, target)["auxiliary"] == pytest.approx(2 * float(half))
