"""The colours of indexed pictures."""

from __future__ import annotations

import importlib
import sys

import pytest

import eyeline.data


def test_it_can_be_imported_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Formats import the palette, and it none of them."""
    for name in [name for name in sys.modules if f"{name}.".startswith("eyeline.data.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(eyeline, "data", eyeline.data)
    palette = importlib.import_module("eyeline.data.palette")
    assert palette.class_palette(2)[[0, 1, 2, 255]].tolist() == [
        [128, 0, 0], [0, 128, 0], [0, 0, 0], [224, 224, 192],
    ]  # fmt: skip
