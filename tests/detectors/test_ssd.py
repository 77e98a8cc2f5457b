"""SSD's own: default boxes, the loss against a loop, what mining took, what is noted."""

from __future__ import annotations

import math

import pytest
import torch

from eyeline.detectors.ssd import default_boxes
from eyeline.errors import EyelineError
from eyeline.inference.tta import TTA, Augmented, Pass
from eyeline.inspection import xray
from eyeline.note import watch
from eyeline.registry import create_model
from eyeline.structures import Assignment, Sample

IMAGE = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
TARGET = {
    "boxes": torch.tensor([[4.0, 6, 40, 38], [20, 16, 60, 62], [2, 44, 20, 60], [50, 1, 53, 4]]),
    "labels": torch.tensor([1, 0, 1, 0]),
    "iscrowd": torch.tensor([False, False, True, False]),
}


def small(name="ssd300", **options):
    torch.manual_seed(0)
    options = {"backbone": "resnet18", "norm": "group", "min_size": 64} | options
    model = create_model(name, num_classes=2, **options).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(
    ("name", "side", "maps", "parameters"),
    [
        ("ssd300", 300, [38, 19, 10, 5, 3, 1], 26_285_486),
        ("ssd512", 512, [64, 32, 16, 8, 4, 2, 1], 27_188_676),
    ],
)
@torch.no_grad()
def test_the_papers_numbers(name, side, maps, parameters):
    """8732 and 24564 default boxes (sec. 3.7, Table 7), and the parameters with 20 classes."""
    with torch.device("meta"):
        full = create_model(name, num_classes=20)
    assert sum(p.numel() for p in full.parameters()) == parameters
    model = create_model(name, num_classes=2, width=8)
    seen = {}
    with watch(lambda stage, value: seen.setdefault(stage.split()[0], value)):
        logits, deltas, boxes = model.heads(torch.rand(1, 3, side, side))
    assert [level.shape[2] for level in seen["levels"]] == maps
    count = {"ssd300": 8732, "ssd512": 24564}[name]
    assert (logits.shape, deltas.shape) == ((1, count, 3), (1, count, 4))
    assert boxes.shape == (count, 4)
    first = boxes[: 4 * maps[0]].view(maps[0], 4, 4)[1]  # the second cell of the first row
    cell, scale = side / maps[0], side * model.config.box_scales[0]
    centre = torch.tensor([1.5 * cell, 0.5 * cell])
    torch.testing.assert_close((first[:, :2] + first[:, 2:]) / 2, centre.expand(4, 2))
    after = side * model.config.box_scales[1]
    wide, high = scale * math.sqrt(2), scale / math.sqrt(2)
    middle = math.sqrt(scale * after)
    wanted = [[scale, scale], [middle, middle], [wide, high], [high, wide]]
    torch.testing.assert_close(first[:, 2:] - first[:, :2], torch.tensor(wanted))


def test_clipped_boxes_are_not_larger_than_the_picture():
    for limit, longest in ((None, 0.88 * math.sqrt(2)), (1.0, 1.0)):
        (cell,) = default_boxes((0.88, 1.05), ((2.0,),), limit)
        assert float((cell[:, 2:] - cell[:, :2]).max()) == pytest.approx(longest)


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return width * height / (area - width * height)


def wanted_moves(box, anchor):
    moves = []
    for low, high in ((0, 2), (1, 3)):
        side = anchor[high] - anchor[low]
        moves.append(((box[low] + box[high]) / 2 - (anchor[low] + anchor[high]) / 2) / side / 0.1)
    for low, high in ((0, 2), (1, 3)):
        moves.append(math.log((box[high] - box[low]) / (anchor[high] - anchor[low])) / 0.2)
    return moves


