"""Files that are there whole, or not at all; and where those are kept that come from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """`write` a file beside `path`, then put it in its place in one go.

    Whatever stops it, `path` is as it was before, and nothing lies beside it.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # lest the name reach the disk before what it stands for
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where downloads are kept: $EYELINE_HOME, or ~/.cache/eyeline."""
    return Path(os.environ.get("EYELINE_HOME") or Path.home() / ".cache" / "eyeline")
