"""The same weights, the same boxes, masks and losses as mmdetection's own modelling code.

`make_mmdetection.py` made the references. Detections agree within 0.01 px and 1e-4, losses within
1e-4 relatively.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

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
from torch import Tensor, nn

from eyeline.checkpoints import mmdetection
from eyeline.data.images import read_image
from eyeline.detectors.ssd import default_boxes
from eyeline.registry import create_model
from eyeline.structures import Batch

HERE = Path(__file__).parent
SIZES = ((320, 256), (224, 320))
RETINANET, CASCADE, SSD = "retinanet_resnet18", "cascade_mask_rcnn_resnet18", "ssd300"
SLOW = [
    pytest.param(case, marks=pytest.mark.slow)
    for case in ("mask_rcnn_resnet18", "faster_rcnn_resnet50", "yolov3")
]
LOSSES = {
    "loss_rpn_cls": "rpn_objectness", "loss_rpn_bbox": "rpn_box", "loss_mask": "mask",
    "loss_cls": "classification", "loss_bbox": "box", "s0.loss_cls": "classification",
    "s0.loss_bbox": "box", "s0.loss_mask": "mask",
}  # fmt: skip


def reference(case: str) -> dict[str, np.ndarray]:
    return stored(f"mmdetection_{case}")


@cache
def weights(case: str) -> dict[str, Tensor]:
    """The state dict that mmdetection had."""
    shapes = json.loads((HERE / "mmdetection.json").read_text())[case]
    return filled(f"mmdetection_{case}", shapes)


def build(case: str, **options: Any) -> nn.Module:
    state = {name: tensor.clone() for name, tensor in weights(case).items()}
    whole = {"state_dict": state, "meta": {"cfg": str(reference(case)["config"])}}
    model: Any = create_model(weights=whole, **options).eval()
    assert model.name == case.rpartition("_resnet")[0] or model.name == case
    return model


@pytest.fixture
def pictures(shared_data: Path) -> list[Tensor]:
    """Cut to the size that the network sees: nothing is resized, but for SSD."""
    folder = shared_data / "tiny_coco" / "val2017"
    return [
        read_image(folder / f"{name}.jpg")[:, :h, :w]
        for name, (h, w) in zip(PICTURES, SIZES, strict=True)
    ]


def batch_of(model: Any, pictures: list[Tensor], targets: list[Any] | None = None) -> Batch:
    given = targets or [
        {
            "boxes": torch.zeros(0, 4),
            "labels": torch.zeros(0, dtype=torch.int64),
            "masks": torch.zeros(0, *picture.shape[1:], dtype=torch.bool),
        }
        for picture in pictures
    ]
    if not model.name.startswith("ssd"):
        given = [target | {"resized": torch.tensor(True)} for target in given]
    batch: Batch = model.prepare(pictures, given)
    if targets is None:
        batch.targets = None
    return batch


def theirs(case: str, picture: int) -> dict[str, Tensor]:
    found = reference(case)
    return {k: torch.from_numpy(found[f"{picture}.{k}"]) for k in ("boxes", "scores", "labels")}


def found_by(case: str, pictures: list[Tensor], **options: Any) -> tuple[bool, list[Any]]:
    """Whether the detections are theirs, and the detections."""
    model = build(case, **options)
    with torch.no_grad():
        found = model(batch_of(model, pictures))
    same = all(agree(p, theirs(case, i), list(range(80))) for i, p in enumerate(found))
    return same, found


def masks_agree(case: str, found: list[Any], pictures: list[Tensor]) -> bool:
    """Of the ten best boxes; a pixel in a thousand may lie on the edge."""
    same = []
    for i, (p, picture) in enumerate(zip(found, pictures, strict=True)):
        ours = p["masks"][:10]
        bits = np.unpackbits(reference(case)[f"{i}.masks"])[: ours.numel()]
        expected = torch.from_numpy(bits).view(len(ours), *picture.shape[1:]).bool()
        assert expected.flatten(1).any(1).sum() >= 5
        same.append(bool((ours != expected).sum() <= 1e-3 * expected.sum()))
    return all(same)


@pytest.mark.parametrize("case", [RETINANET, CASCADE, SSD, *SLOW])
def test_detections_and_masks_are_theirs(case: str, pictures: list[Tensor]) -> None:
    assert all(len(theirs(case, i)["boxes"]) >= 10 for i in range(2))
    same, found = found_by(case, pictures)
    assert same
    if "mask" in case:
        assert masks_agree(case, found, pictures)


@pytest.mark.parametrize(
    ("case", "wrong"),
    [
        (RETINANET, {"anchor_offset": 0.5}),
        (CASCADE, {"averaged": "scores"}),
        (CASCADE, {"stage_weights": ()}),
        (CASCADE, {"sampling_ratio": 2}),
        pytest.param(SSD, {"box_strides": ()}, marks=pytest.mark.slow),
        pytest.param("faster_rcnn_resnet50", {"stride_in_1x1": False}, marks=pytest.mark.slow),
        pytest.param("yolov3", {"chosen_by": "score"}, marks=pytest.mark.slow),
        pytest.param("yolov3", {"clipped": True}, marks=pytest.mark.slow),
    ],
    ids=lambda given: given if isinstance(given, str) else next(iter(given)),
)
def test_a_wrong_detail_is_seen(case: str, wrong: dict[str, Any], pictures: list[Tensor]) -> None:
    assert not found_by(case, pictures, **wrong)[0]


def target_of(shared_data: Path, picture: int) -> dict[str, Tensor]:
    return target_within(shared_data, picture, SIZES[picture], 20)


@pytest.mark.parametrize("case", [RETINANET, CASCADE, SSD, *SLOW[:2]])
def test_losses_are_theirs(
    case: str, pictures: list[Tensor], shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the second picture, in which objects are. Theirs weighs a cascade's later stages, and
    leaves the objects out of them: of those nothing is compared."""

    model = train_with_fixed_norms(build(case))
    sample_the_first(monkeypatch)
    batch = batch_of(model, pictures[1:], [target_of(shared_data, 1)])
    with torch.no_grad():
        losses = model(batch)
    expected = {
        LOSSES[name]: pytest.approx(float(value), rel=1e-4)
        for key, value in reference(case).items()
        if (name := key.removeprefix("1.losses.")) in LOSSES
    }
    if case == CASCADE:  # whose RPN leaves out anchors that cross the picture's border
        expected = {k: v for k, v in expected.items() if not k.startswith("rpn")}
    if case.startswith("mask"):  # 3e-4 apart
        expected["classification"] = pytest.approx(expected["classification"].expected, rel=5e-4)
    assert len(expected) >= 2 and expected["box"] != 0
    assert {name: float(losses[name]) for name in expected} == expected


