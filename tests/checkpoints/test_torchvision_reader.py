"""What torchvision's files hold, told by their keys. That the numbers come out the same is
tested in parity/."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from eyeline.checkpoints import load_weights, read
from eyeline.checkpoints.renaming import RESNETS
from eyeline.checkpoints.torchvision import COCO_SLOTS
from eyeline.errors import EyelineError
from eyeline.nn.backbones.resnet import VARIANTS, ResNet
from eyeline.registry import create_model

State = dict[str, Tensor]


def body(prefix: str, backbone: str, norm: str = "frozen") -> State:
    with torch.device("meta"):
        model = ResNet(**VARIANTS[backbone], norm=norm)
    # One number expanded: as large as it should be, without the memory.
    return {f"{prefix}{n}": torch.zeros(()).expand(t.shape) for n, t in model.state_dict().items()}


def layer(name: str, *shape: int) -> State:
    """Row r of weight and bias holds r."""
    rows = torch.arange(shape[0], dtype=torch.float32)
    weight = rows.view(-1, *[1] * (len(shape) - 1)).expand(shape).clone()
    return {f"{name}.weight": weight, f"{name}.bias": rows.clone()}


def faster_rcnn(slots: int = 91, new: bool = True, backbone: str = "resnet18") -> State:
    """Small in its width; the names are those of torchvision since 0.13, or older."""
    conv, rpn = ((".0", ".0.0"), ("", ""))[not new]
    state = body("backbone.body.", backbone)
    for i in range(4):
        state |= layer(f"backbone.fpn.inner_blocks.{i}{conv}", 256, 64 << i, 1, 1)
        state |= layer(f"backbone.fpn.layer_blocks.{i}{conv}", 256, 256, 3, 3)
    state |= layer(f"rpn.head.conv{rpn}", 256, 256, 3, 3)
    state |= layer("rpn.head.cls_logits", 3, 256, 1, 1) | layer("rpn.head.bbox_pred", 12, 256, 1, 1)
    state |= layer("roi_heads.box_head.fc6", 8, 256 * 49) | layer("roi_heads.box_head.fc7", 8, 8)
    state |= layer("roi_heads.box_predictor.cls_score", slots, 8)
    state |= layer("roi_heads.box_predictor.bbox_pred", 4 * slots, 8)
    return state


def mask_rcnn(slots: int = 91, new: bool = True) -> State:
    state = faster_rcnn(slots, new)
    for i in range(4):
        name = f"{i}.0" if new else f"mask_fcn{i + 1}"
        state |= layer(f"roi_heads.mask_head.{name}", 256, 256, 3, 3)
    state |= layer("roi_heads.mask_predictor.conv5_mask", 256, 256, 2, 2)
    return state | layer("roi_heads.mask_predictor.mask_fcn_logits", slots, 256, 1, 1)


def retinanet(slots: int = 91, new: bool = True) -> State:
    conv = ".0" if new else ""
    state = body("backbone.body.", "resnet18")
    for i in range(3):
        state |= layer(f"backbone.fpn.inner_blocks.{i}{conv}", 256, 128 << i, 1, 1)
        state |= layer(f"backbone.fpn.layer_blocks.{i}{conv}", 256, 256, 3, 3)
    for name in ("p6", "p7"):
        state |= layer(f"backbone.fpn.extra_blocks.{name}", 256, 256, 3, 3)
    for head in ("classification", "regression"):
        for i in range(4):
            place = f"{i}.0" if new else f"{2 * i}"
            state |= layer(f"head.{head}_head.conv.{place}", 256, 256, 3, 3)
    state |= layer("head.classification_head.cls_logits", 9 * slots, 256, 3, 3)
    state |= layer("head.regression_head.bbox_reg", 36, 256, 3, 3)
    return state


@pytest.mark.parametrize("new", [True, False])
def test_faster_rcnn(new: bool) -> None:
    checkpoint = read(faster_rcnn(new=new))
    assert (checkpoint.origin, checkpoint.name) == ("torchvision", "faster_rcnn")
    assert checkpoint.options["backbone"] == "resnet18"
    assert checkpoint.options["convention"] == "torchvision"
    assert checkpoint.options["norm"] == "frozen" and checkpoint.options["norm_epsilon"] == 0
    model = create_model("faster_rcnn", num_classes=80, backbone="resnet18", head_width=8)
    # The body's counters apart, every name of the model is there, and no other.
    names = {n for n in model.state_dict() if not n.endswith("num_batches_tracked")}
    assert set(checkpoint.state) == names


@pytest.mark.parametrize("new", [True, False])
def test_mask_rcnn(new: bool) -> None:
    checkpoint = read(mask_rcnn(new=new))
    assert (checkpoint.origin, checkpoint.name) == ("torchvision", "mask_rcnn")
    model = create_model("mask_rcnn", num_classes=80, backbone="resnet18", head_width=8)
    names = {n for n in model.state_dict() if not n.endswith("num_batches_tracked")}
    assert set(checkpoint.state) == names
    slots = [i for i, name in enumerate(COCO_SLOTS) if name]
    assert checkpoint.state["mask_head.classes.bias"].tolist() == slots
    assert checkpoint.state["mask_head.classes.weight"][:, 7, 0, 0].tolist() == slots
    assert read(mask_rcnn(4)).state["mask_head.classes.bias"].tolist() == [1, 2, 3]
    expected = {"norm": "frozen", "mask_norm": "none", "mask_depth": 4, "mask_width": 256}
    assert checkpoint.options.items() >= expected.items()


def test_masks_for_other_slots_are_refused() -> None:
    state = mask_rcnn() | layer("roi_heads.mask_predictor.mask_fcn_logits", 5, 256, 1, 1)
    with pytest.raises(EyelineError, match="5 masks for 91 slots"):
        read(state)
    del state["roi_heads.mask_predictor.mask_fcn_logits.weight"]
    with pytest.raises(EyelineError, match=r"lacks our mask_head\.classes\.weight"):
        read(state)


@pytest.mark.parametrize("new", [True, False])
def test_retinanet(new: bool) -> None:
    checkpoint = read(retinanet(new=new))
    assert (checkpoint.origin, checkpoint.name) == ("torchvision", "retinanet")
    model = create_model(
        "retinanet", num_classes=80, backbone="resnet18", convention="torchvision", norm="frozen",
        norm_epsilon=0.0,
    )  # fmt: skip
    report = load_weights(model, retinanet(new=new))
    assert set(report.loaded) == set(model.state_dict())
    assert report.missing == () and report.left_out == ()
    assert report.converted["class_head.tower.3.weight"].startswith("head.classification_head.conv")


def norm(name: str, kind: str = "batch", channels: int = 256) -> State:
    keys = ("weight", "bias", "running_mean", "running_var")[: 4 if kind == "batch" else 2]
    return {f"{name}.{key}": torch.ones(channels) for key in keys}


def faster_rcnn_v2(convs: int = 4, layers: int = 1, kind: str = "batch") -> State:
    """Without counters, as a file that went through another format."""
    state = {k: v for k, v in faster_rcnn().items() if "box_head" not in k}
    for block in ("inner_blocks", "layer_blocks"):
        for i in range(4):
            del state[f"backbone.fpn.{block}.{i}.0.bias"]
            state |= norm(f"backbone.fpn.{block}.{i}.1", kind)
    state |= layer("rpn.head.conv.1.0", 256, 256, 3, 3)
    for i in range(convs):
        weight = layer(f"roi_heads.box_head.{i}.0", 256, 256, 3, 3)
        state |= {k: v for k, v in weight.items() if k.endswith("weight")}
        state |= norm(f"roi_heads.box_head.{i}.1", kind)
    state |= layer(f"roi_heads.box_head.{convs + 1}", 8, 256 * 49)
    if layers == 2:
        state |= layer(f"roi_heads.box_head.{convs + 3}", 8, 8)
    return state


@pytest.mark.parametrize(
    ("convs", "layers", "kind"), [(4, 1, "batch"), (2, 2, "batch"), (4, 1, "group")]
)
def test_the_second_faster_rcnn(convs: int, layers: int, kind: str) -> None:
    checkpoint = read(faster_rcnn_v2(convs, layers, kind))
    expected = {
        "convention": "torchvision", "norm": "batch", "norm_epsilon": 1e-5, "fpn_norm": kind,
        "rpn_depth": 2, "head_convs": convs, "head_layers": layers, "head_norm": kind,
        "head_width": 8, "fpn_channels": 256,
    }  # fmt: skip
    assert checkpoint.options.items() >= expected.items()
    model = create_model(weights=faster_rcnn_v2(convs, layers, kind))
    report = model.load_report
    assert report.left_out == () and all(n.endswith("tracked") for n in report.missing)
    last = f"roi_heads.box_head.{convs + 2 * layers - 1}.weight"
    assert report.converted[f"head.fc{layers}.weight"] == last
    assert report.converted["rpn.deeper.0.weight"] == "rpn.head.conv.1.0.weight"


def mask_rcnn_v2(depth: int = 4, width: int = 256, kind: str = "batch") -> State:
    state = faster_rcnn_v2(kind=kind)
    for i in range(depth):
        name = f"roi_heads.mask_head.{i}"
        weight = layer(f"{name}.0", width, width if i else 256, 3, 3)
        state |= {k: v for k, v in weight.items() if k.endswith("weight")}
        state |= norm(f"{name}.1", kind, width)
    state |= layer("roi_heads.mask_predictor.conv5_mask", width, width, 2, 2)
    return state | layer("roi_heads.mask_predictor.mask_fcn_logits", 91, width, 1, 1)


@pytest.mark.parametrize(
    ("depth", "width", "kind"), [(4, 256, "batch"), (2, 64, "batch"), (4, 256, "group")]
)
def test_the_second_mask_rcnn(depth: int, width: int, kind: str) -> None:
    state = mask_rcnn_v2(depth, width, kind)
    checkpoint = read(state)
    assert checkpoint.name == "mask_rcnn"
    expected = {
        "convention": "torchvision", "norm": "batch", "norm_epsilon": 1e-5, "fpn_norm": kind,
        "rpn_depth": 2, "head_convs": 4, "head_layers": 1, "head_norm": kind,
        "mask_norm": kind, "mask_depth": depth, "mask_width": width,
    }  # fmt: skip
    assert checkpoint.options.items() >= expected.items()
    model = create_model(weights=state)
    report = model.load_report
    assert report.left_out == () and all(n.endswith("tracked") for n in report.missing)
    last = f"{depth - 1}.norm.weight"
    assert report.converted[f"mask_head.convs.{last}"] == (
        f"roi_heads.mask_head.{depth - 1}.1.weight"
    )


@pytest.mark.parametrize("kind", ["group", "batch"])
@pytest.mark.parametrize("p6", [256, 512])
def test_the_second_retinanet(kind: str, p6: int) -> None:
    state = retinanet() | layer("backbone.fpn.extra_blocks.p6", 256, p6, 3, 3)
    for head in ("classification", "regression"):
        for i in range(4):
            del state[f"head.{head}_head.conv.{i}.0.bias"]
            state |= norm(f"head.{head}_head.conv.{i}.1", kind)
    options = read(state).options
    expected = {
        "norm": "batch", "norm_epsilon": 1e-5, "head_norm": kind, "fpn_norm": "none",
        "box_loss": "giou", "fpn_extra_from": "level" if p6 == 256 else "backbone",
    }  # fmt: skip
    assert options.items() >= expected.items()
    model = create_model("retinanet", weights=state)
    assert model.load_report.left_out == ()
    assert model.config.convention == "torchvision" and model.config.force_match


@pytest.mark.parametrize(
    ("slots", "wanted", "expected"),
    [
        (91, None, [i for i, name in enumerate(COCO_SLOTS) if name]),
        (91, 80, [i for i, name in enumerate(COCO_SLOTS) if name]),
        (91, 90, list(range(1, 91))),
        (91, 3, [i for i, name in enumerate(COCO_SLOTS) if name]),
        (4, None, [1, 2, 3]),
        (4, 90, [1, 2, 3]),
        (2, None, [1]),
    ],
)
def test_slots(slots: int, wanted: int | None, expected: list[int]) -> None:
    """Which of the file's rows become ours, in which order."""
    two = read(faster_rcnn(slots), wanted)
    assert two.options["num_classes"] == len(expected)
    assert two.state["head.classes.bias"].tolist() == [*expected, 0]
    assert two.state["head.classes.weight"][:, 0].tolist() == [*expected, 0]
    boxes = [4 * slot + i for slot in expected for i in range(4)]
    assert two.state["head.deltas.bias"].tolist() == boxes
    assert two.state["head.deltas.weight"][:, 0].tolist() == boxes

    one = read(retinanet(slots), wanted)
    assert one.options["num_classes"] == len(expected)
    scores = [anchor * slots + slot for anchor in range(9) for slot in expected]
    assert one.state["class_head.output.bias"].tolist() == scores
    assert one.state["class_head.output.weight"][:, 0, 0, 0].tolist() == scores
    assert one.classes == two.classes


