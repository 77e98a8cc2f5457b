"""Archives of strangers, unpacked: nothing outside the folder, no links, no bombs.

All names, kinds and sizes are looked at before the first byte is written.
"""

from __future__ import annotations

import gzip
import re
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from eyeline.errors import EyelineError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
RATIO = 50  # unpacked bytes to packed ones; pictures have 1, JSON 10, a bomb 1000
ALWAYS = 64 << 20  # bytes that any archive may hold
FILES = 2_000_000
JUNK = re.compile(r"(^|/)(__MACOSX(/|$)|\._|\.DS_Store$)")  # what macOS puts beside the files
DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


@dataclass
class Member:
    """A file in an archive."""

    name: str
    size: int  # as the archive says
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, inside: str = "") -> int:
    """Unpack a zip, tar or tar.gz into a folder; the number of files.

    Args:
        folder: new or empty.
        inside: only what lies below this folder of the archive, which is left out of the names.

    Raises:
        EyelineError: it is no archive or damaged; it holds anything but files and folders, a name
            that leads out of the folder or is there twice, or more than its size or the disk
            lets expect. Then nothing, or a part, lies in the folder.
    """
    from rich.console import Console
    from rich.progress import track

    try:
        with _members(archive) as members:
            files = _checked(archive, members)
            if inside:
                files = {
                    path.relative_to(inside): member
                    for path, member in files.items()
                    if path.is_relative_to(inside)
                }
            need, free = sum(m.size for m in files.values()), shutil.disk_usage(folder).free
            if need > free:
                raise EyelineError(
                    f"{archive.name}: unpacked it has {need} bytes, and {folder} room for {free}"
                )
            console = Console(file=sys.stderr)
            shown = track(
                files.items(), archive.name, console=console, disable=not console.is_terminal
            )
            for path, member in shown:
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(archive, member, target)
    except EyelineError:
        raise
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EyelineError(f"{archive.name}: a damaged archive: {reason}") from error
    return len(files)


def _checked(archive: Path, members: Iterator[Member]) -> dict[PurePosixPath, Member]:
    """The files by where they go."""
    files: dict[PurePosixPath, Member] = {}
    size, limit = 0, max(ALWAYS, RATIO * archive.stat().st_size)
    for member in members:
        if JUNK.search(member.name):
            continue
        path = _safe_path(archive, member.name)
        if path in files:
            raise EyelineError(f"{archive.name}: {member.name!r} is in it twice")
        files[path] = member
        size += member.size
        if size > limit or len(files) > FILES:
            raise EyelineError(
                f"{archive.name}: refused: {archive.stat().st_size} bytes would become more than "
                f"{limit}, or more than {FILES} files"
            )
    for path in files:
        for parent in path.parents:
            if parent in files:
                raise EyelineError(f"{archive.name}: '{parent}' is a file and a folder in it")
    return files


def _safe_path(archive: Path, name: str) -> PurePosixPath:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    odd = "\\" in name or "\0" in name or re.match(r"/|[A-Za-z]:", name)
    if odd or ".." in parts or not parts:
        raise EyelineError(f"{archive.name}: refused: {name!r} in it leads out of the folder")
    return PurePosixPath(*parts)


def _write(archive: Path, member: Member, target: Path) -> None:
    """Never more than the archive says."""
    left = member.size
    with member.open() as source, target.open("xb") as out:
        while block := source.read(1 << 20):
            left -= len(block)
            if left < 0:
                break
            out.write(block)
    if left:
        raise EyelineError(f"{archive.name}: {member.name!r} has another size than it says")


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[Member]]:
    """The files of an archive, known by its content, read on as they are asked for."""
    with archive.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"PK"):
        with zipfile.ZipFile(archive) as opened:
            yield _zip_members(archive, opened)
        return
    try:
        with tarfile.open(archive, "r:gz" if start.startswith(b"\x1f\x8b") else "r:") as tar:
            yield _tar_members(archive, tar)
    except tarfile.ReadError as error:
        page = start.lstrip().startswith(b"<")
        what = "a web page" if page else f"no zip or tar, or a damaged one: {error}"
        raise EyelineError(f"{archive.name}: {what}") from None


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[Member]:
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where no Unix has written it
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(archive, info.filename)
        name = info.orig_filename  # `filename` is cut where it holds a zero
        if info.is_dir():
            _safe_path(archive, name)
        else:
            yield Member(name, info.file_size, partial(opened.open, info))


def _tar_members(archive: Path, tar: tarfile.TarFile) -> Iterator[Member]:
    for info in tar:
        if info.isdir():
            if info.name not in ("", "."):
                _safe_path(archive, info.name)
        elif info.isreg():
            yield Member(info.name, info.size, partial(tar.extractfile, info))
        else:
            raise _refused(archive, info.name)


def _refused(archive: Path, name: str) -> EyelineError:
    return EyelineError(f"{archive.name}: refused: {name!r} in it is a link or a device")
