"""How well pixels are labelled, over a data set.

Region numbers   from one confusion matrix of all pixels: Long et al., "Fully Convolutional
                 Networks for Semantic Segmentation", CVPR 2015, arXiv:1411.4038, sec. 5.
Boundary F1      Csurka et al., "What is a good evaluation measure for semantic segmentation?",
                 BMVC 2013: of each picture by itself, then the mean of all.

Everything is kept as whole numbers, so that parts of a data set add up to the whole, bit for bit,
in whatever order, however many processes measured them.

Letters   K classes, H and W of a picture, N pixels on borders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.ops.labels import IGNORE, check_labels
from eyeline.processes import sum_over_processes

TOLERANCE = 0.0075  # of a picture's diagonal, as Csurka et al.
UNIT = 2**40  # a boundary F1 is kept in these parts of 1, so 5e-13 off at most
# The means over classes, and which row of `per_class` each is of.
MEANS = {
    "mean_pixel_accuracy": "recall",
    "mIoU": "IoU",
    "precision": "precision",
    "recall": "recall",
    "F1": "F1",
    "Dice": "Dice",
}

Array = NDArray[Any]


class SegmentationMetrics:
    """Pixel accuracy, IoU, precision, recall, F1, Dice and boundary F1, of a data set.

    Args:
        classes: names of the K classes, or K.
        ignore: label of the pixels that count nowhere.
        tolerance: how far from a border a border still is, a share of the picture's diagonal;
            None: no boundary F1, which costs most of the time.

    Classes that are absent. A number of a class that would be 0 / 0 is None and its mean is over
    the other classes, as in mmsegmentation and in most papers' code (a mean that leaves out NaN):

        IoU, F1, Dice   where the class is in neither truth nor prediction; wrongly predicted, 0
        recall          where it is not in the truth (its mean is the mean pixel accuracy)
        precision       where it is not in the prediction

    Others do otherwise: scikit-learn counts an undefined precision or recall as 0, torchmetrics
    leaves out of every mean the classes that are in neither, and segmentation-models-pytorch puts
    1 for them. What is absent in some pictures only counts as it should everywhere: the confusion
    matrix is of all pixels.
    """

    def __init__(
        self,
        classes: Sequence[str] | int,
        ignore: int = IGNORE,
        tolerance: float | None = TOLERANCE,
    ) -> None:
        names = [str(k) for k in range(classes)] if isinstance(classes, int) else list(classes)
        if not names or (tolerance is not None and not tolerance > 0):
            raise EyelineError(
                f"there are {len(names)} classes and the tolerance is {tolerance}; "
                "both must be above 0"
            )
        self.classes, self.ignore, self.tolerance = names, ignore, tolerance
        count = len(names)
        self._state = {
            "confusion": torch.zeros(count, count, dtype=torch.int64),
            "pictures": torch.zeros(1, dtype=torch.int64),
            # Sum of boundary F1, in UNITs, and how many there were: of each class; of pictures.
            "boundary": torch.zeros(count, 2, dtype=torch.int64),
            "boundary_pictures": torch.zeros(1, 2, dtype=torch.int64),
        }

    def update(
        self, prediction: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]
    ) -> None:
        """Count a picture, a batch or a list of pictures; on any device.

        Args:
            prediction: (H, W) classes, or (K, H, W) logits, whose highest counts ((1, H, W) with
                two classes: the second where above 0) and is finite; batches (B, ...) of either;
                or a list.
            target: (H, W), (B, H, W) or a list: classes 0 .. K-1, or `ignore`.

        Raises:
            EyelineError: shapes that do not fit, labels that are no integers, logits that are not
                finite, or, on a pixel that is not ignored, a label or a prediction that is no
                class.
        """
        if isinstance(prediction, Tensor) and isinstance(target, Tensor) and target.ndim == 2:
            prediction, target = [prediction], [target]
        if len(prediction) != len(target):
            raise EyelineError(
                f"{len(prediction)} predictions for {len(target)} targets; give one a picture"
            )
        for said, truth in zip(prediction, target, strict=True):
            found = to_classes(said.detach(), truth, len(self.classes))
            self._state["confusion"] += confusion_matrix(
                found, truth, len(self.classes), self.ignore
            )
            self._state["pictures"] += 1
            if self.tolerance is not None:
                self._add_boundaries(found, truth)

    def _add_boundaries(self, found: Tensor, truth: Tensor) -> None:
        f1 = boundary_f1(found, truth, len(self.classes), self.tolerance or 0, self.ignore)
        has = ~f1.isnan()
        self._state["boundary"] += torch.stack([_units(f1.where(has, 0)), has.long()], 1)
        if has.any():
            mean = math.fsum(f1[has].tolist()) / int(has.sum())
            self._state["boundary_pictures"] += torch.stack(
                [_units(torch.tensor(mean, dtype=torch.float64)), torch.tensor(1)]
            )

    @property
    def state(self) -> dict[str, Tensor]:
        """Copies of all that is counted, int64 on the CPU; of parts they add up to the whole's."""
        return {name: value.clone() for name, value in self._state.items()}

    def merge(self, other: SegmentationMetrics | Mapping[str, Tensor]) -> SegmentationMetrics:
        """Add what another, or its `state`, has counted; returns this one."""
        if isinstance(other, SegmentationMetrics):
            for key in ("tolerance", "ignore"):
                ours, its = getattr(self, key), getattr(other, key)
                if ours != its:
                    raise EyelineError(f"what is merged has {key}={its}, this one {key}={ours}")
        theirs = other.state if isinstance(other, SegmentationMetrics) else other
        shapes = {name: value.shape for name, value in self._state.items()}
        if shapes != {name: value.shape for name, value in theirs.items()}:
            raise EyelineError("what is merged has other classes; both must have the same")
        for name, value in theirs.items():
            self._state[name] += value
        return self

    def over_processes(self) -> SegmentationMetrics:
        """What all processes have counted together, in each; all must call it. Alone, a copy."""
        whole = SegmentationMetrics(self.classes, self.ignore, self.tolerance)
        return whole.merge({k: sum_over_processes(v) for k, v in self._state.items()})

    def numbers(self) -> dict[str, Any]:
        """All numbers, in [0, 1]; None where nothing speaks for one.

        Returns:
            pixel_accuracy: share of the labelled pixels whose class is right.
            mean_pixel_accuracy, mIoU, precision, recall, F1, Dice: means over classes.
            fw_IoU: IoU weighted by the classes' pixels in the truth.
            boundary_F1: mean over pictures of each one's mean over classes; see `boundary_f1`.
            per_class: name -> IoU, precision, recall (its pixel accuracy), F1, Dice (one number:
                2 TP / (2 TP + FP + FN)), boundary_F1 (mean over the pictures where the class has
                a border), pixels (in the truth).
            confusion: (K, K) int64; row: truth, column: prediction.
            pictures, pixels: how many, ignored pixels left out.
        """
        confusion = self._state["confusion"]
        right, truth, said = (
            v.tolist() for v in (confusion.diagonal(), confusion.sum(1), confusion.sum(0))
        )
        rows = {}
        for k, name in enumerate(self.classes):
            f1 = _share(2 * right[k], truth[k] + said[k])
            rows[name] = {
                "IoU": _share(right[k], truth[k] + said[k] - right[k]),
                "precision": _share(right[k], said[k]),
                "recall": _share(right[k], truth[k]),
                "F1": f1,
                "Dice": f1,
                "boundary_F1": _mean_of_units(self._state["boundary"][k]),
                "pixels": truth[k],
            }
        pixels = sum(truth)
        weighted = math.fsum(row["pixels"] * (row["IoU"] or 0) for row in rows.values())
        return {
            "pixel_accuracy": _share(sum(right), pixels),
            **{name: _mean([row[key] for row in rows.values()]) for name, key in MEANS.items()},
            "fw_IoU": weighted / pixels if pixels else None,
            "boundary_F1": _mean_of_units(self._state["boundary_pictures"][0]),
            "per_class": rows,
            "confusion": confusion.clone(),
            "pictures": int(self._state["pictures"]),
            "pixels": pixels,
        }


