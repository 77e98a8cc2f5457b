"""What segmenters share: sizes, targets, losses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.inference.toy_segmenter import bands, build, toy

from eyeline.errors import EyelineError


def test_the_network_sees_the_models_size_and_the_caller_his_own():
    model = toy(size=(20, 30))
    image, truth = bands(24, 36)
    seen = []
    model.conv.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    logits = model(image[None])
    assert seen == [(1, 3, 20, 30)] and logits.shape == (1, 3, 24, 36)
    # Beside a border between colours a pixel may be of either.
    assert (logits[0].argmax(0) == truth).float().mean() > 0.9
    several = model([image, bands(40, 12)[0]])
    assert [one.shape for one in several] == [(3, 24, 36), (3, 40, 12)]
    torch.testing.assert_close(several[0], logits[0], rtol=1e-5, atol=1e-5)


def test_losses_are_taken_at_the_size_of_the_maps():
    model = toy(seeing=False, size=(20, 30))
    image, truth = bands(24, 36)
    found = model(image[None], truth[None])
    wanted = F.cross_entropy(model(image[None]), truth[None])
    torch.testing.assert_close(found["cross_entropy"], wanted)
    # Of two sizes, too: what is padded counts nowhere.
    other, map_ = bands(40, 12)
    found = model([image, other], [truth, map_])["cross_entropy"]
    parts = [F.cross_entropy(model(i[None]), t[None], reduction="sum") for i, t in
             ((image, truth), (other, map_))]  # fmt: skip
    torch.testing.assert_close(found, sum(parts) / (truth.numel() + map_.numel()))


def test_a_picture_that_is_resized_already_keeps_its_size():
    model = toy(size=(20, 30))
    image, truth = bands(24, 36)
    batch = model.prepare([image], [{"map": truth, "resized": torch.tensor(True)}])
    assert batch.images.shape == (1, 3, 24, 36)


@pytest.mark.parametrize("size", [(0, 3), (20,), 20, (20.0, 30.0)])
def test_a_size_is_two_numbers_of_pixels(size):
    with pytest.raises(EyelineError, match="size"):
        build(size=size)


def test_without_a_size_nothing_is_resized():
    model = toy()
    image, _ = bands(25, 37)
    assert model(image[None]).shape == (1, 3, 25, 37)
    with pytest.raises(EyelineError, match="class 7"):
        model(image[None], torch.full((1, 25, 37), 7))
