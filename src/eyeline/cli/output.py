"""What several commands share: where results go."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from eyeline.errors import EyelineError
from eyeline.files import make_folder


def free_path(out: Path | None, default: Path, suffix: str = "") -> Path:
    """Where a command's results go: never where anything is, but for an empty folder.

    `out` is taken as it is; without it, the first free one of default, default-2, default-3 ...,
    each with `suffix`. Nothing is made yet: commands ask before their work, and write after it.
    """
    if out is not None:
        if not _free(out):
            raise EyelineError(f"{out} exists already; choose another --out")
        return out
    if default.name in ("", ".."):  # ".", too, has no name of its own
        default = default.resolve()
    names = (f"{default.name}-{i}" if i > 1 else default.name for i in count(1))
    return next(path for name in names if _free(path := default.parent / f"{name}{suffix}"))


def new_folder(out: Path | None, default: Path) -> Path:
    """The same as a folder that is made at once."""
    folder = free_path(out, default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def make_room(file: Path, option: str = "--out") -> None:
    """Make the folder in which a command is to write a file.

    Raises EyelineError where that cannot be: before the work, which may take long, and not after.
    """
    if file.is_dir():
        raise EyelineError(f"{file} is a folder; give {option} a file")
    make_folder(file.parent, option)
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise EyelineError(f"{file}: you may not write there; choose another {option}")


def _free(path: Path) -> bool:
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))
