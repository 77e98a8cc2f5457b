"""A small data set without a fault, in COCO's and VOC's form, into which faults are planted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 96, 64
CLASSES = ["Platelets", "RBC"]
PICTURES = {"train": 6, "val": 3}
OBJECTS = 4  # of each picture


def picture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Clouds that are like no other seed's."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def boxes(seed: int) -> list[list[float]]:
    """xyxy, whole numbers, none at a border, no two the same."""
    rng = np.random.default_rng(seed)
    left, top = rng.integers(2, 40, OBJECTS) + np.arange(OBJECTS) * 4, rng.integers(2, 30, OBJECTS)
    width, height = rng.integers(5, 36, OBJECTS), rng.integers(5, 30, OBJECTS)
    corners = np.stack([left, top, left + width, top + height], 1)
    return [[float(value) for value in box] for box in corners]


class Coco:
    """`content` of each split is written by `save`, an entry a line or all in one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content: dict[str, dict[str, list[dict[str, Any]]]] = {}
        seed = number = 0
        for split, count in PICTURES.items():
            (folder / split).mkdir(parents=True)
            images, annotations = [], []
            for i in range(count):
                seed += 1
                name = f"{split}{i}.jpg"
                picture(seed).save(folder / split / name, quality=95)
                size = {"width": WIDTH, "height": HEIGHT}
                images.append({"id": i + 1, "file_name": name, **size})
                for k, (x1, y1, x2, y2) in enumerate(boxes(seed)):
                    number += 1
                    box = [x1, y1, x2 - x1, y2 - y1]
                    entry = {"id": number, "image_id": i + 1, "category_id": 1 + k % len(CLASSES)}
                    annotations.append({**entry, "bbox": box})
            categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES, 1)]
            self.content[split] = {
                "images": images, "categories": categories, "annotations": annotations,
            }  # fmt: skip

    def annotation(self, split: str, index: int) -> dict[str, Any]:
        return self.content[split]["annotations"][index]

    def file(self, split: str) -> Path:
        return self.folder / "annotations" / f"instances_{split}.json"

    def picture(self, split: str, index: int) -> Path:
        return self.folder / split / f"{split}{index}.jpg"

    def place(self, split: str, index: int) -> str:
        """`where` of an object."""
        number = self.annotation(split, index)["id"]
        return f"{self.file(split)}: annotations[{index}] (id {number})"

    def save(self, lines: bool = True) -> Path:
        (self.folder / "annotations").mkdir(exist_ok=True)
        for split, content in self.content.items():
            text = json.dumps(content, indent=1 if lines else None)
            self.file(split).write_text(text)
        return self.folder


class Voc:
    """`objects` of each picture, (class, box), are written by `save`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects: dict[str, list[tuple[str, list[float]]]] = {}
        self.splits: dict[str, list[str]] = {}
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / name).mkdir(parents=True)
        seed = 0
        for split, count in PICTURES.items():
            self.splits[split] = [f"{split}{i}" for i in range(count)]
            for stem in self.splits[split]:
                seed += 1
                picture(seed).save(self.picture(stem), quality=95)
                self.objects[stem] = [(CLASSES[k % 2], box) for k, box in enumerate(boxes(seed))]

    def picture(self, stem: str) -> Path:
        return self.folder / "JPEGImages" / f"{stem}.jpg"

    def file(self, stem: str) -> Path:
        return self.folder / "Annotations" / f"{stem}.xml"

    def save(self, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
        for split, stems in self.splits.items():
            listed = "".join(f"{stem}\n" for stem in stems)
            (self.folder / "ImageSets" / "Main" / f"{split}.txt").write_text(listed)
        for stem, objects in self.objects.items():
            lines = [f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"]
            for name, box in objects:
                corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
                told = "".join(f"<{key}>{value:g}</{key}>" for key, value in corners)
                lines.append(f"<object><name>{name}</name><bndbox>{told}</bndbox></object>")
            text = "\n".join(["<annotation>", *lines, "</annotation>"])
            self.file(stem).write_text(text)
        return self.folder
