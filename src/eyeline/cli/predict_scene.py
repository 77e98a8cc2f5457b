"""What `eyeline predict` does with a picture that a segmenter sees tile by tile."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from eyeline.inference.tiles import Tiling

SHOWN = 10  # classes that are counted on the terminal


def predict_scene(
    model: nn.Module, source: Path, target: Path, tiling: Tiling | None = None, **options: Any
) -> None:
    """Write the map of classes, with a line of progress, and say what it holds.

    Args:
        options: of `eyeline.inference.scene.predict_scene`.
    """
    from rich.console import Console
    from rich.progress import Progress

    from eyeline.inference.scene import predict_scene as predict

    console = Console(stderr=True)
    done = total = 0
    try:
        with Progress(console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("predicting")

            def progress(rows: int, height: int) -> None:
                nonlocal done, total
                if total == 0 and rows:
                    print(f"{target}: {rows:,} of {height:,} rows are done", file=sys.stderr)
                done, total = rows, height
                bar.update(task, completed=rows, total=height)
                if rows == height:
                    bar.update(task, description="writing")

            scene = predict(model, source, target, tiling=tiling, progress=progress, **options)
    except KeyboardInterrupt:
        if done:
            print(
                f"stopped: {done:,} of {total:,} rows are done; the same command goes on",
                file=sys.stderr,
            )
        raise
    names = list(options.get("classes") or getattr(model, "classes", ()))
    print(f"{scene.width}x{scene.height}, {shares(scene.pixels, names)}: {target}")


def shares(pixels: Sequence[int], names: Sequence[str]) -> str:
    """The most frequent classes and their shares of the pixels that have data, in words."""
    known = sum(pixels[:255])
    ranked = sorted((-count, i) for i, count in enumerate(pixels[:255]) if count)
    told = [
        f"{names[i] if i < len(names) else i} {-count / known:.1%}" for count, i in ranked[:SHOWN]
    ]
    if len(ranked) > SHOWN:
        told.append(f"{len(ranked) - SHOWN} more")
    if pixels[255]:
        told.append(f"no data {pixels[255] / (known + pixels[255]):.1%} of all")
    return ", ".join(told)
