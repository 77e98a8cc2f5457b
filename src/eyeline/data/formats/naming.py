"""The classes of formats that name them with each object and have no list of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from eyeline.data.faults import Faults
from eyeline.data.formats.annotations import Annotations, read_class_list, with_classes


def in_order(
    data: Annotations,
    folder: Path,
    classes: Sequence[str] | None,
    of_train: Callable[[], Annotations] | None,
    faults: Faults,
) -> Annotations:
    """The annotations with their classes in an order that does not hang on the files' order.

    It is that of classes.txt in the folder, where there is one; or else the names are sorted, first
    those of the training split, then those that are new in this one.

    Args:
        classes: where they are given nothing is done: who gives them will see to it.
        of_train: reads the training split; None where this is it, or there is none.
    """
    if classes is not None:
        return data
    if (listed := read_class_list(folder)) is not None:
        return with_classes(data, listed, faults=faults)
    first = sorted(of_train().classes) if of_train else []
    return with_classes(data, [*first, *sorted(set(data.classes) - set(first))])
