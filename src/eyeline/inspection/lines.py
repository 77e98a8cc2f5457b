"""Where something is written: the class of a module, a function, the line that calls `note`."""

from __future__ import annotations

import inspect
import linecache
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

from torch import nn

from eyeline import note


@dataclass(frozen=True)
class Origin:
    """Which class or function it is, and what its file says of it; "" or 0 where that is unknown.

    Files are told as `shown_path` has them: "eyeline/nn/heads/rpn.py".
    """

    type: str  # "BoxHead", "RPN.propose", "roi_align"
    file: str
    line: int  # of the class or function; of a note, that which calls it
    about: str = ""  # the first paragraph of its docstring
    settings: str = ""  # of a module: what it is built with, such as "64, 256, kernel_size=(1, 1)"
    source: str = ""  # what runs: a module's `forward`, a function, the line of a note
    source_line: int = 0  # where that begins

    @property
    def foreign(self) -> bool:
        """A class of torch's, whose file says nothing of the model."""
        return self.file.startswith("torch/")


def origin_of(called: Any) -> Origin:
    """Of a module, a function or a bound method."""
    if isinstance(called, nn.Module):
        kind: Any = type(called)
        file, line, _ = _source(kind)
        settings = " ".join(called.extra_repr().split())
        origin = Origin(kind.__name__, file, line, first_paragraph(kind.__doc__), settings)
        if origin.foreign:
            return Origin(kind.__name__, file, line, settings=settings)
        _, source_line, source = _source(kind.forward)
    else:
        file, line, source = _source(getattr(called, "__func__", called))
        origin = Origin(called.__qualname__, file, line, first_paragraph(called.__doc__))
        source_line = line
    return Origin(**{**vars(origin), "source": source, "source_line": source_line})


def origin_of_caller() -> Origin:
    """Of the line that has just called `note`."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not note.note.__code__:
        frame = frame.f_back
    if frame is None or frame.f_back is None:
        raise RuntimeError("nobody has called note")
    frame = frame.f_back
    line = frame.f_lineno
    source = linecache.getline(frame.f_code.co_filename, line).strip()
    file = shown_path(Path(frame.f_code.co_filename))
    return Origin(frame.f_code.co_qualname, file, line, source=source, source_line=line)


def paper_of(model: nn.Module) -> str:
    """What the header of the model's file begins with."""
    module = sys.modules.get(type(model).__module__)
    return first_paragraph(module.__doc__ if module else "")


def first_paragraph(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


@cache
def _source(thing: Any) -> tuple[str, int, str]:
    """File, first line and text of a class or function."""
    thing = inspect.unwrap(thing)
    try:
        lines, line = inspect.getsourcelines(thing)
        file = inspect.getsourcefile(thing) or ""
    except (OSError, TypeError):  # typed into a notebook, or not written in Python
        return "", 0, ""
    return shown_path(Path(file)), line, dedent("".join(lines)).rstrip()


def shown_path(path: Path) -> str:
    """A file's path from its package's name on, "eyeline/nn/heads/rpn.py" or
    "torch/nn/modules/conv.py"; of a file that is in no package the name."""
    path = path.absolute()
    outside = next(folder for folder in path.parents if not (folder / "__init__.py").is_file())
    return path.relative_to(outside).as_posix()
