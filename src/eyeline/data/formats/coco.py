"""COCO's instances files: Lin et al., "Microsoft COCO", ECCV 2014; cocodataset.org/#format-data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from os.path import isfile  # False for names that no file can have, where Path raises
from pathlib import Path
from typing import Any

import numpy as np

from eyeline.data.formats.annotations import Annotations, Record
from eyeline.data.formats.numbers import decimal, shortest
from eyeline.data.formats.pictures import place_picture
from eyeline.data.images import image_size
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import decode_masks

NAME = "coco"
TITLE = "COCO"
LAYOUT = "annotations/instances_*.json, *.json or */_annotations.coco.json"
HOLDS = frozenset(
    (
        "boxes",
        "polygons",
        "digits",
        "parts",
        "masks",
        "crowd",
        "areas",
        "sizes",
        "empty",
        "ids",
        "blanks",
        "folders",
    )
)
KEYS = (b'"images"', b'"annotations"', b'"categories"', b'"info"', b'"licenses"')
FARTHEST = 1e6  # no picture is wider or higher
OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")


def read_coco(
    json_path: str | Path, images_dir: str | Path | None = None, picture: Path | None = None
) -> Annotations:
    """Read an instances file; categories become labels 0 .. K-1 in ascending order of their ids.

    Args:
        json_path: "annotations/instances_val2017.json", say.
        images_dir: the pictures' folder; by default looked for near the file, under its name:
            "val2017", "images/val2017", "val", "images", the file's own folder ...
        picture: read what is listed under this picture's file name alone; no listed picture
            needs to be there, since this one can stand in for it.

    Raises:
        EyelineError: the file is no JSON or no instances file, an annotation points to an image
            or a category that is not there, a picture is missing.
    """
    json_path = Path(json_path)
    content = _load(json_path)
    listed = content["images"]
    if picture is not None:
        listed = [image for image in listed if Path(image["file_name"]).name == picture.name]
    folder = Path(images_dir) if images_dir else _find_pictures(json_path, listed, picture is None)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    classes = [category["name"] for category in categories]
    for key, values in (("name", classes), ("id", [c["id"] for c in categories])):
        if twice := _first_repeated(values):
            raise EyelineError(f"{json_path}: two categories have the {key} {twice[0]!r}")
    label_of = {category["id"]: label for label, category in enumerate(categories)}

    objects: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for image in content["images"]:
        if image["id"] in objects:
            raise EyelineError(f"{json_path}: two images have the id {image['id']}")
        objects[image["id"]] = []
    for i, annotation in enumerate(content["annotations"]):
        where = f"{json_path}: annotations[{i}]"
        for key, known in (("image_id", objects), ("category_id", label_of)):
            if _id(annotation, key) not in known:
                raise EyelineError(f"{where}: there is no {key} {annotation.get(key)!r}")
        if not _is_box(annotation.get("bbox")):
            raise EyelineError(
                f"{where}: bbox should be [x, y, width, height], not {annotation.get('bbox')!r}"
            )
        objects[annotation["image_id"]].append((i, annotation))

    records = []
    for image in listed:
        path = folder / image["file_name"]
        if picture is None and not isfile(path):
            raise EyelineError(f"{path}: no such picture; {json_path} lists it")
        own = [annotation for _, annotation in objects[image["id"]]]
        boxes = np.array([a["bbox"] for a in own], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]  # corner and size -> two corners
        height, width = image.get("height"), image.get("width")
        if not (height and width):
            height, width = image_size(path if picture is None or isfile(path) else picture)
        elif not all(_is_number(side) and 0 < side < FARTHEST for side in (height, width)):
            raise EyelineError(
                f"{json_path}: the size of {image['file_name']} should be two numbers, "
                f"not {width!r} and {height!r}"
            )
        records.append(
            Record(
                path=path,
                width=int(width),
                height=int(height),
                boxes=boxes.astype(np.float32),
                labels=np.array([label_of[a["category_id"]] for a in own], np.int64),
                iscrowd=np.array([bool(a.get("iscrowd", 0)) for a in own], bool),
                segmentations=[a.get("segmentation") or [] for a in own],
                image_id=image["id"],
                where=[
                    f"{json_path}: annotations[{i}] (id {a.get('id')})"
                    for i, a in objects[image["id"]]
                ],
                areas=_areas(own, boxes),
            )
        )
    ids = [category["id"] for category in categories]
    return Annotations(classes, records, str(json_path), ids, _unread(content))


def _unread(content: dict[str, Any]) -> list[str]:
    """What only some people want of COCO."""
    keypoints = sum(bool(a.get("num_keypoints")) for a in content["annotations"])
    above = len({c["supercategory"] for c in content["categories"] if c.get("supercategory")})
    found = {"keypoints of {} objects": keypoints, "{} supercategories": above}
    return [text.format(number) for text, number in found.items() if number]


def _areas(annotations: list[dict[str, Any]], boxes: np.ndarray) -> np.ndarray:
    """By which COCO's metric tells small from large; the box's where none is annotated."""
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = [a.get("area") for a in annotations]
    known = [area if _is_number(area) else w * h for area, (w, h) in zip(areas, sides, strict=True)]
    return np.array(known, np.float32)


def splits(path: Path) -> list[str] | None:
    return list(_files(path)) or None


def _files(path: Path) -> dict[str, Path]:
    """The files by their splits: {"train2017": Path(".../instances_train2017.json"), ...}."""
    if path.is_file():
        return {_split(path): path} if _is_coco(path) else {}
    files: dict[str, Path] = {}
    for folder in (path / "annotations", path):
        for file in sorted(folder.glob("*.json")):
            if not file.name.startswith(OTHER_TASKS) and _is_coco(file):
                files.setdefault(_split(file), file)
    for file in sorted(path.glob("*/_annotations.coco.json")):
        files.setdefault(file.parent.name, file)
    return files


def _split(json_path: Path) -> str:
    return json_path.stem.removeprefix("instances_")


def _is_coco(path: Path) -> bool:
    """Other formats are JSON, too: one of COCO's lists stands near the beginning."""
    if path.suffix.lower() != ".json":
        return False
    with path.open("rb") as file:
        return (
            re.search(rb'"(images|annotations|categories|info|licenses)"', file.read(4096))
            is not None
        )


