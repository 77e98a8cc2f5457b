"""eyeline compare: evaluated runs side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN ...", help="run folders (their newest evaluation), or eval folders"
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a new page; default comparison.html")
    ] = None,
) -> None:
    """Compare runs that `eyeline eval` has measured.

    Prints a table; writes a page with speed against accuracy, and AP, or mIoU, against epochs.
    """
    from rich import print as show

    from eyeline.cli.output import free_path, make_room
    from eyeline.errors import EyelineError
    from eyeline.evaluation.compare import doubts, page, read_runs, table

    if out is not None and out.is_dir():
        raise EyelineError(f"{out} is a folder; give --out a file, such as {out}/comparison.html")
    path = free_path(out, Path("comparison"), ".html")
    make_room(path)
    found = read_runs(runs)
    for doubt in doubts(found):
        print(f"warning: {doubt}", file=sys.stderr)
    path.write_text(page(found), encoding="utf-8")
    show(table(found))
    print(f"page: {path}")
