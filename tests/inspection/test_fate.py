"""The story told is true: a case is planted for each rule, and the fate names exactly it.

Boxes are planted in what the network says; the detector's own steps then do the rest.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import eyeline
from eyeline.errors import EyelineError
from eyeline.inspection.fate import Fate, fates, origin, story
from eyeline.inspection.xray import XRay, xray
from eyeline.ops.deltas import encode

SIZE = 128
NAMES = ["ant", "bee", "cat"]
OBJECT = (20.0, 20.0, 60.0, 60.0)  # where not said otherwise, of class 1
FAR = (80.0, 80.0, 120.0, 120.0)
NOWHERE = torch.tensor([0.0, 0.0, -20.0, -20.0])  # makes a point of an anchor
SAYS = tuple[tuple[float, ...], float, int]  # a box, its score and its class


def logit(score: float) -> float:
    return float(torch.logit(torch.tensor(score)))


def one_stage(says: list[SAYS], **options: Any) -> Any:
    """A RetinaNet whose finest level says these boxes, each at an anchor of its own."""
    model = eyeline.create_model(
        "retinanet", classes=NAMES, backbone="resnet18", size=SIZE, max_size=SIZE, **options
    )
    heads = model.heads

    def planted(images: Tensor) -> Any:
        logits, deltas, anchors = heads(images)
        logits = [torch.full_like(level, -20.0) for level in logits]
        deltas = [NOWHERE.expand_as(level).clone() for level in deltas]
        for i, (box, score, label) in enumerate(says):
            logits[0][0, i, label] = logit(score)
            deltas[0][0, i] = encode(torch.tensor([box]), anchors[0][i : i + 1])[0]
        return logits, deltas, anchors

    model.heads = planted
    return model


def two_stages(
    proposed: list[tuple[tuple[float, ...], float]],
    classes: dict[int, float],
    move: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
    **options: Any,
) -> Any:
    """A Faster R-CNN whose RPN proposes these boxes with these scores, and whose head says of
    every region the same: probabilities of classes, and how to move it."""
    model = eyeline.create_model(
        "faster_rcnn", classes=NAMES, backbone="resnet18", size=SIZE, max_size=SIZE, **options
    )
    rpn = model.rpn.forward
    seen: dict[str, list[Tensor]] = {}
    anchors_of = model.rpn.anchors.forward

    def anchors(levels: list[Tensor], size: Any) -> list[Tensor]:
        seen["anchors"] = anchors_of(levels, size)
        return seen["anchors"]

    def said(levels: list[Tensor]) -> Any:
        logits, deltas = rpn(levels)
        logits = [torch.full_like(level, -20.0) for level in logits]
        deltas = [NOWHERE.expand_as(level).clone() for level in deltas]
        for i, (box, score) in enumerate(proposed):
            logits[0][0, i] = logit(score)
            deltas[0][0, i] = encode(torch.tensor([box]), seen["anchors"][0][i : i + 1])[0]
        return logits, deltas

    def head(regions: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.full((len(NAMES) + 1,), 1e-6)
        for label, score in classes.items():
            scores[label] = score
        scores[-1] = 1 - sum(classes.values())
        moves = torch.tensor(move) * torch.tensor(model.config.box_weights)
        return scores.log().expand(len(regions), -1), moves.expand(len(regions), len(NAMES), 4)

    model.rpn.anchors.forward, model.rpn.forward, model.head.forward = anchors, said, head
    return model


def look(model: Any, *objects: tuple[float, ...], labels: list[int] | None = None) -> XRay:
    image = torch.rand(3, SIZE, SIZE)
    boxes = torch.tensor(objects or [OBJECT])
    return xray(model, image, {"boxes": boxes, "labels": torch.tensor(labels or [1] * len(boxes))})


def fate_of(x: XRay, number: int = 0) -> tuple[Fate, str]:
    fate = fates(x)[number]
    return fate, story(x, fate, NAMES)


def test_found() -> None:
    x = look(one_stage([(OBJECT, 0.9, 1)]))
    fate, text = fate_of(x)
    assert (fate.detection, fate.rule) == (0, None)
    assert fate.iou == pytest.approx(1.0, abs=1e-4)
    assert text == "Found by detection 0, which overlaps it by 1.00."
    steps = origin(x, 0)
    assert [step.row for step in steps] == [0, 0, 0] and steps[-1].label == 1
    assert [step.score for step in steps] == pytest.approx([0.9] * 3, abs=1e-5)
    anchor = x.anchor(0)
    assert (anchor.level, anchor.y, anchor.x, anchor.shape) == (0, 0, 0, 0)


def test_below_the_score_threshold() -> None:
    fate, text = fate_of(look(one_stage([(OBJECT, 0.03, 1)])))
    assert (fate.rule, fate.stage, fate.rules) == ("score", 1, {"score": 1})
    assert text == "Its best candidate (IoU 1.00) gave bee 0.030; it takes more than 0.05."


def test_taken_for_another_class() -> None:
    fate, text = fate_of(look(one_stage([(OBJECT, 0.8, 2)])))
    assert (fate.rule, fate.stage) == ("class", 1)
    assert text == "Its best candidate (IoU 1.00) is cat with 0.80, bee with 0.000."


def test_not_among_the_best() -> None:
    fate, text = fate_of(look(one_stage([(FAR, 0.9, 1), (OBJECT, 0.6, 1)], candidates=1)))
    assert (fate.rule, fate.stage, fate.score) == ("top-k", 1, pytest.approx(0.6, abs=1e-5))
    assert text.endswith("scored 0.600, which is not among the best 1.")


def test_suppressed() -> None:
    better = (60.0, 0.0, 160.0 - 32, 40.0)  # (60 .. 128), and its rival reaches 30 .. 98
    rival, missed = (30.0, 0.0, 98.0, 40.0), (8.0, 0.0, 76.0, 40.0)
    model = one_stage([(better, 0.9, 1), (rival, 0.8, 1)], nms_iou=0.35)
    x = look(model, missed)
    fate, text = fate_of(x)
    assert (fate.rule, fate.stage, fate.rules) == ("nms", 2, {"nms": 1})
    assert fate.by is not None and fate.by.score == pytest.approx(0.9, abs=1e-5)
    assert fate.by_iou == pytest.approx(38 / 98, abs=1e-4)
    assert "(0.90) by 0.39, and 0.35 is allowed" in text
    assert x.suppressed_by(0) == [(1, pytest.approx(38 / 98, abs=1e-4))]


def test_suppressed_by_another_class_only_where_classes_share() -> None:
    says: list[SAYS] = [(OBJECT, 0.9, 2), (OBJECT, 0.8, 1)]
    assert fate_of(look(one_stage(says)))[0].detection == 1
    fate, _ = fate_of(look(one_stage(says, class_agnostic_nms=True)))
    assert fate.rule == "nms" and fate.by is not None and fate.by.label == 2


def test_beyond_the_limit() -> None:
    fate, text = fate_of(look(one_stage([(FAR, 0.9, 1), (OBJECT, 0.6, 1)], max_detections=1)))
    assert (fate.rule, fate.stage) == ("limit", 2)
    assert text.endswith("came after the best 1.")


def test_sunk_below_the_floor_of_soft_nms() -> None:
    says: list[SAYS] = [((20, 20, 60, 60), 0.9, 1), ((20, 20, 60, 61), 0.3, 1)]
    # Two objects so that the first does not count for the second.
    x = look(one_stage(says, nms="soft_linear", nms_floor=0.2), OBJECT, OBJECT)
    assert [fate.rule for fate in fates(x)] == [None, "taken"]
    assert x.stages[-1].dropped["nms"].tolist()[:2] == [False, True]


def test_shared_with_another_object() -> None:
    x = look(one_stage([(OBJECT, 0.9, 1)]), OBJECT, (22.0, 22.0, 62.0, 62.0))
    first, second = fates(x)
    assert (first.detection, second.rule) == (0, "taken")
    assert "has found another object" in story(x, second, NAMES)


def test_never_proposed() -> None:
    fate, text = fate_of(look(one_stage([]), (3.0, 3.0, 5.0, 5.0)))
    assert (fate.rule, fate.stage, fate.detection) == ("never", 0, None)
    assert text.startswith("No anchor's box overlaps it by 0.5; the nearest does by 0.0")


def test_crowds_have_no_fate() -> None:
    target = {
        "boxes": torch.tensor([OBJECT, FAR]),
        "labels": torch.tensor([1, 1]),
        "iscrowd": torch.tensor([True, False]),
    }
    found = fates(xray(one_stage([(OBJECT, 0.9, 1)]), torch.rand(3, SIZE, SIZE), target))
    assert [(fate.object, fate.rule) for fate in found] == [(1, "never")]


def test_without_an_annotation_there_is_no_fate() -> None:
    with pytest.raises(EyelineError, match="give xray"):
        fates(xray(one_stage([]), torch.rand(3, SIZE, SIZE)))


@pytest.mark.parametrize(
    ("sure", "bee", "rule", "told"),
    [
        (0.003, 0.9, "objectness", "hardly an object with 0.003; below 0.005 it is dropped, "
         "whatever its class (bee 0.900)."),
        (0.9, 0.04, "score", "gave bee 0.040; it takes more than 0.05."),  # not their product
        (0.02, 0.9, None, "Found by detection 0, which overlaps it by 1.00."),
    ],
)  # fmt: skip
def test_a_yolo_that_chooses_by_class(sure: float, bee: float, rule: str | None, told: str) -> None:
    model: Any = eyeline.create_model(
        "yolov3_tiny", classes=NAMES, backbone="resnet18", size=64, neck_width=16,
        convention="mmdetection",
    )  # fmt: skip
    heads, row = model.heads, 30

    def planted(images: Tensor) -> Any:
        outputs, anchors = heads(images)
        outputs = [torch.full_like(level, -20.0) for level in outputs]
        outputs[0][0, row] = torch.tensor([0.0] * 4 + [logit(sure), -20, logit(bee), -20])
        outputs[0][0, :, :4] = 0
        return outputs, anchors

    model.heads = planted
    image = torch.rand(3, 64, 64)
    box = xray(model, image).stages[0].boxes[row]
    x = xray(model, image, {"boxes": box[None], "labels": torch.tensor([1])})
    fate, text = fate_of(x)
    assert fate.rule == rule and text.partition(" Other")[0].endswith(told)
    if rule:
        assert fate.step is not None and fate.step.row == row


# ---- two stages


def test_two_stages_found() -> None:
    x = look(two_stages([(OBJECT, 0.9)], {1: 0.7}))
    fate, _ = fate_of(x)
    assert fate.detection == 0
    names = [stage.name.split(",")[0] for stage in x.stages]
    assert names == [
        "boxes of all anchors", "best of each level", "proposals", "regions and their classes",
        "candidates over the threshold", "detections",
    ]  # fmt: skip
    assert [step.score for step in origin(x, 0)] == pytest.approx([0.9] * 3 + [0.7] * 3, abs=1e-4)


def test_proposal_not_among_the_best_of_its_level() -> None:
    model = two_stages([(FAR, 0.9), (OBJECT, 0.6)], {1: 0.7}, proposals_before_nms=(1, 1))
    fate, text = fate_of(look(model))
    assert (fate.rule, fate.stage) == ("top-k", 1)
    assert "not among the best 1." in text


def test_proposal_too_small() -> None:
    tiny = (10.0, 10.0, 10.0005, 60.0)
    x = look(two_stages([(tiny, 0.9)], {1: 0.7}), tiny)
    fate, text = fate_of(x)
    assert (fate.rule, fate.stage) == ("size", 2)
    assert text.endswith("has a side too short to count.")


def test_proposal_suppressed() -> None:
    better, rival = (60.0, 0.0, 128.0, 40.0), (30.0, 0.0, 98.0, 40.0)
    missed = (8.0, 0.0, 76.0, 40.0)
    model = two_stages([(better, 0.9), (rival, 0.8)], {1: 0.7}, rpn_nms_iou=0.35)
    fate, text = fate_of(look(model, missed))
    assert (fate.rule, fate.stage) == ("nms", 2)
    assert "(0.90) by 0.39, and 0.35 is allowed" in text


def test_proposal_beyond_the_limit() -> None:
    model = two_stages([(FAR, 0.9), (OBJECT, 0.6)], {1: 0.7}, proposals=(1, 1))
    fate, _ = fate_of(look(model))
    assert (fate.rule, fate.stage) == ("limit", 2)


@pytest.mark.parametrize(("classes", "rule"), [({1: 0.04}, "score"), ({1: 0.04, 2: 0.9}, "class")])
def test_region_of_another_class_or_none(classes: dict[int, float], rule: str) -> None:
    fate, _ = fate_of(look(two_stages([(OBJECT, 0.9)], classes)))
    assert (fate.rule, fate.stage) == (rule, 4)


def test_region_moved_off_the_object() -> None:
    x = look(two_stages([(OBJECT, 0.9)], {1: 0.7}, move=(1.0, 0.0, 0.0, 0.0)))
    fate, text = fate_of(x)
    assert (fate.rule, fate.stage) == ("moved", 4)
    assert text == "Its best candidate (IoU 1.00) was moved off it by the next regression."


def test_detection_too_small() -> None:
    tiny = (10.0, 10.0, 10.005, 60.0)
    fate, _ = fate_of(look(two_stages([(tiny, 0.9)], {1: 0.7}), tiny))
    assert (fate.rule, fate.stage) == ("size", 5)
