"""Files that belong to nothing: annotations without a picture, pictures without annotations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from eyeline.data.arrange import Splits
from eyeline.data.faults import Fault
from eyeline.data.formats.annotations import CLASS_LIST
from eyeline.data.images import SUFFIXES

PLACE = re.compile(r"(?P<file>.+?):(?P<line>\d+)(:\d+)?$")


def check_files(splits: Splits, faults: Sequence[Fault]) -> Iterator[Fault]:
    """Of all splits of a data set: what lies beside the pictures and files that they name.

    Args:
        faults: files that these tell are not told again.
    """
    told = {fault.where for fault in faults} | {file_of(fault.where) for fault in faults}
    words = "\n".join(fault.what for fault in faults)
    listed = {record.path for data in splits.values() for record in data.records}
    pictures = [
        path
        for folder in sorted({path.parent for path in listed})
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
    files = _own_files(splits)  # none where one file annotates all pictures
    for path in pictures:
        if path in listed or str(path) in told or path.name in words:
            continue
        file = files.get(path.stem)
        if file is None:
            yield Fault("unlisted", path, "nothing annotates it; it is not used")
        elif str(file) not in told:
            yield Fault("unlisted", path, f"no split lists it, though {file} annotates it")
    if not files:
        return
    stems = {path.stem for path in pictures}
    for stem, file in files.items():
        if stem not in stems and str(file) not in told:
            yield Fault("orphan", file, "there is no picture of its name; take it out, or add it")
    for path in sorted(listed):
        if path.stem not in files:
            what = "it has no annotation file, and counts as a picture without objects"
            yield Fault("unlisted", path, what)


def file_of(where: str) -> str:
    """The file of "FILE:LINE" or "FILE: annotations[3]"."""
    match = PLACE.match(where)
    return match["file"] if match else where.partition(": ")[0]


def _own_files(splits: Splits) -> dict[str, Path]:
    """The annotation files by their stems, where each picture has its own, of its stem."""
    kinds: dict[tuple[Path, str], None] = {}
    for data in splits.values():
        for record in data.records:
            for where in record.where[:1]:
                file = Path(file_of(where))
                if file.stem != record.path.stem:
                    return {}
                kinds[file.parent, file.suffix] = None
    return {
        file.stem: file
        for folder, suffix in kinds
        for file in sorted(folder.glob(f"*{suffix}"))
        if file.name != CLASS_LIST
    }
