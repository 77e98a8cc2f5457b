"""note(name, value): show an intermediate value to whoever watches.

A paper file names its values where they arise::

    anchors = note("anchors, sec. 4", self.anchors(levels))

Nobody watching, `note` gives back what it was given and costs one comparison. It is skipped
while torch compiles, so it never splits a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

T = TypeVar("T")

# A module-level variable: a ContextVar would break torch.compile(fullgraph=True).
_recorder: Callable[[str, object], None] | None = None


def note(name: str, value: T, show: Callable[..., object] | None = None, *given: Any) -> T:
    """Give back `value`, after showing it to the watcher if there is one.

    Where the watcher should see something else, or more, `show(*given)` computes that; it is
    called only then, and changes nothing.
    """
    if torch.compiler.is_compiling() or _recorder is None:
        return value
    with torch.no_grad():
        _recorder(name, show(*given) if show is not None else value)
    return value


@contextmanager
def watch(recorder: Callable[[str, object], None]) -> Iterator[None]:
    """Within the context, call `recorder(name, value)` for every note, in order."""
    global _recorder
    before, _recorder = _recorder, recorder
    try:
        yield
    finally:
        _recorder = before
