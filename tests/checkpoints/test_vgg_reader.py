"""VGG16's classification weights in backbones, in each of the forms in which they are about."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.checkpoints import load_weights, read
from eyeline.errors import EyelineError
from eyeline.nn.backbones import build_backbone
from eyeline.nn.detector import Detector
from eyeline.registry import create_model

WIDTH = 4
STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
IMAGENET = (0.485, 0.456, 0.406)
CAFFE = (123 / 255, 117 / 255, 104 / 255)
SMALL = {"width": WIDTH, "size": 64}


def features(normed: bool = False) -> nn.Sequential:
    """VGG16's convolutions with their norms, ReLUs and poolings in a row."""
    layers: list[nn.Module] = []
    inputs = 3
    for stage in STAGES:
        for factor in stage:
            layers.append(nn.Conv2d(inputs, factor * WIDTH, 3, padding=1))
            inputs = factor * WIDTH
            if normed:
                norm = nn.BatchNorm2d(inputs)
                norm.running_mean, norm.running_var = torch.randn(inputs), 1 + torch.rand(inputs)
                layers.append(norm)
            layers.append(nn.ReLU())
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers).eval()


def classifier(normed: bool = False) -> dict[str, Tensor]:
    """In torchvision's names: 64 times the width where the network has 4096."""
    torch.manual_seed(0)
    state = {f"features.{key}": value for key, value in features(normed).state_dict().items()}
    for place, inputs, outputs in ((0, 49 * 32, 256), (3, 256, 256), (6, 256, 10)):
        state[f"classifier.{place}.weight"] = torch.randn(outputs, inputs)
        state[f"classifier.{place}.bias"] = torch.randn(outputs)
    return state


def reduced(prefix: str = "") -> dict[str, Tensor]:
    state = {f"{prefix}{key}": value for key, value in features().state_dict().items()}
    for place, shape in ((31, (64, 32, 3, 3)), (33, (64, 64, 1, 1))):
        state |= {f"{prefix}{place}.weight": torch.randn(shape)}
        state |= {f"{prefix}{place}.bias": torch.randn(64)}
    return state


@pytest.mark.parametrize("normed", [False, True])
@torch.no_grad()
def test_plain_network_says_the_same(normed: bool) -> None:
    state = classifier(normed)
    body = build_backbone("vgg16", norm="frozen" if normed else "none", width=WIDTH).eval()
    report = load_weights(body, state, skip=["fc6", "fc7"])
    assert report.missing == () and len(report.left_out) == (25 if normed else 6)
    row = features(normed)
    row.load_state_dict({k[9:]: v for k, v in state.items() if k.startswith("features.")})
    x = torch.randn(1, 3, 32, 64)
    torch.testing.assert_close(body(x)[3], row(x))


@pytest.mark.parametrize("name", ["ssd300", "refinedet320"])
def test_connected_layers_are_thinned_as_by_a_plain_loop(name: str) -> None:
    state = classifier()
    model: Any = create_model(name, num_classes=2, **SMALL, pretrained=state)
    fc6, fc7 = model.backbone.fc6, model.backbone.fc7
    for o in range(0, 64, 9):
        assert fc6.bias[o] == state["classifier.0.bias"][4 * o]
        assert fc7.bias[o] == state["classifier.3.bias"][4 * o]
        row = state["classifier.0.weight"][4 * o]
        for c in range(0, 32, 5):
            for i in range(3):
                cells = [row[49 * c + 7 * 3 * i + 3 * j] for j in range(3)]
                assert fc6.weight[o, c, i].tolist() == cells
        row = state["classifier.3.weight"][4 * o]
        assert fc7.weight[o, :, 0, 0].tolist() == [row[4 * i] for i in range(64)]
    assert model.config.image_mean == IMAGENET and model.preprocess.mean == IMAGENET
    report = model.load_report
    assert report.missing == () and len(report.loaded) == 30
    assert report.left_out == ("classifier.6.bias", "classifier.6.weight")
    assert str(report).endswith("with the weights' image_mean, image_std")


