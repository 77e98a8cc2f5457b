"""Where a detector is right and where it is wrong, one detection at a time.

Detections and objects are paired as COCO pairs them at one IoU (`evaluateImg` of its evaluation
code): class by class, best score first, each detection takes the free object it overlaps most. A
detection that finds none but lies on an ignored one (`iscrowd`; overlap is then the part of the
detection that lies in it) counts neither way. Everything else here follows from these pairs.

Letters   K classes, D detections of a picture, G objects of a picture, N detections of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eyeline.metrics.detection import check_pairs, ignored_objects, to_numpy
from eyeline.ops.iou import box_ioa, box_iou
from eyeline.structures import Prediction, Target

IOU = 0.5
BINS = 20  # of a score histogram, over 0 to 1

Array = NDArray[Any]


class Pairs(NamedTuple):
    """What became of a picture's detections."""

    object: Array  # (D,) index of the object that a detection found, -1 where it found none
    ignored: Array  # (D,) bool: it lies on an ignored object and counts neither way


class Best(NamedTuple):
    """The score threshold at which a class has its highest F1."""

    score: float  # detections count from this score on
    f1: float
    precision: float
    recall: float


class PictureScore(NamedTuple):
    """How a picture fares at the best thresholds."""

    f1: float  # 1 where there is nothing to find and nothing was found
    right: int
    false: int
    missed: int


class Analysis(NamedTuple):
    """What `analyse` finds; IoU one half, and each class at its own best threshold."""

    pairs: list[Pairs]  # of each picture, whatever the threshold
    best: list[Best | None]  # of each class; None without objects or where nothing was right
    # (K,) score from which a detection of a class counts; infinite where nothing is best
    thresholds: Array
    overall: Best | None  # one threshold for all classes
    histograms: list[tuple[Array, Array]]  # of each class: right (BINS,), false (BINS,)
    confusion: Array  # (K + 1, K + 1): objects by row, detections by column; see `confusion`
    pictures: list[PictureScore]

    def worst_first(self) -> list[int]:
        """Pictures by F1, then by how many were missed or false, then by how few were right."""
        rows = self.pictures
        order = [(p.f1, -(p.false + p.missed), p.right, i) for i, p in enumerate(rows)]
        return [i for *_, i in sorted(order)]


def analyse(
    predictions: Sequence[Prediction], targets: Sequence[Target], num_classes: int
) -> Analysis:
    """Pairs, thresholds, histograms, confusions and a score for every picture.

    Raises:
        EyelineError: more predictions than targets, or a label that is not in 0 .. K-1.
    """
    check_pairs(predictions, targets, num_classes)
    pairs = [pair(p, t) for p, t in zip(predictions, targets, strict=True)]
    scores = [to_numpy(p["scores"]).astype(float) for p in predictions]
    labels = [to_numpy(p["labels"]) for p in predictions]
    objects = np.zeros(num_classes, int)
    for target in targets:
        counted = to_numpy(target["labels"])[~ignored_objects(target)]
        objects += np.bincount(counted, minlength=num_classes)
    every_score, every_label, right, judged = (
        np.concatenate([np.zeros(0, kind), *parts])
        for kind, parts in (
            (float, scores),
            (int, labels),
            (bool, [p.object >= 0 for p in pairs]),
            (bool, [~p.ignored for p in pairs]),
        )
    )
    best, histograms = [], []
    for k in range(num_classes):
        mine = (every_label == k) & judged
        best.append(best_threshold(every_score[mine], right[mine], int(objects[k])))
        histograms.append(histogram(every_score[mine], right[mine]))
    thresholds = np.array([np.inf if b is None else b.score for b in best])
    matrix = np.zeros((num_classes + 1, num_classes + 1), int)
    pictures = []
    for prediction, target, pairing in zip(predictions, targets, pairs, strict=True):
        matrix += confusion(prediction, target, pairing, thresholds)
        pictures.append(picture_score(prediction, target, pairing, thresholds))
    overall = best_threshold(every_score[judged], right[judged], int(objects.sum()))
    return Analysis(pairs, best, thresholds, overall, histograms, matrix, pictures)


def as_json(analysis: Analysis, classes: Sequence[str], image_ids: Sequence[int]) -> dict[str, Any]:
    """Thresholds, histograms, confusion and per_picture in plain lists and dictionaries."""
    named = zip(classes, analysis.best, strict=True)
    right_and_false = zip(classes, analysis.histograms, strict=True)
    return {
        "thresholds": {
            "all": analysis.overall and analysis.overall._asdict(),
            "per_class": {name: best and best._asdict() for name, best in named},
        },
        "histograms": {
            name: {"right": right.tolist(), "false": false.tolist()}
            for name, (right, false) in right_and_false
        },
        "confusion": {
            "rows": [*classes, "background"],  # what is annotated
            "columns": [*classes, "missed"],  # what was detected
            "counts": analysis.confusion.tolist(),
        },
        "per_picture": [
            {"image_id": image_id, **picture._asdict()}
            for image_id, picture in zip(image_ids, analysis.pictures, strict=True)
        ],
    }


