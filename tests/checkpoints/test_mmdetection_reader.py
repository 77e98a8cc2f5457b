"""mmdetection's files: their configuration is never run, their objects are nothing, keys find their
place; whole models of pytorch-retinanet are read without being built."""

from __future__ import annotations

import pickle
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eyeline.checkpoints import load_weights, mmdetection, read
from eyeline.checkpoints.inert import Inert
from eyeline.checkpoints.mmdetection_config import at, pixels, read_config, side
from eyeline.errors import EyelineError
from eyeline.registry import create_model

MODULE = "mmengine.logging.history_buffer"
WIDTH = 4  # channels of VGG's first stage
CAFFE = """
img_norm_cfg = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False)
model = dict(
    type='RetinaNet', backbone=dict(style='caffe', norm_eval=False),
    bbox_head=dict(bbox_coder=dict(target_stds=[0.5, 0.5, 0.25, 0.25])),
    test_cfg=dict(score_thr=0.1, nms=dict(type='nms', iou_threshold=0.6), max_per_img=7))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(500, 300), transforms=[
        dict(type='Normalize', **img_norm_cfg)])]
"""


def ssd(old: bool, classes: int = 20) -> dict[str, Tensor]:
    """SSD300 of version 2.14, or of those before it."""
    torch.manual_seed(0)
    model: Any = create_model("ssd300", num_classes=classes, width=WIDTH)
    vgg = dict(zip(VGG, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33), strict=True))
    state = {}
    for name, value in model.state_dict().items():
        part, *rest = name.split(".")
        if part == "backbone":
            key = f"backbone.features.{vgg[rest[0]]}.{rest[1]}"
        elif part == "conv4_norm":
            key = "backbone.l2_norm.weight" if old else "neck.l2_norm.weight"
        elif part == "extras":
            i, j = int(rest[0]), ("reduce", "output").index(rest[1])
            place = f"backbone.extra.{2 * i + j}" if old else f"neck.extra_layers.{i}.{j}.conv"
            key = f"{place}.{rest[2]}"
        else:
            kind = "cls" if part == "class_heads" else "reg"
            key = f"bbox_head.{kind}_convs.{rest[0]}{'' if old else '.0'}.{rest[1]}"
        state[key] = value
    return state


VGG = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1",
       "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3", "fc6", "fc7")  # fmt: skip


@cache
def retinanet() -> dict[str, Tensor]:
    """Of two classes, with a ResNet-18."""
    state: dict[str, Tensor] = {}
    model: Any = create_model(
        "retinanet", num_classes=2, backbone="resnet18", norm="frozen", fpn_channels=8
    )
    for name, value in model.state_dict().items():
        for ours, theirs in (
            ("fpn.lateral.", "neck.lateral_convs."), ("fpn.output.", "neck.fpn_convs."),
            ("fpn.extra.0", "neck.fpn_convs.3"), ("fpn.extra.1", "neck.fpn_convs.4"),
            ("class_head.tower.", "bbox_head.cls_convs."),
            ("box_head.tower.", "bbox_head.reg_convs."),
            ("class_head.output", "bbox_head.retina_cls"),
            ("box_head.output", "bbox_head.retina_reg"),
        ):  # fmt: skip
            if name.startswith(ours):
                name = name.replace(ours, theirs)
                if "_convs" in name:
                    layer, kind = name.rsplit(".", 1)
                    name = f"{layer}.conv.{kind}"
        state[name] = value
    return state