def test_the_coarsest_level_has_no_relu_before_it(pictures: list[Tensor]) -> None:
    """As theirs by default; on so small pictures nothing that is compared above hangs on P7."""
    model: Any = build(RETINANET)
    with torch.no_grad():
        levels = model.fpn(model.backbone(batch_of(model, pictures).images)[1:])
        assert (levels[-2] < 0).any() and levels[-1].abs().max() > 0
        torch.testing.assert_close(levels[-1], model.fpn.extra[1](levels[-2]))
    assert not torch.allclose(levels[-1], model.fpn.extra[1](levels[-2].relu()))


@pytest.mark.parametrize("name", ["ssd300", "ssd512"])
def test_default_boxes_are_theirs(name: str) -> None:
    """About the middle of the first cell of each map."""
    size, maps = int(name[3:]), 6 if name == "ssd300" else 7
    scales = mmdetection.ssd_scales(name, *mmdetection.SSD_PERCENTS[name, False])
    model: Any = create_model(name, num_classes=2, width=4, convention="mmdetection")
    strides = mmdetection.SSD_STRIDES[name]
    cells = default_boxes(scales, model.config.box_ratios)
    assert len(cells) == len(strides) == maps
    for i, (cell, stride) in enumerate(zip(cells, strides, strict=True)):
        expected = torch.from_numpy(reference(SSD)[f"{name}.{i}"])
        assert ((size * cell + stride / 2) - expected).abs().max() < 1e-3


def test_the_readers_report_is_complete() -> None:
    model: Any = build(CASCADE)
    report = model.load_report
    assert not report.missing and all("num_batches" in key for key in report.left_out)
    assert len(report.loaded) + len(report.left_out) == len(weights(CASCADE))
    assert model.classes[0] == "person" and len(model.classes) == 80
    c = model.config
    assert (c.convention, c.norm, c.stride_in_1x1) == ("mmdetection", "frozen", False)
    assert (c.min_size, c.max_size, c.proposals) == (800, 1333, (400, 200))
    assert c.image_mean[0] == pytest.approx(123.675 / 255)
