"""evaluate(model, dataset): how good is a detector, and how fast?"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from eyeline.evaluation.running import (
    check_run,
    classes_of,
    facts_of,
    parameters_of,
    plain,
    rate,
    run,
    show,
    write_json,
    write_text,
)
from eyeline.evaluation.segmentation import evaluate_segmentation
from eyeline.metrics.analysis import Analysis, analyse, as_json
from eyeline.metrics.detection import COCO_NUMBERS, CocoMetric, Curve, VocMetric
from eyeline.nn.segmenter import is_segmenter
from eyeline.ops.segmentations import encode_rle
from eyeline.structures import Prediction, Target
from eyeline.together import together

if TYPE_CHECKING:
    from rich.table import Table


@dataclass
class Report:
    """What `evaluate` found; numbers of merit are in [0, 1]."""

    coco: dict[str, float]  # COCO's twelve numbers; -1 where nothing speaks for one
    voc: dict[str, float | None]  # AP_11point, AP_every_point, at IoU 0.5
    # name -> AP, AP50, AP75, APs, APm, APl, AR100 (COCO), AP_11point, AP_every_point (VOC),
    # objects; None where the data has no such object of the class
    per_class: dict[str, dict[str, Any]]
    curves: dict[str, Curve]  # name -> precision and recall at IoU 0.5, VOC's matching
    pictures_per_second: float  # prepare, compute and finish; neither loading nor measuring
    classes: list[str]
    # One a picture, on the CPU, in the pictures' pixels; masks as run-length encodings, `rle`.
    predictions: list[Prediction]
    targets: list[Target]
    image_ids: list[int]  # of the source where it is known, else 0, 1 ...
    category_ids: list[int]  # of each class: of the source where it is known, else the label
    paths: list[Path] | None  # the pictures' files, where the data set tells them
    facts: dict[str, str] = field(default_factory=dict)  # what the page says about the run
    # The twelve numbers for masks, where the model predicts and the data has some; of each class
    # they stand in per_class as mask_AP, mask_AP50 ...
    segm: dict[str, float] | None = None
    dataset: Dataset[Any] | None = field(default=None, repr=False)  # pictures for the page
    parameters: int = 0  # of the model

    @cached_property
    def analysis(self) -> Analysis:
        """Confusions, best thresholds, a score for every picture; worked out when asked for."""
        return analyse(self.predictions, self.targets, len(self.classes))

    def table(self) -> Table:
        """The numbers for a terminal: `rich.print(report.table())`; str(report) is plain text."""
        from rich import box
        from rich.table import Table

        table = Table(
            box=box.SIMPLE_HEAD,
            title=f"{len(self.predictions)} pictures, {rate(self.pictures_per_second)} a second",
            title_justify="left",
        )
        table.add_column("class")
        for name in ("objects", "AP", "AP50", "AP75", "AR100", "VOC 2007", "VOC 2010"):
            table.add_column(name, justify="right")
        keys = ("AP", "AP50", "AP75", "AR100", "AP_11point", "AP_every_point")
        for name, row in self.per_class.items():
            table.add_row(name, str(row["objects"]), *(show(row[key]) for key in keys))
        table.add_section()
        overall = {**self.coco, **self.voc}
        objects = sum(row["objects"] for row in self.per_class.values())
        table.add_row("all", str(objects), *(show(overall[key]) for key in keys), style="bold")
        if self.segm is not None:
            numbers = (show(self.segm[key]) for key in keys[:4])
            table.add_row("all, masks", str(objects), *numbers, style="bold")
        rest = ("APs", "APm", "APl"), ("AR1", "AR10", "ARs", "ARm", "ARl")
        lines = ["  ".join(f"{name} {show(self.coco[name])}" for name in names) for names in rest]
        if self.segm is not None:
            lines += [
                "masks: " + "  ".join(f"{name} {show(self.segm[name])}" for name in names)
                for names in rest
            ]
        table.caption = "\n".join(lines)
        table.caption_justify = "left"
        return table

    def __str__(self) -> str:
        return plain(self.table())

    def to_json(self, path: str | Path) -> Path:
        """Write every number: coco, segm (null without masks), voc, per_class, pictures,
        pictures_per_second, facts, and thresholds, histograms, confusion and per_picture of
        `analysis`."""
        return write_json(
            path,
            {
                "coco": self.coco,
                "segm": self.segm,
                "voc": self.voc,
                "per_class": self.per_class,
                "classes": self.classes,
                "pictures": len(self.predictions),
                "pictures_per_second": self.pictures_per_second,
                "parameters": self.parameters,
                "facts": self.facts,
                **as_json(self.analysis, self.classes, self.image_ids),
            },
            indent=2,
        )

    def detections_json(self, path: str | Path) -> Path:
        """Write the detections as COCO's results file, in the source's image and category ids;
        masks as compressed run-length encodings."""
        rows = []
        for image_id, prediction in zip(self.image_ids, self.predictions, strict=True):
            columns = (prediction[key].tolist() for key in ("boxes", "scores", "labels"))
            masks: Any = prediction.get("rle")
            for i, ((x1, y1, x2, y2), score, label) in enumerate(zip(*columns, strict=True)):
                row = {
                    "image_id": image_id,
                    "category_id": self.category_ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
                rows.append(row if masks is None else row | {"segmentation": masks[i]})
        return write_json(path, rows)

    def to_html(self, path: str | Path, title: str = "Evaluation", pictures: int = 12) -> Path:
        """Write one page that needs no other file: numbers, curves, some pictures."""
        from eyeline.evaluation.report import page

        return write_text(path, page(self, title=title, pictures=pictures))


@together()
def evaluate(
    model: nn.Module,
    dataset: Dataset[Any],
    batch_size: int = 1,
    device: torch.device | str | None = None,
    precision: str = "float32",
    progress: bool = True,
    workers: int = 0,
) -> Report:
    """Measure a detector on annotated pictures; of a segmenter, what `evaluate_segmentation`
    gives for the same arguments.

    Where the model predicts masks and every target has some, they are measured too (`segm`). The
    processes of torchrun, which must all call it, take a batch in turn; each gets the whole report,
    and its numbers are those of one process.

    Args:
        model: called as model(images) in eval mode; every module's mode is put back afterwards,
            also when the run is interrupted.
        dataset: yields (image (3, H, W), target), boxes in the image's pixels; `classes` and
            `annotations` are read from it where it has them.
        batch_size: pictures a call. The speed reported is that of this batch size.
        device: where the model is moved to; None: where it is.
        precision: "float32", or "bf16" or "fp16" for autocast.
        progress: a bar with the remaining time, on a terminal.
        workers: processes that load pictures.

    Raises:
        EyelineError: an empty data set, an unknown precision, or classes of the data that are
            not the model's.
    """
    if is_segmenter(model):
        own: Any = evaluate_segmentation(
            model, dataset, batch_size, device, precision, progress, workers
        )
        return own  # type: ignore[no-any-return]
    count = check_run(dataset, precision)
    classes = classes_of(model, dataset)

    def keep(
        found: list[Prediction], targets: list[Target]
    ) -> tuple[list[Prediction], list[Target]]:
        return [_kept(one) for one in found], [_kept(one) for one in targets]

    ran = run(model, dataset, keep, batch_size, device, precision, progress, workers)
    predictions = [one for found, _ in ran.kept for one in found]
    targets = [one for _, wanted in ran.kept for one in wanted]

    coco, voc = CocoMetric(classes), VocMetric(classes)
    coco.update(predictions, targets)
    voc.update(predictions, targets)
    coco_result, voc_result = coco.compute(), voc.compute()
    per_class = {
        name: {**voc_result["per_class"][name], **coco_result["per_class"][name]}
        for name in classes
    }
    segm = None
    if all("rle" in row for row in (*predictions, *targets)):
        masks = CocoMetric(classes, "segm")
        masks.update(predictions, targets)
        segm = masks.compute()
        for name, row in segm["per_class"].items():
            per_class[name] |= {f"mask_{k}": v for k, v in row.items() if k != "objects"}
    annotations = getattr(dataset, "annotations", None)
    records = getattr(annotations, "records", None) or []
    return Report(
        coco={name: coco_result[name] for name in COCO_NUMBERS},
        voc={name: voc_result[name] for name in ("AP_11point", "AP_every_point")},
        per_class=per_class,
        curves=voc.curves(),
        pictures_per_second=ran.pictures_per_second,
        classes=classes,
        predictions=predictions,
        targets=targets,
        image_ids=[int(t.get("image_id", i)) for i, t in enumerate(targets)],
        category_ids=list(getattr(annotations, "category_ids", None) or range(len(classes))),
        paths=[Path(r.path) for r in records] if len(records) == count else None,
        facts=facts_of(model, dataset, ran.device, precision, batch_size),
        dataset=dataset,
        segm=None if segm is None else {name: segm[name] for name in COCO_NUMBERS},
        parameters=parameters_of(model),
    )


def _kept(row: dict[str, Tensor]) -> dict[str, Any]:
    """A prediction or a target on the CPU, its masks encoded: a bitmap a detection of a whole
    data set would not fit into memory."""
    kept: dict[str, Any] = {k: v.cpu() for k, v in row.items() if k != "masks"}
    if "masks" in row:
        masks = row["masks"]
        # Probabilities where the model was told not to decide.
        kept["rle"] = encode_rle(masks >= 0.5 if masks.is_floating_point() else masks)
    return kept
