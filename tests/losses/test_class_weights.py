"""Class weights, by hand and by loops."""

from __future__ import annotations

import math
from statistics import median

import pytest
import torch
from hypothesis import given, settings
from random_maps import cases

from eyeline.errors import EyelineError
from eyeline.losses import count_pixels, enet_weights, median_frequency


@settings(max_examples=20, deadline=None)
@given(cases)
def test_median_frequency_by_loops(case):
    logits, target = case
    classes = max(2, logits.shape[1])
    frequency = {}
    for c in range(classes):
        own = whole = 0
        for picture in target.flatten(1).tolist():
            if c in picture:
                own += picture.count(c)
                whole += sum(t != 255 for t in picture)
        if own:
            frequency[c] = own / whole
    expected = [
        median(frequency.values()) / frequency[c] if c in frequency else 0 for c in range(classes)
    ]
    found = median_frequency(*count_pixels(target, classes))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(expected).float())


def test_median_frequency_by_hand():
    """Pictures of 8 and 4 labelled pixels; class 2 is in the second alone, class 3 in none."""
    first = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 255, 255]])
    second = torch.tensor([[0, 1, 1, 2]])
    parts = [count_pixels(picture, 4) for picture in (first, second)]
    counts, present = (sum(part) for part in zip(*parts, strict=True))
    assert counts.tolist() == [7, 4, 1, 0]
    assert present.tolist() == [12, 12, 4, 0]
    # frequencies 7/12, 4/12, 3/12, median 4/12
    torch.testing.assert_close(
        median_frequency(counts, present), torch.tensor([4 / 7, 1, 4 / 3, 0])
    )


def test_a_batch_counts_as_its_pictures():
    target = torch.randint(4, (5, 6, 7), dtype=torch.uint8)
    parts = zip(*(count_pixels(picture, 4) for picture in target), strict=True)
    for whole, part in zip(count_pixels(target, 4), parts, strict=True):
        assert whole.dtype == torch.int64 and torch.equal(whole, sum(part))


def test_enet_by_hand():
    expected = [1 / math.log(1.02 + p) for p in (0.75, 0.25, 0.0)]
    torch.testing.assert_close(enet_weights(torch.tensor([3, 1, 0])), torch.tensor(expected))
    # "we restrict the class weights to be in the interval of [1, 50]", about
    assert enet_weights(torch.tensor([1, 0])).tolist() == pytest.approx([1.4222, 50.498], rel=1e-4)


@pytest.mark.parametrize("c", [0.5, 1.0, float("nan")])
def test_enet_c_out_of_range(c):
    with pytest.raises(EyelineError, match="c must be above 1"):
        enet_weights(torch.tensor([1, 0]), c)


def test_no_pixels():
    nothing = count_pixels(torch.full((2, 3, 3), 255), 3)
    assert median_frequency(*nothing).tolist() == [0, 0, 0]
    assert enet_weights(nothing[0]).isfinite().all()


def test_more_pixels_than_float32_counts():
    counts = torch.tensor([2**40 + 1, 2**40, 2**40 - 1])
    assert median_frequency(counts, counts + 2**40).isfinite().all()
    assert enet_weights(counts).isfinite().all()


def test_a_label_that_is_no_class():
    with pytest.raises(EyelineError, match=r"class 7 \(1 pixels\) is not in 0 \.\. 2, nor 255"):
        count_pixels(torch.tensor([[0, 7]]), 3)
