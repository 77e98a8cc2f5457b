"""Class activation maps: by hand, on every backbone, and without a trace in the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import eyeline.nn.heads.roi
from eyeline.errors import EyelineError
from eyeline.export.optimize import optimize
from eyeline.inspection.cam import (
    METHODS,
    activations,
    box_score,
    class_activation,
    class_score,
    mask_score,
    pixel_score,
)
from eyeline.nn.backbones import resnet
from eyeline.nn.backbones.resnet import VARIANTS
from eyeline.note import note
from eyeline.ops.roi_align import roi_align_plain
from eyeline.registry import create_model

DETECTORS = ("faster_rcnn", "mask_rcnn", "retinanet")
LEVELS = {"retinanet": ["P3", "P4", "P5", "P6", "P7"]}
STAGES = ["C2", "C3", "C4", "C5"]


class Toy(nn.Module):
    """A convolution, whose maps are [[1, 2], [3, 4]] and [[4, 3], [2, 1]], and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.linear = nn.Linear(8, 2)
        self.conv.weight.data = torch.tensor([10.0, -10.0]).view(2, 1, 1, 1)
        self.conv.bias.data = torch.tensor([0.0, 5.0])  # type: ignore[union-attr]
        self.linear.weight.data = torch.tensor(
            [[1.0, 0, 0, 3, -2, 0, 0, 0], [0, 0, 0, 0, 0, 2, 0, 2]]
        )

    def forward(self, images: Tensor) -> Tensor:
        maps = note("stages C1 to C1", [self.conv(images)])
        return self.linear(maps[0].flatten(1))


PICTURE = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])


class Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.classes = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        maps = note("stages C1 to C1", [self.conv(images).relu()])
        return self.classes(maps[0])


def detector(name: str, backbone: str = "resnet18", **options: Any) -> Any:
    """Small, with detections though nothing was learnt."""
    options = {
        "size": 64,
        "fpn_channels": 16,
        "score_threshold": 0.0,
        "max_detections": 5,
    } | options
    if name != "retinanet":
        options = {
            "head_width": 16,
            "proposals_before_nms": (50, 50),
            "proposals": (20, 20),
        } | options
    model = create_model(name, num_classes=3, backbone=backbone, **options).eval()
    for parameter in model.parameters():  # heads are initialised near 0
        if parameter.ndim > 1 and parameter.std() < 0.02:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model


def picture(size: tuple[int, int] = (48, 64)) -> Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(1))


# ---- by hand


def test_grad_cam_by_hand() -> None:
    """Weights are the means of the linear layer's: 1 and -1/2 for class 0, 0 and 1 for class 1."""
    first = class_activation(Toy(), PICTURE, class_score(0))
    torch.testing.assert_close(first, torch.tensor([[0, 0.5], [2, 3.5]]) / 3.5)
    own = class_activation(Toy(), PICTURE, class_score(0), "hires-cam")  # 1 - 8 and 12 are left
    torch.testing.assert_close(own, torch.tensor([[0.0, 0], [0, 1]]))
    second = class_activation(Toy(), PICTURE, class_score(1))
    torch.testing.assert_close(second, torch.tensor([[3.0, 2], [1, 0]]) / 3)
    assert first.dtype == torch.float32


def test_grad_cam_plus_plus_by_hand() -> None:
    """Both channels sum to 10. Class 0: g is 1 and 3 in the first, negative in the second; so the
    first one's weight is 1 / (2 + 10) + 3 / (2 + 30), and the second one's 0."""
    cam = class_activation(Toy(), PICTURE, class_score(0), "grad-cam++")
    torch.testing.assert_close(cam, torch.tensor([[0.0, 1], [2, 3]]) / 3)
    toy = Toy()
    toy.linear.weight.data[0, 4:6] = torch.tensor([1.0, 1.0])
    weights = (1 / 12 + 3 / 32, 1 / 12 + 1 / 12)
    expected = weights[0] * torch.tensor([[1.0, 2], [3, 4]])
    expected += weights[1] * torch.tensor([[4.0, 3], [2, 1]])
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    cam = class_activation(toy, PICTURE, class_score(0), "grad-cam++")
    torch.testing.assert_close(cam, expected)


