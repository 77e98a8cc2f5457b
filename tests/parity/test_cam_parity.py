"""Class activation maps equal those of pytorch-grad-cam, on the same weights and photographs."""

from __future__ import annotations

import json

import pytest
import torch
from references import HERE, filled, stored
from torch import Tensor, nn

from eyeline.inspection.cam import class_activation, class_score
from eyeline.inspection.heat import enlarge
from eyeline.registry import create_model

LAYERS = ("C3", "C4", "C5")
GRADIENT = ("grad-cam", "grad-cam++", "hires-cam")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    shapes = json.loads((HERE / "shapes.json").read_text())["resnet18"]
    return create_model(weights=filled("resnet18", shapes)).eval()


def theirs(picture: int, method: str, layer: str) -> Tensor:
    return torch.from_numpy(stored("cam")[f"{picture}.{method}.{layer}"])


def ours(
    model: nn.Module, pictures: list[Tensor], picture: int, method: str, layer: str, convention: str
) -> Tensor:
    label = int(stored("cam")[f"{picture}.label"])
    crop = pictures[picture][:, :224, :224]
    return class_activation(model, crop, class_score(label), method, layer, convention)


def scaled(cam: Tensor) -> Tensor:
    cam = cam.relu() - cam.relu().min()
    return cam / cam.max()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("picture", [0, 1])
def test_maps(model: nn.Module, pictures: list[Tensor], picture: int, layer: str) -> None:
    for method in GRADIENT:
        expected = theirs(picture, method, layer)
        assert expected.std() > 0.05
        cam = ours(model, pictures, picture, method, layer, "pytorch-grad-cam")
        torch.testing.assert_close(cam, expected, atol=1e-4, rtol=0)
    projection = theirs(picture, "eigen-cam", layer)
    cam = ours(model, pictures, picture, "eigen-cam", layer, "pytorch-grad-cam")
    distances = [float((cam - scaled(sign * projection)).abs().max()) for sign in (1, -1)]
    assert min(distances) <= 1e-4 and max(distances) > 0.5


@pytest.mark.parametrize("layer", LAYERS)
def test_enlarged(model: nn.Module, pictures: list[Tensor], layer: str) -> None:
    """Every eighth pixel of theirs; they enlarge with OpenCV and scale once more."""
    cam = ours(model, pictures, 0, "grad-cam", layer, "pytorch-grad-cam")
    large = enlarge(cam, (224, 224))
    expected = theirs(0, "grad-cam", f"{layer}.large")
    torch.testing.assert_close(scaled(large)[::8, ::8], expected, atol=1e-4, rtol=0)


def test_conventions_differ(model: nn.Module, pictures: list[Tensor]) -> None:
    """The paper's numbers are others, wherever the header says so, and there alone."""
    for method in (*GRADIENT, "eigen-cam"):
        names = ("paper", "pytorch-grad-cam")
        a, b = (ours(model, pictures, 0, method, "C4", name) for name in names)
        differ = bool((a - b).abs().max() > 1e-3)
        assert differ == (method in ("grad-cam++", "eigen-cam")), method
