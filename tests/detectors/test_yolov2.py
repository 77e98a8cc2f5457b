"""YOLOv2's loss against a plain loop, what passes through, its switches; and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from eyeline.errors import EyelineError
from eyeline.nn.cells import reorg
from eyeline.registry import create_model

IMAGE = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))
TARGET = {
    "boxes": torch.tensor([[4.0, 6, 40, 38], [20, 16, 90, 62], [21, 15, 90, 62], [2, 44, 20, 60]]),
    "labels": torch.tensor([1, 0, 1, 0]),
    "iscrowd": torch.tensor([False, False, False, True]),
}
PRIORS = (20.0, 20, 40, 30, 70, 50)
SMALL = dict(num_classes=2, backbone="resnet18", size=96, neck_width=64, priors=PRIORS)


def fresh(**options):
    torch.manual_seed(0)
    model = create_model("yolov2", **SMALL | options).eval()
    torch.nn.init.normal_(model.head.output.weight, std=0.3)
    return model


def overlap(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height


def iou(a, b):
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return overlap(a, b) / (sum(areas) - overlap(a, b))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("convention", ["paper", "darknet"])
def test_losses_are_those_of_a_loop(convention):
    """Over cells and priors; the crowd covers some priors, two objects claim one."""
    model = fresh(convention=convention, ignore_iou=0.3)
    batch = model.prepare([IMAGE], [TARGET])
    with torch.no_grad():
        losses = model.losses(batch, batch.targets)
        outputs, _ = model.heads(batch.images)
    height, width = batch.images.shape[2:]
    top = (height - 64) // 2 if convention == "darknet" else 0
    objects = [[x1, y1 + top, x2, y2 + top] for x1, y1, x2, y2 in TARGET["boxes"].tolist()]
    crowd, labels = objects.pop(), TARGET["labels"].tolist()
    shapes = [PRIORS[i : i + 2] for i in range(0, 6, 2)]
    claims = {}
    for g, (x1, y1, x2, y2) in enumerate(objects):
        ious = [iou((0, 0, x2 - x1, y2 - y1), (0, 0, *shape)) for shape in shapes]
        cell = int((x1 + x2) / 2 // 32), int((y1 + y2) / 2 // 32)
        claims[cell, ious.index(max(ious))] = g  # of several the last
    assert sorted(claims.values()) == [0, 2]
    total = dict(objectness=0.0, classification=0.0, box=0.0)
    ignored = 0
    for row, (tx, ty, tw, th, objectness, *classes) in enumerate(outputs[0].tolist()):
        cell, prior = divmod(row, 3)
        cy, cx = divmod(cell, width // 32)
        pw, ph = shapes[prior]
        x, y = (cx + sigmoid(tx)) * 32, (cy + sigmoid(ty)) * 32
        w, h = pw * math.exp(tw), ph * math.exp(th)
        said = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        if ((cx, cy), prior) not in claims:
            in_crowd = overlap(said, crowd) >= 0.5 * w * h
            if in_crowd or max(iou(said, g) for g in objects) >= 0.3:
                ignored += 1
            else:
                total["objectness"] += sigmoid(objectness) ** 2 / 2
            continue
        g = claims[(cx, cy), prior]
        x1, y1, x2, y2 = objects[g]
        total["objectness"] += 5 * (sigmoid(objectness) - iou(said, objects[g])) ** 2 / 2
        total["classification"] -= math.log(
            math.exp(classes[labels[g]]) / sum(math.exp(logit) for logit in classes)
        )
        error = (sigmoid(tx) - ((x1 + x2) / 64 - cx)) ** 2
        error += (sigmoid(ty) - ((y1 + y2) / 64 - cy)) ** 2
        error += (tw - math.log((x2 - x1) / pw)) ** 2 + (th - math.log((y2 - y1) / ph)) ** 2
        small = 2 - (x2 - x1) * (y2 - y1) / (width * height) if convention == "darknet" else 1
        total["box"] += error / 2 * small
    assert ignored > 0
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(total, rel=1e-4)


def test_objectness_that_learns_one_instead_of_the_overlap():
    plain, other = (fresh(rescored=r)([IMAGE], [TARGET]) for r in (True, False))
    assert not torch.isclose(other["objectness"], plain["objectness"])
    assert torch.equal(other["box"], plain["box"])


def test_reorg_is_what_a_loop_over_places_does():
    """Darknet's index arithmetic: it counts the input's places in the shape of another map."""
    channels, height, width = 8, 4, 6
    x = torch.rand(1, channels, height, width)
    flat, out = x.flatten().tolist(), [0.0] * x.numel()
    for k in range(channels):
        for j in range(height):
            for i in range(width):
                part, channel = divmod(k, channels // 4)
                row, column = 2 * j + part // 2, 2 * i + part % 2
                place = column + 2 * width * (row + 2 * height * channel)
                out[i + width * (j + height * k)] = flat[place]
    expected = torch.tensor(out).view(1, 4 * channels, height // 2, width // 2)
    assert torch.equal(reorg(x, "darknet"), expected)
    near = reorg(x, "adjacent")
    assert near.shape == expected.shape and not torch.equal(near, expected)
    for part, (dy, dx) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        own = near[:, part * channels : (part + 1) * channels]
        assert torch.equal(own, x[:, :, dy::2, dx::2])


def test_what_does_not_pass_through_is_not_looked_at():
    model = fresh(passthrough="none")
    assert model.head.last.conv.in_channels == 64
    assert fresh(passthrough_width=16).head.last.conv.in_channels == 64 + 4 * 16


def test_bad_options_are_named():
    with pytest.raises(EyelineError, match="priors are widths and heights"):
        fresh(priors=(10.0, 20.0, 30.0))
    with pytest.raises(EyelineError, match="passthrough must be one of adjacent, darknet, none"):
        fresh(passthrough="reorg")


@pytest.mark.slow
@pytest.mark.parametrize("convention", ["paper", "darknet"])
def test_it_learns_four_pictures(overfitted, convention):
    assert overfitted(
        "yolov2", backbone="darknet_tiny", neck_width=128, convention=convention,
        priors=(10, 12, 14, 18, 18, 22, 24, 28, 34, 40),
    ) > 0.9  # fmt: skip
