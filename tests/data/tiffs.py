"""TIFFs for tests, written by their specification: any samples, any number of channels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

FORMATS = {"u": 1, "i": 2, "f": 3}

# Which way a stored picture is turned to be seen, of TIFF 6.0, sec. 8.
SEEN: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda x: x, np.fliplr, lambda x: np.rot90(x, 2), np.flipud, lambda x: x.swapaxes(0, 1),
    lambda x: np.rot90(x, -1), lambda x: np.rot90(x.swapaxes(0, 1), 2), np.rot90,
]  # fmt: skip


def write_tiff(
    path: Path,
    array: np.ndarray,
    photometric: int = 1,
    extra: tuple[int, ...] = (),
    planar: bool = False,
    order: str = "<",
    deflate: bool = False,
    predictor: int = 1,
    orientation: int = 1,
    rows: int | None = None,
) -> Path:
    """(H, W, C) as strips of `rows` rows, pixel by pixel or (`planar`) channel by channel."""
    height, width, channels = array.shape
    rows = rows or height
    planes = [array[..., i : i + 1] for i in range(channels)] if planar else [array]
    strips = []
    for plane in planes:
        for top in range(0, height, rows):
            strip = plane[top : top + rows]
            if predictor == 2:
                strip = np.diff(strip, axis=1, prepend=np.zeros_like(strip[:, :1]))
            data = strip.astype(array.dtype.newbyteorder(order)).tobytes()
            strips.append(zlib.compress(data) if deflate else data)
    tags = {
        256: [width], 257: [height], 258: [array.dtype.itemsize * 8] * channels,
        259: [8 if deflate else 1], 262: [photometric], 273: [0] * len(strips),
        274: [orientation], 277: [channels], 278: [rows], 279: [len(s) for s in strips],
        284: [2 if planar else 1], 317: [predictor], 338: list(extra),
        339: [FORMATS[array.dtype.kind]] * channels,
    }  # fmt: skip
    tags = {tag: values for tag, values in tags.items() if values}
    behind = 8 + 2 + 12 * len(tags) + 4
    lists = sum(4 * len(values) for values in tags.values() if len(values) > 1)
    at = behind + lists
    for i, strip in enumerate(strips):
        tags[273][i] = at
        at += len(strip)
    entries = values_behind = b""
    for tag, values in tags.items():
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            place = struct.pack(f"{order}I", behind + len(values_behind))
            values_behind += packed
            packed = place
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    path.write_bytes(head + entries + bytes(4) + values_behind + b"".join(strips))
    return path
