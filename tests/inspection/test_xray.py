"""The x-ray shows what happened, changes nothing, and costs nothing where nobody looks."""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import eyeline
from eyeline.errors import EyelineError
from eyeline.inspection.profile import fixed_size, objects, picture, wake
from eyeline.inspection.xray import XRay, xray
from eyeline.note import note
from eyeline.ops.boxes import clip
from eyeline.ops.deltas import decode
from eyeline.ops.iou import box_iou

DETECTORS = eyeline.list_models(task="detection")
SIZE = (96, 128)


@pytest.fixture(scope="module", params=DETECTORS)
def woken(request: pytest.FixtureRequest) -> Any:
    """A small detector that finds things, a picture and its annotation."""
    torch.manual_seed(0)
    # A map of these has one scale of boxes, which overlap less: more, to see some suppressed.
    most = 50 if request.param.startswith(("refinedet", "ssd", "yolo")) else 20
    few = {"nms_iou": 0.2} if request.param.startswith("yolo") else {}
    if request.param == "yolov1":
        few = {"size": 96, "neck_width": 64, "head_width": 64, "nms_iou": 0.1}
    few |= {"mask_width": 32} if "mask" in request.param else {}
    model: Any = eyeline.create_model(
        request.param, num_classes=3, backbone="resnet18", max_detections=most, **few
    )
    if request.param == "yolov1":  # what it says are roots of shares: fresh, of nearly nothing
        torch.nn.init.constant_(model.output.bias, 0.5)
    fixed_size(model, SIZE)
    target = objects(SIZE, 0, 3, masks=True)
    wake(model, [picture(SIZE, 0)], [target])
    return model.eval(), picture(SIZE, 0), target


@pytest.fixture(scope="module")
def seen(woken: Any) -> XRay:
    return xray(*woken)


def test_watching_changes_nothing(woken: Any, seen: XRay) -> None:
    model, image, target = woken
    with torch.no_grad():
        plain = model([image])[0]
        losses = model([image], [target])
    assert len(plain["boxes"]) > 3
    assert plain.keys() == seen.prediction.keys()
    assert all(torch.equal(plain[key], seen.prediction[key]) for key in plain)
    assert seen.learning is not None
    assert {key: float(loss) for key, loss in losses.items()} == seen.learning.losses


def test_the_last_stage_is_what_came_out(seen: XRay) -> None:
    last = seen.stages[-1]
    assert last.labels is not None
    boxes = seen.to_picture(last.boxes[last.valid])
    torch.testing.assert_close(boxes, seen.prediction["boxes"], rtol=0, atol=0)
    assert torch.equal(last.scores[last.valid], seen.prediction["scores"])
    assert torch.equal(last.labels[last.valid], seen.prediction["labels"])


def test_every_candidate_is_kept_or_dropped_by_one_rule(seen: XRay) -> None:
    assert len(seen.stages) >= 3
    for before, after in pairwise(seen.stages):
        assert after.parent is not None
        kept = torch.zeros(len(before.boxes), dtype=torch.int64)
        kept[after.parent[after.valid]] = 1
        if not after.dropped:  # the same rows, looked at once more
            assert torch.equal(kept > 0, before.valid)
            continue
        ends = kept + sum(mask.long() for mask in after.dropped.values())
        assert torch.equal(ends[before.valid], torch.ones_like(ends[before.valid])), after.name
        assert not ends[~before.valid].any()
        assert set(after.limits) <= set(after.dropped)


def test_scores_rise_to_the_suppressor_and_the_iou_is_theirs(seen: XRay) -> None:
    looked = 0
    for before, after in pairwise(seen.stages):
        if after.suppressor is None or after.overlap is None:
            continue
        rows = (after.suppressor >= 0).nonzero()[:, 0]
        assert torch.equal(rows, after.dropped["nms"].nonzero()[:, 0])
        by = after.suppressor[rows]
        assert (before.scores[by] >= before.scores[rows]).all()
        iou = box_iou(before.boxes[by], before.boxes[rows]).diagonal()
        torch.testing.assert_close(after.overlap[rows], iou, rtol=0, atol=1e-5)
        assert (after.overlap[rows] > after.limits["nms"]).all()
        looked += len(rows)
    assert looked > 10


def of_boxes(seen: XRay) -> int:
    """The first stage whose boxes the network has moved for good; RefineDet shows the anchors
    themselves before, and what its first step makes of them."""
    return 2 if torch.equal(seen.stages[0].boxes, torch.cat(seen.anchors)) else 0


def test_a_detection_leads_back_to_its_anchor(woken: Any, seen: XRay) -> None:
    first = of_boxes(seen)
    for detection in range(len(seen.prediction["boxes"])):
        rows = seen.rows(detection)
        assert len(rows) == len(seen.stages)
        assert all(stage.valid[row] for stage, row in zip(seen.stages, rows, strict=True))
        anchor = seen.anchor(rows[0])
        centre = (anchor.box[:2] + anchor.box[2:]) / 2
        high, wide = seen.grids[anchor.level]
        stride = torch.tensor([seen.batch.images.shape[2] / high] * 2)
        if type(seen.model).__name__ == "YOLOv1":  # as many cells each way, whatever the aspect
            stride[0] = seen.batch.images.shape[3] / wide
        cell = torch.tensor([anchor.x + 0.5, anchor.y + 0.5]) * stride
        torch.testing.assert_close(centre, cell, rtol=0, atol=1e-3)
        assert torch.equal(torch.cat(seen.anchors)[rows[0]], anchor.box)
        # Where the second stage is still far, the box is the anchor's, moved.
        before, after = seen.stages[first : first + 2]
        torch.testing.assert_close(after.boxes[rows[first + 1]], before.boxes[rows[first]])


