"""eyeline sweep: many runs of one recipe, to find good values for some of its keys."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyeline.cli.options import NO_DATA, Data
from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from eyeline.training.sweeps.study import Study


def sweep(
    what: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP|RECIPE|MODEL|FOLDER",
            help="a sweep's file (.yaml with `search:`), a recipe, a model's name or file (.py), "
            "or with --resume a sweep's folder",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="keys of the recipe: 'optimizer.lr=log(1e-5, 1e-2)', 'batch_size=int(2, 8)', "
            "'model.backbone=choice(resnet18, resnet50)' are searched, epochs=10 is fixed",
        ),
    ] = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a new folder; default sweeps/NAME")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="how many in all; default 20, of a grid all")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, random or grid; default tpe")] = None,
    pruner: Annotated[
        str | None,
        typer.Option(help="ends bad trials early: median, hyperband or none; default median"),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="what decides; default the recipe's eval.metric")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of the sampler; default 0")] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="go on with a sweep, or help the processes that work on it"),
    ] = False,
    wandb: Annotated[
        str | None,
        typer.Option(
            metavar="PROJECT", help="train nothing; write the sweep for agents of Weights & Biases"
        ),
    ] = None,
) -> None:
    """Search good values for keys of a recipe; every trial is a run.

    eyeline sweep sweep.yaml

    eyeline sweep recipe.yaml 'optimizer.lr=log(1e-5, 1e-2)' epochs=10 --trials 30

    eyeline sweep --resume sweeps/recipe
    """
    from eyeline.evaluation.html import counted
    from eyeline.training.sweeps.plan import is_sweep_file, load_sweep, make_plan
    from eyeline.training.sweeps.study import Study, open_study
    from eyeline.training.sweeps.wandb import write_wandb

    settings, path = list(settings or []), Path(what)
    options: dict[str, Any] = {
        "trials": trials, "sampler": sampler, "pruner": pruner, "metric": metric, "seed": seed,
    }  # fmt: skip
    if resume:
        others = {key: v for key, v in options.items() if v is not None and key != "trials"}
        if settings or data or out or wandb or others:
            raise EyelineError("--resume goes on as the sweep began; only --trials may be another")
        _run(open_study(path, trials))
        return
    if path.is_dir():
        raise EyelineError(f"{path} is a folder; to go on with the sweep in it: --resume {path}")
    if data is not None:
        settings.append(f"data.path={json.dumps(data)}")
    if path.suffix in (".yaml", ".yml") and is_sweep_file(path):
        made = load_sweep(path, **options)
    elif path.suffix in (".yaml", ".yml"):
        made = load_sweep({"recipe": what, "search": {}}, **options)
    else:
        if not any(setting.startswith("data.path=") for setting in settings):
            raise EyelineError(NO_DATA)
        made = load_sweep({"recipe": {"model": {"name": what}}, "search": {}}, **options)
    plan = make_plan(made, settings)
    from eyeline.cli.output import free_path

    folder = free_path(out, Path("sweeps", path.stem))
    if wandb is not None:
        config = write_wandb(folder, plan, wandb)
        print(f"{config} and the recipe beside it are written; start the sweep, then agents:")
        print(f"  wandb sweep {quote(str(config))}\n  wandb agent SWEEP-ID")
        return
    size = f"{counted(plan.trials, 'trial')} of {counted(plan.epochs, 'epoch')}"
    print(f"sweep {folder}: {size}, by {plan.metric}")
    _run(Study(folder, plan))


def _run(study: Study) -> None:
    """Run the trials, and tell what they found."""
    from rich.console import Console

    from eyeline.evaluation.html import counted
    from eyeline.training.sweeps.results import BEST, best_of, table

    results, plan, folder = study.run(), study.plan, study.folder
    Console().print(table(results, plan))
    running = sum(one.state == "running" for one in results)
    if running:
        print(f"{counted(running, 'trial')} still trained by other processes")
    best = best_of(results, plan.lower_is_better)
    if best is None:
        raise EyelineError(f"{folder}: no trial is complete, see {folder / 'sweep.html'}")
    print(f"page: {folder / 'sweep.html'}; numbers: sweep.json and sweep.csv beside it")
    print(f"best: trial {best.number}, its weights in {best.folder}; its values for a longer run:")
    recipe, run = quote(str(folder / BEST)), quote(f"runs/{folder.name}")
    print(f"  eyeline train {recipe} epochs={3 * plan.epochs} --out {run}")
