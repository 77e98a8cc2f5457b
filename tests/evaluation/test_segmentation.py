"""Segmenters measured: against a plain count, in the pictures' own size, on a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from eyeline.errors import EyelineError
from eyeline.evaluation import map_report
from eyeline.evaluation.segmentation import NUMBERS, evaluate_segmentation
from eyeline.nn.segmenter import Segmenter, SegmenterConfig
from eyeline.registry import create_model
from eyeline.training.checks import check_data

NAMES = ["road", "sky", "tree"]


class Maps(Dataset[Any]):
    """Pictures of two sizes, whose map is not quite what their colour says."""

    classes = NAMES

    def __init__(self, count: int = 7) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        if index >= self.count:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(index)
        size = (20, 30) if index % 2 else (24, 16)
        said = torch.randint(0, 3, size, generator=generator)
        truth = said.where(torch.rand(size, generator=generator) > 0.3, (said + 1) % 3)
        truth[torch.rand(size, generator=generator) > 0.9] = 255
        image = torch.nn.functional.one_hot(said, 3).permute(2, 0, 1).byte() * 255
        return image, {"map": truth.byte(), "image_id": torch.tensor(10 + index)}


class Colour(Segmenter):
    """Says of a pixel the class whose channel is the strongest."""

    classes = NAMES

    def __init__(self, **options: Any) -> None:
        self.set_up(SegmenterConfig(num_classes=3, **options))
        self.scale = nn.Parameter(torch.ones(()))

    def maps(self, images: Tensor) -> Tensor:
        return images * self.scale


def test_against_a_plain_count() -> None:
    data = Maps()
    report = evaluate_segmentation(Colour(), data, 3, progress=False)
    counts = np.zeros((3, 3), np.int64)
    for i in range(7):
        image, target = data[i]
        for said, truth in zip(image.argmax(0).flatten(), target["map"].flatten(), strict=True):
            if truth != 255:
                counts[truth, said] += 1
    assert np.array_equal(report.confusion.numpy(), counts)
    iou = np.diag(counts) / (counts.sum(0) + counts.sum(1) - np.diag(counts))
    assert report.metrics["mIoU"] == pytest.approx(iou.mean(), abs=1e-12)
    assert report.metrics["pixel_accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    assert set(report.metrics) == set(NUMBERS)
    assert [row["IoU"] for row in report.per_class.values()] == pytest.approx(iou.tolist())
    assert report.image_ids == list(range(10, 17)) and len(report.per_picture) == 7
    own = (data[2][0].argmax(0) == data[2][1]["map"])[data[2][1]["map"] != 255].float().mean()
    assert report.per_picture[2]["pixel_accuracy"] == pytest.approx(float(own))
    assert report.pictures_per_second > 0 and report.parameters == 1
    assert "mIoU" in str(report) and "sky" in str(report)


def test_batches_and_boundaries_change_no_number() -> None:
    one = evaluate_segmentation(Colour(), Maps(), 1, progress=False)
    for other in (
        evaluate_segmentation(Colour(), Maps(), 7, progress=False),
        evaluate_segmentation(Colour(), Maps(), 2, progress=False, examples=0),
    ):
        assert other.metrics == one.metrics and other.per_picture == one.per_picture
    plain = evaluate_segmentation(Colour(), Maps(), 2, progress=False, boundaries=False)
    assert plain.metrics["boundary_F1"] is None and one.metrics["boundary_F1"] is not None
    assert plain.metrics["mIoU"] == one.metrics["mIoU"]


def test_a_model_that_resizes_is_measured_in_the_pictures_size() -> None:
    report = evaluate_segmentation(Colour(min_size=10, max_size=20), Maps(3), 2, progress=False)
    labelled = sum(int((Maps()[i][1]["map"] != 255).sum()) for i in range(3))
    assert int(report.confusion.sum()) == labelled
    assert 0.2 < report.metrics["pixel_accuracy"] < 0.7  # noise, made smaller and larger again


def test_examples_and_a_page(tmp_path: Path) -> None:
    report = evaluate_segmentation(Colour(), Maps(), 2, progress=False)
    assert [example.index for example in report.examples] == [0, 1, 3, 5]
    image, _ = Maps()[3]
    assert torch.equal(report.examples[2].classes.long(), image.argmax(0))
    page = map_report.class_table(report) + map_report.pictures(report)
    assert page.count("<img") == 16 and "picture 3" in page and "tree" in page
    assert "mIoU" in map_report.numbers(report.metrics)
    content = json.loads(report.to_json(tmp_path / "report.json").read_text())
    assert content["confusion"] == report.confusion.tolist()
    assert content["per_picture"][1]["image_id"] == 11


def test_what_cannot_be_measured() -> None:
    with pytest.raises(EyelineError, match="no pictures"):
        evaluate_segmentation(Colour(), Maps(0), progress=False)
    other = Maps(2)
    other.classes = ["road", "sky"]  # type: ignore[misc]
    with pytest.raises(EyelineError, match="the model knows 3 classes"):
        evaluate_segmentation(Colour(), other, progress=False)

    with pytest.raises(EyelineError, match="batch_size must be 1 or more, not 0"):
        evaluate_segmentation(Colour(), Maps(), 0, progress=False)

    class Wrong(Maps):
        def __init__(self, change: Callable[[Tensor], dict[str, Tensor]]) -> None:
            super().__init__(2)
            self.change = change

        def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
            image, target = super().__getitem__(index)
            return image, self.change(target["map"]) if index else target

    for change, told in (
        (lambda x: {"map": x[1:]}, r"the model's map is \(20, 30\)"),
        (lambda x: {}, "the target has no map of classes"),
        (lambda x: {"map": x.float()}, r"labels are integers.*torch\.float32"),
        (lambda x: {"map": x.clamp(max=200)}, "a target: class 200"),
    ):
        with pytest.raises(EyelineError, match=f"picture 1: {told}"):
            evaluate_segmentation(Colour(), Wrong(change), progress=False)


def test_a_diverged_model_has_no_score() -> None:
    model = Colour()
    model.scale.data.fill_(torch.nan)
    with pytest.raises(EyelineError, match="picture 0: the model's logits are not finite"):
        evaluate_segmentation(model, Maps(), progress=False)


def test_one_class_alone_is_neither_measured_nor_learnt() -> None:
    """All labelled pixels are of it, so that any model would be right."""
    data, model = Maps(2), create_model("unet", classes=["road"], width=2, depth=1)
    data.classes = ["road"]  # type: ignore[misc]
    with pytest.raises(EyelineError, match=r"'road' is the only class.*data\.background=NAME"):
        evaluate_segmentation(model, data, progress=False)
    with pytest.raises(EyelineError, match="'road' is the only class"):
        check_data(model, data, None)
