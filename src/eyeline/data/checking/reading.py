"""All splits of a data set, read as far as they can be; what cannot be is gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from eyeline.data.arrange import Splits, all_classes, rank_of, same_objects, unions
from eyeline.data.faults import Fault, Faults
from eyeline.data.formats import Format, Record, read_options, recognise, split_of
from eyeline.data.formats.annotations import unknown_class, with_classes
from eyeline.data.formats.legend import Values
from eyeline.errors import EyelineError


@dataclass
class Reading:
    """What was read of a data set."""

    format: Format
    folder: Path
    splits: Splits  # with the classes that each has in its source
    training: str | None  # the split to learn from: its classes are those of a model
    left_out: list[str]  # splits that only hold what others hold
    whole: bool  # are these all splits?

    @property
    def known(self) -> list[str] | None:
        """The classes to learn, where it is known which split is for that."""
        return None if self.training is None else self.splits[self.training].classes

    def unified(self) -> Splits:
        """The splits with the same classes: first those to learn, then what others have more."""
        classes = all_classes([self.splits[name] for name in self._order()])
        return {name: with_classes(data, classes) for name, data in self.splits.items()}

    def _order(self) -> list[str]:
        return sorted(self.splits, key=lambda name: name != self.training)


def read_all(
    path: str | Path,
    splits: Sequence[str] | None,
    format: str | None,
    classes: Sequence[str] | None,
    one_based: bool,
    unknown: Literal["error", "ignore"],
    faults: Faults,
    values: Values | None = None,
    lazy: bool = False,
) -> Reading:
    """Read the splits named, of which the first is the one to train on, or else all; `values` and
    `lazy` are for masks.

    Raises:
        EyelineError: nothing there, no known format, no such split; nothing else.
    """
    found, folder = recognise(path, format)
    if splits:
        sources = {name: split_of(folder, name, found) for name in splits}
    else:
        sources = {name: name for name in sorted(found.splits(folder) or [], key=rank_of)}
    if not sources:
        raise EyelineError(f"{folder}: it has no split: {found.LAYOUT}")
    first = next(iter(sources))
    is_training = bool(splits) or rank_of(first) == 0

    options = read_options(found, one_based, None, values, lazy)
    read: Splits = {}
    names = classes
    for name, source in sources.items():
        try:
            data = found.read(folder, source, names, faults, **options)
        except Fault as fault:
            faults.found.append(fault)
        except EyelineError as error:
            where, _, what = str(error).partition(": ")
            faults.found.append(Fault("file", where, what))
        else:
            if name == first and classes is not None:
                data = with_classes(data, classes, unknown, faults)
            read[name] = data
            names = names or data.classes
    more = [] if splits else unions(read)
    kept = {name: data for name, data in read.items() if name not in more}
    training = first if is_training and first in kept else None
    reading = Reading(found, folder, kept, training, more, not splits)
    if unknown == "ignore" and reading.known is not None:
        reading.splits = {
            name: with_classes(data, reading.known, "ignore") for name, data in kept.items()
        }
    return reading


def unknown_classes(reading: Reading) -> list[Fault]:
    """Objects of other splits whose class the one to train on does not know."""
    found: list[Fault] = []
    if reading.known is None:
        return found
    for data in reading.splits.values():
        strange = [k for k, name in enumerate(data.classes) if name not in reading.known]
        what = {k: unknown_class(data.classes[k], reading.known) for k in strange}
        for record in data.records if strange else []:
            for i in np.flatnonzero(np.isin(record.labels, strange)):
                place = record.where[i]
                found.append(Fault("class", place, what[int(record.labels[i])], record.path))
    return found


def ids_of(reading: Reading) -> list[Fault]:
    """Numbers that classes have in the source: gaps in those of the first split that numbers
    them, and splits that number them otherwise."""
    found: list[Fault] = []
    first: dict[str, int] = {}
    for data in reading.splits.values():
        ids = data.category_ids or []
        own = dict(zip(data.classes, ids, strict=True)) if ids else {}
        differing = [name for name in own if name in first and first[name] != own[name]]
        if not first and ids and len(ids) <= max(ids) - min(ids):
            what = (
                f"the ids of {len(ids)} classes go from {min(ids)} to {max(ids)}, with gaps; the "
                f"labels here are 0 to {len(ids) - 1} in the order of the ids"
            )
            found.append(Fault("numbers", data.source, what))
        if differing:
            name = differing[0]
            what = (
                f"classes have other ids than in the first split ({name!r} {own[name]}, there "
                f"{first[name]}); here they are told by name, by other programs maybe not"
            )
            found.append(Fault("numbers", data.source, what))
        first = own | first
    return found


def listed_twice(splits: Splits) -> list[Fault]:
    """Pictures of which a split has two lists of objects: each would lack what the other has."""
    found = []
    for data in splits.values():
        first: dict[Path, Record] = {}
        for record in data.records:
            if not same_objects(first.setdefault(record.path, record), record):
                what = "is listed twice, with different objects; list it once, with all of them"
                found.append(Fault("reference", record.path, f"{data.source}: it {what}"))
    return found


def empty_splits(splits: Splits) -> list[Fault]:
    what = "there is no picture in it that can be used"
    return [Fault("file", data.source, what) for data in splits.values() if not data.records]
