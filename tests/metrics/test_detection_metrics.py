"""Average precision: equal to pycocotools, to a slow loop, and to figures worked out by hand."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from eyeline.errors import EyelineError
from eyeline.metrics import CocoMetric, Curve, VocMetric, average_precision
from eyeline.metrics.detection import COCO_NUMBERS


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def target(rows, labels=None, iscrowd=None):
    labels = torch.tensor(labels or [0] * len(rows), dtype=torch.int64)
    iscrowd = torch.tensor(iscrowd or [False] * len(rows), dtype=torch.bool)
    return {"boxes": boxes(*rows), "labels": labels, "iscrowd": iscrowd}


def prediction(rows, scores, labels=None):
    labels = torch.tensor(labels or [0] * len(rows), dtype=torch.int64)
    return {"boxes": boxes(*rows), "scores": torch.tensor(scores), "labels": labels}


def measured(metric, predictions, targets):
    metric.update(predictions, targets)
    return metric.compute()


# ---- a real set, with predictions spoilt in every way ---------------------------------------


class Set:
    """COCO's annotations as targets, and noisy predictions made from them."""

    def __init__(self, path: Path, seed: int) -> None:
        self.source = json.loads(path.read_text())
        self.category_ids = sorted(c["id"] for c in self.source["categories"])
        names = {c["id"]: c["name"] for c in self.source["categories"]}
        self.classes = [names[i] for i in self.category_ids]
        self.image_ids = sorted(image["id"] for image in self.source["images"])
        sizes = {image["id"]: (image["width"], image["height"]) for image in self.source["images"]}
        rng = np.random.default_rng(seed)
        self.targets, self.predictions = [], []
        for number, image_id in enumerate(self.image_ids):
            rows = [a for a in self.source["annotations"] if a["image_id"] == image_id]
            xywh = np.array([a["bbox"] for a in rows]).reshape(-1, 4)
            xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
            labels = np.array([self.category_ids.index(a["category_id"]) for a in rows], int)
            self.targets.append(
                {
                    "boxes": torch.tensor(xyxy, dtype=torch.float32),
                    "labels": torch.tensor(labels),
                    "iscrowd": torch.tensor([bool(a["iscrowd"]) for a in rows]),
                    "area": torch.tensor([a["area"] for a in rows], dtype=torch.float64),
                }
            )
            self.predictions.append(self._spoilt(xyxy, labels, sizes[image_id], number, rng))

    def _spoilt(self, objects, labels, size, number, rng):
        if number % 9 == 4:  # nothing found
            return prediction([], [])
        copies = rng.choice([0, 1, 1, 1, 2, 3], len(objects))  # missed, found, found again
        found = np.repeat(objects, copies, 0)
        found_labels = np.repeat(labels, copies)
        sides = (found[:, 2:] - found[:, :2])[:, [0, 1, 0, 1]]
        found = found + rng.normal(0, 0.08, found.shape) * sides
        wrong = rng.random(len(found)) < 0.15
        found_labels[wrong] = rng.integers(len(self.classes), size=wrong.sum())
        # More than 100 a picture, so that the limit bites.
        extra = 150 if number % 9 == 5 else rng.integers(8)
        corner = rng.random((extra, 2)) * size
        false = np.concatenate([corner, corner + rng.uniform(4, 200, (extra, 2))], 1)
        usual = labels if len(labels) else np.arange(3)
        all_boxes = torch.tensor(np.concatenate([found, false]), dtype=torch.float32)
        all_labels = np.concatenate([found_labels, rng.choice(usual, extra)])
        # Two digits: many scores are equal.
        scores = np.concatenate([rng.beta(4, 2, len(found)), rng.beta(2, 4, extra)]).round(2)
        order = np.argsort(-scores, kind="stable")
        return {
            "boxes": all_boxes[order],
            "scores": torch.tensor(scores[order]),
            "labels": torch.tensor(all_labels[order]),
        }

    def detections(self):
        for image_id, p in zip(self.image_ids, self.predictions, strict=True):
            for box, score, label in zip(p["boxes"], p["scores"], p["labels"], strict=True):
                x1, y1, x2, y2 = box.double().tolist()
                yield {
                    "image_id": image_id,
                    "category_id": self.category_ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score.item(),
                }

    def oracle(self):
        """pycocotools on the file's own annotations: the twelve numbers, and the evaluation."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = self.source
            truth.createIndex()
            run = COCOeval(truth, truth.loadRes(list(self.detections())), "bbox")
            run.evaluate()
            run.accumulate()
            run.summarize()
        return run


@pytest.fixture(scope="module")
def real(shared_data):
    return Set(shared_data / "tiny_coco/annotations/instances_val2017.json", seed=3)


@pytest.fixture(scope="module")
def oracle(real):
    return real.oracle()


def test_the_set_is_hard_enough(real):
    """Crowds, empty pictures, ties and more than 100 detections are really in it."""
    counts = [len(p["scores"]) for p in real.predictions]
    assert len(counts) == 50 and min(counts) == 0 and max(counts) > 100
    assert sum(int(t["iscrowd"].sum()) for t in real.targets) == 5
    scores = torch.cat([p["scores"] for p in real.predictions])
    assert len(scores.unique()) < len(scores) / 2


def test_twelve_numbers_equal_pycocotools(real, oracle):
    result = measured(CocoMetric(real.classes), real.predictions, real.targets)
    ours = np.array([result[name] for name in COCO_NUMBERS])
    np.testing.assert_allclose(ours, oracle.stats, rtol=0, atol=1e-6)
    assert 0.2 < result["AP"] < 0.8 and (ours > 0).all()  # neither trivial nor empty


def test_every_class_equals_pycocotools(real, oracle):
    rows = measured(CocoMetric(real.classes), real.predictions, real.targets)["per_class"]
    absent = 0
    for k, name in enumerate(real.classes):
        precision = oracle.eval["precision"][:, :, k, 0, -1]
        if (precision == -1).all():
            absent += 1
            assert rows[name]["AP"] is rows[name]["AP50"] is rows[name]["AR100"] is None
            assert rows[name]["objects"] == 0
        else:
            assert rows[name]["AP"] == pytest.approx(precision.mean(), abs=1e-6)
            assert rows[name]["AP50"] == pytest.approx(precision[0].mean(), abs=1e-6)
            assert rows[name]["AP75"] == pytest.approx(precision[5].mean(), abs=1e-6)
            recall = oracle.eval["recall"][:, k, 0, -1]
            assert rows[name]["AR100"] == pytest.approx(recall.mean(), abs=1e-6)
    assert 0 < absent < len(real.classes)


def test_area_decides_the_size(real, oracle):
    """Without `area` the box's counts, and COCO's numbers by size come out otherwise."""
    bare = [{k: v for k, v in t.items() if k != "area"} for t in real.targets]
    result = measured(CocoMetric(real.classes), real.predictions, bare)
    assert result["AP"] == pytest.approx(oracle.stats[0], abs=1e-6)
    assert abs(result["APs"] - oracle.stats[3]) > 1e-3


def test_crowds_matter(real, oracle):
    plain = [{**t, "iscrowd": torch.zeros_like(t["iscrowd"])} for t in real.targets]
    result = measured(CocoMetric(real.classes), real.predictions, plain)
    assert abs(result["AP"] - oracle.stats[0]) > 1e-4


def test_picture_by_picture_is_the_same(real, oracle):
    metric = CocoMetric(real.classes)
    for p, t in zip(real.predictions, real.targets, strict=True):
        metric.update([p], [t])
    assert metric.compute() == metric.compute()
    assert metric.compute()["AP"] == pytest.approx(oracle.stats[0], abs=1e-6)


def test_never_prints(real, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    measured(CocoMetric(real.classes), real.predictions[:5], real.targets[:5])
    assert capsys.readouterr() == ("", "") and not caplog.records


# ---- VOC against a slow loop -----------------------------------------------------------------


def slow_voc(predictions, targets, label, threshold, inclusive):
    """The development kit's rule, one detection at a time: (11-point, every-point) or None."""
    plus = 1.0 if inclusive else 0.0

    def overlap(a, b):
        width = min(a[2], b[2]) - max(a[0], b[0]) + plus
        height = min(a[3], b[3]) - max(a[1], b[1]) + plus
        if width <= 0 or height <= 0:
            return 0.0
        area_a, area_b = ((c[2] - c[0] + plus) * (c[3] - c[1] + plus) for c in (a, b))
        return width * height / (area_a + area_b - width * height)

    objects, detections = [], []
    for i, (p, t) in enumerate(zip(predictions, targets, strict=True)):
        columns = (t[key].tolist() for key in ("boxes", "labels", "iscrowd"))
        for box, kind, crowd in zip(*columns, strict=True):
            if kind == label:
                objects.append([i, box, crowd, False])
        columns = (p[key].tolist() for key in ("boxes", "scores", "labels"))
        for box, score, kind in zip(*columns, strict=True):
            if kind == label:
                detections.append((score, i, box))
    positives = sum(not crowd for _, _, crowd, _ in objects)
    if not positives:
        return None
    points, tp, fp = [], 0, 0
    for _, i, box in sorted(detections, key=lambda d: -d[0]):
        best, highest = None, -1.0
        for candidate in objects:
            if candidate[0] == i and overlap(box, candidate[1]) > highest:
                best, highest = candidate, overlap(box, candidate[1])
        if best is not None and highest >= threshold:
            if best[2]:
                continue
            tp, fp = (tp, fp + 1) if best[3] else (tp + 1, fp)
            best[3] = True
        else:
            fp += 1
        points.append((tp, tp / (tp + fp)))
    eleven = every = 0.0
    for i in range(11):  # recall >= i / 10, in whole numbers
        eleven += max((p for found, p in points if 10 * found >= i * positives), default=0.0) / 11
    for i in range(1, positives + 1):
        every += max((p for found, p in points if found >= i), default=0.0) / positives
    return eleven, every


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_voc_equals_a_slow_loop(real, threshold, inclusive):
    metric = VocMetric(real.classes, threshold, inclusive)
    result = measured(metric, real.predictions, real.targets)
    expected = {
        name: slow_voc(real.predictions, real.targets, k, threshold, inclusive)
        for k, name in enumerate(real.classes)
    }
    for name, pair in expected.items():
        row = result["per_class"][name]
        if pair is None:
            assert row["AP_11point"] is row["AP_every_point"] is None
        else:
            assert (row["AP_11point"], row["AP_every_point"]) == pytest.approx(pair, abs=1e-9)
    present = np.array([pair for pair in expected.values() if pair is not None])
    assert 20 < len(present) < len(expected)
    means = (result["AP_11point"], result["AP_every_point"])
    assert means == pytest.approx(present.mean(0), abs=1e-9)


