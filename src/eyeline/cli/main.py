"""The command `eyeline`: what is wrong with the user's input is told in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
from eyeline.errors import EyelineError, one_line

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


def main() -> None:
    """Entry point."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    The exit status is 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C, 143 for a SIGTERM.
    """
    debug = "--debug" in arguments
    try:
        app(args=[a for a in arguments if a != "--debug"], prog_name="eyeline")
    except SystemExit as stop:  # how typer ends every command, by Ctrl-C too
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (EyelineError, OSError) as error:  # OSError: a full disk, a missing permission
        if debug:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if debug or not _is_lack_of_memory(error):
            raise
        print("error: out of memory; take a smaller batch size", file=sys.stderr)
        return 1
    return 0


def _is_lack_of_memory(error: Exception) -> bool:
    """Torch, which is not imported for it, has a class for a GPU's and none for the CPU's."""
    kind = type(error).__name__
    return kind in ("MemoryError", "OutOfMemoryError") or "can't allocate memory" in str(error)
