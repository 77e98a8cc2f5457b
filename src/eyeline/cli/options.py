"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eyeline.errors import EyelineError

NO_DATA = "which pictures? give --data PATH, a folder in COCO or VOC form"

Data = Annotated[
    str | None, typer.Option(metavar="PATH", help="annotated pictures, COCO or Pascal VOC")
]
Tolerant = Annotated[
    bool, typer.Option("--tolerant", help="leave out what is wrong with the data, and say how much")
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="keys of the recipe, such as epochs=10 optimizer.lr=1e-4"
    ),
]
ModelOrRecipe = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|RECIPE", help="name of a model or a file of your own (.py), or a recipe"
    ),
]
Nms = Annotated[
    str | None, typer.Option(help="hard, soft_linear or soft_gaussian; default: the model's")
]
NmsIou = Annotated[
    float | None, typer.Option(min=0, max=1, help="overlap from which boxes suppress one another")
]
VoteIou = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="kept boxes become the mean of those that overlap them so far"),
]
ClassAgnostic = Annotated[
    bool, typer.Option("--class-agnostic", help="boxes of different classes suppress one another")
]
Tta = Annotated[
    bool, typer.Option("--tta", help="test-time augmentation: six sizes, plain and mirrored")
]
TtaSize = Annotated[
    list[float] | None,
    typer.Option(
        metavar="RATIO",
        help="of --tta, again for each: 1, which has to be among them, 0.6, 1.2, 1.4, 1.6, 1.8",
    ),
]
Precision = Annotated[str, typer.Option(help="float32, bf16 or int8")]
CalibratedRanges = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="for int8, what calibrate wrote; default: the run's"),
]
Tile = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="PIXELS", help="of a segmenter: cut pictures into tiles of that side"
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(min=0, help="of --tile: below 1 a share of the tile, else pixels; default 0.25"),
]
Margin = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="PIXELS",
        help="of --tile: at its ends they do not count; from the network's reach on, the result is "
        "that of the whole picture; at most half the overlap, default 0",
    ),
]
Scales = Annotated[
    str | None,
    typer.Option(
        metavar="RATIO,RATIO", help="of a segmenter: sizes at which it looks, such as 0.75,1,1.25"
    ),
]
Flip = Annotated[
    bool, typer.Option("--flip", help="of a segmenter: it looks again at mirrored pictures")
]


def ratios(text: str | None) -> list[float] | None:
    """Numbers of "0.75,1,1.25". Raises EyelineError where they are none."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise EyelineError(f"--scales is factors such as 0.75,1,1.25, not {text!r}") from None
