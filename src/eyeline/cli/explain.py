"""eyeline explain: what a model did with one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from eyeline.data.lookup import AnnotatedPicture
    from eyeline.training.recipe import Data


def explain(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="run folder or weights file; a model's name, a file of your own (.py) or a "
            "recipe (.yaml) has no weights but those that it names",
        ),
    ],
    picture: Annotated[Path, typer.Argument(help="picture file")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="keys of the recipe, such as model.backbone=resnet18"
        ),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            metavar="ANNOTATION",
            help="a COCO .json, a VOC .xml, or an annotated folder, that has the picture; of a "
            "segmenter a PNG of classes, or a folder",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="of ANNOTATION, where it looks like two"),
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
    from eyeline.cli.output import make_room
    from eyeline.cli.profile import open_model
    from eyeline.data.images import read_image
    from eyeline.data.lookup import annotated_picture
    from eyeline.inspection.explain import class_names
    from eyeline.inspection.explain import explain as explain_page
    from eyeline.inspection.page.attention import attention as attention_of
    from eyeline.inspection.xray import xray
    from eyeline.nn.segmenter import is_segmenter

    path = out or Path(f"{picture.stem}.html")
    if not picture.is_file():
        raise EyelineError(f"{picture}: no such picture")
    make_room(path)
    if path.exists() and not overwrite:
        raise EyelineError(f"{path} exists already; choose another --out, or give --overwrite")
    model, recipe, _ = open_model(run, settings or [], None)
    if is_segmenter(model):
        page = _of_map(model, run, picture, target, format, recipe.data)
        path.write_text(page, encoding="utf-8")
        print(path)
        return
    if target is None:
        image, wanted, told = read_image(picture), None, "No annotation was given."
    else:
        needs_masks = getattr(model, "needs_masks", False)
        annotated = annotated_picture(target, picture, model.classes, needs_masks, format)
        image, wanted = annotated.image, annotated.target
        told = f"Annotation: {target.name}, {_contents(annotated)}."
    found = xray(model, image, wanted)
    maps = attention_of(found, class_names(found), attention) if attention else None
    page = explain_page(found, run, picture.name, maps, f"{type(model).__name__}. {told}")
    path.write_text(page, encoding="utf-8")
    print(path)


def _of_map(
    model: Any, run: str, picture: Path, target: Path | None, format: str | None, data: Data
) -> str:
    """The page of a segmenter."""
    from eyeline.data.images import read_image
    from eyeline.data.map_lookup import map_of
    from eyeline.inspection.explain import explain as explain_page
    from eyeline.inspection.map_xray import xray_map
    from eyeline.training.build import values_of

    image = read_image(picture, channels=model.channels)
    wanted, told = None, "No annotation was given."
    if target is not None:
        how = (data.background, values_of(data), data.path)  # as the run's own
        wanted = map_of(target, picture, model.classes, format, *how)
        told = f"Annotation: {target.name}."
    name = type(model).__name__
    return explain_page(xray_map(model, image, wanted), run, picture.name, None, f"{name}. {told}")


def _contents(annotated: AnnotatedPicture) -> str:
    """As "1 object (2 left out: no area or outside the picture), 1 crowd"."""
    from eyeline.evaluation.html import counted

    boxes, ignored = annotated.target["boxes"], annotated.target["iscrowd"]
    crowds = len(boxes[ignored].unique(dim=0))  # a region without a class is there for each class
    told = counted(len(boxes[~ignored]), "object")
    if annotated.left_out:
        told += f" ({annotated.left_out:,} left out: no area or outside the picture)"
    return f"{told}, {counted(crowds, 'crowd')}" if crowds else told
