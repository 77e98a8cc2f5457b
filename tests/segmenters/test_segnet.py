"""SegNet: its shape, a plain twin, VGG16's weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.registry import create_model


def test_the_decoder_mirrors_the_encoder() -> None:
    with torch.device("meta"):
        model: Any = create_model("segnet", num_classes=11)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(layers) == 26
    shape = [(m.in_channels, m.out_channels) for m in layers]
    backwards = [(b, a) for a, b in reversed(shape[:13])]
    assert shape[13:-1] == backwards[:-1] and shape[-1] == (64, 11)
    # ENet's paper says 29.46 M (Table 3), with biases before the norms.
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(29.45, abs=0.01)


@torch.no_grad()
def test_as_its_plain_twin() -> None:
    """torch's own pooling and unpooling, layer after layer."""
    torch.manual_seed(0)
    model: Any = create_model("segnet", num_classes=3, width=2).eval()
    x = torch.randn(1, 3, 45, 70)
    y, kept = x, []

    def run(layers: list[Any], y: Tensor, last: bool = False) -> Tensor:
        for i, layer in enumerate(layers):
            y = F.conv2d(y, layer.weight, layer.bias, padding=1)
            if not (last and i == len(layers) - 1):
                norm = layer.norm
                y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)
                y = y.relu()
        return y

    encoder = [m for m in model.backbone.modules() if isinstance(m, nn.Conv2d)]
    decoder = [m for m in model.decoder.modules() if isinstance(m, nn.Conv2d)]
    for first, end in ((0, 2), (2, 4), (4, 7), (7, 10), (10, 13)):
        y = run(encoder[first:end], y)
        size = y.shape
        y, places = F.max_pool2d(y, 2, ceil_mode=True, return_indices=True)
        kept.append((size, places))
    for first, end in ((0, 3), (3, 6), (6, 9), (9, 11), (11, 13)):
        size, places = kept.pop()
        y = torch.zeros(size).flatten(2).scatter(2, places.flatten(2), y.flatten(2)).view(size)
        y = run(decoder[first:end], y, last=end == 13)
    torch.testing.assert_close(model.maps(x), y)


def test_pretrained_encoder() -> None:
    state: dict[str, Tensor] = {}
    model: Any = create_model("segnet", num_classes=3, width=2)
    place = 0
    for stage, depth in enumerate((2, 2, 3, 3, 3), 1):
        for i in range(1, depth + 1):
            layer = getattr(model.backbone, f"conv{stage}_{i}")
            state[f"features.{place}.weight"] = torch.randn_like(layer.weight)
            state[f"features.{place}.bias"] = torch.randn(layer.out_channels)
            for name in ("weight", "bias", "running_mean", "running_var"):
                state[f"features.{place + 1}.{name}"] = torch.rand(layer.out_channels)
            place += 3
        place += 1
    loaded: Any = create_model("segnet", num_classes=3, width=2, pretrained=state)
    first = loaded.backbone.conv1_1
    assert torch.equal(first.weight, state["features.0.weight"])
    shifted = state["features.1.running_mean"] - state["features.0.bias"]
    torch.testing.assert_close(first.norm.running_mean, shifted)
    assert loaded.load_report.missing == ()
