"""eyeline lr-find: which learning rate?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def lr_find(
    what: Annotated[
        str, typer.Argument(metavar="MODEL|RECIPE", help="name of a model, or a recipe (.yaml)")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="keys of the recipe, such as batch_size=8"),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="PATH", help="annotated pictures, COCO or Pascal VOC")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a new folder; default lr-find")
    ] = None,
    start: Annotated[float, typer.Option(help="the first rate")] = 1e-6,
    end: Annotated[float, typer.Option(help="the last rate")] = 1.0,
    steps: Annotated[int, typer.Option(min=10, help="rates to try")] = 100,
) -> None:
    """Train for some steps at growing learning rates and suggest one.

    Prints the suggestion; writes lr.html (the plot) and lr.csv. Nothing is trained by it.
    """
    from rich.console import Console
    from rich.progress import Progress

    from eyeline.cli.output import free_path
    from eyeline.cli.train import named_recipe
    from eyeline.training import build
    from eyeline.training.lr_finder import lr_find

    folder = free_path(out, Path("lr-find"))
    recipe = named_recipe(what, settings, data)
    model, dataset, _ = build(recipe)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("trying rates", total=steps)
        curve = lr_find(
            model, dataset, recipe, start=start, end=end, steps=steps,
            advance=lambda: bar.advance(task),
        )  # fmt: skip
    lines = [
        f"loss lowest at {curve.lowest:.1e}, "
        + ("above it the loss ran away" if curve.diverged else f"no running away up to {end:g}")
    ]
    if curve.suggestion is None:
        lines.append(
            f"no suggestion: the loss did not fall clearly between {start:g} and {end:g}; "
            "take more --steps or a larger batch_size"
        )
    else:
        lines.append(f"suggestion: optimizer.lr={curve.suggestion:g} (a tenth of the lowest)")
    folder.mkdir(parents=True, exist_ok=True)
    curve.to_csv(folder / "lr.csv")
    title = f"Learning rates of {recipe.model.name if recipe.model else what}"
    (folder / "lr.html").write_text(_page(title, lines, curve.to_svg()), encoding="utf-8")
    print("\n".join(lines))
    print(f"plot: {folder / 'lr.html'}")


def _page(title: str, lines: list[str], picture: str) -> str:
    from html import escape

    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    style = (
        ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:760px;"
        "margin:2rem auto;padding:0 1rem}svg{width:100%;height:auto;border-radius:6px}"
        "h1{font-size:1.4rem}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{style}</style><h1>{escape(title)}</h1>{text}{picture}</html>\n"
    )
