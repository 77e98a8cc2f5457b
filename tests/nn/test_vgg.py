from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from eyeline.nn.backbones import build_backbone
from eyeline.nn.backbones.vgg import L2Norm, ReducedVGG16


def test_the_plain_network() -> None:
    body = build_backbone("vgg16", norm="none")
    assert sum(p.numel() for p in body.parameters()) == 14_714_688  # the published features
    small = build_backbone("vgg16", norm="batch", in_channels=1, width=8).eval()
    maps = small(torch.rand(1, 1, 64, 96))
    assert [m.shape[1:] for m in maps] == [(32, 16, 24), (64, 8, 12), (64, 4, 6), (64, 2, 3)]
    assert [m.shape[1] for m in maps] == small.channels


def test_the_reduced_network_has_the_papers_maps() -> None:
    body = ReducedVGG16(width=8).eval()
    assert [m.shape[1:] for m in body(torch.rand(1, 3, 300, 300))] == [
        (64, 38, 38), (64, 19, 19), (128, 19, 19),
    ]  # fmt: skip
    assert body.fc6.dilation == (6, 6)
    halved = ReducedVGG16(width=8, pool5=(2, 2, 0), dilation=3).eval()
    assert halved(torch.rand(1, 3, 320, 320))[2].shape == (1, 128, 10, 10)


@torch.no_grad()
def test_it_equals_the_layers_in_a_row() -> None:
    torch.manual_seed(0)
    body = ReducedVGG16(width=8).eval()
    x = wanted = torch.rand(1, 3, 75, 90)
    steps: list[str | nn.Module] = []
    for stage, depth in enumerate((2, 2, 3, 3, 3), start=1):
        steps += [getattr(body, f"conv{stage}_{i + 1}") for i in range(depth)]
        steps.append(f"pool{stage}")
    for step in [*steps, body.fc6, body.fc7]:
        if step == "pool5":
            wanted = F.max_pool2d(wanted, 3, 1, 1)
        elif isinstance(step, str):
            wanted = F.max_pool2d(wanted, 2, ceil_mode=step == "pool3")
        else:
            conv = nn.Conv2d(
                step.in_channels, step.out_channels, step.kernel_size,
                padding=step.padding, dilation=step.dilation,
            )  # fmt: skip
            conv.load_state_dict(step.state_dict())
            wanted = conv(wanted).relu()
    torch.testing.assert_close(body(x)[2], wanted)


def test_l2_norm() -> None:
    x = 1e3 * torch.rand(2, 6, 3, 4)
    found = L2Norm(6, 20.0)(x)
    torch.testing.assert_close(found.norm(dim=1), torch.full((2, 3, 4), 20.0))
    assert L2Norm(6)(torch.zeros(1, 6, 2, 2)).abs().sum() == 0  # no length, no NaN
    half = L2Norm(6).half()(x.half())
    assert half.dtype == torch.float16 and half.isfinite().all()
