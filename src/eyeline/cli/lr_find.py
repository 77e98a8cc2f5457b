"""eyeline lr-find: which learning rate?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eyeline.cli.options import Data, ModelOrRecipe, Settings


def lr_find(
    what: ModelOrRecipe,
    settings: Settings = None,
    data: Data = None,
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
    from html import escape

    from rich.console import Console
    from rich.progress import Progress

    from eyeline.cli.output import free_path
    from eyeline.cli.train import named_recipe
    from eyeline.evaluation.html import document
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
    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    chart = f'<figure class="chart one">{curve.to_svg()}</figure>'
    page = document(title, f"<h1>{escape(title)}</h1>{text}{chart}")
    (folder / "lr.html").write_text(page, encoding="utf-8")
    print("\n".join(lines))
    print(f"plot: {folder / 'lr.html'}")
