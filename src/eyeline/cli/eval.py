"""eyeline eval: how good is a trained detector?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eyeline.errors import EyelineError


def evaluate(
    run: Annotated[str, typer.Argument(help="run folder, or weights file")],
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="annotated pictures; default: those of the run"),
    ] = None,
    split: Annotated[str, typer.Option(help="which part of them")] = "val",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a new folder; default RUN/eval-SPLIT")
    ] = None,
    precision: Annotated[str, typer.Option(help="float32 or bf16")] = "float32",
    batch_size: Annotated[int, typer.Option(min=1)] = 1,
    workers: Annotated[int, typer.Option(min=0, help="processes that load pictures")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...")] = None,
) -> None:
    """Measure a detector: COCO's twelve numbers, VOC's AP, per class, pictures a second.

    Prints the table; writes report.html, results.json and detections.json (COCO).
    """
    from rich import print as show

    from eyeline.cli.output import new_folder
    from eyeline.data.datasets import open_dataset
    from eyeline.evaluation import evaluate
    from eyeline.export import optimize
    from eyeline.inference.predictor import default_device, load_model
    from eyeline.training import load_run

    folder = Path(run)
    if data is None:
        recipe = load_run(folder)[0] if folder.is_dir() else None
        if recipe is None or recipe.data is None:
            raise EyelineError("which pictures? give --data PATH, a folder in COCO or VOC form")
        data = recipe.data.path
    model: Any = load_model(run)
    dataset = open_dataset(data, split, classes=model.classes)
    report = evaluate(
        optimize(model, precision),
        dataset,
        batch_size=batch_size,
        device=device or default_device(),
        workers=workers,
    )
    report.facts["precision"] = precision
    folder = new_folder(out, (folder if folder.is_dir() else Path()) / f"eval-{split}")
    report.to_json(folder / "results.json")
    report.detections_json(folder / "detections.json")
    title = f"{model.name} on {Path(data).name} {split}"
    page = report.to_html(folder / "report.html", title=title)
    show(report.table())
    print(f"report: {page}")
