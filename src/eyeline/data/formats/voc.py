"""Pascal VOC: Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010.

Annotations/*.xml, JPEGImages/ and ImageSets/Main/SPLIT.txt; or
SPLIT/a.xml beside SPLIT/a.jpg, as Roboflow writes them, or both in the folder itself; or
annotations/xmls/*.xml, images/ and annotations/SPLIT.txt, as in the Oxford-IIIT Pet Dataset (Parkhi
et al., "Cats and Dogs", CVPR 2012), whose lists name pictures that have no XML: they are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import isfile  # False for names that no file can have, where Path raises
from pathlib import Path, PureWindowsPath
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from eyeline.data.faults import STRICT, Fault, Faults
from eyeline.data.formats.annotations import (
    CLASS_LIST,
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
from eyeline.data.formats.fields import FLAGS, beginning
from eyeline.data.formats.fitting import SEPARATE
from eyeline.data.formats.markup import parse_xml, text_of
from eyeline.data.formats.naming import USUAL
from eyeline.data.formats.pictures import place_records
from eyeline.data.formats.strays import broken
from eyeline.data.images import SUFFIXES
from eyeline.errors import EyelineError

NAME = "voc"
TITLE = "Pascal VOC"
LAYOUT = "Annotations/*.xml, JPEGImages/, ImageSets/Main/*.txt; or a .xml beside each picture"
FILES: tuple[str, ...] = ()
Parsed = tuple[Path, Element, dict[Element, int]]  # a file, its tree, its objects' lines
CORNERS = ("xmin", "ymin", "xmax", "ymax")
HOLDS = frozenset(("boxes", "sizes", "empty", "blanks", *SEPARATE, *FLAGS))
FIRST = 20  # XML files of a folder by which it is told


class Place(NamedTuple):
    """Where a split lies."""

    pictures: Path
    files: Path  # the folder of the XML files
    listed: Path | None = None  # a file with a stem a line; None: all
    partial: bool = False  # are there listed pictures without an XML file?


def read_voc(
    root: str | Path, split: str, classes: Sequence[str] | None = None, one_based: bool = False
) -> Annotations:
    """Read one split; objects marked difficult become iscrowd.

    Args:
        root: the folder of Annotations/, JPEGImages/ and ImageSets/, or of one of the other forms.
        split: a file of ImageSets/Main, without ".txt"; "train" for all where there is none.
        classes: names of the labels 0 .. K-1. By default those of classes.txt in `root`, which
            VOC itself does not have, or the sorted names found in a split that is for training
            ("train", "trainval" ...), and for others those found in "train".
        one_based: VOC counts pixels from 1 and includes the last, so that a box is
            (xmin - 1, ymin - 1, xmax, ymax). Most data written in this form today does not,
            hence by default coordinates are taken as they are.

    Raises:
        EyelineError: no such split, a missing file, broken XML, or a name not in `classes`.
    """
    annotations = read(Path(root), split, classes, one_based=one_based)
    return annotations if classes is None else with_classes(annotations, classes)


def read(
    path: Path,
    split: str,
    classes: Sequence[str] | None = None,
    faults: Faults = STRICT,
    one_based: bool = False,
) -> Annotations:
    """As `Format.read` says: the classes are those that `read_voc` takes by default."""
    places = _places(path)
    if split not in places:
        raise Fault("file", path, f"no split {split!r}; there are: {', '.join(places)}")
    files, unread = _files(places[split])
    parsed = _parsed(files, faults)
    found = _names(parsed)
    records = []
    for i, (file, tree, lines) in parsed.items():
        with faults:
            picture = _picture(places[split].pictures, file, tree)
            records.append(_record(picture, file, tree, lines, found, i, one_based, faults))
    annotations = Annotations(found, records, f"{path}, {split}", unread=unread + _unread(parsed))
    if classes is not None:
        return annotations
    if (listed := read_class_list(path)) is not None:
        return with_classes(annotations, listed, faults=faults)
    if not split.startswith("train") and "train" in places:
        # What is wrong there is told when that split is read.
        names = _names(_parsed(_files(places["train"])[0], Faults(faults.gather)))
        return with_classes(annotations, names, faults=faults)
    return annotations


def _parsed(files: Sequence[tuple[str, Path]], faults: Faults) -> dict[int, Parsed]:
    """The XML files, each with the place that names it, by their place in the list."""
    parsed = {}
    for i, (where, file) in enumerate(files):
        with faults:
            if not isfile(file):
                raise Fault("file", where, f"{file} is not there")
            parsed[i] = (file, *parse_xml(file, ("object",)))
    return parsed


def _names(parsed: Mapping[int, Parsed]) -> list[str]:
    """Of all objects, sorted; an object without a name is told by `_record`."""
    objects = [element for _, tree, _ in parsed.values() for element in tree.iter("object")]
    return sorted({text_of(element, "name") for element in objects} - {""})


def read_voc_file(path: str | Path, picture: str | Path) -> Annotations:
    """Read the XML of one picture, wherever both lie; its classes are the names in it, sorted.

    Raises EyelineError where the picture has neither the XML's name nor the one that it tells,
    whatever their suffixes.
    """
    path, picture = Path(path), Path(picture)
    tree, lines = parse_xml(path, ("object",))
    told = PureWindowsPath(text_of(tree, "filename"))  # splits at / and at \
    if picture.stem not in (path.stem, told.stem):
        raise EyelineError(
            f"{path}: annotates {told.name or path.stem}, not {picture.name}; give its own "
            "annotation"
        )
    classes = _names({0: (path, tree, lines)})
    record = _record(picture, path, tree, lines, classes, 0, one_based=False, faults=STRICT)
    return Annotations(classes, [record], str(path))


def splits(path: Path) -> list[str] | None:
    return list(_places(path)) or None


def annotation_of(root: Path, picture: Path) -> Path:
    """The XML file of a picture. Raises EyelineError where there is none."""
    folders = dict.fromkeys(place.files for place in _places(root).values())
    files = [folder / f"{picture.stem}.xml" for folder in folders]
    near = [file for file in files if file.is_file()]
    beside = [file for file in near if file.parent.resolve() == picture.parent.resolve()]
    for file in (*beside, *near):
        return file
    raise EyelineError(f"{files[0]}: no such file, the picture's annotation")


def write(
    splits: Mapping[str, Annotations], folder: Path, names: Mapping[Path, str], link: bool
) -> None:
    """Annotations/*.xml, JPEGImages/, ImageSets/Main/SPLIT.txt and classes.txt."""
    (folder / "Annotations").mkdir()
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    classes = next(iter(splits.values())).classes
    stems = place_records(
        splits, names, folder / "JPEGImages", folder / "Annotations", ".xml",
        lambda record: _xml(record, names[record.path], classes), link,
    )  # fmt: skip
    for split, listed in stems.items():
        text = "".join(f"{stem}\n" for stem in listed)
        _split_path(folder, split).write_text(text, encoding="utf-8")
    write_class_list(folder, classes)


def _xml(record: Record, name: str, classes: Sequence[str]) -> bytes:
    tree = Element("annotation")
    SubElement(tree, "filename").text = name
    size = SubElement(tree, "size")
    SubElement(size, "width").text = str(record.width)
    SubElement(size, "height").text = str(record.height)
    for i, (box, label) in enumerate(zip(record.boxes, record.labels, strict=True)):
        element = SubElement(tree, "object")
        SubElement(element, "name").text = classes[label]
        for flag in FLAGS:
            SubElement(element, flag).text = str(int(record.attribute(flag)[i]))
        corners = SubElement(element, "bndbox")
        for corner, value in zip(CORNERS, box, strict=True):
            SubElement(corners, corner).text = str(value).removesuffix(".0")
    indent(tree)
    return bytes(tostring(tree, encoding="utf-8", xml_declaration=True)) + b"\n"


def _unread(parsed: Mapping[int, Parsed]) -> list[str]:
    """What only some people want of VOC."""
    objects = [o for _, tree, _ in parsed.values() for o in tree.iter("object")]
    parts = sum(len(o.findall("part")) for o in objects)
    poses = sum(text_of(o, "pose") not in ("", "Unspecified") for o in objects)
    found = {"parts of objects": parts, "poses": poses}
    return [f"{number} {what}" for what, number in found.items() if number]


def _places(path: Path) -> dict[str, Place]:
    """Where the splits lie; {} of other folders, and of files."""
    if _is_voc_folder(path):
        pictures, files = path / "JPEGImages", path / "Annotations"
        lists = {file.stem: file for file in sorted(_split_path(path, "").parent.glob("*.txt"))}
        # Beside "train" stand VOC's lists for one class each, "cat_train".
        own = {s: f for s, f in lists.items() if s.rpartition("_")[2] not in lists or "_" not in s}
        places = {stem: Place(pictures, files, listed) for stem, listed in own.items()}
        return places or {"train": Place(pictures, files)}
    pictures, files = path / "images", path / "annotations" / "xmls"
    if pictures.is_dir() and files.is_dir():
        lists = {split: files.parent / f"{split}.txt" for split in ("trainval", "test")}
        places = {s: Place(pictures, files, f, True) for s, f in lists.items() if f.is_file()}
        return {split: place for split, place in places.items() if _has_any(place)}
    if _is_flat(path):
        return {"train": Place(path, path)}
    inside = {folder.name: Place(folder, folder) for folder in path.glob("*/") if _is_flat(folder)}
    listed = (path / CLASS_LIST).is_file()
    return inside if listed or any(name.startswith(USUAL) for name in inside) else {}


