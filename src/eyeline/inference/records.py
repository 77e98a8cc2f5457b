"""What was found in any number of pictures and frames to files, written as it comes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

from eyeline.inference.map_result import MAP_HEADER, SegmentationResult
from eyeline.inference.result import CSV_HEADER, Result


def as_line(result: Result, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A picture or frame for JSON lines: source, frame and time (None but for videos), width,
    height, and detections: class, label, score, box (xyxy in pixels) and, where there are masks,
    their segmentation, that of the COCO `records` of the same detections; best first."""
    height, width = result.image.shape[1:]
    rows: list[dict[str, Any]] = [
        {
            "class": name,
            "label": label,
            "score": round(score, 6),
            "box": [round(v, 3) for v in box],
        }
        for name, label, score, box in zip(
            result.names,
            result.labels.tolist(),
            result.scores.tolist(),
            result.boxes.tolist(),
            strict=True,
        )
    ]
    if result.masks is not None:
        for row, record in zip(rows, records, strict=True):
            row["segmentation"] = record["segmentation"]
    return {
        "source": result.path,
        "frame": result.frame,
        "time": None if result.time is None else round(result.time, 6),
        "width": width,
        "height": height,
        "detections": rows,
    }


class Records:
    """detections.csv and detections.json (COCO's annotation form, with scores) in a folder; of
    segmenters segments.csv and segments.json, a row and an annotation for each class of a picture,
    with the file of its map.

    Nothing is kept in memory. As a context, both files are whole when it is left, for whatever
    reason.

    Args:
        lines: where JSON lines go too, one a picture or frame, each at once.
        masks: how masks are written: "rle" or "polygons".
        maps: the results are a segmenter's.
    """

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        lines: TextIO | None = None,
        masks: Literal["rle", "polygons"] = "rle",
        maps: bool = False,
    ) -> None:
        self.folder, self.lines, self.masks, self.maps = folder, lines, masks, maps
        name = "segments" if maps else "detections"
        self.pictures = self.frames = self.detections = 0
        # Names of files need not be text.
        self.table = (folder / f"{name}.csv").open(
            "w", encoding="utf-8", errors="backslashreplace", newline=""
        )
        self.rows = csv.writer(self.table)
        header = (*MAP_HEADER, "map") if maps else CSV_HEADER
        self.rows.writerow((*header, "frame", "time"))
        categories = [{"id": i, "name": name} for i, name in enumerate(classes)]
        self.coco = (folder / f"{name}.json").open("w", encoding="utf-8")
        self.coco.write(f'{{"categories": {json.dumps(categories)}, "annotations": [')
        # COCO's second list grows beside the first.
        self.images = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115

    def add(self, result: Result | SegmentationResult) -> None:
        image_id = self.pictures + self.frames + 1
        records = result.to_coco(image_id, segmentation=self.masks)
        if self.lines is not None:
            told = as_line(result, records) if isinstance(result, Result) else result.to_json()
            print(json.dumps(told), file=self.lines, flush=True)
        place = [result.frame, result.time] if result.frame is not None else ["", ""]
        if isinstance(result, SegmentationResult):
            place.insert(0, self._map_of(result))
        self.rows.writerows([*row, *place] for row in result.rows())
        height, width = result.image.shape[1:]
        image = {"id": image_id, "file_name": str(result.path), "width": width, "height": height}
        if isinstance(result, SegmentationResult):
            image["map"] = self._map_of(result) or None
        if result.frame is None:
            self.pictures += 1
        else:
            self.frames += 1
            image |= {"frame": result.frame, "time": result.time}
        self.images.write(_entry(image, image_id == 1))
        for record in records:
            self.detections += 1
            width, height = record["bbox"][2:]
            extra = {"id": self.detections, "area": width * height, "iscrowd": 0}
            self.coco.write(_entry(extra | record, self.detections == 1))

    def _map_of(self, result: SegmentationResult) -> str:
        """The file of a picture's map, seen from the folder; "" where none was written."""
        return "" if result.map_path is None else os.path.relpath(result.map_path, self.folder)

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        with self.table, self.coco, self.images:
            self.coco.write('\n], "images": [')
            self.images.seek(0)
            shutil.copyfileobj(self.images, self.coco)
            self.coco.write("\n]}\n")

    def remove(self) -> None:
        """Delete the files, once the context is left."""
        for file in (self.table, self.coco):
            Path(file.name).unlink()

    def __str__(self) -> str:
        seen = [(self.pictures, "pictures"), (self.frames, "frames")]
        counted = " and ".join(f"{count} {what}" for count, what in seen if count)
        what = "maps of" if self.maps else f"{self.detections} detections on"
        return f"{what} {counted or '0 pictures'}"


def _entry(value: dict[str, Any], first: bool) -> str:
    return ("" if first else ",") + "\n" + json.dumps(value)
