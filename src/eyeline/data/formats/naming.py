"""The names of splits and of classes, in formats that have no list of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from eyeline.data.faults import Faults
from eyeline.data.formats.annotations import Annotations, read_class_list, with_classes

USUAL = ("train", "val", "test")  # beginnings of the names of splits


def split_files(root: Path, files_in: Callable[[Path], list[Path]]) -> dict[str, Path]:
    """Files that are a split each, by its name: those of the folder itself, or else those of the
    folders in it, which then have the names.

    A file alone is "train", unless it is called like another split.
    """
    own = files_in(root)
    if len(own) == 1 and not own[0].stem.startswith(USUAL):
        return {"train": own[0]}
    if own:
        return {file.stem: file for file in own}
    found = {folder.name: files_in(folder) for folder in sorted(root.glob("*/"))}
    return {
        name if len(files) == 1 else f"{name}_{file.stem}": file
        for name, files in found.items()
        for file in files
    }


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