def test_names_before_and_after_2_14_are_the_same_model() -> None:
    models: list[Any] = [create_model(weights=ssd(old)) for old in (True, False)]
    for model in models:
        assert (model.name, model.config.convention) == ("ssd300", "mmdetection")
        assert not model.load_report.left_out and model.classes[-1] == "tvmonitor"
        # Of 20 classes the boxes are PASCAL VOC's.
        assert model.config.box_scales == pytest.approx((0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05))
        assert model.preprocess.std == pytest.approx([1 / 255] * 3)
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_what_the_configuration_says_goes_into_the_model() -> None:
    state = retinanet()
    found = read({"state_dict": state, "meta": {"config": CAFFE, "CLASSES": ("cat", "dog")}})
    model: Any = create_model(weights=found)
    c = model.config
    assert (found.origin, model.name, model.classes) == ("mmdetection", "retinanet", ["cat", "dog"])
    assert (c.stride_in_1x1, c.norm, c.fpn_extra_relu) == (True, "batch", False)
    assert (c.min_size, c.max_size, c.score_threshold, c.nms_iou) == (300, 500, 0.1, 0.6)
    assert (c.max_detections, c.box_weights) == (7, (2, 2, 4, 4))
    # BGR: the first convolution is turned round, as are mean and deviation.
    assert c.image_mean == pytest.approx((3 / 255, 2 / 255, 1 / 255))
    assert c.image_std == pytest.approx((6 / 255, 5 / 255, 4 / 255))
    first = model.state_dict()["backbone.conv1.weight"]
    assert torch.equal(first, state["backbone.conv1.weight"].flip(1))
    new = {"cfg": "x = 1", "dataset_meta": {"classes": ("cow", "hen")}}
    plain: Any = create_model(weights={"state_dict": state, "meta": new})
    assert plain.classes == ["cow", "hen"] and not plain.config.stride_in_1x1
    assert torch.equal(plain.state_dict()["backbone.conv1.weight"], state["backbone.conv1.weight"])


def told(state: dict[str, Tensor], text: str, **meta: Any) -> dict[str, Any]:
    """A file of such a configuration."""
    return {"state_dict": state, "meta": {"config": text} | meta}


def test_thresholds_of_any_place_and_kind() -> None:
    state = retinanet()
    soft = "nms=dict(type='soft_nms', iou_thr=0.4, sigma=0.3, method='gaussian', min_score=0.01)"
    early = f"model = dict(type='RetinaNet')\ntest_cfg = dict(score_thr=0, {soft}, max_per_img=9)"
    found = read(told(state, early)).options
    values = {"score_threshold": 0, "nms": "soft_gaussian", "nms_iou": 0.4, "nms_sigma": 0.3,
              "nms_floor": 0.01, "max_detections": 9}  # fmt: skip
    assert {key: found[key] for key in values} == values
    part = mmdetection._of_proposals(
        {"test_cfg": {"rpn": {"nms_pre": 10, "max_num": 5, "nms_thr": 0.6}},
         "train_cfg": {"rpn_proposal": {"nms_pre": 20, "max_num": 6}}}, "here",
    )  # fmt: skip
    assert part == {"proposals_before_nms": (20, 10), "proposals": (6, 5), "rpn_nms_iou": 0.6}
    with pytest.raises(EyelineError, match="its RPN has the NMS soft_nms, which is not read"):
        mmdetection._of_proposals({"test_cfg": {"rpn": {"nms": {"type": "soft_nms"}}}}, "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backbone=dict(conv_cfg=dict(type='ConvWS'))", "convolutions ConvWS, which are not read"),
        ("bbox_head=dict(num_classes=3)", "of mmdetection 1.x, which is not read"),
        ("test_cfg=dict(max_per_img=-1)", "max_per_img=-1 of its configuration is not read"),
        ("test_cfg=dict(score_thr='a')", "score_thr=a of its configuration is not read"),
        ("test_cfg=dict(nms=dict(type='nms_match'))", "its NMS is nms_match, linear, which is not"),
        ("test_cfg=dict(nms=dict(type='soft_nms', method='naive'))", "soft_nms, naive, which is"),
    ],
)
def test_what_a_configuration_says_and_we_have_not_is_refused(text: str, message: str) -> None:
    with pytest.raises(EyelineError, match=message):
        read(told(retinanet(), f"model = dict({text})"))
    read(
        told(
            retinanet(), "model = dict(backbone=dict(conv_cfg=None), bbox_head=dict(num_classes=2))"
        )
    )


def test_ssd_of_other_boxes_or_with_a_background_is_refused() -> None:
    state, head = ssd(old=False), "model = dict(bbox_head=dict({}))"
    boxes = head.format("anchor_generator=dict(basesize_ratio_range=({}))")
    scales = read(told(state, boxes.format("0.15, 0.9"))).options["box_scales"]
    assert scales[:2] == pytest.approx((0.07, 0.15))
    with pytest.raises(EyelineError, match=r"default boxes of \[0.15, 0.95\] are not read"):
        read(told(state, boxes.format("0.15, 0.95")))
    with pytest.raises(EyelineError, match=r"of mmdetection 1\.x"):
        read(told(state, head.format("num_classes=21")))


