"""int8: what is observed, what is computed with it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.export import Ranges, calibrate, optimize
from eyeline.nn import fused as fused_module
from eyeline.nn.backbones.resnet import VARIANTS, ResNet
from eyeline.nn.fused import PackedConv2d, beside, fused, max_pool
from eyeline.nn.int8 import Int8Conv2d, Int8Linear, Quantized

needs_int8 = pytest.mark.skipif(
    not torch.cpu._is_vnni_supported(), reason="this processor has no 8-bit products"
)


class Net(nn.Module):
    """a -> b -> pooled; b also goes to c; c is the shortcut of d; e is never fused."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.c, self.d = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.e, self.f = nn.Conv2d(8, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = fused(x, self.a, relu=True)
        x = fused(x, self.b, relu=True)
        pooled = F.max_pool2d(x, 2)
        side = fused(x, self.c)
        x = fused(x, self.d, add=side, relu=True)
        return pooled, fused(self.e(x).mean((2, 3)), self.f)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def batches() -> list[Tensor]:
    return [torch.rand(2, 3, 16, 16) for _ in range(3)]


def test_who_reads_what(net: nn.Module, batches: list[Tensor]) -> None:
    ranges = calibrate(net, batches)
    layers = ranges.layers
    assert sorted(layers) == ["a", "b", "c", "d", "f"]
    written = {name for name, found in layers.items() if found.output is not None}
    # b's result is pooled too, d's is read by e, f's leaves the network.
    assert written == {"a", "c"}
    assert layers["b"].input == layers["a"].output
    low, high = layers["a"].input
    assert 0 <= low < 0.01 and 0.99 < high <= 1
    assert layers["a"].output[0] == 0
    assert layers["c"].output[0] < 0 < layers["c"].output[1]
    assert fused_module.watcher is None


def test_ranges_cover_all_batches(net: nn.Module, batches: list[Tensor]) -> None:
    once = calibrate(net, batches).layers["a"]
    wider = calibrate(net, [*batches, 3 * batches[0] - 1]).layers["a"]
    assert wider.input[0] < -0.9 and wider.input[1] > 1.9
    assert wider.output[1] > once.output[1]


def test_watching_leaves_the_model_and_its_results_alone(
    net: nn.Module, batches: list[Tensor]
) -> None:
    before = [net(batch)[1] for batch in batches]
    calibrate(net, batches)
    assert all(torch.equal(net(b)[1], a) for a, b in zip(before, batches, strict=True))
    assert all(p.requires_grad for p in net.parameters())


@needs_int8
def test_results_are_near(net: nn.Module, batches: list[Tensor]) -> None:
    fast = optimize(net, "int8", ranges=calibrate(net, batches))
    kinds = {name: type(getattr(fast, name)) for name in "abcdef"}
    assert kinds == dict(
        a=Int8Conv2d, b=Int8Conv2d, c=Int8Conv2d, d=Int8Conv2d, e=PackedConv2d, f=Int8Linear
    )
    with torch.inference_mode():
        for batch in batches:
            (pooled, out), (fast_pooled, fast_out) = net(batch), fast(batch)
            assert (fast_pooled - pooled).norm() < 0.03 * pooled.norm()
            assert out.norm() > 0.1 and (fast_out - out).norm() < 0.1 * out.norm()
            assert isinstance(fast.a(batch, relu=True), Quantized)


