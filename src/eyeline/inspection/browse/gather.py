"""The pictures of a data set with all that is annotated, and all that is wrong, of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from eyeline.data.checking import Report, check, silent
from eyeline.data.checking.pictures import Track
from eyeline.data.faults import Fault
from eyeline.data.formats import REGION, Record
from eyeline.data.images import SUFFIXES, image_size
from eyeline.errors import EyelineError

RESIZED = ("size", "rotation")  # faults of pictures of another size than annotated
REGION_NAME = "region to ignore"


@dataclass
class Picture:
    """One picture of a split; `record` is None where nothing could be read but its name."""

    split: str
    path: Path
    record: Record | None
    faults: list[Fault] = field(default_factory=list)  # of the picture as a whole
    wrong: dict[int, list[Fault]] = field(default_factory=dict)  # of objects, by their index

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def labels(self) -> np.ndarray:
        """(G,) int64, REGION among them."""
        return np.zeros(0, np.int64) if self.record is None else self.record.labels

    @property
    def every_fault(self) -> list[Fault]:
        """Notes among them, which are no defects."""
        return [*self.faults, *(fault for faults in self.wrong.values() for fault in faults)]


@dataclass
class Collection:
    """Pictures of one data set, in order, and what is told of the whole."""

    source: str
    classes: list[str]
    pictures: list[Picture]
    elsewhere: list[Fault] = field(default_factory=list)  # of none of its pictures
    whole: int = 0  # pictures before any was left out by `narrowed`
    omitted: int = 0  # of which it left so many out for their number alone
    maps: bool = False  # is an object all pixels of a class?

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys(picture.split for picture in self.pictures))

    @property
    def names(self) -> list[str]:
        """Of the labels, and last of what stands for REGION, `shown_labels` says where."""
        return [*self.classes, "ignored" if self.maps else REGION_NAME]

    def shown_labels(self, labels: np.ndarray) -> np.ndarray:
        """The labels, a REGION being the one after the last class."""
        return np.where(labels == REGION, len(self.classes), labels)


def gather(
    path: str | Path,
    splits: Sequence[str] | None = None,
    format: str | None = None,
    track: Track = silent,
    **meant: Any,
) -> Collection:
    """All pictures of the splits (default: all that the data has), and what `check` finds wrong.

    Nothing that is wrong with a picture or an object hinders the rest.

    Args:
        track: as in `check`.
        meant: of `check`: `classes`, `unknown`, `values`.

    Raises:
        EyelineError: no data of a known format; no such split; nothing of it can be read.
    """
    report = check(path, splits, format, track=track, **meant)
    if not report.splits:
        raise report.faults[0]
    classes = next(iter(report.splits.values())).classes
    pictures = [
        Picture(split, record.path, record)
        for split, annotations in report.splits.items()
        for record in annotations.records
    ]
    collection = Collection(str(path), classes, pictures, maps=bool(report.maps))
    attach(collection, report)
    for picture in collection.pictures:
        if picture.record and any(fault.kind in RESIZED for fault in picture.faults):
            height, width = image_size(picture.path)  # boxes are of the picture as it is
            picture.record = replace(picture.record, height=height, width=width)
    collection.whole = len(collection.pictures)
    return collection


def attach(collection: Collection, report: Report) -> None:
    """Put each fault to its object, its picture, or where neither is there, `elsewhere`.

    A picture that is only known by its fault, for it is not there, becomes one without record.
    """
    objects: dict[str, list[tuple[Picture, int]]] = {}
    paths: dict[Path, list[Picture]] = {}
    folders = {picture.path.parent: picture.split for picture in collection.pictures}
    for picture in collection.pictures:
        paths.setdefault(picture.path, []).append(picture)
        for i, where in enumerate(picture.record.where if picture.record else []):
            objects.setdefault(where, []).append((picture, i))
    for fault in report.faults:
        path = report.picture_of(fault)
        if fault.where in objects:
            for picture, i in objects[fault.where]:
                picture.wrong.setdefault(i, []).append(fault)
        elif path is not None and path in paths:
            for picture in paths[path]:
                picture.faults.append(fault)
        elif fault.kind == "picture" and Path(fault.where).suffix.lower() in SUFFIXES:
            path = Path(fault.where)
            split = folders.get(path.parent, "")
            collection.pictures.append(Picture(split, path, None, [fault]))
        else:
            collection.elsewhere.append(fault)


def narrowed(
    collection: Collection,
    classes: Sequence[str] = (),
    defects: bool = False,
    limit: int | None = None,
    seed: int = 0,
) -> Collection:
    """The pictures with an object of one of the classes and, if so wanted, a fault; of those at
    most `limit`, drawn by chance and in their order.

    Raises:
        EyelineError: no class is called so.
    """
    if unknown := [name for name in classes if name not in collection.classes]:
        known = ", ".join(collection.classes)
        raise EyelineError(f"{collection.source}: no class {unknown[0]!r}; there are: {known}")
    wanted = [collection.classes.index(name) for name in classes]
    chosen = [
        picture
        for picture in collection.pictures
        if (not wanted or np.isin(picture.labels, wanted).any())
        and (not defects or any(fault.severity != "note" for fault in picture.every_fault))
    ]
    omitted = 0
    if limit is not None and len(chosen) > limit:
        omitted = len(chosen) - limit
        order = np.random.default_rng(seed).permutation(len(chosen))[:limit]
        chosen = [chosen[i] for i in sorted(order)]
    return replace(collection, pictures=chosen, omitted=omitted)


def told_shares(
    areas: np.ndarray, labels: np.ndarray, size: int, names: Sequence[str], most: int = 5
) -> str:
    """As "Road 31 %, Sky 12 %", of the pixels of a picture, the largest first."""
    counts = np.bincount(labels, areas, len(names))
    order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
    parts = [f"{names[k]} {counts[k] / size:.0%}" for k in order[:most]]
    if len(order) > most:
        parts.append(f"{len(order) - most} others {counts[order[most:]].sum() / size:.0%}")
    return ", ".join(parts) or "no class"


def told_counts(labels: Iterable[int], names: Sequence[str], most: int = 4) -> str:
    """As "RBC: 7, WBC: 1", the most frequent first; "no objects"."""
    values, counts = np.unique(np.array(list(labels), np.int64), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    parts = [f"{names[values[i]]}: {counts[i]}" for i in order[:most]]
    if len(order) > most:
        rest = int(counts[order[most:]].sum())
        parts.append(f"others: {rest}")
    return ", ".join(parts) or "no objects"
