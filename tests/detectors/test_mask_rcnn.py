"""Mask R-CNN: what its losses see, what prepare checks, what predictions hold."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from eyeline.errors import EyelineError
from eyeline.nn.detector import Preprocess
from eyeline.nn.heads.mask import MaskHead, mask_loss, mask_targets, of_class
from eyeline.nn.heads.roi import Sampled
from eyeline.note import watch
from eyeline.registry import create_model

SMALL = dict(
    num_classes=3, backbone="resnet18", fpn_channels=16, head_width=32, mask_width=16,
    min_size=96, max_size=128, score_threshold=0.001, max_detections=8,
)  # fmt: skip


def build(**options):
    torch.manual_seed(0)
    return create_model("mask_rcnn", **{**SMALL, **options}).eval()


def disc(size, x, y, radius):
    down, across = torch.arange(size[0])[:, None] + 0.5, torch.arange(size[1]) + 0.5
    return (down - y) ** 2 + (across - x) ** 2 < radius**2


SIZE = (90, 120)
IMAGE = torch.randint(0, 256, (3, *SIZE), generator=torch.Generator().manual_seed(0)).byte()
TARGET = {
    "boxes": torch.tensor([[10.0, 20, 50, 60], [60, 30, 110, 80]]),
    "labels": torch.tensor([2, 0]),
    "masks": torch.stack([disc(SIZE, 30, 40, 20), disc(SIZE, 85, 55, 25)]),
}


def test_the_loss_equals_a_slow_loop():
    logits = 3 * torch.randn(4, 3, 6, 6)
    labels, wanted = torch.tensor([2, 0, 0, 1]), torch.rand(4, 6, 6).round()
    total = 0.0
    for r in range(4):
        for y in range(6):
            for x in range(6):
                p = torch.sigmoid(logits[r, labels[r], y, x])
                total -= torch.log(p if wanted[r, y, x] else 1 - p).item()
    assert mask_loss(logits, labels, wanted, 2).item() == pytest.approx(total / (4 * 36), rel=1e-5)
    assert torch.equal(of_class(logits, labels)[3], logits[3, 1])


def test_only_the_true_class_s_mask_learns():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    mask_loss(logits, torch.tensor([1, 2]), torch.ones(2, 4, 4), 1).backward()
    assert logits.grad is not None
    assert logits.grad.flatten(2).any(2).tolist() == [[False, True, False], [False, False, True]]


def test_extreme_logits_and_no_region_stay_finite():
    far = mask_loss(torch.full((1, 1, 2, 2), 100.0), torch.tensor([0]), torch.zeros(1, 2, 2), 1)
    assert far.item() == pytest.approx(100)
    head = MaskHead(4, 3, width=8, depth=2)
    logits = head(torch.zeros(0, 4, 14, 14))
    assert logits.shape == (0, 3, 28, 28)
    loss = mask_loss(logits, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 28, 28), 1)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


def test_targets_are_cut_from_the_right_object_of_the_right_picture():
    one, two = TARGET, {**TARGET, "masks": TARGET["masks"].flip(0)}
    positive = Sampled(
        regions=TARGET["boxes"][[1, 0, 1]],
        picture=torch.tensor([0, 1, 1]),
        labels=torch.tensor([0, 2, 0]),
        index=torch.tensor([1, 0, 0]),
        objects=TARGET["boxes"][[1, 0, 0]],
        counts=torch.tensor([True, True, True]),
    )
    wanted = mask_targets([one, two], positive, 28, aligned=True, binary=True)
    assert set(wanted.unique().tolist()) == {0, 1}
    circle = torch.pi / 4
    assert wanted[0].mean().item() == pytest.approx(circle, abs=0.02)
    assert wanted[1].sum() == 0  # the other disc does not lie there
    assert wanted[2].mean().item() == pytest.approx(circle, abs=0.02)
    shares = mask_targets([one, two], positive, 28, aligned=True, binary=False)
    assert ((shares > 0) & (shares < 1)).any()
    assert torch.equal((shares >= 0.5).float(), wanted)


def test_positive_regions_alone_come_to_the_mask_head():
    model, seen = build(), {}
    with watch(lambda stage, value: seen.update({stage: value})), torch.no_grad():
        model([IMAGE], [TARGET])
    regions, labels = seen["sampled regions and their labels, sec. 3.1"]
    logits, wanted = seen["masks and what they should be, sec. 3"]
    count = int((labels < 3).sum())
    assert 0 < count < len(regions)
    assert logits.shape == (count, 3, 28, 28) and wanted.shape == (count, 28, 28)


def test_crowds_have_no_mask_loss():
    """With a crowd before them in the target, objects keep their own masks."""
    masks = torch.cat([torch.ones(1, *SIZE, dtype=torch.bool), TARGET["masks"]])
    crowd = {
        "boxes": torch.cat([torch.tensor([[0.0, 0, 5, 5]]), TARGET["boxes"]]),
        "labels": torch.tensor([1, 2, 0]),
        "iscrowd": torch.tensor([True, False, False]),
        "masks": masks,
    }
    model, seen = build(), {}
    with watch(lambda stage, value: seen.update({stage: value})), torch.no_grad():
        model([IMAGE], [crowd])
    _, labels = seen["sampled regions and their labels, sec. 3.1"]
    _, wanted = seen["masks and what they should be, sec. 3"]
    assert not (labels == 1).any()
    assert (wanted.flatten(1).mean(1) < 1).all()  # discs, not the crowd's full square


def test_prepare_resizes_masks_with_their_boxes():
    batch = build().prepare([IMAGE], [TARGET])
    assert batch.targets is not None
    masks, boxes = batch.targets[0]["masks"], batch.targets[0]["boxes"]
    assert masks.dtype == torch.bool
    assert masks.shape == (2, *batch.sizes[0].tolist()) == (2, 96, 128)
    rows = masks[0].any(1).nonzero()[:, 0]
    assert abs(rows[0] - boxes[0, 1]) <= 1 and abs(rows[-1] + 1 - boxes[0, 3]) <= 1
    wanted = F.interpolate(TARGET["masks"][None].float(), (96, 128), mode="nearest-exact")[0]
    assert torch.equal(masks.float(), wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": None}, "picture 0: the target has no masks"),
        ({"masks": TARGET["masks"][:1]}, r"picture 0: masks \(1, 90, 120\)"),
        ({"masks": TARGET["masks"][:, :80]}, r"picture 0: masks \(2, 80, 120\)"),
        ({"masks": TARGET["masks"].float()}, r"torch.float32, must be one bool mask"),
    ],
)
def test_bad_masks_are_named(change, message):
    target = {k: v for k, v in {**TARGET, **change}.items() if v is not None}
    with pytest.raises(EyelineError, match=message):
        build().prepare([IMAGE], [target])


def test_models_without_masks_leave_them_out():
    preprocess = Preprocess(3, 96, 128, (0.5,) * 3, (0.2,) * 3)
    batch = preprocess([IMAGE], [TARGET])
    assert batch.targets is not None and "masks" not in batch.targets[0]


def test_predictions_have_masks_of_the_picture_s_size():
    model = build()
    with torch.no_grad():
        batch = model.prepare([IMAGE])
        padded = model.compute(batch)
        [prediction] = model.finish(padded, batch)
    count = len(prediction["scores"])
    assert count > 0
    assert padded.masks.shape == (*padded.scores.shape, 28, 28)
    assert (padded.masks >= 0).all() and (padded.masks <= 1).all()
    assert prediction["masks"].shape == (count, *SIZE)
    # Nothing of a mask lies outside its box.
    for mask, (x1, y1, x2, y2) in zip(prediction["masks"], prediction["boxes"], strict=True):
        outside = mask.clone()
        outside[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1] = False
        assert not outside.any()


def test_probabilities_instead_of_masks():
    with torch.no_grad():
        [soft], [hard] = build(mask_threshold=None)([IMAGE]), build()([IMAGE])
        [strict] = build(mask_threshold=0.9)([IMAGE])
    assert soft["masks"].dtype == torch.float32
    assert torch.equal(soft["masks"] >= 0.5, hard["masks"])
    assert strict["masks"].sum() < hard["masks"].sum()


def test_the_mask_is_of_the_predicted_class():
    """Each class says its own constant."""
    model = build()
    torch.nn.init.zeros_(model.mask_head.classes.weight)
    model.mask_head.classes.bias.data = torch.tensor([-3.0, 0.5, 3.0])
    with torch.no_grad():
        padded = model.compute(model.prepare([IMAGE]))
    wanted = model.mask_head.classes.bias.detach().sigmoid()[padded.labels]
    assert padded.valid.any()
    torch.testing.assert_close(padded.masks.mean((2, 3)), wanted)
