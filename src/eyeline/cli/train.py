"""eyeline train: a model on annotated pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyeline.cli.options import NO_DATA, Data, Settings, Tolerant
from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from eyeline.training import Recipe


def train(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RECIPE|RUN",
            help="name of a model (see `eyeline models`) or a file of your own (.py), "
            "a recipe (.yaml), or with --resume a run",
        ),
    ],
    settings: Settings = None,
    data: Data = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="the run folder; default runs/NAME")
    ] = None,
    tolerant: Tolerant = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the run that was broken off")
    ] = False,
) -> None:
    """Train a detector or a segmenter; weights, log and recipe go to a run folder.

    eyeline train retinanet --data cells model.backbone=resnet18 epochs=10

    eyeline train recipe.yaml optimizer.lr=1e-4 --out runs/second

    eyeline train mine/retinanet.py --data cells

    eyeline train --resume runs/second
    """
    from eyeline.registry import list_models
    from eyeline.training import load_recipe, train_recipe

    overrides = list(settings or [])
    if data is not None:
        overrides.append(f"data.path={json.dumps(data)}")
    if out is not None:
        overrides.append(f"out={json.dumps(out)}")
    if tolerant:
        overrides.append("data.tolerant=true")
    path = Path(what)
    if path.suffix in (".yaml", ".yml"):
        recipe = load_recipe(path, overrides)
        if resume and recipe.out is None:
            raise EyelineError("which run to resume? name its folder: --resume RUN, or --out RUN")
    elif resume or (path.is_dir() and what not in list_models()):
        if not path.is_dir():
            raise EyelineError(f"{path}: no such run folder to resume")
        if not resume:
            raise EyelineError(f"{path} is a folder; to go on with the run in it: --resume {path}")
        if out is not None:
            raise EyelineError(f"--resume {path} goes on in that folder; leave out --out")
        recipe = run_recipe(path, [*overrides, f"out={json.dumps(str(path))}"])
    else:
        recipe = _default_recipe(what, overrides)
    train_recipe(recipe, resume=resume)


def run_recipe(run: Path, overrides: list[str]) -> Recipe:
    """The recipe that a run was trained by."""
    from eyeline.checkpoints.eyeline import MODEL_FILE
    from eyeline.training import load_recipe

    if not (run / "recipe.yaml").is_file():
        raise EyelineError(f"{run}: no run folder, there is no recipe.yaml in it")
    own = []
    if (run / MODEL_FILE).is_file():  # the run's own copy: the file may be another by now
        own = [f"model.name={json.dumps(str(run / MODEL_FILE))}"]
    return load_recipe(run / "recipe.yaml", [*overrides, *own])


def named_recipe(what: str, settings: list[str] | None, data: str | None) -> Recipe:
    """The recipe of a file, or a model's name with all defaults; validation data is left out."""
    from eyeline.training import load_recipe

    overrides = [*(settings or []), "data.val=null"]
    if data is not None:
        overrides.append(f"data.path={json.dumps(data)}")
    if Path(what).suffix in (".yaml", ".yml"):
        return load_recipe(what, overrides)
    return _default_recipe(what, overrides)


def _default_recipe(model: str, overrides: list[str]) -> Recipe:
    """That of a model's name or file, with all defaults but `overrides`."""
    from eyeline.registry import find_entry
    from eyeline.training import load_recipe

    if not any(override.startswith("data.path=") for override in overrides):
        raise EyelineError(NO_DATA)
    find_entry(model)
    return load_recipe({"model": {"name": model}}, overrides)
