"""Data sets taken apart and put together: new splits of one, several made into one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from eyeline.data.alike import nearest_name, same_files
from eyeline.data.formats import (
    REGION,
    Annotations,
    Format,
    Record,
    open_annotations,
    recognise,
    with_classes,
)
from eyeline.errors import EyelineError

Splits = dict[str, Annotations]


def open_splits(
    path: str | Path,
    names: Sequence[str] | None = None,
    format: str | None = None,
    one_based: bool = False,
    attribute: str | None = None,
) -> tuple[Format, Splits, list[str]]:
    """All splits of a data set, or those named, with the same classes: first those to train on.

    Returns:
        Its format, its splits (without a year in their names), and the names left out: those that
        only hold what others hold (VOC's "trainval").
    """
    found, folder = recognise(path, format)
    there = found.splits(folder) or []
    if not there:
        raise EyelineError(f"{folder}: it has no split: {found.LAYOUT}")
    wanted = sorted(names or there, key=rank_of)
    splits = {
        name: open_annotations(
            folder, name, one_based=one_based, format=found.NAME, attribute=attribute
        )
        for name in wanted
    }
    left_out = [] if names else unions(splits)
    kept = {name: data for name, data in splits.items() if name not in left_out}
    classes = all_classes(kept.values())
    return (
        found,
        {_without_year(n, kept): with_classes(data, classes) for n, data in kept.items()},
        left_out,
    )


def rank_of(name: str) -> int:
    """What is learnt from comes first, and what is tested on last."""
    order = ("train", "val", "test")
    return next((k for k, prefix in enumerate(order) if name.startswith(prefix)), len(order))


def _without_year(name: str, splits: Splits) -> str:
    """ "train2017" -> "train", where that is clear."""
    base = re.sub(r"_?\d{4}$", "", name)
    alike = [other for other in splits if re.sub(r"_?\d{4}$", "", other) == base]
    return base if base and len(alike) == 1 else name


def unions(splits: Splits) -> list[str]:
    """The splits whose pictures are all those of at least two others together."""
    pictures = {name: {record.path for record in data.records} for name, data in splits.items()}
    found = []
    for name, own in pictures.items():
        parts = [other for n, other in pictures.items() if n != name and other and other < own]
        if len(parts) > 1 and set().union(*parts) == own:
            found.append(name)
    return found


def all_classes(parts: Iterable[Annotations]) -> list[str]:
    """The names of the first, then those that are new in the second ..."""
    return list(dict.fromkeys(name for part in parts for name in part.classes))


def _points(parts: Iterable[Annotations]) -> list[str] | None:
    """The names of the keypoints; data without any joins data that has some."""
    parts = [data for data in parts if data.keypoint_names]
    for data in parts:
        if data.keypoint_names != parts[0].keypoint_names:
            raise EyelineError(
                f"{data.source}: other keypoints than in {parts[0].source}; name them alike, and "
                "in the same order, or take them out of one"
            )
    return parts[0].keypoint_names if parts else None


def renamed(data: Annotations, names: Mapping[str, str]) -> Annotations:
    """Classes under other names; one that gets the name of another becomes one with it."""
    classes = [names.get(name, name) for name in data.classes]
    if classes == data.classes:
        return data
    unique = list(dict.fromkeys(classes))
    label_of = np.array([*map(unique.index, classes), REGION])
    records = [replace(r, labels=label_of[r.labels].astype(np.int64)) for r in data.records]
    ids = data.category_ids
    if ids:
        ids = [ids[classes.index(name)] for name in unique]
    return replace(data, classes=unique, records=records, category_ids=ids, legend=None)


# New splits


def split(
    splits: Splits,
    fractions: Mapping[str, float],
    seed: int = 0,
    group: str | None = None,
    stratify: bool = False,
) -> Splits:
    """Deal the pictures of all splits out anew; the same arguments, the same splits.

    Args:
        fractions: of the pictures, by the names of the new splits; their sum is 1.
        group: a regular expression found in the file names; pictures for which its first group
            (without one, all it finds) is the same stay together.
        stratify: bring the objects of each class near the fractions too.

    Raises:
        EyelineError: fractions that make no whole, a picture without a group, an empty split, a
            picture that is listed twice with different objects.
    """
    shares = np.array(list(fractions.values()), np.float64)
    if not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        told = ", ".join(f"{share:g}" for share in shares)
        raise EyelineError(f"the fractions {told} should be above 0 and have the sum 1")
    first = next(iter(splits.values()))
    records = sorted(_each_once(splits), key=lambda record: record.path.as_posix())
    together: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        together[_group_of(record, group) if group else str(i)].append(i)
    groups = list(together.values())
    order = np.random.default_rng(seed).permutation(len(groups))
    groups = [groups[i] for i in order]

    # What each group brings: pictures, and with `stratify` the objects of each class.
    counts = np.array([[len(own)] for own in groups], np.float64)
    if stratify:
        columns = len(first.classes) + 1  # the last is for REGION, -1
        objects = [
            sum(np.bincount(records[i].labels % columns, minlength=columns) for i in own)
            for own in groups
        ]
        counts = np.concatenate([counts, np.array(objects)[:, :-1]], axis=1)
    which = _dealt(counts, shares)
    result = {}
    for k, name in enumerate(fractions):
        index = sorted(i for own, w in zip(groups, which, strict=True) if w == k for i in own)
        if not index:
            raise EyelineError(
                f"{name} would have no picture: there are {len(records)} in {len(groups)} groups"
            )
        own = [records[i] for i in index]
        result[name] = replace(first, records=own, keypoint_names=_points(splits.values()))
    return _numbered(result)


def _each_once(splits: Splits) -> list[Record]:
    """The records of all splits, a picture that several list once."""
    found: dict[Path, Record] = {}
    for data in splits.values():
        for record in data.records:
            first = found.setdefault(record.path.resolve(), record)
            if not same_objects(first, record):
                raise EyelineError(
                    f"{record.path}: it is listed twice, with different objects; list it once, "
                    "with all of them"
                )
    return list(found.values())


def same_objects(first: Record, second: Record) -> bool:
    """Do two records, with the same classes, tell the same boxes in the same order?"""
    boxes = np.array_equal(first.boxes, second.boxes, equal_nan=True)
    return boxes and np.array_equal(first.labels, second.labels)


def _group_of(record: Record, pattern: str) -> str:
    try:
        match = re.search(pattern, record.path.name)
    except re.error as error:
        raise EyelineError(f"--group {pattern!r} is no regular expression: {error}") from None
    if match is None:
        raise EyelineError(f"{record.path}: its name has nothing of --group {pattern!r}")
    return str(match[1] if match.re.groups else match[0])


def _dealt(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Which split each group goes to (N,), for what the groups bring (N, C).

    Sechidis et al., "On the Stratification of Multi-Label Data", ECML 2011: take the rarest class
    of which something is left, and deal out the groups that have it, the largest first, each to
    the split that lacks most of that class. Column 0 are the pictures; they break ties, and deal
    out at the end what has no class.
    """
    lacking = shares[:, None] * counts.sum(0)  # (S, C)
    which = np.full(len(counts), -1)
    while (which < 0).any():
        rest = which < 0
        left = counts[rest][:, 1:].sum(0)
        column = 1 + int(np.where(left > 0, left, np.inf).argmin()) if left.any() else 0
        having = np.flatnonzero(rest & (counts[:, column] > 0))
        for i in having[np.argsort(-counts[having, column], kind="stable")]:
            which[i] = max(range(len(shares)), key=lambda s: (*lacking[s, [column, 0]], -s))
            lacking[which[i]] -= counts[i]
    return which


# Several into one


def merge(parts: Mapping[str, Splits]) -> tuple[Splits, list[str]]:
    """Several data sets as one, splits of the same name together; classes are told by name.

    Args:
        parts: the splits of each, by where it lies.

    Returns:
        The splits, and in words what ought to be looked at: classes of nearly the same name, and
        files that are the same picture.
    """
    every = [data for splits in parts.values() for data in splits.values()]
    classes = all_classes(every)
    words = _near_names({path: all_classes(splits.values()) for path, splits in parts.items()})
    pooled: dict[str, list[Annotations]] = defaultdict(list)
    for splits in parts.values():
        for name, data in splits.items():
            pooled[name].append(with_classes(data, classes))
    result = {
        name: Annotations(
            classes,
            [record for data in own for record in data.records],
            " and ".join(data.source for data in own),
            own[0].category_ids,
            [text for data in own for text in data.unread],
            _points(own),
        )
        for name, own in pooled.items()
    }
    ids = next((data.category_ids for data in result.values() if data.category_ids), None)
    result = {name: replace(data, category_ids=ids) for name, data in result.items()}
    return _numbered(result), words + same_pictures(result)


def _near_names(classes: Mapping[str, list[str]]) -> list[str]:
    """Names that one data set has and another almost has."""
    words: list[str] = []
    known: dict[str, str] = {}
    for path, names in classes.items():
        for name in names:
            other = nearest_name(name, [one for one in known if one not in names])
            if name not in known and other:
                words.append(
                    f"{path}: the class {name!r} is almost {other!r} of {known[other]}; to make "
                    f"them one: --rename '{name}={other}'"
                )
        known |= {name: path for name in names if name not in known}
    return words


def same_pictures(splits: Splits) -> list[str]:
    """Files that are the same byte by byte, in words; first those that are in two splits."""
    files = {r.path: name for name, data in splits.items() for r in data.records}
    within, across = [], []
    for path, first in same_files(files).items():
        same = f"{path} is the same picture as {first}"
        if files[first] == files[path]:
            within.append(f"{same}, both in {files[path]}")
        else:
            across.append(f"{same}, in {files[path]} and in {files[first]}: keep one")
    return across + within


def _numbered(splits: Splits) -> Splits:
    """The pictures' numbers as they are, or anew where two of a split have the same."""
    result = {}
    for name, data in splits.items():
        ids = {record.image_id for record in data.records}
        if len(ids) < len(data.records):
            records = [replace(record, image_id=i) for i, record in enumerate(data.records)]
            data = replace(data, records=records)
        result[name] = data
    return result
