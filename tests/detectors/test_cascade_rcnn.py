"""Cascade R-CNN: what each stage sees, learns and says, against loops in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from test_losses_against_loops import (
    IMAGE,
    TARGET,
    area,
    bent,
    iou,
    moved,
    overlap,
    split_target,
    wanted_deltas,
)

from eyeline.errors import EyelineError
from eyeline.nn.gradient import scaled_gradient
from eyeline.nn.heads.roi import label_regions, picture_index
from eyeline.note import watch
from eyeline.ops.matching import pad_objects
from eyeline.registry import create_model

SMALL = dict(
    num_classes=2, backbone="resnet18", norm="group", min_size=64, max_size=64, fpn_channels=32,
    head_width=48, proposals=(150, 80), proposals_before_nms=(200, 100), rpn_samples=64,
    anchor_sizes=(8, 16, 24, 32, 48),
)  # fmt: skip


def build(name="cascade_rcnn", noise=0.02, **options):
    """Parameters moved off their start, so that no term vanishes."""
    torch.manual_seed(0)
    model = create_model(name, **{**SMALL, **options}).eval()
    for parameter in model.parameters():
        parameter.data.add_(noise * torch.randn_like(parameter))
    return model


def clipped(box):
    return [min(max(x, 0.0), 64.0) for x in box]


@torch.no_grad()
def test_losses_equal_a_slow_loop():
    """Eq. 5 and 8: each stage's regions are the boxes of the one before, by its own u."""
    model = build(head_samples=10**6, head_positive_fraction=1.0)
    seen = {}
    with watch(lambda name, value: seen.setdefault(name.split(" and")[0], value)):
        losses = model([IMAGE], [TARGET])
    boxes, labels, crowd = split_target()
    levels = model.levels(model.prepare([IMAGE]).images)
    regions = seen["sampled regions"][0].tolist()
    assert [pair in regions for pair in boxes] == [True, True]  # sec. 5.1: the objects join
    given = seen["sampled regions"][1].tolist()
    names = [
        ("classification", "box"),
        ("classification_2", "box_2"),
        ("classification_3", "box_3"),
    ]
    for t, (u, (c, b)) in enumerate(zip((0.5, 0.6, 0.7), names, strict=True)):
        weights = [w * (t + 1) for w in (10, 10, 5, 5)]
        table = torch.tensor(regions)
        features = model.pool(levels, table, torch.zeros(len(table), dtype=torch.int64))
        logits, deltas = (part.tolist() for part in model.heads[t](features))
        class_loss = box_loss = 0.0
        after, positives = [], 0
        for region, label, scores, [moves] in zip(regions, given, logits, deltas, strict=True):
            overlaps = [iou(region, box) for box in boxes]
            best = max(range(2), key=overlaps.__getitem__)
            expected = labels[best] if overlaps[best] >= u else 2
            assert label == expected
            class_loss += math.log(sum(math.exp(s) for s in scores)) - scores[expected]
            if expected < 2:
                positives += 1
                truth = wanted_deltas(boxes[best], region, weights)
                box_loss += sum(bent(m - t, 1.0) for m, t in zip(moves, truth, strict=True))
            step = [m / w for m, w in zip(moves, weights, strict=True)]
            new = clipped(moved(region, step))
            if new[2] > new[0] and new[3] > new[1]:
                in_crowd = overlap(new, crowd) / area(new) >= 0.5
                own = max(iou(new, box) for box in boxes)
                if own >= (0.6, 0.7, 1)[t] or not in_crowd:
                    after.append(new)
        assert positives >= 2
        assert losses[c].item() == pytest.approx(class_loss / len(regions), rel=1e-3)
        assert losses[b].item() == pytest.approx(box_loss / len(regions), rel=1e-3)
        if t < 2:
            regions, given = (part.tolist() for part in seen[f"regions of stage {t + 2}"])
            assert len(regions) == len(after)
            torch.testing.assert_close(
                torch.tensor(regions), torch.tensor(after), atol=1e-3, rtol=0
            )


def forms(model):
    """Where the stages look, and what each classifier says there."""
    with torch.no_grad():
        batch = model.prepare([IMAGE])
        levels = model.levels(batch.images)
        anchors = model.rpn.anchors(levels, batch.images.shape[2:])
        boxes, valid = model.propose(levels, anchors, batch.sizes, test=True)
        return levels, boxes, *model.refine(levels, boxes, valid, batch.sizes)


def say(model, head, levels, boxes):
    regions = model.pool(levels, boxes.flatten(0, 1), picture_index(boxes))
    return model.look(head, regions, boxes).scores


@torch.no_grad()
def test_all_classifiers_look_where_the_last_head_does():
    """Table 2: the ensemble of three classifiers on the boxes of the third stage."""
    model = build(noise=0.1)
    levels, boxes, stages, mean = forms(model)
    assert len(stages) == 3 and torch.equal(stages[0].boxes, boxes)
    assert not torch.equal(stages[1].boxes, stages[2].boxes)
    expected = sum(say(model, head, levels, stages[2].boxes) for head in model.heads) / 3
    torch.testing.assert_close(mean, expected)
    own = forms(build(noise=0.1, scored_at="own"))[-1]
    expected = sum(stage.scores for stage in stages) / 3
    torch.testing.assert_close(own, expected)
    assert not torch.allclose(own, mean, atol=1e-3)


