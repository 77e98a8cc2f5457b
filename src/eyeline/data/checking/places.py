"""On which line of a JSON file an entry stands: looked up only for what is told."""

from __future__ import annotations

import json
import re
from bisect import bisect
from functools import lru_cache
from pathlib import Path

from eyeline.data.checking.files import PLACE, file_of
from eyeline.data.faults import Fault

ENTRY = re.compile(r": (?P<key>\w+)\[(?P<index>\d+)\]")
SPACE = re.compile(r"[ \t\n\r]*")


def place_of(where: str) -> tuple[str, int | None]:
    """The file of "FILE:LINE" or "FILE: annotations[3]", and the line, where there is one."""
    if match := PLACE.match(where):
        return match["file"], int(match["line"])
    file, entry = file_of(where), ENTRY.search(where)
    if entry is None or not file.lower().endswith(".json"):
        return file, None
    lines = _lines(file).get(entry["key"], [])
    index = int(entry["index"])
    return file, lines[index] if index < len(lines) else None


def told(fault: Fault) -> str:
    """A fault in one line, with the line of its place where that is only known by its index."""
    file, line = place_of(fault.where)
    if line is None or PLACE.match(fault.where):
        return str(fault)
    return f"{file}:{line}{fault.where.removeprefix(file)}: {fault.what}"


@lru_cache(maxsize=8)
def _lines(file: str) -> dict[str, list[int]]:
    """Of each list at the top of a JSON file, the lines of its entries; of a file of one line,
    or none that can be read, nothing."""
    try:
        text = Path(file).read_text(encoding="utf-8")
        if "\n" not in text.strip():
            return {}
        return _scan(text)
    except (OSError, ValueError, RecursionError):
        return {}


def _scan(text: str) -> dict[str, list[int]]:
    decode = json.JSONDecoder().raw_decode
    ends = [match.start() for match in re.finditer("\n", text)]

    def skip(at: int) -> int:
        found = SPACE.match(text, at)
        return found.end() if found else at

    lines: dict[str, list[int]] = {}
    at = skip(0)
    while text[at : at + 1] in ("{", ","):
        at = skip(at + 1)
        if text[at : at + 1] == "}":
            break
        key, at = decode(text, at)
        at = skip(skip(at) + 1)  # behind the colon
        if text[at : at + 1] != "[":
            at = skip(decode(text, at)[1])
            continue
        lines[key] = []
        while text[at : at + 1] in ("[", ","):
            at = skip(at + 1)
            if text[at : at + 1] == "]":
                break
            lines[key].append(bisect(ends, at) + 1)
            at = skip(decode(text, at)[1])
        at = skip(at + 1)
    return lines
