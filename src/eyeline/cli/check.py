"""eyeline data check: a data set in numbers, and everything that is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyeline.cli.output import make_room
from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from rich.console import Console

    from eyeline.data.checking import Report, Statistics
    from eyeline.data.checking.maps import MapStatistics

SHOWN = 5  # faults of a kind; the rest is counted
CLASSES = 30  # rows of the table
SIZES = 3  # of pictures
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="annotated pictures")],
    split: Annotated[
        list[str] | None,
        typer.Option(help="repeat for several, first the one to train on; default: all"),
    ] = None,
    format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="of PATH, where it looks like two")
    ] = None,
    one_based: Annotated[
        bool, typer.Option("--one-based", help="PATH is Pascal VOC whose pixels count from 1")
    ] = False,
    channels: Annotated[int, typer.Option(min=1, help="of a picture")] = 3,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="RECIPE", help="whose classes, and data.ignore ... of masks, hold"),
    ] = None,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="read the pictures' headers alone; find exact copies"),
    ] = False,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="leave the pictures alone")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help=f"name all faults, not {SHOWN} of a kind")
    ] = False,
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="all of it for machines; - for standard out"),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="the exit status is 1 for warnings, too")
    ] = False,
) -> None:
    """Read every annotation and every picture; show the data set in numbers, and what is wrong.

    Errors would spoil training, or stop it; warnings are most likely mistakes; notes are good to
    know. The exit status is 1 if there is an error.
    """
    from rich.console import Console

    from eyeline.data.checking import check
    from eyeline.data.checking.progress import track

    if fast and no_pictures:
        raise EyelineError("--fast and --no-pictures exclude each other; give one of them")
    target = None if json_file in (None, "-") else Path(str(json_file))
    if target is not None and target.exists():
        raise EyelineError(f"{target} exists already; choose another file for --json")
    if target is not None:
        make_room(target, "--json")
    meant: dict[str, Any] = {} if recipe is None else meanings(recipe)
    report = check(
        path,
        split,
        format,
        pictures=False if no_pictures else "headers" if fast else True,
        one_based=one_based,
        channels=channels,
        track=track,
        **meant,
    )
    if json_file is not None:
        text = json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n"
        if target is None:
            print(text, end="")
        else:
            target.write_text(text, encoding="utf-8")
    if json_file != "-":
        show(report, every, Console(highlight=False))
    if report.count("error") or (strict and report.count("warning")):
        raise typer.Exit(1)


def show(report: Report, every: bool, console: Console) -> None:
    """The report on the terminal."""
    told = {"decoded": "all decoded", "headers": "headers read"}.get(report.pictures, "not read")
    line(console, f"{report.path}: {report.title}, pictures {told}")
    for name in report.left_out:
        line(console, f"{name} is left out, for its pictures are in other splits too")
    if report.unread:
        line(console, f"not used: {', '.join(report.unread)}")
    if report.maps:
        show_maps(report.maps, report.statistics, every, console)
    elif report.statistics:
        show_numbers(report.statistics, every, console)
    for kind, faults in report.by_kind().items():
        show_kind(report, kind, None if every else SHOWN, console)
        if not every and len(faults) > SHOWN:
            line(console, f"  and {len(faults) - SHOWN} more; --all names them")
        console.print()
    line(console, summary(report))


def show_numbers(statistics: dict[str, Statistics], every: bool, console: Console) -> None:
    from rich import box
    from rich.table import Table

    table = Table("", box=box.SIMPLE_HEAD, caption="* minimum / median / maximum")
    for name in statistics:
        table.add_column(name, justify="right")
    own = list(statistics.values())
    table.add_row("pictures", *(str(s.pictures) for s in own))
    table.add_row("  without objects", *(str(s.without_objects) for s in own))
    table.add_row("  sizes", *(_sizes(s) for s in own))
    table.add_row("objects", *(str(s.objects) for s in own))
    if any(s.ignored for s in own):
        table.add_row("  to be ignored", *(str(s.ignored) for s in own))
    table.add_row("  of a picture*", *(_range(s.per_picture) for s in own))
    for size, told in (("small", "< 32²"), ("medium", "< 96²"), ("large", "≥ 96²")):
        table.add_row(f"  {size}, {told} px", *(str(getattr(s, size)) for s in own))
    table.add_row("  width / height*", *(_range(s.aspect_ratios) for s in own))
    table.add_section()
    classes = list(own[0].by_class)
    hidden = 0 if every else max(0, len(classes) - CLASSES)
    if hidden:
        classes.sort(key=lambda name: -sum(s.by_class[name] for s in own))
        classes = classes[:CLASSES]
    for name in classes:
        table.add_row(name, *(str(s.by_class[name]) for s in own))
    if hidden:
        table.add_row(f"and {hidden} rarer; --all", *("" for _ in own))
    console.print(table)


def show_maps(
    maps: dict[str, MapStatistics],
    statistics: dict[str, Statistics],
    every: bool,
    console: Console,
) -> None:
    """Shares of the pixels, and a line of weights for a recipe."""
    from rich import box
    from rich.table import Table

    table = Table("", box=box.SIMPLE_HEAD, caption="* share of the labelled pixels, pictures")
    for name in maps:
        table.add_column(name, justify="right")
    own = list(maps.values())
    table.add_row("pictures", *(str(m.pictures) for m in own))
    table.add_row("  sizes", *(_sizes(s) for s in statistics.values()))
    total = [max(1, m.labelled + m.ignored + m.nothing) for m in own]
    for told, counts in (
        ("labelled", [m.labelled for m in own]),
        ("ignored", [m.ignored for m in own]),
        ("of no class", [m.nothing for m in own]),
    ):
        if any(counts):
            shares = (f"{count / whole:.1%}" for count, whole in zip(counts, total, strict=True))
            table.add_row(f"pixels {told}", *shares)
    table.add_section()
    first = own[0]
    order = list(range(len(first.classes)))
    hidden = 0 if every else max(0, len(order) - CLASSES)
    if hidden:
        order = sorted(order, key=lambda k: -sum(m.pixels[k] for m in own))[:CLASSES]
    for k in order:
        cells = (f"{m.pixels[k] / max(1, m.labelled):.2%} in {m.within[k]}" for m in own)
        table.add_row(f"{first.classes[k]}*" if k == order[0] else first.classes[k], *cells)
    if hidden:
        table.add_row(f"and {hidden} rarer; --all", *("" for _ in own))
    console.print(table)
    line(console, f"by median frequency, for a recipe: {weights_of(first)}\n")


def weights_of(maps: MapStatistics) -> str:
    """The classes' weights as a key of a recipe."""
    import torch

    from eyeline.losses.class_weights import median_frequency

    found = median_frequency(torch.tensor(maps.pixels), torch.tensor(maps.present))
    return f"model.class_weights: [{', '.join(f'{weight:.3g}' for weight in found.tolist())}]"


