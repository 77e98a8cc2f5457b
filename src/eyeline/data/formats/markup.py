"""XML files, with the line on which an element begins."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from eyeline.data.faults import Fault


def parse_xml(path: Path, tags: Container[str]) -> tuple[Element, dict[Element, int]]:
    """The root element, and the line on which each element of one of these tags begins.

    Raises Fault where the file cannot be read, or is no XML.
    """
    parser, builder = expat.ParserCreate(), TreeBuilder()
    lines: dict[Element, int] = {}

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = builder.start(tag, attributes)
        if tag in tags:
            lines[element] = parser.CurrentLineNumber

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        where = f"{path}:{error.lineno}:{error.offset + 1}"
        raise Fault("file", where, f"not valid XML: {expat.ErrorString(error.code)}") from None
    except (ValueError, LookupError) as error:
        raise Fault("file", path, f"its encoding: {error}; save it as UTF-8") from None
    except OSError as error:
        raise Fault("file", path, f"cannot be read: {error.strerror}") from None
    return builder.close(), lines


def text_of(element: Element, path: str) -> str:
    """Of the first element there; "" where there is none."""
    return (element.findtext(path) or "").strip()
