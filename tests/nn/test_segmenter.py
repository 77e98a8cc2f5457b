"""What segmenters share: sizes and targets."""

from __future__ import annotations

import pytest
import torch
from tests.inference.toy_segmenter import bands, toy

from eyeline.errors import EyelineError


def test_the_network_sees_the_models_size_and_the_caller_his_own():
    model = toy(min_size=20, max_size=100)
    image, truth = bands(24, 36)
    seen = []
    model.conv.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    logits = model(image[None])
    assert seen == [(1, 3, 20, 30)] and logits.shape == (1, 3, 24, 36)
    # Beside a border between colours a pixel may be of either.
    assert (logits[0].argmax(0) == truth).float().mean() > 0.9
    several = model([image, bands(40, 12)[0]])
    assert [one.shape for one in several] == [(3, 24, 36), (3, 40, 12)]


def test_without_a_size_nothing_is_resized():
    model = toy()
    image, _ = bands(25, 37)
    assert model(image[None]).shape == (1, 3, 25, 37)
    with pytest.raises(EyelineError, match="class 7"):
        model(image[None], torch.full((1, 25, 37), 7))
