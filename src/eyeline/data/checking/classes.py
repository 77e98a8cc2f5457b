"""Names of classes: mistyped ones, and those without objects."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eyeline.data.alike import is_slip
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
    total = sum(counts.values(), np.zeros(0, np.int64)) if not counts else sum(counts.values())
    first = next(iter(splits.values()))
    for k, name in enumerate(first.classes):
        if known is not None and name not in known:
            continue
        likely = [
            (int(total[j]), other)
            for j, other in enumerate(first.classes)
            if j != k and total[k] <= RARE * total[j] and is_slip(name, other)
        ]
        if likely:
            number, other = max(likely)
            what = (
                f"the class {name!r} ({_objects(total[k])}) is almost {other!r} ({number}); if "
                f"they are one: `eyeline data convert` with --rename '{name}={other}'"
            )
            yield Fault("name", _first(splits, k) or first.source, what)
        elif not total[k]:
            what = f"no picture has an object of the class {name!r}"
            yield Fault("empty", first.source, what)
        elif training is not None and not counts[training][k]:
            others = [f"{name} has {own[k]}" for name, own in counts.items() if own[k]]
            what = f"{training} has no object of the class {name!r}, {', '.join(others)}"
            yield Fault("untrained", splits[training].source, what)


def _objects(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"


def _first(splits: Splits, label: int) -> str | None:
    """The place of the first object with this label."""
    for data in splits.values():
        for record in data.records:
            for i in np.flatnonzero(record.labels == label):
                return record.where[i]
    return None
