"""Average precision of detections, as COCO and as Pascal VOC count it.

COCO   Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, arXiv:1405.0312, and
       its evaluation code: AP over the IoU thresholds 0.50, 0.55 .. 0.95, at most 100 detections
       a picture, precision read off at 101 recalls. Counted by faster-coco-eval.
VOC    Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, and its
       development kit: one IoU threshold, precision read off at 11 recalls (2007, sec. 4.2) or
       at every recall (2010 and later).

They differ in whom a detection is matched with. COCO: the best object that is still free. VOC:
the best object of all, and if that one is taken, the detection is wrong.

Letters   K classes, D detections of a picture, G objects of a picture, N detections of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from eyeline.errors import EyelineError
from eyeline.ops.iou import box_iou
from eyeline.ops.segmentations import encode_rle, rle_area
from eyeline.structures import Prediction, Target

# COCO's twelve numbers, in its order. AP: mean over ten IoU thresholds; AP50, AP75: at one;
# s, m, l: objects below 32^2, below 96^2 and above, in pixels; AR: mean recall with so many
# detections a picture.
COCO_NUMBERS = (
    "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
)  # fmt: skip

Array = NDArray[Any]


class CocoMetric:
    """COCO's twelve numbers, over all classes and for each.

    Args:
        classes: names of the K classes.
        kind: "bbox", overlaps are those of boxes, or "segm", those of masks. For the latter
            predictions and targets have `masks` (N, H, W) bool, or the same as run-length
            encodings: `rle`, a list as `eyeline.ops.segmentations.encode_rle` gives it. Masks are
            kept encoded.

    An object's size (small, medium, large) is its target's `area` (G,) in square pixels where
    that is given, as COCO's own files give the area of the mask, and its own (the box's, the
    mask's) otherwise.
    """

    def __init__(self, classes: Sequence[str], kind: str = "bbox") -> None:
        if kind not in ("bbox", "segm"):
            raise ValueError(f'kind is "bbox" or "segm", not {kind!r}')
        self.classes, self.kind = list(classes), kind
        self._objects: list[dict[str, Any]] = []
        self._detections: list[dict[str, Any]] = []
        self._sizes: list[list[int]] = []  # of each picture, where its masks tell it
        self._pictures = 0

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """Count some pictures' predictions; boxes xyxy in the pixels of the targets' pictures.

        Raises:
            EyelineError: more predictions than targets, or a label that is not in 0 .. K-1.
        """
        check_pairs(predictions, targets, len(self.classes))
        for prediction, target in zip(predictions, targets, strict=True):
            self._pictures += 1
            own = {} if self.kind == "bbox" else {"segmentation": _encoded(target, "target")}
            area = to_numpy(target["area"]) if "area" in target else _areas(target, own)
            _append(
                self._objects, self._pictures, _xywh(target), target["labels"], own,
                area=area, iscrowd=ignored_objects(target).astype(int),
            )  # fmt: skip
            found = {}
            if self.kind == "segm":
                found = {"segmentation": _encoded(prediction, "prediction")}
                self._sizes.append(_size([*own["segmentation"], *found["segmentation"]]))
            _append(
                self._detections, self._pictures, _xywh(prediction), prediction["labels"], found,
                area=_areas(prediction, found), score=to_numpy(prediction["scores"]),
            )  # fmt: skip

    def compute(self) -> dict[str, Any]:
        """The twelve numbers, in [0, 1], `by_iou` and `per_class`.

        `by_iou` has AP at each overlap 0.50, 0.55 ... 0.95, None where nothing speaks for it.

        `per_class` maps a name to AP, AP50, AP75, APs, APm, APl, AR100 and `objects`, their count
        without crowds.

        A number nothing speaks for (APs where no object is small) is -1, as in the reference
        implementation; of a class without objects every number is None, and no mean has it.

        Raises:
            EyelineError: no picture has been counted.
        """
        from faster_coco_eval import COCO, COCOeval_faster

        if not self._pictures:
            raise EyelineError("no picture to measure; call update() before compute()")

        images = [{"id": i} for i in range(1, self._pictures + 1)]
        if self.kind == "segm":
            for image, (height, width) in zip(images, self._sizes, strict=True):
                image |= {"height": height, "width": width}

        def dataset(annotations: list[dict[str, Any]]) -> Any:
            return COCO(
                {
                    "images": images,
                    "categories": [{"id": k, "name": n} for k, n in enumerate(self.classes)],
                    "annotations": annotations,
                },
                print_function=_silent,
            )

        run = COCOeval_faster(
            dataset(self._objects), dataset(self._detections), self.kind, print_function=_silent
        )
        run.run()
        result: dict[str, Any] = {
            name: float(value) for name, value in zip(COCO_NUMBERS, run.stats, strict=True)
        }
        # all sizes, 100 detections: precision (10 IoU, 101 recalls, K), recall (10 IoU, K)
        precision = run.eval["precision"][:, :, :, 0, -1]
        recall = run.eval["recall"][:, :, 0, -1]
        counts = np.bincount(
            [o["category_id"] for o in self._objects if not o["iscrowd"]],
            minlength=len(self.classes),
        )
        result["by_iou"] = [_mean(at) for at in precision]
        result["per_class"] = {
            name: {
                "AP": _mean(precision[:, :, k]),
                "AP50": _mean(precision[0, :, k]),
                "AP75": _mean(precision[5, :, k]),
                "AR100": _mean(recall[:, k]),
                **{
                    name: _mean(run.eval["precision"][:, :, k, size, -1])
                    for size, name in enumerate(("APs", "APm", "APl"), 1)
                },
                "objects": int(counts[k]),
            }
            for k, name in enumerate(self.classes)
        }
        return result


class Curve(NamedTuple):
    """Precision and recall as the score threshold falls: one entry a detection, best first.

    Detections of ignored objects have no entry.
    """

    recall: Array  # (N,) share of the objects found so far
    precision: Array  # (N,) share of the detections so far that are right
    scores: Array  # (N,)
    objects: int  # of this class, without the ignored


class VocMetric:
    """Pascal VOC's average precision at one IoU, by eleven points and by every point.

    A detection is judged by the object of its class and picture that it overlaps most: right
    from `iou_threshold` on, if no better-scored detection had that object already; neither right
    nor wrong if the object is ignored (`iscrowd`: VOC's difficult); wrong otherwise.

    Args:
        classes: names of the K classes.
        iou_threshold: in (0, 1].
        inclusive: boxes hold their last pixel, so that their width is x2 - x1 + 1: the rule of
            the development kit, whose boxes are whole pixels.
    """

    def __init__(
        self, classes: Sequence[str], iou_threshold: float = 0.5, inclusive: bool = False
    ) -> None:
        self.classes = list(classes)
        self.iou_threshold = iou_threshold
        self.inclusive = inclusive
        # of every detection: score, label, IoU with its best object, that object's number
        self._scores: list[Array] = []
        self._labels: list[Array] = []
        self._ious: list[Array] = []
        self._best: list[Array] = []
        # of every object: label, ignored
        self._object_labels: list[Array] = []
        self._object_ignored: list[Array] = []
        self._count = 0

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """Count some pictures' predictions; boxes xyxy in the pixels of the targets' pictures.

        Raises:
            EyelineError: more predictions than targets, or a label that is not in 0 .. K-1.
        """
        check_pairs(predictions, targets, len(self.classes))
        for prediction, target in zip(predictions, targets, strict=True):
            labels, object_labels = to_numpy(prediction["labels"]), to_numpy(target["labels"])
            if len(object_labels):
                iou = self._iou(prediction, target)  # (D, G)
                iou[labels[:, None] != object_labels] = -1
                best, highest = iou.argmax(1), iou.max(1)  # (D,); of equals the first
            else:
                best, highest = np.zeros(len(labels), int), np.full(len(labels), -1.0)
            self._scores.append(to_numpy(prediction["scores"]))
            self._labels.append(labels)
            self._ious.append(highest)
            self._best.append(best + self._count)
            self._object_labels.append(object_labels)
            self._object_ignored.append(ignored_objects(target))
            self._count += len(object_labels)

    def curves(self) -> dict[str, Curve]:
        """Each class's precision-recall curve; a class without objects has recall NaN."""
        scores, labels = _join(self._scores, float), _join(self._labels, int)
        ious, best = _join(self._ious, float), _join(self._best, int)
        object_labels = _join(self._object_labels, int)
        ignored = _join(self._object_ignored, bool)
        result = {}
        for k, name in enumerate(self.classes):
            mine = np.flatnonzero(labels == k)
            mine = mine[np.argsort(-scores[mine], kind="stable")]  # (N,)
            hit = ious[mine] >= self.iou_threshold
            on_ignored = np.zeros(len(mine), bool)
            on_ignored[hit] = ignored[best[mine[hit]]]
            mine, hit = mine[~on_ignored], hit[~on_ignored]
            # Of the detections that hit an object only the first is right.
            right = np.zeros(len(mine), bool)
            hits = np.flatnonzero(hit)
            right[hits[np.unique(best[mine[hits]], return_index=True)[1]]] = True
            found = right.cumsum()
            objects = int(((object_labels == k) & ~ignored).sum())
            result[name] = Curve(
                recall=found / objects if objects else np.full(len(mine), np.nan),
                precision=found / np.arange(1, len(mine) + 1),
                scores=scores[mine],
                objects=objects,
            )
        return result

    def compute(self) -> dict[str, Any]:
        """`AP_11point` and `AP_every_point`, means over the classes in [0, 1], and `per_class`.

        `per_class` maps a name to the same two and `objects`, their count without the ignored.
        Without objects a class has None twice and no part in the mean; None without any object.
        """
        per_class = {
            name: {
                "AP_11point": average_precision(curve, "11point") if curve.objects else None,
                "AP_every_point": average_precision(curve) if curve.objects else None,
                "objects": curve.objects,
            }
            for name, curve in self.curves().items()
        }
        result: dict[str, Any] = {}
        for key in ("AP_11point", "AP_every_point"):
            values = [value for row in per_class.values() if (value := row[key]) is not None]
            result[key] = sum(values) / len(values) if values else None
        return {**result, "per_class": per_class}

    def _iou(self, prediction: Prediction, target: Target) -> Array:
        last_pixel = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64) * self.inclusive
        a, b = (x["boxes"].detach().cpu().double() + last_pixel for x in (prediction, target))
        return box_iou(a, b).numpy()


