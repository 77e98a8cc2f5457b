"""The files that hold the states of a run."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

STATE = "state.pt"
PREVIOUS = "state-previous.pt"  # taken where the newest was damaged


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Raises OSError: it cannot be written."""
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # of torch's writer, on the way out of the system's own
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_state(path: Path) -> dict[str, Any]:
    """A state, if each of its bytes is as it was written; torch does not look at the checksums."""
    with zipfile.ZipFile(path) as file:
        if damaged := file.testzip():
            raise ValueError(f"{damaged} is not as it was written")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
