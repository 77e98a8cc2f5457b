"""What a Predictor gives back for one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.inference.draw import draw_boxes
from eyeline.inference.video import Video
from eyeline.ops.segmentations import encode_rle, mask_to_polygons, rle_area

CSV_HEADER = ("picture", "class", "label", "score", "x1", "y1", "x2", "y2")


@dataclass
class Result:
    """The detections of one picture, best first, with the picture."""

    image: Tensor  # (3, H, W) uint8, RGB, on the CPU
    boxes: Tensor  # (N, 4) float32 xyxy, pixels of `image`
    scores: Tensor  # (N,) float32 in [0, 1]
    labels: Tensor  # (N,) int64, indices into `classes`
    classes: list[str] = field(default_factory=list)
    path: str | None = None  # file, URL or camera the picture came from
    masks: Tensor | None = None  # (N, H, W) bool, where the model predicts some
    frame: int | None = None  # of a video, from 0
    time: float | None = None  # of a video: seconds from its first frame
    video: Video | None = field(default=None, repr=False)  # that it is a frame of

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self._name(label) for label in self.labels.tolist()]

    def _name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)

    def plot(self) -> Image.Image:
        """The picture with boxes, masks and tags; enlarged if it is small."""
        return draw_boxes(
            self.image, self.boxes, self.labels, self.scores, self.classes, self.masks
        )

    def save(self, path: str | Path) -> None:
        """Write `plot()` to a file; its ending chooses the format."""
        self.plot().save(path)

    def to_coco(
        self,
        image_id: int,
        category_ids: Sequence[int] | None = None,
        segmentation: str = "rle",
    ) -> list[dict[str, Any]]:
        """COCO result records: image_id, category_id, bbox (x, y, width, height) and score; with
        masks also segmentation, and area in pixels.

        Args:
            image_id: the picture's id in the annotation file.
            category_ids: the file's id of each class; without it the class index 0 .. K-1.
            segmentation: masks as "rle" (compressed run lengths) or "polygons", both exact.
        """
        if segmentation not in ("rle", "polygons"):
            raise EyelineError(f'segmentation is "rle" or "polygons", not {segmentation!r}')
        records = []
        for (x1, y1, x2, y2), score, label in zip(
            self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
        ):
            category = label if category_ids is None else category_ids[label]
            box = [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)]
            records.append(
                {
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": box,
                    "score": round(score, 6),
                }
            )
        if self.masks is not None:
            encoded = encode_rle(self.masks)
            for record, mask, rle in zip(records, self.masks, encoded, strict=True):
                record["segmentation"] = rle if segmentation == "rle" else mask_to_polygons(mask)
                record["area"] = rle_area(rle)
        return records

    def rows(self) -> list[tuple[str, str, int, float, float, float, float, float]]:
        """One row a detection, in the columns of `CSV_HEADER`."""
        return [
            (
                self.path or "",
                self._name(label),
                label,
                round(score, 6),
                round(x1, 3),
                round(y1, 3),
                round(x2, 3),
                round(y2, 3),
            )
            for (x1, y1, x2, y2), score, label in zip(
                self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
            )
        ]

    def to_supervision(self) -> Any:
        """The same as a `supervision.Detections`, the class names among its data."""
        try:
            import supervision  # type: ignore[import-not-found]
        except ImportError:
            raise EyelineError(
                "to_supervision needs the package supervision; install it: pip install supervision"
            ) from None
        return supervision.Detections(
            xyxy=self.boxes.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            mask=None if self.masks is None else self.masks.numpy(),
            data={"class_name": self.names},
        )

    def to_torchmetrics(self) -> dict[str, Tensor]:
        """A prediction as torchmetrics' MeanAveragePrecision takes it: boxes, scores, labels, and
        masks where there are some."""
        found = {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}
        return found if self.masks is None else found | {"masks": self.masks}

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` of one row a detection, in the columns of `CSV_HEADER`."""
        try:
            import pandas  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError:
            raise EyelineError(
                "to_pandas needs the package pandas; install it: pip install pandas"
            ) from None
        return pandas.DataFrame(self.rows(), columns=list(CSV_HEADER))
