"""The map of classes of one picture, out of a mask or an annotated folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from eyeline.data.formats import recognise, semantic
from eyeline.data.formats.annotations import CLASS_LIST
from eyeline.data.formats.legend import Legend, Values, listed, read_legend
from eyeline.data.formats.mask_folders import MASKS
from eyeline.data.maps import open_maps
from eyeline.data.public.sets import path_of
from eyeline.errors import EyelineError
from eyeline.ops.labels import IGNORE


def map_of(
    source: str | Path,
    picture: str | Path,
    classes: Sequence[str],
    format: str | None = None,
    background: str | None = None,
    values: Values | None = None,
    learnt: str | Path | None = None,
) -> Tensor:
    """(H, W) int64: the class of each pixel of a picture, and 255.

    Args:
        source: a mask, or whatever `open_maps` knows, all splits of it.
        picture: found there by its file name; it may lie elsewhere.
        format: its name, where the folder looks like several.
        background: of pixels of no object; without it they are ignored.
        values: what numbers in masks mean, where they are not those of the classes.
        learnt: the data that the classes are from, whose list holds for a mask that lies elsewhere
            without one.

    Raises EyelineError where the picture is not there, or a value is no class.
    """
    source, picture = Path(source), Path(picture)
    if source.suffix.lower() in (*MASKS, ".gif"):
        legend = _legend_of(source, classes, values, learnt).known_as(classes)
        outside = classes.index(background) if background in classes else IGNORE
        return torch.from_numpy(semantic.read_target(source, legend, outside)).long()
    found, folder = recognise(source, format)
    same: list[Tensor] = []  # of this file, and of others that are called so
    named: list[Tensor] = []
    faults: list[EyelineError] = []
    for split in found.splits(folder) or []:
        try:
            data = open_maps(
                source, split, list(classes), None, values, background or "ignore", format=format
            )
        except EyelineError as error:  # of a test split without annotations, say
            faults.append(error)
            continue
        for i, record in enumerate(data.annotations.records):
            if record.path.name == picture.name:
                of_this = record.path.resolve() == picture.resolve()
                (same if of_this else named).append(data[i][1]["map"].long())
    maps = same or named
    if same or len(maps) == 1:
        return maps[0]
    if faults and not maps:
        raise faults[0]
    count = f"{len(maps)} pictures are" if maps else "no picture is"
    raise EyelineError(f"{source}: {count} named {picture.name}; give its own mask")


def _legend_of(
    mask: Path, classes: Sequence[str], values: Values | None, learnt: str | Path | None
) -> Legend:
    """What the values of a mask mean: as in its data set, or as listed beside it, or as in the
    data learnt from; last, they are the numbers of the classes."""
    if (root := semantic.root_of(mask)) is not None:
        return semantic.legend_of(root, classes, values)
    if listed(mask.parent) is None and learnt is not None:
        home = Path(learnt)
        try:
            home = home if home.exists() else path_of(home)
        except EyelineError:
            raise EyelineError(
                f"{mask}: what its values mean is not told: {learnt}, which the model learnt "
                f"from, is not there; list the classes in {mask.parent / CLASS_LIST}"
            ) from None
        if semantic.splits(home) is not None:
            return semantic.legend_of(home, classes, values)
    legend = read_legend(mask.parent, classes, values)
    semantic.refuse_black_and_white([mask], legend, values)
    return legend
