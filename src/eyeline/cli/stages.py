"""eyeline stages: what each stage of a Cascade R-CNN does to the boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eyeline.cli.options import NO_DATA, Tolerant
from eyeline.errors import EyelineError


def stages(
    run: Annotated[str, typer.Argument(help="run folder, or weights file, of a cascade_rcnn")],
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="annotated pictures; default: those of the run"),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="which part of them; default: the run's, or val")
    ] = None,
    bad_boxes: Annotated[
        str | None, typer.Option(help="error or drop; default: the run's, or error")
    ] = None,
    tolerant: Tolerant = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a new folder; default RUN/stages-SPLIT")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 1,
    workers: Annotated[int, typer.Option(min=0, help="processes that load pictures")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...")] = None,
) -> None:
    """Look behind each stage of a Cascade R-CNN, as its paper does: IoU of boxes before and after
    it, and AP at each overlap of each detector at the boxes of each stage.

    Prints a table; writes stages.html, stages.json and iou.svg (figure 1 c).
    """
    from rich import print as show

    from eyeline.cli.output import free_path
    from eyeline.data.checking.progress import track
    from eyeline.data.checking.usable import open_checked
    from eyeline.device import find_device
    from eyeline.evaluation.cascade import check_stages, measure_stages
    from eyeline.inference.predictor import load_model
    from eyeline.training import load_recipe
    from eyeline.training.recipe import Data

    model: Any = load_model(run)
    check_stages(model)
    folder = Path(run)
    in_run = (folder / "recipe.yaml").is_file()
    of_run = load_recipe(folder / "recipe.yaml").data if in_run else Data()
    path = data or of_run.path
    if path is None:
        raise EyelineError(NO_DATA)
    split = split or of_run.val or "val"
    out = free_path(out, (folder if folder.is_dir() else Path()) / f"stages-{split}")
    [dataset] = open_checked(
        path,
        [split],
        tolerant or of_run.tolerant,
        bad_boxes or of_run.bad_boxes,
        None if data else of_run.format,
        classes=model.classes,
        channels=getattr(model, "channels", 3),
        one_based=of_run.one_based,
        unknown=of_run.unknown,
        track=track,
        say=print,
    )
    report = measure_stages(
        model, dataset, batch_size=batch_size, device=find_device(device), workers=workers
    )
    report.to_json(out / "stages.json")
    report.to_svg(out / "iou.svg")
    page = report.to_html(
        out / "stages.html", title=f"Stages of {model.name} on {Path(path).name} {split}"
    )
    show(report.table())
    print(f"page: {page}")