def pair(prediction: Prediction, target: Target, iou_threshold: float = IOU) -> Pairs:
    """Which object each detection of a picture found; see the head of this file."""
    labels, object_labels = to_numpy(prediction["labels"]), to_numpy(target["labels"])
    found, on_ignored = np.full(len(labels), -1), np.zeros(len(labels), bool)
    if not len(labels) or not len(object_labels):
        return Pairs(found, on_ignored)
    crowd = ignored_objects(target)
    a, b = (x["boxes"].detach().cpu().double() for x in (prediction, target))
    overlap = np.where(crowd, box_ioa(a, b).numpy(), box_iou(a, b).numpy())  # (D, G)
    overlap[labels[:, None] != object_labels] = 0
    free = ~crowd
    order = np.argsort(-to_numpy(prediction["scores"]).astype(float), kind="stable")
    near = overlap >= iou_threshold
    for i in order[near[order].any(1)]:
        candidates = np.flatnonzero(near[i] & free)
        if len(candidates):
            # Of equals the last, as COCO's loop leaves it.
            j = candidates[::-1][overlap[i, candidates[::-1]].argmax()]
            found[i], free[j] = j, False
        else:
            on_ignored[i] = bool((near[i] & crowd).any())
    return Pairs(found, on_ignored)


def best_threshold(scores: Array, right: Array, objects: int) -> Best | None:
    """The threshold with the highest F1, of equals the highest; scores (N,), right (N,) bool.

    F1 is 2 right / (detections + objects). None without objects or where nothing was right.
    """
    if not objects or not right.any():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], right[order].cumsum()
    last = np.append(scores[1:] != scores[:-1], True)  # equal scores count together
    counts = np.arange(1, len(scores) + 1)
    f1 = np.where(last, 2 * hits / (counts + objects), -1)
    i = int(f1.argmax())
    return Best(
        float(scores[i]), float(f1[i]), float(hits[i] / counts[i]), float(hits[i] / objects)
    )


def histogram(scores: Array, right: Array, bins: int = BINS) -> tuple[Array, Array]:
    """How many right and how many false detections have a score in each of `bins` equal bins."""
    place = np.clip((scores * bins).astype(int), 0, bins - 1)
    return (
        np.bincount(place[right], minlength=bins),
        np.bincount(place[~right], minlength=bins),
    )


def confusion(
    prediction: Prediction,
    target: Target,
    pairs: Pairs,
    thresholds: Array,
    iou_threshold: float = IOU,
) -> Array:
    """(K + 1, K + 1) counts for one picture: [true class, class of the detection].

    Column K: objects that nothing found. Row K: detections of background. Detections below their
    class's threshold (K,) and those on ignored objects are left out. Objects found by a detection
    of their own class lie on the diagonal; what is left over is then paired across classes, best
    score first, with the object it overlaps most.
    """
    k = len(thresholds)
    matrix = np.zeros((k + 1, k + 1), int)
    labels, object_labels = to_numpy(prediction["labels"]), to_numpy(target["labels"])
    right, false, left = verdicts(prediction, target, pairs, thresholds)
    np.add.at(matrix, (labels[right], labels[right]), 1)
    wrong = np.flatnonzero(false)
    wrong = wrong[np.argsort(-to_numpy(prediction["scores"])[wrong], kind="stable")]
    iou = box_iou(
        prediction["boxes"].detach().cpu().double()[wrong], target["boxes"].cpu().double()
    ).numpy()
    for row, i in enumerate(wrong):
        candidates = np.flatnonzero(left & (iou[row] >= iou_threshold))
        if len(candidates):
            j = candidates[iou[row, candidates].argmax()]
            left[j] = False
            matrix[object_labels[j], labels[i]] += 1
        else:
            matrix[k, labels[i]] += 1
    matrix[:, k] += np.bincount(object_labels[left], minlength=k + 1)
    return matrix


def picture_score(
    prediction: Prediction, target: Target, pairs: Pairs, thresholds: Array
) -> PictureScore:
    """F1 and counts of one picture, each class from its threshold (K,) on."""
    right, false, missed = verdicts(prediction, target, pairs, thresholds)
    counts = int(right.sum()), int(false.sum()), int(missed.sum())
    total = 2 * counts[0] + counts[1] + counts[2]
    return PictureScore(2 * counts[0] / total if total else 1.0, *counts)


def verdicts(
    prediction: Prediction, target: Target, pairs: Pairs, thresholds: Array
) -> tuple[Array, Array, Array]:
    """Which detections (D,) are right and which false from the thresholds (K,) on, and which
    objects (G,) are missed; all bool. The ignored are none of these."""
    labels = to_numpy(prediction["labels"])
    shown = (to_numpy(prediction["scores"]).astype(float) >= thresholds[labels]) & ~pairs.ignored
    right = shown & (pairs.object >= 0)
    missed = ~ignored_objects(target)
    missed[pairs.object[right]] = False
    return right, shown & ~right, missed