def _has_any(place: Place) -> bool:
    """Has a listed picture an XML file?"""
    try:
        return bool(_files(place)[0])
    except Fault:  # which `read` will tell
        return True


def _is_voc_folder(path: Path) -> bool:
    return (path / "Annotations").is_dir() and (path / "JPEGImages").is_dir()


def _is_flat(folder: Path) -> bool:
    """Are there XML files of this format beside pictures of their names?"""
    files = [file for file in sorted(folder.glob("*.xml"))[:FIRST] if _is_annotation(file)]
    return any(isfile(file.with_suffix(suffix)) for file in files for suffix in SUFFIXES)


def _is_annotation(file: Path) -> bool:
    """By the root element; CVAT's is <annotations>."""
    return re.search(rb"<annotation[\s>]", beginning(file)) is not None


def _split_path(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Main" / f"{split}.txt"


def _files(place: Place) -> tuple[list[tuple[str, Path]], list[str]]:
    """The XML files of a split, each with the place that names it; and in words what is left."""
    if place.listed is None:
        files = sorted(place.files.glob("*.xml"))
        own = files
        if place.files == place.pictures:  # where something else may lie, too
            there = {p.stem for p in place.pictures.iterdir() if p.suffix.lower() in SUFFIXES}
            own = [f for f in files if f.stem in there or _is_annotation(f) or broken(f)]
        other = sorted({file.name for file in files} - {file.name for file in own})
        words = [f"{len(other)} XML file(s) of another kind, the first {other[0]}"] if other else []
        return [(str(file), file) for file in own], words
    found, lacking = [], 0
    for number, line in enumerate(read_text(place.listed).splitlines(), 1):
        name = line.split(" ")[0] if place.partial else line.strip()
        if not name:
            continue
        file = place.files / f"{name}.xml"
        if place.partial and not isfile(file):
            lacking += 1
        else:
            found.append((f"{place.listed}:{number}", file))
    return found, [f"{lacking} listed picture(s) without an XML file"] if lacking else []


def _record(
    picture: Path,
    path: Path,
    tree: Element,
    lines: dict[Element, int],
    classes: list[str],
    image_id: int,
    one_based: bool,
    faults: Faults,
) -> Record:
    objects = []
    for element in tree.iter("object"):
        with faults:
            objects.append(_object(element, f"{path}:{lines[element]}", classes, one_based))
    height, width = (_integer(text_of(tree, f"size/{side}")) for side in ("height", "width"))
    size = (height, width) if height and width else picture_size(picture)
    return record_of(picture, size, objects, image_id)


def _object(element: Element, where: str, classes: list[str], one_based: bool) -> Object:
    if not (name := text_of(element, "name")):
        raise Fault("class", where, "the object has no name")
    values = [text_of(element, f"bndbox/{corner}") for corner in CORNERS]
    try:
        left, top, right, bottom = (float(value) for value in values)
    except ValueError:
        what = f"{', '.join(CORNERS)} should be numbers, not {values}"
        raise Fault("field", where, what) from None
    flags = {flag: float(text_of(element, flag) == "1") for flag in FLAGS}
    box = (left - one_based, top - one_based, right, bottom)
    return Object(where, classes.index(name), box, iscrowd=flags["difficult"] > 0, attributes=flags)


def _picture(folder: Path, file: Path, tree: Element) -> Path:
    """The picture of the XML's name; only where there is none, the one that the XML names."""
    stem, filename = file.stem, text_of(tree, "filename")
    for name in (*(stem + s for s in (".jpg", *sorted(SUFFIXES))), f"{stem}.JPG", filename):
        if name and isfile(folder / name):
            return folder / name
    raise Fault("picture", f"{folder / stem}.jpg", f"no such picture; {file} annotates it")


def _integer(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 7 else 0