@pytest.mark.parametrize("ratio", [3.0, 1.0])
@torch.no_grad()
def test_the_loss_equals_a_loop(ratio):
    model = small(negatives=ratio)
    seen = []
    with watch(lambda _, value: seen.append(value)):
        losses = model([IMAGE], [TARGET])
    (sample,) = [value for value in seen if isinstance(value, Sample)]
    (assignment,) = [value for value in seen if isinstance(value, Assignment)]
    logits, deltas, anchors = (x.tolist() for x in model.heads(model.prepare([IMAGE]).images))
    boxes, labels = TARGET["boxes"].tolist(), TARGET["labels"].tolist()
    crowd, own = boxes[2], [0, 1, 3]
    owner = {}
    pairs = sorted((-iou(boxes[g], a), g, n) for g in own for n, a in enumerate(anchors))
    for _, g, n in pairs:
        if g not in owner.values() and n not in owner:
            owner[n] = g
    for n, anchor in enumerate(anchors):
        best = max(own, key=lambda g, anchor=anchor: iou(boxes[g], anchor))
        if n not in owner and iou(boxes[best], anchor) >= 0.5:
            owner[n] = best
    mistakes, box_loss, class_loss = [], 0.0, 0.0
    for n, (scores, anchor) in enumerate(zip(logits[0], anchors, strict=True)):
        label = labels[owner[n]] if n in owner else 2
        loss = math.log(sum(map(math.exp, scores))) - scores[label]
        if n in owner:
            class_loss += loss
            wanted = wanted_moves(boxes[owner[n]], anchor)
            for move, truth in zip(deltas[0][n], wanted, strict=True):
                d = abs(move - truth)
                box_loss += d * d / 2 if d < 1 else d - 0.5
        else:
            w = max(0.0, min(anchor[2], crowd[2]) - max(anchor[0], crowd[0]))
            h = max(0.0, min(anchor[3], crowd[3]) - max(anchor[1], crowd[1]))
            if w * h < 0.5 * (anchor[2] - anchor[0]) * (anchor[3] - anchor[1]):
                mistakes.append((loss, n))
    assert len(owner) > 5 and len(mistakes) > 3 * len(owner)
    mistakes = sorted(mistakes, reverse=True)[: int(ratio * len(owner))]
    class_loss += sum(loss for loss, _ in mistakes)
    assert losses["classification"].item() == pytest.approx(class_loss / len(owner), rel=1e-4)
    assert losses["box"].item() == pytest.approx(box_loss / len(owner), rel=1e-4)
    # What is noted is what the loss saw.
    assert (assignment.matches[0] >= 0).nonzero()[:, 0].tolist() == sorted(owner)
    rows = sample.rows[0][sample.filled[0]].tolist()
    assert rows == sorted([*owner, *(n for _, n in mistakes)])


def test_nothing_matched_is_a_loss_of_zero():
    model = small()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    with torch.no_grad():
        losses = model([IMAGE], [nothing])
    assert {key: float(loss) for key, loss in losses.items()} == {"classification": 0, "box": 0}


@torch.no_grad()
def test_the_picture_is_stretched_and_boxes_return():
    model = small(score_threshold=0.0)
    batch = model.prepare([torch.rand(3, 50, 90)], [{**TARGET, "boxes": TARGET["boxes"] / 2}])
    assert batch.images.shape == (1, 3, 64, 64)
    scale = torch.tensor([64 / 90, 64 / 50]).repeat(2)
    torch.testing.assert_close(batch.targets[0]["boxes"], TARGET["boxes"] / 2 * scale)
    boxes = model([torch.rand(3, 50, 90)])[0]["boxes"]
    assert boxes[:, 2].max() > 80 and (boxes <= torch.tensor([90.0, 50, 90, 50]) + 1e-3).all()
    assert model.preprocess.told() == "64 x 64, whatever the aspect"
    kept = small(stretch=False, max_size=100)
    assert kept.prepare([torch.rand(3, 50, 90)]).images.shape == (1, 3, 55, 100)


@torch.no_grad()
def test_default_boxes_keep_their_pixels_in_a_larger_picture():
    """There they stand closer, in shares of it, and so find objects that are small in it."""
    model = small()
    sides = []
    for side in (64, 128):
        boxes = model.heads(torch.zeros(1, 3, side, side))[2]
        sides.append({tuple(size) for size in (boxes[:, 2:] - boxes[:, :2]).tolist()})
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        assert (centres > 0).all() and (centres < side).all()
    assert len(sides[0]) > 20
    assert {tuple(round(s, 3) for s in size) for size in sides[0]} == {
        tuple(round(s, 3) for s in size) for size in sides[1]
    }


