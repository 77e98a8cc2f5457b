"""detectron2's files: pickles are read without running them, and each key has its place."""

from __future__ import annotations

import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from eyeline.checkpoints import read
from eyeline.checkpoints.detectron2 import _by_ratio
from eyeline.checkpoints.families import looks_like
from eyeline.checkpoints.source import read_file
from eyeline.errors import EyelineError
from eyeline.registry import create_model


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int64])
def test_arrays_come_out_of_a_pickle(tmp_path, protocol, kind):
    array = np.arange(6).reshape(2, 3).astype(kind)
    state = OrderedDict(a=array, b=array.T, c=np.array(3.0, np.float32))
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": state, "__author__": "Detectron2"}, protocol))
    found = read_file(path)
    assert list(found) == ["a", "b", "c"]
    assert torch.equal(found["a"], torch.from_numpy(array))
    assert torch.equal(found["b"], torch.from_numpy(array.T.copy()))
    assert found["c"].shape == () and found["c"] == 3


def test_code_in_a_pickle_is_named_and_never_run(tmp_path):
    trace, path = tmp_path / "harm", tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": Harm(trace)}}))
    with pytest.raises(EyelineError, match=r"contains code \(\w*io\.open\) and was refused"):
        read_file(path)
    assert not trace.exists()


@pytest.mark.parametrize("array", [np.array([print], object), np.array(["a"])])
def test_arrays_of_no_numbers_are_refused(tmp_path, array):
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": array}}))
    with pytest.raises(EyelineError, match="contains code"):
        read_file(path)


def test_a_damaged_pickle_is_one_line(tmp_path):
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": np.zeros(100)}})[:-300])
    with pytest.raises(EyelineError, match="not a checkpoint that can be read") as error:
        read_file(path)
    assert "\n" not in str(error.value)


def theirs(name, classes, **options):
    """A state dict in detectron2's names, made of a model of ours."""
    model = create_model(
        name, num_classes=classes, backbone="resnet18", norm="frozen", fpn_channels=32,
        objectness="sigmoid", head_width=32, **options,
    )  # fmt: skip
    swaps = [
        ("backbone.conv1.", "backbone.bottom_up.stem.conv1."),
        ("backbone.bn1.", "backbone.bottom_up.stem.conv1.norm."),
        *((f"backbone.layer{i}.", f"backbone.bottom_up.res{i + 1}.") for i in range(1, 5)),
        (".downsample.0.", ".shortcut."), (".downsample.1.", ".shortcut.norm."),
        *((f".bn{i}.", f".conv{i}.norm.") for i in (1, 2, 3)),
        *((f"fpn.lateral.{i}.", f"backbone.fpn_lateral{i + 2}.") for i in range(4)),
        *((f"fpn.output.{i}.", f"backbone.fpn_output{i + 2}.") for i in range(4)),
        ("rpn.conv.", "proposal_generator.rpn_head.conv."),
        ("rpn.objectness.", "proposal_generator.rpn_head.objectness_logits."),
        ("rpn.deltas.", "proposal_generator.rpn_head.anchor_deltas."),
        *((f"heads.{t}.fc", f"roi_heads.box_head.{t}.fc") for t in range(3)),
        *((f"heads.{t}.classes", f"roi_heads.box_predictor.{t}.cls_score") for t in range(3)),
        *((f"heads.{t}.deltas", f"roi_heads.box_predictor.{t}.bbox_pred") for t in range(3)),
        ("head.fc", "roi_heads.box_head.fc"),
        ("head.classes", "roi_heads.box_predictor.cls_score"),
        ("head.deltas", "roi_heads.box_predictor.bbox_pred"),
    ]  # fmt: skip
    state = {}
    for key, value in model.state_dict().items():
        for ours, new in swaps:
            key = new + key.removeprefix(ours) if key.startswith(ours) else key
            key = key.replace(ours, new) if ours.startswith(".") else key
        state[key] = value.clone()
    return model, state


