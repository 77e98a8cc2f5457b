"""KITTI's label_2: Geiger et al., "Are we ready for Autonomous Driving?", CVPR 2012.

A line an object, its fields counted from 1:
1 class; 2 truncated, 0 to 1; 3 occluded, 0 to 3; 4 alpha; 5-8 left, top, right, bottom in pixels;
9-11 height, width, length in metres; 12-14 x, y, z; 15 rotation.
DontCare is a region in which nothing is annotated. Names of classes have no blanks.

image_2/ and label_2/ lie in the folder or in its training/, beside that ImageSets/SPLIT.txt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import isfile  # False for names that no file can have, where Path raises
from pathlib import Path
from typing import Any

from eyeline.data.faults import STRICT, Fault, Faults
from eyeline.data.formats.annotations import (
    REGION,
    Annotations,
    Object,
    Record,
    picture_size,
    read_class_list,
    read_text,
    record_of,
    with_classes,
    write_class_list,
)
from eyeline.data.formats.fitting import SEPARATE
from eyeline.data.formats.numbers import decimal, plain
from eyeline.data.formats.pictures import place_records
from eyeline.data.images import SUFFIXES
from eyeline.errors import EyelineError

NAME = "kitti"
TITLE = "KITTI"
LAYOUT = "image_2/ and label_2/*.txt, there or in training/"
FILES: tuple[str, ...] = ()
SOLID = ("height", "width", "length", "x", "y", "z", "rotation")  # fields 9-15
ATTRIBUTES = ("alpha", *(f"3-D {name}" for name in SOLID))
HOLDS = frozenset(
    ("boxes", "regions", "degrees", "empty", "truncated", "occluded", *SEPARATE, *ATTRIBUTES)
)
DONT_CARE = "DontCare"
UNKNOWN = [-10.0, -1.0, -1.0, -1.0, -1000.0, -1000.0, -1000.0, -10.0]  # of ATTRIBUTES


def splits(path: Path) -> list[str] | None:
    if _folder(path) is None:
        return None
    return sorted(file.stem for file in path.glob("ImageSets/*.txt")) or ["train"]


def read(
    path: Path,
    split: str,
    classes: Sequence[str] | None = None,
    faults: Faults = STRICT,
    **options: Any,
) -> Annotations:
    folder = _folder(path)
    if folder is None:
        raise Fault("file", path, f"no {LAYOUT}")
    files = _label_files(path, folder, split, faults)
    lines = {file: _lines(file, faults) for file in files}
    found = sorted({words[0] for own in lines.values() for _, words in own} - {DONT_CARE})
    pictures = {
        file.stem: file
        for file in sorted((folder / "image_2").iterdir())
        if file.suffix.lower() in SUFFIXES
    }
    records = []
    for i, file in enumerate(files):
        with faults:
            if file.stem not in pictures:
                name = f"{folder / 'image_2' / file.stem}.png"
                raise Fault("picture", file, f"there is no picture {name}")
            records.append(_record(pictures[file.stem], lines[file], found, i, faults))
    scores = sum(len(words) == 16 for own in lines.values() for _, words in own)
    unread = [f"{scores} score(s) of a detector"] if scores else []
    annotations = Annotations(found, records, f"{path}, {split}", unread=unread)
    if classes is not None:
        return annotations
    names = read_class_list(path)
    if names is None:  # those of all splits, so that they have the same labels
        every = sorted((folder / "label_2").glob("*.txt"))
        apart = Faults(faults.gather)  # what is wrong in other splits is told of them
        names = sorted({words[0] for f in every for _, words in _lines(f, apart)} - {DONT_CARE})
    return with_classes(annotations, names, faults=faults)


def write(
    splits: Mapping[str, Annotations], folder: Path, names: Mapping[Path, str], link: bool
) -> None:
    """training/image_2/ and training/label_2/, ImageSets/SPLIT.txt and classes.txt."""
    classes = next(iter(splits.values())).classes
    if DONT_CARE in classes:
        raise EyelineError(
            f"a class is called {DONT_CARE}, which in KITTI means no class; rename it"
        )
    (folder / "ImageSets").mkdir()
    (folder / "training" / "label_2").mkdir(parents=True)

    def lines(record: Record) -> bytes:
        text = "".join(_line(record, i, classes) + "\n" for i in range(len(record.boxes)))
        return text.encode()

    root = folder / "training"
    stems = place_records(splits, names, root / "image_2", root / "label_2", ".txt", lines, link)
    for split, listed in stems.items():
        path = folder / "ImageSets" / f"{split}.txt"
        path.write_text("".join(f"{stem}\n" for stem in listed), encoding="utf-8")
    write_class_list(folder, classes)


def _line(record: Record, i: int, classes: Sequence[str]) -> str:
    values = [float(record.attribute(name)[i]) for name in ATTRIBUTES]
    if not any(values[1:4]):  # nothing has no size
        values = UNKNOWN
    truncated, occluded = (record.attribute(name)[i] for name in ("truncated", "occluded"))
    name = classes[record.labels[i]]
    if record.labels[i] == REGION:
        name, truncated, occluded = DONT_CARE, -1.0, -1.0
    box = [decimal(value) for value in record.boxes[i]]
    fields = [truncated, occluded, values[0], *box, *values[1:]]
    return " ".join([name, *map(plain, fields)])


def _record(
    picture: Path,
    lines: list[tuple[str, list[str]]],
    classes: list[str],
    image_id: int,
    faults: Faults,
) -> Record:
    objects = []
    for where, words in lines:
        with faults:
            objects.append(_object(where, words, classes))
    return record_of(picture, picture_size(picture), objects, image_id)


def _object(where: str, words: list[str], classes: list[str]) -> Object:
    try:
        values = [float(word) for word in words[1:15]]
    except ValueError:
        raise Fault("field", where, f"should be numbers, not {' '.join(words[1:])}") from None
    truncated, occluded, alpha, *rest = values
    box, solid = rest[:4], rest[4:]
    attributes = {"truncated": max(truncated, 0.0), "occluded": max(occluded, 0.0)}
    if min(solid[:3]) > 0:  # where the three sizes are no sizes, nothing of the solid is known
        attributes |= dict(zip(ATTRIBUTES, [alpha, *solid], strict=True))
    region = words[0] == DONT_CARE
    label = REGION if region else classes.index(words[0])
    return Object(where, label, box, iscrowd=region, attributes=attributes)


def _folder(path: Path) -> Path | None:
    """The folder of image_2/ and label_2/."""
    for folder in (path, path / "training"):
        if (folder / "image_2").is_dir() and (folder / "label_2").is_dir():
            return folder
    return None


def _label_files(path: Path, folder: Path, split: str, faults: Faults) -> list[Path]:
    listed = path / "ImageSets" / f"{split}.txt"
    if not listed.is_file():
        return sorted((folder / "label_2").glob("*.txt"))
    files = []
    for number, line in enumerate(read_text(listed).splitlines(), 1):
        with faults:
            if name := line.strip():
                file = folder / "label_2" / f"{name}.txt"
                if not isfile(file):
                    raise Fault("file", f"{listed}:{number}", f"{file} is not there")
                files.append(file)
    return files


def _lines(file: Path, faults: Faults) -> list[tuple[str, list[str]]]:
    """(file and line, fields) of each object."""
    found: list[tuple[str, list[str]]] = []
    with faults:
        for number, line in enumerate(read_text(file).splitlines(), 1):
            with faults:
                words = line.split()
                if len(words) not in (0, 15, 16):
                    what = "should be 15 fields (class, truncated, occluded, alpha, box ...)"
                    raise Fault("field", f"{file}:{number}", f"{what}, not {len(words)}")
                if words:
                    found.append((f"{file}:{number}", words))
    return found