def meanings(recipe: Path) -> dict[str, Any]:
    """What a recipe says of the classes, and of numbers in masks, as `check` takes it."""
    from eyeline.training import load_recipe
    from eyeline.training.build import values_of

    read = load_recipe(recipe)
    return {"classes": read.classes, "unknown": read.data.unknown, "values": values_of(read.data)}


def _range(values: list[float]) -> str:
    return " / ".join(f"{value:.3g}" for value in values) or "-"


def _sizes(own: Statistics) -> str:
    named = [f"{size}: {count}" for size, count in list(own.sizes.items())[:SIZES]]
    return "\n".join(named + [f"{len(own.sizes) - SIZES} more"] * (len(own.sizes) > SIZES))


def show_kind(report: Report, kind: str, most: int | None, console: Console) -> None:
    """One kind of fault: what it is, and the first of them."""
    from eyeline.data.checking.places import told
    from eyeline.data.faults import KINDS

    severity, title = KINDS[kind]
    faults = report.by_kind()[kind]
    console.print(
        f"[{COLOURS[severity]}]{severity}[/] [bold]{kind}[/]: {title}: {len(faults)}",
        soft_wrap=True,
    )
    for fault in faults[:most]:
        line(console, f"  {told(fault)}")


def line(console: Console, text: str) -> None:
    """As it is: paths are not broken, and brackets are no markup."""
    console.print(text, markup=False, soft_wrap=True)


def summary(report: Report) -> str:
    if not report.faults:
        return "no fault found"
    counts = [(report.count(word), word) for word in ("error", "warning", "note")]
    return ", ".join(f"{n} {word}{'s' * (n != 1)}" for n, word in counts)