def test_suppressed_boxes_are_of_this_detection(seen: XRay) -> None:
    stage = seen.stages[-2]
    total = 0
    for detection, box in enumerate(seen.stages[-1].boxes[seen.stages[-1].valid]):
        rows = seen.suppressed_by(detection)
        total += len(rows)
        for row, iou in rows:
            assert float(box_iou(box[None], stage.boxes[row : row + 1])) == pytest.approx(iou)
    assert total == int(seen.stages[-1].dropped["nms"].sum())


def test_learning_is_what_the_loss_saw(woken: Any, seen: XRay) -> None:
    _, _, target = woken
    assert seen.learning is not None
    found, anchors = seen.learning.assignment, torch.cat(seen.anchors)
    torch.testing.assert_close(found.boxes, target["boxes"])  # the picture keeps its size
    iou = box_iou(found.boxes, anchors)
    assert (iou.amax(0)[found.matches == -1] < found.background).all()
    positive = found.matches >= 0
    assert positive.any()
    assert (iou.amax(0) >= found.foreground)[~positive].sum() == 0
    sample = seen.learning.sample
    if sample is not None:
        assert (found.matches[sample.positive] >= 0).all()
        assert (found.matches[sample.negative] == -1).all()


def test_values_are_plain_tensors_under_their_names(seen: XRay) -> None:
    for name, value in seen.values.items():
        parts = value if isinstance(value, (list, tuple)) else [value]
        assert all(isinstance(part, torch.Tensor) for part in parts), name
    boxes = next(name for name in seen.values if name.endswith(": boxes"))
    assert seen.values[boxes].shape == (1, sum(map(len, seen.anchors)), 4)
    for name, line in seen.lines.items():
        text = line.path.read_text(encoding="utf-8").splitlines()
        # The statement begins there, or just above, with `note(`.
        near = "\n".join(text[max(0, line.number - 2) : line.number + 1])
        assert "note(" in near, (name, line)


def test_the_mode_and_weights_stay(woken: Any) -> None:
    model, image, _ = woken
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    model.backbone.eval()  # as frozen parts are
    modes = {name: module.training for name, module in model.named_modules()}
    xray(model, image)
    assert modes == {name: module.training for name, module in model.named_modules()}
    model.eval()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def operators(model: Any, image: torch.Tensor) -> list[str]:
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as found:
        model([image])
    return [event.name for event in found.events()]


def test_without_a_watcher_nothing_is_computed(woken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators are those of the same code without any `note`."""
    model, image, _ = woken
    with_note = operators(model, image)
    users = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("eyeline.") and getattr(module, "note", None) is note
    ]
    assert len(users) > 3
    for module in users:
        monkeypatch.setattr(module, "note", lambda name, value, *more: value)
    assert operators(model, image) == with_note
    # The search can fail: a note that computes something is seen.
    for module in users:
        monkeypatch.setattr(module, "note", lambda name, value, *more: (torch.ones(1), value)[1])
    assert operators(model, image) != with_note


def test_notes_take_less_than_a_thousandth_of_inference(
    woken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, image, _ = woken
    calls = 0

    def counted(name: str, value: Any, *more: Any) -> Any:
        nonlocal calls
        calls += 1
        return value

    users = [m for n, m in list(sys.modules.items()) if n.startswith("eyeline.")]
    with monkeypatch.context() as patch:
        for module in users:
            if getattr(module, "note", None) is note:
                patch.setattr(module, "note", counted)
        with torch.no_grad():
            start = time.perf_counter()
            model([image])
            inference = time.perf_counter() - start
    given = [torch.zeros(1)] * 8
    start = time.perf_counter()
    for _ in range(10_000):
        note("a name", given, None, *given)
    one = (time.perf_counter() - start) / 10_000
    assert calls >= 5
    assert one * calls < 1e-3 * inference


def test_what_is_no_detector_is_named() -> None:
    model = eyeline.create_model("resnet18", num_classes=3)
    with pytest.raises(EyelineError, match="ResNet is no detector"):
        xray(model, torch.rand(3, 64, 64))


def test_masks_that_are_missing_are_said(woken: Any) -> None:
    model, image, target = woken
    plain = {key: value for key, value in target.items() if key != "masks"}
    found = xray(model, image, plain)
    assert (found.learning is None) == model.needs_masks
    assert ("has no masks" in found.learning_missing) == model.needs_masks


def test_boxes_of_all_anchors_are_decoded_and_clipped(seen: XRay) -> None:
    """They lie inside the picture, and are not the anchors themselves."""
    boxes = seen.stages[of_boxes(seen)].boxes
    inside = clip(boxes, seen.batch.sizes[0])
    assert torch.equal(boxes, inside)
    still = clip(decode(torch.zeros_like(boxes), torch.cat(seen.anchors)), seen.batch.sizes[0])
    assert not torch.equal(boxes, still)