def test_names_of_coco() -> None:
    assert len(COCO_SLOTS) == 91 and sum(name is not None for name in COCO_SLOTS) == 80
    known = {1: "person", 13: "stop sign", 44: "bottle", 62: "chair", 67: "dining table"}
    known |= {70: "toilet", 72: "tv", 84: "book", 90: "toothbrush"}
    assert all(COCO_SLOTS[slot] == name for slot, name in known.items())
    eighty, ninety = read(faster_rcnn()).classes, read(faster_rcnn(), 90).classes
    assert eighty is not None and ninety is not None
    assert (eighty[0], eighty[11], eighty[79]) == ("person", "stop sign", "toothbrush")
    assert (ninety[0], ninety[11], ninety[12]) == ("person", "unused id 12", "stop sign")
    assert len(set(ninety)) == 90
    assert read(faster_rcnn(4)).classes is None


@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_resnet_is_known_by_its_shapes(name: str) -> None:
    state = body("", name, "batch")
    checkpoint = read(state | layer("fc", 5, 8))
    assert checkpoint.name == name
    pictures = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
    assert checkpoint.options == {"in_channels": 3, "num_classes": 5, **pictures}
    assert all(key.endswith("num_batches_tracked") for key in checkpoint.dropped)
    assert len(checkpoint.dropped) + len(checkpoint.state) == len(state) + 2
    assert read(faster_rcnn() | body("backbone.body.", name)).options["backbone"] == name
    assert sorted(RESNETS.values()) == sorted(VARIANTS)


