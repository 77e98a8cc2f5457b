from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from eyeline.nn.backbones.resnet import VARIANTS
from eyeline.note import watch
from eyeline.registry import create_model, list_models

# The names and shapes of torchvision's and timm's files (they are the same); see
# tests/parity/make_torchvision.py.
SHAPES = json.loads((Path(__file__).parents[1] / "parity" / "shapes.json").read_text())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_names_and_shapes_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=1000)
    assert {n: list(t.shape) for n, t in model.state_dict().items()} == SHAPES[name]


# Millions of parameters with 1000 classes:
# sum(p.numel() for p in timm.create_model(NAME).parameters()) / 1e6, timm 1.0.31
@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet18", 11.690), ("resnet34", 21.798), ("resnet50", 25.557), ("resnet101", 44.549),
        ("resnet152", 60.193), ("resnext50_32x4d", 25.029), ("resnext101_32x8d", 88.791),
        ("resnext101_64x4d", 83.455), ("wide_resnet50_2", 68.883), ("wide_resnet101_2", 126.887),
    ],
)  # fmt: skip
def test_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=5e-4)


def test_all_variants_are_registered() -> None:
    assert list_models("classification") == sorted(VARIANTS) and len(VARIANTS) == 10


def test_logits_and_loss() -> None:
    model = create_model("resnet18", num_classes=5)
    images, labels = torch.rand(2, 3, 64, 48), torch.tensor([4, 0])
    for mode in (True, False):
        logits = model.train(mode)(images)
        assert logits.shape == (2, 5)
        losses = model(images, labels)
        assert list(losses) == ["loss"] and losses["loss"].shape == ()
        if not mode:  # in train() mode the running statistics have moved, not the batch's
            torch.testing.assert_close(losses["loss"], F.cross_entropy(logits, labels))
    losses["loss"].backward()
    lacking = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert lacking == []


def test_images_are_normalised_inside() -> None:
    """uint8 and float pictures are the same; the mean picture is zero to the network."""
    model = create_model("resnet18", num_classes=2).eval()
    images = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(model(images), model(images / 255))
    seen = {}
    model.conv1.register_forward_hook(lambda _, args, __: seen.update(x=args[0]))
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None].expand(3, 32, 32)
    model(mean[None])
    assert seen["x"].abs().max() < 1e-6
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    model((mean + std)[None])
    torch.testing.assert_close(seen["x"], torch.ones(1, 3, 32, 32))


def test_other_channels_and_norms() -> None:
    model = create_model(
        "resnet18", num_classes=2, in_channels=1, image_mean=[0.5], image_std=[0.25], norm="group"
    )
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 2)
    assert not any("running" in name for name in model.state_dict())


def test_features_are_noted() -> None:
    model = create_model("resnet50", num_classes=2).eval()
    seen = {}
    with watch(lambda name, value: seen.update({name: value})), torch.no_grad():
        logits = model(torch.rand(1, 3, 32, 32))
    features = seen["features, sec. 3.3"]
    assert features.shape == (1, 2048)
    torch.testing.assert_close(model.fc(features), logits)
