"""What several commands share: where results go."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from eyeline.errors import EyelineError


def new_folder(out: Path | None, default: Path) -> Path:
    """Make the folder for a command's results; never one that holds anything.

    `out` is taken as it is; without it, the first free one of default, default-2, default-3 ...
    """
    if out is None:
        names = (f"{default.name}-{i}" if i > 1 else default.name for i in count(1))
        out = next(folder for folder in map(default.with_name, names) if _free(folder))
    elif not _free(out):
        raise EyelineError(f"{out} exists already; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _free(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