def test_grad_cam_plus_plus_of_small_gradients() -> None:
    """Without an epsilon the weights of gradients near 0 are g / 2, however small."""
    toy = Toy()
    toy.linear.weight.data *= 1e-25
    cam = class_activation(toy, PICTURE, class_score(0), "grad-cam++")
    torch.testing.assert_close(cam, torch.tensor([[0.0, 1], [2, 3]]) / 3)


@pytest.mark.parametrize("sign", [1, -1])
def test_eigen_cam_by_hand(sign: int) -> None:
    """Maps 3 t and 4 t have one component; its projection is 5 t, with t = 0, 1, 2, 5; centred it
    is 5 t - 10. High is what is far from 0, whatever its sign."""
    toy = Toy()
    toy.conv.weight.data = sign * torch.tensor([3.0, 4.0]).view(2, 1, 1, 1)
    toy.conv.bias.data.zero_()  # type: ignore[union-attr]
    image = torch.tensor([[[0, 0.1], [0.2, 0.5]]])
    cam = class_activation(toy, image, method="eigen-cam")
    centred = class_activation(toy, image, method="eigen-cam", convention="pytorch-grad-cam")
    torch.testing.assert_close(cam, torch.tensor([[0, 0.2], [0.4, 1]]))
    torch.testing.assert_close(centred, torch.tensor([[0.0, 0], [0, 1]]))


@pytest.mark.parametrize("shape", [(6, 3, 4), (20, 3, 4)])
@pytest.mark.parametrize("convention", ["paper", "pytorch-grad-cam"])
def test_eigen_cam_is_the_first_component(shape: tuple[int, ...], convention: str) -> None:
    """More cells than channels, and fewer, against a singular value decomposition."""
    features = torch.randn(shape) - 0.3
    toy = nn.Module()
    toy.weight = nn.Parameter(torch.zeros(1))
    toy.forward = lambda x: note("stages C1 to C1", [features[None] + 0 * x.sum()])
    cells = features.flatten(1).T
    if convention != "paper":
        cells = cells - cells.mean(0)
    expected = (cells @ torch.linalg.svd(cells)[2][0]).view(shape[1:])
    if (expected * features.norm(dim=0)).sum() < 0:
        expected = -expected
    expected = expected.relu() - expected.relu().min()
    cam = class_activation(toy, PICTURE, method="eigen-cam", convention=convention)
    torch.testing.assert_close(cam, expected / expected.max(), atol=1e-4, rtol=0)


def test_pixel_of_a_segmenter() -> None:
    """A logit reads the 3 x 3 cells about it: a channel's weight is their weights' sum."""
    model, image = Segmenter(), picture((6, 8))
    cam = class_activation(model, image, pixel_score(1, 0, 7))
    features = model.conv(image[None]).relu()[0]
    weights = model.classes.weight[1, :, 1:, :2].sum((1, 2)) / 48  # in the corner, 2 x 2 of them
    expected = (weights[:, None, None] * features).sum(0).relu().detach()
    expected -= expected.min()
    assert expected.max() > 0
    torch.testing.assert_close(cam, expected / expected.max())
    whole = class_activation(model, image, class_score(1))
    assert whole.shape == (6, 8) and not torch.allclose(whole, cam)


# ---- every backbone


