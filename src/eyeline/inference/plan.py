"""What a prediction of very many pictures sets out to do, kept in its folder so that it can go on.

    _plan/pictures.parquet    the pictures in their order; row group i is the i-th part
    _plan/settings.json       what decides the results; written last, so a plan that has it is whole
    part-000000.parquet ...   the results of each part, see `parts`

A part that has its file is done. Which pictures it holds was settled before the first of them was
predicted, so that a part that is done again, by whichever worker, gives the same file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from eyeline.data.images import SUFFIXES
from eyeline.errors import EyelineError
from eyeline.files import write_whole
from eyeline.inference.parts import import_parquet
from eyeline.inference.sources import find, groups, is_url, listed, name_of
from eyeline.inference.video import Video
from eyeline.locking import FileLock

PICTURES, SETTINGS = Path("_plan", "pictures.parquet"), Path("_plan", "settings.json")
PARQUET = (".parquet", ".pq")
READ = 16  # rows of pictures that are taken from a Parquet file at once


@dataclass(frozen=True)
class Entry:
    """A picture of the plan."""

    path: str  # file or URL as the user gave it, or the Parquet file that holds the picture
    row: int | None = None  # there, from 0

    @property
    def name(self) -> str:
        """What the results call it."""
        return str(name_of(self.path)) if self.row is None else f"{self.path}:{self.row}"


class Plan:
    """The plan in a folder, opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        self.file = import_parquet().ParquetFile(folder / PICTURES)
        self.parts: int = self.file.num_row_groups
        self.pictures: int = self.file.metadata.num_rows

    def entries(self, part: int) -> list[Entry]:
        rows = self.file.read_row_group(part).to_pylist()
        return [Entry(os.fsdecode(row["path"]), row["row"]) for row in rows]

    def result(self, part: int) -> Path:
        """The file of the part's results."""
        return self.folder / f"part-{part:06d}.parquet"

    def tries(self, part: int) -> Path:
        """A file that a worker leaves there while it is at the part."""
        return self.folder / PICTURES.parent / f"part-{part:06d}.tries"

    def done(self) -> list[int]:
        return [part for part in range(self.parts) if self.result(part).is_file()]

    def alone(self) -> FileLock:
        """Within, no other command works on the plan; raises EyelineError: one does."""
        return FileLock(
            self.folder / PICTURES.parent / "lock",
            f"{self.folder}: {{holder}} is at work on it; wait until it is done",
            threads=True,
        )

    def clear(self) -> None:
        """Delete what killed workers left half done. None may be at work."""
        for pattern in (".part-*.partial", f"{PICTURES.parent}/*.tries"):
            for file in self.folder.glob(pattern):
                file.unlink()


def begin_or_resume(
    folder: Path, source: str, column: str | None, settings: dict[str, Any], size: int
) -> Plan:
    """The plan in the folder, made now if there is none.

    Args:
        source, column: see `find_entries`.
        settings: what else decides the results, as JSON can hold it.
        size: pictures of a part.

    Raises:
        EyelineError: the folder holds something else, or was begun with other settings; there is
            no picture.
    """
    place = source if "://" in source else os.path.abspath(source)
    settings = {"source": place, "column": column, "size": size} | settings
    if (folder / SETTINGS).is_file():
        plan = Plan(folder)
        for key, value in settings.items():
            if (begun := plan.settings.get(key)) != value:
                raise EyelineError(
                    f"{folder}: begun with {key} {begun}, now it is {value}; "
                    "go on as it was begun, or choose another --out"
                )
        return plan
    if folder.exists() and any(path.name != PICTURES.parent.name for path in folder.iterdir()):
        raise EyelineError(f"{folder} exists already; choose another --out")
    entries = find_entries(source, column)
    first = next(entries, None)  # so that nothing is made where there is none
    if first is None:
        raise EyelineError(f"{source}: no picture in it")
    (folder / PICTURES).parent.mkdir(parents=True, exist_ok=True)
    write_whole(folder / PICTURES, lambda part: _write(part, chain([first], entries), size))
    text = json.dumps(settings | {"directory": os.getcwd()}, indent=2)
    write_whole(folder / SETTINGS, lambda part: part.write_text(text, encoding="utf-8"))
    return Plan(folder)


