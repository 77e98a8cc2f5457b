"""RefineDet's own: its anchors, how its two steps hang together, the losses against a loop, what
the filter discards, what is noted."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.inference import TTA
from eyeline.inference.tta import Augmented
from eyeline.inspection import xray
from eyeline.inspection.fate import fates, story
from eyeline.inspection.page.steps import tables
from eyeline.note import watch
from eyeline.ops.deltas import encode
from eyeline.registry import create_model
from eyeline.structures import Assignment, Sample

SIDE = 128
IMAGE = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
TARGET = {
    "boxes": torch.tensor(
        [[4.0, 6, 40, 38], [20, 16, 90, 92], [2, 84, 40, 120], [20, 60, 120, 83]]
    ),
    "labels": torch.tensor([1, 0, 1, 0]),
    "iscrowd": torch.tensor([False, False, True, False]),
}
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
SURE, UNSURE = (-9.0, 0.0), (0.0, 0.0)  # object, background


def small(name: str = "refinedet320", **options: Any) -> Any:
    torch.manual_seed(0)
    options = dict(num_classes=2, width=4, extra=(8, 8), tcb_channels=8, size=SIDE) | options
    if options["size"] is None:
        del options["size"]
    return create_model(name, **options).eval()


def planted(**options: Any) -> tuple[Any, list[Tensor]]:
    """A model whose `heads` say what can be changed in place: of the ARM nothing, of the ODM
    background."""
    model = small(**options)
    with torch.no_grad():
        said = [part.clone() for part in model.heads(model.prepare([IMAGE]).images)]
    for part in said[:4]:
        part.zero_()
    said[2][..., -1] = 20.0
    model.heads = lambda images: tuple(said)
    return model, said


@pytest.mark.parametrize(
    ("name", "side", "maps", "count"),
    [("refinedet320", 320, [40, 20, 10, 5], 6375), ("refinedet512", 512, [64, 32, 16, 8], 16320)],
)
@torch.no_grad()
def test_the_papers_numbers(name: str, side: int, maps: list[int], count: int) -> None:
    """6375 and 16320 anchors (Table 1), four times as large as their strides."""
    with torch.device("meta"):
        full = create_model(name, num_classes=20)
    assert sum(p.numel() for p in full.parameters()) == 34_440_884
    model = small(name, size=None)
    assert model.preprocess.told() == f"{side} x {side}, whatever the aspect"
    seen: dict[str, Any] = {}
    with watch(lambda stage, value: seen.setdefault(stage.split()[0], value)):
        objectness, first, logits, second, anchors = model.heads(torch.rand(1, 3, side, side))
    assert [level.shape[2] for level in seen["levels"]] == maps
    assert [level.shape[1:] for level in seen["maps"]] == [
        (c, n, n) for c, n in zip((32, 32, 64, 8), maps, strict=True)
    ]
    assert objectness.shape == (1, count, 2) and logits.shape == (1, count, 3)
    assert first.shape == second.shape == (1, count, 4) and anchors.shape == (count, 4)
    for i, level in enumerate(seen["anchors,"]):
        stride = 8 << i
        of_second = level[3:6]  # the second cell of the first row
        centre = torch.tensor([1.5 * stride, 0.5 * stride])
        torch.testing.assert_close((of_second[:, :2] + of_second[:, 2:]) / 2, centre.expand(3, 2))
        long, short = 4 * stride * math.sqrt(2), 4 * stride / math.sqrt(2)
        sides = torch.tensor([[4.0 * stride, 4 * stride], [long, short], [short, long]])
        torch.testing.assert_close(of_second[:, 2:] - of_second[:, :2], sides)


def test_no_anchor_is_wider_than_the_picture_where_they_are_clipped() -> None:
    for convention, widest in (("luuuyi", 320.0), ("caffe", 256 * math.sqrt(2))):
        cells = small(size=None, convention=convention).anchors.cells
        assert float((cells[..., 2:] - cells[..., :2]).max()) == pytest.approx(widest)


def test_both_moves_are_made() -> None:
    """The second starts where the first has led."""
    model, (objectness, first, logits, second, anchors) = planted(score_threshold=0.5)
    row = 500
    middle, end = torch.tensor([20.0, 30, 60, 60]), torch.tensor([25.0, 20, 80, 70])
    first[0, row] = encode(middle, anchors[row], WEIGHTS)
    second[0, row] = encode(end, middle, WEIGHTS)
    logits[0, row] = torch.tensor([0.0, 9.0, 0.0])
    (found,) = model([IMAGE])
    assert found["labels"].tolist() == [1]
    torch.testing.assert_close(found["boxes"], end[None], atol=1e-3, rtol=0)
    objectness[0, row] = torch.tensor(SURE)  # background, so nothing is asked of the ODM
    assert len(model([IMAGE])[0]["boxes"]) == 0


@pytest.mark.parametrize(("background", "kept"), [(0.989, True), (0.991, False)])
def test_the_filter_stands_at_theta(background: float, kept: bool) -> None:
    model, (objectness, _, logits, _, _) = planted(score_threshold=0.5)
    logits[0, 7] = torch.tensor([9.0, 0.0, 0.0])
    objectness[0, 7, 1] = math.log(background / (1 - background))
    assert len(model([IMAGE])[0]["boxes"]) == kept


@pytest.mark.parametrize(("per_class", "count"), [(False, 6), (True, 12)])
def test_candidates_are_of_a_picture_or_of_each_class(per_class: bool, count: int) -> None:
    model, (_, _, logits, _, _) = planted(
        candidates=6, candidates_per_class=per_class, nms_iou=1.0, score_threshold=0.1
    )
    rows = torch.arange(0, 400, 40)
    logits[0, rows] = torch.tensor([3.0, 2.9, 0.0])
    (found,) = model([IMAGE])
    assert len(found["labels"]) == count
    assert found["labels"].tolist() == ([0] * 6 + [1] * 6 if per_class else [0] * 6)
    logits[0, rows, 1] = torch.linspace(2.0, 4.0, 10)  # both classes now, of an anchor too
    (found,) = model([IMAGE])
    pairs = logits[0, rows].softmax(-1)[:, :2]
    best = (
        [pairs[:, k].topk(6).values for k in (0, 1)]
        if per_class
        else [pairs.flatten().topk(6).values]
    )
    torch.testing.assert_close(found["scores"], torch.cat(best).sort(descending=True).values)


def test_the_second_step_reads_nothing_of_the_first() -> None:
    """Other weights of the ARM's layers change what the ARM says, and the ODM says the same."""
    model = small()
    images = model.prepare([IMAGE]).images
    with torch.no_grad():
        before = model.heads(images)
        for part in (model.arm_class_head, model.arm_box_head):
            for weight in part.parameters():
                weight.add_(1.0)
        after = model.heads(images)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_the_first_step_does_not_learn_from_the_second() -> None:
    model = small()
    losses = model([IMAGE], [TARGET])
    (losses["classification"] + losses["box"]).backward()
    assert all(p.grad is None for p in model.arm_box_head.parameters())
    assert all(p.grad is None for p in model.arm_class_head.parameters())
    assert model.backbone.conv1_1.weight.grad.any()


