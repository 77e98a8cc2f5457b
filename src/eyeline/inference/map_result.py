"""What a Predictor with a segmenter gives back for one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.inference.draw_map import draw_map, indexed
from eyeline.inference.video import Video
from eyeline.ops.labels import IGNORE
from eyeline.ops.segmentations import encode_rle, mask_to_polygons

MAP_HEADER = ("picture", "class", "label", "pixels", "share")


@dataclass
class SegmentationResult:
    """The class of every pixel of a picture, with the picture."""

    image: Tensor  # (3, H, W) uint8, RGB, on the CPU
    map: Tensor  # (H, W) uint8, indices into `classes`; int64 where there are more than 255
    classes: list[str] = field(default_factory=list)
    path: str | None = None  # file, URL or camera the picture came from
    # (K, H, W) float32, where they were asked for: `Predictor(model, logits=True)`
    logits: Tensor | None = field(default=None, repr=False)
    frame: int | None = None  # of a video, from 0
    time: float | None = None  # of a video: seconds from its first frame
    video: Video | None = field(default=None, repr=False)  # that it is a frame of
    map_path: str | None = None  # the file that `save_map` wrote last

    @property
    def probabilities(self) -> Tensor:
        """(K, H, W) float32 in [0, 1], of each class at each pixel. Raises EyelineError where the
        predictor was not asked for logits."""
        if self.logits is None:
            raise EyelineError("no logits were kept; ask for them: Predictor(..., logits=True)")
        return self.logits.softmax(0)

    def counts(self) -> dict[str, int]:
        """Pixels of each class, those without any among them."""
        found = torch.bincount(self.map.flatten().long(), minlength=len(self.classes))
        return dict(zip(self.classes, found[: len(self.classes)].tolist(), strict=True))

    def mask(self, label: int | str) -> Tensor:
        """(H, W) bool: the pixels of one class, by its index or its name."""
        if isinstance(label, str):
            if label not in self.classes:
                raise EyelineError(f"no class {label!r}; there are: {', '.join(self.classes)}")
            label = self.classes.index(label)
        return self.map == label

    def plot(self, legend: bool = True) -> Image.Image:
        """The picture in the tints of its classes, and what these are; enlarged if it is small."""
        return draw_map(self.image, self.map, self.classes, legend)

    def save(self, path: str | Path) -> None:
        """Write `plot()` to a file; its ending chooses the format."""
        self.plot().save(path)

    def to_indexed(self) -> Image.Image:
        """The map as a picture whose values are the classes, with a colour for each."""
        return indexed(self.map, self.classes)

    def save_map(self, path: str | Path) -> None:
        """Write `to_indexed()` to a PNG."""
        self.to_indexed().save(path, format="PNG", optimize=True)
        self.map_path = str(path)

    def to_coco(
        self,
        image_id: int,
        category_ids: Sequence[int] | None = None,
        segmentation: str = "rle",
    ) -> list[dict[str, Any]]:
        """COCO's records of stuff, one for each class that the picture has: image_id,
        category_id, segmentation, area in pixels and bbox (x, y, width, height).

        Args:
            image_id: the picture's id in the annotation file.
            category_ids: the file's id of each class; without it the class index 0 .. K-1.
            segmentation: "rle" (compressed run lengths) or "polygons", both exact.
        """
        if segmentation not in ("rle", "polygons"):
            raise EyelineError(f'segmentation is "rle" or "polygons", not {segmentation!r}')
        records = []
        for label in self.map.unique().tolist():
            if label == IGNORE and len(self.classes) <= IGNORE:
                continue
            mask = self.map == label
            rows, columns = (mask.any(axis).nonzero()[:, 0] for axis in (1, 0))
            x, y = int(columns[0]), int(rows[0])
            records.append({
                "image_id": image_id,
                "category_id": label if category_ids is None else category_ids[label],
                "segmentation": (
                    encode_rle(mask[None])[0] if segmentation == "rle" else mask_to_polygons(mask)
                ),
                "area": int(mask.sum()),
                "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
            })  # fmt: skip
        return records

    def rows(self) -> list[tuple[str, str, int, int, float]]:
        """One row for each class that the picture has, in the columns of `MAP_HEADER`."""
        found, total = self.counts(), self.map.numel()
        return [
            (self.path or "", name, label, pixels, round(pixels / total, 6))
            for label, (name, pixels) in enumerate(found.items())
            if pixels
        ]

    def to_json(self) -> dict[str, Any]:
        """What can be counted, ready for JSON: source, frame and time (None but for videos),
        width, height, and classes: class, label, pixels and share of the picture."""
        height, width = self.map.shape
        return {
            "source": self.path,
            "frame": self.frame,
            "time": None if self.time is None else round(self.time, 6),
            "width": width,
            "height": height,
            "classes": [
                {"class": name, "label": label, "pixels": pixels, "share": share}
                for _, name, label, pixels, share in self.rows()
            ],
        }
