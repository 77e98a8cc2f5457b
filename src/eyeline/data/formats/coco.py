"""COCO's instances files: Lin et al., "Microsoft COCO", ECCV 2014; cocodataset.org/#format-data."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from math import isfinite
from os.path import isfile  # False for names that no file can have, where Path raises
from pathlib import Path
from typing import Any

import numpy as np

from eyeline.data.faults import STRICT, Fault, Faults
from eyeline.data.formats.annotations import (
    Annotations,
    Object,
    Record,
    picture_size,
    read_json,
    record_of,
)
from eyeline.data.formats.fields import json_keys
from eyeline.data.formats.fitting import SEPARATE
from eyeline.data.formats.numbers import decimal, shortest
from eyeline.data.formats.pictures import place_picture
from eyeline.ops.segmentations import check_segmentation, decode_masks

NAME = "coco"
TITLE = "COCO"
LAYOUT = "annotations/instances_*.json, *.json or */_annotations.coco.json"
FILES: tuple[str, ...] = ("*.json", "annotations/*.json", "*/_annotations.coco.json")
HOLDS = frozenset(
    (
        "boxes",
        "polygons",
        "digits",
        "parts",
        "thin",
        "masks",
        "counts",
        "crowd",
        "areas",
        "keypoints",
        "sizes",
        "empty",
        "ids",
        "blanks",
        "folders",
        *SEPARATE,
    )
)
KEYS = {"images", "annotations", "categories", "info", "licenses"}
FARTHEST = 1e6  # no picture is wider or higher
FIRST = 20  # pictures by which their folder is told
Content = dict[str, dict[int, dict[str, Any]]]  # the entries of each list, by their index
OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")


def read_coco(
    json_path: str | Path,
    images_dir: str | Path | None = None,
    picture: Path | None = None,
    faults: Faults = STRICT,
) -> Annotations:
    """Read an instances file; categories become labels 0 .. K-1 in ascending order of their ids.

    Args:
        json_path: "annotations/instances_val2017.json", say.
        images_dir: the pictures' folder; by default looked for near the file, under its name:
            "val2017", "images/val2017", "val", "images", the file's own folder ...
        picture: read what is listed under this picture's file name alone; no listed picture
            needs to be there, since this one can stand in for it.

    Raises:
        Fault: the file is no JSON or no instances file, an annotation points to an image or a
            category that is not there, a picture is missing.
    """
    json_path = Path(json_path)
    content = _load(json_path, faults)
    images: dict[int, dict[str, Any]] = {}
    for i, image in content["images"].items():
        with faults:
            if image["id"] in images:
                where = f"{json_path}: images[{i}]"
                raise Fault("reference", where, f"two images have the id {image['id']}")
            images[image["id"]] = image
    categories = sorted(content["categories"].values(), key=lambda category: category["id"])
    classes = [category["name"] for category in categories]
    for key, values in (("name", classes), ("id", [c["id"] for c in categories])):
        if twice := _first_repeated(values):
            what = f"two categories have the {key} {twice[0]!r}"
            raise Fault("class", json_path, what)
    label_of = {category["id"]: label for label, category in enumerate(categories)}

    objects: dict[int, list[Object]] = {image_id: [] for image_id in images}
    points = _keypoint_names(categories)
    for i, annotation in content["annotations"].items():
        with faults:
            where = f"{json_path}: annotations[{i}]"
            found = _object(annotation, where, objects, label_of, len(points))
            objects[annotation["image_id"]].append(found)

    listed = list(images.values())
    if picture is not None:
        listed = [image for image in listed if Path(image["file_name"]).name == picture.name]
    folder = Path(images_dir) if images_dir else _find_pictures(json_path, listed, picture is None)
    records = []
    for image in listed:
        with faults:
            path = folder / image["file_name"]
            if picture is None and not isfile(path):
                raise Fault("picture", path, f"no such picture; {json_path} lists it")
            seen = path if picture is None or isfile(path) else picture
            size = _size(image, json_path) or picture_size(seen)
            own = _with_sound_masks(objects[image["id"]], size, faults)
            records.append(record_of(path, size, own, image["id"], True, True, len(points)))
    ids = [category["id"] for category in categories]
    unread = _unread(content, bool(points))
    return Annotations(classes, records, str(json_path), ids, unread, points or None)


def _object(
    annotation: dict[str, Any],
    where: str,
    images: Container[int],
    label_of: dict[int, int],
    points: int,
) -> Object:
    for key, known in (("image_id", images), ("category_id", label_of)):
        if _id(annotation, key) not in known:
            raise Fault("reference", where, f"there is no {key} {annotation.get(key)!r}")
    box = annotation.get("bbox")
    if not _is_box(box):
        raise Fault("field", where, f"bbox should be [x, y, width, height], not {box!r}")
    x, y, width, height = map(float, box)
    area = annotation.get("area")
    return Object(
        where=f"{where} (id {annotation.get('id')})",
        label=label_of[annotation["category_id"]],
        box=(x, y, x + width, y + height),
        iscrowd=bool(annotation.get("iscrowd", 0)),
        segmentation=annotation.get("segmentation") or [],
        area=area if _is_number(area) else None,  # by which COCO's metric tells small from large
        keypoints=_keypoints(annotation, where, points),
    )


def _with_sound_masks(objects: list[Object], size: tuple[int, int], faults: Faults) -> list[Object]:
    """The objects whose segmentation can be read, on a picture of size (height, width)."""
    sound = []
    for found in objects:
        with faults:
            try:
                check_segmentation(found.segmentation, *size)
            except ValueError as error:
                what = f"its segmentation: {error}; mend it, or leave it out"
                raise Fault("field", found.where, what) from None
            sound.append(found)
    return sound


def _keypoint_names(categories: list[dict[str, Any]]) -> list[str]:
    """The names that all categories with keypoints give theirs; none where they differ."""
    lists = [c["keypoints"] for c in categories if c.get("keypoints")]
    if not lists or any(names != lists[0] for names in lists):
        return []
    [names, *_] = lists
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if texts and len(set(names)) == len(names) else []


def _keypoints(
    annotation: dict[str, Any], where: str, count: int
) -> list[tuple[float, float, int]] | None:
    """x, y and visibility of each. COCO's are places of pixels, ours count from the edge of the
    first: half a pixel more."""
    values = annotation.get("keypoints")
    if not (values and count):
        return None
    numbers = isinstance(values, list) and all(_is_number(v) and isfinite(v) for v in values)
    if not numbers or len(values) != 3 * count or not {*values[2::3]} <= {0, 1, 2}:
        raise Fault("field", where, f"keypoints should be x, y and 0, 1 or 2 for each of {count}")
    triples = zip(values[::3], values[1::3], values[2::3], strict=True)
    return [(x + 0.5, y + 0.5, int(v)) if v else (0.0, 0.0, 0) for x, y, v in triples]


def _size(image: dict[str, Any], json_path: Path) -> tuple[int, int] | None:
    """(height, width) as annotated, if it is."""
    height, width = image.get("height"), image.get("width")
    if not (height and width):
        return None
    if not all(_is_number(side) and 0 < side < FARTHEST for side in (height, width)):
        what = (
            f"the size of {image['file_name']} should be two numbers, not {width!r} and {height!r}"
        )
        raise Fault("field", json_path, what)
    return int(height), int(width)


def _unread(content: Content, points: bool) -> list[str]:
    """What only some people want of COCO."""
    with_points = sum(bool(a.get("num_keypoints")) for a in content["annotations"].values())
    keypoints = 0 if points else with_points
    skeletons = sum(bool(c.get("skeleton")) for c in content["categories"].values())
    above = {c.get("supercategory") for c in content["categories"].values()} - {None, ""}
    found = {
        "keypoints of {} objects, whose categories do not name the same ones": keypoints,
        "skeletons of {} categories": skeletons,
        "{} supercategories": len(above),
    }
    return [text.format(number) for text, number in found.items() if number]


def splits(path: Path) -> list[str] | None:
    return list(_files(path)) or None


def _files(path: Path) -> dict[str, Path]:
    """The files by their splits: {"train2017": Path(".../instances_train2017.json"), ...}."""
    if path.is_file():
        return {_split(path): path} if _is_coco(path) else {}
    files: dict[str, Path] = {}
    for folder in (path / "annotations", path):
        for file in sorted(folder.glob("*.json")):
            named = folder != path and file.name.startswith("instances_")  # whatever is in it
            if named or (not file.name.startswith(OTHER_TASKS) and _is_coco(file)):
                files.setdefault(_split(file), file)
    for file in sorted(path.glob("*/_annotations.coco.json")):
        files.setdefault(file.parent.name, file)
    return files


def _split(json_path: Path) -> str:
    return json_path.stem.removeprefix("instances_").removeprefix("person_keypoints_")


def _is_coco(path: Path) -> bool:
    """Other formats are JSON, too: one of COCO's lists stands near the beginning."""
    return path.suffix.lower() == ".json" and bool(json_keys(path) & KEYS)


