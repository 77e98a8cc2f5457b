"""eyeline batch-find: which batch size?"""

from __future__ import annotations

from typing import Annotated

import typer

from eyeline.cli.options import Data, ModelOrRecipe, Settings


def batch_find(
    what: ModelOrRecipe,
    settings: Settings = None,
    data: Data = None,
    largest: Annotated[int, typer.Option(min=1, help="the last size to try")] = 256,
    memory: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="share of the memory that may be used")
    ] = 0.8,
    seconds: Annotated[float, typer.Option(min=0.1, help="the longest step to bear")] = 30.0,
) -> None:
    """Time training steps of 1, 2, 4 ... pictures and pick a batch size.

    Picked is the smallest that is within 5 % of the fastest.
    """
    from eyeline.cli.train import named_recipe
    from eyeline.training import build
    from eyeline.training.batch_finder import Trial, find_batch_size

    def tell(trial: Trial) -> None:
        print(
            f"batch_size={trial.batch_size:<4} {trial.pictures_per_second:8.2f} pictures/s  "
            f"{trial.memory / 1e9:6.2f} GB",
            flush=True,
        )

    recipe = named_recipe(what, settings, data)
    model, dataset, _ = build(recipe)
    found = find_batch_size(
        model, dataset, recipe, largest=largest, memory_fraction=memory, seconds=seconds, tell=tell
    )
    print(f"ended: {found.ended}")
    print(
        f"suggestion: batch_size={found.batch_size} "
        "(with another batch size the learning rate should change too: eyeline lr-find)"
    )
