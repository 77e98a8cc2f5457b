"""Folders of pictures, and beside them those of their masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eyeline.data.faults import Fault, Faults
from eyeline.data.formats.annotations import read_text
from eyeline.data.images import SUFFIXES, read_pixels
from eyeline.errors import EyelineError

MASK = ".png"  # as which masks are written
MASKS = (MASK, ".tif", ".tiff", ".bmp")  # what loses nothing; of two with one stem the first


class Part(NamedTuple):
    """Where the pictures and masks of a split lie."""

    pictures: Path
    masks: Path
    listed: Path | None = None  # a file of the stems; None: all


def has_masks(folder: Path) -> bool:
    return folder.is_dir() and any(file.suffix.lower() in MASKS for file in folder.iterdir())


def has_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(file.suffix.lower() in SUFFIXES for file in folder.iterdir())


def mask_values(mask: Path, colours: bool = False) -> np.ndarray:
    """(H, W) int64, or (H, W, 3) of `colours`, which may come where numbers are meant, too.
    Numbers that were saved as grey RGB are numbers all the same.

    Raises Fault where the mask cannot be read.
    """
    try:
        values: np.ndarray = read_pixels(mask, colours).astype(np.int64)
    except EyelineError as error:
        raise Fault("picture", mask, str(error).removeprefix(f"{mask}: ")) from None
    if not colours and values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    return values


def listed_parts(pictures: Path, masks: Path, lists: Path) -> dict[str, Part]:
    """A split for each file SPLIT.txt in the folder `lists`; without any all is "train"."""
    parts = {file.stem: Part(pictures, masks, file) for file in sorted(lists.glob("*.txt"))}
    return parts or {"train": Part(pictures, masks)}


def pairs(
    part: Part, endings: Sequence[str], faults: Faults
) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Each picture with its mask, and in words which masks have no picture.

    Args:
        endings: what may stand behind the picture's stem in the mask's name, the likeliest first.
    """
    files = [file for file in part.masks.iterdir() if file.suffix.lower() in MASKS]
    files.sort(key=lambda file: MASKS.index(file.suffix.lower()))
    masks = {file.stem: file for file in reversed(files)}
    found, used = [], set()
    for where, picture in _pictures(part, faults):
        stems = [f"{picture.stem}{ending}" for ending in endings]
        with faults:
            mask = next((masks[stem] for stem in stems if stem in masks), None)
            if mask is None:
                raise Fault("file", where, f"it has no mask {part.masks / stems[0]}{MASK}")
            used.add(mask)
            found.append((picture, mask))
    alone = 0 if part.listed else len(files) - len(used)
    return found, [f"{alone} mask(s) without a picture"] if alone else []


def _pictures(part: Part, faults: Faults) -> list[tuple[str, Path]]:
    """The pictures, each with the place where it is told."""
    there = {
        file.stem: file
        for file in sorted(part.pictures.iterdir())
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    }
    if part.listed is None:
        return [(str(file), file) for file in there.values()]
    found = []
    for number, line in enumerate(read_text(part.listed).splitlines(), 1):
        with faults:
            if stem := line.strip():
                where = f"{part.listed}:{number}"
                if stem not in there:
                    raise Fault("picture", where, f"no such picture: {part.pictures / stem}")
                found.append((where, there[stem]))
    return found