# ---- worked out by hand ----------------------------------------------------------------------

A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)
NOWHERE = (100, 100, 110, 110)


def test_by_hand():
    """Right, wrong, right, again, right: precision 1, 1/2, 2/3, 1/2, 3/5."""
    metric = VocMetric(["a"])
    result = measured(
        metric,
        [prediction([A, NOWHERE, B, B, C], [0.9, 0.8, 0.7, 0.6, 0.5])],
        [target([A, B, C])],
    )
    curve = metric.curves()["a"]
    np.testing.assert_allclose(curve.recall, np.array([1, 1, 2, 2, 3]) / 3)
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 1 / 2, 3 / 5])
    np.testing.assert_allclose(curve.scores, [0.9, 0.8, 0.7, 0.6, 0.5])
    assert result["AP_every_point"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    # recalls 0 .. 0.3 at precision 1; 0.4 .. 0.6 at 2/3; 0.7 .. 1 at 3/5
    assert result["AP_11point"] == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11)


def test_recall_on_a_point_counts():
    """3 of 10 objects reach the point 0.3 (numpy's arange(0, 1.1, 0.1)[3] is above 0.3)."""
    row = [(20 * i, 0, 20 * i + 10, 10) for i in range(10)]
    result = measured(VocMetric(["a"]), [prediction(row[:3], [0.9, 0.8, 0.7])], [target(row)])
    assert result["AP_11point"] == pytest.approx(4 / 11)
    assert result["AP_every_point"] == pytest.approx(3 / 10)


