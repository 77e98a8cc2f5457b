"""The results of very many pictures as Parquet: a row a picture, some hundreds a file.

Column    Type                    Value
path      string                  the picture, as it was named; in a Parquet file FILE:ROW
width     int32                   pixels
height    int32
boxes     list<list<double>>      x1, y1, x2, y2 in pixels of the picture, best first
scores    list<double>            in [0, 1]
labels    list<int32>             from 0
classes   list<string>            the labels' names
masks     list<struct>            COCO's compressed run lengths {size, counts}; null where the
                                  model has none
error     string                  why the picture could not be read; all others are null then

Numbers are rounded as in `eyeline predict --json-lines`, with which they agree to the last digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eyeline.errors import EyelineError
from eyeline.files import write_whole
from eyeline.inference.records import as_line
from eyeline.inference.result import Result

ROW = ("width", "height", "boxes", "scores", "labels", "classes", "masks", "error")


@dataclass(frozen=True)
class Counts:
    """What a part holds; it stands in the header of its file."""

    pictures: int = 0
    detections: int = 0
    unread: int = 0  # of the pictures

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.pictures + other.pictures,
            self.detections + other.detections,
            self.unread + other.unread,
        )

    def __str__(self) -> str:
        return f"{self.detections} detections on {self.pictures - self.unread} pictures"


def import_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise EyelineError(
            f"--engine ray needs Ray and PyArrow ({error}); install them: "
            "pip install 'eyeline[ray]'"
        ) from None
    return pyarrow.parquet


def row_of(name: str, result: Result) -> dict[str, Any]:
    """The row of a picture."""
    line = as_line(result, result.to_coco(0))
    found = line["detections"]
    return {
        "path": _text(name),
        "width": line["width"],
        "height": line["height"],
        "boxes": [one["box"] for one in found],
        "scores": [one["score"] for one in found],
        "labels": [one["label"] for one in found],
        "classes": [one["class"] for one in found],
        "masks": None if result.masks is None else [one["segmentation"] for one in found],
        "error": None,
    }


def row_of_unread(name: str, error: EyelineError) -> dict[str, Any]:
    return dict.fromkeys(ROW) | {"path": _text(name), "error": _text(str(error))}


def _text(name: str) -> str:
    """Names of files need not be text."""
    return name.encode(errors="backslashreplace").decode()


def write_part(path: Path, rows: Sequence[dict[str, Any]]) -> Counts:
    """Write the rows, whole or not at all."""
    import pyarrow as pa

    mask = pa.struct({"size": pa.list_(pa.int32()), "counts": pa.string()})
    schema = pa.schema(
        {
            "path": pa.string(),
            "width": pa.int32(),
            "height": pa.int32(),
            "boxes": pa.list_(pa.list_(pa.float64())),
            "scores": pa.list_(pa.float64()),
            "labels": pa.list_(pa.int32()),
            "classes": pa.list_(pa.string()),
            "masks": pa.list_(mask),
            "error": pa.string(),
        }
    )
    unread = sum(row["error"] is not None for row in rows)
    counts = Counts(len(rows), sum(len(row["scores"] or ()) for row in rows), unread)
    header = {f"eyeline.{key}": str(value) for key, value in asdict(counts).items()}
    table = pa.Table.from_pylist(list(rows), schema.with_metadata(header))
    parquet = import_parquet()
    write_whole(path, lambda part: parquet.write_table(table, part, compression="zstd"))
    return counts


def read_counts(path: Path) -> Counts:
    """What the header of a part's file says."""
    header = import_parquet().read_metadata(path).metadata
    return Counts(*(int(header[f"eyeline.{key}".encode()]) for key in asdict(Counts())))


def read_errors(path: Path, most: int) -> list[str]:
    """Why pictures of a part could not be read, at most so many."""
    errors = import_parquet().read_table(path, columns=["error"])["error"]
    return errors.drop_null()[:most].to_pylist()
