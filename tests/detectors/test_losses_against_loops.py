"""The papers' losses, against loops over anchors and objects in plain Python."""

from __future__ import annotations

import math

import pytest
import torch

from eyeline.note import watch
from eyeline.registry import find

IMAGE = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
TARGET = {
    "boxes": torch.tensor([[4.0, 6, 40, 38], [20, 16, 60, 62], [2, 44, 20, 60]]),
    "labels": torch.tensor([1, 0, 1]),
    "iscrowd": torch.tensor([False, False, True]),
}
SMALL = dict(num_classes=2, backbone="resnet18", norm="group", min_size=64, max_size=64)


def overlap(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height


def area(a):
    return (a[2] - a[0]) * (a[3] - a[1])


def iou(a, b):
    shared = overlap(a, b)
    return shared / (area(a) + area(b) - shared)


def wanted_deltas(box, anchor, weights):
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    moves = (
        ((box[0] + box[2]) / 2 - (anchor[0] + anchor[2]) / 2) / width,
        ((box[1] + box[3]) / 2 - (anchor[1] + anchor[3]) / 2) / height,
        math.log((box[2] - box[0]) / width),
        math.log((box[3] - box[1]) / height),
    )
    return [w * m for w, m in zip(weights, moves, strict=True)]


def moved(anchor, moves):
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x = (anchor[0] + anchor[2]) / 2 + moves[0] * width
    y = (anchor[1] + anchor[3]) / 2 + moves[1] * height
    width, height = width * math.exp(moves[2]) / 2, height * math.exp(moves[3]) / 2
    return x - width, y - height, x + width, y + height


def giou(a, b):
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    union = area(a) + area(b) - overlap(a, b)
    return iou(a, b) - (hull - union) / hull


def bent(difference, beta):
    d = abs(difference)
    return d * d / (2 * beta) if d < beta else d - beta / 2


def logistic(logit, truth):
    return math.log1p(math.exp(-logit if truth else logit))


def focal(logit, truth, alpha=0.25, gamma=2.0):
    p = 1 / (1 + math.exp(-logit))
    p_t, alpha_t = (p, alpha) if truth else (1 - p, 1 - alpha)
    return -alpha_t * (1 - p_t) ** gamma * math.log(p_t)


def split_target():
    boxes = TARGET["boxes"].tolist()
    return boxes[:2], TARGET["labels"].tolist()[:2], boxes[2]


@pytest.fixture
def noisy():
    """Parameters moved off their start, so that no term vanishes."""

    def build(name, **options):
        torch.manual_seed(0)
        model = find(name).build(**{**SMALL, **options}).eval()
        for parameter in model.parameters():
            parameter.data.add_(0.02 * torch.randn_like(parameter))
        return model

    return build


@pytest.mark.parametrize("box", ["smooth_l1", "giou"])
@torch.no_grad()
def test_retinanet(noisy, box):
    model = noisy("retinanet", anchor_sizes=(16, 24, 32, 48, 64), box_loss=box)
    losses = model([IMAGE], [TARGET])
    batch = model.prepare([IMAGE])
    logits, deltas, anchors = (torch.cat(p, -2) for p in model.heads(batch.images))
    boxes, labels, crowd = split_target()

    class_loss = box_loss = 0.0
    positives = ignored = 0
    for anchor, scores, moves in zip(
        anchors.tolist(), logits[0].tolist(), deltas[0].tolist(), strict=True
    ):
        overlaps = [iou(anchor, box) for box in boxes]
        best = max(range(2), key=overlaps.__getitem__)
        if overlaps[best] >= 0.5:
            positives += 1
            truth = wanted_deltas(boxes[best], anchor, (1, 1, 1, 1))
            if box == "giou":
                box_loss += 1 - giou(moved(anchor, moves), boxes[best])
            else:
                box_loss += sum(bent(m - t, 1 / 9) for m, t in zip(moves, truth, strict=True))
            class_loss += sum(focal(s, k == labels[best]) for k, s in enumerate(scores))
        elif overlaps[best] < 0.4 and overlap(anchor, crowd) / area(anchor) < 0.5:
            class_loss += sum(focal(s, False) for s in scores)
        else:
            ignored += 1
    assert positives > 5 and ignored > 5
    assert losses["classification"].item() == pytest.approx(class_loss / positives, rel=1e-4)
    assert losses["box"].item() == pytest.approx(box_loss / positives, rel=1e-4)


@torch.no_grad()
def test_faster_rcnn(noisy):
    """All anchors and regions sampled, so that nothing is left to chance."""
    model = noisy(
        "faster_rcnn", anchor_sizes=(8, 16, 24, 32, 48), rpn_samples=10**6, head_samples=10**6,
        rpn_positive_fraction=1.0, head_positive_fraction=1.0,
    )  # fmt: skip
    seen = {}
    with watch(lambda name, value: seen.setdefault(name.split(",")[0], value)):
        losses = model([IMAGE], [TARGET])
    boxes, labels, crowd = split_target()

    # RPN, sec. 3.1.2 and eq. 1
    batch = model.prepare([IMAGE])
    levels = model.levels(batch.images)
    logits, deltas = (torch.cat(p, 1)[0].tolist() for p in model.rpn(levels))
    anchors = torch.cat(model.rpn.anchors(levels, batch.images.shape[2:])).tolist()
    table = [[iou(anchor, box) for box in boxes] for anchor in anchors]
    top = [max(row[g] for row in table) for g in range(2)]
    objectness = box_loss = 0.0
    counted = positives = 0
    for anchor, overlaps, logit, moves in zip(anchors, table, logits, deltas, strict=True):
        best = max(range(2), key=overlaps.__getitem__)
        forced = any(overlaps[g] > top[g] - 1e-6 for g in range(2))
        if overlaps[best] >= 0.7 or forced:
            positives += 1
            truth = wanted_deltas(boxes[best], anchor, (1, 1, 1, 1))
            box_loss += sum(bent(m - t, 1.0) for m, t in zip(moves, truth, strict=True))
            objectness += logistic(logit, True)
        elif overlaps[best] < 0.3 and overlap(anchor, crowd) / area(anchor) < 0.5:
            objectness += logistic(logit, False)
        else:
            continue
        counted += 1
    assert 2 <= positives < counted < len(anchors)
    assert losses["rpn_objectness"].item() == pytest.approx(objectness / counted, rel=1e-4)
    assert losses["rpn_box"].item() == pytest.approx(box_loss / counted, rel=1e-4)

    # Head, Fast R-CNN eq. 1 to 3
    regions, given = seen["sampled regions and their labels"]
    regions_again = model.pool(levels, regions, torch.zeros_like(given))
    logits, deltas = (part.tolist() for part in model.head(regions_again))
    class_loss = box_loss = 0.0
    for region, label, scores, moves in zip(
        regions.tolist(), given.tolist(), logits, deltas, strict=True
    ):
        overlaps = [iou(region, box) for box in boxes]
        best = max(range(2), key=overlaps.__getitem__)
        expected = labels[best] if overlaps[best] >= 0.5 else 2
        assert label == expected
        assert expected < 2 or overlap(region, crowd) / area(region) < 0.5
        class_loss += math.log(sum(math.exp(s) for s in scores)) - scores[expected]
        if expected < 2:
            truth = wanted_deltas(boxes[best], region, (10, 10, 5, 5))
            box_loss += sum(bent(m - t, 1.0) for m, t in zip(moves[expected], truth, strict=True))
    assert {0, 1, 2} <= set(given.tolist())
    assert losses["classification"].item() == pytest.approx(class_loss / len(regions), rel=1e-4)
    assert losses["box"].item() == pytest.approx(box_loss / len(regions), rel=1e-4)
