"""eyeline data convert, split and merge: data sets written in another form or arrangement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyeline.cli.output import free_path
from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from eyeline.data.arrange import Splits
    from eyeline.data.formats import Format

SHOWN = 10  # lines of a kind; the rest is counted

To = Annotated[
    str | None,
    typer.Option("--to", metavar="FORMAT", help="of what is written; by default its own"),
]
From = Annotated[
    str | None, typer.Option("--format", metavar="FORMAT", help="of PATH, where it looks like two")
]
Names = Annotated[
    list[str] | None, typer.Option("--split", help="repeat for several; default: all")
]
Link = Annotated[bool, typer.Option("--link", help="link to the pictures instead of copying them")]
Rename = Annotated[
    list[str] | None, typer.Option(metavar="OLD=NEW", help="of a class; repeat for several")
]


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="annotated pictures")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="a new folder")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="of what is written")],
    split: Names = None,
    format: From = None,
    rename: Rename = None,
    one_based: Annotated[
        bool, typer.Option("--one-based", help="SRC is Pascal VOC whose pixels count from 1")
    ] = False,
    attribute: Annotated[
        str | None, typer.Option(help="of SRC's regions, in VIA, that is the class")
    ] = None,
    link: Link = False,
) -> None:
    """Write annotations in another format. What it cannot hold is told first."""
    from eyeline.data.formats import format_named

    chosen = format_named(to)
    [splits] = _renamed([_opened(source, split, format, one_based, attribute)[1]], rename)
    _write(splits, target, chosen, link)


def split(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="annotated pictures")],
    fractions: Annotated[str, typer.Option(help="of the pictures; their sum is 1")] = "0.8,0.1,0.1",
    names: Annotated[str, typer.Option(help="of the new splits")] = "train,val,test",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="regular expression; pictures whose names have the same in its brackets stay "
            "together",
        ),
    ] = None,
    stratify: Annotated[
        bool, typer.Option("--stratify", help="share out the objects of each class as well")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="a new folder; default PATH-split")] = None,
    to: To = None,
    only: Names = None,
    format: From = None,
    link: Link = False,
) -> None:
    """Deal pictures out anew to splits, into a new folder; the same seed, the same splits."""
    from eyeline.data.arrange import split as deal
    from eyeline.data.formats import format_named

    try:
        shares = [float(word) for word in fractions.split(",")]
    except ValueError:
        raise EyelineError(f"--fractions are numbers like 0.8,0.1,0.1, not {fractions!r}") from None
    called = [name.strip() for name in names.split(",")][: len(shares)]
    if len(set(called)) < len(shares):
        raise EyelineError(f"{len(shares)} fractions need as many --names, not {', '.join(called)}")
    folder = free_path(out, path.with_name(f"{path.resolve().name}-split"))
    found, splits = _opened(path, only, format)
    dealt = deal(splits, dict(zip(called, shares, strict=True)), seed, group, stratify)
    _write(dealt, folder, format_named(to) if to else found, link)
    _table(dealt)


def merge(
    paths: Annotated[list[Path], typer.Argument(metavar="A B ...", help="annotated pictures")],
    out: Annotated[Path, typer.Option(help="a new folder")],
    to: To = None,
    rename: Rename = None,
    link: Link = False,
) -> None:
    """Make one data set of several; classes are the same where their names are."""
    from eyeline.data.arrange import merge as put_together
    from eyeline.data.formats import format_named

    parts: dict[str, Splits] = {}
    formats = []
    for path in paths:
        if str(path) in parts:
            raise EyelineError(f"{path} is there twice; name each data set once")
        found, parts[str(path)] = _opened(path, None, None)
        formats.append(found)
    parts = dict(zip(parts, _renamed([*parts.values()], rename), strict=True))
    merged, words = put_together(parts)
    _say("look at this", words)
    _write(merged, out, format_named(to) if to else formats[0], link)
    _table(merged)


def _opened(
    path: Path,
    split: Sequence[str] | None,
    format: str | None,
    one_based: bool = False,
    attribute: str | None = None,
) -> tuple[Format, Splits]:
    """All splits, with what is left out told."""
    from eyeline.data.arrange import open_splits

    found, splits, left_out = open_splits(path, split, format, one_based, attribute)
    for name in left_out:
        print(f"{path}: {name} is left out, for its pictures are in other splits too")
    return found, splits


def _renamed(parts: Sequence[Splits], rename: Sequence[str] | None) -> list[Splits]:
    """The data sets with classes called by their new names; one of them has to have the old."""
    from eyeline.data.arrange import all_classes, renamed
    from eyeline.data.formats.annotations import unknown_class

    names = dict(pair.partition("=")[::2] for pair in rename or [])
    if "" in {*names, *names.values()}:
        raise EyelineError(f"--rename takes OLD=NEW, not {', '.join(rename or [])}")
    classes = all_classes(data for splits in parts for data in splits.values())
    for old in names:
        if old not in classes:
            raise EyelineError(f"--rename: {unknown_class(old, classes)}")
    return [{name: renamed(data, names) for name, data in splits.items()} for splits in parts]


def _write(splits: Splits, folder: Path, format: Format, link: bool) -> None:
    from eyeline.data.formats.writing import plan, refuse_existing, write

    refuse_existing(folder)
    planned = plan(splits, format)
    _say("lost", planned.lost)
    _say("new name", planned.renamed)
    write(planned, folder, link)
    counts = ", ".join(f"{name} {len(data.records)}" for name, data in planned.splits.items())
    print(f"{folder}: {format.TITLE}, pictures: {counts}")


def _say(title: str, lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"{title}: {line}")
    if len(lines) > SHOWN:
        print(f"{title}: and {len(lines) - SHOWN} more")


def _table(splits: Splits) -> None:
    """Objects of each class in each split, and their share of all."""
    import numpy as np
    from rich import box
    from rich.console import Console
    from rich.table import Table

    classes = next(iter(splits.values())).classes
    table = Table("class", box=box.SIMPLE_HEAD)
    columns = []
    for name, data in splits.items():
        table.add_column(f"{name} ({len(data.records)} pictures)", justify="right")
        labels = np.concatenate([record.labels for record in data.records])
        columns.append(np.bincount(labels[labels >= 0], minlength=len(classes)))
    counts = np.array(columns)  # (splits, classes)
    for k, name in enumerate(classes):
        shares = counts[:, k] / max(counts[:, k].sum(), 1)
        cells = [f"{n} ({share:.1%})" for n, share in zip(counts[:, k], shares, strict=True)]
        table.add_row(name, *cells)
    Console().print(table)
