"""The lines of a model's file that computed a value, with the function about them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from functools import cache
from html import escape
from pathlib import Path

from eyeline.inspection.lines import shown_path
from eyeline.inspection.xray import Line


def source_of(names: Iterable[str], lines: dict[str, Line]) -> str:
    """The functions in which the named values were noted, each once, their lines marked."""
    marked: dict[tuple[Path, int, int], list[int]] = {}
    for name in names:
        path, number = lines[name]
        marked.setdefault((path, *_function(path, number)), []).append(number)
    return "".join(_shown(*place, sorted(set(found))) for place, found in marked.items())


def beginning_of(function: Callable[..., object]) -> Line:
    """The line on which a function begins."""
    return Line(Path(function.__code__.co_filename), function.__code__.co_firstlineno)  # type: ignore[attr-defined]


def place_of(line: Line) -> str:
    """File and line."""
    return f"{shown_path(line.path)}:{line.number}"


def _shown(path: Path, first: int, last: int, marked: list[int]) -> str:
    text = _lines(path)[first - 1 : last]
    indent = min((len(line) - len(line.lstrip()) for line in text if line.strip()), default=0)
    rows = []
    for number, line in enumerate(text, first):
        code = f"<i>{number}</i>{escape(line[indent:]) or ' '}"
        rows.append(f"<mark>{code}</mark>" if number in marked else f"<span>{code}</span>")
    where = ", ".join(str(number) for number in marked[1:])
    caption = place_of(Line(path, marked[0])) + (f", {where}" if where else "")
    return (
        f'<details class="source"><summary><code>{escape(caption)}</code></summary>'
        f'<pre tabindex="0" aria-label="{escape(caption)}">{"".join(rows)}</pre></details>'
    )


def _function(path: Path, number: int) -> tuple[int, int]:
    """First and last line of the innermost function about a line, its decorators included; the
    line alone without one."""
    found = (number, number)
    for node in ast.walk(_tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            last = node.end_lineno or node.lineno
            inner = found[0] == found[1] or node.lineno > found[0]
            first = min(decorator.lineno for decorator in [*node.decorator_list, node])
            if first <= number <= last and inner:
                found = (first, last)
    return found


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