@torch.no_grad()
def test_connected_layers_behind_norms_say_the_same() -> None:
    state = classifier(normed=True)
    model: Any = create_model("ssd300", num_classes=2, **SMALL, norm="frozen", pretrained=state)
    assert model.load_report.missing == ()
    bare, x = read(classifier()).state, torch.rand(1, 32, 7, 7)
    found = model.backbone.eval().fc6(x)
    bias = state["classifier.0.bias"][::4]
    weight = model.backbone.fc6.weight
    assert weight.shape == bare["fc6.weight"].shape
    plain = F.conv2d(x, weight, bias, padding=6, dilation=6)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("prefix", ["", "features."])
def test_reduced_file(prefix: str) -> None:
    state = reduced(prefix)
    model: Any = create_model("ssd300", num_classes=2, **SMALL, pretrained=state)
    assert len(model.load_report.loaded) == 30 and not model.load_report.brought
    assert model.backbone.fc7.weight.equal(state[f"{prefix}33.weight"])
    assert model.backbone.conv5_3.bias.equal(state[f"{prefix}28.bias"])


def test_reduced_file_in_a_plain_network() -> None:
    other: Any = create_model(
        "retinanet", num_classes=2, backbone="vgg16", norm="none", fpn_channels=8, size=64,
        pretrained=wide(reduced()),
    )  # fmt: skip
    assert other.preprocess.mean == pytest.approx(CAFFE)
    assert set(other.load_report.unused) == {"31.bias", "31.weight", "33.bias", "33.weight"}


def wide(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same for a network of the paper's width, of zeros that take no memory."""
    factor = 64 // WIDTH
    return {
        key: torch.zeros(()).expand(
            [n if n in (1, 3) and i else factor * n for i, n in enumerate(value.shape)]
        )
        for key, value in state.items()
    }


def test_convolutions_beside_a_classifier_of_nan() -> None:
    state = classifier()
    state |= {k: torch.full_like(v, torch.nan) for k, v in state.items() if "classifier" in k}
    model: Any = create_model("ssd300", num_classes=2, **SMALL, pretrained=state)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert model.config.image_mean == CAFFE and len(model.load_report.left_out) == 6
    assert {name[:3] for name in model.load_report.missing} == {"fc6", "fc7"}


def test_convolutions_alone_do_not_tell_their_pictures() -> None:
    state = {k: v for k, v in classifier().items() if k.startswith("features")}
    with pytest.raises(EyelineError, match="does not tell its image_mean: give image_mean= and"):
        create_model("ssd300", num_classes=2, **SMALL, pretrained=state)
    told = {"image_mean": IMAGENET, "image_std": (0.229, 0.224, 0.225)}
    model: Any = create_model("ssd300", num_classes=2, **SMALL, **told, pretrained=state)
    assert model.preprocess.mean == IMAGENET and len(model.load_report.loaded) == 26


@pytest.mark.parametrize(
    ("normed", "options", "message"),
    [
        (False, {"image_mean": CAFFE}, r"image_mean=\(0.485, 0.456, 0.406\), given is \(0.4824,"),
        (True, {}, "norm='batch' in its backbone, the model 'none'; give norm='batch' or norm='f"),
        (False, {"norm": "batch"}, "norm='none' in its backbone, the model 'batch'; give norm='n"),
        (False, {"width": 8}, r"conv1_1.weight is 4x3x3x3 in the file, 8x3x3x3 in the model"),
        (False, {"backbone": "resnet18"}, "holds a vgg16, the model's backbone is a resnet18"),
    ],
)
def test_what_does_not_fit_is_named(normed: bool, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EyelineError, match=message):
        create_model("ssd300", num_classes=2, **SMALL | options, pretrained=classifier(normed))


def test_another_network() -> None:
    state = classifier() | {"features.16.weight": torch.zeros(16, 16, 3, 3)}
    with pytest.raises(EyelineError, match="holds a VGG of 14 convolutions; read is VGG16's"):
        read(state)
    with pytest.raises(EyelineError, match=r"holds a backbone, vgg16: .*pretrained="):
        create_model(weights=classifier())


def test_other_channels_keep_their_own_mean() -> None:
    told = {"in_channels": 1, "image_mean": (0.5,), "image_std": (0.25,)}
    model: Any = create_model("ssd300", num_classes=2, **SMALL, **told, pretrained=classifier())
    assert isinstance(model, Detector) and model.preprocess.mean == (0.5,)
    assert model.load_report.widened == ("conv1_1.weight",)
