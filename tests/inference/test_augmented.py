"""Segmenters that look several times."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.inference.augmented import AugmentedSegmenter, augmented_logits, scaled


class Toy(nn.Module):
    """One convolution whose weights are not the same left and right."""

    channels = 3
    classes = ("a", "b", "c", "d")

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 5, padding=2)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape[-2:]))
        return self.conv(images.float() / (255 if images.dtype == torch.uint8 else 1)) * 3


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    with torch.inference_mode():
        yield


def test_one_look_is_the_model_itself() -> None:
    model, images = Toy(), torch.rand(2, 3, 21, 34)
    assert torch.equal(augmented_logits(model, images, (1,), flip=False), model(images))


def test_it_is_the_mean_of_probabilities() -> None:
    model, images = Toy(), torch.rand(2, 3, 21, 34)
    found = augmented_logits(model, images, (1.0,), flip=True).softmax(1)
    plain, mirrored = model(images).softmax(1), model(images.flip(-1)).flip(-1).softmax(1)
    torch.testing.assert_close(found, (plain + mirrored) / 2)
    of_logits = (model(images) + model(images.flip(-1)).flip(-1)).div(2).softmax(1)
    assert (found - of_logits).abs().max() > 0.005  # which is something else
    assert (plain - mirrored).abs().max() > 0.05


def test_a_mirrored_picture_gives_the_mirrored_result() -> None:
    model, images = Toy(), torch.rand(1, 3, 24, 37)
    for scales in ((1.0,), (0.75, 1.0, 1.25)):
        found = augmented_logits(model, images.flip(-1), scales)
        torch.testing.assert_close(found, augmented_logits(model, images, scales).flip(-1))
    plain = augmented_logits(model, images.flip(-1), (0.5, 1.0), flip=False)
    assert (
        plain - augmented_logits(model, images, (0.5, 1.0), flip=False).flip(-1)
    ).abs().max() > 0.05


def test_scales() -> None:
    model, images = Toy(), (torch.rand(1, 3, 40, 60) * 255).byte()
    found = augmented_logits(model, images)
    assert model.seen == [(30, 45)] * 2 + [(40, 60)] * 2 + [(50, 75)] * 2
    assert found.shape == (1, 4, 40, 60)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(1, 40, 60))
    model.seen.clear()
    augmented_logits(model, images, (0.3,), flip=False, align=16)
    assert model.seen == [(16, 16)]


def test_where_all_is_one_colour_every_look_agrees() -> None:
    class Pointwise(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            images = images / 255 if images.dtype == torch.uint8 else images
            return torch.cat([images, 1 - images[:, :1]], 1) * 5

    images = torch.full((1, 3, 30, 30), 51, dtype=torch.uint8)
    found = augmented_logits(Pointwise(), images)
    torch.testing.assert_close(found.softmax(1), Pointwise()(images).softmax(1))


def test_shrinking_is_smoothed() -> None:
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    assert (scaled(stripes, 0.25)[..., 1:-1] - 0.5).abs().max() < 0.05
    assert scaled(stripes, 1) is stripes


@pytest.mark.parametrize("scales", [(), (1, 0), (-0.5,), (float("nan"),)])
def test_scales_that_cannot_be(scales: tuple[float, ...]) -> None:
    with pytest.raises(EyelineError, match=r"factors from 0\.1 to 10"):
        augmented_logits(Toy(), torch.rand(1, 3, 8, 8), scales)


def test_as_a_model() -> None:
    model, images = Toy().eval(), torch.rand(1, 3, 20, 20)
    augmented = AugmentedSegmenter(model, (0.5, 1.0))
    assert not augmented.training and augmented.channels == 3
    assert list(augmented.classes) == ["a", "b", "c", "d"]
    assert torch.equal(augmented(images), augmented_logits(model, images, (0.5, 1.0)))