# ---- the losses


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return width * height / (area - width * height)


def moved(box: list[float], move: list[float]) -> list[float]:
    width, height = box[2] - box[0], box[3] - box[1]
    x, y = (box[0] + box[2]) / 2 + 0.1 * move[0] * width, box[1] + height / 2
    y += 0.1 * move[1] * height
    width, height = width * math.exp(0.2 * move[2]), height * math.exp(0.2 * move[3])
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def one_step(
    logits: list[list[float]],
    moves: list[list[float]],
    anchors: list[list[float]],
    labels: list[int],
    sure: list[bool],
    discarded: str,
) -> tuple[float, float, int, list[int]]:
    """One step's losses in plain Python: classes, boxes, positives, and the anchors that count."""
    boxes, own, crowd = TARGET["boxes"].tolist(), [0, 1, 3], TARGET["boxes"][2].tolist()
    owner: dict[int, int] = {}
    for _, g, n in sorted((-iou(boxes[g], a), g, n) for g in own for n, a in enumerate(anchors)):
        if g not in owner.values() and n not in owner and iou(boxes[g], anchors[n]) > 0:
            owner[n] = g
    for n, anchor in enumerate(anchors):
        best = max(own, key=lambda g, anchor=anchor: iou(boxes[g], anchor))
        if n not in owner and iou(boxes[best], anchor) >= 0.5:
            owner[n] = best
    negatives, class_loss, box_loss, positive = [], 0.0, 0.0, []
    for n, (scores, anchor) in enumerate(zip(logits, anchors, strict=True)):
        label = labels[owner[n]] if n in owner else len(scores) - 1
        loss = math.log(sum(map(math.exp, scores))) - scores[label]
        if n in owner and not (sure[n] and discarded in ("all", "positives")):
            positive.append(n)
            class_loss += loss
            for axis in range(2):
                box = boxes[owner[n]]
                side = anchor[axis + 2] - anchor[axis]
                centre = (box[axis] + box[axis + 2] - anchor[axis] - anchor[axis + 2]) / 2
                for move, wanted in (
                    (moves[n][axis], centre / side / 0.1),
                    (moves[n][axis + 2], math.log((box[axis + 2] - box[axis]) / side) / 0.2),
                ):
                    d = abs(move - wanted)
                    box_loss += d * d / 2 if d < 1 else d - 0.5
        elif n in owner:
            negatives += [(loss, n)] if discarded == "positives" else []
        elif not sure[n] or discarded == "positives":
            w = max(0.0, min(anchor[2], crowd[2]) - max(anchor[0], crowd[0]))
            h = max(0.0, min(anchor[3], crowd[3]) - max(anchor[1], crowd[1]))
            if w * h < 0.5 * (anchor[2] - anchor[0]) * (anchor[3] - anchor[1]):
                negatives.append((loss, n))
    hardest = sorted(negatives, reverse=True)[: 3 * len(positive)]
    class_loss += sum(loss for loss, _ in hardest)
    return class_loss, box_loss, len(positive), sorted([*positive, *(n for _, n in hardest)])


