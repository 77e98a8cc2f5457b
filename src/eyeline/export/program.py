"""torch.export: a detector as a program that torch alone loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyeline.export.graph import capture


def write_program(
    model: Any, path: Path, facts: Mapping[str, str], size: tuple[int, int] | None = None
) -> None:
    """Write the graph of a model, see `capture`; `facts` become extra files."""
    with path.open("wb") as file:
        torch.export.save(capture(model, size), file, extra_files=dict(facts))


def load_program(path: Path) -> Callable[[Tensor], dict[str, Tensor]]:
    """A file that `write_program` wrote: pictures (B, C, H, W) uint8 to the graph's outputs."""
    with path.open("rb") as file:
        return torch.export.load(file).module()