def read(
    path: Path, split: str, classes: Sequence[str] | None = None, picture: Path | None = None
) -> Annotations:
    return read_coco(_files(path)[split], picture=picture)


def write(
    splits: Mapping[str, Annotations], folder: Path, names: Mapping[Path, str], link: bool
) -> None:
    """annotations/instances_SPLIT.json, and the pictures in SPLIT/."""
    (folder / "annotations").mkdir()
    for split, data in splits.items():
        (folder / split).mkdir()
        ids = data.category_ids or list(range(1, len(data.classes) + 1))
        content: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "categories": [
                {"id": k, "name": name} for k, name in zip(ids, data.classes, strict=True)
            ],
            "annotations": [],
        }
        for record in data.records:
            name = names[record.path]
            place_picture(record.path, folder / split / name, link)
            size = {"width": record.width, "height": record.height}
            content["images"].append({"id": record.image_id, "file_name": name, **size})
            for i in range(len(record.boxes)):
                number = len(content["annotations"]) + 1
                category = {"category_id": ids[record.labels[i]]}
                content["annotations"].append(
                    {"id": number, "image_id": record.image_id, **category, **_object(record, i)}
                )
        target = folder / "annotations" / f"instances_{split}.json"
        target.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _object(record: Record, i: int) -> dict[str, Any]:
    """The fields of an annotation that tell where the object is."""
    x1, y1, x2, y2 = (decimal(value) for value in record.boxes[i])
    side = {
        "width": shortest(x2 - x1, lambda w: np.float32(x1 + w) == record.boxes[i, 2]),
        "height": shortest(y2 - y1, lambda h: np.float32(y1 + h) == record.boxes[i, 3]),
    }
    segmentation = record.segmentations[i] if record.segmentations else []
    if record.areas is not None:
        area = decimal(record.areas[i])
    elif segmentation:
        area = int(decode_masks([segmentation], record.height, record.width).sum())
    else:
        area = side["width"] * side["height"]
    return {
        "bbox": [x1, y1, side["width"], side["height"]],
        "area": area,
        "iscrowd": int(record.iscrowd[i]),
        "segmentation": segmentation,
    }


def _find_pictures(json_path: Path, images: list[dict[str, Any]], needed: bool) -> Path:
    """The folder that holds the pictures of an instances file, told by its first picture.

    Where none does, an error, or if none is needed the first that might."""
    name = json_path.stem.removeprefix("instances_")  # "train2017"
    names = dict.fromkeys([name, name.rstrip("0123456789_"), "images", "."])
    roots = dict.fromkeys([json_path.parent.parent, json_path.parent])
    folders = [root / sub / name for root in roots for sub in ("images", ".") for name in names]
    for folder in folders:
        if not images or isfile(folder / images[0]["file_name"]):
            return folder
    if not needed:
        return folders[0]
    looked = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    raise EyelineError(
        f"{json_path}: its picture {images[0]['file_name']} is not there; looked in {looked}"
    )


def _load(json_path: Path) -> dict[str, Any]:
    """The content, with its three lists and the keys that everything else hangs on."""
    try:
        content: dict[str, Any] = json.loads(json_path.read_bytes())
    except json.JSONDecodeError as error:
        raise EyelineError(
            f"{json_path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}"
        ) from None
    except UnicodeDecodeError as error:
        raise EyelineError(f"{json_path}: not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets
        raise EyelineError(f"{json_path}: not sensible JSON: {error}") from None
    for key, name in (("images", "file_name"), ("categories", "name"), ("annotations", None)):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise EyelineError(f"{json_path}: not a COCO instances file: it has no list {key!r}")
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise EyelineError(f"{json_path}: {key}[{i}] should be an object, not {entry!r}")
            if name and not (_id(entry, "id") is not None and isinstance(entry.get(name), str)):
                raise EyelineError(f"{json_path}: {key}[{i}] needs a whole number id and a {name}")
    return content


def _id(entry: dict[str, Any], key: str) -> int | None:
    value = entry.get(key)
    return value if type(value) is int and abs(value) < 2**63 else None


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _first_repeated(values: list[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value in values[:i]][:1]
