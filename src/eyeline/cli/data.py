"""eyeline data: sample data, and one's own checked, looked at, converted, split and merged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from eyeline.cli import arrange, show
from eyeline.errors import EyelineError

app = typer.Typer(
    help="Sample data; your own checked, looked at, converted, split, merged.", no_args_is_help=True
)
app.command()(arrange.convert)
app.command()(arrange.split)
app.command()(arrange.merge)
app.command()(show.show)


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
def check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="annotated pictures")],
    split: Annotated[
        list[str] | None, typer.Option(help="repeat for several; default train and val")
    ] = None,
    format: Annotated[str | None, typer.Option(help="of PATH, where it looks like two")] = None,
) -> None:
    """Read every annotation and every picture, and count the objects of each class.

    Named are boxes without area or outside their picture, pictures that cannot be read or have
    another size than annotated, and classes that the first split does not know. The exit status
    is 1 if there are any.
    """
    import numpy as np
    from rich import box
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from eyeline.data.datasets import open_dataset
    from eyeline.data.images import read_image

    classes: list[str] | None = None
    counts: dict[str, list[int]] = {}
    faults = 0
    console = Console(stderr=True)
    for name in split or ["train", "val"]:
        dataset = open_dataset(path, name, classes=classes, format=format)
        classes = dataset.classes
        records = dataset.annotations.records
        for record in track(records, name, console=console, disable=not console.is_terminal):
            try:
                height, width = read_image(record.path).shape[1:]
                annotated = (record.height or height, record.width or width)
                if (height, width) != annotated:
                    raise EyelineError(
                        f"{record.path}: the picture is {width}x{height}, "
                        f"its annotation says {record.width}x{record.height}"
                    )
            except EyelineError as error:
                faults += 1
                print(error, file=sys.stderr)
        labels = np.concatenate([np.zeros(0, np.int64), *(record.labels for record in records)])
        column = np.bincount(labels, minlength=len(classes)).tolist()
        counts[f"{name} ({len(records)} pictures)"] = column
    table = Table("class", box=box.SIMPLE_HEAD)
    for title in counts:
        table.add_column(title, justify="right")
    for k, label in enumerate(classes or []):
        table.add_row(label, *(str(column[k]) for column in counts.values()))
    table.add_section()
    table.add_row("all", *(str(sum(column)) for column in counts.values()), style="bold")
    Console().print(table)
    if faults:
        raise EyelineError(f"{path}: {faults} pictures with faults, named above")
    print("no fault found")
