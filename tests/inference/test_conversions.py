"""Results in other libraries' forms, made by these libraries where they are installed."""

from __future__ import annotations

import sys

import pytest
import torch

from eyeline.errors import EyelineError
from eyeline.inference.result import CSV_HEADER, Result

BOXES = [[10.0, 20.0, 40.5, 50.0], [0.0, 0.0, 8.0, 9.0]]


def make(count: int = 2) -> Result:
    return Result(
        image=torch.full((3, 60, 80), 90, dtype=torch.uint8),
        boxes=torch.tensor(BOXES)[:count],
        scores=torch.tensor([0.75, 0.5])[:count],
        labels=torch.tensor([1, 0])[:count],
        classes=["cat", "dog"],
        path="rex.jpg",
    )


def test_supervision() -> None:
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    found = make().to_supervision()
    assert isinstance(found, supervision.Detections) and len(found) == 2
    best = found[found.confidence > 0.6]  # filtered by the library, names in step
    assert best.xyxy.tolist() == BOXES[:1] and list(best.data["class_name"]) == ["dog"]
    assert found.class_id.tolist() == [1, 0] and found.mask is None
    assert len(make(0).to_supervision()) == 0
    result = make()
    result.masks = torch.zeros(2, 60, 80, dtype=torch.bool)
    result.masks[0, 20:50, 10:40] = True
    worse = result.to_supervision()[1:]
    assert worse.mask.shape == (1, 60, 80) and worse.mask.dtype == bool and not worse.mask.any()
    assert result.to_supervision().area.tolist() == [900, 0]


def test_pandas() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = make().to_pandas()
    assert isinstance(table, pandas.DataFrame) and list(table.columns) == list(CSV_HEADER)
    assert table["class"].tolist() == ["dog", "cat"] and table["x2"].tolist() == [40.5, 8.0]
    assert list(make(0).to_pandas().columns) == list(CSV_HEADER)


def test_pandas_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(EyelineError, match="pip install pandas"):
        make().to_pandas()


def test_torchmetrics() -> None:
    reason = "torchmetrics, which needs torchvision for this, is not installed"
    detection = pytest.importorskip("torchmetrics.detection", reason=reason)
    if not hasattr(detection, "MeanAveragePrecision"):
        pytest.skip(reason)
    metric = detection.MeanAveragePrecision(backend="faster_coco_eval")
    truth = {"boxes": torch.tensor(BOXES[:1]), "labels": torch.tensor([1])}
    metric.update([make().to_torchmetrics()], [truth])
    assert metric.compute()["map"].item() == pytest.approx(1)


def test_the_dictionary_of_torchmetrics() -> None:
    found = make().to_torchmetrics()
    assert found["boxes"].tolist() == BOXES and found["labels"].dtype == torch.int64
    assert set(found) == {"boxes", "scores", "labels"}
