"""Files that lie where a format has its annotations, and are read as none: emptied, full of zeros,
spoilt in their first lines, or simply another's. Unless they are named, whatever they held is lost
without a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from eyeline.data.faults import Fault
from eyeline.data.formats.fields import beginning

if TYPE_CHECKING:
    from eyeline.data.formats import Format

OPENING = {".json": b"{[", ".xml": b"<"}  # what may stand first in a file of this kind


def strays(found: Format, folder: Path) -> Iterator[Fault]:
    """The files among those of FILES that hold no split, broken ones as errors."""
    if not folder.is_dir():
        return
    files = {file for pattern in found.FILES for file in folder.glob(pattern) if file.is_file()}
    for file in sorted(files):
        if found.splits(file) is not None:
            continue
        if reason := broken(file):
            yield Fault("file", file, f"{reason}; put back what was in it, or take it away")
        elif "class" not in file.stem:  # a list of names
            what = f"nothing in it that {found.TITLE} would hold; it is not read"
            yield Fault("stray", file, what)


def broken(file: Path) -> str:
    """Why a file of text can hold nothing, by its beginning; "" where it may."""
    start = beginning(file).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        return "it is empty"
    if b"\0" in start:
        return "zeros stand where text should be"
    opening = OPENING.get(file.suffix.lower())
    if opening is not None and start[0] not in opening:
        return f"it does not begin as {file.suffix[1:].upper()} does"
    return ""
