"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

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