def to_classes(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """The class of each pixel, (H, W), of classes (H, W) or logits (K, H, W) or (1, H, W).

    Raises EyelineError where shapes do not fit or a pixel's highest logit is not finite.
    """
    height, width = target.shape[-2:]
    if prediction.shape == target.shape and not prediction.is_floating_point():
        return prediction
    if prediction.shape == (num_classes, height, width):
        highest, classes = prediction.max(0)
    elif prediction.shape == (1, height, width) and num_classes == 2:
        highest, classes = prediction[0], (prediction[0] > 0).long()
    else:
        raise EyelineError(
            f"a prediction is {tuple(prediction.shape)}, {prediction.dtype}, and its target "
            f"{tuple(target.shape)}; give integers (H, W) or logits ({num_classes}, H, W)"
        )
    if wrong := int((~highest.isfinite()).sum()):
        raise EyelineError(
            f"the model's logits are not finite ({wrong} pixels); it has diverged, or overflows in "
            "this precision"
        )
    return classes


def confusion_matrix(
    prediction: Tensor, target: Tensor, num_classes: int, ignore: int = IGNORE
) -> Tensor:
    """How many pixels of a class (row) are taken for which (column): (K, K) int64, on the CPU.

    prediction  of any shape, classes 0 .. K-1 wherever the target is not ignored
    target      of that shape, classes 0 .. K-1, or `ignore`
    """
    if target.is_floating_point():
        raise EyelineError(f"labels are integers, one a pixel; the target is {target.dtype}")
    target = target.long()
    known = target != ignore
    truth, said = target[known], prediction.to(target.device)[known].long()
    check_labels(truth, num_classes, "a target", ignore)
    if said.numel() and not 0 <= int(said.min()) <= int(said.max()) < num_classes:
        wrong = said[(said < 0) | (said >= num_classes)][0]
        raise EyelineError(f"a prediction has class {int(wrong)}, not in 0 .. {num_classes - 1}")
    counts = torch.bincount(truth * num_classes + said, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).cpu()


def boundary_f1(
    prediction: Tensor,
    target: Tensor,
    num_classes: int,
    tolerance: float = TOLERANCE,
    ignore: int = IGNORE,
) -> Tensor:
    """How well the borders of each class's region agree in one picture: (K,) float64, in [0, 1].

    prediction  (H, W), classes 0 .. K-1
    target      (H, W), classes 0 .. K-1, or `ignore`
    tolerance   a border pixel is met if one of the other map is nearer than this share of the
                picture's diagonal, centre to centre

    F1 of precision, the share of the predicted border pixels that are met in the truth, and
    recall, the other way round. NaN where a class has no border in either map; 0 where in one
    only.

    A pixel is on its class's border if one of its four neighbours has another class. Neither the
    picture's edge nor what is ignored makes a border, in either map: nothing is known there. Of a
    picture that is all one class in both maps nothing is measured.
    """
    target = target.long()
    known = target != ignore
    maps = (x.to(target.device).long().where(known, -1).cpu().numpy() for x in (prediction, target))
    said, truth = (_borders(x) for x in maps)
    reach = tolerance * math.hypot(*target.shape)
    precision, recall = (
        _met(said, truth, reach, num_classes),
        _met(truth, said, reach, num_classes),
    )
    with np.errstate(invalid="ignore"):
        f1 = 2 * precision * recall / (precision + recall)
    counts = [np.bincount(x[:, 2], minlength=num_classes) for x in (said, truth)]
    f1[np.isnan(f1)] = 0  # neither is met, or one has no border
    f1[counts[0] + counts[1] == 0] = np.nan
    return torch.from_numpy(f1)


def _borders(labels: Array) -> Array:
    """(N, 3) int: row, column and class of the pixels on borders: labels (H, W), -1 unknown."""
    on = np.zeros(labels.shape, bool)
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = (labels[a] != labels[b]) & (labels[a] >= 0) & (labels[b] >= 0)
        on[a] |= differ
        on[b] |= differ
    rows, columns = np.nonzero(on)
    return np.stack([rows, columns, labels[rows, columns]], 1)


def _met(points: Array, others: Array, reach: float, num_classes: int) -> Array:
    """Share of each class's border pixels (N, 3) that have one of `others` within reach: (K,).

    The nearest is searched, for all classes at once: they lie as layers too far apart to be met.
    """
    count = np.bincount(points[:, 2], minlength=num_classes)
    met = np.zeros(num_classes)
    if len(points) and len(others):
        layers = np.array([1, 1, reach + 2])
        tree = cKDTree(others * layers, balanced_tree=False, compact_nodes=False)
        distance, _ = tree.query(points * layers, distance_upper_bound=reach + 1)
        met = np.bincount(points[distance < reach, 2], minlength=num_classes)
    return met / np.maximum(count, 1)


def _units(values: Tensor) -> Tensor:
    return (values * UNIT).round().long()


def _mean_of_units(sum_and_count: Tensor) -> float | None:
    total, count = sum_and_count.tolist()
    return total / (count * UNIT) if count else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: list[float | None]) -> float | None:
    """Of those that are numbers; the order of classes makes no difference, not in the last bit."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
