"""ENet against a plain table of the authors' layers, and its parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.export import optimize
from eyeline.registry import create_model


def test_parameters() -> None:
    """The paper, Table 3: 0.37 M for 19 classes; 2,000 biases before norms are left out here."""
    model = create_model("enet", num_classes=19)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(0.37, abs=0.01)


class Twin:
    """The authors' network (encoder.lua, decoder.lua) as steps on the tensors of a state dict."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def norm(self, x: Tensor, name: str) -> Tensor:
        s = self.state
        x = (x - s[f"{name}.running_mean"][:, None, None]) / (
            s[f"{name}.running_var"][:, None, None] + 1e-3
        ).sqrt()
        return x * s[f"{name}.weight"][:, None, None] + s[f"{name}.bias"][:, None, None]

    def act(self, x: Tensor, name: str, relu: bool) -> Tensor:
        return x.relu() if relu else F.prelu(x, self.state[f"{name}.weight"])

    def bottleneck(
        self, x: Tensor, name: str, relu: bool, kind: str = "regular", dilation: int = 1,
        places: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        s = self.state
        stride = 2 if kind == "down" else 1
        y = F.conv2d(x, s[f"{name}.reduce.conv.weight"], stride=stride)
        y = self.act(self.norm(y, f"{name}.reduce.norm"), f"{name}.reduce.prelu", relu)
        w = s[f"{name}.middle.conv.weight"]
        if kind == "up":
            y = F.conv_transpose2d(y, w, stride=2, padding=1, output_padding=1)
        elif dilation:
            y = F.conv2d(y, w, padding=dilation, dilation=dilation)
        else:
            y = F.conv2d(y, s[f"{name}.middle.before.0.weight"], padding=(0, 2))
            y = F.conv2d(y, w, padding=(2, 0))
        y = self.act(self.norm(y, f"{name}.middle.norm"), f"{name}.middle.prelu", relu)
        y = self.norm(F.conv2d(y, s[f"{name}.expand.conv.weight"]), f"{name}.expand.norm")
        if kind == "down":
            x, places = F.max_pool2d(x, 2, return_indices=True)
            x = torch.cat([x, torch.zeros(len(x), y.shape[1] - x.shape[1], *x.shape[2:])], 1)
        elif kind == "up":
            x = self.norm(F.conv2d(x, s[f"{name}.beside.conv.weight"]), f"{name}.beside.norm")
            x = F.max_unpool2d(x, places, 2)
        return self.act(x + y, f"{name}.prelu", relu), places

    def __call__(self, x: Tensor) -> Tensor:
        s = self.state
        first = F.conv2d(x, s["initial.conv.weight"], stride=2, padding=1)
        x = self.norm(torch.cat([first, F.max_pool2d(x, 2)], 1), "initial.norm")
        x = F.prelu(x, s["initial.prelu.weight"])
        x, places1 = self.bottleneck(x, "down1", False, "down")
        for i in range(4):
            x, _ = self.bottleneck(x, f"stage1.{i}", False)
        x, places2 = self.bottleneck(x, "down2", False, "down")
        for stage in (2, 3):
            for i, dilation in enumerate((1, 2, 0, 4, 1, 8, 0, 16)):
                x, _ = self.bottleneck(x, f"stage{stage}.{i}", False, dilation=dilation)
        x, _ = self.bottleneck(x, "up4", True, "up", places=places2)
        for i in range(2):
            x, _ = self.bottleneck(x, f"stage4.{i}", True)
        x, _ = self.bottleneck(x, "up5", True, "up", places=places1)
        x, _ = self.bottleneck(x, "stage5.0", True)
        return F.conv_transpose2d(x, s["classes_up.weight"], s["classes_up.bias"], stride=2)


@pytest.mark.parametrize(("channels", "size"), [(3, (32, 40)), (3, (29, 35)), (60, (16, 24))])
@torch.no_grad()
def test_as_the_authors_layers(channels: int, size: tuple[int, int]) -> None:
    """Of 60 channels the initial block has 73 maps, and no shortcut loses one."""
    torch.manual_seed(0)
    stats = dict.fromkeys(("image_mean", "image_std"), (0.5,) * channels)
    model: Any = create_model("enet", num_classes=4, in_channels=channels, **stats).eval()
    assert model.stage1[0].reduce.conv.in_channels == max(64, 13 + channels)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(1e-3, 1.0)
        if isinstance(module, nn.PReLU):
            module.weight.uniform_(-0.5, 0.5)
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("tracked")}
    x = torch.randn(2, channels, *size)
    padded = F.pad(x, (0, -size[1] % 8, 0, -size[0] % 8))
    wanted = Twin(state)(padded)[:, :, : size[0], : size[1]]
    assert model.maps(x).shape == (2, 4, *size)
    torch.testing.assert_close(model.maps(x), wanted, rtol=1e-4, atol=1e-4 * float(wanted.std()))


def test_drop_out_is_of_whole_maps_and_in_training_alone() -> None:
    torch.manual_seed(0)
    model: Any = create_model("enet", num_classes=2, dropout=(0.0, 1.0))
    x = torch.randn(1, 3, 32, 32)
    block = model.stage2[0]
    y = torch.randn(1, 128, 4, 4)
    assert torch.equal(block.train()(y), F.prelu(y, block.prelu.weight))  # nothing is beside it
    assert not torch.allclose(block.eval()(y), F.prelu(y, block.prelu.weight))
    model.eval()
    assert torch.equal(model(x.sigmoid()), model(x.sigmoid()))


def test_the_encoder_has_classes_of_its_own() -> None:
    model: Any = create_model("enet", num_classes=2, auxiliary=0.5)
    losses = model(torch.rand(1, 3, 33, 47), torch.zeros(1, 33, 47, dtype=torch.int64))
    assert losses.keys() == {"cross_entropy", "encoder"}
    losses["encoder"].backward()
    assert (
        model.stage3[7].expand.conv.weight.grad.any() and model.up4.expand.conv.weight.grad is None
    )


@torch.no_grad()
def test_optimized() -> None:
    torch.manual_seed(0)
    model, x = create_model("enet", num_classes=2).eval(), torch.rand(1, 3, 29, 35)
    wanted = model(x)
    torch.testing.assert_close(optimize(model)(x), wanted, rtol=1e-3, atol=1e-4)
    found = optimize(model, "bf16")(x)
    assert found.dtype == torch.float32 and (found - wanted).abs().mean() < 0.2 * wanted.std()
