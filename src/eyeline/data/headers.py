"""What a picture's header alone tells about its annotation: 0.05 ms a picture, for nothing is
decoded."""

from __future__ import annotations

from eyeline.data.formats.annotations import Record
from eyeline.data.images import image_size, is_rotated, size_fault
from eyeline.errors import EyelineError


def check_header(record: Record) -> None:
    """Can the picture be meant by its annotation, and be read?

    Raises:
        EyelineError: it is missing or no picture, has more pixels than are read, or its annotations
            were made without its EXIF rotation. (Of a square picture nobody can tell.) Damage
            behind the header is not seen.
    """
    height, width = image_size(record.path)
    if fault := size_fault(height, width) or rotation_fault(record, height, width):
        raise EyelineError(f"{record.path}: {fault}")


def rotation_fault(record: Record, height: int, width: int) -> str | None:
    """In words, that a picture which is `height` x `width` when it is turned upright was annotated
    as it lies; None where it was not."""
    lying = (height, width) == (record.width, record.height) and height != width
    if not (lying and is_rotated(record.path)):
        return None
    return (
        "its annotations were made without its EXIF rotation "
        f"({record.width}x{record.height}, upright it is {width}x{height}); "
        "turn the file upright, or annotate it so"
    )
