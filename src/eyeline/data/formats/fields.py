"""Fields of annotation files, looked at before they are used; and what a file begins with."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eyeline.data.faults import Fault

FLAGS = ("difficult", "truncated", "occluded")  # attributes that most formats can hold: no or yes
YES = ("1", "true", "yes")
FARTHEST = 1e6  # no picture is wider or higher, and nothing in it lies farther away
MOST_PIXELS = 2**30  # of a picture with masks
BEGINNING = 4096  # bytes
# A string, closed or cut off, and whether it is a key; or a bracket.
JSON_TOKEN = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)(?:"(\s*:)?|\\?\Z)|[][{}]', re.DOTALL)


def beginning(path: Path) -> bytes:
    """The first bytes of a file; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(BEGINNING)
    except OSError:
        return b""


def json_keys(path: Path, depth: int = 1) -> set[str]:
    """The keys at the beginning of a JSON file that stand within so many brackets: by them its
    format is told, however it is laid out and whatever long strings it has."""
    keys, level = set(), 0
    for token in JSON_TOKEN.finditer(beginning(path)):
        if token[0] in b"[{":
            level += 1
        elif token[0] in b"]}":
            level -= 1
        elif token[2] and level == depth:
            keys.add(token[1].decode(errors="replace"))
    return keys


def numbers_of(values: Sequence[Any], where: str, what: str) -> list[float]:
    """The values as numbers, which may be written as text. Raises Fault where one is none."""
    try:
        found = [float(value) for value in values if type(value) in (int, float, str)]
    except (ValueError, OverflowError):
        found = []
    if len(found) < len(values) or not all(math.isfinite(v) and abs(v) <= FARTHEST for v in found):
        raise Fault("field", where, f"{what} should be numbers, not {short(values)}")
    return found


def size_of(height: Any, width: Any, where: str) -> tuple[int, int] | None:
    """(height, width) as annotated, None where it is not. Raises Fault where it makes no sense."""
    if height in (None, "", 0) or width in (None, "", 0):
        return None
    sides = numbers_of([height, width], where, "the height and width")
    if not all(1 <= side == int(side) for side in sides) or math.prod(sides) > MOST_PIXELS:
        raise Fault("field", where, f"a picture cannot be of {short([height, width])} pixels")
    return int(sides[0]), int(sides[1])


def dict_of(value: Any, where: str, what: str) -> dict[str, Any]:
    """Raises Fault where the value is no dict."""
    if not isinstance(value, dict):
        raise Fault("field", where, f"{what} should be an object in braces, not {short(value)}")
    return value


def short(value: Any) -> str:
    """The value in a message: one line that is not too long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
