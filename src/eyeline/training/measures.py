"""What a model is measured by between epochs, and which number decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from eyeline.errors import EyelineError
from eyeline.evaluation.evaluate import Report, evaluate
from eyeline.evaluation.segmentation import NUMBERS, SegmentationReport, evaluate_segmentation
from eyeline.metrics.detection import COCO_NUMBERS
from eyeline.training.recipe import AUTO, Recipe

MASK_NUMBERS = tuple(f"mask_{name}" for name in COCO_NUMBERS)
DECIDES = {"segmentation": "mIoU"}  # the usual metric by the task; of all others AP
Metrics = Mapping[str, float | None]
Measure = Callable[[nn.Module], Metrics]


def task_of(model: nn.Module) -> str:
    return getattr(model, "task", None) or "detection"


def decided(recipe: Recipe, task: str) -> Recipe:
    """The recipe with the metric that decides, where it leaves that to the task."""
    if recipe.eval.metric != AUTO:
        return recipe
    own = recipe.eval.model_copy(update={"metric": DECIDES.get(task, "AP")})
    return recipe.model_copy(update={"eval": own})


def measure_of(model: nn.Module, dataset: Dataset[Any], recipe: Recipe) -> Measure:
    """What measures a model of this task. Raises EyelineError where eval.metric is none of it."""
    if task_of(model) == "segmentation":
        return MapMetrics(dataset, recipe)
    return DetectionMetrics(model, dataset, recipe)


def _check_metric(recipe: Recipe, known: Sequence[str]) -> None:
    if recipe.eval.metric not in known:
        raise EyelineError(
            f"eval.metric: there is no {recipe.eval.metric!r}; choose one of {', '.join(known)}"
        )


class DetectionMetrics:
    """COCO's and VOC's numbers of a model; `report` is the whole of the last evaluation."""

    report: Report | None = None

    def __init__(self, model: nn.Module, dataset: Dataset[Any], recipe: Recipe) -> None:
        self.dataset, self.recipe = dataset, recipe
        known = [*COCO_NUMBERS, "AP_11point", "AP_every_point", "loss"]
        if getattr(model, "needs_masks", False):  # and so predicts some
            known += MASK_NUMBERS
        _check_metric(recipe, known)

    def __call__(self, model: nn.Module) -> Metrics:
        self.report = report = evaluate(
            model,
            self.dataset,
            self.recipe.eval.batch_size,
            precision=self.recipe.precision,
            progress=False,
            workers=self.recipe.data.workers,
        )
        segm = {f"mask_{name}": value for name, value in (report.segm or {}).items()}
        return {**report.coco, **report.voc, **segm}


class MapMetrics:
    """A segmenter's numbers; `report` is the whole of the last evaluation."""

    report: SegmentationReport | None = None

    def __init__(self, dataset: Dataset[Any], recipe: Recipe) -> None:
        self.dataset, self.recipe = dataset, recipe
        _check_metric(recipe, [*NUMBERS, "loss"])

    def __call__(self, model: nn.Module) -> Metrics:
        self.report = evaluate_segmentation(
            model,
            self.dataset,
            self.recipe.eval.batch_size,
            precision=self.recipe.precision,
            progress=False,
            workers=self.recipe.data.workers,
        )
        return self.report.metrics
