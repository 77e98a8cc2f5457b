"""HRNet: widths and parameters of the published networks, all maps seen by all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from eyeline.registry import create_model

SMALL = dict(num_classes=3, width=4, modules=(1, 1, 1), blocks=1, first_blocks=1)


def test_parameters() -> None:
    """The paper's Table 3 says 65.9 M for W48, on Cityscapes."""
    with torch.device("meta"):
        model = create_model("hrnet", num_classes=19, width=48)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(65.9, abs=0.05)


def test_four_resolutions() -> None:
    model: Any = create_model("hrnet", **SMALL).eval()
    with torch.no_grad():
        maps = model.backbone(torch.randn(1, 3, 65, 130))
    assert [tuple(x.shape[1:]) for x in maps] == [(4, 17, 33), (8, 9, 17), (16, 5, 9), (32, 3, 5)]


def test_each_map_is_made_of_all() -> None:
    """The gradient of any map of stage 4 reaches every branch of it."""
    model: Any = create_model("hrnet", **SMALL).eval()
    exchange = model.backbone.stage4[0]
    given = [torch.randn(1, 4 << i, 16 >> i, 16 >> i, requires_grad=True) for i in range(4)]
    for out in exchange(given):
        grads = torch.autograd.grad(out.sum(), given, retain_graph=True)
        assert all(g.any() for g in grads)


def test_momentum() -> None:
    model: Any = create_model("hrnet", **SMALL, norm_momentum=0.01)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and {m.momentum for m in norms} == {0.01}
