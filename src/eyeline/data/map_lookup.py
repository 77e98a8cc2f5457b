"""The map of classes of one picture, out of a mask or an annotated folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from eyeline.data.formats import recognise
from eyeline.data.images import read_pixels
from eyeline.data.maps import open_maps
from eyeline.errors import EyelineError
from eyeline.ops.labels import check_labels

MASKS = (".png", ".tif", ".tiff", ".bmp", ".gif")


def map_of(
    source: str | Path, picture: str | Path, classes: Sequence[str], format: str | None = None
) -> Tensor:
    """(H, W) int64: the class of each pixel of a picture, and 255.

    Args:
        source: a mask whose values are the classes, or whatever `open_maps` knows, all splits
            of it; pixels of no object are ignored.
        picture: found there by its file name.
        format: its name, where the folder looks like several.

    Raises EyelineError where the picture is not there, or a value is no class.
    """
    source, picture = Path(source), Path(picture)
    if source.suffix.lower() in MASKS:
        values = torch.from_numpy(read_pixels(source).astype("int64"))
        check_labels(values, len(classes), str(source))
        return values
    found, folder = recognise(source, format)
    same: list[Tensor] = []
    faults: list[EyelineError] = []
    for split in found.splits(folder) or []:
        try:
            data = open_maps(source, split, list(classes), background=None, format=format)
        except EyelineError:
            try:
                data = open_maps(source, split, list(classes), background="ignore", format=format)
            except EyelineError as error:  # of a test split without annotations, say
                faults.append(error)
                continue
        for i, record in enumerate(data.annotations.records):
            if record.path.name == picture.name:
                same.append(data[i][1]["map"].long())
    if len(same) != 1:
        if faults and not same:
            raise faults[0]
        count = f"{len(same)} pictures are" if same else "no picture is"
        raise EyelineError(f"{source}: {count} named {picture.name}; give its own mask")
    return same[0]
