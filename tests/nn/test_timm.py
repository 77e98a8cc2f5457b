"""Backbones of timm in our detectors. Skipped where timm is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from eyeline.checkpoints import save_weights
from eyeline.errors import EyelineError
from eyeline.export.optimize import optimize
from eyeline.nn.backbones import build_backbone
from eyeline.registry import create_model

SMALL = {"fpn_channels": 16, "size": 64}


@pytest.fixture
def timm() -> object:
    return pytest.importorskip("timm", reason="timm, the extra `timm`, is not installed")


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("convnext_atto", [40, 80, 160, 320]),
        ("resnet18", [64, 128, 256, 512]),
        ("mobilenetv3_small_050", [8, 16, 24, 288]),
        ("swin_tiny_patch4_window7_224", [96, 192, 384, 768]),  # channels last inside
    ],
)
def test_feature_maps(timm: object, name: str, channels: list[int]) -> None:
    backbone = build_backbone(f"timm:{name}", norm="batch", norm_epsilon=1e-5, in_channels=4).eval()
    maps = backbone(torch.zeros(2, 4, 96, 128))
    assert backbone.channels == channels
    shapes = [(2, c, 96 // s, 128 // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)]
    assert [tuple(level.shape) for level in maps] == shapes


@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn"])
def test_a_detector_on_it(timm: object, detector: str, tmp_path: Path) -> None:
    model = create_model(detector, num_classes=2, backbone="timm:convnext_atto", **SMALL)
    images = [torch.rand(3, 60, 80)]
    target = {"boxes": torch.tensor([[10.0, 10, 40, 50]]), "labels": torch.tensor([1])}
    sum(model(images, [target]).values()).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    if detector == "retinanet":  # it reads C3 to C5: the norm that C2 alone gets may be one
        missing = [n for n in missing if not n.startswith("backbone.body.norm")]
    assert missing == []
    model.eval()
    save_weights(model, tmp_path / "w.safetensors")
    again = create_model(weights=tmp_path / "w.safetensors").eval()
    before, after = (m(images)[0] for m in (model, again))
    assert torch.equal(before["boxes"], after["boxes"])
    quick = optimize(model)(images)[0]
    assert torch.allclose(quick["scores"][:5], before["scores"][:5], atol=1e-4)


def test_frozen_norms(timm: object) -> None:
    backbone = build_backbone("timm:resnet18", norm="frozen")
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in backbone.modules())
    before = {k: v.clone() for k, v in backbone.state_dict().items() if "running" in k}
    backbone.train()(torch.rand(2, 3, 64, 64))
    assert before and all(torch.equal(backbone.state_dict()[k], v) for k, v in before.items())
    with pytest.raises(EyelineError, match="no batch norm to freeze"):
        build_backbone("timm:convnext_atto", norm="frozen")
    with pytest.raises(EyelineError, match="norm='group' is for our own"):
        build_backbone("timm:resnet18", norm="group")


def test_folding_keeps_a_norm_that_is_more_than_one() -> None:
    """As timm's that hold the activation: folded away, it would be lost."""

    class NormAct(torch.nn.BatchNorm2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).relu()

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), NormAct(4)).eval()
    x = torch.randn(1, 3, 8, 8)
    assert torch.allclose(model(x), optimize(model)(x), atol=1e-6)


def test_optimized_it_computes_the_same(timm: object) -> None:
    backbone = build_backbone("timm:mobilenetv3_small_050").eval()
    x = torch.randn(1, 3, 64, 64)
    for exact, quick in zip(backbone(x), optimize(backbone)(x), strict=True):
        assert torch.allclose(exact, quick, atol=1e-4)


def test_weights_of_a_classifier(timm: object, tmp_path: Path) -> None:
    classifier = timm.create_model("resnet18", num_classes=5)  # type: ignore[attr-defined]
    torch.save(classifier.state_dict(), tmp_path / "r18.pth")
    options = {"num_classes": 2, "backbone": "timm:resnet18", **SMALL}
    model = create_model("retinanet", pretrained=tmp_path / "r18.pth", **options)
    assert torch.equal(model.backbone.body.conv1.weight, classifier.conv1.weight)
    last = classifier.layer4[1].conv2.weight
    assert torch.equal(model.backbone.body.layer4[1].conv2.weight, last)
    assert len(model.load_report.loaded) > 100
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(EyelineError, match=r"resnet18 cannot be filled .*: 20 are missing"):
        create_model("retinanet", pretrained=tmp_path / "other.pth", **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "convnext_tinny",
            "timm has no model called 'convnext_tinny'; did you mean .*tiny",
        ),
        ("vit_tiny_patch16_224", "must give feature maps at the strides 4, 8, 16, 32"),
    ],
)
def test_what_is_no_backbone(timm: object, name: str, message: str) -> None:
    with pytest.raises(EyelineError, match=message):
        build_backbone(f"timm:{name}")


def test_timm_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EyelineError, match=r"pip install 'eyeline\[timm\]'"):
        build_backbone("timm:resnet18")


def test_true_is_for_timm_only() -> None:
    with pytest.raises(EyelineError, match="pretrained=True is for backbones of timm"):
        create_model("retinanet", num_classes=1, backbone="resnet18", pretrained=True, **SMALL)