@pytest.mark.parametrize("name", VARIANTS)
def test_classifiers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the last stage Grad-CAM is CAM (sec. 3.1): the linear layer's weights of the class."""
    monkeypatch.setitem(VARIANTS[name], "depths", (1, 1, 1, 1))
    model = create_model(name, num_classes=4).eval()
    model.fc.weight.data += 0.005  # lest all speak against the class
    image = picture((64, 96))
    cam = class_activation(model, image, class_score(2))
    with torch.no_grad():
        maps = resnet.ResNet.forward(model, (image[None] - model.mean) / model.std)
        expected = torch.einsum("k,kij->ij", model.fc.weight[2], maps[-1][0]).relu()
    expected -= expected.min()
    assert expected.max() > 0
    torch.testing.assert_close(cam, expected / expected.max(), atol=1e-4, rtol=0)
    alike = class_activation(model, image, class_score(2), "hires-cam")  # all gradients are equal
    torch.testing.assert_close(alike, cam, atol=1e-4, rtol=0)
    for layer, features in zip(STAGES, maps, strict=True):
        for method in ("grad-cam++", "eigen-cam"):
            cam = class_activation(model, image, class_score(2), method, layer)
            assert cam.shape == features.shape[2:]
            assert cam.min() == 0 and cam.max() == 1


@pytest.mark.parametrize("name", VARIANTS)
def test_backbones_of_detectors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS[name], "depths", (1, 1, 1, 1))
    check_detector(detector("faster_rcnn", name), [*STAGES, "P2", "P3", "P4", "P5", "P6"])


@pytest.mark.parametrize("kind", DETECTORS)
def test_detectors(kind: str) -> None:
    levels = LEVELS.get(kind, ["P2", "P3", "P4", "P5", "P6"])
    check_detector(detector(kind), [*STAGES, *levels])


@pytest.mark.parametrize(
    "name", ["convnext_atto", "mobilenetv3_small_050", "swin_tiny_patch4_window7_224"]
)
def test_timm(name: str) -> None:
    pytest.importorskip("timm", reason="timm, the extra `timm`, is not installed")
    model = detector("retinanet", f"timm:{name}", size=96)
    check_detector(model, [*STAGES, *LEVELS["retinanet"]])


