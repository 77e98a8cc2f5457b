"""The pictures of a data set that is written: their names, and copies of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from eyeline.data.formats.annotations import Annotations, Record
from eyeline.errors import EyelineError


def place_picture(source: Path, target: Path, link: bool) -> None:
    """A copy of the picture, byte by byte, or a symbolic link to it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():  # a picture that two splits share
        return
    if link:
        target.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, target)


def picture_names(splits: Mapping[str, Annotations], folders: bool) -> dict[Path, str]:
    """A file name for each picture: its own, or that with a number where the stem is taken.

    Stems are told apart without regard to case, as some file systems do.

    Args:
        folders: each split has its own folder, in which names may be those of another's.
    """
    paths = [record.path for data in splits.values() for record in data.records]
    shared = len(set(paths)) < len(paths)  # a picture in two folders needs a name free in both
    names: dict[Path, str] = {}
    stems: set[str] = set()
    for data in splits.values():
        if folders and not shared:
            stems = set()
        for record in data.records:
            if record.path in names:
                continue
            stem, number = record.path.stem, 2
            while stem.lower() in stems:
                stem, number = f"{record.path.stem}-{number}", number + 1
            stems.add(stem.lower())
            names[record.path] = stem + record.path.suffix
    return names


def place_records(
    splits: Mapping[str, Annotations],
    names: Mapping[Path, str],
    pictures: Path,
    files: Path,
    suffix: str,
    content_of: Callable[[Record], bytes],
    link: bool,
) -> dict[str, list[str]]:
    """Each picture into `pictures`, and its annotation, of the same stem, into `files`; gives the
    stems of each split.

    Raises EyelineError where a picture is in two splits with other objects.
    """
    written: dict[str, bytes] = {}
    stems: dict[str, list[str]] = {}
    for split, data in splits.items():
        stems[split] = []
        for record in data.records:
            name, content = names[record.path], content_of(record)
            if written.setdefault(name, content) != content:
                raise EyelineError(
                    f"{record.path}: it is in two splits with other objects, and this format has "
                    "one file for both; leave one of them"
                )
            place_picture(record.path, pictures / name, link)
            stem = Path(name).stem
            (files / f"{stem}{suffix}").write_bytes(content)
            stems[split].append(stem)
    return stems
