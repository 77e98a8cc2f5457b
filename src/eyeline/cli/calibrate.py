"""eyeline calibrate: make a run ready for `--precision int8`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eyeline.errors import EyelineError


def calibrate(
    run: Annotated[str, typer.Argument(help="run folder, or weights file")],
    pictures: Annotated[
        str, typer.Argument(help="a folder of pictures like those to come; no annotations needed")
    ],
    count: Annotated[int, typer.Option(min=1, help="how many of them, evenly spread")] = 64,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a new file; default RUN/int8.json")
    ] = None,
) -> None:
    """Note between which numbers a detector's values lie, so that it can compute in 8 bits.

    Then `eyeline predict RUN SOURCE --precision int8` and `eyeline eval RUN --precision int8` do.
    """
    from rich.console import Console
    from rich.progress import track

    from eyeline.cli.output import make_room
    from eyeline.export import calibrate
    from eyeline.inference.predictor import RANGES, load_model
    from eyeline.inference.sources import find, load

    if out is None and not Path(run).is_dir():
        raise EyelineError(f"{run} is no run folder: say with --out where the ranges are to lie")
    path = out or Path(run) / RANGES
    if path.exists():
        raise EyelineError(f"{path} exists already; remove it or choose another --out")
    make_room(path)
    items, _ = find(pictures)
    chosen = items[:: max(1, len(items) // count)][:count]
    model = load_model(run)
    console = Console(stderr=True)
    watched = track(
        load(chosen, channels=getattr(model, "channels", 3)), "calibrating", len(chosen),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip
    ranges = calibrate(model, ([one.image] for one in watched))
    ranges.save(path)
    print(f"{len(ranges.layers)} layers on {len(chosen)} pictures: {path}")
