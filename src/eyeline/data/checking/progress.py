"""A bar with the remaining time, on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def track(paths: Iterable[Path], told: str, total: int) -> Iterable[Path]:
    """The paths, one after another; on standard error, where that is a terminal, a bar, which
    goes when all are done."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(paths, told, total, console=console, disable=hidden, transient=True)
