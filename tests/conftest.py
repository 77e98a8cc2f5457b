"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


# Models of a file whose other one these tests run with each time; `make test-full` has all.
SISTERS = {"cascade_mask_rcnn", "ssd512", "refinedet512"}
SHORTENED = ("inspection", "test_synchronisation.py", "test_compiling.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sisters are slow; the longest tests first, so that several processes end together."""
    for item in items:
        given = getattr(item, "callspec", None)
        if given is None or not {*item.path.parts} & {*SHORTENED}:
            continue
        if SISTERS & {value for value in given.params.values() if isinstance(value, str)}:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.name != "test_docs.py")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real pictures; the test skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real data not found at {SHARED}")
    return SHARED


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test begins from the same random state."""
    torch.manual_seed(0)
