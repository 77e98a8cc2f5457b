"""What a picture's header tells about its annotation."""

from __future__ import annotations

from eyeline.data.formats.annotations import Record
from eyeline.data.images import is_rotated


def rotation_fault(record: Record, height: int, width: int) -> str | None:
    """In words, that a picture which is `height` x `width` when it is turned upright was annotated
    as it lies; None where it was not, and of squares, of which nobody can tell."""
    lying = (height, width) == (record.width, record.height) and height != width
    if not (lying and is_rotated(record.path)):
        return None
    return (
        "its annotations were made without its EXIF rotation "
        f"({record.width}x{record.height}, upright it is {width}x{height}); "
        "turn the file upright, or annotate it so"
    )