def test_every_tensor_has_its_place():
    model, state = theirs("cascade_rcnn", 5)
    found = read({**state, "pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)})
    assert found.origin == "detectron2" and found.name == "cascade_rcnn"
    assert found.state.keys() == model.state_dict().keys()
    assert found.dropped == ["pixel_mean", "pixel_std"]
    assert found.options["num_classes"] == 5 and found.classes is None
    loaded = create_model(weights=state)
    assert not loaded.load_report.missing and loaded.config.convention == "detectron2"
    head = loaded.heads[1].fc1.weight.unflatten(1, (49, 32)).transpose(1, 2).flatten(1)
    assert torch.equal(head, model.heads[1].fc1.weight)  # channel by channel in the file


def test_a_file_s_own_preprocessing_comes_with_it():
    """BGR by its means; a deviation of torch's means torch's ResNet."""
    model, state = theirs("faster_rcnn", 4)
    first = model.backbone.conv1.weight
    assert torch.equal(read(state).state["backbone.conv1.weight"], first.flip(1))
    caffe = read(state).options
    assert caffe["image_mean"] == pytest.approx((123.675 / 255, 116.28 / 255, 103.53 / 255))
    assert caffe["image_std"] == pytest.approx((1 / 255,) * 3) and caffe["stride_in_1x1"]
    rgb = {
        "pixel_mean": torch.tensor([123.675, 116.28, 103.53])[:, None, None],
        "pixel_std": torch.tensor([58.395, 57.12, 57.375])[:, None, None],
    }
    torch_like = read({**state, **rgb})
    assert torch.equal(torch_like.state["backbone.conv1.weight"], first)
    assert torch_like.options["image_std"] == pytest.approx((0.229, 0.224, 0.225), abs=1e-3)
    assert not torch_like.options["stride_in_1x1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"roi_heads.keypoint_head.conv_fcn1.weight": torch.zeros(1)}, "Keypoint R-CNN"),
        ({"roi_heads.box_head.0.fc3.weight": torch.zeros(1)}, r"no place for .*fc3"),
        ({"roi_heads.box_predictor.1.bbox_pred.bias": torch.zeros(20)}, "20 box outputs where 4"),
        ({"roi_heads.box_predictor.1.bbox_pred.bias": None}, "lacks our heads.1.deltas.bias"),
        ({"roi_heads.box_head.2.fc1.weight": None}, "no place for|2 stages"),
    ],
)
def test_what_does_not_fit_is_one_line(change, message):
    _, state = theirs("cascade_rcnn", 5)
    changed = {k: v for k, v in {**state, **change}.items() if v is not None}
    with pytest.raises(EyelineError, match=message) as error:
        read(changed)
    assert "\n" not in str(error.value)


def test_anchors_change_places():
    """Theirs size by size, ours ratio by ratio."""
    rows = torch.arange(9 * 2)
    assert _by_ratio(rows, 2).tolist() == [
        0, 1, 6, 7, 12, 13, 2, 3, 8, 9, 14, 15, 4, 5, 10, 11, 16, 17,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (["backbone.conv1.weight", "neck.fpn_convs.0.conv.weight", "bbox_head.a"], "mmdetection"),
        (["model.0.conv.weight", "model.1.bn.weight"], "ultralytics"),
        (["vgg.0.weight", "loc.0.weight", "conf.0.weight"], "ssd.pytorch"),
        (["transformer.encoder.layers.0.a", "bbox_embed.layers.0.weight"], "DETR"),
    ],
)
def test_a_stranger_is_told_by_its_names(names, family):
    assert family in looks_like(names)
    with pytest.raises(EyelineError, match=f"it looks like .*{family}"):
        read({name: torch.zeros(1) for name in names})


def test_nobody_knows_every_name():
    assert looks_like(["a.weight", "b.bias"]) == ""
    with pytest.raises(EyelineError, match=r"unknown kind, with a\.weight"):
        read({"a.weight": torch.zeros(1)})


def test_a_wrong_family_is_named():
    _, state = theirs("cascade_rcnn", 5)
    with pytest.raises(EyelineError, match="holds a cascade_rcnn, not a retinanet"):
        create_model("retinanet", weights=state)