def _write(path: Path, entries: Iterator[Entry], size: int) -> None:
    import pyarrow

    # Names of files need not be text.
    schema = pyarrow.schema({"path": pyarrow.binary(), "row": pyarrow.int64()})
    with import_parquet().ParquetWriter(path, schema, compression="zstd") as writer:
        for group in groups(entries, size):
            columns = [[os.fsencode(e.path) for e in group], [e.row for e in group]]
            writer.write_table(pyarrow.table(columns, schema=schema))


def find_entries(source: str, column: str | None = None) -> Iterator[Entry]:
    """The pictures that `source` stands for, in their order, found while they are asked for.

    Of a folder those of its folders too, but for hidden ones; of a Parquet file, or a folder of
    such where a column is named, the paths or pictures in that column; else as `find` has it.

    Raises:
        EyelineError: there is nothing of that name, a file of a list is missing, or there is a
            video among them.
    """
    path = Path(source)
    if os.path.isdir(path):
        files = (Path(name) for name in _walk(source))
        if column is None:
            yield from (Entry(str(p)) for p in files if p.suffix.lower() in SUFFIXES)
        else:
            for file in (p for p in files if p.suffix.lower() in PARQUET):
                yield from _of_parquet(file, column)
    elif path.suffix.lower() in PARQUET and not is_url(source):
        yield from _of_parquet(path, column)
    elif column is not None:
        raise EyelineError(f"{source}: --column is for Parquet files")
    else:
        items, single = find(source)
        if single and not is_url(source) and not os.path.isfile(path):
            raise EyelineError(f"{source}: no such picture, folder or list")
        yield from (_entry(item) for item in items)


def _walk(folder: str) -> Iterator[str]:
    for inside, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.isfile(file := os.path.join(inside, name)):
                yield file


def _entry(item: Any) -> Entry:
    if isinstance(item, Video):
        raise EyelineError(f"{item.name}: a video; --engine ray takes pictures alone")
    return Entry(str(item))


def _of_parquet(path: Path, column: str | None) -> Iterator[Entry]:
    import pyarrow

    with _parquet(path) as file:
        names = file.schema_arrow.names
        if column is None and len(names) == 1:
            column = names[0]
        if column not in names:
            asked = "which column holds the pictures?" if column is None else f"no column {column}."
            raise EyelineError(f"{path}: {asked} --column takes one of: {', '.join(names)}")
        kind = file.schema_arrow.field(column).type
        if _holds_files(kind):
            yield from (Entry(str(path), row) for row in range(file.metadata.num_rows))
        elif pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
            batches = file.iter_batches(columns=[column])
            for row, name in enumerate(v for batch in batches for v in batch[0].to_pylist()):
                yield _entry(listed(name or "", path, row))
        else:
            raise EyelineError(f"{path}: column {column} is {kind}, neither paths nor pictures")


def _holds_files(kind: Any) -> bool:
    """Are the values pictures' files, or records with one under "bytes"?"""
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def read_rows(path: str, column: str | None, start: int, stop: int) -> Iterator[bytes | None]:
    """The pictures' files in those rows of a Parquet file; None where there is none."""
    with _parquet(Path(path)) as file:
        if file.metadata.num_rows < stop:
            raise EyelineError(f"{path}: has fewer rows now than when the prediction was begun")
        held, before, row = [], 0, 0  # groups with some of the rows; how many rows precede them
        for i in range(file.num_row_groups):
            count = file.metadata.row_group(i).num_rows
            if row + count <= start:
                before += count
            elif row < stop:
                held.append(i)
            row += count
        columns = [column or file.schema_arrow.names[0]]
        batches = file.iter_batches(READ, row_groups=held, columns=columns)
        values = (value for batch in batches for value in batch[0])
        for value in islice(values, start - before, stop - before):
            found = value.as_py()
            yield found["bytes"] if isinstance(found, dict) else found


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """The file, opened; what is wrong with it, now or when it is read on, is an EyelineError."""
    import pyarrow

    try:
        with import_parquet().ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise EyelineError(f"{path}: no such file") from None
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise EyelineError(f"{path}: cannot be read as Parquet: {reason}") from None
