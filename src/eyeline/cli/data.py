"""eyeline data: sample and public data, one's own checked, looked at, converted, split, merged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eyeline.cli import arrange, get, show
from eyeline.cli.check import check
from eyeline.errors import EyelineError

app = typer.Typer(
    help="Sample and public data; your own checked, looked at, converted, split, merged.",
    no_args_is_help=True,
)
app.command()(check)
app.command()(arrange.convert)
app.command()(arrange.split)
app.command()(arrange.merge)
app.command()(show.show)
app.command()(get.get)


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="a new folder")],
    train: Annotated[int, typer.Option(min=1, help="pictures to train on")] = 400,
    val: Annotated[int, typer.Option(min=1, help="pictures held out")] = 100,
    size: Annotated[int, typer.Option(min=32, help="longer side in pixels")] = 160,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write pictures of handwritten digits with boxes and masks, in COCO form.

    The same arguments give the same files, byte for byte.
    """
    from eyeline.data.samples import write_samples

    write_samples(folder, train=train, val=val, size=size, seed=seed)
    print(f"{train} pictures to train on, {val} held out: {folder}")


@app.command()
def priors(
    data: Annotated[Path, typer.Argument(metavar="PATH", help="annotated pictures, or a name")],
    count: Annotated[int, typer.Option(min=1, help="how many")] = 9,
    size: Annotated[int, typer.Option(min=1, help="the network's longer side, pixels")] = 416,
    split: Annotated[str, typer.Option(help="whose boxes")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="of the first priors")] = 0,
    bad_boxes: Annotated[str, typer.Option(help="error or drop")] = "error",
) -> None:
    """Priors of YOLO for your own boxes: k-means by IoU.

    Prints them as the recipe's key, finest scale first, and the mean of each box's best IoU.
    """
    from eyeline.data.datasets import open_dataset
    from eyeline.data.priors import find_priors, shapes_of

    if bad_boxes not in ("error", "drop"):
        raise EyelineError(f"bad_boxes must be error or drop, not {bad_boxes!r}")
    dropping: Any = bad_boxes
    records = open_dataset(data, split, bad_boxes=dropping).annotations.records
    boxes = [record.boxes[~record.iscrowd] for record in records]
    shapes = shapes_of(boxes, [(record.height, record.width) for record in records], size)
    found, iou = find_priors(shapes, count, seed)
    print(f"# {len(shapes)} boxes; mean best IoU {iou:.3f}; for pictures of {size} pixels")
    print(f"model:\n  priors: [{', '.join(f'{side:.0f}' for side in found.flatten())}]")
