"""Files that are there whole, or not at all; and where those are kept that come from elsewhere."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from eyeline.errors import EyelineError

PARTIAL = ".*.partial"  # what a process that was killed while it wrote leaves behind,
PARTIAL_TENSORS = ".tmp??????"  # and one that was killed within safetensors


def write_whole(
    path: Path, write: Callable[[Path], object], former: str | None = None, new: bool = False
) -> None:
    """`write` a file beside `path`, then put it in its place in one go.

    Whatever stops it, `path` is as it was before, and nothing lies beside it. (After a kill a file
    named as PARTIAL says does.) With `former` the file that was there is kept under this name; a
    kill may then come when it has that name already and `path` is not there. With `new` nothing is
    written over: raises FileExistsError where `path` is there by then.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # lest the name reach the disk before what it stands for
        if new and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "another file has come there; move it away")
        if former and path.exists():
            os.replace(path, path.with_name(former))
        os.replace(part, path)
        _sync_names(path.parent)
    finally:
        part.unlink(missing_ok=True)


def make_folder(folder: Path, option: str = "--out") -> None:
    """With those above it. Raises EyelineError, which names the option to choose another by."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EyelineError(
            f"{folder}: cannot be made a folder ({error.strerror}); choose another {option}"
        ) from None


def _sync_names(folder: Path) -> None:
    """Bring a folder's list of names to the disk, where the system can (Windows cannot)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Lines:
    """A text file that grows by whole lines; those that a full disk refuses wait in memory."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab", buffering=0)
        self.end, self.waiting = path.stat().st_size, b""

    def add(self, line: str) -> None:
        """Write a line, and before it those that wait. Raises OSError: now they all wait."""
        self.waiting += f"{line}\n".encode()
        self._write()

    def sync(self) -> None:
        """Bring all lines to the disk. Raises OSError."""
        self._write()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()

    def _write(self) -> None:
        written = 0
        try:
            while written < len(self.waiting):
                written += self.file.write(self.waiting[written:])
        except OSError:
            self.file.truncate(self.end)  # no half line
            raise
        self.end, self.waiting = self.end + written, b""


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines, none where there is no file; a last line that is still
    being written is not one yet."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict):
                    yield record


def cache_folder() -> Path:
    """Where downloads are kept: $EYELINE_HOME, or ~/.cache/eyeline."""
    return Path(os.environ.get("EYELINE_HOME") or Path.home() / ".cache" / "eyeline")
