"""YOLOv3's losses against plain loops, its switches, its letter box; and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from eyeline.errors import EyelineError
from eyeline.nn.cells import moved
from eyeline.nn.letterbox import Letterbox
from eyeline.note import watch
from eyeline.registry import create_model
from eyeline.structures import Assignment

IMAGE = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))
TARGET = {
    "boxes": torch.tensor([[4.0, 6, 40, 38], [20, 16, 90, 62], [21, 15, 90, 62], [2, 44, 20, 60]]),
    "labels": torch.tensor([1, 0, 1, 0]),
    "iscrowd": torch.tensor([False, False, False, True]),
}
SMALL = dict(num_classes=2, backbone="resnet18", norm="group", size=96, neck_width=256)


def fresh(**options):
    torch.manual_seed(0)
    model = create_model("yolov3", **SMALL | options).eval()
    for scale in model.scales:
        torch.nn.init.normal_(scale.output.weight, std=0.1)
    return model


def overlap(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height


def iou(a, b):
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return overlap(a, b) / (sum(areas) - overlap(a, b))


def logistic(logit, truth):
    return math.log1p(math.exp(-logit)) * truth + math.log1p(math.exp(logit)) * (1 - truth)


@pytest.mark.parametrize("convention", ["paper", "darknet"])
def test_losses_are_those_of_a_loop(convention):
    """Over scales, cells and priors; the crowd covers some priors, two objects claim one."""
    model = fresh(convention=convention)
    c = model.config
    batch = model.prepare([IMAGE], [TARGET])
    with torch.no_grad():
        losses = model.losses(batch, batch.targets)
        outputs, anchors = model.heads(batch.images)
    side = batch.images.shape[2:]
    top = (side[0] - 64) // 2 if convention == "darknet" else 0
    objects = [[x1, y1 + top, x2, y2 + top] for x1, y1, x2, y2 in TARGET["boxes"].tolist()]
    crowd = objects.pop()
    shapes = [c.priors[i : i + 2] for i in range(0, 18, 2)]
    claims = {}
    for g, (x1, y1, x2, y2) in enumerate(objects):
        box = (0, 0, x2 - x1, y2 - y1)
        ious = [iou(box, (0, 0, *shape)) for shape in shapes]
        best = ious.index(max(ious))
        stride = (8, 16, 32)[best // 3]
        cell = int((x1 + x2) / 2 // stride), int((y1 + y2) / 2 // stride)
        claims.setdefault((best // 3, cell, best % 3), []).append(g)
    assert sorted(map(len, claims.values())) == [1, 2]
    total = dict(objectness=0.0, classification=0.0, box=0.0)
    ignored = 0
    for level, output in enumerate(outputs):
        stride = (8, 16, 32)[level]
        width = side[1] // stride
        for row, values in enumerate(output[0].tolist()):
            cell, prior = divmod(row, 3)
            cy, cx = divmod(cell, width)
            pw, ph = shapes[3 * level + prior]
            tx, ty, tw, th, objectness, *classes = values
            assert anchors[level][row].tolist() == pytest.approx(
                [(cx + 0.5) * stride - pw / 2, (cy + 0.5) * stride - ph / 2,
                 (cx + 0.5) * stride + pw / 2, (cy + 0.5) * stride + ph / 2]
            )  # fmt: skip
            region = anchors[level][row].tolist()
            if convention == "darknet":
                x = (cx + 1 / (1 + math.exp(-tx))) * stride
                y = (cy + 1 / (1 + math.exp(-ty))) * stride
                w, h = pw * math.exp(tw) / 2, ph * math.exp(th) / 2
                region = [x - w, y - h, x + w, y + h]
            if (level, (cx, cy), prior) in claims:
                own = claims[level, (cx, cy), prior]
                x1, y1, x2, y2 = objects[own[-1]]
                total["objectness"] += logistic(objectness, 1)
                for k, logit in enumerate(classes):
                    present = k in [int(TARGET["labels"][g]) for g in own]
                    total["classification"] += logistic(logit, present)
                fx, fy = (x1 + x2) / 2 / stride - cx, (y1 + y2) / 2 / stride - cy
                error = (tw - math.log((x2 - x1) / pw)) ** 2 / 2
                error += (th - math.log((y2 - y1) / ph)) ** 2 / 2
                if convention == "darknet":
                    error += logistic(tx, fx) + logistic(ty, fy)
                    error *= 2 - (x2 - x1) * (y2 - y1) / (side[0] * side[1])
                else:
                    fx, fy = (min(max(f, 1e-3), 1 - 1e-3) for f in (fx, fy))
                    error += (tx - math.log(fx / (1 - fx))) ** 2 / 2
                    error += (ty - math.log(fy / (1 - fy))) ** 2 / 2
                total["box"] += error
                continue
            size = (region[2] - region[0]) * (region[3] - region[1])
            inside = overlap(region, crowd) / size
            if max(iou(region, g) for g in objects) >= c.ignore_iou or inside >= 0.5:
                ignored += 1
            else:
                total["objectness"] += logistic(objectness, 0)
    assert ignored > 3
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(total, rel=1e-4)


def matched(model):
    seen = []

    def look(name, value):
        if isinstance(value, Assignment):
            seen.append(value.matches)

    with watch(look), torch.no_grad():
        losses = model([IMAGE], [TARGET])
    return seen[0], losses


def test_each_object_has_one_prior_and_with_two_thresholds_more():
    plain, _ = matched(fresh())
    more, _ = matched(fresh(foreground_iou=0.6, ignore_iou=0.3))
    assert sorted(plain[plain >= 0].tolist()) == [0, 2]  # 1 and 2 claim the same
    assert (more >= 0).sum() > 2 and (more == -2).sum() > (plain == -2).sum()


@pytest.mark.parametrize("offsets", ["logistic", "linear", "anchor"])
def test_the_box_loss_is_zero_where_moves_lead_to_the_objects(offsets):
    model = fresh(offsets=offsets)
    anchors = torch.tensor([[8.0, 8, 40, 40], [0, 0, 16, 64]])
    strides = torch.tensor([[16.0], [32.0]])
    moves = torch.tensor([[0.3, 0.2, 0.4, -0.5], [0.4, 0.1, 0.2, 0.3]])
    boxes = moved(moves, anchors, strides, offsets)
    assert model.box_loss(moves, boxes, anchors, strides).max() < 1e-9
    assert model.box_loss(moves + 0.1, boxes, anchors, strides).min() > 1e-3


def test_focal_loss_counts_easy_background_less():
    _, plain = matched(fresh())
    _, focal = matched(fresh(gamma=2.0))
    assert 0 < focal["objectness"] < plain["objectness"]
    assert torch.equal(focal["box"], plain["box"])


def test_a_letter_box_is_grey_square_and_centred():
    batch = Letterbox(2, 64, 64, (0, 0, 0), (1, 1, 1))([torch.ones(3, 20, 40)])
    assert batch.images.shape == (1, 3, 64, 64) and batch.sizes.tolist() == [[32, 64]]
    assert (batch.images[:, :, :16] == 0.5).all() and (batch.images[:, :, 48:] == 0.5).all()
    assert (batch.images[:, :, 16:48] - 1).abs().max() < 1e-6


def test_a_letter_box_keeps_the_corner_pixels():
    image = torch.rand(3, 10, 20)
    seen = Letterbox(2, 32, 32, (0, 0, 0), (1, 1, 1))([image]).images[0, :, 8:24]
    corners = slice(None), [0, 0, -1, -1], [0, -1, 0, -1]
    torch.testing.assert_close(seen[corners], image[corners])


def test_boxes_of_a_letter_box_are_the_pictures():
    """Padding above and left is taken off again."""
    model = fresh(convention="darknet", nms_iou=1.0, max_detections=1000)  # all that there are
    wide = torch.full((3, 48, 96), 0.5)
    with torch.no_grad():
        found = model([wide])[0]["boxes"]
        batch = model.prepare([wide])
        batch.sizes[:] = batch.original_sizes[:] = 96  # the same pixels, as a square picture
        batch.offsets[:] = 0
        square = model.finish(model.compute(batch), batch)[0]["boxes"]
    inner = square[(square[:, 1] > 25) & (square[:, 3] < 71)]
    shifted = inner - torch.tensor([0, 24, 0, 24])
    assert len(inner) and all((found - box).abs().amax(1).min() < 1e-3 for box in shifted)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("yolov3", dict(priors=(10.0, 20.0, 30.0, 40.0)), "as many at each of 3 scales"),
        ("yolov3", dict(tower_depths=[]), "tower_depths are empty"),
        ("yolov3_tiny", dict(tower_depths=[]), "tower_depths are empty"),
        ("yolov3", dict(tower_depths=[1] * 5, priors=[9] * 10), "of 5 scales; resnet18 has 4 maps"),
    ],
)
def test_options_that_do_not_fit_are_named(name, options, message):
    with pytest.raises(EyelineError, match=message):
        create_model(name, **SMALL | options)


@pytest.mark.slow
@pytest.mark.parametrize("convention", ["paper", "darknet"])
def test_it_learns_four_pictures(overfitted, convention):
    assert overfitted(
        "yolov3_tiny", neck_width=128, convention=convention,
        priors=(8, 10, 12, 16, 16, 20, 20, 26, 26, 32, 36, 44),
    ) > 0.9  # fmt: skip
