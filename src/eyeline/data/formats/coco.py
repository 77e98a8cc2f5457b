"""COCO's instances files: Lin et al., "Microsoft COCO", ECCV 2014; cocodataset.org/#format-data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from eyeline.data.formats.annotations import Annotations, Record
from eyeline.data.images import image_size
from eyeline.errors import EyelineError

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
        if picture is None and not path.is_file():
            raise EyelineError(f"{path}: no such picture; {json_path} lists it")
        own = [annotation for _, annotation in objects[image["id"]]]
        boxes = np.array([a["bbox"] for a in own], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]  # corner and size -> two corners
        height, width = image.get("height"), image.get("width")
        if not (height and width):
            height, width = image_size(path if picture is None or path.is_file() else picture)
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
    return Annotations(classes, records, str(json_path), [c["id"] for c in categories])


def _areas(annotations: list[dict[str, Any]], boxes: np.ndarray) -> np.ndarray:
    """By which COCO's metric tells small from large; the box's where none is annotated."""
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = [a.get("area") for a in annotations]
    known = [
        area if type(area) in (int, float) else w * h
        for area, (w, h) in zip(areas, sides, strict=True)
    ]
    return np.array(known, np.float32)


def coco_splits(root: Path) -> dict[str, Path]:
    """The splits of a COCO folder: {"train2017": Path(".../instances_train2017.json"), ...}."""
    splits: dict[str, Path] = {}
    for folder in (root / "annotations", root):
        for path in sorted(folder.glob("*.json")):
            if not path.name.startswith(OTHER_TASKS):
                splits.setdefault(path.stem.removeprefix("instances_"), path)
    for path in sorted(root.glob("*/_annotations.coco.json")):
        splits.setdefault(path.parent.name, path)
    return splits


def find_coco(root: Path, split: str, splits: dict[str, Path]) -> Path:
    """The file of a split; the year may be left out where there is only one ("val")."""
    if split in splits:
        return splits[split]
    dated = [name for name in splits if re.fullmatch(re.escape(split) + r"_?\d{4}", name)]
    if len(dated) == 1:
        return splits[dated[0]]
    found = f"which of {', '.join(dated)}?" if dated else f"there are: {', '.join(splits)}"
    raise EyelineError(f"{root}: no split {split!r}; {found}")


def _find_pictures(json_path: Path, images: list[dict[str, Any]], needed: bool) -> Path:
    """The folder that holds the pictures of an instances file, told by its first picture.

    Where none does, an error, or if none is needed the first that might."""
    name = json_path.stem.removeprefix("instances_")  # "train2017"
    names = dict.fromkeys([name, name.rstrip("0123456789_"), "images", "."])
    roots = dict.fromkeys([json_path.parent.parent, json_path.parent])
    folders = [root / sub / name for root in roots for sub in ("images", ".") for name in names]
    for folder in folders:
        if not images or (folder / images[0]["file_name"]).is_file():
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
        content = json.loads(json_path.read_bytes())
    except json.JSONDecodeError as error:
        raise EyelineError(
            f"{json_path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}"
        ) from None
    except UnicodeDecodeError as error:
        raise EyelineError(f"{json_path}: not UTF-8 at byte {error.start}") from None
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
    return value if type(value) is int else None


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 4 and all(type(v) in (int, float) for v in value)
    )


def _first_repeated(values: list[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value in values[:i]][:1]
