"""eyeline explain: what a model did with one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eyeline.errors import EyelineError


def explain(
    run: Annotated[
        str,
        typer.Argument(help="run folder or weights file; a model's name or .py has no weights"),
    ],
    picture: Annotated[Path, typer.Argument(help="picture file")],
    target: Annotated[
        Path | None,
        typer.Option(
            metavar="ANNOTATION",
            help="a COCO .json, a VOC .xml, or a folder of either, that has the picture",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="default PICTURE.html")
    ] = None,
    attention: Annotated[
        int, typer.Option(min=0, help="detections with maps of what their score hangs on")
    ] = 4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="an existing FILE")] = False,
) -> None:
    """Write one page that shows what a model did with a picture, stage by stage.

    With an annotation it also tells why each missed object was missed. The page needs no network.

    eyeline explain runs/cells cell.jpg --target cells
    """
    from eyeline.cli.profile import open_model
    from eyeline.data.images import read_image
    from eyeline.data.lookup import annotated_picture
    from eyeline.inspection.explain import class_names
    from eyeline.inspection.explain import explain as explain_page
    from eyeline.inspection.page.attention import attention as attention_of
    from eyeline.inspection.xray import xray

    path = out or Path(f"{picture.stem}.html")
    if path.is_dir() or (path.exists() and not overwrite):
        raise EyelineError(f"{path} exists already; choose another --out, or give --overwrite")
    if not picture.is_file():
        raise EyelineError(f"{picture}: no such picture")
    model = open_model(run, [], None)[0]
    if target is None:
        image, wanted, told = read_image(picture), None, "No annotation was given."
    else:
        needs_masks = getattr(model, "needs_masks", False)
        image, wanted = annotated_picture(target, picture, model.classes, needs_masks)
        told = f"Annotation: {target.name}, {len(wanted['boxes'])} objects."
    found = xray(model, image, wanted)
    maps = attention_of(found, class_names(found), attention) if attention else None
    page = explain_page(found, run, picture.name, maps, f"{type(model).__name__}. {told}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    print(path)
