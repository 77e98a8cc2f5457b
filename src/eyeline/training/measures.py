"""What a model is measured by between epochs, and which number decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from eyeline.errors import EyelineError
from eyeline.evaluation.evaluate import evaluate
from eyeline.evaluation.segmentation import NUMBERS
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


class _Metrics:
    """Evaluates a model; `report` is the whole of the last evaluation."""

    report: Any = None  # a Report or SegmentationReport

    def __init__(self, dataset: Dataset[Any], recipe: Recipe, known: Sequence[str]) -> None:
        self.dataset, self.recipe = dataset, recipe
        if recipe.eval.metric not in (*known, "loss"):
            raise EyelineError(
                f"eval.metric: there is no {recipe.eval.metric!r}; choose one of "
                f"{', '.join((*known, 'loss'))}"
            )

    def evaluated(self, model: nn.Module) -> Any:
        self.report = evaluate(
            model,
            self.dataset,
            self.recipe.eval.batch_size,
            precision=self.recipe.precision,
            progress=False,
            workers=self.recipe.data.workers,
        )
        return self.report


class DetectionMetrics(_Metrics):
    """COCO's and VOC's numbers of a model."""

    def __init__(self, model: nn.Module, dataset: Dataset[Any], recipe: Recipe) -> None:
        masks = MASK_NUMBERS if getattr(model, "needs_masks", False) else ()  # it predicts some
        super().__init__(dataset, recipe, [*COCO_NUMBERS, "AP_11point", "AP_every_point", *masks])

    def __call__(self, model: nn.Module) -> Metrics:
        report = self.evaluated(model)
        segm = {f"mask_{name}": value for name, value in (report.segm or {}).items()}
        return {**report.coco, **report.voc, **segm}


class MapMetrics(_Metrics):
    """A segmenter's numbers."""

    def __init__(self, dataset: Dataset[Any], recipe: Recipe) -> None:
        super().__init__(dataset, recipe, NUMBERS)

    def __call__(self, model: nn.Module) -> Metrics:
        metrics: Metrics = self.evaluated(model).metrics
        return metrics
