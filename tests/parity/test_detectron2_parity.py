"""The same weights, the same boxes, masks and losses as detectron2's own modelling code.

`make_detectron2.py` made the references. Detections agree within 0.01 px and 1e-4, losses within
1e-4 relatively.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from references import (
    PICTURES,
    agree,
    filled,
    sample_the_first,
    stored,
    target_within,
    train_with_fixed_norms,
)
from torch import Tensor

from eyeline.checkpoints import load_weights
from eyeline.data.images import read_image
from eyeline.errors import EyelineError
from eyeline.registry import create_model

HERE = Path(__file__).parent
SIZES = ((320, 256), (224, 320))
QUICK = ["cascade_rcnn_resnet18", "mask_rcnn_resnet18", "retinanet_resnet18"]
SLOW = [
    pytest.param(case, marks=pytest.mark.slow)
    for case in ("cascade_mask_rcnn_resnet50", "faster_rcnn_resnet50")
]
FEW = dict(proposals_before_nms=(500, 300), proposals=(400, 200))
LOSSES = {
    "loss_cls": "classification", "loss_box_reg": "box", "loss_rpn_cls": "rpn_objectness",
    "loss_rpn_loc": "rpn_box", "loss_mask": "mask",
} | {
    f"{theirs}_stage{t}": f"{ours}_{t + 1}" if t else ours
    for theirs, ours in (("loss_cls", "classification"), ("loss_box_reg", "box"))
    for t in range(3)
}  # fmt: skip


def reference(case: str) -> dict[str, np.ndarray]:
    return stored(f"detectron2_{case}")


@cache
def weights(case: str) -> dict[str, Tensor]:
    """The state dict that detectron2 had."""
    shapes = json.loads((HERE / "detectron2.json").read_text())[case]
    return filled(f"detectron2_{case}", shapes)


def build(case: str, **options):
    options = {**({} if case.startswith("retinanet") else FEW), **options}
    state = {name: tensor.clone() for name, tensor in weights(case).items()}
    model = create_model(weights=state, min_size=64, max_size=1000, **options).eval()
    assert model.name == case.rpartition("_")[0]
    return model


@pytest.fixture
def pictures(shared_data):
    """Cut to the size that the network sees: nothing is resized."""
    folder = shared_data / "tiny_coco" / "val2017"
    return [
        read_image(folder / f"{name}.jpg")[:, :h, :w]
        for name, (h, w) in zip(PICTURES, SIZES, strict=True)
    ]


def batch_of(model, pictures, targets=None):
    if targets is None:
        targets = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
        targets = [
            t | {"masks": torch.zeros(0, *p.shape[1:], dtype=torch.bool)}
            for t, p in zip(targets, pictures, strict=True)
        ]
        batch = model.prepare(pictures, [t | {"resized": torch.tensor(True)} for t in targets])
        batch.targets = None
        return batch
    return model.prepare(pictures, [t | {"resized": torch.tensor(True)} for t in targets])


def theirs(case: str, picture: int) -> dict[str, Tensor]:
    found = reference(case)
    return {k: torch.from_numpy(found[f"{picture}.{k}"]) for k in ("boxes", "scores", "labels")}


def equal(case: str, model, pictures) -> bool:
    with torch.no_grad():
        found = model(batch_of(model, pictures))
    return all(agree(p, theirs(case, i), list(range(80))) for i, p in enumerate(found))


@pytest.mark.parametrize("case", [*QUICK, *SLOW])
def test_detections_are_theirs(case, pictures):
    assert all(len(theirs(case, i)["boxes"]) >= 10 for i in range(2))
    assert equal(case, build(case), pictures)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scored_at": "last"},
        {"stage_scales": (1.0, 1.0, 1.0)},
        {"sampling_ratio": 2},
        {"anchor_offset": 0.5},
        {"norm_epsilon": 0.0},
        {"image_std": (0.229, 0.224, 0.225)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_detail_is_seen(wrong, pictures):
    case = "cascade_rcnn_resnet18"
    assert not equal(case, build(case, **wrong), pictures)


@pytest.mark.slow
def test_where_a_bottleneck_strides_is_seen(pictures):
    case = "faster_rcnn_resnet50"
    assert not equal(case, build(case, stride_in_1x1=False), pictures)


@pytest.mark.parametrize("case", ["mask_rcnn_resnet18", SLOW[0]])
def test_masks_are_theirs(case, pictures):
    """Of the ten best boxes; a pixel in a thousand may lie on the edge."""
    model = build(case)
    with torch.no_grad():
        found = model(batch_of(model, pictures))
    for i, (p, picture) in enumerate(zip(found, pictures, strict=True)):
        ours = p["masks"][:10]
        bits = np.unpackbits(reference(case)[f"{i}.masks"])[: ours.numel()]
        expected = torch.from_numpy(bits).view(len(ours), *picture.shape[1:]).bool()
        assert expected.flatten(1).any(1).sum() >= 5
        assert (ours != expected).sum() <= 1e-3 * expected.sum()


def target_of(shared_data, picture: int) -> dict[str, Tensor]:
    return target_within(shared_data, picture, SIZES[picture], 8)


def losses_of(case, model, pictures, shared_data, monkeypatch) -> dict[str, float]:
    sample_the_first(monkeypatch)
    targets = [target_of(shared_data, i) for i in range(2)]
    with torch.no_grad():
        losses = train_with_fixed_norms(model)(batch_of(model, pictures, targets))
    return {name: float(value) for name, value in losses.items()}


def their_losses(case: str) -> dict[str, object]:
    return {
        LOSSES[key.removeprefix("losses.")]: pytest.approx(float(value), rel=1e-4)
        for key, value in reference(case).items()
        if key.startswith("losses.")
    }


@pytest.mark.parametrize("case", [*QUICK[:2], *SLOW])
def test_losses_are_theirs(case, pictures, shared_data, monkeypatch):
    expected = their_losses(case)
    assert len(expected) >= 4
    assert losses_of(case, build(case), pictures, shared_data, monkeypatch) == expected


@pytest.mark.parametrize("wrong", [{"ious": (0.5, 0.5, 0.5)}, {"head_beta": 1 / 9}])
def test_a_wrong_detail_of_the_losses_is_seen(wrong, pictures, shared_data, monkeypatch):
    case = "cascade_rcnn_resnet18"
    found = losses_of(case, build(case, **wrong), pictures, shared_data, monkeypatch)
    assert found != their_losses(case)


def test_the_readers_report_is_complete():
    case = "cascade_rcnn_resnet18"
    model = build(case)
    assert len(model.load_report.loaded) == len(weights(case)) and not model.load_report.missing
    assert model.classes[0] == "person" and len(model.classes) == 80
    assert model.config.image_mean[0] == pytest.approx(123.675 / 255)  # red first
    report = load_weights(model, {name: t.clone() for name, t in weights(case).items()})
    assert not report.left_out


def test_a_key_left_over_is_named():
    state = {name: t.clone() for name, t in weights("cascade_rcnn_resnet18").items()}
    state["roi_heads.box_head.0.fc9.weight"] = torch.zeros(1)
    with pytest.raises(EyelineError, match=r"fc9\.weight"):
        create_model(weights=state)
