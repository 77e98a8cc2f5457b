"""What is the same, or nearly: names of classes, and pictures."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 16  # of the grid of differences by which pictures are compared
# Of `fingerprint`s. A copy saved again as JPEG of quality 30, at half its size, or a tenth
# brighter comes to 0.97 and more; two photographs of the same cells, streets or kitchens, taken
# apart, to 0.5 at most. docs/data.md has the measurement.
ALIKE = 0.9
FAINTEST = 0.5  # grey levels; below it a picture is too even to be compared
BLOCK = 256  # pictures that are compared with all others at once


def nearest_name(name: str, others: Iterable[str]) -> str | None:
    """The one of `others` that is nearly this name, case aside."""
    folded = {other.casefold(): other for other in others}
    near = get_close_matches(name.casefold(), folded, n=1, cutoff=0.8)
    return folded[near[0]] if near else None


def is_variant(name: str, other: str) -> bool:
    """Do two names differ in case, in blanks, hyphens and the like, or in an "s" at the end?"""
    return _letters(name).removesuffix("s") == _letters(other).removesuffix("s")


def _letters(name: str) -> str:
    """And digits, in lower case."""
    return "".join(filter(str.isalnum, name.casefold()))


def is_slip(name: str, other: str) -> bool:
    """Can one of two names be the other, mistyped? They are variants, or differ in a letter; of
    eight letters or more, in two. Digits are never a slip: "speed 30" is not "speed 50"."""
    if is_variant(name, other):
        return True
    a, b = _letters(name), _letters(other)
    if [c for c in a if c.isdigit()] != [c for c in b if c.isdigit()]:
        return False
    shorter = min(len(a), len(b))
    return shorter >= 4 and _edits(a, b) <= (2 if shorter >= 8 else 1)


def _edits(a: str, b: str) -> int:
    """Letters to insert, delete, replace or exchange with the next to make one of the other."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, c in enumerate(a, 1):
        row = [i]
        for j, d in enumerate(b, 1):
            row.append(min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (c != d)))
            if i > 1 and j > 1 and c == b[j - 2] and a[i - 2] == d:
                row[j] = min(row[j], before[j - 2] + 1)
        before, last = last, row
    return last[-1]


def same_files(paths: Iterable[Path]) -> dict[Path, Path]:
    """The files that are the same byte by byte as an earlier one, and which."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        by_size[path.stat().st_size].append(path)
    same = {}
    for own in by_size.values():
        known: dict[bytes, Path] = {}
        for path in own if len(own) > 1 else []:
            first = known.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
            if first != path:
                same[path] = first
    return same


def fingerprint(picture: np.ndarray) -> np.ndarray:
    """(2 * 16 * 16,) float32 of length 1: how grey changes to the right and down over a coarse
    grid of a picture (H, W, 3) uint8. All 0 where it hardly changes.

    The scalar product of two is 1 for the same picture, whatever its size, brightness and
    contrast, and near 0 for pictures that have nothing to do with each other.
    """
    small = Image.fromarray(picture).convert("L")
    grey = np.asarray(small.resize((SIDE + 1, SIDE + 1), Image.Resampling.BOX), np.float32)
    right, down = np.diff(grey[:-1], axis=1), np.diff(grey[:, :-1], axis=0)
    print_ = np.concatenate([right.ravel(), down.ravel()])
    if np.abs(print_).mean() < FAINTEST:
        return np.zeros_like(print_)
    return print_ / np.linalg.norm(print_)


def nearest_before(prints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of N fingerprints (N, D): which earlier one is the most alike, and how alike, (N,) each.
    The first has none before it: 0, and a likeness of -1."""
    count = len(prints)
    which, alike = np.zeros(count, np.int64), np.full(count, -1.0, np.float32)
    for start in range(0, count, BLOCK):
        rows = np.arange(start, min(start + BLOCK, count))
        products = prints[rows] @ prints[: rows[-1] + 1].T
        products[np.arange(rows[-1] + 1) >= rows[:, None]] = -1.0  # itself, and later ones
        which[rows] = products.argmax(1)
        alike[rows] = products[np.arange(len(rows)), which[rows]]
    return which, alike
