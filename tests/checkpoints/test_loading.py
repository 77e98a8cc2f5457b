"""create_model, load_weights, save_weights: what goes where, and what is said when it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eyeline import registry
from eyeline.checkpoints import LoadReport, load_weights, read, save_weights
from eyeline.errors import EyelineError
from eyeline.registry import create_model

SMALL = {"backbone": "resnet18", "fpn_channels": 8, "size": 64}
COCO_LIKE = SMALL | {"convention": "torchvision", "norm": "frozen", "norm_epsilon": 0.0}
DETECTORS = [("faster_rcnn", SMALL | {"head_width": 8}), ("retinanet", SMALL | {"tower_depth": 1})]


def equal(a: nn.Module, b: nn.Module, names: Any = None) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in names or left
    )


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    return create_model("resnet18", classes=["cat", "dog", "owl"])


@pytest.fixture(scope="module")
def saved(classifier: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "deep" / "animals.safetensors"
    save_weights(classifier, path)
    return path


# -- our own files


@pytest.mark.parametrize(("name", "options"), DETECTORS)
def test_detector_comes_back(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = create_model(name, classes=["a", "b"], **options)
    save_weights(model, tmp_path / "a.safetensors")
    again = create_model(weights=tmp_path / "a.safetensors")
    assert equal(again, model)
    assert again.config == model.config and again.name == name and again.classes == ["a", "b"]
    assert again.task == "detection"
    assert again.load_report.missing == () and again.load_report.left_out == ()
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_classifier_comes_back(classifier: nn.Module, saved: Path) -> None:
    again = create_model("resnet18", weights=str(saved))
    assert equal(again, classifier) and again.classes == ["cat", "dog", "owl"]
    assert set(again.load_report.loaded) == set(classifier.state_dict())


def test_damaged_header(tmp_path: Path) -> None:
    for header in ("{", json.dumps({"name": "resnet18"}), "3"):
        save_file({"a": torch.ones(1)}, tmp_path / "a", metadata={"eyeline": header})
        with pytest.raises(EyelineError, match="damaged header"):
            read(tmp_path / "a")


# -- other classes


@pytest.mark.parametrize(("name", "options"), DETECTORS)
@pytest.mark.parametrize("classes", [["a"], ["b", "a"], ["x", "y", "z"]])
def test_only_what_depends_on_the_classes_is_replaced(
    name: str, options: dict[str, Any], classes: list[str], tmp_path: Path
) -> None:
    model = create_model(name, classes=["a", "b"], **options)
    save_weights(model, tmp_path / "a.safetensors")
    other = create_model(weights=tmp_path / "a.safetensors", classes=classes)
    assert other.classes == classes and other.config.num_classes == len(classes)
    new, old = other.state_dict(), model.state_dict()
    replaced = {n for n in new if new[n].shape != old[n].shape or not torch.equal(new[n], old[n])}
    expected = {n for n in new if n.startswith(other.class_dependent)}
    assert set(other.load_report.missing) == set(other.load_report.left_out) == expected
    assert set(other.load_report.replaced) == expected and other.load_report.unused == ()
    assert "replaced by the model's own: " in str(other.load_report)
    assert "not in the file" not in str(other.load_report)
    assert replaced <= expected and any(n.endswith("weight") for n in replaced)


def test_number_of_classes_alone(saved: Path, classifier: nn.Module) -> None:
    same = create_model(weights=saved, num_classes=3)
    assert equal(same, classifier) and same.classes == ["cat", "dog", "owl"]
    more = create_model(weights=saved, num_classes=4)
    assert more.classes == ["0", "1", "2", "3"] and more.fc.out_features == 4
    assert more.load_report.missing == ("fc.weight", "fc.bias")


# -- options


def test_given_options_win(saved: Path) -> None:
    model = create_model(weights=saved, norm_epsilon=0.5, norm="frozen")
    assert model.bn1.eps == 0.5 and type(model.bn1).__name__ == "FrozenBatchNorm2d"
    assert all(name.endswith("num_batches_tracked") for name in model.load_report.left_out)


def test_size_wins_over_the_files_sizes(tmp_path: Path) -> None:
    name, options = DETECTORS[1]
    save_weights(create_model(name, num_classes=1, **options), tmp_path / "a")
    assert create_model(weights=tmp_path / "a").config.min_size == 64
    model = create_model(weights=tmp_path / "a", size=96)
    assert (model.config.min_size, model.config.max_size) == (96, 160)


def test_options_that_change_shapes(tmp_path: Path) -> None:
    name, options = DETECTORS[1]
    save_weights(create_model(name, num_classes=1, **options), tmp_path / "a")
    with pytest.raises(
        EyelineError, match=r"weight is 36x8x3x3 in the file, 36x16x3x3 in the model.*"
        r"given options differ from the file's: fpn_channels=16 \(file: 8\)$",
    ):  # fmt: skip
        create_model(weights=tmp_path / "a", fpn_channels=16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a name or weights="),
        ({"name": "resnet18"}, r"resnet18 needs classes=\[...\] or num_classes="),
        ({"name": "resnet18", "classes": ["a", "a"]}, "names a class twice"),
        ({"name": "resnet18", "classes": ["a"], "num_classes": 2}, "num_classes=2, but 1 classes"),
        ({"name": "resnet81", "num_classes": 2}, "did you mean resnet18"),
        ({"name": "resnet18", "num_classes": 2, "norms": "batch"}, "did you mean norm?"),
        ({"name": "resnet18", "num_classes": 2, "in_channels": 1}, "as many numbers in image_mean"),
        ({"name": "resnet18", "weights": "a", "pretrained": "b"}, "leave out pretrained="),
        ({"name": "resnet18", "num_classes": 2, "pretrained": "b"}, "has no backbone"),
        ({"weights": {"a": torch.ones(1)}}, "unknown kind"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EyelineError, match=message):
        create_model(**arguments)


def test_weights_of_another_model(saved: Path) -> None:
    with pytest.raises(EyelineError, match=r"holds a resnet18, not a retinanet;.*pretrained="):
        create_model("retinanet", weights=saved)


# -- load_weights


def test_report(classifier: nn.Module, saved: Path) -> None:
    model = create_model("resnet18", num_classes=3)
    report = load_weights(model, saved)
    assert equal(model, classifier)
    assert report == LoadReport(tuple(classifier.state_dict()), {}, (), ())
    assert str(report) == "122 tensors loaded, 0 of them renamed"


@pytest.mark.parametrize(("name", "options"), DETECTORS)
def test_state_dict_of_the_same_model(name: str, options: dict[str, Any]) -> None:
    model, other = (create_model(name, num_classes=2, **options) for _ in range(2))
    assert not equal(model, other)
    load_weights(model, {f"module.{n}": t for n, t in other.state_dict().items()})
    assert equal(model, other)


def test_class_counts_disagree(saved: Path) -> None:
    model = create_model("resnet18", num_classes=5)
    with pytest.raises(EyelineError, match=r"has 3 classes, the model 5; create_model\(classes="):
        load_weights(model, saved)
    report = load_weights(model, saved, skip=["fc"])
    assert report.left_out == ("fc.bias", "fc.weight")
    assert report.missing == ("fc.weight", "fc.bias")
    assert str(report).endswith("; replaced by the model's own: fc.bias, fc.weight (2)")


def test_conventions_disagree(tmp_path: Path) -> None:
    name, options = DETECTORS[1]
    theirs = create_model(name, num_classes=1, **options, convention="torchvision")
    save_weights(theirs, tmp_path / "a")
    ours = create_model(name, num_classes=1, **options)
    with pytest.raises(EyelineError, match="convention='torchvision', the model 'paper'"):
        load_weights(ours, tmp_path / "a")
    same = create_model(name, num_classes=1, **options, convention="torchvision", norm_epsilon=0.0)
    with pytest.raises(EyelineError, match=r"norm_epsilon=1e-05, the model 0.0"):
        load_weights(same, tmp_path / "a")


@pytest.mark.parametrize(
    ("key", "value"), [("anchor_sizes", (8, 16, 32, 64, 128)), ("image_mean", (0.5, 0.5, 0.5))]
)
def test_meanings_disagree(key: str, value: Any, tmp_path: Path) -> None:
    name, options = DETECTORS[1]
    save_weights(create_model(name, num_classes=1, **options), tmp_path / "a")
    with pytest.raises(EyelineError, match=f"has {key}="):
        load_weights(create_model(name, num_classes=1, **options, **{key: value}), tmp_path / "a")


def test_the_order_of_the_classes_disagrees(tmp_path: Path) -> None:
    name, options = DETECTORS[1]
    save_weights(create_model(name, classes=["cat", "dog"], **options), tmp_path / "a")
    with pytest.raises(EyelineError, match="calls class 0 'cat', the model 'dog'"):
        load_weights(create_model(name, classes=["dog", "cat"], **options), tmp_path / "a")
    load_weights(create_model(name, classes=["cat", "dog"], **options), tmp_path / "a")


def test_other_model(saved: Path) -> None:
    with pytest.raises(EyelineError, match="holds a resnet18, the model is a resnet34"):
        load_weights(create_model("resnet34", num_classes=3), saved)


def test_nothing_is_silent(classifier: nn.Module) -> None:
    model = create_model("resnet18", num_classes=3)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    state = classifier.state_dict()
    del state["layer4.1.bn2.bias"]
    with pytest.raises(EyelineError, match=r"finds no layer4.1.bn2.bias \(1\) in the state dict"):
        load_weights(model, state)
    with pytest.raises(EyelineError, match=r"no place for tail.weight \(1\)"):
        load_weights(model, classifier.state_dict() | {"tail.weight": torch.ones(1)})
    with pytest.raises(EyelineError, match=r"bn1.bias is 3 in the file, 64 in the model \(1\)"):
        load_weights(model, classifier.state_dict() | {"bn1.bias": torch.ones(3)})
    with pytest.raises(EyelineError, match="skip='fcc' begins no name"):
        load_weights(model, classifier.state_dict(), skip=["fcc"])
    # A refused file leaves the model as it was.
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())


def test_skip_takes_the_files_names_too() -> None:
    """Of a renamed tensor either name will do."""
    names = {"backbone": "backbone.body", "fpn.lateral": "backbone.fpn.inner_blocks"}
    names |= {"fpn.output": "backbone.fpn.layer_blocks", "rpn.conv": "rpn.head.conv"}
    names |= {"rpn.objectness": "rpn.head.cls_logits", "rpn.deltas": "rpn.head.bbox_pred"}
    names |= {"head.fc1": "roi_heads.box_head.fc6", "head.fc2": "roi_heads.box_head.fc7"}
    names |= {"head.classes": "roi_heads.box_predictor.cls_score"}
    names |= {"head.deltas": "roi_heads.box_predictor.bbox_pred"}
    model = create_model("faster_rcnn", num_classes=1, **COCO_LIKE, head_width=8)
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        ours = next(ours for ours in names if name.startswith(f"{ours}."))
        state[names[ours] + name.removeprefix(ours)] = tensor.clone()
    for kind in ("weight", "bias"):  # the file's background has deltas too
        key = f"roi_heads.box_predictor.bbox_pred.{kind}"
        state[key] = state[key].repeat(2, *[1] * (state[key].ndim - 1))

    report = load_weights(model, state)
    assert report.missing == report.left_out == ()
    assert len(report.loaded) == len(model.state_dict()) == len(report.converted)
    for skip in ("roi_heads", "head"):
        report = load_weights(model, state, skip=[skip])
        assert len(report.missing) == len(report.left_out) == 8
        assert all(name.startswith("head.") for name in report.missing)
        assert all(name.startswith("roi_heads.") for name in report.left_out)


# -- a part of a model


def test_pretrained_backbone(classifier: nn.Module, saved: Path) -> None:
    model = create_model("retinanet", num_classes=2, **SMALL, pretrained=saved)
    own = model.backbone.state_dict()
    assert all(torch.equal(t, classifier.state_dict()[n]) for n, t in own.items())
    assert model.load_report.left_out == ("fc.bias", "fc.weight")
    assert set(model.load_report.loaded) == set(own)


def test_pretrained_of_a_bare_state_dict_and_a_frozen_norm(classifier: nn.Module) -> None:
    state = {n: t for n, t in classifier.state_dict().items() if not n.startswith("fc.")}
    model = create_model("faster_rcnn", num_classes=2, **SMALL, norm="frozen", pretrained=state)
    assert torch.equal(model.backbone.bn1.weight, classifier.bn1.weight)


def test_pretrained_of_another_backbone(saved: Path) -> None:
    with pytest.raises(EyelineError, match="holds a resnet18, the model's backbone is a resnet34"):
        create_model("retinanet", num_classes=2, backbone="resnet34", pretrained=saved)


def test_pretrained_of_another_model_is_its_backbone(tmp_path: Path) -> None:
    """With the pictures that it saw; no other layer of it."""
    other = create_model("faster_rcnn", num_classes=3, **SMALL, image_std=(0.2, 0.2, 0.2))
    save_weights(other, tmp_path / "other.safetensors")
    model = create_model(
        "retinanet", num_classes=2, **SMALL, pretrained=tmp_path / "other.safetensors"
    )
    own, theirs = model.state_dict(), other.state_dict()
    assert all(torch.equal(own[n], theirs[n]) for n in own if n.startswith("backbone."))
    assert not torch.equal(own["fpn.output.0.weight"], theirs["fpn.output.0.weight"])
    assert model.preprocess.std == (0.2, 0.2, 0.2)
    with pytest.raises(
        EyelineError, match="holds a faster_rcnn, the model's backbone is a resnet34"
    ):
        wider = SMALL | {"backbone": "resnet34"}
        create_model("retinanet", num_classes=2, **wider, pretrained=tmp_path / "other.safetensors")


def test_load_weights_into_a_part(classifier: nn.Module, saved: Path) -> None:
    backbone = create_model("retinanet", num_classes=2, **SMALL).backbone
    with pytest.raises(EyelineError, match=r"no place for fc.bias, fc.weight \(2\)"):
        load_weights(backbone, saved)
    load_weights(backbone, saved, skip=["fc"])
    assert torch.equal(backbone.conv1.weight, classifier.conv1.weight)


# -- a model of one's own

OWN = """from __future__ import annotations
from dataclasses import dataclass
import torch
from torch import nn
from eyeline.registry import register