@torch.no_grad()
def test_centres_are_clipped_into_the_picture():
    """At 300 the third map of "lufficc" ends at 9.5 * 32 = 304."""
    maps = [torch.zeros(1, 1, n, n) for n in (38, 19, 10, 5, 3, 1)]
    for clipped, last in ((True, 300.0), (False, 304.0)):
        model = create_model(
            "ssd300", num_classes=2, width=4, convention="lufficc", centres_clipped=clipped
        )
        boxes = model.boxes(maps, (300, 300))[2]
        assert float((boxes[:, 0] + boxes[:, 2]).max()) / 2 == pytest.approx(last)
        assert float((boxes[:, 1] + boxes[:, 3]).max()) / 2 == pytest.approx(last)


@pytest.mark.parametrize("sides", [(180, 23, 12, 6, 3, 1, 1), (540, 68, 34, 17, 9, 7, 5)])
def test_default_boxes_of_other_sizes_cover_the_picture(sides):
    """In equal steps, though a file's strides are those of 300 pixels; as large in pixels, so that
    a larger picture shows smaller objects."""
    model = create_model("ssd300", num_classes=2, width=4, convention="torchvision")
    whole, *counts = sides
    maps = [torch.zeros(1, 1, count, count) for count in counts]
    for i, boxes in enumerate(model.boxes(maps, (whole, whole))):
        cell = getattr(model, f"cell_{i}")
        torch.testing.assert_close(boxes.mean(0), torch.full((4,), whole / 2) + cell.mean(0))
        torch.testing.assert_close(
            boxes[-1] - boxes[0], cell[-1] - cell[0] + whole - whole / counts[i]
        )


@torch.no_grad()
def test_test_time_augmentation_of_a_stretched_picture():
    model = small(score_threshold=0.2, max_detections=50)
    image = torch.rand(3, 50, 90)
    plain = model([image])[0]
    assert len(plain["boxes"]) > 3
    (once,) = Augmented(model, TTA((Pass(),)))([image])
    torch.testing.assert_close(once["boxes"], plain["boxes"])
    (mirrored,) = Augmented(model, TTA((Pass(flip=True),)))([image.flip(-1)])
    expected = plain["boxes"][:, [2, 1, 0, 3]]
    expected[:, 0::2] = 90 - expected[:, 0::2]
    torch.testing.assert_close(mirrored["boxes"], expected, atol=1e-3, rtol=0)
    augmented = Augmented(model)
    sides = {tuple(batch.images.shape[2:]) for batch in augmented.prepare([image])}
    assert sides == {(s, s) for s in (38, 64, 77, 90, 102, 115)}
    (whole,) = augmented([image])
    limit = torch.tensor([90.0, 50, 90, 50]) + 1e-3
    assert len(whole["boxes"]) and ((whole["boxes"] >= 0) & (whole["boxes"] <= limit)).all()


@torch.no_grad()
def test_the_x_ray_follows_detections_and_mining():
    x = xray(small(score_threshold=0.01), IMAGE, TARGET)
    assert x.linked and x.pyramid == "levels of all scales, Fig. 2"
    assert len(x.grids) == 6
    assert x.learning is not None and x.learning.sample is not None
    positive, negative = x.learning.sample.positive, x.learning.sample.negative
    assert 0 < len(positive) and len(negative) == 3 * len(positive)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(box_scales=(0.1, 0.2)), "box_ratios are of 6 maps: box_scales needs 7"),
        (dict(extras=((128, 256, 3, 1, 0),)), "and extras 3 layers, not 1"),
        (dict(extras=[[128, 256, 3, 1]] * 4), "extras must be tuple"),
        (dict(box_strides=(8, 16)), "box_strides needs 6 numbers or none"),
        (dict(claims="best"), "claims must be one of distinct, last"),
        (dict(backbone="vgg61"), "no backbone is called"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(EyelineError, match=message):
        small(**options)


def test_lists_of_lists_are_options_too():
    """As a recipe or a saved run has them."""
    model = small(box_ratios=[[2], [2], [2], [2], [2], [2]])
    assert model.config.box_ratios == ((2,),) * 6
