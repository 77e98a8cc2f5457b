"""Names of classes: mistyped ones, and those without objects."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eyeline.data.alike import is_slip, is_variant
from eyeline.data.arrange import Splits
from eyeline.data.faults import Fault
from eyeline.data.formats import Annotations

RARE = 1 / 20  # of the objects of the other class: what is rarer may be mistyped


def count_objects(data: Annotations) -> np.ndarray:
    """(K,) objects of each class."""
    labels = np.concatenate([np.zeros(0, np.int64), *(record.labels for record in data.records)])
    return np.bincount(labels[labels >= 0], minlength=len(data.classes))


def check_classes(splits: Splits, known: list[str] | None, training: str | None) -> Iterator[Fault]:
    """Of splits with the same classes.

    Args:
        known: the classes of `training`, the split to learn from; those of others that it lacks
            are told of each object.
    """
    counts = {name: count_objects(data) for name, data in splits.items()}
    first = next(iter(splits.values()))
    total = np.sum(list(counts.values()), axis=0)
    for k, name in enumerate(first.classes):
        if known is not None and name not in known:
            continue
        likely = [
            (int(total[j]), other)
            for j, other in enumerate(first.classes)
            if _may_be_meant(name, (int(total[k]), k), other, (int(total[j]), j))
        ]
        if likely:
            number, other = max(likely)
            what = (
                f"the class {name!r} ({_objects(total[k])}) is almost {other!r} ({number}); if "
                f"they are one: `eyeline data convert` with --rename '{name}={other}'"
            )
            yield Fault("name", _first(splits, k) or first.source, what)
        elif not total[k]:
            what = f"no picture has an object of the class {name!r}; nothing can learn it"
            yield Fault("empty", first.source, what)
        elif training is not None and not counts[training][k]:
            others = [f"{split} has {own[k]}" for split, own in counts.items() if own[k]]
            what = (
                f"{training} has no object of the class {name!r}, {', '.join(others)}; split the "
                "pictures anew: `eyeline data split --stratify`"
            )
            yield Fault("untrained", splits[training].source, what)


def _may_be_meant(name: str, count: tuple[int, int], other: str, more: tuple[int, int]) -> bool:
    """Of two names, with (objects, label) each: is the first a variant of the second, or, where
    it is rare, a slip?"""
    if is_variant(name, other):
        return count < more
    return count[0] <= RARE * more[0] and is_slip(name, other)


def _objects(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"


def _first(splits: Splits, label: int) -> str | None:
    """The place of the first object with this label."""
    for data in splits.values():
        for record in data.records:
            for i in np.flatnonzero(record.labels == label):
                return record.where[i]
    return None