class Joining(nn.Module):
    """a -> b (half as large) -> beside a in c, d, which is not only there, beside b in e."""

    def __init__(self, relu: bool = True) -> None:
        super().__init__()
        self.relu = relu
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, 2, padding=1)
        self.c, self.d = nn.Conv2d(14, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.e = nn.Conv2d(10, 5, 1)
        with torch.no_grad():
            self.b.weight *= 20  # ranges far apart

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = fused(x, self.a, relu=True)
        coarse = fused(fine, self.b, relu=self.relu)
        x = fused(beside(coarse, [fine], fine.shape[2:]), self.c, relu=True)
        x = fused(x, self.d, relu=True)
        return x.amax(1), fused(beside(coarse, [x], x.shape[2:]), self.e)


@needs_int8
@pytest.mark.parametrize("size", [(16, 16), (15, 17)])
@pytest.mark.parametrize("relu", [True, False])
def test_parts_side_by_side(relu: bool, size: tuple[int, int], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Joining(relu).eval()
    x = torch.rand(2, 3, *size)
    calibrate(net, [x]).save(tmp_path / "r.json")
    layers = (ranges := Ranges.load(tmp_path / "r.json")).layers
    # Without a ReLU 0 is not the first step of b's grid, nor of the grid of what it is beside.
    assert layers["c"].parts == ((("b", 6), ("a", 8)) if relu else (("", 6), ("", 8)))
    assert layers["e"].parts == (("b" if relu else "", 6), ("", 4))
    assert layers["a"].parts == ()
    written = {name for name, found in layers.items() if found.output is not None}
    assert written == ({"a", "b", "c"} if relu else {"c"})
    fast = optimize(net, "int8", ranges=ranges)
    with torch.inference_mode():
        for found, wanted in zip(fast(x), net(x), strict=True):
            assert (found - wanted).norm() < 0.03 * wanted.norm()


class JoiningOn(nn.Module):
    """What lies side by side goes on to what is no convolution: a pool, other maps, a sum."""

    def __init__(self, then: str) -> None:
        super().__init__()
        self.then = then
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, 2, padding=1)
        self.c = nn.Conv2d(32 if then == "beside" else 16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = fused(x, self.a, relu=True), fused(x, self.b, relu=True)
        both = beside(coarse, [fine], fine.shape[2:])
        match self.then:
            case "pool":
                return fused(max_pool(both, 2, 2), self.c)
            case "beside":
                return fused(beside(both, [both], fine.shape[2:]), self.c)
            case "add":
                return fused(both, self.c, add=both)
        return fused(beside(both, [], [40, 40]), self.c)


@needs_int8
@pytest.mark.parametrize("then", ["pool", "beside", "add", "enlarge"])
def test_parts_side_by_side_that_others_read_are_real(then: str) -> None:
    torch.manual_seed(0)
    net, x = JoiningOn(then).eval(), torch.rand(2, 3, 16, 16)
    ranges = calibrate(net, [x])
    assert [name for name, found in ranges.layers.items() if found.output is not None] == []
    fast = optimize(net, "int8", ranges=ranges)
    with torch.inference_mode():
        found, wanted = fast(x), net(x)
        assert (found - wanted).norm() < 0.03 * wanted.norm()


@needs_int8
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_resnets(name: str) -> None:
    torch.manual_seed(1)
    net = ResNet(**VARIANTS[name])
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.3, 0.6)
                module.bias.normal_(std=0.1)
    pictures = [torch.rand(1, 3, 64, 96) for _ in range(2)]
    net.eval()
    ranges = calibrate(net, pictures)
    assert len(ranges.layers) == sum(isinstance(m, nn.Conv2d) for m in net.modules())
    # Those of the stages leave the network; the pooling reads the stem's in 8 bits.
    last = 2 if name == "resnet18" else 3
    assert [n for n, r in ranges.layers.items() if r.output is None] == [
        f"layer{i}.{depth - 1}.conv{last}" for i, depth in enumerate(VARIANTS[name]["depths"], 1)
    ]
    fast = optimize(net, "int8", ranges=ranges)
    assert sum(isinstance(m, Int8Conv2d) for m in fast.modules()) == len(ranges.layers)
    with torch.inference_mode():
        for wanted, got in zip(net(pictures[0]), fast(pictures[0]), strict=True):
            assert (got - wanted).norm() < 0.1 * wanted.norm()


class Pooled(nn.Module):
    """a, leaky, pooled, b, pooled, c; another also reads what b's pooling gives."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.c = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = max_pool(fused(x, self.a, relu=True, slope=0.1), 2, ceil_mode=True)
        x = max_pool(fused(x, self.b, relu=True, slope=0.1), 3, 1, 1)
        return x.mean((2, 3)), fused(x, self.c, relu=True, slope=0.1)


@needs_int8
@torch.inference_mode()
def test_leaky_relus_and_pools_between_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, batch = Pooled().eval(), torch.rand(1, 3, 17, 19) - 0.5
    ranges = calibrate(net, [batch])
    written = {name for name, found in ranges.layers.items() if found.output is not None}
    assert written == {"a"}  # b's is read by the mean, through the pooling
    assert ranges.layers["a"].output[0] < 0
    fast = optimize(net, "int8", ranges=ranges)
    pooled: list[object] = []
    held = Quantized.max_pool
    monkeypatch.setattr(
        Quantized, "max_pool", lambda self, *how: pooled.append(how) or held(self, *how)
    )
    for wanted, got in zip(net(batch), fast(batch), strict=True):
        assert wanted.min() < 0 and (got - wanted).norm() < 0.05 * wanted.norm()
    assert pooled == [(2, 2, 0, True)]


def test_file_round_trip(net: nn.Module, batches: list[Tensor], tmp_path: Path) -> None:
    ranges = calibrate(net, batches)
    ranges.save(tmp_path / "int8.json")
    assert Ranges.load(tmp_path / "int8.json") == ranges


@pytest.mark.parametrize(
    "text", ["", "[]", '{"weights": "a"}', '{"weights": "a", "layers": {"a": 1}}']
)
def test_files_that_are_something_else(text: str, tmp_path: Path) -> None:
    (tmp_path / "int8.json").write_text(text)
    with pytest.raises(EyelineError, match=r"int8\.json holds no ranges"):
        Ranges.load(tmp_path / "int8.json")
    with pytest.raises(EyelineError, match="cannot read"):
        Ranges.load(tmp_path / "none.json")


def test_refusals(net: nn.Module, batches: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = calibrate(net, batches)
    with pytest.raises(EyelineError, match="no picture"):
        calibrate(net, [])
    with pytest.raises(EyelineError, match="nothing to do"):
        calibrate(nn.Conv2d(3, 3, 1), batches)
    with pytest.raises(EyelineError, match="eyeline calibrate RUN PICTURES"):
        optimize(net, "int8")
    with pytest.raises(EyelineError, match="leave compile out"):
        optimize(net, "int8", ranges=ranges, compile=True)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    with torch.no_grad():
        net.b.bias += 1e-3
    with pytest.raises(EyelineError, match="other weights"):
        optimize(net, "int8", ranges=ranges)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(EyelineError, match="AVX-512 VNNI"):
        optimize(net, "int8", ranges=ranges)


def test_json_is_plain(net: nn.Module, batches: list[Tensor], tmp_path: Path) -> None:
    calibrate(net, batches).save(tmp_path / "int8.json")
    found = json.loads((tmp_path / "int8.json").read_text())
    assert set(found) == {"weights", "layers"}
    assert set(found["layers"]["a"]) == {"input", "output", "parts"}
    for layer in found["layers"].values():
        del layer["parts"]  # as it was once written
    (tmp_path / "int8.json").write_text(json.dumps(found))
    assert Ranges.load(tmp_path / "int8.json") == calibrate(net, batches)
