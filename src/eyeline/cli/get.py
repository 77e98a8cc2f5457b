"""eyeline data get: public data sets by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from eyeline.errors import EyelineError


def get(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="of a public data set; without it: a list")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="repeat for several; default: all of the set")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="where it goes; default: see the documentation")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URL_OR_FOLDER", help="where the archives lie, instead of the public"
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="the data sets and what they hold")] = False,
) -> None:
    """Download a public data set, compare it with its checksum and unpack it.

    Stopped or broken off, the same command goes on from there. What is there already is not
    fetched again, and never written over.
    """
    from eyeline.data.public.get import get as get_set
    from eyeline.data.public.sets import find_set

    if name is None and (part or folder or source) and not show:
        raise EyelineError("which data set? `eyeline data get --list` names them")
    if name is None or show:
        _list()
        return
    public = find_set(name)
    print(f"{public.title}: {public.what}; licence: {public.licence}")
    try:
        path = get_set(public, part or (), folder, source, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise
    named = f"; its name, {public.name}, stands for this path" if folder is None else ""
    print(f"{path}: ready{named}")
    if public.opens:
        print(public.opens)


def _list() -> None:
    from eyeline.data.public.sets import SETS

    for public in SETS.values():
        parts = []
        for part in public.parts:
            sizes = [archive.size for archive in public.archives if archive.part == part]
            known = [size for size in sizes if size is not None]
            parts.append(f"{part} {_size(sum(known)) if known == sizes else '(size not known)'}")
        print(f"{public.name:<10} {public.title}: {public.what}")
        print(f"{'':<10} parts: {', '.join(parts)}")
        print(f"{'':<10} licence: {public.licence}")
        lies = "lies" if public.is_there else "would lie"
        print(f"{'':<10} {lies} in {public.path} ({public.variable})")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
