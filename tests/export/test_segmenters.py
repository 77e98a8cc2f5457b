"""Segmenters made faster, and written to files: the same logits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.inference.toy_segmenter import CLASSES, bands, registered, save_toy, toy
from torch import Tensor, nn

from eyeline.cli import main
from eyeline.errors import EyelineError
from eyeline.export import calibrate, export_model, files, optimize
from eyeline.export.files import FORMATS, Format
from eyeline.export.graph import MapGraph
from eyeline.nn.backbones.resnet import BasicBlock, ResNet
from eyeline.nn.fused import fused
from eyeline.nn.layers import ConvNorm
from eyeline.nn.segmenter import Segmenter, SegmenterConfig


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    pass


class Dilated(Segmenter):
    """A ResNet of output stride 8, a head with dilation, corners on corners, an auxiliary head."""

    align_corners = True

    def __init__(self) -> None:
        self.set_up(Config(num_classes=3))
        self.backbone = ResNet(BasicBlock, (1, 1, 1, 1), planes=8, output_stride=8)
        self.head = ConvNorm(64, 16, 3, "batch", padding=6, dilation=6)
        self.classifier = nn.Conv2d(16, 3, 1)
        self.other = nn.Conv2d(32, 3, 1)
        self.auxiliary_weights = {"auxiliary": 0.4}

    def maps(self, images: Tensor) -> Any:
        *_, c4, c5 = self.backbone(images)
        x = fused(c5, self.head, relu=True)
        return fused(x, self.classifier), {"auxiliary": fused(c4, self.other)}


@pytest.fixture(scope="module")
def model() -> Dilated:
    """Its norms have seen some pictures."""
    torch.manual_seed(0)
    model = Dilated()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(torch.rand(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.int64))
    return model.eval()


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
def test_a_faster_segmenter_says_the_same(model: Dilated, precision: str) -> None:
    images = torch.rand(2, 3, 65, 97)
    ranges = calibrate(model, [images]) if precision == "int8" else None
    if ranges is not None:
        assert {"backbone.layer4.0.conv2", "head", "classifier"} <= {*ranges.layers}
    fast = optimize(model, precision, ranges=ranges)
    with torch.inference_mode():
        found, wanted = fast(images), model(images)
    assert found.shape == wanted.shape == (2, 3, 65, 97) and found.dtype == torch.float32
    error = float((found - wanted).square().mean().sqrt() / wanted.std())
    assert error < {"float32": 1e-5, "bf16": 0.05, "int8": 0.1}[precision]
    assert any(type(m).__module__ == "eyeline.nn.fused" for m in fast.modules()) or (
        precision == "int8"
    )


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that are written, in a format that is run as it stands."""
    kept: list[Any] = []

    def write(model: Any, path: Path, facts: Any, size: Any) -> None:
        path.write_text(json.dumps({"facts": dict(facts), "size": size}))
        kept.append(MapGraph(model))

    form = Format(".pt2", (), write, lambda path: kept[-1])
    monkeypatch.setitem(files.FORMATS, "torch", form)
    return kept


def test_a_file_takes_pictures_of_one_size(plain: list[Any], tmp_path: Path) -> None:
    model = toy(min_size=20, max_size=99)
    compared = export_model(model, tmp_path / "a.pt2", "torch", size=(30, 45))
    assert str(compared).startswith("30x45 pixels: logits within ")
    told = json.loads((tmp_path / "a.pt2").read_text())
    assert told["size"] == [30, 45] == json.loads(told["facts"]["size"])
    assert json.loads(told["facts"]["classes"]) == CLASSES
    image, _ = bands(30, 45)
    with torch.no_grad():
        torch.testing.assert_close(plain[0](image[None])["logits"], model(image[None]))
    # Without a size, that of the picture.
    compared = export_model(model, tmp_path / "b.pt2", "torch", picture=image)
    assert compared.size == (30, 45) and compared.same == 1


def test_a_file_takes_bytes_whatever_the_picture_is(
    plain: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 16 bits and of other channels pictures are read as floats."""
    forward = MapGraph.forward
    monkeypatch.setattr(
        MapGraph, "forward", lambda self, x: seen.append(x.dtype) or forward(self, x)
    )
    model = toy(False, in_channels=4, image_mean=(0.5,) * 4, image_std=(0.2,) * 4)
    seen: list[torch.dtype] = []
    for size in (None, (30, 45), (16, 16)):
        export_model(model, tmp_path / f"{size}.pt2", "torch", torch.rand(4, 30, 45), size=size)
    assert seen == [torch.uint8] * 3


def test_a_file_that_says_something_else_is_not_kept(
    plain: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MapGraph, "forward", lambda self, x: {"logits": self.model(x) + 0.1})
    with pytest.raises(EyelineError, match="the file differs from the model"):
        export_model(toy(), tmp_path / "a.pt2", "torch", size=(30, 45))
    assert not list(tmp_path.iterdir())


def test_the_command(
    plain: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    save_toy(tmp_path / "a.safetensors")
    with registered():
        command = ["export", "a.safetensors", "--format", "torch"]
        assert main.run([*command, "--size", "64x96"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("model.pt2; beside the model on a made picture, 64x96 pixels: ")
        assert "nothing was found" not in out
        assert main.run([*command, "--nms-iou", "0.5", "--force"]) == 1
        assert "nms_iou is for detectors" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("format", [*FORMATS])
def test_real_files(model: Dilated, tmp_path: Path, format: str) -> None:
    for package in FORMATS[format].packages:
        pytest.importorskip(package)
    model.name, model.classes = "dilated", CLASSES
    path = tmp_path / "model"
    compared = export_model(model, path, format, size=(65, 97))
    assert compared.logits < 1e-4 and compared.same > 0.999
    images = torch.randint(0, 256, (3, 3, 65, 97), dtype=torch.uint8)  # any number of them
    found = FORMATS[format].load(path)(images)["logits"]
    with torch.no_grad():
        torch.testing.assert_close(found, model(images), rtol=1e-3, atol=1e-3)
