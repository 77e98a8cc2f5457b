"""COCO's numbers of masks: equal to pycocotools on real annotations with spoilt masks."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
import torch

from eyeline.data.datasets import open_dataset
from eyeline.errors import EyelineError
from eyeline.metrics import CocoMetric
from eyeline.metrics.detection import COCO_NUMBERS
from eyeline.ops.masks import mask_boxes
from eyeline.ops.segmentations import encode_rle

PICTURES = 25


def spoilt(target, classes, rng):
    """Masks moved, cut and doubled; some labels wrong, scores in two digits."""
    rows = []
    for mask, label in zip(target["masks"], target["labels"].tolist(), strict=True):
        for _ in range(rng.choice([0, 1, 1, 2])):
            moved = mask.roll(tuple(rng.integers(-6, 7, 2).tolist()), (0, 1)).clone()
            if rng.random() < 0.3:
                moved[: int(rng.integers(moved.shape[0]))] = False
            if moved.any():
                wrong = rng.random() < 0.15
                rows.append((moved, int(rng.integers(classes)) if wrong else label))
    scores = torch.tensor(rng.random(len(rows)).round(2)).sort(descending=True).values
    shape = (0, *target["masks"].shape[1:])
    masks = torch.stack([m for m, _ in rows]) if rows else torch.zeros(shape, dtype=torch.bool)
    labels = torch.tensor([label for _, label in rows], dtype=torch.int64)
    return {"boxes": mask_boxes(masks), "scores": scores, "labels": labels, "masks": masks}


@pytest.fixture(scope="module")
def real(shared_data):
    dataset = open_dataset(shared_data / "tiny_coco", "val", masks=True)
    rng = np.random.default_rng(0)
    targets = [dataset[i][1] for i in range(PICTURES)]
    targets.sort(key=lambda target: int(target["image_id"]))  # the oracle's order: it breaks ties
    predictions = [spoilt(target, len(dataset.classes), rng) for target in targets]
    return dataset, predictions, targets


@pytest.fixture(scope="module")
def oracle(real, shared_data):
    """pycocotools on the file's own annotations."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    dataset, predictions, targets = real
    ids = [int(target["image_id"]) for target in targets]
    path = shared_data / "tiny_coco" / "annotations" / "instances_val2017.json"
    source = json.loads(path.read_text())
    rows = [
        {
            "image_id": image_id,
            "category_id": dataset.annotations.category_ids[label],
            "segmentation": rle,
            "score": score,
        }
        for image_id, p in zip(ids, predictions, strict=True)
        for rle, label, score in zip(
            encode_rle(p["masks"]), p["labels"].tolist(), p["scores"].tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = source
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(rows), "segm")
        run.params.imgIds = ids
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats


def measured(real, kind="segm", **changes):
    dataset, predictions, targets = real
    metric = CocoMetric(dataset.classes, kind)
    metric.update(
        [{k: v for k, v in p.items()} for p in predictions], [{**t, **changes} for t in targets]
    )
    return metric.compute()


def test_the_twelve_numbers_equal_pycocotools(real, oracle):
    result = measured(real)
    assert 0.1 < result["AP"] < 0.9
    np.testing.assert_allclose([result[n] for n in COCO_NUMBERS], oracle, rtol=0, atol=1e-6)
    assert abs(result["AP"] - measured(real, "bbox")["AP"]) > 0.01


def test_encoded_masks_are_the_same(real):
    dataset, predictions, targets = real

    def encoded(rows):
        return [
            {**{k: v for k, v in row.items() if k != "masks"}, "rle": encode_rle(row["masks"])}
            for row in rows
        ]

    metric = CocoMetric(dataset.classes, "segm")
    metric.update(encoded(predictions), encoded(targets))
    assert metric.compute() == measured(real)


def square(x, side=10):
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, 5 : 5 + side, x : x + side] = True
    return mask


@pytest.mark.parametrize(("shift", "ap50"), [(0, 1.0), (3, 1.0), (4, 0.0)])
def test_by_hand(shift, ap50):
    """Overlap of a square of 10 with itself moved: 70 / 130 = 0.54, then 60 / 140 = 0.43. The
    boxes are the same all the while: only masks count."""
    row = {"boxes": torch.tensor([[5.0, 5, 15, 15]]), "labels": torch.tensor([0])}
    metric = CocoMetric(["a"], "segm")
    found = row | {"masks": square(5 + shift), "scores": torch.tensor([0.9])}
    metric.update([found], [row | {"masks": square(5)}])
    assert metric.compute()["AP50"] == pytest.approx(ap50)


def test_bad_input_is_named():
    row = {"boxes": torch.zeros(1, 4), "labels": torch.tensor([0]), "scores": torch.ones(1)}
    metric = CocoMetric(["a"], "segm")
    with pytest.raises(EyelineError, match="target without masks"):
        metric.update([row | {"masks": square(1)}], [row])
    with pytest.raises(EyelineError, match="2 masks for 1 boxes"):
        metric.update([row], [row | {"masks": square(1).repeat(2, 1, 1)}])
    with pytest.raises(EyelineError, match=r"\[40, 40\] and \[20, 40\]"):
        CocoMetric(["a"], "segm").update(
            [row | {"masks": square(1)[:, :20]}], [row | {"masks": square(1)}]
        )
    with pytest.raises(ValueError, match="bbox"):
        CocoMetric(["a"], "mask")
