"""What `eyeline predict` does with scenes: pictures that a segmenter sees tile by tile, from disk
to disk, and that keep their place on Earth."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from torch import nn

    from eyeline.inference import Predictor
    from eyeline.inference.tiles import Tiling

SCENE = 2**25  # pixels from which on a picture is a scene
SHOWN = 10  # classes that are counted on the terminal


def split(items: Sequence[Any], asked: bool) -> tuple[list[Path], list[Any]]:
    """Which of them are scenes, and the others.

    Args:
        asked: all are, for bands or a range of values are given.
    """
    if asked and (wrong := [item for item in items if not isinstance(item, Path)]):
        raise EyelineError(f"--bands and --value-range are for picture files, not {wrong[0]}")
    scenes = [asked or is_scene(item) for item in items]
    return (
        [item for item, scene in zip(items, scenes, strict=True) if scene],
        [item for item, scene in zip(items, scenes, strict=True) if not scene],
    )


def is_scene(item: Any) -> bool:
    """Is it a file that is better not taken into memory, or that says where on Earth it lies?"""
    from eyeline.data.images import image_size
    from eyeline.inference.rasters import is_located, is_raster

    if not isinstance(item, Path) or not item.is_file():
        return False
    try:
        height, width = image_size(item)
    except EyelineError:
        return is_raster(item)  # what GDAL alone knows, such as a VRT
    return height * width > SCENE or is_located(item)


def band_numbers(text: str | None) -> list[int] | None:
    """Of "4,3,2". Raises EyelineError where it is none."""
    try:
        return None if text is None else [int(band) for band in text.split(",")]
    except ValueError:
        raise EyelineError(f"--bands is numbers from 1, such as 4,3,2, not {text!r}") from None


def not_for_scenes(scene: Path, **given: bool) -> None:
    """Raises EyelineError where an option is given that does nothing for them."""
    if wrong := [name for name, is_given in given.items() if is_given]:
        option = "--" + wrong[0].replace("_", "-")
        raise EyelineError(f"{scene} becomes one indexed picture; {option} is not for such scenes")


def one_scene(predictor: Predictor, source: Path, out: Path | None, **how: Any) -> None:
    """To the file `out`, into the folder `out`, or to NAME-classes.tif."""
    from eyeline.data.images import SUFFIXES
    from eyeline.inference.sources import stem_of

    stem = stem_of(str(source))
    if out is None:
        target = Path(f"{stem}-classes.tif")
    else:
        target = out if out.suffix.lower() in SUFFIXES else out / f"{stem}.tif"
    _predict(predictor, source, target, **how)


def several_scenes(
    predictor: Predictor,
    scenes: Sequence[Path],
    folder: Path,
    others: bool,
    unread: Callable[[EyelineError], object],
    **how: Any,
) -> None:
    """Each to a file in the folder; those that are there stay, so that it can be gone on with.

    Args:
        others: are there other pictures, which come afterwards?
        unread: called with the error of one that cannot be done; the others follow.

    Raises EyelineError where all are there.
    """
    from eyeline.files import make_folder

    make_folder(folder)
    targets = list(_targets(scenes, folder))
    there = [os.path.lexists(target) for target in targets]
    if all(there) and not others:
        raise EyelineError(f"{folder} exists already, with all of them; choose another --out")
    for scene, target, done in zip(scenes, targets, there, strict=True):
        if done:
            print(f"{target}: exists already and stays as it is", file=sys.stderr)
            continue
        try:
            _predict(predictor, scene, target, **how)
        except EyelineError as error:
            unread(error)


def _targets(scenes: Sequence[Path], folder: Path) -> Iterator[Path]:
    """NAME.tif, NAME-2.tif ..."""
    from eyeline.inference.sources import stem_of

    taken: set[Path] = set()
    for scene in scenes:
        stem = stem_of(str(scene))
        target, i = folder / f"{stem}.tif", 1
        while target in taken:
            target, i = folder / f"{stem}-{i + 1}.tif", i + 1
        taken.add(target)
        yield target


def _predict(
    predictor: Predictor,
    source: Path,
    target: Path,
    batch_size: int,
    **options: Any,
) -> None:
    """
    Args:
        options: of `predict_scene`.
    """
    from eyeline.inference.tiles import Tiling

    looking = predictor.model
    whole = looking.resizes is not None  # then there are no tiles
    tiling = Tiling() if whole else looking.tiling_or_default()
    predict_scene(
        looking if whole else looking.whole, source, target,
        replace(tiling, batch_size=batch_size), classes=predictor.classes,
        device=predictor.device, whole=whole, **options,
    )  # fmt: skip


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
