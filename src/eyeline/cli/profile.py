"""eyeline profile: where the time goes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyeline.cli.models import COUNTED
from eyeline.errors import EyelineError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from eyeline.inspection import Limits
    from eyeline.training import Recipe


def profile(
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
            metavar="[KEY=VALUE]...",
            help="keys of the recipe, such as model.backbone=resnet18 optimizer.name=sgd",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="of the pictures; default the model's, at 3 to 4"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="pictures at once")] = 1,
    precision: Annotated[
        str | None,
        typer.Option(help="float32, bf16 or int8; default float32, in training the recipe's"),
    ] = None,
    training: Annotated[
        bool, typer.Option("--training", help="a step of training, not inference")
    ] = False,
    as_is: Annotated[
        bool, typer.Option("--as-is", help="the model itself, not made faster as predict does")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="of the CPU; default what torch takes")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...")] = None,
    depth: Annotated[
        int, typer.Option(min=1, help="1 for the stages, 2 for their parts too ...")
    ] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="calls that are timed")] = 5,
    limits: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="the machine's limits are kept there, and taken from it next time"
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="a new file")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="a new file")] = None,
) -> None:
    """Show where the time goes, by stage, beside what the machine could do at best.

    The limits are measured first, in about three seconds. The machine should be idle.

    eyeline profile faster_rcnn --precision bf16

    eyeline profile runs/cells --training --batch 4 --depth 2
    """
    import torch
    from rich.console import Console

    from eyeline.cli.output import make_room
    from eyeline.device import find_device
    from eyeline.inspection import profile_inference, profile_training
    from eyeline.inspection.report import Subject, save_json, to_markdown, to_table

    for option, path in (("--json", json), ("--markdown", markdown)):
        if path is not None and path.exists():
            raise EyelineError(f"{path} exists already; name a new file")
        if path is not None:
            make_room(path, option)
    if limits is not None and not limits.exists():
        make_room(limits, "--limits")
    where = find_device(device)
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or threads_before)
        model, recipe, trained = open_model(what, settings or [], precision if training else None)
        if model.task not in ("detection", "segmentation"):
            raise EyelineError(
                f"{model.name} is for {model.task}; profile takes a detector or a segmenter"
            )
        name, pixels = " ".join([what, *(settings or [])]), picture_size(size, model)
        model.to(where)
        found = find_limits(limits, where)
        if training:
            if as_is:
                raise EyelineError("--as-is is for inference; a model in training always is")
            subject = Subject(name, "training", recipe.precision, batch, pixels)
            result = profile_training(model, found, pixels, recipe, batch, rounds, depth)
        else:
            precision = precision or "float32"
            subject = Subject(name, "inference", precision, batch, pixels, not as_is)
            result = profile_inference(
                model, found, pixels, batch, precision, as_is, trained, rounds, depth
            )
    finally:
        torch.set_num_threads(threads_before)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(to_table(subject, result))
    if json is not None:
        save_json(subject, result, json)
    if markdown is not None:
        markdown.write_text(to_markdown(subject, result), encoding="utf-8")


def open_model(
    what: str, settings: list[str], precision: str | None
) -> tuple[nn.Module, Recipe, bool]:
    """The model that is meant, the recipe that a step of training follows, and whether the
    model's weights have learned anything."""
    import json

    from eyeline.inference.predictor import load_model
    from eyeline.registry import create_model, find_entry
    from eyeline.training import load_recipe

    path = Path(what)
    settings = [*settings, *([f"precision={precision}"] if precision else [])]
    if path.suffix in (".yaml", ".yml"):
        recipe = load_recipe(path, settings)
        if recipe.model is None:
            raise EyelineError(f"{path}: a recipe needs model.name")
    elif path.suffix != ".py" and (path.exists() or any(mark in what for mark in "/.:")):
        if wrong := [text for text in settings if text.startswith("model.")]:
            raise EyelineError(f"{what} is trained; {wrong[0]} would make another model of it")
        own = path / "recipe.yaml"
        return load_model(what), load_recipe(own if own.is_file() else {}, settings), True
    else:
        name = what if path.suffix == ".py" else find_entry(what).name
        recipe = load_recipe({}, [f"model.name={json.dumps(name)}", *settings])
    assert recipe.model is not None
    task = find_entry(recipe.model.name).task
    unnamed = None
    if recipe.classes is None and recipe.weights is None:  # as many as `eyeline models` counts
        unnamed = COUNTED.get(task, COUNTED["detection"])[2]
    model = create_model(
        recipe.model.name, classes=recipe.classes, num_classes=unnamed, weights=recipe.weights,
        **recipe.model.options,
    )  # fmt: skip
    return model, recipe, recipe.weights is not None


def picture_size(text: str | None, model: Any) -> tuple[int, int]:
    """Height and width in pixels of "800x1066", or of "800", a square; None: the model's own."""
    from eyeline.inspection.profile import default_size

    if text is None:
        return default_size(model)
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    height, width = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if min(height, width) < 32:
        raise EyelineError(
            f"--size is height x width in pixels, from 32, such as 800x1066, not {text!r}"
        )
    return height, width


def find_limits(path: Path | None, device: torch.device) -> Limits:
    """Those of the file; where there is none, measured, and kept there."""
    from eyeline.inspection.limits import measure_limits, read_limits

    if path is not None and path.exists():
        return read_limits(path, device)
    found = measure_limits(device)
    if path is not None:
        found.save(path)
    return found