def check_detector(model: Any, layers: list[str]) -> None:
    """Maps of the first detection by every method on every layer; those that must say something
    do: what it was read from, and the stages below."""
    batch = model.prepare([picture()])
    found = activations(model, batch, [0], list(METHODS), layers)
    assert [(a.method, a.layer) for a in found] == [(m, name) for m in METHODS for name in layers]
    for method, layer, cam in ((a.method, a.layer, a.map) for a in found):
        stride = 2 ** int(layer[1:])
        height, width = (-(-side // stride) for side in batch.images.shape[2:])
        assert cam.shape == (height, width) and cam.dtype == torch.uint8
        if method == "eigen-cam" and cam.numel() > 1:
            assert cam.max() == 255, layer
    seen = [a.layer for a in found if a.method == "grad-cam++" and a.map.any()]
    assert "C3" in seen and any(layer.startswith("P") for layer in seen)


@pytest.mark.parametrize("kind", ["faster_rcnn", "mask_rcnn"])
def test_gradients_go_through_roi_align(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own backward pass gives what autograd gives of the plain twin."""
    model = detector(kind)
    batch = model.prepare([picture()])
    ours = class_activation(model, batch, box_score(1), layer="C4")
    assert ours.max() == 1
    called = []

    def plain(*args: Any) -> Tensor:
        called.append(args)
        return roi_align_plain(*args)

    monkeypatch.setattr(eyeline.nn.heads.roi, "roi_align", plain)
    torch.testing.assert_close(
        class_activation(model, batch, box_score(1), layer="C4"), ours, atol=1e-4, rtol=0
    )
    assert called


def test_a_box_hangs_on_its_region() -> None:
    """Cell by cell, on its own level: nowhere else. Boxes stay where their proposals are."""
    model = detector("faster_rcnn", size=128)
    nn.init.zeros_(model.head.deltas.weight)
    batch = model.prepare([picture()])
    x1, y1, x2, y2 = model.compute(batch).boxes[0, 0].tolist()
    found = activations(model, batch, [0], ["hires-cam"], ["P2", "P3", "P4", "P5"])
    [level] = [a for a in found if a.map.any()]
    stride = 2 ** int(level.layer[1:])
    rows, columns = level.map.nonzero().T * stride
    assert y1 - 2 * stride <= rows.min() and rows.max() <= y2 + stride
    assert x1 - 2 * stride <= columns.min() and columns.max() <= x2 + stride
    inside = (y2 - y1) * (x2 - x1) / (batch.images.shape[2] * batch.images.shape[3])
    assert inside < 0.8 and level.map.gt(0).float().mean() < 0.9  # else it would say nothing


def test_a_retinanet_box_comes_from_its_own_level() -> None:
    model = detector("retinanet")
    found = activations(model, model.prepare([picture()]), [0], ["grad-cam++"], LEVELS["retinanet"])
    assert sum(bool(a.map.any()) for a in found) == 1


def test_mask_pixels() -> None:
    model = detector("mask_rcnn")
    batch = model.prepare([picture()])
    corners = [
        class_activation(model, batch, mask_score(0, at, at), "grad-cam++", "C3") for at in (0, 27)
    ]
    assert all(cam.max() == 1 for cam in corners) and not torch.allclose(*corners, atol=0.01)
    with pytest.raises(EyelineError, match=r"no row 28; they are 0 \.\. 27"):
        class_activation(model, batch, mask_score(0, 28, 0))
    with pytest.raises(EyelineError, match="gives no masks"):
        class_activation(detector("retinanet"), batch, mask_score(0, 0, 0))


def test_class_score_of_detections() -> None:
    """The sum is that of the boxes' own scores; the best is the first box's."""
    model = detector("retinanet")
    batch = model.prepare([picture()])
    padded = model.compute(batch)
    label = int(padded.labels[0].mode()[0])
    own = [i for i in range(5) if padded.labels[0, i] == label]
    assert len(own) > 1
    parts = [box_score(i)(padded) for i in own]
    torch.testing.assert_close(class_score(label)(padded), torch.stack(parts).sum())
    assert class_score(label, best=True)(padded) == parts[0]
    p = padded.scores[0, own[0]]
    torch.testing.assert_close(parts[0], torch.log(p / (1 - p)))


# ---- the model stays as it was


def state(model: nn.Module) -> list[Any]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [
        {name: value.clone() for name, value in tensors},
        [(value.requires_grad, value.grad) for _, value in tensors],
        [module.training for module in model.modules()],
        [len(module._forward_hooks) for module in model.modules()],
    ]


@pytest.mark.parametrize("kind", ["faster_rcnn", "resnet18"])
def test_nothing_is_changed(kind: str) -> None:
    model = create_model(kind, num_classes=3) if kind == "resnet18" else detector(kind)
    stem = model if kind == "resnet18" else model.backbone
    score = class_score(0) if kind == "resnet18" else box_score(0)
    image = picture()
    images = image[None] if kind == "resnet18" else [image]
    with torch.no_grad():
        before = model.eval()(images)
    model.train()
    stem.bn1.eval()  # as freezing leaves it
    stem.conv1.weight.requires_grad_(False)
    kept = stem.conv1.weight.grad = torch.ones_like(stem.conv1.weight)
    first = state(model)
    class_activation(model, image, score, "grad-cam++", "C2")
    second = state(model)
    assert first[0].keys() == second[0].keys()
    assert all(first[0][name].equal(second[0][name]) for name in first[0])
    assert first[1:] == second[1:]
    assert kept.eq(1).all()
    with torch.no_grad():
        after = model.eval()(images)
    if kind == "resnet18":
        assert before.equal(after)
    else:
        assert all(before[0][key].equal(after[0][key]) for key in before[0])


def test_mode_comes_back_after_an_error() -> None:
    toy = Toy().train()
    with pytest.raises(EyelineError):
        class_activation(toy, PICTURE, class_score(7))
    assert toy.training


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn"])
def test_frozen_and_without_gradients(kind: str) -> None:
    """Wherever it is called, whatever learns."""
    model = detector(kind)
    batch = model.prepare([picture()])
    expected = class_activation(model, batch, box_score(0), "grad-cam++", "C3")
    assert expected.max() == 1
    model.requires_grad_(False)
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with context():
            own = model.prepare([picture()])
            again = class_activation(model, own, box_score(0), "grad-cam++", "C3")
        assert again.equal(expected), context
    assert not batch.images.requires_grad


def test_bf16() -> None:
    model = create_model("resnet18", num_classes=3).eval()
    image = picture((96, 96))
    expected = class_activation(model, image, class_score(0))
    for given in (image, (image * 255).round().byte()):
        cam = class_activation(model.bfloat16(), given, class_score(0))
        assert cam.dtype == torch.float32
        assert expected.max() == 1 and (cam - expected).abs().max() < 0.1


# ---- many at once


def test_activations_are_those_one_by_one() -> None:
    model = detector("faster_rcnn")
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    batch = model.prepare([picture()])
    found = activations(model, batch, methods=list(METHODS), layers=[None, "P2"])
    assert len(calls) == 1
    assert [a.detection for a in found] == [i for i in range(5) for _ in range(8)]
    assert {a.layer for a in found} == {"C5", "P2"}
    for a in found[8:16]:
        alone = class_activation(model, batch, box_score(1), a.method, a.layer)
        assert (a.map / 255 - alone).abs().max() < 0.01
    assert not found[0].map.equal(found[32].map)  # each detection has its own


def test_a_picture_without_detections() -> None:
    model = detector("retinanet", score_threshold=1.0)
    batch = model.prepare([picture()])
    assert activations(model, batch, methods=list(METHODS)) == []
    with pytest.raises(EyelineError, match="there is no detection 0; there is none"):
        class_activation(model, batch, box_score(0))
    with pytest.raises(EyelineError, match="nothing of class 1 was detected"):
        class_activation(model, batch, class_score(1))
    assert class_activation(model, batch, method="eigen-cam").max() == 1


# ---- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "gradcam"}, "no method is called 'gradcam'; there are: grad-cam, grad-cam"),
        ({"layer": "C6"}, "no layer is called 'C6'; there are: C1"),
        ({"convention": "mine"}, "no convention is called 'mine'; there are: paper, "),
        ({"score": None}, "grad-cam needs score=, such as class_score"),
        ({"score": class_score(2)}, r"there is no class 2; they are 0 \.\. 1"),
        ({"image": PICTURE[None].repeat(3, 1, 1, 1)}, "one picture, and 3 were given"),
        ({"score": lambda output: output.detach().sum()}, "the score has no gradient"),
    ],
)
def test_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EyelineError, match=message) as error:
        class_activation(**{"model": Toy(), "image": PICTURE, "score": class_score(0)} | arguments)
    assert "\n" not in str(error.value)


def test_errors_of_models() -> None:
    with pytest.raises(EyelineError, match="notes no feature maps"):
        class_activation(nn.Conv2d(1, 2, 1), PICTURE, lambda output: output.sum())
    model = detector("retinanet")
    batch = model.prepare([picture()] * 2)
    with pytest.raises(EyelineError, match="one picture, and 2 were given"):
        class_activation(model, batch, box_score(0))
    with pytest.raises(EyelineError, match="Toy is no detector; give it a picture"):
        class_activation(Toy(), replace(batch, images=batch.images[:1]), class_score(0))
    with pytest.raises(EyelineError, match="an optimised model has no gradients"):
        class_activation(optimize(model), picture(), box_score(0))
    assert class_activation(optimize(model), picture(), method="eigen-cam").max() == 1
    for wrong in ({"methods": ["cam"]}, {"layers": ["C1"]}, {"detections": [5]}):
        with pytest.raises(EyelineError, match=r"there are: |they are 0"):
            activations(model, model.prepare([picture()]), **wrong)