@pytest.mark.parametrize("discarded", ["all", "negatives", "positives"])
@torch.no_grad()
def test_the_losses_equal_a_loop(discarded: str) -> None:
    model, said = planted(discarded=discarded)
    generator = torch.Generator().manual_seed(1)
    for part, spread in zip(said[:4], (3.0, 1.0, 2.0, 1.0), strict=True):
        part.copy_(spread * torch.randn(part.shape, generator=generator))
    seen: list[Any] = []
    with watch(lambda _, value: seen.append(value)):
        losses = {name: loss.item() for name, loss in model([IMAGE], [TARGET]).items()}
    samples = [value for value in seen if isinstance(value, Sample)]
    assignments = [value for value in seen if isinstance(value, Assignment)]
    assert len(samples) == len(assignments) == 2
    objectness, first, logits, second = (part[0].tolist() for part in said[:4])
    anchors = said[4].tolist()
    sure = [1 / (1 + math.exp(o - b)) > 0.99 for o, b in objectness]
    assert 50 < sum(sure) < len(sure) - 50
    refined = [moved(box, move) for box, move in zip(anchors, first, strict=True)]
    labels = TARGET["labels"].tolist()
    never = [False] * len(sure)
    arm = one_step(objectness, first, anchors, [0, 0, 0, 0], never, "all")
    odm = one_step(logits, second, refined, labels, sure, discarded)
    for (classes, boxes, count, rows), names, sample in zip(
        (arm, odm), (("arm_objectness", "arm_box"), ("classification", "box")), samples, strict=True
    ):
        assert count > 5
        assert losses[names[0]] == pytest.approx(classes / count, rel=1e-4)
        assert losses[names[1]] == pytest.approx(boxes / count, rel=1e-4)
        assert sample.rows[0][sample.filled[0]].tolist() == rows
    # Without the filter all would be otherwise: it has met positives and negatives.
    unfiltered = one_step(logits, second, refined, labels, never, "all")
    assert unfiltered[3] != odm[3]


@pytest.mark.parametrize("discarded", ["all", "negatives", "positives"])
@torch.no_grad()
def test_nothing_left_is_a_loss_of_zero(discarded: str) -> None:
    """No object; and an ARM that is sure of nothing but background."""
    model, said = planted(discarded=discarded)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    assert {float(loss) for loss in model([IMAGE], [nothing]).values()} == {0.0}
    said[0][:] = torch.tensor(SURE)
    losses = model([IMAGE], [TARGET])
    assert float(losses["arm_objectness"]) > 1
    assert all(loss.isfinite() for loss in losses.values())
    assert (losses["box"] == 0) == (discarded != "negatives")


def test_the_box_loss_is_weighed() -> None:
    with torch.no_grad():
        one, three = (small(box_weight=w)([IMAGE], [TARGET]) for w in (1.0, 3.0))
    for name, factor in (("arm_objectness", 1), ("arm_box", 3), ("classification", 1), ("box", 3)):
        torch.testing.assert_close(three[name], factor * one[name])


