"""Pascal VOC: Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from eyeline.data.formats.annotations import Annotations, Record
from eyeline.data.images import SUFFIXES, image_size
from eyeline.errors import EyelineError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    root: str | Path, split: str, classes: Sequence[str] | None = None, one_based: bool = False
) -> Annotations:
    """Read one split; objects marked difficult become iscrowd.

    Args:
        root: the folder of Annotations/, JPEGImages/ and ImageSets/.
        split: a file of ImageSets/Main, without ".txt".
        classes: names of the labels 0 .. K-1. By default the sorted names found in a split that
            is for training ("train", "trainval" ...), and for others those found in "train".
        one_based: VOC counts pixels from 1 and includes the last, so that a box is
            (xmin - 1, ymin - 1, xmax, ymax). Most data written in this form today does not,
            hence by default coordinates are taken as they are.

    Raises:
        EyelineError: no such split, a missing file, broken XML, or a name not in `classes`.
    """
    root = Path(root)
    parsed = [(path, *_parse(path)) for path in _split_files(root, split)]
    if classes is None:
        roots = [tree for _, tree, _ in parsed]
        if not split.startswith("train") and _split_path(root, "train").is_file():
            roots = [_parse(path)[0] for path in _split_files(root, "train")]
        classes = sorted({_text(o, "name") for tree in roots for o in tree.findall("object")})
    records = [
        _record(_picture(root, path.stem, tree), path, tree, lines, list(classes), i, one_based)
        for i, (path, tree, lines) in enumerate(parsed)
    ]
    return Annotations(list(classes), records, f"{root}, {split}")


def read_voc_file(path: str | Path, picture: str | Path) -> Annotations:
    """Read the XML of one picture, wherever both lie; its classes are the names in it, sorted.

    Raises EyelineError where the picture has neither the XML's name nor the one that it tells,
    whatever their suffixes.
    """
    path, picture = Path(path), Path(picture)
    tree, lines = _parse(path)
    told = PureWindowsPath(_text(tree, "filename"))  # splits at / and at \
    if picture.stem not in (path.stem, told.stem):
        raise EyelineError(
            f"{path}: annotates {told.name or path.stem}, not {picture.name}; give its own "
            "annotation"
        )
    classes = sorted({_text(element, "name") for element in tree.findall("object")})
    record = _record(picture, path, tree, lines, classes, 0, one_based=False)
    return Annotations(classes, [record], str(path))


def find_voc(path: Path, patterns: Sequence[str]) -> Path | None:
    """The VOC folder among those that the first pattern matches, or else the next."""
    for pattern in patterns:
        candidates = [path] if pattern == "." else sorted(path.glob(f"{pattern}/"))
        found = [
            folder
            for folder in candidates
            if (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir()
        ]
        if len(found) > 1:
            names = ", ".join(str(folder.relative_to(path)) for folder in found)
            raise EyelineError(f"{path}: holds several VOC folders, give one of them: {names}")
        if found:
            return found[0]
    return None


def _split_path(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Main" / f"{split}.txt"


def _split_files(root: Path, split: str) -> list[Path]:
    """The XML files of a split."""
    path = _split_path(root, split)
    if not path.is_file():
        stems = sorted(file.stem for file in path.parent.glob("*.txt"))
        # Beside "train" stand VOC's lists for one class each, "cat_train".
        splits = [stem for stem in stems if stem.rpartition("_")[2] not in stems or "_" not in stem]
        raise EyelineError(
            f"{root}: no split {split!r}; there are: {', '.join(splits)}"
            if splits
            else f"{root}: no split {split!r}; there is no ImageSets/Main/*.txt"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise EyelineError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    files = []
    for number, line in enumerate(text.splitlines(), 1):
        if name := line.strip():
            file = root / "Annotations" / f"{name}.xml"
            if not file.is_file():
                raise EyelineError(f"{path}:{number}: {file} is not there")
            files.append(file)
    return files


def _parse(path: Path) -> tuple[Element, dict[Element, int]]:
    """The root element, and the line on which each <object> begins."""
    parser, builder = expat.ParserCreate(), TreeBuilder()
    lines: dict[Element, int] = {}

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = builder.start(tag, attributes)
        if tag == "object":
            lines[element] = parser.CurrentLineNumber

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise EyelineError(
            f"{path}:{error.lineno}:{error.offset + 1}: not valid XML: "
            f"{expat.ErrorString(error.code)}"
        ) from None
    except (ValueError, LookupError) as error:
        raise EyelineError(f"{path}: its encoding: {error}; save it as UTF-8") from None
    return builder.close(), lines


def _record(
    picture: Path,
    path: Path,
    tree: Element,
    lines: dict[Element, int],
    classes: list[str],
    image_id: int,
    one_based: bool,
) -> Record:
    objects = tree.findall("object")
    where = [f"{path}:{lines[element]}" for element in objects]
    boxes = np.zeros((len(objects), 4))
    labels = np.zeros(len(objects), np.int64)
    for i, element in enumerate(objects):
        name = _text(element, "name")
        if name not in classes:
            raise EyelineError(f"{where[i]}: the class {name!r} is not one of {', '.join(classes)}")
        labels[i] = classes.index(name)
        values = [_text(element, f"bndbox/{corner}") for corner in CORNERS]
        try:
            boxes[i] = [float(value) for value in values]
        except ValueError:
            raise EyelineError(
                f"{where[i]}: {', '.join(CORNERS)} should be numbers, not {values}"
            ) from None
    boxes[:, :2] -= one_based
    height, width = (_integer(_text(tree, f"size/{side}")) for side in ("height", "width"))
    if not (height and width):
        height, width = image_size(picture)
    return Record(
        path=picture,
        width=width,
        height=height,
        boxes=boxes.astype(np.float32),
        labels=labels,
        iscrowd=np.array([_text(element, "difficult") == "1" for element in objects], bool),
        segmentations=None,
        image_id=image_id,
        where=where,
    )


def _picture(root: Path, stem: str, tree: Element) -> Path:
    """The picture of the XML's name; only where there is none, the one that the XML names."""
    folder, filename = root / "JPEGImages", _text(tree, "filename")
    for name in (*(stem + s for s in (".jpg", *sorted(SUFFIXES))), f"{stem}.JPG", filename):
        if name and (folder / name).is_file():
            return folder / name
    raise EyelineError(f"{folder / stem}.jpg: no such picture, but it has annotations")


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _integer(text: str) -> int:
    return int(text) if text.isdecimal() else 0