def test_voc_asks_the_best_object_coco_the_best_free_one():
    """The second detection overlaps the taken object with 0.82 and a free one with 0.67."""
    targets = [target([(0, 0, 10, 10), (0, 3, 10, 13)])]
    predictions = [prediction([(0, 0, 10, 10), (0, 1, 10, 11)], [0.9, 0.8])]
    assert measured(VocMetric(["a"]), predictions, targets)["AP_every_point"] == 0.5
    assert measured(CocoMetric(["a"]), predictions, targets)["AP50"] == 1.0


def test_of_equal_overlaps_the_first_object_counts():
    """As in the development kit: the middle box overlaps a difficult and a plain object alike."""
    rows = [(0, 0, 10, 10), (0, 4, 10, 14)]
    found = [prediction([(0, 2, 10, 12)], [0.9])]
    for difficult, entries in (([True, False], 0), ([False, True], 1)):
        metric = VocMetric(["a"])
        metric.update(found, [target(rows, iscrowd=difficult)])
        assert len(metric.curves()["a"].scores) == entries


def test_difficult_objects_are_neither_right_nor_wrong():
    targets = [target([A, B], iscrowd=[True, False])]
    metric = VocMetric(["a"])
    # three detections of the difficult object, one of the other
    result = measured(metric, [prediction([A, A, A, B], [0.9, 0.8, 0.7, 0.6])], targets)
    assert result["AP_every_point"] == 1.0
    assert metric.curves()["a"].objects == 1 and len(metric.curves()["a"].scores) == 1


def test_the_threshold_itself_is_a_match():
    found, truth = [prediction([(0, 0, 10, 5)], [0.9])], [target([A])]
    assert measured(VocMetric(["a"], 0.5), found, truth)["AP_every_point"] == 1.0
    assert measured(VocMetric(["a"], 0.51), found, truth)["AP_every_point"] == 0.0


