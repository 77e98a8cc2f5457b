"""What a result gives out."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from PIL import Image

from eyeline.errors import EyelineError
from eyeline.inference.result import CSV_HEADER, Result


@pytest.fixture
def result() -> Result:
    return Result(
        image=torch.full((3, 60, 80), 90, dtype=torch.uint8),
        boxes=torch.tensor([[10.0, 20.0, 40.5, 50.0], [0.0, 0.0, 8.0, 9.0]]),
        scores=torch.tensor([0.75, 0.5]),
        labels=torch.tensor([1, 0]),
        classes=["cat", "dog"],
        path="pets/rex.jpg",
    )


def test_names(result: Result) -> None:
    assert len(result) == 2
    assert result.names == ["dog", "cat"]
    result.classes = []
    assert result.names == ["1", "0"]


def test_coco(result: Result) -> None:
    assert result.to_coco(7) == [
        {"image_id": 7, "category_id": 1, "bbox": [10.0, 20.0, 30.5, 30.0], "score": 0.75},
        {"image_id": 7, "category_id": 0, "bbox": [0.0, 0.0, 8.0, 9.0], "score": 0.5},
    ]
    assert [r["category_id"] for r in result.to_coco(7, category_ids=[17, 18])] == [18, 17]


def test_rows(result: Result) -> None:
    rows = [dict(zip(CSV_HEADER, row, strict=True)) for row in result.rows()]
    assert rows[0] == {
        "picture": "pets/rex.jpg", "class": "dog", "label": 1, "score": 0.75,
        "x1": 10.0, "y1": 20.0, "x2": 40.5, "y2": 50.0,
    }  # fmt: skip
    assert rows[1]["class"] == "cat"


def test_save_writes_the_drawing(result: Result, tmp_path: Any) -> None:
    result.save(tmp_path / "drawn.png")
    with Image.open(tmp_path / "drawn.png") as saved:
        assert saved.size == result.plot().size == (480, 360)
        assert saved.tobytes() == result.plot().tobytes()


def test_supervision_is_asked_for(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(EyelineError, match="pip install supervision"):
        result.to_supervision()
