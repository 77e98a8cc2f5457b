"""eyeline data show: annotated pictures to look at, and what a network is fed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyeline.cli.check import meanings
from eyeline.cli.output import free_path, make_room
from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from eyeline.inspection.browse.fed import Feed
    from eyeline.inspection.browse.gather import Collection

SHOWN = 10  # faults of none of the pictures; the rest is counted


def show(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="annotated pictures")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="keys of the recipe, with --augmented; as batch_size=8"
        ),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="repeat for several; default: all")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="only pictures with such objects; repeat"),
    ] = None,
    defects: Annotated[
        bool, typer.Option("--defects", help="only pictures with something wrong")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="pictures of the page, drawn by chance; default: all")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="a contact sheet, .png or .jpg, instead of the page"),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="pictures of a sheet (24) or with --augmented (8)")
    ] = None,
    columns: Annotated[
        int | None, typer.Option(min=1, max=12, help="pictures in a row of a sheet (4)")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the choice of pictures")] = 0,
    augmented: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL|RECIPE|RUN", help="show what this is fed in training: several draws"
        ),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, help="with --augmented, of each picture (3)")
    ] = None,
    batches: Annotated[
        int | None, typer.Option(min=0, help="with --augmented, to be shown (2)")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|DIR",
            help="of the page: an .html holds all its pictures, a folder gets thumbnails; "
            "default PATH-show, by the number of pictures",
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="of PATH, where it looks like two")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="RECIPE", help="whose classes, and data.ignore ... of masks, hold"),
    ] = None,
) -> None:
    """Write a page to browse annotated pictures by, or a contact sheet.

    eyeline data show cells

    eyeline data show cells --defects --sheet defects.png

    eyeline data show cells --augmented retinanet model.size=320 data.transforms=[hflip]
    """  # fmt: skip
    if settings and augmented is None:
        raise EyelineError(f"{settings[0]}: keys of a recipe need --augmented")
    if sheet is not None and (out is not None or limit is not None):
        other = "--out" if out is not None else "--limit"
        raise EyelineError(f"--sheet and {other} exclude each other; a sheet takes --count")
    if sheet is None and augmented is None and count is not None:
        raise EyelineError("--count is for --sheet and --augmented; a page takes --limit")
    if (sheet is None or augmented is not None) and columns is not None:
        raise EyelineError("--columns is for --sheet without --augmented, whose draws are a row")
    if augmented is None and (draws is not None or batches is not None):
        raise EyelineError(f"--{'batches' if draws is None else 'draws'} is for --augmented")
    if sheet is not None:
        from eyeline.inspection.browse.sheet import check_sheet

        check_sheet(sheet)
        make_room(sheet, "--sheet")
    if augmented is not None:
        if split or classes or defects or limit:
            raise EyelineError(
                "--augmented shows the training pictures of the recipe: set data.train=SPLIT "
                "instead of --split, and leave out --class, --defects and --limit"
            )
        feed = _feed(augmented, path, settings or [], format)
        _show_fed(feed, f"{path.resolve().name}, fed to {Path(augmented).name}", sheet, out, path,
                  count or 8, draws or 3, 2 if batches is None else batches, seed)  # fmt: skip
        return
    from eyeline.data.checking.progress import track
    from eyeline.inspection.browse.gather import gather, narrowed

    meant = {} if recipe is None else meanings(recipe)
    collection = gather(path, split, format, track, **meant)
    most = limit if sheet is None else count or 24
    chosen = narrowed(collection, classes or [], defects, most, seed)
    if not chosen.pictures:
        _tell(chosen)
        print(f"{path}: there is no such picture, and nothing to write")
    elif sheet is None:
        _write_page(chosen, out, path)
    else:
        _write_sheet(chosen, sheet, columns or 4)


def _write_page(collection: Collection, out: Path | None, path: Path) -> None:
    from eyeline.data.checking.progress import track
    from eyeline.inspection.browse.page import ONE_FILE, is_page, write_page

    total = len(collection.pictures)
    target = free_path(out, _default(path), ".html" if total <= ONE_FILE else "")
    make_room(target if is_page(target) else target / "index.html")
    page = write_page(collection, target, track)
    _tell(collection)
    print(page)


def _write_sheet(collection: Collection, sheet: Path, columns: int) -> None:
    import numpy as np

    from eyeline.data.checking.maps import areas_of
    from eyeline.inspection.browse.sheet import cells_of, save_sheets, sheets

    title = f"{Path(collection.source).resolve().name}: {len(collection.pictures):,} of "
    title += f"{collection.whole:,} pictures"
    labels = [collection.shown_labels(picture.labels) for picture in collection.pictures]
    areas = None
    if collection.maps:
        areas = np.concatenate([areas_of(p.record) for p in collection.pictures if p.record])
    pages = sheets(
        cells_of(collection), columns, title, collection.names, np.concatenate(labels), areas
    )
    written = save_sheets(pages, sheet)
    _tell(collection)
    for file in written:
        print(file)


def _tell(collection: Collection) -> None:
    """What the pictures do not show by themselves."""
    if collection.omitted:
        total = len(collection.pictures) + collection.omitted
        print(f"{len(collection.pictures):,} of {total:,} pictures, drawn by chance (--seed)")
    faults = [fault for fault in collection.elsewhere if fault.severity != "note"]
    for fault in faults[:SHOWN]:
        print(f"{fault.severity}: {fault}")
    if len(faults) > SHOWN:
        print(f"and {len(faults) - SHOWN:,} more; `eyeline data check` names them")


def _feed(what: str, path: Path, settings: list[str], format: str | None) -> Feed:
    """Of a model, a recipe or a run, with PATH as its data."""
    from eyeline.cli.train import named_recipe, run_recipe
    from eyeline.inspection.browse.fed import Feed

    if format is not None:
        settings = [*settings, f"data.format={json.dumps(format)}"]
    if Path(what).is_dir():
        place = f"data.path={json.dumps(str(path))}"
        return Feed(run_recipe(Path(what), [*settings, place, "data.val=null"]))
    return Feed(named_recipe(what, settings, str(path)))


def _show_fed(
    feed: Feed,
    title: str,
    sheet: Path | None,
    out: Path | None,
    path: Path,
    count: int,
    draws: int,
    batches: int,
    seed: int,
) -> None:
    import numpy as np

    from eyeline.inspection.browse import fed
    from eyeline.inspection.browse.page import is_page
    from eyeline.inspection.browse.sheet import save_sheets, sheets

    total = len(feed.dataset)
    pictures = sorted(np.random.default_rng(seed).permutation(total)[:count].tolist())
    if sheet is not None:
        cells = fed.all_cells(feed, pictures, draws, batches)
        names, labels, areas = fed.key_of(feed, pictures)
        written = save_sheets(sheets(cells, 1 + draws, title, names, labels, areas), sheet)
    else:
        if out is not None and not is_page(out):
            raise EyelineError(f"{out}: with --augmented the page is one file; call it .html")
        target = free_path(out, _default(path), ".html")
        make_room(target)
        target.write_text(fed.page(feed, pictures, draws, batches, title), encoding="utf-8")
        written = [target]
    if len(pictures) < total:
        print(f"{len(pictures):,} of {total:,} pictures, drawn by chance (--seed)")
    for file in written:
        print(file)


def _default(path: Path) -> Path:
    return Path(f"{path.resolve().name}-show")