def test_yolov3_may_keep_all_candidates() -> None:
    state = {f"bbox_head.convs_pred.{i}.weight": torch.zeros(21, 4, 1, 1) for i in range(3)}
    state |= {f"bbox_head.convs_pred.{i}.bias": torch.zeros(21) for i in range(3)}
    state["backbone.conv1.conv.weight"] = torch.zeros(4, 3, 3, 3)
    for value in (0, -1):
        config = {"model": {"test_cfg": {"conf_thr": value, "score_thr": 0}}}
        found = mmdetection._yolov3(state, config, "here", ()).options
        assert (found["objectness_threshold"], found["score_threshold"]) == (0, 0)


def test_the_order_of_channels_where_none_is_given() -> None:
    values = "mean=[1, 2, 3], std=[1, 1, 1]"
    for text, rgb in (
        (f"model = dict(data_preprocessor=dict({values}))", False),
        (f"model = dict(data_preprocessor=dict({values}, bgr_to_rgb=True))", True),
        (f"data_preprocessor = dict({values}, rgb_to_bgr=True)", True),
        (f"test_pipeline = [dict(type='Normalize', {values})]", True),
        (f"test_pipeline = [dict(type='Normalize', {values}, to_rgb=False)]", False),
    ):
        assert pixels(read_config({"cfg": text})) == ([1, 2, 3], [1, 1, 1], rgb)


def test_weights_go_into_a_model_of_the_same_convention() -> None:
    model: Any = create_model(
        "retinanet", num_classes=2, backbone="resnet18", fpn_channels=8, convention="mmdetection"
    )
    state = retinanet()
    plain = "img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])"
    text = f"{plain}\ntest_pipeline = [dict(type='Normalize', **img_norm_cfg)]"
    load_weights(model, told(state, text, CLASSES=("0", "1")))
    assert torch.equal(model.backbone.conv1.weight, state["backbone.conv1.weight"])
    other = text.replace("58.395", "59.395")
    with pytest.raises(EyelineError, match="has image_std="):
        load_weights(model, told(state, other, CLASSES=("0", "1")))


@pytest.mark.parametrize(
    "text",
    ["open('{path}', 'w')", "model = dict(a=open('{path}', 'w'))", "model = [x for x in 'ab']",
     "model = (", "model = -'a'", "\0", "(" * 5000, "model = {{**1, [1]: 2}}"],
)  # fmt: skip
def test_a_configuration_is_never_run(text: str, tmp_path: Path) -> None:
    path = tmp_path / "harm"
    found = read_config({"config": text.format(path=path)})
    assert found in ({}, {"model": {}}) and not path.exists()


def test_a_path_that_leads_nowhere_is_none() -> None:
    config = read_config({"config": "/a/file.py\nmodel = dict(a=[1, dict(b=-2)])"})
    assert at(config, "model", "a", 1, "b") == -2
    assert at(config, "model", "a", 2) is None and at(config, "model", "a", "b") is None
    assert pixels(config) is None and side(config) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neck.lateral_convs.9.conv.weight": 1}, r"lateral_convs\.9"),
        ({"bbox_head.fc_cls.weight": 1}, "mmdetection 1.x, which is not read"),
    ],
)
def test_what_is_not_read_is_named(change: dict[str, int], message: str) -> None:
    state = ssd(old=False) | {key: torch.zeros(value) for key, value in change.items()}
    with pytest.raises(EyelineError, match=message):
        read(state)


def test_another_detector_is_named() -> None:
    state = {f"{part}.conv.weight": torch.zeros(1) for part in ("backbone", "neck", "bbox_head")}
    with pytest.raises(EyelineError, match="looks like another detector of mmdetection, w"):
        read(state)
    meta = {"cfg": "model = dict(type='FCOS')"}
    with pytest.raises(EyelineError, match="holds mmdetection's FCOS"):
        read({"state_dict": state, "meta": meta})


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, **members: Any) -> None:
    """A library that is there as a file is written, and not as it is read."""
    names = module.split(".")
    for i in range(len(names)):
        monkeypatch.setitem(sys.modules, ".".join(names[: i + 1]), ModuleType(names[i]))
    for name, member in members.items():
        member.__module__, member.__qualname__ = module, name
        setattr(sys.modules[module], name, member)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