def test_unknown_resnet() -> None:
    state = body("", "resnet18") | {"layer1.2.conv1.weight": torch.ones(64, 64, 3, 3)}
    with pytest.raises(EyelineError, match=r"a ResNet that none of ours is: \(3, 2, 2, 2\) blocks"):
        read(state)


def test_batch_norm_that_was_trained() -> None:
    """Counters tell it from frozen; only frozen norms have the epsilon of 0."""
    state = faster_rcnn() | body("backbone.body.", "resnet18", "batch")
    options = read(state).options
    assert (options["norm"], options["norm_epsilon"]) == ("batch", 1e-5)


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        ("roi_heads.keypoint_head.0.weight", "Keypoint R-CNN"),
        ("head.regression_head.bbox_ctrness.weight", "FCOS"),
        ("backbone.body.0.0.weight", "detector with a MobileNet"),
        ("backbone.features.0.0.0.weight", "SSDlite"),
        ("classifier.4.weight", "segmentation model"),
    ],
)
def test_relatives_are_refused_by_name(extra: str, kind: str) -> None:
    with pytest.raises(EyelineError, match=f"torchvision's {kind}, which is not read yet"):
        read(faster_rcnn() | {extra: torch.ones(1)})


@pytest.mark.parametrize("make", [faster_rcnn, retinanet, lambda: body("", "resnet18")])
def test_leftover_keys_are_named(make: Any) -> None:
    extra = {f"extra.{i}.weight": torch.ones(1) for i in range(7)}
    with pytest.raises(EyelineError, match=r"for extra\.0\.weight, .*extra\.4.*, \.\.\. \(7\)"):
        read(make() | extra)
    assert sorted(read(make() | extra, skip=["extra"]).dropped) == sorted(extra)
    with pytest.raises(EyelineError, match=r"extra.0.weight.*\(7\)"):
        read(make() | extra, skip=["ext", "extra.9"])


def test_lacking_keys_are_named() -> None:
    state = faster_rcnn()
    del state["roi_heads.box_predictor.bbox_pred.bias"]
    with pytest.raises(EyelineError, match=r"lacks our head.deltas.bias \(1\)"):
        read(state)
    state = faster_rcnn() | layer("roi_heads.box_predictor.bbox_pred", 4, 8)
    with pytest.raises(EyelineError, match="4 box outputs for 91 slots"):
        read(state)


def test_unknown_kinds() -> None:
    with pytest.raises(EyelineError, match=r"an unknown kind, with a, b \(2\); known are"):
        read({"a": torch.ones(1), "b": torch.ones(1)})
