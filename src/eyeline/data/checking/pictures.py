"""The pictures themselves: can they be read, how large are they, which are the same?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eyeline.data.alike import ALIKE, fingerprint, nearest_before, same_files
from eyeline.data.arrange import Splits
from eyeline.data.faults import Fault
from eyeline.data.formats import Record
from eyeline.data.headers import rotation_fault
from eyeline.data.images import image_size, read_image, size_fault
from eyeline.errors import EyelineError

Track = Callable[[Iterable[Path], str, int], Iterable[Path]]
THREADS = min(8, os.cpu_count() or 1)  # Pillow lets go of the interpreter while it decodes
AHEAD = 16  # pictures of each thread that are begun before the first is asked for
TAIL = 64  # bytes at the end of a file in which its mark is
ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}  # of JPEG and PNG: by their first two bytes


@dataclass
class Seen:
    """What a look at a picture tells."""

    path: Path
    size: tuple[int, int] | None = None  # (height, width), upright
    fault: str | None = None  # why it cannot be read
    fingerprint: np.ndarray | None = None


def look(path: Path, decode: bool, channels: int = 3) -> Seen:
    """Decode a picture, or look at its header and the mark at its end alone."""
    try:
        if decode or not has_end(path):
            image = read_image(path, channels=channels)  # (C, H, W)
            size = (image.shape[1], image.shape[2])
            print_ = fingerprint(eight_bits(image)) if decode else None
            return Seen(path, size, fingerprint=print_)
        size = image_size(path)
        return Seen(path, size, size_fault(*size))
    except EyelineError as error:
        return Seen(path, fault=str(error).removeprefix(f"{path}: "))


def eight_bits(image: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of a picture (C, H, W); of other than three channels their mean."""
    if len(image) != 3:
        scale = 1 if image.dtype == torch.uint8 else 255
        image = (image.float().mean(0, keepdim=True) * scale).byte().expand(3, -1, -1)
    return image.permute(1, 2, 0).numpy()


def has_end(path: Path) -> bool:
    """Is the file as long as it was meant? False where the mark of a JPEG's or PNG's end is not
    among its last bytes, as in files that were cut short, and some that were not."""
    try:
        with path.open("rb") as file:
            end = ENDS.get(file.read(2))
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return end is None or end in file.read()
    except OSError:
        return True  # who reads it tells


def look_at_all(
    paths: Sequence[Path], decode: bool, track: Track, channels: int = 3
) -> dict[Path, Seen]:
    """A look at each picture, several at once."""

    def look_at(path: Path) -> Seen:
        return look(path, decode, channels)

    def looks() -> Iterator[Seen]:
        step = THREADS * AHEAD
        for start in range(0, len(paths), step):
            yield from pool.map(look_at, paths[start : start + step])

    pool = ThreadPoolExecutor(THREADS)
    try:
        seen = {}
        told = "reading pictures" if decode else "reading their headers"
        found = looks()
        for path in track(paths, told, len(paths)):
            seen[path] = next(found)
        return seen
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, too, at once


def check_pictures(splits: Splits, seen: dict[Path, Seen]) -> Iterator[Fault]:
    """Pictures that cannot be read, or are of another size than annotated."""
    told: set[Path] = set()
    for data in splits.values():
        for record in data.records:
            if record.path not in told and (fault := _fault(record, seen[record.path])):
                told.add(record.path)
                yield fault


def _fault(record: Record, seen: Seen) -> Fault | None:
    if seen.size is None or seen.fault is not None:
        return Fault("picture", record.path, str(seen.fault))
    height, width = seen.size
    if seen.size == (record.height, record.width):
        return None
    if turned := rotation_fault(record, height, width):
        return Fault("rotation", record.path, turned)
    what = (
        f"the picture is {width}x{height}, its annotation says {record.width}x{record.height}; "
        "were the boxes drawn on another one?"
    )
    if record.mask is not None:
        what = (
            f"the picture is {width}x{height}, its mask {record.mask} is "
            f"{record.width}x{record.height}; make them one size"
        )
    return Fault("size", record.path, what)


def check_copies(splits: Splits, seen: dict[Path, Seen]) -> Iterator[Fault]:
    """Pictures that are the same as an earlier one, or nearly: each with the most alike."""
    split_of: dict[Path, str] = {}
    for name, data in splits.items():
        for record in data.records:
            first = split_of.setdefault(record.path, name)
            if first != name:
                what = f"it is listed in {name} and in {first}; keep it in one of them"
                yield Fault("leak", record.path, what)
    usable = [path for path in split_of if seen[path].size is not None]
    same = same_files(usable)
    for path, first in same.items():
        yield _copy(path, first, split_of, "the same picture, byte by byte, as")
    rest = [p for p in usable if p not in same and seen[p].fingerprint is not None]
    if not rest:
        return
    which, alike = nearest_before(np.stack([seen[p].fingerprint for p in rest]))
    for i in np.flatnonzero(alike >= ALIKE):
        told = f"nearly the same picture ({alike[i]:.0%} alike) as"
        yield _copy(rest[i], rest[which[i]], split_of, told)


def _copy(path: Path, other: Path, split_of: dict[Path, str], told: str) -> Fault:
    mine, theirs = split_of[path], split_of[other]
    if mine == theirs:
        return Fault("copy", path, f"{told} {other}, both in {mine}")
    what = f"{told} {other}, in {mine} and in {theirs}: keep them in one split"
    return Fault("leak", path, what)