def average_precision(curve: Curve, points: str = "every") -> float:
    """Area under a precision-recall curve, in [0, 1].

    The precision at a recall is the highest reached at that recall or beyond (VOC 2007, eq. 2).

    Args:
        curve: of a class that has objects.
        points: "every": the area under that staircase (VOC 2010 and later); "11point": its mean
            at the recalls 0, 0.1 .. 1 (VOC 2007).
    """
    # (N+1,): precision from each recall on, and zero beyond the last
    staircase = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
    if points == "every":
        steps = np.diff(curve.recall, prepend=0.0)  # (N,)
        return float((steps * staircase[:-1]).sum())
    if points == "11point":
        first = np.searchsorted(curve.recall, np.arange(11) / 10, side="left")
        return float(staircase[first].mean())
    raise ValueError(f'points is "every" or "11point", not {points!r}')


def check_pairs(
    predictions: Sequence[Prediction], targets: Sequence[Target], num_classes: int
) -> None:
    """Raise EyelineError unless every prediction has a target and every label is a class."""
    if len(predictions) != len(targets):
        raise EyelineError(
            f"{len(predictions)} predictions for {len(targets)} targets; give one a picture"
        )
    for what, rows in (("prediction", predictions), ("target", targets)):
        for i, row in enumerate(rows):
            labels = row["labels"]
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
                wrong = labels[(labels < 0) | (labels >= num_classes)][0]
                raise EyelineError(
                    f"{what} {i} has label {int(wrong)}; with {num_classes} classes labels are "
                    f"0 to {num_classes - 1} (background has none)"
                )


