"""evaluate_segmentation(model, dataset): how good is a segmenter, and how fast?

Letters   K classes, N pictures, H and W a picture's height and width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from eyeline.device import autocast
from eyeline.errors import EyelineError
from eyeline.evaluation.running import (
    check_run,
    classes_of,
    eval_mode,
    facts_of,
    own_batches,
    parameters_of,
    plain,
    rate,
    run,
    show,
    write_json,
    write_text,
)
from eyeline.metrics.edges import EdgeErrors
from eyeline.metrics.segmentation import TOLERANCE, SegmentationMetrics, to_classes
from eyeline.nn.segmenter import check_several
from eyeline.structures import Target
from eyeline.together import together

if TYPE_CHECKING:
    from rich.table import Table


class Example(NamedTuple):
    """A picture of the data set by its index, and its map as the model says it."""

    index: int
    classes: Tensor  # (H, W) uint8


@dataclass
class SegmentationReport:
    """What `evaluate_segmentation` found; numbers of merit are in [0, 1]."""

    metrics: dict[str, float | None]  # mIoU and others; None where nothing speaks for one
    per_class: dict[str, dict[str, Any]]  # name -> IoU and others, pixels; None likewise
    confusion: Tensor  # (K, K) int64 pixels: rows are the truth, columns what the model says
    pictures_per_second: float  # prepare, compute and finish; neither loading nor measuring
    classes: list[str]
    per_picture: list[dict[str, float | None]]  # mIoU, pixel_accuracy
    image_ids: list[int]  # of the source where it is known, else 0, 1 ...
    paths: list[Path] | None  # the pictures' files, where the data set tells them
    facts: dict[str, str] = field(default_factory=dict)  # what a page says about the run
    examples: list[Example] = field(default_factory=list, repr=False)
    worst: list[Example] = field(default_factory=list, repr=False)  # lowest mIoU first
    edges: EdgeErrors | None = None  # errors by their distance to a boundary, if asked for
    dataset: Dataset[Any] | None = field(default=None, repr=False)  # pictures for a page
    parameters: int = 0  # of the model

    def table(self) -> Table:
        """The numbers for a terminal: `rich.print(report.table())`; str(report) is plain text."""
        from rich import box
        from rich.table import Table

        table = Table(
            box=box.SIMPLE_HEAD,
            title=f"{len(self.per_picture)} pictures, {rate(self.pictures_per_second)} a second",
            title_justify="left",
        )
        table.add_column("class")
        rows = list(self.per_class.values())
        keys = [key for key in rows[0] if key != "pixels"]
        for name in (*keys, "pixels"):
            table.add_column(name, justify="right")
        for name, row in self.per_class.items():
            table.add_row(name, *(show(row[key]) for key in keys), f"{row['pixels']:,}")
        told = [f"{name} {show(value)}" for name, value in self.metrics.items()]
        lines = [told[i : i + PER_LINE] for i in range(0, len(told), PER_LINE)]
        table.caption = "\n".join("  ".join(line) for line in lines)
        table.caption_justify = "left"
        return table

    def __str__(self) -> str:
        return plain(self.table())

    def worst_first(self) -> list[int]:
        """Pictures by mIoU, then by pixel accuracy; those without any known pixel are left out."""
        rows = [(row["mIoU"], row["pixel_accuracy"], i) for i, row in enumerate(self.per_picture)]
        return [i for *_, i in sorted(row for row in rows if None not in row)]

    def to_html(self, path: str | Path, title: str = "Evaluation") -> Path:
        """Write one page that needs no other file: numbers, confusions, pictures."""
        from eyeline.evaluation.map_report import page

        return write_text(path, page(self, title))

    def to_json(self, path: str | Path) -> Path:
        """Write every number: metrics, per_class, classes, confusion, per_picture by image_id,
        and, if they were asked for, boundaries: pixels and errors by the distance from one."""
        each = [
            {"image_id": number, **row}
            for number, row in zip(self.image_ids, self.per_picture, strict=True)
        ]
        return write_json(
            path,
            {
                "metrics": self.metrics,
                "per_class": self.per_class,
                "classes": self.classes,
                "confusion": self.confusion.tolist(),
                "pictures": len(self.per_picture),
                "pictures_per_second": self.pictures_per_second,
                "parameters": self.parameters,
                "facts": self.facts,
                "per_picture": each,
                "boundaries": None if self.edges is None else self.edges.to_json(),
            },
            indent=2,
        )


NUMBERS = (
    "mIoU",
    "pixel_accuracy",
    "mean_pixel_accuracy",
    "fw_IoU",
    "precision",
    "recall",
    "F1",
    "Dice",
    "boundary_F1",
)
PER_LINE = 3  # numbers of a line below the table
EXAMPLES = 4
WORST = 6


@together()
def evaluate_segmentation(
    model: nn.Module,
    dataset: Dataset[Any],
    batch_size: int = 1,
    device: torch.device | str | None = None,
    precision: str = "float32",
    progress: bool = True,
    workers: int = 0,
    examples: int = EXAMPLES,
    boundaries: bool = True,
    closely: bool = False,
) -> SegmentationReport:
    """Measure a segmenter on pictures with a class for every pixel, in the pictures' own size.

    The processes of torchrun, which must all call it, take a batch in turn; each gets the whole
    report, and its numbers are those of one process.

    Args:
        model: called as model(images) in eval mode; it gives logits (K, H, W) of each picture.
        dataset: yields (image (C, H, W), target with map (H, W)).
        batch_size: pictures a call. The speed reported is that of this batch size.
        device: where the model is moved to; None: where it is.
        precision: "float32", or "bf16" or "fp16" for autocast.
        progress: a bar with the remaining time, on a terminal.
        workers: processes that load pictures.
        boundaries: measure boundary F1, which takes most of the time.
        examples: of so many pictures, spread evenly, the report keeps what the model says.
        closely: count errors by their distance to a boundary too, and keep what the model says of
            the worst pictures, which it sees once more for that.

    Raises:
        EyelineError: an empty data set, an unknown precision, classes of the data that are not the
            model's, only one, no map of a picture, or one of another size, logits that are not
            finite.
    """
    count = check_run(dataset, precision)
    classes = classes_of(model, dataset)
    check_several(classes)
    tolerance = TOLERANCE if boundaries else None
    total = SegmentationMetrics(classes, tolerance=tolerance)
    edges = EdgeErrors() if closely else None
    few = min(examples, count)
    kept = {i * count // few for i in range(few)}
    numbers = (i for batch in own_batches(count, batch_size) for i in batch)

    def keep(found: Any, targets: list[Target]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for logits, target in zip(found, targets, strict=True):
            index = next(numbers)
            if "map" not in target:
                raise EyelineError(f"picture {index}: the target has no map of classes")
            truth, size = target["map"].to(logits.device), tuple(logits.shape[1:])
            if size != truth.shape:
                raise EyelineError(
                    f"picture {index}: the model's map is {size}, and that of the data "
                    f"{tuple(truth.shape)}"
                )
            one = SegmentationMetrics(classes, tolerance=tolerance)
            try:
                said = to_classes(logits, truth, len(classes))
                one.update(said, truth)
            except EyelineError as error:
                raise EyelineError(f"picture {index}: {error}") from None
            total.merge(one)
            if edges is not None:
                edges.update(said, truth)
            own = one.numbers()
            shown = said.to(torch.uint8).cpu() if index in kept else None
            number = int(target.get("image_id", index))
            rows.append((number, {key: own[key] for key in ("mIoU", "pixel_accuracy")}, shown))
        return rows

    ran = run(model, dataset, keep, batch_size, device, precision, progress, workers)
    rows = [row for batch in ran.kept for row in batch]
    found = total.over_processes().numbers()
    records = getattr(getattr(dataset, "annotations", None), "records", None) or []
    report = SegmentationReport(
        metrics={name: found[name] for name in NUMBERS},
        per_class=found["per_class"],
        confusion=found["confusion"],
        pictures_per_second=ran.pictures_per_second,
        classes=classes,
        per_picture=[row[1] for row in rows],
        image_ids=[row[0] for row in rows],
        paths=[Path(r.path) for r in records] if len(records) == count else None,
        facts=facts_of(model, dataset, ran.device, precision, batch_size),
        examples=[Example(i, row[2]) for i, row in enumerate(rows) if row[2] is not None],
        dataset=dataset,
        parameters=parameters_of(model),
        edges=None if edges is None else edges.over_processes(),
    )
    if closely:
        with eval_mode(model), torch.inference_mode(), autocast(ran.device, precision):
            for index in report.worst_first()[:WORST]:
                [logits] = model([dataset[index][0].to(ran.device)])
                report.worst.append(Example(index, logits.argmax(0).to(torch.uint8).cpu()))
    return report
