"""What `check` found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from eyeline.data.arrange import Splits
from eyeline.data.checking.files import file_of
from eyeline.data.checking.maps import MapStatistics, map_statistics
from eyeline.data.checking.places import place_of
from eyeline.data.checking.statistics import Statistics, statistics
from eyeline.data.faults import KINDS, Fault, Severity
from eyeline.data.images import SUFFIXES

VERSION = 1  # of the form of `Report.as_json`


@dataclass
class Report:
    """A data set that was checked.

    `splits` have the same classes, those to train on first, and hold everything that could be
    read, unsound boxes too. Of a fault of one object `fault.where` is its `record.where[i]`, of a
    picture `str(record.path)`.
    """

    path: Path
    format: str  # its name, "coco"
    title: str  # and as it is written, "COCO"
    splits: Splits
    known: list[str] | None  # classes of the split to train on; None: there is none
    left_out: list[str]  # splits that only hold what others hold
    pictures: str  # "decoded", "headers", or "not read"
    faults: list[Fault]  # in the order of KINDS

    @cached_property
    def statistics(self) -> dict[str, Statistics]:
        """Of each split."""
        return {name: statistics(data) for name, data in self.splits.items()}

    @cached_property
    def maps(self) -> dict[str, MapStatistics]:
        """Of each split, where the data are masks with a class for every pixel; else of none."""
        splits = self.splits.items()
        return {name: map_statistics(data) for name, data in splits if data.legend is not None}

    @property
    def unread(self) -> list[str]:
        """What the source has besides, in words."""
        return [f"{name}: {text}" for name, data in self.splits.items() for text in data.unread]

    def count(self, severity: Severity) -> int:
        return sum(fault.severity == severity for fault in self.faults)

    def by_kind(self) -> dict[str, list[Fault]]:
        """The faults of each kind of which there is one, in the order of KINDS."""
        found: dict[str, list[Fault]] = {kind: [] for kind in KINDS}
        for fault in self.faults:
            found[fault.kind].append(fault)
        return {kind: faults for kind, faults in found.items() if faults}

    def picture_of(self, fault: Fault) -> Path | None:
        """The picture that a fault is about, if it is about one."""
        if fault.picture is not None:
            return fault.picture
        found = self._pictures.get(fault.where) or self._pictures.get(file_of(fault.where))
        if found is None and Path(fault.where).suffix.lower() in SUFFIXES:  # it is not there
            found = Path(fault.where)
        return found

    @cached_property
    def _pictures(self) -> dict[str, Path]:
        return {str(r.path): r.path for data in self.splits.values() for r in data.records}

    def as_json(self) -> dict[str, Any]:
        """All of it for machines; docs/data.md has the keys."""
        counts = Counter(fault.severity for fault in self.faults)
        return {
            "version": VERSION,
            "path": str(self.path),
            "format": self.format,
            "pictures": self.pictures,
            "classes": self.known,
            "splits": {name: own.as_json() for name, own in self.statistics.items()},
            "maps": {name: own.as_json() for name, own in self.maps.items()},
            "left_out": self.left_out,
            "unread": self.unread,
            "counts": {severity: counts[severity] for severity in ("error", "warning", "note")},
            "faults": [self.fault_as_json(fault) for fault in self.faults],
        }

    def fault_as_json(self, fault: Fault) -> dict[str, Any]:
        file, line = place_of(fault.where)
        picture = self.picture_of(fault)
        return {
            "kind": fault.kind,
            "severity": fault.severity,
            "file": file,
            "line": line,
            "where": fault.where,
            "what": fault.what,
            "picture": None if picture is None else str(picture),
        }