@dataclass(frozen=True)
class Config:
    num_classes: int
    width: int = 4

class Tiny(nn.Module):
    class_dependent = ("last",)
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.last = nn.Linear(config.width, config.num_classes)

@register("NAME", task="classification", paper="none")
def tiny(num_classes: int, **options):
    return Tiny(Config(num_classes, **options))
"""


@pytest.mark.parametrize("name", ["tiny", "retinanet"])  # the name of one of ours is no hindrance
def test_own_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "my_model.py"
    path.write_text(OWN.replace("NAME", name))
    before = registry.list_models()
    model = create_model(path, num_classes=2, width=3)
    assert (model.name, model.task, model.last.in_features) == (name, "classification", 3)
    assert registry.list_models() == before
    path.write_text(OWN.replace("NAME", name).replace("width: int = 4", "width: int = 6"))
    assert create_model(str(path), num_classes=2).last.in_features == 6  # read anew each time
    save_weights(model, tmp_path / "a.safetensors")
    assert equal(create_model(path, weights=tmp_path / "a.safetensors"), model)


def test_own_file_that_registers_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.write_text("")
    with pytest.raises(EyelineError, match=r"empty\.py must register one model, it registers none"):
        create_model(path, num_classes=2)
    with pytest.raises(EyelineError, match=r"no model file at .*nowhere\.py"):
        create_model(tmp_path / "nowhere.py", num_classes=2)
    path.write_text(OWN + OWN[OWN.index("@register") :].replace("NAME", "other"))
    with pytest.raises(EyelineError, match="it registers NAME, other"):
        create_model(path, num_classes=2)
    path.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        create_model(path, num_classes=2)
    assert "retinanet" in registry.list_models()
