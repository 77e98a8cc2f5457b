"""eyeline demo: from nothing to a report, on sample data."""

from __future__ import annotations

import json
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyeline.cli.options import Settings

if TYPE_CHECKING:
    from PIL import Image

TRAIN, VAL, SIZE = 1200, 100, 160  # pictures of the sample data, their side in pixels
DRAWN = 12  # held-out pictures
EPOCHS, MINUTES = 3, 5  # what they take on 2 cores without a GPU


def demo(
    settings: Settings = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="where it is taken, DIR-2, DIR-3 ...")
    ] = Path("demo"),
    minutes: Annotated[
        float, typer.Option(min=0.1, help="about how long, on 2 cores; sets the epochs")
    ] = MINUTES,
) -> None:
    """Write sample data, train a small detector, evaluate it and draw predictions.

    Ends with the line `AP50 <value>` and where the report lies. Beside the report lie the
    detections as COCO's results file, for data/annotations/instances_val.json.
    """
    from eyeline.cli.output import new_folder
    from eyeline.data.datasets import open_dataset
    from eyeline.data.samples import write_samples
    from eyeline.evaluation import evaluate
    from eyeline.inference import Predictor
    from eyeline.training import load_recipe, train_recipe

    start = time.monotonic()
    folder = new_folder(None, out)
    data, run = folder / "data", folder / "run"
    write_samples(data, train=TRAIN, val=VAL, size=SIZE, seed=0)
    print(f"sample data: {data}")
    places = [f"data.path={json.dumps(str(data))}", f"out={json.dumps(str(run))}"]
    source = str(files("eyeline") / "recipes" / "sample_faster_rcnn.yaml")
    epochs = max(1, round(EPOCHS * minutes / MINUTES))
    train_recipe(load_recipe(source, [*places, f"epochs={epochs}", *(settings or [])]))

    predictor = Predictor(run)
    report = evaluate(predictor.model, open_dataset(data, "val", classes=predictor.classes))
    report.to_json(folder / "results.json")
    report.detections_json(folder / "detections.json")
    title = "eyeline demo: handwritten digits"
    page = report.to_html(folder / "report.html", title=title, pictures=DRAWN)
    drawn = [result.plot() for result in predictor.stream(sorted((data / "val").iterdir())[:DRAWN])]
    sheet(drawn, columns=4).save(folder / "predictions.png")
    print(f"{time.monotonic() - start:.0f} s in all")
    print(f"AP50 {report.coco['AP50']:.4f}")
    print(f"report: {page}")


def sheet(pictures: list[Image.Image], columns: int, gap: int = 8) -> Image.Image:
    """Pictures of one size side by side, row by row."""
    from PIL import Image

    width, height = pictures[0].width + gap, pictures[0].height + gap
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * width - gap, rows * height - gap), "white")
    for i, picture in enumerate(pictures):
        page.paste(picture, (i % columns * width, i // columns * height))
    return page
