"""What is wrong with annotated data: the first fault raised, or all of them gathered."""

from __future__ import annotations

from types import TracebackType

from eyeline.errors import EyelineError

# Of each kind of fault, what it is; in the order of reports.
KINDS = {
    "file": "annotation files that are not there, or cannot be read",
    "field": "fields that are missing or make no sense",
    "reference": "ids that point to nothing, or are there twice",
    "class": "classes that are not known",
    "picture": "pictures that are not there, or cannot be read",
    "size": "sizes that are not the picture's",
    "box": "boxes outside their picture or without area",
}


class Fault(EyelineError):
    """One thing that is wrong.

    Args:
        kind: one of KINDS.
        where: "FILE:LINE", or "FILE: annotations[3]", or the picture's path.
        what: what is wrong there, and what to do.
    """

    def __init__(self, kind: str, where: object, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.kind, self.where, self.what = kind, str(where), what


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
