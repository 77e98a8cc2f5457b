"""Annotations of all splits to a new folder in any format, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eyeline.data.formats import Format
from eyeline.data.formats.annotations import Annotations
from eyeline.data.formats.fitting import fitted
from eyeline.data.formats.pictures import picture_names
from eyeline.errors import EyelineError


@dataclass
class Plan:
    """A data set as a format can hold it, before anything is written."""

    format: Format
    splits: dict[str, Annotations]
    names: dict[Path, str]  # the file names that the pictures get
    lost: list[str]  # in words, what the format cannot hold
    renamed: list[str]  # in words, which pictures get another name


def plan(splits: Mapping[str, Annotations], format: Format) -> Plan:
    """What would be written.

    Args:
        splits: all with the same classes.

    Raises:
        EyelineError: a name or a box that no file could hold.
    """
    _check(splits)
    kept, words = {}, []
    for split, data in splits.items():
        kept[split], lost = fitted(data, format.HOLDS)
        words += [f"{split}: {text}" for text in lost]
    names = picture_names(kept, "folders" in format.HOLDS)
    renamed = [f"{path} becomes {name}" for path, name in names.items() if name != path.name]
    return Plan(format, kept, names, words, renamed)


def write(planned: Plan, folder: str | Path, link: bool = False) -> None:
    """Write a data set; nothing is there until all of it is.

    Args:
        folder: new, or empty.
        link: make symbolic links to the pictures instead of copies.

    Raises:
        EyelineError: the folder holds something.
    """
    folder = Path(folder)
    refuse_existing(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        part.mkdir()
        planned.format.write(planned.splits, part, planned.names, link)
        if folder.is_dir():
            folder.rmdir()  # it is empty
        os.rename(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def refuse_existing(folder: Path) -> None:
    """Raises EyelineError where anything but an empty folder is there."""
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise EyelineError(f"{folder} exists already; choose a new folder")


def _check(splits: Mapping[str, Annotations]) -> None:
    first = next(iter(splits.values()))
    for name in first.classes:
        if not name.isprintable() or name != name.strip() or not name:
            raise EyelineError(
                f"{first.source}: the class name {name!r} has blanks around it or characters that "
                "cannot be printed; rename it"
            )
    for split, data in splits.items():
        if split in ("", ".", "..") or Path(split).name != split:
            raise EyelineError(f"the split {split!r} cannot be the name of a file; rename it")
        if data.classes != first.classes:
            raise EyelineError(f"{data.source}: other classes than in {first.source}")
        seen = set()
        for record in data.records:
            if record.path in seen:
                raise EyelineError(
                    f"{data.source}: the picture {record.path} is listed twice; leave one"
                )
            seen.add(record.path)
            for i in np.flatnonzero(~np.isfinite(record.boxes).all(1)):
                raise EyelineError(
                    f"{record.where[i]}: the box {record.boxes[i].tolist()} is not of finite "
                    "numbers; mend it"
                )