def test_objects_beside_the_tensors_are_nothing(
    old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class HistoryBuffer:
        def __init__(self) -> None:
            self.values, self.mean = np.arange(3.0), HistoryBuffer.total

        def total(self) -> None:
            raise AssertionError("was run")

        # So that the pickle asks for the method by getattr, as mmengine's do.
        total.__module__, total.__qualname__ = MODULE, "HistoryBuffer.total"

    path = tmp_path / "epoch_12.pth"
    state = ssd(old=False)
    with monkeypatch.context() as there:
        stand_in(there, MODULE, HistoryBuffer=HistoryBuffer)
        hub = {"log_scalars": {"loss": HistoryBuffer()}, "last": np.float64(3), "kind": {1, 2}}
        meta = {
            "cfg": "x = 1",
            "seed": np.int64(3),
            "dataset_meta": {"classes": tuple(map(str, range(20)))},
        }
        whole = {"meta": meta, "state_dict": state, "message_hub": hub}
        torch.save(whole, path, _use_new_zipfile_serialization=not old)
    found = read(path)
    assert found.classes == [str(i) for i in range(20)]
    assert len(found.state) == len(state) and "mmengine" not in sys.modules
    with monkeypatch.context() as there:
        stand_in(there, MODULE, HistoryBuffer=HistoryBuffer)
        torch.save(whole | {"z": Harm(trace := tmp_path / "harm")}, path)
    with pytest.raises(EyelineError, match=r"contains code \(\w*io\.open\) and was refused"):
        read(path)
    assert not trace.exists()


def test_a_whole_model_of_pytorch_retinanet_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ResNet(nn.Module):
        def forward(self) -> None:
            raise AssertionError("was run")

    path = tmp_path / "model_final.pt"
    ours: Any = create_model("retinanet", num_classes=3, backbone="resnet18", fpn_channels=8)
    ours.requires_grad_(False)
    with monkeypatch.context() as there:
        stand_in(there, "retinanet.model", ResNet=ResNet)
        model = ResNet()
        for name, part in ours.backbone.named_children():
            setattr(model, name, part)
        model.fpn = nn.Module()
        for i in range(3):
            setattr(model.fpn, f"P{i + 3}_1", conv(ours.fpn.lateral[i]))
            setattr(model.fpn, f"P{i + 3}_2", conv(ours.fpn.output[i]))
        model.fpn.P6, model.fpn.P7_2 = conv(ours.fpn.extra[0]), conv(ours.fpn.extra[1])
        for name, head in (("class", ours.class_head), ("box", ours.box_head)):
            part = nn.Module()
            for i, layer in enumerate(head.tower):
                setattr(part, f"conv{i + 1}", conv(layer))
            part.output = conv(head.output)
            theirs = {"class": "classificationModel", "box": "regressionModel"}[name]
            setattr(model, theirs, part)
        wrapped = nn.Module()
        wrapped.module = model  # as torch.nn.DataParallel has it
        there.setattr("eyeline.nn.backbones.resnet.BasicBlock.__module__", "retinanet.utils")
        stand_in(there, "retinanet.utils", BasicBlock=type(ours.backbone.layer1[0]))
        stand_in(there, "retinanet.model", ResNet=ResNet)
        torch.save(wrapped, path)
    found: Any = create_model(weights=path)
    assert (found.name, found.config.convention, found.config.num_classes) == (
        "retinanet",
        "yhenon",
        3,
    )
    assert found.config.box_weights == (10, 10, 5, 5) and "retinanet" not in sys.modules
    theirs, own = found.state_dict(), ours.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in theirs.items())


def conv(layer: Any) -> nn.Conv2d:
    """A plain one with the weights of ours."""
    made = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride)
    made.weight, made.bias = nn.Parameter(layer.weight), nn.Parameter(layer.bias)
    return made.requires_grad_(False)


def test_an_unknown_model_is_refused_and_told_how_to_be_saved(tmp_path: Path) -> None:
    torch.save(nn.Sequential(Own()), path := tmp_path / "model.pt")
    with pytest.raises(EyelineError, match=r"contains code .*Own.*model\.state_dict\(\)"):
        read(path)


class Own(nn.Module):
    pass


def test_nothing_happens_to_what_is_inert() -> None:
    thing = pickle.loads(pickle.dumps(Inert))("a", b=1)
    thing.append(1)
    thing["a"] = 2
    thing.extend([1])
    assert thing() is thing and thing.state is None
