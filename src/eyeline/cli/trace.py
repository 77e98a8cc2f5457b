"""eyeline trace: the path of a picture through a model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from eyeline.inspection import Trace


class Form(StrEnum):
    text = "text"
    html = "html"
    json = "json"


def trace(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN",
            help="name of a model or a file of your own (.py), a recipe (.yaml), "
            "a run folder or a weights file",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="keys of the recipe, such as model.backbone=resnet18"
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="PICTURE", help="file or URL; default random colours")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="what the network sees; default the model's own"),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="of the text: 1, 2 ...; default what fits into 40 lines"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="calls that are timed")] = 3,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...")] = None,
    form: Annotated[
        Form | None, typer.Option("--format", help="default that of --out's ending, or text")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="a new file; default for html trace.html"),
    ] = None,
) -> None:
    """Follow a picture through a model, step by step: shapes, parameters, multiply-adds, time,
    memory, and where each step is written.

    eyeline trace faster_rcnn

    eyeline trace runs/cells --image street.jpg -o street.html
    """
    from eyeline.cli.output import free_path, make_room
    from eyeline.cli.profile import open_model, picture_size
    from eyeline.device import find_device
    from eyeline.inspection import trace as follow

    form = form_of(out, form)
    if out is not None and out.is_dir():
        raise EyelineError(f"{out} is a folder; give --out a file, such as {out}/trace.html")
    if out is not None or form == Form.html:
        out = free_path(out, Path("trace"), ".html")
        make_room(out)
    where = find_device(device)
    model, _, trained = open_model(what, settings or [], None)
    pixels = None if size is None else picture_size(size, model)
    found = follow(model.to(where), image, pixels, trained, rounds)
    if out is None:
        show(found, form, depth)
        return
    out.write_text(written(found, form, depth) + "\n", encoding="utf-8")
    print(f"trace: {out}")


def form_of(out: Path | None, wanted: Form | None) -> Form:
    """The form that is wanted, else what the ending of a file asks for."""
    endings = {
        ".html": Form.html, ".htm": Form.html, ".json": Form.json, ".txt": Form.text,
    }  # fmt: skip
    ending = None if out is None else endings.get(out.suffix.lower())
    if wanted is not None and ending not in (None, wanted):
        raise EyelineError(
            f"{out} ends as {ending} does, not {wanted}; leave out --format, or give another --out"
        )
    return wanted or ending or Form.text


def show(found: Trace, form: Form, depth: int | None) -> None:
    """On the terminal, in its width; where there is none, in 100 columns."""
    from rich.console import Console

    console = Console()
    print(written(found, form, depth, console.width if console.is_terminal else 100))


def written(found: Trace, form: Form, depth: int | None, width: int = 100) -> str:
    import json

    if form == Form.html:
        return found.html()
    if form == Form.json:
        return json.dumps(found.to_dict(), indent=2)
    return found.table(width, depth)