def read(
    path: Path,
    split: str,
    classes: Sequence[str] | None = None,
    faults: Faults = STRICT,
    picture: Path | None = None,
) -> Annotations:
    return read_coco(_files(path)[split], picture=picture, faults=faults)


def write(
    splits: Mapping[str, Annotations], folder: Path, names: Mapping[Path, str], link: bool
) -> None:
    """annotations/instances_SPLIT.json, and the pictures in SPLIT/."""
    (folder / "annotations").mkdir()
    for split, data in splits.items():
        (folder / split).mkdir()
        ids = data.category_ids or list(range(1, len(data.classes) + 1))
        points = {"keypoints": data.keypoint_names} if data.keypoint_names else {}
        content: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "categories": [
                {"id": k, "name": name, **points} for k, name in zip(ids, data.classes, strict=True)
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
                    {"id": number, "image_id": record.image_id, **category, **_place(record, i)}
                )
        target = folder / "annotations" / f"instances_{split}.json"
        target.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _place(record: Record, i: int) -> dict[str, Any]:
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
        **_written_keypoints(record, i),
    }


def _written_keypoints(record: Record, i: int) -> dict[str, Any]:
    if record.keypoints is None or not record.keypoints[i].any():
        return {}
    values: list[float] = []
    for x, y, visible in record.keypoints[i]:
        places = [0.0, 0.0]
        if visible:
            places = [_half_less(x), _half_less(y)]
        values += [*places, int(visible)]
    return {"keypoints": values, "num_keypoints": int((record.keypoints[i, :, 2] > 0).sum())}


