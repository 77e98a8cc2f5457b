"""evaluate(model, dataset): how good is a detector, and how fast?"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from eyeline.device import PRECISIONS, autocast
from eyeline.errors import EyelineError
from eyeline.metrics.analysis import Analysis, analyse, as_json
from eyeline.metrics.detection import COCO_NUMBERS, CocoMetric, Curve, VocMetric
from eyeline.ops.segmentations import encode_rle
from eyeline.processes import count_processes, in_order, of_all, place, turns
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
        from rich.console import Console

        console = Console(width=100, color_system=None)
        with console.capture() as capture:
            console.print(self.table())
        return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")

    def to_json(self, path: str | Path) -> Path:
        """Write every number: coco, segm (null without masks), voc, per_class, pictures,
        pictures_per_second, facts, and thresholds, histograms, confusion and per_picture of
        `analysis`."""
        return _write(
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
        return _write(path, rows)

    def to_html(self, path: str | Path, title: str = "Evaluation", pictures: int = 12) -> Path:
        """Write one page that needs no other file: numbers, curves, some pictures."""
        from eyeline.evaluation.report import page

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(self, title=title, pictures=pictures), encoding="utf-8")
        return path


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
    """Measure a detector on annotated pictures.

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
    if precision not in PRECISIONS:
        raise EyelineError(f"no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    count = len(dataset)  # type: ignore[arg-type]
    if not count:
        raise EyelineError("the data set to evaluate on has no pictures")
    classes = _classes(model, dataset)
    if device is not None:
        model.to(device)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    batches = [range(i, min(i + batch_size, count)) for i in range(0, count, batch_size)]
    own = [batches[i] for i in turns(len(batches))]
    loader: Any = DataLoader(dataset, batch_sampler=own, num_workers=workers, collate_fn=_unzip)  # type: ignore[arg-type]
    done: list[tuple[list[Prediction], list[Target]]] = []  # batch by batch
    seconds: list[float] = []  # a picture
    in_precision, total = autocast(device, precision), sum(map(len, own))
    shown = progress and place()[0] == 0
    with eval_mode(model), torch.inference_mode(), in_precision, _bar(total, shown) as advance:
        for images, batch_targets in loader:
            images = [image.to(device) for image in images]
            _wait(device)
            start = time.perf_counter()
            found = model(images)
            _wait(device)
            seconds.append((time.perf_counter() - start) / len(images))
            done.append(([_kept(one) for one in found], [_kept(one) for one in batch_targets]))
            advance(len(images))
    done = in_order(of_all(done))
    predictions = [one for found, _ in done for one in found]
    targets = [one for _, wanted in done for one in wanted]
    # The first call allocates and tunes.
    speed = sum(1 / median(times[1:] or times) for times in of_all(seconds) if times)

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
    parameters = sum(p.numel() for p in model.parameters())
    annotations = getattr(dataset, "annotations", None)
    records = getattr(annotations, "records", None) or []
    return Report(
        coco={name: coco_result[name] for name in COCO_NUMBERS},
        voc={name: voc_result[name] for name in ("AP_11point", "AP_every_point")},
        per_class=per_class,
        curves=voc.curves(),
        pictures_per_second=speed,
        classes=classes,
        predictions=predictions,
        targets=targets,
        image_ids=[int(t.get("image_id", i)) for i, t in enumerate(targets)],
        category_ids=list(getattr(annotations, "category_ids", None) or range(len(classes))),
        paths=[Path(r.path) for r in records] if len(records) == count else None,
        facts={
            "model": getattr(model, "name", None) or type(model).__name__,
            "parameters": f"{parameters / 1e6:.1f} million",
            "data": str(getattr(annotations, "source", type(dataset).__name__)),
            "device": str(device),
            "precision": precision,
            "batch size": str(batch_size),
            **({} if count_processes() == 1 else {"processes": str(count_processes())}),
        },
        dataset=dataset,
        segm=None if segm is None else {name: segm[name] for name in COCO_NUMBERS},
        parameters=parameters,
    )


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode within; afterwards every module has its own mode again, frozen parts too."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def show(value: float | None) -> str:
    """A number of merit, or a dash where nothing speaks for it."""
    return "-" if value is None or value < 0 else f"{value:.3f}"


def rate(per_second: float) -> str:
    """A speed in three digits, or as many as stand before the point."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def _classes(model: nn.Module, dataset: Dataset[Any]) -> list[str]:
    """Names of the labels, which model and data must agree on where both have them."""
    models = list(getattr(model, "classes", None) or [])
    datas = list(getattr(dataset, "classes", None) or [])
    if not (models or datas):
        raise EyelineError("neither model nor data set names its classes; set model.classes")
    if not (models and datas) or models == datas:
        return datas or models
    numbers = [str(k) for k in range(len(models))]  # what unnamed classes are called
    if len(models) == len(datas) and numbers in (models, datas):
        return datas if models == numbers else models
    how = "open the data with classes=model.classes"
    if len(models) != len(datas):
        raise EyelineError(
            f"the model knows {len(models)} classes ({_some(models)}) and the data has "
            f"{len(datas)} ({_some(datas)}); {how}"
        )
    k = next(k for k in range(len(models)) if models[k] != datas[k])
    raise EyelineError(
        f"label {k} is {models[k]!r} to the model and {datas[k]!r} in the data; {how}"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _kept(row: dict[str, Tensor]) -> dict[str, Any]:
    """A prediction or a target on the CPU, its masks encoded: a bitmap a detection of a whole
    data set would not fit into memory."""
    kept: dict[str, Any] = {k: v.cpu() for k, v in row.items() if k != "masks"}
    if "masks" in row:
        masks = row["masks"]
        # Probabilities where the model was told not to decide.
        kept["rle"] = encode_rle(masks >= 0.5 if masks.is_floating_point() else masks)
    return kept


def _unzip(pairs: Sequence[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    return [image for image, _ in pairs], [target for _, target in pairs]


def _wait(device: torch.device) -> None:
    """For what the device was asked to do, so that the clock counts it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def _bar(total: int, progress: bool) -> Iterator[Any]:
    """A bar on standard error; gives the function that advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), Remaining())
    shown = progress and console.is_terminal
    with Progress(*columns, console=console, disable=not shown, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


def _write(path: str | Path, content: Any, indent: int | None = None) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=indent, allow_nan=False)
    # Rows of numbers on one line each.
    text = re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda row: f"[{' '.join(row[1].split())}]", text)
    path.write_text(text + "\n", encoding="utf-8")
    return path