def test_inclusive_boxes_hold_their_last_pixel():
    """Columns 0 .. 9 and 5 .. 14 share 5 of 15; without the last pixel 4 of 14."""
    found, truth = [prediction([(5, 0, 14, 9)], [0.9])], [target([(0, 0, 9, 9)])]
    assert measured(VocMetric(["a"], 0.33, inclusive=True), found, truth)["AP_11point"] == 1.0
    assert measured(VocMetric(["a"], 0.33), found, truth)["AP_11point"] == 0.0


def test_two_unlike_detectors_that_both_score_one():
    """YOLOv3 (Redmon and Farhadi 2018, arXiv:1804.02767), "Rebuttal": average precision does not
    see what follows the last object, nor classes the data lacks."""
    classes = ["person", "dog", "horse", "bird", "camel"]
    targets = [target([A, B], [0, 1]), target([B, C], [0, 2])]
    sober = [
        prediction([A, B], [0.99, 0.98], [0, 1]),
        prediction([B, C], [0.97, 0.96], [0, 2]),
    ]
    # Finds the same, and then people, dogs, birds and camels everywhere.
    nonsense = [(5 * i, 20, 5 * i + 30, 70) for i in range(12)]
    wild = [
        prediction(
            [*p["boxes"].tolist(), *nonsense],
            [*p["scores"].tolist(), *[0.95 - 0.05 * i for i in range(12)]],
            [*p["labels"].tolist(), *[0, 1, 3, 4] * 3],
        )
        for p in sober
    ]
    right = {}
    for name, predictions in (("sober", sober), ("wild", wild)):
        voc = VocMetric(classes)
        result = measured(voc, predictions, targets)
        assert result["AP_11point"] == result["AP_every_point"] == 1.0
        coco = measured(CocoMetric(classes), predictions, targets)
        assert coco["AP"] == coco["AP50"] == coco["AP75"] == 1.0
        right[name] = [voc.curves()[c].precision[-1] for c in ("person", "dog")]
    # The curves tell them apart.
    assert right["sober"] == [1.0, 1.0]
    assert right["wild"] == pytest.approx([2 / 8, 1 / 7])


# ---- degenerate cases ------------------------------------------------------------------------

CASES = {
    # name: (prediction, target, VOC every-point, COCO AP)
    "nothing found": (prediction([], []), target([A]), 0.0, 0.0),
    "nothing there": (prediction([A], [0.9]), target([]), None, -1.0),
    "neither": (prediction([], []), target([]), None, -1.0),
    "only crowds": (prediction([A], [0.9]), target([A], iscrowd=[True]), None, -1.0),
    "perfect": (prediction([A, B], [0.9, 0.8]), target([B, A]), 1.0, 1.0),
    "another class": (prediction([A], [0.9], [1]), target([A]), 0.0, 0.0),
    "touching": (prediction([(10, 0, 20, 10)], [0.9]), target([A]), 0.0, 0.0),
    "box without area": (prediction([(5, 5, 5, 5)], [0.9]), target([A]), 0.0, 0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_degenerate(case):
    found, truth, voc_ap, coco_ap = CASES[case]
    assert measured(VocMetric(["a", "b"]), [found], [truth])["AP_every_point"] == voc_ap
    result = measured(CocoMetric(["a", "b"]), [found], [truth])
    assert result["AP"] == pytest.approx(coco_ap)
    assert result["per_class"]["b"]["AP"] is None


def test_bfloat16_predictions_and_missing_iscrowd():
    found = {"boxes": boxes(A).bfloat16(), "scores": torch.tensor([0.9]).bfloat16()}
    found["labels"] = torch.tensor([0])
    truth = {"boxes": boxes(A), "labels": torch.tensor([0])}
    for metric, key in ((CocoMetric(["a"]), "AP"), (VocMetric(["a"]), "AP_11point")):
        assert measured(metric, [found], [truth])[key] == pytest.approx(1.0)


@pytest.mark.parametrize("metric", [CocoMetric, VocMetric])
def test_bad_input_is_named(metric):
    with pytest.raises(EyelineError, match="2 predictions for 1 targets"):
        metric(["a"]).update([prediction([A], [0.9])] * 2, [target([A])])
    with pytest.raises(EyelineError, match="target 1 has label 2; with 2 classes"):
        metric(["a", "b"]).update([prediction([], [])] * 2, [target([A]), target([A], [2])])
    with pytest.raises(EyelineError, match="prediction 0 has label -1"):
        metric(["a"]).update([prediction([A], [0.9], [-1])], [target([A])])


def test_no_picture_is_an_error():
    with pytest.raises(EyelineError, match="no picture"):
        CocoMetric(["a"]).compute()


def test_points_are_named():
    curve = Curve(np.array([1.0]), np.array([1.0]), np.array([0.9]), 1)
    with pytest.raises(ValueError, match="11point"):
        average_precision(curve, "12point")
