"""Tables in text files: the separator found, every row with its line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from eyeline.data.faults import Fault, Faults
from eyeline.data.formats.annotations import read_text

SEPARATORS = (",", ";", "\t")
SUFFIXES = (".csv", ".tsv")
BEGINNING = 1 << 16  # bytes in which the first row ends


def first_row(path: Path) -> list[str]:
    """The fields of the first row, as a guess: quick, and [] of what is no table."""
    if path.suffix.lower() not in SUFFIXES:
        return []
    try:
        with path.open("rb") as file:
            text = file.read(BEGINNING).decode("utf-8-sig", errors="replace")
        line = next(iter(text.splitlines()), "")
        return next(csv.reader([line], delimiter=separator_of(line)), [])
    except (csv.Error, OSError):
        return []


def separator_of(line: str) -> str:
    """Whichever of comma, semicolon and tab makes the most fields of the first row."""

    def fields(separator: str) -> int:
        try:
            return len(next(csv.reader([line], delimiter=separator), []))
        except csv.Error:
            return 0

    return max(SEPARATORS, key=fields)  # the first, where all are equal


def read_rows(path: Path, faults: Faults) -> list[tuple[str, list[str]]]:
    """(file and line, fields) of each row but empty ones. Of text with semicolons, in which tables
    have decimal commas in many countries, "1,5" becomes "1.5".

    Raises Fault where the file is no text, or a row no row.
    """
    text = read_text(path)
    separator = separator_of(next(iter(text.splitlines()), ""))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[tuple[str, list[str]]] = []
    while True:
        with faults:
            try:
                fields = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                what = f"not a row of a table: {error}"
                raise Fault("file", f"{path}:{reader.line_num}", what) from None
            if any(fields):
                rows.append((f"{path}:{reader.line_num}", fields))
    if separator == ";":
        return [(where, [_with_point(field) for field in fields]) for where, fields in rows]
    return rows


def _with_point(field: str) -> str:
    whole, comma, rest = field.strip().partition(",")
    number = comma and whole.removeprefix("-").isdecimal() and rest.isdecimal()
    return f"{whole}.{rest}" if number else field