def _append(
    rows: list[dict[str, Any]],
    image_id: int,
    boxes: Array,
    labels: torch.Tensor,
    lists: dict[str, list[Any]],
    **columns: Array,
) -> None:
    """Add a picture's boxes as COCO annotations, numbered from 1 (0 means "unmatched")."""
    for i, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        values = {name: column[i].item() for name, column in columns.items()}
        values |= {name: column[i] for name, column in lists.items()}
        rows.append(
            {"id": len(rows) + 1, "image_id": image_id, "category_id": label, "bbox": box, **values}
        )


def _encoded(row: dict[str, Any], what: str) -> list[dict[str, Any]]:
    """A picture's masks as run-length encodings."""
    if "rle" not in row and "masks" not in row:
        raise EyelineError(f"a {what} without masks; they are what is measured")
    encoded = row["rle"] if "rle" in row else encode_rle(row["masks"])
    if len(encoded) != len(row["labels"]):
        raise EyelineError(f"a {what} with {len(encoded)} masks for {len(row['labels'])} boxes")
    return list(encoded)


def _size(encoded: list[dict[str, Any]]) -> list[int]:
    """Height and width of the picture that all these masks are of; without a mask any."""
    sizes = [list(rle["size"]) for rle in encoded] or [[1, 1]]
    if any(size != sizes[0] for size in sizes):
        other = next(size for size in sizes if size != sizes[0])
        raise EyelineError(f"masks of one picture with the sizes {sizes[0]} and {other}")
    return sizes[0]


def _areas(row: dict[str, Any], own: dict[str, list[Any]]) -> Array:
    """Of masks where they are measured, else of boxes."""
    if own:
        return np.array([rle_area(rle) for rle in own["segmentation"]], np.float64)
    return _xywh(row)[:, 2:].prod(1)


def _xywh(row: dict[str, torch.Tensor]) -> Array:
    boxes = to_numpy(row["boxes"]).astype(np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def ignored_objects(target: Target) -> Array:
    """(G,) bool: those that count neither way, the target's `iscrowd`."""
    if "iscrowd" not in target:
        return np.zeros(len(target["labels"]), bool)
    return to_numpy(target["iscrowd"]).astype(bool)


def to_numpy(tensor: torch.Tensor) -> Array:
    """The tensor as an array, bfloat16, which numpy lacks, as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _join(parts: list[Array], dtype: type) -> Array:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)


def _mean(values: Array) -> float | None:
    """Mean of what was measured; the evaluation marks the rest with -1."""
    values = values[values > -1]
    return float(values.mean()) if len(values) else None


def _silent(*_: object, **__: object) -> None:
    """In place of print."""