# ---- around it


@torch.no_grad()
def test_a_picture_of_any_size_is_stretched_and_boxes_return() -> None:
    model = small(size=96, score_threshold=0.0)  # no multiple of the coarsest stride
    batch = model.prepare([torch.rand(3, 50, 90)])
    assert batch.images.shape == (1, 3, 128, 128) and batch.sizes.tolist() == [[96, 96]]
    boxes = model([torch.rand(3, 50, 90)])[0]["boxes"]
    assert boxes[:, 2].max() > 80 and (boxes <= torch.tensor([90.0, 50, 90, 50]) + 1e-3).all()


@torch.no_grad()
def test_test_time_augmentation_looks_at_other_sizes() -> None:
    model = small(size=64, score_threshold=0.0, max_detections=10)
    sizes: list[int] = []
    heads = model.heads
    model.heads = lambda images: (sizes.append(images.shape[2]), heads(images))[1]
    (found,) = Augmented(model, TTA())([torch.rand(3, 50, 90)])
    assert sorted(set(sizes)) == [64, 128]  # of 38 to 115, with the padding
    assert len(sizes) == 12 and len(found["boxes"]) == 10


def test_batch_norm_from_scratch() -> None:
    """Of the backbone and, apart, of the rest."""

    def norms(model: Any) -> tuple[int, int]:
        names = [n for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
        return sum(n.startswith("backbone") for n in names), len(names)

    assert norms(small()) == (0, 0)
    assert norms(small(norm="batch")) == (15, 15)
    assert norms(small(norm="batch", extra_norm="batch")) == (15, 15 + 2 + 4 * 3)


@torch.no_grad()
def test_the_x_ray_follows_anchor_arm_and_odm() -> None:
    model, (objectness, first, logits, second, anchors) = planted(score_threshold=0.5)
    row = 500
    middle, end = torch.tensor([20.0, 30, 60, 60]), TARGET["boxes"][1]
    first[0, row] = encode(middle, anchors[row], WEIGHTS)
    second[0, row] = encode(end, middle, WEIGHTS)
    logits[0, row] = torch.tensor([9.0, 0.0, 0.0])
    x = xray(model, IMAGE, TARGET)
    assert x.linked and [stage.name.split(",")[0] for stage in x.stages] == [
        "all anchors", "anchors refined and filtered by the ARM", "boxes of the ODM",
        "candidates over the threshold", "detections",
    ]  # fmt: skip
    steps = [stage.boxes[i] for stage, i in zip(x.stages, x.rows(0), strict=True)]
    for found, wanted in zip(steps, (anchors[row], middle, end, end, end), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)
    objectness[0, 600:] = torch.tensor(SURE)
    html = tables(xray(model, IMAGE, TARGET), ["ant", "bee"])
    count = len(anchors)
    for wanted in (
        f"<td>all anchors, sec. 4</td><td>{count:,}</td><td>0</td>",
        f"filtered by the ARM, sec. 3</td><td>600</td><td>{count - 600}</td>",
        f"<td>ant</td><td>{iou(anchors[row].tolist(), end.tolist()):.3f}</td>"
        f"<td>{iou(middle.tolist(), end.tolist()):.3f}</td><td>1.000</td><td>0.500</td>",
    ):
        assert wanted in html
    objectness[:] = torch.tensor(SURE)
    x = xray(model, IMAGE, TARGET)
    fate = fates(x)[1]
    assert (fate.object, fate.rule) == (1, "background")
    assert "was background with 1.000; above 0.99 an anchor is filtered out" in story(
        x, fate, ["a", "b"]
    )


@torch.no_grad()
def test_a_real_network_has_a_pyramid_for_its_anchors() -> None:
    x = xray(small(score_threshold=0.01), IMAGE, TARGET)
    assert x.pyramid == "levels P3 to P6 of the ODM, Fig. 2"
    assert x.grids == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert x.learning is not None and x.learning.sample is not None
    positive, negative = x.learning.sample.positive, x.learning.sample.negative
    assert 0 < len(positive) and len(negative) == 3 * len(positive)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(discarded="some"), "discarded must be one of all, negatives, positives"),
        (dict(convention="torchvision"), "convention must be one of paper, caffe, luuuyi"),
        (dict(anchor_sizes=(32, 64)), "anchor_sizes are 4 positive numbers"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EyelineError, match=message):
        small(**options)
