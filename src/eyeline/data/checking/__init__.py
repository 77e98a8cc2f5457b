"""Everything that may be wrong with annotated pictures, found in one go: `eyeline data check`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from eyeline.data.arrange import Splits
from eyeline.data.checking.boxes import check_boxes, check_corners
from eyeline.data.checking.classes import check_classes
from eyeline.data.checking.files import check_files, file_of
from eyeline.data.checking.pictures import Track, check_copies, check_pictures, look_at_all
from eyeline.data.checking.reading import (
    Reading,
    empty_splits,
    ids_of,
    listed_twice,
    read_all,
    unknown_classes,
)
from eyeline.data.checking.report import Report
from eyeline.data.checking.statistics import Statistics
from eyeline.data.faults import KINDS, Fault, Faults
from eyeline.data.formats import strays
from eyeline.data.formats.legend import Values

__all__ = ["Report", "Statistics", "check"]


def silent(paths: Iterable[Path], told: str, total: int) -> Iterable[Path]:
    """No progress is shown."""
    return paths


def check(
    path: str | Path,
    splits: Sequence[str] | None = None,
    format: str | None = None,
    pictures: bool | Literal["headers"] = True,
    classes: Sequence[str] | None = None,
    one_based: bool = False,
    unknown: Literal["error", "ignore"] = "error",
    copies: bool = True,
    channels: int = 3,
    track: Track = silent,
    values: Values | None = None,
    lazy: bool = False,
) -> Report:
    """Read annotated pictures of any format, and tell all that is wrong with them.

    Args:
        splits: those to read, first the one to train on; by default all.
        format: its name, where the folder looks like several.
        pictures: decode them; "headers": read their sizes, and look whether they were cut short;
            False: leave them alone.
        classes: names to train on, by default those of the split to train on.
        one_based, unknown: as in `open_annotations`.
        channels: of a picture; see `read_image`.
        copies: look for pictures that are the same, and where they are decoded nearly the same.
        values: what numbers in masks mean, where they are not those of the classes.
        lazy: do not read what masks hold; see `semantic.read`.
        track: (paths, what is done, how many) -> the paths, one after another; shows progress.

    Raises:
        EyelineError: nothing there, no known format, no such split. All else is in the report.
    """
    faults = Faults(gather=True)
    with np.errstate(invalid="ignore", over="ignore"):  # numbers that are not finite are told
        reading = read_all(path, splits, format, classes, one_based, unknown, faults, values, lazy)
        unified = reading.unified()
        found = faults.found + _annotation_faults(reading, unified, one_based)
    if pictures:
        paths = list(dict.fromkeys(r.path for data in unified.values() for r in data.records))
        seen = look_at_all(paths, pictures is True, track, channels)
        found += check_pictures(unified, seen)
        if copies:
            found += check_copies(unified, seen)
    if reading.whole:
        found += check_files(unified, found)
        told = {file_of(fault.where) for fault in found}
        found += [f for f in strays(reading.format, reading.folder) if f.where not in told]
    return Report(
        path=Path(path),
        format=reading.format.NAME,
        title=reading.format.TITLE,
        splits=unified,
        known=reading.known,
        left_out=reading.left_out,
        pictures="decoded" if pictures is True else pictures or "not read",
        faults=_in_order(found),
    )


def _annotation_faults(reading: Reading, unified: Splits, one_based: bool) -> list[Fault]:
    """All that can be said without the pictures."""
    found = unknown_classes(reading) + ids_of(reading) + empty_splits(unified)
    found += listed_twice(unified)
    if unified:
        found += check_classes(unified, reading.known, reading.training)
        if reading.format.NAME == "voc" and not one_based:
            found += check_corners(unified)
    for data in unified.values():
        found += check_boxes(data)
    return found


def _in_order(faults: list[Fault]) -> list[Fault]:
    """By kinds; what is told twice, as of a file that two splits name, once."""
    once = {(fault.kind, fault.where, fault.what): fault for fault in faults}
    order = list(KINDS)
    return sorted(once.values(), key=lambda fault: order.index(fault.kind))
