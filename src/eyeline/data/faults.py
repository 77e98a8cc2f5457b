"""What is wrong with annotated data: the first fault raised, or all of them gathered."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple

from eyeline.errors import EyelineError

Severity = Literal["error", "warning", "note"]


class Kind(NamedTuple):
    """What faults of a kind have in common."""

    severity: Severity  # error: training would fail or learn it; warning: most likely a mistake
    title: str  # what they are, in reports


# In the order of reports.
KINDS = {
    "file": Kind("error", "annotation files that are not there, or cannot be read"),
    "field": Kind("error", "fields that are missing or make no sense"),
    "reference": Kind("error", "ids that point to nothing, or are there twice"),
    "class": Kind("error", "classes that are not known"),
    "picture": Kind("error", "pictures that are not there, or cannot be read"),
    "size": Kind("error", "sizes that are not the picture's"),
    "rotation": Kind("error", "pictures turned by EXIF, but annotated as they lie"),
    "box": Kind("error", "boxes outside their picture or without area"),
    "scale": Kind("error", "boxes in shares of the picture, where pixels are expected"),
    "order": Kind("warning", "boxes whose four numbers seem to mean something else"),
    "tiny": Kind("warning", "boxes less than a pixel wide or high"),
    "twice": Kind("warning", "objects that are there twice"),
    "name": Kind("warning", "names of classes that are nearly the same"),
    "untrained": Kind("warning", "classes without an object to train on"),
    "leak": Kind("warning", "pictures in two splits, the same or nearly"),
    "orphan": Kind("warning", "annotation files without a picture"),
    "id": Kind("warning", "ids of annotations that are there twice"),
    "copy": Kind("note", "pictures twice in a split, the same or nearly"),
    "empty": Kind("note", "classes without any object"),
    "numbers": Kind("note", "ids of classes with gaps, or that differ between splits"),
    "corner": Kind("note", "corners that seem to be counted from 1"),
    "stray": Kind("note", "files beside the annotations that are not read"),
    "unlisted": Kind("note", "pictures without annotations"),
}


class Fault(EyelineError):
    """One thing that is wrong.

    Args:
        kind: one of KINDS.
        where: "FILE:LINE", or "FILE: annotations[3]", or the picture's path.
        what: what is wrong there, and what to do.
        picture: the one that it is about, where that is known and `where` does not tell it.
    """

    def __init__(self, kind: str, where: object, what: str, picture: Path | None = None) -> None:
        super().__init__(f"{where}: {what}")
        self.kind, self.where, self.what, self.picture = kind, str(where), what, picture

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity


class Faults:
    """How to go on where part of the data is wrong: not at all, or without that part.

    with faults:                               # around the reading of one object, or one picture
        objects.append(self.object(line))

    Args:
        gather: keep the faults in `found` and leave out what lies under `with`; otherwise the
            first is raised.
    """

    def __init__(self, gather: bool = False) -> None:
        self.gather = gather
        self.found: list[Fault] = []

    def __enter__(self) -> Faults:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not (self.gather and isinstance(error, Fault)):
            return False
        self.found.append(error)
        return True


STRICT = Faults()
