"""eyeline runs: what is there, how it stands, and how two runs differ."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER] | RUN RUN ...", help="where runs lie, or runs to compare"),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(help="begun, name, model, data, state, metric, loss, duration or size"),
    ] = "begun",
    json: Annotated[bool, typer.Option("--json", help="as JSON, for programs")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="of a comparison: write it as a page, too")
    ] = None,
) -> None:
    """List the runs in a folder, or compare runs: recipe keys that differ, metrics, curves.

    eyeline runs

    eyeline runs runs --sort metric

    eyeline runs runs/a runs/b --out difference.html
    """
    from rich.console import Console

    from eyeline.cli.output import free_path, make_room
    from eyeline.errors import EyelineError
    from eyeline.training.runs import (
        as_json,
        comparison_page,
        comparison_table,
        differing_keys,
        find_runs,
        names_of,
        read_run,
        runs_table,
        side_by_side,
        sort_runs,
    )

    # Through a pipe a table is as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 200)
    folders = folders or [Path("runs")]
    if len(folders) == 1:
        if out is not None:
            raise EyelineError("--out is for a comparison; name two runs or more")
        found, broken = find_runs(folders[0])
        found = sort_runs(found, sort)
        for line in broken:
            print(f"warning: {line}", file=sys.stderr)
        if json:
            print(as_json(found))
        elif found:
            console.print(runs_table(found))
        else:
            print(f"no runs in {folders[0]}")
        return
    if json:
        print(as_json([read_run(folder) for folder in folders]))
        return
    path = None if out is None else free_path(out, out)
    if path is not None:
        make_room(path)
    names, keys = names_of(folders), differing_keys(folders)
    console.print(comparison_table(names, side_by_side(folders), "run"))
    if keys:
        console.print(comparison_table(names, keys, "recipe key"))
    else:
        print("the recipes are the same")
    if path is not None:
        path.write_text(comparison_page(folders), encoding="utf-8")
        print(f"page: {path}")