@torch.no_grad()
def test_one_head_three_times():
    """Eq. 3: the boxes of one regressor go through it again; the last word counts."""
    model = build(method="iterative_bbox", noise=0.1)
    levels, _, stages, mean = forms(model)
    assert len(model.heads) == 1 and len(stages) == 3
    assert set(model([IMAGE], [TARGET])) == {
        "rpn_objectness", "rpn_box", "classification", "box",
    }  # fmt: skip
    torch.testing.assert_close(mean, say(model, model.heads[0], levels, stages[2].boxes))
    again = model.moved(stages[0], 2, torch.tensor([[64, 64]]))
    torch.testing.assert_close(stages[1].boxes, again)  # every time by the first stage's deviation


@torch.no_grad()
def test_classifiers_of_several_u_share_a_regressor():
    """Eq. 6."""
    model = build(
        method="integral", ious=(0.5, 0.6, 0.7, 0.9), proposals=(1000, 1000),
        proposals_before_nms=(1000, 1000), head_samples=10**6, head_positive_fraction=1.0,
    )  # fmt: skip
    _, _, stages, mean = forms(model)
    assert len(model.heads) == 4 and len(stages) == 1
    assert [head.deltas is None for head in model.heads] == [False, True, True, True]
    seen = {}
    with watch(lambda name, value: seen.setdefault(name.split(" and")[0], value)):
        losses = model([IMAGE], [TARGET])
    assert {"box", "classification_4"} <= set(losses) and "box_2" not in losses
    first, last = seen["sampled regions"], seen["regions of stage 4"]
    kept = {tuple(region): label for region, label in zip(*(p.tolist() for p in last), strict=True)}
    fewer = [(label, kept[tuple(r)]) for r, label in zip(*(p.tolist() for p in first), strict=True)]
    assert any(one < 2 and other == 2 for one, other in fewer)
    assert all(other in (one, 2) for one, other in fewer)
    assert mean.shape == stages[0].scores.shape


def test_gradients_on_the_features_are_a_third():
    x = torch.randn(3, 4, requires_grad=True)
    y = scaled_gradient(x, 1 / 3)
    assert torch.equal(y, x)
    (y * 2).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((3, 4), 2 / 3))


def test_regions_in_a_crowd_and_empty_slots_do_not_count():
    target = {**TARGET, "labels": TARGET["labels"]}
    objects = pad_objects([target])
    regions = torch.tensor([[[4.0, 6, 40, 38], [3, 45, 19, 59], [50, 1, 60, 9], [0, 0, 0, 0]]])
    there = torch.tensor([[True, True, True, False]])
    found = label_regions(regions, there, objects, 2, 0.5, 0.5)
    assert found.labels.tolist() == [[1, 2, 2, 2]]
    assert found.counts.tolist() == [[True, False, True, False]]
    flat = found.flat()
    assert flat.regions.tolist() == [regions[0, 0].tolist(), regions[0, 2].tolist()]
    back = found.rows_of(flat.regions + 1)
    assert back[0, 0].tolist() == (regions[0, 0] + 1).tolist() and not back[0, 1].any()


def test_masks_at_one_stage_or_at_all():
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[:, 10:40, 10:40] = True
    target = {**TARGET, "masks": masks}
    for stages, expected in (((1,), {"mask"}), ((1, 2, 3), {"mask", "mask_2", "mask_3"})):
        model = build("cascade_mask_rcnn", mask_stages=stages, mask_width=16)
        assert model.needs_masks and len(model.mask_heads) == len(stages)
        with torch.no_grad():
            assert {name for name in model([IMAGE], [target]) if "mask" in name} == expected
            found = model([IMAGE])[0]
        assert found["masks"].shape == (len(found["boxes"]), 64, 64)


def test_stages_with_weights_of_their_own_need_no_scales():
    """However many they are: there are scales for three."""
    weights = [[t, t, 2 * t, 2 * t] for t in (1.0, 2.0, 3.0, 4.0)]
    model = build(ious=(0.4, 0.5, 0.6, 0.7), stage_weights=weights)
    assert [list(model.weights(t)) for t in range(4)] == weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ious": (0.5, 0.6)}, "a number for each stage"),
        ({"stage_weights": [[1, 1, 1, 1]] * 2}, "or stage_weights four; got .* .*1, 1, 1, 1"),
        ({"stage_weights": [[1, 1, 1]] * 3}, "stage_weights must be tuple"),
        ({"method": "iterative_bbox", "iterations": 0}, "iterations must be 1 at least, not 0"),
        ({"method": "casade"}, "method must be one of cascade"),
        ({"scored_at": "first"}, "scored_at must be one of last"),
        ({"masks": True, "mask_stages": (4,)}, "mask_stages"),
        ({"backbone": "timm:resnet18", "stride_in_1x1": True}, "our own ResNets"),
    ],
)
def test_options_that_cannot_be_meant(options, message):
    with pytest.raises(EyelineError, match=message):
        build(**options)
