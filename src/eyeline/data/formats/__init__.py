"""Annotation formats: one file reads and writes one format; which it is, is seen from the folder.

A format is a module of this package that stands in FORMATS and has the names that `Format` lists.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from eyeline.data.faults import STRICT, Faults
from eyeline.data.formats import (
    coco,
    csv_boxes,
    cvat,
    instances,
    kitti,
    labelme,
    open_images,
    semantic,
    via,
    voc,
    yolo,
)
from eyeline.data.formats.annotations import REGION, Annotations, Record, with_classes
from eyeline.data.formats.coco import read_coco
from eyeline.data.formats.legend import Values
from eyeline.data.formats.strays import broken, strays
from eyeline.data.formats.voc import read_voc
from eyeline.data.public.sets import path_of
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import Segmentation

__all__ = [
    "FORMATS",
    "LISTS",
    "REGION",
    "Annotations",
    "Format",
    "Record",
    "Segmentation",
    "format_named",
    "open_annotations",
    "read_coco",
    "read_options",
    "read_voc",
    "recognise",
    "split_of",
    "strays",
    "with_classes",
]


class Format(Protocol):
    """What the module of a format offers."""

    NAME: str  # of the option --format: "coco"
    TITLE: str  # in messages: "COCO"
    LAYOUT: str  # what it is recognised by, for messages: "annotations/instances_*.json"
    FILES: tuple[str, ...]  # patterns of files that may be a split each; none where one is many
    HOLDS: frozenset[str]  # what it can keep, of `eyeline.data.formats.fitting.FEATURES`

    def splits(self, path: Path) -> list[str] | None:
        """Names of the splits of a folder (of a file alone: one); None where it is not of this
        format. Quick: it looks at names and at the beginning of files, and raises nothing."""

    def read(
        self,
        path: Path,
        split: str,
        classes: Sequence[str] | None = None,
        faults: Faults = STRICT,
        **options: Any,
    ) -> Annotations:
        """One of the splits, with the classes of the source.

        What is wrong with an object, or a picture, is raised as a Fault under `with faults`, so
        that the rest is read where the caller gathers them; what leaves nothing to be read is
        raised in any case.

        `classes`, where given, are names of its numbers in a format that has no names; other
        formats need them only to know that they need not look for the names of other splits.
        `open_annotations` gives the objects their labels, by name.
        """

    def write(
        self, splits: Mapping[str, Annotations], folder: Path, names: Mapping[Path, str], link: bool
    ) -> None:
        """All splits into an empty folder, for `eyeline.data.formats.writing` to put into place.

        The annotations hold what HOLDS says, no more, and all have the same classes. `names` are
        the pictures' file names by `record.path`; no two of a split have the same stem, nor any
        two at all unless HOLDS has "folders".
        """


FORMATS = cast(
    tuple[Format, ...],
    (
        coco, voc, yolo, kitti, via, labelme, cvat, csv_boxes, open_images, semantic, instances,
    ),
)  # fmt: skip
LOOKED = 10_000  # files by whose kinds is told what may be meant
KINDS = (".json", ".xml", ".csv", ".txt")  # of files in which most formats keep annotations
NAMED = 3  # spoilt files; there may be more
LISTS = (".yaml", ".yml")  # files that name their splits; any other, if it has but one, is that


def open_annotations(
    path: str | Path,
    split: str,
    classes: Sequence[str] | None = None,
    one_based: bool = False,
    format: str | None = None,
    unknown: Literal["error", "ignore"] = "error",
    faults: Faults = STRICT,
    attribute: str | None = None,
    values: Values | None = None,
    lazy: bool = False,
) -> Annotations:
    """Read one split of whatever annotated data lies at `path`: see `recognise`.

    Args:
        path: folder, or a file that is its own split whatever `split` says.
        split: "train", "val", "test" ...; the year may be left out where there is only one.
        classes: names of the labels 0 .. K-1; by default those of the source, in its order.
        one_based: VOC's corners count pixels from 1; see `read_voc`.
        format: the name of the format, where the folder looks like several.
        unknown: objects whose class is not in `classes`: "ignore" makes each a region in which
            nothing is learnt or judged.
        faults: Faults(gather=True) to leave out what is wrong, and have it told by `faults.found`.
        attribute: the region attribute of VIA that is the class; see `via.read`.
        values, lazy: of masks; see `semantic.read`.

    Raises:
        EyelineError: nothing there, no known format, no such split, the file is broken, or an
            object's class is not in `classes`.
    """
    found, folder = recognise(path, format)
    options = read_options(found, one_based, attribute, values, lazy)
    chosen = split_of(folder, split, found)
    annotations = found.read(folder, chosen, classes, faults, **options)
    return annotations if classes is None else with_classes(annotations, classes, unknown, faults)


def recognise(path: str | Path, format: str | None = None) -> tuple[Format, Path]:
    """The format of a file or folder, and the folder itself: the one given, or else the only one
    that matches among those in it, or two levels down (VOCdevkit/VOC2007).

    Raises:
        EyelineError: there is nothing, no known format, or more than one.
    """
    path = Path(path)
    if not path.exists():
        path = path_of(path)  # of a public data set, by its name
    formats = FORMATS if format is None else (format_named(format),)
    for pattern in (".", "*", "*/*") if path.is_dir() else (".",):
        folders = [path] if pattern == "." else sorted(path.glob(f"{pattern}/"))
        found = [(f, folder) for folder in folders for f in formats if f.splits(folder) is not None]
        if {f.NAME for f, _ in found} == {"voc", "semantic"}:  # VOC's own has both
            found = [(f, folder) for f, folder in found if f.NAME == "voc"]
        if len({folder for _, folder in found}) > 1:
            names = ", ".join(str(folder.relative_to(path)) for _, folder in found)
            raise EyelineError(
                f"{path}: holds several annotated folders, give one of them: {names}"
            )
        if len(found) > 1:
            titles = " and ".join(f.TITLE for f, _ in found)
            ways = " or ".join(f.NAME for f, _ in found)
            raise EyelineError(
                f"{found[0][1]}: looks like {titles}; say which it is with format= "
                f"(--format): {ways}"
            )
        if found:
            return found[0]
    raise EyelineError(_not_known(path, formats))


def _not_known(path: Path, formats: Sequence[Format]) -> str:
    """In one line: what was looked for, of formats whose files are of the kind that is there."""
    kind = "annotations" if path.is_dir() else "a file"
    patterns = dict.fromkeys(pattern for f in formats for pattern in f.FILES if path.is_dir())
    files = dict.fromkeys(file for pattern in patterns for file in sorted(path.glob(pattern)))
    spoilt = [f"; {file}: {reason}" for file in files if (reason := broken(file))]
    suffixes = Counter(file.suffix.lower() for file in islice(path.rglob("*"), LOOKED))
    there = [suffix for suffix, _ in suffixes.most_common() if suffix in KINDS]
    near = [
        f for f in formats if len(formats) == 1 or any(suffix in f.LAYOUT for suffix in there[:1])
    ]
    looked = "; ".join(f"{f.TITLE} ({f.LAYOUT})" for f in near)
    looked = looked or ", ".join(f.TITLE for f in formats)
    return f"{path}: not {kind} of a known format; looked for {looked}{''.join(spoilt[:NAMED])}"


def format_named(name: str) -> Format:
    """Raises EyelineError where no format is called so."""
    for found in FORMATS:
        if name == found.NAME:
            return found
    raise EyelineError(f"no format {name!r}; there are: {', '.join(f.NAME for f in FORMATS)}")


def read_options(
    found: Format,
    one_based: bool,
    attribute: str | None = None,
    values: Values | None = None,
    lazy: bool = False,
) -> dict[str, Any]:
    """What `Format.read` takes beyond what all of them take."""
    own = {
        "voc": {"one_based": one_based},
        "via": {"attribute": attribute},
        "semantic": {"values": values, "lazy": lazy},
    }
    return own.get(found.NAME, {})


def split_of(path: Path, split: str, found: Format) -> str:
    """The split that is meant: the name itself, or that of the only one with a year behind it; of
    a file that is its own split, that.

    Raises EyelineError where there is none.
    """
    names = found.splits(path) or []
    if path.is_file() and path.suffix.lower() not in LISTS and len(names) == 1:
        return names[0]
    if split in names:
        return split
    dated = [name for name in names if re.fullmatch(re.escape(split) + r"_?\d{4}", name)]
    if len(dated) == 1:
        return dated[0]
    there = f"there are: {', '.join(names)}" if names else f"there is none: {found.LAYOUT}"
    spoilt = [fault for fault in strays(found, path) if fault.severity == "error"]
    there += "".join(f"; {fault}" for fault in spoilt[:NAMED])
    raise EyelineError(
        f"{path}: no split {split!r}; " + (f"which of {', '.join(dated)}?" if dated else there)
    )
