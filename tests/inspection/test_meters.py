"""What operators do, counted; hand counts in the comments."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eyeline
from eyeline.inspection.meters import Amounts, TimeMeter, WorkMeter


def work(call: Callable[[], object]) -> Amounts:
    meter = WorkMeter()
    with meter:
        start = meter.mark()
        call()
        return meter.between(start, meter.mark())


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(*shape, dtype=dtype)


@pytest.mark.parametrize("inference", [True, False])
def test_convolution_and_linear(inference: bool) -> None:
    conv, x = nn.Conv2d(3, 8, 3, padding=1), ones(2, 3, 10, 12)
    linear, y = nn.Linear(5, 7), ones(4, 5)
    with torch.inference_mode(inference):
        # 2 x 3 x 3 x 3 for each of 2 x 8 x 10 x 12 results; 720 + 216 + 8 + 1920 floats
        assert work(lambda: conv(x)) == Counter(float32=54 * 1920, bytes=4 * 2864)
        # 2 x 5 for each of 4 x 7 results; 20 + 35 + 7 + 28 floats
        assert work(lambda: linear(y)) == Counter(float32=280, bytes=4 * 90)


def test_operations_are_booked_by_precision() -> None:
    a, b = ones(4, 8, dtype=torch.bfloat16), ones(8, 2, dtype=torch.bfloat16)
    assert work(lambda: a @ b) == Counter(bf16=2 * 4 * 8 * 2, bytes=2 * (32 + 16 + 8))
    i, j = ones(32, 16, dtype=torch.int8), ones(16, 8, dtype=torch.int8)
    assert work(lambda: torch._int_mm(i, j))["int8"] == 2 * 32 * 16 * 8
    assert work(lambda: a.half() @ b.half())["fp16"] == 128


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no packed layers here")
def test_packed_layers_count_as_plain_ones() -> None:
    x, w, b = ones(1, 4, 9, 9), ones(6, 2, 3, 3), ones(6)
    plain = work(lambda: F.conv2d(x, w, b, groups=2))
    packed = torch.ops.mkldnn._convolution_pointwise
    meter = WorkMeter()
    with meter:
        packed(x, w, b, [0, 0], [1, 1], [1, 1], 2, "relu", [], "")
    assert meter.done["float32"] == plain["float32"] == 2 * 2 * 9 * 6 * 49
    assert not meter.uncounted


def test_operators_of_strangers_are_named() -> None:
    with torch.library._scoped_library("stranger", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
        meter = WorkMeter()
        with meter:
            torch.ops.stranger.twice(ones(3))
    assert meter.uncounted == {"stranger.twice"}


def test_a_backward_pass_is_twice_the_forward_one() -> None:
    conv, x = nn.Conv2d(4, 4, 1, bias=False), torch.ones(1, 4, 5, 5, requires_grad=True)
    forward = work(lambda: conv(x))["float32"]
    assert forward == 2 * 4 * 4 * 25
    assert work(lambda: conv(x).sum().backward())["float32"] == 3 * forward


table, index = ones(100, 16), torch.arange(10)
offsets = torch.arange(0, 10, 5)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: table + table, 4 * 3 * 1600),
        (lambda: table.view(16, 100).t()[:5].flatten(), 4 * 2 * 80),  # the last copies 80
        (lambda: table.expand(9, 100, 16).sum(), 4 * 1600 + 4),
        (lambda: table.relu_(), 4 * 2 * 1600),
        (lambda: table.fill_(1), 4 * 1600),
        (lambda: torch.empty_like(table), 0),
        (lambda: table.index_select(0, index), 4 * 2 * 160 + 8 * 10),  # ten rows, not all
        (lambda: table[index], 4 * 2 * 160 + 8 * 10),
        (lambda: torch.cat([table, table]), 4 * 2 * 3200),
    ],
)
def test_bytes(call: Callable[[], object], expected: int) -> None:
    with torch.inference_mode():
        assert work(call) == (Counter(bytes=expected) if expected else Counter())


def test_bytes_of_a_bag_are_those_of_its_rows() -> None:
    few = work(lambda: F.embedding_bag(index, table, offsets, mode="sum"))["bytes"]
    many = work(lambda: F.embedding_bag(index, ones(10**5, 16), offsets, mode="sum"))["bytes"]
    assert few < 4 * 1600 and many - 4 * 16 * 10**5 == few  # the second also fills its table


def test_bytes_of_an_optimizer() -> None:
    weight = nn.Parameter(ones(1000))
    weight.grad = ones(1000)
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=True)
    optimizer.step()  # makes the momentum
    step = work(optimizer.step)["bytes"]
    assert 4 * 5000 <= step <= 4 * 6000  # reads three vectors, writes two of them (or all)


def test_operations_of_a_network() -> None:
    """Of every convolution and linear layer, by its weight and its results."""
    model = eyeline.create_model("resnet18", num_classes=10).eval()
    expected = 0

    def add(module: nn.Conv2d | nn.Linear, _: object, out: Tensor) -> None:
        nonlocal expected
        expected += 2 * out.numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
    with torch.inference_mode():
        done = work(lambda: model(ones(1, 3, 64, 64)))
    # A known count: 1,813,561,344 multiply-adds at 224x224, and 512 x 10 in the last layer.
    assert expected == done["float32"] == 2 * (1_813_561_344 * 64**2 // 224**2 + 5120)


def test_time() -> None:
    meter = TimeMeter(torch.device("cpu"))
    assert 0.02 <= meter.time(lambda: time.sleep(0.02)) < 0.2