def _half_less(place: np.float32) -> float:
    """What half a pixel more makes just this place."""
    return shortest(float(place) - 0.5, lambda value: np.float32(value + 0.5) == place)


def _find_pictures(json_path: Path, images: list[dict[str, Any]], needed: bool) -> Path:
    """The folder that holds most of the first pictures of an instances file.

    Where none does, an error, or if none is needed the first that might."""
    name = _split(json_path)  # "train2017"
    names = dict.fromkeys([name, name.rstrip("0123456789_"), "images", "."])
    roots = dict.fromkeys([json_path.parent.parent, json_path.parent])
    folders = [root / sub / name for root in roots for sub in ("images", ".") for name in names]
    first = [image["file_name"] for image in images[:FIRST]]
    counts = [sum(isfile(folder / name) for name in first) for folder in folders]
    if any(counts) or not needed or not images:
        return folders[int(np.argmax(counts))]
    looked = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    what = f"its picture {images[0]['file_name']} is not there; looked in {looked}"
    raise Fault("picture", json_path, what)


def _load(json_path: Path, faults: Faults) -> Content:
    """The three lists, of entries with the keys that everything else hangs on."""
    content = read_json(json_path)
    lists: Content = {}
    for key, name in (("images", "file_name"), ("categories", "name"), ("annotations", None)):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise Fault("file", json_path, f"not a COCO instances file: it has no list {key!r}")
        lists[key] = {}
        for i, entry in enumerate(entries):
            with faults:
                where = f"{json_path}: {key}[{i}]"
                if not isinstance(entry, dict):
                    raise Fault("field", where, f"should be an object, not {entry!r}")
                if name and not (_id(entry, "id") is not None and isinstance(entry.get(name), str)):
                    raise Fault("field", where, f"needs a whole number id and a {name}")
                lists[key][i] = entry
    return lists


def _id(entry: dict[str, Any], key: str) -> int | None:
    value = entry.get(key)
    return value if type(value) is int and abs(value) < 2**63 else None


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _first_repeated(values: list[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value in values[:i]][:1]
