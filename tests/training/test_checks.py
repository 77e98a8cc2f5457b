"""What is said before the first epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.structures import Batch
from eyeline.training.checks import NotFinite, check_data, check_finite


@dataclass
class Record:
    boxes: np.ndarray
    labels: np.ndarray
    where: list[str] = field(default_factory=lambda: ["a.xml:3", "a.xml:9"])


@dataclass
class Annotations:
    records: list[Record]


def data(classes=("a", "b"), boxes=((0, 0, 5, 5), (1, 1, 2, 2)), labels=(0, 1)) -> ToyData:
    dataset = ToyData(2)
    dataset.classes = classes
    record = Record(np.array(boxes, np.float32), np.array(labels, np.int64))
    dataset.annotations = Annotations([record])
    return dataset


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        (ToyData(0), None, "the training data has no pictures"),
        (data(), ToyData(0), "the validation data has no pictures"),
        (data("abc"), None, "the model has 2 classes and the training data 3"),
        (data("ac"), None, "the training data has the class 'c', which the model does not know"),
        (data(), data("ax"), "the validation data has the class 'x', which the model does not"),
        (data(), data("ba"), "the model and the validation data have the same classes in another"),
        (data(labels=(0, 2)), None, "a.xml:9: label 2 is not in 0 .. 1"),
        (data(), data(labels=(-1, 1)), "a.xml:3: label -1 is not in 0 .. 1"),
        (data(boxes=((0, 0, 5, 5), (1, 1, 1, 2))), None, "a.xml:9: the box [1.0, 1.0, 1.0, 2.0]"),
        (data(boxes=((0, 0, np.nan, 5), (1, 1, 2, 2))), None, "a.xml:3: the box [0.0, 0.0, nan"),
    ],
)
def test_disagreement_is_named(train, val, expected):
    with pytest.raises(EyelineError) as caught:
        check_data(ToyDetector(), train, val)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_good_data_passes():
    check_data(ToyDetector(), data(), data())
    check_data(ToyDetector(), [(torch.zeros(3, 8, 8), {})], None)
    check_data(torch.nn.Identity(), data(), data())
    with pytest.raises(EyelineError, match="the training data has 2 classes and the validation"):
        check_data(torch.nn.Identity(), data(), data("abc"))


def test_not_finite_values_are_named_with_their_pictures():
    check_finite({"box": 0.0, "label": 1e30}, [], "step 1")
    with pytest.raises(NotFinite) as caught:  # also in trials, which save nothing
        check_finite({"box": math.nan}, [], "step 1")
    assert "saved" not in str(caught.value)
    targets = [{"image_id": torch.tensor(7)}, {}]
    size = torch.ones(2, 2, dtype=torch.int64)
    batch = Batch(torch.zeros(2, 3, 8, 8), size, size, targets)
    for group in ([batch], [([], targets)]):
        with pytest.raises(EyelineError, match=r"^step 1: label is inf on pictures 7; "):
            check_finite({"box": 0.0, "label": float("inf")}, group, "step 1")
    with pytest.raises(EyelineError, match=r"^step 1: box is nan; "):
        check_finite({"box": float("nan")}, [([], [{}])], "step 1")
