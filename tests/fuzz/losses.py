"""What is gone of a data set after one of its files was spoilt, and was not told."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from eyeline.data.checking import Report
from eyeline.data.checking.files import file_of
from eyeline.data.datasets import DetectionDataset
from eyeline.data.faults import Fault
from eyeline.data.formats.annotations import Record

LISTS = ("ImageSets", "Main", "Segmentation")  # folders of lists of pictures
LINES = (".txt", ".csv")  # of what a line is all there is to know, lists of pictures among them


def untold(
    clean: DetectionDataset,
    left: DetectionDataset,
    file: Path,
    content: bytes,
    whole: Report,
) -> int:
    """How many objects are gone that `left.left_out` does not name.

    A picture, and so its objects, is named by its path, by its own annotation file, by its entry in
    a common one or in a list, or with the whole of that; an object by its place. Two things nobody
    could tell, and they are taken off: that an object is another picture's now (a digit of an id
    was changed), and that a whole line of a text file of lines is gone (in COCO, VIA, LabelMe,
    VOC's XML, CVAT and masks there are none).

    Args:
        file: the one that was spoilt, and `content` what it held before.
        whole: of all splits, to which the file may now give some of the pictures.
    """
    before, after = _objects(clean.annotations.records), _objects(left.annotations.records)
    others = [data for split, data in whole.splits.items() if split != "train"]
    there = _objects([record for data in others for record in data.records])
    left_out = left.left_out + [fault for fault in whole.faults if fault.severity == "error"]
    # Lines of tables and lists may have moved: any that is named is one of those that are lost.
    common = file.suffix in LINES and all(file.stem != path.stem for path in before)
    rows = {f.where: f.kind for f in left_out if common and file_of(f.where) == str(file)}
    single = [f for f in _once(left_out) if f.where not in rows or f.kind == "size"]
    gone, came = 0, sum((after - before).values())
    for i, record in enumerate(clean.annotations.records):
        lost = before[record.path] - after[record.path] - there[record.path]
        told = [_told(fault, record, i, file, content) for fault in single]
        if None not in told:
            named = sum(int(number or 0) for number in told)
            gone += max(0, lost - named)
            came += max(0, named - max(0, lost))  # in the place of one that is named
    # The picture under whose name there is none, whichever it was.
    strange = [f for f in _once(left_out) if f.kind == "picture" and str(file) in f.what]
    strange = [f for f in strange if all(f.where != str(path) for path in before)]
    lines = max(0, _lines(file, content) - _lines(file, file.read_bytes()))
    lines += sum(_rows(w, file) if kind == "picture" else 1 for w, kind in rows.items())
    most = max(before.values())
    in_line = most if file.parent.name in LISTS else 1  # a picture, and all that is in it
    # Of COCO's annotations those that now lie within an entry that is named, or in another list.
    moved = 0
    if any(f.kind == "field" and f.where.startswith(f"{file}: ") for f in left_out):
        moved = max(0, _annotations(content) - _annotations(file.read_bytes()))
    return max(0, gone - came - lines * in_line - len(strange) * most - moved)


def _once(faults: Sequence[Fault]) -> list[Fault]:
    return list({(fault.kind, fault.where): fault for fault in faults}.values())


def _objects(records: Sequence[Record]) -> Counter[Path]:
    """How many each picture has."""
    counts: Counter[Path] = Counter()
    for record in records:
        counts[record.path] += len(record.boxes)
    return counts


def _told(fault: Fault, record: Record, index: int, file: Path, content: bytes) -> int | None:
    """How many objects of a picture a fault names; None: the picture itself.

    Args:
        index: of the picture in the whole data set.
        file: the one that was spoilt, and `content` what it held before.
    """
    where, place = fault.where, Path(file_of(fault.where))
    stem = record.path.stem
    own = place.stem.removesuffix("_mask") == stem or (
        file.stem == stem and str(file) in str(fault)
    )
    if where == str(record.path) or fault.picture == record.path:
        return None
    if fault.kind == "file" and (own or where == str(file)):
        return None
    entries = {known.partition(" (id ")[0] for known in record.where}
    if where.partition(" (id ")[0] in entries or own:
        # Other objects may lie in what should be numbers.
        several = fault.kind == "size" or "number, not dict" in fault.what
        return None if where == str(place) or several else 1
    named = record.path.name in f"{where.removeprefix(str(place))} {fault.what}"
    listed = stem in _line(fault, file, content) + _line(fault, file, file.read_bytes())
    return None if named or listed or where == f"{file}: images[{index}]" else 0


def _rows(where: str, file: Path) -> int:
    """How many rows the fault at a row stands for: those of one picture that is not there are told
    once, at the first."""
    number = where.removeprefix(f"{file}:").partition(":")[0]
    text = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    name = text[int(number) - 1].partition(",")[0] if number.isdigit() else ""
    return max(1, sum(line.startswith(f"{name},") for line in text)) if name else 1


def _line(fault: Fault, file: Path, content: bytes) -> list[str]:
    """The words of the line that a fault names in the spoilt file, or in what it held before."""
    if file_of(fault.where) != str(file) or not fault.where.removeprefix(f"{file}:")[:1].isdigit():
        return []
    number = int(fault.where.removeprefix(f"{file}:").partition(":")[0])
    text = content.decode("utf-8-sig", errors="replace").splitlines()
    line = text[number - 1] if number <= len(text) else ""
    return [Path(word).stem for word in re.split(r'[\s,"]+', line) if word]


def _annotations(content: bytes) -> int:
    """How many COCO's list has; 0 of other files."""
    try:
        found = json.loads(content)
    except ValueError:
        return 0
    return len(found.get("annotations", [])) if isinstance(found, dict) else 0


def _lines(file: Path, content: bytes) -> int:
    """How many lines say something, of a file in which each stands for itself."""
    if file.suffix not in LINES:
        return 0
    text = content.decode("utf-8-sig", errors="replace")
    if file.suffix == ".csv":
        return sum(any(row) for row in csv.reader(io.StringIO(text, newline="")))
    return sum(bool(line.strip()) for line in text.splitlines())
