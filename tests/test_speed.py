"""What is fast stays fast: ratios to the plain twins, in one process, taking turns.

A ratio may fall to two thirds of what was measured when it was written (2 cores with AVX-512, one
thread). `make bench` compares with torchvision.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from eyeline.export import calibrate, optimize
from eyeline.nn.backbones.darknet import Darknet53
from eyeline.nn.backbones.resnet import VARIANTS, ResNet
from eyeline.nn.backbones.vgg import ReducedVGG16
from eyeline.ops.nms import nms, nms_plain
from eyeline.ops.roi_align import assign_levels, roi_align, roi_align_plain

MEASURED = {"roi_align": 40.0, "nms": 32.0}
NETWORKS = {
    "resnet50": {"float32": 1.5, "bf16": 3.0, "int8": 4.0},
    "vgg16": {"float32": 2.0, "bf16": 2.2, "int8": 4.2},
    "darknet53": {"float32": 2.0, "bf16": 2.7, "int8": 4.0},
}
EXPECTED = {name: value * 2 / 3 for name, value in MEASURED.items()}
Call = Callable[[], object]


def ratio(plain: Call, fast: Call, rounds: int = 7) -> float:
    """How many times as fast, the median of the rounds after one to warm up."""
    found = []
    for turn in range(rounds + 1):
        seconds = []
        for call in (plain, fast):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        if turn:
            found.append(seconds[0] / seconds[1])
    return statistics.median(found)


@pytest.fixture(autouse=True)
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def boxes(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 200
    return torch.cat([corner, corner + 8 + 60 * torch.rand(count, 2, generator=generator)], 1)


def test_roi_align() -> None:
    levels = [
        torch.randn(1, 64, 64 >> i, 64 >> i).to(memory_format=torch.channels_last) for i in range(4)
    ]
    regions, image = boxes(100), torch.zeros(100, dtype=torch.int64)
    given = (
        levels,
        regions,
        image,
        assign_levels(regions, 2, 5),
        7,
        [1 / 4, 1 / 8, 1 / 16, 1 / 32],
    )
    assert ratio(lambda: roi_align_plain(*given), lambda: roi_align(*given)) > EXPECTED["roi_align"]


def test_nms() -> None:
    given = (boxes(600), torch.rand(600), 0.5)
    assert ratio(lambda: nms_plain(*given), lambda: nms(*given)) > EXPECTED["nms"]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "vgg16":
        return ReducedVGG16().eval()
    if name == "darknet53":
        return Darknet53(norm="frozen").eval()
    net = ResNet(**VARIANTS["resnet50"], norm="frozen").eval()
    for block in (*net.layer1, *net.layer2, *net.layer3, *net.layer4):
        block.bn3.weight.fill_(0.3)  # or the sums grow from block to block
    return net


def supported(precision: str) -> bool:
    flags = {"bf16": torch.cpu._is_avx512_bf16_supported, "int8": torch.cpu._is_vnni_supported}
    return flags.get(precision, lambda: True)()


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
@pytest.mark.parametrize(
    "name", ["resnet50", *(pytest.param(n, marks=pytest.mark.slow) for n in ("vgg16", "darknet53"))]
)
@torch.inference_mode()
def test_network(name: str, precision: str) -> None:
    if not supported(precision):
        pytest.skip(f"this processor has no instructions for {precision}")
    picture = torch.rand(1, 3, 192, 256).to(memory_format=torch.channels_last)
    net = network(name)
    ranges = calibrate(net, [picture]) if precision == "int8" else None
    fast = optimize(net, precision, ranges=ranges)
    expected = NETWORKS[name][precision] * 2 / 3
    assert ratio(lambda: net(picture), lambda: fast(picture)) > expected


def test_a_slower_twin_is_seen() -> None:
    assert ratio(lambda: time.sleep(0.002), lambda: time.sleep(0.006)) < 0.6
