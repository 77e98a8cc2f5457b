"""Fetch a public data set: download, compare with its checksum, unpack, move into place whole.

All of it goes on in FOLDER/.eyeline, where record.json lists what has been fetched, and where one
process at a time is at work.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eyeline.data.download import digest_of, download
from eyeline.data.formats.annotations import CLASS_LIST, write_class_list
from eyeline.data.public.archives import SUFFIXES, unpack
from eyeline.data.public.sets import Archive, PublicSet
from eyeline.errors import EyelineError
from eyeline.files import write_whole
from eyeline.locking import FileLock

WORK = ".eyeline"
Record = dict[str, dict[str, Any]]  # archive's name -> size, sha256, source


def get(
    public: PublicSet,
    parts: Sequence[str] = (),
    folder: Path | None = None,
    source: str | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Fetch what is not there yet; where the set is to be opened.

    Files that are there are never written over. Stopped at any point, it goes on from there when
    it is called again.

    Args:
        parts: of the set; by default all.
        folder: by default `public.folder`.
        source: a mirror of one's own: a URL or folder in which the archives lie by their names.
        say: told what is done, line by line.

    Raises:
        EyelineError: a part is not known, the disk too small, no mirror has the file, it is not
            the one that it should be, a file in the way is another, or another process fetches
            into the same folder.
    """
    for part in parts:
        if part not in public.parts:
            raise EyelineError(
                f"{public.name} has no part {part!r}; there are: {', '.join(public.parts)}"
            )
    folder = public.folder if folder is None else folder.expanduser()
    if folder.exists() and not folder.is_dir():
        raise EyelineError(f"{folder} is no folder; choose another with --folder")
    wanted = [archive for archive in public.archives if not parts or archive.part in parts]
    missing = [archive for archive in wanted if _lacking(archive, folder)]
    record = read_record(folder)
    for archive in wanted:
        if archive not in missing:
            known = "" if archive.name in record else " by the number of its files; not compared"
            say(f"{archive.name}: there already{known}")
    local = source is not None and "://" not in source
    _check_space(missing, folder, beside=not local)
    for archive in missing if local else []:
        if not (Path(source or "").expanduser() / archive.name).is_file():
            raise EyelineError(f"no {archive.name} in {source}")
    if missing:
        with folder_lock(folder):
            record = read_record(folder)  # of what another has fetched in between, too
            for archive in missing:
                if _lacking(archive, folder):
                    _get_archive(archive, folder, source, local, record, say)
    home = folder / public.home
    if public.classes and home.is_dir() and not (home / CLASS_LIST).exists():
        write_class_list(home, public.classes)
    return home


def folder_lock(folder: Path) -> FileLock:
    """Of a folder into which a set is fetched."""
    return FileLock(
        folder / WORK / "lock",
        f"{folder}: {{holder}} is fetching into it; wait until it is done, then the same command "
        "goes on from there",
        threads=True,
    )


def read_record(folder: Path) -> Record:
    """What has been fetched into a folder."""
    path = folder / WORK / "record.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EyelineError(f"{path}: {error}; remove it, and the data is counted anew") from None
    return dict(found)


def _get_archive(
    archive: Archive,
    folder: Path,
    source: str | None,
    local: bool,
    record: Record,
    say: Callable[[str], None],
) -> None:
    work = folder / WORK
    known = archive.sum
    if known is None and archive.name in record:  # what it was the first time
        known = f"sha256:{record[archive.name]['sha256']}"

    def check(path: Path) -> None:
        _check_file(archive, path, known)

    file = work / archive.name
    if local:
        file = Path(source or "").expanduser() / archive.name
        check(file)
    elif file.is_file():  # stopped after the download
        check(file)
    else:
        urls = archive.urls if source is None else [f"{source.rstrip('/')}/{archive.name}"]
        download(urls, file, archive.size, check)
    kind, _, value = (known or "").partition(":")
    sha256 = value if kind == "sha256" else digest_of(file)
    if archive.sum is None:
        say(f"{archive.name}: no checksum is published, its size is right; its sha256 is {sha256}")
    else:
        say(f"{archive.name}: {kind} as published")
    files = _place(archive, file, folder, work / "unpacked")
    record[archive.name] = {"size": file.stat().st_size, "sha256": sha256, "files": files}
    text = json.dumps(record, indent=1)
    work.mkdir(exist_ok=True)
    write_whole(work / "record.json", lambda path: path.write_text(text, encoding="utf-8"))
    if not local:
        file.unlink()


def _check_file(archive: Archive, path: Path, known: str | None) -> None:
    size = path.stat().st_size
    if archive.size is not None and size != archive.size:
        raise EyelineError(f"{archive.name} has {size} bytes, and should have {archive.size}")
    if known is None:
        return
    kind, _, expected = known.partition(":")
    if (got := digest_of(path, kind)) != expected:
        raise EyelineError(f"{archive.name} has {kind} {got}, and should have {expected}")


def _place(archive: Archive, file: Path, folder: Path, unpacked: Path) -> int:
    """Put the contents into the folder; the number of files."""
    shutil.rmtree(unpacked, ignore_errors=True)  # of a run that was killed
    unpacked.mkdir(parents=True)
    try:
        if archive.name.endswith(SUFFIXES):
            files = unpack(file, unpacked, archive.inside)
        else:
            shutil.copyfile(file, unpacked / archive.name)
            files = 1
        if lacking := _lacking(archive, unpacked):
            raise EyelineError(f"{archive.name}: another archive than expected: {lacking}")
        for old, new in _moves(unpacked, folder):
            shutil.move(old, new)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return files


def _moves(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """What to move so that all of `source` lies in `target`: whole folders where they are new.

    Raises EyelineError where a file is in the way; files that are there and equal stay.
    """
    moves = []
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if not os.path.lexists(place):
            moves.append((entry, place))
        elif entry.is_dir() and place.is_dir():
            moves += _moves(entry, place)
        elif not (place.is_file() and entry.is_file() and filecmp.cmp(entry, place, shallow=False)):
            raise EyelineError(
                f"{place} is there and is another; nothing was changed: choose another --folder, "
                "or move it away"
            )
    return moves


def _lacking(archive: Archive, folder: Path) -> str:
    """What is not there of an archive's contents, in words; "" where all is."""
    for pattern, least in archive.holds.items():
        count = sum(1 for _ in folder.glob(pattern))
        if count < least:
            return f"{count} of {least} {pattern}"
    return ""


def _check_space(archives: Sequence[Archive], folder: Path, beside: bool) -> None:
    """Room for all contents, about as large as the archives, and the largest archive beside."""
    sizes = [archive.size or 0 for archive in archives]
    there = sum(path.stat().st_size for path in (folder / WORK).glob("*.partial"))
    need = sum(sizes) + (max(sizes, default=0) - there if beside else 0)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if need > free:
        raise EyelineError(
            f"{folder}: about {need / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; choose "
            "another --folder"
        )
