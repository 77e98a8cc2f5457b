"""The last step of every registered detector can be exchanged."""

from __future__ import annotations

import pytest
import torch
from tests.training.toys import known

from eyeline.inference.options import set_suppression
from eyeline.inference.tta import TTA, Augmented, Pass
from eyeline.registry import find, list_models

DETECTORS = list_models("detection")
SMALL = dict(
    num_classes=3, backbone="resnet18", min_size=64, max_size=96, score_threshold=0.001,
    max_detections=200,
)  # fmt: skip
NARROW = dict(fpn_channels=64, head_width=64, mask_width=16, tcb_channels=64, neck_width=64)


@pytest.fixture(scope="module", params=DETECTORS)
def model(request):
    torch.manual_seed(0)
    # Fresh boxes of one prior a cell hardly meet.
    few = {"nms_iou": 0.1 if request.param.startswith("yolo") else 0.3}
    few |= {"size": 64} if request.param == "yolov1" else {}
    model = find(request.param).build(**SMALL | known(request.param, NARROW) | few).eval()
    if request.param == "yolov1":  # what it says are roots of shares: fresh, of nearly nothing
        torch.nn.init.constant_(model.output.bias, 0.5)
    return model


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, 64, 80), generator=generator, dtype=torch.uint8)]


@torch.no_grad()
def predict(model, images, **options):
    before = model.config
    set_suppression(model, options)
    (found,) = model(images)
    model.config = before
    return found


def test_every_option_reaches_the_last_step(model, images):
    plain = predict(model, images)
    assert len(plain["boxes"])
    assert (plain["scores"].diff() <= 0).all()
    for options in (
        {"nms": "soft_linear"},
        {"nms": "soft_gaussian", "nms_sigma": 0.1},
        {"vote_iou": 0.3},
        {"nms_iou": 0.9},
        {"class_agnostic_nms": True},
    ):
        found = predict(model, images, **options)
        same = plain["boxes"].shape == found["boxes"].shape and torch.equal(
            plain["boxes"], found["boxes"]
        )
        assert not same, options
        assert (found["scores"].diff() <= 0).all()
        assert torch.equal(found["scores"][0], plain["scores"][0])
    high = predict(model, images, nms="soft_linear", nms_floor=0.009)
    assert (high["scores"] >= 0.009).all()


@pytest.mark.slow  # that all compile with hard suppression is told by test_every_detector.py
def test_soft_nms_and_voting_compile_whole(model, images):
    before = model.config
    set_suppression(model, {"nms": "soft_gaussian", "vote_iou": 0.5})
    batch = model.prepare(images)
    torch._dynamo.reset()
    compiled = torch.compile(model.compute, fullgraph=True, backend="eager")
    with torch.no_grad():
        ours, theirs = model.compute(batch), compiled(batch)
    model.config = before
    assert theirs.boxes.shape == (1, 200, 4) and ours.valid.any()
    (a,), (b,) = model.finish(ours, batch), model.finish(theirs, batch)
    torch.testing.assert_close(a["scores"], b["scores"], atol=1e-5, rtol=0)
    torch.testing.assert_close(a["boxes"], b["boxes"], atol=1e-2, rtol=0)


@torch.no_grad()
def test_augmentation(model, images):
    (plain,) = model(images)
    (one,) = Augmented(model, TTA((Pass(),)))(images)
    assert all(torch.equal(one[key], value) for key, value in plain.items())
    (two,) = Augmented(model, TTA((Pass(), Pass(flip=True))))(images)
    (back,) = Augmented(model, TTA((Pass(), Pass(flip=True))))([images[0].flip(-1)])
    assert 0 < len(two["boxes"]) <= 200 and set(two) == set(plain)
    # mirrored pictures get the mirrored result: both passes are made either way
    torch.testing.assert_close(two["scores"], back["scores"], atol=1e-4, rtol=0)
