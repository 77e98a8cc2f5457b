"""All commands of `eyeline`, by their names."""

from __future__ import annotations

from typing import Annotated

import typer

from eyeline import __version__
from eyeline.cli import (
    batch_find,
    calibrate,
    compare,
    cp,
    data,
    demo,
    eval,
    explain,
    export,
    lr_find,
    models,
    predict,
    profile,
    runs,
    stages,
    sweep,
    trace,
    train,
)

app = typer.Typer(
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("sweep")(sweep.sweep)
app.command("lr-find")(lr_find.lr_find)
app.command("batch-find")(batch_find.batch_find)
app.command("eval")(eval.evaluate)
app.command("stages")(stages.stages)
app.command("compare")(compare.compare)
app.command("runs")(runs.runs)
app.command("predict")(predict.predict)
app.command("calibrate")(calibrate.calibrate)
app.command("export")(export.export)
app.command("profile")(profile.profile)
app.command("explain")(explain.explain)
app.command("trace")(trace.trace)
app.command("cp")(cp.cp)
app.command("models")(models.models)
app.command("demo")(demo.demo)
app.add_typer(data.app, name="data")


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show an error's traceback.")] = False,
) -> None:
    """Computer vision in plain sight: train, measure and use detectors."""
    if version:
        print(__version__)
        raise typer.Exit
