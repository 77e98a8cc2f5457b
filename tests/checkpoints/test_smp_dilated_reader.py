"""Readers of smp's dilated networks, torchvision's DeepLabv3, small classifiers: what is told by
keys and shapes, and what is refused. Values are compared in tests/parity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from eyeline.checkpoints import load_weights, read
from eyeline.errors import EyelineError
from eyeline.nn.backbones import build_backbone
from eyeline.registry import create_model

PARITY = Path(__file__).parents[1] / "parity"


def state(file: str, case: str) -> dict[str, Tensor]:
    """Zeros of the shapes that a file of the case has."""
    with np.load(PARITY / f"{file}.npz") as found:
        shapes = json.loads(str(found[f"{case}.shapes"]))
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def test_what_shapes_tell() -> None:
    found = read(state("smp_pspnet", "resnet18.3"))
    assert (found.origin, found.name) == ("smp", "pspnet")
    assert {k: found.options[k] for k in ("backbone", "depth", "output_stride", "width")} == {
        "backbone": "resnet18", "depth": 3, "output_stride": 8, "width": 512,
    }  # fmt: skip
    assert "encoder.layer4.0.conv1.weight" in found.dropped
    found = read(state("smp_pspnet", "mobilenet_v2.5"))
    assert (found.options["depth"], found.options["output_stride"]) == (5, 32)
    found = read(state("smp_deeplabv3plus", "resnet18.8"))
    assert found.options["output_stride"] == 16  # the library's default: nothing tells
    assert found.options["num_classes"] == 5 and found.options["convention"] == "smp"


def test_biases_before_norms_move_into_the_means() -> None:
    given = state("smp_pan", "resnet18.16")
    given["decoder.fpa.mid.0.conv.bias"] += 2
    found = read(given)
    assert (found.state["attention.middle.norm.running_mean"] == -2).all()
    assert "attention.middle.bias" not in found.state and "score.bias" in found.state


def test_old_names_of_deeplabv3() -> None:
    new = state("smp_deeplabv3", "resnet18.8")
    parts = (("aspp", "0"), ("conv", "1"), ("bn", "2"))
    old = {}
    for key, value in new.items():
        for name, number in parts:
            key = key.replace(f"decoder.{name}.", f"decoder.{number}.")
        old[key] = value
    assert old.keys() != new.keys()
    assert read(old).state.keys() == read(new).state.keys()


@pytest.mark.parametrize(
    ("file", "case"),
    [
        ("smp_pspnet", "resnet18.3"),
        ("smp_pan", "resnet18.16"),
        ("smp_deeplabv3", "mobilenet_v2.16"),
        ("smp_deeplabv3plus", "resnet18.8"),
        ("torchvision_deeplabv3", "resnet50.8"),
    ],
)
def test_a_key_too_many_is_an_error(file: str, case: str) -> None:
    given = state(file, case) | {"classification_head.3.weight": torch.zeros(2, 2)}
    with pytest.raises(EyelineError, match="no place for classification_head"):
        read(given)
    assert read(given, skip=["classification_head"]).name == file.split("_")[1]


def test_what_is_refused() -> None:
    given = state("smp_deeplabv3", "resnet18.8")
    given["encoder.layer1.0.se.weight"] = torch.zeros(2)
    with pytest.raises(EyelineError, match=r"no place for encoder\.layer1\.0\.se\.weight"):
        create_model(weights=given)
    given = state("smp_deeplabv3", "resnet18.8")
    given["decoder.aspp.convs.0.0.weight"] = torch.zeros(256, 256, 1, 1)
    with pytest.raises(EyelineError, match=r"reads 256 channels, .* encoders"):
        read(given)
    given = {k: v for k, v in given.items() if not k.startswith("encoder.")}
    with pytest.raises(EyelineError, match="its encoder is not read"):
        read(given | {"encoder.features.0.weight": torch.zeros(64, 3, 3, 3)})
    given = state("torchvision_deeplabv3", "resnet50.8")
    given = {k: v for k, v in given.items() if not k.startswith("backbone.layer1")}
    with pytest.raises(EyelineError, match="another backbone than a ResNet"):
        read(given)
    model = create_model("deeplabv3", num_classes=5, backbone="resnet18")
    with pytest.raises(EyelineError, match="has convention='smp', the model 'paper'"):
        load_weights(model, read(state("smp_deeplabv3", "resnet18.8")))


def test_classifiers_fill_backbones() -> None:
    torch.manual_seed(0)
    small = build_backbone("mobilenet_v2").state_dict()
    classifier = {
        "classifier.1.weight": torch.zeros(10, 1280),
        "classifier.1.bias": torch.zeros(10),
    }
    model = create_model(
        "deeplabv3plus", num_classes=3, backbone="mobilenet_v2", width=8,
        pretrained=small | classifier,
    )  # fmt: skip
    assert torch.equal(model.backbone.features[18][0].weight, small["features.18.0.weight"])
    assert set(classifier) <= set(model.load_report.left_out)
    with pytest.raises(EyelineError, match=r"no place for features\.19"):
        load_weights(model.backbone, read(small | {"features.19.weight": torch.zeros(2)}))
    with pytest.raises(EyelineError, match="holds a backbone, mobilenet_v2"):
        create_model(weights=small)
    large = build_backbone("xception41_deeplab").state_dict()
    found = read(large | {"head.fc.weight": torch.zeros(10, 2048), "head.fc.bias": torch.zeros(10)})
    assert found.name == "xception41_deeplab" and found.state.keys() == {
        key for key in large if not key.endswith("num_batches_tracked")
    }
    assert found.options["norm_epsilon"] == 1e-3 and found.options["image_mean"] == (0.5,) * 3
