"""YOLO's loss against a plain loop, its locally connected layer; and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from eyeline.errors import EyelineError
from eyeline.nn.local import Local
from eyeline.note import watch
from eyeline.registry import create_model
from eyeline.structures import Assignment

IMAGE = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
TARGET = {
    "boxes": torch.tensor([[4.0, 6, 40, 38], [20, 16, 60, 62], [21, 15, 60, 62], [2, 44, 20, 60]]),
    "labels": torch.tensor([1, 0, 1, 0]),
    "iscrowd": torch.tensor([False, False, False, True]),
}
SMALL = dict(num_classes=2, backbone="resnet18", size=64, neck_width=64, head_width=64, grid=4)


def fresh(**options):
    torch.manual_seed(0)
    model = create_model("yolov1", **SMALL | options).eval()
    torch.nn.init.normal_(model.output.weight, std=0.3)
    torch.nn.init.normal_(model.output.bias, 0.3, 0.2)
    return model


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize("boxes", [2, 3])
def test_losses_are_those_of_a_loop(boxes):
    """Eq. 3, over cells and their boxes; two objects share a cell, a crowd covers one."""
    model = fresh(boxes=boxes)
    batch = model.prepare([IMAGE], [TARGET])
    with torch.no_grad():
        losses = model.losses(batch, batch.targets)
        classes, confidences, said = (part[0].tolist() for part in model.heads(batch.images))
    objects, labels = TARGET["boxes"].tolist(), TARGET["labels"].tolist()
    crowd, cell = objects.pop(), 16
    owner = {}
    for g, (x1, y1, x2, y2) in enumerate(objects):
        owner.setdefault((int((y1 + y2) / 2 // cell), int((x1 + x2) / 2 // cell)), g)
    assert sorted(owner.values()) == [0, 1]
    total = dict(objectness=0.0, classification=0.0, box=0.0)
    ignored = 0
    for i in range(16):
        row, column = divmod(i, 4)
        found = []
        for x, y, w, h in said[i]:
            cx, cy, w, h = (column + x) * cell, (row + y) * cell, w * w * 64, h * h * 64
            found.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
        responsible = None
        if (row, column) in owner:
            g = owner[row, column]
            x1, y1, x2, y2 = box = objects[g]
            fits = [iou(one, box) for one in found]
            assert max(fits) > 0
            responsible = fits.index(max(fits))
            x, y, w, h = said[i][responsible]
            error = (x - ((x1 + x2) / 2 / cell - column)) ** 2
            error += (y - ((y1 + y2) / 2 / cell - row)) ** 2
            error += (w - math.sqrt((x2 - x1) / 64)) ** 2 + (h - math.sqrt((y2 - y1) / 64)) ** 2
            total["box"] += 5 * error
            total["objectness"] += (confidences[i][responsible] - fits[responsible]) ** 2
            for k, p in enumerate(classes[i]):
                total["classification"] += (p - (k == labels[g])) ** 2
        for j, confidence in enumerate(confidences[i]):
            area = (column * cell, row * cell, (column + 1) * cell, (row + 1) * cell)
            inside = [max(area[0], crowd[0]), max(area[1], crowd[1])]
            inside += [min(area[2], crowd[2]), min(area[3], crowd[3])]
            width, height = max(0, inside[2] - inside[0]), max(0, inside[3] - inside[1])
            if width * height >= 0.5 * cell * cell:
                ignored += 1
            elif j != responsible:
                total["objectness"] += 0.5 * confidence**2
    assert ignored > 0
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(total, rel=1e-4)


def test_where_nothing_overlaps_the_nearest_box_answers():
    model = fresh()
    object_ = {"boxes": torch.tensor([[1.0, 1, 3, 3]]), "labels": torch.tensor([0])}
    with torch.no_grad():  # of every cell: the first box far off and large, the second near
        model.output.weight.zero_()
        bias = torch.tensor([[3.0, 3, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1]]).repeat(16, 1)
        model.output.bias.copy_(torch.cat([torch.zeros(16 * 4), bias.flatten()]))
    seen = []
    with watch(lambda name, value: seen.append(value) if isinstance(value, Assignment) else None):
        model([IMAGE], [object_])
    assert seen[0].matches[0].tolist() == [-1, 0] + [-1] * 30


def test_its_own_kernels_at_each_place():
    torch.manual_seed(0)
    layer, x = Local(3, 4, 3, (2, 5)), torch.rand(2, 3, 2, 5)
    torch.nn.init.normal_(layer.bias)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    with torch.no_grad():
        out = layer(x)
    for place in range(10):
        i, j = divmod(place, 5)
        kernel = layer.weight[place].view(4, 3, 3, 3)
        seen = (kernel * padded[:, None, :, i : i + 3, j : j + 3]).sum((2, 3, 4))
        torch.testing.assert_close(out[:, :, i, j], seen + layer.bias[:, i, j])


def test_a_score_is_the_product_cut_to_what_a_score_can_be():
    model = fresh(score_threshold=0.01)
    with torch.no_grad():
        model.output.weight.mul_(3)
        found = model([IMAGE])[0]
        classes, confidences, _ = model.heads(model.prepare([IMAGE]).images)
    assert min(classes.min(), confidences.min()) < 0 and max(classes.max(), confidences.max()) > 1
    assert (found["scores"] <= 1).all()
    pairs = confidences.clamp(0, 1)[..., None] * classes.clamp(0, 1)[:, :, None]
    assert float(found["scores"][0]) == pytest.approx(float(pairs.max()))


def test_the_papers_network_has_its_size():
    """24 convolutions, 2 connected layers, an output of 7 x 7 x 30 (Fig. 3)."""
    with torch.device("meta"):
        model = create_model("yolov1", num_classes=20)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in model.modules()) == 24
    assert model.hidden.weight.shape == (4096, 7 * 7 * 1024)
    assert model.output.weight.shape == (7 * 7 * 30, 4096)


def test_a_convolution_says_each_cell_at_its_own_place():
    """What is said of a cell is the map's column at its place."""
    with pytest.raises(EyelineError, match="give grid=2, not 4"):
        create_model("yolov1", **SMALL | {"neck_stride": 1, "head": "convolutional"})
    model = fresh(head="convolutional", grid=2, neck_stride=1, boxes=3)
    said = torch.arange(2 * 17 * 4.0).view(2, 17, 2, 2)  # (B, K + 5 A, S, S)
    with torch.no_grad():
        model.outputs = lambda images: model.one_after_another(said)
        classes, confidences, boxes = model.heads(torch.zeros(2, 3, 64, 64))
    for cell, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        own = said[:, :, row, column]
        assert torch.equal(classes[:, cell], own[:, :2])
        assert torch.equal(confidences[:, cell], own[:, 2:5])
        assert torch.equal(boxes[:, cell].flatten(1), own[:, 5:])
    losses = fresh(head="convolutional", grid=2, neck_stride=1)([IMAGE], [TARGET])
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())


def test_a_size_that_the_network_cannot_have_is_named():
    with pytest.raises(EyelineError, match="multiple of 32"):
        fresh(size=100)


@pytest.mark.slow
@pytest.mark.parametrize("convention", ["paper", "darknet"])
def test_it_learns_four_pictures(overfitted, convention):
    # A grid as fine as the pictures are small, for an object each.
    more = dict(head_width=32) if convention == "darknet" else dict(head_width=256)
    assert overfitted(
        "yolov1", 200, size=192, backbone="resnet18", norm="batch", neck_width=64, dropout=0.0,
        grid=12, convention=convention, score_threshold=0.01, **more,
    ) > 0.9  # fmt: skip
